"""A body that is being written, and everyone who reads it meanwhile.

*Theory.* One task writes; any number read, each by offset and at its own pace. Bytes arrive in
memory and are counted, checked and shown to every waiting reader before the writer waits for
anything, so the first byte travels to a thousand readers in the turn of the loop in which it came.
Then the writer makes room, and how it does that is the whole policy:

- A *shared* fill (its answer may be stored) keeps every byte, since a late reader starts at the
  first. What memory cannot hold goes to a spool, oldest first. The writer waits for the disk
  only: a slow reader reads from the spool, and the origin is free as soon as it has sent all.
- A *private* fill has one reader and drops what that has taken. It spools only what a slow reader
  leaves lying, and empties the spool when it has caught up, so an endless event stream whose
  reader keeps up touches no disk. Past `lone_bytes` of lag the writer waits for it.
- Without a spool, or when the spool is full, either kind becomes a *window*: the writer waits for
  the slowest reader, no one may join once the first byte is gone, and nothing can be stored.

*Memory.* A fill holds up to `memory_bytes`. All fills share a `FillMemory`; when that is used up,
each holds `TIGHT_BYTES`, so a thousand fills cost its limit and 64 KiB each. Pieces too small
to be worth an object are joined as they come. A reader costs an object and the piece it has in
hand.

*Wake-ups.* Readers that have everything wait in one parking lot, emptied once a piece. A writer
that waits for readers sets a mark and counts those who are behind it; each crossing is O(1), and
the last one wakes it. Who is slowest is looked for only when the writer has to know.

*Ends.* `finish` is the only way to be whole, and refuses a body of another length than was
announced. A `write` that is broken off (cancelled, or by its spool) after it has shown its bytes
fails the fill: no one else could go on with it. Readers of a failed fill get what came, then the
error: never an end. The owner calls `close` when it has stored or given up the body; the spool
goes when the last reader has gone too. A cancelled reader counts until its own `close`.

*Turned down:* a queue for each reader (memory grows with readers times lag); a condition variable
(each waiter takes its lock again, in turn); writing to the spool behind the writer's back (the
origin outruns the disk, and memory pays).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from edge.cache.body import Body, MemoryBody, Spool, SpoolFull
from edge.cache.integrity import BLOCK_BYTES, RunningChecks
from edge.cache.window import FillMemory, Window, pieces_of
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Body", "Fill", "FillMemory", "MemoryBody", "Spool", "SpoolFull"]

PIECE_BYTES: Final = 64 * 1024  # the largest part of one write that is shown at once
JOIN_BYTES: Final = 4 * 1024  # a bytes object and its places cost 100 B: 2.5 % at half of this
TIGHT_BYTES: Final = 64 * 1024  # what a fill may hold when the common memory is used up
UNREAD_S: Final = 5.0  # for a first reader where nothing is kept: it comes at once or never
TURN_BYTES: Final = 64 * 1024  # a writer that never has to wait lets others run after so much


class Fill:
    """One body being written. One task calls `write`; any may read through `reader`."""

    def __init__(
        self,
        make_spool: Callable[[], Spool] | None,
        *,
        shared: bool,
        memory_bytes: int = 1 << 20,
        lone_bytes: int = 1 << 30,
        memory: FillMemory | None = None,
        expected: int | None = None,
    ) -> None:
        self.shared = shared
        self.expected = expected  # the announced length, in bytes
        self.size = 0  # written so far, in bytes
        self.finished = False
        self.was_read = False  # there has been a reader
        self.error: ExchangeError | None = None
        self._make_spool = make_spool  # may raise SpoolFull
        self._memory_bytes = memory_bytes
        self._lone_bytes = lone_bytes
        self._memory = memory if memory is not None else FillMemory()
        self._window = Window(self._memory, min(JOIN_BYTES, memory_bytes))
        self._checks = RunningChecks()
        self._spool: Spool | None = None
        self._spool_start = 0  # the spool holds the body's bytes from here
        self._spool_stop = 0  # to here, where the memory window starts unless the spool is passed
        self._spooling = False  # the writer is in spool.write
        self._windowed = False  # no spool is to be had: the writer waits for readers
        self._closed = False
        self._since_turn = 0
        self._readers: set[_Reader] = set()
        self._more = trio.lowlevel.ParkingLot()  # readers that have everything
        self._room = trio.lowlevel.ParkingLot()  # the writer
        self._mark = 0  # the writer waits until no reader is behind this offset
        self._behind = 0

    # What others ask.

    @property
    def readers(self) -> int:
        """How many readers have not closed."""
        return len(self._readers)

    @property
    def failed(self) -> bool:
        """Whether it ended without being whole."""
        return self.error is not None

    @property
    def length(self) -> int | None:
        """The whole body's length in bytes; None while it is not known."""
        return self.size if self.finished else self.expected

    @property
    def storable(self) -> bool:
        """Whether every byte from the first is kept, so that the end may be stored."""
        return self.shared and not self._windowed and self.error is None

    @property
    def joinable(self) -> bool:
        """Whether `reader` gives one more reader."""
        if self._closed or self.error is not None or self._first() > 0:
            return False
        return self.shared or not self.was_read

    @property
    def spool(self) -> Spool | None:
        """Where the bytes are that memory does not hold; see `settle`."""
        return self._spool

    def whole(self) -> bytes | None:
        """The finished body, if memory holds all of it."""
        return self._window.joined() if self.finished and self._window.start == 0 else None

    def block_checks(self) -> bytes:
        """The checks (see `integrity`) of what was written; b"" where it cannot be stored."""
        return self._checks.checks() if self.storable else b""

    def reader(self) -> Body:
        """One more reader, from the first byte; raises the fill's error, or BODY_LOST."""
        self._check()
        if not self.joinable:
            raise ExchangeError(Failure.BODY_LOST, "a body's first byte is gone")
        reader = _Reader(self)
        self._readers.add(reader)
        self.was_read = True
        self._behind += self._mark > 0
        return reader

    # What the writer does.

    async def write(self, data: bytes | memoryview) -> None:
        """Show `data` to every reader, then wait for the disk or for readers if there is no room.

        Raises the fill's error where it has failed. Cancelled before it has shown anything, it
        leaves the fill as it was; later, failed.
        """
        if self._since_turn >= TURN_BYTES:
            await trio.lowlevel.checkpoint()
            self._since_turn = 0
        for piece in pieces_of(data, min(PIECE_BYTES, self._memory_bytes)):
            self._show(piece)
            if self._lacks_room():
                await self._make_room()

    def finish(self) -> None:
        """The body is whole; fails (BODY_TRUNCATED) if it is shorter than was announced."""
        if self.error is not None or self.finished:
            return
        if self.expected is not None and self.size != self.expected:
            detail = f"{self.size} of {self.expected} bytes"
            self.fail(ExchangeError(Failure.BODY_TRUNCATED, detail))
            return
        self.finished = True
        self._more.unpark_all()

    def fail(self, error: ExchangeError) -> None:
        """The body ends here and is not whole. After another end it changes nothing."""
        if self.error is not None or self.finished:
            return
        self.error = error
        self._closed = True
        self._more.unpark_all()
        self._room.unpark_all()
        self._tidy()

    def close(self) -> None:
        """The owner has stored the body, or gives it up: no one joins, the last reader tidies."""
        self._closed = True
        self.fail(ExchangeError(Failure.INTERNAL, "the writer gave up"))
        self._tidy()

    async def settle(self) -> Spool | None:
        """Spool what memory still holds of a finished body; the spool, if it now has it all.

        None where the body cannot be stored. Cancelled, it leaves the body readable, unstorable.
        """
        while self.storable and self._window.held:
            await self._spool_out(BLOCK_BYTES, leave_last=False)
        return self._spool if self.storable else None

    def _check(self) -> None:
        """Raise what the fill failed with, as a new error: a shared one collects tracebacks."""
        error = self.error
        if error is not None:
            raise ExchangeError(error.failure, error.detail, retry=error.retry) from error

    def _show(self, piece: bytes) -> None:
        """Take one piece and wake everyone who waits for it."""
        self._check()
        if self.finished:
            raise trio.ClosedResourceError("this fill has ended")
        if self.expected is not None and self.size + len(piece) > self.expected:
            self.fail(ExchangeError(Failure.BAD_RESPONSE, "a body longer than its length"))
            self._check()
        if self.storable:
            self._checks.add(piece)
        self.size += len(piece)
        self._since_turn += len(piece)
        self._window.append(piece)
        self._more.unpark_all()

    def _allowance(self) -> int:
        """How many bytes may be in memory."""
        tight = self._memory.is_tight
        return min(TIGHT_BYTES, self._memory_bytes) if tight else self._memory_bytes

    def _excess(self) -> int:
        """How many bytes too many are in memory, once what need not be kept is dropped."""
        self._drop_passed()
        return self._window.held - self._allowance()

    def _lag(self) -> int:
        """How far a private fill's reader is behind, in bytes."""
        return 0 if self.shared else self.size - self._slowest()

    def _lacks_room(self) -> bool:
        return self._window.held > self._allowance() or self._lag() > self._lone_bytes

    async def _make_room(self) -> None:
        made = False
        try:
            while (excess := self._excess()) > 0:
                if self._windowed:
                    await self._wait_passed(self._window.stop_of(self._window.start + excess - 1))
                else:
                    # One piece at a time when memory is tight: joining pieces is a copy.
                    await self._spool_out(PIECE_BYTES if self._memory.is_tight else BLOCK_BYTES)
            if self._lag() > self._lone_bytes:
                await self._wait_passed(self.size - self._lone_bytes)
            made = True
        finally:
            if not made:
                self.fail(ExchangeError(Failure.INTERNAL, "the writer was broken off"))

    async def _spool_out(self, most: int, *, leave_last: bool = True) -> None:
        """Move about `most` of the oldest bytes from memory to the spool, or become a window."""
        spool = self._opened_spool()
        if spool is None:
            return
        data = self._window.oldest(most, leave_last=leave_last)
        if self._spool_start == self._spool_stop:
            self._spool_start = self._spool_stop = self._window.start
        self._spooling = True
        written = False
        try:
            await spool.write(data)
            written = True
        except SpoolFull:
            pass
        finally:
            self._spooling = False
            self._windowed = self._windowed or not written
            self._tidy()
        if written:
            self._spool_stop += len(data)
            self._window.drop_to(self._spool_stop)

    def _opened_spool(self) -> Spool | None:
        """The spool, made when it is first needed; None where there can be none."""
        if self._spool is None and not self._windowed:
            try:
                self._spool = self._make_spool() if self._make_spool is not None else None
            except SpoolFull:
                self._spool = None
            self._windowed = self._spool is None
        return self._spool

    async def _wait_passed(self, mark: int) -> None:
        """Wait until every reader has taken the bytes before `mark`; raises the fill's error.

        A body that nothing keeps and that no one begins to read in `UNREAD_S` is not worth more.
        """
        while self._slowest() < mark:
            self._check()
            self._mark = mark
            self._behind = sum(reader.position < mark for reader in self._readers)
            try:
                with trio.move_on_after(math.inf if self.was_read else UNREAD_S) as patience:
                    await self._room.park()
            finally:
                self._mark = self._behind = 0
            if patience.cancelled_caught and not self.was_read:
                self.fail(ExchangeError(Failure.BODY_LOST, "neither kept nor read"))

    # What readers and the writer share.

    def _keeps_all(self) -> bool:
        """Whether bytes that every present reader has taken are kept for others."""
        return self.shared and not self._windowed

    def _first(self) -> int:
        """The offset of the first byte that can still be read."""
        in_spool = self._spool_stop > self._spool_start
        return self._spool_start if in_spool else self._window.start

    def _slowest(self) -> int:
        """The offset before which no present reader, nor the first to come, wants anything."""
        if self._readers:
            return min(reader.position for reader in self._readers)
        return self.size if self.was_read else self._first()

    def _drop_passed(self) -> None:
        """Forget what every reader has taken, where nothing is kept for others."""
        if self._keeps_all() or self._spooling:
            return
        passed = self._slowest()
        if self._spool_start < self._spool_stop:
            if passed < self._spool_stop:
                return
            self._empty_spool()
        self._window.drop_to(passed)

    def _empty_spool(self) -> None:
        self._spool_start = self._spool_stop = self._window.start
        if self._spool is None:
            return
        if self._windowed:
            self._spool.close()
            self._spool = None
        else:
            self._spool.reset()

    def _moved(self, reader: _Reader, position: int) -> None:
        """`reader` wants nothing before `position` now."""
        before, reader.position = reader.position, position
        if self._mark:
            self._cross((before < self._mark) - (position < self._mark))
        if not self.shared:
            self._drop_passed()

    def _cross(self, passed: int) -> None:
        """Count readers that went over the writer's mark; the last one wakes it."""
        self._behind -= passed
        if passed and self._behind == 0:
            self._room.unpark_all()

    def _left(self, reader: _Reader) -> None:
        """`reader` has closed."""
        self._readers.discard(reader)
        if self._mark:
            self._cross(reader.position < self._mark)
        if not self.shared:
            self._drop_passed()
        self._tidy()

    def _tidy(self) -> None:
        """Give everything back, once no one can want it."""
        if self._closed and not self._readers and not self._spooling:
            self._window.drop_to(self.size)
            if self._spool is not None:
                self._spool.close()
                self._spool = None

    def _read_memory(self, reader: _Reader, offset: int, most: int) -> bytes | memoryview | None:
        """What is at `offset`: b"" at the end, None where memory cannot tell."""
        if offset >= self.size:
            self._check()
            return b"" if self.finished else None
        if offset < self._window.start:
            return None
        data = self._window.read(offset, most)
        self._moved(reader, offset + len(data))
        return data

    def _spooled(self, offset: int, most: int) -> tuple[Spool, int, int]:
        """Where in the spool to read for `offset`: (spool, offset in it, most)."""
        if self._spool is None or not self._spool_start <= offset < self._spool_stop:
            raise ExchangeError(Failure.BODY_LOST, f"offset {offset} is gone from a fill")
        return self._spool, offset - self._spool_start, min(most, self._spool_stop - offset)


