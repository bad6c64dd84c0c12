"""A client's connection: order, patience, refusals, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.stories.wire import TruncatedError, written
from tests.stories.world import settings, told

if TYPE_CHECKING:
    from tests.stories.world import Client, Edge, ScriptedOrigin

HOST = {"Host": "site.example"}
FRESH = {"Cache-Control": "max-age=60"}


async def test_pipelined_requests_are_answered_in_order(
    origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/hit"), 200, FRESH, b"hit")
    wire = client.connect()
    targets = ("/a", "/hit", "/b", "/hit")
    await wire.send(b"".join(written(f"GET {target} HTTP/1.1", HOST) for target in targets))
    for target in targets:
        if target != "/hit":
            asked = await origin.next_request()
            assert asked.target == target
            await asked.reply(200, {}, target.encode())
        expected = b"hit" if target == "/hit" else target.encode()
        assert (await wire.reply()).body == expected


async def test_what_stands_before_a_bad_message_is_answered_and_nothing_behind_it(
    origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    bad = b"GET /b HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n"
    good = written("GET /a HTTP/1.1", HOST)
    await wire.send(good + bad + good)
    await (await origin.next_request()).reply(200, {}, b"a")
    assert (await wire.reply()).body == b"a"
    refused = await wire.reply()
    assert (refused.status, refused.headers["connection"]) == (400, "close")
    assert await wire.rest() == b""
    assert origin.unasked


async def test_a_client_of_http_1_0_is_answered_and_closed(
    origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    await wire.send(b"GET /a HTTP/1.0\r\nHost: site.example\r\n\r\n")
    await (await origin.next_request()).reply(200, {}, b"body")
    assert (await wire.reply()).body == b"body"
    assert await wire.rest() == b""


async def test_a_head_that_drips_is_a_408(edge: Edge, client: Client) -> None:
    wire = client.connect()

    async def drip() -> None:
        for octet in b"GET / HTTP/1.1\r\nHost: site":
            await wire.send(bytes([octet]))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        began = trio.current_time()
        assert (await wire.reply()).status == 408
        assert trio.current_time() - began == pytest.approx(10)
        assert await wire.rest() == b""
        nursery.cancel_scope.cancel()


async def test_a_connection_that_says_nothing_is_closed_in_time(client: Client) -> None:
    wire = client.connect()
    began = trio.current_time()
    assert await wire.rest() == b""
    assert trio.current_time() - began == pytest.approx(60)


async def test_an_idle_connection_waits_anew_after_each_request(
    origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a")
    await told(origin, pending, 200, FRESH, b"a")
    await trio.sleep(50)
    await pending.wire.send(written("GET /a HTTP/1.1", HOST))
    assert (await pending.response()).cache.startswith("hit")
    await trio.sleep(50)
    await pending.wire.send(written("GET /a HTTP/1.1", HOST))
    assert (await pending.response()).cache.startswith("hit")


async def test_a_client_that_never_reads_is_cut_while_the_origin_is_long_free(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a", capacity=1 << 12)
    body = bytes(500_000)
    asked = await origin.next_request()
    await asked.reply(200, FRESH, body)
    await edge.settle()
    assert edge.pool().idle == 1
    began = trio.current_time()
    await trio.sleep(40)
    with pytest.raises(TruncatedError):
        await pending.response()
    assert edge.records[-1].error == "send-timeout"
    assert edge.records[-1].total_s == pytest.approx(30)
    assert trio.current_time() - began == pytest.approx(40)
    assert (await client.get("/a")).body == body


async def test_a_client_that_is_gone_before_its_refusal_harms_no_one(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    wire.line.send_nowait(b"BAD\r\n\r\n")
    wire.line.abort()
    again = client.connect()
    again.line.send_nowait(b"BAD\r\n\r\n")
    again.close()
    await edge.settle()
    got = await told(origin, client.send("GET", "/a"), 200, FRESH, b"fine")
    assert got.body == b"fine"
    assert edge.connections.statistics().open == 1


async def test_a_client_that_does_not_read_its_refusal_is_given_up(
    edge: Edge, client: Client
) -> None:
    wire = client.connect(capacity=16)
    await wire.send(b"BAD\r\n\r\n")
    await trio.sleep(40)
    assert edge.connections.statistics().open == 0


async def test_a_client_that_leaves_in_the_middle_of_an_answer_is_noted(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a")
    asked = await origin.next_request()
    await asked.start_reply(200, {"Content-Length": "6"})
    await asked.send_chunk(b"abc")
    await pending.wire.reply_head()
    pending.leave()
    await asked.send_chunk(b"def")
    await edge.settle()
    assert edge.records[-1].error == "client-left"
    asked.done.set()


async def test_a_refusal_is_read_whole_although_the_body_was_not(client: Client) -> None:
    wire = client.connect()
    fields = {**HOST, "Content-Length": "100000", "X-Bad ": "1"}
    await wire.send(written("POST /a HTTP/1.1", fields, bytes(50_000)))
    assert (await wire.reply()).status == 400
    assert await wire.rest() == b""


@pytest.mark.parametrize("peer_keeps_open", [True, False])
async def test_draining_closes_the_idle_and_lets_the_others_finish(
    edge: Edge, origin: ScriptedOrigin, client: Client, peer_keeps_open: bool
) -> None:
    idle, fresh = client.connect(), client.connect()
    busy = client.send("GET", "/a")
    asked = await origin.next_request()
    await edge.settle()
    edge.connections.drain()
    assert await idle.rest() == b""
    if not peer_keeps_open:
        idle.close()
        fresh.close()
    late = client.connect()  # accepted before the listener closed
    assert await late.rest() == b""
    await asked.reply(200, FRESH, b"done")
    assert (await busy.response()).body == b"done"
    assert await busy.wire.rest() == b""
    await trio.sleep(3)  # what lingers has done so
    assert edge.connections.statistics().open == 0


@settings("limits.connections=2")
async def test_the_connection_idle_for_longest_gives_way(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    oldest, busy = client.connect(), client.send("GET", "/a")
    asked = await origin.next_request()
    assert edge.connections.has_room()
    assert await oldest.rest() == b""
    await edge.settle()
    assert edge.connections.statistics().open == 1
    beginner = client.connect()
    await edge.settle()
    await beginner.send(b"GET")
    await edge.settle()
    assert edge.connections.has_room()  # where none is idle, part of a head gives way
    with pytest.raises(TruncatedError):
        await beginner.rest()
    other = client.send("GET", "/b")
    also = await origin.next_request()
    assert not edge.connections.has_room()  # a request at work never does
    for each, pending in ((asked, busy), (also, other)):
        await each.reply(200, {}, b"done")
        assert (await pending.response()).body == b"done"
    await edge.settle()
    assert edge.connections.has_room()


async def test_a_host_that_is_not_ours_is_told_so_and_may_ask_for_another(
    origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    await wire.send(written("GET /a HTTP/1.1", {"Host": "site.example", "CDN-Loop": "edge1"}))
    assert (await wire.reply()).status == 508
    await wire.send(written("GET /a HTTP/1.1", HOST))
    await (await origin.next_request()).reply(200, {}, b"a")
    assert (await wire.reply()).body == b"a"


async def test_a_fault_of_ours_is_a_500_and_a_line_in_the_log(edge: Edge, client: Client) -> None:
    edge.exchange.parts.ways.groups.clear()  # type: ignore[attr-defined]
    assert (await client.get("/a")).status == 500
    assert edge.complaints == [("internal", "KeyError('default')")]
    assert (await client.get("/a")).status == 500
