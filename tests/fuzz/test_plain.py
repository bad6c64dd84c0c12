"""Laws of the plain reader: what it reads, the engine reads; what it remembers changes nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.wire.grammar import Limits
from edge.wire.plain import PlainReader
from tests.unit.wire.test_plain import CLIENTS, ordinary
from tests.vectors import hostile

LIMITS = Limits(head_bytes=400, target_bytes=40, fields=8)

# Lines that are all good, then those that nearly are.
GOOD_LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1", b"HEAD /a?b=c HTTP/1.1", b"GET //x/../%2e%00;y?#"[:-1] + b" HTTP/1.1",
        b"GET /*:http://a/ HTTP/1.1",
    ]
)  # fmt: skip
GOOD_HOSTS = st.sampled_from(
    [b"Host: a", b"host:A.Example.", b"HOST:\t a:80 ", b"Host: a:443", b"Host: [::1]:8080"]
)
GOOD_FIELDS = st.sampled_from(
    [
        b"Connection: keep-alive", b"connection:\tKeep-Alive ", b"Accept: */*", b"Cookie: a=b; c",
        b"X:", b"X: ", b"x: \xc3\xa9\xff", b"X: a \t b", b"Content-Type: text/plain",
        b"X-Forwarded-Proto: https", b"Hosts: b", b"Via: 1.1 x", b"!~: 1", b"Close: close",
        b"Cache-Control: no-cache", b"Range: bytes=0-1", b"If-None-Match: *", b"TEA: x",
    ]
)  # fmt: skip
NEAR_LINES = st.sampled_from(
    [
        b"POST / HTTP/1.1", b"GET / HTTP/1.0", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 ",
        b"GET http://a/ HTTP/1.1", b"GET * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"get / HTTP/1.1",
        b"GET /\xe9 HTTP/1.1", b"GET /# HTTP/1.1", b"GET / HTTP/2.0", b"GET / HTTP/1.12",
        b"GET /" + b"a" * 38 + b" HTTP/1.1", b"GET /" + b"a" * 39 + b" HTTP/1.1",
        b"GET /" + b"a" * 40 + b" HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"TRACE / HTTP/1.1",
        b"GETS / HTTP/1.1", b"", b"\r\nGET / HTTP/1.1", b"GET /\tHTTP/1.1", b"GET / http/1.1",
    ]
)  # fmt: skip
NEAR_FIELDS = st.sampled_from(
    [
        b"Connection: close", b"Connection: keep-alive, close", b"Connection: upgrade",
        b"Connection: x", b"Connection:", b"Upgrade: websocket", b"Upgrade: h2c",
        b"Content-Length: 0", b"Content-Length: 3", b"Content-Length:", b"content-length: x",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"transfer-encoding:",
        b"Expect: 100-continue", b"Expect: x", b"TE: trailers", b"Trailer: x",
        b"HTTP2-Settings: x", b"Max-Forwards: 0", b"Keep-Alive: 300", b"Proxy-Connection: x",
        b"Host: a", b"Host: b", b"Host:", b"Host: a,b", b"Host: a:0", b"Host : a", b"Host: a/",
        b" X: y", b"X y", b": y", b"X\t: y", b"X: \x00", b"X: \x7f", b"X: a\nY: b", b"X: a\rY: b",
        b"X: \x0b", b"\xe9: x", b"X: a\r\n folded", b"", b"X: " + b"y" * 300, b"(X): y",
    ]
)  # fmt: skip
ENDS = st.sampled_from(
    [b"\r\n\r\n"] * 6
    + [b"\r\n", b"\n\n", b"\r\n\r", b"\r\n\r\n\r\n", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"]
)
GOOD = st.builds(
    lambda line, host, fields, place: b"\r\n".join(
        [line, *fields[:place], host, *fields[place:], b"", b""]
    ),
    GOOD_LINES, GOOD_HOSTS, st.lists(GOOD_FIELDS, max_size=7), st.integers(0, 7),
)  # fmt: skip
FIELDS = st.lists(GOOD_FIELDS, max_size=6)


def whole(line: bytes, host: list[bytes], fields: list[bytes], end: bytes = b"\r\n\r\n") -> bytes:
    return b"\r\n".join([line, *host, *fields]) + end


ONE_HOST = st.tuples(GOOD_HOSTS).map(list)
MISSED = st.one_of(  # by one thing
    st.builds(whole, NEAR_LINES, ONE_HOST, FIELDS),
    st.builds(whole, GOOD_LINES, st.lists(GOOD_HOSTS, max_size=2), FIELDS),
    st.builds(whole, GOOD_LINES, ONE_HOST, st.lists(GOOD_FIELDS, min_size=7, max_size=10)),
    st.builds(whole, GOOD_LINES, ONE_HOST, FIELDS, ENDS),
    *[  # most often here, as here is the most to miss
        st.builds(
            lambda line, host, fields, near: whole(line, host, [*fields, near]),
            GOOD_LINES, ONE_HOST, FIELDS, NEAR_FIELDS,
        )
    ]
    * 3,
)  # fmt: skip
NEAR = MISSED | st.builds(
    whole, GOOD_LINES | NEAR_LINES, ONE_HOST, st.lists(GOOD_FIELDS | NEAR_FIELDS), ENDS
)
SEEDS = [*CLIENTS.values(), *(case.raw for case in hostile.requests() if len(case.raw) < 900)]
OCTETS = st.sampled_from([b"", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\x00", b":", b"#", b"\xff"])
ANY_OCTET = st.integers(0, 255).map(lambda octet: bytes([octet]))


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A good head or a hostile one with one to three places changed."""
    data = draw(st.sampled_from(SEEDS) | GOOD)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        removed = draw(st.integers(0, 2))
        data = data[:place] + draw(OCTETS | ANY_OCTET) + data[place + removed :]
    return data


