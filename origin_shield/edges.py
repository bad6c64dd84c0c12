"""Who is an edge, and what is believed of one: a shield's admission.

A shield is no public server. Whoever asks shows first that it is an edge (`Identity`): here by the
field of `wire.proof`, signed with a secret that both have. To all others every request is answered
403, whatever it asks for, and the connection is closed; nothing else of it is looked at.

*Believed*, since it is proven: the client's address and the hops up to the edge, the request's id,
the scheme and the authority that the client asked with, which origins the edge would ask, what it
keys by beside the URL, and the target that the origin is to be asked for. Fields that say what the
edge found out (`wire.hop.vouched_for`, such as a client's country) pass on to the origin; from
anyone else they would be dropped. What a client says of itself is believed no more than at an
edge.

*An edge may purge*, for the whole node, where its proof says that it orders it: it has judged who
may. The method alone says nothing, as an edge passes on what its clients ask. A PURGE with a JSON
document for its body is an order as the shield's own operator would give it; it is of
no site, so it may be sent to the shield by whatever name.

*Health.* No path is open without a proof: it would be the one thing that everyone may ask, and a
shield whose proofs fail is of no use to an edge, however alive. An edge asks `OPTIONS *` with
`Max-Forwards: 0` (RFC 9110 §7.6.2, §9.3.7) and its proof: the answer is the shield's own, costs no
origin anything, and says that it is reached, alive, and of the same secret and time.

*Unsafe methods.* A proof can be repeated while its time lasts. A GET or HEAD may be; for any other
method but OPTIONS and TRACE a proof counts once, on whichever worker (`used`). A worker that is
relayed a request does not count it again.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Protocol

from edge.cache.entry import Key
from edge.cache.key import DEFAULT as BY_URL
from edge.cache.key import DIGEST_BYTES, key_of
from edge.errors import ExchangeError, Failure
from edge.observe.record import text
from edge.routing.route import Order
from edge.serving import admission
from edge.serving.admission import NONE, PURGE, PURGES, Admitted
from edge.serving.terms import Site, Terms
from edge.wire.hop import Forwarding, hops_left, vouched_for
from edge.wire.proof import FIELD, Claims, mark, verify
from origin_shield.used import MARK_BYTES, NoRoomError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.guard.address import Networks
    from edge.serving.admission import Drawn
    from edge.serving.visit import Parts
    from edge.wire.message import RequestHead
    from origin_shield.used import Used

SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))  # RFC 9110 §9.2.1
MOST_ROUTED: Final = 65_536  # of terms by origins; past it, they are made anew


class Identity(Protocol):
    """Tells an edge from everyone else: by a secret, as here, or by a client certificate."""

    def known(self, head: RequestHead, peer: bytes, now: float) -> Claims:
        """What the edge that sends `head` claims; raises `ExchangeError` where it is none."""
        ...


@dataclass(frozen=True, slots=True)
class BySecret:
    """Edges that sign with any of `secrets`, their clocks at most `skew_s` off."""

    secrets: tuple[bytes, ...] = field(repr=False)
    skew_s: float

    def known(self, head: RequestHead, peer: bytes, now: float) -> Claims:
        """What the edge that sends `head` claims; raises `ProofError`."""
        return verify(self.secrets, head, now, self.skew_s)


@dataclass(frozen=True, slots=True)
class Entry:
    """Who is let in: where from (empty: anywhere), and as whom.

    An unsafe method's proof is remembered for `remember_s` after it has come.
    """

    networks: Networks
    identity: Identity
    remember_s: float


class Admission:
    """Admits requests of proven edges. One for each reading of the settings, in each process."""

    def __init__(
        self,
        entry: Entry,
        used: Used,
        now: Callable[[], float],
        *,
        most_routed: int = MOST_ROUTED,
    ) -> None:
        self._entry = entry
        self._used = used
        self._now = now
        self._most_routed = most_routed
        self._routed: dict[tuple[int, tuple[str, ...]], tuple[Terms, Terms]] = {}

    def admit(
        self,
        parts: Parts,
        head: RequestHead,
        peer: bytes,
        *,
        relayed: bool = False,
        drawn: Drawn = NONE,
    ) -> Admitted:
        """What `head` amounts to, which an edge has sent; raises `ExchangeError` to refuse it.

        Where it is `relayed`, another worker has taken the proof of an unsafe method.
        """
        entry, now = self._entry, self._now()
        if entry.networks and not entry.networks.trusts(peer):
            raise ExchangeError(Failure.NOT_FROM_HERE)
        claims = entry.identity.known(head, peer, now)
        if head.method not in SAFE and not relayed:
            self._take(head, now)
        return self._believed(parts, head, peer, claims)

    def _take(self, head: RequestHead, now: float) -> None:
        octets = b64decode(mark(head))[:MARK_BYTES]
        try:
            is_new = self._used.take(octets, now, now + self._entry.remember_s)
        except NoRoomError:
            raise ExchangeError(Failure.OVERLOADED, "too many unsafe requests at once") from None
        if not is_new:
            raise ExchangeError(Failure.PROOF_USED)

    def _believed(self, parts: Parts, head: RequestHead, peer: bytes, claims: Claims) -> Admitted:
        """The request as the edge tells of it, judged as an edge judges a client's."""
        told = replace(
            head,
            scheme=claims.scheme,
            authority=head.authority if claims.host is None else claims.host,
            headers=head.headers.without((FIELD,)),
        )
        orders = claims.order and head.method in PURGES
        if (head.target == b"*" and hops_left(head) == 0) or (orders and _is_whole(head)):
            admitted = _of_no_site(parts, told, peer)
        else:
            admitted = admission.admit(parts, told, peer)
        return replace(
            admitted,
            terms=self._routed_by(parts, admitted.terms, claims.origins),
            key=_keyed(admitted.key, claims.key),
            asked=admitted.asked if claims.target is None else claims.target,
            forwarding=replace(
                admitted.forwarding,
                chain=tuple(b"" if hop == b"unix" else hop for hop in claims.hops),
                vouched=vouched_for(told.headers),
            ),
            client=claims.client,
            purges=orders,  # never by its method alone: clients use the same
            orders=orders,
            id=text(claims.id),
        )

    def _routed_by(self, parts: Parts, terms: Terms, origins: Sequence[bytes]) -> Terms:
        """The terms with those of these origins that this shield knows, in that order; as they are
        where it knows none. The edge has drawn the canary, and had its turns.

        The same object each time: what is remembered of terms goes by that.
        """
        known = parts.ways.groups
        names = tuple([name for name in map(text, origins) if name in known])
        if not names:
            return terms
        routed = self._routed.get((id(terms), names))
        if routed is None:
            if len(self._routed) >= self._most_routed:
                self._routed.clear()
            route = replace(terms.route, names=names, order=Order.FIRST, canary=None)
            if route == terms.route:
                return terms
            # Kept with what it is named by, or another could come to have the same identity.
            routed = self._routed[id(terms), names] = (terms, replace(terms, route=route))
        return routed[1]


def _keyed(key: Key, part: bytes) -> Key:
    """The key with what the edge keys by beside the URL; a purge of the URL covers them all."""
    if not part:
        return key
    return Key(blake2b(key.digest + part, digest_size=DIGEST_BYTES).digest(), key.url)


_OF_NO_SITE: Final = Site(name="*", key=BY_URL, terms=Terms(), purge_reach="node")


def _is_whole(head: RequestHead) -> bool:
    """Whether it purges what its body names, and not its target."""
    return head.method == PURGE and head.headers.get(b"content-type") == b"application/json"


def _of_no_site(parts: Parts, head: RequestHead, peer: bytes) -> Admitted:
    """What ends here, whatever host it names: an order to purge, or OPTIONS *, by which the shield
    tells that it answers."""
    return Admitted(
        site=_OF_NO_SITE,
        request=head,
        terms=_OF_NO_SITE.terms,
        key=key_of(head.scheme, head.authority, head.target, head),
        forwarding=Forwarding(parts.name, peer, head.scheme, head.authority),
        client=peer,
        purges=False,
        tells_key=False,
    )
