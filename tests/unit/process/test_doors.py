"""Where a node listens: on every address with a socket for each worker, or not at all."""

from __future__ import annotations

import os
import socket
import stat
import time
from typing import TYPE_CHECKING

import pytest

from edge.config.notation import Address
from edge.process import doors as doors_module
from edge.process.doors import Doors, InnerDoors
from tests.unit.observe.test_tally import forked, killed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANY = Address("127.0.0.1", 0)


@pytest.fixture
def doors() -> Iterator[Doors]:
    made = Doors(2)
    yield made
    made.keep_only(())


@pytest.fixture
def other() -> Iterator[socket.socket]:
    """Somebody else's listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def of(doors: Doors, slot: int) -> tuple[socket.socket, ...]:
    """A worker's sockets, at whatever address."""
    return doors.of(slot, doors._sockets)


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def test_each_worker_has_a_socket_of_its_own_at_the_same_address(doors: Doors) -> None:
    doors.open([ANY])
    (one,), (two,) = of(doors, 0), of(doors, 1)
    assert one.fileno() != two.fileno()
    assert one.getsockname() == two.getsockname()
    assert doors.told() == f"http://127.0.0.1:{port_of(one)}"


def test_an_address_that_is_open_stays_as_it_is(doors: Doors) -> None:
    doors.open([ANY])
    before = of(doors, 0)
    doors.open([ANY, Address("127.0.0.2", 0)])
    assert of(doors, 0)[:1] == before
    assert len(of(doors, 1)) == 2
    assert doors.of(0, [ANY]) == before


def test_an_address_that_is_given_up_refuses(doors: Doors) -> None:
    doors.open([ANY])
    where = of(doors, 0)[0].getsockname()
    doors.keep_only([])
    assert of(doors, 0) == ()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where)


def test_where_one_address_is_taken_none_is_opened(
    doors: Doors, other: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors_module, "PAUSE_S", 0.0)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="in use"):
        doors.open([ANY, Address("127.0.0.1", port_of(other))])
    assert of(doors, 0) == ()
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_nodes_do_not_share_an_address(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors_module, "PAUSE_S", 0.0)
    doors.open([ANY])
    with pytest.raises(OSError, match="in use"):
        Doors(2).open([Address("127.0.0.1", port_of(of(doors, 0)[0]))])


def test_a_node_that_is_not_quite_gone_is_waited_for(
    doors: Doors, other: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: other.close())
    address = Address("127.0.0.1", port_of(other))
    doors.open([address])
    assert port_of(of(doors, 1)[0]) == address.port


def test_who_waits_for_a_worker_that_died_is_accepted_by_the_next(doors: Doors) -> None:
    doors.open([ANY])
    (one,), (two,) = of(doors, 0), of(doors, 1)
    clients = [socket.create_connection(one.getsockname()) for _ in range(8)]
    killed(forked(lambda: (one.fileno(), two.fileno())))
    accepted = 0
    for listener in (one, two):
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                break
            accepted += 1
    assert accepted == 8
    for client in clients:
        client.close()


def test_the_processes_sockets_are_the_nodes_own_and_gone_at_its_end(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    inner = InnerDoors(tmp_path, 2)
    names = ["desk-0.sock", "desk-1.sock", "hop-0.sock", "hop-1.sock", "keeper.sock"]
    assert sorted(os.listdir(tmp_path)) == names
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names} == {0o600}
    inner.close()
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_socket_file_of_a_node_that_was_killed_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "keeper.sock"))
    inner = InnerDoors(tmp_path, 1)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(inner.paths.keeper)
        inner.keeper.accept()[0].close()
    inner.close()


def test_a_directory_with_a_long_name_will_do(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 200)
    deep.mkdir()
    InnerDoors(deep, 1).close()


def test_a_file_that_was_taken_away_does_not_hinder_the_end(tmp_path: Path) -> None:
    inner = InnerDoors(tmp_path, 1)
    (tmp_path / "desk-0.sock").unlink()
    inner.close()
    assert os.listdir(tmp_path) == []
