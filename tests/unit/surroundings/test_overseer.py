"""Orders, checks and settings, all changing how things stand, and the processes that go by it."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edge.surroundings import overseer as module
from edge.surroundings.board import Board
from edge.surroundings.heeding import Heeding
from edge.surroundings.orderbook import FILE, OrderBook
from edge.surroundings.overseer import OBEYED_S, Carried, Overseer
from edge.surroundings.standing import (
    Checked,
    NamedExperiment,
    NamedServer,
    Roll,
    Standing,
    Unordered,
    drained,
    from_bytes,
    ramped,
    servers_called,
    weighted,
)
from edge.upstream.origin import parse_origin
from edge.upstream.probe import Checkable, CheckPolicy, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from edge.upstream.origin import Origin
    from edge.upstream.transport import Transport

EU = NamedServer("eu", "http://eu-1.example", 3.0)
US = NamedServer("us", "http://us.example")
CHECKOUT = NamedExperiment("shop.example/checkout", (("new", 10.0), ("control", 90.0)))
ROLL = Roll((EU, US), (CHECKOUT,))
CHECK = Checkable(EU.id, parse_origin(EU.url), CheckPolicy(every_s=10.0))


async def refusing(_: Origin) -> Transport:
    raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")


class Node:
    """A board and a directory, for one keeper after the other."""

    def __init__(self, root: Path) -> None:
        self.board = Board(3)
        self.root = root
        self.lines: list[str] = []

    def overseer(self) -> Overseer:
        return Overseer(
            self.board,
            OrderBook(self.root, self.lines.append),
            now=lambda: 1e9 + trio.current_time(),
            random=lambda: 0.5,
            tell=lambda kind, line: self.lines.append(f"{kind}: {line}"),
            connect=refusing,
        )

    @asynccontextmanager
    async def running(
        self, roll: Roll = ROLL, checked: tuple[Checkable, ...] = (), workers: int = 2
    ) -> AsyncIterator[tuple[Overseer, list[Heeding]]]:
        overseer = self.overseer()
        overseer.take_up(roll, checked)
        heeding = [Heeding(self.board, seat, seat) for seat in range(workers)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(overseer.run)
            for each in heeding:
                nursery.start_soon(each.run)
            yield overseer, heeding
            nursery.cancel_scope.cancel()


def to_drain(*words: str) -> Callable[[Standing, Roll], Standing]:
    return lambda standing, roll: drained(standing, servers_called(roll, words))


def to_weigh(weight: float, *words: str) -> Callable[[Standing, Roll], Standing]:
    return lambda standing, roll: weighted(standing, servers_called(roll, words), weight)


async def test_an_order_is_done_when_every_process_goes_by_it_and_is_on_file(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    async with node.running() as (overseer, workers):
        assert await overseer.carry_out(to_drain("eu")) == Carried(2)
        assert all(each.standing.server(EU.id).drained for each in workers)
        assert OrderBook(tmp_path, print).read() == overseer.standing


async def test_who_does_not_go_by_an_order_in_time_is_named(
    tmp_path: Path, autojump_clock: Any
) -> None:
    node = Node(tmp_path)
    async with node.running() as (overseer, _):
        node.board.sit(2, 5, 4711, 1)  # a process that was stopped
        carried = await overseer.carry_out(to_drain("eu"))
        assert [str(each) for each in carried.behind] == ["worker 5 (pid 4711)"]
        began = trio.current_time()
        assert await overseer._behind(carried.version) == carried.behind
        assert trio.current_time() - began == pytest.approx(OBEYED_S, abs=0.1)
        node.board.vacate(2)
        assert (await overseer.carry_out(to_drain("us"))).behind == ()


async def test_an_order_that_changes_nothing_is_done_at_once(tmp_path: Path) -> None:
    async with Node(tmp_path).running() as (overseer, _):
        first = await overseer.carry_out(to_drain("eu"))
        assert await overseer.carry_out(to_drain("eu")) == first


async def test_an_order_that_cannot_be_put_on_file_changes_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.running() as (overseer, _):
        version = node.board.version
        (tmp_path / FILE).mkdir()
        with pytest.raises(OSError):
            await overseer.carry_out(to_drain("eu"))
        assert (overseer.standing, node.board.version) == (Standing(), version)
        (tmp_path / FILE).rmdir()
        await overseer.carry_out(to_drain("eu"))
        assert overseer.standing.server(EU.id).drained


async def test_an_order_that_is_refused_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    async with node.running() as (overseer, _):
        with pytest.raises(Unordered, match='"ap" is no origin'):
            await overseer.carry_out(to_drain("ap"))
        monkeypatch.setattr(module, "MOST_BYTES", 100)
        with pytest.raises(Unordered, match="more orders than the board takes"):
            await overseer.carry_out(to_drain("eu"))
        assert overseer.standing == Standing()
        assert not (tmp_path / FILE).exists()


async def test_orders_at_once_are_all_carried_out(tmp_path: Path) -> None:
    async with Node(tmp_path).running() as (overseer, _):
        async with trio.open_nursery() as nursery:
            for order in (to_drain("eu"), to_drain("us"), to_weigh(7.0, "eu")):
                nursery.start_soon(overseer.carry_out, order)
        assert overseer.standing.weight_of(EU) == 7.0
        assert all(overseer.standing.server(each.id).drained for each in (EU, US))
        assert OrderBook(tmp_path, print).read() == overseer.standing


async def test_what_checks_find_is_put_up_and_told(tmp_path: Path, autojump_clock: Any) -> None:
    node = Node(tmp_path)
    async with node.running(checked=(CHECK,)) as (overseer, workers):
        await trio.sleep(24.9)
        assert overseer.standing == Standing()
        await trio.sleep(2)
        told = workers[1].standing.server(EU.id)
        assert (told.checked, told.why) == (Checked.DOWN, "refused")
        assert told.since == pytest.approx(1e9 + trio.current_time() - 1.9, abs=0.2)
    assert node.lines == [
        "checks: origin eu: http://eu-1.example is down: refused; 3 checks failed"
    ]


async def test_what_is_found_while_an_order_is_written_counts_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    async with node.running(checked=(CHECK,)) as (overseer, _):
        write = OrderBook.write

        def slow(book: OrderBook, standing: Standing) -> None:
            find = partial(overseer._heed_verdict, EU.id, Verdict(False, "refused", 3))
            trio.from_thread.run_sync(find)
            settings = Roll((EU,))  # and a server has gone from them
            trio.from_thread.run_sync(overseer.take_up, settings, (CHECK,))
            write(book, standing)

        monkeypatch.setattr(OrderBook, "write", slow)
        await overseer.carry_out(lambda standing, roll: drained(standing, list(roll.servers)))
        monkeypatch.undo()
        standing = overseer.standing
        assert (standing.server(EU.id).checked, standing.server(EU.id).drained) == (
            Checked.DOWN, True,
        )  # fmt: skip
        assert US.id not in standing.servers


async def test_the_next_keeper_knows_orders_and_what_checks_found(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.running(checked=(CHECK,)) as (overseer, workers):
        await overseer.carry_out(to_drain("us"))
        overseer._heed_verdict(EU.id, Verdict(False, "refused", 3))
        before = overseer.standing
        version = node.board.version
    async with node.running(checked=(CHECK,)) as (overseer, workers):
        assert overseer.standing == before
        assert workers[0].standing == before
        assert node.board.version == version
    async with Node(tmp_path).running(checked=(CHECK,)) as (overseer, _):  # after a restart
        assert overseer.standing == before.orders()


async def test_a_keeper_that_begins_puts_something_up(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.overseer().take_up(ROLL, ())
    read = node.board.read()
    assert read is not None
    assert from_bytes(read[1]) == Standing()
    node.board.write(b"nonsense")  # by another version of this program
    overseer = node.overseer()
    assert overseer.standing == Standing()


async def test_settings_with_another_value_end_an_order_also_on_file(
    tmp_path: Path, autojump_clock: Any
) -> None:
    node = Node(tmp_path)
    async with node.running() as (overseer, workers):
        await overseer.carry_out(to_weigh(7.0, "eu"))
        await overseer.carry_out(lambda s, _: ramped(s, CHECKOUT, "new", 50.0))
        overseer.take_up(ROLL, ())
        assert overseer.standing.weight_of(EU) == 7.0
        changed = NamedServer(EU.origin, EU.url, 5.0)
        overseer.take_up(Roll((changed, US), (CHECKOUT,)), ())
        await trio.sleep(1)
        assert overseer.standing.weight_of(changed) == 5.0
        overseer.take_up(ROLL, ())  # the old value again: the order is over all the same
        assert overseer.standing.weight_of(EU) == 3.0
        await trio.sleep(1)
        assert workers[0].standing.weights_of(CHECKOUT)["new"] == 50.0
        await trio.testing.wait_all_tasks_blocked()
    async with Node(tmp_path).running() as (overseer, _):
        assert overseer.standing.weight_of(EU) == 3.0
        assert overseer.standing.weights_of(CHECKOUT)["new"] == 50.0


async def test_a_file_that_cannot_lose_an_order_is_tried_again(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.running() as (overseer, _):
        await overseer.carry_out(to_drain("eu"))
        (tmp_path / f"{FILE}.new").mkdir()
        overseer.take_up(Roll((US,)), ())
        with trio.fail_after(30):
            while True:
                await trio.sleep(0.01)
                if node.lines:
                    break
        assert node.lines[0].startswith("orders: the file of orders cannot be written: ")
        (tmp_path / f"{FILE}.new").rmdir()
        await overseer.carry_out(to_weigh(2.0, "us"))
    assert EU.id not in OrderBook(tmp_path, print).read().servers


async def test_where_a_server_cannot_be_checked_all_are_checked_as_before(
    tmp_path: Path,
) -> None:
    lines: list[str] = []
    overseer = Overseer(
        Board(1), OrderBook(tmp_path, print), now=lambda: 0.0, random=lambda: 0.5,
        tell=lambda kind, line: lines.append(f"{kind}: {line}"),
    )  # fmt: skip
    nobody = parse_origin("http://127.0.0.1:9")
    checks = [Checkable(each.id, nobody, CheckPolicy(down_after=1)) for each in (EU, US)]
    overseer.take_up(ROLL, checks)
    bad = Checkable("eu https://a", replace(parse_origin("https://a"), ca="/none"), CheckPolicy())
    overseer.take_up(Roll((EU,)), [bad])
    (line,) = lines
    assert line.startswith('checks: servers are checked as before: ca: "/none" cannot be used')
    assert (overseer.roll, {*overseer.checked}) == (Roll((EU,)), {EU.id, US.id})
    for each in (EU, US):
        overseer._heed_verdict(each.id, Verdict(False, "refused", 1))
    assert list(overseer.standing.servers) == [EU.id]  # the other one has gone


async def test_more_than_the_board_takes_is_told_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    overseer = node.overseer()
    overseer.take_up(ROLL, (CHECK,))
    monkeypatch.setattr("edge.surroundings.board.MOST_BYTES", 10)
    overseer._heed_verdict(EU.id, Verdict(False, "refused", 3))
    assert overseer.standing == Standing()
    assert node.lines[0].startswith("checks: what was found is not told to workers: ")
    monkeypatch.setattr("edge.surroundings.standing.MOST_SERVERS", 0)
    overseer._heed_verdict(EU.id, Verdict(False, "refused", 3))
    assert "at most 0 servers" in node.lines[1]


async def test_a_server_that_is_set_aside_is_asked_by_nobody_before_it_is_taken_back(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    async with node.running() as (overseer, workers):
        await overseer.set_aside(EU.id, "it owes")
        told = [each.standing.server(EU.id) for each in workers]
        assert [(each.checked, each.why) for each in told] == [(Checked.DOWN, "it owes")] * 2
        overseer.take_up(ROLL, (), {EU.id: "it owes"})  # other settings change nothing of that
        assert overseer.standing.server(EU.id).is_up is False
        overseer.take_back(EU.id)
        assert overseer.standing == Standing()
        overseer.take_back(EU.id)


async def test_who_is_aside_from_the_start_is_down_before_anybody_looks(tmp_path: Path) -> None:
    node = Node(tmp_path)
    overseer = node.overseer()
    overseer.take_up(ROLL, (), {EU.id: "it owes", "gone http://x": "it owes"})
    read = node.board.read()
    assert read is not None
    assert from_bytes(read[1]).server(EU.id).is_up is False
    await overseer.carry_out(to_drain("us"))
    assert overseer.standing.server(EU.id).is_up is False
    overseer.take_up(ROLL, ())
    assert overseer.standing.server(EU.id).is_up is None
