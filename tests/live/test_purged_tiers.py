"""Two edges, a shield and an origin: what an edge purges, the shield has purged before it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge.purging.envoy import BEHIND, LONGEST_PAUSE_S, PATIENCE_S, SHORT_S
from tests.live.harness import Answer, Client, Reply, ScriptedOrigin, eventually
from tests.live.hostile_harness import EDGE, Node, children_of, free_port
from tests.live.test_shield import FRESH, SECRET, SHIELD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.live

SLACK_S = 2.0  # of two slow cores
LONG_S = 4 * LONGEST_PAUSE_S  # until what is owed is sent again, and again
ENVIRONMENT = {"EDGE_SHIELD_SECRET": SECRET}


def _settings(directory: Path, port: int, workers: int) -> str:
    return f"""
[node]
listen = ["127.0.0.1:{port}"]
workers = {workers}
admin = "{directory / "admin.sock"}"
access_log = "{directory / "access.log"}"
error_log = "{directory / "error.log"}"
drain = "3s"
[store]
dir = "{directory / "store"}"
memory = "64MiB"
"""


def _node(directory: Path, more: str, *, program: Sequence[str], workers: int) -> Node:
    directory.mkdir()
    port, file = free_port(), directory / "node.toml"
    file.write_text(_settings(directory, port, workers) + more)
    return Node(
        directory, "", port=port, file=file, program=program, environment=ENVIRONMENT, sets=()
    )


def a_shield(directory: Path, origin: ScriptedOrigin) -> Node:
    more = f"""
[origin.a]
servers = ["{origin.url}"]
[[site]]
hosts = ["example.com"]
route = {{ first = ["a"] }}
[edges]
secret = {{ env = "EDGE_SHIELD_SECRET" }}
"""
    return _node(directory, more, program=SHIELD, workers=1)


def an_edge(directory: Path, origin: ScriptedOrigin, shields: Sequence[Node]) -> Node:
    nodes = [f"http://127.0.0.1:{shield.port}" for shield in shields]
    more = f"""
