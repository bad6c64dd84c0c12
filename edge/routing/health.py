"""The health of one server, as a state machine: who may be asked, and how much.

    told down ──────────────► DOWN ── told up ─────────────┐
    told drained ───────────► DRAINED ── told otherwise ───┤
    UP ── failures in a row, ─► EJECTED ── its time is over ─► TRIAL ── a good head ─┤
          or far too slow          ▲                             │ a failure         │
                                   └───────── for longer ────────┘                   ▼
    UP ◄────────────────────── slow start is over ──────────────────────────────── WARMING

Two witnesses are heard. *Checks* and the operator tell (`Told`), and are believed whatever they
say of however many. What requests meet with is evidence, too, and quicker than any check; but it
may be the fault of what was asked, so the group bounds how many are *ejected* for it.

An ejected server is out for a time that doubles with each repeat, up to a bound. Then one
request at a time is let through, until one gets a good head. Requests that began before an
ejection say nothing about what came after it: each carries the *era* in which it began.

Who comes back starts slowly, at a tenth of its weight, growing evenly to all of it in
`slow_start_s`: caches are cold, pools are empty, and everyone was waiting for it.

Times here are readings of the group's own clock, which never steps back (see `balance`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final

LONGEST_S: Final = 300.0  # of an ejection, however often repeated; Envoy's max_ejection_time
FIRST_SHARE: Final = 0.1  # of the weight, when a slow start begins
SMOOTHING: Final = 1 / 8  # of a new sample in the moving average, as for RFC 6298's SRTT
SAMPLES: Final = 16  # before the average is believed
FLOOR_S: Final = 0.05  # no server this quick is ejected for being slow, however quick the others


class State(StrEnum):
    """What a server is, in the operator's words."""

    UP = "up"
    WARMING = "warming"
    TRIAL = "trial"
    DRAINED = "drained"
    EJECTED = "ejected"
    DOWN = "down"


class Outcome(Enum):
    """What a request's end says of the server that it went to."""

    GOOD = "good"
    BAD = "bad"
    NEITHER = "neither"
    """The client left, or the fault is ours: no evidence."""


def _says(sentence: str, unit: str = "") -> dict[str, Any]:
    return {"says": sentence, "unit": unit}


@dataclass(frozen=True, slots=True)
class EjectPolicy:
    """When a server is left out for what requests meet with there."""

    after: int = field(
        default=5, metadata=_says("failures in a row that eject a server; 0: never", "requests")
    )
    for_s: float = field(
        default=10.0,
        metadata=_says("first ejection's length; each repeat doubles it", "seconds"),
    )
    most: float = field(
        default=0.5,
        metadata=_says(
            "share of the servers that may be ejected at once; one may be wherever it is not 0"
        ),
    )
    slower: float = field(
        default=5.0,
        metadata=_says(
            "times the group's median time to the head that eject a server; 0: never", "times"
        ),
    )
    longest_s: float = field(
        default=LONGEST_S, metadata=_says("no repeat is longer, if the first is not", "seconds")
    )


@dataclass(frozen=True, slots=True)
class Told:
    """What checks and the operator say of a server; `up` is None where nothing checks it."""

    up: bool | None = None
    drained: bool = False
    weight: float | None = None  # in place of the settings'


NOTHING_TOLD: Final = Told()


