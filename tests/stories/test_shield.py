"""A shield: edges ask it, and it asks the origin once for all of them; at home and by hop."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edge.guard.address import Networks
from edge.purging.backlog import Backlog
from edge.purging.envoy import Envoy
from edge.serving.shielding import Voice, claims_of, dress
from edge.upstream.origin import parse_origin
from edge.wire.hop import Forwarding
from edge.wire.message import Headers, RequestHead
from origin_shield.edges import Admission, BySecret, Entry
from origin_shield.used import Used
from tests.stories.line import Line
from tests.stories.world import settings, told

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edge.upstream.origin import Origin
    from tests.stories.wire import Reply
    from tests.stories.world import Client, Edge, Pending, ScriptedOrigin

VOICE = Voice(b"fra1", b"0123456789abcdef")
FRESH = {"Cache-Control": "max-age=60"}


class Edges:
    """What stands before the shield, as many as are needed, and all of one secret."""

    def __init__(self, node: Edge, client: Client) -> None:
        self._node, self._client = node, client
        self._ids = count(1)
        entry = Entry(Networks(), BySecret((VOICE.secret,), 60.0), 120.0)
        admission = Admission(entry, Used(), lambda: node.now)
        everyone = Networks.parse(["0.0.0.0/0"])
        site = node.exchange.parts.sites.find(b"site.example")
        assert site is not None
        open_site = replace(site, purge_from=everyone, purge_reach="node")
        sites = type(node.exchange.parts.sites)([(b"*", open_site)])
        parts = replace(node.exchange.parts, sites=sites, admit=admission.admit, remembers=False)
        for exchange in (node.exchange, node.entrance):
            exchange.parts = parts

    def dressed(
        self,
        method: str,
        target: str,
        /,
        fields: Mapping[str, str] | None = None,
        *,
        order: bool = False,
        **claims: Any,
    ) -> dict[str, str]:
        """The fields of a request, and its proof."""
        pairs = [(name.lower().encode(), v.encode()) for name, v in (fields or {}).items()]
        head = RequestHead(
            method.encode(), b"https", b"site.example", target.encode(), Headers(pairs)
        )
        path = Forwarding(VOICE.name, b"203.0.113.9", b"https", b"site.example")
        said = claims_of(VOICE, path, b"e-%d" % next(self._ids), **claims)
        signed = dress(head, replace(said, order=order), VOICE, self._node.now)
        return {name.decode(): value.decode() for name, value in signed.headers}

    def send(self, method: str, target: str, /, *, body: bytes = b"", **claims: Any) -> Pending:
        return self._client.send(method, target, self.dressed(method, target, **claims), body)

    async def get(self, target: str, /, **claims: Any) -> Reply:
        return await self.send("GET", target, **claims).response()


@pytest.fixture
def edges(edge: Edge, client: Client) -> Edges:
    return Edges(edge, client)


async def test_the_origin_is_asked_once_for_all_edges(
    edges: Edges, origin: ScriptedOrigin
) -> None:
    first, second = edges.send("GET", "/a"), edges.send("GET", "/a")
    await (await origin.next_request()).reply(200, FRESH, b"once")
    assert [(await each.response()).body for each in (first, second)] == [b"once"] * 2
    assert (await edges.get("/a")).cache == "hit; ttl=60"
    assert origin.unasked


async def test_strangers_get_nothing_of_what_is_stored(
    edges: Edges, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, edges.send("GET", "/a"), 200, FRESH, b"x")
    reply = await client.get("/a")
    assert (reply.status, reply.cache, reply.body[:3]) == (403, "detail=no-proof", b"403")
    assert reply.headers["connection"] == "close"


async def test_the_origin_is_told_of_the_visitor_and_not_of_the_proof(
    edges: Edges, origin: ScriptedOrigin, edge: Edge
) -> None:
    pending = edges.send("GET", "/a", fields={"X-Geo-Country": "DE", "Client-IP": "6.6.6.6"})
    asked = await origin.next_request()
    assert asked.headers["x-forwarded-for"] == "203.0.113.9, 198.51.100.1"
    assert asked.headers["x-forwarded-proto"] == "https"
    assert asked.headers["x-geo-country"] == "DE"
    assert "edge-proof" not in asked.headers
    await asked.reply(200, {**FRESH, "Vary": "X-Geo-Country"})
    await pending.response()
    assert (edge.records[-1].client, edge.records[-1].id) == ("203.0.113.9", "e-1")
    other = edges.send("GET", "/a", fields={"X-Geo-Country": "FR"})
    assert (await told(origin, other, 200, FRESH, b"fr")).body == b"fr"


async def test_an_answer_that_varies_on_the_proof_is_nobody_elses(
    edges: Edges, origin: ScriptedOrigin
) -> None:
    for number in range(2):
        body = b"%d" % number
        headers = {**FRESH, "Vary": "Edge-Proof"}
        assert (await told(origin, edges.send("GET", "/a"), 200, headers, body)).body == body


async def test_arms_are_kept_apart_and_purged_together(
    edges: Edges, origin: ScriptedOrigin, edge: Edge
) -> None:
    arm = {"key": b"arm", "target": b"/arm/a"}
    pending = edges.send("GET", "/a", **arm)
    asked = await origin.next_request()
    assert asked.target == "/arm/a"
    await asked.reply(200, FRESH, b"arm")
    await pending.response()
    await told(origin, edges.send("GET", "/a"), 200, FRESH, b"plain")
    assert [(await edges.get("/a", **each)).body for each in (arm, {})] == [b"arm", b"plain"]
    await edge.purge(url=["https://site.example/a"])
    again = await told(origin, edges.send("GET", "/a", **arm), 200, FRESH, b"new arm")
    assert again.body == b"new arm"


async def test_a_write_by_one_arm_is_seen_by_all(edges: Edges, origin: ScriptedOrigin) -> None:
    for claims in ({}, {"key": b"arm"}):
        await told(origin, edges.send("GET", "/a", **claims), 200, FRESH, b"old")
    await told(origin, edges.send("POST", "/a", body=b"x", key=b"arm"), 204)
    for claims in ({}, {"key": b"arm"}):
        reply = await told(origin, edges.send("GET", "/a", **claims), 200, FRESH, b"new")
        assert reply.body == b"new"


@settings("cache.store_post=true")
async def test_a_write_counts_once_and_not_once_for_each_worker(
    edges: Edges, origin: ScriptedOrigin, client: Client
) -> None:
    once = edges.dressed("POST", "/a")
    first = await told(origin, client.send("POST", "/a", once, b"x"), 200, {}, b"done")
    assert first.body == b"done"
    again = await client.send("POST", "/a", once, b"x").response()
    assert (again.status, again.cache) == (403, "detail=proof-used")
    assert origin.unasked


async def test_a_proof_that_is_late_is_refused(edges: Edges, client: Client, edge: Edge) -> None:
    signed = edges.dressed("GET", "/a")
    edge.advance(61)
    assert (await client.get("/a", signed)).cache == "detail=proof-expired"


async def test_an_edge_purges_for_all_hosts(edges: Edges, origin: ScriptedOrigin) -> None:
    tagged = {**FRESH, "Cache-Tag": "front"}
    await told(origin, edges.send("GET", "/a"), 200, tagged, b"old")
    fields = {"Content-Type": "application/json"}
    order = b'{"tag": ["front"]}'
    reply = await edges.send("PURGE", "/", body=order, fields=fields, order=True).response()
    assert reply.status == 200
    assert (await told(origin, edges.send("GET", "/a"), 200, tagged, b"new")).body == b"new"


@pytest.mark.parametrize("method", ["PURGE", "BAN", "PURGEKEYS"])
@pytest.mark.parametrize("body", [b'{"all": true}', b'{"host": ["site.example"]}', b""])
async def test_what_strangers_send_through_an_edge_purges_nothing(
    edges: Edges, origin: ScriptedOrigin, edge: Edge, method: str, body: bytes
) -> None:
    tagged = {**FRESH, "Cache-Tag": "front"}
    await told(origin, edges.send("GET", "/a"), 200, tagged, b"kept")
    fields = {"Content-Type": "application/json", "Surrogate-Key": "front"}
    pending = edges.send(method, "/b", body=body, fields=fields)
    await edge.settle()
    if not origin.unasked:  # as any other method
        await (await origin.next_request()).reply(404)
    assert (await pending.response()).status >= 400
    assert edge.purges.current().latest == 0
    assert (await edges.get("/a")).body == b"kept"


async def test_an_edge_purges_on_a_shield_by_whatever_name_it_has(
    edges: Edges, origin: ScriptedOrigin, edge: Edge, tmp_path: Path
) -> None:
    async def connect(_: Origin) -> Line:
        await trio.lowlevel.checkpoint()
        here, there = Line.pair()
        edge.accept(there)
        return here

    async def set_aside(url: str, why: str) -> None:
        raise AssertionError(f"{url}: {why}")

    ids = count(1)
    envoy = Envoy(
        Backlog(tmp_path, print),
        aside=set_aside,
        back=print,
        now=lambda: edge.now,
        new_id=lambda: f"purge-{next(ids)}",
        tell=print,
        connect=connect,
    )
    envoy.take_up([parse_origin("http://shield.example:7000")], VOICE)
    await told(origin, edges.send("GET", "/a"), 200, FRESH, b"old")
    assert await envoy.send(b'{"on":"other.example","host":["other.example"]}') == ()
    assert (await edges.get("/a")).body == b"old"
    assert await envoy.send(b'{"on":"site.example","url":["http://site.example/a"]}') == ()
    assert (await told(origin, edges.send("GET", "/a"), 200, FRESH, b"new")).body == b"new"
    (late,) = await envoy.send(b'{"url":["x"]}')
    assert (late.owed, late.why.partition(":")[0]) == (False, "it answered 400")


async def test_what_is_stale_stands_in_while_the_origin_is_down(
    edges: Edges, origin: ScriptedOrigin, edge: Edge
) -> None:
    await told(origin, edges.send("GET", "/a"), 200, FRESH, b"kept")
    edge.advance(600)
    pending = edges.send("GET", "/a")
    (await origin.next_request()).break_off()
    with_origin_down = await pending.response()
    assert (with_origin_down.status, with_origin_down.body) == (200, b"kept")


async def test_a_shield_says_that_it_is_alive(edges: Edges, origin: ScriptedOrigin) -> None:
    fields = {"Max-Forwards": "0"}
    assert (await edges.send("OPTIONS", "*", fields=fields).response()).status == 200
    assert origin.unasked
