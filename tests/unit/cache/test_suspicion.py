"""What is odd in a request, and what an extension promises."""

from __future__ import annotations

import pytest

from edge.cache.suspicion import has_body, is_odd, keeps_promise
from edge.wire.message import Headers, RequestHead


def get(*pairs: tuple[bytes, bytes], method: bytes = b"GET") -> RequestHead:
    return RequestHead(method, b"http", b"example.com", b"/", Headers(pairs))


@pytest.mark.parametrize(
    "request_head",
    [
        get(),
        get((b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"), (b"accept", b"*/*;q=0.8")),
        get((b"cookie", b"a=" + b"b" * 4000)),
        get((b"test-id", b"1"), (b"sec-ch-ua", b'"Chromium";v="1"'), (b"te", b"trailers")),
        get((b"if-none-match", b'"a"'), (b"content-length", b"0")),
        get(*((b"x-%d" % n, b"1") for n in range(64))),
    ],
)
def test_an_honest_request_is_not_odd(request_head: RequestHead) -> None:
    assert not is_odd(request_head)


@pytest.mark.parametrize(
    "request_head",
    [
        get(method=b"HEAD"),
        get((b"cookie", b"a=" + b"b" * 4095)),
        get(*((b"x-%d" % n, b"1") for n in range(65))),
        get(*((b"x-%d" % n, b"a" * 900) for n in range(10))),
        get((b"content-length", b"1")),
        get((b"x-meta", b"a\x07b")),
        get((b"x-meta", b"\xc3\xa9")),
        get((b"x_meta", b"1")),
        get((b"x--", b"1")),
        get((b"expect", b"100-continue")),
        get((b"x-method-override", b"DELETE")),
    ],
)
def test_traits_that_provoke_are_odd(request_head: RequestHead) -> None:
    assert is_odd(request_head)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ((b"content-length", b"0"), False),
        ((b"content-length", b"00"), False),
        ((b"content-length", b"5"), True),
        ((b"content-length", b"x"), True),
        ((b"transfer-encoding", b"chunked"), True),
        ((b"content-type", b"text/plain"), False),
    ],
)
def test_a_body_is_one_that_comes_or_may_come(pair: tuple[bytes, bytes], expected: bool) -> None:
    assert has_body(get(pair)) is expected


@pytest.mark.parametrize(
    ("extension", "types", "expected"),
    [
        (b"css", [b"text/css"], True),
        (b"css", [b"Text/CSS; charset=utf-8"], True),
        (b"css", [b"text/html"], False),
        (b"css", [b"text/csss"], False),
        (b"css", [], False),
        (b"css", [b""], False),
        (b"css", [b"text/css", b"text/html"], False),
        (b"js", [b"application/javascript"], True),
        (b"js", [b"application/json"], False),
        (b"png", [b"image/webp"], True),
        (b"woff2", [b"font/woff2"], True),
        (b"woff", [b"application/font-woff"], True),
        (b"html", [b"text/html"], True),
        (b"zip", [b"application/zip"], True),
        (b"zip", [b"text/html"], False),
        (b"zip", [b"application/problem+json"], False),
    ],
)
def test_what_an_extension_promises(extension: bytes, types: list[bytes], expected: bool) -> None:
    headers = Headers((b"content-type", value) for value in types)
    assert keeps_promise(extension, headers) is expected


def test_sizes_are_odd_from_the_first_byte_past_the_bound() -> None:
    assert not is_odd(get((b"a", b"x" * 4096)))
    assert is_odd(get((b"a", b"x" * 4097)))
    assert not is_odd(get((b"a", b"x" * 4095), (b"b", b"x" * 4095)))
    assert is_odd(get((b"a", b"x" * 4095), (b"b", b"x" * 4096)))
