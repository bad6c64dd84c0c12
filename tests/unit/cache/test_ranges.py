"""Pieces joined are the body; 416 exactly when nothing overlaps; lengths are known beforehand."""

from __future__ import annotations

import tomllib
from email import message_from_bytes, policy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.cache.ranges import (
    FEW_PARTS,
    MOST_PARTS,
    NEAR_BYTES,
    Multiple,
    Plan,
    Single,
    Span,
    Unsatisfiable,
    Whole,
    content_length,
    content_range,
    part_headers,
    pieces,
    plan,
    unsatisfiable_headers,
)
from edge.wire.fields import MAX_RANGES, parse_date
from edge.wire.message import Headers, Pair, RequestHead

VECTORS = Path(__file__).parents[2] / "vectors" / "ranges.toml"
CASES = tomllib.loads(VECTORS.read_text())["case"]


def get(*pairs: Pair, method: bytes = b"GET") -> RequestHead:
    return RequestHead(method, b"http", b"example.com", b"/", Headers(pairs))


def entry_of(*pairs: Pair, status: int = 200, date: float = 784111777.0) -> Entry:
    return Entry(
        key=Key(b"0123456789abcdef", b"http://example.com/"),
        status=status,
        headers=Headers(pairs),
        times=Times(date, date),
        date=date,
        age_field=0,
        terms=Terms(60.0, Source.MAX_AGE),
        variant=(),
        length=None,
        fetched_at=Seq(0),
        keep_until=date,
    )


def planned(ranges: bytes, length: int) -> Plan:
    return plan(get((b"range", ranges)), entry_of(), length)


def spans_of(found: Plan) -> list[Span]:
    match found:
        case Single(span):
            return [span]
        case Multiple(spans):
            return list(spans)
        case _:
            return []


def sent(body: bytes, content: tuple[bytes | Span, ...]) -> bytes:
    return b"".join(
        body[piece.start : piece.stop] if isinstance(piece, Span) else piece for piece in content
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["says"]))
def test_ranges_by_the_book(case: dict[str, Any]) -> None:
    stored = [
        (name, case[key].encode())
        for key, name in (("etag", b"etag"), ("last_modified", b"last-modified"))
        if key in case
    ]
    date = parse_date(case.get("date", "").encode(), 0) or 784111777.0
    entry = entry_of(*stored, status=case.get("status", 200), date=date)
    conditions = [(b"if-range", case["if_range"].encode())] if "if_range" in case else []
    request = get(
        (b"range", case["range"].encode()), *conditions, method=case.get("method", "GET").encode()
    )
    found = plan(request, entry, case["length"])
    if case.get("unsatisfiable"):
        assert found == Unsatisfiable(case["length"])
    elif "spans" not in case:
        assert found == Whole()
    else:
        assert spans_of(found) == [Span(first, last + 1) for first, last in case["spans"]]
        assert isinstance(found, Single) == (len(case["spans"]) == 1)


def test_no_range_is_the_whole() -> None:
    assert plan(get(), entry_of(), 10) == Whole()


def test_two_range_lines_are_ignored() -> None:
    request = get((b"range", b"bytes=0-1"), (b"range", b"bytes=0-1"))
    assert plan(request, entry_of(), 10) == Whole()


def test_two_if_range_lines_never_hold() -> None:
    condition = (b"if-range", b'"a"')
    request = get((b"range", b"bytes=0-1"), condition, condition)
    assert plan(request, entry_of((b"etag", b'"a"')), 10) == Whole()


positions = st.integers(0, 30)
specs = st.one_of(
    st.tuples(positions, positions).map(lambda pair: b"%d-%d" % (min(pair), max(pair))),
    positions.map(lambda first: b"%d-" % first),
    positions.map(lambda size: b"-%d" % size),
)


def asked(spec: bytes, body: bytes) -> bytes:
    """What a spec means, said in another way than `ranges` does."""
    first, _, last = spec.partition(b"-")
    if not first:
        return body[-int(last) :] if int(last) else b""
    return body[int(first) :] if not last else body[int(first) : int(last) + 1]


@given(st.lists(specs, min_size=1, max_size=12), st.integers(1, 30))
def test_the_parts_are_just_what_was_asked_for(ranges: list[bytes], length: int) -> None:
    body = bytes(range(length))
    wanted = {octet for spec in ranges for octet in asked(spec, body)}
    found = planned(b"bytes=" + b",".join(ranges), length)
    assert isinstance(found, Unsatisfiable) == (not wanted)
    spans = spans_of(found)
    got = [octet for span in spans for octet in body[span.start : span.stop]]
    assert len(got) == len(set(got))
    assert set(got) == wanted
    assert all(span.size > 0 for span in spans)


@given(st.integers(1, 500), st.lists(st.integers(0, 500), max_size=6))
def test_pieces_joined_are_the_body(length: int, cuts: list[int]) -> None:
    body = bytes(index % 251 for index in range(length))
    edges = sorted({0, length, *(cut for cut in cuts if cut < length)})
    parts = [
        planned(b"bytes=%d-%d" % (start, stop - 1), length) for start, stop in pairwise(edges)
    ]
    assert all(isinstance(part, Single) for part in parts)
    assert b"".join(sent(body, (spans_of(part)[0],)) for part in parts) == body


