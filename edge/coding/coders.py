"""Encoders and decoders under limits, and where their work is done.

**First effort** (`Coders.begin`): a client waits for it, so it is done at once: short steps in
Trio's thread, since a hop to another costs 50 to 100 µs, and all others in a worker. Every hit
waits for what is done in Trio's thread, so all encoders *together* may take about 0.2 ms there in
one turn of the loop: the more there are, the less is short for each. (Measured, 20 bodies at once
in steps of 16 KiB: had each been let do so much by itself, other tasks had waited for 50 ms.)
Workers have a lower priority than hits, three to one.

At most `at_once` bodies are being coded; beyond that `begin` gives None and the answer goes as it
is. That bounds the memory (of a long body, measured in megabytes: 6.5 MiB a brotli encoder, 3.2 of
zstd, 0.4 of gzip; see `encoders`); the CPU of one body is bounded by
the site's `most_bytes`, or, where the length is unknown, by what the origin sends.

**High effort** (`Coders.recompress`): nobody waits for it. One body at a time, in slices, in a
thread of the lowest priority, so that the kernel gives it only what hits leave over. What costs
more processor time than the site allows is given up between two slices.

**Decoding** (`Coders.decoding`) happens in Trio's thread: a piece is 64 KiB, 0.2 ms. A decoder is
held for as long as its reader takes, so there are as many as memory allows, by the largest window
that an origin may choose: 16 MiB for br, 8 MiB for zstd, 32 KiB for gzip (`DECODERS`). Whoever
finds all of them busy waits for `FREE_WITHIN_S`, since without one there is no answer.

A step in a worker that has begun is waited for, also when cancelled: an encoder must not be
entered twice. Steps are short for that reason too.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

import trio

from edge.cache.threads import run_while_wanted
from edge.coding.decoders import DEFAULT_BOUNDS, Bounds, Decoder
from edge.coding.encoders import Encoder, encoder, is_by_isal
from edge.coding.negotiate import Coding
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import TracebackType

    from edge.cache.body import Body
    from edge.cache.threads import Workers
    from edge.coding.dictionary import Dictionary
    from edge.coding.policy import CompressPolicy

AT_ONCE: Final = 64
WAITING: Final = 64  # to be coded again; others may earn it another time
SLICE_BYTES: Final = 32 * 1024  # 30 ms of brotli 11, which does the work of 8 at once
LOWER: Final = 5  # `nice`: a third of what a hit gets, where both want the same core
LOWEST: Final = 19

FREE_WITHIN_S: Final = 1.0
DECODERS: Final = {Coding.BR: 0.25, Coding.ZSTD: 0.5, Coding.GZIP: 32}
"""How many there are at once, in terms of the encoders."""

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
    """One body being coded. To be closed, or used as a context, so that others may be.

    Its `encoder` is made by the first step, where that is done: a dictionary may have to be
    indexed for it (10 ms for 1 MiB), which `due_bytes` stands for.
    """

    __slots__ = (
        "_coders", "_encoder", "_inline_bytes", "_is_open", "_make", "_unflushed",
        "coded_bytes", "coding", "plain_bytes",
    )  # fmt: skip

    def __init__(
        self,
        coding: Coding,
        coders: Coders,
        make: Callable[[], Encoder],
        inline_bytes: int,
        due_bytes: int = 0,
    ) -> None:
        self.coding = coding
        self.plain_bytes = 0
        """How much went in."""
        self.coded_bytes = 0
        """How much came out."""
        self._coders = coders
        self._make = make
        self._encoder: Encoder | None = None
        self._inline_bytes = inline_bytes
        self._is_open = True
        self._unflushed = due_bytes  # encoders put their work off until they are flushed

    async def encode(self, data: bytes | memoryview, *, flush: bool) -> bytes:
        """What comes out as `data` goes in; with `flush`, all of it, to be decoded at once.

        Flush where nothing more is at hand: each time costs some bytes (8 % at one in 2 KiB).
        Cancelled, or not the only one in it, an encoder is of no more use.
        """
        self.plain_bytes += len(data)
        self._unflushed += len(data)

        def step(encoder: Encoder) -> bytes:
            coded = encoder.encode(data)
            return coded + encoder.flush() if flush else coded

        coded = await self._done(step)
        if flush:
            self._unflushed = 0
        return coded

    async def finish(self) -> bytes:
        """The rest; closes."""
        coded = await self._done(_finished)
        self.close()
        return coded

    def close(self) -> None:
        """Let go of the place among those `at_once`; once is enough."""
        if self._is_open:
            self._is_open = False
            self._coders.encoding -= 1

    def __enter__(self) -> Coder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _done(self, step: Callable[[Encoder], bytes]) -> bytes:
        if self._unflushed * self._coders.encoding <= self._inline_bytes:
            coded = self._do(step)
        else:
            coded = await self._coders.workers.run(partial(self._do_aside, step))
        self.coded_bytes += len(coded)
        return coded

    def _do(self, step: Callable[[Encoder], bytes]) -> bytes:
        if self._encoder is None:
            self._encoder = self._make()
        return step(self._encoder)

    def _do_aside(self, step: Callable[[Encoder], bytes]) -> bytes:
        _give_way(LOWER)
        return self._do(step)


class Coders:
    """The encoders and decoders of one worker process.

    `workers` do the long steps of first effort: two threads are enough on any machine, since
    what they wait for is a core. `background` is one thread that nothing else uses: its priority
    is lowered for good.
    """

    def __init__(self, workers: Workers, background: Workers, at_once: int = AT_ONCE) -> None:
        self.workers = workers
        self._background = background
        self._at_once = at_once
        self._decoders = {
            coding: trio.Semaphore(max(1, int(at_once * share)))
            for coding, share in DECODERS.items()
        }
        self._turn = trio.Semaphore(1)
        self._is_stopped = False
        self._unhurried: set[trio.CancelScope] = set()
        self.encoding = 0
        """How many bodies are being coded at first effort."""
        self._begun = self._refused = 0
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
        if self.encoding >= self._at_once:
            self._refused += 1
            return None
        if (dictionary is not None) != (coding is Coding.DCZ):
            raise ValueError(f"{coding}: dcz needs a dictionary, and nothing else has one")
        level = policy.first.of(coding)
        make = partial(encoder, coding, level, length, dictionary)
        due_bytes = 0 if dictionary is None or dictionary.is_indexed else len(dictionary.content)
        self.encoding += 1
        self._begun += 1
        return Coder(coding, self, make, inline_bytes(coding, level), due_bytes)

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be coded again that no more is taken."""
        return self._recompressing >= WAITING

    async def recompress(self, coding: Coding, policy: CompressPolicy, body: Body) -> bytes | None:
        """All of a whole `body` coded at the policy's high level, when its turn comes.

        None where it is given up: too many wait, or it is larger than the policy allows, or takes
        longer, or there are to be no more. Raises what reading raises. The caller closes the body.
        """
        length, coded = body.length, None
        if length is None or length > policy.recompress_most_bytes or self.is_full:
            self._given_up += 1
            return None
        self._recompressing += 1
        with self._while_wanted():
            async with self._turn:
                made = encoder(coding, policy.high.of(coding), length)
                coded = await self._coded_slowly(made, body, length, policy.recompress_most_s)
        if coded is None:
            self._given_up += 1
        else:
            self._recompressed += 1
        return coded

    def stop_recompressing(self) -> None:
        """Give up all bodies that are being coded again, and those to come."""
        self._is_stopped = True
        for scope in self._unhurried:
            scope.cancel()

    @contextmanager
    def _while_wanted(self) -> Iterator[None]:
        with trio.CancelScope() as scope:
            self._unhurried.add(scope)
            if self._is_stopped:
                scope.cancel()
            try:
                yield
            finally:
                self._unhurried.discard(scope)
                self._recompressing -= 1

    @asynccontextmanager
    async def decoding(
        self, coding: Coding, bounds: Bounds = DEFAULT_BOUNDS
    ) -> AsyncIterator[Decoder]:
        """A decoder of br, zstd or gzip, once one is free; raises OVERLOADED where none is in
        time."""
        free = self._decoders[coding]
        with trio.move_on_after(FREE_WITHIN_S) as waiting:
            await free.acquire()
        if waiting.cancelled_caught:
            raise ExchangeError(Failure.OVERLOADED, f"all decoders of {coding} are taken")
        try:
            yield Decoder(coding, bounds)
        finally:
            free.release()

    def statistics(self) -> CoderStatistics:
        """A snapshot."""
        return CoderStatistics(
            encoding=self.encoding,
            begun=self._begun,
            refused=self._refused,
            recompressing=self._recompressing,
            recompressed=self._recompressed,
            given_up=self._given_up,
        )

    async def _coded_slowly(
        self, made: Encoder, body: Body, length: int, most_s: float
    ) -> bytes | None:
        offset, spent_s, out = 0, 0.0, []
        while offset < length:
            piece = await body.read(offset, SLICE_BYTES)
            offset += len(piece)
            coded, took_s = await run_while_wanted(self._background, partial(_timed, made, piece))
            out.append(coded)
            spent_s += took_s
            if not piece or spent_s > most_s:
                return None
        coded, _ = await run_while_wanted(self._background, partial(_timed, made, None))
        return b"".join((*out, coded))


