"""The pool: how many connections, which one next, who waits, and when they are closed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from edge.errors import ExchangeError, Failure
from edge.upstream.dial import Dialer
from edge.upstream.origin import Origin
from edge.upstream.pool import MARGIN_S, SWEEP_S, Connection, Pool
from tests.unit.upstream.memory import StreamTransport

if TYPE_CHECKING:
    from edge.upstream.transport import Transport

ORIGIN = Origin("http", "origin.example", 80)


class Network:
    """Connections in memory; the test decides which are readable, and when connecting fails."""

    def __init__(self) -> None:
        self.made: list[StreamTransport] = []
        self.others: list[trio.abc.Stream] = []
        self.readable: set[int] = set()
        self.fails_with: OSError | None = None
        self.takes_s = 0.0

    async def connect(self, origin: Origin) -> Transport:
        await trio.sleep(self.takes_s)
        if self.fails_with is not None:
            raise self.fails_with
        number = len(self.made)
        one, two = trio.testing.memory_stream_pair()
        transport = StreamTransport(one, readable=lambda: number in self.readable)
        self.made.append(transport)
        self.others.append(two)
        return transport

    async def is_closed(self, number: int) -> bool:
        with trio.move_on_after(0.01) as waiting:
            return await self.others[number].receive_some() == b""
        return not waiting.cancelled_caught


def a_pool(network: Network, **changes: Any) -> Pool:
    return Pool(Dialer(replace(ORIGIN, **changes), network.connect))


async def acquired(pool: Pool, count: int) -> list[Connection]:
    return [await pool.acquire() for _ in range(count)]


async def test_a_connection_given_back_is_used_again(autojump_clock: Any) -> None:
    network = Network()
    pool = a_pool(network)
    first = await pool.acquire()
    assert not first.reused
    pool.release(first)
    second = await pool.acquire()
    assert second is first
    assert second.reused
    assert pool.statistics().made == pool.statistics().reused == 1


async def test_the_last_one_given_back_is_the_first_used(autojump_clock: Any) -> None:
    pool = a_pool(Network())
    connections = await acquired(pool, 3)
    for connection in connections:
        pool.release(connection)
    assert await acquired(pool, 3) == connections[::-1]


async def test_a_connection_that_became_readable_while_idle_is_closed(autojump_clock: Any) -> None:
    network = Network()
    pool = a_pool(network)
    pool.release(await pool.acquire())
    network.readable.add(0)
    assert (await pool.acquire()).transport is network.made[1]
    assert await network.is_closed(0)
    assert pool.statistics().open == 1


async def test_a_fresh_connection_is_made_even_beside_idle_ones(autojump_clock: Any) -> None:
    network = Network()
    pool = a_pool(network)
    pool.release(await pool.acquire())
    fresh = await pool.acquire(fresh=True)
    assert not fresh.reused
    assert pool.statistics().open == 2


async def test_a_fresh_connection_takes_the_place_of_an_idle_one_where_there_is_no_other(
    autojump_clock: Any,
) -> None:
    network = Network()
    pool = a_pool(network, max_connections=1)
    pool.release(await pool.acquire())
    assert not (await pool.acquire(fresh=True)).reused
    assert await network.is_closed(0)
    assert pool.statistics().open == 1


@pytest.mark.parametrize(
    ("timeout_s", "kept_s"), [(None, 60), (5, 5 - MARGIN_S), (1, 0), (0, 0), (600, 60)]
)
async def test_an_idle_connection_is_kept_no_longer_than_both_sides_want(
    timeout_s: float | None, kept_s: float, autojump_clock: Any
) -> None:
    for wait_s, expected in ((kept_s - 0.1, True), (kept_s, False)):
        pool = a_pool(Network())
        connection = await pool.acquire()
        pool.release(connection, timeout_s=timeout_s)
        if wait_s > 0:
            await trio.sleep(wait_s)
            assert ((await pool.acquire()) is connection) is expected
        else:
            assert (await pool.acquire()) is not connection


async def test_an_old_connection_is_not_kept_however_busy(autojump_clock: Any) -> None:
    pool = a_pool(Network(), life_s=100)
    connection = await pool.acquire()
    for _ in range(4):
        await trio.sleep(24)
        pool.release(connection)
        assert await pool.acquire() is connection
    await trio.sleep(24)
    pool.release(connection)
    assert await pool.acquire() is not connection


async def test_idle_connections_are_closed_in_time_without_anyone_asking(
    autojump_clock: Any,
) -> None:
    network = Network()
    pool = a_pool(network)
    connections = await acquired(pool, 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        for connection, timeout_s in zip(connections, (10, 20, None), strict=True):
            pool.release(connection, timeout_s=timeout_s)
        await trio.sleep(10)
        assert await network.is_closed(0)
        assert pool.statistics().idle == 2
        network.readable.add(1)
        await trio.sleep(SWEEP_S + 0.1)
        assert await network.is_closed(1)
        await trio.sleep(60)
        assert pool.statistics().idle == pool.statistics().open == 0
        pool.release(await pool.acquire())
        await trio.sleep(70)
        assert pool.statistics().open == 0
        nursery.cancel_scope.cancel()


async def test_a_pool_that_ends_closes_what_is_idle_and_later_what_was_busy(
    autojump_clock: Any,
) -> None:
    network = Network()
    pool = a_pool(network)
    idle, busy = await acquired(pool, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        pool.release(idle)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await network.is_closed(0)
    assert not await network.is_closed(1)
    pool.release(busy)
    assert await network.is_closed(1)


async def test_no_more_idle_ones_are_kept_than_allowed(autojump_clock: Any) -> None:
    network = Network()
    pool = a_pool(network, max_idle=2)
    for connection in await acquired(pool, 3):
        pool.release(connection)
    assert await network.is_closed(0)
    assert pool.statistics().idle == pool.statistics().open == 2


async def test_who_comes_when_all_are_busy_waits_and_is_served_in_order(
    autojump_clock: Any,
) -> None:
    pool = a_pool(Network(), max_connections=2)
    busy = await acquired(pool, 2)
    served: list[int] = []

    async def come(number: int) -> None:
        connection = await pool.acquire()
        served.append(number)
        await trio.sleep(0.1)
        pool.release(connection)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(come, number)
            await trio.testing.wait_all_tasks_blocked()
        assert pool.statistics().waiting == 6
        for connection in busy:
            pool.release(connection)
            await trio.sleep(0.05)
    assert served == list(range(6))
    assert pool.statistics().open == 2
    assert pool.statistics().made == 2


async def test_who_waits_too_long_is_refused(autojump_clock: Any) -> None:
    pool = a_pool(Network(), max_connections=1, connect_s=5)
    await pool.acquire()
    with pytest.raises(ExchangeError) as caught:
        await pool.acquire()
    assert caught.value.failure is Failure.OVERLOADED
    assert caught.value.retry
    assert trio.current_time() == pytest.approx(5)
    assert pool.statistics().waiting == 0


async def test_a_connection_that_broke_leaves_its_place_to_who_waits(autojump_clock: Any) -> None:
    network = Network()
    pool = a_pool(network, max_connections=1)
    connection = await pool.acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.acquire)
        await trio.testing.wait_all_tasks_blocked()
        pool.discard(connection, broken_off=True)
    assert len(network.made) == 2
    assert pool.statistics().open == 1


async def test_a_waiter_gets_no_dead_connection_and_a_fresh_one_if_it_must(
    autojump_clock: Any,
) -> None:
    for dead, fresh in ((True, False), (False, True)):
        network = Network()
        pool = a_pool(network, max_connections=1)
        connection = await pool.acquire()
        if dead:
            network.readable.add(0)

        async def come(pool: Pool = pool, fresh: bool = fresh) -> None:
            assert not (await pool.acquire(fresh=fresh)).reused

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come)
            await trio.testing.wait_all_tasks_blocked()
            pool.release(connection)
        assert pool.statistics().open == 1
        assert await network.is_closed(0)


async def test_a_waiter_cancelled_in_the_moment_it_was_served_loses_nothing(
    autojump_clock: Any,
) -> None:
    pool = a_pool(Network(), max_connections=1)
    connection = await pool.acquire()
    outcomes: list[str] = []

    async def come(name: str, scope: trio.CancelScope) -> None:
        with scope:
            outcomes.append(name)
            pool.release(await pool.acquire())
            outcomes.append(name + " served")

    first, second = trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(come, "first", first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(come, "second", second)
        await trio.testing.wait_all_tasks_blocked()
        pool.release(connection)
        first.cancel()
    assert "second served" in outcomes
    assert pool.statistics().open == 1
    assert pool.statistics().idle == 1


async def test_a_waiter_that_gives_up_leaves_the_queue(autojump_clock: Any) -> None:
    pool = a_pool(Network(), max_connections=1)
    connection = await pool.acquire()
    with trio.move_on_after(1):
        await pool.acquire()
    assert pool.statistics().waiting == 0
    pool.release(connection)
    assert pool.statistics().idle == 1


async def test_a_failed_or_cancelled_connect_holds_no_place(autojump_clock: Any) -> None:
    network = Network()
    pool = a_pool(network, max_connections=1)
    network.fails_with = ConnectionRefusedError()
    with pytest.raises(ExchangeError) as caught:
        await pool.acquire()
    assert caught.value.failure is Failure.CONNECT_REFUSED
    network.fails_with, network.takes_s = None, 2.0
    with trio.move_on_after(1):
        await pool.acquire()
    assert pool.statistics().open == 0
    await pool.acquire()


async def test_the_counts_are_true_under_a_storm(autojump_clock: Any) -> None:
    network = Network()
    network.takes_s = 0.01
    pool = a_pool(network, max_connections=5, max_idle=2, connect_s=1)

    async def come(number: int) -> None:
        with trio.move_on_after(0.05 + (number % 11) / 10):
            try:
                connection = await pool.acquire(fresh=number % 7 == 0)
            except ExchangeError:
                return
            assert pool.statistics().open <= 5
            with trio.CancelScope(shield=True):
                await trio.sleep((number % 5) / 50)
            if number % 3:
                pool.release(connection, timeout_s=number % 4)
            else:
                pool.discard(connection)

    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(come, number)
            await trio.sleep(0.003)
    statistics = pool.statistics()
    assert statistics.waiting == 0
    assert statistics.open == statistics.idle <= 2


async def test_a_connection_to_an_address_that_is_gone_is_retired(autojump_clock: Any) -> None:
    network = Network()
    pool = a_pool(network)
    idle, busy = await acquired(pool, 2)
    pool.release(idle)
    pool.keep_only({b"192.0.2.9"})  # peers in memory have no address
    assert await network.is_closed(0)
    assert not await network.is_closed(1)
    pool.release(busy)
    assert await network.is_closed(1)
    assert pool.statistics().open == 0


async def test_a_retired_connection_is_not_handed_to_who_waits(autojump_clock: Any) -> None:
    network = Network()
    pool = a_pool(network, max_connections=1)
    busy = await pool.acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.acquire)
        await trio.testing.wait_all_tasks_blocked()
        pool.keep_only({b"192.0.2.9"})
        pool.release(busy)
    assert len(network.made) == 2
    assert pool.statistics().open == 1


async def test_a_connection_made_after_the_look_up_is_not_retired_by_it(
    autojump_clock: Any,
) -> None:
    pool = a_pool(Network())
    pool.keep_only({b"192.0.2.9"})
    await trio.sleep(1)
    pool.release(await pool.acquire())
    assert pool.statistics().idle == 1
