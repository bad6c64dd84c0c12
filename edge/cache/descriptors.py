"""Open files of stored bodies, and what of each may be sent without being read: by `sendfile`.

Theory of operation
-------------------
A body that is sent often is verified once, not each time. An `OpenBody` remembers which blocks
were read whole and were right (see `diskbody`), and as what the file was known before they were
read: its inode, size, links, and the times of its last change. `sendable` says how many bytes may
leave straight from the descriptor. It asks the kernel each time what the file is now; if that is
anything else, nothing of it counts as verified any more, and whoever sends has to read, and so to
verify, again.

*What this promises.* Whatever writes to the file, cuts it, removes it or puts another in its
place through the file system changes the time of change, which no one can set: it is found before
the next bytes are sent (at most `transport.FILE_BYTES`), and by the next request at the latest. A
clock ticks coarsely, so a file that was changed in the very tick in which reading began is not
trusted yet. A page that is no longer in the page cache makes its block, and those behind it that
the kernel may read ahead, unverified: what comes anew from the medium is verified before it is
sent, and nothing is read from the medium by the sending call, which would hold everybody up.

*What it does not.* Bytes that are under way when they are changed are not called back. Decay of
the medium below a page that the page cache still has is neither seen nor served. Pages that were
dropped and read anew by another process, or in the moment between the question and the sending
(`RESIDENT_S` at the most), are taken for what they were; therefore everything is verified again
after `AGAIN_S`. Someone who has the file mapped for writing, or writes to the device below the
file system, changes no times at all and is found then.

*Bounds.* `most` files are kept open, the least recently asked for closed first, and any of them
that no reader has when descriptors run out. A file that readers have is closed when the last has
left. What is removed from the store is told by `close_removed`, as its space comes back only when
its last descriptor is closed. A kept file costs 1 KiB, and 2 bytes for each block.

Costs: to ask what the file is 1.3 µs; whether 256 KiB are in the page cache 5 µs, and not again
for `RESIDENT_S`; to read and verify a block 73 µs.
"""

from __future__ import annotations

import os
import resource
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from edge.cache.integrity import BLOCK_BYTES, blocks_in
from edge.cache.packing import PRIMARY_BYTES
from edge.cache.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Callable

MOST: Final = 512
MOST_FRACTION: Final = 8  # of the descriptors that the process may have
AGAIN_S: Final = 600.0
RESIDENT_S: Final = 0.25  # pages that are in use are the last that a kernel drops
AHEAD_BLOCKS: Final = 64  # 16 MiB: as far ahead as kernels are ever told to read
COARSE_CLOCK: Final = 5  # CLOCK_REALTIME_COARSE: what the kernel stamps files with


class Stamp(NamedTuple):
    """What a file was at a moment. `is_settled`: any later change would differ from it."""

    inode: int
    size: int
    links: int
    modified_ns: int
    changed_ns: int
    is_settled: bool


class InFile(Protocol):
    """What is known of a body in a file; a `StoredRow` is one."""

    @property
    def key(self) -> bytes:
        """The key of its row."""

    @property
    def filename(self) -> str | None:
        """The file's name in the store."""

    @property
    def length(self) -> int:
        """Bytes of the body."""

    @property
    def checks(self) -> bytes:
        """Of its blocks; see `integrity`."""


