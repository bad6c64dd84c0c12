"""The parent, with children that do as they are told and nothing else."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge.config import Address, Config, for_proxy
from edge.node import EDGE
from edge.process import leash as words
from edge.process import parent as module
from edge.process.child import KEEPER
from edge.process.leash import Crew, Dismiss, Drain, Ready, Release, Released, Settings, Taken
from edge.process.parent import Parent, serve
from edge.process.place import Source
from tests.live.harness import eventually

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    import pytest

GOOD, BAD = 64 << 20, 65 << 20
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(words.Down)


def config(*sets: str, to: str = "http://127.0.0.1:1") -> Config:
    quiet = ("node.workers=2", f"store.memory={GOOD >> 20}MiB", "node.drain=5s")
    return for_proxy(["127.0.0.1:0"], to, hostname="h", sets=(*quiet, *sets))


class House(Parent):
    """A parent whose children write down what happens to them, and otherwise only obey."""

    def __init__(self, directory: Path, source: Source, first: Config) -> None:
        self.directory = directory
        super().__init__(EDGE, first, b"", source)

    def note(self, line: str) -> None:
        with (self.directory / "notes").open("a") as notes:
            notes.write(f"{line}\n")

    def _go_on_starting(self) -> bool:
        is_ready = super()._go_on_starting()
        if is_ready:
            self.note("ready")
        return is_ready

    def _work(self, slot: int, tally: int, leash: socket.socket) -> None:
        if slot == KEEPER:
            self._obey("keeper", leash)
            return
        memory = self._config.store.memory
        self.note(f"worker {slot} starts with {memory >> 20}, counts at {tally}")
        if memory == BAD and slot == 1:
            raise ValueError("these settings are bad")
        if (self.directory / "hurdle").exists():
            raise OSError("a hurdle")
        self._obey(f"worker {slot}", leash)

    def _obey(self, name: str, leash: socket.socket) -> None:
        leash.setblocking(True)
        leash.send(_ENCODER.encode(Ready()))
        while data := leash.recv(words.MESSAGE_BYTES):
            message = _DECODER.decode(data)
            if not isinstance(message, Crew | Dismiss):
                self.note(f"{name} hears {type(message).__name__}")
            match message:
                case Settings() if (self.directory / "mute").exists() and name == "worker 1":
                    pass
                case Settings():
                    leash.send(_ENCODER.encode(Taken(message.turn)))
                case Drain() if name == "keeper":
                    return
                case Release() if (self.directory / "deaf").exists():
                    pass
                case Release() if (self.directory / "slow").exists():
                    leash.send(_ENCODER.encode(Released()))
                case Drain() | Release():
                    leash.send(_ENCODER.encode(Released()))
                    if isinstance(message, Release):
                        return
                case Dismiss():
                    return
                case _:
                    pass


class Running:
    """A parent in a process of its own."""

    def __init__(self, directory: Path, pid: int) -> None:
        self.directory = directory
        self.pid = pid

    def notes(self) -> list[str]:
        path = self.directory / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def log(self) -> str:
        path = self.directory / "error.log"
        return path.read_text() if path.exists() else ""

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(child) for child in path.read_text().split()]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; the exit code."""
        os.kill(self.pid, number)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def a_house(directory: Path, *settings: Config) -> Iterator[Running]:
    """A house that is ready; each time that it reads its settings, they are the next ones."""
    where = (f"store.dir={directory / 'store'}", f"node.error_log={directory / 'error.log'}")
    first = config(*where)
    later = iter([replace(each, node=first.node) for each in settings])
    source = Source("edge.toml", lambda: b"", lambda _: next(later))
    pid = os.fork()
    if pid == 0:
        try:
            with House(directory, source, _kept_in(first, first)) as house:
                code = house.run()
        finally:
            os._exit(code)
    running = Running(directory, pid)
    try:
        assert eventually(lambda: "ready" in running.notes())
        yield running
    finally:
        if Path(f"/proc/{pid}").exists():
            running.end(signal.SIGKILL)


def _kept_in(told: Config, first: Config) -> Config:
    return replace(told, store=replace(told.store, dir=first.store.dir))


def with_memory(directory: Path, memory: int) -> Config:
    told = config(f"store.dir={directory / 'store'}")
    return replace(told, store=replace(told.store, memory=memory))


