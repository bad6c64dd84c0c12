"""What is asked for again: hits, validators, parts, heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stories.world import settings, told

if TYPE_CHECKING:
    from tests.stories.world import Client, Edge, ScriptedOrigin

FRESH = {"Cache-Control": "max-age=60", "ETag": '"1"'}


async def test_a_miss_is_fetched_and_the_next_request_is_a_hit(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    first = client.send("GET", "/a")
    asked = await origin.next_request()
    assert (asked.method, asked.target, asked.headers["host"]) == ("GET", "/a", "site.example")
    await asked.reply(200, FRESH, b"body")
    missed = await first.response()
    assert (missed.status, missed.body) == (200, b"body")
    assert missed.cache == "fwd=uri-miss; fwd-status=200; stored; ttl=60"
    assert "age" not in missed.headers

    edge.advance(7)
    hit = await client.get("/a")
    assert (hit.body, hit.cache, hit.headers["age"]) == (b"body", "hit; ttl=53", "7")
    assert origin.unasked


async def test_a_condition_that_holds_is_answered_here(
    origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"body")

    same = await client.get("/a", {"If-None-Match": '"0", W/"1"'})
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", '"1"')

    other = await client.get("/a", {"If-None-Match": '"2"'})
    assert (other.status, other.body) == (200, b"body")

    failed = await client.get("/a", {"If-Match": '"2"'})
    assert (failed.status, failed.body) == (412, b"")


async def test_parts_of_what_is_stored_are_cut_here(
    origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"0123456789")

    part = await client.get("/a", {"Range": "bytes=2-4"})
    assert (part.status, part.body, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")

    tail = await client.get("/a", {"Range": "bytes=-3", "If-Range": '"1"'})
    assert (tail.status, tail.body) == (206, b"789")

    changed = await client.get("/a", {"Range": "bytes=-3", "If-Range": '"0"'})
    assert (changed.status, changed.body) == (200, b"0123456789")

    many = await client.get("/a", {"Range": "bytes=0-0,9-9"})
    assert many.headers["content-type"].startswith("multipart/byteranges")
    assert many.body.count(b"Content-Range: bytes ") + many.body.count(b"content-range") == 2

    beyond = await client.get("/a", {"Range": "bytes=10-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */10")


async def test_a_head_is_answered_from_what_get_stored(
    origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"body")
    head = await client.send("HEAD", "/a").response()
    assert (head.status, head.headers["content-length"], head.body) == (200, "4", b"")
    assert head.cache.startswith("hit")


async def test_a_head_for_a_cold_key_goes_on_as_a_head_and_leaves_nothing_for_get(
    origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("HEAD", "/a")
    asked = await origin.next_request()
    assert asked.method == "HEAD"
    await asked.reply(200, {**FRESH, "Content-Length": "4"})
    assert (await pending.response()).headers["content-length"] == "4"

    got = await told(origin, client.send("GET", "/a"), 200, FRESH, b"body")
    assert got.body == b"body"


async def test_a_head_that_disagrees_with_what_is_stored_puts_it_out(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"body")
    edge.advance(100)
    head = client.send("HEAD", "/a")
    await told(origin, head, 200, {**FRESH, "ETag": '"2"', "Content-Length": "5"})

    asking = client.send("GET", "/a")
    asked = await origin.next_request()
    assert "if-none-match" not in asked.headers
    await asked.reply(200, FRESH, b"other")
    assert (await asking.response()).body == b"other"


@pytest.mark.parametrize(
    "headers",
    [{"Range": "bytes=1-2"}, {"If-None-Match": '"1"'}, {"If-Modified-Since": "x"}],
    ids=["range", "tag", "date"],
)
async def test_a_part_or_a_condition_on_a_cold_key_brings_the_whole(
    origin: ScriptedOrigin, client: Client, headers: dict[str, str]
) -> None:
    pending = client.send("GET", "/a", headers)
    asked = await origin.next_request()
    for name in headers:
        assert name.lower() not in asked.headers
    await asked.reply(200, FRESH, b"body")
    answer = await pending.response()
    assert answer.status in (206, 304, 200)
    assert answer.body in (b"od", b"", b"body")

    whole = await client.get("/a")
    assert (whole.status, whole.body) == (200, b"body")


async def test_an_answer_of_another_node_grows_older_here(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    aged = {"Cache-Control": "max-age=60", "Age": "40"}
    first = await told(origin, client.send("GET", "/a"), 200, aged, b"body")
    assert first.headers["age"] == "40"
    edge.advance(15)
    assert (await client.get("/a")).headers["age"] == "55"
    edge.advance(5)
    again = await told(origin, client.send("GET", "/a"), 200, aged, b"new")
    assert again.body == b"new"


async def test_only_if_cached_is_honoured(origin: ScriptedOrigin, client: Client) -> None:
    refused = await client.get("/a", {"Cache-Control": "only-if-cached"})
    assert (refused.status, refused.cache) == (504, "detail=only-if-cached")
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"body")
    assert (await client.get("/a", {"Cache-Control": "only-if-cached"})).body == b"body"
    assert origin.unasked


async def test_a_client_cannot_empty_the_cache(origin: ScriptedOrigin, client: Client) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"body")
    reload = {"Cache-Control": "no-cache, max-age=0", "Pragma": "no-cache"}
    assert (await client.get("/a", reload)).cache.startswith("hit")


@settings("cache.honour_request_directives=true")
async def test_a_client_that_is_honoured_gets_a_validated_answer(
    origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"body")
    pending = client.send("GET", "/a", {"Cache-Control": "no-cache"})
    asked = await origin.next_request()
    assert asked.headers["if-none-match"] == '"1"'
    await asked.reply(304, FRESH)
    answer = await pending.response()
    assert (answer.status, answer.body) == (200, b"body")
    assert answer.cache == "fwd=request; fwd-status=304; ttl=60; detail=freshened"

    pending = client.send("GET", "/a", {"Cache-Control": "no-store"})
    own = await told(origin, pending, 200, FRESH, b"own")
    assert own.body == b"own"
    assert (await client.get("/a")).body == b"body"


async def test_the_key_is_what_is_forwarded(origin: ScriptedOrigin, client: Client) -> None:
    pending = client.send("GET", "/a/../%7eb/%2e/c?Q=%7E")
    asked = await origin.next_request()
    assert asked.target == "/~b/c?Q=%7E"
    await asked.reply(200, FRESH, b"body")
    await pending.response()
    assert (await client.get("/~b/c?Q=%7E")).cache.startswith("hit")


async def test_a_cookie_to_the_origin_takes_explicit_freshness_to_be_shared(
    origin: ScriptedOrigin, client: Client
) -> None:
    cookie = {"Cookie": "id=1"}
    await told(origin, client.send("GET", "/a", cookie), 200, FRESH, b"body")
    assert (await client.get("/a")).cache.startswith("hit")

    guessed = {"Last-Modified": "Fri, 01 Jan 2016 00:00:00 GMT"}
    mine = await told(origin, client.send("GET", "/b", cookie), 200, guessed, b"mine")
    assert mine.cache.endswith("detail=cookie")
    other = await told(origin, client.send("GET", "/b"), 200, guessed, b"anyone's")
    assert other.body == b"anyone's"


async def test_an_answer_to_credentials_is_shared_only_where_it_says_so(
    origin: ScriptedOrigin, client: Client
) -> None:
    secret = {"Authorization": "Basic eDp5"}
    mine = await told(origin, client.send("GET", "/a", secret), 200, FRESH, b"mine")
    assert mine.cache.endswith("detail=authorization")
    other = await told(origin, client.send("GET", "/a"), 401, {}, b"who are you")
    assert other.body == b"who are you"

    public = {"Cache-Control": "public, max-age=60"}
    await told(origin, client.send("GET", "/b", secret), 200, public, b"all")
    assert (await client.get("/b")).body == b"all"


async def test_an_answer_that_sets_a_cookie_is_shared_only_where_it_says_so(
    origin: ScriptedOrigin, client: Client
) -> None:
    own = {**FRESH, "Set-Cookie": "id=1"}
    first = await told(origin, client.send("GET", "/a"), 200, own, b"1")
    assert (first.headers["set-cookie"], first.cache[-10:]) == ("id=1", "set-cookie")
    second = await told(origin, client.send("GET", "/a"), 200, own, b"2")
    assert second.body == b"2"

    public = {"Cache-Control": "public, max-age=60", "Set-Cookie": "a=b"}
    await told(origin, client.send("GET", "/b"), 200, public, b"all")
    assert (await client.get("/b")).headers["set-cookie"] == "a=b"


@settings("cache.bypass=true")
async def test_a_bypass_neither_looks_nor_stores(origin: ScriptedOrigin, client: Client) -> None:
    for body in (b"1", b"2"):
        got = await told(origin, client.send("GET", "/a"), 200, FRESH, body)
        assert (got.body, got.cache) == (body, "fwd=bypass; fwd-status=200")


async def test_a_get_with_a_body_is_passed_on_and_never_stored(
    origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a", body=b"query")
    asked = await origin.next_request()
    assert await asked.body() == b"query"
    await asked.reply(200, FRESH, b"odd")
    assert (await pending.response()).cache == "fwd=bypass; fwd-status=200; detail=body"
    plain = await told(origin, client.send("GET", "/a"), 200, FRESH, b"plain")
    assert plain.body == b"plain"


async def test_a_hit_is_an_answer_that_was_not_fetched_for_its_request(
    edge: Edge, origin: ScriptedOrigin, client: Client, by_hop: bool
) -> None:
    await told(origin, client.send("GET", "/a"), 200, {"Cache-Control": "max-age=60"}, b"body")
    for _ in range(2):
        await client.get("/a")
    assert (await client.send("HEAD", "/a").response()).status == 200
    batch = await edge.store.scan().next()
    assert batch is not None
    assert [item.hits for item in batch] == [1 if by_hop else 3]  # without those of copies
