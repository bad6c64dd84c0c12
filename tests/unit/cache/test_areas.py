"""Areas: each pays for its own purges; told with small bounds, the law is with `Purges`."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from edge.cache.areas import Areas

ONE, TWO, THREE = 1, 2, 3


def areas_of(most: int = 100, share: int = 100, most_areas: int = 100) -> Areas:
    return Areas(most, share, most_areas)


def is_dead(areas: Areas, fetched_at: int, *keys: int) -> bool:
    return areas.kill(fetched_at, memoryview(array("Q", keys)))


def test_an_entrys_areas_are_found_among_its_scopes() -> None:
    areas = areas_of()
    areas.record(ONE, [10], 1, soft=False)
    areas.record(TWO, [10, 20], 2, soft=True)
    (one,) = areas.around(memoryview(array("Q", [9, ONE, 10])))
    assert one.hard == {10: 1}
    assert len(areas.around(memoryview(array("Q", [TWO, ONE])))) == 2
    assert not areas.around(memoryview(array("Q", [10, 20])))
    assert len(areas) == 3


def test_past_its_share_an_area_loses_what_is_older() -> None:
    areas = areas_of(share=1)
    for number, soft in enumerate([False, True, True, False], 1):
        assert areas.record(ONE, [number], number, soft=soft) == 0
    areas.record(TWO, [9], 5, soft=False)
    assert areas.floor(ONE) == 2
    assert is_dead(areas, 1, ONE)
    assert not is_dead(areas, 2, ONE)
    assert not is_dead(areas, 0, TWO)


def test_without_room_the_area_that_holds_most_is_forgotten() -> None:
    areas = areas_of(most=3)
    areas.record(ONE, [10], 1, soft=False)
    areas.record(TWO, [20, 21], 2, soft=False)
    areas.record(THREE, [30], 3, soft=True)
    assert [areas.floor(area) for area in (ONE, TWO, THREE)] == [0, 2, 0]
    assert len(areas) == 2


def test_of_too_many_areas_the_one_purged_longest_ago_is_forgotten() -> None:
    areas = areas_of(most_areas=2)
    for number, area in enumerate([ONE, TWO, ONE, THREE], 1):
        areas.record(area, [number], number, soft=False)
    assert [areas.floor(area) for area in (ONE, TWO, THREE)] == [0, 2, 0]


def test_a_purge_of_nothing_leaves_no_area() -> None:
    areas = areas_of(most_areas=1)
    assert areas.record(ONE, [], 1, soft=False) == 0
    assert not areas.around(memoryview(array("Q", [ONE])))


def test_of_too_many_floors_the_one_raised_longest_ago_is_told_for_everything() -> None:
    areas = areas_of(most=2, share=1)
    told = []
    for number, area in enumerate([ONE, ONE, TWO, TWO, THREE, THREE], 1):
        told.append(areas.record(area, [number], number, soft=False))
    assert [number for number in told if number] == [3]
    assert [areas.floor(area) for area in (ONE, TWO, THREE)] == [2, 0, 5]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.lists(st.integers(10, 14)), st.booleans())),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_what_is_held_is_bounded_counted_and_adopted_whole(
    steps: list[tuple[int, list[int], bool]], most: int, share: int, most_areas: int
) -> None:
    areas, other = areas_of(most, share, most_areas), areas_of(most, share, most_areas)
    for number, (area, keys, soft) in enumerate(steps, 1):
        areas.record(area, keys, number, soft=soft)
    held = areas.snapshot()
    counts = [len(each.hard[0]) // 8 + len(each.soft[0]) // 8 for each in held]
    assert len(areas) == sum(counts) <= most
    assert len(held) <= most_areas
    assert max(counts, default=0) <= 2 * share
    assert len(areas.floors()[0]) <= 8 * most
    assert other.adopt(held, areas.floors()) == 0
    assert (other.snapshot(), other.floors()) == (held, areas.floors())
    assert len(other) == len(areas)


def test_adopting_keeps_the_floors_that_are_higher_here() -> None:
    here, there = areas_of(share=1), areas_of()
    for number in (1, 2):
        here.record(ONE, [number], number, soft=False)
        there.record(ONE, [number], number, soft=False)
    here.adopt(there.snapshot(), there.floors())
    assert here.floor(ONE) == 1
    here.clear()
    assert (here.floor(ONE), len(here)) == (0, 0)


def test_adopting_more_than_there_is_room_for_raises_floors() -> None:
    here, there = areas_of(most=1), areas_of()
    for number, area in enumerate([ONE, TWO, THREE], 1):
        there.record(area, [number], number, soft=False)
    assert here.adopt(there.snapshot(), there.floors()) == 1
    assert [here.floor(area) for area in (ONE, TWO, THREE)] == [0, 2, 0]
    assert len(here) == 1


def test_a_higher_floor_known_before_outlasts_lower_ones_adopted() -> None:
    here, there = areas_of(share=1), areas_of(share=1)
    for number in (1, 2, 3):
        here.record(ONE, [number], number, soft=False)
        if number < 3:
            there.record(ONE, [number], number, soft=False)
    here.adopt(there.snapshot(), there.floors())
    assert here.floor(ONE) == 2
