"""Proofs that have been used: an unsafe method's proof counts once, whichever worker it comes to.

A proof can be seen on its way and sent again. To repeat a GET or HEAD changes nothing, but a POST
that comes twice may be two orders. So the mark of each such proof is noted, for as long as the
proof could count, in memory that the parent makes and all workers share.

- *Bounded.* There are so many buckets, each with so many places, and a mark has its place in the
  bucket that its first bytes name. Marks are as good as random, so buckets fill evenly; where one
  is full all the same, the request is refused, since what cannot be noted could be repeated. The
  room is for some 1,500 unsafe requests a second with a skew of a minute.
- *Two at once.* Two workers that are sent the same proof must not both find it unused. A worker
  looks and notes with a lock on the bucket, which the kernel lets go of when a process dies. It is
  held for microseconds and for one bucket of thousands, so it is tried for as many, and whoever
  has no luck is told that the proof was used: only the same proof again is so likely to meet it.
- *kill -9.* A mark is written before its time is, and without a time it is not there. So what is
  half written is of a request that nobody began.

Turned down: one worker that knows them all, for the hop and for what is forgotten where it dies;
a note at the origin's side, where there is none.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass
from typing import Final

BUCKETS: Final = 4_096
PLACES: Final = 64
MARK_BYTES: Final = 16
TRIES: Final = 1_000

_MARKS: Final = PLACES * MARK_BYTES
_BUCKET: Final = _MARKS + PLACES * 8


class NoRoomError(Exception):
    """There is no place to note another proof; one comes free within seconds."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What one worker has seen: proofs `noted`, those `refused` as used, and `full` buckets."""

    noted: int
    refused: int
    full: int


class Used:
    """The table as every process sees it. To be made before processes are forked."""

    def __init__(self) -> None:
        self._file = os.memfd_create("used-proofs")  # the locks are on it, too
        os.ftruncate(self._file, BUCKETS * _BUCKET)
        self._memory = mmap.mmap(self._file, BUCKETS * _BUCKET)
        self._times = memoryview(self._memory).cast("d")
        self._noted = self._refused = self._full = 0

    def statistics(self) -> Statistics:
        """What this process has seen."""
        return Statistics(self._noted, self._refused, self._full)

    def take(self, mark: bytes, now: float, until: float) -> bool:
        """Whether the proof with this mark was not used before; it is now, `until` then.

        `mark` is 16 bytes that look random, times are Unix seconds. Raises `NoRoomError`.
        """
        bucket = (mark[0] << 8 | mark[1]) % BUCKETS
        if not self._lock(bucket):
            self._refused += 1
            return False
        try:
            is_new = self._noted_in(bucket, mark, now, until)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, bucket)
        self._noted += is_new
        self._refused += not is_new
        return is_new

    def _lock(self, bucket: int) -> bool:
        for _ in range(TRIES):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, bucket)
            except OSError:
                continue
            return True
        return False

    def _noted_in(self, bucket: int, mark: bytes, now: float, until: float) -> bool:
        start, times = bucket * _BUCKET, (bucket * _BUCKET + _MARKS) // 8
        free = -1
        for place in range(PLACES):
            if self._times[times + place] < now:
                free = place if free < 0 else free
            elif self._mark(start, place) == mark:
                return False
        if free < 0:
            self._full += 1
            raise NoRoomError
        self._times[times + free] = 0.0
        at = start + free * MARK_BYTES
        self._memory[at : at + MARK_BYTES] = mark
        self._times[times + free] = until
        return True

    def _mark(self, start: int, place: int) -> bytes:
        at = start + place * MARK_BYTES
        return self._memory[at : at + MARK_BYTES]
