"""Pages whose length nobody told: what the first client was promised holds for all after it."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import pytest

from tests.stories.test_codings import ACCEPTED, FRESH, ON, TEXT, by, check, plain, settled
from tests.stories.world import a_world, settings, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stories.wire import Reply
    from tests.stories.world import Client, Edge, ScriptedOrigin

EARNING: Final = 'site.compress={codings=["br", "zstd", "gzip"], recompress_after=1}'
SHORT: Final = {"empty": b"", "two": b"ok", "small": TEXT[:300], "noise": Random(1).randbytes(400)}
LONG: Final = {"text": TEXT, "noise": Random(2).randbytes(200_000)}


async def fetched(
    edge: Edge,
    origin: ScriptedOrigin,
    client: Client,
    body: bytes,
    accepted: str = "br",
    *,
    late: bool = True,
    control: str = "max-age=60",
) -> Reply:
    """What the client gets who has a page fetched that comes in chunks, `late` ones or at once."""
    pending = client.send("GET", "/a", by(accepted))
    asked = await origin.next_request()
    await asked.start_reply(200, {**FRESH, "Cache-Control": control})
    if late:
        await edge.settle()  # its client has the head, and has been told of the coding
    for piece in (body[:100], body[100:]):
        if piece:
            await asked.send_chunk(piece)
    await asked.end()
    reply = await pending.response()
    await settled(edge)
    return reply


@settings(EARNING)
@pytest.mark.parametrize("late", [True, False], ids=["late", "at-once"])
@pytest.mark.parametrize("page", SHORT)
async def test_a_short_page_has_one_form_in_each_coding(
    edge: Edge, origin: ScriptedOrigin, client: Client, page: str, late: bool
) -> None:
    body = SHORT[page]
    first = await fetched(edge, origin, client, body, late=late)
    check(first, "br", body)
    forms = {"br": (first.headers["etag"], first.body)}
    for _ in range(4):  # often enough to have been coded again, were it worth it
        for accepted in ACCEPTED:
            reply = await client.get("/a", by(accepted))
            check(reply, accepted, body)
            coding = reply.headers.get("content-encoding") or "identity"
            form = reply.headers["etag"], reply.body
            assert forms.setdefault(coding, form) == form
            await settled(edge)
    assert set(forms) == {"br", "zstd", "gzip", "identity"}
    assert len({tag for tag, _ in forms.values()}) == 4
    assert origin.unasked


@settings(ON)
@pytest.mark.parametrize("page", LONG)
async def test_a_promise_holds_where_the_page_is_long_or_does_not_shrink(
    edge: Edge, origin: ScriptedOrigin, client: Client, page: str
) -> None:
    body = LONG[page]
    first = await fetched(edge, origin, client, body)
    check(first, "br", body)
    for _ in range(3):
        reply = await client.get("/a", by("br"))
        assert (reply.body, reply.headers["etag"]) == (first.body, first.headers["etag"])
    coders = edge.tools.coders
    assert coders is not None
    assert coders.statistics().begun == 1


@settings('site.compress={max="1KiB", recompress_after=0}')
async def test_it_holds_too_where_the_page_is_larger_than_what_is_coded(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    first = await fetched(edge, origin, client, TEXT)
    for _ in range(2):
        reply = await client.get("/a", by("br"))
        assert (reply.body, reply.headers["etag"]) == (first.body, first.headers["etag"])
        assert plain(reply) == TEXT


@settings(ON)
@pytest.mark.parametrize("page", SHORT)
async def test_what_the_first_client_has_is_what_it_asks_about_later(
    edge: Edge, origin: ScriptedOrigin, client: Client, page: str
) -> None:
    first = await fetched(edge, origin, client, SHORT[page])
    tag = first.headers["etag"]
    assert tag.startswith('"1-br.')
    for _ in range(2):
        again = await client.get("/a", {**by("br, gzip"), "If-None-Match": tag})
        assert (again.status, again.headers["etag"]) == (304, tag)
        told_of = await client.send("HEAD", "/a", by("br")).response()
        for name in ("etag", "content-encoding", "vary"):
            assert told_of.headers[name] == first.headers[name]
        assert int(told_of.headers["content-length"]) == len(first.body)
        for condition in ({}, {"If-Range": tag}):
            part = await client.get("/a", {**by("br"), "Range": "bytes=0-0", **condition})
            assert (part.status, part.headers["etag"]) == (206, tag)
            assert (part.headers["content-encoding"], part.body) == ("br", first.body[:1])
    edge.advance(61)
    asking = client.send("GET", "/a", {**by("br"), "If-None-Match": tag})
    renewed = await told(origin, asking, 304, FRESH)
    assert (renewed.status, renewed.headers["etag"]) == (304, tag)
    assert (await client.get("/a", by("br"))).headers["etag"] == tag


@settings(ON)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_is_one_clients_alone_is_judged_by_its_head_as_well(
    edge: Edge, origin: ScriptedOrigin, client: Client, method: str
) -> None:
    for late in (True, False):
        if method == "GET":
            reply = await fetched(
                edge, origin, client, SHORT["small"], late=late, control="private"
            )
            check(reply, "br", SHORT["small"])
        else:
            pending = client.send("HEAD", "/a", by("br"))
            asked = await origin.next_request()
            await asked.wire.send(b"HTTP/1.1 200 Fine\r\ncontent-type: text/html\r\n\r\n")
            asked.done.set()
            reply = await pending.response()
        assert reply.headers["content-encoding"] == "br"


async def test_it_holds_after_a_restart(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    async with a_world([ON], directory) as (edge, origin, client):
        first = await fetched(edge, origin, client, SHORT["noise"])
    async with a_world([ON], directory) as (edge, origin, client):
        for _ in range(2):
            reply = await client.get("/a", by("br"))
            assert (reply.body, reply.headers["etag"]) == (first.body, first.headers["etag"])
        assert origin.unasked
