"""Three origins on three continents before a node of two workers: who serves whom, and who when
the nearest is dead, and when it is back.
"""

from __future__ import annotations

import re
import signal
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from edge.command.asking import Node as Admin
from tests.live.harness import eventually
from tests.live.named_origin import NamedOrigin
from tests.live.tiers import AMERICA, ASIA, EUROPE, Steady, edge, geodata, order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.live.hostile_harness import Node

pytestmark = pytest.mark.live

NEAREST = 'nearest = ["eu", "us", "ap"], retries = 2'
INTERVAL_S = 0.5
SLOW_START_S = 4.0
LONGEST_S = 2.0  # for one answer, while an origin dies
TERMS = f"""\
check = {{ path = "/u/", every = "{INTERVAL_S * 1000:.0f}ms", timeout = "400ms", down_after = 1 }}
slow_start = "{SLOW_START_S:.0f}s"
"""


@contextmanager
def a_world(
    tmp_path: Path, *, servers_in_europe: int = 1
) -> Iterator[tuple[Node, dict[str, list[NamedOrigin]]]]:
    """A node, and the origins by their names; those in Europe are called eu, eu1, …"""
    with ExitStack() as stack:
        eu = [NamedOrigin(f"eu{number or ''}") for number in range(servers_in_europe)]
        origins = {"eu": eu, "us": [NamedOrigin("us")], "ap": [NamedOrigin("ap")]}
        for each in (one for group in origins.values() for one in group):
            stack.enter_context(each)
        node = stack.enter_context(
            edge(
                tmp_path,
                "edge1",
                {name: [one.url for one in group] for name, group in origins.items()},
                route=NEAREST,
                node=f'geo = "{geodata(tmp_path)}"',
                more=dict.fromkeys(origins, TERMS),
            )
        )
        yield node, origins


def served_by(node: Node, address: str, mark: str = "") -> str | None:
    return node.get(f"/u/{address}{mark}", X_Forwarded_For=address).field("x-origin")


def test_clients_on_three_continents_are_served_by_three_origins(tmp_path: Path) -> None:
    with a_world(tmp_path) as (node, origins):
        for turn in range(8):  # by both workers
            places = [served_by(node, each, str(turn)) for each in (EUROPE, AMERICA, ASIA)]
            assert places == ["eu", "us", "ap"]
        for dead, instead in (("eu", "us"), ("us", "ap")):
            origins[dead][0].kill()
            assert served_by(node, EUROPE, f"-without-{dead}") == instead
        origins["ap"][0].kill()
        assert node.get("/u/last", X_Forwarded_For=EUROPE).status == 502


def test_the_next_nearest_has_it_at_once_and_the_nearest_comes_back_slowly(
    tmp_path: Path,
) -> None:
    with a_world(tmp_path) as (node, origins), Steady(node.port) as load:
        load.wait_sent_until(time.monotonic() + 1.0)
        assert {each.origin for each in load.seen} == {"eu"}

        origins["eu"][0].kill()
        killed = time.monotonic()
        load.wait_sent_until(killed + 2 * INTERVAL_S)
        after = load.since(killed)
        assert {each.origin for each in after} == {"us"}
        assert max(each.ended - each.sent for each in after) < LONGEST_S

        origins["eu"][0].start()
        back = load.wait_for("eu")
        load.wait_sent_until(back + SLOW_START_S + 1.0)
        assert_grows(load, "eu", back)
    assert load.faults == []


def test_of_two_servers_the_other_has_all_and_the_one_that_is_back_a_growing_share(
    tmp_path: Path,
) -> None:
    with a_world(tmp_path, servers_in_europe=2) as (node, origins), Steady(node.port) as load:
        load.wait_sent_until(time.monotonic() + 1.0)
        assert {each.origin for each in load.seen} == {"eu", "eu1"}

        origins["eu"][1].kill()
        killed = time.monotonic()
        load.wait_sent_until(killed + 2 * INTERVAL_S)
        assert {each.origin for each in load.since(killed)} == {"eu"}

        origins["eu"][1].start()
        back = load.wait_for("eu1")
        load.wait_sent_until(back + SLOW_START_S + 1.0)
        assert_grows(load, "eu1", back, whole=0.5)
    assert load.faults == []


def assert_grows(load: Steady, name: str, back: float, *, whole: float = 1.0) -> None:
    """From little to its `whole` share, in a slow start that began at `back`."""
    quarter_s = SLOW_START_S / 4
    shares = [share_of(load, name, back + n * quarter_s, quarter_s) for n in range(4)]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.5 * whole
    assert share_of(load, name, back + SLOW_START_S + 0.5, 0.5) == pytest.approx(whole, abs=0.05)


def share_of(load: Steady, name: str, begin: float, length_s: float) -> float:
    took = [each.origin for each in list(load.seen) if 0 <= each.ended - begin < length_s]
    return took.count(name) / len(took)


def test_a_server_that_stands_still_is_left_out_by_the_checks(tmp_path: Path) -> None:
    with a_world(tmp_path) as (node, origins):
        assert served_by(node, EUROPE) == "eu"
        origins["eu"][0].signal(signal.SIGSTOP)  # it takes connections, and answers nothing
        assert eventually(lambda: states(node)["eu"] == {"down"})
        began = time.monotonic()
        for turn in range(20):
            assert served_by(node, EUROPE, f"-stopped-{turn}") == "us"
        assert time.monotonic() - began < 5
        origins["eu"][0].signal(signal.SIGCONT)
        assert eventually(lambda: states(node)["eu"] == {"up"})


def test_a_server_is_emptied_listed_so_and_taken_back(tmp_path: Path) -> None:
    with a_world(tmp_path, servers_in_europe=2) as (node, origins), Steady(node.port) as load:
        load.wait_sent_until(time.monotonic() + 0.5)
        url = origins["eu"][0].url
        assert "drained" in order(node, "origin", "drain", url)
        told = time.monotonic()
        load.wait_sent_until(told + 1.0)
        assert {each.origin for each in load.since(told)} == {"eu1"}
        assert re.search(rf"{url}.*drained", order(node, "origin", "list"))

        assert "drained" in order(node, "origin", "drain", "eu")  # the whole of it
        told = time.monotonic()
        load.wait_sent_until(told + 1.0)
        assert {each.origin for each in load.since(told)} == {"us"}

        order(node, "origin", "up", "eu")
        load.wait_for("eu")
        load.wait_for("eu1")
    assert load.faults == []


def states(node: Node) -> dict[str, set[str]]:
    """What the checks and each worker call each origin."""
    servers = Admin(node.admin).get("/v1/origins")["servers"]
    return {
        each["origin"]: {each["check"]["state"], *(one["state"] for one in each["workers"])}
        for each in servers
    }
