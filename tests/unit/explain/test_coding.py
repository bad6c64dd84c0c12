"""In which coding an answer goes, and why: each way that it can come out, and what then comes."""

from __future__ import annotations

from gzip import compress
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.coding import renditions
from edge.coding.policy import CompressPolicy, Stays
from edge.config import policies
from edge.explain.coding import client_words, why_words
from edge.explain.question import Question
from edge.explain.verdict import explain
from edge.wire.message import Headers, ResponseHead
from tests.stories.test_codings import (
    ACCEPTED,
    BY_DICTIONARY,
    FRESH,
    LARGE,
    ON,
    TEXT,
    by,
    holding,
)
from tests.stories.world import a_world, told
from tests.unit.admin.test_listing import used
from tests.unit.coding.test_renditions import request
from tests.unit.coding.texts import available_field

if TYPE_CHECKING:
    from tests.stories.world import Client, Edge, ScriptedOrigin

NAMES: Final = "br, zstd, gzip"
POLICY: Final = CompressPolicy()


async def coding(edge: Edge, accepted: str | None = "br", **fields: str) -> dict[str, Any]:
    """The section of a GET, which is asked for so that nothing changes by it."""
    asked = {**by(accepted), **{name.replace("_", "-"): value for name, value in fields.items()}}
    pairs = tuple((name.encode(), value.encode()) for name, value in asked.items())
    library = edge.tools.library
    before = used(edge), edge.store.statistics(), library.statistics()
    question = Question(url=b"http://site.example/a", fields=pairs)
    document = await explain(
        question, edge.tools, edge.exchange.parts, policies.connection_policy(edge.config)
    )
    assert (used(edge), edge.store.statistics(), library.statistics()) == before
    found: dict[str, Any] = document["coding"]
    return found


async def store(
    edge: Edge, origin: ScriptedOrigin, client: Client, body: bytes = TEXT, **more: str
) -> None:
    """Have an answer stored, uncoded."""
    headers = {**FRESH, **{name.replace("_", "-"): value for name, value in more.items()}}
    await told(origin, client.send("GET", "/a", by("identity")), 200, headers, body)
    await edge.settle()


async def test_a_variant_is_told_of_before_and_after_it_is_made(autojump_clock: object) -> None:
    async with a_world([ON]) as (edge, origin, client):
        assert await coding(edge) == {
            "coding": None, "why": None, "says": f"br (of {NAMES}), if what comes is worth it",
            "state": None, "bytes": None, "of_bytes": None, "dictionary": None,
        }  # fmt: skip
        await store(edge, origin, client)
        unmade = await coding(edge)
        assert unmade["says"] == f"br (of {NAMES}), made when it is first asked for"
        assert (unmade["coding"], unmade["state"], unmade["bytes"]) == ("br", "unmade", None)
        size = len((await client.get("/a", by("br"))).body)
        await edge.settle()
        share = f"{100 * size / len(TEXT):.0f} %"
        assert await coding(edge) == {
            "coding": "br", "why": None, "state": "stored", "bytes": size, "of_bytes": len(TEXT),
            "says": f"br (of {NAMES}), stored, {size} bytes, {share} of {len(TEXT)}",
            "dictionary": None,
        }  # fmt: skip
        assert (await coding(edge, "zstd"))["state"] == "unmade"


async def test_what_is_being_made_is_told_so(autojump_clock: object) -> None:
    async with a_world([ON]) as (edge, origin, client):
        pending = client.send("GET", "/a", by("br"))
        asked = await origin.next_request()
        await asked.start_reply(200, FRESH)
        await asked.send_chunk(TEXT[:100])
        await edge.settle()
        found = await coding(edge)
        assert (found["state"], found["bytes"]) == ("begun", None)
        assert found["says"] == f"br (of {NAMES}), being made"
        await asked.send_chunk(TEXT[100:])
        await asked.end()
        await pending.response()


