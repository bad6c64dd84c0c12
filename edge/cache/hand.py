"""Whom the disk tier evicts: CLOCK over its rows, in the order in which they were first stored.

The hand goes round and round. A row used since it last passed, or whose resource is in memory, is
passed over once; at most `CHANCES` in a row are, so a step is bounded however popular everything
is. A use is a key in a set, not a write to the row. The sets are bounded too: with more than
`USED_KEYS`, the older half is as if it had not been used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge.cache.packing import KEY_BYTES, PRIMARY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.packing import Victim

CHANCES: Final = 256
USED_KEYS: Final = 65_536  # 6 MiB


class Hand:
    """The hand, at row id `at`. `hot(primary)` says whether a resource is in memory."""

    def __init__(self, hot: Callable[[bytes], bool]) -> None:
        self.at = 0
        self._hot = hot
        self._spared = 0
        self._used: set[bytes] = set()
        self._used_before: set[bytes] = set()

    def note_use(self, key: bytes) -> None:
        """The row was read; may be called from another thread than the rest."""
        self._used.add(key)
        if len(self._used) > USED_KEYS // 2:
            self._used_before, self._used = self._used, set()

    @property
    def marks(self) -> int:
        """How many uses are remembered."""
        return len(self._used) + len(self._used_before)

    def choose(self, found: list[Victim], want: int) -> list[Victim]:
        """Which of the next rows to evict for `want` bytes; the hand goes on behind the last."""
        chosen, freed = [], 0
        for victim in found:
            self.at = victim.rowid
            if self._spared < CHANCES and self._is_used(victim.key):
                self._spared += 1
                continue
            self._spared = 0
            chosen.append(victim)
            freed += victim.charge
            if freed >= want:
                break
        return chosen

    def _is_used(self, key: bytes) -> bool:
        if len(key) != KEY_BYTES:
            return False
        for used in (self._used, self._used_before):
            if key in used:
                used.discard(key)
                return True
        return self._hot(key[:PRIMARY_BYTES])
