"""Many who ask for the same at once: flights, and whom they may carry."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.stories.wire import TruncatedError
from tests.stories.world import told

if TYPE_CHECKING:
    from tests.stories.world import Client, Edge, ScriptedOrigin

FRESH = {"Cache-Control": "max-age=60"}


async def test_a_hundred_followers_read_as_the_leaders_bytes_arrive(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    crowd = [client.send("GET", "/a") for _ in range(101)]
    asked = await origin.next_request()
    await edge.settle()
    await asked.start_reply(200, FRESH)
    for word in (b"one", b"two"):
        await asked.send_chunk(word)
        for each in crowd:
            if word == b"one":
                await each.wire.reply_head()
            assert await each.wire.chunk() == word
    await asked.end()
    for each in crowd:
        assert await each.wire.chunk() == b""
    assert origin.unasked
    assert sum("collapsed" in record.reason for record in edge.records) == 0
    assert (await client.get("/a")).cache.startswith("hit")


async def test_a_latecomer_reads_from_the_first_byte(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    first = client.send("GET", "/a")
    asked = await origin.next_request()
    await asked.start_reply(200, FRESH)
    await asked.send_chunk(b"one")
    await first.wire.reply_head()
    late = client.send("GET", "/a")
    await late.wire.reply_head()
    assert await late.wire.chunk() == b"one"
    await asked.send_chunk(b"two")
    await asked.end()
    assert [await late.wire.chunk(), await late.wire.chunk()] == [b"two", b""]
    assert await first.wire.chunk() == b"one"


async def test_the_leader_leaves_and_the_fetch_goes_on(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    leader = client.send("GET", "/a")
    asked = await origin.next_request()
    follower = client.send("GET", "/a")
    await edge.settle()
    leader.leave()
    await asked.reply(200, FRESH, b"body")
    assert (await follower.response()).cache == "fwd=uri-miss; collapsed; ttl=60"


async def test_a_small_body_is_fetched_to_its_end_for_no_one(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    leader = client.send("GET", "/a")
    asked = await origin.next_request()
    await asked.start_reply(200, {**FRESH, "Content-Length": "6"})
    await asked.send_chunk(b"abc")
    await leader.wire.reply_head()
    leader.leave()
    await asked.send_chunk(b"def")
    await asked.end()
    await edge.settle()
    assert (await client.get("/a")).cache.startswith("hit")


@pytest.mark.parametrize("length", [None, str(1 << 33)], ids=["unknown", "huge"])
async def test_what_no_one_reads_any_more_is_stopped(
    edge: Edge, origin: ScriptedOrigin, client: Client, length: str | None
) -> None:
    leader = client.send("GET", "/a")
    asked = await origin.next_request()
    told_length = {"Content-Length": length} if length else {}
    await asked.start_reply(200, {**FRESH, **told_length})
    await asked.send_chunk(b"abc")
    await leader.wire.reply_head()
    leader.leave()
    with pytest.raises(Exception, match=r"gone|ended"):
        for _ in range(100):
            await asked.send_chunk(bytes(50_000))
    asked.done.set()
    await edge.settle()
    assert edge.store.statistics().filling == 0


async def test_an_uncacheable_answer_does_not_queue_those_who_come_after(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    crowd = [client.send("GET", "/a") for _ in range(3)]
    first = await origin.next_request()
    await edge.settle()
    await first.reply(200, {"Cache-Control": "private"}, b"leader's")
    others = [await origin.next_request() for _ in range(2)]  # at once, side by side
    for number, asked in enumerate(others):
        await asked.reply(200, {"Cache-Control": "private"}, b"%d" % number)
    bodies = [(await each.response()).body for each in crowd]
    assert sorted(bodies) == [b"0", b"1", b"leader's"]

    again = [client.send("GET", "/a") for _ in range(3)]  # and the key is remembered
    for asked in [await origin.next_request() for _ in again]:
        await asked.reply(200, {"Cache-Control": "private"}, b"own")
    for each in again:
        assert "collapsed" not in (await each.response()).cache


async def test_a_key_that_goes_alone_is_stored_as_soon_as_it_may_be(
    origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, {"Cache-Control": "private"}, b"1")
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"2")
    assert (await client.get("/a")).body == b"2"


async def test_a_crowd_of_two_languages_gets_each_its_own(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    crowd = {
        tongue: [client.send("GET", "/a", {"Accept-Language": tongue}) for _ in range(3)]
        for tongue in ("de", "fr")
    }
    for _ in crowd:
        asked = await origin.next_request()
        await edge.settle()
        tongue = asked.headers["accept-language"]
        await asked.reply(200, {**FRESH, "Vary": "Accept-Language"}, tongue.encode())
    for tongue, each in crowd.items():
        for one in each:
            assert (await one.response()).body == tongue.encode()
    assert origin.unasked


async def test_a_crowd_is_told_once_that_the_origin_failed(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    crowd = [client.send("GET", "/a") for _ in range(5)]
    asked = await origin.next_request()
    await edge.settle()
    asked.break_off()
    for each in crowd:
        assert (await each.response()).status == 502
    assert origin.unasked


async def test_an_answer_that_breaks_off_at_once_is_not_asked_for_again_and_again(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    crowd = [client.send("GET", "/a") for _ in range(3)]
    asked = await origin.next_request()
    await edge.settle()
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nContent-Length: 9\r\n\r\nabc"
    asked.wire.line.send_nowait(head)
    asked.close()
    for each in crowd:
        with suppress(TruncatedError):  # told by breaking off, at the latest
            assert (await each.response()).status == 502
    assert origin.unasked


async def test_a_purge_that_overtakes_a_fetch_is_not_undone_by_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    first = client.send("GET", "/a")
    early = await origin.next_request()
    await edge.purge(all=True)
    second = client.send("GET", "/a")  # must not wait for what was asked before the purge
    late = await origin.next_request()
    await early.reply(200, FRESH, b"old")
    assert (await first.response()).body == b"old"  # asked before the purge: allowed
    await late.reply(200, FRESH, b"new")
    assert (await second.response()).body == b"new"
    assert (await client.get("/a")).body == b"new"


async def test_what_was_stored_before_a_purge_is_neither_served_nor_validated(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, {**FRESH, "ETag": '"1"'}, b"old")
    await edge.purge(all=True)
    pending = client.send("GET", "/a")
    asked = await origin.next_request()
    assert "if-none-match" not in asked.headers
    await asked.reply(200, FRESH, b"new")
    assert (await pending.response()).body == b"new"


async def test_a_follower_goes_its_own_way_where_a_purge_came_before_the_head(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    leader = client.send("GET", "/a")
    asked = await origin.next_request()
    follower = client.send("GET", "/a")
    await edge.settle()
    await edge.purge(all=True)
    await asked.reply(200, FRESH, b"old")
    assert (await leader.response()).body == b"old"
    again = await origin.next_request()
    await again.reply(200, FRESH, b"new")
    assert (await follower.response()).body == b"new"
