"""One server's health: its states, and the way from each to the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.routing.health import FIRST_SHARE, LONGEST_S, Member, State, Told

SLOW_S = 10.0


def state(member: Member, clock: float = 0.0) -> State:
    return member.state(clock, SLOW_S)


def test_a_server_goes_round_all_its_states() -> None:
    member = Member("a", 1)
    assert state(member) is State.UP
    member.tell(Told(drained=True), 0)
    assert state(member) is State.DRAINED
    member.tell(Told(), 0)
    assert state(member) is State.WARMING
    member.eject(1, 10)
    assert state(member, 10.9) is State.EJECTED
    assert state(member, 11) is State.TRIAL
    member.tell(Told(up=False), 11)
    assert state(member, 11) is State.DOWN
    member.tell(Told(up=True), 12)
    assert state(member, 12) is State.WARMING
    assert state(member, 22) is State.UP


def test_down_outweighs_drained_and_both_outweigh_a_weight() -> None:
    member = Member("a", 1)
    member.tell(Told(up=False, drained=True, weight=3), 0)
    assert state(member) is State.DOWN
    assert not member.is_live(0)
    member.tell(Told(up=True, drained=True, weight=3), 0)
    assert state(member) is State.DRAINED
    assert not member.is_live(0)


def test_a_server_that_nothing_checks_is_up_and_one_no_longer_checked_comes_back() -> None:
    member = Member("a", 1)
    member.tell(Told(up=True), 0)
    assert state(member) is State.UP  # told what was thought already: no slow start
    member.tell(Told(up=False), 0)
    member.tell(Told(), 0)
    assert state(member) is State.WARMING


@pytest.mark.parametrize(
    ("told", "rank"),
    [(Told(), 0), (Told(drained=True), 1), (Told(weight=0), 1), (Told(up=False), 3)],
)
def test_ranks_are_in_the_order_of_regret(told: Told, rank: int) -> None:
    member = Member("a", 1)
    member.tell(told, 0)
    assert member.rank(0) == rank


def test_an_ejected_server_ranks_between_a_drained_one_and_one_that_is_down() -> None:
    member = Member("a", 1)
    member.eject(0, 10)
    assert member.rank(9) == 2
    assert member.rank(10) == 0  # its turn to show what it can
    member.begin()
    assert member.rank(10) == 2


def test_an_era_ends_with_an_ejection() -> None:
    member = Member("a", 1)
    before = member.begin()
    member.eject(0, 10)
    assert member.begin() == member.era != before
    member.leave(before)
    assert (member.at_work, member.of_era) == (1, 1)
    member.leave(member.era)
    assert (member.at_work, member.of_era) == (0, 0)


def test_an_ejection_ends_a_slow_start() -> None:
    member = Member("a", 1)
    member.tell(Told(up=False), 0)
    member.tell(Told(up=True), 0)
    member.eject(1, 10)
    assert member.warm_since is None


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=40))
def test_the_average_lies_within_what_was_measured(latencies: list[float]) -> None:
    member = Member("a", 1)
    for latency_s in latencies:
        member.sample(latency_s)
    assert min(latencies) * 0.999 <= member.latency_s <= max(latencies) * 1.001


@given(st.integers(1, 100), st.floats(0.1, 1000))
def test_no_ejection_is_longer_than_the_bound_or_the_first(count: int, for_s: float) -> None:
    member = Member("a", 1)
    for _ in range(count):
        before = member.out_until or 0.0
        member.eject(before, for_s)
        assert member.out_until is not None
        length_s = member.out_until - before
        assert for_s * 0.99 <= length_s <= max(for_s, LONGEST_S) * 1.01


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 60))
def test_a_share_grows_with_time_and_stays_within_its_bounds(
    one: float, other: float, slow_start_s: float
) -> None:
    member = Member("a", 1)
    member.tell(Told(up=False), 0)
    member.tell(Told(up=True), 0)
    early = member.share(min(one, other), slow_start_s)
    late = member.share(max(one, other), slow_start_s)
    assert FIRST_SHARE <= early <= late <= 1
