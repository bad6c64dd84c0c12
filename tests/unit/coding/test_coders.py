"""Work is done where it should be, bounded in number, and given up when it takes too long."""

from __future__ import annotations

import gzip
import os
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
import trio.testing

from edge.cache.body import MemoryBody
from edge.cache.threads import Inline, Threads
from edge.coding.coders import (
    DECODERS,
    FREE_WITHIN_S,
    LOWER,
    LOWEST,
    SLICE_BYTES,
    WAITING,
    Coders,
    inline_bytes,
)
from edge.coding.decoders import Bounds, Decoder
from edge.coding.dictionary import Dictionary, Offer, url_match
from edge.coding.encoders import DCZ_MAGIC, encoder
from edge.coding.negotiate import Coding
from edge.coding.policy import HIGH, CompressPolicy
from edge.errors import ExchangeError, Failure
from tests.unit.coding.texts import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.coding.coders import Coder

T = TypeVar("T")

CODINGS = [Coding.BR, Coding.ZSTD, Coding.GZIP]
POLICY = CompressPolicy()


class Counting(Inline):
    """Workers without threads that count their jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = 0

    async def run(self, job: Callable[[], T]) -> T:
        self.jobs += 1
        return await super().run(job)

    def post(self, job: Callable[[], None]) -> None:
        self.jobs += 1
        super().post(job)


class Held(Inline):
    """A worker that does nothing before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[Callable[[], None]] | None = []

    def post(self, job: Callable[[], None]) -> None:
        if self._held is None:
            super().post(job)
        else:
            self._held.append(job)

    def let_go(self) -> None:
        held, self._held = self._held or [], None
        for job in held:
            super().post(job)


def coders(at_once: int = 4) -> Coders:
    return Coders(Inline(), Inline(), at_once)


def undone(coding: Coding, coded: bytes) -> bytes:
    decoder = Decoder(coding)
    body = b"".join(decoder.pieces(coded))
    decoder.finish()
    return body


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_body_is_coded_as_it_comes(coding: Coding) -> None:
    with opened(coders(), coding) as coder:
        first = await coder.encode(TEXT[:3000], flush=True)
        decoder = Decoder(coding)
        assert b"".join(decoder.pieces(first)) == TEXT[:3000]
        rest = await coder.encode(TEXT[3000:200_000], flush=False) + await coder.finish()
        assert b"".join(decoder.pieces(rest)) == TEXT[3000:200_000]
        decoder.finish()
        assert coder.coding is coding
        assert coder.plain_bytes == 200_000
        assert coder.coded_bytes == len(first) + len(rest)


def opened(made: Coders, coding: Coding = Coding.ZSTD, length: int | None = None) -> Coder:
    coder = made.begin(coding, POLICY, length)
    assert coder is not None
    return coder


async def test_a_dictionary_is_used() -> None:
    match = url_match(b"/*", b"/")
    assert match is not None
    coder = coders().begin(Coding.DCZ, POLICY, 1000, Dictionary(TEXT[:9000], Offer(match)))
    assert coder is not None
    with coder:
        coded = await coder.encode(TEXT[:1000], flush=False) + await coder.finish()
    assert coded.startswith(DCZ_MAGIC)
    assert len(coded) < 80


async def test_no_more_than_so_many_at_once() -> None:
    made = coders(at_once=2)
    first, second = opened(made), opened(made)
    assert made.begin(Coding.GZIP, POLICY, None) is None
    first.close()
    first.close()  # gives back one place, not two
    third = opened(made)
    assert made.begin(Coding.GZIP, POLICY, None) is None
    await second.finish()
    with opened(made), third:
        assert made.statistics().encoding == 2
    told = made.statistics()
    assert (told.encoding, told.begun, told.refused) == (0, 4, 2)


async def test_a_failure_gives_back_the_place() -> None:
    made = coders(at_once=1)
    with pytest.raises(ZeroDivisionError), opened(made):
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="identity"):
        made.begin(Coding.IDENTITY, POLICY, None)
    with pytest.raises(ValueError, match="dcz"):
        made.begin(Coding.DCZ, POLICY, None)
    opened(made).close()


@pytest.mark.parametrize("coding", CODINGS)
async def test_short_steps_are_done_here_and_long_ones_in_a_worker(coding: Coding) -> None:
    workers = Counting()
    coder = opened(Coders(workers, Inline()), coding)
    short = inline_bytes(coding, POLICY.first.of(coding))
    await coder.encode(TEXT[:short], flush=True)
    assert workers.jobs == 0
    await coder.encode(TEXT[: short + 1], flush=True)
    assert workers.jobs == 1
    await coder.finish()
    assert workers.jobs == 1


