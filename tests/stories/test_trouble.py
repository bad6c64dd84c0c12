"""Stale answers, and what is told when the origin fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge.errors import ExchangeError, Failure
from tests.stories.wire import TruncatedError
from tests.stories.world import settings, told

if TYPE_CHECKING:
    from tests.stories.wire import Reply
    from tests.stories.world import Client, Edge, ScriptedOrigin

FRESH = {"Cache-Control": "max-age=60", "ETag": '"1"'}


async def test_a_304_makes_what_is_stored_fresh_again(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, {**FRESH, "X-A": "1"}, b"body")
    edge.advance(61)
    pending = client.send("GET", "/a")
    asked = await origin.next_request()
    assert asked.headers["if-none-match"] == '"1"'
    await asked.reply(304, {**FRESH, "X-A": "2"})
    renewed = await pending.response()
    assert (renewed.status, renewed.body, renewed.headers["x-a"]) == (200, b"body", "2")
    assert renewed.cache == "fwd=stale; fwd-status=304; ttl=60; detail=freshened"
    assert (await client.get("/a")).headers["x-a"] == "2"
    assert [record.cache.value for record in edge.records] == ["miss", "revalidated", "hit"]


async def test_a_304_for_another_tag_is_asked_again_without_conditions(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"old")
    edge.advance(61)
    pending = client.send("GET", "/a")
    await (await origin.next_request()).reply(304, {"ETag": '"9"'})
    asked = await origin.next_request()
    assert "if-none-match" not in asked.headers
    await asked.reply(200, {"Cache-Control": "max-age=60", "ETag": '"9"'}, b"new")
    assert (await pending.response()).body == b"new"
    assert (await client.get("/a")).body == b"new"


async def test_stale_while_revalidate_serves_at_once_and_fetches_once_as_nobody(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    window = {"Cache-Control": "max-age=60, stale-while-revalidate=60", "Vary": "Accept-Language"}
    own = {"Cookie": "id=1", "Authorization": "Basic eDp5", "Accept-Language": "de"}
    public = {**window, "Cache-Control": "public, " + window["Cache-Control"]}
    await told(origin, client.send("GET", "/a", own), 200, public, b"old")
    edge.advance(61)
    for _ in range(3):
        stale = await client.get("/a", own)
        assert (stale.body, stale.cache) == (b"old", "hit; ttl=-1; detail=stale-while-revalidate")
    asked = await origin.next_request()
    assert asked.headers["accept-language"] == "de"
    assert "cookie" not in asked.headers
    assert "authorization" not in asked.headers
    await asked.reply(200, public, b"new")
    await edge.settle()
    assert (await client.get("/a", own)).body == b"new"
    assert origin.unasked


async def test_a_background_fetch_is_bounded_though_no_one_reads_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    window = {"Cache-Control": "max-age=60, stale-while-revalidate=60"}
    await told(origin, client.send("GET", "/a"), 200, window, b"old")
    edge.advance(61)
    await client.get("/a")
    asked = await origin.next_request()
    await asked.start_reply(200, window)
    with pytest.raises(Exception, match=r"gone|ended"):
        for _ in range(2_000):
            await asked.send_chunk(bytes(65_000))
    asked.done.set()
    await edge.settle()
    assert (await client.get("/a")).body == b"old"
    (await origin.next_request()).break_off()


TROUBLES = ["refused", "silence", "reset", "503"]


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_an_origin_in_trouble_is_covered_for_with_what_is_stale(
    edge: Edge, origin: ScriptedOrigin, client: Client, trouble: str
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"old")
    edge.advance(61)
    stale = await _in_trouble(origin, client, trouble)
    assert (stale.status, stale.body) == (200, b"old")
    assert stale.cache.endswith("detail=stale-if-error")
    assert "warning" not in stale.headers


@pytest.mark.parametrize(
    ("trouble", "status"), list(zip(TROUBLES, [502, 504, 502, 503], strict=True))
)
async def test_must_revalidate_is_never_served_stale(
    edge: Edge, origin: ScriptedOrigin, client: Client, trouble: str, status: int
) -> None:
    strict = {"Cache-Control": "max-age=60, must-revalidate", "ETag": '"1"'}
    await told(origin, client.send("GET", "/a"), 200, strict, b"old")
    edge.advance(61)
    failed = await _in_trouble(origin, client, trouble)
    assert failed.status == status
    assert b"old" not in failed.body


async def _in_trouble(origin: ScriptedOrigin, client: Client, trouble: str) -> Reply:
    if trouble == "refused":
        for line in origin.connections:
            line.close()
        origin.trouble = ExchangeError(Failure.CONNECT_REFUSED, retry=True)
    pending = client.send("GET", "/a")
    if trouble == "reset":
        (await origin.next_request()).break_off()
        (await origin.next_request()).break_off()  # a reused connection: tried once more
    elif trouble == "silence":
        await origin.next_request()
    elif trouble == "503":
        await (await origin.next_request()).reply(503, {}, b"down")
    return await pending.response()


async def test_a_503_with_a_lifetime_of_its_own_does_not_put_out_what_may_cover_for_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"old")
    edge.advance(61)
    down = {"Cache-Control": "max-age=5"}
    stale = await told(origin, client.send("GET", "/a"), 503, down, b"down")
    assert stale.body == b"old"


async def test_an_origin_that_breaks_off_breaks_the_client_off_and_nothing_is_stored(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"old")
    edge.advance(61)
    pending = client.send("GET", "/a")
    asked = await origin.next_request()
    await asked.start_reply(200, {**FRESH, "Content-Length": "10"})
    await asked.send_chunk(b"half")
    await pending.wire.reply_head()
    asked.break_off()
    with pytest.raises(TruncatedError):
        await pending.wire.exactly(10)
    assert edge.records[-1].error == "body-truncated"

    again = client.send("GET", "/a")
    asked = await origin.next_request()
    assert asked.headers["if-none-match"] == '"1"'  # the old one is still there
    await asked.reply(304, FRESH)
    assert (await again.response()).body == b"old"


async def test_a_chunked_body_that_just_ends_is_not_whole(
    origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a")
    asked = await origin.next_request()
    await asked.start_reply(200, FRESH)
    await asked.send_chunk(b"half")
    await pending.wire.reply_head()
    assert await pending.wire.chunk() == b"half"
    asked.close()
    with pytest.raises(TruncatedError):
        await pending.wire.chunk()


async def test_trouble_of_an_origin_is_told_with_an_id_and_nothing_else(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    origin.trouble = ExchangeError(Failure.CONNECT_REFUSED, "10.0.0.1 refused", retry=True)
    failed = await client.get("/a")
    assert (failed.status, failed.body) == (502, b"502 Bad gateway\nrequest id-1\n")
    assert failed.cache == "fwd=uri-miss; detail=connect-refused"
    assert edge.complaints == [("connect-refused", "10.0.0.1 refused")]


@settings("origin.default.timeouts.connect=1s")
async def test_an_origin_that_cannot_be_reached_in_time_is_a_504(
    origin: ScriptedOrigin, client: Client
) -> None:
    origin.silent = True
    assert (await client.get("/a")).status in (503, 504)


async def test_a_pooled_connection_that_died_costs_no_one_an_error(
    origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, {}, b"1")
    pending = client.send("GET", "/b")
    asked = await origin.next_request()
    asked.break_off()  # before a byte of the answer, on a connection used before
    await (await origin.next_request()).reply(200, {}, b"2")
    assert (await pending.response()).body == b"2"
    assert len(origin.connections) == 2


async def test_a_post_on_a_dead_pooled_connection_is_not_sent_twice(
    origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, {}, b"1")
    pending = client.send("POST", "/b", body=b"order")
    asked = await origin.next_request()
    assert await asked.body() == b"order"
    asked.break_off()
    assert (await pending.response()).status == 502
    assert origin.unasked


@pytest.mark.parametrize("status", [206, 304])
async def test_a_part_or_a_304_that_nobody_asked_for_is_a_bad_answer(
    origin: ScriptedOrigin, client: Client, status: int
) -> None:
    fields = {"Content-Range": "bytes 0-1/9"} if status == 206 else {"ETag": '"1"'}
    answer = await told(origin, client.send("GET", "/a"), status, fields, b"")
    assert answer.status == 502
