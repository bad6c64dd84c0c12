"""What a running node was told to read is gone, or shut off: it goes on by what it has."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from edge.command.asking import Node as Admin
from edge.command.asking import NodeRefused
from tests.live.harness import eventually
from tests.live.hostile_harness import children_of, free_port
from tests.live.test_workers import a_node, change, workers_of
from tests.live.tiers import EUROPE, geodata, order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.live.hostile_harness import Node

pytestmark = pytest.mark.live

ROUTE = 'route = { first = ["a"] }'
TESTED = """route = { first = ["a"], via = "shield" }
[[site.experiment]]
name = "c"
cookie = { name = "ab" }
arms = { old = { weight = 90 }, new = { weight = 10 } }
[[site.rule]]
match = { path = "/placed", continent = ["EU"] }
redirect = { to = "/europe", status = 302 }
"""


@contextmanager
def a_world(tmp_path: Path) -> Iterator[tuple[Node, Path, Path]]:
    """A node with a shield that is down, an experiment, and a database; its secret's file, too."""
    secret, places = tmp_path / "secret", geodata(tmp_path)
    secret.write_text("0123456789abcdef0123456789abcdef")
    secret.chmod(0o600)
    shield = f'[shield]\nnodes = ["http://127.0.0.1:{free_port()}"]\n'
    lines = (
        f'geo = "{places}"\ntrusted_proxies = ["127.0.0.0/8"]',
        shield + f'secret = {{ file = "{secret}" }}',
    )
    with a_node(tmp_path, *lines) as (node, file):
        change(file, ROUTE, TESTED)
        Admin(node.admin).post("/v1/reload", {"wait": True})
        yield node, secret, places


def answered(node: Node, path: str = "/", status: int = 200) -> int:
    """Of twenty newcomers, so many are answered so; each worker has some of them."""
    good = 0
    head = f"GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {EUROPE}\r\n\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", node.port), 5) as client:
            client.settimeout(5)
            client.sendall(head.encode())
            with suppress(TimeoutError):
                good += client.recv(100).startswith(b"HTTP/1.1 %d " % status)
    return good


def replace_worker(node: Node, slot: int) -> None:
    """kill -9, and wait for another one."""
    before = workers_of(node)[slot]
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: workers_of(node)[slot] != before)


def take_away(secret: Path, how: str) -> None:
    if how == "gone":
        secret.unlink()
    else:
        secret.chmod(0o644)


@pytest.mark.parametrize("how", ["gone", "open to others"])
def test_a_secret_that_vanishes_takes_nobody_down_at_an_order(tmp_path: Path, how: str) -> None:
    with a_world(tmp_path) as (node, secret, places):
        before = workers_of(node)
        take_away(secret, how)
        places.unlink()
        order(node, "ab", "ramp", "c", "new", "20")
        assert answered(node) == 20
        assert workers_of(node) == before
        assert "20" in order(node, "ab", "list")


def test_a_worker_that_dies_comes_back_without_them(tmp_path: Path) -> None:
    with a_world(tmp_path) as (node, secret, places):
        assert answered(node, "/placed", 302) == 20
        kept = places.with_suffix(".kept")
        secret.unlink()
        places.rename(kept)
        for slot in (0, 1):
            replace_worker(node, slot)
            assert answered(node) == 20
        assert "clients' places are unknown" in node.error_log.read_text()
        assert answered(node, "/placed") == 20  # by the origin, as if they were nowhere
        kept.rename(places)  # geoipupdate has done its work
        assert eventually(lambda: answered(node, "/placed", 302) == 20, 30.0)


def test_a_keeper_that_dies_comes_back_without_them(tmp_path: Path) -> None:
    with a_world(tmp_path) as (node, secret, places):
        secret.unlink()
        places.unlink()
        (keeper,) = set(children_of(node.pid)) - set(workers_of(node))
        os.kill(keeper, signal.SIGKILL)
        assert eventually(lambda: len(set(children_of(node.pid)) - {keeper}) == 3)

        def purges() -> bool:
            try:
                return bool(Admin(node.admin).post("/v1/purge", {"host": ["a"]})["number"])
            except OSError:  # its successor is not there yet
                return False

        assert eventually(purges)
        assert answered(node) == 20
        assert "is started again" in node.error_log.read_text()
        assert "code 1" not in node.error_log.read_text()


def test_a_reload_without_them_changes_nothing_and_says_why(tmp_path: Path) -> None:
    with a_world(tmp_path) as (node, secret, _):
        before = workers_of(node)
        secret.unlink()
        change(tmp_path / "edge.toml", 'drain = "3s"', 'drain = "4s"')
        with pytest.raises(NodeRefused, match=r"shield\.secret\.file"):
            Admin(node.admin).post("/v1/reload", {"wait": True})
        assert answered(node) == 20
        assert workers_of(node) == before