[origin.a]
servers = ["{origin.url}"]
[shield]
nodes = {json.dumps(nodes)}
secret = {{ env = "EDGE_SHIELD_SECRET" }}
[[site]]
hosts = ["example.com"]
route = {{ first = ["a"], via = "shield" }}
purge_from = ["127.0.0.0/8"]
"""
    return _node(directory, more, program=EDGE, workers=2)


@dataclass
class Tiers:
    origin: ScriptedOrigin
    shield: Node
    edges: tuple[Node, Node]


@contextmanager
def tiers(directory: Path) -> Iterator[Tiers]:
    with ScriptedOrigin() as origin, a_shield(directory / "shield", origin) as shield:
        first = an_edge(directory / "one", origin, [shield])
        second = an_edge(directory / "two", origin, [shield])
        with first, second:
            yield Tiers(origin, shield, (first, second))


def get(node: Node, target: str) -> Answer:
    with Client(node.port) as client:
        return client.ask("GET", target)


def purge(node: Node, *args: str) -> tuple[int, dict[str, Any], str, float]:
    """The exit code, the document, what is said on standard error, and the seconds it took."""
    began = time.monotonic()
    done = command(node, "purge", *args, "--json")
    return done.returncode, json.loads(done.stdout), done.stderr, time.monotonic() - began


def command(node: Node, *args: str) -> subprocess.CompletedProcess[str]:
    whole = [*EDGE, *args, "--socket", str(node.admin)]
    return subprocess.run(whole, capture_output=True, text=True, timeout=30, check=False)


def everyone(node: Node) -> list[int]:
    return [node.pid, *children_of(node.pid)]


@contextmanager
def stopped(node: Node) -> Iterator[None]:
    """A node whose processes all stand still: it takes connections and answers nothing."""
    pids = everyone(node)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def end(node: Node) -> None:
    """kill -9, and wait until its keeper and workers have ended, too."""
    pids = everyone(node)
    node.kill()
    assert eventually(lambda: not any(map(runs, pids)))


def runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def latest(node: Node) -> int:
    number: int = node.status()["purges"]["latest"]
    return number


def test_what_both_tiers_hold_is_fetched_from_the_origin_once(tmp_path: Path) -> None:
    with tiers(tmp_path) as all_:
        one, two = all_.edges
        all_.origin.script("page", Reply.of(200, FRESH, b"old"), Reply.of(200, FRESH, b"new"))
        assert get(one, "/page/").body == b"old"
        code, document, said, _ = purge(one, "url", "http://example.com/page/")
        assert (code, document["late"], said) == (0, [], "")
        assert (latest(all_.shield), latest(one), latest(two)) == (1, 1, 0)
        assert [get(one, "/page/").body for _ in range(4)] == [b"new"] * 4
        assert get(two, "/page/").body == b"new"  # which the shield has
        assert len(all_.origin.requests("page")) == 2
        assert '"url example.com/page/"; by unix' in all_.shield.complaints()


def test_a_purge_by_a_client_reaches_the_shield_for_its_host(tmp_path: Path) -> None:
    with tiers(tmp_path) as all_:
        one, _ = all_.edges
        all_.origin.script("page", *[Reply.of(200, FRESH, b"%d" % n) for n in range(3)])
        assert get(one, "/page/").body == b"0"
        with Client(one.port) as client:
            for number, fields in enumerate((["cache-tag: front"], []), 1):
                assert client.ask("PURGE", "/page/", fields).status == 200
                assert client.ask("GET", "/page/").body == b"%d" % number
        told = json.loads(command(all_.shield, "purges", "--json").stdout)
        assert [each["scopes"] for each in told["purges"]] == [
            ["url example.com/page/"],
            ["tag front on example.com"],
        ]
        assert all(each["confined"] for each in told["purges"])


def test_local_and_dry_runs_stay_here(tmp_path: Path) -> None:
    with tiers(tmp_path) as all_:
        one, _ = all_.edges
        assert purge(one, "all", "--yes", "--local")[0] == 0
        assert purge(one, "all", "--dry-run")[0] == 0
        assert (latest(one), latest(all_.shield)) == (1, 0)


def test_a_shield_that_hangs_is_named_and_gets_the_purge_later(tmp_path: Path) -> None:
    with tiers(tmp_path) as all_:
        one, _ = all_.edges
        url = f"http://127.0.0.1:{all_.shield.port}"
        all_.origin.script("page", *[Reply.of(200, FRESH, b"%d" % n) for n in range(3)])
        assert get(one, "/page/").body == b"0"
        with stopped(all_.shield):
            code, document, said, took_s = purge(one, "tag", "front")
            assert (code, took_s < PATIENCE_S + SLACK_S) == (1, True)
            assert [(each["url"], each["owed"]) for each in document["late"]] == [(url, True)]
            assert f"  {url}: no answer within 5 s; it will be sent again" in said
            assert latest(one) == 1
            assert get(one, "/page/").body == b"1"  # from the origin
            assert BEHIND in command(one, "origin", "list").stdout
            code, _, _, took_s = purge(one, "tag", "other")
            assert (code, took_s < SHORT_S + SLACK_S) == (1, True)
        assert eventually(lambda: latest(all_.shield) == 2, LONG_S)
        assert eventually(lambda: "every purge that it was owed" in one.complaints(), LONG_S)
        assert purge(one, "url", "http://example.com/page/")[0] == 0
        assert get(one, "/page/").body == b"2"


def test_what_is_owed_outlives_the_edge(tmp_path: Path) -> None:
    with tiers(tmp_path) as all_:
        one, _ = all_.edges
        end(all_.shield)
        assert purge(one, "tag", "front")[0] == 1
        end(one)
        all_.shield.start()
        assert latest(all_.shield) == 0
        with stopped(all_.shield):
            one.start()
            all_.origin.script("page", Reply.of(200, FRESH, b"straight"))
            assert get(one, "/page/").body == b"straight"
        assert eventually(lambda: latest(all_.shield) >= 1, LONG_S)
        assert eventually(lambda: purge(one, "tag", "more")[0] == 0)


def test_a_write_that_passed_no_shield_is_told_to_it_later(tmp_path: Path) -> None:
    with tiers(tmp_path) as all_:
        one, two = all_.edges
        done = Reply.of(200, [], b"done")
        all_.origin.script(
            "page", Reply.of(200, FRESH, b"old"), done, Reply.of(200, FRESH, b"new")
        )
        assert get(one, "/page/").body == b"old"
        assert command(all_.shield, "purges").returncode == 0  # all that is stored is on disk
        end(all_.shield)
        with Client(one.port) as client:
            assert client.ask("POST", "/page/", [], b"x").body == b"done"
        all_.shield.start()
        assert eventually(lambda: latest(all_.shield) == 1, 2 * LONGEST_PAUSE_S)
        assert get(two, "/page/").body == b"new"
        assert len(all_.origin.requests("page")) == 3
