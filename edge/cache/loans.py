"""Bodies that another worker lends: the open file, and what is known to be right in it.

Who is lent a file sends from it by the same rules as who owns it (see `descriptors`): as long as
it is what it was when its blocks were verified, and they are in the page cache. Where that is
over, because the owner has removed the file or put another in its place, or the kernel has dropped
pages, what is left is read and verified here, by the checks that came with the file. So an answer
that has begun goes on with the bytes that it began with, whatever becomes of the owner and its
store.

A loan is for one answer. So many are open at a time, and no more are asked for then.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from edge.cache.descriptors import OpenBody, Stamp, most_kept
from edge.cache.diskbody import Blocks, DiskBody
from edge.cache.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.wire.frames import Lent

T = TypeVar("T")

POOL_BLOCKS: Final = 16  # 4 MiB: only what is not sent from its file is read
READERS: Final = 2


@dataclass(frozen=True, slots=True)
class _InFile:
    """A lent body, as its owner tells it."""

    filename: str
    length: int
    checks: bytes
    key: bytes = b""  # of its row, which the owner alone has


class Loans:
    """What this worker is lent, at most `most` files at a time; `taken` is how often it was."""

    def __init__(self, most: int | None = None) -> None:
        self.taken = 0
        self._most = most_kept() if most is None else most
        self._open = 0
        self._blocks = Blocks(POOL_BLOCKS)
        self._pages = Pages()
        self._readers: _Threads | None = None

    def __len__(self) -> int:
        return self._open

    @property
    def has_room(self) -> bool:
        """Whether one more may be taken."""
        return self._open < self._most

    def take(
        self, lent: Lent, descriptor: int | None, lost: Callable[[str], None]
    ) -> DiskBody | None:
        """A reader of what is lent, whose `descriptor` is its own from now on; None where none
        came, or there is no room for it any more: others may have asked at the same time.

        `lost` is told, in words, where a block is not what was stored.
        """
        if descriptor is None:
            return None
        if not self.has_room:
            os.close(descriptor)
            return None
        told = _InFile(lent.name, lent.length, lent.checks)
        stamp = Stamp(*lent.stamp, is_settled=True)
        opened = OpenBody(descriptor, told, stamp, self._pages, time.monotonic)
        opened.vouch(lent.verified_at)
        self._open += 1
        self.taken += 1
        if self._readers is None:
            self._readers = _Threads()
        return DiskBody(opened, told, self._blocks, self._readers, self._give_back, lost)

    def _give_back(self, opened: OpenBody) -> None:
        self._open -= 1
        os.close(opened.descriptor)
        opened.descriptor = -1


class _Threads:
    """Trio's own threads, a few at a time: what is lent is seldom read."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(READERS)

    async def run(self, job: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(job, limiter=self._limiter)
