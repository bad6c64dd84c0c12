"""Flights: one landing, everyone told, bounded memory of keys that go alone."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from edge.cache.entry import Seq
from edge.cache.flight import KEYS_REMEMBERED, LONELY_S, Failed, Flight, Flights, Outcome, Stored
from edge.cache.reasons import Reason
from edge.errors import ExchangeError, Failure
from edge.wire.message import ResponseHead
from tests.unit.landing import landed

KEY = (b"k" * 16, ())
AS_OF = Seq(0)


async def test_everyone_who_waits_is_told_of_the_landing() -> None:
    flights = Flights[str]()
    flight = flights.start(KEY, AS_OF)
    seen: list[Outcome[str]] = []

    async def follow() -> None:
        seen.append(await landed(flight))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        assert not seen
        flights.land(flight, Stored("entry", ResponseHead(200), Reason.STORED))

    assert seen == [Stored("entry", ResponseHead(200), Reason.STORED)] * 100


async def test_a_landed_flight_leaves_the_table() -> None:
    flights = Flights[str]()
    flight = flights.start(KEY, AS_OF)
    assert flights.find(KEY) is flight

    flights.land(flight, Failed(ExchangeError(Failure.CONNECT_REFUSED)))

    assert flights.find(KEY) is None
    assert len(flights) == 0


async def test_only_the_first_landing_counts() -> None:
    flight = Flight[str](KEY, AS_OF)
    first = Failed(ExchangeError(Failure.CONNECT_REFUSED))
    flight.land(first)
    flight.land(Stored("late", ResponseHead(200), Reason.STORED))
    assert await landed(flight) is first


async def test_an_overtaken_flight_does_not_take_its_successor_off_the_table() -> None:
    flights = Flights[str]()
    old = flights.start(KEY, AS_OF)
    new = flights.start(KEY, Seq(1))
    flights.land(old, Failed(ExchangeError(Failure.CONNECT_REFUSED)))
    assert flights.find(KEY) is new


async def test_what_a_write_has_overtaken_is_not_joined_any_more() -> None:
    flights = Flights[str]()
    joined, alone = flights.start(KEY, AS_OF), flights.start(KEY, AS_OF, alone=True)
    other = flights.start((b"o" * 16, ()), AS_OF)
    flights.overtake(KEY[0])
    assert [flight.overtaken for flight in (joined, alone, other)] == [True, True, False]
    assert flights.find(KEY) is None
    assert flights.find(other.key) is other
    later = flights.start(KEY, AS_OF)
    for flight in (joined, alone, other, later):
        assert flight.outcome is None
        flights.land(flight, Failed(ExchangeError(Failure.CONNECT_REFUSED)))
    assert (later.overtaken, len(flights)) == (False, 0)


async def test_followers_hear_every_interim_response_once_and_in_order() -> None:
    flight = Flight[str](KEY, AS_OF)
    heard: list[int] = []

    async def follow() -> None:
        while news := await flight.wait_interims(len(heard)):
            heard.extend(head.status for head in news)

    async with trio.open_nursery() as nursery:
        flight.tell(ResponseHead(103))
        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        flight.tell(ResponseHead(102))
        flight.tell(ResponseHead(103))
        await wait_all_tasks_blocked()
        flight.land(Stored("entry", ResponseHead(200), Reason.STORED))

    assert heard == [103, 102, 103]


async def test_a_lonely_key_is_forgotten_in_time(autojump_clock: MockClock) -> None:
    flights = Flights[str]()
    flights.remember_lonely(b"k")
    await trio.sleep(LONELY_S - 0.1)
    assert flights.is_lonely(b"k")
    await trio.sleep(0.1)
    assert not flights.is_lonely(b"k")
    assert not flights.is_lonely(b"other")


async def test_a_lonely_key_that_was_shared_after_all_queues_again() -> None:
    flights = Flights[str]()
    flights.remember_lonely(KEY[0])
    flights.land(flights.start(KEY, AS_OF), Stored("entry", ResponseHead(200), Reason.STORED))
    assert not flights.is_lonely(KEY[0])


async def test_the_memory_of_keys_is_bounded_and_drops_the_oldest() -> None:
    flights = Flights[str]()
    for number in range(KEYS_REMEMBERED + 1):
        flights.remember_lonely(b"%d" % number)
    assert not flights.is_lonely(b"0")
    assert flights.is_lonely(b"1")


async def test_trouble_that_took_long_is_remembered_as_long_again(
    autojump_clock: MockClock,
) -> None:
    flights = Flights[str]()
    flight = flights.start(KEY, AS_OF)
    await trio.sleep(8.0)
    flights.land(flight, Failed(ExchangeError(Failure.FIRST_BYTE_TIMEOUT)))
    await trio.sleep(7.9)
    assert flights.is_troubled(KEY[0])
    await trio.sleep(0.1)
    assert not flights.is_troubled(KEY[0])


async def test_trouble_that_shows_at_once_is_not_remembered() -> None:
    flights = Flights[str]()
    flights.land(flights.start(KEY, AS_OF), Failed(ExchangeError(Failure.CONNECT_REFUSED)))
    assert not flights.is_troubled(KEY[0])


async def test_trouble_is_forgotten_when_an_answer_is_stored(autojump_clock: MockClock) -> None:
    flights = Flights[str]()
    flight = flights.start(KEY, AS_OF)
    await trio.sleep(30.0)
    flights.land(flight, Failed(ExchangeError(Failure.FIRST_BYTE_TIMEOUT)))
    flights.land(flights.start(KEY, AS_OF), Stored("entry", ResponseHead(200), Reason.STORED))
    assert not flights.is_troubled(KEY[0])
