"""Field values: the RFCs' own examples as tables, the laws as properties."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.wire import fields
from edge.wire.fields import AnyTag, EntityTag, RangeSpec

VECTORS = Path(__file__).parents[2] / "vectors"
DATES = tomllib.loads((VECTORS / "dates.toml").read_text("utf-8"))["date"]
NOW = 1_700_000_000.0

opaque_tags = st.lists(
    st.sampled_from([*range(0x20, 0x22), *range(0x23, 0x7F), *range(0x80, 0x100)])
).map(bytes)
entity_tags = st.builds(EntityTag, opaque_tags, st.booleans())


# --- lists --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (b"", []),
        (b", ,\t,", []),
        (b"a", [b"a"]),
        (b" a ,\tb,, C ", [b"a", b"b", b"C"]),
        (b'a="x, y", b', [b'a="x, y"', b"b"]),
        (b'"a\\", b", c', [b'"a\\", b"', b"c"]),
        (b'a, "never closed, b', [b"a", b'"never closed, b']),
        (b'"ends in \\', [b'"ends in \\']),
        (b"a\x0b,\x85b", [b"a\x0b", b"\x85b"]),  # only SP and HTAB are white space
    ],
)
def test_a_list_is_cut_at_its_commas(value: bytes, members: list[bytes]) -> None:
    assert fields.tokens(value) == members


@given(st.lists(st.from_regex(rb"[a-z;=]+|\"([^\"\\]|\\.)*\"", fullmatch=True)))
def test_a_list_joined_and_cut_again_is_the_same(members: list[bytes]) -> None:
    assert fields.tokens(b", ".join(members)) == members


@pytest.mark.parametrize("value", [b"GET", b"x-a_b", b"!#$%&'*+-.^_`|~09"])
def test_tokens_are_told(value: bytes) -> None:
    assert fields.is_token(value)


@pytest.mark.parametrize("value", [b"", b"a b", b"a\n", b"a,", b'"a"', b"a:", b"\xe9", b"a\x00"])
def test_what_is_no_token_is_told(value: bytes) -> None:
    assert not fields.is_token(value)


# --- numbers and dates --------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0),
        (b"0060", 60),
        (b"2147483647", 2147483647),
        (b"2147483649", 2**31),
        (b"9" * 5000, 2**31),
        (b"0" * 5000 + b"1", 1),
    ],
)
def test_delta_seconds_are_digits_and_bounded(value: bytes, seconds: int) -> None:
    assert fields.parse_delta(value) == seconds


@pytest.mark.parametrize(
    "value",
    [b"", b"+5", b"-5", b"1_0", b" 5", b"5 ", b"5\n", b"1.5", b"0x5", "５".encode(), b"\xb2"],
)
def test_what_only_int_would_take_is_no_delta(value: bytes) -> None:
    assert fields.parse_delta(value) is None


@pytest.mark.parametrize("case", DATES, ids=lambda case: case["value"])
def test_dates_are_read_as_the_vectors_say(case: dict[str, Any]) -> None:
    seconds = fields.parse_date(case["value"].encode(), case.get("now", NOW))
    assert seconds == case.get("seconds"), case.get("why")


@given(st.integers(-62_135_596_800, 253_402_300_799))
def test_a_date_formatted_and_read_is_the_same(second: int) -> None:
    assert fields.parse_date(fields.format_date(second), NOW) == second


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_two_digit_years_lie_within_fifty_years_ahead(moment: float, now: float) -> None:
    written = fields.format_date(moment)
    day, month, year = written[5:7], written[8:11], written[14:16]
    obsolete = b"Friday, %b-%b-%b %b" % (day, month, year, written[17:])
    if (read := fields.parse_date(obsolete, now)) is not None:
        assert now - 51 * 366 * 86400 < read < now + 51 * 366 * 86400
        assert fields.format_date(read)[14:16] == year


def test_a_date_is_cut_to_its_second() -> None:
    assert fields.format_date(784111777.999) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert fields.format_date(-0.5) == b"Wed, 31 Dec 1969 23:59:59 GMT"


# --- entity tags --------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "strongly", "weakly"),
    [  # RFC 9110 §8.8.3.2
        (b'W/"1"', b'W/"1"', False, True),
        (b'W/"1"', b'W/"2"', False, False),
        (b'W/"1"', b'"1"', False, True),
        (b'"1"', b'"1"', True, True),
        (b'"a"', b'"A"', False, False),
    ],
)
def test_tags_compare_as_in_the_rfc(
    one: bytes, other: bytes, strongly: bool, weakly: bool
) -> None:
    first, second = fields.parse_entity_tag(one), fields.parse_entity_tag(other)
    assert first is not None
    assert second is not None
    assert first.is_strongly(second) is strongly
    assert first.is_weakly(second) is weakly


@given(entity_tags, entity_tags)
def test_strong_comparison_implies_weak_and_both_are_symmetric(
    one: EntityTag, other: EntityTag
) -> None:
    assert not one.is_strongly(other) or one.is_weakly(other)
    assert one.is_strongly(other) == other.is_strongly(one)
    assert one.is_weakly(other) == other.is_weakly(one)


@given(st.lists(entity_tags))
def test_tags_formatted_and_read_are_the_same(tags: list[EntityTag]) -> None:
    assert fields.parse_entity_tags(b", ".join(tag.format() for tag in tags)) == tags
    assert all(fields.parse_entity_tag(tag.format()) == tag for tag in tags)


@pytest.mark.parametrize(
    "value", [b"", b"abc", b'"', b'"a', b'a"', b'w/"a"', b'W/ "a"', b'"a"b"', b'"a"\n', b'"\x7f"']
)
def test_what_is_no_tag_is_none(value: bytes) -> None:
    assert fields.parse_entity_tag(value) is None


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        (b"", []),
        (b'"a" "b", W/"c", d, *, ,"e"', [EntityTag(b"c", weak=True), EntityTag(b"e")]),
        (b'"a,b","c\\"', [EntityTag(b"a,b"), EntityTag(b"c\\")]),
        (b'"a", "b', [EntityTag(b"a")]),
    ],
)
def test_members_that_are_no_tags_are_left_out(value: bytes, tags: list[EntityTag]) -> None:
    assert fields.parse_entity_tags(value) == tags


def test_only_a_lone_star_means_any_tag() -> None:
    assert fields.parse_entity_tags(b"*") is AnyTag.ANY
    assert fields.parse_entity_tags(b"*, *") == []


# --- ranges -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "ranges"),
    [  # RFC 9110 §14.1.2
        (b"bytes=0-499", [RangeSpec(0, 499)]),
        (b"bytes=-500", [RangeSpec(None, 500)]),
        (b"bytes=9500-", [RangeSpec(9500, None)]),
        (b"bytes=0-0,-1", [RangeSpec(0, 0), RangeSpec(None, 1)]),
        (b"bytes= 0-999, 4500-5499, -1000", [(0, 999), (4500, 5499), (None, 1000)]),
        (b"BYTES=,1-2,,", [RangeSpec(1, 2)]),
        (b"bytes=-0", [RangeSpec(None, 0)]),
        (b"bytes=5-" + b"9" * 5000, [RangeSpec(5, 10**18)]),
    ],
)
def test_ranges_are_read(value: bytes, ranges: list[RangeSpec | tuple[int | None, int]]) -> None:
    wanted = [spec if isinstance(spec, RangeSpec) else RangeSpec(*spec) for spec in ranges]
    assert fields.parse_range(value) == wanted


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=-",
        b"bytes=,",
        b"bytes=2-1",
        b"bytes=1",
        b"bytes=1-2-3",
        b"bytes=+1-2",
        b"bytes=1_0-20",
        b"bytes=1 - 2",
        b"bytes =1-2",
        b"bytes=\x0b1-2",
        b"bytes=a-b",
        b"bytes=0-1,x",
        b"lines=0-1",
        b"bytes=0-1, bytes=2-3",
        b'bytes="0-1"',
        b"bytes=" + b"0-0," * 65,
    ],
)
def test_a_range_that_is_none_is_ignored(value: bytes) -> None:
    assert fields.parse_range(value) is None


# --- media types --------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "essence"),
    [
        (b"Text/HTML; charset=utf-8", b"text/html"),
        (b"image/svg+xml", b"image/svg+xml"),
        (b" text/css ;x", b"text/css"),
        (b"text", b""),
        (b"text/", b""),
        (b"/html", b""),
        (b"text/html, text/css", b""),
        (b"text/html/x", b""),
        (b"", b""),
    ],
)
def test_the_essence_of_a_media_type_is_read(value: bytes, essence: bytes) -> None:
    assert fields.parse_media_type(value) == essence
