"""Where compression pays, and where it must not be done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.coding.negotiate import Coding
from edge.coding.policy import (
    FIRST,
    HIGH,
    CompressPolicy,
    Stays,
    announced_length,
    forbids_transform,
    is_coded,
    is_sized,
    is_worth,
    may_recompress,
    origin_coding,
    pays,
    why_not,
)
from edge.routing.site import TypeMatch
from edge.wire.message import Headers, Pair, ResponseHead

POLICY = CompressPolicy()
HTML: Pair = (b"content-type", b"text/html; charset=utf-8")


def head(*pairs: Pair, status: int = 200) -> ResponseHead:
    return ResponseHead(status, Headers(pairs))


def sized(length: int | None, *pairs: Pair, status: int = 200) -> ResponseHead:
    """A head that announces a body of `length` bytes, or none."""
    told = () if length is None else ((b"content-length", b"%d" % length),)
    return head(*pairs, *told, status=status)


@pytest.mark.parametrize(
    "kind",
    [
        b"text/html", b"TEXT/HTML;charset=x", b"text/css", b"text/javascript", b"application/json",
        b"application/ld+json", b"image/svg+xml", b"application/wasm", b"font/ttf", b"font/otf",
        b"application/xml", b"application/vnd.ms-fontobject", b"application/manifest+json",
    ],
)  # fmt: skip
def test_what_shrinks_is_coded(kind: bytes) -> None:
    assert pays(head((b"content-type", kind)), POLICY)


@pytest.mark.parametrize(
    "kind",
    [
        b"image/jpeg", b"image/webp", b"video/mp4", b"font/woff2", b"font/woff",
        b"application/zip", b"application/octet-stream", b"multipart/byteranges; boundary=x",
        b"text/event-stream", b"Text/Event-Stream; charset=utf-8", b"text", b"", b"text/html, x",
    ],
)  # fmt: skip
def test_what_does_not_shrink_is_not(kind: bytes) -> None:
    assert not pays(head((b"content-type", kind)), POLICY)


def test_without_a_type_nothing_is_known_to_shrink() -> None:
    assert not pays(head(), POLICY)


@pytest.mark.parametrize(
    ("length", "is_coded"),
    [
        (0, False),
        (511, False),
        (512, True),
        (None, True),
        (64 << 20, True),
        ((64 << 20) + 1, False),
    ],
)
def test_sizes_have_bounds(length: int | None, is_coded: bool) -> None:
    assert pays(sized(length, HTML), POLICY) is is_coded


@pytest.mark.parametrize(
    ("status", "is_coded"),
    [
        (200, True), (203, True), (404, True), (410, True), (204, False), (206, False),
        (301, False), (304, False), (416, False), (500, False), (101, False),
    ],
)  # fmt: skip
def test_parts_and_answers_without_a_body_are_not_coded(status: int, is_coded: bool) -> None:
    assert pays(head(HTML, status=status), POLICY) is is_coded


@pytest.mark.parametrize(
    "pair",
    [
        (b"content-range", b"bytes 0-9/10"),
        (b"cache-control", b"no-transform"), (b"cache-control", b"max-age=5 , No-Transform"),
        (b"signature-input", b"a=()"), (b"signature", b"a=:AA==:"),
    ],
)  # fmt: skip
def test_what_must_stay_as_it_is_stays(pair: Pair) -> None:
    assert not pays(head(HTML, pair), POLICY)


def test_a_coding_of_identity_is_none() -> None:
    assert pays(head(HTML, (b"content-encoding", b"identity")), POLICY)


def test_a_site_names_its_own_types() -> None:
    own = replace(POLICY, types=TypeMatch.parse((b"application/x-own", b"image/*")))
    assert pays(head((b"content-type", b"image/png")), own)
    assert not pays(head(HTML), own)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (b"no-transform", True), (b"max-age=1,no-transform", True), (b"no-transform=1", True),
        (b"x-no-transform", False), (b'x="no-transform"', False),
        (b'x="a, no-transform, b"', False),
        (b"", False), (b"public", False),
    ],
)  # fmt: skip
def test_no_transform_is_a_directive_of_its_own(said: bytes, found: bool) -> None:
    assert forbids_transform(Headers([(b"cache-control", said)])) is found


def test_no_transform_counts_on_any_line() -> None:
    assert forbids_transform(
        Headers([(b"cache-control", b"public"), (b"cache-control", b"no-transform")])
    )
    assert not forbids_transform(Headers())


@pytest.mark.parametrize(
    ("lines", "coding"),
    [
        ((), Coding.IDENTITY), ((b"",), Coding.IDENTITY), ((b"identity",), Coding.IDENTITY),
        ((b"gzip",), Coding.GZIP), ((b"X-Gzip",), Coding.GZIP), ((b" br ",), Coding.BR),
        ((b"zstd",), Coding.ZSTD), ((b"dcz",), Coding.DCZ), ((b"dcb",), None),
        ((b"deflate",), None), ((b"gzip, br",), None), ((b"gzip", b"gzip"), None),
    ],
)  # fmt: skip
def test_what_an_answer_came_in(lines: tuple[bytes, ...], coding: Coding | None) -> None:
    assert origin_coding(Headers((b"content-encoding", line) for line in lines)) is coding


def test_levels_are_each_on_their_own_scale() -> None:
    codings = (Coding.BR, Coding.ZSTD, Coding.GZIP, Coding.DCZ)
    assert [FIRST.of(coding) for coding in codings] == [5, 3, 2, 3]
    assert [HIGH.of(coding) for coding in codings] == [11, 19, 9, 19]
    with pytest.raises(ValueError, match="identity"):
        FIRST.of(Coding.IDENTITY)


@given(plain=st.integers(0, 1 << 40), coded=st.integers(0, 1 << 40))
def test_what_did_not_shrink_is_not_worth_keeping(plain: int, coded: int) -> None:
    if coded > plain:
        assert not is_worth(coded, plain, POLICY)
    if coded <= plain // 2:
        assert is_worth(coded, plain, POLICY)


def test_recompression_has_a_bound_and_a_switch() -> None:
    assert may_recompress(4 << 20, POLICY)
    assert not may_recompress((4 << 20) + 1, POLICY)
    assert not may_recompress(1000, replace(POLICY, recompress_after=0))
    assert may_recompress(512, POLICY)
    assert not may_recompress(511, POLICY)


@pytest.mark.parametrize(
    ("length", "came", "is_known"),
    [(5, None, True), (None, None, False), (5, b"gzip", False), (5, b"identity", True)],
)
def test_a_length_is_what_a_head_says_of_what_is_in_no_coding(
    length: int | None, came: bytes | None, is_known: bool
) -> None:
    pairs = () if came is None else ((b"content-encoding", came),)
    headers = sized(length, *pairs).headers
    assert announced_length(headers) == length
    assert is_sized(headers) is is_known
    assert is_coded(headers) is (came == b"gzip")


@pytest.mark.parametrize(
    ("pairs", "status", "length", "why"),
    [
        ((HTML,), 200, 10_000, None),
        ((HTML,), 200, None, None),
        ((HTML,), 206, 10_000, Stays.STATUS),
        ((HTML,), 200, 511, Stays.SMALL),
        ((HTML,), 200, (64 << 20) + 1, Stays.LARGE),
        ((HTML, (b"content-encoding", b"gzip")), 200, 10_000, None),
        ((HTML, (b"content-encoding", b"gzip")), 200, 20, None),
        ((HTML, (b"content-encoding", b"gzip")), 200, (64 << 20) + 1, Stays.LARGE),
        ((HTML, (b"signature", b"x")), 200, None, Stays.HELD),
        ((HTML, (b"cache-control", b"no-transform")), 200, None, Stays.HELD),
        (((b"content-type", b"image/png"),), 200, None, Stays.TYPE),
        ((), 200, None, Stays.TYPE),
        (((b"content-type", b"text/event-stream"),), 200, None, Stays.ENDLESS),
    ],
)
def test_what_is_not_coded_has_a_reason(
    pairs: tuple[Pair, ...], status: int, length: int | None, why: Stays | None
) -> None:
    told = sized(length, *pairs, status=status)
    assert why_not(told, POLICY) is why
    assert pays(told, POLICY) is (why is None)
