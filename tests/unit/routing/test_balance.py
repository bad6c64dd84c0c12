"""Groups of servers: who is next, and what keeps one from being asked."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import fields
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from edge.routing.balance import Balance, EjectPolicy, GroupPolicy, Members, Outcome, Told
from edge.routing.health import FLOOR_S, SAMPLES, State
from edge.routing.ring import LOAD, MOST_MEMBERS

NEVER: Final = EjectPolicy(after=0, slower=0)
CALM: Final = GroupPolicy(eject=NEVER, slow_start_s=0)
DOWN: Final = Told(up=False)
UP: Final = Told(up=True)
LIVE: Final = {State.UP, State.WARMING, State.TRIAL}


def group(
    size: int, balance: Balance = Balance.ROUND_ROBIN, *weights: float, **told: object
) -> Members:
    eject = EjectPolicy(**{"slower": 0, **told})  # type: ignore[arg-type]
    names = [f"s{number}" for number in range(size)]
    return Members(names, GroupPolicy(balance, eject), weights or [1.0] * size)


def ask(members: Members, index: int, outcome: Outcome, now: float = 0.0) -> None:
    """One request to `index` from beginning to end."""
    era = members.began(index, now)
    if outcome is Outcome.GOOD:
        members.heard(index, era, now, None)
    members.ended(index, era, now, outcome)


def states(members: Members, now: float = 0.0) -> list[State]:
    return [one.state for one in members.states(now)]


# --- shares


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    st.integers(1, 120),
)
def test_round_robin_gives_each_its_share_at_any_time(weights: list[int], count: int) -> None:
    members = Members([str(n) for n in range(len(weights))], CALM, weights)
    counts = Counter(members.choose(0.0) for _ in range(count))
    for index, weight in enumerate(weights):
        share = count * weight / sum(weights)
        assert abs(counts[index] - share) < len(weights) / 2 + 1


def test_round_robin_spreads_a_heavy_server_evenly() -> None:
    members = group(3, Balance.ROUND_ROBIN, 5, 1, 1)
    # the example of nginx's own description of the method
    assert [members.choose(0.0) for _ in range(7)] == [0, 0, 1, 0, 2, 0, 0]


def test_least_connections_goes_by_what_is_in_hand_for_the_weight() -> None:
    members = group(2, Balance.LEAST_CONNECTIONS, 3, 1)
    for _ in range(8):
        index = members.choose(0.0)
        assert index is not None
        members.began(index, 0.0)
    assert [one.at_work for one in members.states(0.0)] == [6, 2]


def test_least_connections_takes_turns_where_all_are_idle() -> None:
    members = group(3, Balance.LEAST_CONNECTIONS)
    chosen: Counter[int | None] = Counter()
    for _ in range(9):
        index = members.choose(0.0)
        assert index is not None
        chosen[index] += 1
        ask(members, index, Outcome.GOOD)
    assert set(chosen.values()) == {3}


@pytest.mark.parametrize("balance", [Balance.ADDRESS_HASH, Balance.KEY_HASH])
def test_a_hash_chooses_the_same_each_time_and_spreads(balance: Balance) -> None:
    members = group(4, balance)

    def owner(text: bytes) -> int | None:
        return members.choose(0.0, key=text, address=text)

    texts = [b"%d" % number for number in range(100)]
    first = [owner(text) for text in texts]
    assert first == [owner(text) for text in texts]
    assert set(first) == {0, 1, 2, 3}


@pytest.mark.parametrize("balance", [Balance.ADDRESS_HASH, Balance.KEY_HASH])
def test_a_hash_of_nothing_takes_turns(balance: Balance) -> None:
    members = group(3, balance)
    assert {members.choose(0.0) for _ in range(3)} == {0, 1, 2}


@pytest.mark.parametrize("balance", [Balance.ADDRESS_HASH, Balance.KEY_HASH])
def test_a_server_that_is_down_moves_only_its_own_keys(balance: Balance) -> None:
    members = group(4, balance)
    texts = [b"%d" % number for number in range(100)]
    before = [members.choose(0.0, key=text, address=text) for text in texts]
    members.told(1, DOWN, 0.0)
    after = [members.choose(0.0, key=text, address=text) for text in texts]
    assert 1 not in after
    assert all(now == then for then, now in zip(before, after, strict=True) if then != 1)


@given(
    st.lists(st.floats(0.1, 10), min_size=2, max_size=6),
    st.lists(st.binary(min_size=1, max_size=2), max_size=80),
)
def test_no_server_is_given_far_more_than_its_share_of_hot_keys(
    weights: list[float], keys: list[bytes]
) -> None:
    policy = GroupPolicy(Balance.KEY_HASH, NEVER)
    members = Members([str(n) for n in range(len(weights))], policy, weights)
    for count, key in enumerate(keys, 1):
        index = members.choose(0.0, key=key)
        assert index is not None
        members.began(index, 0.0)
        fair = count * weights[index] / sum(weights)
        assert members.states(0.0)[index].at_work <= math.ceil(LOAD * fair)


def test_a_hot_address_stays_where_it_is() -> None:
    members = group(3, Balance.ADDRESS_HASH)
    chosen = set()
    for _ in range(50):
        index = members.choose(0.0, address=b"192.0.2.1")
        assert index is not None
        members.began(index, 0.0)
        chosen.add(index)
    assert len(chosen) == 1


def test_the_operators_weight_counts_in_place_of_the_settings() -> None:
    for balance in Balance:
        members = group(2, balance)
        members.told(0, Told(weight=0), 0.0)
        assert {members.choose(0.0, key=b"%d" % n, address=b"%d" % n) for n in range(40)} == {1}
        members.told(0, Told(), 0.0)
        assert {members.choose(0.0, key=b"%d" % n, address=b"%d" % n) for n in range(40)} == {0, 1}


# --- the dead and the living


def test_who_was_tried_is_not_chosen_again() -> None:
    members = group(3)
    assert {members.choose(0.0, besides={0, 2}) for _ in range(3)} == {1}
    assert members.choose(0.0, besides={0, 1, 2}) is None
    assert members.any_at_all(0.0, besides={0, 1, 2}) is None
    assert members.is_alive(0.0, besides={0, 1})
    assert not members.is_alive(0.0, besides={0, 1, 2})


def test_checks_may_take_all_down_and_then_the_least_bad_is_asked() -> None:
    members = group(3, after=1)
    for index in range(3):
        members.told(index, DOWN, 0.0)
    assert members.choose(0.0) is None
    assert not members.is_alive(0.0)
    assert {members.any_at_all(0.0) for _ in range(3)} == {0, 1, 2}
    members.told(0, UP, 0.0)
    members.told(1, Told(drained=True), 0.0)
    ask(members, 0, Outcome.BAD)
    assert states(members) == [State.EJECTED, State.DRAINED, State.DOWN]
    assert members.any_at_all(0.0) == 1  # drained before ejected before down
    assert members.any_at_all(0.0, besides={1}) == 0
    assert members.any_at_all(0.0, besides={0, 1}) == 2


@pytest.mark.parametrize("balance", list(Balance))
def test_where_none_has_a_weight_all_are_alike(balance: Balance) -> None:
    members = Members(["a", "b"], GroupPolicy(balance), [0, 0])
    assert members.choose(0.0) is None
    assert members.any_at_all(0.0, key=b"k", address=b"a") in (0, 1)


def test_failures_in_a_row_eject_and_success_begins_the_count_anew() -> None:
    members = group(2, after=3)
    for outcome in (Outcome.BAD, Outcome.BAD, Outcome.GOOD, Outcome.BAD, Outcome.BAD):
        ask(members, 0, outcome)
    assert states(members) == [State.UP, State.UP]
    ask(members, 0, Outcome.NEITHER)
    ask(members, 0, Outcome.BAD)
    assert states(members) == [State.EJECTED, State.UP]
    assert members.states(0.0)[0].failures == 5
    assert members.states(0.0)[0].ejections == 1


def test_what_began_before_an_ejection_says_nothing_after_it() -> None:
    members = group(2, after=1, for_s=10)
    early = [members.began(0, 0.0) for _ in range(3)]
    ask(members, 0, Outcome.BAD)
    members.heard(0, early[0], 1.0, 0.1)
    members.ended(0, early[0], 1.0, Outcome.GOOD)
    assert states(members, 1.0)[0] is State.EJECTED
    members.ended(0, early[1], 10.0, Outcome.BAD)  # no trial, so it does not fail one
    assert states(members, 10.0)[0] is State.TRIAL
    assert members.is_alive(10.0, besides={1})  # and what is still under way takes no turn of it
    members.ended(0, early[2], 10.0, Outcome.BAD)
    assert members.states(10.0)[0].at_work == 0
    assert members.states(10.0)[0].failures == 3


def test_one_request_at_a_time_is_on_trial_until_one_gets_a_head() -> None:
    members = group(2, after=1, for_s=10)
    ask(members, 0, Outcome.BAD)
    assert members.choose(9.9, besides={1}) is None
    assert members.choose(10.0, besides={1}) == 0
    era = members.began(0, 10.0)
    assert members.choose(10.0, besides={1}) is None
    members.ended(0, era, 10.0, Outcome.NEITHER)
    assert members.choose(10.0, besides={1}) == 0  # nothing was learnt: the next one
    era = members.began(0, 10.0)
    members.heard(0, era, 11.0, 0.1)
    assert states(members, 11.0)[0] is State.WARMING  # whatever its body takes
    assert members.choose(11.0, besides={1}) == 0


def test_each_failed_trial_doubles_the_time_out_up_to_a_bound() -> None:
    members = group(2, after=1, for_s=40)
    now, lengths = 0.0, []
    for _ in range(6):
        ask(members, 0, Outcome.BAD, now)
        began = now
        while not members.is_alive(now, besides={1}):
            now += 10
        lengths.append(now - began)
    assert lengths == [40, 80, 160, 300, 300, 300]


def test_the_bound_of_an_ejection_is_the_policys() -> None:
    members = group(2, after=1, for_s=2, longest_s=5)
    now, lengths = 0.0, []
    for _ in range(4):
        ask(members, 0, Outcome.BAD, now)
        began = now
        while not members.is_alive(now, besides={1}):
            now += 1
        lengths.append(now - began)
    assert lengths == [2, 4, 5, 5]
    ask(members, 0, Outcome.GOOD, now)
    ask(members, 0, Outcome.BAD, now + 6)  # it was well for longer than any ejection
    assert states(members, now + 8)[0] is State.TRIAL


def test_an_ejection_long_after_the_last_one_is_short_again() -> None:
    members = group(2, after=1, for_s=10)
    ask(members, 0, Outcome.BAD, 0.0)
    ask(members, 0, Outcome.GOOD, 10.0)
    ask(members, 0, Outcome.BAD, 20.0)  # soon: twice as long
    assert states(members, 39.0)[0] is State.EJECTED
    ask(members, 0, Outcome.GOOD, 40.0)
    ask(members, 0, Outcome.BAD, 500.0)
    assert states(members, 509.0)[0] is State.EJECTED
    assert states(members, 510.0)[0] is State.TRIAL


def test_failures_of_what_was_sent_in_need_do_not_prolong_an_ejection() -> None:
    members = group(1, after=1, for_s=10)
    for _ in range(5):
        assert members.any_at_all(0.0) == 0
        ask(members, 0, Outcome.BAD)
    assert states(members, 10.0) == [State.TRIAL]
    assert members.states(0.0)[0].ejections == 1


def test_a_success_of_what_was_sent_in_need_ends_an_ejection() -> None:
    members = group(1, after=1, for_s=10)
    ask(members, 0, Outcome.BAD)
    ask(members, 0, Outcome.GOOD, 1.0)
    assert states(members, 1.0) == [State.WARMING]


@pytest.mark.parametrize(
    ("size", "most", "out"), [(1, 0.5, 1), (2, 0.5, 1), (3, 0.1, 1), (5, 0.5, 2), (4, 1.0, 4)]
)
def test_so_many_may_be_ejected(size: int, most: float, out: int) -> None:
    members = group(size, after=1, most=most)
    for index in range(size):
        ask(members, index, Outcome.BAD)
    assert states(members).count(State.EJECTED) == out


def test_no_ejection_where_the_policy_has_none() -> None:
    for policy in (EjectPolicy(after=0), EjectPolicy(after=1, most=0.0)):
        members = Members(["a"], GroupPolicy(eject=policy), [1])
        for _ in range(20):
            ask(members, 0, Outcome.BAD)
        assert states(members) == [State.UP]


def test_a_server_that_checks_take_down_gives_its_place_among_the_ejected_to_another() -> None:
    members = group(2, after=1)
    ask(members, 0, Outcome.BAD)
    ask(members, 1, Outcome.BAD)
    assert states(members) == [State.EJECTED, State.UP]
    members.told(0, DOWN, 0.0)
    ask(members, 1, Outcome.BAD)
    assert states(members) == [State.DOWN, State.EJECTED]
    ask(members, 0, Outcome.BAD)  # it is down: that is told already
    assert members.states(0.0)[0].ejections == 1


# --- latency


def measured(members: Members, *latencies: float, count: int = SAMPLES) -> None:
    for _ in range(count):
        for index, latency_s in enumerate(latencies):
            era = members.began(index, 0.0)
            members.heard(index, era, 0.0, latency_s)
            members.ended(index, era, 0.0, Outcome.GOOD)


def test_a_server_far_slower_than_the_others_is_ejected() -> None:
    members = group(3, slower=5)
    measured(members, 0.02, 0.03, 0.5)
    assert states(members) == [State.UP, State.UP, State.EJECTED]


def test_of_two_servers_the_slow_one_is_known() -> None:
    members = group(2, slower=5)
    measured(members, 1.0, 0.1, count=SAMPLES + 1)
    assert states(members) == [State.EJECTED, State.UP]


@pytest.mark.parametrize(
    ("latencies", "count"),
    [
        ((0.001, 0.001, FLOOR_S), 50),  # quick enough for anyone
        ((0.1, 0.1, 0.4), 50),  # slower, but not by so much
        ((0.02, 0.03, 0.5), SAMPLES - 1),  # too few to tell
        ((9.0,), 50),  # slower than whom?
    ],
)
def test_a_server_is_not_ejected_without_good_reason(
    latencies: tuple[float, ...], count: int
) -> None:
    members = group(len(latencies), slower=5)
    measured(members, *latencies, count=count)
    assert set(states(members)) == {State.UP}


def test_latency_is_not_looked_at_where_the_policy_says_so() -> None:
    members = group(2, slower=0)
    measured(members, 0.01, 9.0, count=50)
    assert states(members) == [State.UP, State.UP]
    assert members.states(0.0)[1].latency_s == pytest.approx(9.0)


def test_one_that_was_slow_is_measured_anew_when_it_is_back() -> None:
    members = group(2, slower=5, for_s=10)
    measured(members, 0.01, 1.0)
    assert states(members, 10.0)[1] is State.TRIAL
    era = members.began(1, 10.0)
    members.heard(1, era, 10.0, 0.01)
    assert states(members, 10.0)[1] is State.WARMING
    assert members.states(10.0)[1].latency_s == 0


# --- slow start


@given(st.lists(st.floats(0, 30), max_size=30))
def test_a_slow_start_only_ever_grows(times: list[float]) -> None:
    members = group(2)
    members.told(0, DOWN, 0.0)
    members.told(0, UP, 0.0)
    weights = [members.states(now)[0].weight for now in [0.0, *sorted(times)]]
    assert weights == sorted(weights)
    assert weights[0] == pytest.approx(0.1)
    assert all(weight <= 1 for weight in weights)


def test_a_slow_start_is_a_tenth_at_first_and_all_at_its_end() -> None:
    members = group(2)
    members.told(0, DOWN, 0.0)
    members.told(0, UP, 0.0)
    told = [members.states(now)[0] for now in (0.0, 5.0, 10.0)]
    assert [one.weight for one in told] == pytest.approx([0.1, 0.55, 1.0])
    assert [one.state for one in told] == [State.WARMING, State.WARMING, State.UP]


def test_a_server_that_starts_slowly_is_given_less() -> None:
    members = group(2)
    members.told(0, DOWN, 0.0)
    members.told(0, UP, 0.0)
    assert Counter(members.choose(0.0) for _ in range(110)) == {0: 10, 1: 100}


def test_a_group_that_starts_slowly_gives_way_beyond_its_share() -> None:
    members = group(2, Balance.ROUND_ROBIN, 3, 1)
    for told in (DOWN, UP):
        members.told(0, told, 0.0)
    assert not members.gives_way(0.0)  # the other has never been away
    members.told(1, DOWN, 0.0)
    for now, share in ((0.0, 0.1), (5.0, 0.55)):
        taken = sum(not members.gives_way(now) for _ in range(200))
        assert taken == pytest.approx(200 * share, abs=1)
    members.told(1, UP, 5.0)
    both = (3 * 0.55 + 1 * 0.1) / 4
    assert sum(not members.gives_way(5.0) for _ in range(200)) == pytest.approx(200 * both, abs=1)
    assert not any(members.gives_way(10.0) for _ in range(5))


def test_a_group_gives_no_way_where_it_is_on_trial_dead_or_quick_to_start() -> None:
    members = group(1, after=1, for_s=10.0)
    ask(members, 0, Outcome.BAD)
    assert states(members, 10.0) == [State.TRIAL]
    assert not members.gives_way(10.0)
    members.told(0, DOWN, 10.0)
    assert not members.gives_way(10.0)
    quick = Members(["a"], CALM, [1])
    for told in (DOWN, UP):
        quick.told(0, told, 0.0)
    assert not quick.gives_way(0.0)


def test_a_server_that_was_drained_starts_slowly_too() -> None:
    members = group(2)
    members.told(0, Told(drained=True), 0.0)
    assert {members.choose(0.0) for _ in range(4)} == {1}
    members.told(0, Told(), 0.0)
    assert states(members)[0] is State.WARMING


def test_there_is_no_slow_start_where_the_policy_has_none() -> None:
    members = Members(["a", "b"], CALM, [1, 1])
    members.told(0, DOWN, 0.0)
    members.told(0, UP, 0.0)
    assert states(members) == [State.UP, State.UP]


def test_saying_it_again_does_not_begin_a_slow_start_again() -> None:
    members = group(2)
    members.told(0, DOWN, 0.0)
    for now in (0.0, 4.0, 9.0):
        members.told(0, UP, now)
    assert states(members, 10.0)[0] is State.UP


@pytest.mark.parametrize("balance", [Balance.ADDRESS_HASH, Balance.KEY_HASH])
def test_a_slow_start_takes_keys_back_one_after_another_and_for_good(balance: Balance) -> None:
    members = group(2, balance)
    texts = [b"%d" % number for number in range(200)]
    own = [text for text in texts if members.choose(0.0, key=text, address=text) == 0]
    members.told(0, DOWN, 0.0)
    members.told(0, UP, 0.0)
    before: set[bytes] = set()
    for now in range(11):
        back = {text for text in texts if members.choose(now, key=text, address=text) == 0}
        assert before <= back <= set(own)
        assert len(back) == pytest.approx(len(own) * (0.1 + 0.09 * now), abs=12)
        before = back
    assert before == set(own)


@pytest.mark.parametrize("balance", [Balance.ADDRESS_HASH, Balance.KEY_HASH])
def test_where_all_start_slowly_someone_takes_each_key(balance: Balance) -> None:
    members = group(3, balance)
    for told in (DOWN, UP):
        for index in range(3):
            members.told(index, told, 0.0)
    for number in range(100):
        assert members.choose(0.0, key=b"%d" % number, address=b"%d" % number) is not None


@pytest.mark.parametrize("balance", [Balance.ADDRESS_HASH, Balance.KEY_HASH])
def test_a_server_on_trial_takes_any_key_of_its_own(balance: Balance) -> None:
    members = group(2, balance, after=1, for_s=10)
    texts = [b"%d" % number for number in range(50)]
    own = [text for text in texts if members.choose(0.0, key=text, address=text) == 0]
    ask(members, 0, Outcome.BAD)
    assert own == [text for text in texts if members.choose(10, key=text, address=text) == 0]


# --- clocks, and settings that change


def test_a_clock_that_is_set_back_prolongs_nothing() -> None:
    members = group(2, after=1, for_s=10)
    ask(members, 0, Outcome.BAD, 1_000_000.0)
    assert states(members, 1_000_004.0)[0] is State.EJECTED
    assert states(members, 0.0)[0] is State.EJECTED  # an operator sets the date
    assert states(members, 6.0)[0] is State.TRIAL


def test_servers_that_stay_are_known_when_settings_change() -> None:
    members = group(3, after=1, for_s=10)
    ask(members, 0, Outcome.BAD, 5.0)
    members.told(1, Told(up=False, weight=7), 5.0)
    members.began(2, 5.0)
    after = Members(["s2", "s0", "s1", "new"], GroupPolicy(), [1, 2, 3, 4])
    after.inherit(members)
    told = after.states(5.0)
    assert [one.state for one in told] == [State.UP, State.EJECTED, State.DOWN, State.UP]
    assert [one.at_work for one in told] == [0, 0, 0, 0]  # it ends where it began
    assert [one.name for one in told] == ["s2", "s0", "s1", "new"]
    assert told[2].weight == 7
    assert after.states(15.0)[1].state is State.TRIAL
    after.told(2, Told(), 15.0)
    assert after.states(30.0)[2].weight == 3


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf, 1001])
def test_what_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"s: .* is not a weight; use 0 to 1000"):
        Members(["s"], CALM, [weight])
    members = group(1)
    with pytest.raises(ValueError, match=r"s0: .* is not a weight"):
        members.told(0, Told(weight=weight), 0.0)
    assert members.choose(0.0) == 0


@pytest.mark.parametrize(("names", "weights"), [([], []), (["a"], []), (["a"], [1, 2])])
def test_servers_and_weights_go_together(names: list[str], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="one for each"):
        Members(names, CALM, weights)


def test_two_servers_of_one_name_and_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="share a name"):
        Members(["a", "a"], CALM, [1, 1])
    many = [str(number) for number in range(MOST_MEMBERS + 1)]
    with pytest.raises(ValueError, match="64 is the most"):
        Members(many, CALM, [1] * len(many))


@pytest.mark.parametrize("policy", [GroupPolicy, EjectPolicy])
def test_every_setting_says_what_it_is(policy: type) -> None:
    for told in fields(policy):
        assert told.metadata["says"]
        assert told.metadata["unit"] == "seconds" or not told.name.endswith("_s")


# --- all of it together


class Group(RuleBasedStateMachine):
    """Anything may happen in any order; the laws hold all the while."""

    under_way = Bundle("under_way")

    @initialize(
        size=st.integers(1, 5),
        balance=st.sampled_from(Balance),
        most=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        slower=st.sampled_from([0.0, 2.0]),
        slow_start_s=st.sampled_from([0.0, 10.0]),
    )
    def begin(
        self, size: int, balance: Balance, most: float, slower: float, slow_start_s: float
    ) -> None:
        self.size, self.most = size, most
        policy = GroupPolicy(balance, EjectPolicy(2, 10, most, slower), slow_start_s)
        self.members = Members(
            [str(n) for n in range(size)], policy, [1.0 + n for n in range(size)]
        )
        self.now = 1e9
        self.at_work = [0] * size
        self.trials: Counter[int] = Counter()

    @rule(by=st.floats(0, 60))
    def time_goes_on(self, by: float) -> None:
        self.now += by

    @rule(by=st.floats(0, 1e6))
    def the_clock_is_set_back(self, by: float) -> None:
        before = states(self.members, self.now)
        self.now -= by
        assert states(self.members, self.now) == before

    @rule(
        which=st.integers(0, 4),
        up=st.sampled_from([None, True, False]),
        drained=st.booleans(),
        weight=st.sampled_from([None, 0, 1, 50]),
    )
    def it_is_told(self, which: int, up: bool | None, drained: bool, weight: float | None) -> None:
        told = Told(up, drained, weight)
        index = which % self.size
        self.members.told(index, told, self.now)
        once = self.members.states(self.now)
        self.members.told(index, told, self.now)
        assert self.members.states(self.now) == once

    @rule(target=under_way, key=st.binary(max_size=2), besides=st.sets(st.integers(0, 4)))
    def a_request_begins(self, key: bytes, besides: set[int]) -> tuple[int, int]:
        before = self.members.states(self.now)
        alive = self.members.is_alive(self.now, besides=besides)
        index = self.members.choose(self.now, key=key, address=key, besides=besides)
        left = [n for n in range(self.size) if n not in besides]
        assert alive == (index is not None)
        if index is None:
            # a trial that is under way is the only thing that keeps one of these from being asked
            for n in left:
                assert before[n].state not in {State.UP, State.WARMING} or not before[n].weight
            index = self.members.any_at_all(self.now, key=key, address=key, besides=besides)
            if index is None:
                assert not left
                index = self.members.any_at_all(self.now)
                assert index is not None
        else:
            assert index in left
            assert before[index].state in LIVE
            assert before[index].weight > 0
        self.at_work[index] += 1
        return index, self.members.began(index, self.now)

    @rule(request=under_way, latency_s=st.sampled_from([None, 0.01, 5.0]))
    def a_head_comes(self, request: tuple[int, int], latency_s: float | None) -> None:
        index, era = request
        self.members.heard(index, era, self.now, latency_s)

    @rule(request=consumes(under_way), outcome=st.sampled_from(Outcome))
    def a_request_ends(self, request: tuple[int, int], outcome: Outcome) -> None:
        index, era = request
        self.at_work[index] -= 1
        self.members.ended(index, era, self.now, outcome)

    @precondition(lambda self: not any(self.at_work))
    @rule()
    def settings_change(self) -> None:
        before = self.members
        names, weights = [str(n) for n in range(self.size)], [1.0 + n for n in range(self.size)]
        self.members = Members(names, before._policy, weights)
        self.members.inherit(before)
        assert self.members.states(self.now) == before.states(self.now)

    @invariant()
    def what_is_in_hand_is_known(self) -> None:
        assert [one.at_work for one in self.members.states(self.now)] == self.at_work

    @invariant()
    def not_too_many_are_ejected(self) -> None:
        out = [
            one for one in states(self.members, self.now) if one in {State.EJECTED, State.TRIAL}
        ]
        assert len(out) <= (max(1, math.floor(self.most * self.size)) if self.most else 0)

    @invariant()
    def weights_are_within_bounds(self) -> None:
        assert all(0 <= one.weight <= 50 for one in self.members.states(self.now))


TestGroup = Group.TestCase
TestGroup.settings = settings(max_examples=60, stateful_step_count=40)
