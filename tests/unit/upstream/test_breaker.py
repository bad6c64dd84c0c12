"""The breaker: so many at work, so many waiting, in order, and no place is ever lost."""

from __future__ import annotations

from collections import deque

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ExchangeError, Failure
from edge.upstream.breaker import Breaker


def counts(breaker: Breaker) -> tuple[int, int]:
    told = breaker.statistics()
    return told.at_work, told.waiting


def test_a_free_place_is_taken_without_waiting() -> None:
    breaker = Breaker(2, 0, 1)
    one, two = breaker.acquire_nowait(), breaker.acquire_nowait()
    assert one is not None
    assert two is not None
    assert breaker.acquire_nowait() is None
    one.release()
    assert counts(breaker) == (1, 0)


def test_a_place_is_released_once_however_often_it_is_said() -> None:
    breaker = Breaker(2, 0, 1)
    one, two = breaker.acquire_nowait(), breaker.acquire_nowait()
    assert one is not None
    for _ in range(3):
        one.release()
    assert counts(breaker) == (1, 0)
    assert two is not None
    with two:
        pass
    assert counts(breaker) == (0, 0)


async def test_a_free_place_costs_no_checkpoint() -> None:
    breaker = Breaker(1, 0, 1)
    with trio.testing.assert_no_checkpoints():
        place = await breaker.acquire()
        place.release()


async def test_beyond_the_queue_it_is_overloaded_at_once(autojump_clock: trio.abc.Clock) -> None:
    breaker = Breaker(1, 0, 60)
    with await breaker.acquire(), pytest.raises(ExchangeError) as raised:
        await breaker.acquire()
    assert raised.value.failure is Failure.OVERLOADED
    assert raised.value.status == 503
    assert raised.value.retry
    assert "1 at work, 0 waiting" in raised.value.detail
    assert trio.current_time() == 0


async def test_a_wait_in_vain_ends_with_its_patience(autojump_clock: trio.abc.Clock) -> None:
    breaker = Breaker(1, 1, 2.5)
    with await breaker.acquire(), pytest.raises(ExchangeError, match=r"at work for 2\.5 s"):
        await breaker.acquire()
    assert trio.current_time() == 2.5
    assert counts(breaker) == (0, 0)
    told = breaker.statistics()
    assert (told.waited, told.refused) == (1, 1)


async def test_places_are_given_in_order_of_arrival(autojump_clock: trio.abc.Clock) -> None:
    breaker = Breaker(1, 10, 60)
    order: list[int] = []

    async def want(number: int) -> None:
        await trio.sleep(number)
        with await breaker.acquire():
            order.append(number)
            await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        for number in (2, 0, 3, 1):
            nursery.start_soon(want, number)
    assert order == [0, 1, 2, 3]
    assert counts(breaker) == (0, 0)


async def test_a_thousand_at_once_get_through_ten_places(autojump_clock: trio.abc.Clock) -> None:
    breaker = Breaker(10, 990, 1_000)
    most = 0

    async def want() -> None:
        nonlocal most
        with await breaker.acquire():
            most = max(most, breaker.statistics().at_work)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(1_000):
            nursery.start_soon(want)
    assert most == 10
    assert trio.current_time() == 100
    assert counts(breaker) == (0, 0)
    assert breaker.statistics().refused == 0


async def test_a_place_that_comes_with_a_cancellation_goes_to_the_next() -> None:
    breaker = Breaker(1, 2, 60)
    place = await breaker.acquire()
    got: list[str] = []

    async def want(name: str, scope: trio.CancelScope) -> None:
        with scope, await breaker.acquire():
            got.append(name)

    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()
        nursery.start_soon(want, "first", first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(want, "second", trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        place.release()  # in the same turn: the event is set, and the task cancelled
    assert "second" in got
    assert counts(breaker) == (0, 0)


async def _play(at_work: int, waiting: int, script: list[tuple[str, int]]) -> None:
    """Many who come, go and are cancelled; a plain model says who has a place."""
    breaker = Breaker(at_work, waiting, 1e9)
    inside: dict[int, trio.Event] = {}
    scopes: dict[int, trio.CancelScope] = {}
    model_in: list[int] = []
    model_queue: deque[int] = deque()
    refused: set[int] = set()

    async def want(number: int) -> None:
        scopes[number] = trio.CancelScope()
        with scopes[number]:
            try:
                place = await breaker.acquire()
            except ExchangeError:
                refused.add(number)
                return
            with place:
                inside[number] = trio.Event()
                try:
                    await inside[number].wait()
                finally:
                    del inside[number]

    def depart(number: int) -> None:
        if number in model_in:
            model_in.remove(number)
            if model_queue:
                model_in.append(model_queue.popleft())
        elif number in model_queue:
            model_queue.remove(number)

    async with trio.open_nursery() as nursery:
        for number, (what, which) in enumerate(script):
            present = [*model_in, *model_queue]
            if what == "come":
                nursery.start_soon(want, number)
                if len(model_in) < at_work:
                    model_in.append(number)
                elif len(model_queue) < waiting:
                    model_queue.append(number)
                else:
                    await trio.testing.wait_all_tasks_blocked()
                    assert number in refused
            elif what == "go" and model_in:
                gone = model_in[which % len(model_in)]
                inside[gone].set()
                depart(gone)
            elif what == "cancel" and present:
                gone = present[which % len(present)]
                scopes[gone].cancel()
                depart(gone)
            await trio.testing.wait_all_tasks_blocked()
            assert set(inside) == set(model_in)
            assert counts(breaker) == (len(model_in), len(model_queue))
        nursery.cancel_scope.cancel()
    assert counts(breaker) == (0, 0)


@given(
    st.integers(1, 3),
    st.integers(0, 3),
    st.lists(
        st.tuples(st.sampled_from(["come", "come", "go", "cancel"]), st.integers(0, 9)),
        max_size=25,
    ),
)
def test_no_place_is_lost_or_made_whatever_happens(
    at_work: int, waiting: int, script: list[tuple[str, int]]
) -> None:
    trio.run(_play, at_work, waiting, script, clock=trio.testing.MockClock())
