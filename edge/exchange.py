"""One request, from its head to its log record.

The steps of a request in order, and the only place that knows the order: who asks, which site,
what shape, which key, as of which purge, what is stored, what the law says, and then a hit, a
fetch that others may share, or a request passed on for one client alone.

`admit` is the synchronous half: it waits for nothing, touches no socket, and says everything about
a request that can be said before the store is asked.

A request that finds nothing usable follows the flight for its key, or leads one. What comes back
is looked at anew by everyone who waited, with their own request: one whose variant it is not, or
who may not share it, goes round again, and after `ROUNDS` alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from edge import answer
from edge.answer import Answer
from edge.cache import decision, vary
from edge.cache.flight import Failed, Flight, Private, Spurned, Stored
from edge.cache.freshness import current_age, time_to_live
from edge.cache.key import forwarded_target, key_of
from edge.cache.purge import Verdict
from edge.cache.ranges import Span
from edge.cache.reasons import Reason
from edge.cache.ruling import Fetch, Refuse, Revalidate, Serve, ServeStale
from edge.cache.validation import CONDITIONALS
from edge.delivery import deliver, deliver_refusal, follow_interims
from edge.errand import Switch, Trip, crowd_of, without_credentials
from edge.errors import ExchangeError, Failure, Side
from edge.guard.address import believed_chain, client_address
from edge.observe import text
from edge.visit import Found, Visit
from edge.wire.hop import (
    Forwarding,
    claimed_scheme,
    end_to_end,
    hops_left,
    loops,
    upgrade_offered,
)
from edge.wire.message import Headers, ResponseHead

if TYPE_CHECKING:
    from edge.cache.entry import Key
    from edge.cache.flight import FlightKey
    from edge.cache.store import Held, Resource
    from edge.errand import AnyFlight
    from edge.listen.connection import ClientStream
    from edge.visit import Parts, Tools
    from edge.wire.message import RequestHead

ASKS_FOR_KEY: Final = b"cache-status-key"  # RFC 9211 §2.7: keys are for debugging, not for all
ROUNDS: Final = 4  # a crowd that turns out to be of many variants settles in three
HALF_CLOSED_S: Final = 5.0
FAR_BYTES: Final = 8 << 20  # a range that begins so far ahead of a fill is fetched by itself


class Exchange:
    """Answers requests. `parts` is replaced whole when settings are read again."""

    def __init__(self, tools: Tools, parts: Parts) -> None:
        self.parts = parts
        self._tools = tools

    async def serve(self, stream: ClientStream, head: RequestHead) -> None:
        """Answer one request, whatever it is; leaves one log record, also when cancelled."""
        visit = Visit(self._tools, self.parts, stream, head)
        told = False
        try:
            await self._answer_or_refuse(visit)
            told = True
        finally:
            if not told:  # cancelled, at the end of draining: the connection is broken off
                visit.failed(ExchangeError(Failure.DRAINING))
            visit.close()

    async def _answer_or_refuse(self, visit: Visit) -> None:
        try:
            self.admit(visit)
            await self._answer(visit)
        except ExchangeError as error:
            await deliver_refusal(visit, error)
        except Exception as error:  # around a stream: no request takes its worker down
            await deliver_refusal(visit, ExchangeError(Failure.INTERNAL, repr(error)))

    def admit(self, visit: Visit) -> None:
        """Everything that can be said about a request before the store is asked.

        Fills in the visit; raises `ExchangeError` where it has to be refused.
        """
        parts, head = self.parts, visit.head
        trusted = parts.trusted.trusts(visit.stream.peer)
        site = parts.sites.find(head.authority)
        if site is None:
            raise ExchangeError(Failure.MISDIRECTED, head.authority.decode("latin-1"))
        if loops(head.headers, parts.name):
            raise ExchangeError(Failure.LOOP)
        target = head.target if head.target == b"*" else forwarded_target(head.target, site.key)
        scheme = (claimed_scheme(head.headers) if trusted else None) or head.scheme
        visit.site = site
        # What Connection nominates is not the origin's to see, so no variant may rest on it.
        headers = end_to_end(head.headers)
        visit.request = replace(head, target=target, scheme=scheme, headers=headers)
        visit.policy = site.policy_for(visit.request)
        visit.key = key_of(scheme, head.authority, target, visit.request, site.key)
        peer = visit.stream.peer
        chain = believed_chain(peer, head.headers, parts.trusted)
        visit.forwarding = Forwarding(parts.name, peer, scheme, head.authority, chain)
        visit.record.client = text(client_address(peer, chain))
        visit.tells_key = trusted and ASKS_FOR_KEY in head.headers

    async def _answer(self, visit: Visit) -> None:
        if hops_left(visit.head) == 0:  # RFC 9110 §7.6.2: the request ends here
            empty = ResponseHead(200, Headers([(b"content-length", b"0")]))
            await deliver(visit, Answer(empty), None, Reason.METHOD)
            return
        reason = decision.may_use_store(visit.head, visit.policy)
        if reason is not None:
            await self._go_alone(visit, Found(None, ()), reason)
            return
        for _ in range(ROUNDS):
            if await self._round(visit):
                return
        await self._go_alone(visit, Found(None, ()), Reason.URI_MISS)

    async def _round(self, visit: Visit) -> bool:
        """One try at an answer; False if the store has changed under it."""
        found = await self._find(visit)
        ruling = decision.on_request(
            visit.request,
            found.entry,
            self._tools.now(),
            visit.policy,
            variants=[held.entry for held in found.variants],
            soft=found.soft,
        )
        match ruling:
            case Refuse():
                raise ExchangeError(Failure.NOT_IN_STORE)
            case Serve():
                return await self._serve(visit, found, ruling.because)
            case Revalidate(background=True):
                self._refresh(visit, found)
                return await self._serve(visit, found, ruling.because)
            case Fetch(because=Reason.REQUEST):  # nothing of it may be kept, or given to others
                return await self._go_alone(visit, found, ruling.because)
            case Revalidate() | Fetch():
                if (stale := self._in_trouble(visit, found)) is not None:
                    self._refresh(visit, found)
                    return await self._serve(visit, found, stale.because)
                return await self._forward(visit, found, ruling.because)

    def _in_trouble(self, visit: Visit, found: Found) -> ServeStale | None:
        """What a stale answer is served for without waiting: the origin hung a moment ago."""
        if found.entry is None or not self._tools.flights.is_troubled(visit.key.digest):
            return None
        error = ExchangeError(Failure.FIRST_BYTE_TIMEOUT)
        ruling = decision.on_failure(found.entry, error, self._tools.now(), visit.policy)
        return ruling if isinstance(ruling, ServeStale) else None

    async def _find(self, visit: Visit) -> Found:
        store, purges = self._tools.store, self._tools.purges
        visit.as_of = purges.latest  # before the store is read: a purge in between must win
        resource = store.find_nowait(visit.key, self._tools.now())
        if resource is None:
            resource = await store.find(visit.key, self._tools.now())
        return self._select(visit, resource)

    def _select(self, visit: Visit, resource: Resource) -> Found:
        verdict = self._tools.purges.verdict
        living = {
            id(held.entry): (held, judged)
            for held in resource.variants
            if (judged := verdict(held.entry.fetched_at, held.entry.scopes)) is not Verdict.DEAD
        }
        variants = tuple(held for held, _ in living.values())
        entries = [held.entry for held in variants]
        chosen = vary.choose(entries, visit.request, visit.policy.vary)
        if chosen is None:
            return Found(None, variants)
        held, judged = living[id(chosen)]
        return Found(held, variants, soft=judged is Verdict.STALE)

    async def _serve(self, visit: Visit, found: Found, because: Reason) -> bool:
        """Answer from the store; False if what was found has gone meanwhile."""
        assert found.held is not None
        return await self._serve_held(visit, found.held, because)

    async def _serve_held(
        self,
        visit: Visit,
        held: Held,
        because: Reason,
        *,
        fate: Reason | None = None,
        fetched: ResponseHead | None = None,
        collapsed: bool = False,
    ) -> bool:
        """Answer with what is held; False if its body cannot be had any more.

        `fetched` is the head that was fetched for this very request, where one was.
        """
        store, length = self._tools.store, held.entry.length
        try:
            body = store.open_nowait(held)
            if length is None and body is not None:
                length = body.length
            composed = answer.from_entry(visit.request, held.entry, length, visit.parts.salt)
            if body is None and composed.pieces:  # a 304 needs nothing from the disk
                body = await store.open(held)
        except ExchangeError:
            return False
        try:
            if body is not None and _is_far_ahead(composed, held):
                body.close()  # or a fill without a spool would wait for this reader
                return await self._go_alone(visit, Found(None, ()), Reason.PARTIAL)
            if fetched is not None:
                composed = answer.for_its_client(composed, held.entry, fetched)
            now = self._tools.now()
            age: float | None = current_age(held.entry, now)
            if fetched is not None and fate is Reason.STORED:
                # RFC 9111 §5.1: Age tells of time in stores, and this was in none of ours
                age = held.entry.age_field if b"age" in fetched.headers else None
            await deliver(
                visit,
                composed,
                body,
                because,
                fate=fate,
                age=age,
                ttl=time_to_live(held.entry, now),
                fwd_status=fetched.status if fetched else None,
                collapsed=collapsed,
            )
        finally:
            if body is not None:
                body.close()
        return True

    # Fetches that others may share.

    def _trip(self, visit: Visit, found: Found, *, in_background: bool = False) -> Trip:
        upstream = visit.parts.upstreams[visit.site.origin]
        # A client of HTTP/1.0 may have named no host; an origin would refuse an empty one.
        own_host = None if visit.request.authority else upstream.origin.authority
        return Trip(
            request=visit.request,
            key=visit.key,
            as_of=visit.as_of,
            upstream=upstream,
            forwarding=visit.forwarding,
            policy=visit.policy,
            authority=visit.site.host or own_host,
            variants=found.variants,
            in_background=in_background,
        )

    def _flight_key(self, visit: Visit, found: Found) -> FlightKey:
        """The key, and the variant as far as earlier answers tell what to distinguish."""
        names = {name for held in found.variants for name, _ in held.entry.variant}
        selected = vary.variant(sorted(names), visit.request, visit.policy.vary)
        return visit.key.digest, selected

    def _refresh(self, visit: Visit, found: Found) -> None:
        """Validate in the background what is being served stale."""
        flights = self._tools.flights
        key = self._flight_key(visit, found)
        if flights.find(key) is not None:
            return
        trip = self._trip(visit, found, in_background=True)
        request = without_credentials(visit.request, found.entry)
        flight = flights.start(key, visit.as_of)
        self._tools.background.start_soon(
            self._tools.errands.fetch, flight, replace(trip, request=request)
        )

    async def _forward(self, visit: Visit, found: Found, because: Reason) -> bool:
        """Get an answer from the origin, together with whoever else wants it."""
        flights, request = self._tools.flights, visit.request
        if request.method == b"HEAD":
            return await self._go_alone(visit, found, because)
        lonely = flights.is_lonely(visit.key.digest, crowd_of(visit.request))
        if lonely and not CONDITIONALS.isdisjoint(name for name, _ in request.headers):
            # The last answer was for one client only, so this one's own conditions may go with it.
            return await self._go_alone(visit, found, because)
        key = self._flight_key(visit, found)
        flight = None if lonely else flights.find(key)
        if flight is not None and self._is_overtaken(flight):
            flight = None
        if flight is not None:
            return await self._use(visit, found, because, flight, leads=False)
        trip = self._trip(visit, found)
        flight = flights.start(key, visit.as_of, alone=lonely)
        self._tools.background.start_soon(self._tools.errands.fetch, flight, trip)
        try:
            return await self._use(visit, found, because, flight, leads=True)
        finally:
            flight.leave()

    def _is_overtaken(self, flight: AnyFlight) -> bool:
        return self._tools.purges.verdict(flight.as_of, ()) is not Verdict.LIVE

    async def _use(
        self, visit: Visit, found: Found, because: Reason, flight: AnyFlight, *, leads: bool
    ) -> bool:
        """Wait for a flight and make the best of how it ended; False to go round again."""
        await follow_interims(visit, flight)
        outcome = flight.outcome
        match outcome:
            case Stored():
                if not leads and not self._may_share(visit, outcome.stored):
                    return False
                broken = _broken_by(outcome.stored)
                if broken is not None:  # to go round would ask a failing origin again at once
                    return await self._on_error(visit, found, because, broken)
                return await self._serve_held(
                    visit,
                    outcome.stored,
                    because,
                    fate=outcome.because,
                    fetched=outcome.fetched if leads else None,
                    collapsed=not leads,
                )
            case Private() if not leads:
                return False
            case Private():
                await self._deliver_private(visit, outcome, because)
                return True
            case Spurned():
                return await self._on_trouble(visit, found, because, outcome, leads=leads)
            case Failed():
                return await self._on_error(visit, found, because, outcome.error)
            case None:
                raise AssertionError("a flight that has not landed")

    def _may_share(self, visit: Visit, held: Held) -> bool:
        """Whether a follower may take what a flight brought."""
        entry = held.entry
        if self._tools.purges.verdict(entry.fetched_at, entry.scopes) is Verdict.DEAD:
            return False
        return not entry.vary_any and vary.selects(entry, visit.request, visit.policy.vary)

    async def _deliver_private(
        self, visit: Visit, outcome: Private | Spurned, because: Reason
    ) -> None:
        head, body = outcome.fetched, outcome.body
        pieces = answer.whole_body(visit.request, head, body.length)
        await deliver(
            visit,
            Answer(head, pieces),
            body,
            because,
            fate=outcome.because,
            fwd_status=head.status,
        )

    async def _on_trouble(
        self, visit: Visit, found: Found, because: Reason, outcome: Spurned, *, leads: bool
    ) -> bool:
        ruling = decision.on_failure(found.entry, outcome.fetched, self._tools.now(), visit.policy)
        if isinstance(ruling, ServeStale):
            return await self._serve(visit, found, ruling.because)
        if not leads:
            # To ask again at once, and one by one, is the last thing a troubled origin needs.
            detail = f"the origin answered {outcome.fetched.status}"
            raise ExchangeError(Failure.BAD_RESPONSE, detail)
        await self._deliver_private(visit, outcome, because)
        return True

    async def _on_error(
        self, visit: Visit, found: Found, because: Reason, error: ExchangeError
    ) -> bool:
        ruling = decision.on_failure(found.entry, error, self._tools.now(), visit.policy)
        if isinstance(ruling, ServeStale):
            visit.failed(error)
            return await self._serve(visit, found, ruling.because)
        visit.because = because if found.entry is None else ruling.because
        # A new one for each who waited: a shared one collects everybody's traceback.
        raise ExchangeError(error.failure, error.detail, retry=error.retry) from error

    # Requests passed on for one client alone.

    async def _go_alone(self, visit: Visit, found: Found, because: Reason) -> bool:
        """Pass the request on as it is; its answer is this client's."""
        offered = upgrade_offered(visit.head) if because is Reason.UPGRADE else None
        switch = Switch(offered) if offered else None
        flight: AnyFlight = Flight((visit.key.digest, ()), visit.as_of)
        trip = self._trip(visit, found)
        body = visit.stream.request_body()
        raised: ExchangeError | None = None
        answered = False
        async with trio.open_nursery() as nursery:
            # Tied to this client: when it goes, so does what it alone asked for.
            nursery.start_soon(self._tools.errands.pass_on, flight, trip, body, switch)
            watch = trio.CancelScope()
            nursery.start_soon(_give_up_when_left, visit.stream, flight, watch)
            try:
                await follow_interims(visit, flight)
                watch.cancel()  # before anyone else reads from the client
                answered = await self._use_alone(visit, found, because, flight, switch)
            except ExchangeError as error:  # kept apart, or the nursery would wrap it in a group
                raised = error
            nursery.cancel_scope.cancel()
        flight.leave()
        if raised is not None:
            raise raised
        return answered

    async def _use_alone(
        self,
        visit: Visit,
        found: Found,
        because: Reason,
        flight: AnyFlight,
        switch: Switch | None,
    ) -> bool:
        outcome = flight.outcome
        if isinstance(outcome, Failed):
            return await self._on_error(visit, found, because, outcome.error)
        assert isinstance(outcome, Private | Stored)
        # What a POST has just put in the place of all that was stored for its URI stays.
        spared = visit.key if isinstance(outcome, Stored) else None
        self._invalidate(visit, outcome.fetched, spared)
        if switch is not None and switch.transport is not None:
            await self._tunnel(visit, outcome.fetched, switch)
            return True
        if isinstance(outcome, Stored):  # a POST that may serve later GETs
            body = await self._tools.store.open(outcome.stored)
            outcome = Private(outcome.fetched, body, outcome.because)
        if outcome.fetched.status in decision.TROUBLE and found.entry is not None:
            ruling = decision.on_failure(
                found.entry, outcome.fetched, self._tools.now(), visit.policy
            )
            if isinstance(ruling, ServeStale):
                return await self._serve(visit, found, ruling.because)
        try:
            await self._deliver_private(visit, outcome, because)
        finally:
            outcome.body.close()
        return True

    def _invalidate(self, visit: Visit, fetched: ResponseHead, spared: Key | None) -> None:
        request, site = visit.request, visit.site
        for target in decision.invalidates(request, fetched):
            forwarded = forwarded_target(target, site.key)
            key = key_of(request.scheme, request.authority, forwarded, request, site.key)
            self._tools.flights.overtake(key.digest)
            if key != spared:
                self._tools.store.invalidate(key)

    async def _tunnel(self, visit: Visit, fetched: ResponseHead, switch: Switch) -> None:
        assert switch.transport is not None
        try:
            await deliver(visit, Answer(fetched), None, Reason.UPGRADE, fwd_status=101)
            await visit.stream.tunnel(switch.transport, switch.leftover)
        finally:
            switch.done.set()


async def _give_up_when_left(
    stream: ClientStream, flight: AnyFlight, scope: trio.CancelScope
) -> None:
    """Let a flight fail whose only client has gone, so that it does not hold the origin.

    A client may end its side and still want the answer; it gets `HALF_CLOSED_S` for that.
    """
    with scope:
        await stream.wait_left()
        await trio.sleep(HALF_CLOSED_S)
        flight.land(Failed(ExchangeError(Failure.CLIENT_LEFT, "before the answer came")))


def _is_far_ahead(composed: Answer, held: Held) -> bool:
    """Whether a range begins so far ahead of what has come that asking for it is quicker."""
    fill = held.fill
    if fill is None or fill.finished or len(composed.pieces) != 1:
        return False
    piece = composed.pieces[0]
    return isinstance(piece, Span) and piece.start > fill.size + FAR_BYTES


def _broken_by(held: Held) -> ExchangeError | None:
    """What the origin did to a body that ended before anyone began to read it."""
    error = held.fill.error if held.fill is not None else None
    return error if error is not None and error.side is Side.UPSTREAM else None
