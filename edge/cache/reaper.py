"""Removing from the disk what has been purged, by and by.

A purge is a comparison: what it covers is dead at once, wherever it lies. What is dead and in
memory goes when it is met, and so does what is looked for on the disk; the rest only takes room.
The reaper goes over the rows and removes it, so that the room is given back (in minutes for a
hundred thousand rows, in an hour or so for a million), and so that what had to be removed is
removed indeed. Nothing served depends on it, and new answers do not wait for it: they evict.

One *pass* goes over all rows once, judging each by the purges known by then, and ends the debt of
every purge that came before it began. A purge that comes in the middle means another pass; no new
purge means none. Rows that are stored while a pass goes on are left out of it: they were fetched
after the purge, but for a few whose fetch it overtook, which die when they are met.

The effort is bounded: a step is `STEP_ROWS` rows, and behind each comes a pause of `PAUSES` times
what it took, so that a pass takes less than a twentieth of one core, and less still where the
machine is busy. Heads are decoded in a reading thread, 1 ms a step; the loop compares numbers,
under 0.1 ms. Measured on two slow cores with more work than they could do: 300 rows a second
where half of them are dead, 900 where none is, for 2 to 3 % of a core.

It looks every `POLL_S` whether there is a newer purge. Where the database cannot be read or
written, which the disk tier tells, it tries the same step again later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from edge.cache.entry import Seq
from edge.cache.purge import Verdict
from edge.cache.scan import Unreadable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edge.cache.packing import Scanned
    from edge.cache.purge import Purges
    from edge.cache.tier import RowScan, Tier

T = TypeVar("T")

POLL_S: Final = 1.0
RETRY_S: Final = 10.0
STEP_ROWS: Final = 64
PAUSES: Final = 24  # to each part of work; what the loop does around a step comes on top
LEAST_PAUSE_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class ReaperStatistics:
    """How far the reaper has got.

    What the purges up to `swept_to` killed is gone from the disk. `looked_at` are the rows of the
    pass under way, or of the last; of the `left` rows that it has to look at, as many are dead at
    most, and about `dead_left` by what it has seen so far. `removed` and its bytes (as the quota
    counts them) are since the start.
    """

    swept_to: Seq
    is_sweeping: bool
    looked_at: int
    left: int
    dead_left: int
    removed: int
    removed_bytes: int


class Reaper:
    """Goes over the rows of `disk`, which must be open, after each of the `purges`."""

    def __init__(self, disk: Tier, purges: Callable[[], Purges]) -> None:
        self._disk = disk
        self._purges = purges
        self._swept_to = Seq(0)
        self._sweeping_to = Seq(0)
        self._is_sweeping = False
        self._rows = 0  # there were when the pass began
        self._looked_at = 0
        self._dead = 0
        self._removed = 0
        self._removed_bytes = 0

    async def run(self) -> None:
        """Sweep for as long as it is not cancelled."""
        while True:
            if self._purges().latest > self._swept_to:
                await self._pass()
            await trio.sleep(POLL_S)

    def statistics(self) -> ReaperStatistics:
        """How far it has got by now."""
        left = self._left()
        seen = self._looked_at
        return ReaperStatistics(
            swept_to=self._swept_to,
            is_sweeping=self._is_sweeping,
            looked_at=seen,
            left=left,
            dead_left=left * self._dead // seen if self._is_sweeping and seen else left,
            removed=self._removed,
            removed_bytes=self._removed_bytes,
        )

    def _left(self) -> int:
        latest = self._purges().latest
        if latest <= self._swept_to:
            return 0
        if self._is_sweeping and latest == self._sweeping_to:
            return max(0, self._rows - self._looked_at)
        return self._disk.statistics().rows  # all of them, once more

    async def _pass(self) -> None:
        """Go over all rows once."""
        number = self._sweeping_to = self._purges().latest
        scan = self._disk.scan(STEP_ROWS)
        self._rows = self._disk.statistics().rows
        self._looked_at = self._dead = 0
        self._is_sweeping = True
        try:
            while await self._step(scan):
                pass
        finally:
            self._is_sweeping = False
        self._swept_to = number

    async def _step(self, scan: RowScan) -> bool:
        """Look at some more rows, then pause; False at the end."""
        begun = trio.current_time()
        rows = await _insist(scan.next)
        if rows is None:
            return False
        self._looked_at = scan.looked_at
        await self._remove(self._dead_of(rows))
        await trio.sleep(max(LEAST_PAUSE_S, PAUSES * (trio.current_time() - begun)))
        return True

    def _dead_of(self, rows: list[Scanned]) -> list[Scanned]:
        judge = self._purges().verdict
        return [
            row for row in rows if judge(row.entry.fetched_at, row.entry.scopes) is Verdict.DEAD
        ]

    async def _remove(self, dead: list[Scanned]) -> None:
        if not dead:
            return
        self._dead += len(dead)
        removed, size = await _insist(lambda: self._disk.remove_dead(dead))
        self._removed += removed
        self._removed_bytes += size


async def _insist(step: Callable[[], Awaitable[T]]) -> T:
    """What `step` returns, tried until the database lets it."""
    while True:
        try:
            return await step()
        except Unreadable:
            await trio.sleep(RETRY_S)