@settings(max_examples=200)
@given(GOOD, st.sampled_from([b"http", b"https"]))
def test_a_good_head_is_plain_and_read_as_the_engine_reads_it(data: bytes, scheme: bytes) -> None:
    head = PlainReader(LIMITS, scheme).read(data)
    assert head is not None
    assert head == ordinary(data, LIMITS, scheme)


@settings(max_examples=200)
@given(NEAR)
def test_what_is_plain_among_near_misses_the_engine_reads_the_same(data: bytes) -> None:
    head = PlainReader(LIMITS).read(data)
    assert head is None or head == ordinary(data, LIMITS)


@settings(max_examples=200)
@given(mutants())
def test_what_is_plain_among_mutants_the_engine_reads_the_same(data: bytes) -> None:
    head = PlainReader(Limits()).read(data)
    assert head is None or head == ordinary(data)


@settings(max_examples=200)
@given(st.binary(max_size=200), GOOD, st.integers(0, 300))
def test_what_is_plain_among_pieces_and_sums_the_engine_reads_the_same(
    data: bytes, good: bytes, place: int
) -> None:
    for bad in (data, good[:place], good[:-2] + data + b"\r\n", good + data):
        head = PlainReader(LIMITS).read(bad)
        assert head is None or head == ordinary(bad, LIMITS)


@settings(max_examples=200)
@given(
    st.lists(GOOD | NEAR | mutants(), min_size=1, max_size=6),
    st.lists(st.integers(0, 5), max_size=40),
    st.sampled_from([0, 1500, 4000, 2**20]),
)
def test_what_is_remembered_changes_no_reading(
    heads: list[bytes], order: list[int], room_bytes: int
) -> None:
    warm = PlainReader(LIMITS, room_bytes=room_bytes)
    for place in order:
        data = heads[place % len(heads)]
        assert warm.read(data) == PlainReader(LIMITS).read(data)
