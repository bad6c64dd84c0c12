"""Whoever is hit often enough, soon enough, earns it once; the table stays small."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.coding.merit import Merit

A, B = b"a" * 16, b"b" * 16


def test_the_third_hit_earns_it_and_no_later_one() -> None:
    merit = Merit(after=3, within_s=60.0)
    assert [merit.hit(A, 100.0) for _ in range(6)] == [False, False, True, False, False, False]
    assert not merit.hit(B, 100.0)


def test_hits_are_counted_across_half_a_window() -> None:
    merit = Merit(after=3, within_s=60.0)
    assert [merit.hit(A, clock) for clock in (100.0, 129.0, 131.0)] == [False, False, True]


def test_hits_of_long_ago_do_not_count() -> None:
    merit = Merit(after=3, within_s=60.0)
    told = [merit.hit(A, clock) for clock in (100.0, 101.0, 161.0, 162.0, 163.0)]
    assert told == [False, False, False, False, True]


@given(
    gaps=st.lists(st.floats(0.0, 50.0), max_size=60),
    after=st.integers(1, 5),
)
def test_nothing_earns_it_by_fewer_hits_than_that_within_the_window(
    gaps: list[float], after: int
) -> None:
    merit, clock = Merit(after, within_s=60.0), 0.0
    hits: list[float] = []
    for gap in gaps:
        clock += gap
        hits.append(clock)
        if merit.hit(A, clock):
            assert len([at for at in hits if at >= clock - 60.0]) >= after


@given(gaps=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=5))
def test_hits_within_half_a_window_always_earn_it(gaps: list[float]) -> None:
    merit, clock = Merit(after=len(gaps), within_s=60.0), 1000.0
    earned = []
    for gap in gaps:
        clock += gap
        earned.append(merit.hit(A, clock))
    assert any(earned)


def test_the_table_is_bounded_whatever_is_asked_for() -> None:
    merit = Merit(after=3, within_s=60.0, most=100)
    for number in range(10_000):
        merit.hit(number.to_bytes(16, "big"), 100.0)
        assert len(merit) <= 200
