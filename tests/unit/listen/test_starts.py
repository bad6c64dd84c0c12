"""No more begin in a turn than may, all begin in order, and none waits where there are few."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from edge.listen.starts import Starts


async def begin(starts: Starts, name: int, begun: list[int]) -> None:
    await starts.turn()
    begun.append(name)


@pytest.mark.parametrize("many", [1, 3, 4, 10])
async def test_so_many_begin_in_a_turn_and_all_in_order(many: int) -> None:
    begun: list[int] = []
    async with trio.open_nursery() as nursery:
        starts = Starts(nursery, most=3)
        for name in range(many):
            nursery.start_soon(begin, starts, name, begun)
        turns = []
        while len(begun) < many:
            before = len(begun)
            await trio.lowlevel.cancel_shielded_checkpoint()
            turns.append(len(begun) - before)
        assert max(turns) <= 2 * 3  # a turn's beginnings may fall on both sides of ours
        assert sorted(begun) == list(range(many))
    assert many > 3 or turns.count(0) <= 1  # where there are few, none waits


async def test_whoever_is_cancelled_takes_nobodys_turn() -> None:
    begun: list[int] = []
    async with trio.open_nursery() as nursery:
        starts = Starts(nursery, most=1)
        async with trio.open_nursery() as others:
            for name in range(5):
                others.start_soon(begin, starts, name, begun)
            await trio.lowlevel.cancel_shielded_checkpoint()
            others.cancel_scope.cancel()
        await begin(starts, 9, begun)
    assert begun[-1] == 9


async def test_a_turn_is_over_where_nothing_is_left() -> None:
    async with trio.open_nursery() as nursery:
        starts = Starts(nursery, most=1)
        for name in range(3):
            begun: list[int] = []
            await begin(starts, name, begun)
            await trio.testing.wait_all_tasks_blocked()
            assert not nursery.child_tasks
