"""Laws of the plain exchange: what it writes and reads, h11 would have written and read."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import ExchangeError, ProtocolError
from edge.wire.client import ClientEngine
from edge.wire.direct import PlainExchange
from edge.wire.h1 import STREAM, Limits
from edge.wire.message import Chunk, End, Headers, Message, RequestHead
from tests.vectors import hostile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.wire.message import Pair

LIMITS = Limits(head_bytes=400, fields=8, chunk_line_bytes=24, trailer_bytes=80, interim_heads=3)

STATUS_LINES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 404  Not \xfc\there",
     b"HTTP/1.1 204 No", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 500 x", b"HTTP/1.1 301 y"]
)  # fmt: skip
FIELDS = st.sampled_from(
    [b"Date: Mon, 01 Jan 2024 00:00:00 GMT", b"Server: nginx", b"X:", b"x: \t y \t",
     b"ETag: \"1\"", b"Connection: keep-alive", b"connection:Keep-Alive", b"!~: \xff",
     b"Keep-Alive: timeout=5", b"Set-Cookie: a=b; c", b"Cache-Control: max-age=60", b"Vary: a,b"]
)  # fmt: skip
FRAMED = st.sampled_from(
    [(b"Content-Length: 0", b""), (b"content-length:3", b"abc"), (b"X: y", b""),
     (b"Content-Length:\t12 ", b"x" * 12), (b"Transfer-Encoding: chunked", b"0\r\n\r\n"),
     (b"transfer-encoding:chunked", b"3\r\nabc\r\n2;e=f\r\nde\r\n0\r\n\r\n"),
     (b"Transfer-Encoding: chunked", b"1\r\na\r\n0\r\nT: x\r\n\r\n")]
)  # fmt: skip
NEAR_LINES = st.sampled_from(
    [b"HTTP/1.0 200 OK", b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Hint", b"HTTP/1.1 101 Go",
     b"HTTP/1.1 199 x", b"HTTP/1.1 600 x", b"HTTP/1.1 20 OK", b"http/1.1 200 OK",
     b"HTTP/1.1  200 OK", b"HTTP/1.1 200\tOK", b"HTTP/2 200 OK", b"HTTP/1.1 200 \x00",
     b"HTTP/1.1 999 x", b""]
)  # fmt: skip
NEAR_FIELDS = st.sampled_from(
    [b"Connection: close", b"Connection: keep-alive, close", b"Connection:",
     b"Connection: upgrade", b"Upgrade: websocket", b"Trailer: x", b"TE: x",
     b"Proxy-Connection: close",
     b"Content-Length: 3", b"Content-Length: 3, 3", b"Content-Length: +3", b"Content-Length: 03",
     b"Content-Length:", b"Content-Length: 4", b"Content-Length: 99999999999999999999",
     b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked", b"Transfer-Encoding: gzip",
     b"Transfer-Encoding: gzip, chunked", b"X : y", b" X: y", b"X y", b"X: a\r\n b", b"X: \x00",
     b"X: a\nY: b", b"\xe9: x", b"X: " + b"y" * 300, b"Host: a", b"Expect: x", b"Keep-Alive: x"]
)  # fmt: skip
BEHIND = st.sampled_from([b""] * 6 + [b"x", b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"abc" * 20])
CUTS = st.lists(st.integers(0, 500), max_size=8)
METHODS = st.sampled_from([b"GET", b"GET", b"GET", b"HEAD"])


def whole(line: bytes, fields: list[bytes], framed: tuple[bytes, bytes], behind: bytes) -> bytes:
    return b"\r\n".join([line, *fields, framed[0], b"", b""]) + framed[1] + behind


GOOD = st.builds(whole, STATUS_LINES, st.lists(FIELDS, max_size=6), FRAMED, st.just(b""))
NEAR = st.builds(
    whole, STATUS_LINES | NEAR_LINES, st.lists(FIELDS | NEAR_FIELDS, max_size=9), FRAMED, BEHIND
)
SEEDS = [case.raw for case in hostile.responses() if len(case.raw) < 900]
OCTETS = st.sampled_from([b"", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\x00", b":", b"1", b"\xff"])


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A good answer or a hostile one with one to three places changed."""
    data = draw(st.sampled_from(SEEDS) | GOOD)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        removed = draw(st.integers(0, 2))
        data = data[:place] + draw(OCTETS) + data[place + removed :]
    return data


class NeverPlain(PlainExchange):
    """Leaves every exchange to h11."""

    def begin(self, head: RequestHead, lines: bytes) -> bytes | None:
        return None


