"""Trips upstream, with an origin that answers from a list."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from edge.cache.entry import Key, Seq
from edge.cache.flight import Failed, Flights, Outcome, Private, Stored
from edge.cache.held import Held
from edge.cache.store import Store
from edge.errors import ExchangeError, Failure
from edge.serving.errand import REST_BYTES, Errands, Switch, announced_length, with_date
from edge.serving.terms import Terms
from edge.serving.trip import Trip
from edge.wire.hop import Forwarding
from edge.wire.message import Chunk, End, Headers, RequestHead, ResponseHead, Times
from tests.unit.landing import landed
from tests.unit.unpurged import nothing_purged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trio.testing import MockClock

    from edge.serving.errand import AnyFlight
    from edge.upstream.way import Way
    from edge.wire.message import Pair

NOW = 1_800_000_000.0
KEY = Key(b"k" * 16, b"http://site.example/a")
FRESH = (b"cache-control", b"max-age=60")


@dataclass
class Script:
    """One answer: a head, then what `receive` gives or raises; it ends by itself."""

    head: ResponseHead
    body: Iterator[bytes | Exception] = field(default_factory=lambda: iter(()))
    times: Times = field(default_factory=lambda: Times(NOW, NOW))
    tunnel: Any = None
    leftover: bytes = b""

    async def receive(self) -> Chunk | End:
        await trio.lowlevel.checkpoint()
        piece = next(self.body, None)
        if isinstance(piece, Exception):
            raise piece
        return End() if piece is None else Chunk(piece)


class Origin:
    """Answers in the order of its scripts, and notes what it was asked."""

    def __init__(self, *scripts: Script | Exception) -> None:
        self.scripts = list(scripts)
        self.asked: list[RequestHead] = []
        self.told = "eu http://a.example:80"
        self.refused = ""

    @asynccontextmanager
    async def fetch(
        self, request: RequestHead, body: object = None, *, interim: object = None
    ) -> AsyncIterator[Script]:
        await trio.lowlevel.checkpoint()
        self.asked.append(request)
        script = self.scripts.pop(0)
        if isinstance(script, Exception):
            raise script
        yield script


def answering(*pairs: Pair, status: int = 200, body: tuple[bytes | Exception, ...] = ()) -> Script:
    return Script(ResponseHead(status, Headers(pairs)), iter(body))


class Desk:
    """A store, flights, and the errands between them."""

    def __init__(self) -> None:
        self.store = Store(1 << 20)
        self.flights = Flights[Held]()
        self.complaints: list[str] = []
        self.errands = Errands(
            self.store,
            self.flights,
            nothing_purged(),
            lambda: NOW,
            lambda *words: self.complaints.append(words[1]),
        )

    def trip(self, origin: Origin, *, in_background: bool = False, **changes: Any) -> Trip:
        held = self.store.find_nowait(KEY)
        return Trip(
            request=RequestHead(b"GET", b"http", b"site.example", b"/a", Headers(())),
            key=KEY,
            as_of=Seq(0),
            upstream=cast("Way", origin),
            forwarding=Forwarding(b"edge1", b"198.51.100.1", b"http", b"site.example", ()),
            terms=Terms(),
            variants=held.variants if held else (),
            in_background=in_background,
            **changes,
        )

    def flight(self) -> AnyFlight:
        return self.flights.start((KEY.digest, ()), Seq(0))

    async def fetched(self, *scripts: Script | Exception, **options: Any) -> Outcome[Held]:
        flight = self.flight()
        await self.errands.fetch(flight, self.trip(Origin(*scripts), **options))
        assert flight.outcome is not None
        assert len(self.flights) == 0
        return flight.outcome

    def stored(self) -> tuple[Held, ...]:
        found = self.store.find_nowait(KEY)
        return found.variants if found else ()


async def test_an_answer_that_may_be_shared_is_stored_whole() -> None:
    desk = Desk()
    outcome = await desk.fetched(answering(FRESH, body=(b"ab", b"cd")))
    assert isinstance(outcome, Stored)
    (held,) = desk.stored()
    assert (held.body, held.entry.length) == (b"abcd", 4)
    assert desk.store.statistics().filling == 0


async def test_a_flight_says_who_answered() -> None:
    desk, flight = Desk(), Desk().flight()
    assert flight.upstream is None
    await desk.errands.fetch(flight, desk.trip(Origin(answering(FRESH))))
    assert flight.upstream == "eu http://a.example:80"


async def test_that_a_shield_has_refused_is_told_to_the_operator_and_to_nobody_else() -> None:
    desk, flight = Desk(), Desk().flight()
    origin = Origin(answering(FRESH))
    origin.refused = "shield http://s:80: bad-proof"
    await desk.errands.fetch(flight, desk.trip(origin))
    assert desk.complaints == ["shield http://s:80: bad-proof"]
    assert isinstance(flight.outcome, Stored)


@pytest.mark.parametrize(
    "trouble", [ExchangeError(Failure.BODY_TRUNCATED), ValueError("ours")], ids=["theirs", "ours"]
)
async def test_a_body_that_breaks_off_is_not_stored_and_leaves_nothing_waiting(
    trouble: Exception,
) -> None:
    desk = Desk()
    outcome = await desk.fetched(answering(FRESH, body=(b"ab", trouble)))
    assert isinstance(outcome, Stored)
    assert outcome.stored.fill is not None
    assert outcome.stored.fill.failed
    assert desk.stored() == ()
    assert desk.store.statistics().filling == 0
    assert len(desk.complaints) == isinstance(trouble, ValueError)


async def test_a_cancelled_errand_lands_its_flight_and_fails_its_fill() -> None:
    desk = Desk()
    flight = desk.flight()

    def never() -> Iterator[bytes | Exception]:
        while True:
            yield b"more"

    script = Script(ResponseHead(200, Headers([FRESH])), never())
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.errands.fetch, flight, desk.trip(Origin(script)))
            await landed(flight)
            scope.cancel()
    assert isinstance(flight.outcome, Stored)
    assert flight.outcome.stored.fill is not None
    assert flight.outcome.stored.fill.failed

    waiting = desk.flight()
    with trio.CancelScope() as scope:
        scope.cancel()
        await desk.errands.fetch(waiting, desk.trip(Origin()))
    assert isinstance(waiting.outcome, Failed)
    assert waiting.outcome.error.failure is Failure.DRAINING


@pytest.mark.parametrize(
    ("raised", "failure"),
    [
        (ExchangeError(Failure.CONNECT_REFUSED), Failure.CONNECT_REFUSED),
        (ValueError("ours"), Failure.INTERNAL),
    ],
)
async def test_what_goes_wrong_is_told_by_the_flight(raised: Exception, failure: Failure) -> None:
    outcome = await Desk().fetched(raised)
    assert isinstance(outcome, Failed)
    assert outcome.error.failure is failure
    assert outcome.error.__traceback__ is None  # or it would hold its flight, and that it


async def test_an_answer_for_one_is_its_leaders_and_the_key_is_remembered() -> None:
    desk = Desk()
    outcome = await desk.fetched(answering((b"cache-control", b"private"), body=(b"own",)))
    assert isinstance(outcome, Private)
    assert desk.flights.is_lonely(KEY.digest)
    assert desk.stored() == ()


async def test_a_304_freshens_and_one_for_another_tag_is_asked_again() -> None:
    desk = Desk()
    await desk.fetched(answering(FRESH, (b"etag", b'"1"'), body=(b"old",)))
    outcome = await desk.fetched(answering(FRESH, (b"etag", b'"1"'), status=304))
    assert isinstance(outcome, Stored)
    assert outcome.stored.body == b"old"

    origin = Origin(
        answering(FRESH, (b"etag", b'"9"'), status=304),
        answering(FRESH, (b"etag", b'"9"'), body=(b"new",)),
    )
    await desk.errands.fetch(desk.flight(), desk.trip(origin))
    assert [b"if-none-match" in asked.headers for asked in origin.asked] == [True, False]
    assert [held.body for held in desk.stored()] == [b"new"]


async def test_a_background_fetch_that_no_one_may_have_is_given_up() -> None:
    desk = Desk()
    outcome = await desk.fetched(
        answering((b"cache-control", b"private"), body=(b"x",)), in_background=True
    )
    assert isinstance(outcome, Private)
    assert outcome.body.length == 0


async def test_a_background_fetch_of_a_body_too_large_to_store_waits_for_no_reader() -> None:
    desk = Desk()
    outcome = await desk.fetched(
        answering(FRESH, body=(bytes(1 << 20),) * (2 * REST_BYTES >> 20)), in_background=True
    )
    assert isinstance(outcome, Stored)
    assert desk.stored() == ()
    assert desk.store.statistics().fill_memory_bytes == 0


async def test_a_large_body_waits_for_its_leader_to_begin() -> None:
    length = 3 * REST_BYTES
    desk = Desk()
    script = answering(FRESH, (b"content-length", b"%d" % length), body=(b"x" * 1000,) * 5)
    flight = desk.flight()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.errands.fetch, flight, desk.trip(Origin(script)))
        outcome = await landed(flight)
        for _ in range(4):  # the leader is slow to take its turn, as under load
            await trio.lowlevel.checkpoint()
        assert isinstance(outcome, Stored)
        body = desk.store.open_nowait(outcome.stored)
        assert body is not None
        assert len(await body.read(0, 99)) == 99
        body.close()


async def test_a_large_body_is_not_fetched_for_a_leader_who_left_before_it_began(
    autojump_clock: MockClock,
) -> None:
    length = 3 * REST_BYTES
    desk = Desk()
    script = answering(FRESH, (b"content-length", b"%d" % length), body=(b"x" * 60_000,) * 50)
    flight = desk.flight()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.errands.fetch, flight, desk.trip(Origin(script)))
        outcome = await landed(flight)
        flight.leave()
    assert isinstance(outcome, Stored)
    assert outcome.stored.fill is not None
    assert outcome.stored.fill.failed
    assert outcome.stored.fill.size < 50 * 60_000
    assert desk.stored() == ()


async def test_a_tunnel_belongs_to_the_errand_until_its_user_is_done(
    autojump_clock: MockClock,
) -> None:
    desk = Desk()
    flight, switch, pipe = desk.flight(), Switch(b"chat"), object()
    script = Script(ResponseHead(101, Headers()), tunnel=pipe, leftover=b"hello")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.errands.pass_on, flight, desk.trip(Origin(script)), None, switch)
        await landed(flight)
        assert (switch.transport, switch.leftover) == (pipe, b"hello")
        await trio.sleep(1)
        assert len(nursery.child_tasks) == 1
        switch.done.set()


@pytest.mark.parametrize("status", [206, 304])
async def test_what_nobody_asked_for_is_a_bad_response(status: int) -> None:
    desk, flight = Desk(), Desk().flight()
    await desk.errands.pass_on(flight, desk.trip(Origin(answering(status=status))), None, None)
    assert isinstance(flight.outcome, Failed)
    assert flight.outcome.error.failure is Failure.BAD_RESPONSE


def test_the_length_of_what_follows_a_head() -> None:
    get = RequestHead(b"GET", b"http", b"a", b"/")
    head = RequestHead(b"HEAD", b"http", b"a", b"/")
    five = ResponseHead(200, Headers([(b"content-length", b"5")]))
    assert announced_length(get, five) == 5
    assert announced_length(head, five) == 0
    assert announced_length(get, ResponseHead(204)) == 0
    assert announced_length(get, ResponseHead(200)) is None


def test_a_head_without_a_date_gets_that_of_its_arrival() -> None:
    dated = with_date(ResponseHead(200), Times(0.0, 784_111_777.0))
    assert dated.headers.get(b"date") == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert with_date(dated, Times(0.0, 0.0)) is dated
