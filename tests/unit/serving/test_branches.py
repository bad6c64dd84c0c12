"""Branches of what is known of a request: bounded, and the same for the same place and draw."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hypothesis import given
from hypothesis import strategies as st

from edge.routing.experiment import Arm, Experiment
from edge.routing.geo import NOWHERE, Coordinates, Place
from edge.serving.branches import MOST_BRANCHES, Branches
from edge.wire.cookies import CookieTerms
from tests.unit.edgeparts import parts_of

if TYPE_CHECKING:
    from edge.serving.admission import Drawn
    from edge.serving.ways import Ways

WAYS: Final = parts_of().ways
BERLIN: Final = Place("DE", "EU", "DE-BE", Coordinates(52.5, 13.4))
LYON: Final = Place("FR", "EU", "FR-ARA", Coordinates(45.8, 4.8))


def experiment(name: bytes, *arms: tuple[bytes, float]) -> Experiment:
    return Experiment(name, CookieTerms(name), tuple(Arm(arm, weight) for arm, weight in arms))


TEST: Final = experiment(b"test", (b"a", 1.0), (b"b", 1.0))
OTHER: Final = experiment(b"other", (b"x", 1.0), (b"y", 3.0))


class Making:
    """Makes what is known: a new object each time, and notes for whom."""

    def __init__(self) -> None:
        self.made: list[tuple[bytes, Drawn]] = []

    def __call__(self, client: bytes, drawn: Drawn) -> object:
        self.made.append((client, drawn))
        return object()


def ways(place: Place = NOWHERE, *rolls: float) -> Ways:
    left = list(rolls)
    return replace(WAYS, place_of=lambda _: place, chance=lambda: left.pop(0))


def test_there_are_branches_only_where_place_or_chance_matters() -> None:
    assert not Branches(WAYS, False, (), Making())
    assert Branches(WAYS, True, (), Making())
    assert Branches(WAYS, False, (TEST,), Making())


def test_what_was_drawn_is_told_to_whoever_works_it_out() -> None:
    making = Making()
    Branches(ways(BERLIN, 0.7, 0.1), True, (TEST, OTHER), making).take(b"192.0.2.1")
    assert making.made == [(b"192.0.2.1", ((b"test", b"b"), (b"other", b"x")))]


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40))
def test_the_same_draw_gives_the_same_object_and_another_another(rolls: list[float]) -> None:
    making = Making()
    branches = Branches(ways(NOWHERE, *rolls), False, (OTHER,), making)
    taken = [branches.take(b"peer") for _ in rolls]
    arms = [OTHER.rolled(roll).arm.name for roll in rolls]
    assert len(set(map(id, taken))) == len(set(arms)) == len(making.made)
    by_arm = dict(zip(arms, taken, strict=True))
    assert all(by_arm[arm] is each for arm, each in zip(arms, taken, strict=True))


def test_clients_of_one_country_share_a_branch_wherever_in_it_they_are() -> None:
    making, where = Making(), [BERLIN, replace(BERLIN, at=None), LYON, BERLIN]
    there = iter(where)
    branches = Branches(replace(WAYS, place_of=lambda _: next(there)), True, (), making)
    taken = [branches.take(b"peer%d" % n) for n in range(4)]
    assert taken[0] is taken[1] is taken[3]
    assert taken[2] is not taken[0]
    assert [client for client, _ in making.made] == [b"peer0", b"peer2"]


def test_where_the_place_does_not_matter_it_is_not_looked_up() -> None:
    looked: list[bytes] = []

    def place_of(client: bytes) -> Place:
        looked.append(client)
        return BERLIN

    Branches(replace(ways(NOWHERE, 0.1), place_of=place_of), False, (TEST,), Making()).take(b"a")
    assert not looked
    Branches(replace(WAYS, place_of=place_of), True, (), Making()).take(b"a")
    assert looked == [b"a"]


def test_branches_are_bounded() -> None:
    number = iter(range(3 * MOST_BRANCHES))
    making = Making()
    everywhere = replace(WAYS, place_of=lambda _: Place(subdivision=f"DE-{next(number)}"))
    branches = Branches(everywhere, True, (), making)
    for _ in range(3 * MOST_BRANCHES):
        branches.take(b"peer")
        assert len(branches._known) <= MOST_BRANCHES
    assert len(making.made) == 3 * MOST_BRANCHES


def test_where_no_arm_takes_newcomers_in_the_control_is_drawn() -> None:
    making = Making()
    idle = experiment(b"idle", (b"control", 0.0), (b"new", 0.0))
    Branches(ways(NOWHERE, 0.9), False, (idle,), making).take(b"peer")
    assert making.made == [(b"peer", ((b"idle", b"control"),))]
