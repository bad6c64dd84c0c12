"""Purge numbers: whether an entry has been overtaken by a purge.

Every purge takes the next number in one sequence; every entry carries the number current when its
request looked in the store. A purge kills what it covers and what is older than it. So purging is
one dictionary write, and a lookup is one comparison while nothing has been purged since.

The tables are bounded. When there are too many scopes the oldest purge is forgotten and the
*floor* rises to its number: entries older than the floor are dead. That may kill too much and
never too little. A verdict therefore only ever worsens as purges come, which is what lets a
memory tier remember the number that an entry last passed.

Four rules of those who use the numbers keep a fetch under way from undoing a purge:

1. Number the lookup, not the store: an entry has the number from before the store was read.
2. Take the number once: it serves the verdict, the conditional request and the stored entry. A
   newer one would let a 304 revive what was purged.
3. Never take from a flight that a purge has overtaken. Look when joining it, and again when the
   head has come, since only the head brings the tags.
4. A dead entry is no validator; one that is soft-purged is.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from edge.cache.entry import Seq

MOST_SCOPES: Final = 100_000  # about 20 MiB of names and numbers


class Verdict(Enum):
    """What the purges make of an entry."""

    LIVE = "live"
    STALE = "stale"  # soft-purged: a validator, and not fresh
    DEAD = "dead"  # neither served nor validated


class Purges:
    """The purges known so far. Numbers must be recorded in rising order."""

    __slots__ = ("_hard", "_most", "_soft", "floor", "latest")

    def __init__(self, most_scopes: int = MOST_SCOPES) -> None:
        self.latest = Seq(0)
        self.floor = Seq(0)
        self._most = most_scopes
        # Insertion order is the order of the numbers: a scope purged again moves to the end.
        self._hard: dict[bytes, Seq] = {}
        self._soft: dict[bytes, Seq] = {}

    def record(self, number: Seq, scope: bytes, *, soft: bool = False) -> None:
        """Take note that `scope` was purged under `number`; raises ValueError if out of order."""
        if number <= self.latest:
            raise ValueError(f"purge {number} after purge {self.latest}")
        table = self._soft if soft else self._hard
        table.pop(scope, None)
        table[scope] = number
        self.latest = number
        if len(table) > self._most:
            oldest = next(iter(table))
            self.floor = max(self.floor, table.pop(oldest))

    def verdict(self, fetched_at: Seq, scopes: tuple[bytes, ...]) -> Verdict:
        """What has become of an entry that was looked up under `fetched_at` and has `scopes`."""
        if fetched_at >= self.latest:
            return Verdict.LIVE
        if fetched_at < self.floor or _is_overtaken(self._hard, fetched_at, scopes):
            return Verdict.DEAD
        return Verdict.STALE if _is_overtaken(self._soft, fetched_at, scopes) else Verdict.LIVE


def _is_overtaken(table: dict[bytes, Seq], fetched_at: Seq, scopes: tuple[bytes, ...]) -> bool:
    return any(table.get(scope, 0) > fetched_at for scope in scopes)
