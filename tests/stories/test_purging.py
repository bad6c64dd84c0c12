"""Purging, as an operator, a plugin and an origin's own writes do it.

That no order of events undoes a purge is shown in `test_purges`; here is what each kind is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge.purging.orders import OrderRefused
from tests.stories.world import settings, told

if TYPE_CHECKING:
    from tests.stories.wire import Reply
    from tests.stories.world import Client, Edge, ScriptedOrigin

FRESH = {"Cache-Control": "max-age=60"}
PLUGINS = settings('site.purge_from=["198.51.100.0/24"]')
GERMAN, FRENCH = {"Accept-Language": "de"}, {"Accept-Language": "fr"}


async def stored(
    origin: ScriptedOrigin,
    client: Client,
    *targets: str,
    host: str = "site.example",
    **fields: str,
) -> None:
    """Have the targets stored; `fields` of the answers have underscores in their names."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    for target in targets:
        pending = client.send("GET", target, {"Host": host})
        await told(origin, pending, 200, {**FRESH, **headers}, b"old")


async def is_stored(edge: Edge, client: Client, target: str, host: str = "site.example") -> bool:
    """Whether the target would be answered from the store, without asking the origin."""
    asking = {"Host": host, "Cache-Control": "only-if-cached"}
    return (await client.get(target, asking)).status == 200


# Scopes.