class _Reader:
    """One reader of a `Fill`. `position` is the offset before which it wants nothing."""

    __slots__ = ("_closed", "_fill", "position")

    def __init__(self, fill: Fill) -> None:
        self._fill = fill
        self._closed = False
        self.position = 0

    @property
    def length(self) -> int | None:
        """The whole body's length in bytes; None while it is not known."""
        return self._fill.length

    def read_nowait(self, offset: int, most: int) -> bytes | memoryview | None:
        """See `Body.read_nowait`."""
        self._check_open()
        fill = self._fill
        data = fill._read_memory(self, offset, most)
        if data is not None or offset >= fill.size:
            return data
        spool, start, room = fill._spooled(offset, most)
        data = spool.read_nowait(start, room)
        if data is None:
            return None
        return self._taken(offset, data)

    async def read(self, offset: int, most: int) -> bytes | memoryview:
        """See `Body.read`."""
        fill = self._fill
        while True:
            data = self.read_nowait(offset, most)
            if data is not None:
                return data
            if offset != self.position:
                fill._moved(self, offset)
            if offset >= fill.size:
                await fill._more.park()
                continue
            spool, start, room = fill._spooled(offset, most)
            data = await spool.read(start, room)
            self._check_open()
            return self._taken(offset, data)

    def close(self) -> None:
        """See `Body.close`."""
        if not self._closed:
            self._closed = True
            self._fill._left(self)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this reader was closed")

    def _taken(self, offset: int, data: bytes) -> bytes:
        """Bytes from the spool, which may not end before the fill does."""
        if not data:
            raise ExchangeError(Failure.BODY_LOST, f"a spool ends at {offset}")
        self._fill._moved(self, offset + len(data))
        return data
