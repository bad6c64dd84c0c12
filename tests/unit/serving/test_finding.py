"""Which stored variant a request selects, what the law makes of it, and how it goes forward."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.cache.flight import Failed, Flights
from edge.cache.held import Held, Resource
from edge.cache.purge import Manner, Purge, Purges, Verdict
from edge.cache.ranges import Span
from edge.cache.reasons import Reason
from edge.cache.ruling import CachePolicy, Fetch, Revalidate, Serve, ServeStale
from edge.cache.scope import names_of, packed, tag_name
from edge.errors import ExchangeError, Failure
from edge.serving.answer import Answer
from edge.serving.finding import (
    FAR_BYTES,
    NOTHING,
    Alone,
    Found,
    Joins,
    Leads,
    is_far_ahead,
    judge,
    look_at,
    rule,
    select,
    way,
)
from edge.wire.message import Headers, RequestHead, ResponseHead

if TYPE_CHECKING:
    from trio.testing import MockClock

    from edge.cache.entry import Variant

URL = b"http://site.example/a"
DIGEST = b"d" * 16
POLICY = CachePolicy()


def entry_of(
    tag: bytes = b"a", *, variant: Variant = (), fetched_at: int = 0, **more: Any
) -> Entry:
    made = Entry(
        key=Key(DIGEST, URL),
        status=200,
        headers=Headers(),
        times=Times(1000.0, 1000.0),
        date=1000.0,
        age_field=0,
        terms=Terms(60.0, Source.MAX_AGE, if_error_s=600.0),
        variant=variant,
        length=5,
        fetched_at=Seq(0),
        keep_until=9000.0,
        scopes=packed(names_of(URL, (tag,), ())),
    )
    return replace(made, **more)


def request(*pairs: tuple[bytes, bytes], method: bytes = b"GET") -> RequestHead:
    return RequestHead(method, b"http", b"site.example", b"/a", Headers(pairs))


def asking(*pairs: tuple[bytes, bytes], method: bytes = b"GET") -> Any:
    return SimpleNamespace(
        request=request(*pairs, method=method), policy=POLICY, key=Key(DIGEST, URL)
    )


def purged(*tags: bytes, manner: Manner = Manner.HARD, when: float = 1010.0) -> Purges:
    purges = Purges()
    for number, tag in enumerate(tags, 1):
        digests = packed((tag_name(tag),))
        purges.record(Purge(Seq(number), when, "someone", manner, False, digests, 1, ("tag",)))
    return purges


# --- selecting


def test_what_is_selected_is_what_was_stored_for_such_a_request() -> None:
    gzip = Held(entry_of(variant=((b"accept-encoding", b"gzip"),)))
    plain = Held(entry_of(variant=((b"accept-encoding", None),)))
    resource = Resource((gzip, plain))
    found = select(resource, request((b"accept-encoding", b"gzip")), POLICY, Purges())
    assert found.held is gzip
    assert found.entry is gzip.entry
    assert found.variants == (gzip, plain)
    none = select(resource, request((b"accept-encoding", b"br")), POLICY, Purges())
    assert (none.held, none.entry, none.variants) == (None, None, (gzip, plain))


def test_what_is_dead_is_neither_selected_nor_a_validator() -> None:
    dead, living = Held(entry_of(b"a")), Held(entry_of(b"b", date=900.0))
    found = select(Resource((dead, living)), request(), POLICY, purged(b"a"))
    assert (found.held, found.variants, found.dead) == (living, (living,), (dead,))


def test_what_is_soft_purged_has_its_lifetime_behind_it() -> None:
    held = Held(entry_of())
    found = select(Resource((held,)), request(), POLICY, purged(b"a", manner=Manner.SOFT))
    assert found.soft
    assert found.held is held
    assert found.entry is not None
    assert found.entry.terms.lifetime_s == 10.0
    assert held.entry.terms.lifetime_s == 60.0


def test_a_purge_that_was_passed_once_need_not_be_passed_again() -> None:
    held, purges = Held(entry_of()), purged(b"z")
    assert look_at(held, purges) is Verdict.LIVE
    assert held.passed == 0
    assert judge(held, purges) is Verdict.LIVE
    assert held.passed == 1
    assert judge(held, purges) is Verdict.LIVE


@pytest.mark.parametrize("manner", [Manner.HARD, Manner.SOFT])
def test_a_purge_that_covers_it_is_never_passed(manner: Manner) -> None:
    held, purges = Held(entry_of()), purged(b"a", manner=manner)
    assert judge(held, purges) is look_at(held, purges) is not Verdict.LIVE
    assert held.passed == 0


def test_looking_takes_note_of_nothing() -> None:
    held = Held(entry_of())
    select(Resource((held,)), request(), POLICY, purged(b"z"), judge=look_at)
    assert held.passed == 0


# --- ruling


def found_of(entry: Entry) -> Found:
    held = Held(entry)
    return Found(held, entry, (held,))


async def test_the_law_is_asked() -> None:
    flights = Flights[Held]()
    fresh = found_of(entry_of())
    assert rule(request(), fresh, DIGEST, flights, POLICY, 1030.0) == Serve(Reason.HIT)
    assert rule(request(), fresh, DIGEST, flights, POLICY, 1100.0) == Revalidate(Reason.STALE)
    assert rule(request(), NOTHING, DIGEST, flights, POLICY, 1.0) == Fetch(Reason.URI_MISS)


async def hang(flights: Flights[Held], clock: MockClock) -> None:
    """Let a fetch fail that took its time."""
    flight = flights.start((DIGEST, ()), Seq(0))
    clock.jump(5.0)
    flights.land(flight, Failed(ExchangeError(Failure.FIRST_BYTE_TIMEOUT)))


async def test_no_one_waits_again_for_an_origin_that_hung_if_stale_may_stand_in(
    mock_clock: MockClock,
) -> None:
    flights = Flights[Held]()
    await hang(flights, mock_clock)
    stale = found_of(entry_of())
    assert rule(request(), stale, DIGEST, flights, POLICY, 1100.0) == ServeStale(
        Reason.STALE_IF_ERROR
    )
    too_old = rule(request(), stale, DIGEST, flights, POLICY, 2000.0)
    assert too_old == Revalidate(Reason.STALE)
    assert rule(request(), NOTHING, DIGEST, flights, POLICY, 1.0) == Fetch(Reason.URI_MISS)


async def test_behind_an_answer_and_for_one_client_the_origin_is_asked_all_the_same(
    mock_clock: MockClock,
) -> None:
    flights = Flights[Held]()
    await hang(flights, mock_clock)
    terms = Terms(60.0, Source.MAX_AGE, while_revalidate_s=600.0, if_error_s=600.0)
    ruling = rule(request(), found_of(entry_of(terms=terms)), DIGEST, flights, POLICY, 1100.0)
    assert ruling == Revalidate(Reason.STALE_WHILE_REVALIDATE, background=True)
    obeying = CachePolicy(honour_request_directives=True)
    own = request((b"cache-control", b"no-store"))
    alone = rule(own, found_of(entry_of()), DIGEST, flights, obeying, 1100.0)
    assert alone == Fetch(Reason.REQUEST)


# --- going forward


async def test_the_first_leads_and_who_comes_after_joins() -> None:
    flights, purges = Flights[Held](), Purges()
    led = way(asking(), NOTHING, flights, purges)
    assert led == Leads((DIGEST, ()), lonely=False)
    flight = flights.start(led.key, Seq(0))
    assert way(asking(), NOTHING, flights, purges) == Joins(flight)


async def test_a_flight_that_a_purge_has_overtaken_is_not_joined() -> None:
    flights, purges = Flights[Held](), Purges()
    flight = flights.start((DIGEST, ()), Seq(0))
    digests = packed(names_of(URL, (), ())[:1])
    purges.record(Purge(Seq(1), 1.0, "someone", Manner.HARD, False, digests, 1, ("url",)))
    assert isinstance(way(asking(), NOTHING, flights, purges), Leads)
    other = purged(b"z")
    assert way(asking(), NOTHING, flights, other) == Joins(flight)


async def test_a_head_and_conditions_to_a_lonely_key_go_alone() -> None:
    flights, purges = Flights[Held](), Purges()
    assert isinstance(way(asking(method=b"HEAD"), NOTHING, flights, purges), Alone)
    flights.remember_lonely(DIGEST)
    assert way(asking(), NOTHING, flights, purges) == Leads((DIGEST, ()), lonely=True)
    ranged = asking((b"range", b"bytes=0-1"))
    assert isinstance(way(ranged, NOTHING, flights, purges), Alone)


def filling(size: int, *, finished: bool = False) -> Any:
    return SimpleNamespace(fill=SimpleNamespace(size=size, finished=finished))


def test_a_range_far_ahead_of_a_fill_is_fetched_by_itself() -> None:
    far = Answer(ResponseHead(206), (Span(FAR_BYTES + 11, FAR_BYTES + 12),))
    assert is_far_ahead(far, filling(10))
    assert not is_far_ahead(far, filling(11))
    assert not is_far_ahead(far, filling(10, finished=True))
    assert not is_far_ahead(far, Held(entry_of()))
    assert not is_far_ahead(Answer(ResponseHead(304)), filling(10))
    assert not is_far_ahead(Answer(ResponseHead(200), (b"x",)), filling(10))
