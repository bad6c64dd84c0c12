"""Scopes that have been purged, with the number of the last purge of each: dictionaries, in order.

Insertion order is the order of the numbers: a scope purged again moves to the end. So the oldest
are at the front, and to forget them is to cut the front off. Scopes are their digests, as numbers.
"""

from __future__ import annotations

from array import array
from collections import deque
from itertools import islice, repeat
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Table: TypeAlias = dict[int, int]  # a scope's digest -> a number
Columns: TypeAlias = tuple[bytes, bytes]  # 8 bytes an item, in the machine's order

# A full table forgets a little more than it must: finding the oldest key of a dict costs as much
# as has been removed in front of it, so one at a time would be quadratic.
SHED_FRACTION: Final = 32


class Marks:
    """The scopes purged hard and those purged softly. `before` has, of those purged softly more
    than once, the last purge but one."""

    __slots__ = ("before", "hard", "soft")

    def __init__(self) -> None:
        self.hard: Table = {}
        self.soft: Table = {}
        self.before: Table = {}

    def __len__(self) -> int:
        """How many scopes are held; one that was purged in both manners counts twice."""
        return len(self.hard) + len(self.soft)

    @property
    def newest(self) -> int:
        """The last number, 0 where there is none."""
        return max(next(reversed(table.values()), 0) for table in (self.hard, self.soft))

    def put_hard(self, keys: list[int], number: int) -> None:
        """Note a hard purge; `number` is above all that are held."""
        put(self.hard, keys, number)

    def put_soft(self, keys: list[int], number: int) -> None:
        """Note a soft purge; `number` is above all that are held."""
        again = self.soft.keys() & keys
        self.before.update(zip(again, map(self.soft.__getitem__, again), strict=True))
        put(self.soft, keys, number)

    def shed_hard(self, most: int) -> int:
        """Forget the oldest hard purges where they are more than `most`; the last number
        forgotten, else 0."""
        doomed, number = excess(self.hard, most)
        drop(self.hard, doomed)
        return number

    def shed_soft(self, most: int) -> int:
        """The same for soft ones."""
        doomed, number = excess(self.soft, most)
        drop(self.soft, doomed)
        drop(self.before, doomed)
        return number

    def softened(self, fetched_at: int, keys: Iterable[int]) -> list[tuple[int, int]]:
        """The soft purges of `keys` after `fetched_at`: of each the last and the last but one."""
        return [
            (number, self.before.get(key, 0))
            for key in keys
            if (number := self.soft.get(key, 0)) > fetched_at
        ]

    def columns(self) -> tuple[Columns, Columns, Columns]:
        """`hard`, `soft` and `before`."""
        return columns(self.hard), columns(self.soft), columns(self.before)


def marks_of(hard: Columns, soft: Columns, before: Columns) -> Marks:
    """What these columns are of."""
    marks = Marks()
    marks.hard, marks.soft, marks.before = table(hard), table(soft), table(before)
    return marks


def overtakes(held: Table, fetched_at: int, keys: memoryview) -> bool:
    """Whether one of `keys` has been purged after `fetched_at`."""
    if not held or held.keys().isdisjoint(keys):  # at the speed of C, and mostly all there is
        return False
    return any(held.get(key, 0) > fetched_at for key in keys)


def put(held: Table, keys: list[int], number: int) -> None:
    """Give `keys` a number above all in the table, at its end; no loop of Python's: they may be
    a hundred thousand."""
    if not held.keys().isdisjoint(keys):
        drop(held, keys)
    held.update(dict.fromkeys(keys, number))


def drop(held: Table, keys: Iterable[int]) -> None:
    """Forget `keys`, as far as they are there."""
    deque(map(held.pop, keys, repeat(None)), maxlen=0)


def excess(held: Table, most: int) -> tuple[list[int], int]:
    """The keys to forget where there are more than `most`, oldest first; and the highest number
    that is forgotten with them, 0 where none is."""
    over = len(held) - most
    if over <= 0:
        return [], 0
    doomed = list(islice(held, over + most // SHED_FRACTION))
    return doomed, max(map(held.__getitem__, doomed))


def columns(held: Table) -> Columns:
    """A table's digests and its numbers, in order."""
    return array("Q", held.keys()).tobytes(), array("Q", held.values()).tobytes()


def table(both: Columns) -> Table:
    """The table that these columns are of; raises ValueError where they are of none."""
    keys, numbers = both
    return dict(zip(array("Q", keys), array("Q", numbers), strict=True))
