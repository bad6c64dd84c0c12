"""The people of a story, `edge`, `origin` and `client`; and its clock, which jumps."""

from __future__ import annotations

from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock

from tests.stories.world import Client, Edge, ScriptedOrigin, a_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    World = tuple[Edge, ScriptedOrigin, Client]


def run_on_a_clock_that_jumps(story: Any, *, clock: MockClock | None, **rest: Any) -> Any:
    """`trio.run` for stories, whose arguments are people and not clocks."""
    return trio.run(story, clock=clock or MockClock(autojump_threshold=0), **rest)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        function = getattr(item, "function", None)
        if item.path.parent == Path(__file__).parent and iscoroutinefunction(function):
            item.add_marker(pytest.mark.trio(run=run_on_a_clock_that_jumps))


@pytest.fixture
def sets() -> Sequence[str]:
    """Settings, as `edge proxy --set` takes them; a story has its own by `settings`."""
    return ()


@pytest.fixture
def directory() -> Path | None:
    """Where the disk tier is; by default the node has none."""
    return None


@pytest.fixture(params=[False, True], ids=["at-home", "by-hop"])
def by_hop(request: pytest.FixtureRequest) -> bool:
    """Whether every request comes to a worker that does not own its key."""
    return bool(request.param)


@pytest.fixture
async def world(sets: Sequence[str], directory: Path | None, by_hop: bool) -> AsyncIterator[World]:
    async with a_world(sets, directory, by_hop=by_hop) as made:
        yield made


@pytest.fixture
async def edge(world: World) -> Edge:
    return world[0]


@pytest.fixture
async def origin(world: World) -> ScriptedOrigin:
    return world[1]


@pytest.fixture
async def client(world: World) -> Client:
    return world[2]
