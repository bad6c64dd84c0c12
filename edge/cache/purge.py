"""Purge numbers: whether an entry has been overtaken by a purge.

Every purge takes the next number in one sequence; every entry carries the number current when its
request looked in the store. A purge kills what it covers and what is older than it. So purging is
a few dictionary writes, and a lookup is one comparison while nothing has been purged since.

What a purge covers is named by scopes (see `scope`), of which 8 bytes are kept. *Hard*: what is
covered is dead. *Soft*: its lifetime ended at that moment, and it may still be validated. There is
a table for each.

The tables are bounded. When one is full, its oldest purges are forgotten and a *floor* rises to
the last number forgotten: entries older than the floor are taken for covered. The hard table's
floor kills; the soft table's softens. "Everything" raises a floor too. So the tables may purge too
much and never too little, and a verdict only ever worsens as purges come, which is what lets a
memory tier remember the number that an entry last passed.

These tables are the operator's. What clients' requests and origins' answers bring is *confined* to
an *area*: the host that everything it can cover is stored for. Each area has tables and a floor of
its own (see `areas`), so that whoever may purge one host, however much, empties no other.

Four rules of those who use the numbers keep a fetch under way from undoing a purge:

1. Number the lookup, not the store: an entry has the number from before the store was read.
2. Take the number once: it serves the verdict, the conditional request and the stored entry. A
   newer one would let a 304 revive what was purged.
3. Never take from a flight that a purge has overtaken. Look when joining it, and again when the
   head has come, since only the head brings the tags.
4. A dead entry is no validator; one that is soft-purged is.

A number is remembered as *passed* only for a verdict of LIVE. One that is stale has to be asked
about with its old number, or nobody knew any more since when it is.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final

from edge.cache.areas import AREA_SCOPES, MOST_AREAS, Areas, AreaTables
from edge.cache.entry import Seq
from edge.cache.marks import Columns, Marks, marks_of, overtakes
from edge.cache.scope import DIGEST_BYTES, digest

if TYPE_CHECKING:
    from collections.abc import Sequence

# For each table, and for all areas together: two and a half transactions of the largest size.
# Measured: 121 bytes for a scope purged on its own, 151 if softly, 99 in a transaction of 100,000;
# 39 MiB for a full table that has forgotten more than it holds.
MOST_SCOPES: Final = 250_000


class Verdict(Enum):
    """What the purges make of an entry."""

    LIVE = "live"
    STALE = "stale"  # soft-purged: a validator, and not fresh
    DEAD = "dead"  # neither served nor validated


class Manner(Enum):
    """How a purge treats what it covers."""

    HARD = "hard"
    SOFT = "soft"


@dataclass(frozen=True, slots=True)
class Purge:
    """One transaction: everything, or the scopes with these `digests` (8 bytes each).

    `when` is in Unix seconds. `count` is how many scopes were named, `words` the first of them
    and `who` asked for it, for people. `area` is the digest of the host that the purge is confined
    to, which is among the scopes of all that it covers; b"" where it is not confined.
    """

    number: Seq
    when: float
    who: str
    manner: Manner
    everything: bool
    digests: bytes
    count: int
    words: tuple[str, ...]
    area: bytes = b""

    def __post_init__(self) -> None:
        if len(self.digests) % DIGEST_BYTES:
            raise ValueError(f"{len(self.digests)} bytes are no whole number of digests")
        if len(self.area) not in (0, DIGEST_BYTES):
            raise ValueError(f"{len(self.area)} bytes are no digest of an area")
        if self.everything and self.area:
            raise ValueError("everything is confined to no area")


@dataclass(frozen=True, slots=True)
class Cover:
    """A purge that covers an entry: `name` is the scope, None for everything and for a floor. With
    `is_floor` it is the name of an area, of which too much was purged to be remembered."""

    number: Seq
    manner: Manner
    name: bytes | None
    is_floor: bool = False


@dataclass(frozen=True, slots=True)
class Tables:
    """All that `Purges` know, as values. Columns are of 8 bytes an item, in the machine's order;
    those of one table are equally long and rise with the numbers."""

    latest: int
    floor: int
    soft_all: int
    soft_all_before: int
    soft_forgotten: int
    untimed: int
    hard: Columns  # digests, numbers
    soft: Columns
    soft_before: Columns
    soft_times: Columns  # numbers, Unix seconds
    areas: tuple[AreaTables, ...]
    area_floors: Columns


class Purges:
    """The purges known so far. Numbers must be recorded in rising order."""

    __slots__ = (
        "_areas",
        "_marks",
        "_most",
        "_soft_all",
        "_soft_all_before",
        "_soft_forgotten",
        "_soft_numbers",
        "_soft_times",
        "_untimed",
        "floor",
        "latest",
    )

    def __init__(
        self,
        most_scopes: int = MOST_SCOPES,
        area_scopes: int = AREA_SCOPES,
        most_areas: int = MOST_AREAS,
    ) -> None:
        self._most = most_scopes
        self._areas = Areas(most_scopes, area_scopes, most_areas)
        self.latest = Seq(0)
        self._clear(Seq(0))

    def _clear(self, floor: Seq) -> None:
        """Know of nothing but a floor: what is not above it says nothing more."""
        self.floor = floor
        self._marks = Marks()  # of what is not confined
        self._areas.clear()
        self._soft_all = self._soft_all_before = 0  # the last two soft purges of everything
        self._soft_forgotten = 0
        self._soft_numbers, self._soft_times = array("Q"), array("d")  # of each soft purge
        self._untimed = 0  # the last soft purge whose time has been forgotten

    def __len__(self) -> int:
        """How many scopes are held."""
        return len(self._marks) + len(self._areas)

    # Recording.

    def record(self, purge: Purge) -> None:
        """Take note of `purge`; raises ValueError if its number is not above all before."""
        if purge.number <= self.latest:
            raise ValueError(f"purge {purge.number} after purge {self.latest}")
        if purge.manner is Manner.SOFT:
            self._note_time(purge)
        if purge.everything:
            self._record_everything(purge)
        elif purge.area:
            self._record_confined(purge)
        else:
            self._record_scopes(purge)
        self.latest = purge.number

    def _record_everything(self, purge: Purge) -> None:
        if purge.manner is Manner.SOFT:
            self._soft_all, self._soft_all_before = purge.number, self._soft_all
        else:
            self._clear(purge.number)

    def _record_confined(self, purge: Purge) -> None:
        area = int.from_bytes(purge.area, sys.byteorder)
        soft = purge.manner is Manner.SOFT
        self._lift(self._areas.record(area, _keys(purge), purge.number, soft=soft))

    def _record_scopes(self, purge: Purge) -> None:
        marks = self._marks
        if purge.manner is Manner.SOFT:
            marks.put_soft(_keys(purge), purge.number)
            self._soft_forgotten = max(self._soft_forgotten, marks.shed_soft(self._most))
        else:
            marks.put_hard(_keys(purge), purge.number)
            self._lift(marks.shed_hard(self._most))

    def _lift(self, number: int) -> None:
        self.floor = Seq(max(self.floor, number))

    def _note_time(self, purge: Purge) -> None:
        numbers, times = self._soft_numbers, self._soft_times
        numbers.append(purge.number)
        times.append(purge.when)
        at = len(times) - 1
        while (
            at and times[at - 1] > purge.when
        ):  # the clock was set back: no purge is in the future
            at -= 1
            times[at] = purge.when
        if len(numbers) > self._most:
            excess = len(numbers) - self._most // 2
            self._untimed = numbers[excess - 1]
            del numbers[:excess], times[:excess]

    def raise_floor(self, number: Seq) -> None:
        """Take what was looked up before `number` for dead: not all purges up to it are known."""
        self.latest = max(self.latest, number)
        if number >= self.latest:
            self._clear(number)
        else:
            self._lift(number)

    # Judging.

    def verdict(self, fetched_at: Seq, scopes: bytes) -> Verdict:
        """What has become of an entry that was looked up under `fetched_at` and has `scopes`."""
        if fetched_at == self.latest:
            return Verdict.LIVE
        if not self.floor <= fetched_at < self.latest:  # above: the journal is older than that
            return Verdict.DEAD
        keys = memoryview(scopes).cast("Q")
        around = self._areas.around(keys)
        if overtakes(self._marks.hard, fetched_at, keys) or self._areas.kill(fetched_at, keys):
            return Verdict.DEAD
        if any(overtakes(marks.hard, fetched_at, keys) for marks in around):
            return Verdict.DEAD
        softened = fetched_at < self._soft_all or fetched_at < self._soft_forgotten
        softened = softened or overtakes(self._marks.soft, fetched_at, keys)
        softened = softened or any(overtakes(marks.soft, fetched_at, keys) for marks in around)
        return Verdict.STALE if softened else Verdict.LIVE

    def stale_since(self, fetched_at: Seq, scopes: bytes) -> float:
        """When an entry that is STALE became so, in Unix seconds; infinity where it is not.

        That is the time of the *first* soft purge that covers it: a later one does not give back
        what the first took. The tables hold the last two of each scope. Where the first may be
        another, the answer is the time of the first soft purge of whatever scope: it may be too
        early, and then the stale answer is used for less long than allowed, never for longer.
        What is not known at all was at 0.
        """
        marks = self._soft_marks(fetched_at, scopes)
        if fetched_at < self._soft_forgotten or any(before > fetched_at for _, before in marks):
            return self._first_soft_after(fetched_at)
        return min((self._first_soft_after(number - 1) for number, _ in marks), default=inf)

    def _soft_marks(self, fetched_at: Seq, scopes: bytes) -> list[tuple[int, int]]:
        """The soft purges that cover an entry: for each scope the last and the last but one."""
        keys = memoryview(scopes).cast("Q")
        marks = self._marks.softened(fetched_at, keys)
        for area in self._areas.around(keys):
            marks += area.softened(fetched_at, keys)
        if self._soft_all > fetched_at:
            marks.append((self._soft_all, self._soft_all_before))
        return marks

    def _first_soft_after(self, number: int) -> float:
        """The time of the first soft purge above `number`; there must be one."""
        if number < self._untimed:
            return 0.0
        return self._soft_times[bisect_right(self._soft_numbers, number)]

    def covering(self, fetched_at: Seq, names: Sequence[bytes]) -> list[Cover]:
        """Every purge known to cover an entry that has the scopes `names`, oldest first.

        Of several purges of one scope it is the last.
        """
        covers = [
            Cover(Seq(number), manner, None)
            for number, manner in (
                (self.floor, Manner.HARD),
                (max(self._soft_all, self._soft_forgotten), Manner.SOFT),
            )
        ]
        keys = memoryview(b"".join(map(digest, names))).cast("Q")
        held = (self._marks, *self._areas.around(keys))
        for key, name in zip(keys, names, strict=True):
            covers.append(Cover(Seq(self._areas.floor(key)), Manner.HARD, name, is_floor=True))
            for marks in held:
                covers.append(Cover(Seq(marks.hard.get(key, 0)), Manner.HARD, name))
                covers.append(Cover(Seq(marks.soft.get(key, 0)), Manner.SOFT, name))
        return sorted((c for c in covers if c.number > fetched_at), key=lambda c: c.number)

    # All of it at once.

    def snapshot(self) -> Tables:
        """All that is known."""
        hard, soft, before = self._marks.columns()
        return Tables(
            latest=self.latest,
            floor=self.floor,
            soft_all=self._soft_all,
            soft_all_before=self._soft_all_before,
            soft_forgotten=self._soft_forgotten,
            untimed=self._untimed,
            hard=hard,
            soft=soft,
            soft_before=before,
            soft_times=(self._soft_numbers.tobytes(), self._soft_times.tobytes()),
            areas=self._areas.snapshot(),
            area_floors=self._areas.floors(),
        )

    def adopt(self, tables: Tables) -> None:
        """Know what `tables` know; they must hold all purges up to the latest known here.

        Floors stay where they are higher here: no verdict gets better. Tables that do not reach
        that far are made up for by the floor.
        """
        known = self.latest
        self.latest, self.floor = Seq(tables.latest), Seq(max(self.floor, tables.floor))
        self._marks = marks_of(tables.hard, tables.soft, tables.soft_before)
        self._soft_all, self._soft_all_before = tables.soft_all, tables.soft_all_before
        self._soft_forgotten = max(tables.soft_forgotten, self._marks.shed_soft(self._most))
        self._lift(self._marks.shed_hard(self._most))
        self._lift(self._areas.adopt(tables.areas, tables.area_floors))
        self._soft_numbers = array("Q", tables.soft_times[0])
        self._soft_times = array("d", tables.soft_times[1])
        self._untimed = tables.untimed
        if tables.latest < known:
            self.raise_floor(known)


def _keys(purge: Purge) -> list[int]:
    return memoryview(purge.digests).cast("Q").tolist()
