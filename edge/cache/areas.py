"""Confined purges: what one host's clients and origins have asked for, in tables of its own.

Whoever may purge one host can name as many of its scopes as there is time for, so what is too much
to be remembered must cost that host and no other. An *area* is the digest of a host's name, which
is among the scopes of all that is stored for the host. Each area has its marks and its share of
the room, and a *floor*: what is forgotten of an area makes all older entries of that area dead,
the softly purged too. So an area's tables may purge too much, never too little, and only there.

An entry's areas are found among its scopes in one step, and only their tables are looked at. So a
host that is purged often makes no lookup of another slower.

When there is no room, the area that holds most is forgotten, so that none has to go for one that
holds more; where there are too many areas, those that were purged longest ago are,
so that what they lose is what was stored before that. A floor takes the room of one scope; when
there are too many of these, the oldest are forgotten, and only then everything older is dead.
Whoever can purge under a quarter of a million names of hosts comes that far.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from edge.cache.marks import (
    SHED_FRACTION,
    Columns,
    Marks,
    Table,
    columns,
    drop,
    excess,
    marks_of,
    overtakes,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Measured: 72 bytes for a scope in purges of 128, 100 on its own, 540 where it is its host's only
# one; 110 for a floor. While 10,000 areas take all the room, to record a purge takes 2 ms.
AREA_SCOPES: Final = 8192  # for each area, in each manner
MOST_AREAS: Final = 10_000  # that hold scopes: three dicts for each


@dataclass(frozen=True, slots=True)
class AreaTables:
    """What is held of one area."""

    area: int
    hard: Columns
    soft: Columns
    before: Columns


class Areas:
    """The confined purges known so far: `most` scopes of at most `most_areas` areas, `share` of
    one area in each manner, and `most` floors."""

    __slots__ = ("_count", "_floors", "_held", "_most", "_most_areas", "_share")

    def __init__(self, most: int, share: int, most_areas: int) -> None:
        self._most = most
        self._share = share
        self._most_areas = most_areas
        self._held: dict[int, Marks] = {}  # the area purged last is the last
        self._floors: Table = {}
        self._count = 0

    def __len__(self) -> int:
        """How many scopes are held."""
        return self._count

    def clear(self) -> None:
        """Know of nothing."""
        self._held, self._floors, self._count = {}, {}, 0

    # Recording.

    def record(self, area: int, keys: list[int], number: int, *, soft: bool) -> int:
        """Take note of a purge of `area`. Returns a number: what is older, wherever it is, is to
        be taken for dead; mostly 0."""
        marks = self._held.pop(area, None) or Marks()
        self._count -= len(marks)
        if soft:
            marks.put_soft(keys, number)
        else:
            marks.put_hard(keys, number)
        self._keep(area, marks)
        return self._trim()

    def _keep(self, area: int, marks: Marks) -> None:
        """Hold an area's marks, no more than its share."""
        self._raise(area, max(marks.shed_hard(self._share), marks.shed_soft(self._share)))
        if len(marks):
            self._held[area] = marks
            self._count += len(marks)

    def _raise(self, area: int, number: int) -> None:
        """Raise an area's floor, whatever it was."""
        if number:
            number = max(number, self._floors.pop(area, 0))
            self._floors[area] = number

    def _trim(self) -> int:
        """Forget what there is no room for; what is older than the number is dead everywhere."""
        while self._count > self._most:
            self._forget(max(self._held, key=lambda area: len(self._held[area])))
        over = len(self._held) - self._most_areas
        if over > 0:
            for area in list(islice(self._held, over + self._most_areas // SHED_FRACTION)):
                self._forget(area)
        doomed, number = excess(self._floors, self._most)
        drop(self._floors, doomed)
        return number

    def _forget(self, area: int) -> None:
        marks = self._held.pop(area)
        self._count -= len(marks)
        self._raise(area, marks.newest)

    # Judging.

    def around(self, keys: memoryview) -> Sequence[Marks]:
        """The marks of the areas that an entry with the scopes `keys` is in."""
        if not self._held or self._held.keys().isdisjoint(keys):
            return ()
        return [self._held[key] for key in keys if key in self._held]

    def kill(self, fetched_at: int, keys: memoryview) -> bool:
        """Whether an area's floor makes an entry dead; its marks are to be asked besides."""
        return overtakes(self._floors, fetched_at, keys)

    def floor(self, area: int) -> int:
        """What of `area` is older than this number is dead."""
        return self._floors.get(area, 0)

    # All of it at once.

    def snapshot(self) -> tuple[AreaTables, ...]:
        """What is held, the area purged last at the end."""
        return tuple(AreaTables(area, *marks.columns()) for area, marks in self._held.items())

    def floors(self) -> Columns:
        """The areas' floors, the one raised last at the end."""
        return columns(self._floors)

    def adopt(self, held: Iterable[AreaTables], floors: Columns) -> int:
        """Hold these, and the floors known before where they are higher; returns what `record`
        does."""
        known, self._floors = self._floors, table(floors)
        self._held, self._count = {}, 0
        for each in held:
            self._keep(each.area, marks_of(each.hard, each.soft, each.before))
        for area, number in known.items():
            if number > self.floor(area):
                self._raise(area, number)
        return self._trim()
