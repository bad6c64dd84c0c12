"""Orders about servers on a node of two workers: everyone goes by them, and they outlive all."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from edge.command.asking import Node as Admin
from tests.live.harness import eventually
from tests.live.hostile_harness import EDGE, ROOT, children_of
from tests.live.test_workers import a_node, change, workers_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.live.hostile_harness import Node

pytestmark = pytest.mark.live


def edge(node: Node, *args: str) -> subprocess.CompletedProcess[str]:
    command = [*EDGE, *args, "--socket", str(node.admin)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def listed(node: Node) -> dict[str, Any]:
    """The one server that there is."""
    (server,) = Admin(node.admin).get("/v1/origins")["servers"]
    told: dict[str, Any] = server
    return told


def test_an_order_is_in_force_when_told_and_outlives_workers_keeper_reload_and_restart(
    tmp_path: Path,
) -> None:
    with a_node(tmp_path) as (node, file):
        assert not listed(node)["drained"]
        told = edge(node, "origin", "drain", "a")
        assert (told.returncode, told.stdout) == (0, f"{listed(node)['id']}: drained\n")
        assert edge(node, "origin", "weight", "a", "5").returncode == 0

        def holds() -> bool:
            try:
                server = listed(node)
            except OSError:  # the keeper that was killed has no successor yet
                return False
            return bool(server["drained"]) and server["weight"] == 5.0

        before = workers_of(node)
        os.kill(before[0], signal.SIGKILL)
        assert eventually(lambda: workers_of(node)[0] != before[0])
        assert holds()
        (keeper,) = set(children_of(node.pid)) - set(workers_of(node))
        os.kill(keeper, signal.SIGKILL)
        assert eventually(holds)
        change(file, 'drain = "3s"', 'drain = "4s"')
        Admin(node.admin).post("/v1/reload", {"wait": True})
        assert holds()
        node.stop()
        node.start()
        assert holds()
        told = edge(node, "origin", "up", "a")
        assert (told.returncode, told.stdout) == (
            0, f"{listed(node)['id']}: in use, weight 5 (settings 1)\n",
        )  # fmt: skip
        assert edge(node, "origin", "weight", "a", "--reset").returncode == 0
        assert "in use, weight 1\n" in edge(node, "origin", "up", "a").stdout
        assert "origin" in edge(node, "origin", "list").stdout


def test_a_worker_that_is_stopped_is_named_and_the_others_go_by_the_order(tmp_path: Path) -> None:
    with a_node(tmp_path) as (node, _):
        stopped = workers_of(node)[1]
        os.kill(stopped, signal.SIGSTOP)
        try:
            began = time.monotonic()
            told = edge(node, "origin", "drain", "a")
            assert time.monotonic() - began < 30
            assert told.returncode == 1
            assert f"worker 1 (pid {stopped}) does not go by it yet" in told.stderr
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert edge(node, "origin", "drain", "a").returncode == 0


def test_what_a_node_does_not_have_is_told_with_what_is_near(tmp_path: Path) -> None:
    with a_node(tmp_path) as (node, _):
        told = edge(node, "origin", "drain", "b")
        assert (told.returncode, told.stdout) == (1, "")
        assert told.stderr == 'edge: "b" is no origin; there is a\n'
        told = edge(node, "ab", "stop", "checkout")
        assert told.stderr == 'edge: "checkout" is no experiment; the settings name none\n'
        assert edge(node, "ab", "list").stdout == "no site has an experiment\n"
