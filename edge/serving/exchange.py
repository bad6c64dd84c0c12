"""One request, from its head to its log record.

The steps of a request in order, and the only place that knows the order: who asks, which site,
what shape, which key, as of which purge, what is stored, what the law says, and then a hit, a
fetch that others may share, or a request passed on for one client alone.

What can be said before the store is asked is `admission`'s, and what is found there and what the
law makes of it `finding`'s: both wait for nothing.

A request that finds nothing usable follows the flight for its key, or leads one. What comes back
is looked at anew by everyone who waited, with their own request: one whose variant it is not, or
who may not share it, goes round again, and after `ROUNDS` alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from edge.cache import decision, vary
from edge.cache.flight import Failed, Flight, Private, Spurned, Stored
from edge.cache.freshness import current_age, time_to_live
from edge.cache.purge import Verdict
from edge.cache.reasons import Reason
from edge.cache.ruling import Fetch, Refuse, Revalidate, Serve, ServeStale
from edge.errors import ExchangeError, Failure, Side
from edge.hop.relay import copy_of, facts_of
from edge.serving import answer, clearing, finding
from edge.serving.admission import NONE
from edge.serving.answer import Answer
from edge.serving.delivery import deliver, deliver_refusal, follow_interims
from edge.serving.encoding import Encodings
from edge.serving.errand import Switch, without_credentials
from edge.serving.finding import NOTHING, Alone, Found, Joins
from edge.serving.trip import flight_key, trip_for, trip_of
from edge.serving.visit import Visit
from edge.wire.hop import (
    hops_left,
    upgrade_offered,
)
from edge.wire.message import Headers, ResponseHead

if TYPE_CHECKING:
    from edge.cache.body import Body
    from edge.cache.entry import Entry, Seq
    from edge.cache.held import Held
    from edge.cache.purge import Purges
    from edge.hop.relay import Relays
    from edge.listen.connection import ClientStream
    from edge.listen.hop import HopStream
    from edge.observe.record import Record
    from edge.serving.admission import Drawn
    from edge.serving.errand import AnyFlight
    from edge.serving.trip import Asking
    from edge.serving.visit import Parts, Tools
    from edge.wire.message import RequestHead

ROUNDS: Final = 4  # a crowd that turns out to be of many variants settles in three
HALF_CLOSED_S: Final = 5.0
MOST_DRAWN: Final = 1_024  # kinds of requests for which arms were drawn, and so many of a kind:
MOST_ALIKE: Final = 64  # past that, some draw again


class Exchange:
    """Answers requests. `parts` is replaced whole when settings are read again."""

    def __init__(self, tools: Tools, parts: Parts) -> None:
        self.parts = parts
        self._tools = tools
        self.encodings = Encodings(tools)
        self._drawn: dict[tuple[bytes, bytes, bytes], deque[Drawn]] = {}

    def expect(self, head: RequestHead, peer: bytes, drawn: Drawn) -> None:
        """A request comes for which these arms were drawn already, in vain.

        To draw again would give an arm the less often, the less of it is stored: whoever drew it
        and found nothing would have another chance to draw one that is.
        """
        if len(self._drawn) >= MOST_DRAWN:
            self._drawn.clear()
        alike = peer, head.authority, head.target
        self._drawn.setdefault(alike, deque(maxlen=MOST_ALIKE)).append(drawn)

    def _drawn_for(self, visit: Visit) -> Drawn:
        if visit.hop is not None:
            return visit.hop.drawn
        alike = visit.stream.peer, visit.head.authority, visit.head.target
        waiting = self._drawn.get(alike)
        if waiting is None:
            return NONE
        drawn = waiting.popleft()
        if not waiting:
            del self._drawn[alike]
        return drawn

    async def serve(self, stream: ClientStream, head: RequestHead) -> None:
        """Answer one request, whatever it is; leaves one log record, also when cancelled."""
        await self._see_through(Visit(self._tools, self.parts, stream, head))

    async def serve_relayed(self, stream: HopStream, head: RequestHead) -> None:
        """Answer a request that another worker relays, who logs it and counts it."""
        tools = replace(self._tools, new_id=lambda: stream.id, log=_leave_unlogged)
        visit = Visit(tools, self.parts, stream, head)
        visit.hop = stream
        stream.tell = lambda: facts_of(visit.record)
        await self._see_through(visit)

    async def _see_through(self, visit: Visit) -> None:
        told = False
        try:
            await self._answer_or_refuse(visit)
            told = True
        finally:
            if not told:  # cancelled, at the end of draining: the connection is broken off
                visit.failed(ExchangeError(Failure.DRAINING))
            visit.close()

    def refresh(
        self, parts: Parts, asking: Asking, found: Found, as_of: Seq, request_id: str
    ) -> None:
        """Validate in the background what is being served stale to the request of this id."""
        flights = self._tools.flights
        key = flight_key(asking, found)
        if flights.find(key) is not None:
            return
        trip = replace(
            trip_of(asking, parts.ways, as_of, found, request_id),
            request=without_credentials(asking.request, found.entry),
            in_background=True,
        )
        flight = flights.start(key, as_of)
        self._tools.background.start_soon(self._tools.errands.fetch, flight, trip)

    async def _answer_or_refuse(self, visit: Visit) -> None:
        try:
            is_relayed = visit.hop is not None
            parts, head, peer = visit.parts, visit.head, visit.stream.peer
            drawn = self._drawn_for(visit)
            visit.admit(parts.admit(parts, head, peer, relayed=is_relayed, drawn=drawn))
            await self._answer(visit)
        except ExchangeError as error:
            await deliver_refusal(visit, error)
        except Exception as error:  # around a stream: no request takes its worker down
            await deliver_refusal(visit, ExchangeError(Failure.INTERNAL, repr(error)))

    async def _answer(self, visit: Visit) -> None:
        if hops_left(visit.head) == 0:  # RFC 9110 §7.6.2: the request ends here
            empty = ResponseHead(200, Headers([(b"content-length", b"0")]))
            await deliver(visit, Answer(empty), None, Reason.METHOD)
            return
        if visit.purges:
            await clearing.purge(visit)
            return
        if visit.redirect is not None:
            await deliver(visit, Answer(visit.redirect), None, Reason.REDIRECT)
            return
        reason = decision.may_use_store(visit.head, visit.policy)
        relays = self._tools.relays
        if relays is not None and not relays.owns(visit.key.digest):
            await self._by_owner(visit, relays, reason)
            return
        if reason is not None:
            await self._go_alone(visit, NOTHING, reason)
            return
        for _ in range(ROUNDS):
            if await self._round(visit):
                return
        await self._go_alone(visit, NOTHING, Reason.URI_MISS)

    async def _by_owner(self, visit: Visit, relays: Relays, reason: Reason | None) -> None:
        """Answer a request whose key another worker owns; `reason` keeps it from the store."""
        is_stored = reason is None or (
            decision.is_stored_post(visit.head, visit.policy)
            and visit.stream.request_body() is not None
        )
        if visit.hop is not None or not is_stored:
            await self._go_alone(visit, NOTHING, reason or Reason.URI_MISS)
        elif reason is not None or not await self._serve_copy(visit, relays):
            await relays.relay(visit)

    async def _serve_copy(self, visit: Visit, relays: Relays) -> bool:
        """Answer with a copy, where there is one and nothing but a hit may come of it."""
        visit.as_of = self._purges.latest
        tools, now = self._tools, self._tools.now()
        found = finding.copied(visit, relays.store, tools.flights, self._purges, now)
        return found.held is not None and await self._serve(visit, found, Reason.HIT)

    async def _round(self, visit: Visit) -> bool:
        """One try at an answer; False if the store has changed under it."""
        found = await self._find(visit)
        tools, now = self._tools, self._tools.now()
        ruling = finding.rule(
            visit.request, found, visit.key.digest, tools.flights, visit.policy, now
        )
        match ruling:
            case Refuse():
                raise ExchangeError(Failure.NOT_IN_STORE)
            case Serve():
                return await self._serve(visit, found, ruling.because)
            case Revalidate(background=True) | ServeStale():
                self.refresh(visit.parts, visit, found, visit.as_of, visit.id)
                return await self._serve(visit, found, ruling.because)
            case Fetch(because=Reason.REQUEST):  # nothing of it may be kept, or given to others
                return await self._go_alone(visit, found, ruling.because)
            case Revalidate() | Fetch():
                return await self._forward(visit, found, ruling.because)

    async def _find(self, visit: Visit) -> Found:
        store, now = self._tools.store, self._tools.now()
        visit.as_of = self._purges.latest  # before the store is read: a purge in between must win
        if visit.hop is not None and self._tools.relays is not None:  # and so must a change
            visit.lease = self._tools.relays.store.lend(visit.key)
        resource = store.find_nowait(visit.key, now)
        if resource is None:
            resource = await store.find(visit.key, now)
        found = finding.select(resource, visit.request, visit.policy, self._purges)
        for held in found.dead:
            store.drop(held)
        visit.variants = found.variants
        return found

    @property
    def _purges(self) -> Purges:
        """What has been purged up to now."""
        return self._tools.purges.current()

    async def _serve(self, visit: Visit, found: Found, because: Reason) -> bool:
        """Answer from the store; False if what was found has gone meanwhile, or been purged."""
        assert found.held is not None
        if finding.judge(found.held, self._purges) is Verdict.DEAD:
            return False
        found.held.count_hit()
        return await self._serve_held(visit, found.held, because, as_ruled=found.entry)

    async def _serve_held(
        self,
        visit: Visit,
        held: Held,
        because: Reason,
        *,
        as_ruled: Entry | None = None,
        fate: Reason | None = None,
        fetched: ResponseHead | None = None,
        collapsed: bool = False,
    ) -> bool:
        """Answer with what is held; False if its body cannot be had any more.

        `as_ruled` is its head as the law saw it, where that differs; `fetched` the head that was
        fetched for this very request, where one was.
        """
        store = self._tools.store
        try:
            shown = await self.encodings.shown(visit, held)
            body = store.open_nowait(shown.held) if shown.held is not None else None
            if shown.held is not None and shown.held is not held and fate is None:
                shown.held.count_hit()
                if visit.terms.compress is not None:
                    self.encodings.earn(held, shown.held, visit.terms.compress)
            composed = _composed(visit, shown.entry, body)
            if body is None and composed.pieces:  # a 304 needs nothing from the disk
                assert shown.held is not None  # or there would be no content
                body = await store.open(shown.held)
        except ExchangeError as error:
            if error.failure is Failure.BAD_RESPONSE:  # not to be decoded, and dropped
                raise
            return False
        try:
            if body is not None and finding.is_far_ahead(composed, held):
                body.close()  # or a fill without a spool would wait for this reader
                return await self._go_alone(visit, NOTHING, Reason.PARTIAL)
            if fetched is not None:
                composed = answer.for_its_client(composed, shown, fetched)
            if visit.hop is not None and because is Reason.HIT:
                visit.hop.copy = copy_of(visit, shown, composed)
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
                ttl=time_to_live(as_ruled or held.entry, now),
                fwd_status=fetched.status if fetched else None,
                collapsed=collapsed,
            )
        finally:
            if body is not None:
                body.close()
        return True

    # Fetches that others may share.

    async def _forward(self, visit: Visit, found: Found, because: Reason) -> bool:
        """Get an answer from the origin, together with whoever else wants it."""
        flights = self._tools.flights
        way = finding.way(visit, found, flights, self._purges)
        if isinstance(way, Alone):
            return await self._go_alone(visit, found, because)
        if isinstance(way, Joins):
            return await self._use(visit, found, because, way.flight, leads=False)
        trip = trip_for(visit, found)
        flight = flights.start(way.key, visit.as_of, alone=way.lonely)
        self._tools.background.start_soon(self._tools.errands.fetch, flight, trip)
        try:
            return await self._use(visit, found, because, flight, leads=True)
        finally:
            flight.leave()

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
        """Whether a follower may take what a flight brought: only its head told of its tags."""
        entry = held.entry
        if finding.judge(held, self._purges) is not Verdict.LIVE:
            return False
        return not entry.vary_any and vary.selects(entry, visit.request, visit.policy.vary)

    async def _deliver_private(
        self, visit: Visit, outcome: Private | Spurned, because: Reason
    ) -> None:
        passing = self.encodings.passing(visit, outcome.fetched, outcome.body)
        async with passing as (head, body):
            pieces = answer.whole_body(visit.request, head, body.length)
            await deliver(
                visit,
                Answer(head, pieces),
                body,
                because,
                fate=outcome.because,
                fwd_status=outcome.fetched.status,
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
        trip = trip_for(visit, found)
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
            try:
                raise raised
            finally:
                raised = None  # it holds its frames, and this one would hold it
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
        await clearing.invalidate(visit, outcome.fetched, spared)
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

    async def _tunnel(self, visit: Visit, fetched: ResponseHead, switch: Switch) -> None:
        assert switch.transport is not None
        try:
            await deliver(visit, Answer(fetched), None, Reason.UPGRADE, fwd_status=101)
            await visit.stream.tunnel(switch.transport, switch.leftover)
        finally:
            switch.done.set()


def _composed(visit: Visit, entry: Entry, body: Body | None) -> Answer:
    """How a visit is answered with `entry`, over `body`."""
    length = entry.length
    if length is None and body is not None:
        length = body.length
    told = visit.head if visit.terms.compress is not None else None
    return answer.from_entry(visit.request, entry, length, visit.parts.salt, told)


def _leave_unlogged(record: Record) -> None:
    """It is another worker's to log."""


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


def _broken_by(held: Held) -> ExchangeError | None:
    """What the origin did to a body that ended before anyone began to read it."""
    error = held.fill.error if held.fill is not None else None
    return error if error is not None and error.side is Side.UPSTREAM else None
