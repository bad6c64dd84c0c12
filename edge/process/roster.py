"""Who of a node's processes lives, and in which place; its parent goes by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.process.child import KEEPER
from edge.process.leash import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edge.process.child import Child


class Roster:
    """The processes of a node of so many workers, with `generations` places to count for each."""

    def __init__(self, workers: int, generations: int) -> None:
        self._workers = workers
        self._tallies = range(workers * generations)
        self._children: dict[int, Child] = {}  # by pid

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children.values())

    def __len__(self) -> int:
        return len(self._children)

    def add(self, child: Child) -> None:
        """One more."""
        self._children[child.pid] = child

    def workers(self) -> list[Child]:
        """All but the keeper, those that are leaving too."""
        return [child for child in self if child.slot != KEEPER]

    def staying(self) -> list[Child]:
        """All that have not been told to leave."""
        return [child for child in self if not child.is_leaving]

    def of(self, slot: int) -> Child | None:
        """Who has a place now."""
        return next((child for child in self.staying() if child.slot == slot), None)

    def is_whole(self) -> bool:
        """Whether every place has its process, and that is at work."""
        places = map(self.of, (KEEPER, *range(self._workers)))
        return all(child is not None and child.is_ready for child in places)

    def crew(self, died: Sequence[int]) -> tuple[Worker, ...]:
        """Who has the workers' places, for the keeper; so many have `died` in each before."""
        here = (self.of(slot) for slot in range(self._workers))
        return tuple(
            Worker(child.slot, child.pid, child.since, died[child.slot])
            for child in here
            if child is not None
        )

    def late(self, clock: float) -> list[Child]:
        """Those whose time is over, by the monotonic clock."""
        return [child for child in self if child.kill_at is not None and child.kill_at <= clock]

    def free_tally(self) -> int | None:
        """A place to count where nobody does."""
        used = {child.tally for child in self.workers()}
        return next((number for number in self._tallies if number not in used), None)

    def ended(self) -> list[tuple[Child, int]]:
        """Those that have ended, and how (see `os.waitpid`); they are struck off."""
        ends = [(child, child.ended()) for child in self]
        found = [(child, status) for child, status in ends if status is not None]
        for child, _ in found:
            del self._children[child.pid]
            child.leash.close()
        return found
