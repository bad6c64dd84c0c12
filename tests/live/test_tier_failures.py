"""A shield that dies, or stands still, before an edge that is under load: as the site says."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.live import tiers
from tests.live.harness import eventually
from tests.live.hostile_harness import Origin as HandledOrigin
from tests.live.hostile_harness import plain
from tests.live.named_origin import NamedOrigin
from tests.live.tiers import Steady, freeze, kill_all, thaw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.live.hostile_harness import Answer, Asked, Node, Wire

pytestmark = pytest.mark.live

PATIENCE_S = 1.0
PATIENCE = f'timeouts = {{ connect = "{PATIENCE_S:.0f}s", first_byte = "{PATIENCE_S:.0f}s" }}'
BOUND_S = 5.0  # in which every answer has to be there, whatever the shield does
OLD = b"stored before"
STALE = "Cache-Control: max-age=1, stale-if-error=600"


@dataclass(frozen=True)
class World:
    origin: NamedOrigin
    shield: Node
    edge: Node


@contextmanager
def a_world(tmp_path: Path, *, without: str = "origin") -> Iterator[World]:
    with NamedOrigin("eu") as origin:
        origins = {"eu": [origin.url]}
        with (
            tiers.shield(tmp_path, origins) as shield,
            tiers.edge(
                tmp_path, "edge1", origins, behind=shield, without=without, patience=PATIENCE
            ) as node,
        ):
            yield World(origin, shield, node)


def passes_the_shield(node: Node, target: str) -> bool:
    answer = node.get(target)
    return answer.status == 200 and "shield1" in (answer.field("cache-status") or "")


def by_shield_again(world: World) -> bool:
    """Whether what nobody has is asked of the shield; each time it is something else."""
    return passes_the_shield(world.edge, f"/m/again-{time.monotonic_ns()}")


def test_a_shield_that_is_killed_and_started_again_costs_no_request(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        assert passes_the_shield(world.edge, "/m/first")
        with Steady(world.edge.port, kind="m") as load:
            for _ in range(3):
                load.wait_sent_until(time.monotonic() + 0.5)
                kill_all(world.shield)
                load.wait_sent_until(time.monotonic() + 1.0)
                world.shield.start()
                assert eventually(lambda: by_shield_again(world))
        assert load.faults == []
        assert len(load.seen) > 500
        assert max(each.ended - each.sent for each in load.seen) < BOUND_S


def test_a_shield_that_stands_still_costs_no_request_where_the_origin_may_be_asked(
    tmp_path: Path,
) -> None:
    with a_world(tmp_path) as world, Steady(world.edge.port, kind="m", rate_per_s=50) as load:
        load.wait_sent_until(time.monotonic() + 0.5)
        freeze(world.shield)
        load.wait_sent_until(time.monotonic() + 4.0)
        thaw(world.shield)
        assert eventually(lambda: by_shield_again(world))
    assert load.faults == []
    assert max(each.ended - each.sent for each in load.seen) < BOUND_S


def test_of_a_shield_that_stands_still_visitors_are_told_where_it_alone_may_be_asked(
    tmp_path: Path,
) -> None:
    with a_world(tmp_path, without="fail") as world:
        assert passes_the_shield(world.edge, "/m/stored")
        freeze(world.shield)
        for number in range(6):
            began = time.monotonic()
            told = world.edge.get(f"/m/{number}")
            assert told.status in (502, 504)
            assert time.monotonic() - began < BOUND_S
            assert world.edge.get("/m/stored").status == 200  # what is stored needs no shield
        thaw(world.shield)
        assert eventually(lambda: by_shield_again(world))


@pytest.mark.parametrize("trouble", [freeze, kill_all])
def test_what_is_stale_stands_in_for_a_shield_that_alone_may_be_asked(
    tmp_path: Path, trouble: object
) -> None:
    def answer(asked: Asked, wire: Wire) -> None:
        wire.send(plain(OLD, STALE))

    with HandledOrigin(answer) as origin:
        origins = {"a": [origin.url]}
        with (
            tiers.shield(tmp_path, origins) as shield,
            tiers.edge(
                tmp_path, "edge1", origins, behind=shield, without="fail", patience=PATIENCE
            ) as node,
        ):
            assert node.get("/page").body == OLD
            assert callable(trouble)
            trouble(shield)
            assert eventually(lambda: age_of(node.get("/page")) >= 2)
            for _ in range(4):
                began = time.monotonic()
                told = node.get("/page")
                assert (told.status, told.body) == (200, OLD)
                assert time.monotonic() - began < BOUND_S
            assert node.get("/other").status in (502, 504)


def age_of(answer: Answer) -> int:
    return int(answer.field("age") or 0)
