"""The client engine where a request is more than plain: h11 reads each vector as it says.

What both ways have in common is in `test_h1`, the plain way in `test_direct`.
"""

from __future__ import annotations

import h11
import pytest

from edge.errors import ExchangeError, Failure, ProtocolError
from edge.wire.client import ClientEngine
from edge.wire.h1 import STREAM
from edge.wire.message import Chunk, End, Headers, Message, RequestHead, ResponseHead
from tests.vectors import hostile


def asked(method: bytes = b"GET") -> ClientEngine:
    """A client that has sent a request which h11 has to judge."""
    fields = Headers([(b"connection", b"keep-alive")])
    engine = ClientEngine()
    engine.send(STREAM, RequestHead(method, b"http", b"example.com", b"/", fields))
    engine.send(STREAM, End())
    return engine


@pytest.mark.parametrize("case", hostile.responses(), ids=lambda case: case.name)
def test_a_hostile_response_fails_as_its_vector_says_with_h11_too(case: hostile.Response) -> None:
    engine = asked(case.method)
    assert isinstance(vars(engine)["_h11"], h11.Connection)
    made: list[Message] = []
    failure = ""
    try:
        for piece in [case.raw, *([b""] if case.ends else [])]:
            engine.receive(piece)
            made += [message for _, message in engine.messages()]
    except ProtocolError as error:
        failure = error.failure.slug
    assert failure == case.failure
    assert engine.reusable == case.reusable
    if not failure:
        assert b"".join(bytes(m.data) for m in made if isinstance(m, Chunk)) == case.body


def test_host_is_written_once_and_is_the_authority() -> None:
    engine = ClientEngine()
    fields = Headers([(b"host", b"other.example"), (b"x", b"y")])
    engine.send(STREAM, RequestHead(b"GET", b"http", b"example.com", b"/", fields))
    assert b"".join(engine.outgoing()) == b"GET / HTTP/1.1\r\nhost: example.com\r\nx: y\r\n\r\n"


def test_a_client_sends_no_responses() -> None:
    with pytest.raises(ExchangeError) as caught:
        ClientEngine().send(STREAM, ResponseHead(200))
    assert caught.value.failure is Failure.INTERNAL
