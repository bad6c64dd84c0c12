"""The storing half of the law, where decisions.toml does not reach."""

from __future__ import annotations

import pytest

from edge.cache import storing
from edge.cache.directives import Directives
from edge.cache.entry import Times
from edge.cache.freshness import FreshnessPolicy
from edge.cache.reasons import Reason
from edge.cache.ruling import CachePolicy, Forward, Keep
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
