"""What clients have not taken yet: who waits, who has a task, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.listen.connection import ConnectionPolicy
from edge.listen.lane import Lane
from tests.unit.listen.parking import (
    AT_ONCE,
    BODY,
    FILE,
    FINAL,
    LARGE,
    LAST_FILE,
    QUICK,
    Node,
    OnDisk,
    a_node,
    received,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


async def test_a_file_is_sent_behind_its_head_by_the_lane_alone(tmp_path: Path) -> None:
    async with a_node() as node, node.connect() as client:
        node.source = OnDisk(tmp_path / "file", BODY)
        for body in (BODY, BODY[:70_000], BODY[:1], BODY):
            node.source.body = body
            await client.send_all(FILE)
            assert await received(client, 4 + len(body)) == b"head" + body
        await wait_all_tasks_blocked()
        assert len(node.lane) == 1
        await client.send_all(QUICK)
        assert await received(client, len(AT_ONCE)) == AT_ONCE
        assert (node.source.users, node.source.read_bytes, node.driven) == (0, 0, [])
    assert node.told == [(FILE, None)] * 4 + [(QUICK, None)]


async def test_slow_readers_of_a_file_wait_without_tasks_and_without_copies(
    tmp_path: Path,
) -> None:
    async with a_node() as node:
        node.source = OnDisk(tmp_path / "file", BODY)
        clients = [node.connect() for _ in range(6)]
        for client in clients:
            await client.send_all(FILE)
        await wait_all_tasks_blocked()
        for client in clients:
            await client.send_all(QUICK)
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        assert (node.source.users, node.told, tasks < 15) == (6, [], True)
        for client in clients:
            assert await received(client, 4 + len(BODY)) == b"head" + BODY
            assert await received(client, len(AT_ONCE)) == AT_ONCE
            await client.aclose()
    assert (node.source.users, node.source.read_bytes) == (0, 0)


async def test_what_has_to_be_read_of_a_file_is_read_by_a_task(tmp_path: Path) -> None:
    async with a_node() as node, node.connect() as client:
        node.source = OnDisk(tmp_path / "file", BODY)
        await client.send_all(FILE)
        await wait_all_tasks_blocked()
        node.source.dropped = True
        assert await received(client, 4 + len(BODY)) == b"head" + BODY
        await wait_all_tasks_blocked()
        assert (len(node.lane), node.source.users) == (1, 0)
    assert 0 < node.source.read_bytes < len(BODY)
    assert node.told == [(FILE, None)]


async def test_a_file_that_rots_while_it_is_sent_is_broken_off(tmp_path: Path) -> None:
    async with a_node() as node, node.connect() as client:
        node.source = OnDisk(tmp_path / "file", BODY)
        await client.send_all(FILE)
        await wait_all_tasks_blocked()
        node.source.rots = True
        assert len(await received(client, 4 + len(BODY))) < len(BODY)
        await wait_all_tasks_blocked()
        assert (node.told, node.source.users) == ([(FILE, "body-lost")], 0)
        assert node.connections.statistics().open == 0


async def test_a_client_that_leaves_in_the_middle_of_a_file_is_written_down(
    tmp_path: Path,
) -> None:
    async with a_node() as node:
        node.source = OnDisk(tmp_path / "file", BODY)
        for _ in range(2):
            client = node.connect()
            await client.send_all(FILE)
            await wait_all_tasks_blocked()
            await client.aclose()
            await wait_all_tasks_blocked()
        client = node.connect()
        await client.send_all(FILE)
        await client.aclose()
        await wait_all_tasks_blocked()
        assert (node.told, node.source.users) == ([(FILE, "client-left")] * 3, 0)
        assert node.connections.statistics().open == 0


async def test_a_client_that_takes_nothing_of_a_file_is_given_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_node(ConnectionPolicy(send_s=8)) as node, node.connect() as client:
        node.source = OnDisk(tmp_path / "file", BODY)
        await client.send_all(FILE)
        await trio.sleep(7.9)
        assert not node.told
        await trio.sleep(4.2)
        assert (node.told, node.source.users) == ([(FILE, "send-timeout")], 0)


@pytest.mark.parametrize("politely", [True, False])
async def test_who_is_owed_something_at_the_end_gets_it_or_is_broken_off(
    tmp_path: Path, politely: bool
) -> None:
    async with trio.open_nursery() as nursery:
        node = Node(ConnectionPolicy(), 10)
        node.source = OnDisk(tmp_path / "file", BODY)
        node.lane = Lane(node.connections, node, node.make, lambda: node.policy, nursery)
        nursery.start_soon(node.lane.run)
        client = node.connect()
        await client.send_all(FILE)
        await wait_all_tasks_blocked()
        if politely:
            node.connections.drain()
            node.lane.stop()
            assert await received(client, 5 + len(BODY)) == b"head" + BODY
            await client.aclose()
        else:
            nursery.cancel_scope.cancel()
    assert node.told == [(FILE, None if politely else "draining")]
    await client.aclose()
    assert (node.source.users, node.connections.statistics().open) == (0, 0)


@pytest.mark.parametrize("request_", [FINAL + b"large", LAST_FILE])
async def test_a_last_answer_that_waited_ends_the_connection(
    tmp_path: Path, request_: bytes
) -> None:
    expected = BODY if request_ is not LAST_FILE else b"head" + BODY
    async with a_node() as node, node.connect() as client:
        node.source = OnDisk(tmp_path / "file", BODY)
        await client.send_all(request_)
        await wait_all_tasks_blocked()
        assert not node.told
        assert await received(client, len(expected) + 1) == expected
        await client.aclose()
        await wait_all_tasks_blocked()
        assert (node.told, node.source.users) == ([(request_, None)], 0)
        assert node.connections.statistics().open == 0


@pytest.mark.parametrize("request_", [LARGE, FILE])
async def test_a_newcomer_that_has_asked_may_owe(tmp_path: Path, request_: bytes) -> None:
    expected = BODY if request_ is LARGE else b"head" + BODY
    async with a_node() as node:
        node.source = OnDisk(tmp_path / "file", BODY)
        client = node.connect(request_)
        await wait_all_tasks_blocked()
        assert (len(node.lane), node.connections.statistics().idle, node.told) == (0, 0, [])
        assert not node.connections.shed_one()  # it is at work
        assert await received(client, len(expected)) == expected
        await client.send_all(QUICK)
        assert await received(client, len(AT_ONCE)) == AT_ONCE
        assert (node.told, node.driven) == ([(request_, None), (QUICK, None)], [])
        assert node.source.users == 0
        await client.aclose()


class Full:
    """An epoll set that takes no more."""

    def register(self, number: int, events: int) -> None:
        raise OSError(28, "no space left on device")


async def test_who_owes_where_the_kernel_watches_no_more_has_a_task(tmp_path: Path) -> None:
    async with a_node() as node:
        node.source = OnDisk(tmp_path / "file", BODY)
        real, node.lane._debts._epoll = node.lane._debts._epoll, Full()  # type: ignore[assignment]
        client = node.connect(FILE)
        node.lane._debts._epoll = real
        await wait_all_tasks_blocked()
        assert await received(client, 4 + len(BODY)) == b"head" + BODY
        await wait_all_tasks_blocked()
        assert (node.told, node.source.users) == ([(FILE, None)], 0)
        await client.aclose()


async def test_a_client_that_breaks_off_what_a_task_sends_is_written_down(tmp_path: Path) -> None:
    async with a_node() as node:
        node.source = OnDisk(tmp_path / "file", BODY)
        client = node.connect()
        await client.send_all(FILE)
        await wait_all_tasks_blocked()
        node.source.dropped = True
        assert await received(client, 1 << 20)
        await wait_all_tasks_blocked()
        await client.aclose()
        await wait_all_tasks_blocked()
        assert (node.told, node.source.users) == ([(FILE, "client-left")], 0)
        assert node.connections.statistics().open == 0
