"""Marks in dictionaries: the order is that of the numbers, and the oldest go first."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.marks import Marks, columns, drop, excess, marks_of, overtakes, put, table

keys = st.lists(st.integers(0, 9), max_size=5)


@given(st.lists(keys, max_size=9), st.integers(1, 5))
def test_a_table_holds_the_last_number_of_each_and_sheds_the_oldest(
    steps: list[list[int]], most: int
) -> None:
    marks, model = Marks(), dict[int, int]()
    for number, some in enumerate(steps, 1):
        marks.put_hard(some, number)
        model |= dict.fromkeys(some, number)
    assert marks.hard == model
    assert list(marks.hard.values()) == sorted(model.values())
    assert marks.newest == max(model.values(), default=0)
    forgotten = marks.shed_hard(most)
    assert len(marks) <= most
    assert all(model[key] <= forgotten for key in model.keys() - marks.hard.keys())
    assert forgotten == max((model[key] for key in model.keys() - marks.hard.keys()), default=0)


def test_softly_the_last_purge_but_one_is_kept_and_shed_with_the_last() -> None:
    marks = Marks()
    for number in (1, 2, 5):
        marks.put_soft([7], number)
    marks.put_soft([8], 6)
    assert marks.softened(0, [7, 8, 9]) == [(5, 2), (6, 0)]
    assert marks.softened(5, [7, 8, 9]) == [(6, 0)]
    assert marks.shed_soft(1) == 5
    assert (marks.soft, marks.before) == ({8: 6}, {})


def test_a_scope_purged_in_both_manners_counts_twice() -> None:
    marks = Marks()
    marks.put_soft([7], 1)
    marks.put_hard([7], 2)
    assert (len(marks), marks.newest) == (2, 2)


def test_a_full_table_forgets_a_thirty_second_more_than_it_must() -> None:
    held = {key: key for key in range(1, 66)}
    doomed, number = excess(held, 64)
    assert (doomed, number) == ([1, 2, 3], 3)
    assert excess(held, 65) == ([], 0)


def test_what_was_purged_again_moves_to_the_end_and_what_is_not_there_is_dropped_quietly() -> None:
    held = {1: 1, 2: 2}
    put(held, [1, 3, 3], 4)
    assert list(held.items()) == [(2, 2), (1, 4), (3, 4)]
    drop(held, [2, 9])
    assert list(held) == [1, 3]


@pytest.mark.parametrize(("fetched_at", "told"), [(0, True), (3, True), (4, False)])
def test_only_a_later_number_overtakes(fetched_at: int, told: bool) -> None:
    scopes = memoryview(array("Q", [1, 2]))
    assert overtakes({2: 4}, fetched_at, scopes) is told
    assert not overtakes({3: 4}, fetched_at, scopes)
    assert not overtakes({}, fetched_at, scopes)


@given(keys, keys)
def test_columns_hold_all_there_is(some: list[int], others: list[int]) -> None:
    marks = Marks()
    marks.put_hard(some, 1)
    marks.put_soft(others, 2)
    marks.put_soft(some, 3)
    again = marks_of(*marks.columns())
    assert again.columns() == marks.columns()
    assert (again.hard, again.soft, again.before) == (marks.hard, marks.soft, marks.before)


def test_columns_of_different_lengths_are_no_table() -> None:
    assert columns({}) == (b"", b"")
    with pytest.raises(ValueError, match="shorter"):
        table((bytes(8), b""))
