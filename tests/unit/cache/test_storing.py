"""The storing half of the law, where decisions.toml does not reach."""

from __future__ import annotations

import pytest

from edge.cache import storing
from edge.cache.directives import Directives
from edge.cache.entry import Source, Times
from edge.cache.freshness import FreshnessPolicy
from edge.cache.reasons import Reason
from edge.cache.ruling import CachePolicy, Forward, Keep
from edge.cache.tags import MOST_GROUPS, MOST_TAGS, TAG_BYTES
from edge.wire.fields import format_date
from edge.wire.message import Headers, Pair, RequestHead, ResponseHead

T = 1_800_000_000.0
RULE = FreshnessPolicy(ttl_s=600, stale_while_revalidate_s=60)


def get(target: bytes = b"/", *pairs: Pair) -> RequestHead:
    return RequestHead(b"GET", b"http", b"example.com", target, Headers(pairs))


def test_a_prohibition_comes_before_any_lifetime() -> None:
    response = ResponseHead(200, Headers(((b"cache-control", b"private"),)))
    found = storing.judged(get(), response, Times(T, T), CachePolicy(freshness=RULE))
    assert found == Forward(Reason.PRIVATE)


def test_withheld_fields_are_those_of_both_directives() -> None:
    named = Directives(no_cache_fields=frozenset((b"a",)), private_fields=frozenset((b"b",)))
    assert storing.withheld(named) == {b"a", b"b"}


def tagged(*pairs: Pair) -> ResponseHead:
    return ResponseHead(200, Headers(((b"cache-control", b"max-age=60"), *pairs)))


def kept(response: ResponseHead, policy: CachePolicy | None = None) -> Keep:
    found = storing.judged(get(), response, Times(T, T), policy or CachePolicy())
    assert isinstance(found, Keep)
    return found


def test_tags_come_from_the_fields_that_the_site_names() -> None:
    response = tagged((b"cache-tag", b"a, b"), (b"xkey", b"c"), (b"x-tags", b"d"))
    assert kept(response).tags == (b"a", b"b", b"c")
    assert kept(response, CachePolicy(tags=(b"x-tags",))).tags == (b"d",)
    assert kept(response, CachePolicy(tags=())).tags == ()


def test_groups_come_from_cache_groups_whatever_the_site_names() -> None:
    response = tagged((b"cache-groups", b'"a", "b"'))
    assert kept(response, CachePolicy(tags=())).groups == (b"a", b"b")


def test_a_field_that_is_withheld_from_the_stored_copy_tags_it_all_the_same() -> None:
    control = (b"cache-control", b'max-age=60, no-cache="cache-tag", private="cache-groups"')
    found = kept(
        ResponseHead(200, Headers((control, (b"cache-tag", b"a"), (b"cache-groups", b'"g"'))))
    )
    assert b"cache-tag" not in found.headers_to_store
    assert (found.tags, found.groups) == ((b"a",), (b"g",))


@pytest.mark.parametrize(
    "pair",
    [
        (b"xkey", b" ".join(b"%d" % each for each in range(MOST_TAGS + 1))),
        (b"cache-tag", b"a" * (TAG_BYTES + 1)),
        (b"cache-groups", b", ".join(b'"%d"' % each for each in range(MOST_GROUPS + 1))),
    ],
)
def test_an_answer_whose_tags_would_have_to_be_forgotten_is_not_stored(pair: Pair) -> None:
    found = storing.judged(get(), tagged(pair), Times(T, T), CachePolicy(freshness=RULE))
    assert found == Forward(Reason.TOO_MANY_TAGS)


def test_a_field_that_the_site_does_not_name_may_be_as_long_as_it_likes() -> None:
    response = tagged((b"cache-tag", b"a" * (TAG_BYTES + 1)))
    assert kept(response, CachePolicy(tags=(b"xkey",))).tags == ()


@pytest.mark.parametrize(
    ("target", "policy", "applies"),
    [
        (b"/static/a.css", CachePolicy(freshness=RULE, by_path=True), True),
        (b"/static/a;b.css", CachePolicy(freshness=RULE, by_path=True), False),
        (b"/static//a.css", CachePolicy(freshness=RULE, by_path=True), False),
        (b"/a;b?x=%2F", CachePolicy(freshness=RULE), True),
        (b"/static/a.css", CachePolicy(freshness=RULE, by_extension=b"css"), True),
        (b"/static/a.js", CachePolicy(freshness=RULE, by_extension=b"js"), False),
    ],
)
def test_a_rule_holds_where_it_cannot_have_been_led_astray(
    target: bytes, policy: CachePolicy, applies: bool
) -> None:
    response = ResponseHead(200, Headers(((b"content-type", b"text/css"),)))
    found = storing.rules_for(get(target), response, policy)
    assert found == (RULE if applies else RULE.without_rule())


def test_a_window_that_the_site_grants_makes_a_stale_answer_worth_keeping() -> None:
    response = ResponseHead(200, Headers(((b"cache-control", b"max-age=0"),)))
    policy = CachePolicy(freshness=FreshnessPolicy(stale_if_error_s=60))
    assert isinstance(storing.judged(get(), response, Times(T, T), policy), Keep)


def test_a_validator_is_of_no_use_where_nothing_stale_is_kept() -> None:
    response = ResponseHead(200, Headers(((b"etag", b'"a"'),)))
    policy = CachePolicy(freshness=FreshnessPolicy(max_stale_s=0))
    found = storing.judged(get(), response, Times(T, T), policy)
    assert found == Forward(Reason.UNUSABLE)


def test_a_window_that_directives_forbid_is_no_reason_to_keep() -> None:
    control = b"max-age=0, must-revalidate, stale-if-error=60"
    response = ResponseHead(200, Headers(((b"cache-control", control),)))
    found = storing.judged(get(), response, Times(T, T), CachePolicy())
    assert found == Forward(Reason.UNUSABLE)


ODD = (b"x-original-url", b"/nowhere")
COOKIE = (b"cookie", b"a=b")


@pytest.mark.parametrize(
    ("asked", "status", "control", "source"),
    [
        (get(), 200, b"", Source.HEURISTIC),
        (get(), 404, b"", Source.HEURISTIC),
        (get(b"/", ODD), 200, b"", Source.HEURISTIC),
        (get(b"/", ODD), 404, b"public", Source.NONE),
        (get(b"/", COOKIE), 200, b"public", Source.HEURISTIC),
    ],
)
def test_a_lifetime_is_guessed_where_nothing_stated_speaks_against_it(
    asked: RequestHead, status: int, control: bytes, source: Source
) -> None:
    dates = ((b"last-modified", format_date(T - 86_400)), (b"date", format_date(T)))
    response = ResponseHead(status, Headers((*dates, (b"cache-control", control))))
    found = storing.judged(asked, response, Times(T, T), CachePolicy())
    assert isinstance(found, Keep)
    assert found.terms.source is source


@pytest.mark.parametrize(
    ("asked", "status", "kept"),
    [
        (get(), 200, True),
        (get(b"/", ODD), 200, True),
        (get(), 404, True),
        (get(b"/", ODD), 404, False),
    ],
)
def test_without_any_lifetime_only_an_odd_requests_error_is_not_kept_to_be_validated(
    asked: RequestHead, status: int, kept: bool
) -> None:
    response = ResponseHead(status, Headers(((b"etag", b'"a"'),)))
    policy = CachePolicy(freshness=FreshnessPolicy(heuristic=False))
    found = storing.judged(asked, response, Times(T, T), policy)
    assert isinstance(found, Keep) if kept else found == Forward(Reason.STRANGE)
