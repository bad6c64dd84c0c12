"""What a node tells of its work: the log record, and how one is counted.

A `Record` is one line of the access log. It is filled in while the exchange goes on, counted once
when it ends, and not touched again. `Measurements` counts the records of one worker, in its slot
of the tallies that all workers share, and tells what all of them have counted.

An answer is a hit, to the histograms, if its client waited for no origin: one that was found in
the store after waiting for somebody else's fetch was as slow as a miss.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from edge.errors import Failure, Side
from edge.observe.metrics import OTHER, TIMES_S
from edge.observe.tally import FOUND, LOOKED_UP, NO_LOOK_UP, Tallies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge.observe.reading import Histogram, Reading

MOST_KINDS: Final = 1_024

_Arms: TypeAlias = "tuple[str, ...] | msgspec.UnsetType"
_Alike: TypeAlias = tuple[int, int, _Arms]  # a row of the tally, a bucket of `TIMES_S`, arms


class Outcome(Enum):
    """What the cache had to do with an answer, for counting; `Record.reason` says why."""

    HIT = "hit"  # answered from the store without the origin
    STALE = "stale"  # answered from the store past its lifetime
    REVALIDATED = "revalidated"  # answered from the store after the origin's 304
    MISS = "miss"  # answered by the origin, through the cache
    BYPASS = "bypass"  # answered by the origin, past the cache
    REFUSED = "refused"  # answered here: a bad request, no such site, only-if-cached
    FAILED = "failed"  # answered here: the origin's failure, or ours

    __hash__ = object.__hash__  # Enum's own is Python code, and every request is counted by it


FROM_STORE: Final = (Outcome.HIT, Outcome.STALE, Outcome.REVALIDATED)
LOOKED_UP_THERE: Final = (*FROM_STORE, Outcome.MISS)
_LOOK_UPS: Final = {Outcome.MISS: LOOKED_UP, **dict.fromkeys(FROM_STORE, FOUND)}

NEW: Final = ";new"  # no name has a semicolon: it would end the cookie that tells the arm

_ORIGIN_FAULTS: Final = frozenset(f.slug for f in Failure if f.side is Side.UPSTREAM)


class Record(msgspec.Struct, gc=False):
    """One request, as the access log tells it. `time` is Unix seconds; durations are seconds.

    `bytes` counts the body as sent. `ttl` is what was left of the answer's lifetime, in seconds,
    negative where it was stale. A value that no one came to know is None. It is a Struct because
    that takes half of a dataclass's time to make and to write (0.2 and 0.4 µs), and the collector
    need not look through the thousands that wait to be written: they refer to nothing that could
    refer back.

    `arms` has a text of `told_arm` for each experiment that the visitor is in, and is in the log
    only where there is one.
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
    arms: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


def told_arm(experiment: str, arm: str, *, is_new: bool) -> str:
    """`checkout=new` in a record's `arms`, and `checkout=new;new` where the visitor has just been
    given it. `experiment` is the id by which it is counted, told and ordered about. To be made
    once for each arm, not for each request."""
    return f"{experiment}={arm}{NEW if is_new else ''}"


def text(value: bytes) -> str:
    """Wire bytes for people: UTF-8 where they are, `\\xff` for each byte that is not."""
    return value.decode("utf-8", "backslashreplace")


def origin_of(upstream: str | None) -> str:
    """The origin that a server is one of: `eu` of `eu http://eu-1.example:80`."""
    return upstream.partition(" ")[0] if upstream else OTHER


