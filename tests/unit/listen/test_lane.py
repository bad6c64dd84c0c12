"""Parked connections: who answers, who is given a task, and that each is in one hand only."""

from __future__ import annotations

import os
import select
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.listen import lane as lanes
from edge.listen.connection import Connection, ConnectionPolicy
from edge.listen.lane import Lane
from edge.listen.tcp import Connections
from edge.upstream.transport import SocketTransport
from edge.wire.message import Chunk, End, Headers, ResponseHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trio.testing import MockClock

    from edge.errors import ExchangeError
    from edge.listen.connection import ClientStream
    from edge.upstream.transport import Data
    from edge.wire.message import RequestHead

QUICK = b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
PARTS = b"GET /parts HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
AT_ONCE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nquick"
BY_TASK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n/slow"
LAST = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
BODY = bytes(range(256)) * 65_536  # more than two kernels take
_RESET = struct.pack("ii", 1, 0)


class Node:
    """Answers QUICK, LARGE and PARTS at once, and everything else by a task, with its target."""

    def __init__(self, policy: ConnectionPolicy, most: int) -> None:
        self.connections = Connections(most)
        self.policy = policy
        self.told: list[tuple[bytes, str | None]] = []
        self.driven: list[bytes] = []
        self.lane: Lane[bytes]

    def answer(self, data: bytes, peer: bytes) -> tuple[Sequence[Data], bytes] | None:
        assert peer == b"192.0.2.1"
        answers: dict[bytes, Sequence[Data]] = {
            QUICK: [AT_ONCE], LARGE: [BODY], PARTS: [AT_ONCE[:9], AT_ONCE[9:]],
        }  # fmt: skip
        return (answers[data], data) if data in answers else None

    def close(self, record: bytes, took_s: float, error: ExchangeError | None = None) -> None:
        assert took_s >= 0
        self.told.append((record, error.failure.slug if error else None))

    def make(self, transport: SocketTransport, first: bytes) -> Connection:
        self.driven.append(first)
        return Connection(
            transport, transport.peer, self.policy, self.serve, self.refuse,
            first=first, may_park=True,
        )  # fmt: skip

    async def serve(self, stream: ClientStream, head: RequestHead) -> None:
        length = b"%d" % len(head.target)
        await stream.send(ResponseHead(200, Headers([(b"content-length", length)])), more=True)
        await stream.send(Chunk(head.target), more=True)
        await stream.send(End())

    @staticmethod
    def refuse(peer: bytes, error: ExchangeError) -> tuple[ResponseHead, bytes]:
        return ResponseHead(error.status, Headers([(b"content-length", b"2")])), b"no"

    def connect(self) -> trio.SocketStream:
        here, there = socket.socketpair()
        here.setblocking(False)
        self.lane.take_in(SocketTransport(there, peer=b"192.0.2.1"))
        return trio.SocketStream(trio.socket.from_stdlib_socket(here))


@asynccontextmanager
async def a_node(policy: ConnectionPolicy | None = None, most: int = 100) -> AsyncIterator[Node]:
    node = Node(policy or ConnectionPolicy(), most)
    async with trio.open_nursery() as clients:
        node.lane = Lane(node.connections, node, node.make, lambda: node.policy, clients)
        clients.start_soon(node.lane.run)
        yield node
        node.connections.drain()
        node.lane.stop()
    assert node.connections.statistics().open == 0


async def received(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := await stream.receive_some()):
        data += piece
    return data


async def test_a_request_that_needs_no_waiting_is_answered_where_it_is_parked() -> None:
    async with a_node() as node, node.connect() as client:
        for _ in range(3):
            await client.send_all(QUICK)
            assert await received(client, len(AT_ONCE)) == AT_ONCE
        await client.send_all(PARTS)
        assert await received(client, len(AT_ONCE)) == AT_ONCE
        await wait_all_tasks_blocked()
        assert node.told == [(QUICK, None)] * 3 + [(PARTS, None)]
        assert (node.driven, len(node.lane)) == ([], 1)
        statistics = node.connections.statistics()
        assert (statistics.open, statistics.idle, statistics.accepted) == (1, 1, 1)


