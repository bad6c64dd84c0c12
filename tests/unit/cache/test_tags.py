"""Tags as each field writes them, groups as RFC 9875 does, and none of them forgotten."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache import tags
from edge.cache.scope import ScopeRefused
from edge.cache.tags import MOST_GROUPS, MOST_TAGS, TAG_BYTES, TooManyTags, groups_of
from edge.wire.message import Headers

FIELDS = (b"surrogate-key", b"cache-tag", b"edge-cache-tag", b"xkey", b"x-cache-tags")
VALUES = st.lists(
    st.text(st.sampled_from('ab," \té'), max_size=12).map(lambda text: text.encode()), max_size=3
)
VISIBLE = st.lists(st.integers(0x21, 0xFF).filter(lambda octet: octet != 0x7F), min_size=1).map(
    bytes
)


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        (b"surrogate-key", [b"a b"], [b"a", b"b"]),
        (b"surrogate-key", [b"  a \t b  "], [b"a", b"b"]),
        (b"surrogate-key", [b"a,b c"], [b"a,b", b"c"]),
        (b"surrogate-key", [b"a b", b"c"], [b"a", b"b", b"c"]),
        (b"surrogate-key", [b""], []),
        (b"cache-tag", [b"a,b"], [b"a", b"b"]),
        (b"cache-tag", [b"a , b,\tc"], [b"a", b"b", b"c"]),
        (b"cache-tag", [b"a,,,b,"], [b"a", b"b"]),
        (b"cache-tag", [b"a b, c"], [b"a b", b"c"]),
        (b"cache-tag", [b'"a,b"'], [b'"a', b'b"']),
        (b"cache-tag", [b"a", b"b, c"], [b"a", b"b", b"c"]),
        (b"edge-cache-tag", [b"casual, knits, fall-sale"], [b"casual", b"knits", b"fall-sale"]),
        (b"xkey", [b"a b,c , d\te"], [b"a", b"b", b"c", b"d", b"e"]),
        (b"xkey", [b",, "], []),
        (b"x-cache-tags", [b"node:1 node:2,list"], [b"node:1", b"node:2", b"list"]),
        (b"xkey", [], []),
    ],
)
def test_each_field_has_its_own_separators(
    name: bytes, values: list[bytes], found: list[bytes]
) -> None:
    assert tags.tags_in(name, values) == found


@given(st.sampled_from(FIELDS), VALUES)
def test_every_tag_in_a_field_can_be_purged(name: bytes, values: list[bytes]) -> None:
    for tag in tags.tags_in(name, values):
        tags.check_tag(tag)


@given(VISIBLE | st.sampled_from([b"a b", b"a,b", b"\xff", b"a\tb"]))
def test_every_tag_that_may_be_purged_can_stand_in_a_field(tag: bytes) -> None:
    tags.check_tag(tag)
    assert any(tags.tags_in(name, [tag]) == [tag] for name in FIELDS)


@given(st.binary(max_size=6))
def test_a_tag_is_purged_or_refused_and_never_anything_else(tag: bytes) -> None:
    with suppress(ScopeRefused):
        tags.check_tag(tag)
        assert any(tags.tags_in(name, [tag]) == [tag] for name in FIELDS)


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        (b"", "an empty tag"),
        (b"a" * (TAG_BYTES + 1), "at most 1024 bytes, this one 1025"),
        (b"a\nb", "control"),
        (b"a\x7f", "control"),
        (b" a", "no white space around"),
        (b"a\t", "white space around"),
        (b"a, b", "comma"),
    ],
)
def test_what_no_field_can_carry_is_refused(tag: bytes, message: str) -> None:
    with pytest.raises(ScopeRefused, match=message):
        tags.check_tag(tag)


def test_the_longest_tag_is_taken() -> None:
    tags.check_tag(b"a" * TAG_BYTES)


def test_tags_are_distinct_and_in_the_order_of_the_fields() -> None:
    headers = Headers(
        [
            (b"cache-tag", b"b, a"),
            (b"surrogate-key", b"c a"),
            (b"other", b"x"),
            (b"cache-tag", b"d"),
        ]
    )
    assert tags.tags_of(headers, (b"surrogate-key", b"cache-tag")) == (b"c", b"a", b"b", b"d")
    assert tags.tags_of(headers, ()) == ()


@pytest.mark.parametrize("field", FIELDS)
def test_as_many_tags_as_are_remembered_and_no_more(field: bytes) -> None:
    separator = b" " if field == b"surrogate-key" else b","
    some = [b"%d" % number for number in range(MOST_TAGS)]
    fits = Headers([(field, separator.join([*some, *some]))])
    assert len(tags.tags_of(fits, (field,))) == MOST_TAGS
    assert not tags.has_too_many(fits, (field,))
    over = fits.plus((field, b"one-more"))
    assert tags.has_too_many(over, (field,))
    assert len(tags.all_tags(over, (field,))) == MOST_TAGS + 1
    with pytest.raises(TooManyTags):
        tags.tags_of(over, (field,))


def test_a_tag_too_long_to_be_purged_is_one_too_many() -> None:
    for size, is_over in ((TAG_BYTES, False), (TAG_BYTES + 1, True)):
        headers = Headers([(b"xkey", b"a" * size)])
        assert tags.has_too_many(headers, tags.DEFAULT_FIELDS) == is_over


# --- groups


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([b'"scripts"'], (b"scripts",)),
        ([b'"a", "b"'], (b"a", b"b")),
        ([b'"a"', b'"b"'], (b"a", b"b")),
        ([b'"a";revalidate, "b";x=1'], (b"a", b"b")),
        ([b'"a", "a", "A"'], (b"a", b"A")),
        ([b'"a\\"b, c"'], (b'a"b, c',)),
        ([b'""'], (b"",)),
        ([], ()),
        ([b""], ()),
        ([b"a"], ()),
        ([b'"a", b'], ()),
        ([b'"a", 1'], ()),
        ([b'("a")'], ()),
        ([b'"a",'], ()),
        ([b'"\xc3\xa4"'], ()),
        ([b'"a", @99999999999999'], ()),
        ([b":aGk=:"], ()),
    ],
)
def test_groups_are_a_list_of_strings_or_nothing(
    values: list[bytes], found: tuple[bytes, ...]
) -> None:
    headers = Headers((b"cache-groups", value) for value in values)
    assert tags.groups_of(headers) == found


def test_groups_to_invalidate_stand_in_a_field_of_their_own() -> None:
    headers = Headers([(b"cache-groups", b'"a"'), (b"cache-group-invalidation", b'"b"')])
    assert tags.groups_of(headers, tags.INVALIDATION) == (b"b",)


def test_as_many_groups_as_the_rfc_asks_for_are_read() -> None:
    groups = tuple(b"%032d" % number for number in range(32))
    value = b", ".join(b'"%b"' % group for group in groups)
    assert tags.groups_of(Headers([(b"cache-groups", value)])) == groups


def test_an_answer_in_too_many_groups_is_told() -> None:
    for number, is_over in ((MOST_GROUPS, False), (MOST_GROUPS + 1, True)):
        value = b", ".join(b'"%d"' % each for each in range(number))
        headers = Headers([(b"cache-groups", value)])
        assert tags.has_too_many(headers, ()) == is_over
        assert len(tags.groups_of(headers)) == number


@given(st.binary(max_size=40))
def test_any_bytes_are_groups_or_none(value: bytes) -> None:
    assert all(
        type(group) is bytes for group in tags.groups_of(Headers([(b"cache-groups", value)]))
    )


@pytest.mark.parametrize(
    "filler", [b'"a", ', b",", b" ", b"a,", b"a ", b'"', b"(", b'"a";x,', b"\\"]
)
@pytest.mark.parametrize("name", [*FIELDS, b"cache-groups"])
def test_no_value_takes_more_than_linear_time(name: bytes, filler: bytes) -> None:
    headers = Headers([(name, filler * (200_000 // len(filler)))])
    began = time.perf_counter()
    tags.groups_of(headers)
    tags.all_tags(headers, FIELDS)
    assert time.perf_counter() - began < 2


@given(st.text(alphabet='"a\\\\ ,\t;=1~[]', max_size=24))
def test_groups_without_escapes_are_read_as_any_structured_list(text: str) -> None:
    headers = Headers([(b"cache-groups", text.encode())])
    quick = groups_of(headers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tags, "_PLAIN_LIST", re.compile(rb"(?!)"))
        assert groups_of(headers) == quick
