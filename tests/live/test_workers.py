"""A node of two workers: processes die, settings change, and no request is lost."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge.command.asking import Node as Admin
from edge.command.asking import NodeRefused
from tests.live.harness import eventually
from tests.live.hostile_harness import (
    Asked,
    Node,
    Origin,
    Wire,
    children_of,
    free_port,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.live

BODY = b"x" * 100


def answer(_asked: Asked, wire: Wire) -> None:
    wire.send(plain(BODY, "Cache-Control: max-age=3600"))


class Load:
    """Clients that ask again and again: some keep their connection, some make new ones."""

    def __init__(self, port: int, *, may_be_cut: bool = False) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._port = port
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(number, may_be_cut)) for number in range(6)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Until so many more requests have been answered."""
        goal = self.answered + more
        assert eventually(lambda: self.answered >= goal or bool(self.failed))

    def _ask(self, number: int, may_be_cut: bool) -> None:
        keeps = number % 2 == 0
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        turn = 0
        while not self._over.is_set():
            turn += 1
            try:
                client.request("GET", f"/{(number * 7 + turn) % 40}")
                answer = client.getresponse()
                good = answer.status == 200 and answer.read() == BODY
                error = "" if good else f"{answer.status}: {answer.getheader('Cache-Status')}"
            except (OSError, http.client.HTTPException) as cut:
                # A server may close a connection that is idle, and a client asks again (RFC 9112
                # §9.5); what has no answer on a fresh connection has failed.
                error = repr(cut) if turn == 1 or not keeps else ""
                client.close()
                turn = 0
            if not keeps:
                client.close()
            with self._lock:
                self.answered += not error
                if error and not may_be_cut:
                    self.failed.append(error)
        client.close()


@contextmanager
def a_node(tmp_path: Path, *lines: str) -> Iterator[tuple[Node, Path]]:
    """A node of two workers, and the file of its settings; `lines` are of its [node]."""
    port, file = free_port(), tmp_path / "edge.toml"
    with Origin(answer) as origin:
        file.write_text(
            f"""
[node]
name = "edge1"
listen = ["127.0.0.1:{port}"]
workers = 2
admin = "{tmp_path / "admin.sock"}"
error_log = "{tmp_path / "error.log"}"
drain = "3s"
{chr(10).join(lines)}
[store]
dir = "{tmp_path / "store"}"
memory = "64MiB"
[origin.a]
servers = ["{origin.url}"]
[[site]]
hosts = ["*"]
route = {{ first = ["a"] }}
"""
        )
        with Node(tmp_path, "", port=port, file=file) as node:
            yield node, file


