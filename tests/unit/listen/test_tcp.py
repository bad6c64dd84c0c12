"""Open connections, and accepting them; real sockets are on loopback and only where they must."""

from __future__ import annotations

import errno
import math
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from edge.listen import tcp
from edge.listen.connection import Connection, ConnectionPolicy
from edge.listen.tcp import (
    IDLE_GRACE_S,
    PAUSE_S,
    Connections,
    _after_failure,
    accept,
    address_of,
    bind,
    in_a_task,
)
from tests.stories.line import Line

if TYPE_CHECKING:
    from trio.testing import MockClock

    from edge.errors import ExchangeError
    from edge.listen.connection import ClientStream
    from edge.upstream.transport import SocketTransport
    from edge.wire.message import RequestHead, ResponseHead


async def never(stream: ClientStream, head: RequestHead) -> None:
    raise AssertionError("no one asks")


def refuse(peer: bytes, error: ExchangeError) -> tuple[ResponseHead, bytes]:
    raise AssertionError("no one errs")


def a_connection() -> tuple[Line, Connection]:
    client, server = Line.pair()
    return client, Connection(server, b"192.0.2.2", ConnectionPolicy(), never, refuse)


async def test_connections_are_counted_while_they_are_open() -> None:
    connections = Connections(10)
    client, connection = a_connection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connections.run, connection)
        await trio.testing.wait_all_tasks_blocked()
        statistics = connections.statistics()
        assert (statistics.open, statistics.idle, statistics.accepted) == (1, 1, 1)
        client.close()
    assert connections.statistics().open == 0


async def test_at_the_bound_the_oldest_idle_connection_makes_room(
    autojump_clock: MockClock,
) -> None:
    connections = Connections(2)
    clients = [a_connection() for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for _, connection in clients:
            nursery.start_soon(connections.run, connection)
            await trio.testing.wait_all_tasks_blocked()
        assert connections.has_room()
        assert await clients[0][0].receive_some() == b""
        assert connections.statistics().shed == 1
        connections.drain()
        nursery.cancel_scope.cancel()
    assert connections.statistics().open == 0


async def test_a_head_that_does_not_end_gives_way_before_an_idle_connection(
    autojump_clock: MockClock,
) -> None:
    connections = Connections(3)
    clients = [a_connection() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for _, connection in clients:
            nursery.start_soon(connections.run, connection)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(IDLE_GRACE_S)
        await clients[1][0].send_all(b"GET / HTTP/1.1\r\n")
        await clients[2][0].send_all(b"GET / HTTP/1.1\r\n")
        await trio.sleep(0.1)
        assert connections.shed_one()  # neither head is late yet: the idle one goes
        assert await clients[0][0].receive_some() == b""
        await trio.sleep(2)
        assert connections.shed_one()
        with pytest.raises(trio.BrokenResourceError):
            await clients[1][0].receive_some()
        assert connections.shed_one()
        await trio.testing.wait_all_tasks_blocked()
        assert not connections.shed_one()
        assert connections.statistics().open == 0


async def test_a_newcomer_does_not_give_way_to_those_who_only_begin(
    autojump_clock: MockClock,
) -> None:
    connections = Connections(2)
    begun, new = a_connection(), a_connection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connections.run, begun[1])
        await begun[0].send_all(b"GET / HTTP/1.1\r\n")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(connections.run, new[1])
        await trio.testing.wait_all_tasks_blocked()
        assert connections.shed_one()
        with pytest.raises(trio.BrokenResourceError):
            await begun[0].receive_some()
        assert connections.shed_one()  # there is no one else now
        assert await new[0].receive_some() == b""


async def test_a_burst_of_newcomers_does_not_go_over_the_bound() -> None:
    connections = Connections(10)
    listener = bind("127.0.0.1", 0)
    with ExitStack() as undo:
        undo.callback(listener.close)
        for _ in range(40):
            undo.callback(socket.create_connection(listener.getsockname()).close)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                accept, listener, connections, in_a_task(connections, kept, nursery), print
            )
            most = 0
            while connections.statistics().accepted < 40:
                await trio.lowlevel.checkpoint()
                most = max(most, connections.statistics().open)
            nursery.cancel_scope.cancel()
    assert most < 20  # some have been told to give way, and have not gone yet
    assert connections.statistics().shed == 30


@pytest.mark.parametrize(("seconds", "turns"), [(0.0, (3, 4, 5)), (math.inf, (1,))])
async def test_newcomers_are_accepted_for_a_while_and_then_others_have_their_turn(
    seconds: float, turns: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "ACCEPT_S", seconds)
    listener = bind("127.0.0.1", 0)
    turn, taken = 0, list[int]()

    def take_in(transport: SocketTransport) -> None:
        taken.append(turn)
        transport.close()

    with ExitStack() as undo:
        undo.callback(listener.close)
        for _ in range(5):
            undo.callback(socket.create_connection(listener.getsockname()).close)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, listener, Connections(10), take_in, print)
            while len(taken) < 5:
                await trio.lowlevel.checkpoint()
                turn += 1
            nursery.cancel_scope.cancel()
    assert len(set(taken)) in turns  # in a turn, Trio has tasks in either order


def kept(transport: SocketTransport) -> Connection:
    return Connection(transport, transport.peer, ConnectionPolicy(), never, refuse)


async def test_what_is_accepted_while_draining_is_closed(autojump_clock: MockClock) -> None:
    connections = Connections(2)
    connections.drain()
    client, connection = a_connection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connections.run, connection)
        assert await client.receive_some() == b""
        client.close()


@pytest.mark.parametrize(
    ("number", "pauses"),
    [(errno.ECONNABORTED, False), (errno.ENETDOWN, False), (errno.EMFILE, True)],
)
async def test_a_failure_to_accept_passes(
    number: int, *, pauses: bool, autojump_clock: MockClock
) -> None:
    said: list[str] = []
    began = trio.current_time()
    await _after_failure(OSError(number, "why"), Connections(1), said.append)
    assert trio.current_time() - began == pytest.approx(PAUSE_S if pauses else 0)
    assert len(said) == pauses


async def test_a_failure_that_cannot_pass_is_raised() -> None:
    with pytest.raises(OSError):
        await _after_failure(OSError(errno.EBADF, "why"), Connections(1), print)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_connections_are_accepted_with_their_clients_address(host: str) -> None:
    listener = bind(host, 0)
    assert address_of(listener).startswith(f"[{host}]:" if ":" in host else f"{host}:")
    peers: list[bytes] = []

    def make(transport: SocketTransport) -> Connection:
        peers.append(transport.peer)
        return Connection(transport, transport.peer, ConnectionPolicy(), never, refuse)

    async with trio.open_nursery() as clients, trio.open_nursery() as accepting:
        connections = Connections(5)
        take_in = in_a_task(connections, make, clients)
        accepting.start_soon(accept, listener, connections, take_in, print)
        stream = await trio.open_tcp_stream(*listener.getsockname()[:2])
        await stream.send_eof()
        assert await stream.receive_some() == b""
        await stream.aclose()
        accepting.cancel_scope.cancel()
    listener.close()
    assert peers == [host.encode()]


def test_an_address_in_use_is_an_os_error() -> None:
    first = bind("127.0.0.1", 0)
    with pytest.raises(OSError):
        bind("127.0.0.1", first.getsockname()[1])
    first.close()
