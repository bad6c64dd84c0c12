"""One trip upstream: ask, decide what may be kept of the answer, pour its body where it belongs.

An errand belongs to a flight and runs in the background, so that it outlives the client who set it
off. It takes the answer as fast as the origin gives it, into the store or into a private fill;
clients read from there at their own pace, and the origin's connection is free again as soon as the
last byte has come.

When the last reader has left, the errand goes on only while that is worth it: to the end of a body
whose rest is known and small or mostly here, a little way into one of unknown length (a page, as a
rule, is over before that; an endless stream is not), and never on behalf of no one for an answer
that will not be stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from edge.cache import decision, vary
from edge.cache.entry import body_mark
from edge.cache.fill import MemoryBody
from edge.cache.flight import Failed, Flight, Flights, Private, Spurned, Stored
from edge.cache.held import Held, asked_at
from edge.cache.purge import Verdict
from edge.cache.reasons import Reason
from edge.cache.ruling import Forward, Freshen, Keep, Refetch, ServeStale
from edge.cache.scope import MOST_BYTES, digests
from edge.cache.validation import PRECONDITIONS, conditional
from edge.errors import ExchangeError, Failure, let_go
from edge.serving.gathering import GatheredBody
from edge.serving.trip import crowd_of
from edge.wire.fields import format_date
from edge.wire.message import End

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edge.cache.entry import Entry, Times
    from edge.cache.fill import Fill
    from edge.cache.journal import Follower
    from edge.cache.ruling import OnResponse
    from edge.cache.store import Store
    from edge.listen.connection import RequestBody
    from edge.serving.trip import Trip
    from edge.upstream.fetch import BodySource, Response
    from edge.upstream.transport import Transport
    from edge.wire.message import RequestHead, ResponseHead

REST_BYTES: Final = 64 << 20  # of a known rest: what is fetched for nobody in particular
UNKNOWN_BYTES: Final = 1 << 20
ALONE_S: Final = 60.0


@dataclass(slots=True)
class Switch:
    """A change of protocols that a client asks for, and the origin's transport if it agrees.

    `done` is set by whoever used the transport; it belongs to the errand until then.
    """

    protocols: bytes
    transport: Transport | None = None
    leftover: bytes = b""
    done: trio.Event = field(default_factory=trio.Event)


AnyFlight: TypeAlias = Flight[Held]


def _every_key(digest: bytes) -> bool:
    """A worker that is the only one owns all keys."""
    return True


class Errands:
    """Runs errands for a node, or for a worker that `owns` some of its keys, by their digests."""

    def __init__(
        self,
        store: Store,
        flights: Flights[Held],
        purges: Follower,
        now: Callable[[], float],
        complain: Callable[[str, str, str | None], None],
        owns: Callable[[bytes], bool] = _every_key,
    ) -> None:
        self._owns = owns
        self._store = store
        self._flights = flights
        self._purges = purges
        self._now = now
        self._complain = complain
        self._bodies = count()

    async def fetch(self, flight: AnyFlight, trip: Trip) -> None:
        """Bring an answer that may be stored; lands `flight`, raises nothing."""
        await self._see_through(flight, trip, self._fetch_twice(flight, trip))

    async def _see_through(self, flight: AnyFlight, trip: Trip, errand: Awaitable[None]) -> None:
        """Make sure that `flight` lands, whatever happens to its errand."""
        error = ExchangeError(Failure.DRAINING)  # stands if the errand is cancelled
        try:
            await errand
        except ExchangeError as known:
            error = known
        except Exception as unknown:  # around a flight: its end is told, not thrown
            self._complain("internal", f"a fetch failed: {unknown!r}", None)
            error = ExchangeError(Failure.INTERNAL)
        finally:
            flight.upstream = trip.upstream.told
            if trip.upstream.refused:  # the client has its answer, and the operator has to know
                self._complain(Failure.SHIELD_REFUSED.slug, trip.upstream.refused, None)
            let_go(error)
            self._flights.land(flight, Failed(error))  # says nothing if it has landed already

    async def _fetch_twice(self, flight: AnyFlight, trip: Trip) -> None:
        if await self._fetch(flight, trip, trip.variants):
            # RFC 9111 §4.3.4: a 304 that names nothing of ours. Ask again, for the whole.
            await self._fetch(flight, trip, ())

    async def _fetch(self, flight: AnyFlight, trip: Trip, variants: tuple[Held, ...]) -> bool:
        """One request for the whole; True when it has to be asked again without conditions."""
        entries = tuple(held.entry for held in variants)
        asked = conditional(trip.request, entries, trip.policy.vary)
        validating = b"if-none-match" in asked.headers or b"if-modified-since" in asked.headers
        request = trip.outgoing(asked)
        async with trip.upstream.fetch(request, None, interim=_teller(flight)) as response:
            flight.upstream = trip.upstream.told
            head = with_date(response.head, response.times)
            verdict = decision.on_response(
                trip.request,
                head,
                response.times,
                trip.policy,
                variants=entries,
                validating=validating,
                as_of=trip.as_of,
            )
            match verdict:
                case Keep() if self._is_overtaken(flight, trip, verdict):
                    await self._forward(flight, trip, Reason.OVERTAKEN, head, response)
                case Keep() if variants and self._may_be_covered_for(trip, head):
                    await self._forward(flight, trip, Reason.STATUS, head, response)
                case Keep():
                    await self._keep(flight, trip, verdict, head, response)
                case Freshen():
                    held = _held(variants, entries, verdict.old)
                    return not self._freshen(flight, trip, verdict, held, head)
                case Refetch():
                    self._drop(_held(variants, entries, verdict.drop))
                    return True
                case Forward():
                    self._drop(_held(variants, entries, verdict.drop))
                    await self._forward(flight, trip, verdict.because, head, response)
        return False

    def _is_overtaken(self, flight: AnyFlight, trip: Trip, keep: Keep) -> bool:
        """Whether an answer was asked for before a write, or a purge that covers it."""
        if flight.overtaken:
            return True
        purges = self._purges.current()
        if trip.as_of >= purges.latest:
            return False
        return purges.verdict(trip.as_of, keep.scopes(trip.key)) is Verdict.DEAD

    def _is_purged(self, held: Held) -> bool:
        """Whether what is held has been purged."""
        return self._purges.current().verdict(held.passed, held.entry.scopes) is Verdict.DEAD

    def _renewed(self, trip: Trip, held: Held, new: Entry) -> Entry | None:
        """`new` as it may stand for what is held from now on; None if that is of no use any more.

        So it is where its body broke off, or a purge has covered it since it was asked about: the
        answer may bring other tags, and would escape the purge by them. What a soft purge has
        covered since keeps its old scopes for that reason, until it is asked about again. Where
        someone asked later and has been answered, that answer stands.
        """
        held = held.newest
        if self._is_purged(held) or (held.fill is not None and held.fill.failed):
            return None
        if asked_at(new) < asked_at(held.entry):
            return held.entry
        if self._purges.current().verdict(trip.as_of, held.entry.scopes) is Verdict.LIVE:
            return new
        scopes = b"".join(sorted(digests(new.scopes) | digests(held.entry.scopes)))
        return replace(new, scopes=scopes) if len(scopes) <= MOST_BYTES else None

    def _may_be_covered_for(self, trip: Trip, head: ResponseHead) -> bool:
        """Whether a stale answer may stand in for this one, storable as it is (RFC 5861 §4)."""
        ruling = decision.on_failure(trip.selected, head, self._now(), trip.policy)
        return isinstance(ruling, ServeStale)

    def _drop(self, held: Held | None) -> None:
        if held is not None:
            self._store.drop(held)

    async def _keep(
        self, flight: AnyFlight, trip: Trip, verdict: Keep, head: ResponseHead, response: Response
    ) -> None:
        """Store the answer; whoever waits for the flight reads it as it comes."""
        length = announced_length(trip.request, head)
        mark = body_mark(response.times, trip.as_of, next(self._bodies))
        entry = verdict.entry(
            trip.key,
            head.status,
            response.times,
            trip.as_of,
            length=length,
            reason=head.reason,
            body=mark,
        )
        held = self._store.begin(entry)
        fill = held.fill
        assert fill is not None
        if trip.in_background or flight.abandoned:
            fill.reader().close()  # where it can be no more than a window, wait for no reader
        self._flights.land(flight, Stored(held, head, verdict.because))
        error = ExchangeError(Failure.DRAINING)  # stands if the errand is cancelled, or fails us
        whole = False
        try:
            await self._pour(response, fill, flight, alone=trip.in_background)
            whole = True
        except ExchangeError as known:
            error = known
        finally:
            let_go(error)
            if not whole:
                self._store.abort(held, error)
        if whole:
            await self._store.commit(held)
            self._drop_superseded(trip, held)
            if self._is_purged(held):  # meanwhile: it would only take up room
                self._store.drop(held)

    def _drop_superseded(self, trip: Trip, newest: Held) -> None:
        """Drop what a newer answer of another variant stands in for: its origin changed Vary."""
        entries = [held.entry for held in trip.variants]
        old = vary.superseded(entries, trip.request, newest.entry, trip.policy.vary)
        for held in trip.variants:
            if held.entry in old and held.entry.variant != newest.entry.variant:
                self._store.drop(held)

    def _freshen(
        self,
        flight: AnyFlight,
        trip: Trip,
        verdict: Freshen,
        held: Held | None,
        head: ResponseHead,
    ) -> bool:
        """Renew what a 304 vouches for; False if that is of no use any more, and is dropped."""
        assert held is not None  # it was offered
        new = self._renewed(trip, held, verdict.entry)
        if new is None:
            self._drop(held)
            return False
        self._flights.land(flight, Stored(self._store.freshen(held, new), head, verdict.because))
        return True

    async def _forward(
        self,
        flight: AnyFlight,
        trip: Trip,
        because: Reason,
        head: ResponseHead,
        response: Response,
    ) -> None:
        """Give the answer to the leader alone."""
        _check_unasked(trip.request, head)
        spurned = head.status in decision.TROUBLE and bool(trip.variants)
        if not spurned and because is not Reason.OVERTAKEN:
            self._flights.remember_lonely(trip.key.digest, crowd_of(trip.request))
        kind: type[Private] | type[Spurned] = Spurned if spurned else Private
        if trip.in_background or flight.abandoned:
            # Nobody's: who has joined meanwhile is no leader, and asks for an answer of its own.
            self._flights.land(flight, kind(head, MemoryBody(b""), because))
            return
        fill = self._store.private_fill(announced_length(trip.request, head))
        self._flights.land(flight, kind(head, fill.reader(), because))
        await self._pour_privately(response, fill, flight)

    async def pass_on(
        self, flight: AnyFlight, trip: Trip, body: RequestBody | None, switch: Switch | None
    ) -> None:
        """Send one client's request as it is, for an answer that is that client's alone."""
        await self._see_through(flight, trip, self._pass_on(flight, trip, body, switch))

    async def _pass_on(
        self, flight: AnyFlight, trip: Trip, body: RequestBody | None, switch: Switch | None
    ) -> None:
        if body is None:
            await self._ask_alone(flight, trip, None, switch)
            return
        gathered = GatheredBody(body, self._store.make_spool)
        try:
            await gathered.gather()
            if gathered.is_whole:
                await self._ask_alone(flight, trip, gathered, switch)
            else:
                async with trip.upstream.upload_place():
                    await self._ask_alone(flight, trip, gathered, switch)
        finally:
            gathered.close()

    async def _ask_alone(
        self, flight: AnyFlight, trip: Trip, body: BodySource | None, switch: Switch | None
    ) -> None:
        request = trip.outgoing(trip.request, switch.protocols if switch else None)
        async with trip.upstream.fetch(request, body, interim=_teller(flight)) as response:
            flight.upstream = trip.upstream.told
            head = with_date(response.head, response.times)
            if head.status == 101 and switch is not None:
                switch.transport, switch.leftover = response.tunnel, response.leftover
                flight.land(Private(head, MemoryBody(b""), None))
                await switch.done.wait()
                return
            _check_unasked(trip.request, head)
            tells = trip.request.method == (b"HEAD" if body is None else b"POST")
            if tells and self._owns(trip.key.digest):
                kept = self._take_note(trip, head, response.times)
                if isinstance(kept, Keep):
                    # RFC 9111 §4.4: all variants go, before the one answer that stands for them
                    self._store.invalidate(trip.key)
                    await self._keep(flight, trip, kept, head, response)
                    return
            fill = self._store.private_fill(announced_length(trip.request, head))
            flight.land(Private(head, fill.reader(), None))
            await self._pour_privately(response, fill, flight)

    def _take_note(self, trip: Trip, head: ResponseHead, times: Times) -> OnResponse:
        """What an answer that was not asked for the store's sake means for it all the same.

        That of a HEAD may freshen what GET stored, or prove it out of date (RFC 9111 §4.3.5); that
        of a POST may stand for later GETs, where the site says so.
        """
        entries = tuple(held.entry for held in trip.variants)
        verdict = decision.on_response(
            trip.request, head, times, trip.policy, variants=entries, as_of=trip.as_of
        )
        if isinstance(verdict, Freshen):
            old = _held(trip.variants, entries, verdict.old)
            assert old is not None
            new = self._renewed(trip, old, verdict.entry)
            if new is None:
                self._drop(old)
            else:
                self._store.freshen(old, new)
        elif isinstance(verdict, Forward):
            self._drop(_held(trip.variants, entries, verdict.drop))
        return verdict

    async def _pour_privately(self, response: Response, fill: Fill, flight: AnyFlight) -> None:
        error = ExchangeError(Failure.DRAINING)  # stands if the errand is cancelled, or fails us
        try:
            await self._pour(response, fill, flight, alone=False)
            fill.finish()
        except ExchangeError as known:
            error = known
        finally:
            let_go(error)
            fill.fail(error)  # says nothing if it is whole
            fill.close()

    async def _pour(
        self, response: Response, fill: Fill, flight: AnyFlight, *, alone: bool
    ) -> None:
        """The whole body into `fill`; raises what ends it early."""
        patience = _Patience(fill, flight, alone)
        while True:
            message = await response.receive()
            if isinstance(message, End):
                return
            await fill.write(message.data)
            if not patience.lasts(len(message.data)):
                raise ExchangeError(Failure.CLIENT_LEFT, "no one reads it")


class _Patience:
    """How long a body is fetched on when no one reads it any more."""

    def __init__(self, fill: Fill, flight: AnyFlight, alone: bool) -> None:
        self._fill = fill
        self._flight = flight
        self._alone = alone
        self._unread = 0
        self._since: float | None = None

    def lasts(self, size: int) -> bool:
        """Whether to go on after `size` more bytes."""
        fill = self._fill
        if fill.readers or self._is_leader_to_come():
            self._since = None
            return True
        if not fill.storable:
            return False
        if self._alone:  # it has as long as anyone, but not for ever
            return fill.expected is not None or fill.size <= REST_BYTES
        if self._since is None:
            self._since, self._unread = trio.current_time(), 0
        self._unread += size
        if trio.current_time() - self._since > ALONE_S:
            return False
        if fill.expected is None or self._unread <= UNKNOWN_BYTES:
            return self._unread <= UNKNOWN_BYTES  # so much, too, until followers had their turn
        rest = fill.expected - fill.size
        return rest <= REST_BYTES or rest < fill.size

    def _is_leader_to_come(self) -> bool:
        """Whether the head is known, but the leader has not had its turn to open the body."""
        return not self._fill.was_read and not self._flight.abandoned


def _held(
    variants: tuple[Held, ...], entries: tuple[Entry, ...], entry: Entry | None
) -> Held | None:
    """Whose entry this was when `entries` were taken: one that is filled gets another."""
    for held, known in zip(variants, entries, strict=True):
        if known is entry:
            return held
    return None


def with_date(head: ResponseHead, times: Times) -> ResponseHead:
    """`head` with a Date: RFC 9110 §6.6.1 has the recipient add the time of arrival."""
    if b"date" in head.headers:
        return head
    return replace(head, headers=head.headers.plus((b"date", format_date(times.response_time))))


def announced_length(request: RequestHead, head: ResponseHead) -> int | None:
    """The length of the content that follows `head`, in bytes; None where it does not say."""
    if request.method == b"HEAD" or head.status in (204, 304):
        return 0
    value = head.headers.get(b"content-length")
    return None if value is None else int(value)  # digits: the engine has seen to it


def _teller(flight: AnyFlight) -> Callable[[ResponseHead], Awaitable[None]]:
    async def tell(interim: ResponseHead) -> None:
        flight.tell(interim)

    return tell


def _check_unasked(request: RequestHead, head: ResponseHead) -> None:
    """Refuse a part or a "not modified" that the client did not ask for."""
    headers = request.headers
    if head.status == 206 and b"range" not in headers:
        raise ExchangeError(Failure.BAD_RESPONSE, "a 206 to no range")
    if head.status == 304 and PRECONDITIONS.isdisjoint(name for name, _ in headers):
        raise ExchangeError(Failure.BAD_RESPONSE, "a 304 to no condition")


def without_credentials(request: RequestHead, entry: Entry | None) -> RequestHead:
    """`request` as one that nobody in particular makes: no answer to it is one client's."""
    keep = {name for name, _ in entry.variant} if entry else set()
    drop = {b"authorization", b"cookie"} - keep
    return replace(request, headers=request.headers.without(drop))
