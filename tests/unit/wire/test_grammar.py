"""Heads, chunk-size lines and trailers: the grammar by itself."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import Failure, ProtocolError
from edge.wire.grammar import (
    LARGEST_SIZE,
    Body,
    Framing,
    Limits,
    bad_byte,
    canonical_response,
    check_request_line,
    check_status_line,
    check_trailers,
    read_chunk_line,
    request_framing,
    response_framing,
)

LIMITS = Limits()
BAD = Failure.BAD_MESSAGE


def request(*fields: bytes, line: bytes = b"POST / HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: a", *fields, b"", b""])


def response(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([line, *fields, b"", b""])


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ((), Framing(Body.NONE)),
        ((b"Content-Length: 0",), Framing(Body.LENGTH, 0)),
        ((b"Content-Length:17 \t",), Framing(Body.LENGTH, 17)),
        ((b"content-length: 999999999999999999",), Framing(Body.LENGTH, 10**18 - 1)),
        ((b"Transfer-Encoding: chunked",), Framing(Body.CHUNKED)),
        ((b"TRANSFER-ENCODING:\tChunked ",), Framing(Body.CHUNKED)),
        ((b"X-Content-Length: 3", b"Content-Length-X: 4"), Framing(Body.NONE)),
    ],
)
def test_a_request_is_framed_by_its_fields(fields: tuple[bytes, ...], framing: Framing) -> None:
    assert request_framing(request(*fields), LIMITS) == framing


@pytest.mark.parametrize(
    ("head", "failure"),
    [
        (request(b"Content-Length: 1000000000000000000"), BAD),
        (request(b"Content-Length: 3", b"Content-Length: 3"), BAD),
        (request(b"Content-Length: 3", b"Transfer-Encoding: chunked"), BAD),
        (request(b"Host: b"), Failure.BAD_HOST),
        (b"GET / HTTP/1.1\r\n\r\n", Failure.BAD_HOST),
        (request(line=b"GET / HTTP/1.2"), Failure.BAD_VERSION),
        (request(line=b"GET /" + b"a" * 8192 + b" HTTP/1.1"), Failure.TARGET_TOO_LONG),
        (request(line=b"M" * 8400 + b" / HTTP/1.1"), Failure.TARGET_TOO_LONG),
        (request(*[b"X: y"] * 100), Failure.HEAD_TOO_LARGE),
        (request(b"X : y"), BAD),
        (request(b"X: y\r\n z"), BAD),
        (request(line=b"GET  / HTTP/1.1"), BAD),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", BAD),
    ],
)
def test_a_bad_request_head_has_its_own_failure(head: bytes, failure: Failure) -> None:
    with pytest.raises(ProtocolError) as caught:
        request_framing(head, LIMITS)
    assert caught.value.failure is failure


def test_http_1_0_needs_no_host() -> None:
    assert request_framing(b"GET / HTTP/1.0\r\n\r\n", LIMITS).body is Body.NONE


@pytest.mark.parametrize(
    ("head", "method", "framing"),
    [
        (response(), b"GET", Framing(Body.UNTIL_CLOSE)),
        (response(b"Content-Length: 5"), b"GET", Framing(Body.LENGTH, 5)),
        (response(b"Content-Length: 5, 5", b"Content-Length: 5"), b"GET", Framing(Body.LENGTH, 5)),
        (response(b"Content-Length: 5"), b"HEAD", Framing(Body.NONE)),
        (response(b"Transfer-Encoding: chunked"), b"GET", Framing(Body.CHUNKED)),
        (response(b"Transfer-Encoding: chunked"), b"HEAD", Framing(Body.NONE)),
        (response(b"Content-Length: 5", line=b"HTTP/1.1 204 x"), b"GET", Framing(Body.NONE)),
        (response(line=b"HTTP/1.0 304"), b"GET", Framing(Body.NONE)),
        (response(line=b"HTTP/1.1 103 x"), b"GET", Framing(Body.INTERIM)),
        (response(line=b"HTTP/1.1 101 x"), b"GET", Framing(Body.NONE)),
    ],
)
def test_a_response_is_framed_by_status_method_and_fields(
    head: bytes, method: bytes, framing: Framing
) -> None:
    assert response_framing(head, LIMITS, method) == framing


@pytest.mark.parametrize(
    "head",
    [
        response(b"Content-Length: 5, 6"),
        response(b"Content-Length: 5,"),
        response(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        response(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK"),
        response(line=b"HTTP/1.2 200 OK"),
        response(line=b"HTTP/1.1 600 OK"),
        response(line=b"HTTP/1.1 099 OK"),
        response(b"X: y\r\n z"),
        response(*[b"X: y"] * 101),
    ],
)
def test_a_bad_response_head_is_a_bad_response(head: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        response_framing(head, LIMITS, b"GET")
    assert caught.value.failure is Failure.BAD_RESPONSE


def test_a_response_loses_white_space_before_colons_and_nothing_else() -> None:
    head = response(b"A \t: b : c", b"D:e", b"not a field : x")
    assert canonical_response(head) == response(b"A: b : c", b"D:e", b"not a field : x")
    good = response(b"A: b : c")
    assert canonical_response(good) is good


def test_a_start_line_is_checked_alone_as_it_is_in_its_head() -> None:
    check_request_line(b"M-SEARCH * HTTP/1.0", LIMITS)
    check_status_line(b"HTTP/1.1 200")
    with pytest.raises(ProtocolError):
        check_request_line(b"", LIMITS)
    with pytest.raises(ProtocolError):
        check_status_line(b"HTTP/1.1 200 OK\n")


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (b"0\r\n", (0, 0, 3)),
        (b"00aF\r\nrest", (0xAF, 0, 6)),
        (b'5;a="b c";d\r\n', (5, 10, 13)),
        (b"7fffffffffffffff\r\n", (LARGEST_SIZE, 0, 18)),
        (b"", None),
        (b"5", None),
        (b"5\r", None),
        (b"5;a", None),
    ],
)
def test_a_chunk_line_is_read_or_waited_for(
    line: bytes, read: tuple[int, int, int] | None
) -> None:
    assert read_chunk_line(line, 0, len(line), BAD) == read
    assert read_chunk_line(bytearray(b"__") + line, 2, 2 + len(line), BAD) == (
        read and (read[0], read[1], read[2] + 2)
    )


@pytest.mark.parametrize(
    "line",
    [b"+5", b" 5", b"5 ", b"0x", b"x", b";", b"\r\n", b"5\n", b"5\rx", b"5;\x00", b"0" * 17,
     b"8000000000000000\r\n", b"5;\n", b"\xb2\r\n"],
)  # fmt: skip
def test_a_chunk_line_is_refused_as_soon_as_it_is_bad(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_chunk_line(line, 0, len(line), BAD)


@pytest.mark.parametrize(
    ("section", "good"),
    [
        (b"\r\n", True),
        (b"A: b\r\nC: d\r\n\r\n", True),
        (b"content-length: 5\r\n\r\n", False),
        (b"A: b\r\nHOST: c\r\n\r\n", False),
        (b"A\r\n\r\n", False),
        (b"A: b\r\n c\r\n\r\n", False),
        (b"A: b\r\n" * 101 + b"\r\n", False),
    ],
)
def test_trailers_are_fields_without_framing(section: bytes, good: bool) -> None:
    if good:
        check_trailers(section, LIMITS, BAD)
        return
    with pytest.raises(ProtocolError):
        check_trailers(section, LIMITS, BAD)


@given(
    st.lists(st.sampled_from([b"a", b"\t", b"\r", b"\n", b"\x00", b"\x7f", b"\xff"]), max_size=12)
)
def test_a_bad_byte_is_found_where_it_shows(letters: list[bytes]) -> None:
    data = b"".join(letters)
    shown = len(data)
    for i in range(len(data)):
        before = data[i - 1 : i] if i else b""
        now = data[i : i + 1]
        if now in b"\x00\x7f" or (now == b"\n") != (before == b"\r"):
            shown = i
            break
    assert bad_byte(data, 0, len(data)) == shown


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_framing_or_a_protocol_error(data: bytes) -> None:
    for check in (
        lambda: request_framing(data, LIMITS),
        lambda: response_framing(canonical_response(data), LIMITS, b"GET"),
        lambda: check_trailers(data, LIMITS, BAD),
        lambda: read_chunk_line(data, 0, len(data), BAD),
    ):
        with suppress(ProtocolError):
            check()


@pytest.mark.parametrize(
    "filler", [b"a", b" ", b"\t", b":", b"a:", b"a: \r\n", b"\r\n", b"a \r\n"]
)
def test_no_head_takes_more_than_linear_time(filler: bytes) -> None:
    def cost_s(size: int) -> float:
        fields = b"\r\nHost: a\r\nX:" + filler * size + b"\x00\r\n\r\n"
        wide = Limits(fields=1 << 30)
        started = time.process_time()
        for _ in range(3):
            with pytest.raises(ProtocolError):
                request_framing(b"GET / HTTP/1.1" + fields, wide)
            with pytest.raises(ProtocolError):
                response_framing(canonical_response(b"HTTP/1.1 200 OK" + fields), wide, b"GET")
        return time.process_time() - started

    assert cost_s(200_000) < 40 * max(cost_s(20_000), 0.01)
