"""Any bytes make a value or None, never an exception, and in linear time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.wire import fields

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_700_000_000.0
PARSERS: list[Callable[[bytes], object]] = [
    fields.tokens,
    fields.is_token,
    fields.parse_delta,
    lambda value: fields.parse_date(value, NOW),
    fields.parse_entity_tag,
    fields.parse_entity_tags,
    fields.parse_range,
    fields.parse_media_type,
]

fragments = st.sampled_from(
    [
        *(
            b",",
            b";",
            b'"',
            b"\\",
            b" ",
            b"\t",
            b"=",
            b"-",
            b"*",
            b"/",
            b"W/",
            b"bytes ",
            b"bytes=",
        ),
        *(
            b"q=",
            b"0",
            b"9" * 20,
            b"Sun, ",
            b"06 Nov ",
            b"1994 ",
            b"08:49:37",
            b" GMT",
            b"Sunday, ",
        ),
        *(
            b"06-Nov-94 ",
            b"Sun Nov  6 ",
            b"31 Feb ",
            b"0000 ",
            b"\xff",
            b"\x00",
            b"\n",
            b"\xc2\xb2",
        ),
    ]
)
values = st.binary(max_size=40) | st.lists(fragments, max_size=20).map(lambda some: b"".join(some))


@given(values)
@example(b"Sun, 31 Feb 0000 08:49:37 GMT")
@example(b'"\\')
def test_any_bytes_make_a_value_or_none(value: bytes) -> None:
    for parse in PARSERS:
        parse(value)


@given(values)
def test_what_is_read_reads_the_same_when_written_again(value: bytes) -> None:
    if (tag := fields.parse_entity_tag(value)) is not None:
        assert tag.format() == value
    if (seconds := fields.parse_date(value, NOW)) is not None:
        assert fields.parse_date(fields.format_date(seconds), NOW) == seconds
    members = fields.tokens(value)
    if b'"' not in value:
        assert fields.tokens(b",".join(members)) == members


@pytest.mark.parametrize(
    "piece", [b",", b'"', b"\\", b'"\\', b"a", b" ", b"0", b'"a",', b"a;q=1;"]
)
def test_four_times_the_bytes_take_about_four_times_as_long(piece: bytes) -> None:
    def seconds(size: int) -> float:
        value = b"bytes=" + piece * (size // len(piece))
        started = time.process_time()
        for parse in PARSERS:
            parse(value)
        return time.process_time() - started

    small = min(seconds(16_384) for _ in range(3))
    assert min(seconds(65_536) for _ in range(3)) < 10 * small + 0.02  # quadratic would be 16
