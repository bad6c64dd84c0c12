"""The keeper, whole, on real sockets: with a test in place of its parent and its workers."""

from __future__ import annotations

import json
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from edge.admin.desk import Desk
from edge.cache.estate import Estate
from edge.cache.journal import follower_of, shared_number
from edge.cache.leases import Leases
from edge.clock import Clock
from edge.coding.shelf import FOLDER, Shelf
from edge.config import behind, for_proxy
from edge.config.notation import SecretSettings
from edge.node import EDGE
from edge.observe.tally import Tallies
from edge.process.doors import InnerDoors
from edge.process.keeper import Keeper
from edge.process.leash import Crew, Drain, Ready, Reload, Reloaded, Settings, Taken, Worker, pair
from edge.process.place import Place, Source
from edge.purging.recorder import RemoteRecorder
from edge.secret import read_secret
from edge.settings import Fault
from edge.surroundings.board import Board
from edge.surroundings.heeding import Heeding
from edge.surroundings.standing import NamedServer, Roll
from edge.upstream.origin import parse_origin
from edge.upstream.probe import Checkable, CheckPolicy
from edge.wire.message import Headers, RequestHead
from edge.wire.proof import FIELD, ProofError, verify
from tests.unit.purging.test_recorder import purge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from edge.process.leash import Up


class House:
    """A keeper's parent."""

    def __init__(self, directory: Path, *sets: str, clock: Clock | None = None) -> None:
        root = directory / "store"
        self.config = for_proxy(
            ["127.0.0.1:0"], "http://a.example", hostname="h",
            sets=[
                f"store.dir={root}", f"node.admin={directory}/a.sock", "node.error_log=off", *sets,
            ],
        )  # fmt: skip
        self.estate = Estate(root)
        self.estate.enter(1)
        self.inner = InnerDoors(root, 1)
        self.leash, theirs = pair()
        self.shared = shared_number()
        self.board = Board(2)
        self.place = Place(
            trade=EDGE,
            config=self.config,
            source=Source("edge.toml", lambda: b"", self.parse),
            slot=-1,
            tally=0,
            workers=1,
            root=root,
            estate=self.estate,
            clock=clock or Clock(),
            tallies=Tallies(1),
            purge_number=self.shared,
            leases=Leases(),
            shelf=Shelf(root / FOLDER),
            board=self.board,
            salt=b"salt",
            paths=self.inner.paths,
            desk=self.inner.keeper,
            leash=theirs,
        )
        self.admin = Desk(f"{directory}/a.sock")
        self.ended = trio.Event()
        self._unheard: list[Up] = []

    def parse(self, text: bytes) -> Any:
        return replace(self.config, node=replace(self.config.node, name=text.decode()))

    async def run(self) -> None:
        await Keeper(self.place).run()
        self.ended.set()

    async def heard(self) -> Up:
        while not self._unheard:
            await trio.lowlevel.wait_readable(self.leash.fileno())
            self._unheard = self.leash.heard()
        return self._unheard.pop(0)


@asynccontextmanager
async def a_house(directory: Path, *sets: str, clock: Clock | None = None) -> AsyncIterator[House]:
    house = House(directory, *sets, clock=clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.run)
        with trio.fail_after(30):
            assert await house.heard() == Ready()
            yield house
            house.leash.say(Drain())
            await house.ended.wait()
    house.leash.close()
    house.place.leash.close()
    house.inner.close()
    house.estate.leave()


