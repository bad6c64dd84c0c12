"""Any bytes make a target, a path, an authority, or a ProtocolError, and in linear time."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.errors import ProtocolError
from edge.wire.target import (
    edit_query,
    has_hidden_delimiter,
    normalise,
    parse_authority,
    parse_request_target,
    split_target,
)

if TYPE_CHECKING:
    from collections.abc import Callable

fragments = st.sampled_from(
    [
        *(
            b"/",
            b"//",
            b".",
            b"..",
            b"%2e",
            b"%2F",
            b"%00",
            b"%",
            b"%4",
            b"%zz",
            b"%41",
            b"?",
            b"#",
        ),
        *(
            b"a",
            b"Z",
            b":",
            b"@",
            b"[",
            b"]",
            b"::",
            b"80",
            b"65536",
            b"*",
            b";",
            b"\\",
            b" ",
            b"\n",
        ),
        *(
            b"http://",
            b"https://",
            b"HTTP:",
            b"example.com",
            b",",
            b"\x00",
            b"\xc3\xa9",
            b"&",
            b"=",
        ),
    ]
)
octets = st.binary(max_size=40) | st.lists(fragments, max_size=12).map(lambda some: b"".join(some))


@given(octets, octets, st.sampled_from([b"GET", b"OPTIONS", b"CONNECT"]))
@example(b"http://[::1", b"[::1", b"GET")
def test_a_request_that_is_understood_is_normal_or_refused_again(
    target: bytes, host: bytes, method: bytes
) -> None:
    with suppress(ProtocolError):
        _, authority, origin_form = parse_request_target(method, target, [host], b"http")
        assert parse_authority(authority).canonical(b"http") == authority
        assert origin_form == b"*" or origin_form.startswith(b"/")
        parts = split_target(origin_form)
        normal = normalise(parts.path)
        assert normalise(normal) == normal
        assert parts.query is None or b"#" not in parts.query


@given(octets)
def test_any_bytes_make_a_path_that_is_visible_ascii_or_are_refused(path: bytes) -> None:
    with suppress(ProtocolError):
        normal = normalise(path)
        assert normal == b"*" or normal.startswith(b"/")
        assert all(0x21 <= octet <= 0x7E and octet not in b"#?\\" for octet in normal)
        has_hidden_delimiter(normal)


@given(octets, st.lists(octets, max_size=3).map(tuple), st.booleans())
def test_any_query_is_edited_by_any_patterns(
    query: bytes, patterns: tuple[bytes, ...], sort: bool
) -> None:
    kept = edit_query(query, keep=patterns, sort=sort)
    dropped = edit_query(query, drop=patterns, sort=sort)
    parts = [part for half in (kept, dropped) if half is not None for part in half.split(b"&")]
    assert sorted(parts) == sorted(query.split(b"&"))  # each parameter is on one side


def _lenient(path: bytes) -> None:
    with suppress(ProtocolError):
        normalise(b"/" + path)
    with suppress(ProtocolError):
        parse_authority(path)
    with suppress(ProtocolError):
        parse_request_target(b"GET", b"http://" + path, [path], b"http")


@pytest.mark.parametrize(
    "piece", [b"../", b"%2e%2e/", b"%41", b"%", b"a.", b"/", b"[:", b"a&", b"aab"]
)
@pytest.mark.parametrize(
    "work", [_lenient, lambda text: edit_query(text, drop=(b"*a*ab*b*c",), sort=True)]
)
def test_four_times_the_bytes_take_about_four_times_as_long(
    piece: bytes, work: Callable[[bytes], object]
) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        started = time.process_time()
        work(text)
        return time.process_time() - started

    small = min(seconds(16_384) for _ in range(3))
    assert min(seconds(65_536) for _ in range(3)) < 10 * small + 0.02  # quadratic would be 16
