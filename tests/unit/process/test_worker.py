"""A worker's life: it starts, takes up settings, lets go of its slot, and drains; on loopback."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
import trio

from edge.admin.desk import Desk
from edge.cache.estate import Estate
from edge.cache.journal import Journal, shared_number
from edge.cache.leases import Leases
from edge.clock import Clock
from edge.coding.shelf import FOLDER, Shelf
from edge.config import Config, for_proxy
from edge.node import EDGE
from edge.observe.tally import Tallies
from edge.process.doors import Doors, InnerDoors
from edge.process.leash import (
    Dismiss,
    Drain,
    Leash,
    Ready,
    Release,
    Released,
    Settings,
    Taken,
    Up,
    pair,
)
from edge.process.place import Place, Source
from edge.process.worker import Worker, _request_ids
from edge.surroundings.board import Board

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edge.process.leash import Down


def config(*sets: str, to: str = "http://127.0.0.1:1") -> Config:
    quiet = ("node.access_log=off", "timeouts.linger=100ms", "node.drain=5s")
    return for_proxy(["127.0.0.1:0"], to, hostname="h", sets=(*quiet, *sets))


@dataclass
class House:
    """What a parent makes, for one worker after the other."""

    directory: Path
    config: Config
    texts: dict[bytes, Config] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.estate = Estate(self.directory)
        self.estate.enter(1)
        self.doors = Doors(1)
        self.doors.open(self.config.node.listen)
        self.inner = InnerDoors(self.directory, 1)
        self.numbers, self.leases = shared_number(), Leases()
        self.shelf = Shelf(self.directory / FOLDER)
        self.board = Board(4)
        self.tallies = Tallies(4)
        self.started = 0

    @property
    def port(self) -> int:
        return int(self.doors.told().rpartition(":")[2])

    def place(self) -> tuple[Leash, Place]:
        """A place, with sockets of its own as after a fork, and the leash of who is there."""
        leash, theirs = pair()
        self.started += 1
        return leash, Place(
            trade=EDGE,
            config=self.config,
            source=Source("edge.toml", lambda: b"", self.texts.__getitem__),
            slot=0,
            tally=self.started - 1,
            workers=1,
            root=self.directory,
            estate=self.estate,
            clock=Clock(),
            tallies=self.tallies,
            purge_number=self.numbers,
            leases=self.leases,
            shelf=self.shelf,
            board=self.board,
            salt=b"salt",
            paths=self.inner.paths,
            desk=self.inner.desks[0].dup(),
            leash=theirs,
            hop=self.inner.hops[0].dup(),
            listeners=tuple(each.dup() for each in self.doors.of(0, self.config.node.listen)),
        )


@asynccontextmanager
async def a_house(directory: Path, *sets: str) -> AsyncIterator[House]:
    house = House(directory, config(*sets))
    journal = Journal(directory, log=pytest.fail, shared=house.numbers)
    assert not await journal.open(house.estate.birth)
    await journal.begin(house.estate.renew_birth())
    with trio.fail_after(20):
        yield house
    await journal.close()
    house.inner.close()
    house.doors.keep_only(())
    house.estate.leave()


@asynccontextmanager
async def a_worker(house: House) -> AsyncIterator[Watched]:
    """A worker that is ready; it drains at the end, if it has not."""
    leash, place = house.place()
    async with trio.open_nursery() as nursery:
        worker = Watched(leash)
        nursery.start_soon(worker.run, Worker(place))
        await worker.says(Ready())
        yield worker
        leash.say(Drain())
        leash.say(Dismiss())
    leash.close()


class Watched:
    """A worker in this process, as its parent sees it."""

    def __init__(self, leash: Leash) -> None:
        self.leash = leash
        self.ended = trio.Event()
        self._heard: list[Up] = []

    async def run(self, worker: Worker) -> None:
        await worker.run()
        self.ended.set()

    async def says(self, message: Up) -> None:
        """Return when it has said `message`."""
        while message not in self._heard:
            await trio.lowlevel.wait_readable(self.leash.fileno())
            self._heard += self.leash.heard()

    def told(self, message: Down, text: bytes | None = None) -> None:
        assert self.leash.say(message, text)


async def told(port: int, said: bytes) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(said)
        data = b""
        while piece := await stream.receive_some():
            data += piece
        return data


GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def test_a_worker_serves_until_it_is_told_to_drain(tmp_path: Path) -> None:
    async with a_house(tmp_path / "store") as house, a_worker(house) as worker:
        assert (await told(house.port, GET)).startswith(b"HTTP/1.1 502 ")
        assert (await told(house.port, b"BAD\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        status, state = await Desk(house.inner.paths.desk(0)).document(b"GET", b"/v1/status")
        assert (status, state["connections"]["accepted"]) == (200, 2)
        assert set(state["origins"]) == {"default"}
        assert state["codings"] == dict.fromkeys(state["codings"], 0)
        idle = await trio.open_tcp_stream("127.0.0.1", house.port)
        await trio.testing.wait_all_tasks_blocked()
        worker.told(Drain())
        assert await idle.receive_some() == b""
        await idle.aclose()
        await worker.says(Released())
        worker.told(Dismiss())
        await worker.ended.wait()
    assert house.tallies.reading().requests[("failed", "uri-miss/connect-refused", "502", "connect-refused")] == 1  # fmt: skip # noqa: E501


async def test_settings_are_taken_up_and_said_to_be(tmp_path: Path) -> None:
    async with a_house(tmp_path / "store") as house, a_worker(house) as worker:
        origin = replace(house.config.origins["default"], servers=("http://127.0.0.1:2",))
        house.texts[b"new"] = replace(house.config, origins={"default": origin})
        worker.told(Settings(7), b"new")
        await worker.says(Taken(7))
        assert (await told(house.port, GET)).startswith(b"HTTP/1.1 502 ")
        _, state = await Desk(house.inner.paths.desk(0)).document(b"GET", b"/v1/status")
        assert [each["id"] for each in state["servers"]] == ["default http://127.0.0.1:2"]


async def test_each_worker_has_its_own_share_of_what_may_be_at_work(tmp_path: Path) -> None:
    sets = "origin.default.at_work=5"
    async with a_house(tmp_path / "store", sets) as house:
        shares = []
        for slot in range(3):
            leash, place = house.place()
            worker = Worker(replace(place, slot=slot, workers=3))
            shares.append(worker.config.origins["default"].at_work)
            for each in (leash, place.leash, place.desk, place.hop, *place.listeners):
                assert each is not None
                each.close()
        assert shares == [2, 2, 1]


async def test_a_slot_is_let_go_of_and_taken_over_while_the_old_worker_drains(
    tmp_path: Path,
) -> None:
    async with a_house(tmp_path / "store") as house, a_worker(house) as old:
        busy = await trio.open_tcp_stream("127.0.0.1", house.port)
        await busy.send_all(GET[:-2])  # a head under way
        await trio.testing.wait_all_tasks_blocked()
        old.told(Release())
        await old.says(Released())
        old.told(Drain())  # to all, with the node: it is not asked twice for that
        async with a_worker(house):
            assert (await told(house.port, GET)).startswith(b"HTTP/1.1 502 ")
            _, state = await Desk(house.inner.paths.desk(0)).document(b"GET", b"/v1/status")
            assert state["connections"]["accepted"] == 1
            await busy.send_all(b"\r\n")
            assert (await busy.receive_some()).startswith(b"HTTP/1.1 502 ")
            await busy.aclose()
            await old.ended.wait()


async def test_without_its_parent_a_worker_ends_at_once(tmp_path: Path) -> None:
    async with a_house(tmp_path / "store") as house:
        leash, place = house.place()
        async with trio.open_nursery() as nursery:
            worker = Watched(leash)
            nursery.start_soon(worker.run, Worker(place))
            await worker.says(Ready())
            leash.close()
            await worker.ended.wait()


async def test_a_store_that_another_process_has_keeps_a_worker_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.cache.home.PATIENCE_S", 0.0)
    async with a_house(tmp_path / "store") as house, a_worker(house):
        leash, place = house.place()
        with pytest.raises(OSError, match="another process uses this store"):
            await Worker(place).run()
        assert place.hop is not None
        place.hop.close()
        place.desk.close()
        leash.close()


def test_request_ids_differ_within_a_run_and_between_runs() -> None:
    one, two = _request_ids(), _request_ids()
    assert len({one(), one(), two(), two()}) == 4


def test_sockets_of_a_house_are_told_apart(tmp_path: Path) -> None:
    """A place's sockets can be closed without closing the parent's."""
    house = House(tmp_path, config())
    leash, place = house.place()
    for each in (*place.listeners, place.desk, place.hop, place.leash):
        assert isinstance(each, socket.socket)
        each.close()
    leash.close()
    assert all(
        each.fileno() >= 0
        for each in (*house.doors.of(0, house.config.node.listen), house.inner.desks[0])
    )
    house.inner.close()
    house.doors.keep_only(())
    house.estate.leave()
