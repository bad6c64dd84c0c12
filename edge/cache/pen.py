"""The file of the journal, and all that is done to it; by one thread, since everything blocks.

Why it does what it does is told in `journal`. What it promises: `write` puts purges in force, all
of them, or raises OSError, and then none is. `open`, `begin` and `compact` never raise OSError:
they log what keeps them from their work, and a node without a journal can still serve.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.cache.entry import Seq
from edge.cache.home import sync_directory
from edge.cache.ledger import (
    END_BYTES,
    HEADER_BYTES,
    RECENT,
    UNFINISHED,
    Frame,
    Header,
    LedgerDamaged,
    Opening,
    frame_at,
    header_bytes,
    opening_bytes,
    purge_bytes,
    replay,
    wanted,
    without_digests,
)
from edge.cache.purge import Manner, Purge, Purges
from edge.cache.space import FULL_ERRNOS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edge.cache.purge import Tables

AHEAD_BYTES: Final = 1 << 20  # allocated ahead: for ten thousand purges on a full disk
SLACK_BYTES: Final = 1 << 20  # of growth that is not worth a compaction: some 18,000 purges
START_SLACK_BYTES: Final = 64 << 10
LARGEST_FILE_BYTES: Final = 256 << 20  # the bound below is 170 MiB
LEAP: Final = 1_000_000_000  # far more than the purges in one file, and easily seen
WINDOW_BYTES: Final = 4096
LARGEST_WINDOW_BYTES: Final = 1 << 20

ALL_PURGED: Final = "all that was stored before is taken for purged"
_STORE_EMPTIED: Final = "the store begins empty"

_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
READ_FLAGS: Final = os.O_RDONLY | _FLAGS
_READ_ONLY_ERRNOS: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_WAYS_OUT: Final = (
    (FULL_ERRNOS, "make room on its disk"),
    (_READ_ONLY_ERRNOS, "let this node write to its directory"),
    ({errno.EMFILE, errno.ENFILE}, "raise the limit of open files"),
    ({errno.EBUSY}, "wait until its disk keeps up"),
    ({errno.ESHUTDOWN}, "start it"),
)


@dataclass(slots=True, eq=False)
class Order:
    """A purge that has no number yet, and then what became of it."""

    digests: bytes
    everything: bool
    manner: Manner
    who: str
    when: float
    words: tuple[str, ...]
    count: int
    area: bytes = b""
    purge: Purge | None = None
    error: OSError | None = None

    def numbered(self, number: int) -> Purge:
        """The purge that this is under `number`; raises ValueError for what is none."""
        return Purge(
            Seq(number), self.when, self.who, self.manner, self.everything,
            self.digests, self.count, self.words, self.area,
        )  # fmt: skip


class Pen:
    """The file at `path`. `shared` are eight bytes for the number published, and eight in which
    a reader says up to which number it could not read.

    `offers` holds a descriptor of each new file, for this process's own reader: it must not need
    one when there are none left. Whoever takes it out closes it.
    """

    def __init__(
        self, path: Path, shared: memoryview, offers: deque[int], log: Callable[[str], None]
    ) -> None:
        self.shared = shared
        self._offers = offers
        self.file = -1
        self.opened = self.end = 0  # where the opening ends, and the last record
        self.recent: tuple[Purge, ...] = ()
        self.recorded = self.syncs = self.compactions = 0
        self._birth = ""
        self._path = path
        self._beside = path.with_name(path.name + ".new")
        self._log = log
        self._latest = Seq(0)  # the last number given, also to what failed
        self._is_sound = False
        self._compact_at = 0

    # Starting and ending.

    def open(self, birth: str) -> Purges | None:
        """The purges in the file; None if there is no file for the store of this birth."""
        self.close()
        _unlink(self._beside)
        try:
            self.file, self._is_sound = _open(self._path)
            return self._replay(birth)
        except FileNotFoundError:
            return None
        except (OSError, LedgerDamaged) as error:
            self.close()
            self._log(f"{self._path}: cannot be used: {told(error)}; {_STORE_EMPTIED}")
            return None

    def _replay(self, birth: str) -> Purges:
        purges = Purges()
        found = replay(_read_all(self.file), purges)
        if not birth or found.header.birth != birth:
            raise LedgerDamaged("it is of another store")
        if found.damage is not None:
            self._log(f"{self._path}: damaged: {found.damage}; {ALL_PURGED}")
            purges.raise_floor(Seq(purges.latest + LEAP))
            self._is_sound = False
        self._birth, self._latest, self.recent = birth, purges.latest, found.recent
        self.opened, self.end = found.opened, found.end
        self._compact_at = self._limit(1)
        self.shared[0], self.shared[1] = self._latest, 0
        if found.is_unfinished:
            self._log(f"{self._path}: the last purge was not finished, and is not in force")
            self._is_sound = False  # what follows the end has to go
        is_whole = found.damage is None and not found.is_unfinished
        if not is_whole or self.end - self.opened > START_SLACK_BYTES:
            self._try_to_compact(purges)
        return purges

    def begin(self, birth: str) -> None:
        """Have a file that holds no purges. Numbers go on: some may still be in memory."""
        self.close()
        self._birth = birth
        self._latest = max(self._latest, Seq(self.shared[0]))  # of a process before this one
        try:
            self._write_anew(self._nothing())
        except OSError as error:
            self._log(
                f"{self._path}: cannot be written: {told(error)}; {way_out(error)}: "
                "until then nothing can be purged"
            )

    def close(self) -> None:
        """Let go of the file."""
        file, self.file = self.file, -1
        self._is_sound = False
        if file >= 0:
            os.close(file)

    # Writing.

    def write(self, orders: list[Order]) -> None:
        """Put `orders` in force, all of them; raises OSError, and then none is."""
        self._make_sound()
        numbers = range(self._latest + 1, self._latest + len(orders) + 1)
        purges = [order.numbered(number) for order, number in zip(orders, numbers, strict=True)]
        self._latest = Seq(self._latest + len(orders))
        self._append(b"".join(map(purge_bytes, purges)))
        self.shared[0] = self._latest
        self.recorded += len(purges)
        self.recent = (self.recent + without_digests(purges))[-RECENT:]
        for order, purge in zip(orders, purges, strict=True):
            order.purge = purge

    def _append(self, records: bytes) -> None:
        self._allocate(self.end + len(records) + END_BYTES)
        size = os.fstat(self.file).st_size
        try:
            unfinished = UNFINISHED + records[len(UNFINISHED) :] + bytes(END_BYTES)
            _write_all(self.file, unfinished, self.end)
            # Until here a kill -9 leaves what is seen not to count; from here on it counts.
            _write_all(self.file, records[: len(UNFINISHED)], self.end)
            self._sync()
        except OSError:
            self._undo(len(records) + END_BYTES, size)
            raise
        self.end += len(records)

    def _sync(self) -> None:
        try:
            os.fdatasync(self.file)
        except OSError:
            self._is_sound = False  # a second sync would succeed, whatever the disk has
            raise
        self.syncs += 1

    def _allocate(self, size: int) -> None:
        """Have room ahead, if the file system can; if it cannot, writing will tell."""
        try:
            if os.fstat(self.file).st_size < size + AHEAD_BYTES // 2:
                os.posix_fallocate(self.file, 0, size + AHEAD_BYTES)
        except OSError:
            return

    def _undo(self, count: int, size: int) -> None:
        """Take back `count` bytes from a file that was `size` bytes long."""
        try:
            _write_all(self.file, bytes(min(count, size - self.end)), self.end)
            os.ftruncate(self.file, size)
        except OSError:
            self._is_sound = False

    def _make_sound(self) -> None:
        """Have a file that can be appended to; raises OSError."""
        why = self._fault()
        if why:
            self._write_anew(self._tables())
            self._log(f"{self._path}: written anew: {why}")

    def _fault(self) -> str:
        if self.file < 0:
            return "there was none"
        if not self._is_sound:
            return "it could not be written before"
        if self.shared[1]:
            return f"purge {self.shared[1]} could not be read from it"
        if self.end > self._limit(2):
            return "it had grown too long"
        here = os.fstat(self.file)
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return "it had been removed"
        if not os.path.samestat(here, there):
            return "another file had taken its place"
        return "it had been cut" if here.st_size < self.end + END_BYTES else ""

    # Compacting.

    def _limit(self, times: int) -> int:
        """How long the file may be when it may grow `times` by its opening and the slack."""
        return self.opened + times * (self.opened + SLACK_BYTES)

    @property
    def has_grown(self) -> bool:
        """Whether it is time to compact the file."""
        return self._is_sound and self.end > self._compact_at

    def compact(self) -> None:
        """Write a shorter file if this one has grown; failing that, keep it."""
        if self.has_grown:
            self._try_to_compact(None)

    def _try_to_compact(self, purges: Purges | None) -> None:
        try:
            self._write_anew(self._tables() if purges is None else purges.snapshot())
            self.compactions += 1
        except OSError as error:
            self._compact_at = self.end + SLACK_BYTES
            self._log(f"{self._path}: not compacted: {told(error)}; {way_out(error)}")

    def _tables(self) -> Tables:
        """What the purges in the file come to; if it has not all of them, everything is purged."""
        if self.file < 0:
            return self._nothing()
        purges, why = Purges(), ""
        try:
            data = os.pread(self.file, self.end, 0) + bytes(END_BYTES)
            why = replay(data, purges).damage or ""
            if not why and purges.latest < self.shared[0]:
                why = f"it ends with purge {purges.latest} of {self.shared[0]}"
        except (OSError, LedgerDamaged) as error:
            why = told(error)
        if why:
            self._log(f"{self._path}: damaged: {why}; {ALL_PURGED}")
            purges.raise_floor(self._latest)
        return purges.snapshot()

    def _nothing(self) -> Tables:
        purges = Purges()
        purges.raise_floor(self._latest)
        return purges.snapshot()

    def _write_anew(self, tables: Tables) -> None:
        """Put a new file in place of the old; raises OSError, and then the old one counts."""
        opening = opening_bytes(Opening(tables, self.recent))
        header = header_bytes(Header(self._birth, tables.latest))
        file, copy = _create(self._beside, self._path, header + opening + bytes(END_BYTES))
        self.close()
        close_all(self._offers)
        self._offers.append(copy)
        self.file, self._is_sound, self.shared[1] = file, True, 0
        self.opened = self.end = HEADER_BYTES + len(opening)
        self._compact_at = self._limit(1)
        self._allocate(self.end)


# --- errors, for people


def way_out(error: OSError) -> str:
    """What whoever reads of `error` may do about it."""
    for errnos, way in _WAYS_OUT:
        if error.errno in errnos:
            return way
    return "check its disk"


def told(error: OSError | LedgerDamaged) -> str:
    """What `error` says, without its number."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


