"""The access log: one JSON line a request, written in batches, never in a request's way.

`add` appends to a list and returns. One task turns what has gathered into lines and writes them
with one `os.write` a batch, in a thread, since a file can be slow and a pipe can be full. The list
is bounded: what finds no room is dropped and counted. A batch that could not be written (no space
left) is lost and counted too; if it was cut in the middle of a line, the next one starts afresh.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.observe.record import Record

ROOM: Final = 16_384  # records waiting; about 8 MiB at their usual size
BATCH: Final = 4_096
PAUSE_S: Final = 0.1  # how long a batch gathers
LAST_WORDS_S: Final = 2.0  # for the last batch at the end


@dataclass(frozen=True, slots=True)
class AccessLogStatistics:
    """Lines since the start: written, and lost for want of room or by a failing write."""

    written: int
    dropped: int


class AccessLog:
    """Lines to a file, to standard output (`-`), or nowhere (`off`). Raises OSError when made.

    `trouble` is told, in words, when writing fails.
    """

    def __init__(self, target: str, *, trouble: Callable[[str], None], room: int = ROOM) -> None:
        self._target = target
        self._trouble = trouble
        self._room = room
        self._encoder = msgspec.json.Encoder()
        self._waiting: list[Record] = []
        self._news = trio.Event()
        self._written = self._dropped = 0
        self._torn = False
        self._writing = threading.Lock()
        self._fd = _open(target)

    def add(self, record: Record) -> None:
        """Take a finished record; it must not be changed any more."""
        if self._fd < 0:
            return
        if len(self._waiting) >= self._room:
            self._dropped += 1
            return
        self._waiting.append(record)
        self._news.set()

    def add_all(self, records: Sequence[Record]) -> None:
        """Take finished records, in their order."""
        if len(self._waiting) + len(records) > self._room:
            for record in records:
                self.add(record)
        elif self._fd >= 0 and records:
            self._waiting += records
            self._news.set()

    async def run(self) -> None:
        """Write batches until cancelled; then what is left, and let go of the file."""
        try:
            while True:
                await self._news.wait()
                await trio.sleep(PAUSE_S)
                self._news = trio.Event()
                await self._write_all()
        finally:
            with trio.move_on_after(LAST_WORDS_S, shield=True):
                while self._waiting:
                    await self._write_all()
                await trio.to_thread.run_sync(self._end_of_write, abandon_on_cancel=True)
            self._dropped += len(self._waiting)
            self._waiting.clear()
            self._release()

    def reopen(self) -> None:
        """Go on in a new file after the old one was renamed; keeps the old where it cannot."""
        try:
            fd = _open(self._target)
        except OSError as error:
            self._trouble(f"cannot reopen {self._target}: {error}")
            return
        if fd > 2:
            # In place, so that a write under way in a thread keeps a descriptor that is its own.
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)

    def statistics(self) -> AccessLogStatistics:
        """Lines written and lost since the start."""
        return AccessLogStatistics(self._written, self._dropped)

    async def _write_all(self) -> None:
        """Write what waits now; what comes meanwhile gathers, as each write costs a thread."""
        left = len(self._waiting)
        while left > 0 and self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            left -= len(batch)
            job = [self._encoder.encode_lines(batch)]
            try:
                # Left behind where a pipe is stuck; what comes after it waits for the lock.
                await trio.to_thread.run_sync(self._write, job, len(batch), abandon_on_cancel=True)
            except trio.Cancelled:
                if job:  # nobody has begun with it, and nobody will
                    job.clear()
                    self._waiting[:0] = batch
                raise
            except OSError as error:
                self._trouble(f"cannot write {self._target}: {error}")

    def _write(self, job: list[bytes], count: int) -> None:
        with self._writing:
            if not job:
                return
            lines = job.pop()
            rest = memoryview(b"\n" + lines if self._torn else lines)
            try:
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
                    self._torn = bool(rest)
            except OSError:
                self._dropped += count
                raise
            self._written += count

    def _end_of_write(self) -> None:
        """Return when what was being written is."""
        with self._writing:
            return

    def _release(self) -> None:
        # With a write stuck in a thread the descriptor stays open: its number must not be reused.
        if self._fd > 2 and self._writing.acquire(blocking=False):
            fd, self._fd = self._fd, -1
            os.close(fd)
            self._writing.release()


def _open(target: str) -> int:
    if target == "off":
        return -1
    if target == "-":
        return sys.__stdout__.fileno() if sys.__stdout__ else -1
    return os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
