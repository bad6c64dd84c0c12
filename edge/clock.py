"""The time of day for ages and deadlines of stored things, which a clock set anew does not move.

Ages are worked out from differences of this clock, so it must not jump: it starts from the
system's time of day and goes on by the monotonic clock. An operator or NTP that steps the system's
clock by an hour neither expires everything nor makes anything younger (RFC 9111 §4.2.3 counts
`resident_time`, which no correction of a clock changes). What is told to others as the time, in
Date and in logs, may then be off by the step until the node is started again; slewing, as NTP does
in its normal run, is followed, because the monotonic clock is slewed too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Unix seconds that never jump."""

    __slots__ = ("_monotonic", "_offset")

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        """Unix seconds."""
        return self._offset + self._monotonic()
