"""The numbers of one worker, or of several together, as they were read at one moment.

Most numbers add up over the workers; those that every worker has whole (`Fold.MOST`) do not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import add
from typing import TYPE_CHECKING, TypeAlias

from edge.observe.metrics import BUCKETS, CLASSES, ORIGIN_POINTS, POINTS, TIMES_S, Fold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.observe.metrics import Point


@dataclass(slots=True)
class Histogram:
    """How many values fell into each bucket, and their sum in whole microseconds."""

    counts: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    sum_us: int = 0

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def plus(self, other: Histogram) -> Histogram:
        """Both together."""
        return Histogram(_added(self.counts, other.counts), self.sum_us + other.sum_us)

    def quantile(self, share: float) -> float | None:
        """The bound in seconds that this share of the values does not pass; None where it is
        above the last bound, or there are no values."""
        rest = share * self.count
        if not rest:
            return None
        for bound, count in zip(TIMES_S, self.counts, strict=False):
            rest -= count
            if rest <= 0:
                return bound
        return None


@dataclass(slots=True)
class Served:
    """What is known of hits together, or of the rest together."""

    duration: Histogram = field(default_factory=Histogram)
    first_byte: Histogram = field(default_factory=Histogram)
    sent_bytes: int = 0

    def plus(self, other: Served) -> Served:
        """Both together."""
        return Served(
            self.duration.plus(other.duration),
            self.first_byte.plus(other.first_byte),
            self.sent_bytes + other.sent_bytes,
        )


@dataclass(slots=True)
class OriginTold:
    """What is known of one origin; `points` are the values of `ORIGIN_POINTS`."""

    wait: Histogram = field(default_factory=Histogram)
    errors: int = 0
    points: list[int] = field(default_factory=lambda: [0] * len(ORIGIN_POINTS))

    def plus(self, other: OriginTold) -> OriginTold:
        """Both together."""
        points = _folded(ORIGIN_POINTS, self.points, other.points)
        return OriginTold(self.wait.plus(other.wait), self.errors + other.errors, points)


@dataclass(slots=True)
class ArmTold:
    """What is known of one arm of an experiment: requests by class of status (`CLASSES`), how many
    were looked up in the store and how many of those were answered from there, new visitors."""

    statuses: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    looked_up: int = 0
    hits: int = 0
    visitors: int = 0
    duration: Histogram = field(default_factory=Histogram)

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(self.statuses)

    def plus(self, other: ArmTold) -> ArmTold:
        """Both together."""
        return ArmTold(
            _added(self.statuses, other.statuses),
            self.looked_up + other.looked_up,
            self.hits + other.hits,
            self.visitors + other.visitors,
            self.duration.plus(other.duration),
        )


Words: TypeAlias = tuple[str, str, str, str]  # cache, reason, status, error; "" is none


@dataclass(slots=True)
class Reading:
    """The numbers of one worker, or of several together; `points` are the values of `POINTS`."""

    starts: int = 0
    started_s: int = 0
    points: list[int] = field(default_factory=lambda: [0] * len(POINTS))
    hits: Served = field(default_factory=Served)
    rest: Served = field(default_factory=Served)
    requests: dict[Words, int] = field(default_factory=dict)
    origins: dict[str, OriginTold] = field(default_factory=dict)
    arms: dict[tuple[str, str], ArmTold] = field(default_factory=dict)  # by experiment and arm

    @property
    def served(self) -> Served:
        """Hits and the rest together."""
        return self.hits.plus(self.rest)

    @property
    def wait(self) -> Histogram:
        """How long requests waited for any origin."""
        total = Histogram()
        for told in self.origins.values():
            total = total.plus(told.wait)
        return total

    def by(self, name_of: Callable[[Words], str | None]) -> dict[str, int]:
        """How many requests there are of each name; those whose name is None are left out."""
        told: dict[str, int] = {}
        for words, count in self.requests.items():
            name = name_of(words)
            if name is not None:
                told[name] = told.get(name, 0) + count
        return dict(sorted(told.items()))

    def plus(self, other: Reading) -> Reading:
        """Both together."""
        requests = dict(self.requests)
        for words, count in other.requests.items():
            requests[words] = requests.get(words, 0) + count
        origins = dict(self.origins)
        for name, told in other.origins.items():
            origins[name] = origins[name].plus(told) if name in origins else told
        arms = dict(self.arms)
        for names, arm in other.arms.items():
            arms[names] = arms[names].plus(arm) if names in arms else arm
        return Reading(
            self.starts + other.starts,
            max(self.started_s, other.started_s),
            _folded(POINTS, self.points, other.points),
            self.hits.plus(other.hits),
            self.rest.plus(other.rest),
            requests,
            origins,
            arms,
        )


def _added(ours: list[int], theirs: list[int]) -> list[int]:
    return list(map(add, ours, theirs))


def _folded(points: Sequence[Point], ours: list[int], theirs: list[int]) -> list[int]:
    return [
        max(a, b) if point.fold is Fold.MOST else a + b
        for point, a, b in zip(points, ours, theirs, strict=True)
    ]
