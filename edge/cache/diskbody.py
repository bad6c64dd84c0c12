"""A stored body read from its file, each block verified before a byte of it is given out.

Bytes are only ever given from a block that was read whole and whose check was right *in that
copy*: verifying once and reading again would serve what rots, or is cut off, between the two.
What may be sent from the file without being read all the same, `descriptors` says, and why.
Reading 256 KiB for each 64 KiB asked for would cost four times the work, so verified blocks are
kept for a while in one pool that all readers share. A thousand slow readers then cost no more
memory than the pool: what a reader is given is a copy of the part that it asked for.

Costs on one core: a block from the page cache 12 µs, its check 61 µs; a thread for a block that
the page cache does not have.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

import trio

from edge.cache.descriptors import Stamp, stamp_of
from edge.cache.integrity import BLOCK_BYTES, blocks_in, verify
from edge.cache.spool import read_cached
from edge.errors import ExchangeError, Failure
from edge.wire.frames import Lent

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.descriptors import InFile, OpenBody

T = TypeVar("T")

POOL_BLOCKS: Final = 64  # 16 MiB
FIRST_BLOCKS: Final = 4  # verified before the first byte: bodies up to 1 MiB never break off
LENT_CHECKS_BYTES: Final = 65_536  # of a body that is lent, which is one of 4 GiB


class BodyLost(Exception):  # noqa: N818 - it says what the body is
    """The file of a body is not there, or is not the one that was stored."""


class NoDescriptors(Exception):  # noqa: N818 - it names a state of the process
    """The file could not be opened just now; the body may be as good as ever."""


class Readers(Protocol):
    """What reads where that may block."""

    async def run(self, job: Callable[[], T]) -> T:
        """What `job` returns or raises, done in a thread, and waited for once it has begun."""


class Blocks:
    """Verified blocks, the least recently read dropped first."""

    def __init__(self, limit: int = POOL_BLOCKS) -> None:
        self._limit = limit
        self._held: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def get(self, filename: str, index: int) -> bytes | None:
        """The block `index` of the body `filename`, or None."""
        block = self._held.get((filename, index))
        if block is not None:
            self._held.move_to_end((filename, index))
        return block

    def put(self, filename: str, index: int, block: bytes) -> None:
        """Keep a block that was verified."""
        self._held[filename, index] = block
        self._held.move_to_end((filename, index))
        if len(self._held) > self._limit:
            self._held.popitem(last=False)


class DiskBody:
    """One reader of a body in a file; fulfils `body.Body`, and `transport.Source`.

    `opened` is its own until it calls `give_back`, which it does when closed. `lost` is told once
    when a block is not what was stored.
    """

    def __init__(
        self,
        opened: OpenBody,
        row: InFile,
        blocks: Blocks,
        workers: Readers,
        give_back: Callable[[OpenBody], None],
        lost: Callable[[str], None],
    ) -> None:
        self._opened = opened
        self._row = row
        self._name = opened.name
        self._blocks = blocks
        self._workers = workers
        self._give_back = give_back
        self._lost = lost
        self._reading = 0
        self._closed = False
        self._given_back = False

    @property
    def length(self) -> int:
        """The body's length in bytes."""
        return self._row.length

    @property
    def descriptor(self) -> int:
        """Of the file; what may be sent from it is told by `sendable`."""
        return self._opened.descriptor

    def sendable(self, offset: int, most: int) -> int:
        """How many bytes from `offset`, at most `most`, may be sent from the descriptor now."""
        if self._closed:
            raise trio.ClosedResourceError("this reader was closed")
        return self._opened.sendable(offset, most)

    def loan(self, start: int, stop: int) -> Lent | None:
        """What another worker has to know of the file to send these bytes from its descriptor;
        None where that could not be done now, or not all of the body is verified."""
        opened, row = self._opened, self._row
        if len(row.checks) > LENT_CHECKS_BYTES or start >= stop:
            return None
        if not self.sendable(start, min(BLOCK_BYTES, stop - start)) or not opened.is_verified:
            return None
        stamp, at = opened.stamp()[:5], opened.verified_at
        return Lent(start, stop, self._name, row.length, row.checks, stamp, at)

    def refuse(self) -> None:
        """The file cannot be sent from: `sendable` says 0 from now on."""
        self._opened.is_refused = True

    def read_nowait(self, offset: int, most: int) -> bytes | None:
        """Up to `most` bytes from `offset`; b"" at the end; None where the disk is needed."""
        if self._closed:
            raise trio.ClosedResourceError("this reader was closed")
        if offset >= self._row.length:
            return b""
        index = offset // BLOCK_BYTES
        block = self._blocks.get(self._name, index)
        if block is None or self._opened.lacks(index):
            block = self._verified_nowait(index) or block
            if block is None:
                return None
        start = offset - index * BLOCK_BYTES
        return block[start : start + most]

    async def read(self, offset: int, most: int) -> bytes:
        """The same, but waits. Raises BODY_LOST."""
        data = self.read_nowait(offset, most)
        if data is not None:
            return data
        index = offset // BLOCK_BYTES
        stamp = self._opened.stamp()
        self._reading += 1
        try:
            descriptor, length = self._opened.descriptor, self._row.length
            block = await self._workers.run(lambda: read_block(descriptor, length, index))
        except OSError as error:
            raise self._fail(str(error)) from error
        finally:
            self._reading -= 1
            self._finish_close()
        self._accept(index, block, stamp)
        start = offset - index * BLOCK_BYTES
        return block[start : start + most]

    def close(self) -> None:
        """Give the file back, at the latest when the read under way has ended."""
        self._closed = True
        self._finish_close()

    def _verified_nowait(self, index: int) -> bytes | None:
        """The block as the page cache has it, verified; None where it has not all of it."""
        size, stamp = block_size(self._row.length, index), self._opened.stamp()
        block = read_cached(self._opened.descriptor, index * BLOCK_BYTES, size)
        if block is None or len(block) < size:
            self._opened.dropped(index)
            return None
        self._accept(index, block, stamp)
        return block

    def _accept(self, index: int, block: bytes, stamp: Stamp) -> None:
        if not verify(index, block, self._row.checks):
            raise self._fail(f"block {index} has rotted")
        self._opened.mark(index, stamp)
        self._blocks.put(self._name, index, block)

    def _fail(self, why: str) -> ExchangeError:
        self._lost(why)
        return ExchangeError(Failure.BODY_LOST, f"{self._name}: {why}")

    def _finish_close(self) -> None:
        if self._closed and not self._reading and not self._given_back:
            self._given_back = True
            self._give_back(self._opened)