async def test_everything_else_has_a_task_and_then_is_parked_again() -> None:
    async with a_node() as node, node.connect() as client:
        for _ in range(2):
            await client.send_all(SLOW)
            assert await received(client, len(BY_TASK)) == BY_TASK
            await wait_all_tasks_blocked()
            assert len(node.lane) == 1
            await client.send_all(QUICK)
            assert await received(client, len(AT_ONCE)) == AT_ONCE
        assert node.driven == [SLOW, SLOW]
        assert node.connections.statistics().accepted == 1


async def test_requests_one_behind_the_other_are_answered_in_order() -> None:
    async with a_node() as node, node.connect() as client:
        await client.send_all(SLOW + QUICK + SLOW)
        expected = BY_TASK + BY_TASK.replace(b": 5", b": 6").replace(b"/slow", b"/quick") + BY_TASK
        assert await received(client, len(expected)) == expected
        await wait_all_tasks_blocked()
        assert (node.driven, len(node.lane)) == ([SLOW + QUICK + SLOW], 1)


async def test_a_head_in_pieces_is_the_drivers(autojump_clock: MockClock) -> None:
    async with a_node() as node, node.connect() as client:
        await client.send_all(QUICK[:9])
        await wait_all_tasks_blocked()
        assert (len(node.lane), node.connections.statistics().idle) == (0, 0)
        began = trio.current_time()
        assert (await received(client, 12)).startswith(b"HTTP/1.1 408")
        assert trio.current_time() - began == pytest.approx(node.policy.head_s)


async def test_a_client_that_leaves_is_not_missed() -> None:
    async with a_node() as node:
        polite, rude = node.connect(), node.connect()
        await polite.send_all(QUICK)
        await polite.send_eof()
        assert await received(polite, 1000) == AT_ONCE
        rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        await polite.aclose()
        await rude.aclose()
        await wait_all_tasks_blocked()
        assert (len(node.lane), node.driven) == (0, [])
        assert node.connections.statistics().open == 0


async def test_a_client_that_is_gone_when_it_is_answered_is_written_down() -> None:
    async with a_node() as node:
        client = node.connect()
        await client.send_all(QUICK)
        await client.aclose()
        await wait_all_tasks_blocked()
        assert node.told == [(QUICK, "client-left")]
        assert node.connections.statistics().open == 0


async def test_a_client_that_does_not_read_is_not_read_from(autojump_clock: MockClock) -> None:
    async with a_node() as node, node.connect() as client:
        await client.send_all(LARGE)
        await wait_all_tasks_blocked()
        await client.send_all(LARGE * 3)
        await wait_all_tasks_blocked()
        assert (len(node.lane), node.told) == (0, [])  # one answer is under way, and no more
        assert node.connections.statistics().idle == 0
        assert not node.connections.shed_one()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await trio.sleep(node.policy.send_s + 1)
                await client.send_all(QUICK)
        assert node.told == [(LARGE, "send-timeout")]


async def test_an_answer_that_did_not_fit_is_sent_to_its_end() -> None:
    async with a_node() as node, node.connect() as client:
        await client.send_all(LARGE)
        assert await received(client, len(BODY)) == BODY
        await client.send_all(QUICK)
        assert await received(client, len(AT_ONCE)) == AT_ONCE
        assert node.told == [(LARGE, None), (QUICK, None)]


async def test_a_client_that_leaves_in_the_middle_of_an_answer_is_written_down() -> None:
    async with a_node() as node:
        client = node.connect()
        await client.send_all(LARGE)
        await wait_all_tasks_blocked()
        await client.aclose()
        await wait_all_tasks_blocked()
        assert node.told == [(LARGE, "client-left")]
        assert node.connections.statistics().open == 0


async def test_an_answer_that_is_cut_off_at_the_end_of_draining_is_written_down() -> None:
    async with a_node() as node, node.connect() as client:
        await client.send_all(LARGE)
        await wait_all_tasks_blocked()
        node.lane._clients.cancel_scope.cancel()
        await trio.lowlevel.checkpoint_if_cancelled()
    assert node.told == [(LARGE, "draining")]


