"""What went wrong in the store: counted always, told once in a while.

A failing disk fails on every request. The operator needs to know at once, and once; the counters
know the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET_S: Final = 10.0


@dataclass(slots=True)
class _Kind:
    count: int = 0
    silent: int = 0
    next_line: float = float("-inf")


class Troubles:
    """Counts by kind, and a line for the log at most every `QUIET_S` for each kind.

    Kinds are words from our own code, so there are few. `log` may be called in any thread.
    """

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}

    def tell(self, kind: str, detail: object) -> None:
        """Count one, and say so unless the last line of this kind is recent."""
        known = self._kinds.setdefault(kind, _Kind())
        known.count += 1
        if self._clock() < known.next_line:
            known.silent += 1
            return
        known.next_line = self._clock() + QUIET_S
        more = f" ({known.silent} more since the last such line)" if known.silent else ""
        known.silent = 0
        self._log(f"store: {kind}: {detail}{more}")

    def count(self, kind: str) -> int:
        """How many there were of `kind`."""
        known = self._kinds.get(kind)
        return known.count if known is not None else 0

    def total(self) -> int:
        """How many there were of all kinds."""
        return sum(known.count for known in list(self._kinds.values()))