class Member:
    """One server: what it was told, what was seen of it, and what it has in hand."""

    __slots__ = (
        "at_work",
        "configured",
        "current",
        "ejections",
        "era",
        "failures",
        "heard_at",
        "in_a_row",
        "latency_s",
        "name",
        "of_era",
        "out_until",
        "repeats",
        "returned",
        "samples",
        "told",
        "warm_since",
        "weight",
    )

    def __init__(self, name: str, weight: float) -> None:
        self.name = name
        self.configured = weight
        self.weight = weight
        self.told = NOTHING_TOLD
        self.at_work = 0
        self.current = 0.0  # of the smooth round robin
        self.era = 0
        self.of_era = 0  # at work, begun in this era
        self.in_a_row = 0  # failures since the last success
        self.failures = 0
        self.heard_at = 0.0  # when it last answered well
        self.ejections = 0
        self.repeats = 0  # ejections that follow one another
        self.out_until: float | None = None  # ejected, or on trial
        self.returned = 0.0
        self.warm_since: float | None = None
        self.latency_s = 0.0  # moving average of the time to the head
        self.samples = 0

    def inherit(self, before: Member) -> None:
        """Go on as the server of the same name that was `before`, less what that has in hand."""
        configured = self.configured
        for name in Member.__slots__:
            setattr(self, name, getattr(before, name))
        self.at_work = self.of_era = 0
        self.era += 1
        self.configured = configured
        self.weight = configured if self.told.weight is None else self.told.weight

    # --- what it is

    def state(self, clock: float, slow_start_s: float) -> State:
        """What it is at `clock`."""
        if self.told.up is False:
            return State.DOWN
        if self.out_until is not None:
            return State.EJECTED if clock < self.out_until else State.TRIAL
        if self.told.drained:
            return State.DRAINED
        return State.WARMING if self.share(clock, slow_start_s) < 1.0 else State.UP

    def is_live(self, clock: float) -> bool:
        """Whether it may be asked while others may be, too."""
        if self.told.up is False or self.told.drained or self.weight <= 0:
            return False
        return self.out_until is None or (clock >= self.out_until and not self.of_era)

    def rank(self, clock: float) -> int:
        """How bad it would be to ask it: 0 where it is live, then in the order of regret."""
        if self.is_live(clock):
            return 0
        if self.told.up is False:
            return 3
        return 1 if self.out_until is None else 2

    def share(self, clock: float, slow_start_s: float) -> float:
        """How much of its weight counts, from a tenth to all."""
        if self.out_until is not None:
            return FIRST_SHARE
        if self.warm_since is None:
            return 1.0
        warmed = (clock - self.warm_since) / slow_start_s if slow_start_s > 0 else 1.0
        if warmed >= 1.0:
            self.warm_since = None
            return 1.0
        return FIRST_SHARE + (1.0 - FIRST_SHARE) * warmed

    # --- what is told

    def tell(self, told: Told, clock: float) -> None:
        """Believe what checks and the operator say; telling it again changes nothing."""
        before, self.told = self.told, told
        self.weight = self.configured if told.weight is None else told.weight
        if told.up is False:
            if before.up is not False:
                self._turn_over()  # checks have it now: it takes no one's place among the ejected
        elif before.up is False or (before.drained and not told.drained):
            self._come_back(clock)

    # --- what is seen

    def begin(self) -> int:
        """A request begins; the era that it has to name at its end."""
        self.at_work += 1
        self.of_era += 1
        return self.era

    def leave(self, era: int) -> None:
        """A request of `era` has ended."""
        self.at_work -= 1
        if era == self.era:
            self.of_era -= 1

    def sample(self, latency_s: float) -> None:
        """Take note of a time to the head."""
        if self.samples:
            self.latency_s += (latency_s - self.latency_s) * SMOOTHING
        else:
            self.latency_s = latency_s
        self.samples += 1

    def is_measured(self) -> bool:
        """Whether its average may be compared with others'."""
        return self.samples >= SAMPLES and self.out_until is None

    def succeed(self, clock: float) -> None:
        """A request of this era went well: whatever was thought of it, it is back."""
        self.in_a_row = 0
        if self.out_until is not None:
            self._come_back(clock)

    def fail(self) -> None:
        """A request of this era went badly."""
        self.in_a_row += 1
        self.failures += 1

    def eject(self, clock: float, for_s: float, longest_s: float = LONGEST_S) -> None:
        """Leave it out for a time that doubles where the last one has not helped for long."""
        if self.out_until is None and clock - self.returned > longest_s:
            self.repeats = 0
        length_s = min(for_s * 2.0 ** min(self.repeats, 32), max(for_s, longest_s))
        self._turn_over()
        self.repeats += 1
        self.ejections += 1
        self.out_until = clock + length_s

    def _come_back(self, clock: float) -> None:
        self._turn_over()
        self.returned = self.warm_since = clock

    def _turn_over(self) -> None:
        """Begin anew: what was measured, and what is under way, is of another era."""
        self.era += 1
        self.of_era = 0
        self.in_a_row = 0
        self.samples = 0
        self.latency_s = 0.0
        self.current = 0.0
        self.out_until = None
        self.warm_since = None
