"""Everything that can be said about a request before the store is asked.

Who asks, which site, what shape, which rule, which key, in this order. It waits for nothing and
touches nothing, so `edge explain` says by it what the exchange does by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.cache.key import forwarded_target, key_of
from edge.errors import ExchangeError, Failure
from edge.guard.address import believed_chain, certain_client, client_address
from edge.wire.hop import Forwarding, claimed_scheme, end_to_end, loops
from edge.wire.message import RequestHead
from edge.wire.target import parse_authority

if TYPE_CHECKING:
    from edge.cache.entry import Key
    from edge.cache.ruling import CachePolicy
    from edge.config.policies import Site
    from edge.guard.address import Networks
    from edge.visit import Parts

ASKS_FOR_KEY: Final = b"cache-status-key"  # RFC 9211 §2.7: keys are for debugging, not for all
PURGE: Final = b"PURGE"
PURGES: Final = frozenset((PURGE, b"PURGEKEYS", b"BAN"))  # what plugins send; see `orders`


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may be answered: `request` is in the form that is judged and forwarded.

    `client` is the client's address; `purges` says that it purges, as it may; `tells_key` that a
    trusted client asks for the key in Cache-Status.
    """

    site: Site
    request: RequestHead
    policy: CachePolicy
    key: Key
    forwarding: Forwarding
    client: bytes
    purges: bool
    tells_key: bool


def admit(parts: Parts, head: RequestHead, peer: bytes) -> Admitted:
    """What `head`, which came from `peer`, amounts to; raises `ExchangeError` to refuse it."""
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
    # What Connection nominates is not the origin's to see, so no variant may rest on it.
    headers = end_to_end(head.headers)
    request = RequestHead(head.method, scheme, authority, target, headers, head.version)
    chain = believed_chain(peer, head.headers, parts.trusted)
    return Admitted(
        site=site,
        request=request,
        policy=site.policy_for(request),
        key=key_of(scheme, authority, target, request, site.key),
        forwarding=Forwarding(parts.name, peer, scheme, authority, chain),
        client=client_address(peer, chain),
        purges=purges,
        tells_key=trusted and ASKS_FOR_KEY in head.headers,
    )


def _authority(head: RequestHead, scheme: bytes) -> bytes:
    """The authority without the port that is the default one of the scheme that was claimed."""
    if scheme == head.scheme or not head.authority:
        return head.authority
    return parse_authority(head.authority).canonical(scheme)


def _may_purge(head: RequestHead, site: Site | None, peer: bytes, trusted: Networks) -> bool:
    """Whether a request comes from where its site lets it purge."""
    client = certain_client(peer, head.headers, trusted)
    return site is not None and client is not None and site.purge_from.trusts(client)