class OpenBody:
    """The open file of the body that `row` tells of, for any number of readers."""

    __slots__ = (
        "_clock", "_is_tried", "_length", "_pages", "_seen", "_seen_at", "_stamp", "_verified",
        "_verified_at", "descriptor", "is_kept", "is_refused", "name", "primary", "users",
    )  # fmt: skip

    def __init__(
        self,
        descriptor: int,
        row: InFile,
        stamp: Stamp,
        pages: Pages,
        clock: Callable[[], float],
    ) -> None:
        assert row.filename is not None
        self.descriptor = descriptor
        self.name = row.filename
        self.primary = row.key[:PRIMARY_BYTES]
        self.users = 0
        self.is_kept = False
        self.is_refused = False  # the file system does not let it be sent from
        self._length = row.length
        self._pages = pages
        self._clock = clock
        blocks = blocks_in(row.length)
        self._verified = bytearray(blocks)
        self._verified_at = clock()
        self._seen = bytearray(blocks)  # in the page cache, as of `_seen_at`
        self._seen_at = self._verified_at
        self._stamp = stamp
        self._is_tried = False

    def stamp(self) -> Stamp:
        """What the file is now, to be asked for before a block is read; see `mark`."""
        self._is_as_it_was()
        return self._stamp

    def mark(self, index: int, stamp: Stamp) -> None:
        """Block `index` was read, and was right, at or after the time of `stamp`."""
        if stamp is not self._stamp or not stamp.is_settled:
            return
        self._verified[index] = 1
        if not self._is_tried:  # a kernel that does not know of what was just read never does
            self._is_tried = True
            self.is_refused = not self._are_cached(index, index + 1)

    def vouch(self, verified_at: float) -> None:
        """Another process has found all blocks right in what the file was by the stamp, and in
        its page cache; see `verified_at`."""
        self._verified = bytearray(b"\1") * len(self._verified)
        self._verified_at = verified_at
        self._is_tried = True

    @property
    def verified_at(self) -> float:
        """When verification began, by the clock; it begins anew `AGAIN_S` later."""
        return self._verified_at

    def lacks(self, index: int) -> bool:
        """Whether block `index`, once read and found right, could be sent from then on."""
        return not self._verified[index] and self._stamp.is_settled and not self.is_refused

    def dropped(self, index: int) -> None:
        """Block `index` is not all in the page cache: it comes anew from the medium, and more."""
        stop = min(index + AHEAD_BLOCKS, len(self._verified))
        self._verified[index:stop] = bytes(stop - index)

    @property
    def is_sound(self) -> bool:
        """Whether the file, as last asked what it is, has a name and the length of its body."""
        return self._stamp.links > 0 and self._stamp.size == self._length

    def is_in_place(self) -> bool:
        """Whether the file is sound, and what it was when its blocks were verified."""
        return self._is_as_it_was() and self.is_sound

    @property
    def is_verified(self) -> bool:
        """Whether all blocks were found right in what the file was when that was last asked."""
        return self._verified.find(0) < 0

    def sendable(self, offset: int, most: int) -> int:
        """How many bytes from `offset`, at most `most`, may be sent from the descriptor now.

        0 where they have to be read, and then at least those of one block.
        """
        first, stop = offset // BLOCK_BYTES, (offset + most - 1) // BLOCK_BYTES + 1
        if self.is_refused or not self._is_as_it_was():
            return 0
        gap = self._verified.find(0, first, stop)
        if gap >= 0:
            stop, most = gap, gap * BLOCK_BYTES - offset
        if most <= 0 or not self._are_cached(first, stop):
            return 0
        return most

    def _is_as_it_was(self) -> bool:
        """Whether nothing has happened to the file; if so, what was verified is forgotten."""
        clock = self._clock()
        if clock - self._verified_at > AGAIN_S:
            self._forget(clock)
        was, found = self._stamp, os.fstat(self.descriptor)
        if was.is_settled and (
            found.st_ctime_ns == was.changed_ns
            and found.st_mtime_ns == was.modified_ns
            and found.st_size == was.size
        ):
            return True
        self._stamp = stamp_of(self.descriptor)
        self._forget(clock)
        return False

    def _forget(self, clock: float) -> None:
        self._verified = bytearray(len(self._verified))
        self._verified_at = clock

    def _are_cached(self, first: int, stop: int) -> bool:
        clock = self._clock()
        if clock - self._seen_at > RESIDENT_S:
            self._seen, self._seen_at = bytearray(len(self._seen)), clock
        if self._seen.find(0, first, stop) < 0:
            return True
        start = first * BLOCK_BYTES
        size = min(stop * BLOCK_BYTES, self._length) - start
        if self._pages.are_cached(self.descriptor, start, size):
            self._seen[first:stop] = b"\1" * (stop - first)
            return True
        self.dropped(first)
        return False


