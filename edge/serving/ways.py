"""By which way a request that has been admitted reaches an origin: the seam of route and network.

A site's terms and a visitor's arms say which origins, in which order; the client's place says
which of them is nearest; the settings say whether a shield stands between. Here that becomes a
`Way` (`upstream.way`), which knows who is well and goes on to the next.

What an origin is asked for may be another path than the client's (`rewrite`, an arm's prefix). A
shield is asked for the client's own URL, since it stores and purges by that; which target the
origin is to be asked for, which origins, and what else the key is made of, it is told in the proof
that this node is one of its edges (`wire.proof`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from edge.cache.key import key_of
from edge.errors import ExchangeError, Failure
from edge.routing.experiment import route_of
from edge.routing.route import Order, Route
from edge.serving.shielding import claims_of, dress
from edge.upstream.way import Persistence, Stop, Way
from edge.wire.proof import MOST_ORIGINS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge.cache.entry import Key
    from edge.routing.experiment import Assignment
    from edge.routing.geo import Coordinates, Place
    from edge.serving.shielding import Voice
    from edge.serving.terms import Site, Terms
    from edge.upstream.group import Group
    from edge.upstream.origin import Origin
    from edge.wire.hop import Forwarding
    from edge.wire.message import RequestHead

SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})  # RFC 9110 §9.2.1
WRITE: Final = b"w"  # no other part is so short


class Bound(Protocol):
    """A request as far as its way depends on it: what `admission` says of it, or a visit."""

    @property
    def site(self) -> Site: ...
    @property
    def terms(self) -> Terms: ...
    @property
    def request(self) -> RequestHead: ...
    @property
    def key(self) -> Key: ...
    @property
    def forwarding(self) -> Forwarding: ...
    @property
    def client(self) -> bytes: ...
    @property
    def arms(self) -> tuple[Assignment, ...]: ...
    @property
    def asked(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Shielding:
    """How this node reaches its shields, and speaks to them; `without` them it may ask the origins
    itself, or may not."""

    group: Group
    voice: Voice
    without: bool


@dataclass(frozen=True, slots=True)
class Ways:
    """All that ways are made of. `place_of` tells where a client is, `now` is in Unix seconds, and
    `chance` in [0, 1)."""

    groups: Mapping[str, Group]
    place_of: Callable[[bytes], Place]
    now: Callable[[], float]
    chance: Callable[[], float]
    shielding: Shielding | None = None
    at: Coordinates | None = None  # where the node is, for clients who are nobody knows where

    def way_of(self, bound: Bound, request_id: str = "") -> Way:
        """The way of a request, whose id a shield is told."""
        route = _route(bound)
        names = route.origins(self._whereabouts(route, bound.client), self._places, self.chance())
        origins = [
            Stop(self.groups[name], _origin_dress(bound, self.groups[name])) for name in names
        ]
        tries = route.tries
        stops = origins
        if route.by_shield and self.shielding is not None:
            shielding = self.shielding
            dress = partial(self._to_shield, shielding, bound, names, request_id)
            shield = Stop(shielding.group, dress, is_tier=True)
            stops = [shield, *origins] if shielding.without else [shield]
            tries += len(shielding.group.ids)  # that shields are dead costs an origin no try
        return Way(
            stops,
            Persistence(tries, route.budget_s),
            key=bound.key.digest if stops is origins else shield_key(bound),
            address=bound.client,
        )

    def origins_of(self, bound: Bound) -> tuple[str, ...]:
        """The names of the origins in the order in which they would be asked, leaving chance
        aside."""
        route = replace(_route(bound), canary=None)
        return route.origins(self._whereabouts(route, bound.client), self._places, 0.0)

    def _whereabouts(self, route: Route, client: bytes) -> Coordinates | None:
        if route.order is not Order.NEAREST or len(route.names) == 1:
            return None
        return self.place_of(client).at or self.at

    @property
    def _places(self) -> Mapping[str, Coordinates | None]:
        return {name: group.at for name, group in self.groups.items()}

    def _to_shield(
        self,
        shielding: Shielding,
        bound: Bound,
        names: tuple[str, ...],
        request_id: str,
        request: RequestHead,
        origin: Origin,
    ) -> RequestHead:
        """`request` as a shield is to have it: with the client's URL, and the proof."""
        claims = claims_of(
            shielding.voice,
            bound.forwarding,
            request_id.encode("ascii", "replace") or b"-",
            origins=[name.encode("ascii") for name in names[:MOST_ORIGINS]],
            key=_beyond_url(bound),
            target=bound.asked if bound.asked != request.target else None,
        )
        named = request if request.authority else replace(request, authority=origin.authority)
        try:
            return dress(named, claims, shielding.voice, self.now())
        except ValueError as error:  # a rewrite has made it longer than a proof may be
            raise ExchangeError(Failure.TARGET_TOO_LONG, "for a shield to be told") from error


def shield_key(bound: Bound) -> bytes:
    """What chooses the shield of a request: the URL alone, so that one shield has all that is
    stored for it, and hears of a write to it, by whatever else that is keyed."""
    return _key_by_url(bound).digest


def _key_by_url(bound: Bound) -> Key:
    told, request = bound.forwarding, bound.request
    return key_of(told.scheme, told.host, request.target, request)


def _route(bound: Bound) -> Route:
    """The route of a request: an arm's origins stand in place of the route's."""
    route, names = bound.terms.route, route_of(bound.arms)
    return replace(route, names=names, order=Order.FIRST, canary=None) if names else route


def _origin_dress(bound: Bound, group: Group) -> Callable[[RequestHead, Origin], RequestHead]:
    def dress(request: RequestHead, origin: Origin) -> RequestHead:
        # A client of HTTP/1.0 may have named no host; an origin would refuse an empty one.
        authority = group.host or request.authority or origin.authority
        return replace(request, authority=authority, target=bound.asked)

    return dress


def _beyond_url(bound: Bound) -> bytes:
    """What a shield has to key by beside the URL, in few bytes; b"" where that is nothing.

    It need not know by what this node's settings tell answers apart: fields and cookies of the
    request, places, arms, rules. A write goes by a key of its own where there may be several for
    its URL: so a shield can tell that all of them are to be made unusable.
    """
    if bound.key != _key_by_url(bound):
        return bound.key.digest
    is_write = bound.request.method not in SAFE
    return WRITE if is_write and bound.site.splits_keys else b""
