"""Conditions by the book, in the book's order; and a 304 that freshens the right entry only."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.cache.validation import (
    CONDITIONALS,
    MOST_TAGS_BYTES,
    UNCHANGED_BY_304,
    Outcome,
    conditional,
    freshened,
    head_updates,
    is_dated_strongly,
    matches_304,
    not_modified_headers,
    offered,
    preconditions,
    unconditional,
    updated_headers,
)
from edge.cache.vary import variant, vary_names
from edge.wire.fields import format_date, parse_date, parse_entity_tag
from edge.wire.hop import HOP_BY_HOP
from edge.wire.message import Headers, Pair, RequestHead, ResponseHead

VECTORS = Path(__file__).parents[2] / "vectors" / "preconditions.toml"
CASES = tomllib.loads(VECTORS.read_text())["case"]

DAY_S = 86400.0
MODIFIED = b"Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = b"Sat, 05 Nov 1994 08:49:37 GMT"
MODIFIED_AT = 784111777.0
TERMS = Terms(60.0, Source.MAX_AGE)
LATER = Times(MODIFIED_AT + 2 * DAY_S, MODIFIED_AT + 2 * DAY_S + 1)


def get(*pairs: Pair, method: bytes = b"GET") -> RequestHead:
    return RequestHead(method, b"http", b"example.com", b"/", Headers(pairs))


def entry_of(
    *pairs: Pair,
    status: int = 200,
    date: float = MODIFIED_AT + DAY_S,
    request: RequestHead | None = None,
) -> Entry:
    headers = Headers(pairs)
    names = vary_names(headers)
    return Entry(
        key=Key(b"0123456789abcdef", b"http://example.com/"),
        status=status,
        headers=headers,
        times=Times(date, date),
        date=date,
        age_field=0,
        terms=TERMS,
        variant=variant(names or (), request or get()),
        length=10,
        fetched_at=Seq(3),
        keep_until=date + 1000,
        vary_any=names is None,
    )


def answer(*pairs: Pair, status: int = 304) -> ResponseHead:
    return ResponseHead(status, Headers(pairs))


def etag(value: bytes) -> Pair:
    return b"etag", value


# --- what a client asks of us


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["says"]))
def test_preconditions_by_the_book(case: dict[str, Any]) -> None:
    pairs = [
        (name, case[key].encode())
        for key, name in (("etag", b"etag"), ("last_modified", b"last-modified"))
        if key in case
    ]
    date = parse_date(case.get("date", "").encode(), 0) or MODIFIED_AT + DAY_S
    entry = entry_of(*pairs, status=case.get("status", 200), date=date)
    request = get(
        *((name.encode(), value.encode()) for name, value in case.get("request", ())),
        method=case.get("method", "GET").encode(),
    )
    assert preconditions(request, entry) is Outcome(case["outcome"])


tag_lists = st.sampled_from([b'"a"', b'W/"a"', b'"b"', b"*", b'"b", "a"'])
dates = st.sampled_from([MODIFIED, EARLIER, b"Mon, 07 Nov 1994 08:49:37 GMT", b"soon"])


def some(**fields: st.SearchStrategy[bytes]) -> st.SearchStrategy[dict[bytes, bytes]]:
    """Any choice of these fields, in any order; `_` in a name is `-`."""
    return st.fixed_dictionaries({}, optional=fields).map(
        lambda found: {n.replace("_", "-").encode(): value for n, value in found.items()}
    )


mixes = some(
    if_match=tag_lists, if_unmodified_since=dates, if_none_match=tag_lists, if_modified_since=dates
)
validators = some(
    etag=st.sampled_from([b'"a"', b'W/"a"', b'"c"']),
    last_modified=st.sampled_from([MODIFIED, EARLIER]),
)
FIRST_STEPS = {b"if-match", b"if-unmodified-since"}


def outcome_of(mix: dict[bytes, bytes], stored: dict[bytes, bytes]) -> Outcome:
    return preconditions(get(*mix.items()), entry_of(*stored.items()))


@given(mixes, validators)
def test_the_order_of_the_steps_holds_for_every_mix(
    mix: dict[bytes, bytes], stored: dict[bytes, bytes]
) -> None:
    first = {name: value for name, value in mix.items() if name in FIRST_STEPS}
    if b"if-match" in first:
        first.pop(b"if-unmodified-since", None)
    second = {name: value for name, value in mix.items() if name not in FIRST_STEPS}
    if b"if-none-match" in second:
        second.pop(b"if-modified-since", None)
    expected = outcome_of(first, stored)
    if expected is Outcome.PROCEED:
        expected = outcome_of(second, stored)
    assert outcome_of(mix, stored) is expected
    assert outcome_of(dict(reversed(mix.items())), stored) is expected


@given(tag_lists, validators)
def test_a_strong_match_is_a_weak_match(tags: bytes, stored: dict[bytes, bytes]) -> None:
    if outcome_of({b"if-match": tags}, stored) is Outcome.PROCEED:
        assert outcome_of({b"if-none-match": tags}, stored) is Outcome.NOT_MODIFIED


def test_a_304_tells_what_a_cache_needs_and_no_more() -> None:
    entry = entry_of(
        (b"date", MODIFIED),
        (b"content-type", b"text/html"),
        (b"content-length", b"10"),
        (b"cache-control", b"max-age=60"),
        (b"cdn-cache-control", b"max-age=600"),
        (b"set-cookie", b"a=b"),
        (b"last-modified", MODIFIED),
        (b"etag", b'"a"'),
        (b"vary", b"foo"),
        (b"vary", b"bar"),
        (b"expires", b"0"),
        (b"content-location", b"/a"),
    )
    names = [name for name, _ in not_modified_headers(entry)]
    assert names == [
        *(b"date", b"cache-control", b"cdn-cache-control", b"etag", b"vary", b"vary"),
        *(b"expires", b"content-location"),
    ]


def test_a_304_without_a_tag_tells_the_date() -> None:
    entry = entry_of((b"last-modified", MODIFIED))
    assert not_modified_headers(entry) == entry.headers


# --- what we ask of an origin


def test_an_unconditional_request_keeps_all_else() -> None:
    request = get((b"foo", b"1"), *((name, b"x") for name in sorted(CONDITIONALS)), (b"bar", b"2"))
    assert unconditional(request).headers.pairs == ((b"foo", b"1"), (b"bar", b"2"))


def test_a_validation_offers_tag_and_date_and_drops_the_clients_conditions() -> None:
    entry = entry_of(etag(b'W/"a"'), (b"last-modified", MODIFIED))
    request = get((b"if-none-match", b'"mine"'), (b"range", b"bytes=0-1"), (b"foo", b"1"))
    assert conditional(request, [entry]).headers.pairs == (
        (b"foo", b"1"),
        (b"if-none-match", b'W/"a"'),
        (b"if-modified-since", MODIFIED),
    )


def test_without_a_validator_the_request_is_plain() -> None:
    request = get((b"if-none-match", b'"mine"'))
    assert conditional(request, []) == conditional(request, [entry_of()]) == get()


def test_a_last_modified_that_is_no_date_is_not_offered() -> None:
    assert conditional(get(), [entry_of((b"last-modified", b"0"))]) == get()
    entry = entry_of(etag(b'"a"'), (b"last-modified", b"0"))
    assert conditional(get(), [entry]).headers.pairs == ((b"if-none-match", b'"a"'),)


def test_an_unquoted_tag_is_sent_as_it_came() -> None:
    assert conditional(get(), [entry_of(etag(b"abc"))]).headers.get(b"if-none-match") == b"abc"


@pytest.mark.parametrize("tag", [b"*", b""])
def test_a_tag_that_would_ask_another_question_is_not_sent(tag: bytes) -> None:
    assert conditional(get(), [entry_of(etag(tag))]) == get()
    assert offered(get(), [entry_of(etag(tag))]) == ()


def test_the_tags_of_all_variants_are_offered_once_each_the_selected_first() -> None:
    one, two, three = (get((b"foo", value)) for value in (b"1", b"2", b"3"))
    vary = (b"vary", b"foo")
    variants = [
        entry_of(vary, etag(b'"a"'), request=one),
        entry_of(vary, etag(b'"b"'), (b"last-modified", MODIFIED), request=two),
        entry_of(vary, etag(b'"a"'), request=three),
    ]
    headers = conditional(two, variants).headers
    assert headers.get(b"if-none-match") == b'"b", "a"'
    assert headers.get(b"if-modified-since") == MODIFIED


def test_a_variant_that_is_not_selected_lends_no_date() -> None:
    one, two = get((b"foo", b"1")), get((b"foo", b"2"))
    entry = entry_of((b"vary", b"foo"), (b"last-modified", MODIFIED), request=one)
    assert conditional(two, [entry]) == two
    assert offered(two, [entry]) == ()
    star = entry_of((b"vary", b"*"), etag(b'"a"'), (b"last-modified", MODIFIED))
    assert conditional(get(), [star]).headers.pairs == ((b"if-none-match", b'"a"'),)


def test_tags_are_offered_only_as_far_as_a_field_may_go() -> None:
    tags = [b'"%d%b"' % (number, b"x" * 1000) for number in range(9)]
    variants = [entry_of((b"vary", b"*"), etag(tag)) for tag in tags]
    sent = conditional(get(), variants).headers.get(b"if-none-match")
    assert sent is not None
    assert 3000 < len(sent) <= MOST_TAGS_BYTES


@given(st.lists(validators, max_size=3), mixes)
def test_what_is_sent_is_what_is_offered(
    stored: list[dict[bytes, bytes]], mix: dict[bytes, bytes]
) -> None:
    variants = [entry_of(*fields.items()) for fields in stored]
    request = get(*mix.items())
    sent = conditional(request, variants).headers
    tags = {tag for entry in offered(request, variants) if (tag := entry.headers.get(b"etag"))}
    assert set((sent.get(b"if-none-match") or b"").split(b", ")) - {b""} == tags
    assert bool(len(sent)) == bool(offered(request, variants))


# --- which entry a 304 means

A, WEAK_A, B = etag(b'"a"'), etag(b'W/"a"'), etag(b'"b"')
DATED, DATED_EARLIER = (b"last-modified", MODIFIED), (b"last-modified", EARLIER)


@pytest.mark.parametrize(
    ("stored", "received", "meant"),
    [
        ([A], [A], True),
        ([A], [WEAK_A], True),
        ([WEAK_A], [WEAK_A], True),
        ([WEAK_A], [A], False),  # RFC 9111 §4.3.4: strong in the 304, so strong in the store
        ([A], [B], False),
        ([A], [], True),
        ([DATED], [], True),
        ([], [], True),
        ([DATED], [DATED], True),
        ([DATED], [DATED_EARLIER], False),
        ([A, DATED], [A, DATED_EARLIER], True),  # the tag decides
        ([A, DATED], [B, DATED], False),
        ([A, DATED], [DATED], True),
        ([A], [DATED], False),
        ([DATED], [A], False),
        ([DATED], [WEAK_A], False),
        ([DATED], [A, DATED], True),
        ([DATED], [WEAK_A, DATED], True),
        ([etag(b"abc")], [etag(b"abc")], True),
        ([etag(b"abc")], [etag(b'"abc"')], False),
        ([DATED], [etag(b"abc"), DATED], True),
    ],
)
def test_a_304_means_an_entry_by_its_validators(
    stored: list[Pair], received: list[Pair], meant: bool
) -> None:
    entry = entry_of(*stored)
    assert matches_304([entry], answer(*received)) is (entry if meant else None)


def test_a_strong_tag_does_not_update_what_has_only_a_weak_date() -> None:
    entry = entry_of(DATED, date=MODIFIED_AT)
    assert not is_dated_strongly(entry)
    assert matches_304([entry], answer(A, DATED)) is None
    assert matches_304([entry], answer(DATED)) is entry


def test_a_304_picks_one_of_several() -> None:
    first, second = entry_of(A), entry_of(B)
    assert matches_304([first, second], answer(B)) is second
    assert matches_304([first, second], answer(etag(b'"c"'))) is None
    assert matches_304([first, second], answer()) is None
    assert matches_304([], answer()) is None


def test_a_304_that_means_several_means_the_most_recent() -> None:
    older, newer = entry_of(A, date=MODIFIED_AT + 1), entry_of(A, date=MODIFIED_AT + 2)
    assert matches_304([older, newer], answer(A)) is newer
    assert matches_304([newer, older], answer(A)) is newer


# --- what becomes of it

HEAD_FIELDS = [b"a", b"b", b"c", b"etag", b"date", b"content-type", b"connection", b"age", b"te"]
field_names = st.sampled_from([*HEAD_FIELDS, *sorted(UNCHANGED_BY_304)])
field_lists = st.lists(st.tuples(field_names, st.sampled_from([b"1", b"2", b"a"])), max_size=8)


@given(field_lists, field_lists)
def test_a_304_changes_only_what_it_may(stored: list[Pair], received: list[Pair]) -> None:
    before, came = Headers(stored), Headers(received)
    after = updated_headers(before, came, LATER)
    barred = UNCHANGED_BY_304 | HOP_BY_HOP
    barred |= {value for value in came.all(b"connection") if value == b"a"}
    for name in {name for name, _ in (*stored, *received)} - {b"date"}:
        source = came if name in came and name not in barred else before
        assert after.all(name) == source.all(name)


def test_a_304_replaces_all_lines_of_a_name() -> None:
    stored = Headers(((b"set-cookie", b"a=1"), (b"x", b"1"), (b"set-cookie", b"b=1")))
    received = Headers(((b"set-cookie", b"a=2"), (b"date", MODIFIED)))
    assert updated_headers(stored, received, LATER).pairs == (
        (b"x", b"1"),
        (b"set-cookie", b"a=2"),
        (b"date", MODIFIED),
    )


def test_a_304_without_date_is_dated_by_its_arrival() -> None:
    entry = freshened(entry_of((b"date", MODIFIED)), answer(), LATER, TERMS)
    assert entry.date == LATER.response_time
    assert entry.headers.get(b"date") == format_date(LATER.response_time)


def test_a_304_with_a_bad_date_counts_from_its_arrival() -> None:
    entry = freshened(entry_of(), answer((b"date", b"today")), LATER, TERMS)
    assert entry.date == LATER.response_time


def test_a_freshened_entry_has_new_times_and_the_old_body() -> None:
    entry = entry_of(A, (b"content-length", b"10"))
    terms = Terms(5.0, Source.S_MAXAGE)
    received = answer(A, (b"date", MODIFIED), (b"age", b"7, 9"), (b"content-length", b"0"))
    found = freshened(entry, received, LATER, terms)
    assert found == replace(
        entry,
        headers=Headers(((b"content-length", b"10"), A, (b"date", MODIFIED))),
        times=LATER,
        date=MODIFIED_AT,
        age_field=7,
        terms=terms,
        keep_until=LATER.response_time + 1000,
    )


@pytest.mark.parametrize(("age", "seconds"), [(b"", 0), (b"-1", 0), (b"1.5", 0), (b"4", 4)])
def test_an_age_that_cannot_be_read_is_none(age: bytes, seconds: int) -> None:
    assert freshened(entry_of(), answer((b"age", age)), LATER, TERMS).age_field == seconds


def test_the_purge_number_and_the_end_may_be_given() -> None:
    found = freshened(entry_of(), answer(), LATER, TERMS, keep_until=9.0, fetched_at=Seq(8))
    assert (found.keep_until, found.fetched_at) == (9.0, Seq(8))


def test_a_304_that_brings_vary_star_makes_the_entry_unselectable() -> None:
    assert freshened(entry_of(), answer((b"vary", b"*")), LATER, TERMS).vary_any


# --- HEAD


@pytest.mark.parametrize(
    ("stored", "received", "agrees"),
    [
        ([], [], True),
        ([A], [A], True),
        ([A], [], True),  # RFC 9111 §4.3.5 compares the validators that were received
        ([A], [B], False),
        ([], [A], False),
        ([DATED], [DATED], True),
        ([DATED], [DATED_EARLIER], False),
        ([], [DATED], False),
        ([A, DATED], [A, DATED_EARLIER], False),
        ([A], [A, (b"content-length", b"10")], True),
        ([A], [A, (b"content-length", b"11")], False),
        ([A], [A, (b"content-length", b"+10")], False),
    ],
)
def test_a_head_updates_only_what_it_agrees_with(
    stored: list[Pair], received: list[Pair], agrees: bool
) -> None:
    assert head_updates(entry_of(*stored), answer(*received, status=200)) is agrees


def test_a_head_of_another_status_never_updates() -> None:
    assert not head_updates(entry_of(), answer(status=410))
    assert not head_updates(entry_of(status=404), answer(status=200))


def test_an_unknown_length_is_compared_by_its_field() -> None:
    told = answer((b"content-length", b"10"), status=200)
    unknown = replace(entry_of(), length=None)
    assert not head_updates(unknown, told)
    assert head_updates(replace(unknown, headers=told.headers), told)


# --- dates


@pytest.mark.parametrize(("after_s", "strong"), [(0.0, False), (0.5, False), (1.0, True)])
def test_a_date_is_strong_a_second_after(after_s: float, strong: bool) -> None:
    assert is_dated_strongly(entry_of(DATED, date=MODIFIED_AT + after_s)) is strong


def test_no_date_is_not_strong() -> None:
    assert not is_dated_strongly(entry_of())


def test_tags_in_these_tests_are_what_they_seem() -> None:
    assert parse_entity_tag(b"abc") is None
