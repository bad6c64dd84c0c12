"""What is told of where content comes from: `[origin.NAME]` and `[shield]`."""

from __future__ import annotations

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Iterator  # noqa: TC003
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003
from typing import Literal

from edge.config import notation as n
from edge.config.notation import SecretSettings, span, wait
from edge.settings import Complaint, setting
from edge.upstream.origin import parse_origin

MOST_SERVERS = 64
LEAST_SLOWER = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginTimeouts:
    """`origin.NAME.timeouts`."""

    connect: float = field(
        default=5.0, metadata=wait("For a place, for a free connection, and for a new one.")
    )
    first_byte: float = field(
        default=30.0, metadata=wait("From the request's end to the response head.")
    )
    between_bytes: float = field(
        default=30.0, metadata=wait("Standstill while a body goes either way.")
    )
    total: float = field(default=3_600.0, metadata=wait("For one request, its body included."))
    idle: float = field(default=60.0, metadata=wait("For an unused connection to be kept."))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """`origin.NAME.check`: asking each server, all the time, whether it is well."""

    path: str = field(metadata=setting("Target to ask for by GET.", n.TARGET))
    every: float = field(default=5.0, metadata=wait("Between two checks of a server."))
    timeout: float = field(default=1.0, metadata=wait("For a check to be answered."))
    down_after: int = field(
        default=3, metadata=setting("Failures in a row that make it down.", least=1, most=100)
    )
    up_after: int = field(
        default=2, metadata=setting("Successes in a row that make it up.", least=1, most=100)
    )
    status: tuple[int, ...] = field(
        default=(200,),
        metadata=setting(
            "Statuses that say that it is well.", least=100, most=599, fewest=1, most_members=64
        ),
    )
    body: str | None = field(
        default=None,
        metadata=setting("Text that has to stand in the first 64 KiB of the body."),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectSettings:
    """`origin.NAME.eject`: leaving a server out for a while, by how it answers clients."""

    after: int = field(
        default=5, metadata=setting("Failures in a row; 0 is never.", least=0, most=1_000)
    )
    for_: float = field(
        default=10.0,
        metadata=wait("For how long, the first time; longer when it fails again.", key="for"),
    )
    most: float = field(
        default=0.5,
        metadata=setting("Share of the servers that may be left out.", least=0.0, most=1.0),
    )
    slower: float = field(
        default=0.0,
        metadata=setting(
            "Times the servers' median time to a head that makes one an outlier; 0 is never.",
            least=0.0,
            most=1_000.0,
        ),
    )

    def check(self) -> Iterator[Complaint]:
        """A time that most servers take."""
        if self.slower is not None and 0 < self.slower < LEAST_SLOWER:
            message = f"leaves out who is no outlier; write 0, or {LEAST_SLOWER} and more"
            yield Complaint(("slower",), self.slower, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginSettings:
    """`[origin.NAME]`: where content comes from."""

    servers: tuple[str, ...] = field(
        metadata=setting(
            "The origin's servers, each by its URL.",
            n.SERVER,
            fewest=1,
            most_members=MOST_SERVERS,
        )
    )
    weights: tuple[float, ...] = field(
        default=(),
        metadata=setting(
            "What share of requests each server has; all the same if left out.",
            least=0.0,
            most=1_000.0,
            most_members=MOST_SERVERS,
        ),
    )
    balance: Literal[
        "round-robin", "weighted", "least-connections", "address-hash", "key-hash"
    ] = field(
        default="round-robin",
        metadata=setting(
            "Which server is next: in turn (by weight), the least busy, the same one for a "
            "client's address, or the same one for a key."
        ),
    )
    at: tuple[float, ...] | None = field(
        default=None,
        metadata=setting("Its latitude and longitude in degrees.", least=-180.0, most=180.0),
    )
    checks: CheckSettings | None = field(
        default=None,
        metadata=setting("How the servers' health is checked; not at all if none.", key="check"),
    )
    eject: EjectSettings = field(
        default_factory=EjectSettings,
        metadata=setting("When a server is left out by how it answers."),
    )
    slow_start: float = field(
        default=10.0,
        metadata=span("How long a server that comes back takes to have its whole share."),
    )
    at_work: int = field(
        default=256,
        metadata=setting(
            "Requests that the origin is asked at once, by all workers; more wait.",
            least=1,
            most=100_000,
        ),
    )
    waiting: int = field(
        default=1_024,
        metadata=setting(
            "Requests that wait; more are answered 503 with Retry-After, or stale.",
            least=0,
            most=1_000_000,
        ),
    )
    ca: Path | None = field(
        default=None,
        metadata=setting("PEM file of the CAs to trust in place of the system's."),
    )
    host: str | None = field(
        default=None,
        metadata=setting("Host to send in place of the client's.", n.HOST_FIELD),
    )
    max_connections: int = field(
        default=256,
        metadata=setting(
            "Connections at once to each server; more requests wait.", least=1, most=100_000
        ),
    )
    max_idle: int = field(
        default=64,
        metadata=setting("Unused connections kept at once.", least=0, most=100_000),
    )
    timeouts: OriginTimeouts = field(
        default_factory=OriginTimeouts, metadata=setting("How long the origin may take.")
    )

    def check(self) -> Iterator[Complaint]:
        """Servers named twice, and weights that are not one for each."""
        yield from doubles(self.servers, "servers")
        if self.weights and len(self.weights) != len(self.servers):
            message = f"are not one for each server; give {len(self.servers)}"
            yield Complaint(("weights",), list(self.weights), message)
        elif self.weights and not any(self.weights):
            yield Complaint(("weights",), list(self.weights), "leave nobody; give one more than 0")
        yield from place_faults(self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShieldSettings:
    """`[shield]`: the tier between this node and the origins, for the sites routed by it."""

    nodes: tuple[str, ...] = field(
        metadata=setting(
            "The shields, each by its URL; a key's is chosen by a consistent hash.",
            n.SERVER,
            fewest=1,
            most_members=MOST_SERVERS,
        )
    )
    secret: SecretSettings = field(
        metadata=setting("What this node proves itself with; the same as at the shields.")
    )
    without: Literal["origin", "fail"] = field(
        default="origin",
        metadata=setting("Whom to ask when no shield answers: the origin itself, or nobody."),
    )
    ca: Path | None = field(
        default=None,
        metadata=setting("PEM file of the CAs to trust in place of the system's."),
    )
    at_work: int = field(
        default=1_024,
        metadata=setting(
            "Requests that the shields are asked at once, by all workers; more wait.",
            least=1,
            most=100_000,
        ),
    )
    waiting: int = field(
        default=1_024,
        metadata=setting("Requests that wait; more are 503, or stale.", least=0, most=1_000_000),
    )
    max_connections: int = field(
        default=256,
        metadata=setting("Connections at once to each shield.", least=1, most=100_000),
    )
    max_idle: int = field(
        default=64,
        metadata=setting("Unused connections kept at once.", least=0, most=100_000),
    )
    timeouts: OriginTimeouts = field(
        default_factory=OriginTimeouts, metadata=setting("How long a shield may take.")
    )

    def check(self) -> Iterator[Complaint]:
        """Shields named twice."""
        yield from doubles(self.nodes, "nodes")


def doubles(servers: tuple[str, ...], key: str) -> Iterator[Complaint]:
    """Servers that stand twice, in whatever spelling."""
    seen = set()
    for index, server in enumerate(servers):
        if server is not None and (url := parse_origin(server).url) in seen:
            yield Complaint((key, index), server, "stands here twice; take one out")
        elif server is not None:
            seen.add(url)


def place_faults(at: tuple[float, ...] | None) -> Iterator[Complaint]:
    """What is wrong with a latitude and a longitude."""
    if at is None or None in at:
        return
    if len(at) != 2 or not -90 <= at[0] <= 90:
        message = "is no place; write latitude (-90 to 90) and longitude, like [50.11, 8.68]"
        yield Complaint(("at",), list(at), message)
