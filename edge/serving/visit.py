"""What is known of one request while it is being answered, and what is needed to answer any."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

import trio
from msgspec import UNSET, UnsetType

from edge.cache.reasons import Reason
from edge.coding.library import Library
from edge.errors import ExchangeError, Side
from edge.observe.record import Outcome, Record, text, told_arm
from edge.routing.experiment import drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edge.cache.entry import Key, Seq
    from edge.cache.flight import Flights
    from edge.cache.held import Held
    from edge.cache.journal import Follower
    from edge.cache.ruling import CachePolicy
    from edge.cache.store import Store
    from edge.coding.coders import Coders
    from edge.guard.address import Networks
    from edge.hop.relay import Relays
    from edge.listen.connection import ClientStream
    from edge.listen.hop import HopStream
    from edge.purging.execution import Purging
    from edge.routing.experiment import Assignment
    from edge.routing.site import HostTable
    from edge.serving.admission import Admitted, Drawn
    from edge.serving.errand import Errands
    from edge.serving.terms import Site, Terms
    from edge.serving.ways import Ways
    from edge.wire.hop import Forwarding
    from edge.wire.message import RequestHead, ResponseHead


class Admit(Protocol):
    """Says what a request amounts to before the store is asked, or refuses it.

    `relayed` says that another worker of this node has admitted it, and `drawn` which arms it has
    drawn for it. Raises `ExchangeError`.
    """

    def __call__(
        self,
        parts: Parts,
        head: RequestHead,
        peer: bytes,
        *,
        relayed: bool = False,
        drawn: Drawn = (),
    ) -> Admitted: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """All that follows from the settings; swapped whole when they are read again.

    `salt` is secret: multipart boundaries are made from it. `admit` says what a request amounts
    to; where the answer hangs on more than the request's bytes, its peer and these parts, it
    `remembers` nothing, and each request is admitted anew.
    """

    name: bytes
    sites: HostTable[Site]
    ways: Ways
    trusted: Networks
    salt: bytes
    admit: Admit
    remembers: bool

    def settled(self) -> Parts:
        """The same without chance: who asks what would be done is told the same each time."""
        return replace(self, ways=replace(self.ways, chance=_none))


def _none() -> float:
    return 0.0


@dataclass(slots=True)
class Tools:
    """What outlives the settings. `background` belongs to the node: fetches outlive clients.

    `relays` reach the other workers; None where this one owns all keys. `coders` code bodies; None
    where none is to be. `library` has the dictionaries that they may be coded with.
    """

    store: Store
    flights: Flights[Held]
    purges: Follower
    purging: Purging
    errands: Errands
    background: trio.Nursery
    now: Callable[[], float]
    new_id: Callable[[], str]
    log: Callable[[Record], None]
    complain: Callable[[str, str, str | None], None]  # kind, message, request id
    relays: Relays | None = None
    coders: Coders | None = None
    library: Library = field(default_factory=Library)


OUTCOMES: Final = {
    Reason.HIT: Outcome.HIT,
    Reason.STALE_WHILE_REVALIDATE: Outcome.STALE,
    Reason.STALE_ACCEPTED: Outcome.STALE,
    Reason.STALE_IF_ERROR: Outcome.STALE,
    Reason.METHOD: Outcome.BYPASS,
    Reason.PURGE: Outcome.BYPASS,
    Reason.REDIRECT: Outcome.BYPASS,
    Reason.BYPASS: Outcome.BYPASS,
    Reason.BODY: Outcome.BYPASS,
    Reason.UPGRADE: Outcome.BYPASS,
}
"""What an answer is counted as, by its reason; a miss where none is named."""


class Visit:
    """One request and what has been found out about it; `admit` fills in the rest."""

    site: Site
    request: RequestHead
    terms: Terms
    policy: CachePolicy
    key: Key
    forwarding: Forwarding
    client: bytes
    arms: tuple[Assignment, ...]
    asked: bytes
    redirect: ResponseHead | None

    def __init__(
        self, tools: Tools, parts: Parts, stream: ClientStream, head: RequestHead
    ) -> None:
        self.tools = tools
        self.parts = parts
        self.stream = stream
        self.head = head
        self.as_of: Seq = tools.purges.current().latest
        self.because: Reason | None = None  # why it went forward, where that failed
        self.purges = False  # it is a purge, from where the site lets it come
        self.orders = False  # as whole as an operator's, if it comes to that
        self.tells_key = False  # a trusted client has asked for the key in Cache-Status
        self.hop: HopStream | None = None  # another worker speaks for the client
        self.lease: int | None = None  # for a copy of what was found, taken before that
        self.variants: tuple[Held, ...] = ()  # among which that was
        self._began = trio.current_time()
        self._forwarded: float | None = None
        self.record = Record(
            time=tools.now(),
            id=tools.new_id(),
            client=text(stream.peer),
            method=text(head.method),
            host=text(head.authority),
            target=text(head.target),
            version=text(head.version),
        )

    def admit(self, admitted: Admitted) -> None:
        """Take over what is known of the request before the store is asked."""
        self.site, self.request = admitted.site, admitted.request
        self.terms, self.policy, self.key = admitted.terms, admitted.policy, admitted.key
        self.forwarding, self.client = admitted.forwarding, admitted.client
        self.arms = admitted.arms
        self.asked, self.redirect = admitted.asked, admitted.redirect
        self.purges = admitted.purges
        self.orders = admitted.orders
        self.tells_key = admitted.tells_key
        self.record.client = text(admitted.client)
        if admitted.arms:
            self.record.arms = arms_told(admitted.arms)
        self.record.id = admitted.id or self.record.id

    @property
    def id(self) -> str:
        """The request's id, for the log and for the words of an error."""
        return self.record.id

    @property
    def drawn(self) -> Drawn:
        """The arms that chance has given the visitor, by experiment."""
        return drawn(self.arms)

    @property
    def cookies(self) -> tuple[bytes, ...]:
        """What the visitor is given to remember: values of Set-Cookie."""
        scheme = self.request.scheme
        return tuple([each.cookie(scheme) for each in self.arms if each.is_new])

    def forward(self) -> None:
        """The request goes to an origin now, or waits for one that did."""
        self._forwarded = trio.current_time()

    def landed(self, upstream: str | None) -> None:
        """The answer, or the failure, of who was asked is known."""
        self.record.upstream = upstream
        if self._forwarded is not None:
            self.record.upstream_s = round(trio.current_time() - self._forwarded, 6)

    def answered(
        self, because: Reason, fate: Reason | None, ttl: float | None, status: int
    ) -> None:
        """What is answered, and why; `fate` is what became of a fetched answer."""
        record = self.record
        record.ttl = None if ttl is None else int(ttl // 1)
        if fate is Reason.FRESHENED:
            record.cache = Outcome.REVALIDATED
        else:
            record.cache = OUTCOMES.get(because, Outcome.MISS)
        record.reason = because.slug
        if fate is not None and fate is not Reason.STORED:
            record.reason = f"{because.slug}/{fate.slug}"
        self.head_sent(status)

    def head_sent(self, status: int) -> None:
        """The answer's head is on its way."""
        self.record.status = status
        self.record.first_byte_s = round(trio.current_time() - self._began, 6)

    def refused(self, error: ExchangeError) -> None:
        """The client is told of `error`."""
        self.failed(error)
        self.record.reason = (self.because.slug + "/" if self.because else "") + error.failure.slug
        self.head_sent(error.status)

    def failed(self, error: ExchangeError) -> None:
        """Something went wrong, whether or not the client will notice."""
        self.record.error = error.failure.slug
        if self.record.status == 0:
            by_client = error.side is Side.CLIENT
            self.record.cache = Outcome.REFUSED if by_client else Outcome.FAILED
            self.record.status = error.status
        if error.side is not Side.CLIENT:
            self.tools.complain(error.failure.slug, error.detail, self.id)

    def close(self) -> None:
        """The exchange is over: hand its record on."""
        self.record.bytes = self.stream.sent_bytes
        self.record.total_s = round(trio.current_time() - self._began, 6)
        self.tools.log(self.record)


def arms_told(arms: Iterable[Assignment]) -> tuple[str, ...] | UnsetType:
    """Arms as the log has them and as they are counted; who is held out is not."""
    told = tuple(
        [
            told_arm(each.experiment.id, text(each.arm.name), is_new=each.is_new)
            for each in arms
            if not each.is_held_out
        ]
    )
    return told or UNSET
