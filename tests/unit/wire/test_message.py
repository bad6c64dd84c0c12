"""Headers keep order, repetition and bytes; messages are plain values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.wire.message import Headers, RequestHead, ResponseHead

names = st.sampled_from([b"a", b"b", b"c"])
pairs = st.lists(st.tuples(names, st.binary(max_size=2)))

TWICE = Headers([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])


def test_a_field_is_found_by_its_first_line() -> None:
    assert TWICE.get(b"a") == b"1"
    assert TWICE.get(b"c") is None
    assert TWICE.all(b"a") == [b"1", b"3"]


def test_lines_are_joined_by_a_comma_and_a_space() -> None:
    assert TWICE.joined(b"a") == b"1, 3"
    assert TWICE.joined(b"b") == b"2"
    assert TWICE.joined(b"c") is None


def test_an_empty_line_is_not_a_missing_one() -> None:
    assert Headers([(b"a", b"")]).joined(b"a") == b""


def test_a_replaced_field_stands_once_where_its_first_line_stood() -> None:
    assert TWICE.replaced(b"a", b"9") == Headers([(b"a", b"9"), (b"b", b"2")])
    assert TWICE.replaced(b"c", b"9") == TWICE.plus((b"c", b"9"))


def test_fields_are_taken_out_by_name() -> None:
    assert TWICE.without({b"a"}) == Headers([(b"b", b"2")])
    assert TWICE.without(()) == TWICE


@given(pairs, names, st.binary(max_size=2))
def test_replacing_a_field_changes_no_other(
    lines: list[tuple[bytes, bytes]], name: bytes, value: bytes
) -> None:
    headers = Headers(lines)
    replaced = headers.replaced(name, value)
    assert replaced.all(name) == [value]
    assert replaced.without({name}) == headers.without({name})
    assert headers.pairs == tuple(lines)


@given(pairs)
def test_equal_lines_make_equal_headers(lines: list[tuple[bytes, bytes]]) -> None:
    one, other = Headers(lines), Headers(iter(lines))
    assert one == other
    assert hash(one) == hash(other)
    assert list(one) == lines
    assert len(one) == len(lines)
    assert one != lines


def test_order_tells_headers_apart() -> None:
    assert Headers([(b"a", b""), (b"b", b"")]) != Headers([(b"b", b""), (b"a", b"")])


def test_names_are_looked_up_as_bytes() -> None:
    assert b"a" in TWICE
    assert b"c" not in TWICE
    assert b"A" not in TWICE  # names are lower case already


def test_headers_show_their_lines() -> None:
    assert repr(Headers([(b"a", b"1")])) == "Headers(((b'a', b'1'),))"


def test_a_head_is_a_value_that_does_not_change() -> None:
    head = RequestHead(b"GET", b"http", b"example.com", b"/")
    assert head == RequestHead(b"GET", b"http", b"example.com", b"/", Headers(), b"1.1")
    with pytest.raises(FrozenInstanceError):
        head.target = b"/other"  # type: ignore[misc]  # that it is refused is the point
    assert ResponseHead(200) == ResponseHead(200, Headers(), b"", b"1.1")
