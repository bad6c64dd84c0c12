"""Parked connections on real sockets: many, slow, deaf, hasty and half-closed ones."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.live.harness import Client, Node, Reply, ScriptedOrigin, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.live

FRESH = ["cache-control: max-age=600", 'etag: "1"']
BODY = b"0123456789" * 100
IDLE = 2_000
SETS = ("node.access_log=off", "site.purge_from=['127.0.0.1/32']")


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as made:
        yield made
        assert made.unexpected == []


@pytest.fixture
def node(origin: ScriptedOrigin, tmp_path: Path) -> Iterator[Node]:
    with Node(origin.url, tmp_path, SETS) as made:
        yield made
        assert "internal" not in made.errors()


def stored(origin: ScriptedOrigin, node: Node, token: str, body: bytes = BODY) -> str:
    """A target whose answer is stored."""
    origin.script(token, Reply.of(200, FRESH, body))
    with Client(node.port) as client:
        assert client.ask("GET", f"/{token}").body == body
    return f"/{token}"


def written(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n".encode()


def pid_of(node: Node) -> int:
    assert node._process is not None
    return node._process.pid


def resident_bytes(node: Node) -> int:
    pages = int(Path(f"/proc/{pid_of(node)}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_thousands_who_say_nothing_are_small_and_are_served_when_they_ask(
    origin: ScriptedOrigin, node: Node
) -> None:
    target = stored(origin, node, "idle")
    before = resident_bytes(node)
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(Client(node.port)) for _ in range(IDLE)]
        for client in clients:
            assert client.ask("GET", target).body == BODY
        assert resident_bytes(node) - before < IDLE * 6 * 1024
        for client in clients[:: IDLE // 20]:
            assert client.ask("GET", target).body == BODY


def test_heads_that_drip_hold_nobody_up(origin: ScriptedOrigin, node: Node) -> None:
    target = stored(origin, node, "drip")
    with ExitStack() as open_ones:
        slow = [open_ones.enter_context(Client(node.port)) for _ in range(100)]
        with Client(node.port) as client:
            for octet in written(target)[:-1]:
                for each in slow:
                    each.send(bytes([octet]))
                assert client.ask("GET", target).body == BODY
        for each in slow:
            each.send(b"\n")
            assert each.receive().body == BODY


def test_requests_one_behind_the_other_are_all_answered_in_order(
    origin: ScriptedOrigin, node: Node
) -> None:
    targets = [stored(origin, node, f"p{number}", b"%d" % number) for number in range(5)]
    with Client(node.port) as client:
        for _ in range(3):
            client.send(b"".join(map(written, targets * 10)))
            bodies = [client.receive().body for _ in targets * 10]
            assert bodies == [b"%d" % number for number in range(5)] * 10
            assert client.ask("GET", targets[0]).body == b"0"


def test_who_has_ended_its_side_still_gets_its_answer(origin: ScriptedOrigin, node: Node) -> None:
    target = stored(origin, node, "half", bytes(900_000))
    for _ in range(5):
        with Client(node.port) as client:
            client.send(written(target))
            client.sock.shutdown(socket.SHUT_WR)
            assert len(client.receive().body) == 900_000
            assert client.sock.recv(1) == b""


def test_the_deaf_do_not_fill_the_memory(origin: ScriptedOrigin, node: Node) -> None:
    target = stored(origin, node, "deaf", bytes(500_000))
    before = resident_bytes(node)
    with ExitStack() as open_ones:
        deaf = [open_ones.enter_context(Client(node.port)) for _ in range(100)]
        for client in deaf:  # each asks for 16 MB, and reads nothing
            client.send(written(target) * 32)
        with Client(node.port) as client:
            for _ in range(50):
                assert len(client.ask("GET", target).body) == 500_000
        assert resident_bytes(node) - before < 16 << 20
    assert eventually(lambda: resident_bytes(node) - before < 16 << 20)


def test_a_purge_is_seen_by_the_next_request_on_a_parked_connection(
    origin: ScriptedOrigin, node: Node
) -> None:
    target = stored(origin, node, "purged")
    with Client(node.port) as client, Client(node.port) as operator:
        for number in range(20):
            assert "; hit" in (client.ask("GET", target).field("cache-status") or "")
            assert operator.ask("PURGE", target).status == 200
            origin.script("purged", Reply.of(200, FRESH, b"%d" % number))
            assert client.ask("GET", target).body == b"%d" % number


class Load:
    """Clients that ask for `target` on kept connections until the node ends them."""

    def __init__(self, node: Node, target: str, clients: int) -> None:
        self.answered = 0
        self.faults: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(node.port, target)) for _ in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, port: int, target: str) -> None:
        with Client(port) as client:
            while not self._stop.is_set():
                try:
                    answer = client.ask("GET", target)
                except ConnectionResetError:
                    self.faults.append("reset")
                    return
                except ConnectionError:
                    return  # ended, and nothing of an answer had come
                if answer.body != BODY or not answer.whole:
                    self.faults.append(f"{answer.status} {len(answer.body)}")
                self.answered += 1
                if answer.field("connection") == "close":
                    return

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def wait(seconds: float) -> None:
    """Let the load go on."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        select.select([], [], [], left)


def test_new_settings_under_load_fail_nobody(origin: ScriptedOrigin, node: Node) -> None:
    load = Load(node, stored(origin, node, "hup"), 8)
    for _ in range(5):
        wait(0.1)
        os.kill(pid_of(node), signal.SIGHUP)
    wait(0.1)
    assert all(thread.is_alive() for thread in load._threads)
    load.end()
    assert load.faults == []
    assert load.answered > 100
    assert "read again" in node.errors()


def test_draining_under_load_breaks_no_answer_off(origin: ScriptedOrigin, node: Node) -> None:
    load = Load(node, stored(origin, node, "drain"), 8)
    wait(0.3)
    assert node.stop() == 0
    load.end()
    assert load.faults == []
    assert load.answered > 50
