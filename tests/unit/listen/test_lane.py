"""Parked connections: who answers, who is given a task, and that each is in one hand only."""

from __future__ import annotations

import os
import select
import socket
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.errors import Failure
from edge.listen import lane as lanes
from edge.listen.connection import ConnectionPolicy
from edge.upstream.transport import FileSpan, SocketTransport
from tests.unit.listen.parking import (
    AT_ONCE,
    BODY,
    BY_TASK,
    FINAL,
    LARGE,
    LAST,
    PARTS,
    QUICK,
    RESET,
    SLOW,
    UNWANTED,
    FakeHop,
    Node,
    OnDisk,
    a_node,
    received,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from edge.upstream.transport import Part


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


async def test_a_newcomer_that_has_asked_is_answered_before_it_is_parked() -> None:
    async with a_node() as node:
        clients = [node.connect(first) for first in (QUICK, FINAL, SLOW)]
        assert node.told == [(QUICK, None), (FINAL, None)]
        assert (len(node.lane), node.driven) == (1, [SLOW])
        answers = AT_ONCE, LAST, BY_TASK
        for client, expected in zip(clients, answers, strict=True):
            assert await received(client, len(expected)) == expected
        assert await clients[1].receive_some() == b""
        await clients[0].send_all(QUICK)
        assert await received(clients[0], len(AT_ONCE)) == AT_ONCE
        for client in clients:
            await client.aclose()


async def test_what_needs_no_waiting_does_not_wait_for_all_that_is_ready() -> None:
    async with a_node() as node:
        client, there = socket.socketpair()
        node.lane.take_in(SocketTransport(there, peer=b"192.0.2.1"))
        await wait_all_tasks_blocked()
        told: list[int] = []

        async def step() -> None:
            if not told:
                client.sendall(QUICK)
            told.append(len(node.told))
            began = perf_counter()
            while perf_counter() - began <= lanes.OTHERS_S:
                pass

        async with trio.open_nursery() as nursery:
            for _ in range(3):  # all in one turn
                nursery.start_soon(step)
        assert told == [0, 1, 1]
        client.close()


async def test_a_newcomer_that_has_left_is_not_missed() -> None:
    async with a_node() as node:
        client = node.connect()
        gone = node.connect()
        gone.socket.close()
        here, there = socket.socketpair()
        here.close()
        node.lane.take_in(SocketTransport(there, peer=b"192.0.2.1"))
        await wait_all_tasks_blocked()
        assert (len(node.lane), node.connections.statistics().accepted) == (1, 3)
        await client.aclose()


async def test_a_last_request_ends_the_connection_behind_its_answer() -> None:
    async with a_node() as node, node.connect() as client:
        await client.send_all(FINAL)
        assert await received(client, 1000) == LAST
        assert node.told == [(FINAL, None)]
        assert node.connections.statistics().open == 0


async def test_a_last_answer_that_did_not_fit_is_sent_to_its_end() -> None:
    async with a_node() as node, node.connect() as client:
        await client.send_all(FINAL + b"large")
        assert await received(client, len(BODY) + 1) == BODY
        await client.aclose()
        await wait_all_tasks_blocked()
        assert node.connections.statistics().open == 0


async def test_who_is_sent_away_may_still_be_sending(autojump_clock: MockClock) -> None:
    async with a_node() as node, node.connect() as client:
        await client.send_all(UNWANTED)
        await wait_all_tasks_blocked()
        await client.send_all(QUICK * 100)
        assert await received(client, 1000) == LAST
        assert node.connections.statistics().open == 1
        began = trio.current_time()
        await trio.sleep(node.policy.linger_s + 1)
        assert trio.current_time() > began
        assert node.connections.statistics().open == 0
        assert node.told == [(UNWANTED, None)]


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
        rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
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


async def test_who_came_just_before_draining_has_its_first_request_answered(
    autojump_clock: MockClock,
) -> None:
    """Its client cannot know that it came too late; one that has had an answer asks elsewhere."""
    async with a_node() as node:
        new, known, fast = [node.connect() for _ in range(3)]
        for client, question, answer in ((known, SLOW, BY_TASK), (fast, QUICK, AT_ONCE)):
            await client.send_all(question)
            assert await received(client, len(answer)) == answer
        await wait_all_tasks_blocked()
        assert len(node.lane) == 3
        node.connections.drain()
        node.lane.stop()
        for client in (known, fast):
            assert await client.receive_some() == b""
        await new.send_all(SLOW)
        assert await received(new, 1000) == LAST + b"/slow"
        for client in (new, known, fast):
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
        real, node.lane._newcomers = node.lane._newcomers, Full()  # type: ignore[assignment]
        other = node.connect()
        node.lane._newcomers = real
        await other.send_all(SLOW)
        assert await received(other, len(BY_TASK)) == BY_TASK
        await other.aclose()
        await client.send_all(QUICK)
        assert await received(client, len(AT_ONCE)) == AT_ONCE
        assert node.driven == [b""]


def take(node: Node, seconds: float) -> None:
    """Let each answer take so long, or a little longer."""
    at_once = node.answer

    def answer(data: bytes, peer: bytes) -> tuple[Sequence[Part], bytes, lanes.After] | None:
        began = perf_counter()
        while perf_counter() - began <= seconds:
            pass
        return at_once(data, peer)

    node.answer = answer  # type: ignore[method-assign]


async def test_who_was_here_before_does_not_wait_behind_a_crowd_of_newcomers() -> None:
    async with a_node() as node, node.connect() as client:
        for _ in range(2):
            await client.send_all(QUICK)
            assert await received(client, len(AT_ONCE)) == AT_ONCE
        crowd = [node.connect() for _ in range(lanes.BATCH)]
        node.told.clear()
        take(node, lanes.NEWCOMERS_S)  # one in a round
        for other in crowd:
            os.write(other.socket.fileno(), SLOW)  # all in one step
        os.write(client.socket.fileno(), QUICK)
        assert await received(client, len(AT_ONCE)) == AT_ONCE
        assert len(node.driven) < len(crowd) / 2
        for other in crowd:
            assert await received(other, len(BY_TASK)) == BY_TASK
            await other.send_all(QUICK)  # and is no newcomer any more
            assert await received(other, len(AT_ONCE)) == AT_ONCE
            await other.aclose()


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


async def test_a_round_that_has_taken_its_time_is_over() -> None:
    async with a_node() as node:
        clients = [node.connect(QUICK) for _ in range(8)]
        await wait_all_tasks_blocked()
        node.told.clear()
        take(node, lanes.ROUND_S)
        for client in clients:
            os.write(client.socket.fileno(), QUICK)
        for number in range(1, len(clients) + 1):
            node.lane._go_round()
            assert len(node.told) == number
        for client in clients:
            await client.aclose()


def test_there_is_a_lane_where_there_is_epoll() -> None:
    assert lanes.IS_POSSIBLE is hasattr(select, "epoll")


# --- what another worker answers


async def test_what_another_worker_has_at_once_is_passed_on_without_a_driver() -> None:
    async with a_node() as node, node.connect() as client:
        hop = node.hops[SLOW] = FakeHop([AT_ONCE[:9]], AT_ONCE[9:12], AT_ONCE[12:])
        await client.send_all(SLOW)
        await wait_all_tasks_blocked()
        statistics = node.connections.statistics()
        assert (len(node.lane), statistics.open, statistics.idle) == (0, 1, 0)
        assert not node.connections.shed_one()  # it is at work
        hop.go.set()
        assert await received(client, len(AT_ONCE)) == AT_ONCE
        await wait_all_tasks_blocked()
        assert (hop.closed, node.driven, len(node.lane)) == ([None], [], 1)
        assert node.connections.statistics().accepted == 1


async def test_what_no_worker_has_at_once_is_the_drivers() -> None:
    async with a_node() as node, node.connect() as client:
        hop = node.hops[SLOW] = FakeHop(None)
        hop.go.set()
        await client.send_all(SLOW)
        assert await received(client, len(BY_TASK)) == BY_TASK
        await wait_all_tasks_blocked()
        assert (hop.closed, node.driven, len(node.lane)) == ([None], [SLOW], 1)


async def test_an_answer_that_another_worker_breaks_off_is_broken_off() -> None:
    async with a_node() as node:
        client = node.connect()
        hop = node.hops[SLOW] = FakeHop([AT_ONCE[:-1]], failure=Failure.OWNER_GONE)
        hop.go.set()
        await client.send_all(SLOW)
        await wait_all_tasks_blocked()
        assert hop.closed == ["owner-gone"]
        assert node.connections.statistics().open == 0
        await client.aclose()


async def test_a_client_that_has_left_meanwhile_is_written_down() -> None:
    async with a_node() as node:
        client = node.connect()
        hop = node.hops[SLOW] = FakeHop([AT_ONCE])
        await client.send_all(SLOW)
        await wait_all_tasks_blocked()
        await client.aclose()
        hop.go.set()
        await wait_all_tasks_blocked()
        assert hop.closed == ["client-left"]


async def test_a_client_that_does_not_read_what_another_worker_sends_is_given_up(
    autojump_clock: MockClock,
) -> None:
    async with a_node(ConnectionPolicy(send_s=3.0)) as node:
        client = node.connect()
        hop = node.hops[SLOW] = FakeHop([BODY])
        hop.go.set()
        await client.send_all(SLOW)
        await trio.sleep(4)
        assert hop.closed == ["send-timeout"]
        assert node.connections.statistics().open == 0
        await client.aclose()


async def test_a_hop_that_is_cancelled_is_closed_and_its_client_broken_off() -> None:
    hop = FakeHop([AT_ONCE])
    async with a_node() as node:
        client = node.connect()
        node.hops[SLOW] = hop
        await client.send_all(SLOW)
        await wait_all_tasks_blocked()
        node.clients.cancel_scope.cancel()
    assert hop.closed == ["draining"]
    await client.aclose()


def lent(node: Node, path: Path) -> FakeHop:
    """An answer with a file, of another worker's."""
    node.source = OnDisk(path, BODY)
    hop = FakeHop([b"head", FileSpan(node.source, 0, len(BODY))])
    hop.go.set()
    return hop


async def test_a_file_that_another_worker_lends_is_sent_by_the_lane(tmp_path: Path) -> None:
    async with a_node() as node, node.connect() as client:
        hop = node.hops[SLOW] = lent(node, tmp_path / "file")
        await wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        await client.send_all(SLOW)
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert hop.closed == []
        assert await received(client, 4 + len(BODY)) == b"head" + BODY
        await wait_all_tasks_blocked()
        assert (hop.closed, node.driven, len(node.lane)) == ([None], [], 1)
        await client.send_all(QUICK)
        assert await received(client, len(AT_ONCE)) == AT_ONCE


async def test_a_client_that_does_not_read_or_leaves_lets_go_of_a_lent_file(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with a_node(ConnectionPolicy(send_s=3.0)) as node:
        deaf, gone = node.connect(), node.connect()
        hop = node.hops[SLOW] = lent(node, tmp_path / "deaf")
        await deaf.send_all(SLOW)
        await trio.sleep(5)
        assert hop.closed == ["send-timeout"]
        hop = node.hops[SLOW] = lent(node, tmp_path / "gone")
        await gone.send_all(SLOW)
        await wait_all_tasks_blocked()
        await gone.aclose()
        await wait_all_tasks_blocked()
        assert hop.closed == ["client-left"]
        assert node.connections.statistics().open == 0
        await deaf.aclose()


async def test_a_file_that_is_lent_while_the_lane_stops_is_sent_by_a_task(tmp_path: Path) -> None:
    async with a_node() as node, node.connect() as client:
        hop = node.hops[SLOW] = lent(node, tmp_path / "file")
        hop.go = trio.Event()
        await client.send_all(SLOW)
        await wait_all_tasks_blocked()
        node.connections.drain()
        node.lane.stop()
        hop.go.set()
        assert await received(client, 4 + len(BODY)) == b"head" + BODY
    assert hop.closed == [None]