class Measurements:
    """Counts what one worker did, and tells what all of them did.

    `now` is Unix seconds, when the worker begins.
    """

    __slots__ = ("_arms", "_kinds", "_tallies", "tally")

    def __init__(
        self, tallies: Tallies | None = None, worker: int = 0, *, now: float = 0.0
    ) -> None:
        self._tallies = tallies or Tallies(1)
        self.tally = self._tallies.take(worker, now)
        self._kinds: dict[tuple[Outcome, str, int, str | None], tuple[int, bool]] = {}
        self._arms: dict[str, tuple[int, bool]] = {}

    def record(self, record: Record) -> None:
        """Count one finished exchange."""
        try:
            row, from_store = self._kinds[record.cache, record.reason, record.status, record.error]
        except KeyError:
            row, from_store = self._kind(record)
        hit = from_store and record.upstream is None
        self.tally.add(row, record.bytes, record.total_s, record.first_byte_s, hit=hit)
        if record.upstream_s is not None:
            self.tally.waited(origin_of(record.upstream), record.upstream_s)
        if record.error is not None and record.error in _ORIGIN_FAULTS:
            self.tally.failed(origin_of(record.upstream))
        if arms := record.arms:
            took_us = int(record.total_s * 1e6 + 0.5)
            look_up = _LOOK_UPS.get(record.cache, NO_LOOK_UP)
            bucket = bisect_left(TIMES_S, record.total_s)
            self._count_arms(arms, look_up, record.status, bucket, took_us)

    def record_all(self, records: Sequence[Record]) -> None:
        """Count finished exchanges; hits that were sent at once are added up first."""
        alike: dict[_Alike, list[int]] = {}
        sent_bytes = 0
        for record in records:
            total_s = record.total_s
            kind = self._kinds.get((record.cache, record.reason, record.status, record.error))
            if (
                kind is None
                or not kind[1]
                or record.first_byte_s != total_s
                or record.upstream is not None
                or record.error is not None
            ):
                self.record(record)
                continue
            sent_bytes += record.bytes
            us = int(total_s * 1e6 + 0.5)
            at = kind[0], bisect_left(TIMES_S, total_s), record.arms
            sums = alike.get(at)
            if sums is None:
                alike[at] = [1, us, record.status]
            else:
                sums[0] += 1
                sums[1] += us
        if alike:
            self._add_hits(alike, sent_bytes)

    def _add_hits(self, alike: dict[_Alike, list[int]], sent_bytes: int) -> None:
        """Count hits that were sent at once: how many of each kind, their times, their status."""
        hits: dict[tuple[int, int], int] = {}
        took_us = 0
        for (row, bucket, arms), (count, us, status) in alike.items():
            hits[row, bucket] = hits.get((row, bucket), 0) + count
            took_us += us
            if arms:
                self._count_arms(arms, FOUND, status, bucket, us, count)
        self.tally.add_hits(hits, sent_bytes, took_us)

    def _count_arms(
        self,
        arms: tuple[str, ...],
        look_up: int,
        status: int,
        bucket: int,
        took_us: int,
        count: int = 1,
    ) -> None:
        """Count requests of the same arms that are alike."""
        for each in arms:
            try:
                cell, is_new = self._arms[each]
            except KeyError:
                cell, is_new = self._arm(each)
            self.tally.add_arm(cell, status, look_up, bucket, took_us, count)
            if is_new:
                self.tally.add_visitors(cell, count)

    def _arm(self, told: str) -> tuple[int, bool]:
        """Where an arm is counted, and whether its visitor is new; asked once for each text."""
        if len(self._arms) >= MOST_KINDS:
            self._arms.clear()
        experiment, _, arm = told.removesuffix(NEW).rpartition("=")
        self._arms[told] = self.tally.arm(experiment, arm), told.endswith(NEW)
        return self._arms[told]

    def row(self, cache: Outcome, reason: str, status: int, error: str | None = None) -> int:
        """Where `tally` counts requests of this kind; the same for as long as the worker lives."""
        return self.tally.row(cache.value, reason, status, error)

    def publish(self, document: Mapping[str, Any]) -> None:
        """Let all know what this worker's part of the status document says at the moment."""
        self.tally.publish(document)

    def snapshot(self) -> dict[str, Any]:
        """What all workers counted: see `counted`."""
        return counted(self._tallies)

    def _kind(self, record: Record) -> tuple[int, bool]:
        """Where a record is counted, and whether it can be a hit; asked once for each kind."""
        if len(self._kinds) >= MOST_KINDS:  # an origin that answers all statuses there are
            self._kinds.clear()
        kind = record.cache, record.reason, record.status, record.error
        self._kinds[kind] = self.row(*kind), record.cache in FROM_STORE
        return self._kinds[kind]


def counted(tallies: Tallies) -> dict[str, Any]:
    """What all workers counted as JSON-ready values: counters by their label, histograms by
    bound."""
    reading = tallies.reading()
    origins = sorted(reading.origins.items())
    return {
        "requests": reading.by(lambda words: words[0]),
        "reasons": reading.by(lambda words: words[1]),
        "statuses": reading.by(lambda words: words[2]),
        "errors": reading.by(lambda words: words[3] or None),
        "sent_bytes": reading.served.sent_bytes,
        "fetches": {name: told.wait.count for name, told in origins if told.wait.count},
        "duration_s": _distribution(reading.served.duration),
        "first_byte_s": _distribution(reading.served.first_byte),
        "upstream_s": _distribution(reading.wait),
        "hit_ratio": _hit_ratio(reading),
    }


def _hit_ratio(reading: Reading) -> float | None:
    requests = reading.by(lambda words: words[0])
    looked_up = sum(requests.get(outcome.value, 0) for outcome in LOOKED_UP_THERE)
    hits = sum(requests.get(outcome.value, 0) for outcome in FROM_STORE)
    return hits / looked_up if looked_up else None


def _distribution(histogram: Histogram) -> dict[str, Any]:
    return {
        "count": histogram.count,
        "sum": round(histogram.sum_us / 1e6, 6),
        "p50": histogram.quantile(0.5),
        "p99": histogram.quantile(0.99),
    }