@pytest.mark.parametrize(
    ("fields", "body", "why", "words"),
    [
        ({"Content_Type": "image/png"}, TEXT, "type", "image/png is not compressed"),
        ({}, b"short", "small", "smaller than compress.min, 512 bytes"),
        ({"Cache_Control": "max-age=60, no-transform"}, TEXT, "held",
         "its own fields forbid a change (no-transform, Content-Range or a signature)"),
        ({"Content_Type": "text/event-stream"}, TEXT, "endless",
         "an event stream is not compressed"),
    ],
)  # fmt: skip
async def test_what_goes_as_it_is_has_its_reason(
    autojump_clock: object, fields: dict[str, str], body: bytes, why: str, words: str
) -> None:
    async with a_world([ON]) as (edge, origin, client):
        await store(edge, origin, client, body, **fields)
        found = await coding(edge)
        assert found == {
            "coding": "identity", "why": why, "says": f"identity: {words}", "state": None,
            "bytes": len(body), "of_bytes": None, "dictionary": None,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("accepted", "why", "words"),
    [
        (None, "unasked", "the request has no Accept-Encoding"),
        ("deflate", "unasked", f"the client accepts none of {NAMES}"),
        ("identity, br;q=0.1", "unasked", f"the client would rather have it than any of {NAMES}"),
    ],
)
async def test_a_clients_wish_is_a_reason_before_anything_is_stored_and_after(
    autojump_clock: object, accepted: str | None, why: str, words: str
) -> None:
    async with a_world([ON]) as (edge, origin, client):
        found = await coding(edge, accepted)
        assert (found["coding"], found["why"]) == (None, why)
        assert found["says"] == f"as it comes: {words}"
        await store(edge, origin, client)
        found = await coding(edge, accepted)
        assert (found["coding"], found["why"]) == ("identity", why)
        assert found["says"] == f"identity: {words}"
        await edge.purge(all=True)
        found = await coding(edge, "br", Cache_Control="no-transform")
        assert found["says"] == "as it comes: the request says no-transform"


async def test_where_the_site_does_not_compress_that_is_the_reason(autojump_clock: object) -> None:
    async with a_world() as (edge, origin, client):
        assert (await coding(edge))["says"] == "as it comes: the site has no compress"
        await store(edge, origin, client)
        found = await coding(edge)
        assert (found["says"], found["why"]) == (
            "identity: the site has no compress", "no-compress",
        )  # fmt: skip


async def test_what_did_not_shrink_is_told_so(autojump_clock: object) -> None:
    async with a_world([ON]) as (edge, origin, client):
        await store(edge, origin, client, Random(1).randbytes(1000))
        assert (await coding(edge))["state"] == "unmade"
        await client.get("/a", by("br"))
        await edge.settle()
        found = await coding(edge)
        assert (found["coding"], found["why"]) == ("identity", "unshrunk")
        assert found["says"] == "identity: did not shrink"


async def test_what_an_origin_coded_goes_so_or_decoded_or_coded_anew(
    autojump_clock: object,
) -> None:
    async with a_world([ON]) as (edge, origin, client):
        await store(edge, origin, client, compress(TEXT), Content_Encoding="gzip")
        found = await coding(edge, "gzip")
        assert (found["coding"], found["why"]) == ("gzip", "accepted")
        assert found["says"] == "gzip, as the origin coded it"
        found = await coding(edge, "identity")
        assert found["says"] == f"decoded from gzip, stored, {len(TEXT)} bytes"
        assert found["coding"] == "identity"
        found = await coding(edge, "br")
        made = "made when it is first asked for"
        assert found["says"] == f"decoded from gzip, coded br (of {NAMES}), {made}"
        assert (found["coding"], found["state"]) == ("br", "unmade")
        size = len((await client.get("/a", by("br"))).body)
        await edge.settle()
        found = await coding(edge, "br", Range="bytes=0-9")
        assert (found["coding"], found["state"], found["bytes"]) == ("br", "stored", size)
        refusing = await coding(edge, "identity;q=0")
        assert refusing["says"] == (
            "gzip, as the origin coded it: the client accepts neither that nor identity"
        )


async def test_what_is_coded_in_an_unknown_way_is_told_by_its_name(autojump_clock: object) -> None:
    async with a_world([ON]) as (edge, origin, client):
        await store(edge, origin, client, Content_Encoding="x-odd")
        found = await coding(edge)
        assert (found["coding"], found["why"]) == ("x-odd", "coded")
        assert found["says"] == "x-odd, as the origin coded it"


async def test_a_part_is_one_of_what_is_here_whole(autojump_clock: object) -> None:
    async with a_world([ON]) as (edge, origin, client):
        await store(edge, origin, client)
        found = await coding(edge, "br", Range="bytes=0-9")
        assert (found["coding"], found["why"]) == ("identity", "part")
        reply = await client.get("/a", {**by("br"), "Range": "bytes=0-9"})
        assert reply.body == TEXT[:10]
        await client.get("/a", by("br"))
        await edge.settle()
        assert (await coding(edge, "br", Range="bytes=0-9"))["coding"] == "br"


