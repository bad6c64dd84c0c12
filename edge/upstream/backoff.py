"""How often an origin that cannot be reached is tried. Pure: the clock is an argument.

One failure says little (a restart, one lost packet), so the first `TOLERATED` in a row change
nothing. After them the origin is in trouble, and one attempt at a time is made, at most every
`INTERVAL_S`; whoever comes meanwhile shares its outcome, and waits for that no longer than
`PATIENCE_S` before being told the last failure. The first success ends it for all.

Waiting a moment was chosen over failing at once, which would go on refusing clients after the
origin is back; and a constant interval over a growing one, because four attempts a second burden
nobody, while a long interval is a long blindness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edge.errors import ExchangeError

TOLERATED: Final = 2
INTERVAL_S: Final = 0.25
PATIENCE_S: Final = 0.5


class Backoff:
    """Failures in a row to connect to one origin, and when the next attempt is due."""

    __slots__ = ("due", "failures", "last")

    def __init__(self) -> None:
        self.failures = 0
        self.due = 0.0  # by the clock given to `failed`
        self.last: ExchangeError | None = None

    @property
    def troubled(self) -> bool:
        """Whether attempts are to be made one at a time."""
        return self.failures > TOLERATED

    def failed(self, error: ExchangeError, clock: float) -> None:
        """An attempt that ended at `clock` (seconds, any monotonic origin) failed with `error`."""
        self.failures += 1
        self.due = clock + INTERVAL_S
        self.last = error

    def succeeded(self) -> None:
        """An attempt was answered."""
        self.failures = 0
        self.last = None
