"""The laws of edge/cache/fill.py, for every mix of paces, spools, sizes and memories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from edge.cache.fill import Fill, FillMemory
from edge.cache.integrity import checks_of
from edge.errors import ExchangeError
from tests.unit.cache.filling import FakeSpool, as_spool, body_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def run(story: Callable[[], Awaitable[None]]) -> None:
    """Run `story`; if everyone waits for everyone, TooSlowError at once."""

    async def limited() -> None:
        with trio.fail_after(3600):
            await story()

    trio.run(limited, clock=MockClock(autojump_threshold=0))


@dataclass(frozen=True)
class Pace:
    """How one reader reads: when it comes, from where, how much at once, how long it dawdles."""

    comes_after: int
    offset: int
    most: int
    dawdles: tuple[int, ...]


paces = st.builds(
    Pace,
    comes_after=st.integers(0, 8),
    offset=st.integers(0, 60),
    most=st.integers(1, 40),
    dawdles=st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple),
)


spools = st.none() | st.tuples(st.none() | st.integers(0, 200), st.booleans())


async def read_at(pace: Pace, fill: Fill, body: bytes) -> None:
    """Read as `pace` says and compare; a refusal is right only where the fill is a window."""
    for _ in range(pace.comes_after):
        await trio.lowlevel.checkpoint()
    try:
        reader = fill.reader()
    except ExchangeError:
        assert not fill.storable
        return
    got = b""
    try:
        for turn in range(10_000):
            data = await reader.read(pace.offset + len(got), pace.most)
            if not data:
                break
            got += data
            assert len(data) <= pace.most
            assert body.startswith(got, pace.offset)
            for _ in range(pace.dawdles[turn % len(pace.dawdles)]):
                await trio.lowlevel.checkpoint()
        assert got == body[pace.offset :]
        assert fill.finished
        assert reader.length == len(body)
    finally:
        reader.close()


@given(
    shared=st.booleans(),
    sizes=st.lists(st.integers(1, 60), max_size=12),
    spool_kind=spools,
    readers=st.lists(paces, min_size=1, max_size=4),
    memory_bytes=st.integers(1, 50),
    lone_bytes=st.integers(1, 100),
    tight=st.booleans(),
)
@settings(max_examples=200)
def test_every_reader_at_any_pace_gets_exactly_the_bytes_written(
    shared: bool,
    sizes: list[int],
    spool_kind: tuple[int | None, bool] | None,
    readers: list[Pace],
    memory_bytes: int,
    lone_bytes: int,
    tight: bool,
) -> None:
    body = body_of(sum(sizes))
    spool = None if spool_kind is None else FakeSpool(spool_kind[0], slow=spool_kind[1])
    memory = FillMemory(limit_bytes=1 if tight else 1 << 20)
    fill = Fill(
        None if spool is None else as_spool(spool),
        shared=shared,
        memory_bytes=memory_bytes,
        lone_bytes=lone_bytes,
        memory=memory,
        expected=len(body),
    )

    async def story() -> None:
        async with trio.open_nursery() as nursery:
            for pace in readers if shared else readers[:1]:
                nursery.start_soon(read_at, pace, fill, body)
            start = 0
            for size in sizes:
                await fill.write(body[start : start + size])
                assert memory.used_bytes <= memory_bytes
                start += size
            fill.finish()
        if shared and fill.storable and fill.whole() is None:
            settled = await fill.settle()
            assert settled is None or (settled is spool and bytes(spool.data) == body)
        if fill.storable:
            assert fill.block_checks() == checks_of(body)
        fill.close()

    run(story)
    assert memory.used_bytes == 0
    assert fill.readers == 0
    assert spool is None or spool.closed or not spool.used


@given(
    shared=st.booleans(),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    spool_kind=spools,
    readers=st.lists(paces, min_size=1, max_size=3),
    turns=st.integers(0, 30),
)
@settings(max_examples=100)
def test_a_writer_cancelled_anywhere_never_makes_a_part_look_whole(
    shared: bool,
    sizes: list[int],
    spool_kind: tuple[int | None, bool] | None,
    readers: list[Pace],
    turns: int,
) -> None:
    body = body_of(sum(sizes))
    spool = None if spool_kind is None else FakeSpool(spool_kind[0], slow=spool_kind[1])
    memory = FillMemory()
    make_spool = None if spool is None else as_spool(spool)
    fill = Fill(make_spool, shared=shared, memory_bytes=20, memory=memory)

    async def read_what_comes(pace: Pace) -> None:
        reader = fill.reader()
        got = b""
        try:
            while data := await reader.read(len(got), pace.most):
                got += data
                assert body.startswith(got)
            assert got == body
        except ExchangeError:
            assert fill.failed
        finally:
            reader.close()

    async def write_all(scope: trio.CancelScope) -> None:
        with scope:
            start = 0
            for size in sizes:
                await fill.write(body[start : start + size])
                await trio.lowlevel.checkpoint()
                start += size
            fill.finish()
        fill.close()

    async def story() -> None:
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_all, scope)
            for pace in readers if shared else readers[:1]:
                if fill.joinable:
                    nursery.start_soon(read_what_comes, pace)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            scope.cancel()

    run(story)
    assert memory.used_bytes == 0
    assert spool is None or spool.closed or not spool.used
