"""The list of what is stored, and one stored response as it is."""

from __future__ import annotations

import gzip
import shlex
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edge.admin import listing
from edge.admin.call import Refused
from edge.admin.listing import PIECE_BYTES, get_stored, list_stored
from edge.errors import ExchangeError, Failure
from edge.explain.question import Question
from tests.stories.world import a_world, told

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from tests.stories.world import Client, Edge, ScriptedOrigin

URL = b"http://site.example/a"


async def stored(
    world: tuple[Edge, ScriptedOrigin, Client],
    target: str = "/a",
    body: bytes = b"whole",
    *,
    asked: dict[str, str] | None = None,
    **headers: str,
) -> None:
    """Have an answer stored for `target`."""
    edge, origin, client = world
    fields = {"Cache-Control": "max-age=60"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    await told(origin, client.send("GET", target, asked), 200, fields, body)
    await edge.settle()


async def listed(edge: Edge, prefix: str = "", limit: int | None = None) -> list[dict[str, Any]]:
    pieces: list[bytes] = []

    async def send(piece: bytes | memoryview) -> None:
        pieces.append(bytes(piece))

    sites = edge.exchange.parts.sites
    purges = edge.purges.current()
    await list_stored(edge.store, purges, sites, edge.now, prefix, limit, send)
    return [msgspec.json.decode(line) for line in b"".join(pieces).splitlines()]


async def got(edge: Edge, question: Question) -> list[bytes]:
    pieces: list[bytes] = []

    async def send(piece: bytes | memoryview) -> None:
        pieces.append(bytes(piece))

    await get_stored(question, edge.tools, edge.exchange.parts, send)
    return pieces


def used(edge: Edge) -> Any:
    held = edge.store.statistics()
    found = edge.store._ram.items()
    return held, [(h.hits, h.used, h.opened_at, h.passed) for _, r in found for h in r.variants]


# --- all


async def test_every_stored_variant_has_a_line(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        edge = world[0]
        gzip = {"Accept-Encoding": "gzip"}
        await stored(world, asked=gzip, Vary="accept-encoding, cookie", xkey="front side")
        edge.advance(20)
        (line,) = await listed(edge)
        assert line == {
            "url": "http://site.example/a",
            "variant": [["accept-encoding", "gzip"], ["cookie", None]],
            "coding": None,
            "status": 200,
            "bytes": 5,
            "age_s": 20.0,
            "ttl_s": 40.0,
            "hits": 0,
            "state": "fresh",
            "where": "memory",
            "tags": ["front", "side"],
        }


async def test_a_coded_variant_is_told_from_its_source(autojump_clock: MockClock) -> None:
    text = b"the same words " * 100
    async with a_world(['site.compress={codings=["br"]}']) as world:
        edge, _, client = world
        await stored(world, "/a", text, Content_Type="text/html")
        await stored(world, "/b", gzip.compress(text), Content_Type="text/html",
                     Content_Encoding="gzip")  # fmt: skip
        for target, accepted in (("/a", "br"), ("/b", "br"), ("/b", "identity")):
            await client.send("GET", target, {"Accept-Encoding": accepted}).response()
            await edge.settle()
        lines = [(line["url"][-2:], line["coding"], line["bytes"]) for line in await listed(edge)]
        made = {(target, coding): size for target, coding, size in lines}
        codings = {"/a": (None, "br"), "/b": (None, "br", "identity")}
        assert set(made) == {(target, each) for target in codings for each in codings[target]}
        assert made["/a", "br"] < made["/a", None] == made["/b", "identity"] == len(text)


async def test_a_prefix_is_text_with_its_scheme_or_without(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        for target in ("/a", "/ab", "/b"):
            await stored(world, target)
        edge = world[0]
        for prefix in ("http://site.example/a", "site.example/a"):
            assert {line["url"][-3:] for line in await listed(edge, prefix)} == {"e/a", "/ab"}
        assert await listed(edge, "https://site.example/a") == []
        assert len(await listed(edge, limit=2)) == 2
        assert await listed(edge, limit=0) == []


async def test_a_state_tells_what_may_be_made_of_it(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        edge = world[0]
        for target in ("/fresh", "/dead", "/soft"):
            await stored(world, target, Cache_Control="max-age=600")
        await stored(world, "/stale", Cache_Control="max-age=1")
        edge.advance(10)
        await edge.purge(url=["http://site.example/dead"])
        await edge.purge(url=["http://site.example/soft"], soft=True)
        edge.advance(10)
        lines = {line["url"].rpartition("/")[2]: line for line in await listed(edge)}
        states = {name: line["state"] for name, line in lines.items()}
        assert states == {
            "fresh": "fresh", "dead": "purged", "soft": "soft-purged", "stale": "stale",
        }  # fmt: skip
        assert lines["soft"]["ttl_s"] == -10.0
        assert lines["stale"]["ttl_s"] == -19.0


async def test_what_is_on_disk_is_listed_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_world((), tmp_path / "store") as world:
        await stored(world, body=b"x" * 100)
        assert [line["where"] for line in await listed(world[0])] == ["both"]
        (line,) = await listed(world[0])
        assert line["hits"] == 0
    async with a_world((), tmp_path / "store") as world:
        (line,) = await listed(world[0])
        assert (line["where"], line["hits"]) == ("disk", None)


async def test_a_list_is_sent_in_pieces(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(listing, "PIECE_BYTES", 1)
    async with a_world() as world:
        for target in ("/a", "/b"):
            await stored(world, target)
        assert len(await listed(world[0])) == 2


async def test_the_tags_of_a_site_that_is_gone_are_the_usual_ones(
    autojump_clock: MockClock,
) -> None:
    async with a_world(['site.hosts=["site.example"]']) as world:
        await stored(world, xkey="front")
        edge = world[0]
        edge.exchange.parts.sites._exact.clear()
        (line,) = await listed(edge)
        assert line["tags"] == ["front"]


async def test_listing_uses_nothing(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        await stored(world)
        await world[0].purge(tag=["other"])
        before = used(world[0])
        await listed(world[0])
        assert used(world[0]) == before


# --- one


async def test_a_stored_response_comes_as_it_would_stand_on_the_wire(
    autojump_clock: MockClock,
) -> None:
    async with a_world() as world:
        await stored(world, ETag='"1"')
        head, _, body = b"".join(await got(world[0], Question(URL))).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 Fine\r\n")
        assert b'\r\netag: "1"' in head
        assert b"\r\ncontent-length: 5" in head
        assert body == b"whole"


async def test_ranges_and_conditions_mean_nothing_here(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        await stored(world, ETag='"1"')
        fields = ((b"Range", b"bytes=0-1"), (b"If-None-Match", b'"1"'))
        assert (await got(world[0], Question(URL, fields=fields)))[-1] == b"whole"


@pytest.mark.parametrize("on_disk", [False, True])
async def test_a_body_comes_in_pieces_and_counts_as_no_use(
    *, on_disk: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    body = bytes(range(256)) * 1200
    async with a_world((), tmp_path / "store" if on_disk else None) as world:
        await stored(world, body=body)
        if on_disk:
            world[0].store._ram.clear()
        before = used(world[0])
        _head, *pieces = await got(world[0], Question(URL))
        assert b"".join(pieces) == body
        assert max(map(len, pieces)) <= PIECE_BYTES
        assert used(world[0]) == before


async def test_the_variant_is_the_one_that_the_fields_select(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        await stored(world, body=b"gz", asked={"Accept-Encoding": "gzip"}, Vary="Accept-Encoding")
        fields = ((b"Accept-Encoding", b"gzip"),)
        assert (await got(world[0], Question(URL, fields=fields)))[-1] == b"gz"
        with pytest.raises(Refused, match="1 variant is stored") as caught:
            await got(world[0], Question(URL))
        assert caught.value.status == 404
        await stored(world, body=b"br", asked={"Accept-Encoding": "br"}, Vary="Accept-Encoding")
        with pytest.raises(Refused, match="2 variants are stored"):
            await got(world[0], Question(URL))


async def test_a_command_that_is_told_can_be_pasted_into_a_shell(
    autojump_clock: MockClock,
) -> None:
    async with a_world() as world:
        url = b"http://site.example/" + b"a" * 200 + b"?b=1&c='$(x)'"
        with pytest.raises(Refused) as caught:
            await got(world[0], Question(url))
        command = str(caught.value).split("`")[1]
        assert shlex.split(command) == ["edge", "explain", url.decode()]


async def test_a_prefix_may_have_its_host_in_upper_case(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        await stored(world)
        for prefix in ("HTTP://Site.Example/", "SITE", "Site.example/a", "http://site.example/a"):
            assert len(await listed(world[0], prefix)) == 1
        assert await listed(world[0], "site.example/A") == []


async def test_what_is_stale_or_soft_purged_is_given_out(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        await stored(world)
        world[0].advance(100)
        assert (await got(world[0], Question(URL)))[-1] == b"whole"
        await world[0].purge(all=True, soft=True)
        assert (await got(world[0], Question(URL)))[-1] == b"whole"


async def test_what_was_purged_is_not_given_out(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        await stored(world)
        await world[0].purge(all=True)
        with pytest.raises(Refused, match="has been purged") as caught:
            await got(world[0], Question(URL))
        assert caught.value.status == 404


async def test_what_is_not_there_is_told_with_the_way_out(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        with pytest.raises(Refused, match=r"edge explain http://site\.example/a"):
            await got(world[0], Question(URL))
        with pytest.raises(Refused, match="400 bad-host, malformed authority") as caught:
            await got(world[0], Question(b"http://[/a"))
        assert caught.value.status == 400
        with pytest.raises(Refused, match="405 method-refused"):
            await got(world[0], Question(URL, b"PURGE"))


async def test_what_is_on_its_way_is_sent_as_it_comes(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        edge, origin, client = world
        first = client.send("GET", "/a")
        asked = await origin.next_request()
        await asked.start_reply(200, {"Cache-Control": "max-age=60"})
        await asked.send_chunk(b"begin")
        await edge.settle()
        await asked.send_chunk(b" end")
        await asked.end()
        pieces = await got(edge, Question(URL))
        assert b"".join(pieces).endswith(b"\r\n\r\nbegin end")
        await first.response()


async def test_a_body_that_is_lost_is_told_of(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_world((), tmp_path / "store") as world:
        await stored(world, body=b"x" * 100_000)
        world[0].store._ram.clear()
        (path,) = (tmp_path / "store" / "shard-0" / "bodies").rglob("*-*")
        path.unlink()
        with pytest.raises(Refused, match="its body cannot be had") as caught:
            await got(world[0], Question(URL))
        assert caught.value.status == 404


async def test_a_body_that_rots_further_on_breaks_off(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_world((), tmp_path / "store") as world:
        await stored(world, body=b"x" * 3_000_000)
        world[0].store._ram.clear()
        (path,) = (tmp_path / "store" / "shard-0" / "bodies").rglob("*-*")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(ExchangeError) as caught:
            await got(world[0], Question(URL))
        assert caught.value.failure is Failure.BODY_LOST


async def test_an_answer_without_a_body_gets_no_length(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        edge, origin, client = world
        await told(origin, client.send("GET", "/a"), 204, {"Cache-Control": "max-age=60"})
        await edge.settle()
        (head,) = await got(edge, Question(URL))
        assert head.startswith(b"HTTP/1.1 204 ")
        assert b"content-length" not in head


def test_a_status_without_words_has_its_usual_ones_if_any() -> None:
    assert listing._phrase(404) == b"Not Found"
    assert listing._phrase(299) == b""