# --- files


def frames_in(file: int, at: int) -> Iterator[Frame]:
    """The records of a file from byte `at` on, as far as they go; raises `LedgerDamaged` for one
    that is not whole. Mostly there is one, so it begins with little; it may be written to."""
    size = WINDOW_BYTES
    while True:
        window, done = memoryview(os.pread(file, size, at)), 0
        while (frame := frame_at(window, done)) is not None:
            done = frame.end
            yield Frame(frame.payload, at + done)
        need = wanted(window, done)
        if 0 < need <= size and not done:
            raise LedgerDamaged(f"the file ends within the record at byte {at}")
        if not need and (not done or len(window) - done >= END_BYTES):
            return
        at += done
        size = max(need, min(2 * size, LARGEST_WINDOW_BYTES))


def _open(path: Path) -> tuple[int, bool]:
    """A descriptor of the file, and whether it may be written to."""
    try:
        return os.open(path, os.O_RDWR | _FLAGS), True
    except OSError as error:
        if error.errno not in _READ_ONLY_ERRNOS:
            raise
        return os.open(path, READ_FLAGS), False


def _read_all(file: int) -> bytes:
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        raise LedgerDamaged("it is no file")
    if found.st_size > LARGEST_FILE_BYTES:
        raise LedgerDamaged(f"{found.st_size} bytes are more than a journal can have")
    return os.pread(file, found.st_size, 0)


def _create(beside: Path, path: Path, content: bytes) -> tuple[int, int]:
    """Two descriptors of a new file that is on disk in place of `path`; raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    made = deque([os.open(beside, flags, 0o600)])
    try:
        made.append(os.dup(made[0]))
        _write_all(made[0], content, 0)
        os.fsync(made[0])
        os.rename(beside, path)
        sync_directory(path.parent)
    except OSError:
        close_all(made)
        _unlink(beside)
        raise
    return made[0], made[1]


def close_all(files: deque[int]) -> None:
    """Close what is in `files`, from which another thread may take."""
    while True:
        try:
            file = files.popleft()
        except IndexError:
            return
        os.close(file)


def _write_all(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        return
