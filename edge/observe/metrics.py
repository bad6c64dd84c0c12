"""Every metric of a node, declared once.

A `Family` is declared with its name, kind, labels and a sentence; nothing else can be told. Where
its numbers come from is declared too: a `Point` is one cell of a worker's slot and the place in
the status document that it is taken from, so `edge status` and Prometheus cannot disagree.

Label values come from the code and from the settings: outcomes, reasons, errors, names of origins,
of experiments and their arms.
Of what clients and origins choose there is the class of a status, nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

OTHER: Final = "other"

# Bounds in seconds, the same everywhere: histograms can be added up only where they are.
TIMES_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
)  # fmt: skip
BUCKETS: Final = len(TIMES_S) + 1
COLUMNS: Final = BUCKETS + 1  # of first bytes: one more for answers that had none

CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx", OTHER)


class Kind(Enum):
    """How Prometheus is to read a family's numbers."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Fold(Enum):
    """How the numbers of several workers become the node's."""

    SUM = "sum"
    MOST = "most"


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric: what its samples have in common."""

    name: str
    kind: Kind
    says: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One number of a family: its labels' values, and where in a document its value stands.

    `sources` are paths (`store.disk.rows`); their values are added up.
    """

    family: Family
    sources: tuple[str, ...]
    values: tuple[str, ...] = ()
    fold: Fold = Fold.SUM

    def value_in(self, document: Mapping[str, Any]) -> int | None:
        """Its value in a status document; None where the document does not have it."""
        found = [_at(document, source) for source in self.sources]
        return None if None in found else sum(int(each) for each in found)


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


REQUESTS: Final = Family(
    "edge_requests_total",
    Kind.COUNTER,
    "Requests answered, by what the cache had to do with it, why, and class of status.",
    ("cache", "reason", "status"),
)
ERRORS: Final = Family(
    "edge_request_errors_total", Kind.COUNTER, "Exchanges that failed, by how.", ("error",)
)
SENT: Final = Family(
    "edge_sent_bytes_total",
    Kind.COUNTER,
    "Bytes of bodies sent to clients; hit is whether no origin was waited for.",
    ("hit",),
)
DURATION: Final = Family(
    "edge_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time from a request's head to its answer's end; hit is whether no origin was waited for.",
    ("hit",),
)
FIRST_BYTE: Final = Family(
    "edge_request_first_byte_seconds",
    Kind.HISTOGRAM,
    "Time from a request's head to its answer's first byte; hit as for the duration.",
    ("hit",),
)
ORIGIN_WAIT: Final = Family(
    "edge_origin_wait_seconds",
    Kind.HISTOGRAM,
    "Time that requests waited for an origin's head, asked for them or for another as well.",
    ("origin",),
)
ORIGIN_ERRORS: Final = Family(
    "edge_origin_errors_total",
    Kind.COUNTER,
    "Requests that an origin failed, also where a stale answer took its place.",
    ("origin",),
)
ARM_REQUESTS: Final = Family(
    "edge_experiment_requests_total",
    Kind.COUNTER,
    "Requests answered to visitors with an arm of an experiment, by class of status.",
    ("experiment", "arm", "status"),
)
ARM_VISITORS: Final = Family(
    "edge_experiment_visitors_total",
    Kind.COUNTER,
    "Visitors who were given an arm of an experiment and told so.",
    ("experiment", "arm"),
)
ARM_LOOKED_UP: Final = Family(
    "edge_experiment_looked_up_total",
    Kind.COUNTER,
    "Of an arm's requests, those that were looked up in the store.",
    ("experiment", "arm"),
)
ARM_HITS: Final = Family(
    "edge_experiment_hits_total",
    Kind.COUNTER,
    "Of those, the ones that were answered from there.",
    ("experiment", "arm"),
)
ARM_DURATION: Final = Family(
    "edge_experiment_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time from the head of an arm's request to its answer's end.",
    ("experiment", "arm"),
)
STARTS: Final = Family(
    "edge_worker_starts_total", Kind.COUNTER, "Worker processes started; more than workers: died."
)
STARTED: Final = Family(
    "edge_worker_start_time_seconds", Kind.GAUGE, "When the youngest worker began, in Unix time."
)
BUILD: Final = Family("edge_build_info", Kind.GAUGE, "Always 1; its label tells.", ("version",))


def _counter(name: str, says: str, *labels: str) -> Family:
    return Family(name, Kind.COUNTER, says, labels)


def _gauge(name: str, says: str, *labels: str) -> Family:
    return Family(name, Kind.GAUGE, says, labels)


_ENTRIES = _gauge("edge_store_entries", "Answers stored, by tier.", "tier")
_HELD = _gauge("edge_store_bytes", "Bytes stored, by tier.", "tier")
_CAPACITY = _gauge("edge_store_capacity_bytes", "Most bytes that a tier may hold.", "tier")
_EVICTED = _counter("edge_store_evictions_total", "Answers that had to make room.", "tier")
_HOPS = _counter(
    "edge_hops_total",
    "Requests for what another worker owns: answered from a copy, at a glance, or relayed.",
    "way",
)
_CODINGS = _counter(
    "edge_codings_total",
    "Codings of bodies: begun, or refused as too many were at work; recompressed, or given up.",
    "what",
)
_CODING = _gauge(
    "edge_codings_open",
    "Bodies that are being coded, at first effort or (those that wait, too) at high.",
    "effort",
)
_DICTIONARIES = _counter(
    "edge_dictionaries_total",
    "Dictionaries learned, or read as another worker has; used for an answer; named, but unknown.",
    "what",
)
_UNSAVED = _counter("edge_log_lines_dropped_total", "Log lines lost, by log.", "log")

