"""The disk shards that one worker owns, as one tier.

A shard of a key follows from the first bytes of its digest and from the number of shards, which is
the store's for good; who owns a shard follows from the number of workers, which may be another
after each start. Each shard has one owner, who alone reads and writes it, so that no database ever
has two writers. A worker owns one shard as a rule, several where there are more shards than
workers, and none where there are fewer.

Nothing is found under a key of another's shard, and nothing is stored: to ask its owner is the
business of others. Each shard has an equal part of the quota, whoever owns it; so a body takes at
most three quarters of that part (see `space`). The floor is the file system's, which each shard
asks for itself. The open files that are kept are the process's, so each has a part of those, too.
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Final

import trio

from edge.cache.body import SpoolFull
from edge.cache.descriptors import most_kept
from edge.cache.disk import Disk
from edge.cache.diskbody import BodyLost
from edge.cache.rows import VARIANTS
from edge.cache.scan import SCAN_ROWS
from edge.cache.threads import MakeWorkers, Threads
from edge.cache.tier import DiskStatistics, RowScan, summed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from edge.cache.body import Body
    from edge.cache.diskbody import DiskBody
    from edge.cache.entry import Entry
    from edge.cache.estate import Estate
    from edge.cache.packing import Scanned, StoredRow
    from edge.cache.scan import Scan
    from edge.cache.spool import FileSpool

ROUTE_BYTES: Final = 2  # of a digest: no shard is more than 1/64 larger than another, up to 1024


def shard_of(digest: bytes, shards: int) -> int:
    """The shard that a resource's digest belongs to, of so many."""
    return int.from_bytes(digest[:ROUTE_BYTES], "big") % shards


def owner_of(digest: bytes, shards: int, workers: int) -> int:
    """The slot of the worker who owns that shard, of so many workers."""
    return shard_of(digest, shards) % workers


