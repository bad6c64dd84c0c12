"""It waits for one step at most, whatever is ready; it ends with its task, or with its error."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from edge.listen import between
from edge.listen.between import Between


async def steps(said: list[str], many: int) -> None:
    """So many tasks, all ready in the same turn."""

    async def step() -> None:
        said.append("step")

    async with trio.open_nursery() as nursery:
        for _ in range(many):
            nursery.start_soon(step)


async def test_it_is_done_after_each_step_of_a_turn() -> None:
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Between(lambda: said.append("act"), 0.0).run)
        await trio.testing.wait_all_tasks_blocked()
        said.clear()
        await steps(said, 10)
        nursery.cancel_scope.cancel()
    assert "step step" not in " ".join(said)
    assert said.count("step") == 10


async def test_it_is_not_done_more_often_than_it_should_be() -> None:
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        made = Between(lambda: said.append("act"), math.inf)
        nursery.start_soon(made.run)
        await steps(said, 10)
        assert said == ["step"] * 10
        made.act()  # whenever it is told
        assert said[-1] == "act"
        nursery.cancel_scope.cancel()


async def test_it_is_done_again_when_its_time_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    now = 0.0

    async def step() -> None:
        nonlocal now
        now += 0.4
        said.append("step")

    monkeypatch.setattr(between, "perf_counter", lambda: now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Between(lambda: said.append("act"), 1.0).run)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as steps:
            for _ in range(7):
                steps.start_soon(step)
        nursery.cancel_scope.cancel()
    assert said == [*["step"] * 3, "act", *["step"] * 3, "act", "step"]


async def test_it_ends_with_its_task() -> None:
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Between(lambda: said.append("act"), 0.0).run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    said.clear()
    await steps(said, 3)
    assert said == ["step"] * 3


async def test_its_error_is_its_tasks() -> None:
    said: list[str] = []

    def act() -> None:
        said.append("act")
        raise ValueError("of the act")

    with pytest.raises(ValueError, match="of the act"):
        await Between(act, 0.0).run()
    await steps(said, 3)
    assert said == ["act"] + ["step"] * 3


async def test_after_an_error_it_is_not_done_again() -> None:
    said: list[str] = []

    def act() -> None:
        said.append("act")
        raise ValueError("of the act")

    with pytest.raises(ExceptionGroup):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Between(act, 0.0).run)
            for _ in range(3):  # all in one turn, in any order
                nursery.start_soon(steps, said, 1)
    assert said.count("act") == 1


async def test_its_error_is_not_lost_where_it_is_cancelled_as_well() -> None:
    scope = trio.CancelScope()

    def act() -> None:
        scope.cancel()
        raise ValueError("of the act")

    with pytest.raises(ValueError, match="of the act"), scope:
        await Between(act, 0.0).run()