async def test_idle_connections_are_closed_in_time(autojump_clock: MockClock) -> None:
    async with (
        a_node(ConnectionPolicy(idle_s=4.0)) as node,
        node.connect() as quiet,
        node.connect() as busy,
    ):
        await trio.sleep(3)
        await busy.send_all(QUICK)
        assert await received(busy, len(AT_ONCE)) == AT_ONCE
        assert await quiet.receive_some() == b""
        assert 4 < trio.current_time() <= 5
        assert len(node.lane) == 1
        assert await busy.receive_some() == b""
        assert trio.current_time() <= 8


async def test_new_settings_hold_for_those_who_are_parked(autojump_clock: MockClock) -> None:
    async with a_node() as node, node.connect() as client:
        node.policy = replace(node.policy, idle_s=1.0)
        assert await client.receive_some() == b""
        assert trio.current_time() < 10


async def test_at_the_bound_a_parked_connection_makes_room() -> None:
    async with a_node(most=2) as node:
        first, second = node.connect(), node.connect()
        assert node.connections.has_room()
        assert await first.receive_some() == b""
        assert (len(node.lane), node.connections.statistics().shed) == (1, 1)
        await second.send_all(QUICK)
        assert await received(second, len(AT_ONCE)) == AT_ONCE
        await first.aclose()
        await second.aclose()


async def test_draining_answers_what_has_come_and_closes_politely() -> None:
    async with a_node() as node:
        idle, asking, owed, gone = [node.connect() for _ in range(4)]
        await owed.send_all(LARGE)
        await wait_all_tasks_blocked()
        os.write(asking.socket.fileno(), SLOW)  # and nobody has been woken by it yet
        os.write(gone.socket.fileno(), SLOW)
        gone.socket.close()
        node.connections.drain()
        node.lane.stop()
        assert await received(idle, 1) == b""
        assert await received(asking, 1000) == LAST + b"/slow"
        assert await received(owed, len(BODY) + 1) == BODY
        for client in (idle, asking, owed):
            await client.aclose()


async def test_a_newcomer_after_the_end_is_closed() -> None:
    async with a_node() as node:
        node.connections.drain()
        node.lane.stop()
        client = node.connect()
        assert await client.receive_some() == b""
        await client.aclose()


async def test_a_socket_is_in_one_hand_only() -> None:
    """A task's reads would otherwise be the lane's, now and then."""
    async with a_node() as node, node.connect() as client:
        epoll = node.lane._epoll
        await client.send_all(SLOW[:5])
        await wait_all_tasks_blocked()
        await client.send_all(SLOW[5:9])
        assert epoll.poll(0) == []
        await client.send_all(SLOW[9:])
        assert await received(client, len(BY_TASK)) == BY_TASK


async def test_where_there_are_no_more_watches_a_connection_has_a_task() -> None:
    class Full:
        def register(self, number: int, events: int) -> None:
            raise OSError(28, "no space left on device")

    async with a_node() as node, node.connect() as client:
        real, node.lane._epoll = node.lane._epoll, Full()  # type: ignore[assignment]
        other = node.connect()
        node.lane._epoll = real
        await other.send_all(SLOW)
        assert await received(other, len(BY_TASK)) == BY_TASK
        await other.aclose()
        await client.send_all(QUICK)
        assert await received(client, len(AT_ONCE)) == AT_ONCE
        assert node.driven == [b""]


async def test_one_who_has_much_to_ask_does_not_keep_others_waiting() -> None:
    """Each socket is read once a round, and after some rounds the loop has its turn."""
    async with a_node() as node:
        clients = [node.connect() for _ in range(3 * lanes.BATCH)]
        for client in clients:
            await client.send_all(QUICK)
        turns = 0
        while len(node.told) < len(clients):
            await trio.lowlevel.checkpoint()
            turns += 1
        assert turns < 10
        assert len(node.told) == len(clients)
        for client in clients:
            await client.aclose()


def test_there_is_a_lane_where_there_is_epoll() -> None:
    assert lanes.IS_POSSIBLE is hasattr(select, "epoll")
