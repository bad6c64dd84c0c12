"""What its origin coded, for who does not accept that: decoded, and coded in what they do."""

from __future__ import annotations

import gzip
import zlib
from random import Random
from typing import TYPE_CHECKING, Final

import brotli
import pytest

from edge.coding.coders import AT_ONCE, DECODERS
from edge.coding.decoders import Decoder
from edge.coding.negotiate import Coding
from edge.coding.zstd import ZstdCompressor
from tests.stories.test_codings import (
    ACCEPTED,
    BY_DICTIONARY,
    FRESH,
    KEPT,
    ON,
    PAGE,
    PURGES,
    TEXT,
    by,
    by_dictionary,
    check,
    holding,
    plain,
    settled,
)
from tests.stories.wire import TruncatedError
from tests.stories.world import a_world, settings, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stories.wire import Reply
    from tests.stories.world import Client, Edge, ScriptedOrigin

EARNING: Final = 'site.compress={codings=["br", "zstd", "gzip"], recompress_after=1}'
GZIPPED: Final = {**FRESH, "Content-Encoding": "gzip"}
BODY: Final = gzip.compress(TEXT)
LARGE: Final = b"".join(PAGE % number for number in range(20_000))  # more than is decoded ahead
CODED: Final = {
    "gzip": gzip.compress(LARGE),
    "br": brotli.compress(LARGE, quality=4),
    "zstd": ZstdCompressor(3).compress(LARGE, ZstdCompressor.FLUSH_FRAME),
}


def begun(edge: Edge) -> int:
    """How many bodies have been coded."""
    coders = edge.tools.coders
    assert coders is not None
    return coders.statistics().begun


async def stored(
    edge: Edge, origin: ScriptedOrigin, client: Client, accepted: str = "gzip"
) -> Reply:
    """What the client gets who has the page fetched, when all of it is there."""
    reply = await told(origin, client.send("GET", "/a", by(accepted)), 200, GZIPPED, BODY)
    check(reply, accepted)
    await settled(edge)
    return reply


@settings(EARNING)
@pytest.mark.parametrize("first", ["gzip", "br", "zstd;q=0.5, br;q=0.1", "identity", "gzip, br"])
async def test_every_client_gets_one_form_that_it_accepts(
    edge: Edge, origin: ScriptedOrigin, client: Client, first: str
) -> None:
    await stored(edge, origin, client, first)
    tags: dict[str, str] = {}
    for _ in range(4):  # often enough to be coded again, which this is not
        for accepted in (*ACCEPTED, "gzip;q=0, br, zstd", "identity;q=0, br"):
            reply = await client.get("/a", by(accepted))
            check(reply, accepted)
            coding = reply.headers.get("content-encoding") or "identity"
            assert tags.setdefault(coding, reply.headers["etag"]) == reply.headers["etag"]
            if coding == "gzip":
                assert reply.body == BODY
            await settled(edge)
    assert tags["gzip"] == '"1"'
    assert tags["identity"] == 'W/"1"'
    assert len(set(tags.values())) == len(tags) == 4
    assert begun(edge) == 2
    assert origin.unasked


@settings(ON)
@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("br", "br"),
        ("zstd, br;q=0.9", "zstd"),
        ("gzip;q=0, br, *;q=0.1", "br"),
        ("*", "gzip"),
        ("br, zstd, gzip;q=0.1", "gzip"),
        ("identity;q=0.5, br, gzip;q=0.1", "br"),
        ("identity, br;q=0.5", None),
        (None, None),
    ],
)
async def test_the_origins_coding_is_for_all_who_accept_it(
    edge: Edge, origin: ScriptedOrigin, client: Client, accepted: str | None, coding: str | None
) -> None:
    await stored(edge, origin, client)
    for _ in range(2):
        reply = await client.get("/a", by(accepted))
        check(reply, accepted)
        assert reply.headers.get("content-encoding") == coding
        await settled(edge)