POINTS: Final = (
    Point(_gauge("edge_connections_open", "Client connections."), ("connections.open",)),
    Point(
        _gauge("edge_connections_idle", "Of them, those that wait for a request."),
        ("connections.idle",),
    ),
    Point(
        _counter("edge_connections_accepted_total", "Client connections accepted."),
        ("connections.accepted",),
    ),
    Point(
        _counter("edge_connections_shed_total", "Client connections closed to make room."),
        ("connections.shed",),
    ),
    Point(_ENTRIES, ("store.memory.entries",), ("memory",)),
    Point(_ENTRIES, ("store.disk.rows",), ("disk",)),
    Point(_HELD, ("store.memory.held_bytes",), ("memory",)),
    Point(_HELD, ("store.disk.committed_bytes",), ("disk",)),
    Point(_CAPACITY, ("store.memory.capacity_bytes",), ("memory",)),
    Point(_CAPACITY, ("store.disk.quota_bytes",), ("disk",)),
    Point(_EVICTED, ("store.memory.evicted",), ("memory",)),
    Point(_EVICTED, ("store.disk.evicted",), ("disk",)),
    Point(
        _counter("edge_store_disk_errors_total", "Reads and writes of the disk that failed."),
        ("store.disk.errors",),
    ),
    Point(
        _counter("edge_store_unsaved_total", "Answers for which the disk had no room or time."),
        ("store.disk.dropped",),
    ),
    Point(
        _gauge("edge_store_disk_shut", "1 while nothing new is put on the disk."),
        ("store.disk.is_shut",),
    ),
    Point(_HOPS, ("hops.copies",), ("copy",)),
    Point(_HOPS, ("hops.glanced",), ("glance",)),
    Point(_HOPS, ("hops.relayed",), ("relay",)),
    Point(
        _counter("edge_hop_files_lent_total", "Bodies taken from another worker as open files."),
        ("hops.lent",),
    ),
    Point(_CODINGS, ("codings.begun",), ("begun",)),
    Point(_CODINGS, ("codings.refused",), ("refused",)),
    Point(_CODINGS, ("codings.recompressed",), ("recompressed",)),
    Point(_CODINGS, ("codings.given_up",), ("given_up",)),
    Point(_CODING, ("codings.encoding",), ("first",)),
    Point(_CODING, ("codings.recompressing",), ("high",)),
    Point(
        _gauge("edge_dictionaries_held", "Dictionaries at hand, of each worker its own copies."),
        ("dictionaries.held",),
    ),
    Point(
        _gauge("edge_dictionaries_held_bytes", "Bytes of the dictionaries at hand."),
        ("dictionaries.held_bytes",),
    ),
    Point(_DICTIONARIES, ("dictionaries.learned",), ("learned",)),
    Point(_DICTIONARIES, ("dictionaries.read",), ("read",)),
    Point(_DICTIONARIES, ("dictionaries.used",), ("used",)),
    Point(_DICTIONARIES, ("dictionaries.unknown",), ("unknown",)),
    Point(_gauge("edge_flights", "Fetches that others may share, now."), ("flights",)),
    Point(
        _gauge("edge_purge_latest", "Number of the latest purge."),
        ("purges.latest",),
        fold=Fold.MOST,
    ),
    Point(
        _gauge("edge_purge_scopes", "Purged scopes that are remembered."),
        ("purges.scopes",),
        fold=Fold.MOST,
    ),
    Point(
        _gauge("edge_purge_dead_entries", "Entries on disk that are purged but not swept."),
        ("purges.dead_on_disk.dead_left",),
    ),
    Point(
        _counter("edge_purges_refused_total", "Purges that could not be recorded."),
        ("purges.journal.refused",),
    ),
    Point(_UNSAVED, ("access_log.dropped",), ("access",)),
    Point(_UNSAVED, ("error_log.dropped",), ("error",)),
    Point(
        _counter("edge_log_lines_suppressed_total", "Error log lines above their kind's rate."),
        ("error_log.suppressed",),
    ),
)  # fmt: skip
"""What every worker tells of itself, taken from the node's status document."""

ORIGIN_POINTS: Final = (
    Point(
        _counter("edge_origin_requests_total", "Requests sent, retries too.", "origin"),
        ("made", "reused"),
    ),
    Point(
        _counter("edge_origin_connections_made_total", "Connections made to an origin.", "origin"),
        ("made",),
    ),
    Point(
        _gauge("edge_origin_connections_open", "Connections to an origin.", "origin"), ("open",)
    ),
    Point(
        _gauge("edge_origin_connections_idle", "Of them, those not in use.", "origin"), ("idle",)
    ),
    Point(
        _gauge("edge_origin_requests_waiting", "Requests in line for a connection.", "origin"),
        ("waiting",),
    ),
    Point(
        _gauge("edge_origin_failures_in_a_row", "Tries to connect that failed.", "origin"),
        ("failures_in_a_row",),
        fold=Fold.MOST,
    ),
)  # fmt: skip
"""What every worker tells of each origin, taken from `origins.NAME` of the document."""


def status_class(status: str) -> str:
    """`2xx` for `204`; one word for what is no status."""
    return f"{status[0]}xx" if len(status) == 3 and status[0] in "12345" else OTHER
