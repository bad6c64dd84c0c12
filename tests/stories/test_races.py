"""Two things at once: what is changed, dropped or left while something else is on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stories.wire import TruncatedError
from tests.stories.world import told

if TYPE_CHECKING:
    from tests.stories.world import Client, Edge, ScriptedOrigin

FRESH = {"Cache-Control": "max-age=60"}


async def test_a_304_finds_its_answer_although_that_became_whole_meanwhile(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    first = client.send("GET", "/a")
    slow = await origin.next_request()
    await slow.start_reply(200, {"Cache-Control": "no-cache", "ETag": '"1"'})
    await slow.send_chunk(b"begin")
    await edge.settle()
    second = client.send("GET", "/a")
    asked = await origin.next_request()
    assert asked.headers["if-none-match"] == '"1"'
    await slow.send_chunk(b" end")
    await slow.end()
    assert (await first.response()).body == b"begin end"
    await edge.settle()
    await asked.reply(304, {"ETag": '"1"'})
    got = await second.response()
    assert (got.status, got.body) == (200, b"begin end")
    third = await told(origin, client.send("GET", "/a"), 304, {"ETag": '"1"'})
    assert third.body == b"begin end"


async def test_who_joins_a_background_fetch_that_turns_out_private_gets_an_answer_of_its_own(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    stale = {"Cache-Control": "max-age=10, stale-while-revalidate=5, stale-if-error=0"}
    await told(origin, client.send("GET", "/a"), 200, stale, b"old")
    edge.advance(12)
    assert (await client.get("/a")).body == b"old"
    behind = await origin.next_request()
    edge.advance(10)
    late = client.send("GET", "/a")
    await edge.settle()
    assert origin.unasked
    await behind.reply(200, {"Cache-Control": "private"}, b"someone's")
    got = await told(origin, late, 200, {"Cache-Control": "private"}, b"yours")
    assert (got.status, got.body) == (200, b"yours")


async def test_followers_whose_leader_has_left_go_on_their_own_after_a_private_answer(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    leader = client.send("GET", "/a")
    asked = await origin.next_request()
    followers = [client.send("GET", "/a") for _ in range(3)]
    await edge.settle()
    leader.leave()
    await asked.interim(103, {"Link": "</s.css>"})  # at which the leader's absence shows
    await edge.settle()
    await asked.reply(200, {"Cache-Control": "private"}, b"nobody's")
    for _ in followers:
        await (await origin.next_request()).reply(200, {"Cache-Control": "private"}, b"own")
    for follower in followers:
        assert (await follower.response()).body == b"own"


async def test_what_was_asked_before_a_write_is_not_given_to_who_asks_after_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    early = client.send("GET", "/a")
    before = await origin.next_request()
    await told(origin, client.send("POST", "/a", body=b"new"), 204)
    late = client.send("GET", "/a")
    after = await origin.next_request()
    await before.reply(200, FRESH, b"old")
    assert (await early.response()).body == b"old"
    await after.reply(200, FRESH, b"new")
    assert (await late.response()).body == b"new"
    assert (await client.get("/a")).body == b"new"


async def test_what_was_asked_before_a_write_is_not_stored_after_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    early = client.send("GET", "/a")
    before = await origin.next_request()
    await told(origin, client.send("POST", "/a", body=b"new"), 204)
    await before.reply(200, FRESH, b"old")
    assert (await early.response()).body == b"old"
    got = await told(origin, client.send("GET", "/a"), 200, FRESH, b"new")
    assert got.body == b"new"


async def test_a_304_that_was_asked_for_before_a_write_revives_nothing(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, {**FRESH, "ETag": '"1"'}, b"old")
    edge.advance(100)
    early = client.send("GET", "/a")
    before = await origin.next_request()
    await told(origin, client.send("PUT", "/a", body=b"new"), 204)
    await before.reply(304, {**FRESH, "ETag": '"1"'})
    assert (await early.response()).body == b"old"
    got = await told(origin, client.send("GET", "/a"), 200, FRESH, b"new")
    assert got.body == b"new"


async def test_a_304_may_bring_a_vary_that_holds_from_then_on(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    one, two = {"X-Kind": "one"}, {"X-Kind": "two"}
    await told(origin, client.send("GET", "/a", one), 200, {**FRESH, "ETag": '"1"'}, b"one")
    edge.advance(100)
    fresh = {**FRESH, "ETag": '"1"', "Vary": "X-Kind"}
    await told(origin, client.send("GET", "/a", one), 304, fresh)
    assert (await client.get("/a", one)).body == b"one"
    varied = {**FRESH, "Vary": "X-Kind"}
    got = await told(origin, client.send("GET", "/a", two), 200, varied, b"two")
    assert got.body == b"two"
    assert (await client.get("/a", one)).body == b"one"
    assert (await client.get("/a", two)).body == b"two"


async def test_two_variants_in_flight_are_both_kept(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    varied = {**FRESH, "Vary": "X-Kind"}
    pending = {kind: client.send("GET", "/a", {"X-Kind": kind}) for kind in ("one", "two")}
    for _ in pending:
        asked = await origin.next_request()
        await asked.reply(200, varied, asked.headers["x-kind"].encode())
        await edge.settle()
    for kind, each in pending.items():
        assert (await each.response()).body == kind.encode()
        assert (await client.get("/a", {"X-Kind": kind})).body == kind.encode()


async def test_a_range_of_what_is_still_coming_waits_for_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    first = client.send("GET", "/a")
    asked = await origin.next_request()
    await asked.start_reply(200, {**FRESH, "Content-Length": "10"})
    await asked.send_chunk(b"0123")
    await edge.settle()
    part = client.send("GET", "/a", {"Range": "bytes=6-7"})
    await edge.settle()
    await asked.send_chunk(b"456789")
    await asked.end()
    got = await part.response()
    assert (got.status, got.body) == (206, b"67")
    assert (await first.response()).body == b"0123456789"


async def test_an_origin_that_aborts_while_a_crowd_reads_slowly_breaks_all_of_it_off(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    crowd = [client.send("GET", "/a", capacity=1 << 12) for _ in range(300)]
    asked = await origin.next_request()
    await asked.start_reply(200, {**FRESH, "Content-Length": "1000000"})
    await asked.send_chunk(bytes(500_000))
    await edge.settle()
    for each in crowd[:100]:
        each.leave()
    asked.break_off()
    for each in crowd[100:]:
        with pytest.raises(TruncatedError):
            await each.response()
    await edge.settle()
    assert len(edge.records) == 300
    got = await told(origin, client.send("GET", "/a"), 200, FRESH, b"whole")
    assert got.body == b"whole"


async def test_the_last_answer_of_a_draining_node_says_that_it_is_the_last(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a")
    asked = await origin.next_request()
    edge.connections.drain()
    await asked.reply(200, {}, b"last")
    answer = await pending.response()
    assert (answer.body, answer.headers.get("connection")) == (b"last", "close")
    assert await pending.wire.rest() == b""


async def test_who_is_cut_off_at_the_end_of_draining_is_in_the_log_as_such(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    waits, reads = client.send("POST", "/a"), client.send("POST", "/b")
    for _ in range(2):
        asked = await origin.next_request()
        if asked.target == "/b":
            await asked.start_reply(200)
            await asked.send_chunk(b"begin")
    await edge.settle()
    edge.stop()
    await edge.settle()
    assert {(one.target, one.status, one.error) for one in edge.records} == {
        ("/a", 503, "draining"),
        ("/b", 200, "draining"),
    }
    for each in (waits, reads):
        with pytest.raises(TruncatedError):
            await each.response()
