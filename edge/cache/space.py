"""How much the disk tier may hold, and what to do when the disk itself is full.

*Quota.* What is committed (as the database counts it), what is being spooled and what is queued
to be written may together take the quota, less the database's log and the reserve. The quota is
compared before a byte is written, so it is passed by nothing but rounding.

*Floor.* Free space on the file system is asked for at most once a second. Our limit is then what
we hold plus what is free above the floor, so near the floor each new object evicts as much as it
needs. When less than half the floor is free, someone else is filling the disk, and evicting for
them would cost every hit and gain little: the store is *shut*, which means that nothing is stored
and everything is still read. It opens by itself when the space comes back.

*Reserve.* A database on a full disk cannot even delete rows. So a small file holds space back;
it is given up when writing fails, which lets the deletion through, and taken again later.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RESERVE: Final = "reserve"
SAMPLE_S: Final = 1.0
KIB: Final = 1024
FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Space:
    """The bytes of one store directory. `committed` is the writer's, the rest are the loop's."""

    def __init__(
        self, directory: Path, quota_bytes: int, floor_bytes: int, clock: Callable[[], float]
    ) -> None:
        self.wal_bytes = min(4096 * KIB, max(256 * KIB, quota_bytes // 32))
        self.reserve_bytes = min(1024 * KIB, max(64 * KIB, quota_bytes // 64))
        self.capacity = max(0, quota_bytes - self.wal_bytes - self.reserve_bytes)
        self.committed = 0
        self.spooled = 0
        self.queued = 0
        self.shut = False
        self._floor = max(floor_bytes, 2 * self.reserve_bytes)
        self._limit = self.capacity
        self._directory = directory
        self._reserve = directory / RESERVE
        self._log = directory / "cache.db-wal"
        self._clock = clock
        self._next_sample = float("-inf")

    @property
    def used(self) -> int:
        """Bytes held or promised."""
        return self.committed + self.spooled + self.queued

    def over(self, more: int) -> int:
        """By how much `more` bytes on the disk would pass the limit; what is queued apart."""
        return self.committed + self.spooled + more - self._limit

    def may_displace(self, more: int, size: int) -> bool:
        """Whether others are to be evicted for `more` bytes of a body of `size`, as far as known.

        A body that takes nearly everything is refused early, and so are all that are spooled at
        one time: those that turn out too long would have cost the whole store by then.
        """
        return not self.shut and max(size, self.spooled + more) <= self._limit * 3 // 4

    def fits(self, more: int) -> bool:
        """Whether `more` bytes may be stored now."""
        return not self.shut and self.used + more <= self._limit

    def sample(self) -> None:
        """Ask the file system what is free, unless that was done a moment ago. Blocks."""
        if self._clock() < self._next_sample:
            return
        self._next_sample = self._clock() + SAMPLE_S
        try:
            found = os.statvfs(self._directory)
        except OSError:
            self.shut = True
            return
        free = found.f_bavail * found.f_frsize
        self.shut = free < self._floor // 2
        on_disk = self.committed + self.spooled
        room = on_disk + free - self._floor - self._still_to_grow()
        self._limit = max(0, min(self.capacity, room))
        if free > self._floor + self.reserve_bytes:
            self.hold_reserve()

    def resample(self) -> None:
        """Ask again now: `committed` has just become known. Blocks."""
        self._next_sample = float("-inf")
        self.sample()

    def _still_to_grow(self) -> int:
        """What the log and the reserve may yet take, in bytes."""
        growth = 0
        for path, size in ((self._log, self.wal_bytes), (self._reserve, self.reserve_bytes)):
            try:
                growth += max(0, size - path.stat().st_size)
            except OSError:
                growth += size
        return growth

    def refuse_for_now(self) -> None:
        """Nothing is stored until the next sample: a write has just found the disk full."""
        self.shut = True
        self._next_sample = self._clock() + SAMPLE_S

    def hold_reserve(self) -> None:
        """Have the reserve, if the disk allows. Blocks."""
        try:
            if self._reserve.exists():
                return
            descriptor = os.open(self._reserve, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self.reserve_bytes)
            finally:
                os.close(descriptor)
        except OSError:
            self.give_reserve()

    def give_reserve(self) -> None:
        """Give the reserve up. Blocks."""
        try:
            self._reserve.unlink()
        except OSError:
            return


def is_full(error: BaseException) -> bool:
    """Whether this says that the disk, or a quota on it, has no more room."""
    if isinstance(error, OSError):
        return error.errno in FULL_ERRNOS
    return (
        isinstance(error, sqlite3.Error)
        and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    )


def is_corrupt(error: BaseException) -> bool:
    """Whether this says that the database is beyond use, now and for every later operation."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # SQLITE_ERROR is "no such table" and the like: none of our statements is wrong by itself.
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
