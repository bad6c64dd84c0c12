"""What is asked of an origin for a visit, and under which name others may share the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from edge.cache import vary
from edge.routing.experiment import told
from edge.serving.ways import Bound
from edge.wire.hop import Forwarding, to_origin

if TYPE_CHECKING:
    from edge.cache.entry import Entry, Key, Seq
    from edge.cache.flight import FlightKey
    from edge.cache.held import Held
    from edge.cache.ruling import CachePolicy
    from edge.routing.experiment import Assignment
    from edge.serving.finding import Found
    from edge.serving.terms import Terms
    from edge.serving.visit import Visit
    from edge.serving.ways import Ways
    from edge.upstream.way import Way
    from edge.wire.message import RequestHead


class Asking(Bound, Protocol):
    """A request that has been admitted: a visit, or what `admission` says of it."""

    @property
    def policy(self) -> CachePolicy: ...


@dataclass(frozen=True, slots=True)
class Trip:
    """What an errand is to ask for, and by whose rules the answer is judged.

    `request` is the client's, its hop-by-hop fields gone and its target in the form that is
    forwarded. `as_of` is the purge number from before the store was read: it goes into whatever
    the answer becomes. `variants` are what the store holds under `key` that may be validated.
    """

    request: RequestHead
    key: Key
    as_of: Seq
    upstream: Way
    forwarding: Forwarding
    terms: Terms
    arms: tuple[Assignment, ...] = ()
    variants: tuple[Held, ...] = ()
    selected: Entry | None = None  # of them, as the law sees it: soft-purged, it is stale
    in_background: bool = False  # no client waits for it

    @property
    def policy(self) -> CachePolicy:
        """By what rules the answer is judged."""
        return self.terms.cache

    def outgoing(self, request: RequestHead, upgrade: bytes | None = None) -> RequestHead:
        """`request` as the origin is to see it, but for its Host and its path."""
        out = to_origin(request, self.forwarding, upgrade=upgrade)
        headers = (
            out.headers if self.terms.edits is None else self.terms.edits.applied(out.headers)
        )
        if self.arms:
            headers = told(self.arms, headers)
        return out if headers is out.headers else replace(out, headers=headers)


def trip_for(visit: Visit, found: Found) -> Trip:
    """The trip of a visit that has found `found`."""
    return trip_of(visit, visit.parts.ways, visit.as_of, found, visit.id)


def trip_of(asking: Asking, ways: Ways, as_of: Seq, found: Found, request_id: str = "") -> Trip:
    """The trip of a request that has found `found`, as of the purge `as_of`."""
    return Trip(
        request=asking.request,
        key=asking.key,
        as_of=as_of,
        upstream=ways.way_of(asking, request_id),
        forwarding=asking.forwarding,
        terms=asking.terms,
        arms=asking.arms,
        variants=found.variants,
        selected=found.entry,
    )


def flight_key(asking: Asking, found: Found) -> FlightKey:
    """The key, and the variant as far as earlier answers tell what to distinguish."""
    names = {name for held in found.variants for name, _ in held.entry.variant}
    selected = vary.variant(sorted(names), asking.request, asking.policy.vary)
    return asking.key.digest, selected


def crowd_of(request: RequestHead) -> bytes:
    """Which of a key's crowds a request is of: what credentials get tells nothing of others."""
    return bytes((b"authorization" in request.headers, b"cookie" in request.headers))
