"""What is asked of an origin for a visit, and under which name others may share the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from edge.cache import vary
from edge.wire.hop import Forwarding, to_origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge.cache.entry import Entry, Key, Seq
    from edge.cache.flight import FlightKey
    from edge.cache.held import Held
    from edge.cache.ruling import CachePolicy
    from edge.config.policies import Site
    from edge.finding import Found
    from edge.upstream.fetch import Upstream
    from edge.visit import Visit
    from edge.wire.message import RequestHead


class Asking(Protocol):
    """A request that has been admitted: a visit, or what `admission` says of it."""

    @property
    def site(self) -> Site: ...
    @property
    def request(self) -> RequestHead: ...
    @property
    def policy(self) -> CachePolicy: ...
    @property
    def key(self) -> Key: ...
    @property
    def forwarding(self) -> Forwarding: ...


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
    upstream: Upstream
    forwarding: Forwarding
    policy: CachePolicy
    authority: bytes | None = None  # the Host for the origin, where it is not the client's
    variants: tuple[Held, ...] = ()
    selected: Entry | None = None  # of them, as the law sees it: soft-purged, it is stale
    in_background: bool = False  # no client waits for it

    def outgoing(self, request: RequestHead, upgrade: bytes | None = None) -> RequestHead:
        """`request` as the origin is to see it."""
        out = to_origin(request, self.forwarding, upgrade=upgrade)
        return out if self.authority is None else replace(out, authority=self.authority)


def trip_for(visit: Visit, found: Found) -> Trip:
    """The trip of a visit that has found `found`."""
    return trip_of(visit, visit.parts.upstreams, visit.as_of, found)


def trip_of(asking: Asking, upstreams: Mapping[str, Upstream], as_of: Seq, found: Found) -> Trip:
    """The trip of a request that has found `found`, as of the purge `as_of`."""
    upstream = upstreams[asking.site.origin]
    # A client of HTTP/1.0 may have named no host; an origin would refuse an empty one.
    own_host = None if asking.request.authority else upstream.origin.authority
    return Trip(
        request=asking.request,
        key=asking.key,
        as_of=as_of,
        upstream=upstream,
        forwarding=asking.forwarding,
        policy=asking.policy,
        authority=asking.site.host or own_host,
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
