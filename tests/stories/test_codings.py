"""Content codings: what clients get, decoded, is what the origin made, whatever they accept."""

from __future__ import annotations

import gzip
from base64 import b64encode
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Final

import brotli
import pytest
import trio

from edge.coding.coders import AT_ONCE
from edge.coding.decoders import Decoder
from edge.coding.negotiate import Coding, acceptance
from edge.coding.zstd import ZstdDecompressor, ZstdDict
from edge.serving.encoding import FOR_ONE_AT_ONCE
from tests.stories.wire import TruncatedError
from tests.stories.world import a_world, settings, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stories.wire import Reply
    from tests.stories.world import Client, Edge, ScriptedOrigin

ON: Final = 'site.compress={codings=["br", "zstd", "gzip"], recompress_after=0}'
PAGE: Final = b"<p>The same words, and the same words again, number %d.</p>\n"
TEXT: Final = b"".join(PAGE % number for number in range(100))
FRESH: Final = {
    "Cache-Control": "max-age=60",
    "ETag": '"1"',
    "Content-Type": "text/html",
    "Cache-Tag": "front",
}
ACCEPTED: Final = [
    None, "", "identity", "*", "br", "gzip", "zstd", "gzip, deflate, br, zstd", "gzip;q=1, br;q=0",
    "br;q=0.5, gzip;q=0.8", "identity;q=0, gzip", "*;q=0, zstd", "deflate", "x-gzip, GZIP",
]  # fmt: skip


def by(accepted: str | None) -> dict[str, str]:
    return {} if accepted is None else {"Accept-Encoding": accepted}


def plain(reply: Reply) -> bytes:
    """What a reply's content decodes to."""
    coding = reply.headers.get("content-encoding")
    if coding is None:
        return reply.body
    decoder = Decoder(Coding(coding))
    decoded = b"".join(decoder.pieces(reply.body))
    decoder.finish()
    return decoded


def check(reply: Reply, accepted: str | None, body: bytes = TEXT) -> None:
    """It is all of `body`, in a coding that its client accepts."""
    assert reply.status == 200
    assert plain(reply) == body
    coding = Coding(reply.headers.get("content-encoding") or "identity")
    wanted = acceptance(None if accepted is None else accepted.encode())
    assert wanted.accepts(coding)
    if "content-length" in reply.headers:
        assert int(reply.headers["content-length"]) == len(reply.body)
    assert "accept-encoding" in reply.headers["vary"].lower()


async def settled(edge: Edge) -> None:
    """All that is being coded has been coded."""
    await edge.settle()
    assert edge.store.statistics().filling == 0


@settings(ON)
@pytest.mark.parametrize("first", ACCEPTED)
async def test_every_client_gets_what_the_origin_made(
    edge: Edge, origin: ScriptedOrigin, client: Client, first: str | None
) -> None:
    asked = client.send("GET", "/a", by(first))
    check(await told(origin, asked, 200, FRESH, TEXT), first)
    await settled(edge)
    tags: dict[str, str] = {}
    for _ in range(3):  # made, then from the store, then as it has been made ready
        for accepted in ACCEPTED:
            reply = await client.get("/a", by(accepted))
            check(reply, accepted)
            assert reply.cache.startswith("hit")
            coding = reply.headers.get("content-encoding") or "identity"
            assert tags.setdefault(coding, reply.headers["etag"]) == reply.headers["etag"]
            await settled(edge)
    assert len(set(tags.values())) == len(tags) == 4
    assert tags["identity"] == '"1"'
    assert origin.unasked


