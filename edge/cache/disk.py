"""The disk tier: every stored variant that the quota allows, through restarts and kill -9.

*Shape.* Rows (see `rows`) hold heads, checks and small bodies; files hold large ones; one thread
writes (see `writer`), a few read. Nothing is loaded at start: a million rows are ready as soon as
the database is open. This module is the side that the event loop sees; it never blocks.

*Nothing fails outwards.* Any error of SQLite or the file system is a miss, a count and a line in
the log at most every ten seconds. A body is verified as it is read (see `diskbody`), a row as it
is found, so that torn writes, rot and foreign files are misses too.

*Order.* Changes are queued and done in their order. A lookup of a resource that has changes queued
goes through the same queue; one that was overtaken by a change while it was in a reading thread is
done again. So a lookup always sees every change made before it was called, and no change waits.
What is known not to be there (see `presence`) is not looked for.
The queue is bounded in bytes: what does not fit is not stored (it still lives in memory), and what
it would have replaced is removed.

*Durability.* No object is synced; the database's log is synced only when it is folded in. A killed
process loses what was queued. A loss of power loses the last seconds, and may leave bodies without
their end, which their checks tell. Turned down: fsync for each object, at 5 ms apiece, for what
can be fetched again.

*Births.* What is here can be judged only with the purges recorded for its birth. Where the tier is
given another birth, it is emptied as it is opened (see `home`; `estate` for why that holds through
a crash).

*Readers hold descriptors,* one for each body that is being read, and those of a few hundred more
are kept (see `descriptors`); where there are none left, that body is a miss, and its row stays.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

from edge.cache.bodies import Bodies
from edge.cache.body import Body, MemoryBody, SpoolFull
from edge.cache.diskbody import NoDescriptors
from edge.cache.home import Home
from edge.cache.integrity import checks_of
from edge.cache.jobs import Job, Rehead, Remove, RemoveRefused, Save
from edge.cache.packing import PRIMARY_BYTES, StoredRow, file_charge, row_charge, row_key
from edge.cache.presence import Presence
from edge.cache.rows import INLINE_BYTES, VARIANTS
from edge.cache.scan import SCAN_ROWS, Scan, Unreadable
from edge.cache.space import Space
from edge.cache.spool import FileSpool
from edge.cache.threads import MakeWorkers, Threads
from edge.cache.tier import DiskStatistics
from edge.cache.trouble import Troubles
from edge.cache.writer import ROW_ERRORS, STEP_ROWS, Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.cache.diskbody import DiskBody
    from edge.cache.entry import Entry
    from edge.cache.packing import Scanned, Victim
    from edge.cache.rows import Glance


READERS: Final = 4
QUEUE_BYTES: Final = 64 << 20
HURRY_FRACTION: Final = 4  # of the queue: with more in it, no batch waits for company
HEAD_BYTES: Final = 2048  # what a queued row is counted for beside its body


class _Load:
    """A lookup in a reading thread; `spoiled` once a change has overtaken it."""

    __slots__ = ("spoiled", "users")

    def __init__(self) -> None:
        self.spoiled = False
        self.users = 0


class Disk:
    """The tier in `directory`, emptied where that has another birth. `log` may be called in any
    thread.

    So may `hot(digest)`, which tells eviction what to pass over; it is the store's to set.
    """

    def __init__(
        self,
        directory: Path,
        *,
        birth: str,
        quota_bytes: int,
        free_floor_bytes: int = 0,
        io: MakeWorkers = Threads,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        variants: int = VARIANTS,
        most_kept: int | None = None,
    ) -> None:
        self._birth = birth
        self._directory = directory.absolute()
        self._quota = quota_bytes
        self._variants = variants  # of one resource, at the most
        self._most_kept = most_kept  # of open files; None: as many as a process of its own may
        self._io = io
        self._home = Home(self._directory)
        self._troubles = Troubles(log, clock)
        self._space = Space(self._directory, quota_bytes, free_floor_bytes, clock)
        self._queue_limit = min(QUEUE_BYTES, max(self._space.capacity // 4, 1 << 20))
        self.hot: Callable[[bytes], bool] = lambda digest: False
        self._clock = clock
        self._dirty: dict[bytes, int] = {}  # changes queued, by resource
        self._gone: set[bytes] = set()  # those among them that end with all variants removed
        self._loads: dict[bytes, _Load] = {}
        self._dropped = 0
        self._opened = False

    async def open(self) -> None:
        """Make ready. Raises `StoreBusy`, `NotAStore`, or another OSError."""
        self._readers = self._io(READERS, "edge-disk-read", self._close_rows)
        self._workers = self._io(1, "edge-disk-write", lambda: None)
        self._writer = Writer(
            self._directory,
            self._space,
            self._workers,
            self._readers,
            self._troubles,
            lambda digest: self.hot(digest),
            self._finished,
            self._evicted,
            self._clock,
            self._variants,
        )
        self._presence = Presence(self._writer, self._readers, self._fail_behind, self._dirty.keys)
        self._bodies = Bodies(
            str(self._directory), self._readers, self._lose, most=self._most_kept
        )
        try:
            await self._workers.run(self._open)
            self._opened = True
        finally:
            if not self._opened:
                await self._readers.close()
                await self._workers.close()

    async def close(self) -> None:
        """Write what is queued and leave the directory marked as whole."""
        if not self._opened:
            return
        self._opened = False
        await self._workers.run(self._close)
        self._bodies.files.clear()
        await self._readers.close()
        await self._workers.close()

    def lacks(self, digest: bytes) -> bool:
        """Whether nothing is stored under a resource's digest, and no one need be asked."""
        return self._opened and self._presence.lacks(digest)

    async def load(self, digest: bytes, now: float = 0.0) -> list[StoredRow]:
        """All variants stored under a resource's digest, less those expired at `now`."""
        writer = self._writer
        if not self._opened or (not writer.count and digest not in self._dirty):
            if self._opened and writer.rows is None:
                writer.schedule()
            return []
        if digest in self._gone or self._presence.lacks(digest):
            return []
        rows, refused = await self._load(digest)
        if refused:
            self._troubles.tell("rows refused", len(refused))
            self._post(RemoveRefused(digest, refused))
        live = [row for row in rows if row.entry.keep_until > now or not now]
        for row in rows:
            if row not in live:
                self._post(Remove(row.key, row.entry))
            else:
                writer.hand.note_use(row.key)
        return live

    async def peek(self, digest: bytes) -> list[StoredRow]:
        """All variants stored under a resource's digest, as `load`, and nothing is changed."""
        if not self._opened or digest in self._gone:
            return []
        return (await self._load(digest))[0]

    async def body(self, row: StoredRow, *, is_use: bool = True) -> Body:
        """The body of `row`, its first blocks verified; raises `BodyLost` or `NoDescriptors`."""
        if row.inline is not None:
            return MemoryBody(row.inline)
        try:
            body = await self._bodies.open(row)
        except NoDescriptors as error:
            self._troubles.tell("no descriptors", error)
            raise
        if is_use:
            self._writer.hand.note_use(row.key)
        return body

    def body_nowait(self, row: StoredRow) -> DiskBody | None:
        """As `body`, where it is in a file that is open; None where that has to be waited for."""
        body = self._bodies.open_nowait(row) if self._opened and row.filename else None
        if body is not None:
            self._writer.hand.note_use(row.key)
        return body

    def lend_nowait(self, row: StoredRow, offset: int, most: int) -> DiskBody | None:
        """As `body_nowait`, where all is verified and these bytes can be sent at once."""
        body = None
        if self._opened and row.filename:
            body = self._bodies.lend_nowait(row, offset, most)
        if body is not None:
            self._writer.hand.note_use(row.key)
        return body

    def prepare(self, row: StoredRow, lost: Callable[[], None]) -> None:
        """Have the file of `row` made ready to be lent, behind the scenes, or `lost` told."""
        if self._opened:
            self._bodies.prepare(row, lost)

    async def whole(self, row: StoredRow) -> bytes:
        """The body of `row`, all of it verified, for memory; raises as `body` does."""
        if row.inline is not None:
            return row.inline
        try:
            return await self._bodies.whole(row)
        except NoDescriptors as error:
            self._troubles.tell("no descriptors", error)
            raise

    def spool(self, expected: int | None = None, digest: bytes | None = None) -> FileSpool:
        """A new spool, its body `expected` long; raises `SpoolFull` while nothing is stored."""
        del digest  # whatever it is for, it lies here
        if not self._opened or self._space.shut:
            raise SpoolFull("the store takes nothing now")
        path = self._directory / "spool" / self._writer.new_spool_name()
        return FileSpool(
            path, self._space, self._readers, self._make_room, self._fail_behind, expected
        )

    def save(
        self,
        entry: Entry,
        data: bytes | FileSpool,
        checks: bytes | None = None,
        done: Callable[[StoredRow | None], None] = lambda row: None,
    ) -> None:
        """Store a whole body (`entry.length` bytes) in place of what the variant had.

        `done(row)` is called in the loop, with None where it could not be stored. A spool is the
        tier's from now on; whoever reads from it may go on, and closes it.
        """
        if not self._opened:
            done(None)
            return
        if isinstance(data, FileSpool):
            assert checks is not None
            data.take_over()
            self._post(Save(entry, checks, None, data, done))
            return
        if self._space.queued + _queued_bytes(data) > self._queue_limit:
            self._dropped += 1
            self._post(Remove(row_key(entry)))
            done(None)
            return
        self._space.queued += _queued_bytes(data)
        self._post(Save(entry, checks_of(data) if checks is None else checks, data, None, done))
        if self._space.queued > self._queue_limit // HURRY_FRACTION:
            self._writer.hurry()

    def replace(self, old: Entry, new: Entry) -> None:
        """Give the stored body of `old` the head `new` (RFC 9111 §4.3.4)."""
        self._post(Rehead(old, new))

    def remove(self, digest: bytes) -> None:
        """Remove all variants of a resource."""
        self._post(Remove(digest))

    def drop(self, entry: Entry) -> None:
        """Remove the variant that `entry` is, unless a newer response has taken its place."""
        self._post(Remove(row_key(entry), entry))

    def scan(self, step_rows: int = SCAN_ROWS) -> Scan:
        """Goes over all rows, `step_rows` at a time; the tier must be open."""
        return Scan(self._writer, self._readers, self._workers, self.flush, self._sift, step_rows)

    async def remove_dead(self, dead: list[Scanned]) -> tuple[int, int]:
        """Remove what a scan has seen, where nothing else has taken its place: rows and bytes.

        Nothing that came later is touched, however it was judged. Raises `Unreadable`.
        """
        rows = size = 0
        for start in range(0, len(dead), STEP_ROWS):
            step = dead[start : start + STEP_ROWS]
            if not self._opened:
                raise Unreadable("the store is closed")
            try:
                removed = await self._workers.run(partial(self._writer.reap, step))
            except ROW_ERRORS as error:
                raise Unreadable(str(error)) from error
            for row in removed:
                self._bodies.files.close_removed(row.key[:PRIMARY_BYTES])
            rows += len(removed)
            size += sum(row.charge for row in removed)
        return rows, size

    async def sync(self) -> None:
        """Return when everything queued before has been done, and outlives a loss of power."""
        if self._opened:
            await self._workers.run(self._writer.sync)

    async def flush(self) -> None:
        """Return when everything queued before has been done."""
        if self._opened:
            await self._workers.run(lambda: self._writer.look(b"\0" * 16))

    def statistics(self) -> DiskStatistics:
        """What is held and was done."""
        writer = self._writer if self._opened else None
        return DiskStatistics(
            rows=writer.count if writer else 0,
            committed_bytes=self._space.committed,
            spooled_bytes=self._space.spooled,
            queued_bytes=self._space.queued,
            quota_bytes=self._quota,
            saved=writer.saved if writer else 0,
            dropped=self._dropped,
            evicted=writer.evicted if writer else 0,
            lost=self._troubles.count("body lost"),
            errors=self._troubles.count("error"),
            rebuilt=self._troubles.count("database moved aside"),
            is_shut=self._space.shut,
        )

    # In the loop.

    async def _load(self, digest: bytes) -> tuple[list[StoredRow], list[int]]:
        """What is stored under `digest`, and the row ids of those that must be removed."""
        look_behind_changes = partial(self._writer.look, digest)
        look = partial(self._look, digest)
        while True:
            load = self._loads.setdefault(digest, _Load())
            load.users += 1
            try:
                if digest in self._dirty:
                    rows, refused = await self._workers.run(look_behind_changes)
                else:
                    rows, refused = await self._readers.run(look)
            finally:
                load.users -= 1
                if not load.users and self._loads.get(digest) is load:
                    del self._loads[digest]
            if not load.spoiled:
                return [row for row in rows if not self._is_undead(row.key)], refused

    def _is_undead(self, key: bytes) -> bool:
        undead = self._writer.undead
        return bool(undead) and (key in undead or key[:PRIMARY_BYTES] in undead)

    def _sift(self, glance: Glance) -> list[Scanned]:
        """What of a step of a scan may be found; what was refused is removed."""
        if glance.refused:
            self._troubles.tell("rows refused", len(glance.refused))
        for rowid, key in glance.refused:
            if key is not None:  # no one finds the others, and eviction takes them
                self._post(RemoveRefused(key[:PRIMARY_BYTES], [rowid]))
        return [row for row in glance.rows if not self._is_undead(row.key)]

    def _post(self, job: Job) -> None:
        """Queue a change, and note for whom a lookup must wait for it."""
        if not self._opened:
            return
        digest = job.prefix[:PRIMARY_BYTES]
        if isinstance(job, Save | Rehead):
            self._presence.note(digest)
        self._dirty[digest] = self._dirty.get(digest, 0) + 1
        if job.prefix == digest and isinstance(job, Remove):
            self._gone.add(digest)
        else:
            self._gone.discard(digest)
        load = self._loads.pop(digest, None)
        if load is not None:
            load.spoiled = True
        self._writer.post(job)

    def _finished(self, jobs: list[Job]) -> None:
        for job in jobs:
            digest = job.prefix[:PRIMARY_BYTES]
            left = self._dirty.get(digest, 1) - 1
            if left:
                self._dirty[digest] = left
            else:
                self._dirty.pop(digest, None)
                self._gone.discard(digest)
            self._bodies.files.close_removed(digest)
            if isinstance(job, Save):
                self._saved(job)

    def _evicted(self, victims: list[Victim]) -> None:
        for victim in victims:
            self._bodies.files.close(victim.filename)

    def _saved(self, job: Save) -> None:
        if job.spool is not None:
            job.spool.release()
        elif job.data is not None:
            self._space.queued -= _queued_bytes(job.data)
        self._dropped += job.row is None
        job.done(job.row)

    def _lose(self, row: StoredRow, why: str) -> None:
        self._troubles.tell("body lost", f"{row.entry.key.url!r} {row.filename}: {why}")
        self._post(Remove(row.key, row.entry))

    async def _make_room(self, more: int, size: int) -> None:
        await self._workers.run(lambda: self._writer.make_room(more, size))

    def _fail_behind(self, error: BaseException) -> None:
        """Tell the writer of an error, from whichever thread."""
        self._workers.post(partial(self._writer.fail, error))

    # In threads.

    def _look(self, digest: bytes) -> tuple[list[StoredRow], list[int]]:
        rows = self._writer.rows
        if rows is None:
            return [], []
        try:
            return rows.find(digest)
        except ROW_ERRORS as error:
            self._fail_behind(error)
            return [], []

    def _open(self) -> None:
        self._home.enter()
        is_ours = False
        try:
            self._home.adopt(self._birth)
            is_ours = True
        finally:
            if not is_ours:
                self._home.leave()
        was_clean = self._home.take_clean()
        self._writer.open()
        self._space.resample()
        self._readers.every(self._connect)
        if not was_clean or not self._writer.count:
            self._writer.start_sweep()

    def _connect(self) -> None:
        """Have this thread's connection now: later there may be no descriptors for it."""
        self._look(bytes(PRIMARY_BYTES))

    def _close(self) -> None:
        whole = self._writer.rows is not None
        self._readers.every(self._close_rows)
        self._writer.close()
        if whole:
            try:
                self._home.mark_clean()
            except OSError as error:
                self._troubles.tell("error", error)
        self._home.leave()

    def _close_rows(self) -> None:
        rows = self._writer.rows
        if rows is not None:
            rows.close()


def _queued_bytes(data: bytes) -> int:
    inline = len(data) <= INLINE_BYTES
    return row_charge(HEAD_BYTES + len(data) * inline) + file_charge(len(data) * (not inline))
