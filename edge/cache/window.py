"""The part of a body that is in memory: consecutive bytes, added at the end, dropped at the front.

A window hands out the very objects that were put in, or views of them, so that a thousand readers
share one copy. That is why a piece is never changed: pieces too small to be worth an object are
joined into a new one as they come. What a window holds is counted in a `FillMemory`, which all
windows share, and by which they learn that they should hold less.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class FillMemory:
    """The memory that all fills share, in bytes. It counts; it never refuses."""

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int = 64 << 20) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    @property
    def is_tight(self) -> bool:
        """Whether fills should hold as little as they can."""
        return self.used_bytes >= self.limit_bytes


class Window:
    """Consecutive bytes of a body, in memory: `[start, stop)` of it, in pieces."""

    __slots__ = ("_join_bytes", "_memory", "_pieces", "_starts", "start", "stop")

    def __init__(self, memory: FillMemory, join_bytes: int) -> None:
        self._memory = memory
        self._join_bytes = join_bytes
        self._pieces: list[bytes] = []
        self._starts: list[int] = []
        self.start = 0
        self.stop = 0

    @property
    def held(self) -> int:
        """How many bytes there are."""
        return self.stop - self.start

    def append(self, piece: bytes) -> None:
        """Add bytes at the end. Two neighbours too small to be worth it become one."""
        if self._pieces and len(self._pieces[-1]) + len(piece) <= self._join_bytes:
            self._pieces[-1] += piece  # a new object: readers may still hold the old one
        else:
            self._pieces.append(piece)
            self._starts.append(self.stop)
        self.stop += len(piece)
        self._memory.used_bytes += len(piece)

    def read(self, offset: int, most: int) -> bytes | memoryview:
        """Up to `most` bytes from `offset`, not copied, no more than one piece has."""
        at = -1 if offset >= self._starts[-1] else bisect_right(self._starts, offset) - 1
        return part_of(self._pieces[at], offset - self._starts[at], most)

    def oldest(self, most: int, *, leave_last: bool) -> bytes:
        """The first pieces, joined: one, and as many more as stay within `most` bytes.

        `leave_last` leaves the newest to those who read as it is written.
        """
        count = bisect_right(self._starts, self.start + most) - 1
        if count == len(self._starts) - 1 and self.held <= most and not leave_last:
            count += 1
        return b"".join(self._pieces[: max(1, count)])

    def stop_of(self, offset: int) -> int:
        """Where the piece that holds `offset` stops."""
        after = bisect_right(self._starts, offset)
        return self._starts[after] if after < len(self._starts) else self.stop

    def drop_to(self, offset: int) -> None:
        """Forget the pieces that lie wholly before `offset`."""
        count = (
            len(self._starts) if offset >= self.stop else bisect_right(self._starts, offset) - 1
        )
        if count <= 0:
            return
        start = self._starts[count] if count < len(self._starts) else self.stop
        del self._pieces[:count]
        del self._starts[:count]
        self._memory.used_bytes -= start - self.start
        self.start = start

    def joined(self) -> bytes:
        """All of it, as one object; not copied where it is one already."""
        return b"".join(self._pieces)


def pieces_of(data: bytes | memoryview, most: int) -> Iterator[bytes]:
    """`data` in parts of at most `most` bytes.

    A view is copied: it may be of a large buffer, which it would hold for as long as we hold it.
    """
    if len(data) <= most:
        if data:
            yield bytes(data)
        return
    for start in range(0, len(data), most):
        yield bytes(data[start : start + most])


def part_of(data: bytes, start: int, most: int) -> bytes | memoryview:
    """`data[start:start + most]`, not copied."""
    if start == 0 and len(data) <= most:
        return data
    return memoryview(data)[start : start + most]
