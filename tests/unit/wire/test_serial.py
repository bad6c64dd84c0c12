"""Response heads as bytes: a plain one is, to the byte, what the engine sends."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.errors import ExchangeError, Failure
from edge.wire.h1 import STREAM, ServerEngine
from edge.wire.message import Chunk, End, Headers, ResponseHead
from edge.wire.serial import CLOSE, plain_head

REQUEST = b"%b / HTTP/1.1\r\nHost: example.com\r\n\r\n"
LAST = b"%b / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"
NAMES = st.sampled_from(
    [
        b"content-length", b"content-type", b"transfer-encoding", b"connection", b"upgrade",
        b"expect", b"host", b"etag", b"age", b"via", b"cache-status", b"vary", b"x-y_z", b"X-Case",
        b"", b"bad name",
    ]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([b"", b"0", b"4", b"04", b"4, 4", b"chunked", b"close", b"a\tb", b"\xff"]),
    st.sampled_from([b"1" * 20, b"1" * 21, b"a\r\nb: c", b"a\x00", b" 4", b"%d"]),
)
HEADS = st.builds(
    ResponseHead,
    st.sampled_from([101, 200, 200, 200, 204, 206, 304, 404, 416, 599, 999]),
    st.lists(st.tuples(NAMES, VALUES), max_size=5).map(Headers),
    st.sampled_from([b"", b"Fine", b"Not \xe9"]),
)


def by_the_engine(
    method: bytes, head: ResponseHead, *, is_last: bool
) -> tuple[bytes, bool] | None:
    """The head as an engine sends it, and whether the connection lives on; None: it will not."""
    engine = ServerEngine()
    engine.receive((LAST if is_last else REQUEST) % method)
    assert len(list(engine.messages())) == 2
    try:
        engine.send(STREAM, head)
    except ExchangeError:
        return None
    sent = b"".join(engine.outgoing())
    length = head.headers.get(b"content-length")
    if method == b"GET" and length is not None and head.status not in (204, 304):
        if int(length) > 100:
            return sent, not (is_last or CLOSE in head.headers.pairs)
        if int(length):
            engine.send(STREAM, Chunk(b"x" * int(length)))
    engine.send(STREAM, End())
    return sent, engine.keep_alive


@given(st.sampled_from([b"GET", b"HEAD"]), HEADS, st.booleans())
@example(b"GET", ResponseHead(200, Headers([(b"content-length", b"4"), CLOSE])), True)
@example(b"GET", ResponseHead(304, Headers([CLOSE])), False)
def test_a_plain_head_is_what_the_engine_sends(
    method: bytes, head: ResponseHead, is_last: bool
) -> None:
    expected = by_the_engine(method, head, is_last=is_last)
    try:
        written = plain_head(head, is_last=is_last)
    except ExchangeError:
        assert expected is None
    else:
        if written is not None:
            assert expected == (written, not (is_last or CLOSE in head.headers.pairs))


def head(status: int, *pairs: tuple[bytes, bytes], reason: bytes = b"") -> ResponseHead:
    return ResponseHead(status, Headers(pairs), reason)


ETAG, LENGTH = (b"etag", b'"1"'), (b"content-length", b"4")


def test_what_frames_a_head_comes_first() -> None:
    written = plain_head(head(200, ETAG, LENGTH, (b"x", b"y")))
    assert written == b'HTTP/1.1 200 OK\r\ncontent-length: 4\r\netag: "1"\r\nx: y\r\n\r\n'


def test_an_answer_without_content_needs_no_length() -> None:
    assert plain_head(head(304, ETAG)) == b'HTTP/1.1 304 Not Modified\r\netag: "1"\r\n\r\n'
    assert plain_head(head(204)) == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_the_last_answer_says_so_behind_its_framing() -> None:
    said = b'HTTP/1.1 200 OK\r\ncontent-length: 4\r\nConnection: close\r\netag: "1"\r\n\r\n'
    assert plain_head(head(200, ETAG, LENGTH), is_last=True) == said
    assert plain_head(head(200, ETAG, LENGTH, CLOSE)) == said.replace(b"Conn", b"conn")


def test_a_reason_and_a_status_that_nobody_knows_are_sent_as_they_are() -> None:
    assert (plain_head(head(299, LENGTH, reason=b"Well")) or b"").startswith(
        b"HTTP/1.1 299 Well\r\n"
    )
    assert (plain_head(head(299, LENGTH)) or b"").startswith(b"HTTP/1.1 299 \r\n")


@pytest.mark.parametrize(
    "other",
    [
        head(200), head(101, LENGTH), head(1000, LENGTH), head(200, LENGTH, LENGTH),
        head(200, (b"transfer-encoding", b"chunked")), head(200, (b"content-length", b"x")),
        head(200, LENGTH, (b"connection", b"x")), head(304, LENGTH), head(204, LENGTH),
        head(200, CLOSE, LENGTH), head(200, LENGTH, CLOSE, CLOSE),
        head(200, LENGTH, reason=b"a\r\nb"),
    ],
)  # fmt: skip
def test_every_other_head_is_the_engines(other: ResponseHead) -> None:
    assert plain_head(other) is None


@pytest.mark.parametrize("pair", [(b"", b"x"), (b"a b", b"x"), (b"A", b"x"), (b"a", b"x\r\ny")])
def test_what_would_break_a_head_apart_is_never_sent(pair: tuple[bytes, bytes]) -> None:
    with pytest.raises(ExchangeError) as caught:
        plain_head(head(200, LENGTH, pair))
    assert caught.value.failure is Failure.INTERNAL