async def test_a_url_is_purged_in_all_its_variants_and_nothing_else_is(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    varied = {**FRESH, "Vary": "Accept-Language"}
    for language in (GERMAN, FRENCH):
        await told(origin, client.send("GET", "/a", language), 200, varied, b"old")
    await stored(origin, client, "/a?page=2", "/a/b")

    await edge.purge(url=["http://site.example/a"])
    for language in (GERMAN, FRENCH):
        got = await told(origin, client.send("GET", "/a", language), 200, varied, b"new")
        assert got.body == b"new"
    assert await is_stored(edge, client, "/a?page=2")
    assert await is_stored(edge, client, "/a/b")


@settings('site.query={drop=["utm_*"], sort=true}')
async def test_a_url_is_purged_as_its_site_keys_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await stored(origin, client, "/a?b=2&a=1")
    await edge.purge(url=["http://site.example/%61?utm_source=mail&a=1&b=2"])
    assert not await is_stored(edge, client, "/a?a=1&b=2")


async def test_a_prefix_is_a_directory_and_the_page_of_its_name(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    inside = ["/blog", "/blog/", "/blog?page=2", "/blog/2026/may"]
    outside = ["/", "/blogging", "/news/blog/"]
    await stored(origin, client, *inside, *outside)
    await edge.purge(prefix=["http://site.example/blog"])
    assert not any([await is_stored(edge, client, each) for each in inside])
    assert all([await is_stored(edge, client, each) for each in outside])


async def test_a_host_is_purged_on_all_its_ports_and_alone(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    for host in ("site.example", "site.example:8080", "SITE.example.", "www.site.example"):
        await stored(origin, client, "/a", host=host)
    await edge.purge(host=["site.example"])
    for host in ("site.example", "site.example:8080", "SITE.example."):
        assert not await is_stored(edge, client, "/a", host)
    assert await is_stored(edge, client, "/a", "www.site.example")


async def test_a_tag_is_purged_on_every_host_whatever_field_named_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await stored(origin, client, "/a", Cache_Tag="front, news of today")
    await stored(origin, client, "/b", Surrogate_Key="news front")
    await stored(origin, client, "/c", host="other.example", xkey="front,sport")
    await stored(origin, client, "/d", Cache_Tag="frontier", Surrogate_Key="Front")
    await edge.purge(tag=["front"])
    assert not await is_stored(edge, client, "/a")
    assert not await is_stored(edge, client, "/b")
    assert not await is_stored(edge, client, "/c", "other.example")
    assert await is_stored(edge, client, "/d")

    await stored(origin, client, "/a", Cache_Tag="front, news of today")
    await edge.purge(tag=["news of today"])
    assert not await is_stored(edge, client, "/a")


async def test_all_is_everything(edge: Edge, origin: ScriptedOrigin, client: Client) -> None:
    await stored(origin, client, "/a")
    await stored(origin, client, "/b", host="other.example")
    await edge.purge(all=True)
    assert not await is_stored(edge, client, "/a")
    assert not await is_stored(edge, client, "/b", "other.example")
    await stored(origin, client, "/a")
    assert await is_stored(edge, client, "/a")


async def test_many_scopes_are_one_purge_and_one_that_is_wrong_stops_all(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await stored(origin, client, "/a", "/b")
    with pytest.raises(OrderRefused, match="at most 16 levels"):
        await edge.purge(url=["http://site.example/a"], prefix=["http://site.example" + "/x" * 17])
    assert await is_stored(edge, client, "/a")
    done = await edge.purge(url=["http://site.example/a", "http://site.example/b"])
    assert (done.number, done.count) == (1, 2)
    assert not await is_stored(edge, client, "/a")
    assert not await is_stored(edge, client, "/b")


# Soft.


async def test_what_is_softly_purged_is_served_once_more_while_it_is_validated(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    windows = {"Cache-Control": "max-age=60, stale-while-revalidate=30", "ETag": '"1"'}
    await told(origin, client.send("GET", "/a"), 200, windows, b"old")
    edge.advance(10)
    await edge.purge(url=["http://site.example/a"], soft=True)
    edge.advance(5)
    stale = await client.get("/a")
    assert stale.body == b"old"
    assert stale.cache == "hit; ttl=-5; detail=stale-while-revalidate"
    behind = await origin.next_request()
    assert behind.headers["if-none-match"] == '"1"'
    await behind.reply(304, windows)
    await edge.settle()
    assert (await client.get("/a")).cache == "hit; ttl=60"


async def test_what_is_softly_purged_has_its_windows_from_the_purge_on(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    windows = {"Cache-Control": "max-age=600, stale-while-revalidate=30, stale-if-error=90"}
    await told(origin, client.send("GET", "/a"), 200, windows, b"old")
    await edge.purge(url=["http://site.example/a"], soft=True)
    edge.advance(31)
    during = await told(origin, client.send("GET", "/a"), 503)
    assert (during.status, during.body) == (200, b"old")
    assert during.cache == "fwd=stale; ttl=-31; detail=stale-if-error"
    edge.advance(60)
    after = await told(origin, client.send("GET", "/a"), 503)
    assert after.status == 503


async def test_what_is_softly_purged_is_validated_where_nothing_stale_may_be_served(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await stored(origin, client, "/a", ETag='"1"')
    await edge.purge(tag=["none"], soft=True)
    assert (await client.get("/a")).cache == "hit; ttl=60"
    await edge.purge(all=True, soft=True)
    pending = client.send("GET", "/a")
    asked = await origin.next_request()
    assert asked.headers["if-none-match"] == '"1"'
    await asked.reply(304, {**FRESH, "ETag": '"1"'})
    got = await pending.response()
    assert (got.body, got.cache) == (b"old", "fwd=stale; fwd-status=304; ttl=60; detail=freshened")


# PURGE, from plugins.


def _told_plainly(reply: Reply) -> tuple[int, list[tuple[str, str]], bytes]:
    varying = ("date",)
    fields = [(name, value) for name, value in reply.headers.pairs if name not in varying]
    return reply.status, fields, reply.body


@pytest.mark.parametrize("host", ["site.example", "other.example"])
@settings('site.purge_from=["203.0.113.0/24"]')
async def test_purge_is_no_method_for_those_who_may_not(client: Client, host: str) -> None:
    purge, trace = [
        await client.send(method, "/a", {"Host": host, "Surrogate-Key": "x"}).response()
        for method in ("PURGE", "TRACE")
    ]
    assert purge.status == 405
    trace.body = trace.body.replace(b"id-2", b"id-1")
    assert _told_plainly(purge) == _told_plainly(trace)


@PLUGINS
async def test_a_plugin_purges_a_url(edge: Edge, origin: ScriptedOrigin, client: Client) -> None:
    await stored(origin, client, "/a", "/b")
    got = await client.send("PURGE", "/a").response()
    assert (got.status, got.body) == (200, b'{"status":"ok","id":"1","soft":false}\n')
    assert not await is_stored(edge, client, "/a")
    assert await is_stored(edge, client, "/b")
    assert origin.unasked


@PLUGINS
async def test_a_plugin_purges_tags_of_the_host_that_it_speaks_to_and_of_no_other(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    for host in ("site.example", "other.example"):
        await stored(origin, client, "/a", host=host, Surrogate_Key="front news")
    assert (await client.send("PURGE", "/", {"Surrogate-Key": "front"}).response()).status == 200
    assert not await is_stored(edge, client, "/a")
    assert await is_stored(edge, client, "/a", "other.example")


@PLUGINS
async def test_a_plugin_purges_softly(edge: Edge, origin: ScriptedOrigin, client: Client) -> None:
    await stored(origin, client, "/a", ETag='"1"')
    got = await client.send("PURGE", "/a", {"Fastly-Soft-Purge": "1"}).response()
    assert got.body == b'{"status":"ok","id":"1","soft":true}\n'
    again = await told(origin, client.send("GET", "/a"), 304, {**FRESH, "ETag": '"1"'})
    assert again.body == b"old"


@PLUGINS
async def test_a_plugin_is_told_what_cannot_be_purged(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await stored(origin, client, "/a")
    got = await client.send("PURGE", "/.*", {"X-Ban-Regex": ".*"}).response()
    assert got.status == 400
    assert b"a pattern would have to be held against every stored object" in got.body
    assert await is_stored(edge, client, "/a")


# Writes.


async def test_a_write_invalidates_the_groups_that_its_answer_names_on_its_origin(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    for host in ("site.example", "other.example"):
        await stored(origin, client, "/list", host=host, Cache_Groups='"cart", "list"')
    await stored(origin, client, "/page", Cache_Groups='"page"')
    change = client.send("POST", "/item", body=b"new")
    await told(origin, change, 204, {"Cache-Group-Invalidation": '"list"'})
    assert not await is_stored(edge, client, "/list")
    assert await is_stored(edge, client, "/page")
    assert await is_stored(edge, client, "/list", "other.example")


async def test_groups_are_invalidated_by_writes_that_went_through_and_by_nothing_else(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    names = {"Cache-Group-Invalidation": '"list"'}
    await stored(origin, client, "/list", Cache_Groups='"list"')
    await told(origin, client.send("GET", "/item"), 200, names)
    await told(origin, client.send("POST", "/item", body=b"new"), 403, names)
    assert await is_stored(edge, client, "/list")


# Purges that come in between.


async def test_a_purge_beats_a_fetch_in_flight(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    first = client.send("GET", "/news")
    asked = await origin.next_request()
    await edge.purge(tag=["front"])
    await asked.reply(200, {**FRESH, "Cache-Tag": "front"}, b"old")
    assert (await first.response()).body == b"old"  # asked before the purge: allowed
    second = await told(origin, client.send("GET", "/news"), 200, FRESH, b"new")
    assert second.body == b"new"  # never the old body again


async def test_a_purge_between_two_variants_leaves_the_later_one(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    varied = {**FRESH, "Vary": "Accept-Language"}
    await told(origin, client.send("GET", "/a", GERMAN), 200, varied, b"alt")
    await edge.purge(url=["http://site.example/a"])
    await told(origin, client.send("GET", "/a", FRENCH), 200, varied, b"neuf")
    assert (await client.get("/a", FRENCH)).body == b"neuf"
    got = await told(origin, client.send("GET", "/a", GERMAN), 200, varied, b"neu")
    assert got.body == b"neu"
    assert (await client.get("/a", FRENCH)).body == b"neuf"


# Tags on their way.


async def test_an_answer_with_more_tags_than_are_remembered_is_not_stored(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    tags = " ".join(f"t{number}" for number in range(1025))
    pending = client.send("GET", "/a")
    got = await told(origin, pending, 200, {**FRESH, "Surrogate-Key": tags}, b"body")
    assert (got.body, got.cache) == (b"body", "fwd=uri-miss; fwd-status=200; detail=too-many-tags")
    assert not await is_stored(edge, client, "/a")


@settings("site.strip_tags=true")
async def test_tags_are_kept_from_clients_where_the_site_says_so(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a")
    tags = {"Surrogate-Key": "front", "Cache-Tag": "front", "X-Kept": "yes"}
    for got in (await told(origin, pending, 200, {**FRESH, **tags}), await client.get("/a")):
        assert got.headers["x-kept"] == "yes"
        assert not {"surrogate-key", "cache-tag"} & {name for name, _ in got.headers.pairs}
    await edge.purge(tag=["front"])
    assert not await is_stored(edge, client, "/a")
