"""Shares tend to the weights, a visitor's lot is one, and a raised weight only draws people in."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.routing.lots import WEIGHT_LEAST, WEIGHT_MOST, Lots, check_weights

NAMES = (b"control", b"new", b"bold")
weights = st.just(0.0) | st.floats(WEIGHT_LEAST, WEIGHT_MOST)
visitors = st.binary(max_size=24)


def lots(*of: float, names: tuple[bytes, ...] = NAMES, key: bytes = b"k") -> Lots:
    return Lots(names[: len(of)], of, b"checkout", key)


def share(of: Lots, count: int) -> list[float]:
    """What part of so many visitors draws each name, in percent."""
    drawn = Counter(of.of_visitor(b"visitor %d" % number) for number in range(count))
    return [100 * drawn[index] / count for index in range(len(of.names))]


def test_shares_of_100_000_visitors_are_the_weights_within_half_a_point() -> None:
    assert share(lots(90, 10), 100_000) == pytest.approx([90, 10], abs=0.5)


def test_shares_of_three_tend_to_their_weights_whatever_these_add_up_to() -> None:
    assert share(lots(0.5, 0.3, 0.2), 30_000) == pytest.approx([50, 30, 20], abs=1)
    assert share(lots(1, 1, 1), 30_000) == pytest.approx([100 / 3] * 3, abs=1)


@given(visitors, weights, weights, weights, st.integers(0, 2), st.floats(0, 1_000))
def test_a_raised_weight_moves_visitors_into_it_and_a_lowered_one_out_of_it(
    visitor: bytes, one: float, two: float, three: float, raised: int, by: float
) -> None:
    before = [one, two, three]
    after = [weight + by * (index == raised) for index, weight in enumerate(before)]
    old, new = lots(*before).of_visitor(visitor), lots(*after).of_visitor(visitor)
    assert new in (old, raised)  # and read backwards: whoever was not in it stays


def test_a_ramp_from_10_to_20_keeps_everyone_who_was_in() -> None:
    before, after = lots(90, 10), lots(90, 20)
    was = {n for n in range(20_000) if before.of_visitor(b"%d" % n) == 1}
    now = {n for n in range(20_000) if after.of_visitor(b"%d" % n) == 1}
    assert was < now
    assert len(now) / 20_000 == pytest.approx(20 / 110, abs=0.01)


@given(visitors, st.lists(weights, min_size=3, max_size=3), st.permutations(range(3)))
def test_the_order_of_names_is_nothing(visitor: bytes, of: list[float], order: list[int]) -> None:
    plain = Lots(NAMES, tuple(of), b"s")
    turned = Lots(tuple(NAMES[i] for i in order), tuple(of[i] for i in order), b"s")
    drawn, again = plain.of_visitor(visitor), turned.of_visitor(visitor)
    if drawn is None or again is None:
        assert drawn is again
    else:
        assert plain.names[drawn] == turned.names[again]


@given(visitors, weights.filter(bool), weights.filter(bool), weights)
def test_a_name_that_comes_or_goes_moves_only_its_own(
    visitor: bytes, one: float, two: float, three: float
) -> None:
    assert lots(one, two, three).of_visitor(visitor) in (lots(one, two).of_visitor(visitor), 2)


def test_every_node_with_the_key_draws_the_same_now_and_in_later_versions() -> None:
    drawn = [lots(50, 30, 20).of_visitor(b"visitor %d" % number) for number in range(16)]
    assert drawn == [2, 1, 1, 1, 0, 1, 1, 2, 0, 1, 0, 2, 2, 0, 0, 0]
    assert drawn != [
        lots(50, 30, 20, key=b"other").of_visitor(b"visitor %d" % n) for n in range(16)
    ]


def test_a_key_of_any_length_is_a_key() -> None:
    keys = [b"", b"k" * 64, b"k" * 65, b"k" * 1_000]
    drawn = [tuple(lots(1, 1, key=key).of_visitor(b"%d" % n) for n in range(64)) for key in keys]
    assert len(set(drawn)) == 4


def chi_square(pairs: Counter[tuple[int | None, int | None]]) -> float:
    """How far a table of pairs is from that of two things that know nothing of each other."""
    whole = sum(pairs.values())
    rows: Counter[int | None] = Counter()
    columns: Counter[int | None] = Counter()
    for (row, column), count in pairs.items():
        rows[row] += count
        columns[column] += count
    expected = {(r, c): rows[r] * columns[c] / whole for r in rows for c in columns}
    return sum((pairs[cell] - due) ** 2 / due for cell, due in expected.items())


@pytest.mark.parametrize(
    "other",
    [
        Lots(NAMES, (1, 1, 1), b"search", b"k"),  # another scope
        Lots(NAMES, (1, 1, 1), b"checkout", b"another key"),
        Lots((b"a", b"b", b"c"), (1, 1, 1), b"checkout", b"k"),  # other names
    ],
)
def test_drawings_of_other_scopes_keys_or_names_say_nothing_of_each_other(other: Lots) -> None:
    one = lots(1, 1, 1)
    ids = [b"visitor %d" % number for number in range(30_000)]
    pairs = Counter((one.of_visitor(each), other.of_visitor(each)) for each in ids)
    assert chi_square(pairs) < 18.47  # 4 degrees of freedom: one in a thousand is above
    same = Counter((one.of_visitor(each), one.of_visitor(each)) for each in ids)
    assert chi_square(same) > 10_000  # the measure does see what belongs together


def test_rolls_fall_on_names_by_their_weights() -> None:
    of = lots(60, 0, 40)
    drawn = Counter(of.of_roll(number / 1_000) for number in range(1_000))
    assert drawn == {0: 600, 2: 400}


@given(st.lists(weights, min_size=1, max_size=3), st.floats(0, 1, exclude_max=True), visitors)
@example([0.1, 0.2, 0.7], 1 - 2**-53, b"")
@example([5e-324, 0.0, 5e-324], 1 - 2**-53, b"")
def test_what_is_drawn_has_a_weight_and_nothing_is_drawn_only_where_none_has(
    of: list[float], roll: float, visitor: bytes
) -> None:
    for index in (lots(*of).of_roll(roll), lots(*of).of_visitor(visitor)):
        assert (index is None) is (not any(of))
        assert index is None or of[index] > 0


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ([90, 10], []),
        ([0, 0.001], []),
        ([-1, 2], ["-1 is no weight; use 0, or 1e-06 to 1e+06"]),
        ([float("inf"), 2], ["inf is no weight; use 0, or 1e-06 to 1e+06"]),
        ([float("nan"), 2], ["nan is no weight; use 0, or 1e-06 to 1e+06"]),
        ([1e-7, 1], ["1e-07 is no weight; use 0, or 1e-06 to 1e+06"]),
        ([2e6, 1], ["2e+06 is no weight; use 0, or 1e-06 to 1e+06"]),
        ([0, 0], ["no weight is above 0; give one"]),
    ],
)
def test_weights_are_checked_with_words(of: list[float], words: list[str]) -> None:
    assert list(check_weights(of)) == words