def inline_bytes(coding: Coding, level: int) -> int:
    """How much a coding gets through in about 0.2 ms; above that a worker does it."""
    match coding:
        case Coding.BR:
            return 8 * _KIB if level <= 5 else 2 * _KIB if level <= 9 else 0
        case Coding.ZSTD | Coding.DCZ:
            return 32 * _KIB if level <= 4 else 8 * _KIB if level <= 12 else 0
        case Coding.GZIP:
            return 64 * _KIB if is_by_isal(level) else 16 * _KIB if level <= 4 else 4 * _KIB
        case Coding.IDENTITY:
            raise ValueError("identity is not coded")
        case _:
            assert_never(coding)


def _finished(encoder: Encoder) -> bytes:
    return encoder.finish()


def _timed(made: Encoder, part: bytes | memoryview | None) -> tuple[bytes, float]:
    """In the background thread: a slice (None: the rest) coded, and the CPU seconds it took."""
    _give_way(LOWEST)
    before = time.thread_time()
    coded = made.finish() if part is None else made.encode(part)
    return coded, time.thread_time() - before


def _give_way(nice: int) -> None:
    """Let hits go first. Linux has priorities of threads; elsewhere nothing is done."""
    if sys.platform == "linux" and threading.current_thread() is not threading.main_thread():
        thread = threading.get_native_id()
        nicer = max(nice, os.getpriority(os.PRIO_PROCESS, thread))  # than the node is anyway
        os.setpriority(os.PRIO_PROCESS, thread, nicer)
