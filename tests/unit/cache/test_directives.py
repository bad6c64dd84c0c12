"""Cache-Control and the targeted fields: two parsers that fail in opposite directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.directives import (
    FOREVER_S,
    NOTHING,
    Directives,
    parse_cache_control,
    parse_targeted,
    pragma_no_cache,
    request_directives,
    response_directives,
)
from edge.wire.message import Headers

CACHE_CONTROL = [
    (b"", NOTHING),
    (b" , ,", NOTHING),
    (b"max-age=60", Directives(max_age=60)),
    (b"MAX-AGE=60 ,\tPublic", Directives(max_age=60, public=True)),
    (b'max-age="60"', Directives(max_age=60)),
    (b"max-age='60'", Directives(max_age=0)),
    (b"max-age=0060", Directives(max_age=60)),
    (b"max-age=60, max-age=60", Directives(max_age=60)),
    (b"max-age=60, max-age=30", Directives(max_age=30)),
    (b"max-age=60, max-age=x", Directives(max_age=0)),
    (b"max-age", Directives(max_age=0)),
    (b"max-age=", Directives(max_age=0)),
    (b'max-age=""', Directives(max_age=0)),
    (b'max-age=" 60"', Directives(max_age=0)),
    (b'max-age="6\\0"', Directives(max_age=0)),
    (b'max-age="60', Directives(max_age=0)),
    (b"max-age =60", Directives(max_age=0)),
    (b"max-age= 60", Directives(max_age=0)),
    (b"max-age=+60", Directives(max_age=0)),
    (b"max-age=6_0", Directives(max_age=0)),
    (b"max-age=-60", Directives(max_age=0)),
    (b"max-age=60.0", Directives(max_age=0)),
    (b"max-age=60;x", Directives(max_age=0)),
    (b"max-age=\xb2", Directives(max_age=0)),
    (b"max-age=" + b"9" * 5000, Directives(max_age=FOREVER_S)),
    (b"s-maxage=x", Directives(s_maxage=0)),
    (b"stale-while-revalidate", Directives(stale_while_revalidate=0)),
    (b"stale-if-error=9, stale-if-error=5", Directives(stale_if_error=5)),
    (b'x="max-age=60", max-age=1', Directives(max_age=1)),
    (b'x="\\", no-store", max-age=1', Directives(max_age=1)),
    (b'x="a, no-store', Directives(no_store=True)),
    (b"no-store=1", Directives(no_store=True)),
    (b'must-revalidate="x"', Directives(must_revalidate=True)),
    (b"public=1, immutable=1, must-understand=1", NOTHING),
    (b"public max-age=60", Directives(max_age=0)),
    (b"max-age=60 private", Directives(max_age=0, private=True)),
    (b"no-store; private", Directives(no_store=True, private=True)),
    (b'"no-store"', Directives(no_store=True)),
    (b"private", Directives(private=True)),
    (b'private="A , b"', Directives(private_fields=frozenset((b"a", b"b")))),
    (b"private=a", Directives(private_fields=frozenset((b"a",)))),
    (b'private="a", private="b"', Directives(private_fields=frozenset((b"a", b"b")))),
    (b'private="a", private', Directives(private=True, private_fields=frozenset((b"a",)))),
    (b'private=""', Directives(private=True)),
    (b'private="a:"', Directives(private=True)),
    (b'private="vary"', Directives(private=True)),
    (b'no-cache="set-cookie"', Directives(no_cache_fields=frozenset((b"set-cookie",)))),
    (b'no-cache="Content-Encoding"', Directives(no_cache=True)),
    (b"no-cache =x", Directives(no_cache=True)),
    (b"max-stale", Directives(max_stale=FOREVER_S)),
    (b"max-stale=x", Directives(max_stale=0)),
    (b"max-stale, max-stale=5", Directives(max_stale=5)),
    (b"min-fresh=5, min-fresh=7", Directives(min_fresh=7)),
    (b"min-fresh=x", Directives(min_fresh=FOREVER_S)),
    (b"only-if-cached, no-transform", Directives(only_if_cached=True, no_transform=True)),
    (b"\xe2\x84\xaa, no\xc5\xbftore", NOTHING),
]


@pytest.mark.parametrize(("value", "expected"), CACHE_CONTROL)
def test_cache_control(value: bytes, expected: Directives) -> None:
    assert parse_cache_control([value]) == expected


@pytest.mark.parametrize(("value", "expected"), CACHE_CONTROL)
def test_lines_are_read_one_by_one(value: bytes, expected: Directives) -> None:
    assert parse_cache_control([value, b"", value]) == expected


TARGETED = [
    (b"", None),
    (b"  ", None),
    (b"&", None),
    (b"max-age=60,", None),
    (b"Max-Age=60", None),
    (b"max-age =60", None),
    (b'max-age="60', None),
    (b"max-age=60\xe9", None),
    (b"x=@99999999999999", None),
    (b'x=%"%ff"', None),
    (b"none", NOTHING),
    (b"max-age=60", Directives(max_age=60)),
    (b"max-age=60;x=y", Directives(max_age=60)),
    (b"max-age=1, max-age=60", Directives(max_age=60)),
    (b'max-age="60"', NOTHING),
    (b"max-age=60.0", NOTHING),
    (b"max-age", NOTHING),
    (b"max-age=?1", NOTHING),
    (b"max-age=-60", Directives(max_age=0)),
    (b"max-age=999999999999999", Directives(max_age=FOREVER_S)),
    (b"no-store", Directives(no_store=True)),
    (b"no-store=?0", NOTHING),
    (b"no-store=1", NOTHING),
    (b"private, must-revalidate", Directives(private=True, must_revalidate=True)),
    (b'private="A, b"', Directives(private_fields=frozenset((b"a", b"b")))),
    (b"private=a", NOTHING),
    (b'no-cache="vary"', Directives(no_cache=True)),
    (b"s-maxage=5, public", Directives(s_maxage=5, public=True)),
]


@pytest.mark.parametrize(("value", "expected"), TARGETED)
def test_targeted(value: bytes, expected: Directives | None) -> None:
    assert parse_targeted([value]) == expected


def test_lines_of_a_targeted_field_are_one_dictionary() -> None:
    assert parse_targeted([b"max-age=60", b"public"]) == Directives(max_age=60, public=True)


def test_the_first_readable_target_wins_and_cache_control_comes_last() -> None:
    headers = Headers(
        (
            (b"cache-control", b"no-store"),
            (b"cdn-cache-control", b"max-age=5"),
            (b"edge-cache-control", b"&"),
        )
    )
    targets = (b"edge-cache-control", b"cdn-cache-control")
    assert response_directives(headers, targets) == (Directives(max_age=5), True)
    assert response_directives(headers, ()) == (Directives(no_store=True), False)
    assert response_directives(Headers()) == (NOTHING, False)


def test_pragma_counts_in_a_request_without_cache_control() -> None:
    pragma = (b"pragma", b"x, No-Cache")
    assert request_directives(Headers((pragma,))) == Directives(no_cache=True)
    assert request_directives(Headers((pragma, (b"cache-control", b"foo")))) == NOTHING
    assert request_directives(Headers(((b"pragma", b"foo"),))) == NOTHING
    assert pragma_no_cache(Headers((pragma,)))


NAMES = st.sampled_from(
    [b"max-age", b"s-maxage", b"no-store", b"private", b"no-cache", b"public", b"x"]
)
MEMBERS = st.tuples(
    NAMES, st.sampled_from([b"", b"=5", b"=60", b'="7"', b"=", b" =5", b";", b"=a"])
)
LINES = st.lists(MEMBERS.map(b"".join), max_size=5).map(b", ".join)


@given(LINES, LINES)
def test_more_directives_never_let_an_answer_live_longer(one: bytes, more: bytes) -> None:
    alone, both = parse_cache_control([one]), parse_cache_control([one, more])
    assert both.no_store >= alone.no_store
    assert both.private >= alone.private
    assert both.no_cache >= alone.no_cache
    for name in ("max_age", "s_maxage"):
        before, after = getattr(alone, name), getattr(both, name)
        assert before is None or after <= before


@given(LINES)
def test_order_does_not_matter(line: bytes) -> None:
    turned = b", ".join(reversed(line.split(b", ")))
    assert parse_cache_control([line]) == parse_cache_control([turned])
