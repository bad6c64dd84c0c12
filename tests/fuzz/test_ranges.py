"""Whatever Range and If-Range say, an answer is within the body and within its bounds."""

from __future__ import annotations

from itertools import pairwise
from typing import assert_never

from hypothesis import given
from hypothesis import strategies as st

from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.cache.ranges import (
    MOST_PARTS,
    Multiple,
    Single,
    Span,
    Unsatisfiable,
    Whole,
    content_length,
    part_headers,
    pieces,
    plan,
)
from edge.wire.message import Headers, RequestHead

ranges = st.binary(max_size=60) | st.text("bytes=0123456789-, \t*+", max_size=80).map(
    lambda text: b"bytes=" + text.encode()
)
conditions = st.none() | st.sampled_from([b'"a"', b'W/"a"', b""]) | st.binary(max_size=12)
HEADERS = Headers(((b"etag", b'"a"'), (b"last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT")))
ENTRY = Entry(
    key=Key(b"0123456789abcdef", b"http://example.com/"),
    status=200,
    headers=HEADERS,
    times=Times(1e9, 1e9),
    date=1e9,
    age_field=0,
    terms=Terms(60.0, Source.MAX_AGE),
    variant=(),
    length=None,
    fetched_at=Seq(0),
    keep_until=2e9,
)


def check(spans: tuple[Span, ...], length: int) -> None:
    assert 0 < len(spans) <= MOST_PARTS
    ordered = sorted(spans)
    assert all(0 <= span.start < span.stop <= length for span in spans)
    assert all(a.stop < b.start for a, b in pairwise(ordered))


@given(ranges, conditions, st.integers(0, 1000))
def test_any_range_gives_an_answer_within_its_bounds(
    value: bytes, condition: bytes | None, length: int
) -> None:
    fields = [(b"range", value)] + ([] if condition is None else [(b"if-range", condition)])
    found = plan(RequestHead(b"GET", b"http", b"a", b"/", Headers(fields)), ENTRY, length)
    match found:
        case Whole() | Unsatisfiable():
            return
        case Single():
            check((found.span,), length)
        case Multiple():
            assert len(found.spans) > 1
            check(found.spans, length)
        case _:
            assert_never(found)
    size = content_length(pieces(HEADERS, found))
    assert size <= length + MOST_PARTS * 200
    assert part_headers(HEADERS, found).get(b"content-length") == b"%d" % size
