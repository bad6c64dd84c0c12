"""The gate before h11: what goes through, what is held back, what is refused, and when."""

from __future__ import annotations

import time

import pytest

from edge.errors import Failure, ProtocolError
from edge.wire.gate import CHUNKS_AT_ONCE, Gate, RequestGate, ResponseGate
from edge.wire.grammar import Limits

LIMITS = Limits(
    head_bytes=300,
    target_bytes=50,
    chunk_line_bytes=20,
    extension_bytes=30,
    trailer_bytes=40,
    interim_heads=2,
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def through(gate: Gate, *data: bytes) -> bytes:
    """What the gate passes on of `data`, in all."""
    out = b""
    for piece in data:
        gate.receive(piece)
        while pieces := gate.take():
            out += b"".join(pieces)
    return out


def refusal(gate: Gate, *data: bytes) -> Failure:
    with pytest.raises(ProtocolError) as caught:
        through(gate, *data)
    return caught.value.failure


def expecting(method: bytes = b"GET") -> ResponseGate:
    gate = ResponseGate(LIMITS)
    gate.expect(method)
    return gate


def test_nothing_of_a_head_goes_through_before_it_is_whole() -> None:
    gate = RequestGate(LIMITS)
    assert through(gate, GET[:-1]) == b""
    assert gate.buffered == len(GET) - 1
    assert through(gate, GET[-1:]) == GET
    assert gate.whole


def test_the_next_message_waits_for_its_turn() -> None:
    gate = RequestGate(LIMITS)
    assert through(gate, GET + b"GET  bad") == GET
    assert gate.buffered == 8
    gate.next_request()
    assert refusal(gate, b" HTTP/1.1\r\n") is Failure.BAD_MESSAGE


def test_chunks_in_hand_go_through_as_one_without_extensions_or_trailers() -> None:
    gate = RequestGate(LIMITS)
    body = b"1\r\na\r\n2;x=y\r\nbc\r\n003\r\ndef\r\n0;z\r\nA: b\r\n\r\n"
    assert through(gate, CHUNKED + body) == CHUNKED + b"6\r\nabcdef\r\n0\r\n\r\n"
    assert gate.whole
    assert gate.buffered == 0


def test_a_flood_of_small_chunks_is_not_taken_in_at_once() -> None:
    gate = RequestGate(LIMITS)
    count = 3 * CHUNKS_AT_ONCE
    gate.receive(CHUNKED + b"1\r\nx\r\n" * count + b"0\r\n\r\n")
    sizes: list[int] = []
    while pieces := gate.take():
        sizes.append(b"".join(pieces).count(b"x"))
    assert max(sizes) == CHUNKS_AT_ONCE
    assert sum(sizes) == count


def test_a_chunk_cut_anywhere_goes_through_whole() -> None:
    body = b"5;a\r\nhello\r\n0\r\nT: x\r\n\r\n"
    for place in range(len(body) + 1):
        gate = RequestGate(LIMITS)
        passed = through(gate, CHUNKED + body[:place], *filter(None, [body[place:]]))
        assert passed.startswith(CHUNKED)
        assert passed.endswith(b"0\r\n\r\n")
        assert gate.whole


def test_what_was_good_before_a_bad_chunk_goes_through_first() -> None:
    gate = RequestGate(LIMITS)
    gate.receive(CHUNKED + b"2\r\nhi\r\nzz\r\n")
    assert b"".join(gate.take()) == CHUNKED
    assert b"".join(gate.take()) == b"2\r\nhi\r\n"
    for _ in range(2):  # and the fault is final
        with pytest.raises(ProtocolError):
            gate.take()


def test_one_empty_line_before_a_request_is_forgiven_and_two_are_not() -> None:
    for cut in range(1, 4):
        data = b"\r\n" + GET
        assert through(RequestGate(LIMITS), data[:cut], data[cut:]) == GET
    assert refusal(RequestGate(LIMITS), b"\r\n\r\n") is Failure.BAD_MESSAGE
    assert refusal(expecting(), b"\r\nHTTP/1.1 200 OK\r\n\r\n") is Failure.BAD_RESPONSE


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("raw", "failure"),
    [
        (b"GET /" + b"a" * 200, Failure.TARGET_TOO_LONG),
        (b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n", Failure.TARGET_TOO_LONG),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 300, Failure.HEAD_TOO_LARGE),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 300 + b"\r\n\r\n", Failure.HEAD_TOO_LARGE),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 300 + b"\x00", Failure.HEAD_TOO_LARGE),
        (b"GET / HTTP/1.1\r\nX: \x00" + b"a" * 300, Failure.BAD_MESSAGE),
        (b"GET /" + b"a" * 200 + b"\x00", Failure.TARGET_TOO_LONG),
        (b"GET /\x00" + b"a" * 200, Failure.BAD_MESSAGE),
        (b"GET / HTTP/2.0\r\nX: \x00", Failure.BAD_VERSION),
        (b"GET / HTTP/2.0\r\nX: \x00\r\n\r\n", Failure.BAD_VERSION),
        (b"GET /\n", Failure.BAD_MESSAGE),
        (b"GET /\rx", Failure.BAD_MESSAGE),
        (CHUNKED + b"5;" + b"a" * 30, Failure.BAD_MESSAGE),
        (CHUNKED + b"1;aaaaaaaaaaaa\r\nx\r\n" * 3, Failure.BAD_MESSAGE),
        (CHUNKED + b"0\r\nA: " + b"b" * 50, Failure.BAD_MESSAGE),
        (CHUNKED + b"0\r\nA: " + b"b" * 50 + b"\r\n\r\n", Failure.BAD_MESSAGE),
        (CHUNKED + b"2\r\nhix", Failure.BAD_MESSAGE),
    ],
)
def test_a_refusal_does_not_depend_on_the_cut(raw: bytes, failure: Failure, size: int) -> None:
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
    assert refusal(RequestGate(LIMITS), *pieces) is failure


def test_a_head_of_exactly_the_limit_goes_through() -> None:
    room = LIMITS.head_bytes - len(GET) - len(b"X: \r\n")
    head = GET[:-2] + b"X: " + b"a" * room + b"\r\n\r\n"
    assert len(head) == LIMITS.head_bytes
    assert through(RequestGate(LIMITS), head) == head
    longer = head.replace(b"X: ", b"X: a")
    assert refusal(RequestGate(LIMITS), longer) is Failure.HEAD_TOO_LARGE


def test_a_line_of_exactly_the_limit_goes_through() -> None:
    for extra, good in ((0, True), (1, False)):
        target = b"/" + b"a" * (LIMITS.target_bytes - 1 + extra)
        head = b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        for pieces in ([head], [head[i : i + 1] for i in range(len(head))]):
            if good:
                assert through(RequestGate(LIMITS), *pieces) == head
            else:
                assert refusal(RequestGate(LIMITS), *pieces) is Failure.TARGET_TOO_LONG


def test_the_end_of_input_is_good_between_requests_and_bad_inside_them() -> None:
    gate = RequestGate(LIMITS)
    assert through(gate, GET, b"") == GET
    gate.next_request()
    assert gate.take() == ()
    assert refusal(RequestGate(LIMITS), GET[:5], b"") is Failure.BAD_MESSAGE
    assert refusal(RequestGate(LIMITS), CHUNKED, b"") is Failure.BAD_MESSAGE


def test_the_end_of_input_is_closed_early_truncated_or_the_end_of_a_response() -> None:
    assert refusal(expecting(), b"") is Failure.CLOSED_EARLY
    assert refusal(expecting(), b"HTTP/1.1 ", b"") is Failure.CLOSED_EARLY
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi"
    assert refusal(expecting(), short, b"") is Failure.BODY_TRUNCATED
    gate = expecting()
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    assert through(gate, head + b"hi") == head + b"hi"
    gate.receive(b"")
    assert tuple(gate.take()) == (b"",)
    assert gate.whole
    assert gate.take() == ()


def test_interim_heads_go_through_up_to_their_limit() -> None:
    interim = b"HTTP/1.1 103 Hint\r\n\r\n"
    final = b"HTTP/1.1 204 No\r\n\r\n"
    gate = expecting()
    assert through(gate, interim * 2 + final + b"behind") == interim * 2 + final
    assert gate.leftover() == b"behind"
    assert gate.buffered == 0
    gate.expect(b"GET")
    assert through(gate, interim * 2) == interim * 2
    assert refusal(gate, interim) is Failure.BAD_RESPONSE


def test_what_follows_a_101_is_left_over() -> None:
    gate = expecting()
    head = b"HTTP/1.1 101 Go\r\nUpgrade: x\r\n\r\n"
    assert through(gate, head + b"HTTP/1.1 200 OK\r\n\r\n") == head
    assert gate.leftover() == b"HTTP/1.1 200 OK\r\n\r\n"


def test_body_bytes_go_through_as_views_of_what_was_read() -> None:
    gate = RequestGate(LIMITS)
    through(gate, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
    data = b"abcdefGET"
    gate.receive(data)
    (piece,) = gate.take()
    assert isinstance(piece, memoryview)
    assert piece.obj is data
    assert bytes(piece) == b"abcdef"


def test_bytes_received_while_a_message_waits_are_joined() -> None:
    gate = RequestGate(LIMITS)
    gate.receive(b"POST / HTTP/1.1\r\nHost: a\r\n")
    gate.receive(b"Content-Length: 4\r\n\r\nab")
    gate.take()
    gate.receive(b"cd")
    gate.receive(b"GET")
    assert b"".join(gate.take()) == b"abcd"
    assert gate.leftover() == b"GET"


@pytest.mark.parametrize(
    ("start", "filler", "end"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"a", b"\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"a:b\r\n", b"\r\n"),
        (CHUNKED, b"1\r\nx\r\n", b"0\r\n\r\n"),
        (CHUNKED + b"0\r\nX: ", b"a", b"\r\n\r\n"),
    ],
)
def test_a_byte_at_a_time_takes_linear_time(start: bytes, filler: bytes, end: bytes) -> None:
    limits = Limits(head_bytes=1 << 20, trailer_bytes=1 << 20, fields=1 << 20)

    def cost_s(size: int) -> float:
        data = start + filler * (size // len(filler)) + end
        gate = RequestGate(limits)
        started = time.process_time()
        through(gate, *(data[i : i + 1] for i in range(len(data))))
        assert gate.whole
        return time.process_time() - started

    assert cost_s(40_000) < 12 * max(cost_s(8_000), 0.005)