def engine(*, plain: bool, limits: Limits = LIMITS) -> ClientEngine:
    made = ClientEngine(limits)
    if not plain:
        made._plain = NeverPlain(made._gate)
    return made


def told(
    client: ClientEngine, request: RequestHead, pieces: Sequence[bytes], late: bool
) -> object:
    """All that can be known of an exchange from outside; the request ends `late`, or first."""
    made: list[Message] = []
    failure: object = None
    states: list[tuple[bool, ...]] = []
    client.send(STREAM, request)
    if not late:
        client.send(STREAM, End())
    sent = b"".join(client.outgoing())
    try:
        for piece in pieces:
            client.receive(piece)
            for _, message in client.messages():
                if isinstance(message, Chunk) and made and isinstance(made[-1], Chunk):
                    made[-1] = Chunk(bytes(made[-1].data) + bytes(message.data))
                else:
                    made.append(message)
                states.append((client.reusable, client.finished))
    except ProtocolError as error:
        failure = error.failure
    before = (client.reusable, client.finished, client.readable(), client.upgraded)
    if late:
        try:
            client.send(STREAM, End())
        except ExchangeError as error:
            failure = (failure, error.failure)
    sent += b"".join(client.outgoing())
    after = (client.reusable, client.finished, client.body_received, client.body_sent)
    return sent, made, failure, set(states), before, after


def cut(data: bytes, places: list[int], ends: bool) -> list[bytes]:
    edges = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges) if a < b]
    return [*pieces, b""] if ends else pieces


def asking(method: bytes) -> RequestHead:
    fields: list[Pair] = [
        (b"accept", b"*/*"),
        (b"via", b"1.1 x"),
        (b"host", b"never"),
        (b"x", b""),
    ]
    return RequestHead(method, b"http", b"a.example:80", b"/x?y", Headers(fields))


def both(data: bytes, places: list[int], ends: bool, method: bytes, late: bool) -> None:
    pieces = cut(data, places, ends)
    ours = told(engine(plain=True), asking(method), pieces, late)
    assert ours == told(engine(plain=False), asking(method), pieces, late)


@settings(max_examples=300)
@given(GOOD, CUTS, st.booleans(), METHODS, st.booleans())
def test_a_good_answer_is_read_as_h11_reads_it(
    data: bytes, places: list[int], ends: bool, method: bytes, late: bool
) -> None:
    both(data, places, ends, method, late)


@settings(max_examples=600)
@given(NEAR, CUTS, st.booleans(), METHODS, st.booleans())
def test_near_misses_fare_as_with_h11(
    data: bytes, places: list[int], ends: bool, method: bytes, late: bool
) -> None:
    both(data, places, ends, method, late)


@settings(max_examples=400)
@given(mutants(), CUTS, st.booleans(), METHODS, st.booleans())
def test_mutated_answers_fare_as_with_h11(
    data: bytes, places: list[int], ends: bool, method: bytes, late: bool
) -> None:
    both(data, places, ends, method, late)


@settings(max_examples=200)
@given(
    st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"CONNECT", b"G T", b""]),
    st.sampled_from([b"/", b"*", b"/a?b", b"", b"/ x", b"/\xe9", b"/\r\n", b"http://a/"]),
    st.sampled_from([b"a", b"[::1]:80", b"", b"a b", b"a\r\nX: y", b"\xe9", b" a"]),
    st.lists(st.sampled_from([(b"x", b"y"), (b"connection", b"close"), (b"te", b"x"),
                              (b"content-length", b"0"), (b"expect", b"x"), (b"x", b"a\r\nb")])),
)  # fmt: skip
def test_a_request_is_written_as_h11_writes_it(
    method: bytes, target: bytes, authority: bytes, fields: list[Pair]
) -> None:
    head = RequestHead(method, b"http", authority, target, Headers(fields))
    written: list[object] = []
    for plain in (True, False):
        client = engine(plain=plain)
        try:
            client.send(STREAM, head)
            client.send(STREAM, End())
            written.append(b"".join(client.outgoing()))
        except ExchangeError as error:
            written.append(error.failure)
    assert written[0] == written[1]


@settings(max_examples=200)
@given(st.lists(st.tuples(GOOD | NEAR, METHODS, st.booleans()), min_size=2, max_size=4))
def test_a_connection_goes_on_as_with_h11(exchanges: list[tuple[bytes, bytes, bool]]) -> None:
    """Some of the exchanges are more than plain, so that both take turns."""
    ours, theirs = engine(plain=True), engine(plain=False)
    for data, method, is_plain in exchanges:
        head = asking(method if is_plain else b"OPTIONS")
        assert told(ours, head, [data], False) == told(theirs, head, [data], False)
        if not ours.reusable:
            return
