"""A request selects what it stored; fields that Vary does not name change nothing."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.cache.vary import (
    MOST_NAMES,
    VaryPolicy,
    choose,
    selects,
    superseded,
    variant,
    vary_names,
)
from edge.wire.hop import PER_PATH
from edge.wire.message import Headers, RequestHead

VECTORS = Path(__file__).parents[2] / "vectors" / "vary.toml"
CASES = tomllib.loads(VECTORS.read_text())["case"]


def get(*pairs: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(b"GET", b"http", b"example.com", b"/", Headers(pairs))


def stored(vary: bytes | None, request: RequestHead, *, date: float = 1000.0) -> Entry:
    headers = Headers(() if vary is None else ((b"vary", vary),))
    names = vary_names(headers)
    return Entry(
        key=Key(b"0123456789abcdef", b"http://example.com/"),
        status=200,
        headers=headers,
        times=Times(date, date),
        date=date,
        age_field=0,
        terms=Terms(60.0, Source.MAX_AGE),
        variant=variant(names or (), request),
        length=0,
        fetched_at=Seq(0),
        keep_until=2000.0,
        vary_any=names is None,
    )


def pairs_of(rows: list[list[str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode(), value.encode()) for name, value in rows)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["says"]))
def test_vary_by_the_book(case: dict[str, Any]) -> None:
    headers = Headers((b"vary", line.encode()) for line in case["vary"])
    names = vary_names(headers)
    expected = case.get("names")
    assert names == (None if expected is None else tuple(name.encode() for name in expected))
    first, second = get(*pairs_of(case["first"])), get(*pairs_of(case["second"]))
    entry = replace(
        stored(None, first), variant=variant(names or (), first), vary_any=names is None
    )
    assert selects(entry, second) == case["same"]
    assert selects(entry, first) == (names is not None)


def test_a_vary_of_too_many_names_counts_as_star() -> None:
    names = [b"f%d" % number for number in range(MOST_NAMES + 1)]
    assert vary_names(Headers(((b"vary", b",".join(names[:-1])),))) == tuple(sorted(names[:-1]))
    assert vary_names(Headers(((b"vary", b",".join(names)),))) is None


@pytest.mark.parametrize("name", sorted(PER_PATH))
def test_a_vary_on_what_every_hop_writes_anew_counts_as_star(name: bytes) -> None:
    assert vary_names(Headers(((b"vary", b"foo, " + name),))) is None


names_of_fields = st.sampled_from(
    [b"foo", b"bar", b"cookie", b"accept-encoding", b"accept-language", b"user-agent"]
)
values = st.text('ab ,;q=01."', max_size=12).map(lambda text: text.strip().encode())
fields = st.lists(st.tuples(names_of_fields, values), max_size=6)
policies = st.builds(
    VaryPolicy,
    unordered=st.sampled_from([(), (b"foo",)]),
    languages=st.sampled_from([(), (b"bar",)]),
    sort_languages=st.booleans(),
)


@given(fields, st.sets(names_of_fields), policies)
def test_a_request_selects_what_it_stored(
    pairs: list[tuple[bytes, bytes]], names: set[bytes], policy: VaryPolicy
) -> None:
    request = get(*pairs)
    entry = replace(stored(None, request), variant=variant(sorted(names), request, policy))
    assert selects(entry, request, policy)


@given(fields, st.sets(names_of_fields), fields, policies)
def test_fields_that_vary_does_not_name_change_nothing(
    pairs: list[tuple[bytes, bytes]],
    names: set[bytes],
    others: list[tuple[bytes, bytes]],
    policy: VaryPolicy,
) -> None:
    order = sorted(names)
    besides = [pair for pair in others if pair[0] not in names]
    assert variant(order, get(*pairs), policy) == variant(order, get(*besides, *pairs), policy)


@given(fields, st.sets(names_of_fields))
def test_star_is_never_selected(pairs: list[tuple[bytes, bytes]], names: set[bytes]) -> None:
    entry = stored(b",".join([*names, b"*"]), get(*pairs))
    assert not selects(entry, get(*pairs))
    assert choose([entry], get(*pairs)) is None


@given(st.lists(values, max_size=3), st.lists(values, max_size=3))
def test_normalising_equates_nothing_but_lists_of_the_same_members(
    one: list[bytes], other: list[bytes]
) -> None:
    def members(lines: list[bytes]) -> list[bytes] | None:
        joined = b", ".join(lines)
        if not lines:
            return None
        if b'"' in joined:
            return [joined]
        return [m.strip() for m in joined.split(b",") if m.strip()]

    def seen(lines: list[bytes]) -> object:
        return variant((b"foo",), get(*((b"foo", line) for line in lines)))

    assert (seen(one) == seen(other)) == (members(one) == members(other))


def test_normalising_is_only_for_comparing_and_long_values_are_compared_alike() -> None:
    long = b", ".join(b"c%d" % number for number in range(100))
    backwards = b",".join(b"C%d;q=1.0" % number for number in reversed(range(100)))
    names = (b"accept-encoding",)
    assert variant(names, get((names[0], long))) == variant(names, get((names[0], backwards)))


def test_sites_may_ignore_the_order_of_languages() -> None:
    policy = VaryPolicy(sort_languages=True)
    one, other = get((b"accept-language", b"en, de")), get((b"accept-language", b"DE,en"))
    assert variant((b"accept-language",), one, policy) == variant(
        (b"accept-language",), other, policy
    )


def test_sites_may_name_further_fields_to_normalise() -> None:
    policy = VaryPolicy(unordered=(b"x-codings",), languages=(b"x-lang",))
    names = (b"x-codings", b"x-lang")
    one = get((b"x-codings", b"b, a"), (b"x-lang", b"EN"))
    other = get((b"x-codings", b"A,b"), (b"x-lang", b"en"))
    assert variant(names, one, policy) == variant(names, other, policy)
    assert variant(names, one) != variant(names, other)


def test_quoted_strings_are_left_alone_in_unordered_lists_too() -> None:
    policy = VaryPolicy(unordered=(b"foo",))
    one, other = get((b"foo", b'b;x="1,2", a')), get((b"foo", b'a, b;x="1,2"'))
    assert variant((b"foo",), one, policy) != variant((b"foo",), other, policy)


def test_nothing_is_chosen_where_nothing_matches() -> None:
    entry = stored(b"foo", get((b"foo", b"1")))
    assert choose([], get()) is None
    assert choose([entry], get((b"foo", b"2"))) is None
    assert choose([entry], get((b"foo", b"1"))) is entry


def test_the_most_recent_of_several_is_chosen() -> None:
    request = get((b"foo", b"1"), (b"bar", b"2"))
    old, new = stored(b"foo", request, date=1000), stored(b"bar", request, date=1001)
    assert choose([new, old], request) is choose([old, new], request) is new


def test_of_two_that_came_in_the_same_moment_the_one_asked_for_later_is_chosen() -> None:
    request = get((b"foo", b"1"))
    later = stored(b"foo", request, date=1000)
    earlier = replace(later, times=replace(later.times, request_time=later.times.request_time - 1))
    assert choose([earlier, later], request) is choose([later, earlier], request) is later
    purged = replace(later, fetched_at=Seq(later.fetched_at + 1))
    assert choose([later, purged], request) is choose([purged, later], request) is purged


def test_a_newer_default_without_vary_does_not_hide_the_variant() -> None:
    request = get((b"foo", b"1"))
    match, default = stored(b"foo", request, date=1000), stored(None, get(), date=2000)
    assert choose([default, match], request) is match
    assert choose([default, match], get()) is default


def test_a_new_answer_takes_the_place_of_all_its_request_selects() -> None:
    request = get((b"foo", b"1"))
    varied = stored(b"foo", request, date=1000)
    other = stored(b"foo", get((b"foo", b"2")), date=1000)
    later = stored(b"foo", request, date=3000)
    newest = stored(None, request, date=2000)
    assert superseded([varied, other, later, newest], request, newest) == [varied]
    assert superseded([newest], get(), stored(None, get(), date=2000)) == [newest]
