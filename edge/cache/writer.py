"""The one thread that writes to the database, and what it does there.

SQLite takes one writer at a time; a second one would wait for the first, up to a second. So all
changes go through one queue in the order in which the loop made them. Up to `BATCH` of them share
a transaction (64 µs a row instead of 115), and the first waits a few milliseconds for the others,
unless somebody wants to know what came of it. Eviction, sweeping and recovery stand between two
batches, each in bounded steps.

*Failing writes.* A save that cannot be made removes what it would have replaced, since that is no
longer what the origin said. A removal that cannot be made is remembered in `undead` and holds for
every lookup from then on; it is tried again with each batch. So an invalidated answer does not
come back because the disk was full.

*A corrupt database* is found by whichever thread meets it, a removed one by this one. All
connections are closed first (one left open would, when closed later, delete the log of the new
database by its name); then the files are moved aside, one such copy is kept, and the store goes on
empty. The bodies are swept.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Final

import diskcache

from edge.cache.bytesdisk import new_filename
from edge.cache.files import sync_file, unlink, write_file
from edge.cache.hand import Hand
from edge.cache.jobs import Job, Save
from edge.cache.packing import Packed, RowRefused, StoredRow, Victim, pack
from edge.cache.rows import (
    DATABASE,
    DATABASE_FILES,
    DATABASE_LOG,
    INLINE_BYTES,
    Foreign,
    Rows,
)
from edge.cache.space import Space, is_corrupt, is_full
from edge.cache.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edge.cache.packing import Scanned
    from edge.cache.threads import Workers
    from edge.cache.trouble import Troubles

BATCH: Final = 50
STEP_ROWS: Final = 64
UNDEAD_KEYS: Final = 65_536  # with more, the database is given up instead
RETRY_S: Final = 1.0  # between attempts to open a database that cannot be opened
SHRINK_PAGES: Final = 512  # more than a step of eviction can free

ROW_ERRORS: Final = (sqlite3.Error, OSError, diskcache.Timeout, RowRefused, Foreign)


class Writer:
    """The writing half of a disk tier. Methods marked *loop* run there, the others in its thread.

    `hot(primary)` says whether a resource is in memory; `finished(jobs)` runs in the loop when
    jobs are done, for better or worse, and `evicted(victims)` when those are gone.
    """

    def __init__(
        self,
        directory: Path,
        space: Space,
        workers: Workers,
        readers: Workers,
        troubles: Troubles,
        hot: Callable[[bytes], bool],
        finished: Callable[[list[Job]], None],
        evicted: Callable[[list[Victim]], None],
        clock: Callable[[], float],
        variants: int,
    ) -> None:
        self.rows: Rows | None = None  # None while there is no database to be had
        self.count = 0
        self.saved = 0
        self.evicted = 0
        self.undead: set[bytes] = set()
        self.run_id = secrets.token_hex(4)
        self._directory = directory
        self._space = space
        self._workers = workers
        self._readers = readers
        self._troubles = troubles
        self.hand = Hand(hot)
        self._finished = finished
        self._evicted = evicted
        self._clock = clock
        self._variants = variants
        self._queue: deque[Job] = deque()
        self._scheduled = False
        self._retry_at = float("-inf")
        self._sweeping: Iterator[int] | None = None
        self._orphans = 0

    # In the loop.

    def post(self, job: Job) -> None:
        """*loop* Have `job` done behind those before it."""
        self._queue.append(job)
        if len(self._queue) == BATCH:
            self.hurry()
        self.schedule()

    def schedule(self) -> None:
        """Have what is queued done; or nothing, but for trying to open a lost database."""
        if self._scheduled:
            return
        self._scheduled = True
        if len(self._queue) < BATCH:
            self._workers.post_unhurried(self._drain)
        else:
            self._workers.post(self._drain)

    def hurry(self) -> None:
        """*loop* Have what is queued wait for nothing more."""
        if self._scheduled:
            self._workers.post(_go_on)

    def new_spool_name(self) -> str:
        """A name for a file that the sweep leaves alone during this run."""
        return f"{self.run_id}-{secrets.token_hex(8)}"

    # In the thread.

    def open(self) -> None:
        """Open the database, a new one if need be; without one nothing is stored nor found."""
        self._retry_at = self._clock() + RETRY_S
        try:
            self._open_rows()
        except ROW_ERRORS as error:
            self._troubles.tell("cannot be opened", error)
            self._space.give_reserve()
            return
        self._count()
        self._space.resample()

    def close(self) -> None:
        """Finish: everything queued is done, and the database is one file again."""
        while self._queue:
            self._drain()
        rows, self.rows = self.rows, None
        if rows is None:
            return
        try:
            rows.checkpoint()
        except ROW_ERRORS as error:
            self._troubles.tell("cannot be closed", error)
        rows.close()

    def start_sweep(self) -> None:
        """Have orphans removed, a step at a time, behind what is queued."""
        if self._sweeping is None:
            self._sweeping = sweep(
                self._directory, lambda name: name.startswith(self.run_id), self._has_body
            )
            self._workers.post(self._sweep_step)

    def make_room(self, more: int, size: int) -> None:
        """Evict until `more` bytes of a body of `size` fit, if it may take so much."""
        self._space.sample()
        with contextlib.suppress(*ROW_ERRORS):  # told by `_evict`
            while not self._space.fits(more) and self._space.may_displace(more, size):
                if not self._evict(more):
                    return

    def fail(self, error: BaseException) -> None:
        """An operation on the database or its files has failed."""
        self._troubles.tell("error", error)
        if is_corrupt(error) or isinstance(error, Foreign):
            self._rebuild()
        elif is_full(error):
            self._space.give_reserve()
            self._space.refuse_for_now()

    def look(self, primary: bytes) -> tuple[list[StoredRow], list[int]]:
        """As `Rows.find`, behind all changes queued before; nothing where that fails."""
        while self._queue:
            self._drain()
        try:
            return self.rows.find(primary) if self.rows is not None else ([], [])
        except ROW_ERRORS as error:
            self.fail(error)
            return [], []

    def reap(self, dead: list[Scanned]) -> list[Scanned]:
        """Remove rows that a scan has seen, at most `STEP_ROWS`, where they are still what it saw.

        Which of them are removed; raises `ROW_ERRORS`, after telling it, and then none is. Unlike
        an invalidation this may be left undone: whoever asks finds what was purged to be dead.
        """
        while self._queue:  # a new head that was queued for a row must find it
            self._drain()
        rows = self.rows
        if rows is None:
            raise OSError("there is no database")
        try:
            with rows.batch():
                removed = [row for row in dead if rows.remove_scanned(row)]
            rows.shrink(SHRINK_PAGES)
        except ROW_ERRORS as error:
            self.fail(error)
            raise
        self._count()
        return removed

    def sync(self) -> None:
        """Do all that is queued, and have the database's log on the disk."""
        while self._queue:
            self._drain()
        try:
            sync_file(self._directory / DATABASE_LOG)
        except FileNotFoundError:
            return  # folded in, and so on the disk
        except OSError as error:
            self.fail(error)

    def _drain(self) -> None:
        """Do one batch."""
        self._scheduled = False  # first: a job posted from now on schedules another drain
        self._space.sample()
        if self.rows is not None and self._is_removed():
            self._rebuild()
        if self.rows is None and self._clock() >= self._retry_at:
            self.open()
        batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        if not batch:
            return
        saves = [job for job in batch if isinstance(job, Save)]
        self._prepare(saves)
        if not (self._commit(batch) or self._commit(batch)):
            self._give_up(batch, saves)
        self._tidy_up(saves)
        self._count()
        self._workers.call_loop(lambda: self._finished(batch))
        if self._queue:
            self.schedule()

    def _prepare(self, saves: list[Save]) -> None:
        """Make room for `saves` and write their files; those that cannot be stay without a row."""
        if not saves or self.rows is None or self._space.shut:
            return
        packed = [self._pack(job) for job in saves]
        held = sum(job.spool.held for job in saves if job.spool is not None)
        if not self._make_room_for(sum(pack.charge for _, pack in packed) - held):
            self._troubles.tell(
                "not stored", "no room in the quota, or above the free-space floor"
            )
            return
        for job, (row, form) in zip(saves, packed, strict=True):
            try:
                if form.ready is not None and job.data is not None:
                    write_file(form.ready, job.data)
                job.row, job.packed = row, form
            except OSError as error:
                self.fail(error)
                unlink(form.ready)

    def _make_room_for(self, need: int) -> bool:
        """Evict until what this batch adds fits; whether it does."""
        space = self._space
        if self.rows is None or space.shut:
            return False
        try:
            while (over := space.over(need)) > 0:
                if not self._evict(over):
                    return False
        except ROW_ERRORS:
            return False
        return True

    def _pack(self, job: Save) -> tuple[StoredRow, Packed]:
        """The row of `job`, and its form with the name of the finished file, yet to be written."""
        if job.data is not None and len(job.data) <= INLINE_BYTES:
            blob = pack(job.entry, job.checks, job.data)
            return StoredRow(job.key, job.entry, job.checks, job.data, None), Packed(blob)
        filename = new_filename(job.key)
        if job.spool is not None:
            ready = str(job.spool.path)
        else:
            ready = str(self._directory / "spool" / self.new_spool_name())
        form = Packed(pack(job.entry, job.checks), filename, ready, job.entry.length or 0)
        return StoredRow(job.key, job.entry, job.checks, None, filename), form

    def _commit(self, batch: list[Job]) -> bool:
        """Do `batch` in one transaction; False where nothing of it was done."""
        rows = self.rows
        if rows is None:
            return False
        try:
            with rows.batch():
                for prefix in list(self.undead):
                    rows.remove(prefix)
                for job in batch:
                    if isinstance(job, Save) and job.packed is None:
                        rows.remove(job.key)
                    else:
                        job.apply(rows)
        except ROW_ERRORS as error:
            self.fail(error)
            for job in batch:
                if isinstance(job, Save):
                    self._unready(job)  # its file went with the transaction
            return False
        self.undead.clear()
        self.saved += sum(isinstance(job, Save) and job.packed is not None for job in batch)
        return True

    def _give_up(self, batch: list[Job], saves: list[Save]) -> None:
        """Nothing of `batch` could be done: what it was to remove must not be found."""
        for job in saves:
            self._unready(job)
        self.undead.update(job.prefix for job in batch)
        if len(self.undead) > UNDEAD_KEYS:
            self._rebuild()

    def _unready(self, job: Save) -> None:
        """This save is not to be made."""
        packed, job.row, job.packed = job.packed, None, None
        if packed is not None:
            unlink(packed.ready)

    def _tidy_up(self, saves: list[Save]) -> None:
        for job in saves:
            if job.row is None and job.spool is not None:
                unlink(job.spool.path)
        if self.rows is not None:
            try:
                self.rows.shrink(SHRINK_PAGES)
            except ROW_ERRORS as error:
                self.fail(error)

    def _count(self) -> None:
        if self.rows is None:
            self.count = self._space.committed = 0
            return
        try:
            self.count, self._space.committed = self.rows.totals()
        except ROW_ERRORS as error:
            self.fail(error)

    # Eviction.

    def _evict(self, want: int) -> int:
        """Evict up to `STEP_ROWS` rows or `want` bytes; the bytes freed, 0 when there is nothing.

        Raises what the database raises, after telling it.
        """
        rows = self.rows
        if rows is None:
            return 0
        victims: list[Victim] = []
        try:
            found = rows.victims(self.hand.at, STEP_ROWS)
            if not found:
                self.hand.at = 0
                found = rows.victims(0, STEP_ROWS)
            if not found:
                rows.recount()
            victims = self.hand.choose(found, want)
            with rows.batch():
                for victim in victims:
                    rows.evict(victim)
            rows.shrink(SHRINK_PAGES)  # before its bytes are given to a file
        except ROW_ERRORS as error:
            self._unlink(victims)  # that much is possible on a full disk
            self.fail(error)
            raise
        self.evicted += len(victims)
        self._workers.call_loop(lambda: self._evicted(victims))
        self._count()
        # Rows that were passed over are progress too: the next step goes on behind them.
        return sum(victim.charge for victim in victims) + len(found)

    def _unlink(self, victims: list[Victim]) -> None:
        for victim in victims:
            if victim.filename is not None:
                unlink(self._directory / victim.filename)

    # Opening, recovering, sweeping.

    def _open_rows(self) -> None:
        os.stat(self._directory)  # diskcache would make it, for all to read and without a lock
        for _ in range(2):
            database = self._directory / DATABASE
            if database.is_symlink() or (database.exists() and not database.is_file()):
                self._set_aside(RuntimeError("not a file"))
            try:
                self.rows = Rows(self._directory, self._space.wal_bytes, self._variants)
                return
            except (Foreign, ValueError, TypeError, sqlite3.Error) as error:
                # ValueError and TypeError: what diskcache raises over a database that is not its.
                if isinstance(error, sqlite3.Error) and not is_corrupt(error):
                    if not is_full(error):
                        raise
                    self._space.give_reserve()
                    continue
                self._set_aside(error)
        self.rows = Rows(self._directory, self._space.wal_bytes, self._variants)

    def _is_removed(self) -> bool:
        """Whether the database's name has gone: what is written now no restart would find."""
        return not (self._directory / DATABASE).exists()

    def _set_aside(self, why: BaseException) -> None:
        """Move the database out of the way; the copy before it goes."""
        self._troubles.tell("database moved aside", why)
        for name in DATABASE_FILES:
            path = self._directory / name
            aside = path.with_name(name.replace(DATABASE, DATABASE + ".broken"))
            if aside.is_dir() and not aside.is_symlink():
                shutil.rmtree(aside)
            with contextlib.suppress(FileNotFoundError):
                aside.unlink()
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside)
        self.undead.clear()
        self.hand.at = 0

    def _rebuild(self) -> None:
        """Go on with an empty database."""
        self._close_rows()
        try:
            self._set_aside(RuntimeError("no longer usable"))
        except OSError as error:
            self._troubles.tell("error", error)
            return
        self._start_anew()

    def _close_rows(self) -> None:
        rows, self.rows = self.rows, None
        if rows is not None:
            self._readers.every(rows.close)
            rows.close()

    def _start_anew(self) -> None:
        """Open a new database where the old one is out of the way; its bodies are orphans."""
        self.open()
        self._sweeping = None
        self.start_sweep()

    def _sweep_step(self) -> None:
        sweeping = self._sweeping
        if sweeping is None:
            return
        try:
            for removed in sweeping:
                self._orphans += removed
                self._workers.post(self._sweep_step)
                return
        except ROW_ERRORS as error:
            self.fail(error)
        if self._sweeping is sweeping:
            self._sweeping = None
            if self._orphans:
                self._troubles.tell("orphans removed", self._orphans)

    def _has_body(self, filename: str) -> bool:
        if self.rows is None:
            raise OSError("no database")
        return self.rows.has_body(filename)


def _go_on() -> None:
    """Nothing: what waits for company begins when anything else is asked for."""
