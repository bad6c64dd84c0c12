"""The journal of purges: one file, one pen, and as many readers as there are workers.

*In force means on disk.* The pen appends a record, has it synced, then publishes its number in
eight bytes of memory that all processes forked from this one share, and then tells whoever asked.
Purges that arrive while it syncs share the next sync. A reader compares those eight bytes with the
last number that it knows, and reads the end of the file if they differ. So a purge is in force in
every worker when it is acknowledged, without a message to any of them.

*What fails is not in force.* Before anyone was told, the record is taken back, and its number is
not given to another: a reader that met it in a file has purged too much, and misses nothing.
When a sync has failed, nobody knows what the disk has, so the file is written anew before the
next purge; so it is when its name is gone, when it was cut, and where there never was one. Until
that works, purges are refused with the reason, and everything else goes on. A process that is
killed between the sync and the publishing finds the purge in force when it starts again: too much
once more.

*Compaction* writes what is still to be known to a new file and renames it over the old one. It
reads the old file for that, so the pen holds no tables of its own. Readers of the old file find
no more in it and look up the name again; as the new file's opening reaches to a number that they
know, they begin behind it. The file is compacted, behind the purges that wait, when it has grown
by as much as its opening and 1 MiB; if that fails, at the latest when it has grown by twice that,
and then purges wait for it. So it is never longer than three times its opening, 2 MiB, and one
batch of at most 32 MiB; an opening takes 16 bytes for a scope, 40 for one purged softly again and
again, and up to 16 KiB for each of a thousand recent purges.

*What cannot be read* is taken for "everything up to here was purged". At start nobody knows what
number a damaged file had reached. Numbers then go on `LEAP` higher, so that no entry of the store
is newer than they are.

A journal belongs to the store whose birth id it has. Without one, or with that of another store,
the numbers in the store's entries mean nothing, and it has to be emptied: by a new birth, which is
on the disk before there is a journal for it (see `estate`).
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from edge.cache.entry import Seq
from edge.cache.ledger import (
    HEADER_BYTES,
    RECENT,
    Header,
    LedgerDamaged,
    read_header,
    read_opening,
    read_purge,
    wanted,
    without_digests,
)
from edge.cache.pen import ALL_PURGED, READ_FLAGS, Order, Pen, close_all, frames_in, told, way_out
from edge.cache.purge import Manner, Purge, Purges
from edge.cache.threads import MakeWorkers, Threads, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

NAME: Final = "purges"
WAITING_BYTES: Final = 32 << 20  # forty transactions of the largest size
WORDS: Final = 20
WORD_CHARACTERS: Final = 200


class JournalError(OSError):
    """A purge that could not be recorded and is not in force; the text tells the way out."""


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """What was done since the start. `file_bytes` are without what is allocated ahead;
    `opening_bytes` of them stand for all purges before the last compaction. `fault` is why the
    last purge was refused, "" where it was not."""

    latest: int
    file_bytes: int
    opening_bytes: int
    recorded: int
    refused: int
    syncs: int
    compactions: int
    fault: str


def shared_number() -> memoryview:
    """What a journal and its followers share: to be made before their processes are forked."""
    return memoryview(mmap.mmap(-1, 16)).cast("Q")


def follower_of(
    directory: Path, birth: str, shared: memoryview, log: Callable[[str], None]
) -> Follower:
    """A view of the purges in a process that is not the journal's: of the journal in `directory`,
    for the store of this birth."""
    follower = Follower(directory.absolute() / NAME, shared, deque(), log)
    follower.birth = birth
    return follower


class Journal:
    """The journal in `directory`, which exists; one process may write to it.

    `shared` is what followers in other processes have of `shared_number`; `log` may be called in
    any thread.
    """

    def __init__(
        self,
        directory: Path,
        *,
        log: Callable[[str], None],
        io: MakeWorkers = Threads,
        shared: memoryview | None = None,
    ) -> None:
        self._path = directory.absolute() / NAME
        self._io = io
        shared = shared_number() if shared is None else shared
        offers: deque[int] = deque()
        self._follower = Follower(self._path, shared, offers, log)
        self._pen = Pen(self._path, shared, offers, log)
        self._workers: Workers | None = None
        self._lock = threading.Lock()  # of the queue, held for no longer than to change it
        self._queue: dict[Order, None] = {}
        self._queued_bytes = 0
        self._refused = 0
        self._fault = ""

    async def open(self, birth: str) -> bool:
        """Know the purges of the store that has this birth id.

        False where they cannot be known: there is no journal, or it is of another store. Then the
        store's birth is to be renewed, and `begin` called with the new one.
        """
        self._workers = self._io(1, "edge-journal")
        is_open = False
        try:
            found = await self._workers.run(partial(self._open, birth))
            is_open = True
        finally:
            if not is_open:
                await self.close()
        return found

    async def begin(self, birth: str) -> None:
        """Have a journal for a store that has this birth from now on. Where none can be written,
        that is logged, and tried again for each purge."""
        assert self._workers is not None, "open it first"
        self._follower.birth = birth
        await self._workers.run(partial(self._pen.begin, birth))

    async def purge(
        self,
        *,
        digests: bytes,
        everything: bool,
        manner: Manner,
        who: str,
        when: float,
        words: tuple[str, ...],
        count: int,
        area: bytes = b"",
    ) -> Purge:
        """The purge, on disk and in force. Raises `JournalError`, and then it is not.

        Cancelled, it may be in force or not, and is never so in part.
        """
        shown = tuple(map(_plain, words[:WORDS]))
        order = Order(digests, everything, manner, _plain(who), when, shown, count, area)
        order.numbered(0)
        workers = self._enqueue(order)
        try:
            await workers.run(partial(self._serve, order))
        finally:
            self._withdraw(order)
        if order.purge is None:
            raise self._refusal(order.error) from order.error
        self._fault = ""
        return order.purge

    def follower(self) -> Follower:
        """This process's view of the purges; a process forked from this one has its own."""
        return self._follower

    def statistics(self) -> JournalStatistics:
        """What was written and refused."""
        pen = self._pen
        return JournalStatistics(
            latest=pen.shared[0],
            file_bytes=pen.end,
            opening_bytes=pen.opened,
            recorded=pen.recorded,
            refused=self._refused,
            syncs=pen.syncs,
            compactions=pen.compactions,
            fault=self._fault,
        )

    async def close(self) -> None:
        """Write what is queued, and let go of the file."""
        workers, self._workers = self._workers, None
        if workers is None:
            return
        workers.post(self._pen.close)
        try:
            await workers.close()
        finally:
            self._follower.close()

    # In the loop.

    def _enqueue(self, order: Order) -> Workers:
        """The workers that will serve `order`; raises `JournalError` where there is no place."""
        if self._workers is None:
            raise self._refusal(OSError(errno.ESHUTDOWN, "the node is stopping"))
        with self._lock:
            fits = self._queued_bytes + _cost(order) <= WAITING_BYTES
            if fits:
                self._queue[order] = None
                self._queued_bytes += _cost(order)
        if not fits:
            raise self._refusal(OSError(errno.EBUSY, "too many purges are waiting for the disk"))
        return self._workers

    def _withdraw(self, order: Order) -> None:
        """Take back what was cancelled before the pen took it."""
        with self._lock:
            if order in self._queue:
                del self._queue[order]
                self._queued_bytes -= _cost(order)

    def _refusal(self, error: OSError | None) -> JournalError:
        cause = error or OSError("another purge failed on the way")
        self._refused += 1
        self._fault = f"{self._path}: not purged: {told(cause)}"
        return JournalError(f"{self._fault}; {way_out(cause)}, then purge again")

    # In the pen's thread.

    def _open(self, birth: str) -> bool:
        purges = self._pen.open(birth)
        if purges is None:
            return False
        self._follower.birth = birth
        self._follower.take(purges, self._pen.recent, self._pen.file, self._pen.end)
        return True

    def _serve(self, order: Order) -> None:
        """Write `order` with all that waits, unless it has been written with another."""
        workers = self._workers
        with self._lock:
            if order not in self._queue:
                return
            batch, self._queue, self._queued_bytes = list(self._queue), {}, 0
        try:
            self._pen.write(batch)
        except OSError as error:
            for each in batch:
                each.error = error
        if self._pen.has_grown and workers is not None:
            workers.post(self._pen.compact)  # behind what waits


