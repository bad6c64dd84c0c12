"""Whether a part of a file is in the page cache, asked of the kernel without reading it.

`cachestat(2)` (Linux 6.5) counts the pages of a range: 5 µs for 256 KiB. Python has no name for
it, so it is called by its number, which is the same on all current architectures. Where the
kernel does not have it, does not allow it, or where a file system keeps its pages elsewhere
(overlayfs), the answer is no, and whoever asks reads the bytes instead.

The answer is a moment's: a page may be dropped right behind it. One that another process is just
having read counts as being there. `mincore(2)` was turned down, which takes twice the time and a
mapping of each file; so was reading with RWF_NOWAIT, which copies all of it.
"""

from __future__ import annotations

import ctypes
from mmap import PAGESIZE
from typing import Final

_CACHESTAT: Final = 451


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("size", ctypes.c_uint64))


class _Counts(ctypes.Structure):
    _fields_ = (
        ("cached", ctypes.c_uint64),
        ("dirty", ctypes.c_uint64),
        ("written_back", ctypes.c_uint64),
        ("evicted", ctypes.c_uint64),
        ("recently_evicted", ctypes.c_uint64),
    )


class Pages:
    """Asks the kernel; for one thread."""

    def __init__(self) -> None:
        self._range = _Range()
        self._counts = _Counts()
        self._at = ctypes.addressof(self._range), ctypes.addressof(self._counts)
        self._call = ctypes.CDLL(None).syscall
        self._call.argtypes = [
            ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint,
        ]  # fmt: skip

    def are_cached(self, descriptor: int, offset: int, size: int) -> bool:
        """Whether all pages of `size` bytes are, from `offset`, where a page begins."""
        self._range.offset, self._range.size = offset, size
        if self._call(_CACHESTAT, descriptor, *self._at, 0):
            return False
        return int(self._counts.cached) * PAGESIZE >= size
