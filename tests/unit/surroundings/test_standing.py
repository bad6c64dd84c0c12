"""What was ordered and what was found, and how long that holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge.surroundings import standing as module
from edge.surroundings.standing import (
    Checked,
    NamedExperiment,
    NamedServer,
    Roll,
    Standing,
    Unordered,
    drained,
    experiment_called,
    found,
    from_bytes,
    ramped,
    resumed,
    servers_called,
    stopped,
    taken_back,
    to_bytes,
    unfound,
    unramped,
    weight_for_share,
    weighted,
)

if TYPE_CHECKING:
    from collections.abc import Callable

EU1 = NamedServer("eu", "http://eu-1.example", 3.0)
EU2 = NamedServer("eu", "http://eu-2.example:8080", 1.0)
US = NamedServer("us", "https://us.example")
TWIN = NamedServer("us", "http://eu-1.example")
CHECKOUT = NamedExperiment("shop.example/checkout", (("new", 10.0), ("control", 90.0)))
OTHER = NamedExperiment("docs.example/checkout", (("a", 1.0), ("b", 1.0)))
SEARCH = NamedExperiment("docs.example/search", (("a", 1.0), ("b", 1.0), ("c", 0.0)))
ROLL = Roll((EU1, EU2, US, TWIN), (CHECKOUT, OTHER, SEARCH))
PLAIN = Standing()


def refusal(act: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(Unordered) as caught:
        act(*args)
    return str(caught.value)


# --- who is meant


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["eu"], [EU1, EU2]),
        (["eu", "http://eu-1.example"], [EU1]),
        (["eu", "HTTP://EU-1.example:80/"], [EU1]),
        (["http://eu-2.example:8080"], [EU2]),
        (["https://us.example:443"], [US]),
        (["http://eu-1.example"], [EU1, TWIN]),
    ],
)
def test_servers_are_called_by_their_origin_their_url_or_both(
    words: list[str], meant: list[NamedServer]
) -> None:
    assert servers_called(ROLL, words) == tuple(meant)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eur"], '"eur" is no origin; did you mean "eu"?'),
        (["ap-south", "http://x"], '"ap-south" is no origin; there is eu, us'),
        (["eu", "https://us.example"], '"https://us.example" is no server of origin "eu"; '),
        (
            ["http://eu-3.example"],
            '"http://eu-3.example" is no server of an origin; did you mean "http://eu-1.example"?',
        ),
        ([], "name an origin, a server by its URL, or both"),
        (["eu", "http://eu-1.example", "more"], "name an origin, a server by its URL, or both"),
        (["x" * 1_000], f'"{"x" * 80}…" is no origin'),
    ],
)
def test_who_is_unknown_is_told_with_who_is_near(words: list[str], said: str) -> None:
    assert refusal(servers_called, ROLL, words).startswith(said)
    assert refusal(servers_called, Roll(), ["eu"]) == ('"eu" is no origin; the settings name none')


def test_an_experiment_is_called_by_its_name_where_that_is_enough() -> None:
    assert experiment_called(ROLL, "search") is SEARCH
    assert experiment_called(ROLL, "shop.example/checkout") is CHECKOUT
    assert refusal(experiment_called, ROLL, "checkout") == (
        '"checkout" is one of several; say which: shop.example/checkout, docs.example/checkout'
    )
    assert refusal(experiment_called, ROLL, "serach") == (
        '"serach" is no experiment; did you mean "search"?'
    )


def test_what_is_listed_in_words_has_an_end() -> None:
    roll = Roll(tuple(NamedServer(f"{n:03d}", "http://a") for n in range(500)))
    words = refusal(servers_called, roll, ["zz"])
    assert words.endswith("there is 000, 001, 002, 003, 004, 005, 006, 007 and 492 more")


# --- servers


def test_a_drained_server_is_drained_until_it_is_taken_back() -> None:
    standing = drained(PLAIN, [EU1, EU2])
    assert standing.server(EU1.id).drained
    assert not standing.server(US.id).drained
    standing = taken_back(standing, [EU1])
    assert [standing.server(each.id).drained for each in (EU1, EU2)] == [False, True]
    assert taken_back(standing, [EU2]) == PLAIN


def test_a_weight_is_ordered_over_the_settings_and_reset() -> None:
    standing = weighted(PLAIN, [EU1, EU2], 7.5)
    assert [standing.weight_of(each) for each in (EU1, EU2, US)] == [7.5, 7.5, 1.0]
    assert standing.ordered_weight(US) is None
    assert weighted(standing, [EU1, EU2], None) == PLAIN


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf, 1e7, 0.0001])
def test_a_weight_that_is_none_is_refused_with_the_way_out(weight: float) -> None:
    words = refusal(weighted, PLAIN, [EU1], weight)
    assert "is no weight of a server; use 0.001 to 1000" in words
    assert ("drain it" in words) == (weight == 0)


def test_what_checks_find_stands_beside_orders_and_is_no_order() -> None:
    standing = found(drained(PLAIN, [EU1]), EU1.id, is_up=False, why="refused" * 99, now=5.0)
    told = standing.server(EU1.id)
    assert (told.checked, told.since, told.drained) == (Checked.DOWN, 5.0, True)
    assert (told.is_up, standing.server(EU2.id).is_up) == (False, None)
    assert len(told.why) == module.WHY_CHARS
    assert standing.orders() == drained(PLAIN, [EU1])
    assert drained(PLAIN, [EU1]).with_checks_of(standing) == standing
    standing = found(standing, EU1.id, is_up=True, why="", now=9.0)
    assert standing.server(EU1.id).is_up


# --- experiments


def test_an_arm_is_ramped_and_the_shares_follow() -> None:
    standing = ramped(PLAIN, CHECKOUT, "new", 30.0)
    assert standing.weights_of(CHECKOUT) == {"new": 30.0, "control": 90.0}
    assert standing.shares_of(CHECKOUT) == {"new": 0.25, "control": 0.75}
    assert standing.weights_of(OTHER) == {"a": 1.0, "b": 1.0}
    assert unramped(standing, CHECKOUT, "new") == PLAIN


@given(
    st.lists(st.floats(0.001, 1e5), min_size=1, max_size=9),
    st.floats(0.0, 0.99),
    st.floats(0.0, 100.0),
)
def test_the_weight_for_a_share_gives_that_share(
    others: list[float], share: float, before: float
) -> None:
    arms = tuple((f"arm{n}", weight) for n, weight in enumerate(others))
    experiment = NamedExperiment("s/x", (*arms, ("new", before)))
    weight = weight_for_share(PLAIN, experiment, "new", share)
    if weight > module.MOST_ARM_WEIGHT or 0 < weight < module.LEAST_ARM_WEIGHT:
        assert "is no weight" in refusal(ramped, PLAIN, experiment, "new", weight)
        return
    shares = ramped(PLAIN, experiment, "new", weight).shares_of(experiment)
    assert shares["new"] == pytest.approx(share, abs=1e-6)
    assert math.fsum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("share", [1.0, 1.5, -0.1, math.nan])
def test_a_share_that_leaves_others_nothing_is_refused(share: float) -> None:
    words = refusal(weight_for_share, PLAIN, CHECKOUT, "new", share)
    assert "use 0% to 99.9%, or stop the experiment on it: edge ab stop checkout --on new" in words


def test_an_arm_without_others_has_no_share_to_be_set() -> None:
    standing = ramped(PLAIN, OTHER, "b", 0.0)
    words = refusal(weight_for_share, standing, OTHER, "a", 0.5)
    assert words == 'no arm but "a" has a weight, so its share is all; ramp another one'
    assert 'with "a" at 0 no arm has a weight' in refusal(ramped, standing, OTHER, "a", 0.0)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, 1e7, 1e-9])
def test_an_arm_takes_no_weight_that_is_none(weight: float) -> None:
    assert "is no weight of an arm; use 0, or 1e-06 to 1000000" in refusal(
        ramped, PLAIN, OTHER, "a", weight
    )


@pytest.mark.parametrize(
    "act",
    [
        lambda arm: ramped(PLAIN, CHECKOUT, arm, 1.0),
        lambda arm: unramped(PLAIN, CHECKOUT, arm),
        lambda arm: stopped(PLAIN, CHECKOUT, arm),
        lambda arm: weight_for_share(PLAIN, CHECKOUT, arm, 0.5),
    ],
)
def test_an_unknown_arm_is_told_with_the_one_that_is_near(act: Callable[[str], object]) -> None:
    assert refusal(act, "controll") == '"controll" is no arm; did you mean "control"?'


def test_a_stopped_experiment_gives_everyone_one_arm_and_keeps_its_weights() -> None:
    standing = stopped(ramped(PLAIN, CHECKOUT, "new", 50.0), CHECKOUT, None)
    assert standing.stopped_on(CHECKOUT) == "control"
    assert standing.shares_of(CHECKOUT) == {"new": 0.0, "control": 1.0}
    assert stopped(PLAIN, OTHER, None).stopped_on(OTHER) == "a"  # the first: none is `control`
    assert stopped(standing, CHECKOUT, "new").stopped_on(CHECKOUT) == "new"
    standing = resumed(standing, CHECKOUT)
    assert standing.stopped_on(CHECKOUT) is None
    assert standing.weights_of(CHECKOUT)["new"] == 50.0


def test_shares_of_arms_without_any_weight_are_none() -> None:
    assert PLAIN.shares_of(NamedExperiment("s/x", (("a", 0.0),))) == {"a": 0.0}


# --- the rule


class HowLongOrdersHold(RuleBasedStateMachine):
    """Orders and reloads in any order, beside a model: what was ordered, over what."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = {"a": 1.0, "b": 2.0}
        self.arms = {"x": 1.0, "y": 9.0}
        self.standing = Standing()
        self.drained: set[str] = set()
        self.ordered: dict[str, float] = {}
        self.ramped: dict[str, float] = {}
        self.stopped: str | None = None

    def roll(self) -> Roll:
        servers = tuple(NamedServer(name, "http://s", w) for name, w in self.weights.items())
        return Roll(servers, (self.experiment(),))

    def experiment(self) -> NamedExperiment:
        return NamedExperiment("s/e", tuple(self.arms.items()))

    names = st.sampled_from(["a", "b"])
    arm_names = st.sampled_from(["x", "y"])
    values = st.sampled_from([1.0, 2.0, 5.0])

    @rule(name=names, weight=values)
    def weigh(self, name: str, weight: float) -> None:
        if name in self.weights:
            servers = servers_called(self.roll(), [name])
            self.standing = weighted(self.standing, servers, weight)
            self.ordered[name] = weight

    @rule(name=names, out=st.booleans())
    def drain(self, name: str, *, out: bool) -> None:
        if name in self.weights:
            servers = servers_called(self.roll(), [name])
            self.standing = (drained if out else taken_back)(self.standing, servers)
            (self.drained.add if out else self.drained.discard)(name)

    @rule(arm=arm_names, weight=values)
    def ramp(self, arm: str, weight: float) -> None:
        if arm in self.arms:
            self.standing = ramped(self.standing, self.experiment(), arm, weight)
            self.ramped[arm] = weight

    @rule(arm=arm_names)
    def stop(self, arm: str) -> None:
        if arm in self.arms:
            self.standing = stopped(self.standing, self.experiment(), arm)
            self.stopped = arm

    @rule(name=names, weight=values)
    def change_a_weight(self, name: str, weight: float) -> None:
        if self.weights.get(name) != weight:
            self.ordered.pop(name, None)
        self.weights[name] = weight
        self.reload()

    @rule(name=names)
    def take_a_server_out(self, name: str) -> None:
        self.weights.pop(name, None)
        self.ordered.pop(name, None)
        self.drained.discard(name)
        self.reload()

    @rule(arm=arm_names, weight=values)
    def change_an_arm(self, arm: str, weight: float) -> None:
        if self.arms.get(arm) != weight:
            self.ramped.pop(arm, None)
        self.arms[arm] = weight
        self.reload()

    @rule(arm=arm_names)
    def take_an_arm_out(self, arm: str) -> None:
        if len(self.arms) > 1 and arm in self.arms:
            del self.arms[arm]
            self.ramped.pop(arm, None)
            self.stopped = None if self.stopped == arm else self.stopped
        self.reload()

    @rule()
    def reload(self) -> None:
        before = self.standing
        self.standing = before.under(self.roll())
        assert self.standing.under(self.roll()) == self.standing
        self.check(before)  # a worker may have read the settings before the keeper has

    @invariant()
    def what_holds_is_what_was_ordered(self) -> None:
        self.check(self.standing)

    def check(self, standing: Standing) -> None:
        for server in self.roll().servers:
            expected = self.ordered.get(server.origin, server.weight)
            assert standing.weight_of(server) == expected
            assert standing.server(server.id).drained == (server.origin in self.drained)
        assert standing.weights_of(self.experiment()) == {**self.arms, **self.ramped}
        assert standing.stopped_on(self.experiment()) == self.stopped
        assert from_bytes(to_bytes(standing)) == standing


