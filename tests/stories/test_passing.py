"""What is passed on for one client alone: methods, bodies, interim answers, tunnels, circles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from edge.serving.exchange import HALF_CLOSED_S
from tests.stories.wire import TruncatedError, written
from tests.stories.world import settings, told

if TYPE_CHECKING:
    from tests.stories.world import Asked, Client, Edge, ScriptedOrigin

FRESH = {"Cache-Control": "max-age=60"}


@pytest.mark.parametrize(
    ("status", "survives"), [(200, False), (204, False), (303, False), (404, True), (500, True)]
)
async def test_an_unsafe_method_that_succeeds_puts_out_what_is_stored(
    origin: ScriptedOrigin, client: Client, status: int, survives: bool
) -> None:
    for target in ("/a", "/list"):
        await told(origin, client.send("GET", target), 200, FRESH, b"old")
    place = {"Location": "/list"}
    await told(origin, client.send("POST", "/a", body=b"new"), status, place)
    for target in ("/a", "/list"):
        if survives:
            assert (await client.get(target)).body == b"old"
        else:
            got = await told(origin, client.send("GET", target), 200, FRESH, b"new")
            assert got.body == b"new"


async def test_interim_answers_reach_leader_and_followers(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    crowd = [client.send("GET", "/a") for _ in range(3)]
    asked = await origin.next_request()
    await edge.settle()
    hints = {"Link": "</s.css>; rel=preload", "Connection": "X-Hop", "X-Hop": "1"}
    await asked.interim(103, hints)
    await edge.settle()
    late = client.send("GET", "/a")
    await edge.settle()
    await asked.interim(103, {"Link": "</t.css>; rel=preload"})
    await asked.reply(200, FRESH, b"body")
    for each in (*crowd, late):
        got = await each.response()
        assert [one.headers["link"][:4] for one in got.interims] == ["</s.", "</t."]
        assert "x-hop" not in got.interims[0].headers
        assert got.body == b"body"
    assert (await client.get("/a")).interims == []  # never stored


async def test_a_client_of_http_1_0_gets_no_interim_answer(
    origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    await wire.send(b"GET /a HTTP/1.0\r\nHost: site.example\r\n\r\n")
    asked = await origin.next_request()
    await asked.interim(103)
    await asked.start_reply(200, FRESH)
    await asked.send_chunk(b"body")
    await asked.end()
    reply = await wire.reply()
    assert (reply.interims, reply.body, await wire.rest()) == ([], b"body", b"")
    assert "transfer-encoding" not in reply.headers


async def test_where_a_client_of_http_1_0_names_no_host_the_origin_is_asked_by_its_own(
    origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    await wire.send(b"GET /a HTTP/1.0\r\n\r\n")
    asked = await origin.next_request()
    assert asked.headers["host"] == "origin.example"
    await asked.reply(200, FRESH, b"body")
    assert (await wire.reply()).body == b"body"


UPGRADE = {"Connection": "Upgrade", "Upgrade": "chat"}


async def test_a_change_of_protocols_becomes_a_tunnel_both_ways(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    await wire.send(written("GET /chat HTTP/1.1", {"Host": "site.example", **UPGRADE}, b"early"))
    asked = await origin.next_request()
    assert asked.headers["upgrade"] == "chat"
    await asked.wire.send(written("HTTP/1.1 101 Yes", UPGRADE, b"hello"))
    reply = await wire.reply_head()
    assert (reply.status, reply.headers["upgrade"]) == (101, "chat")
    assert await wire.exactly(5) == b"hello"
    assert await asked.wire.exactly(5) == b"early"
    for word in (b"ping", b"pong"):
        await wire.send(word)
        assert await asked.wire.exactly(4) == word
        await asked.wire.send(word)
        assert await wire.exactly(4) == word
    await wire.line.send_eof()
    assert await asked.wire.more() == b""
    await asked.wire.send(b"last words")
    asked.close()
    assert await wire.rest() == b"last words"
    wire.close()
    await edge.settle()
    assert (edge.records[-1].status, edge.records[-1].error) == (101, None)
    assert edge.connections.statistics().open == 0


async def test_a_tunnel_in_which_no_one_speaks_is_closed(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/chat", UPGRADE)
    asked = await origin.next_request()
    await asked.wire.send(written("HTTP/1.1 101 Yes", UPGRADE))
    await pending.wire.reply_head()
    assert await pending.wire.rest() == b""
    await asked.wait_left()
    assert edge.complaints == []


async def test_a_tunnel_that_the_origin_breaks_off_is_broken_off(
    origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/chat", UPGRADE)
    asked = await origin.next_request()
    await asked.wire.send(written("HTTP/1.1 101 Yes", UPGRADE))
    await pending.wire.reply_head()
    asked.break_off()
    with pytest.raises(TruncatedError):
        await pending.wire.rest()


async def test_an_upgrade_refused_leaves_what_follows_a_request(
    origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    first = written("GET /chat HTTP/1.1", {"Host": "site.example", **UPGRADE})
    await wire.send(first + written("GET /b HTTP/1.1", {"Host": "site.example"}))
    await (await origin.next_request()).reply(200, {}, b"no")
    assert (await wire.reply()).body == b"no"
    asked = await origin.next_request()
    assert asked.target == "/b"
    await asked.reply(200, {}, b"b")
    assert (await wire.reply()).body == b"b"


async def test_an_offer_of_h2c_is_never_passed_on(origin: ScriptedOrigin, client: Client) -> None:
    offer = {
        "Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk",
    }  # fmt: skip
    pending = client.send("GET", "/a", offer)
    asked = await origin.next_request()
    assert not {"upgrade", "http2-settings"} & {name for name, _ in asked.headers.pairs}
    await asked.reply(200, {}, b"")
    assert (await pending.response()).status == 200


async def test_a_101_that_no_one_asked_for_is_a_bad_answer(
    origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a")
    await (await origin.next_request()).wire.send(written("HTTP/1.1 101 Yes", UPGRADE))
    assert (await pending.response()).status == 502


async def test_a_client_that_waits_for_continue_is_told_to_go_on(
    origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    fields = {"Host": "site.example", "Content-Length": "4", "Expect": "100-continue"}
    await wire.send(written("PUT /a HTTP/1.1", fields))
    words, _ = await wire.head() or ([], None)
    assert words[1] == b"100"
    asked = await origin.next_request()
    assert "expect" not in asked.headers
    await wire.send(b"body")
    assert await asked.body() == b"body"
    await asked.reply(201)
    assert (await wire.reply()).status == 201


async def test_a_request_body_is_passed_on_as_fast_as_the_origin_takes_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    size = 1 << 20
    pending = client.send("POST", "/a", body=bytes(size), capacity=1 << 14)
    asked = await origin.next_request()
    await edge.settle()
    under_way = len(asked.wire.line._in.data)
    assert under_way < 1 << 17  # it stands still, as the origin does not read
    assert len(await asked.body()) == size
    await asked.reply(200, {}, b"thanks")
    assert (await pending.response()).body == b"thanks"


async def test_a_chunked_request_body_arrives_whole(
    origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    fields = {"Host": "site.example", "Transfer-Encoding": "chunked"}
    await wire.send(written("POST /a HTTP/1.1", fields, b"3\r\nabc\r\n"))
    asked = await origin.next_request()
    await wire.send(b"3\r\ndef\r\n0\r\n\r\n")
    assert await asked.body() == b"abcdef"
    await asked.reply(200)
    assert (await wire.reply()).status == 200


async def test_a_request_body_that_turns_bad_breaks_the_origins_connection_off(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    fields = {"Host": "site.example", "Transfer-Encoding": "chunked"}
    await wire.send(written("POST /a HTTP/1.1", fields, b"3\r\nabc\r\n"))
    asked = await origin.next_request()
    await edge.settle()
    await wire.send(b"-1\r\n")
    assert (await wire.reply()).status == 400
    with pytest.raises(TruncatedError):
        await asked.body()
    asked.done.set()


async def test_an_origin_that_answers_before_the_body_has_come_is_heard(
    origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("POST", "/a", {"Content-Length": "100000"}, b"begin")
    asked = await origin.next_request()
    await asked.reply(403, {}, b"no")
    assert (await pending.response()).status == 403


@settings("limits.request_body=10KiB")
async def test_a_body_that_says_it_is_too_large_is_refused_before_the_origin_hears_of_it(
    origin: ScriptedOrigin, client: Client
) -> None:
    answer = await client.send("POST", "/a", body=bytes(10_241)).response()
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert origin.unasked


@settings("limits.request_body=10KiB")
async def test_a_body_that_turns_out_too_large_is_refused(
    origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    fields = {"Host": "site.example", "Transfer-Encoding": "chunked"}
    await wire.send(written("POST /a HTTP/1.1", fields))
    asked = await origin.next_request()
    await wire.send(b"2801\r\n" + bytes(0x2801))
    assert (await wire.reply()).status == 413
    await asked.wait_left()


async def test_a_body_that_comes_too_slowly_is_a_408(
    origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("POST", "/a", {"Content-Length": "9"}, b"abc")
    asked = await origin.next_request()
    assert (await pending.response()).status == 408
    assert await pending.wire.rest() == b""
    await asked.wait_left()


async def test_what_the_origin_sees_names_us_and_the_client(
    origin: ScriptedOrigin, client: Client
) -> None:
    forged = {
        "X-Forwarded-For": "10.0.0.1", "X-Original-URL": "/admin", "X-HTTP-Method-Override": "PUT",
        "Via": "1.0 before", "X-Own": "kept", "Connection": "X-Gone", "X-Gone": "1",
    }  # fmt: skip
    pending = client.send("GET", "/a", forged)
    asked = await origin.next_request()
    assert asked.headers["via"] == "1.0 before, 1.1 edge1"
    assert asked.headers["cdn-loop"] == "edge1"
    assert asked.headers["x-forwarded-for"] == "198.51.100.1"
    assert asked.headers["x-own"] == "kept"
    assert not {"x-original-url", "x-http-method-override", "x-gone"} & {
        name for name, _ in asked.headers.pairs
    }
    await asked.reply(200, {**FRESH, "Connection": "X-Hop", "X-Hop": "1"}, b"")
    answer = await pending.response()
    assert answer.headers["via"] == "1.1 edge1"
    assert "x-hop" not in answer.headers


async def test_a_field_that_connection_names_cannot_choose_a_variant(
    origin: ScriptedOrigin, client: Client
) -> None:
    varied = {**FRESH, "Vary": "X-Kind"}
    hidden = {"X-Kind": "evil", "Connection": "X-Kind"}
    pending = client.send("GET", "/a", hidden)
    asked = await origin.next_request()
    assert "x-kind" not in asked.headers
    await asked.reply(200, varied, b"without a kind")
    await pending.response()
    assert (await client.get("/a")).body == b"without a kind"
    own = await told(origin, client.send("GET", "/a", {"X-Kind": "evil"}), 200, varied, b"evil's")
    assert own.body == b"evil's"


async def test_a_circle_is_broken(origin: ScriptedOrigin, client: Client) -> None:
    for loop in ({"CDN-Loop": "other, edge1; v=1"}, {"Via": "1.1 edge1"}):
        assert (await client.get("/a", loop)).status == 508
    assert origin.unasked


async def test_max_forwards_ends_a_request_here(origin: ScriptedOrigin, client: Client) -> None:
    answer = await client.send("OPTIONS", "/a", {"Max-Forwards": "0"}).response()
    assert answer.status == 200
    assert origin.unasked


@settings("cache.store_post=true")
async def test_a_post_that_names_its_own_url_serves_later_gets(
    origin: ScriptedOrigin, client: Client
) -> None:
    fields = {**FRESH, "Content-Location": "/a"}
    posted = await told(origin, client.send("POST", "/a", body=b"q"), 200, fields, b"answer")
    assert posted.body == b"answer"
    assert (await client.get("/a")).body == b"answer"


async def test_the_origins_connection_is_used_again_after_a_large_answer_to_a_post(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    for length in (None, "3000000"):
        pending = client.send("POST", "/a", body=b"q", capacity=1 << 20)
        asked = await origin.next_request()
        await asked.start_reply(200, {"Content-Length": length} if length else {})
        origin.nursery.start_soon(_say_at_length, asked)
        assert len((await pending.response()).body) == 3_000_000
    assert len(origin.connections) == 1


async def _say_at_length(asked: Asked) -> None:
    for _ in range(60):
        await asked.send_chunk(bytes(50_000))
    await asked.end()


async def test_an_origin_is_not_held_for_a_client_who_has_gone(
    origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("POST", "/slow", body=b"order")
    asked = await origin.next_request()
    assert await asked.body() == b"order"
    pending.leave()
    await asked.wait_left()


async def test_a_client_that_has_only_ended_its_side_gets_its_answer(
    origin: ScriptedOrigin, client: Client
) -> None:
    wire = client.connect()
    await wire.send(written("DELETE /a HTTP/1.1", {"Host": "site.example"}))
    await wire.line.send_eof()
    asked = await origin.next_request()
    await trio.sleep(HALF_CLOSED_S - 0.1)
    await asked.reply(200, {}, b"gone")
    assert (await wire.reply()).body == b"gone"
