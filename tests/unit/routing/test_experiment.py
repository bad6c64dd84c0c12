"""Who is in which arm, who is told, and what of that is keyed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ProtocolError
from edge.routing.experiment import (
    Arm,
    Assignment,
    Experiment,
    asked,
    assign_all,
    key_part,
    route_of,
)
from edge.routing.experiment import told as told_fields
from edge.routing.site import Glob, Match
from edge.routing.visitors import VisitorId
from edge.wire.cookies import CookieTerms
from edge.wire.message import Headers, Pair, RequestHead

CONTROL = Arm(b"control", 90)
NEW = Arm(b"new", 10, route=("us", "eu"), fields=((b"x-checkout", b"new"),))
CHECKOUT = Experiment(b"checkout", CookieTerms(b"ab"), (CONTROL, NEW))
BY_ID = replace(CHECKOUT, visitor=VisitorId("header", b"x-visitor"), key=b"fleet")
FOR_NEW = 0.95  # a roll that falls on the new arm
BROWSER: Pair = (b"user-agent", b"Mozilla/5.0 Firefox/120.0")


def get(*pairs: Pair, target: bytes = b"/") -> RequestHead:
    return RequestHead(b"GET", b"https", b"shop.example", target, Headers(pairs))


def visit(number: int) -> RequestHead:
    return get((b"x-visitor", b"visitor %d" % number))


def told(
    experiment: Experiment, request: RequestHead, roll: float = 0.0
) -> tuple[bytes, bool, bool]:
    """Arm, whether a cookie is due, whether held out."""
    found = experiment.assign(request, roll)
    assert found is not None
    assert found.experiment == experiment
    return found.arm.name, found.is_new, found.is_held_out


# --- who gets which arm -------------------------------------------------------


def test_a_newcomer_gets_an_arm_and_is_told() -> None:
    assert told(CHECKOUT, get(), 0.0) == (b"control", True, False)
    assert told(CHECKOUT, get(), FOR_NEW) == (b"new", True, False)


@given(st.sampled_from([b"control", b"new"]), st.floats(0, 1, exclude_max=True))
def test_whoever_has_the_cookie_stays_and_is_not_told_again(arm: bytes, roll: float) -> None:
    request = get((b"cookie", b"sid=1; ab=" + arm), (b"x-visitor", b"v"))
    assert told(CHECKOUT, request, roll) == (arm, False, False)
    assert told(BY_ID, request, roll) == (arm, False, False)


@pytest.mark.parametrize(
    "line",
    [
        b"ab=other",  # an unknown arm
        b"ab=",
        b"ab=NEW",
        b'ab="new"',
        b"sid=1",
        b"xab=new",
        b"ab new",
    ],
)
def test_a_cookie_that_names_no_arm_is_replaced(line: bytes) -> None:
    assert told(CHECKOUT, get((b"cookie", line))) == (b"control", True, False)


def test_what_a_script_has_written_beside_it_costs_no_visitor_the_arm() -> None:
    line = b'g_state={"i_l":0}; ab=new; a, b'
    assert told(CHECKOUT, get((b"cookie", line))) == (b"new", False, False)


@pytest.mark.parametrize(
    ("line", "arm"),
    [
        (b"ab=new; ab=control", b"new"),
        (b"ab=control; ab=new", b"control"),
        (b"ab=gone; ab=new", b"new"),
    ],
)
def test_of_several_cookies_the_first_that_names_an_arm_counts(line: bytes, arm: bytes) -> None:
    assert told(CHECKOUT, get((b"cookie", line))) == (arm, False, False)


def test_a_visitor_with_an_id_gets_one_arm_whatever_the_roll_and_the_node() -> None:
    other_node = replace(BY_ID, arms=(NEW, CONTROL), cookie=CookieTerms(b"renamed"))
    for number in range(200):
        arm, is_new, _ = told(BY_ID, visit(number), 0.0)
        assert is_new
        assert told(BY_ID, visit(number), FOR_NEW) == (arm, True, False)
        assert told(other_node, visit(number), 0.5) == (arm, True, False)


def test_nodes_with_another_key_draw_another_arm_for_some() -> None:
    other = replace(BY_ID, key=b"another")
    moved = sum(told(BY_ID, visit(n)) != told(other, visit(n)) for n in range(1_000))
    assert moved == pytest.approx(180, abs=50)  # 2 × 0.9 × 0.1 of them


def test_a_visitor_whose_id_is_missing_draws_by_the_roll() -> None:
    assert told(BY_ID, get(), FOR_NEW)[0] == b"new"
    assert told(BY_ID, get((b"x-visitor", b"")), FOR_NEW)[0] == b"new"
    assert told(BY_ID, get(), 0.0)[0] == b"control"


def test_100_000_visitors_are_shared_90_to_10_within_half_a_point() -> None:
    arms = Counter(told(BY_ID, visit(number))[0] for number in range(100_000))
    assert arms[b"new"] / 1_000 == pytest.approx(10, abs=0.5)


def test_a_ramp_takes_nobody_out_of_the_arm() -> None:
    ramped = BY_ID.altered({b"new": 20}, None)
    before = {n for n in range(10_000) if told(BY_ID, visit(n))[0] == b"new"}
    after = {n for n in range(10_000) if told(ramped, visit(n))[0] == b"new"}
    assert before < after


def test_several_experiments_are_independent() -> None:
    arms = (Arm(b"a", 50), Arm(b"b", 50))
    one, two = (replace(BY_ID, name=name, arms=arms) for name in (b"one", b"two"))
    pairs = Counter((told(one, visit(n))[0], told(two, visit(n))[0]) for n in range(40_000))
    for cell in product((b"a", b"b"), (b"a", b"b")):
        assert pairs[cell] == pytest.approx(10_000, abs=300)  # 3.5 deviations of √7500


# --- weights of 0, stopping ---------------------------------------------------


def test_an_arm_of_weight_0_takes_in_nobody_and_keeps_who_is_there() -> None:
    closed = BY_ID.altered({b"new": 0}, None)
    assert {told(closed, visit(n))[0] for n in range(1_000)} == {b"control"}
    assert told(closed, get(), 0.999999)[0] == b"control"
    assert told(closed, get((b"cookie", b"ab=new"))) == (b"new", False, False)


def test_where_no_arm_has_weight_newcomers_are_held_out() -> None:
    closed = BY_ID.altered({b"new": 0, b"control": 0}, None)
    assert told(closed, visit(1)) == (b"control", False, True)
    assert told(closed, get(), 0.5) == (b"control", False, True)
    assert told(closed, get((b"cookie", b"ab=new"))) == (b"new", False, False)


@pytest.mark.parametrize("arm", [b"control", b"new"])
@pytest.mark.parametrize(
    "pairs",
    [(), ((b"cookie", b"ab=control"),), ((b"cookie", b"ab=new"),), ((b"x-visitor", b"1"),)],
)
def test_a_stopped_experiment_gives_everyone_one_arm_and_tells_nobody(
    arm: bytes, pairs: tuple[Pair, ...]
) -> None:
    stopped = replace(BY_ID, hold_out=frozenset({"bots", "cookieless"})).altered({}, arm)
    for roll in (0.0, FOR_NEW):
        assert told(stopped, get(*pairs), roll) == (arm, False, False)


def test_an_experiment_is_altered_by_what_it_knows() -> None:
    altered = CHECKOUT.altered({b"new": 20, b"gone": 5}, b"gone")
    assert [arm.weight for arm in altered.arms] == [90, 20]
    assert altered.stopped_on is None
    assert CHECKOUT.altered({}, b"new").altered({}, None).stopped_on == b"new"


# --- who takes part -----------------------------------------------------------


def test_bots_and_the_cookieless_get_the_control_and_no_cookie() -> None:
    held = replace(CHECKOUT, hold_out=frozenset({"bots", "cookieless"}))
    bot: Pair = (b"user-agent", b"Googlebot/2.1")
    assert told(held, get(BROWSER), FOR_NEW) == (b"control", False, True)
    assert told(held, get(bot, (b"cookie", b"ab=new"))) == (b"control", False, True)
    assert told(held, get(BROWSER, (b"cookie", b"sid=1")), FOR_NEW) == (b"new", True, False)


@dataclass
class Somewhere:
    country: str = "DE"
    continent: str = "EU"


def test_an_experiment_may_be_for_some_requests_only() -> None:
    shop = replace(CHECKOUT, takes=Match(path=Glob.parse(b"/shop/*")))
    assert shop.assign(get(target=b"/blog/"), 0.0) is None
    assert shop.assign(get(target=b"/blog?/shop/"), 0.0) is None
    assert told(shop, get(target=b"/shop/?a=b")) == (b"control", True, False)
    german = replace(CHECKOUT, takes=Match(countries=frozenset({"DE"})))
    assert german.assign(get(), 0.0) is None
    assert german.assign(get(), 0.0, Somewhere()) is not None
    by_field = replace(CHECKOUT, takes=Match(headers=((b"x-beta", Glob.parse(b"*")),)))
    assert by_field.assign(get((b"x-beta", b"1")), 0.0) is not None


def test_all_experiments_that_take_a_request_give_an_arm_in_their_order() -> None:
    search = replace(CHECKOUT, name=b"search", cookie=CookieTerms(b"ab2"))
    blog = replace(search, name=b"blog", takes=Match(path=Glob.parse(b"/blog/*")))
    found = assign_all((CHECKOUT, blog, search), get((b"cookie", b"ab=new")), (0.0, 0.0, FOR_NEW))
    assert [(each.experiment.name, each.arm.name, each.is_new) for each in found] == [
        (b"checkout", b"new", False),
        (b"search", b"new", True),
    ]
    with pytest.raises(ValueError):
        assign_all((CHECKOUT, search), get(), (0.0,))


def test_an_arm_is_told_by_the_experiments_cookie() -> None:
    found = CHECKOUT.assign(get(), FOR_NEW)
    assert found is not None
    assert found.cookie(b"https") == (
        b"ab=new; Max-Age=2592000; Path=/; Secure; HttpOnly; SameSite=Lax"
    )
    assert b"Secure" not in found.cookie(b"http")


# --- the key ------------------------------------------------------------------

names = st.binary(min_size=1, max_size=4) | st.sampled_from([b"1:a", b"1:a1:b", b"1", b"a1:b"])
choices = st.lists(
    st.tuples(names, names, st.booleans()), max_size=3, unique_by=lambda choice: choice[0]
)


def assigned(name: bytes, arm: bytes, *, changes: bool) -> Assignment:
    made = Arm(arm, 1, prefix=b"/new" if changes else b"")
    return Assignment(Experiment(name, CookieTerms(b"ab"), (made,)), made, is_new=False)


@given(choices, choices)
def test_two_keys_are_one_exactly_where_the_same_arms_change_something(
    one: list[tuple[bytes, bytes, bool]], other: list[tuple[bytes, bytes, bool]]
) -> None:
    keys = [key_part([assigned(n, a, changes=c) for n, a, c in each]) for each in (one, other)]
    changing = [{(n, a) for n, a, c in each if c} for each in (one, other)]
    assert (keys[0] == keys[1]) is (changing[0] == changing[1])


def test_arms_that_change_nothing_share_the_answers_of_a_site_without_experiment() -> None:
    plain = CHECKOUT.assign(get(), 0.0)
    new = CHECKOUT.assign(get(), FOR_NEW)
    assert plain is not None and new is not None  # noqa: PT018
    assert key_part(()) == key_part((plain,)) == b""
    assert key_part((new,)) == b"8:checkout3:new"
    assert key_part((plain, new)) == b"8:checkout3:new"


def test_the_order_of_experiments_is_not_keyed() -> None:
    pair = [assigned(b"a", b"x", changes=True), assigned(b"b", b"y", changes=True)]
    assert key_part(pair) == key_part(reversed(pair)) == b"1:a1:x1:b1:y"


@pytest.mark.parametrize(
    ("arm", "changes"),
    [
        (Arm(b"a", 1), False),
        (Arm(b"a", 1, route=("eu",)), True),
        (Arm(b"a", 1, prefix=b"/a"), True),
        (Arm(b"a", 1, fields=((b"x-a", b"1"),)), True),
    ],
)
def test_an_arm_with_a_route_a_prefix_or_fields_changes_the_answer(
    arm: Arm, *, changes: bool
) -> None:
    assert arm.changes is changes


# --- what the origin is asked -------------------------------------------------


def test_arms_dress_the_request_in_turn() -> None:
    first = Arm(b"a", 1, prefix=b"/a", fields=((b"x-one", b"1"), (b"x-both", b"a")))
    second = Arm(b"b", 1, route=("us",), prefix=b"/b", fields=((b"x-both", b"b"),))
    made = [
        Assignment(Experiment(arm.name, CookieTerms(b"ab"), (arm,)), arm, is_new=False)
        for arm in (first, second)
    ]
    headers = Headers([(b"x-both", b"client"), (b"accept", b"*/*")])
    assert asked(made, b"/p?q=1") == b"/b/a/p?q=1"
    assert told_fields(made, headers) == Headers(
        [(b"accept", b"*/*"), (b"x-one", b"1"), (b"x-both", b"b")]
    )
    assert route_of(made) == ("us",)
    assert asked((), b"/p") == b"/p"
    assert told_fields((), headers) is headers
    assert route_of(()) == ()


def test_no_path_leaves_an_arms_prefix() -> None:
    arm = Arm(b"a", 1, prefix=b"/a")
    made = [Assignment(Experiment(b"e", CookieTerms(b"ab"), (arm,)), arm, is_new=False)]
    with pytest.raises(ProtocolError):
        asked(made, b"/..%2Fsecret")


def test_what_was_drawn_elsewhere_stands_in_place_of_chance_and_of_nothing_else() -> None:
    arms = (Arm(b"a", 1), Arm(b"b", 1))
    chance = Experiment(b"e", CookieTerms(b"ab"), arms)
    by_chance = chance.assign(get(), 0.1)
    assert by_chance is not None
    assert by_chance.by_chance
    told_b = by_chance.drawn_as({b"e": b"b"})
    assert (told_b.arm.name, told_b.is_new, told_b.by_chance) == (b"b", True, True)
    assert by_chance.drawn_as({b"e": b"gone"}) is by_chance
    kept = chance.assign(get((b"cookie", b"ab=a")), 0.9)
    assert kept is not None
    assert kept.drawn_as({b"e": b"b"}) is kept
    assert chance.rolled(0.9).arm.name == b"b"


# --- settings -----------------------------------------------------------------


def test_a_good_experiment_has_nothing_said_of_it() -> None:
    good = replace(BY_ID, hold_out=frozenset({"bots"}), stopped_on=b"new")
    assert list(good.check()) == []


@pytest.mark.parametrize(
    ("bad", "where", "words"),
    [
        (replace(CHECKOUT, name=b""), "name", "use 1 to 64 bytes"),
        (replace(CHECKOUT, arms=(CONTROL,)), "arms", "1 arms are no experiment; use 2 to 32"),
        (replace(CHECKOUT, cookie=CookieTerms(b"a b")), "cookie.name", "is no cookie's name"),
        (replace(CHECKOUT, visitor=VisitorId("header", b"X")), "visitor", "no name of a header"),
        (replace(CHECKOUT, hold_out=frozenset({"cats"})), "hold_out", '"cats" is unknown'),
        (replace(CHECKOUT, stopped_on=b"gone"), "stopped_on", "is no arm"),
        (replace(CHECKOUT, arms=(CONTROL, replace(NEW, weight=-1))), "arms", "-1 is no weight"),
        (replace(CHECKOUT, arms=(NEW, NEW)), "arms.new", "two arms of this name"),
        (replace(CHECKOUT, arms=(CONTROL, Arm(b"a b", 1))), "arms.a b", "stand in a cookie"),
        (replace(CHECKOUT, arms=(CONTROL, Arm(b"", 1))), "arms.", "stand in a cookie"),
        (
            replace(CHECKOUT, arms=(CONTROL, replace(NEW, prefix=b"/a/"))),
            "arms.new.prefix",
            "is no prefix",
        ),
        (
            replace(CHECKOUT, arms=(CONTROL, replace(NEW, fields=((b"host", b"x"),)))),
            "arms.new.header",
            "leave it out",
        ),
    ],
)
def test_what_cannot_work_is_told_with_its_place_and_the_way_out(
    bad: Experiment, where: str, words: str
) -> None:
    [(found, said)] = bad.check()
    assert found == where
    assert words in said


def test_an_experiment_without_arms_is_none() -> None:
    with pytest.raises(ValueError, match="name two or more"):
        Experiment(b"a", CookieTerms(b"a"), ())
