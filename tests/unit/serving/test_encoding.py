"""Who makes a variant, who does not, and what becomes of one that is overtaken or goes wrong."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from gzip import compress
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from edge.cache.held import Held
from edge.cache.threads import Inline
from edge.coding import renditions
from edge.coding.coders import Coders
from edge.coding.negotiate import Coding
from edge.errors import ExchangeError, Failure
from tests.stories.test_codings import FRESH, ON, TEXT, by, check
from tests.stories.wire import TruncatedError
from tests.stories.world import a_world, told
from tests.unit.coding.test_renditions import GZIPPED, HTML, entry, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.stories.world import Client, Edge, ScriptedOrigin

EARNING: Final = 'site.compress={codings=["br"], recompress_after=1}'


@asynccontextmanager
async def world(
    coders: Coders | None, setting: str = ON
) -> AsyncIterator[tuple[Edge, ScriptedOrigin, Client]]:
    async with a_world([setting]) as (edge, origin, client):
        edge.tools.coders = coders
        yield edge, origin, client


@pytest.mark.parametrize("coders", [None, Coders(Inline(), Inline(), 0)], ids=["none", "busy"])
async def test_where_nobody_can_code_it_the_answer_goes_as_it_is(
    autojump_clock: object, coders: Coders | None
) -> None:
    async with world(coders) as (edge, origin, client):
        for control in ("max-age=60", "private"):
            headers = {**FRESH, "Cache-Control": control}
            reply = await told(origin, client.send("GET", "/a", by("br")), 200, headers, TEXT)
            assert (reply.body, reply.headers["etag"]) == (TEXT, '"1"')
            check(reply, None)
            await edge.purge(all=True)


async def test_where_nobody_can_code_it_what_its_origin_coded_is_decoded(
    autojump_clock: object,
) -> None:
    async with world(Coders(Inline(), Inline(), 0)) as (edge, origin, client):
        for control in ("max-age=60", "private"):
            headers = {**FRESH, "Cache-Control": control, "Content-Encoding": "gzip"}
            pending = client.send("GET", "/a", by("br"))
            reply = await told(origin, pending, 200, headers, compress(TEXT))
            assert (reply.body, reply.headers["etag"]) == (TEXT, 'W/"1"')
            check(reply, None)
            await edge.purge(all=True)


async def test_whoever_waits_for_another_to_begin_goes_on_when_that_one_leaves(
    autojump_clock: object,
) -> None:
    async with world(Coders(Inline(), Inline())) as (edge, origin, client):
        headers = {**FRESH, "Content-Encoding": "gzip"}
        await told(origin, client.send("GET", "/a", by("gzip")), 200, headers, compress(TEXT))
        encodings, key = edge.exchange.encodings, _key_of(edge)
        (source,) = (await edge.store.find(key, edge.now)).variants
        entered: list[str] = []

        async def enter(name: str, *, leaves: ExchangeError | None = None) -> None:
            with suppress(ExchangeError):
                async with encodings._opening(key, source):
                    entered.append(name)
                    await trio.sleep(1)
                    if leaves is not None:
                        raise leaves
                    entered.append(f"{name} done")

        busy = ExchangeError(Failure.OVERLOADED)
        broken = ExchangeError(Failure.BAD_RESPONSE)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(enter, "cancelled")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        for failing, after in ((busy, ["second", "second done"]), (broken, [])):
            entered.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(enter, "first", leaves=failing))
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(enter, "second")
            assert entered == ["first", *after]


@pytest.mark.parametrize(
    ("condition", "made", "has"),
    [
        (None, "no", True),
        (None, "begun", True),
        (None, "whole", False),
        (b'"1"', "no", True),
        (b'"1"', "whole", True),
        (b'W/"1"', "whole", False),
        (b'"1-br.00000000"', "no", False),
        (b'"1-br.00000000"', "whole", False),
        (b"Thu, 14 Jan 2027 00:00:00 GMT", "no", False),
    ],
)
def test_a_part_is_the_sources_where_the_client_has_one_of_that(
    condition: bytes | None, made: str, has: bool
) -> None:
    source = entry()
    length = 99 if made == "whole" else None
    variant = Held(renditions.entry_of(source, Coding.BR, b"1", length)) if made != "no" else None
    fields = [(b"range", b"bytes=0-1")]
    fields += [(b"if-range", condition)] if condition is not None else []
    assert renditions.has_part_of(request(b"br", *fields), source, variant) is has
    assert not renditions.has_part_of(request(b"br"), source, variant)
    gzipped = entry(*HTML, *GZIPPED)  # which this client does not accept
    assert not renditions.has_part_of(request(b"br", *fields), gzipped, variant)


class _Broken(Inline):
    """Workers in which every job goes wrong in a way that nobody foresaw."""

    async def run(self, job: Callable[[], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug")


async def test_a_mistake_of_ours_breaks_off_one_answer_and_no_worker(
    autojump_clock: object,
) -> None:
    large = TEXT * 100  # so that a worker is asked
    async with world(Coders(_Broken(), Inline())) as (edge, origin, client):
        pending = client.send("GET", "/a", by("br"))
        await (await origin.next_request()).reply(200, FRESH, large)
        with pytest.raises(TruncatedError):
            await pending.response()
        await edge.settle()
        assert edge.complaints[0][0] == "internal"
        assert (await client.get("/a")).body == large


class _Waiting(Inline):
    """Workers that begin when they are let."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = trio.Event()

    async def run(self, job: Callable[[], Any]) -> Any:
        await self.begin.wait()
        return await super().run(job)


@pytest.mark.parametrize("change", ["purged", "fetched", "dropped", "nothing"])
async def test_what_is_coded_again_takes_no_others_place(
    autojump_clock: object, change: str
) -> None:
    late = _Waiting()
    async with world(Coders(Inline(), late), EARNING) as (edge, origin, client):
        await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, TEXT)
        await edge.settle()
        first = await client.get("/a", by("br"))
        await edge.settle()
        new = TEXT
        if change == "purged":
            await edge.purge(tag=["front"])
        elif change == "dropped":
            edge.store.invalidate(_key_of(edge))
        if change in ("purged", "fetched", "dropped"):
            edge.advance(61 if change == "fetched" else 0)
            new = TEXT[::-1]
            await told(origin, client.send("GET", "/a", by("br")), 200, FRESH, new)
            await edge.settle()
        late.begin.set()
        await edge.settle()
        reply = await client.get("/a", by("br"))
        check(reply, "br", new)
        assert (len(reply.body) < len(first.body)) == (change == "nothing")


def _key_of(edge: Edge) -> Any:
    """The key of the one page that there is."""
    keys = [
        held.entry.key
        for _, resource in edge.store._ram.items()
        for held in resource.variants
        if not held.entry.made_of
    ]
    return keys[0]