HowLongOrdersHold.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestHowLongOrdersHold = HowLongOrdersHold.TestCase


def test_what_is_gone_from_the_settings_leaves_nothing_behind() -> None:
    standing = ramped(weighted(drained(PLAIN, [EU1]), [EU2], 5.0), CHECKOUT, "new", 5.0)
    standing = found(standing, US.id, is_up=False, why="refused", now=1.0)
    assert standing.under(ROLL, {US.id}) == standing
    assert standing.under(ROLL) == standing.orders()  # no longer checked
    assert standing.under(Roll()) == PLAIN


# --- bounds


def test_there_is_an_end_to_what_may_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SERVERS", 2)
    monkeypatch.setattr(module, "MOST_EXPERIMENTS", 1)
    standing = drained(PLAIN, [EU1, EU2])
    assert "at most 2 servers" in refusal(drained, standing, [US])
    assert drained(taken_back(standing, [EU1]), [US]).server(US.id).drained
    assert weighted(standing, [EU1], 2.0).weight_of(EU1) == 2.0
    checks = found(PLAIN, US.id, is_up=False, why="refused", now=1.0)
    assert standing.with_checks_of(checks) == standing  # orders come first
    standing = stopped(standing, CHECKOUT, None)
    assert "about 1 experiments" in refusal(stopped, standing, OTHER, None)
    assert ramped(standing, CHECKOUT, "new", 1.0).stopped_on(CHECKOUT) == "control"
    arms = NamedExperiment("s/x", tuple((f"arm{n}", 1.0) for n in range(module.MOST_ARMS + 1)))
    standing = PLAIN
    for name, _ in arms.arms[:-1]:
        standing = ramped(standing, arms, name, 2.0)
    assert "at most 64 arms" in refusal(ramped, standing, arms, arms.arms[-1][0], 2.0)
    long = NamedServer("x" * 400, "http://a.example")
    assert "more than 400 characters" in refusal(drained, PLAIN, [long])


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"\xff", b'{"servers": {"a": {"checked": "no"}}}']
)
def test_what_is_no_standing_is_told(document: bytes) -> None:
    with pytest.raises(ValueError, match="no standing"):
        from_bytes(document)


def test_what_was_found_can_be_forgotten_and_orders_stay() -> None:
    standing = found(drained(PLAIN, [EU1]), EU1.id, is_up=False, why="it owes", now=5.0)
    assert unfound(standing, EU1.id) == drained(PLAIN, [EU1])
    assert unfound(found(PLAIN, US.id, is_up=False, why="", now=5.0), US.id) == PLAIN
