"""Purge numbers: whether an entry has been overtaken by a purge.

Every purge takes the next number in one sequence; every entry carries the number current when its
request looked in the store. A purge kills what it covers and what is older than it. So purging is
a few dictionary writes, and a lookup is one comparison while nothing has been purged since.

What a purge covers is named by scopes (see `scope`), of which 8 bytes are kept. There is a table
for each manner of purging. *Hard*: what is covered is dead. *Soft*: its lifetime ended at that
moment, and it may still be validated. *Groups*: dead, but asked for by clients' writes (RFC 9875)
and not by the operator.

The tables are bounded. When one is full, its oldest purges are forgotten and a *floor* rises to
the last number forgotten: entries older than the floor are taken for covered. The hard table's
floor kills; the soft table's softens; that of the groups kills what is in any group, so that no
client's writes can empty more than that. "Everything" raises a floor too. So the tables may purge
too much and never too little, and a verdict only ever worsens as purges come, which is what lets
a memory tier remember the number that an entry last passed.

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

from array import array
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from enum import Enum
from itertools import islice, repeat
from math import inf
from typing import TYPE_CHECKING, Final

from edge.cache.entry import Seq
from edge.cache.scope import DIGEST_BYTES, GROUPED, digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# For each table: two and a half transactions of the largest size. Measured: 121 bytes for a scope
# purged on its own, 151 if softly, 99 in a transaction of 100,000; 39 MiB for a full table that
# has forgotten more than it holds.
MOST_SCOPES: Final = 250_000
# A full table forgets a little more than it must: finding the oldest key of a dict costs as much
# as has been removed in front of it, so one at a time would be quadratic.
SHED_FRACTION: Final = 32


_GROUPED: Final = memoryview(digest(GROUPED)).cast("Q")[0]


class Verdict(Enum):
    """What the purges make of an entry."""

    LIVE = "live"
    STALE = "stale"  # soft-purged: a validator, and not fresh
    DEAD = "dead"  # neither served nor validated


class Manner(Enum):
    """How a purge treats what it covers."""

    HARD = "hard"
    SOFT = "soft"
    GROUPS = "groups"  # as hard, and by a client's write


@dataclass(frozen=True, slots=True)
class Purge:
    """One transaction: everything, or the scopes with these `digests` (8 bytes each).

    `when` is in Unix seconds. `count` is how many scopes were named, `words` the first of them
    and `who` asked for it, for people.
    """

    number: Seq
    when: float
    who: str
    manner: Manner
    everything: bool
    digests: bytes
    count: int
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.digests) % DIGEST_BYTES:
            raise ValueError(f"{len(self.digests)} bytes are no whole number of digests")
        if self.everything and self.manner is Manner.GROUPS:
            raise ValueError("groups are never everything")


@dataclass(frozen=True, slots=True)
class Cover:
    """A purge that covers an entry: `name` is the scope, None for everything and for a floor."""

    number: Seq
    manner: Manner
    name: bytes | None


@dataclass(frozen=True, slots=True)
class Tables:
    """All that `Purges` know, as values. Columns are of 8 bytes an item, in the machine's order;
    those of one table are equally long and rise with the numbers."""

    latest: int
    floor: int
    soft_all: int
    soft_all_before: int
    soft_forgotten: int
    groups_forgotten: int
    untimed: int
    hard: tuple[bytes, bytes]  # digests, numbers
    soft: tuple[bytes, bytes]
    groups: tuple[bytes, bytes]
    soft_before: tuple[bytes, bytes]
    soft_times: tuple[bytes, bytes]  # numbers, Unix seconds


class Purges:
    """The purges known so far. Numbers must be recorded in rising order."""

    __slots__ = (
        "_groups",
        "_groups_forgotten",
        "_hard",
        "_most",
        "_soft",
        "_soft_all",
        "_soft_all_before",
        "_soft_before",
        "_soft_forgotten",
        "_soft_numbers",
        "_soft_times",
        "_untimed",
        "floor",
        "latest",
    )

    def __init__(self, most_scopes: int = MOST_SCOPES) -> None:
        self._most = most_scopes
        self.latest = Seq(0)
        self._clear(Seq(0))

    def _clear(self, floor: Seq) -> None:
        """Know of nothing but a floor: what is not above it says nothing more."""
        self.floor = floor
        # Insertion order is the order of the numbers: a scope purged again moves to the end.
        self._hard: dict[int, int] = {}
        self._soft: dict[int, int] = {}
        self._groups: dict[int, int] = {}
        self._soft_all = self._soft_all_before = 0  # the last two soft purges of everything
        self._soft_forgotten = self._groups_forgotten = 0
        self._soft_before: dict[int, int] = {}  # of scopes in `_soft`, the last purge but one
        self._soft_numbers, self._soft_times = array("Q"), array("d")  # of each soft purge
        self._untimed = 0  # the last soft purge whose time has been forgotten

    def __len__(self) -> int:
        """How many scopes are held."""
        return len(self._hard) + len(self._soft) + len(self._groups)

    # Recording.

    def record(self, purge: Purge) -> None:
        """Take note of `purge`; raises ValueError if its number is not above all before."""
        if purge.number <= self.latest:
            raise ValueError(f"purge {purge.number} after purge {self.latest}")
        keys = memoryview(purge.digests).cast("Q").tolist()
        if purge.manner is Manner.SOFT:
            self._record_soft(purge, keys)
        elif purge.everything:
            self._clear(purge.number)
        elif purge.manner is Manner.GROUPS:
            _put(self._groups, keys, purge.number)
            self._groups_forgotten = max(self._groups_forgotten, self._shed(self._groups))
        else:
            _put(self._hard, keys, purge.number)
            self.floor = Seq(max(self.floor, self._shed(self._hard)))
        self.latest = purge.number

    def _record_soft(self, purge: Purge, keys: list[int]) -> None:
        self._note_time(purge)
        if purge.everything:
            self._soft_all, self._soft_all_before = purge.number, self._soft_all
            return
        again = self._soft.keys() & keys
        self._soft_before.update(zip(again, map(self._soft.__getitem__, again), strict=True))
        _put(self._soft, keys, purge.number)
        self._soft_forgotten = max(self._soft_forgotten, self._shed(self._soft))

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

    def _shed(self, table: dict[int, int]) -> int:
        """Forget the oldest of a table that is too large; the last number forgotten, else 0."""
        excess = len(table) - self._most
        if excess <= 0:
            return 0
        doomed = list(islice(table, excess + self._most // SHED_FRACTION))
        number = table[doomed[-1]]
        _drop(table, doomed)
        if table is self._soft:
            _drop(self._soft_before, doomed)
        return number

    def raise_floor(self, number: Seq) -> None:
        """Take what was looked up before `number` for dead: not all purges up to it are known."""
        self.latest = max(self.latest, number)
        if number >= self.latest:
            self._clear(number)
        else:
            self.floor = max(self.floor, number)

    # Judging.

    def verdict(self, fetched_at: Seq, scopes: bytes) -> Verdict:
        """What has become of an entry that was looked up under `fetched_at` and has `scopes`."""
        if fetched_at >= self.latest:
            return Verdict.LIVE
        if fetched_at < self.floor:
            return Verdict.DEAD
        keys = memoryview(scopes).cast("Q")
        if _overtakes(self._hard, fetched_at, keys) or _overtakes(self._groups, fetched_at, keys):
            return Verdict.DEAD
        if fetched_at < self._groups_forgotten and _GROUPED in keys:
            return Verdict.DEAD
        softened = fetched_at < self._soft_all or fetched_at < self._soft_forgotten
        softened = softened or _overtakes(self._soft, fetched_at, keys)
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
        held, before = self._soft, self._soft_before
        marks = [
            (number, before.get(key, 0))
            for key in memoryview(scopes).cast("Q")
            if (number := held.get(key, 0)) > fetched_at
        ]
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
        if GROUPED in names:
            covers.append(Cover(Seq(self._groups_forgotten), Manner.GROUPS, GROUPED))
        for manner, table in self._tables().items():
            for name in names:
                (key,) = memoryview(digest(name)).cast("Q")
                covers.append(Cover(Seq(table.get(key, 0)), manner, name))
        return sorted((c for c in covers if c.number > fetched_at), key=lambda c: c.number)

    def _tables(self) -> dict[Manner, dict[int, int]]:
        return {Manner.HARD: self._hard, Manner.SOFT: self._soft, Manner.GROUPS: self._groups}

    # All of it at once.

    def snapshot(self) -> Tables:
        """All that is known."""
        return Tables(
            latest=self.latest,
            floor=self.floor,
            soft_all=self._soft_all,
            soft_all_before=self._soft_all_before,
            soft_forgotten=self._soft_forgotten,
            groups_forgotten=self._groups_forgotten,
            untimed=self._untimed,
            hard=_columns(self._hard),
            soft=_columns(self._soft),
            groups=_columns(self._groups),
            soft_before=_columns(self._soft_before),
            soft_times=(self._soft_numbers.tobytes(), self._soft_times.tobytes()),
        )

    def adopt(self, tables: Tables) -> None:
        """Know what `tables` know; they must hold all purges up to the latest known here.

        Floors stay where they are higher here: no verdict gets better. Tables that do not reach
        that far are made up for by the floor.
        """
        known = self.latest
        self._clear(Seq(max(self.floor, tables.floor)))
        self.latest = Seq(tables.latest)
        self._hard, self._soft = _table(tables.hard), _table(tables.soft)
        self._groups, self._soft_before = _table(tables.groups), _table(tables.soft_before)
        self._soft_all, self._soft_all_before = tables.soft_all, tables.soft_all_before
        self._soft_forgotten = max(tables.soft_forgotten, self._shed(self._soft))
        self._groups_forgotten = max(tables.groups_forgotten, self._shed(self._groups))
        self.floor = Seq(max(self.floor, self._shed(self._hard)))
        self._soft_numbers = array("Q", tables.soft_times[0])
        self._soft_times = array("d", tables.soft_times[1])
        self._untimed = tables.untimed
        if tables.latest < known:
            self.raise_floor(known)


def _overtakes(table: dict[int, int], fetched_at: Seq, keys: memoryview) -> bool:
    """Whether one of `keys` has been purged after `fetched_at`."""
    if not table or table.keys().isdisjoint(keys):  # at the speed of C, and mostly all there is
        return False
    return any(table.get(key, 0) > fetched_at for key in keys)


def _put(table: dict[int, int], keys: list[int], number: int) -> None:
    """Give `keys` a number above all in the table, at its end; no loop of Python's: they may be
    a hundred thousand."""
    if not table.keys().isdisjoint(keys):
        _drop(table, keys)
    table.update(dict.fromkeys(keys, number))


def _drop(table: dict[int, int], keys: Iterable[int]) -> None:
    deque(map(table.pop, keys, repeat(None)), maxlen=0)


def _columns(table: dict[int, int]) -> tuple[bytes, bytes]:
    return array("Q", table.keys()).tobytes(), array("Q", table.values()).tobytes()


def _table(columns: tuple[bytes, bytes]) -> dict[int, int]:
    keys, numbers = columns
    return dict(zip(array("Q", keys), array("Q", numbers), strict=True))