async def test_what_was_put_off_until_the_end_counts_as_work() -> None:
    workers = Counting()
    coder = opened(Coders(workers, Inline()), Coding.BR)
    for start in range(0, inline_bytes(Coding.BR, 5), 1024):
        await coder.encode(TEXT[start : start + 1024], flush=False)
    assert workers.jobs == 0
    await coder.encode(b"x", flush=False)
    await coder.finish()
    assert workers.jobs == 2


async def test_all_encoders_share_what_may_be_done_here() -> None:
    workers = Counting()
    made = Coders(workers, Inline(), at_once=8)
    short = inline_bytes(Coding.ZSTD, 3)
    first, others = opened(made), [opened(made) for _ in range(3)]
    await first.encode(TEXT[: short // 4], flush=True)
    assert workers.jobs == 0
    await first.encode(TEXT[: short // 4 + 1], flush=True)
    assert workers.jobs == 1
    for other in others:
        other.close()
    await first.encode(TEXT[:short], flush=True)
    assert workers.jobs == 1


async def test_a_large_dictionary_is_indexed_in_a_worker() -> None:
    workers = Counting()
    made = Coders(workers, Inline())
    match = url_match(b"/*", b"/")
    assert match is not None
    dictionary = Dictionary(TEXT[:500_000], Offer(match))
    for jobs in (1, 1):  # by the first that uses it, and never again
        coder = made.begin(Coding.DCZ, POLICY, 100, dictionary)
        assert coder is not None
        with coder:
            await coder.encode(TEXT[:100], flush=True)
        assert workers.jobs == jobs
    assert dictionary.is_indexed


def test_more_effort_leaves_less_to_be_done_here() -> None:
    for coding, levels in ((Coding.BR, 12), (Coding.ZSTD, 20), (Coding.GZIP, 10)):
        sizes = [inline_bytes(coding, level) for level in range(1, levels)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] <= 4096
    with pytest.raises(ValueError, match="identity"):
        inline_bytes(Coding.IDENTITY, 1)


async def test_threads_code_many_bodies_at_once() -> None:
    workers, background = Threads(2, "coding"), Threads(1, "recompress")
    made = Coders(workers, background, at_once=64)
    bodies = {}

    async def code(number: int) -> None:
        coding = CODINGS[number % 3]
        with opened(made, coding) as coder:
            out = [
                await coder.encode(TEXT[start : start + 70_000], flush=number % 2 == 0)
                for start in range(number, number + 280_000, 70_000)
            ]
            out.append(await coder.finish())
        bodies[number] = undone(coding, b"".join(out))

    async with trio.open_nursery() as nursery:
        for number in range(24):
            nursery.start_soon(code, number)
    assert bodies == {number: TEXT[number : number + 280_000] for number in range(24)}
    assert made.statistics().encoding == 0
    await workers.close()
    await background.close()


# --- high effort


@pytest.mark.parametrize("coding", CODINGS)
async def test_recompression_is_the_high_level(coding: Coding) -> None:
    body = TEXT[:90_000]
    made = coders()
    coded = await made.recompress(coding, POLICY, MemoryBody(body))
    assert coded is not None
    assert undone(coding, coded) == body
    at_once = encoder(coding, HIGH.of(coding), len(body))
    assert len(coded) <= len(at_once.encode(body) + at_once.finish()) + 16
    told = made.statistics()
    assert (told.recompressing, told.recompressed, told.given_up) == (0, 1, 0)


async def test_recompression_is_done_in_slices() -> None:
    background = Counting()
    made = Coders(Inline(), background)
    await made.recompress(Coding.GZIP, POLICY, MemoryBody(TEXT[:300_000]))
    assert background.jobs == -(-300_000 // SLICE_BYTES) + 1


async def test_what_takes_too_long_is_given_up() -> None:
    impatient = replace(POLICY, recompress_most_s=0.01)
    made = coders()
    assert await made.recompress(Coding.BR, impatient, MemoryBody(TEXT[:900_000])) is None
    assert made.statistics().given_up == 1


class Told(MemoryBody):
    """A body of another length than it says, as a file cut short is."""

    def __init__(self, data: bytes, length: int | None) -> None:
        super().__init__(data)
        self._length = length

    @property
    def length(self) -> int | None:  # type: ignore[override] # the protocol's own type
        return self._length


@pytest.mark.parametrize("length", [None, 50_001, 90_000])
async def test_a_body_that_is_not_whole_is_given_up(length: int | None) -> None:
    made = coders()
    cut_short = Told(TEXT[:50_000], length)
    assert await made.recompress(Coding.GZIP, POLICY, cut_short) is None
    assert made.statistics().given_up == 1
    assert made.statistics().recompressing == 0


async def test_what_is_too_large_is_not_begun() -> None:
    made = coders()
    small = replace(POLICY, recompress_most_bytes=1000)
    assert await made.recompress(Coding.GZIP, small, MemoryBody(TEXT[:1001])) is None
    assert await made.recompress(Coding.GZIP, small, MemoryBody(TEXT[:1000])) is not None


async def test_one_is_recompressed_at_a_time_and_few_wait() -> None:
    background = Held()
    made = Coders(Inline(), background)
    found: list[bytes | None] = []

    async def recompress() -> None:
        found.append(await made.recompress(Coding.GZIP, POLICY, MemoryBody(TEXT[:100])))

    async with trio.open_nursery() as nursery:
        for _ in range(WAITING):
            nursery.start_soon(recompress)
        await trio.testing.wait_all_tasks_blocked()
        assert made.statistics().recompressing == WAITING
        assert await made.recompress(Coding.GZIP, POLICY, MemoryBody(TEXT[:100])) is None
        background.let_go()
    assert [gzip.decompress(coded or b"") for coded in found] == [TEXT[:100]] * WAITING


async def test_a_cancelled_recompression_lets_the_next_one_in() -> None:
    background = Held()
    made = Coders(Inline(), background)
    with trio.move_on_after(0) as scope:
        await made.recompress(Coding.GZIP, POLICY, MemoryBody(TEXT[:100]))
    assert scope.cancelled_caught
    background.let_go()
    assert await made.recompress(Coding.GZIP, POLICY, MemoryBody(TEXT[:100])) is not None
    assert made.statistics().recompressing == 0


async def test_when_there_are_to_be_no_more_those_that_wait_and_those_to_come_are_given_up() -> (
    None
):
    made = Coders(Inline(), Held())
    found: list[bytes | None] = []

    async def recompress() -> None:
        found.append(await made.recompress(Coding.GZIP, POLICY, MemoryBody(TEXT[:100])))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(recompress)
        await trio.testing.wait_all_tasks_blocked()
        made.stop_recompressing()
    await recompress()
    assert found == [None] * 4
    told = made.statistics()
    assert (told.recompressing, told.recompressed, told.given_up) == (0, 0, 4)


async def test_what_reading_raises_is_raised() -> None:
    class Broken(MemoryBody):
        async def read(self, offset: int, most: int) -> bytes | memoryview:
            raise ExchangeError(Failure.BODY_LOST)

    made = coders()
    with pytest.raises(ExchangeError, match="body-lost"):
        await made.recompress(Coding.GZIP, POLICY, Broken(TEXT[:100]))
    assert made.statistics().recompressing == 0


def priority_of(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


async def test_threads_give_way_to_hits() -> None:
    workers, background = Threads(1, "coding"), Threads(1, "recompress")
    made = Coders(workers, background)
    before = priority_of(0)
    await made.recompress(Coding.GZIP, POLICY, MemoryBody(TEXT[:100]))
    with opened(made) as coder:
        await coder.encode(TEXT[:300_000], flush=True)
    threads = [await each.run(threading.get_native_id) for each in (background, workers)]
    assert [priority_of(thread) for thread in threads] == [LOWEST, max(LOWER, before)]
    assert priority_of(0) == before
    await workers.close()
    await background.close()


# --- decoding


async def test_a_body_is_decoded_and_bounded() -> None:
    made = coders()
    async with made.decoding(Coding.GZIP) as decoder:
        assert b"".join(decoder.pieces(gzip.compress(TEXT[:9000]))) == TEXT[:9000]
        decoder.finish()
    tight = Bounds(most_bytes=100)
    async with made.decoding(Coding.GZIP, tight) as decoder:
        with pytest.raises(ExchangeError, match="100 bytes"):
            list(decoder.pieces(gzip.compress(TEXT[:9000])))


async def test_decoders_wait_for_each_other() -> None:
    made = coders(at_once=1)
    order: list[str] = []

    async def second() -> None:
        async with made.decoding(Coding.ZSTD):
            order.append("second")

    async with trio.open_nursery() as nursery, made.decoding(Coding.ZSTD):
        nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked()
        order.append("first")
    assert order == ["first", "second"]


async def test_where_all_decoders_are_held_it_is_told_soon_and_those_of_gzip_are_many(
    autojump_clock: trio.testing.MockClock,
) -> None:
    made = coders(at_once=1)
    async with made.decoding(Coding.BR), AsyncExitStack() as stack:
        for _ in range(int(DECODERS[Coding.GZIP])):
            await stack.enter_async_context(made.decoding(Coding.GZIP))
        for coding in (Coding.BR, Coding.GZIP):
            before = trio.current_time()
            with pytest.raises(ExchangeError) as caught:
                await stack.enter_async_context(made.decoding(coding))
            assert caught.value.failure is Failure.OVERLOADED
            assert trio.current_time() - before == FREE_WITHIN_S
    async with made.decoding(Coding.BR):  # it is free again
        pass
