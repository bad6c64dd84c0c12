"""The plain exchange: what it takes on, what it leaves to h11, and what is our own fault."""

from __future__ import annotations

import h11
import pytest

from edge.errors import ExchangeError, Failure
from edge.wire.client import ClientEngine
from edge.wire.direct import plain_request, plain_response
from edge.wire.h1 import STREAM
from edge.wire.message import Chunk, End, Headers, Message, RequestHead, ResponseHead

REQUEST = RequestHead(b"GET", b"http", b"example.com", b"/a")
OK = b"HTTP/1.1 200 OK\r\n"


def asked(request: RequestHead = REQUEST) -> ClientEngine:
    engine = ClientEngine()
    engine.send(STREAM, request)
    engine.send(STREAM, End())
    return engine


def answered(engine: ClientEngine, data: bytes) -> list[Message]:
    engine.receive(data)
    return [message for _, message in engine.messages()]


def has_h11(engine: ClientEngine) -> bool:
    return isinstance(vars(engine).get("_h11"), h11.Connection)


def test_a_request_is_a_line_host_first_and_the_fields() -> None:
    assert (
        plain_request(REQUEST, b"x: y\r\n")
        == b"GET /a HTTP/1.1\r\nhost: example.com\r\nx: y\r\n\r\n"
    )


@pytest.mark.parametrize(
    "head",
    [
        RequestHead(b"POST", b"http", b"a", b"/"),
        RequestHead(b"CONNECT", b"http", b"a", b"a:1"),
        RequestHead(b"GET", b"http", b"", b"/"),
        RequestHead(b"GET", b"http", b"a b", b"/"),
        RequestHead(b"GET", b"http", b"a", b"/ /"),
        RequestHead(b"GET", b"http", b"a", b""),
    ],
)
def test_another_request_is_left_to_h11(head: RequestHead) -> None:
    assert plain_request(head, b"") is None


def test_an_answer_is_its_status_reason_and_fields() -> None:
    head = plain_response(OK + b"Server:x\r\nCONTENT-LENGTH: 3 \r\nconnection: Keep-Alive\r\n\r\n")
    pairs = [(b"server", b"x"), (b"content-length", b"3"), (b"connection", b"Keep-Alive")]
    assert head == ResponseHead(200, Headers(pairs), b"OK")
    assert plain_response(b"HTTP/1.1 404\r\n\r\n") == ResponseHead(404)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        OK + b"Connection: close\r\n\r\n",
        OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
        OK + b"Content-Length: 3, 3\r\n\r\n",
        OK + b"Transfer-Encoding: Chunked\r\n\r\n",
        OK + b"Upgrade: h2c\r\n\r\n",
        OK + b"Trailer: x\r\n\r\n",
    ],
)
def test_another_answer_is_left_to_h11(head: bytes) -> None:
    assert plain_response(head) is None


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"Content-Length: 3\r\n\r\nabc", b"abc"),
        (b"Content-Length: 0\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: x\r\n\r\n", b"a"),
    ],
)
def test_a_plain_exchange_needs_no_h11_and_frees_the_connection(data: bytes, body: bytes) -> None:
    engine = asked()
    _, *chunks, end = answered(engine, OK + data)
    assert b"".join(bytes(each.data) for each in chunks if isinstance(each, Chunk)) == body
    assert end == End()
    assert engine.body_received == len(body)
    assert engine.reusable
    assert not engine.finished
    assert not has_h11(engine)


def test_what_is_more_than_plain_is_handed_over_from_its_first_byte_on() -> None:
    engine = asked()
    made = answered(
        engine, b"HTTP/1.1 103 Hint\r\nx: y\r\n\r\n" + OK + b"content-length: 1\r\n\r\nz"
    )
    assert made == [
        ResponseHead(103, Headers([(b"x", b"y")]), b"Hint"),
        ResponseHead(200, Headers([(b"content-length", b"1")]), b"OK"),
        Chunk(b"z"),
        End(),
    ]
    assert has_h11(engine)
    assert engine.reusable
    engine.send(STREAM, REQUEST)  # and the next one is plain again
    engine.send(STREAM, End())
    assert answered(engine, OK + b"content-length: 0\r\n\r\n")[-1] == End()
    assert engine.reusable
    engine.send(STREAM, REQUEST)  # and one after that is not
    assert answered(engine, OK + b"connection: close\r\n\r\n")[0] == ResponseHead(
        200, Headers([(b"connection", b"close")]), b"OK"
    )
    engine.send(STREAM, End())
    assert not engine.reusable


def test_an_answer_before_the_end_of_the_request_frees_nothing() -> None:
    engine = ClientEngine()
    engine.send(STREAM, REQUEST)
    assert answered(engine, OK + b"content-length: 0\r\n\r\n")[-1] == End()
    assert not engine.reusable
    assert not engine.finished
    engine.send(STREAM, End())
    assert engine.reusable


@pytest.mark.parametrize("too_much", [Chunk(b"a body"), End()])
def test_more_than_the_request_that_was_sent_is_our_own_fault(too_much: Chunk | End) -> None:
    engine = asked()
    engine.send(STREAM, Chunk(b""))  # which is nothing
    with pytest.raises(ExchangeError) as caught:
        engine.send(STREAM, too_much)
    assert caught.value.failure is Failure.INTERNAL
    assert engine.finished
