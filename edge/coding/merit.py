"""Which coded objects have earned to be compressed again, harder: those hit often enough lately.

Hits are counted by digest in two generations. After half a window the older one is dropped, so a
count is of between half a window and a whole; and so it is when the newer one holds `most`
digests. Whoever asks for ever more objects makes the table forget sooner, never grow.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 4096  # about 0.5 MiB in each generation


class Merit:
    """Coded hits of late, by the digest of the key; `after` of them within `within_s` earn it."""

    __slots__ = ("_after", "_half_s", "_most", "_new", "_old", "_turns_at")

    def __init__(self, after: int, within_s: float, most: int = MOST) -> None:
        self._after = after
        self._half_s = within_s / 2
        self._most = most
        self._new: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}
        self._turns_at = 0.0

    def hit(self, digest: bytes, clock: float) -> bool:
        """Count one hit; True for the one that earns it, and not again while it is counted.

        `clock` is a monotonic reading in seconds.
        """
        if clock >= self._turns_at or len(self._new) >= self._most:
            self._turn(clock)
        count = self._new.get(digest, 0) + 1
        self._new[digest] = count
        older = self._old.get(digest, 0)
        return count + older == self._after

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def _turn(self, clock: float) -> None:
        is_late = clock >= self._turns_at
        is_stale = clock >= self._turns_at + self._half_s
        self._old = {} if is_stale else self._new
        self._new = {}
        # Were it half a window from now when late, what the older one holds would live too long.
        since = self._turns_at if is_late and not is_stale else clock
        self._turns_at = since + self._half_s
