"""What a node tells of its work: counters, histograms and the log record, each declared once.

A measure is declared here with its kind, its labels and a sentence; counting anything else does
not type-check. `Measurements` holds the numbers of one worker, and only it may change them. How
many label values a measure keeps apart is bounded, since some come from outside (an origin's
name, a status): past the bound they are counted together as `other`.

A `Record` is one line of the access log. It is filled in while the exchange goes on, counted once
when it ends, and not touched again.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

LABEL_SETS: Final = 256
OTHER: Final = "other"


class Outcome(Enum):
    """What the cache had to do with an answer, for counting; `Record.reason` says why."""

    HIT = "hit"  # answered from the store without the origin
    STALE = "stale"  # answered from the store past its lifetime
    REVALIDATED = "revalidated"  # answered from the store after the origin's 304
    MISS = "miss"  # answered by the origin, through the cache
    BYPASS = "bypass"  # answered by the origin, past the cache
    REFUSED = "refused"  # answered here: a bad request, no such site, only-if-cached
    FAILED = "failed"  # answered here: the origin's failure, or ours


FROM_STORE: Final = (Outcome.HIT, Outcome.STALE, Outcome.REVALIDATED)
LOOKED_UP: Final = (*FROM_STORE, Outcome.MISS)


@dataclass(slots=True)
class Record:
    """One request, as the access log tells it. `time` is Unix seconds; durations are seconds.

    `bytes` counts the body as sent. `ttl` is what was left of the answer's lifetime, in seconds,
    negative where it was stale. A value that no one came to know is None.
    """

    time: float
    id: str
    client: str
    method: str = ""
    host: str = ""
    target: str = ""
    version: str = ""
    status: int = 0
    bytes: int = 0
    cache: Outcome = Outcome.REFUSED
    reason: str = ""
    ttl: int | None = None
    upstream: str | None = None
    total_s: float = 0.0
    first_byte_s: float | None = None
    upstream_s: float | None = None
    error: str | None = None


def text(value: bytes) -> str:
    """Wire bytes for people: UTF-8 where they are, `\\xff` for each byte that is not."""
    return value.decode("utf-8", "backslashreplace")


# Measures are told apart as objects: to hash one by its words costs more than to count.


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """A number that only grows."""

    name: str
    says: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often values fell up to each bound; `unit` is that of bounds and sum."""

    name: str
    says: str
    unit: str
    bounds: tuple[float, ...]


_TIMES_S: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    60,
)

REQUESTS = Counter(
    "requests", "Requests answered, by what the cache had to do with it.", ("cache",)
)
REASONS = Counter("reasons", "Requests answered, by reason.", ("reason",))
STATUSES = Counter("statuses", "Requests answered, by status.", ("status",))
ERRORS = Counter("errors", "Exchanges that failed, by how.", ("error",))
SENT_BYTES = Counter("sent_bytes", "Bytes of bodies sent to clients.")
FETCHES = Counter("fetches", "Requests answered by an origin, by its name.", ("upstream",))
DURATION = Histogram(
    "duration_s", "Time from a request's head to its answer's end.", "s", _TIMES_S
)
FIRST_BYTE = Histogram(
    "first_byte_s", "Time from a request's head to its answer's first byte.", "s", _TIMES_S
)
UPSTREAM = Histogram("upstream_s", "Time that a fetch took to its response head.", "s", _TIMES_S)

COUNTERS: Final = (REQUESTS, REASONS, STATUSES, ERRORS, SENT_BYTES, FETCHES)
HISTOGRAMS: Final = (DURATION, FIRST_BYTE, UPSTREAM)


class Measurements:
    """The numbers of one worker."""

    __slots__ = ("_buckets", "_counts", "_sums")

    def __init__(self) -> None:
        self._counts: dict[Counter, dict[tuple[str, ...], int]] = {c: {} for c in COUNTERS}
        self._buckets = {h: [0] * (len(h.bounds) + 1) for h in HISTOGRAMS}
        self._sums = dict.fromkeys(HISTOGRAMS, 0.0)

    def count(self, counter: Counter, *labels: str, by: int = 1) -> None:
        """Add to a counter, under one value for each of its labels."""
        cells = self._counts[counter]
        if labels not in cells and len(cells) >= LABEL_SETS:
            labels = (OTHER,) * len(counter.labels)
        cells[labels] = cells.get(labels, 0) + by

    def observe(self, histogram: Histogram, value: float) -> None:
        """Add one value to a histogram."""
        self._buckets[histogram][bisect_left(histogram.bounds, value)] += 1
        self._sums[histogram] += value

    def record(self, record: Record) -> None:
        """Count one finished exchange."""
        self.count(REQUESTS, record.cache.value)
        self.count(REASONS, record.reason)
        self.count(STATUSES, str(record.status))
        self.count(SENT_BYTES, by=record.bytes)
        self.observe(DURATION, record.total_s)
        if record.first_byte_s is not None:
            self.observe(FIRST_BYTE, record.first_byte_s)
        if record.error is not None:
            self.count(ERRORS, record.error)
        if record.upstream_s is not None:
            self.count(FETCHES, record.upstream or OTHER)
            self.observe(UPSTREAM, record.upstream_s)

    def total(self, counter: Counter, *labels: str) -> int:
        """A counter's number under these labels, or under all where none are given."""
        cells = self._counts[counter]
        return cells.get(labels, 0) if labels else sum(cells.values())

    def hit_ratio(self) -> float | None:
        """The share answered from the store of what was looked up there; None before the first."""
        looked_up = sum(self.total(REQUESTS, outcome.value) for outcome in LOOKED_UP)
        hits = sum(self.total(REQUESTS, outcome.value) for outcome in FROM_STORE)
        return hits / looked_up if looked_up else None

    def snapshot(self) -> dict[str, Any]:
        """Everything as JSON-ready values: counters by their label, histograms by bound."""
        told: dict[str, Any] = {c.name: self._told(c) for c in COUNTERS}
        told |= {h.name: self._distribution(h) for h in HISTOGRAMS}
        return {**told, "hit_ratio": self.hit_ratio()}

    def _told(self, counter: Counter) -> int | dict[str, int]:
        cells = self._counts[counter]
        if not counter.labels:
            return cells.get((), 0)
        return {" ".join(labels): count for labels, count in sorted(cells.items())}

    def _distribution(self, histogram: Histogram) -> dict[str, Any]:
        buckets = self._buckets[histogram]
        return {
            "count": sum(buckets),
            "sum": round(self._sums[histogram], 6),
            "p50": self.quantile(histogram, 0.5),
            "p99": self.quantile(histogram, 0.99),
        }

    def quantile(self, histogram: Histogram, share: float) -> float | None:
        """The bound that this share of the values does not pass; None where it is above the last
        bound, or nothing was observed."""
        buckets = self._buckets[histogram]
        rest = share * sum(buckets)
        if not rest:
            return None
        for bound, count in zip(histogram.bounds, buckets, strict=False):
            rest -= count
            if rest <= 0:
                return bound
        return None