@settings(ON)
async def test_the_origin_is_asked_for_one_coding_by_all(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    headers = {**FRESH, "Vary": "Accept-Encoding, Accept-Language"}
    pending = client.send("GET", "/a", by("br, gzip"))
    asked = await origin.next_request()
    assert asked.headers["accept-encoding"] == "identity"
    await asked.reply(200, headers, TEXT)
    check(await pending.response(), "br, gzip")
    await settled(edge)
    for accepted in ACCEPTED:
        check(await client.get("/a", by(accepted)), accepted)
    assert origin.unasked


@settings(ON)
async def test_a_second_hit_costs_no_coding(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
    await settled(edge)
    coders = edge.tools.coders
    assert coders is not None
    begun = coders.statistics().begun
    for _ in range(3):
        reply = await client.get("/a", by("br"))
        assert reply.headers["content-encoding"] == "br"
        assert int(reply.headers["content-length"]) == len(reply.body) < len(TEXT) // 5
    assert coders.statistics().begun == begun == 1


@settings(ON)
@pytest.mark.parametrize("accepted", ["br", "zstd", "gzip", "identity"])
async def test_conditions_hold_across_codings(
    edge: Edge, origin: ScriptedOrigin, client: Client, accepted: str
) -> None:
    whole = await told(origin, client.send("GET", "/a", by(accepted)), 200, FRESH, TEXT)
    await settled(edge)
    tag = whole.headers["etag"]
    assert (tag == '"1"') == (accepted == "identity")
    for wanted in (accepted, f"{accepted}, br", "*"):
        same = await client.get("/a", {**by(wanted), "If-None-Match": f'"0", {tag}'})
        assert (same.status, same.headers["etag"], same.body) == (304, tag, b"")
        assert "content-encoding" not in same.headers
        assert "accept-encoding" in same.headers["vary"].lower()
    head = await client.send("HEAD", "/a", {**by(accepted), "If-None-Match": tag}).response()
    assert head.status == 304
    held = await client.get("/a", {**by(accepted), "If-Match": tag})
    assert (held.status, plain(held)) == (200, TEXT)
    failed = await client.get("/a", {**by(accepted), "If-Match": '"2"'})
    assert failed.status == 412
    other = await client.get("/a", {**by(accepted), "If-None-Match": '"2-br.00000000"'})
    assert (other.status, plain(other)) == (200, TEXT)


@settings(ON)
async def test_a_coding_that_is_not_accepted_any_more_is_not_what_the_client_has(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    br = await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
    await settled(edge)
    tag = br.headers["etag"]
    for _ in range(2):
        reply = await client.get("/a", {**by("gzip"), "If-None-Match": tag})
        check(reply, "gzip")
        await settled(edge)
    both = await client.get(
        "/a", {**by("gzip"), "If-None-Match": f"{tag}, {reply.headers['etag']}"}
    )
    assert (both.status, both.headers["etag"]) == (304, reply.headers["etag"])


@settings(ON)
async def test_heads_tell_of_the_coding(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, TEXT)
    unmade = await client.send("HEAD", "/a", by("br")).response()
    assert unmade.headers["content-encoding"] == "br"
    assert "content-length" not in unmade.headers
    whole = await client.get("/a", by("br"))
    await settled(edge)
    for _ in range(2):
        made = await client.send("HEAD", "/a", by("br")).response()
        assert (made.headers["etag"], made.body) == (whole.headers["etag"], b"")
        assert int(made.headers["content-length"]) == len(whole.body)
    uncoded = await client.send("HEAD", "/a").response()
    assert int(uncoded.headers["content-length"]) == len(TEXT)


@settings(ON)
async def test_a_range_is_one_of_what_is_stored(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, TEXT)
    part = {"Range": "bytes=2-11", **by("br")}
    uncoded = await client.get("/a", part)  # of the only one that there is
    assert (uncoded.status, uncoded.body) == (206, TEXT[2:12])
    assert "content-encoding" not in uncoded.headers
    assert uncoded.headers["etag"] == '"1"'

    whole = await client.get("/a", by("br"))
    await settled(edge)
    tag = whole.headers["etag"]
    for condition in ({}, {"If-Range": tag}):
        coded = await client.get("/a", {**part, **condition})
        assert (coded.status, coded.body) == (206, whole.body[2:12])
        assert coded.headers["content-range"] == f"bytes 2-11/{len(whole.body)}"
        assert (coded.headers["content-encoding"], coded.headers["etag"]) == ("br", tag)
    rest = await client.get("/a", {**part, "If-Range": '"1"'})  # it has a part of the other
    assert (rest.status, rest.body) == (206, TEXT[2:12])
    other = await client.get("/a", {**part, "If-Range": '"1-br.00000000"'})
    assert (other.status, other.body) == (200, whole.body)


@settings(ON)
async def test_a_date_names_the_octets_of_no_coding(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    dated = {**FRESH, "Last-Modified": "Thu, 14 Jan 2027 00:00:00 GMT"}
    del dated["ETag"]
    await told(origin, client.send("GET", "/a", by("br")), 200, dated, TEXT)
    await settled(edge)
    since = {"Range": "bytes=2-11", "If-Range": dated["Last-Modified"]}
    check(await client.get("/a", {**since, **by("br")}), "br")
    uncoded = await client.get("/a", since)
    assert (uncoded.status, uncoded.body) == (206, TEXT[2:12])
    same = await client.get("/a", {**by("br"), "If-Modified-Since": dated["Last-Modified"]})
    assert same.status == 304


@settings(ON)
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "image/jpeg"}, TEXT),
        ({"Content-Type": "text/html"}, TEXT[:300]),
        ({"Content-Type": "text/html", "Cache-Control": "max-age=60, no-transform"}, TEXT),
        ({"Content-Type": "text/html", "Content-Encoding": "deflate"}, TEXT),
    ],
    ids=["jpeg", "small", "no-transform", "deflate"],
)
async def test_what_does_not_pay_is_left_alone(
    edge: Edge, origin: ScriptedOrigin, client: Client, headers: dict[str, str], body: bytes
) -> None:
    fields = {**FRESH, **headers}
    missed = await told(origin, client.send("GET", "/a", by("br")), 200, fields, body)
    hits = [await client.get("/a", by("br")) for _ in range(2)]
    for reply in (missed, *hits):
        assert (reply.body, reply.headers["etag"]) == (body, '"1"')
        assert reply.headers.get("content-encoding") == headers.get("Content-Encoding")


