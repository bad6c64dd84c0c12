"""Everything that can be said about a request before the store is asked.

Who asks, which site, what shape, which rule, which key, in this order. It waits for nothing and
touches nothing, so `edge explain` says by it what the exchange does by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edge.cache.invalidation import SAFE_METHODS
from edge.cache.key import forwarded_target, key_of
from edge.coding import renditions
from edge.errors import ExchangeError, Failure
from edge.guard.address import believed_chain, certain_client, client_address
from edge.routing.experiment import asked, assign_all, key_part
from edge.routing.geo import NOWHERE
from edge.serving.answer import redirection
from edge.wire.cookies import without_cookies
from edge.wire.hop import Forwarding, claimed_scheme, end_to_end, loops
from edge.wire.message import RequestHead
from edge.wire.target import parse_authority

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.cache.entry import Key
    from edge.cache.ruling import CachePolicy
    from edge.guard.address import Networks
    from edge.routing.experiment import Assignment
    from edge.routing.geo import Place
    from edge.serving.terms import Part, Site, Terms
    from edge.serving.visit import Parts
    from edge.wire.message import Pair, ResponseHead

    Drawn = tuple[tuple[bytes, bytes], ...]  # experiment and arm, by name

ASKS_FOR_KEY: Final = b"cache-status-key"  # RFC 9211 §2.7: keys are for debugging, not for all
PURGE: Final = b"PURGE"
FIELDS: Final[dict[Part, bytes]] = {
    "country": b"x-geo-country",
    "continent": b"x-geo-continent",
    "subdivision": b"x-geo-subdivision",
}
GEO_FIELDS: Final = frozenset(FIELDS.values())
NONE: Final[Drawn] = ()
PURGES: Final = frozenset((PURGE, b"PURGEKEYS", b"BAN"))  # what plugins send; see `purging.orders`


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may be answered: `request` is in the form that is judged and forwarded.

    `client` is the client's address, and `place` where that is, as far as it matters; `arms` are
    those of experiments, and `by` is what of both is in the key. `asked` is the target that the
    origin is asked for; `redirect` is the answer where there is nothing to ask for. `purges` says
    that it purges, as it may; `tells_key` that a trusted client asks for the key in Cache-Status.
    `id` is what the request goes by, where somebody before this node has named it. What purges may
    be whole `orders`, as an operator's, from a node that is known.
    """

    site: Site
    request: RequestHead
    terms: Terms
    key: Key
    forwarding: Forwarding
    client: bytes
    purges: bool
    tells_key: bool
    id: str = ""
    orders: bool = False
    place: Place = NOWHERE
    arms: tuple[Assignment, ...] = ()
    by: bytes = b""
    asked: bytes = b""
    redirect: ResponseHead | None = None

    @property
    def policy(self) -> CachePolicy:
        """On what terms the store may be used."""
        return self.terms.cache


def admit(
    parts: Parts, head: RequestHead, peer: bytes, *, relayed: bool = False, drawn: Drawn = NONE
) -> Admitted:
    """What `head`, which came from `peer`, amounts to; raises `ExchangeError` to refuse it.

    Where it is `relayed`, another worker of this node has admitted it before, and has `drawn`
    these arms for it: to an edge, all else is the same.
    """
    site = parts.sites.find(head.authority)
    purges = head.method in PURGES and _may_purge(head, site, peer, parts.trusted)
    if head.method == PURGE and not purges:  # to everyone else there is no such method
        raise ExchangeError(Failure.METHOD_REFUSED)
    if site is None:
        raise ExchangeError(Failure.MISDIRECTED, head.authority.decode("latin-1"))
    if loops(head.headers, parts.name):
        raise ExchangeError(Failure.LOOP)
    trusted = parts.trusted.trusts(peer)
    target = head.target if head.target == b"*" else forwarded_target(head.target, site.key)
    scheme = (claimed_scheme(head.headers) if trusted else None) or head.scheme
    authority = _authority(head, scheme)
    chain = believed_chain(peer, head.headers, parts.trusted)
    client = client_address(peer, chain)
    place = parts.ways.place_of(client) if site.needs_place else NOWHERE
    told = _told(site, place)
    # What Connection nominates is not the origin's to see, so no variant may rest on it.
    headers = end_to_end(head.headers)
    if site.own_fields:
        headers = headers.without(site.own_fields)
    if site.tells:  # answers may vary on them: they have to be as the origin will see them
        headers = headers.without(GEO_FIELDS).plus(*told)
    request = RequestHead(head.method, scheme, authority, target, headers, head.version)
    arms = () if purges or not site.experiments else _arms(parts, site, request, place, drawn)
    terms = site.terms_for(request, place)
    if arms:  # what they change is told in fields, so their cookies tell the origin nothing
        own = without_cookies(headers, site.own_cookies)
        request = request if own is headers else replace(request, headers=own)
    if terms.compress is not None:
        writes = request.method not in SAFE_METHODS
        asked_for = renditions.asked(request.headers, terms.compress, writes=writes)
        request = replace(request, headers=asked_for)
    by = key_part(arms) + _place_part(site, place) + terms.by
    return Admitted(
        site=site,
        request=request,
        terms=terms,
        key=key_of(scheme, authority, target, request, site.key, by),
        forwarding=Forwarding(parts.name, peer, scheme, authority, chain, told),
        client=client,
        purges=purges,
        tells_key=trusted and ASKS_FOR_KEY in head.headers,
        place=place,
        arms=arms,
        by=by,
        asked=_asked(terms, request, arms),
        redirect=None if purges else _redirect(terms, request),
    )


def _asked(terms: Terms, request: RequestHead, arms: Sequence[Assignment]) -> bytes:
    """What the origin is asked for; raises ProtocolError for a path that would leave its place."""
    target = request.target
    if target == b"*":
        return target
    if terms.rewrite is not None:
        target = terms.rewrite.applied(target)
    return asked(arms, target)


def _redirect(terms: Terms, request: RequestHead) -> ResponseHead | None:
    if terms.redirect is None or request.target == b"*":
        return None
    location = terms.redirect.location(request)
    return None if location is None else redirection(terms.redirect.status, location)


def _arms(
    parts: Parts, site: Site, request: RequestHead, place: Place, drawn: Drawn
) -> tuple[Assignment, ...]:
    """The arms of a request, as its visitor has them or gets them now."""
    rolls = [parts.ways.chance() for _ in site.experiments]
    arms = assign_all(site.experiments, request, rolls, place)
    if not drawn:
        return arms
    told = dict(drawn)
    return tuple([each.drawn_as(told) for each in arms])


def _told(site: Site, place: Place) -> tuple[Pair, ...]:
    """What the origin is told of a client's place; nothing where it is not known."""
    values = ((FIELDS[part], getattr(place, part).encode("ascii")) for part in site.tells)
    return tuple((name, value) for name, value in values if value)


def _place_part(site: Site, place: Place) -> bytes:
    """What of a place is in the key: "" is a place, too."""
    values = (getattr(place, part).encode("ascii") for part in site.keys)
    return b"".join(b"@%d:%b" % (len(value), value) for value in values)


def _authority(head: RequestHead, scheme: bytes) -> bytes:
    """The authority without the port that is the default one of the scheme that was claimed."""
    if scheme == head.scheme or not head.authority:
        return head.authority
    return parse_authority(head.authority).canonical(scheme)


def _may_purge(head: RequestHead, site: Site | None, peer: bytes, trusted: Networks) -> bool:
    """Whether a request comes from where its site lets it purge."""
    client = certain_client(peer, head.headers, trusted)
    return site is not None and client is not None and site.purge_from.trusts(client)
