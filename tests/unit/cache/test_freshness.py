"""Age, lifetime and stale windows: the vectors, and the laws that hold for all."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache import freshness
from edge.cache.directives import NOTHING, Directives, response_directives
from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.cache.freshness import Freshness, FreshnessPolicy
from edge.wire.fields import format_date
from edge.wire.message import Headers, ResponseHead

T = 1_800_000_000.0
AT_T = Times(T, T)
VECTORS = Path(__file__).parents[2] / "vectors" / "freshness.toml"
CASES: list[dict[str, Any]] = tomllib.loads(VECTORS.read_text())["case"]


def fields(lines: list[str]) -> Headers:
    """`name: value` lines as headers; `{n}` is the HTTP-date n seconds after T."""

    def dated(match: re.Match[str]) -> str:
        return format_date(T + int(match[1])).decode()

    pairs = (re.sub(r"\{(-?[0-9]+)\}", dated, line).partition(": ") for line in lines)
    return Headers((name.encode(), value.encode()) for name, _, value in pairs)


def entry_of(
    response: ResponseHead, times: Times = AT_T, policy: FreshnessPolicy | None = None
) -> Entry:
    policy = policy or FreshnessPolicy()
    directives, targeted = response_directives(response.headers)
    return Entry(
        key=Key(b"k" * 16, b"http://example.com/"),
        status=response.status,
        headers=response.headers,
        times=times,
        date=freshness.date_field(response.headers, times),
        age_field=freshness.age_field(response.headers),
        terms=freshness.terms(response, directives, times, policy, targeted=targeted),
        variant=(),
        length=None,
        fetched_at=Seq(0),
        keep_until=T + 1e6,
    )


@pytest.mark.parametrize("case", CASES, ids=[case["says"] for case in CASES])
def test_vectors(case: dict[str, Any]) -> None:
    response = ResponseHead(case.get("status", 200), fields(case.get("headers", [])))
    policy = FreshnessPolicy(**case.get("policy", {}))
    now = T + case.get("after", 0)
    entry = entry_of(response, Times(T - case.get("delay", 0), T), policy)
    found = {
        "age": freshness.current_age(entry, now),
        "lifetime": entry.terms.lifetime_s,
        "source": entry.terms.source.value,
        "state": freshness.state(entry, NOTHING, now).value,
    }
    expected = {name: case[name] for name in found if name in case}
    assert expected
    assert {name: found[name] for name in expected} == expected


MOMENTS = st.floats(0, 4e9)
SECONDS = st.floats(0, 1e9)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    sent = draw(MOMENTS)
    return replace(
        entry_of(ResponseHead(200)),
        times=Times(sent, sent + draw(st.floats(0, 1e4))),
        date=draw(MOMENTS),
        age_field=draw(st.integers(0, 2**31)),
        terms=Terms(draw(SECONDS), Source.MAX_AGE, draw(SECONDS), draw(SECONDS)),
    )


@given(entries(), MOMENTS, SECONDS)
def test_age_never_falls_and_is_never_negative(entry: Entry, now: float, later: float) -> None:
    age = freshness.current_age(entry, now)
    assert age >= entry.age_field >= 0
    assert freshness.current_age(entry, now + later) >= age


@given(entries(), MOMENTS, SECONDS)
def test_time_never_makes_an_entry_fresh_again(entry: Entry, now: float, later: float) -> None:
    if freshness.state(entry, NOTHING, now) is not Freshness.FRESH:
        assert freshness.state(entry, NOTHING, now + later) is not Freshness.FRESH


@given(entries(), MOMENTS, SECONDS)
def test_a_longer_lifetime_never_makes_an_entry_staler(
    entry: Entry, now: float, longer: float
) -> None:
    terms = replace(entry.terms, lifetime_s=entry.terms.lifetime_s + longer)
    order = list(Freshness)
    before = freshness.state(entry, NOTHING, now)
    after = freshness.state(replace(entry, terms=terms), NOTHING, now)
    # an empty stale-while-revalidate window aside, states only move towards FRESH
    assert order.index(after) <= order.index(before)


@given(st.booleans(), st.booleans(), st.booleans(), st.booleans(), SECONDS)
def test_what_forbids_stale_leaves_no_window(
    must: bool, proxy: bool, shared: bool, no_cache: bool, window: float
) -> None:
    asked = int(window)
    directives = Directives(
        max_age=1,
        s_maxage=1 if shared else None,
        must_revalidate=must,
        proxy_revalidate=proxy,
        no_cache=no_cache,
        stale_while_revalidate=asked,
        stale_if_error=asked,
    )
    policy = FreshnessPolicy(stale_while_revalidate_s=window, stale_if_error_s=window)
    terms = freshness.terms(ResponseHead(200), directives, Times(T, T), policy)
    if must or proxy or shared or no_cache:
        assert (terms.while_revalidate_s, terms.if_error_s) == (0, 0)
    else:
        assert (terms.while_revalidate_s, terms.if_error_s) == (window, window)


def aged(age: int, cache_control: str) -> Entry:
    return entry_of(ResponseHead(200, fields([f"age: {age}", f"cache-control: {cache_control}"])))


@pytest.mark.parametrize(
    ("entry", "asked", "state"),
    [
        (aged(10, "max-age=60"), Directives(max_age=10), Freshness.FRESH),
        (aged(11, "max-age=60"), Directives(max_age=10), Freshness.STALE_IF_ERROR),
        (aged(10, "max-age=60"), Directives(min_fresh=50), Freshness.FRESH),
        (aged(10, "max-age=60"), Directives(min_fresh=51), Freshness.STALE_IF_ERROR),
        (aged(70, "max-age=60"), Directives(max_stale=10), Freshness.STALE_ACCEPTED),
        (aged(71, "max-age=60"), Directives(max_stale=10), Freshness.STALE_IF_ERROR),
        (aged(70, "s-maxage=60"), Directives(max_stale=10), Freshness.EXPIRED),
        (aged(60, "max-age=60"), NOTHING, Freshness.STALE_IF_ERROR),
    ],
)
def test_the_requests_own_directives(entry: Entry, asked: Directives, state: Freshness) -> None:
    assert freshness.state(entry, asked, T) is state


def test_an_entry_is_kept_for_its_longest_window_past_its_lifetime() -> None:
    policy = FreshnessPolicy(max_stale_s=100)
    terms = Terms(60, Source.MAX_AGE, while_revalidate_s=10, if_error_s=500)
    assert freshness.keep_until(terms, 20, Times(T, T), policy) == T + 40 + 500
    assert freshness.keep_until(replace(terms, if_error_s=0), 90, Times(T, T), policy) == T + 100


def test_nothing_is_granted_to_stored_failures_unasked() -> None:
    failure = entry_of(ResponseHead(503, fields(["cache-control: max-age=5"])))
    assert failure.terms.if_error_s == 0
    asked = entry_of(ResponseHead(503, fields(["cache-control: max-age=5, stale-if-error=9"])))
    assert asked.terms.if_error_s == 9


def test_without_its_rule_a_policy_grants_nothing_of_its_own() -> None:
    rule = FreshnessPolicy(ttl_s=1, default_ttl_s=1, stale_while_revalidate_s=1, max_stale_s=7)
    assert rule.without_rule() == FreshnessPolicy(max_stale_s=7)


@given(entries(), MOMENTS, SECONDS)
def test_a_softened_entry_is_never_fresh_again(entry: Entry, since: float, later: float) -> None:
    soft = freshness.softened(entry, since)
    assert freshness.state(soft, NOTHING, since + later) is not Freshness.FRESH
    assert freshness.time_to_live(soft, since + later) <= 0


@given(entries(), MOMENTS, SECONDS)
def test_a_softened_entry_is_stale_since_the_purge_unless_it_was_before(
    entry: Entry, since: float, later: float
) -> None:
    soft, now = freshness.softened(entry, since), since + later
    staleness = -freshness.time_to_live(soft, now)
    if freshness.time_to_live(entry, since) <= 0:
        assert soft == entry
    else:
        asked_of_us = now - max(since, min(entry.times.response_time, now))
        assert staleness == pytest.approx(asked_of_us, abs=1e-3)


@given(entries(), MOMENTS, MOMENTS)
def test_softening_changes_nothing_but_the_lifetime_and_is_done_once(
    entry: Entry, since: float, later: float
) -> None:
    soft = freshness.softened(entry, since)
    lifetime_s = soft.terms.lifetime_s
    assert 0 <= lifetime_s <= entry.terms.lifetime_s
    assert soft == replace(entry, terms=replace(entry.terms, lifetime_s=lifetime_s))
    assert freshness.softened(soft, since) == soft
    again = freshness.softened(soft, max(since, later))
    assert again == soft


def test_an_entry_that_came_after_the_purge_it_was_too_late_for_is_stale_from_its_arrival() -> (
    None
):
    soft = freshness.softened(aged(5, "max-age=60, stale-while-revalidate=10"), T - 3)
    assert freshness.state(soft, NOTHING, T) is Freshness.STALE_WHILE_REVALIDATE
    assert freshness.state(soft, NOTHING, T + 10) is Freshness.STALE_IF_ERROR


def test_time_to_live_falls_below_zero() -> None:
    entry = aged(0, "max-age=60")
    assert freshness.time_to_live(entry, T + 59) == 1
    assert freshness.time_to_live(entry, T + 61) == -1


@pytest.mark.parametrize(("after", "found"), [(70, "STALE_ACCEPTED"), (71, "STALE_IF_ERROR")])
def test_max_stale_is_accepted_to_its_last_second(after: int, found: str) -> None:
    entry = entry_of(ResponseHead(200, fields(["cache-control: max-age=60"])))
    state = freshness.state(entry, replace(NOTHING, max_stale=10), T + after)
    assert state is Freshness[found]