def test_a_single_part_has_its_own_fields() -> None:
    stored = Headers(((b"content-length", b"10"), (b"content-type", b"text/plain"), (b"a", b"1")))
    found = planned(b"bytes=2-4", 10)
    assert isinstance(found, Single)
    assert part_headers(stored, found).pairs == (
        (b"content-type", b"text/plain"),
        (b"a", b"1"),
        (b"content-range", b"bytes 2-4/10"),
        (b"content-length", b"3"),
    )
    assert sent(b"0123456789", pieces(stored, found)) == b"234"


def test_two_parts_look_as_in_the_rfc() -> None:
    stored = Headers(((b"content-type", b"application/pdf"),))
    found = planned(b"bytes=500-999,7000-7999", 8000)
    assert isinstance(found, Multiple)
    boundary = found.boundary
    assert pieces(stored, found) == (
        b"--" + boundary + b"\r\nContent-Type: application/pdf\r\n"
        b"Content-Range: bytes 500-999/8000\r\n\r\n",
        Span(500, 1000),
        b"\r\n--" + boundary + b"\r\nContent-Type: application/pdf\r\n"
        b"Content-Range: bytes 7000-7999/8000\r\n\r\n",
        Span(7000, 8000),
        b"\r\n--" + boundary + b"--\r\n",
    )


@given(st.lists(st.integers(0, 9), min_size=2, max_size=5, unique=True), st.booleans())
def test_a_multipart_answer_is_as_long_as_it_says_and_readable(
    places: list[int], typed: bool
) -> None:
    body = bytes(65 + index % 26 for index in range(1000))
    stored = Headers(((b"content-type", b"text/plain"),) if typed else ())
    ranges = [b"%d-%d" % (place * 100, place * 100 + 49) for place in places]
    found = planned(b"bytes=" + b",".join(ranges), len(body))
    assert isinstance(found, Multiple)
    headers, content = part_headers(stored, found), pieces(stored, found)
    message = sent(body, content)
    assert headers.get(b"content-length") == b"%d" % len(message)
    assert content_length(content) == len(message)
    assert b"content-range" not in headers
    head = b"Content-Type: " + (headers.get(b"content-type") or b"") + b"\r\n\r\n"
    parts = list(message_from_bytes(head + message, policy=policy.HTTP).iter_parts())
    assert [part["content-range"].encode() for part in parts] == [
        content_range(span, len(body)) for span in found.spans
    ]
    assert [part.get_payload() for part in parts] == [
        body[span.start : span.stop].decode() for span in found.spans
    ]
    assert all(("content-type" in part) == typed for part in parts)


def test_a_416_tells_the_length() -> None:
    found = planned(b"bytes=10-", 10)
    assert isinstance(found, Unsatisfiable)
    assert dict(unsatisfiable_headers(found))[b"content-range"] == b"bytes */10"


def many(count: int, step: int) -> bytes:
    return b"bytes=" + b",".join(b"%d-%d" % (i * step, i * step) for i in range(count))


def test_few_near_parts_are_sent_apart_and_many_together() -> None:
    few, more = planned(many(FEW_PARTS, 10), 10_000), planned(many(FEW_PARTS + 1, 10), 10_000)
    assert len(spans_of(few)) == FEW_PARTS
    assert spans_of(more) == [Span(0, FEW_PARTS * 10 + 1)]


def test_many_parts_that_are_far_apart_are_sent_up_to_a_bound() -> None:
    step = NEAR_BYTES + 2
    assert len(spans_of(planned(many(MOST_PARTS, step), 10_000))) == MOST_PARTS
    assert planned(many(MOST_PARTS + 1, step), 10_000) == Whole()


def test_more_ranges_than_a_reader_asks_for_are_ignored() -> None:
    assert planned(b"bytes=" + b",".join([b"0-"] * (MAX_RANGES + 1)), 10) == Whole()


def test_no_set_of_ranges_makes_an_answer_much_larger_than_the_body() -> None:
    ranges = b"bytes=" + b",".join([b"0-", b"-9999"] * (MAX_RANGES // 2))
    assert planned(ranges, 10_000) == Single(Span(0, 10_000), 10_000)


def test_the_boundary_hangs_on_the_salt_and_on_the_entry() -> None:
    request = get((b"range", b"bytes=0-1,500-501"))
    one, other = entry_of((b"etag", b'"a"')), entry_of((b"etag", b'"b"'))
    plans = [
        plan(request, one, 1000, b"salt"),
        plan(request, one, 1000, b"pepper"),
        plan(request, other, 1000, b"salt"),
        plan(request, one, 1000, b"x" * 100),
    ]
    boundaries = {found.boundary for found in plans if isinstance(found, Multiple)}
    assert len(boundaries) == 4
    assert plan(request, one, 1000, b"salt") == plans[0]
    assert all(boundary.isalnum() and len(boundary) <= 70 for boundary in boundaries)