class Descriptors:
    """The open files that are kept, by name; see above."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._pages = Pages()
        self._kept: OrderedDict[str, OpenBody] = OrderedDict()
        self._by_primary: dict[bytes, set[str]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, filename: str) -> OpenBody | None:
        """The open file of this name for one reader, who gives it back; None where there is none.

        Also where it is no longer what it was: the file of that name may be another by now.
        """
        opened = self._kept.get(filename)
        if opened is None:
            return None
        if not opened.is_in_place():
            self.discard(opened)
            return None
        self._kept.move_to_end(filename)
        opened.users += 1
        return opened

    def peek(self, filename: str) -> OpenBody | None:
        """The open file of this name, whatever has become of it, and for no one."""
        return self._kept.get(filename)

    def lend(self, filename: str, offset: int, most: int) -> OpenBody | None:
        """As `take`, where all of the body is verified and these bytes may be sent now."""
        opened = self._kept.get(filename)
        if opened is None or not opened.is_verified:
            return None
        if opened.sendable(offset, most) < most or not opened.is_sound:
            return None
        self._kept.move_to_end(filename)
        opened.users += 1
        return opened

    def add(self, descriptor: int, row: InFile, stamp: Stamp) -> OpenBody:
        """Keep a file just opened, in place of what had its name, and give it to one reader."""
        opened = OpenBody(descriptor, row, stamp, self._pages, self._clock)
        opened.users, opened.is_kept = 1, True
        self.close(opened.name)
        self._kept[opened.name] = opened
        self._by_primary.setdefault(opened.primary, set()).add(opened.name)
        while len(self._kept) > self._most:
            self.discard(next(iter(self._kept.values())))
        return opened

    def give_back(self, opened: OpenBody) -> None:
        """A reader has left."""
        opened.users -= 1
        _close_unused(opened)

    def discard(self, opened: OpenBody) -> None:
        """Keep it no longer; its readers may go on."""
        if not opened.is_kept:
            return
        opened.is_kept = False
        del self._kept[opened.name]
        names = self._by_primary[opened.primary]
        names.remove(opened.name)
        if not names:
            del self._by_primary[opened.primary]
        _close_unused(opened)

    def close(self, filename: str | None) -> None:
        """Keep the file of this name no longer."""
        if filename is not None and (opened := self._kept.get(filename)) is not None:
            self.discard(opened)

    def close_removed(self, primary: bytes) -> None:
        """Something of a resource was removed: keep none of its files that has no name."""
        for name in list(self._by_primary.get(primary, ())):
            opened = self._kept[name]
            if not opened.is_in_place():
                self.discard(opened)

    def give_way(self) -> bool:
        """Close the file that was least recently asked for, of those that no reader has."""
        for opened in self._kept.values():
            if not opened.users:
                self.discard(opened)
                return True
        return False

    def clear(self) -> None:
        """Keep none."""
        for opened in list(self._kept.values()):
            self.discard(opened)


def most_kept() -> int:
    """How many files may be kept open, by what the process may have in all."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else min(MOST, soft // MOST_FRACTION)


def stamp_of(descriptor: int) -> Stamp:
    """What a file is now.

    A change gets the time of its tick, so one within the tick of an earlier one leaves no trace.
    """
    tick_ns = time.clock_gettime_ns(COARSE_CLOCK)
    found = os.fstat(descriptor)
    return Stamp(
        found.st_ino, found.st_size, found.st_nlink, found.st_mtime_ns, found.st_ctime_ns,
        found.st_ctime_ns < tick_ns,
    )  # fmt: skip


def _close_unused(opened: OpenBody) -> None:
    if not opened.is_kept and not opened.users and opened.descriptor >= 0:
        descriptor, opened.descriptor = opened.descriptor, -1
        os.close(descriptor)
