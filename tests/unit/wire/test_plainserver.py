"""The plain server engine: no h11 for a miss, the ordinary way for all else, our faults told."""

from __future__ import annotations

import h11
import pytest

from edge.errors import ExchangeError, Failure
from edge.wire.h1 import STREAM, Limits, ServerEngine
from edge.wire.message import Chunk, End, Headers, Message, RequestHead, ResponseHead
from edge.wire.plain import PlainReader
from edge.wire.plainserver import PlainServerEngine

GET = b"GET /a HTTP/1.1\r\nHost: a.example\r\nX: y\r\n\r\n"
HEAD = RequestHead(b"GET", b"http", b"a.example", b"/a", Headers([(b"x", b"y")]))
THREE = ResponseHead(200, Headers([(b"content-length", b"3"), (b"x", b"y")]))
STREAMED = ResponseHead(200, Headers([(b"x", b"y")]))


def engine(*data: bytes) -> PlainServerEngine:
    made = PlainServerEngine(Limits(), b"http", PlainReader(Limits()).read)
    for piece in data:
        made.receive(piece)
    return made


def read(one: ServerEngine, most: int = 9) -> list[Message]:
    return [message for _, (_, message) in zip(range(most), one.messages(), strict=False)]


def sent(one: ServerEngine, *messages: Message) -> bytes:
    for message in messages:
        one.send(STREAM, message)
    return b"".join(one.outgoing())


def has_h11(one: ServerEngine) -> bool:
    return isinstance(vars(one).get("_h11"), h11.Connection)


def test_a_plain_exchange_needs_no_h11_and_leaves_the_connection_at_rest() -> None:
    one = engine(GET)
    before = (one.is_at_rest, one.can_answer)
    assert next(one.messages()) == (STREAM, HEAD)
    assert before == (False, True)
    assert not one.expects_continue(STREAM)
    data = b"abc"
    one.send(STREAM, THREE)
    one.send(STREAM, Chunk(data))
    one.send(STREAM, End())
    head, body = one.outgoing()
    assert head == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: y\r\n\r\n"
    assert body is data
    assert one.is_at_rest
    assert not one.can_answer
    assert one.body_sent == 3
    assert not has_h11(one)


@pytest.mark.parametrize(
    "answer", [ResponseHead(304), ResponseHead(204), ResponseHead(304, Headers([(b"x", b"y")]))]
)
def test_a_body_for_a_status_without_one_is_dropped(answer: ResponseHead) -> None:
    one = engine(GET)
    read(one)
    assert sent(one, answer, Chunk(b"abc"), End()).endswith(b"\r\n\r\n")
    assert one.body_sent == 0
    assert one.keep_alive


@pytest.mark.parametrize(
    "answer",
    [
        STREAMED,
        ResponseHead(103, Headers([(b"x", b"y")])),
        ResponseHead(200, Headers([(b"content-length", b"3"), (b"connection", b"close")])),
        ResponseHead(204, Headers([(b"content-length", b"0")])),
    ],
)
@pytest.mark.parametrize("most", [1, 2])
def test_another_answer_is_written_by_h11(answer: ResponseHead, most: int) -> None:
    one, other = engine(GET), ServerEngine()
    other.receive(GET)
    assert read(one, most) == read(other, most)
    assert sent(one, answer) == sent(other, answer)
    assert has_h11(one)
    assert read(one) == read(other)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        GET + GET,
    ],
)
def test_another_request_is_read_by_h11(data: bytes) -> None:
    one = engine(data)
    assert isinstance(read(one)[0], RequestHead)
    assert has_h11(one)


def test_what_comes_behind_goes_the_ordinary_way() -> None:
    one = engine(GET, GET)
    assert read(one) == [HEAD, End()]
    assert not one.is_at_rest
    sent(one, THREE, Chunk(b"abc"), End())
    assert not one.is_at_rest
    assert read(one) == [HEAD, End()]
    assert sent(one, STREAMED, End()).endswith(b"chunked\r\nx: y\r\n\r\n0\r\n\r\n")
    one.receive(b"")
    assert read(one) == []
    assert one.finished


def test_a_client_that_leaves_behind_its_request_is_answered_first() -> None:
    one = engine(GET, b"")
    read(one)
    assert not one.finished
    sent(one, THREE, Chunk(b"abc"), End())
    assert one.finished


def test_an_answer_before_the_request_was_read_is_an_answer_to_nothing() -> None:
    assert b"connection: close" in sent(engine(GET), THREE)
    one = engine(GET)
    read(one)
    sent(one, THREE, Chunk(b"abc"), End())
    assert b"connection: close" in sent(one, THREE)


def test_bytes_that_were_not_read_as_a_request_are_left_over() -> None:
    assert engine(GET, b"more").leftover() == GET + b"more"
    one = engine(GET, b"more")
    read(one)
    assert one.leftover() == b"more"


@pytest.mark.parametrize(
    "faulty",
    [
        [Chunk(b"abc")],
        [End()],
        [THREE, Chunk(b"abcd")],
        [THREE, Chunk(b"ab"), End()],
        [THREE, THREE],
        [THREE, Chunk(b"abc"), End(), End()],
    ],
)
def test_an_answer_that_belies_itself_is_our_fault_and_breaks_the_connection(
    faulty: list[Message],
) -> None:
    one = engine(GET)
    read(one, 1)
    *good, bad = faulty
    sent(one, *good)
    with pytest.raises(ExchangeError) as caught:
        one.send(STREAM, bad)
    assert caught.value.failure is Failure.INTERNAL
    assert one.finished
    with pytest.raises(ExchangeError):
        one.send(STREAM, THREE)


def test_a_field_that_cannot_be_sent_leaves_room_for_a_refusal() -> None:
    one = engine(GET)
    read(one)
    with pytest.raises(ExchangeError):
        one.send(STREAM, ResponseHead(200, Headers([(b"Bad", b"x"), (b"content-length", b"0")])))
    assert one.can_answer
    with pytest.raises(ExchangeError):
        one.send(STREAM, HEAD)
    with pytest.raises(ExchangeError):
        one.send(STREAM, ResponseHead(101))
    assert b"200 OK" in sent(one, THREE)


def test_a_body_that_is_sent_beside_is_counted_like_any_other() -> None:
    one = engine(GET)
    read(one)
    sent(one, THREE, Chunk(b"a"))
    assert one.send_beside(STREAM, 2)
    assert (one.outgoing(), one.body_sent) == ([], 3)
    one.send(STREAM, End())
    assert one.is_at_rest
    assert not has_h11(one)


def test_what_is_sent_beside_must_fit_into_the_body() -> None:
    for before, size in (([], 1), ([THREE], 4), ([THREE, Chunk(b"abc")], 1)):
        one = engine(GET)
        read(one)
        sent(one, *before)
        with pytest.raises(ExchangeError) as caught:
            one.send_beside(STREAM, size)
        assert caught.value.failure is Failure.INTERNAL


def test_nothing_is_sent_beside_an_answer_without_a_body() -> None:
    one = engine(GET.replace(b"GET", b"HEAD"))
    read(one)
    sent(one, THREE)
    assert not one.send_beside(STREAM, 3)
    assert (sent(one, End()), one.body_sent) == (b"", 0)


def test_what_is_sent_beside_another_answer_is_framed_by_h11() -> None:
    one = engine(GET)
    read(one)
    sent(one, STREAMED)
    assert one.send_beside(STREAM, 3)
    assert b"".join(one.outgoing()) == b"3\r\n"
    assert sent(one, End()) == b"\r\n0\r\n\r\n"
