"""Encoders and decoders under limits, and where their work is done.

**First effort** (`Coders.begin`): a client waits for it, so it is done at once: short steps in
Trio's thread, since a hop to another costs 50 to 100 µs, and long ones in a worker. How much is
short depends on the coding and its level: about 0.3 ms on one core. At most `at_once` bodies are
being coded; beyond that `begin` gives None and the answer goes as it is. That bounds the memory
(0.7 MiB an encoder, see `encoders`); the CPU of one body is bounded by the site's `most_bytes`,
or, where the length is unknown, by what the origin sends.

**High effort** (`Coders.recompress`): nobody waits for it. One body at a time, in slices, in a
thread of the lowest priority, so that the kernel gives it only what hits leave over. What costs
more processor time than the site allows is given up between two slices.

**Decoding** (`Coders.decoding`) happens in Trio's thread: a piece is 64 KiB, 0.2 ms. Whoever finds
all `at_once` decoders busy waits, since without one there is no answer.

A step in a worker that has begun is waited for, also when cancelled: an encoder must not be
entered twice. Steps are short for that reason too.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from edge.coding.decoders import DEFAULT_BOUNDS, Bounds, Decoder
from edge.coding.encoders import Encoder, encoder, is_by_isal
from edge.coding.negotiate import Coding

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable
    from types import TracebackType

    from edge.cache.threads import Workers
    from edge.coding.dictionary import Dictionary
    from edge.coding.policy import CompressPolicy

AT_ONCE: Final = 64
WAITING: Final = 64  # to be coded again; others may earn it another time
SLICE_BYTES: Final = 32 * 1024  # 30 ms of brotli 11
LOWEST: Final = 19  # `nice`

_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class CoderStatistics:
    """What is being coded, and what was so far."""

    encoding: int
    begun: int
    refused: int
    """For want of a place among those `at_once`."""
    recompressing: int
    """Those that wait, too."""
    recompressed: int
    given_up: int
    """Recompressions that were refused, too large, or too long."""


class Coder:
    """One body being coded. To be closed, or used as a context, so that others may be."""

    __slots__ = (
        "_encoder", "_inline_bytes", "_release", "_unflushed", "_workers",
        "coded_bytes", "coding", "plain_bytes",
    )  # fmt: skip

    def __init__(
        self,
        coding: Coding,
        made: Encoder,
        inline_bytes: int,
        workers: Workers,
        release: Callable[[], None],
    ) -> None:
        self.coding = coding
        self.plain_bytes = 0
        """How much went in."""
        self.coded_bytes = 0
        """How much came out."""
        self._encoder = made
        self._inline_bytes = inline_bytes
        self._workers = workers
        self._release: Callable[[], None] | None = release
        self._unflushed = 0  # encoders put their work off until they are flushed

    async def encode(self, data: bytes | memoryview, *, flush: bool) -> bytes:
        """What comes out as `data` goes in; with `flush`, all of it, to be decoded at once.

        Flush where nothing more is at hand: each time costs some bytes (8 % at one in 2 KiB).
        Cancelled, or not the only one in it, an encoder is of no more use.
        """
        self.plain_bytes += len(data)
        self._unflushed += len(data)

        def step() -> bytes:
            coded = self._encoder.encode(data)
            return coded + self._encoder.flush() if flush else coded

        coded = await self._done(step)
        if flush:
            self._unflushed = 0
        return coded

    async def finish(self) -> bytes:
        """The rest; closes."""
        coded = await self._done(self._encoder.finish)
        self.close()
        return coded

    def close(self) -> None:
        """Let go of the place among those `at_once`; once is enough."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Coder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _done(self, step: Callable[[], bytes]) -> bytes:
        if self._unflushed <= self._inline_bytes:
            coded = step()
        else:
            coded = await self._workers.run(step)
        self.coded_bytes += len(coded)
        return coded