async def test_a_workers_purge_is_in_force_everywhere_when_it_is_told(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        birth = house.estate.birth
        follower = follower_of(tmp_path / "store", birth, house.shared, print)
        done = await purge(RemoteRecorder(Desk(house.inner.paths.keeper)), b"tfront")
        assert (done.number, follower.current().latest) == (1, 1)
        status, document = await house.admin.document(b"GET", b"/v1/purges")
        assert (status, document["latest"]) == (200, 1)
        follower.close()


async def test_the_status_is_told_without_a_worker_that_does_not_answer(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        house.leash.say(Crew((Worker(0, 42, house.place.clock.now(), 3),)))
        house.inner.desks[0].close()
        document: dict[str, Any] = {"workers": []}
        while not document["workers"]:
            _, document = await house.admin.document(b"GET", b"/v1/status")
        (worker,) = document["workers"]
        assert (worker["pid"], worker["died"], worker["answers"]) == (42, 3, False)
        assert document["purges"]["latest"] == 0


async def reloaded(house: House, *, wait: bool, answers: list[Reloaded]) -> tuple[int, Any]:
    """What is told of a reload to whose asker the parent answers so."""
    told: list[tuple[int, Any]] = []

    async def ask() -> None:
        body = json.dumps({"wait": wait}).encode()
        told.append(await house.admin.document(b"POST", b"/v1/reload", body))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        asked = await house.heard()
        assert isinstance(asked, Reload)
        for answer in answers:
            house.leash.say(replace_ask(answer, asked.ask))
    return told[0]


def replace_ask(answer: Reloaded, ask: int) -> Reloaded:
    return Reloaded(ask, answer.done, answer.faults, answer.later)


async def test_a_reload_is_told_when_it_is_good_or_when_it_is_done(tmp_path: Path) -> None:
    good, done = Reloaded(0, False), Reloaded(0, True)
    async with a_house(tmp_path) as house:
        status, document = await reloaded(house, wait=False, answers=[good])
        assert (status, document["taken"], document["done"]) == (200, True, False)
        status, document = await reloaded(house, wait=True, answers=[good, done])
        assert (status, document["done"]) == (200, True)


async def test_faults_of_settings_are_told_with_their_file(tmp_path: Path) -> None:
    fault = Fault(3, "cache.ttl", '"x"', "is not a duration")
    async with a_house(tmp_path) as house:
        answers = [Reloaded(0, True, (fault,))]
        status, document = await reloaded(house, wait=True, answers=answers)
    assert (status, document["faults"][0]["file"]) == (422, "edge.toml")


async def test_settings_that_came_along_are_taken_up(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        house.leash.say(Settings(7), b"other")
        assert await house.heard() == Taken(7)
        _, document = await house.admin.document(b"GET", b"/v1/status")
        assert document["name"] == "other"


async def test_an_operator_who_has_the_node_end_is_told_and_so_is_the_parent(
    tmp_path: Path,
) -> None:
    async with a_house(tmp_path) as house:
        status, _ = await house.admin.document(b"POST", b"/v1/drain")
        assert status == 202
        assert await house.heard() == Drain()


async def test_a_keeper_ends_with_its_parent_and_the_next_one_knows_its_purges(
    tmp_path: Path,
) -> None:
    async with a_house(tmp_path) as house:
        await purge(RemoteRecorder(Desk(house.inner.paths.keeper)), b"tfront")
        house.leash._socket.shutdown(socket.SHUT_WR)
        await house.ended.wait()
    assert not (tmp_path / "a.sock").exists()
    async with a_house(tmp_path) as house:
        _, document = await house.admin.document(b"GET", b"/v1/purges")
        assert document["latest"] == 1


async def test_an_order_is_done_when_everyone_goes_by_it_and_the_next_keeper_knows_it(
    tmp_path: Path,
) -> None:
    async with a_house(tmp_path) as house:
        house.inner.desks[0].close()  # no worker is waited for
        worker = Heeding(house.board, 0, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            (server,) = (await house.admin.document(b"GET", b"/v1/origins"))[1]["servers"]
            body = json.dumps({"servers": [server["origin"]]}).encode()
            status, told = await house.admin.document(b"POST", b"/v1/origins/drain", body)
            assert (status, told["behind"]) == (200, [])
            assert worker.standing.server(server["id"]).drained
            nursery.cancel_scope.cancel()
    async with a_house(tmp_path) as house:
        house.inner.desks[0].close()  # no worker is waited for
        assert Heeding(house.board, 0, 0).standing == worker.standing
        (again,) = (await house.admin.document(b"GET", b"/v1/origins"))[1]["servers"]
        assert again["drained"]


async def test_servers_are_checked_by_the_keeper_and_what_is_found_is_on_the_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = socket.create_server(("127.0.0.1", 0))
    origin = parse_origin(f"http://127.0.0.1:{nobody.getsockname()[1]}")
    nobody.close()
    server = NamedServer("eu", origin.url)
    check = Checkable(server.id, origin, CheckPolicy(every_s=0.02, timeout_s=5, down_after=2))
    monkeypatch.setattr(behind, "roll", lambda _: Roll((server,)))
    monkeypatch.setattr(behind, "checkable", lambda _: [check])
    async with a_house(tmp_path) as house:
        house.inner.desks[0].close()  # no worker is waited for
        worker = Heeding(house.board, 0, 0)
        found = trio.Event()
        worker.follow(lambda standing: found.set() if standing.servers else None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await found.wait()
            nursery.cancel_scope.cancel()
        assert worker.standing.server(server.id).why == "refused"
        bad = Checkable(server.id, replace(origin, scheme="https", ca="/none"), check.policy)
        monkeypatch.setattr(behind, "checkable", lambda _: [bad])
        house.leash.say(Settings(7), b"other")
        assert await house.heard() == Taken(7)  # in spite of which it is checked as before
        (told,) = (await house.admin.document(b"GET", b"/v1/origins"))[1]["servers"]
        assert told["check"]["state"] == "down"


async def test_a_shield_that_has_not_purged_is_named_and_asked_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    nobody.close()
    monkeypatch.setenv("SHIELD_SECRET", "0123456789abcdef")
    sets = f'shield.nodes=["{url}"]', 'shield.secret={ env = "SHIELD_SECRET" }'
    for number in (1, 2):  # and by the next keeper, too
        async with a_house(tmp_path, *sets) as house:
            house.inner.desks[0].close()  # no worker is waited for
            worker = Heeding(house.board, 0, 0)
            assert (worker.standing.server(f"shield {url}").is_up is False) is (number == 2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.run)
                told = await house.admin.document(b"POST", b"/v1/purge", b'{"host": ["a"]}')
                nursery.cancel_scope.cancel()
            assert told[0] == 200
            assert told[1]["number"] == number
            assert [(each["url"], each["owed"]) for each in told[1]["late"]] == [(url, True)]
            assert worker.standing.server(f"shield {url}").is_up is False
            house.leash.say(Settings(7), b"other")
            assert await house.heard() == Taken(7)
            asked = await RemoteRecorder(Desk(house.inner.paths.keeper)).send_ahead(b"{}")
            assert [each.url for each in asked] == [url]


class Shield:
    """One that takes note of the proofs it is sent: by which secrets they are good just now."""

    SECRETS = b"a" * 16, b"b" * 16

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.good: list[list[bytes]] = []

    async def run(self) -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self.listener))
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data and (piece := await stream.receive_some()):
            data += piece
        lines = [line.partition(b": ") for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n")]
        fields = {name.lower(): value for name, _, value in lines}
        proof = Headers([(FIELD, fields[FIELD])])
        head = RequestHead(b"PURGE", b"http", fields[b"host"], b"/", proof)
        self.good.append([each for each in self.SECRETS if self._is_good(each, head)])
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await stream.aclose()

    @staticmethod
    def _is_good(secret: bytes, head: RequestHead) -> bool:
        try:
            verify((secret,), head, time.time(), 60.0)
        except ProofError:
            return False
        return True


async def test_shields_are_told_by_the_time_of_day_and_by_the_secret_of_the_last_reload(
    tmp_path: Path,
) -> None:
    file = tmp_path / "secret"

    def write(secret: str) -> None:
        file.write_text(secret)
        file.chmod(0o600)

    write("a" * 16)
    read_secret(SecretSettings(file=file), "shield.secret")  # as the parent does, before it forks
    write("b" * 16)  # for the reload that is to come
    shield = Shield()
    sets = f'shield.nodes=["{shield.url}"]', f'shield.secret={{file="{file}"}}'
    late = Clock(lambda: time.time() - 3600.0)  # NTP has set the clock since the node began
    order = b'{"host": ["a"]}'
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shield.run)
        async with a_house(tmp_path, *sets, clock=late) as house:
            house.inner.desks[0].close()  # no worker is waited for
            await house.admin.document(b"POST", b"/v1/purge", order)
            house.leash.say(Settings(7), b"other")
            assert await house.heard() == Taken(7)
            await house.admin.document(b"POST", b"/v1/purge", order)
            file.unlink()
            house.leash.say(Settings(8), b"other")
            assert await house.heard() == Taken(8)
            await house.admin.document(b"POST", b"/v1/purge", order)
        async with a_house(tmp_path, *sets, clock=late) as house:  # it is started again
            house.inner.desks[0].close()
            await house.admin.document(b"POST", b"/v1/purge", order)
        nursery.cancel_scope.cancel()
    first, second, third, fourth = shield.good
    assert (first, second, third, fourth) == ([b"a" * 16], [b"b" * 16], [b"b" * 16], [b"b" * 16])