def workers_of(node: Node) -> list[int]:
    """The pids of the workers, by slot."""
    return [worker["pid"] for worker in node.status()["workers"]]


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def is_gone(pid: int) -> bool:
    """Whether a process has ended, be it reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_worker_that_is_killed_is_replaced_and_its_backlog_is_served(tmp_path: Path) -> None:
    with a_node(tmp_path) as (node, _):
        for _ in range(5):
            first, second = workers_of(node)
            os.kill(first, signal.SIGSTOP)  # its newcomers wait in the backlog
            waiting = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(20)]
            for client in waiting:
                client.settimeout(10)
                client.sendall(b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            os.kill(first, signal.SIGKILL)
            for client in waiting:
                assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
                client.close()
            assert eventually(lambda was=first: _is_replaced(node, was))  # type: ignore[misc]
            assert second in workers_of(node)
        status = node.status()
        assert sum(worker["died"] for worker in status["workers"]) == 5
        assert node.complaints().count("was ended by signal 9 (Killed); it is started again") == 5


def _is_replaced(node: Node, pid: int) -> bool:
    workers = workers_of(node)
    return len(workers) == 2 and pid not in workers


def test_a_keeper_that_is_killed_forgets_no_purge_and_takes_the_next_one(tmp_path: Path) -> None:
    with a_node(tmp_path) as (node, _):
        admin = Admin(node.admin)
        assert node.get("/1").status == node.get("/1").status == 200
        assert admin.post("/v1/purge", {"url": [f"http://127.0.0.1:{node.port}/1"]})["number"] == 1
        (keeper,) = set(children_of(node.pid)) - set(workers_of(node))
        os.kill(keeper, signal.SIGKILL)
        assert eventually(lambda: "keeper (pid" in node.complaints())
        assert node.get("/1").status == 200
        assert eventually(lambda: _answers(admin))
        assert admin.post("/v1/purge", {"tag": ["x"]})["number"] == 2
        assert [each["number"] for each in admin.get("/v1/purges")["purges"]] == [2, 1]
        assert workers_of(node)


def _answers(admin: Admin) -> bool:
    try:
        admin.get("/v1/status")
    except OSError:
        return False
    return True


def test_settings_that_processes_can_take_up_change_no_process(tmp_path: Path) -> None:
    with a_node(tmp_path) as (node, file), Load(node.port) as load:
        before = workers_of(node)
        for number in range(20):
            change(file, "[origin.a]", f"[limits]\nconnections = {1000 + number}\n[origin.a]")
            told = Admin(node.admin).post("/v1/reload", {"wait": True})
            assert (told["done"], told["replaced"], told["later"]) == (True, False, [])
            change(file, f"[limits]\nconnections = {1000 + number}\n", "")
            node.signal(signal.SIGHUP)
            load.wait_for(10)
        assert workers_of(node) == before
        assert load.failed == []


def test_settings_for_which_workers_are_replaced_cost_no_request(tmp_path: Path) -> None:
    with a_node(tmp_path) as (node, file), Load(node.port) as load:
        before = set(workers_of(node))
        for number in range(5):
            change(file, f"{64 + number}MiB", f"{65 + number}MiB")
            told = Admin(node.admin).post("/v1/reload", {"wait": True})
            assert (told["done"], told["because"]) == (True, ["store.memory"])
            load.wait_for(50)
            now = set(workers_of(node))
            assert now.isdisjoint(before)
            before |= now
        assert load.failed == []
        assert eventually(lambda: len(children_of(node.pid)) == 3)  # the old ones have drained


def test_an_address_is_added_and_taken_away_while_the_others_go_on(tmp_path: Path) -> None:
    with a_node(tmp_path) as (node, file), Load(node.port) as load:
        other = free_port()
        listen = f'"127.0.0.1:{node.port}"'
        change(file, listen, f'{listen}, "127.0.0.1:{other}"')
        assert Admin(node.admin).post("/v1/reload", {"wait": True})["because"] == ["node.listen"]
        with socket.create_connection(("127.0.0.1", other)) as client:
            client.sendall(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        change(file, f', "127.0.0.1:{other}"', "")
        Admin(node.admin).post("/v1/reload", {"wait": True})
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other))
        assert load.failed == []


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('drain = "3s"', 'drain = "3 s"', "is not a duration"),
        ('error_log = "', 'error_log = "/nowhere/', "No such file"),
        ('listen = ["', 'listen = ["192.0.2.1:80", "', "cannot listen on 192.0.2.1"),
        ('admin = "', 'admin = "/dev/null/', "Not a directory"),
    ],
)
def test_settings_with_a_fault_change_nothing(
    tmp_path: Path, old: str, new: str, word: str
) -> None:
    with a_node(tmp_path) as (node, file), Load(node.port) as load:
        before = workers_of(node)
        change(file, old, new)
        with pytest.raises(NodeRefused) as refused:
            Admin(node.admin).post("/v1/reload", {"wait": True})
        assert refused.value.status == 422
        faults: list[dict[str, Any]] = refused.value.document["faults"]
        assert any(word in fault["message"] for fault in faults)
        load.wait_for(20)
        assert workers_of(node) == before
        assert word in node.complaints()
    assert load.failed == []


def test_settings_that_wait_for_the_next_start_are_named(tmp_path: Path) -> None:
    with a_node(tmp_path) as (node, file):
        change(file, "workers = 2", "workers = 1")
        told = Admin(node.admin).post("/v1/reload", {"wait": True})
        assert (told["later"], told["replaced"]) == (["node.workers"], False)
        assert len(workers_of(node)) == 2


def test_the_admin_socket_moves_where_the_settings_say(tmp_path: Path) -> None:
    with a_node(tmp_path) as (node, file):
        change(file, "admin.sock", "other.sock")
        assert Admin(node.admin).post("/v1/reload", {"wait": True})["because"] == ["node.admin"]
        assert eventually(lambda: _answers(Admin(tmp_path / "other.sock")))
        assert not node.admin.exists()


def test_nothing_of_a_node_outlives_its_parent(tmp_path: Path) -> None:
    with a_node(tmp_path) as (node, _):
        children = children_of(node.pid)
        assert len(children) == 3
        node.kill()
        assert eventually(lambda: all(map(is_gone, children)))
        node.start()
        assert node.get("/1").status == 200
        children = children_of(node.pid)
        assert node.stop() == 0
        assert all(map(is_gone, children))
        assert not list((tmp_path / "store").glob("*.sock"))


def test_two_nodes_on_one_address_do_not_share_it_unknowingly(tmp_path: Path) -> None:
    with a_node(tmp_path) as (node, _):
        other = Node(tmp_path / "other", "http://127.0.0.1:1", port=node.port)
        with pytest.raises(RuntimeError, match=r"cannot listen on 127\.0\.0\.1"):
            other.start()


LARGE = os.urandom(10 << 20)
FETCHES = 12


def test_a_large_body_is_lent_to_the_worker_that_does_not_own_it(tmp_path: Path) -> None:
    def answer_large(_asked: Asked, wire: Wire) -> None:
        wire.send(plain(LARGE, "Cache-Control: max-age=3600"))

    directory = tmp_path / "node"
    with Origin(answer_large) as origin, Node(directory, origin.url, sets=()) as node:
        used = 0

        def fetch_often() -> None:
            """On many connections, which the kernel spreads over the workers."""
            for _ in range(FETCHES):
                assert fetched(node.port) == LARGE

        def lent_all() -> bool:
            """All that the other worker answers is lent, once it is known to be right."""
            nonlocal used
            before = node.status()["hops"]
            fetch_often()
            after = node.status()["hops"]
            used = after["glanced"] + after["relayed"] - before["glanced"] - before["relayed"]
            return bool(used) and after["lent"] - before["lent"] == used

        assert eventually(lent_all)
        killed = workers_of(node)
        for pid in killed:  # whoever owned it, and its store begins anew
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: set(workers_of(node)).isdisjoint(killed))
        assert eventually(lent_all)
        assert len(origin.asked) == 1


@pytest.mark.parametrize("slot", [0, 1])  # one of them is the owner
def test_an_answer_goes_on_when_the_owner_of_what_it_sends_is_killed(
    tmp_path: Path, slot: int
) -> None:
    def answer_large(_asked: Asked, wire: Wire) -> None:
        wire.send(plain(LARGE, "Cache-Control: max-age=3600"))

    directory = tmp_path / "node"
    with Origin(answer_large) as origin, Node(directory, origin.url, sets=()) as node:

        def lends() -> bool:
            before = node.status()["hops"]["lent"]
            return fetched(node.port) == LARGE and node.status()["hops"]["lent"] > before

        assert eventually(lends)
        slow = []
        for _ in range(FETCHES):
            client = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
            client.request("GET", "/large")
            slow.append((client, client.getresponse()))
        os.kill(workers_of(node)[slot], signal.SIGKILL)
        whole = 0
        for client, answer in slow:
            with suppress(OSError, http.client.HTTPException):  # of the worker that was killed
                whole += answer.read() == LARGE
            client.close()
        assert whole > 0  # the other one ended what it had under way, its own or lent


def fetched(port: int) -> bytes:
    """The body, on a connection of its own."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        client.request("GET", "/large")
        return client.getresponse().read()
    finally:
        client.close()
