"""The ring: whose a key is, who is next, and what a member that comes or goes moves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.routing.ring import MOST_MEMBERS, MOST_POINTS, Ring, most_at_work, place_of

NAMES = st.lists(st.text(max_size=8), min_size=1, max_size=8, unique=True)
WEIGHTS = st.floats(0.01, 3)
LAW = settings(max_examples=50)  # a ring takes some milliseconds to make
KEYS = [b"/page/%d" % number for number in range(200)]


@st.composite
def rings(draw: st.DrawFn) -> tuple[list[str], list[float]]:
    names = draw(NAMES)
    return names, draw(st.lists(WEIGHTS, min_size=len(names), max_size=len(names)))


def owners(names: list[str], weights: list[float]) -> list[str | None]:
    ring = Ring(names, weights)
    found = [ring.owner(key) for key in KEYS]
    return [None if index is None else names[index] for index in found]


@LAW
@given(rings(), st.data())
def test_removing_a_member_moves_only_its_own_keys(
    ring: tuple[list[str], list[float]], data: st.DataObject
) -> None:
    names, weights = ring
    gone = data.draw(st.integers(0, len(names) - 1))
    left = names[:gone] + names[gone + 1 :]
    after = owners(left, weights[:gone] + weights[gone + 1 :])
    for before, now in zip(owners(names, weights), after, strict=True):
        assert now == before or before == names[gone]


@LAW
@given(rings(), st.data())
def test_raising_a_weight_moves_keys_only_to_that_member(
    ring: tuple[list[str], list[float]], data: st.DataObject
) -> None:
    names, weights = ring
    raised = data.draw(st.integers(0, len(names) - 1))
    more = list(weights)
    more[raised] += data.draw(st.floats(0, 3))
    for before, now in zip(owners(names, weights), owners(names, more), strict=True):
        assert now in (before, names[raised])


@LAW
@given(rings(), st.binary(max_size=20), st.data())
def test_the_next_member_is_who_would_own_the_key_without_those_before(
    ring: tuple[list[str], list[float]], key: bytes, data: st.DataObject
) -> None:
    names, weights = ring
    order = list(Ring(names, weights).order(place_of(key)[0]))
    assert sorted(order) == list(range(len(names)))
    out = data.draw(st.integers(0, len(order) - 1))
    left = [weight if i not in order[:out] else 0.0 for i, weight in enumerate(weights)]
    assert Ring(names, left).owner(key) == order[out]


@LAW
@given(rings(), st.randoms(use_true_random=False))
def test_the_order_of_settings_does_not_matter(
    ring: tuple[list[str], list[float]], random: object
) -> None:
    pairs = list(zip(*ring, strict=True))
    random.shuffle(pairs)  # type: ignore[attr-defined]
    names, weights = [name for name, _ in pairs], [weight for _, weight in pairs]
    assert owners(*ring) == owners(names, weights)


def test_shares_follow_the_weights() -> None:
    names, weights = ["a", "b", "c"], [1.0, 2.0, 5.0]
    ring = Ring(names, weights)
    counts = Counter(ring.owner(b"%d" % number) for number in range(8_000))
    for index, weight in enumerate(weights):
        assert counts[index] == pytest.approx(1_000 * weight, rel=0.25)


def test_a_member_without_weight_has_no_key_and_is_never_next() -> None:
    ring = Ring(["a", "b"], [0, 1])
    assert {ring.order(place_of(key)[0]) for key in KEYS} == {b"\1"}


def test_no_one_owns_a_key_where_no_one_has_a_weight() -> None:
    assert Ring(["a"], [0]).owner(b"x") is None
    assert Ring([], []).owner(b"x") is None


def test_heavy_weights_are_thinned_and_still_have_their_shares() -> None:
    ring = Ring(["a", "b"], [1000, 250])
    assert len(ring._points) <= MOST_POINTS
    counts = Counter(ring.owner(b"%d" % number) for number in range(5_000))
    assert counts[0] == pytest.approx(4_000, rel=0.1)


def test_names_that_are_not_unique_are_refused() -> None:
    with pytest.raises(ValueError, match="share a name: a, a, b"):
        Ring(["a", "b", "a"], [1, 1, 1])


def test_more_members_than_a_byte_can_count_are_refused() -> None:
    many = MOST_MEMBERS + 1
    with pytest.raises(ValueError, match="65 members on one ring"):
        Ring([str(number) for number in range(many)], [1] * many)


@given(st.lists(st.tuples(WEIGHTS, st.integers(0, 50)), min_size=1, max_size=8))
def test_someone_always_has_room_under_bounded_load(loads: list[tuple[float, int]]) -> None:
    total, at_work = sum(weight for weight, _ in loads), sum(count for _, count in loads)
    assert any(count < most_at_work(weight, total, at_work) for weight, count in loads)


@given(st.binary())
def test_the_fraction_of_a_key_is_one(key: bytes) -> None:
    where, fraction = place_of(key)
    assert 0 <= fraction < 1
    assert 0 <= where < 1 << 64