async def test_what_goes_by_a_dictionary_is_told_so(autojump_clock: object) -> None:
    async with a_world([BY_DICTIONARY]) as (edge, origin, client):
        await store(edge, origin, client, LARGE, Use_As_Dictionary='match="/a*", id="v1"')
        named = {"Available_Dictionary": available_field(sha256(LARGE).digest()).decode()}
        short = sha256(LARGE).hexdigest()[:12]
        unmade = await coding(edge, "br, dcz", **named)
        words = f'dcz by dictionary {short} ("v1", for /a*)'
        assert unmade["says"] == f"{words}, made when it is first asked for"
        assert (unmade["coding"], unmade["why"], unmade["state"]) == ("dcz", None, "unmade")
        assert unmade["dictionary"] == {
            "digest": sha256(LARGE).hexdigest(), "id": "v1", "match": "/a*", "why": None,
        }  # fmt: skip
        reply = await client.get("/a", holding(LARGE))
        assert reply.headers["content-encoding"] == "dcz"
        await edge.settle()
        stored = await coding(edge, "br, dcz", **named)
        assert (stored["state"], stored["bytes"]) == ("stored", len(reply.body))
        assert stored["says"].startswith(f"{words}, stored, {len(reply.body)} bytes, ")
        assert (await coding(edge, "br"))["coding"] == "br"
        await edge.purge(all=True)
        coming = await coding(edge, "br, dcz", **named)
        assert (coming["coding"], coming["dictionary"]) == (None, unmade["dictionary"])
        assert coming["says"] == f"{words}, if what comes is worth it"


async def test_why_a_dictionary_is_not_used_stands_behind_the_coding(
    autojump_clock: object,
) -> None:
    async with a_world([BY_DICTIONARY]) as (edge, origin, client):
        digest = ":pZGm1Av0IEBKARczz7exkNYsZb8LzaMrV7J32a2fFG4=:"
        words = "; not dcz: no dictionary a591a6d40bf4 is known"
        coming = await coding(edge, "br, dcz", Available_Dictionary=digest)
        assert coming["says"] == f"br (of {NAMES}), if what comes is worth it{words}"
        await store(edge, origin, client)
        found = await coding(edge, "br, dcz", Available_Dictionary=digest)
        assert found["says"] == f"br (of {NAMES}), made when it is first asked for{words}"
        assert (found["coding"], found["dictionary"]["why"]) == ("br", "unknown")
        as_it_is = await coding(edge, "identity", Available_Dictionary=digest)
        assert (as_it_is["why"], as_it_is["dictionary"]) == ("unasked", None)


@pytest.mark.parametrize("accepted", ACCEPTED)
async def test_what_is_told_is_what_comes(autojump_clock: object, accepted: str | None) -> None:
    async with a_world([ON]) as (edge, origin, client):
        await store(edge, origin, client)
        for _ in range(2):
            told_of = (await coding(edge, accepted))["coding"]
            reply = await client.get("/a", by(accepted))
            assert told_of == (reply.headers.get("content-encoding") or "identity")
            await edge.settle()


@pytest.mark.parametrize(
    "asked",
    [
        {"method": b"TRACE"},
        {"method": b"OPTIONS", "fields": ((b"Max-Forwards", b"0"),)},
        {"fields": ((b"Cache-Control", b"only-if-cached"),)},
    ],
)
async def test_what_no_origin_and_no_store_answers_has_no_coding(
    autojump_clock: object, asked: dict[str, Any]
) -> None:
    sets = [ON, "site.cache.honour_request_directives=true"]
    async with a_world(sets) as (edge, _, _):
        question = Question(**{"url": b"http://site.example/a", **asked})
        document = await explain(question, edge.tools, edge.exchange.parts)
        assert document["coding"] is None


@given(st.sampled_from(Stays), st.sampled_from([None, b"", b"br", b"identity"]))
def test_every_reason_has_words(why: Stays, accepts: bytes | None) -> None:
    wished = renditions.wish(request(accepts), POLICY)
    head = ResponseHead(500, Headers(()))
    assert why_words(why, head, wished, POLICY)
    assert client_words(why, wished, POLICY)
    if why is Stays.TYPE:
        assert why_words(why, head, wished, POLICY) == "what has no Content-Type is not compressed"
    if why is Stays.STATUS:
        assert "status 500" in why_words(why, head, wished, POLICY)
