"""Verdicts one by one; tests/stories holds them against what happens."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edge.cache.entry import Seq
from edge.config import policies
from edge.explain.question import Question
from edge.explain.verdict import Outlook, explain
from tests.stories.world import Client, Edge, ScriptedOrigin, a_world, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from edge.cache.purge import Purge

URL = b"http://site.example/a"
FRESH = {"Cache-Control": "max-age=60", "ETag": '"1"', "Last-Modified": "x", "xkey": "front"}


class Node:
    """A node in memory that can be asked."""

    def __init__(self, edge: Edge, origin: ScriptedOrigin, client: Client) -> None:
        self.edge, self.origin, self.client = edge, origin, client

    async def stored(self, *, target: str = "/a", **more: Any) -> None:
        """Have an answer stored for `target`."""
        sent = self.client.send("GET", target, more.get("asked"))
        await told(self.origin, sent, 200, {**FRESH, **more.get("headers", {})}, b"0123456789")
        await self.edge.settle()

    async def explain(self, *pairs: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
        question = Question(**{"url": URL, "fields": pairs, **more})
        policy = policies.connection_policy(self.edge.config)
        document = await explain(
            question, self.edge.tools, self.edge.exchange.parts, policy, self.recall
        )
        msgspec.json.encode(document)
        return document

    def recall(self, number: int) -> Purge | None:
        return next(
            (each for each in self.edge.journal.follower().recent() if each.number == number), None
        )

    async def verdict(self, *pairs: tuple[bytes, bytes], **more: Any) -> tuple[Any, ...]:
        verdict = (await self.explain(*pairs, **more))["verdict"]
        return verdict["outcome"], verdict["reason"], verdict["status"]


@asynccontextmanager
async def a_node(*sets: str) -> AsyncIterator[Node]:
    async with a_world(sets) as world:
        yield Node(*world)


SECTIONS = [
    "verdict", "coding", "request", "site", "key", "variant", "stored", "freshness", "purges",
    "decision", "flight", "route",
]  # fmt: skip


async def test_every_section_is_there_in_order(autojump_clock: MockClock) -> None:
    async with a_node() as node:
        assert list(await node.explain()) == SECTIONS
        refused = await node.explain(method=b"TRACE")
        assert list(refused) == SECTIONS
        assert [name for name in SECTIONS if refused[name] is not None] == ["verdict", "request"]


async def test_a_stored_answer_is_a_hit_with_its_own_status(autojump_clock: MockClock) -> None:
    async with a_node() as node:
        assert await node.verdict() == ("fetch", "uri-miss", None)
        await node.stored()
        assert await node.verdict() == ("hit", "hit", 200)
        assert await node.verdict((b"If-None-Match", b'"1"')) == ("hit", "hit", 304)
        assert await node.verdict((b"If-Match", b'"9"')) == ("hit", "hit", 412)
        assert await node.verdict((b"Range", b"bytes=1-2")) == ("hit", "hit", 206)
        assert await node.verdict((b"Range", b"bytes=99-")) == ("hit", "hit", 416)


async def test_a_stale_answer_is_served_validated_or_fetched(autojump_clock: MockClock) -> None:
    async with a_node("site.cache.honour_request_directives=true") as node:
        await node.stored(headers={"Cache-Control": "max-age=5, stale-while-revalidate=10"})
        node.edge.advance(10)
        behind = await node.explain()
        assert behind["verdict"]["outcome"] == "stale"
        assert behind["route"]["goes"] == "behind"
        assert behind["route"]["conditions"] == {"if-none-match": '"1"'}
        node.edge.advance(10)
        assert await node.verdict() == ("revalidate", "stale", None)
        assert await node.verdict(method=b"HEAD") == ("fetch", "stale", None)
        assert await node.verdict((b"Cache-Control", b"max-stale=90")) == (
            "stale", "stale-accepted", 200,
        )  # fmt: skip
        assert await node.verdict((b"Cache-Control", b"no-store")) == ("fetch", "request", None)
        assert await node.verdict((b"Cache-Control", b"only-if-cached")) == (
            "refuse", "only-if-cached", 504,
        )  # fmt: skip


async def test_what_has_no_validator_is_fetched(autojump_clock: MockClock) -> None:
    async with a_node() as node:
        sent = node.client.send("GET", "/a")
        await told(node.origin, sent, 200, {"Cache-Control": "max-age=5"}, b"x")
        node.edge.advance(10)
        assert await node.verdict() == ("fetch", "stale", None)


async def test_who_comes_while_a_fetch_is_under_way_joins_it(autojump_clock: MockClock) -> None:
    async with a_node() as node:
        first = node.client.send("GET", "/a")
        asked = await node.origin.next_request()
        document = await node.explain()
        assert document["route"]["goes"] == "joins"
        assert document["flight"]["aloft_s"] == 0.0
        await asked.reply(200, FRESH, b"x")
        await first.response()


async def test_a_range_far_ahead_of_what_has_come_goes_alone(autojump_clock: MockClock) -> None:
    async with a_node() as node:
        first = node.client.send("GET", "/a")
        asked = await node.origin.next_request()
        size = 9 << 20
        await asked.start_reply(200, {**FRESH, "Content-Length": str(size)})
        await node.edge.settle()
        document = await node.explain((b"Range", b"bytes=-2"))
        assert document["verdict"]["reason"] == "partial"
        assert document["route"]["goes"] == "alone"
        assert document["stored"]["where"] == "on its way"
        asked.break_off()
        first.leave()


@pytest.mark.parametrize(
    ("field", "outcome", "reason", "status"),
    [
        ((b"Content-Length", b"3"), "bypass", "body", None),
        ((b"Content-Length", b"9999999999"), "refuse", "body-too-large", 413),
        ((b"CDN-Loop", b"edge1"), "refuse", "loop", 508),
        ((b"Expect", b"more"), "refuse", "bad-expectation", 417),
        ((b"Bad Name", b"x"), "refuse", "bad-message", 400),
        ((b"Host", b"["), "refuse", "bad-host", 400),
    ],
)
async def test_fields_count_as_they_do_on_a_connection(
    field: tuple[bytes, bytes],
    outcome: str,
    reason: str,
    status: int | None,
    autojump_clock: MockClock,
) -> None:
    async with a_node() as node:
        assert await node.verdict(field) == (outcome, reason, status)


async def test_other_methods_and_protocols_go_past_the_store(autojump_clock: MockClock) -> None:
    async with a_node('site.rule=[{match={path="/live/*"},cache={bypass=true}}]') as node:
        assert await node.verdict(method=b"POST") == ("bypass", "method", None)
        live = await node.explain(url=b"http://site.example/live/x")
        assert live["verdict"]["reason"] == "bypass"
        assert live["site"]["rule"] == {"index": 0, "match": "path /live/*"}
        assert live["site"]["rules"] == 1
        upgrade = await node.explain((b"Connection", b"upgrade"), (b"Upgrade", b"websocket"))
        assert upgrade["verdict"]["reason"] == "upgrade"
        ends = (b"Max-Forwards", b"0")
        assert await node.verdict(ends, method=b"OPTIONS") == ("bypass", "method", 200)


async def test_a_purge_is_told_and_not_done(autojump_clock: MockClock) -> None:
    async with a_node('site.purge_from=["127.0.0.0/8"]') as node:
        document = await node.explain(
            (b"xkey", b"front"), (b"Fastly-Soft-Purge", b"1"), method=b"PURGE"
        )
        assert document["verdict"]["says"] == "would purge softly: tag front on site.example"
        assert (document["verdict"]["outcome"], document["verdict"]["status"]) == ("purge", 200)
        tags = b" ".join(b"t%d" % number for number in range(25))
        many = await node.explain((b"xkey", tags), method=b"PURGE")
        assert many["verdict"]["says"].endswith(", and 5 more")
        refused = await node.verdict((b"X-Ban-Url", b"."), method=b"PURGE")
        assert refused == ("purge", "purge", 400)
        assert node.edge.purges.current().latest == 0
        elsewhere = await node.verdict(method=b"PURGE", from_address=b"192.0.2.1")
        assert elsewhere == ("refuse", "method-refused", 405)


@pytest.mark.parametrize(
    ("sets", "more", "known"),
    [
        (
            ['site.purge_from=["127.0.0.1/32","2001:db8::/32","unix"]'],
            {"from_address": b"10.1.1.1"},
            "site.purge_from (unix, 127.0.0.1/32, 2001:db8::/32), and this client is 10.1.1.1",
        ),
        ([], {}, "site.purge_from, which is empty, and this client is 127.0.0.1"),
        (
            ['site.purge_from=["10.0.0.0/8"]', 'node.trusted_proxies=["10.0.0.0/8"]'],
            {"from_address": b"10.1.1.1", "fields": ((b"X-Forwarded-For", b"unknown"),)},
            "site.purge_from (10.0.0.0/8), and this client cannot be told for certain",
        ),
    ],
)
async def test_who_may_not_purge_is_told_who_may(
    sets: list[str], more: dict[str, Any], known: str, autojump_clock: MockClock
) -> None:
    async with a_node(*sets) as node:
        verdict = (await node.explain(method=b"PURGE", **more))["verdict"]
        assert verdict["says"] == f"refused: PURGE is known only to {known}"


async def test_a_purge_for_no_site_is_told_so(autojump_clock: MockClock) -> None:
    async with a_node('site.hosts=["site.example"]') as node:
        says = (await node.explain(url=b"http://other.example/", method=b"PURGE"))["verdict"][
            "says"
        ]
        assert says == "refused: no site has this host, and so none has PURGE"
        says = (await node.explain(method=b"TRACE"))["verdict"]["says"]
        assert says == "refused: this method is not for this client"


async def test_what_is_wrong_is_told_without_bytes_in_quotes(autojump_clock: MockClock) -> None:
    async with a_node() as node:
        document = await node.explain((b"Transfer-Encoding", b"gzip, 'x'"))
        assert document["verdict"]["says"].endswith(
            "(Transfer-Encoding \"gzip, 'x'\" in HTTP/1.1)"
        )


async def test_what_is_stored_and_dead_is_explained_by_its_purge(
    autojump_clock: MockClock,
) -> None:
    async with a_node() as node:
        await node.stored()
        await node.edge.purge(tag=["front"])
        document = await node.explain()
        assert document["verdict"]["reason"] == "uri-miss"
        assert document["stored"]["state"] == "purged"
        assert document["purges"]["tags"] == ["front"]
        (cover,) = document["purges"]["covering"]
        assert (cover["number"], cover["manner"], cover["scope"]) == (1, "hard", "tag front")
        assert (cover["who"], cover["when"]) == ("the story", node.edge.now)
        when = datetime.fromtimestamp(node.edge.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert document["verdict"]["says"] == (
            f"fetched from the origin: what is stored was purged (purge 1, {when}, the story)"
        )


async def test_a_purge_of_everything_is_told_by_that(autojump_clock: MockClock) -> None:
    async with a_node() as node:
        await node.stored()
        await node.edge.purge(all=True)
        (cover,) = (await node.explain())["purges"]["covering"]
        assert cover["scope"] == "everything"
        node.edge.purges.current().raise_floor(Seq(2))
        (cover,) = (await node.explain())["purges"]["covering"]
        assert cover["scope"] == "everything, or too much to be remembered"
        await node.edge.purge(url=["http://site.example/other"])
        node.edge.purges.current().raise_floor(Seq(3))


async def test_a_live_variant_that_is_not_selected_was_not_purged(
    autojump_clock: MockClock,
) -> None:
    async with a_node() as node:
        await node.stored(headers={"Vary": "x-v"})
        await node.edge.purge(tag=["other"])
        says = (await node.explain((b"x-v", b"1")))["verdict"]["says"]
        assert says.endswith("none of the stored variants is for its fields")


async def test_what_is_soft_purged_is_validated(autojump_clock: MockClock) -> None:
    async with a_node() as node:
        await node.stored()
        node.edge.advance(5)
        await node.edge.purge(url=[URL.decode()], soft=True)
        document = await node.explain()
        assert document["verdict"]["reason"] == "soft-purged"
        assert document["stored"]["state"] == "soft-purged"
        assert document["freshness"]["ended_early_s"] == 55.0
        says = document["verdict"]["says"]
        assert says.startswith(
            "validated with the origin: what is stored was soft-purged (purge 1, "
        )


async def test_https_is_known_by_a_trusted_proxys_word(autojump_clock: MockClock) -> None:
    secure = b"https://site.example/a"
    async with a_node('node.trusted_proxies=["127.0.0.0/8"]') as node:
        document = await node.explain(url=secure)
        assert document["key"]["url"] == "https://site.example/a"
        assert document["request"]["notes"] == []
        other = await node.explain(url=secure, from_address=b"192.0.2.1")
        assert other["key"]["url"] == "http://site.example/a"
        assert "192.0.2.1" in other["request"]["notes"][0]


async def test_by_default_no_purge_is_remembered_by_who_did_it(autojump_clock: MockClock) -> None:
    async with a_node() as node:
        await node.stored()
        await node.edge.purge(all=True)
        document = await explain(Question(URL), node.edge.tools, node.edge.exchange.parts)
        (cover,) = document["purges"]["covering"]
        assert (cover["who"], cover["scope"][:10]) == (None, "everything")
        assert document["verdict"]["says"].endswith("what is stored was purged (purge 1)")


async def test_a_redirect_is_told_with_where_to(autojump_clock: MockClock) -> None:
    rules = 'site.rule=[{ match = { path = "/a*" }, redirect = { to = "/b*", status = 301 } }]'
    async with a_node(rules) as node:
        assert await node.verdict() == ("redirect", "redirect", 301)
        document = await node.explain()
        assert document["verdict"]["says"].endswith(": http://site.example/b")
        assert document["decision"][-1] == "so: redirect, by its rule"
        assert document["route"] is None
        assert await node.verdict(url=b"http://site.example/c") == ("fetch", "uri-miss", None)


def test_a_verdict_has_four_members() -> None:
    outlook = replace(Outlook("hit", "hit", "fine"), status=200)
    assert list(outlook.document()) == ["outcome", "reason", "says", "status"]


async def test_who_is_sent_somewhere_else_is_told_where(autojump_clock: MockClock) -> None:
    rule = 'site.rule=[{match={path="/old/*"},redirect={to="/new/*",status=301}}]'
    async with a_node(rule) as node:
        sent_on = await node.explain(url=b"http://site.example/old/a")
        assert sent_on["verdict"] == {
            "outcome": "redirect",
            "reason": "redirect",
            "says": "answered here, by the rule that takes it, "
            "with where to go instead: http://site.example/new/a",
            "status": 301,
        }
        assert await node.verdict(url=b"http://site.example/a") == ("fetch", "uri-miss", None)


async def test_rules_that_wait_for_the_answers_type_are_told(autojump_clock: MockClock) -> None:
    rule = 'site.rule=[{match={content_type=["image/*","text/css"]},cache={ttl="5s"}}]'
    async with a_node(rule) as node:
        site = (await node.explain())["site"]
        assert site["cache"] == {}
        assert site["by_type"] == [{"types": ["image/*", "text/css"], "cache": {"ttl": 5.0}}]