@settings(ON)
async def test_who_accepts_the_origins_coding_is_sent_no_copy_of_another(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await stored(edge, origin, client)
    for accepted in ("br", "br, gzip", "br"):
        for _ in range(4):
            reply = await client.get("/a", by(accepted))
            assert reply.headers["content-encoding"] == accepted.rpartition(" ")[2]
            await settled(edge)


@settings(ON)
@pytest.mark.parametrize("accepted", ["br", "zstd", "gzip", "identity"])
async def test_conditions_hold_across_codings(
    edge: Edge, origin: ScriptedOrigin, client: Client, accepted: str
) -> None:
    tag = (await stored(edge, origin, client, accepted)).headers["etag"]
    for _ in range(2):
        for wanted in (accepted, f"{accepted}, gzip", "*"):
            same = await client.get("/a", {**by(wanted), "If-None-Match": tag})
            assert (same.status, same.headers["etag"]) == (304, tag)
            assert same.headers["vary"] == "Accept-Encoding"
        await client.get("/a", by("zstd"))
        await settled(edge)
    edge.advance(61)
    asking = client.send("GET", "/a", {**by(accepted), "If-None-Match": tag})
    asked = await origin.next_request()
    assert asked.headers["if-none-match"].endswith('"1"')
    await asked.reply(304, FRESH)
    renewed = await asking.response()
    assert (renewed.status, renewed.headers["etag"]) == (304, tag)
    again = await client.get("/a", by(accepted))
    check(again, accepted)
    assert again.headers["etag"] == tag
    assert begun(edge) == (1 if accepted == "zstd" else 1 + (accepted == "br"))


@settings(ON)
async def test_heads_and_parts_are_of_the_clients_coding(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await stored(edge, origin, client)
    unmade = await client.send("HEAD", "/a", by("br")).response()
    assert unmade.headers["content-encoding"] == "br"
    assert unmade.headers["vary"] == "Accept-Encoding"
    part = {**by("br"), "Range": "bytes=3-9"}
    check(await client.get("/a", part), "br")  # it is being made: all of it will do
    await settled(edge)
    whole = await client.get("/a", by("br"))
    tag = whole.headers["etag"]
    told_of = await client.send("HEAD", "/a", by("br")).response()
    for name in ("etag", "content-encoding", "content-length", "vary"):
        assert told_of.headers[name] == whole.headers[name]
    for condition in ({}, {"If-Range": tag}, {"If-Match": tag}):
        got = await client.get("/a", {**part, **condition})
        assert (got.status, got.headers["etag"], got.body) == (206, tag, whole.body[3:10])
        assert got.headers["content-encoding"] == "br"
    for other in ('"1"', 'W/"1"', '"1-br.00000000"'):  # of other octets, all of them
        check(await client.get("/a", {**part, "If-Range": other}), "br")
    far = await client.get("/a", {**by("br"), "Range": f"bytes={len(whole.body)}-"})
    assert far.status == 416


@settings(ON)
@pytest.mark.parametrize("came", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("late", [False, True], ids=["cold", "stored"])
async def test_a_crowd_shares_one_making(
    edge: Edge, origin: ScriptedOrigin, client: Client, came: str, late: bool
) -> None:
    body = CODED[came]
    wanted = "br" if came == "gzip" else "gzip"
    headers = {**FRESH, "Content-Encoding": came}
    if late:
        await told(origin, client.send("GET", "/a", by(came)), 200, headers, body)
    most = int(AT_ONCE * DECODERS[Coding(came)])
    crowd = [client.send("GET", "/a", by(wanted)) for _ in range(min(most, AT_ONCE) + 10)]
    if not late:
        await (await origin.next_request()).reply(200, headers, body)
    replies = [await pending.response() for pending in crowd]
    for reply in replies:
        check(reply, wanted, LARGE)
    assert len({reply.headers["etag"] for reply in replies}) == 1
    assert begun(edge) == 1
    await settled(edge)
    assert origin.unasked


@settings(ON)
async def test_a_slow_page_arrives_as_it_is_made(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a", by("br"))
    asked = await origin.next_request()
    await asked.start_reply(200, GZIPPED)
    coder, decoder, decoded = zlib.compressobj(wbits=31), Decoder(Coding.BR), b""
    for number in range(3):
        page = coder.compress(PAGE % number) + coder.flush(zlib.Z_SYNC_FLUSH)
        await asked.send_chunk(page)
        if number == 0:
            head = await pending.wire.head()
            assert head is not None
            assert head[1]["content-encoding"] == "br"
        wanted = decoded + PAGE % number
        while decoded != wanted:
            decoded += b"".join(decoder.pieces(await pending.wire.chunk()))
    await asked.send_chunk(coder.flush())
    await asked.end()
    rest = b""
    while piece := await pending.wire.chunk():
        rest += piece
    assert b"".join(decoder.pieces(rest)) == b""
    decoder.finish()
    await settled(edge)
    assert plain(await client.get("/a", by("br"))) == decoded


@settings(ON)
@pytest.mark.parametrize("order", PURGES, ids=lambda order: next(iter(order)))
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
async def test_a_purge_covers_what_was_made(
    edge: Edge, origin: ScriptedOrigin, client: Client, order: dict[str, object], soft: bool
) -> None:
    await stored(edge, origin, client, "br")
    await edge.purge(**order, soft=soft)
    new = TEXT[::-1]
    pending = client.send("GET", "/a", by("br"))
    check(await told(origin, pending, 200, GZIPPED, gzip.compress(new)), "br", new)
    await settled(edge)
    for accepted in ACCEPTED:
        check(await client.get("/a", by(accepted)), accepted, new)


@settings(ON)
async def test_a_purge_covers_what_is_being_made(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    old = client.send("GET", "/a", by("br"))
    asked = await origin.next_request()
    await asked.start_reply(200, GZIPPED)
    await asked.send_chunk(BODY[:100])
    await edge.settle()
    await edge.purge(tag=["front"])
    new = TEXT[::-1]
    pending = client.send("GET", "/a", by("br"))
    check(await told(origin, pending, 200, GZIPPED, gzip.compress(new)), "br", new)
    await asked.send_chunk(BODY[100:])
    await asked.end()
    check(await old.response(), "br")  # asked before the purge: allowed
    await settled(edge)
    check(await client.get("/a", by("br")), "br", new)


@settings(ON)
async def test_a_crowd_is_refused_a_bomb_and_nothing_of_it_is_kept(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    bomb = gzip.compress(bytes(30_000_000))
    for _ in range(2):
        crowd = [client.send("GET", "/a", by("br")) for _ in range(20)]
        await (await origin.next_request()).reply(200, GZIPPED, bomb)
        assert [(await pending.response()).status for pending in crowd] == [502] * 20
        await settled(edge)
        assert origin.unasked
    assert edge.store.statistics().memory.held_bytes < 10_000


@settings(ON)
@pytest.mark.parametrize("cache", ["max-age=60", "private"])
async def test_a_bomb_behind_a_page_breaks_off_and_is_not_kept(
    edge: Edge, origin: ScriptedOrigin, client: Client, cache: str
) -> None:
    coder = zlib.compressobj(wbits=31)
    late = coder.compress(LARGE) + coder.compress(bytes(60_000_000)) + coder.flush()
    headers = {**GZIPPED, "Cache-Control": cache}
    for _ in range(2):
        pending = client.send("GET", "/a", by("br"))
        await (await origin.next_request()).reply(200, headers, late)
        with pytest.raises(TruncatedError):
            await pending.response()
        await settled(edge)
    assert edge.store.statistics().memory.held_bytes < 10_000


@settings(ON)
async def test_a_body_that_breaks_off_makes_no_whole_variant(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    for _ in range(2):
        pending = client.send("GET", "/a", by("br"))
        asked = await origin.next_request()
        await asked.start_reply(200, {**GZIPPED, "Content-Length": str(len(BODY))})
        await asked.send_chunk(BODY[:200])
        await edge.settle()
        asked.break_off()
        with pytest.raises(TruncatedError):
            await pending.response()
        await settled(edge)
    await stored(edge, origin, client, "br")


@settings(ON)
async def test_what_is_one_clients_alone_is_coded_anew_for_it(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    private = {**GZIPPED, "Cache-Control": "private"}
    for accepted in ("br", "zstd", "gzip", "identity", "gzip, br"):
        reply = await told(origin, client.send("GET", "/a", by(accepted)), 200, private, BODY)
        check(reply, accepted)
        headed = client.send("HEAD", "/a", by(accepted))
        length = {**private, "Content-Length": str(len(BODY))}
        head = await told(origin, headed, 200, length)
        coding = reply.headers.get("content-encoding")
        assert head.headers.get("content-encoding") == coding
        assert coding == (None if accepted == "identity" else accepted.partition(",")[0])


@settings(ON)
@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("kind", ["text/html", "image/png"])
async def test_only_what_pays_is_coded_anew(
    edge: Edge, origin: ScriptedOrigin, client: Client, status: int, kind: str
) -> None:
    headers = {**GZIPPED, "Content-Type": kind}
    pending = client.send("GET", "/a", by("br"))
    first = await told(origin, pending, status, headers, BODY)
    await settled(edge)
    for reply in (first, await client.get("/a", by("br"))):
        assert (reply.status, plain(reply)) == (status, TEXT)
        assert reply.headers.get("content-encoding") == ("br" if kind == "text/html" else None)
        assert reply.headers["vary"] == "Accept-Encoding"


@settings(ON)
async def test_what_may_not_be_transformed_is_not_touched_at_all(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    headers = {**GZIPPED, "Cache-Control": "max-age=60, no-transform"}
    for accepted in ("br", "identity", "gzip"):
        pending = client.send("GET", "/a", by(accepted))
        reply = await pending.response() if accepted != "br" else None
        reply = reply or await told(origin, pending, 200, headers, BODY)
        assert (reply.body, reply.headers["etag"]) == (BODY, '"1"')
        assert reply.headers["content-encoding"] == "gzip"
        assert "vary" not in reply.headers
        await settled(edge)
    assert begun(edge) == 0


@settings(BY_DICTIONARY)
async def test_a_dictionary_may_do_for_it_too(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a", by("br")), 200, KEPT, TEXT)
    await settled(edge)
    await edge.purge(tag=["front"])
    new = TEXT.replace(b"number 77.", b"number 78.")
    await told(origin, client.send("GET", "/a", by("gzip")), 200, GZIPPED, gzip.compress(new))
    for _ in range(2):
        assert by_dictionary(await client.get("/a", holding(TEXT)), TEXT) == new
        check(await client.get("/a", holding(TEXT, "gzip, dcz")), "gzip", new)
        await settled(edge)


@settings(EARNING)
async def test_it_is_not_coded_again(edge: Edge, origin: ScriptedOrigin, client: Client) -> None:
    body = Random(1).randbytes(6000).hex().encode()  # which does not become too small for it
    pending = client.send("GET", "/a", by("br"))
    first = await told(origin, pending, 200, GZIPPED, gzip.compress(body))
    await settled(edge)
    for _ in range(6):
        reply = await client.get("/a", by("br"))
        check(reply, "br", body)
        assert reply.headers["etag"] == first.headers["etag"]
        await settled(edge)
    coders = edge.tools.coders
    assert coders is not None
    assert (coders.statistics().recompressed, coders.statistics().given_up) == (0, 0)


async def test_what_was_made_outlives_a_restart(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    async with a_world([ON], directory) as (edge, origin, client):
        tag = (await stored(edge, origin, client, "br")).headers["etag"]
    async with a_world([ON], directory) as (edge, origin, client):
        for _ in range(2):
            reply = await client.get("/a", by("br"))
            check(reply, "br")
            assert reply.headers["etag"] == tag
        assert begun(edge) == 0
        assert origin.unasked