class Coders:
    """The encoders and decoders of one worker process.

    `workers` do the long steps of first effort: two threads are enough on any machine, since
    what they wait for is a core. `background` is one thread that nothing else uses: its priority
    is lowered for good.
    """

    def __init__(self, workers: Workers, background: Workers, at_once: int = AT_ONCE) -> None:
        self._workers = workers
        self._background = background
        self._at_once = at_once
        self._decoders = trio.Semaphore(at_once)
        self._turn = trio.Semaphore(1)
        self._encoding = self._begun = self._refused = 0
        self._recompressing = self._recompressed = self._given_up = 0

    def begin(
        self,
        coding: Coding,
        policy: CompressPolicy,
        length: int | None,
        dictionary: Dictionary | None = None,
    ) -> Coder | None:
        """An encoder at the policy's first level for a body of `length` bytes (None: not known).

        None where too many are at work: send the body as it is. dcz needs its `dictionary`.
        """
        if self._encoding >= self._at_once:
            self._refused += 1
            return None
        level = policy.first.of(coding)
        made = encoder(coding, level, length, dictionary)
        self._encoding += 1
        self._begun += 1
        return Coder(coding, made, inline_bytes(coding, level), self._workers, self._ended)

    async def recompress(
        self,
        coding: Coding,
        policy: CompressPolicy,
        length: int,
        body: AsyncIterable[bytes | memoryview],
    ) -> bytes | None:
        """All of `body`, of `length` bytes, coded at the policy's high level, when its turn comes.

        None where it is given up: too many wait, it is longer or shorter than it was said to be,
        or larger than the policy allows, or takes longer. `body` is read as it is coded; what it
        raises, this does.
        """
        if self._recompressing >= WAITING or length > policy.recompress_most_bytes:
            self._given_up += 1
            return None
        self._recompressing += 1
        try:
            async with self._turn:
                made = encoder(coding, policy.high.of(coding), length)
                coded = await self._coded_slowly(made, length, body, policy.recompress_most_s)
        finally:
            self._recompressing -= 1
        if coded is None:
            self._given_up += 1
        else:
            self._recompressed += 1
        return coded

    @asynccontextmanager
    async def decoding(
        self, coding: Coding, bounds: Bounds = DEFAULT_BOUNDS
    ) -> AsyncIterator[Decoder]:
        """A decoder of br, zstd or gzip (ValueError for others), once one of `at_once` is free."""
        async with self._decoders:
            yield Decoder(coding, bounds)

    def statistics(self) -> CoderStatistics:
        """A snapshot."""
        return CoderStatistics(
            encoding=self._encoding,
            begun=self._begun,
            refused=self._refused,
            recompressing=self._recompressing,
            recompressed=self._recompressed,
            given_up=self._given_up,
        )

    def _ended(self) -> None:
        self._encoding -= 1

    async def _coded_slowly(
        self, made: Encoder, length: int, body: AsyncIterable[bytes | memoryview], most_s: float
    ) -> bytes | None:
        left, spent_s, out = length, 0.0, []
        async for piece in body:
            left -= len(piece)
            if left < 0:
                return None
            for start in range(0, len(piece), SLICE_BYTES):
                part = piece[start : start + SLICE_BYTES]
                coded, took_s = await self._background.run(partial(_timed, made, part))
                out.append(coded)
                spent_s += took_s
                if spent_s > most_s:
                    return None
        coded, _ = await self._background.run(partial(_timed, made, None))
        out.append(coded)
        return None if left else b"".join(out)


def inline_bytes(coding: Coding, level: int) -> int:
    """How much a coding gets through in about 0.3 ms; above that a worker does it."""
    match coding:
        case Coding.BR:
            return 16 * _KIB if level <= 5 else 2 * _KIB if level <= 9 else 0
        case Coding.ZSTD | Coding.DCZ:
            return 64 * _KIB if level <= 4 else 8 * _KIB if level <= 12 else 0
        case Coding.GZIP:
            return 64 * _KIB if is_by_isal(level) else 16 * _KIB if level <= 4 else 4 * _KIB
        case Coding.IDENTITY:
            raise ValueError("identity is not coded")


def _timed(made: Encoder, part: bytes | memoryview | None) -> tuple[bytes, float]:
    """In the background thread: a slice (None: the rest) coded, and the CPU seconds it took."""
    _give_way()
    before = time.thread_time()
    coded = made.finish() if part is None else made.encode(part)
    return coded, time.thread_time() - before


def _give_way() -> None:
    """Let everything else go first. Linux has priorities of threads; elsewhere nothing is done."""
    if sys.platform == "linux" and threading.current_thread() is not threading.main_thread():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
