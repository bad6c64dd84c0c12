"""Experiments: their cookies are this node's own, and a write is seen by all their visitors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stories.world import settings, told

if TYPE_CHECKING:
    from tests.stories.wire import Reply
    from tests.stories.world import Client, Edge, ScriptedOrigin

FRESH = {"Cache-Control": "max-age=60"}
SAME_FOR_ALL = (
    'site.experiment=[{name="c",cookie={name="ab"},arms={old={weight=1},new={weight=1}}}]'
)
OLD, NEW = {"Cookie": "ab=old"}, {"Cookie": "ab=new"}


def cookies(reply: Reply) -> list[str]:
    return [value for name, value in reply.headers.pairs if name == "set-cookie"]


def directives(reply: Reply) -> list[str]:
    return [value for name, value in reply.headers.pairs if name == "cache-control"]


@settings(SAME_FOR_ALL)
async def test_who_brings_only_an_arms_cookie_brings_none_to_the_law(
    origin: ScriptedOrigin, client: Client
) -> None:
    """What tells no lifetime is kept by a guess, but not where a Cookie came with the request."""
    dated = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    await told(origin, client.send("GET", "/a", OLD), 200, dated, b"x")
    assert (await client.get("/a", NEW)).cache.startswith("hit")
    await told(origin, client.send("GET", "/b", {"Cookie": "ab=old; a=1"}), 200, dated, b"x")
    asked_again = client.send("GET", "/b", {"Cookie": "ab=old; a=1"})
    assert (await told(origin, asked_again, 200, dated, b"y")).body == b"y"


@settings(SAME_FOR_ALL)
async def test_an_arms_cookie_makes_no_variant_and_is_nothing_to_the_origin(
    origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a", {"Cookie": "a=1; ab=old; b=2"})
    asked = await origin.next_request()
    assert asked.headers["cookie"] == "a=1; b=2"
    await asked.reply(200, {**FRESH, "Vary": "Cookie"}, b"x")
    await pending.response()
    assert (await client.get("/a", {"Cookie": "a=1; b=2; ab=new"})).cache.startswith("hit")
    pending = client.send("GET", "/b", OLD)
    asked = await origin.next_request()
    assert "cookie" not in asked.headers
    await asked.reply(200, {**FRESH, "Vary": "Cookie"}, b"x")
    await pending.response()
    assert (await client.get("/b", NEW)).cache.startswith("hit")
    assert (await client.get("/b")).cache.startswith("hit")


@settings(SAME_FOR_ALL)
async def test_what_gives_a_newcomer_an_arm_is_for_no_cache_before_us_and_the_rest_is(
    origin: ScriptedOrigin, client: Client
) -> None:
    public = {"Cache-Control": "public, max-age=60", "ETag": '"1"'}
    first = await told(origin, client.send("GET", "/a"), 200, public, b"body")
    asked: list[dict[str, str]] = [{}, {"If-None-Match": '"1"'}, {"Range": "bytes=0-1"}]
    answers = [first, *[await client.get("/a", fields) for fields in asked]]
    assert [each.status for each in answers] == [200, 200, 304, 206]
    for each in answers:
        assert len(cookies(each)) == 1
        assert "private" in directives(each)
    known = await client.get("/a", OLD)
    assert (cookies(known), directives(known)) == ([], ["public, max-age=60"])
    assert known.cache.startswith("hit")  # as it was stored: by us it may be shared


TOLD_BY_FIELD = SAME_FOR_ALL.replace("new={weight=1}", 'new={weight=1,header={X-Arm="new"}}')


@settings(TOLD_BY_FIELD)
async def test_nobody_has_an_arms_page_stored_for_all_by_sending_its_field(
    origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a", {**OLD, "X-Arm": "new"})
    asked = await origin.next_request()
    assert "x-arm" not in asked.headers
    await asked.reply(200, FRESH, b"page of old")
    assert (await pending.response()).body == b"page of old"
    pending = client.send("GET", "/a", {**NEW, "X-Arm": "old"})
    asked = await origin.next_request()
    assert asked.headers["x-arm"] == "new"
    await asked.reply(200, FRESH, b"page of new")
    assert (await pending.response()).body == b"page of new"
    for fields, body in ((OLD, b"page of old"), (NEW, b"page of new")):
        assert (await client.get("/a", fields)).body == body


WRITERS = [
    (('site.key.cookies=["lang"]',), {"Cookie": "lang=de"}, {"Cookie": "lang=fr"}),
    (('site.key.headers=["x-d"]',), {"X-D": "1"}, {"X-D": "2"}),
    ((TOLD_BY_FIELD,), OLD, NEW),
    (
        ('site.rule=[{match={methods=["POST"]},request={set={X-A="1"}}}]',),
        {},
        {"X-Other": "1"},
    ),
]


@pytest.mark.parametrize(("sets", "one", "other"), WRITERS)
async def test_a_write_is_seen_by_all_whatever_tells_their_pages_apart(
    edge: Edge, origin: ScriptedOrigin, client: Client, one: dict[str, str], other: dict[str, str]
) -> None:
    """RFC 9111 §4.4: what is stored for a URI is unusable, by whatever else it is keyed."""
    for fields in (one, other):
        pending = client.send("GET", "/a", fields)
        await edge.settle()
        if not origin.unasked:
            await (await origin.next_request()).reply(200, FRESH, b"before")
        assert (await pending.response()).body == b"before"
    await told(origin, client.send("POST", "/a", one, b"x"), 204)
    for fields in (other, one):
        pending = client.send("GET", "/a", fields)
        await edge.settle()
        if not origin.unasked:
            await (await origin.next_request()).reply(200, FRESH, b"after")
        assert (await pending.response()).body == b"after"