@settings(ON)
async def test_a_request_may_forbid_it(edge: Edge, origin: ScriptedOrigin, client: Client) -> None:
    await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
    for _ in range(2):
        reply = await client.get("/a", {**by("br"), "Cache-Control": "no-transform"})
        assert (reply.body, reply.headers["etag"]) == (TEXT, '"1"')


@settings(ON)
async def test_what_does_not_shrink_is_tried_once(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    noise = Random(1).randbytes(300_000)
    first = await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, noise)
    assert plain(first) == noise  # it had begun
    await settled(edge)
    for _ in range(3):
        reply = await client.get("/a", by("br"))
        assert (reply.body, reply.headers["etag"]) == (noise, '"1"')
        assert "content-encoding" not in reply.headers
    coders = edge.tools.coders
    assert coders is not None
    assert coders.statistics().begun == 1


@settings(ON)
async def test_a_slow_page_arrives_as_it_is_made(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a", by("gzip"))
    asked = await origin.next_request()
    await asked.start_reply(200, FRESH)
    decoder = Decoder(Coding.GZIP)
    decoded = b""
    head = await pending.wire.head()
    assert head is not None
    assert head[1]["content-encoding"] == "gzip"
    for number in range(3):
        await asked.send_chunk(PAGE % number)
        wanted = decoded + PAGE % number
        while decoded != wanted:
            size = int(await pending.wire.until(b"\r\n"), 16)
            decoded += b"".join(decoder.pieces((await pending.wire.exactly(size + 2))[:-2]))
    await asked.end()
    assert (await pending.wire.until(b"\r\n")) != b"0"  # the end of gzip


@settings(ON)
async def test_a_crowd_shares_one_coding(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    crowd = [client.send("GET", "/a", by(accepted)) for accepted in ("br", "gzip", "br", "zstd")]
    asked = await origin.next_request()
    await edge.settle()
    await asked.start_reply(200, {**FRESH, "Content-Length": str(len(TEXT))})
    await asked.send_chunk(TEXT[:1000])
    await edge.settle()
    crowd.append(client.send("GET", "/a", by("br, gzip;q=0.5")))
    await edge.settle()
    await asked.send_chunk(TEXT[1000:])
    await asked.end()
    for pending in crowd:
        check(await pending.response(), "br, gzip, zstd")
    coders = edge.tools.coders
    assert coders is not None
    assert coders.statistics().begun == 3
    await settled(edge)
    assert origin.unasked


@settings(ON)
async def test_a_body_that_breaks_off_makes_no_whole_variant(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    for _ in range(2):
        pending = client.send("GET", "/a", by("br"))
        asked = await origin.next_request()
        await asked.start_reply(200, {**FRESH, "Content-Length": str(len(TEXT))})
        await asked.send_chunk(TEXT[:3000])
        await edge.settle()
        asked.break_off()
        with pytest.raises(TruncatedError):
            await pending.response()
        await settled(edge)
    check(await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT), "br")


@settings(ON)
async def test_a_client_that_leaves_harms_no_variant(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    leaving = client.send("GET", "/a", by("br"))
    asked = await origin.next_request()
    await asked.start_reply(200, {**FRESH, "Content-Length": str(len(TEXT))})
    await asked.send_chunk(TEXT[:3000])
    await edge.settle()
    staying = client.send("GET", "/a", by("br"))
    await edge.settle()
    leaving.leave()
    await edge.settle()
    await asked.send_chunk(TEXT[3000:])
    await asked.end()
    check(await staying.response(), "br")
    await settled(edge)
    check(await client.get("/a", by("br")), "br")
    assert origin.unasked


@settings(ON)
async def test_a_client_that_leaves_alone_leaves_what_is_whole(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    leaving = client.send("GET", "/a", by("br"))
    asked = await origin.next_request()
    await asked.start_reply(200, {**FRESH, "Content-Length": str(len(TEXT))})
    await asked.send_chunk(TEXT[:3000])
    await edge.settle()
    leaving.leave()
    await edge.settle()
    await asked.send_chunk(TEXT[3000:])
    await asked.end()
    await settled(edge)
    for _ in range(2):
        check(await client.get("/a", by("br")), "br")
        await settled(edge)
    assert origin.unasked


PURGES: Final[list[dict[str, object]]] = [
    {"url": ["http://site.example/a"]},
    {"prefix": ["http://site.example/"]},
    {"host": ["site.example"]},
    {"tag": ["front"]},
    {"all": True},
]


@settings(ON)
@pytest.mark.parametrize("order", PURGES, ids=lambda order: next(iter(order)))
async def test_a_purge_covers_what_was_made(
    edge: Edge, origin: ScriptedOrigin, client: Client, order: dict[str, object]
) -> None:
    await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
    await settled(edge)
    check(await client.get("/a", by("br")), "br")
    await edge.purge(**order)
    new = TEXT[::-1]  # as long, and of the same tag
    check(await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, new), "br", new)
    await settled(edge)
    for accepted in ACCEPTED:
        check(await client.get("/a", by(accepted)), accepted, new)


@settings(ON)
async def test_a_purge_covers_what_is_being_made(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    old = client.send("GET", "/a", by("br"))
    asked = await origin.next_request()
    await asked.start_reply(200, {**FRESH, "Content-Length": str(len(TEXT))})
    await asked.send_chunk(TEXT[:3000])
    await edge.settle()
    await edge.purge(tag=["front"])
    new = TEXT[::-1]
    second = client.send("GET", "/a", by("br"))
    again = await origin.next_request()
    await again.start_reply(200, {**FRESH, "Content-Length": str(len(new))})
    await again.send_chunk(new[:3000])
    await edge.settle()
    await asked.send_chunk(TEXT[3000:])
    await asked.end()
    check(await old.response(), "br")  # asked before the purge: allowed
    await edge.settle()
    third = client.send("GET", "/a", by("br"))
    await edge.settle()
    await again.send_chunk(new[3000:])
    await again.end()
    check(await second.response(), "br", new)
    check(await third.response(), "br", new)
    await settled(edge)
    check(await client.get("/a", by("br")), "br", new)


@settings(ON)
async def test_a_soft_purge_has_the_source_validated_and_the_variant_kept(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    headers = {**FRESH, "Cache-Control": "max-age=60, stale-while-revalidate=60"}
    await told(origin, client.send("GET", "/a", by("br")), 200, headers, TEXT)
    await settled(edge)
    await edge.purge(tag=["front"], soft=True)
    stale = await client.get("/a", by("br"))
    check(stale, "br")
    asked = await origin.next_request()
    assert asked.headers["if-none-match"] == '"1"'  # the origin's own
    await asked.reply(304, headers)
    await settled(edge)
    fresh = await client.get("/a", by("br"))
    check(fresh, "br")
    assert fresh.cache.startswith("hit")
    assert fresh.headers["etag"] == stale.headers["etag"]
    coders = edge.tools.coders
    assert coders is not None
    assert coders.statistics().begun == 1


@settings(ON)
async def test_a_304_renews_the_head_of_what_was_made(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a", by("br")), 200, {**FRESH, "X-A": "1"}, TEXT)
    await settled(edge)
    assert (await client.get("/a", by("br"))).headers["x-a"] == "1"
    edge.advance(61)
    pending = client.send("GET", "/a", by("br"))
    asked = await origin.next_request()
    assert asked.headers["if-none-match"] == '"1"'
    await asked.reply(304, {**FRESH, "X-A": "2"})
    check(await pending.response(), "br")
    for _ in range(2):
        reply = await client.get("/a", by("br"))
        check(reply, "br")
        assert (reply.headers["x-a"], reply.cache) == ("2", "hit; ttl=60")


@settings(ON)
async def test_a_new_body_of_the_same_tag_is_not_answered_with_what_was_made_of_the_old(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
    await settled(edge)
    edge.advance(61)
    new = TEXT[::-1]
    check(await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, new), "br", new)
    await settled(edge)
    for accepted in ACCEPTED:
        check(await client.get("/a", by(accepted)), accepted, new)


@settings(ON)
async def test_variants_of_other_fields_are_coded_each(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    headers = {**FRESH, "Vary": "Accept-Language"}
    for language, body in (("de", TEXT), ("en", TEXT[::-1])) * 2:
        asking = {**by("br"), "Accept-Language": language}
        pending = client.send("GET", "/a", asking)
        await edge.settle()
        if not origin.unasked:
            await (await origin.next_request()).reply(200, headers, body)
        check(await pending.response(), "br", body)
        await settled(edge)
        check(await client.get("/a", asking), "br", body)
    assert origin.unasked


@settings(ON)
async def test_what_is_one_clients_alone_is_coded_for_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    private = {"Cache-Control": "private", "ETag": '"1"', "Content-Type": "text/html"}
    tags = set()
    for accepted in ("br", "gzip", "zstd", "identity"):
        reply = await told(origin, client.send("GET", "/a", by(accepted)), 200, private, TEXT)
        check(reply, accepted)
        assert (reply.headers.get("content-encoding") or "identity") == accepted
        tags.add(reply.headers["etag"])
        asking = {**by(accepted), "If-None-Match": reply.headers["etag"]}
        pending = client.send("GET", "/a", asking)
        asked = await origin.next_request()
        assert asked.headers["if-none-match"].endswith('"1"')
        await asked.reply(304, private)
        same = await pending.response()
        assert (same.status, same.headers["etag"]) == (304, reply.headers["etag"])
    assert len(tags) == 4
    posted = client.send("POST", "/a", {**by("br"), "Content-Type": "text/plain"}, b"x")
    check(await told(origin, posted, 200, {"Content-Type": "text/html"}, TEXT), "br")
    headed = client.send("HEAD", "/b", by("br"))
    head = await told(origin, headed, 200, {**private, "Content-Length": "5900"})
    assert (head.headers["content-encoding"], head.body) == ("br", b"")
    assert "content-length" not in head.headers


@settings(ON)
async def test_a_private_page_arrives_as_it_is_made_and_breaks_off_where_it_does(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a", by("br"))
    asked = await origin.next_request()
    await asked.start_reply(200, {"Cache-Control": "private", "Content-Type": "text/html"})
    head = await pending.wire.head()
    assert head is not None
    await asked.send_chunk(PAGE % 1)
    decoder = brotli.Decompressor()
    decoded = b""
    while decoded != PAGE % 1:
        size = int(await pending.wire.until(b"\r\n"), 16)
        decoded += decoder.process((await pending.wire.exactly(size + 2))[:-2])
    asked.break_off()
    with pytest.raises(TruncatedError):
        await pending.wire.rest()
    await settled(edge)


@pytest.fixture
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "store" if "stored" in request.node.name else None


@settings(ON, "store.memory=4MiB")
async def test_what_was_made_is_stored_and_comes_from_the_disk(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    large = b"".join(PAGE % number for number in range(40_000))
    for body in (TEXT, large):
        target = f"/{len(body)}"
        await told(origin, client.send("GET", target, by("br")), 200, FRESH, body)
        await settled(edge)
        await edge.store.settle()
        edge.store._ram.clear()
        for _ in range(3):
            check(await client.get(target, by("br")), "br", body)
            await settled(edge)
    coders = edge.tools.coders
    assert coders is not None
    assert coders.statistics().begun == 2


async def test_without_the_setting_nothing_is_coded(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a", by("br, gzip"))
    asked = await origin.next_request()
    assert asked.headers["accept-encoding"] == "br, gzip"
    await asked.reply(200, FRESH, TEXT)
    assert (await pending.response()).body == TEXT
    reply = await client.get("/a", by("br"))
    assert (reply.body, "vary" in reply.headers) == (TEXT, False)


# What the origin has coded.


@settings(ON[:-1] + ', ask="coded"}')
async def test_what_the_origin_coded_is_stored_so_and_decoded_for_others(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    coded = gzip.compress(TEXT)
    pending = client.send("GET", "/a", by("gzip"))
    asked = await origin.next_request()
    assert asked.headers["accept-encoding"] == "br, zstd, gzip"
    await asked.reply(200, {**FRESH, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}, coded)
    first = await pending.response()
    assert (first.body, first.headers["etag"]) == (coded, '"1"')
    for _ in range(2):
        for accepted in ("br", "identity", None, "gzip", "deflate", "zstd, gzip;q=0"):
            reply = await client.get("/a", by(accepted))
            check(reply, accepted)
            await settled(edge)
    decoded = await client.get("/a", by("identity"))
    assert "content-encoding" not in decoded.headers
    assert decoded.headers["etag"] != '"1"'
    assert origin.unasked


@settings(ON)
@pytest.mark.parametrize("cache", ["max-age=60", "private"])
async def test_a_bomb_is_refused_and_not_kept(
    edge: Edge, origin: ScriptedOrigin, client: Client, cache: str
) -> None:
    bomb = gzip.compress(bytes(30_000_000))
    headers = {**FRESH, "Cache-Control": cache, "Content-Encoding": "gzip"}
    for _ in range(2):
        reply = await told(origin, client.send("GET", "/a", by("br")), 200, headers, bomb)
        assert reply.status == 502
        await settled(edge)
    assert edge.store.statistics().memory.held_bytes < 10_000


@settings(ON)
@pytest.mark.parametrize("cache", ["max-age=60", "private"])
async def test_what_is_not_in_its_coding_is_refused(
    edge: Edge, origin: ScriptedOrigin, client: Client, cache: str
) -> None:
    headers = {**FRESH, "Cache-Control": cache, "Content-Encoding": "gzip"}
    reply = await told(origin, client.send("GET", "/a", by("br")), 200, headers, TEXT)
    assert reply.status == 502
    await settled(edge)


# What has earned it.

EARNING: Final = 'site.compress={codings=["br"], recompress_after=2}'


async def earned(edge: Edge, origin: ScriptedOrigin, client: Client) -> list[Reply]:
    """What three clients get, of whom the third has had it coded again; and a fourth."""
    await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
    await settled(edge)
    replies = []
    for _ in range(4):
        replies.append(await client.get("/a", by("br")))
        check(replies[-1], "br")
        await settled(edge)
    return replies


@settings(EARNING)
async def test_what_is_asked_for_often_is_coded_again_and_better(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    first, second, third, fourth = await earned(edge, origin, client)
    assert first.body == second.body
    assert len(third.body) < len(first.body)
    assert third.headers["etag"] != first.headers["etag"]
    assert (fourth.body, fourth.headers["etag"]) == (third.body, third.headers["etag"])
    # Who has the first has no other page, but other octets.
    asking = {**by("br"), "If-None-Match": first.headers["etag"]}
    same = await client.get("/a", asking)
    assert (same.status, same.headers["etag"]) == (304, first.headers["etag"])
    part = {**by("br"), "Range": "bytes=0-9", "If-Range": first.headers["etag"]}
    whole = await client.get("/a", part)
    assert (whole.status, whole.body) == (200, third.body)
    part["If-Range"] = third.headers["etag"]
    assert (await client.get("/a", part)).body == third.body[:10]
    coders = edge.tools.coders
    assert coders is not None
    assert coders.statistics().recompressed == 1


@settings(EARNING)
async def test_what_is_purged_is_not_brought_back_by_coding_it_again(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await earned(edge, origin, client)
    await edge.purge(tag=["front"])
    new = TEXT[::-1]
    check(await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, new), "br", new)
    await settled(edge)
    for _ in range(4):
        check(await client.get("/a", by("br")), "br", new)
        await settled(edge)


@settings(ON[:-1] + ', ask="coded"}')
async def test_an_origin_that_is_a_node_like_this_has_tags_like_ours(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    coded = brotli.compress(TEXT)
    tag = '"1-br.0123abcd"'
    headers = {**FRESH, "ETag": tag, "Content-Encoding": "br", "Vary": "Accept-Encoding"}
    await told(origin, client.send("GET", "/a", by("br")), 200, headers, coded)
    for _ in range(2):
        same = await client.get("/a", {**by("br"), "If-None-Match": tag})
        assert (same.status, same.headers["etag"]) == (304, tag)
        check(await client.get("/a", by("gzip")), "gzip")
        await settled(edge)
    edge.advance(61)
    pending = client.send("GET", "/a", by("br"))
    asked = await origin.next_request()
    assert asked.headers["if-none-match"] == tag
    await asked.reply(304, headers)
    assert (await pending.response()).body == coded


# Dictionaries.

BY_DICTIONARY: Final = ON[:-1] + ", dictionaries=true}"
LARGE: Final = b"".join(
    b"<li>%d: %b</li>\n" % (number, Random(number).randbytes(20).hex().encode())
    for number in range(900)
)
KEPT: Final = {**FRESH, "Use-As-Dictionary": 'match="/a*"'}


def holding(body: bytes, accepted: str = "br, dcz") -> dict[str, str]:
    """The fields of who holds `body` as a dictionary."""
    digest = b64encode(sha256(body).digest()).decode()
    return {**by(accepted), "Available-Dictionary": f":{digest}:"}


def by_dictionary(reply: Reply, body: bytes) -> bytes:
    """What a reply in dcz decodes to."""
    assert reply.headers["content-encoding"] == "dcz"
    assert reply.body[:8] == bytes.fromhex("5e2a4d1820000000")
    assert reply.body[8:40] == sha256(body).digest()
    decoder = ZstdDecompressor(zstd_dict=ZstdDict(body, is_raw=True).as_undigested_dict)
    return bytes(decoder.decompress(reply.body[40:]))


@settings(BY_DICTIONARY)
async def test_who_holds_the_old_page_gets_what_has_changed(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    old = await told(origin, client.send("GET", "/a", by("br, dcz")), 200, KEPT, LARGE)
    check(old, "br", LARGE)
    assert "available-dictionary" in old.headers["vary"].lower()
    await settled(edge)
    await edge.purge(tag=["front"])
    new = LARGE.replace(b"<li>77:", b"<li>seventy-seven:").replace(b"<li>500:", b"<li>:")
    check(await told(origin, client.send("GET", "/a", by("br")), 200, KEPT, new), "br", new)
    await settled(edge)
    brotlied = await client.get("/a", by("br, dcz"))
    check(brotlied, "br", new)

    tags = set()
    for _ in range(3):
        reply = await client.get("/a", holding(LARGE))
        assert by_dictionary(reply, LARGE) == new
        assert len(reply.body) * 10 < len(brotlied.body)
        assert reply.cache.startswith("hit")
        tags.add(reply.headers["etag"])
        await settled(edge)
    assert len(tags) == 1
    (tag,) = tags
    same = await client.get("/a", {**holding(LARGE), "If-None-Match": tag})
    assert (same.status, same.headers["etag"]) == (304, tag)
    assert "available-dictionary" in same.headers["vary"].lower()
    assert origin.unasked


@settings(BY_DICTIONARY)
async def test_a_dictionary_that_does_not_count_is_not_used(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a", by("br")), 200, KEPT, LARGE)
    await told(origin, client.send("GET", "/b", by("br")), 200, FRESH, TEXT)
    elsewhere = {**holding(LARGE), "Host": "other.example"}
    await told(origin, client.send("GET", "/a", elsewhere), 200, FRESH, TEXT)
    await settled(edge)
    for target, asking, body in (
        ("/a", holding(TEXT), LARGE),  # which is none
        ("/a", holding(LARGE, "br"), LARGE),  # dcz is not accepted
        ("/a", {**by("br, dcz"), "Available-Dictionary": "junk"}, LARGE),
        ("/b", holding(LARGE), TEXT),  # it is not for this page
        ("/a", elsewhere, TEXT),  # it is another origin's
    ):
        for _ in range(2):
            check(await client.get(target, asking), "br", body)
            await settled(edge)


@settings(BY_DICTIONARY)
async def test_what_is_one_clients_alone_becomes_no_dictionary_and_is_coded_with_none(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    private = {**KEPT, "Cache-Control": "private"}
    await told(origin, client.send("GET", "/a", by("br")), 200, private, LARGE)
    for headers in (private, KEPT):
        asked = client.send("GET", "/a", holding(LARGE))
        check(await told(origin, asked, 200, headers, LARGE), "br", LARGE)
        await trio.sleep(11)  # until it is not remembered any more that it was private
    await settled(edge)
    asked = client.send("GET", "/a", {**holding(LARGE), "Cookie": "a=1"})
    await edge.settle()
    assert by_dictionary(await asked.response(), LARGE) == LARGE


@settings(ON.replace("recompress", 'ask="coded", recompress'))
@pytest.mark.parametrize("accepted", ["br", "identity"])
async def test_tags_of_an_origin_that_is_a_node_like_this_are_its_own(
    edge: Edge, origin: ScriptedOrigin, client: Client, accepted: str
) -> None:
    coded = {
        **FRESH,
        "ETag": '"1-br.0a0b0c0d"',
        "Content-Encoding": "br",
        "Vary": "Accept-Encoding",
    }
    asked = client.send("GET", "/a", by(accepted))
    tag = (await told(origin, asked, 200, coded, brotli.compress(TEXT))).headers["etag"]
    await settled(edge)
    assert (await client.get("/a", {**by(accepted), "If-None-Match": tag})).status == 304
    matched = await client.get("/a", {**by(accepted), "If-Match": tag})
    assert matched.status == (412 if tag.startswith("W/") else 200)


@settings(ON)
async def test_a_part_of_what_a_client_does_not_accept_is_never_sent(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    headers = {**FRESH, "Content-Encoding": "gzip"}
    part = {**by("identity"), "Range": "bytes=0-9"}
    body = gzip.compress(TEXT)
    check(await told(origin, client.send("GET", "/a", part), 200, headers, body), "identity")
    await settled(edge)
    decoded = await client.get("/a", part)
    assert (decoded.status, decoded.body) == (206, TEXT[:10])
    assert "content-encoding" not in decoded.headers
    check(await client.get("/a", {**part, "If-Range": '"1"'}), "identity")


@settings(ON)
async def test_a_variant_is_kept_as_long_as_its_source_is_renewed(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    first = await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
    for _ in range(20):
        await settled(edge)
        edge.advance(3600)
        again = await told(origin, client.send("GET", "/a", by("br")), 304, FRESH)
        check(again, "br")
    await settled(edge)
    told_first = {key: first.headers[key] for key in ("etag", "vary")}
    last = await client.get("/a", by("br"))
    assert {key: last.headers[key] for key in told_first} == told_first
    coders = edge.tools.coders
    assert coders is not None
    assert coders.statistics().begun == 1


@settings(ON)
async def test_several_parts_of_a_coding_are_the_whole_of_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
    await settled(edge)
    check(await client.get("/a", {**by("br"), "Range": "bytes=0-9,50-59"}), "br")


@settings(ON)
@pytest.mark.parametrize(
    ("asking", "fields"),
    [
        ({"Cache-Control": "no-transform"}, {}),
        ({}, {"Signature-Input": "s=()", "Signature": "s=:AA==:"}),
    ],
)
async def test_what_has_to_stay_is_not_decoded(
    origin: ScriptedOrigin, client: Client, asking: dict[str, str], fields: dict[str, str]
) -> None:
    body = gzip.compress(TEXT)
    headers = {**FRESH, **fields, "Content-Encoding": "gzip"}
    reply = await told(
        origin, client.send("GET", "/a", {**by("br"), **asking}), 200, headers, body
    )
    assert reply.body == body


async def test_what_was_made_outlives_a_restart(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    async with a_world([ON], directory) as (edge, origin, client):
        await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
        await settled(edge)
        tag = (await client.get("/a", by("br"))).headers["etag"]
    async with a_world([ON], directory) as (edge, origin, client):
        for _ in range(2):
            reply = await client.get("/a", by("br"))
            check(reply, "br")
            assert (reply.headers["etag"], reply.cache) == (tag, "hit; ttl=60")
        check(await client.get("/a", by("gzip")), "gzip")
        coders = edge.tools.coders
        assert coders is not None
        assert coders.statistics().begun == 1  # of gzip alone
        assert origin.unasked
        edge.advance(61)
        new = TEXT[::-1]
        check(await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, new), "br", new)
    async with a_world([ON], directory) as (edge, origin, client):
        edge.advance(61)
        check(await client.get("/a", by("br")), "br", new)
        assert origin.unasked


@settings(ON)
async def test_a_writer_names_what_it_has_read_in_whatever_coding(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    read = await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
    await settled(edge)
    for accepted in ("br", "gzip", None):
        condition = {**by(accepted), "If-Match": read.headers["etag"]}
        pending = client.send("PUT", "/a", condition, b"new")
        asked = await origin.next_request()
        assert '"1"' in asked.headers["if-match"]
        await asked.body()
        await asked.reply(412)
        assert (await pending.response()).status == 412


@settings(ON)
async def test_a_part_by_if_match_is_of_the_octets_that_its_client_has(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    whole = await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
    await settled(edge)
    tag = whole.headers["etag"]
    for named, status in ((tag, 206), (tag[:-3] + '00"', 412), ('"1"', 412)):
        part = {**by("br"), "Range": "bytes=0-9", "If-Match": named}
        assert (await client.get("/a", part)).status == status


@settings(ON)
async def test_a_304_that_is_one_clients_alone_has_the_vary_of_its_200(
    origin: ScriptedOrigin, client: Client
) -> None:
    private = {**FRESH, "Cache-Control": "private"}
    whole = await told(origin, client.send("GET", "/a", by("br")), 200, private, TEXT)
    condition = {**by("br"), "If-None-Match": whole.headers["etag"]}
    same = await told(origin, client.send("GET", "/a", condition), 304, private)
    assert same.headers["etag"] == whole.headers["etag"]
    assert "accept-encoding" in same.headers["vary"].lower()


@settings(ON)
async def test_slow_readers_of_what_is_theirs_alone_leave_encoders_for_what_all_can_have(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    private = {**FRESH, "Cache-Control": "private"}
    large = Random(1).randbytes(200_000).hex().encode()
    for number in range(AT_ONCE):
        slow = client.send("GET", f"/{number}", by("br"), capacity=4096)
        asked = await origin.next_request()
        origin.nursery.start_soon(asked.reply, 200, private, large)
        head = await slow.wire.head()
        assert head is not None
        coding = head[1].get("content-encoding")
        assert coding == ("br" if number < FOR_ONE_AT_ONCE else None)
        await edge.settle()
    check(await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT), "br")
    again = await client.get("/a", by("br"))
    assert again.headers["content-encoding"] == "br"