def test_a_node_ends_in_order(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        assert house.end() == 0
    drained = [note for note in house.notes() if "hears Drain" in note]
    assert sorted(drained[:2]) == ["worker 0 hears Drain", "worker 1 hears Drain"]
    assert drained[-1] == "keeper hears Drain"


def test_settings_that_workers_cannot_start_with_are_taken_back(tmp_path: Path) -> None:
    with a_house(tmp_path, with_memory(tmp_path, BAD), with_memory(tmp_path, GOOD)) as house:
        os.kill(house.pid, signal.SIGHUP)
        word = "on starting with them; the settings from before are in force"
        assert eventually(lambda: word in house.log())
        assert eventually(lambda: len(house.children()) == 3)
        starts = [note for note in house.notes() if "starts with" in note]
        assert {note.partition(",")[0] for note in starts[-2:]} == {
            "worker 0 starts with 64",
            "worker 1 starts with 64",
        }
        os.kill(house.pid, signal.SIGHUP)  # and others can still be given
        assert eventually(lambda: house.log().count("read again") == 2)
        assert house.end() == 0


def test_who_does_not_release_its_slot_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELEASE_S", 0.2)
    with a_house(tmp_path, with_memory(tmp_path, GOOD * 2)) as house:
        (tmp_path / "deaf").touch()
        before = set(house.children())
        os.kill(house.pid, signal.SIGHUP)
        assert eventually(lambda: len(set(house.children()) - before) == 2)
        assert house.log().count("did not end in time; it is killed") == 2
        assert house.end() == 0


def test_who_does_not_take_up_settings_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELEASE_S", 0.2)
    with a_house(tmp_path, config(f"store.dir={tmp_path / 'store'}", "limits.fields=9")) as house:
        (tmp_path / "mute").touch()
        before = set(house.children())
        os.kill(house.pid, signal.SIGHUP)
        assert eventually(lambda: len(set(house.children()) - before) == 1)
        assert house.log().count("did not end in time; it is killed") == 1
        assert house.end() == 0


def test_there_are_only_so_many_generations_that_drain(tmp_path: Path) -> None:
    changes = [with_memory(tmp_path, GOOD + (number << 20)) for number in range(2, 9)]
    with a_house(tmp_path, *changes) as house:
        (tmp_path / "slow").touch()
        for number in range(len(changes)):
            os.kill(house.pid, signal.SIGHUP)
            told = [f"worker {slot} starts with {66 + number}," for slot in (0, 1)]
            assert eventually(
                lambda told=told: all(  # type: ignore[misc]
                    any(note.startswith(each) for note in house.notes()) for each in told
                )
            )
        assert len(house.children()) <= 1 + 2 * module.GENERATIONS
        assert house.end() == 0


def test_who_dies_again_and_again_is_started_ever_more_slowly(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        (tmp_path / "hurdle").touch()
        os.kill(house.children()[1], signal.SIGKILL)
        assert eventually(lambda: len(house.notes()) >= 8)
        times = [line.split("Z ")[0] for line in house.log().splitlines() if "again" in line]
        seconds = [float(time.rpartition(":")[2]) + 60 * int(time[14:16]) for time in times]
        gaps = [later - sooner for sooner, later in pairwise(seconds)]
        assert gaps[-1] > 2 * gaps[0]
        (tmp_path / "hurdle").unlink()
        assert eventually(lambda: len(house.children()) == 3)
        assert house.end() == 0


def test_a_worker_that_is_told_to_end_by_somebody_else_is_replaced(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        before = house.children()
        os.kill(before[2], signal.SIGTERM)
        assert eventually(lambda: len(house.children()) == 3 and house.children() != before)
        assert house.end(signal.SIGINT) == 0


def test_processes_that_live_side_by_side_count_apart(tmp_path: Path) -> None:
    with a_house(tmp_path, with_memory(tmp_path, GOOD * 2)) as house:
        os.kill(house.pid, signal.SIGHUP)
        assert eventually(lambda: len(house.notes()) >= 7)
        assert house.end() == 0
    assert {note.rpartition(" ")[2] for note in house.notes() if "counts" in note} >= {"0", "1"}


# --- before there are children


def serve_quietly(told: Config) -> int:
    return serve(EDGE, told, b"", Source("the test", lambda: b"", lambda _: told))


def test_an_address_that_cannot_be_had_ends_the_start_with_a_sentence(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here = config(f"store.dir={tmp_path / 'store'}")
    elsewhere = Address("192.0.2.1", 1)  # not an address of any machine's (RFC 5737)
    there = replace(here, node=replace(here.node, listen=(*here.node.listen, elsewhere)))
    assert serve_quietly(there) == 1
    assert capfd.readouterr().err.startswith("edge: cannot listen")


def test_a_node_without_a_directory_for_its_store_does_not_start(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert serve_quietly(config()) == 1
    assert "store.dir" in capfd.readouterr().err


def test_a_ca_that_cannot_be_used_ends_the_start_with_a_sentence(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ca = f"origin.default.ca={tmp_path / 'none.pem'}"
    told = config(ca, f"store.dir={tmp_path / 'store'}", to="https://a.example")
    assert serve_quietly(told) == 1
    assert "none.pem" in capfd.readouterr().err
