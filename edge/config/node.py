"""What the node itself is told: `[node]`, `[store]`, `[limits]`, `[timeouts]`."""

from __future__ import annotations

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Iterator  # noqa: TC003
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003

from edge.config import notation as n
from edge.config.notation import Address, span, wait
from edge.config.origin import place_faults
from edge.settings import Complaint, setting
from edge.settings.kinds import GIB, KIB, MIB, SIZE, TIB


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """`[node]`: who this node is, where it listens, whom it trusts, what it writes."""

    name: str = field(
        metadata=setting(
            "The node's name in Via, CDN-Loop and Cache-Status; no two nodes may share one.",
            n.TOKEN,
            default_says="made from the host's name and the addresses",
        )
    )
    listen: tuple[Address, ...] = field(
        metadata=setting("Where clients connect.", n.ADDRESS, fewest=1, most_members=64)
    )
    workers: int = field(
        default=0,
        metadata=setting("Worker processes; one a core.", n.WORKERS),
    )
    admin: Path | None = field(
        default=None,
        metadata=setting(
            "UNIX socket that `edge purge`, `edge explain` and the like ask; its mode is 0660.",
            n.SOCKET,
        ),
    )
    metrics: Address | None = field(
        default=None,
        metadata=setting(
            "Where Prometheus may ask for /metrics, without a password; never a public address.",
            n.ADDRESS,
        ),
    )
    at: tuple[float, ...] | None = field(
        default=None,
        metadata=setting(
            "Its own latitude and longitude, for clients whose place is unknown.",
            least=-180.0,
            most=180.0,
        ),
    )
    geo: Path | None = field(
        default=None,
        metadata=setting("MaxMind-format City or Country database; read again when replaced."),
    )
    trusted_proxies: tuple[str, ...] = field(
        default=(),
        metadata=setting("Whose X-Forwarded-For and Forwarded are believed.", n.NETWORK),
    )
    access_log: str = field(
        default="off",
        metadata=setting('JSON lines, one a request; "-" is standard output.', n.LOG),
    )
    error_log: str = field(
        default="-",
        metadata=setting('Plain lines, at a bounded rate; "-" is standard error.', n.LOG),
    )
    drain: float = field(
        default=30.0,
        metadata=span("How long TERM lets running requests go on."),
    )

    def check(self) -> Iterator[Complaint]:
        """Addresses listened on twice, and numbers told where clients connect."""
        for index, address in enumerate(self.listen):
            if address is not None and address.port and address in self.listen[:index]:
                yield Complaint(("listen", index), str(address), "stands here twice; take one out")
        yield from place_faults(self.at)
        told = self.metrics
        if told is not None and told.port and any(map(told.overlaps, self.listen)):
            message = "is where clients connect (node.listen); give it a port of its own"
            yield Complaint(("metrics",), str(told), message)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """`[store]`: where answers are kept, and how much of them."""

    dir: Path | None = field(
        default=None,
        metadata=setting('Directory of the disk tier; "none" is a private temporary one.'),
    )
    disk: int = field(
        default=10 * GIB,
        metadata=setting(
            "Most that the disk tier may hold; each of its shards has an equal part.",
            SIZE,
            least=MIB,
            most=1_024 * TIB,
        ),
    )
    memory: int = field(
        default=256 * MIB,
        metadata=setting(
            "Most that the memory tier may hold; each worker has an equal part.",
            SIZE,
            least=MIB,
            most=16 * TIB,
        ),
    )
    free_floor: int = field(
        default=64 * MIB,
        metadata=setting(
            "Space to leave free on the file system; below it nothing new is stored.",
            SIZE,
            least=0,
            most=1_024 * TIB,
        ),
    )
    object_memory: int = field(
        default=MIB,
        metadata=setting(
            "Largest body that the memory tier keeps; larger ones stay on disk.",
            SIZE,
            least=64 * KIB,
            most=TIB,
        ),
    )
    variants: int = field(
        default=32,
        metadata=setting(
            "Most variants (Vary) of one URL; past it the least recently used goes.",
            least=1,
            most=1_024,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings:
    """`[limits]`: the most that one message, or all clients together, may cost."""

    head: int = field(
        default=32 * KIB,
        metadata=setting(
            "Request line and fields; more is answered 431.", SIZE, least=KIB, most=MIB
        ),
    )
    target: int = field(
        default=8 * KIB,
        metadata=setting("Request target; more is answered 414.", SIZE, least=64, most=MIB),
    )
    fields: int = field(
        default=100,
        metadata=setting("Field lines of a request; more is answered 431.", least=8, most=10_000),
    )
    trailer: int = field(
        default=8 * KIB,
        metadata=setting("Trailers, which are dropped.", SIZE, least=0, most=MIB),
    )
    request_body: int = field(
        default=GIB,
        metadata=setting("Request body; more is answered 413.", SIZE, least=0, most=1_024 * TIB),
    )
    response_head: int = field(
        default=64 * KIB,
        metadata=setting(
            "An origin's status line and fields; more is a 502.", SIZE, least=KIB, most=16 * MIB
        ),
    )
    response_fields: int = field(
        default=256,
        metadata=setting("Field lines of an origin's response.", least=8, most=10_000),
    )
    connections: int = field(
        default=10_000,
        metadata=setting(
            "Client connections at once, of all workers together.", least=1, most=1_000_000
        ),
    )

    def check(self) -> Iterator[Complaint]:
        """A target that no head has room for."""
        if self.head and self.target and self.target >= self.head:
            message = "leaves the head no room for it; raise limits.head or lower this"
            yield Complaint(("target",), None, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutsSettings:
    """`[timeouts]`: how long a client may take; an origin's are at the origin."""

    head: float = field(
        default=10.0, metadata=wait("For a whole request head, from its first byte.")
    )
    idle: float = field(default=60.0, metadata=wait("Between requests on one connection."))
    body_grace: float = field(
        default=10.0,
        metadata=wait("Before a request body is held to its rate."),
    )
    body_rate: int = field(
        default=500,
        metadata=setting("Least of a request body a second.", SIZE, least=1, most=GIB),
    )
    send: float = field(
        default=30.0,
        metadata=wait("For the client to take the next 16 KiB of an answer."),
    )
    linger: float = field(
        default=2.0,
        metadata=span("Reading on after a last answer, so that it arrives."),
    )
    tunnel_idle: float = field(
        default=600.0,
        metadata=wait("Silence in both directions of an upgraded connection."),
    )