class Shards:
    """The tier of the worker in `slot`, of `workers`; fulfils `tier.Tier`.

    `estate` has been entered, and its birth is that of the journal. `quota_bytes` are for all
    shards of the node. `log` may be called in any thread, and so may `hot`.
    """

    def __init__(
        self,
        estate: Estate,
        slot: int,
        workers: int,
        *,
        quota_bytes: int,
        free_floor_bytes: int = 0,
        io: MakeWorkers = Threads,
        log: Callable[[str], None],
        variants: int = VARIANTS,
    ) -> None:
        self._shards = estate.shards
        owned = range(slot, estate.shards, workers)
        self._disks = {
            shard: Disk(
                estate.shard(shard),
                birth=estate.birth,
                quota_bytes=quota_bytes // estate.shards,
                free_floor_bytes=free_floor_bytes,
                io=io,
                log=log,
                variants=variants,
                most_kept=most_kept() // len(owned),
            )
            for shard in owned
        }
        self._turns = cycle(self._disks.values())
        self._hot: Callable[[bytes], bool] = lambda digest: False

    async def open(self) -> None:
        """Make all ready, or none. Raises `StoreBusy`, `NotAStore`, or another OSError."""
        opened: list[Disk] = []
        try:
            for disk in self._disks.values():
                await disk.open()
                opened.append(disk)
        finally:
            if len(opened) < len(self._disks):
                with trio.CancelScope(shield=True):
                    await _all(disk.close for disk in opened)

    async def close(self) -> None:
        """Write what is queued and leave all marked as whole."""
        await _all(disk.close for disk in self._disks.values())

    @property
    def hot(self) -> Callable[[bytes], bool]:
        """Tells eviction what to pass over."""
        return self._hot

    @hot.setter
    def hot(self, hot: Callable[[bytes], bool]) -> None:
        self._hot = hot
        for disk in self._disks.values():
            disk.hot = hot

    def lacks(self, digest: bytes) -> bool:
        """Whether nothing is stored under a resource's digest; not said of another's shard."""
        disk = self._of(digest)
        return disk is not None and disk.lacks(digest)

    async def load(self, digest: bytes, now: float = 0.0) -> list[StoredRow]:
        """All variants stored under a resource's digest, less those expired at `now`."""
        disk = self._of(digest)
        return await disk.load(digest, now) if disk is not None else []

    async def peek(self, digest: bytes) -> list[StoredRow]:
        """The same, expired ones too, and nothing is changed."""
        disk = self._of(digest)
        return await disk.peek(digest) if disk is not None else []

    async def body(self, row: StoredRow, *, is_use: bool = True) -> Body:
        """The body of `row`; raises `BodyLost` or `NoDescriptors`."""
        return await self._having(row).body(row, is_use=is_use)

    def body_nowait(self, row: StoredRow) -> DiskBody | None:
        """The same, where it is in a file that is open; None where that has to be waited for."""
        disk = self._of(row.key)
        return disk.body_nowait(row) if disk is not None else None

    def lend_nowait(self, row: StoredRow, offset: int, most: int) -> DiskBody | None:
        """The same, where all is verified and these bytes can be sent at once."""
        disk = self._of(row.key)
        return disk.lend_nowait(row, offset, most) if disk is not None else None

    def prepare(self, row: StoredRow, lost: Callable[[], None]) -> None:
        """Have the file of `row` made ready to be lent, behind the scenes, or `lost` told."""
        disk = self._of(row.key)
        if disk is not None:
            disk.prepare(row, lost)

    async def whole(self, row: StoredRow) -> bytes:
        """The body of `row`, all of it verified, for memory; raises as `body` does."""
        return await self._having(row).whole(row)

    def spool(self, expected: int | None = None, digest: bytes | None = None) -> FileSpool:
        """A new spool, in the shard of `digest`, or in any for what is not to be saved; raises
        `SpoolFull` where there is no such shard, too."""
        disk = self._of(digest) if digest is not None else next(self._turns, None)
        if disk is None:
            raise SpoolFull("another worker stores this, or none does")
        return disk.spool(expected)

    def save(
        self,
        entry: Entry,
        data: bytes | FileSpool,
        checks: bytes | None = None,
        done: Callable[[StoredRow | None], None] = lambda row: None,
    ) -> None:
        """Store a whole body in place of what the variant had; `done(None)` where it cannot be.

        A spool is one that was made for this key.
        """
        disk = self._of(entry.key.digest)
        if disk is not None:
            disk.save(entry, data, checks, done)
        else:
            done(None)

    def replace(self, old: Entry, new: Entry) -> None:
        """Give the stored body of `old` the head `new` (RFC 9111 §4.3.4)."""
        disk = self._of(old.key.digest)
        if disk is not None:
            disk.replace(old, new)

    def remove(self, digest: bytes) -> None:
        """Remove all variants of a resource."""
        disk = self._of(digest)
        if disk is not None:
            disk.remove(digest)

    def drop(self, entry: Entry) -> None:
        """Remove the variant that `entry` is, unless a newer response has taken its place."""
        disk = self._of(entry.key.digest)
        if disk is not None:
            disk.drop(entry)

    def scan(self, step_rows: int = SCAN_ROWS) -> RowScan:
        """Goes over all rows, one shard after the other, `step_rows` at a time."""
        return _Scan([disk.scan(step_rows) for disk in self._disks.values()])

    async def remove_dead(self, dead: list[Scanned]) -> tuple[int, int]:
        """Remove what a scan has seen, where it is still there: rows and bytes."""
        parts: dict[Disk, list[Scanned]] = {}
        for row in dead:
            disk = self._of(row.key)
            if disk is not None:
                parts.setdefault(disk, []).append(row)
        removed = [await disk.remove_dead(part) for disk, part in parts.items()]
        return sum(rows for rows, _ in removed), sum(size for _, size in removed)

    async def sync(self) -> None:
        """Return when everything queued before has been done, and outlives a loss of power."""
        await _all(disk.sync for disk in self._disks.values())

    async def flush(self) -> None:
        """Return when everything queued before has been done."""
        await _all(disk.flush for disk in self._disks.values())

    def statistics(self) -> DiskStatistics:
        """What this worker's shards hold and have done together."""
        return summed(disk.statistics() for disk in self._disks.values())

    def _of(self, digest: bytes) -> Disk | None:
        """Where a digest belongs, or a row's key, which begins with one; None: with another."""
        return self._disks.get(shard_of(digest, self._shards))

    def _having(self, row: StoredRow) -> Disk:
        disk = self._of(row.key)
        if disk is None:
            raise BodyLost("another worker has it")
        return disk


class _Scan:
    """One scan after the other."""

    def __init__(self, scans: list[Scan]) -> None:
        self._scans = scans
        self._left = list(scans)

    @property
    def looked_at(self) -> int:
        """How many rows have been seen."""
        return sum(scan.looked_at for scan in self._scans)

    async def next(self) -> list[Scanned] | None:
        """Some more rows, perhaps none; None at the end. Raises `scan.Unreadable`."""
        while self._left:
            rows = await self._left[0].next()
            if rows is not None:
                return rows
            del self._left[0]
        return None


async def _all(deeds: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Do all of them at a time."""
    async with trio.open_nursery() as nursery:
        for deed in deeds:
            nursery.start_soon(deed)