class Opened(NamedTuple):
    """A file just opened, what it was before its first blocks were read, and those, verified."""

    descriptor: int
    stamp: Stamp
    blocks: list[bytes]


def open_verified(directory: str, row: InFile, most: int) -> Opened:
    """The body's file and its first blocks, at most `most`. Blocks.

    Raises `BodyLost`, or `NoDescriptors` where that says nothing about the body.
    """
    assert row.filename is not None
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(os.path.join(directory, row.filename), flags)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise NoDescriptors(str(error)) from error
        raise BodyLost(error.strerror or "cannot be opened") from error
    opened = None
    try:
        # Or the kernel would read ahead what counts as verified; see `_read_ahead`.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        stamp = stamp_of(descriptor)
        opened = Opened(descriptor, stamp, first_blocks(descriptor, stamp, row, most))
    except OSError as error:
        raise BodyLost(str(error)) from error
    finally:
        if opened is None:
            os.close(descriptor)
    return opened


def first_blocks(descriptor: int, stamp: Stamp, row: InFile, most: int) -> list[bytes]:
    """The first blocks of an open file, at most `most`, verified. Blocks; raises `BodyLost`."""
    if stamp.size != row.length:
        raise BodyLost(f"{stamp.size} bytes instead of {row.length}")
    blocks = []
    for index in range(min(most, blocks_in(row.length))):
        block = read_block(descriptor, row.length, index)
        if not verify(index, block, row.checks):
            raise BodyLost(f"block {index} has rotted")
        blocks.append(block)
    return blocks


def block_size(length: int, index: int) -> int:
    """How many bytes block `index` of a body of `length` bytes has."""
    return min(BLOCK_BYTES, length - index * BLOCK_BYTES)


def _read_ahead(descriptor: int, start: int) -> None:
    """Have the next block read: by this call, and not by the kernel's own guess."""
    os.posix_fadvise(descriptor, start, BLOCK_BYTES, os.POSIX_FADV_WILLNEED)


def read_block(descriptor: int, length: int, index: int) -> bytes:
    """The block, or what there is of it. Blocks; raises OSError."""
    start, stop = index * BLOCK_BYTES, index * BLOCK_BYTES + block_size(length, index)
    _read_ahead(descriptor, stop)
    parts = []
    while start < stop and (part := os.pread(descriptor, stop - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)