class Follower:
    """One process's view of the purges."""

    def __init__(
        self, path: Path, shared: memoryview, offers: deque[int], log: Callable[[str], None]
    ) -> None:
        self.birth = ""
        self._path = path
        self._shared = shared
        self._offers = offers  # a descriptor of the newest file, at most, if the pen is here
        self._log = log
        self._purges = Purges()
        self._recent: deque[Purge] = deque(maxlen=RECENT)
        self._file = -1
        self._at = 0

    def current(self) -> Purges:
        """All purges in force. Once the journal is open it is the same object each time, brought
        up to date."""
        if self._shared[0] > self._purges.latest:
            self._catch_up(Seq(self._shared[0]))
        return self._purges

    def recent(self) -> list[Purge]:
        """The last thousand purges, newest first, without their digests."""
        self.current()
        return list(reversed(self._recent))

    def recall(self, number: int) -> Purge | None:
        """The purge of this number, while it is remembered."""
        return next((each for each in self._recent if each.number == number), None)

    def take(self, purges: Purges, recent: Iterable[Purge], file: int, at: int) -> None:
        """Begin with `purges`, which `file` holds up to byte `at`, and the last ones of them."""
        self._let_go()
        self._purges, self._at = purges, at
        self._recent.extend(recent)
        try:
            self._file = os.dup(file)
        except OSError:
            return  # it will be opened by its name

    def close(self) -> None:
        """Let go of the files; what is known stays known."""
        close_all(self._offers)
        self._let_go()

    def _let_go(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _catch_up(self, target: Seq) -> None:
        why = "it is not there"
        for read in (self._read, self._read_offered, self._read_named):
            try:
                if read(target):
                    return
            except (OSError, LedgerDamaged) as error:
                why = told(error)
        self._shared[1] = target  # the pen will write the file anew
        self._log(f"{self._path}: purge {target} cannot be read: {why}; {ALL_PURGED}")
        self._purges.raise_floor(target)

    def _read(self, target: Seq) -> bool:
        """Record what follows, up to `target`: what is behind that is not in force."""
        if self._file < 0:
            return False
        for frame in frames_in(self._file, self._at):
            purge = read_purge(frame.payload)
            if purge.number > target:
                return False
            if purge.number > self._purges.latest:
                self._purges.record(purge)
                self._recent.extend(without_digests((purge,)))
            self._at = frame.end
            if purge.number == target:
                return True
        return False

    def _read_offered(self, target: Seq) -> bool:
        """The same in the newest file that this process's pen has made."""
        try:
            file = self._offers.pop()
        except IndexError:
            return False
        return self._read_anew(file, target)

    def _read_named(self, target: Seq) -> bool:
        """The same in the file that has the name now."""
        return self._read_anew(os.open(self._path, READ_FLAGS), target)

    def _read_anew(self, file: int, target: Seq) -> bool:
        try:
            header = read_header(os.pread(file, HEADER_BYTES, 0))
            if header.birth != self.birth:
                raise LedgerDamaged("it is of another store")
            at = self._pass_opening(file, header)
        except (OSError, LedgerDamaged):
            os.close(file)
            raise
        self._let_go()
        self._file, self._at = file, at
        return self._purges.latest >= target or self._read(target)

    def _pass_opening(self, file: int, header: Header) -> int:
        """Where the purges begin. The opening is read only if it has something new: it may have
        a million scopes."""
        if self._purges.latest >= header.reach:
            return HEADER_BYTES + wanted(os.pread(file, HEADER_BYTES, HEADER_BYTES))
        frame = next(frames_in(file, HEADER_BYTES), None)
        if frame is None:
            raise LedgerDamaged("it has no opening")
        opening = read_opening(frame.payload)
        self._purges.adopt(opening.tables)
        self._recent.clear()
        self._recent.extend(opening.recent)
        return frame.end


def _cost(order: Order) -> int:
    """About the bytes of memory that a waiting purge takes."""
    return 1024 + len(order.digests)


def _plain(text: str) -> str:
    """`text` as it can be kept: in UTF-8, and not too long."""
    if len(text) > WORD_CHARACTERS:
        text = text[: WORD_CHARACTERS - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode()
