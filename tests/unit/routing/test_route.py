"""Which origins are asked, in which order: laws over routes, places and rolls."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.routing.geo import Coordinates, distance_km
from edge.routing.route import Canary, Order, Route

NAMES = ("a", "b", "c", "d", "e")
PLACES = st.builds(Coordinates, st.floats(-90, 90), st.floats(-180, 180))
ROLLS = st.floats(0, 1, exclude_max=True)
SOME = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple)
CANARIES = st.none() | st.builds(Canary, SOME, st.floats(0, 1))
ROUTES = st.builds(Route, SOME, st.sampled_from(Order), canary=CANARIES)
FRANKFURT, SYDNEY, VIRGINIA = (
    Coordinates(50.1, 8.7),
    Coordinates(-33.9, 151.2),
    Coordinates(38, -78),
)
WORLD = {"eu": FRANKFURT, "au": SYDNEY, "us": VIRGINIA}


@given(ROUTES, st.none() | PLACES, st.dictionaries(st.sampled_from(NAMES), PLACES), ROLLS)
def test_every_origin_is_asked_once_and_no_stranger(
    route: Route, at: Coordinates | None, places: dict[str, Coordinates], roll: float
) -> None:
    found = route.origins(at, places, roll)
    assert len(set(found)) == len(found)
    own, ahead = set(route.names), set(route.canary.names) if route.canary else set()
    assert set(found) in (own, own | ahead)


@given(SOME, st.none() | PLACES, ROLLS)
def test_origins_in_order_are_as_they_are_named(
    names: tuple[str, ...], at: Coordinates | None, roll: float
) -> None:
    assert Route(names).origins(at, {}, roll) == names


@given(SOME, PLACES, st.fixed_dictionaries(dict.fromkeys(NAMES, PLACES)), ROLLS)
def test_the_nearest_is_asked_first_and_the_farthest_last(
    names: tuple[str, ...], at: Coordinates, places: dict[str, Coordinates], roll: float
) -> None:
    found = Route(names, Order.NEAREST).origins(at, places, roll)
    for nearer, farther in pairwise(found):
        assert distance_km(at, places[nearer]) <= distance_km(at, places[farther])


def test_the_nearest_to_nowhere_are_as_they_are_named() -> None:
    route = Route(("us", "eu", "au"), Order.NEAREST)
    assert route.origins(None, WORLD, 0.5) == ("us", "eu", "au")
    assert route.origins(Coordinates(48.9, 2.4), WORLD, 0.5) == ("eu", "us", "au")
    assert route.origins(Coordinates(-37.8, 145), WORLD, 0.5)[0] == "au"


@given(SOME, st.integers(0, 10_000))
def test_of_a_pool_each_has_its_turn_and_the_others_stand_behind(
    names: tuple[str, ...], seed: int
) -> None:
    route, size = Route(names, Order.POOL), len(names)
    turns = [route.origins(None, {}, (step + 0.5) / size) for step in range(size)]
    assert tuple(turn[0] for turn in turns) == names
    roll = (seed + 0.5) / 10_001
    found = route.origins(None, {}, roll)
    at = names.index(found[0])
    assert found == names[at:] + names[:at]


@given(st.floats(0, 1), st.sampled_from(Order))
def test_a_canarys_share_is_its_weight(share: float, order: Order) -> None:
    route = Route(("a", "b"), order, canary=Canary(("beta",), share))
    times = 1_000
    first = [route.origins(None, {}, (n + 0.5) / times)[0] for n in range(times)]
    assert abs(first.count("beta") - share * times) <= 1


@given(st.floats(0, 0.95), SOME)
def test_who_is_left_by_a_canary_is_spread_as_without_one(
    share: float, names: tuple[str, ...]
) -> None:
    route = Route(names, Order.POOL, canary=Canary(("beta",), share))
    times = 2_000
    first = [route.origins(None, {}, (n + 0.5) / times)[0] for n in range(times)]
    left = times - first.count("beta")
    for name in names:
        assert abs(first.count(name) - left / len(names)) <= 2


@pytest.mark.parametrize(("roll", "found"), [(0.0, ("b", "x", "a")), (0.25, ("a", "b"))])
def test_behind_a_canary_stand_those_of_the_route_that_it_does_not_name(
    roll: float, found: tuple[str, ...]
) -> None:
    route = Route(("a", "b"), canary=Canary(("b", "x", "b"), 0.25))
    assert route.origins(None, {}, roll) == found


def test_a_roll_just_below_one_is_in_range_with_every_share() -> None:
    roll = 1.0 - 2**-53
    for share in (0.0, 0.5, 1.0 - 2**-53, 1.0):
        found = Route(NAMES, Order.POOL, canary=Canary(("beta",), share))
        assert set(found.origins(None, {}, roll)) - {"beta"} == set(NAMES)
