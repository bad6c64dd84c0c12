"""HTTP/1.1 engines: hostile vectors, order, framing, keep-alive, upgrades."""

from __future__ import annotations

import gc
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge.errors import ExchangeError, Failure, ProtocolError
from edge.wire.client import ClientEngine
from edge.wire.h1 import STREAM, Limits, ServerEngine
from edge.wire.message import Chunk, End, Headers, Message, RequestHead, Reset, ResponseHead
from tests.vectors import hostile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge.wire.message import Pair

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
REQUEST = RequestHead(b"GET", b"http", b"example.com", b"/")
EMPTY = ResponseHead(200, Headers([(b"content-length", b"0")]))


def messages(engine: ServerEngine | ClientEngine, *data: bytes) -> list[Message]:
    for piece in data:
        engine.receive(piece)
    return [message for _, message in engine.messages()]


def sent(engine: ServerEngine | ClientEngine, *what: Message) -> bytes:
    for message in what:
        engine.send(STREAM, message)
    return b"".join(engine.outgoing())


def asked(head: RequestHead = REQUEST) -> ClientEngine:
    """A client that has sent a whole request without body."""
    engine = ClientEngine()
    sent(engine, head, End())
    return engine


def server_outcome(case: hostile.Request) -> tuple[list[RequestHead], int | None]:
    """The request heads made of the vector (each answered), and the status of its refusal."""
    engine = ServerEngine()
    engine.receive(case.raw)
    if case.ends:
        engine.receive(b"")
    heads: list[RequestHead] = []
    try:
        for _, message in engine.messages():
            if isinstance(message, RequestHead):
                heads.append(message)
            if isinstance(message, End):
                sent(engine, EMPTY, End())
    except ProtocolError as error:
        assert engine.can_answer
        answer = ResponseHead(error.status, Headers([(b"content-length", b"0")]))
        assert b"connection: close" in sent(engine, answer, End())
        assert engine.finished
        assert not engine.keep_alive
        return heads, error.status
    return heads, None


@pytest.mark.parametrize("case", hostile.requests(), ids=lambda case: case.name)
def test_a_hostile_request_gets_its_status_and_nothing_behind_it_is_read(
    case: hostile.Request,
) -> None:
    heads, status = server_outcome(case)
    assert all(head.target != b"/smuggled" for head in heads)
    assert all(head.headers.all(b"http2-settings") == [] for head in heads)
    if case.family == "benign" and status is None:
        assert heads
    else:
        assert status in case.status


# An over-long input needs no byte-wise feeding to show the law; those that are short get it.
SHORT = [case for case in hostile.requests() if len(case.raw) < 2_000]


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.name)
def test_a_hostile_request_fares_the_same_byte_by_byte(case: hostile.Request) -> None:
    engine = ServerEngine()
    heads: list[RequestHead] = []
    status = None
    try:
        for i in range(len(case.raw) + 1):
            if i < len(case.raw):
                engine.receive(case.raw[i : i + 1])
            elif case.ends:
                engine.receive(b"")
            for _, message in engine.messages():
                if isinstance(message, RequestHead):
                    heads.append(message)
                if isinstance(message, End):
                    sent(engine, EMPTY, End())
            if engine.finished:
                break
    except ProtocolError as error:
        status = error.status
    assert (heads, status) == server_outcome(case)


@pytest.mark.parametrize("case", hostile.responses(), ids=lambda case: case.name)
@pytest.mark.parametrize("size", [1 << 20, 1])
def test_a_hostile_response_fails_as_its_vector_says(case: hostile.Response, size: int) -> None:
    if size == 1 and len(case.raw) > 2_000:
        size = 1_000
    engine = asked(RequestHead(case.method, b"http", b"example.com", b"/"))
    made: list[Message] = []
    failure = ""
    try:
        for i in range(0, len(case.raw), size):
            made += messages(engine, case.raw[i : i + size])
        if case.ends:
            made += messages(engine, b"")
    except ProtocolError as error:
        failure = error.failure.slug
    assert failure == case.failure
    assert engine.reusable == case.reusable
    assert (End() in made) == (not failure)
    if not failure:
        body = b"".join(bytes(m.data) for m in made if isinstance(m, Chunk))
        assert body == case.body


def test_pipelined_requests_are_made_one_at_a_time() -> None:
    engine = ServerEngine()
    first = messages(engine, GET + GET.replace(b"/ ", b"/2 "))
    assert [type(m) for m in first] == [RequestHead, End]
    assert messages(engine) == []
    sent(engine, EMPTY, End())
    second = messages(engine)
    assert isinstance(second[0], RequestHead)
    assert second[0].target == b"/2"


def test_an_error_waits_for_its_turn() -> None:
    engine = ServerEngine()
    messages(engine, GET + b"GET  / HTTP/1.1\r\n\r\n")
    assert b"200 OK" in sent(engine, EMPTY, End())
    assert engine.keep_alive
    with pytest.raises(ProtocolError):
        messages(engine)
    refusal = ResponseHead(400, Headers([(b"content-length", b"2")]))
    assert sent(engine, refusal, Chunk(b"no"), End()) == (
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
    )
    assert engine.finished


def test_a_fault_stays_a_fault() -> None:
    engine = ServerEngine()
    for data in (b"\x00", GET):
        with pytest.raises(ProtocolError):
            messages(engine, data)


@pytest.mark.parametrize(
    "raw",
    [
        b"G\0T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nno field\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nzz\r\n",
    ],
)
def test_a_fault_leaves_nothing_that_only_the_collector_would_free(raw: bytes) -> None:
    """Who errs on many connections would fill the memory until it comes, and it comes seldom."""

    def fail() -> None:
        engine = ServerEngine(Limits())
        for _ in range(2):
            with suppress(ProtocolError):
                messages(engine, raw)
                raise AssertionError("it is bad")

    fail()
    gc.collect()
    gc.disable()
    try:
        fail()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_an_iterator_of_messages_may_be_left_at_any_point() -> None:
    engine = ServerEngine()
    engine.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    made: list[Message] = []
    while not made or made[-1] != End():
        for _, message in engine.messages():
            made.append(message)
            break
    assert made[1:] == [Chunk(b"hi"), End()]


def test_an_early_answer_does_not_free_the_connection_before_the_body_was_read() -> None:
    engine = ServerEngine()
    messages(engine, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n" + GET[:10])
    sent(engine, EMPTY, End())
    assert engine.keep_alive
    assert messages(engine, GET[10:30]) == [Chunk(GET[10:30])]  # body still, never a request
    made = messages(engine, b"0123456789", GET)
    assert made[:2] == [Chunk(b"0123456789"), End()]
    assert isinstance(made[2], RequestHead)


def test_a_fault_in_a_body_that_was_answered_early_ends_the_connection() -> None:
    engine = ServerEngine()
    messages(engine, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent(engine, EMPTY, End())
    assert engine.readable()
    with pytest.raises(ProtocolError):
        messages(engine, b"no size\r\n")
    assert engine.finished
    assert not engine.keep_alive


def test_a_close_asked_by_either_side_ends_the_connection() -> None:
    for request, extra in [
        (GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), ()),
        (GET, ((b"connection", b"close"),)),
        (GET.replace(b"1.1", b"1.0"), ()),
    ]:
        engine = ServerEngine()
        messages(engine, request + GET)
        answer = sent(engine, ResponseHead(200, EMPTY.headers.plus(*extra)), End())
        assert answer.lower().count(b"connection: close") == 1
        assert engine.finished
        assert not engine.keep_alive
        assert messages(engine) == []


def test_a_response_is_framed_by_length_chunks_or_closing() -> None:
    def answer(version: bytes, headers: Headers, method: bytes = b"GET") -> bytes:
        engine = ServerEngine()
        messages(engine, method + b" / HTTP/" + version + b"\r\nHost: a\r\n\r\n")
        return sent(engine, ResponseHead(200, headers), Chunk(b"hi"), End())

    length = Headers([(b"content-length", b"2")])
    assert answer(b"1.1", length).endswith(b"content-length: 2\r\n\r\nhi")
    assert answer(b"1.1", Headers()).endswith(b"chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
    assert answer(b"1.0", Headers()).endswith(b"Connection: close\r\n\r\nhi")
    assert answer(b"1.1", length, b"HEAD").endswith(b"content-length: 2\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
def test_a_body_for_a_status_without_one_is_dropped(status: int) -> None:
    engine = ServerEngine()
    messages(engine, GET)
    headers = Headers([(b"content-length", b"2")])
    answer = sent(engine, ResponseHead(status, headers), Chunk(b"hi"), End())
    assert answer.endswith(b"\r\n\r\n")
    assert (b"content-length" in answer) == (status == 304)  # RFC 9110 §8.6
    assert engine.keep_alive


@pytest.mark.parametrize("body", [b"h", b"hey"])
def test_a_body_that_belies_its_length_is_our_fault_and_breaks_the_connection(
    body: bytes,
) -> None:
    engine = ServerEngine()
    messages(engine, GET)
    with pytest.raises(ExchangeError) as caught:
        sent(engine, ResponseHead(200, Headers([(b"content-length", b"2")])), Chunk(body), End())
    assert caught.value.failure is Failure.INTERNAL
    assert engine.finished
    assert not engine.can_answer


def test_a_reset_leaves_the_response_without_an_end() -> None:
    engine = ServerEngine()
    messages(engine, GET)
    error = ExchangeError(Failure.BODY_TRUNCATED)
    answer = sent(engine, ResponseHead(200), Chunk(b"hi"), Reset(error))
    assert answer.endswith(b"2\r\nhi\r\n")
    assert engine.finished
    with pytest.raises(ExchangeError):
        engine.send(STREAM, End())


def test_sent_body_data_are_the_very_objects_given() -> None:
    engine = ServerEngine()
    messages(engine, GET)
    data = memoryview(bytearray(b"x" * 100))
    engine.send(STREAM, ResponseHead(200))
    engine.send(STREAM, Chunk(data))
    assert any(piece is data for piece in engine.outgoing())
    assert engine.body_sent == 100
    assert engine.outgoing() == []


def test_the_window_shrinks_by_what_is_queued() -> None:
    engine = ServerEngine(Limits(unread_bytes=200))
    messages(engine, GET)
    engine.send(STREAM, ResponseHead(200, Headers([(b"content-length", b"300")])))
    before = engine.window(STREAM)
    engine.send(STREAM, Chunk(b"x" * 50))
    assert engine.window(STREAM) == before - 50
    engine.send(STREAM, Chunk(b"x" * 250))
    assert engine.window(STREAM) == 0
    engine.outgoing()
    assert engine.window(STREAM) == 200


def test_unread_body_stops_the_reading_until_it_is_consumed() -> None:
    engine = ServerEngine(Limits(unread_bytes=100))
    messages(engine, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n")
    assert engine.readable()
    messages(engine, b"x" * 100)
    assert not engine.readable()
    engine.consumed(STREAM, 100)
    assert engine.readable()
    assert engine.body_received == 100


def test_requests_behind_stop_the_reading_at_the_head_limit() -> None:
    engine = ServerEngine(Limits(head_bytes=500))
    messages(engine, GET)
    while engine.readable():
        engine.receive(GET)
    assert len(engine.leftover()) < 500 + len(GET)


def test_continue_is_expected_until_the_body_or_an_answer_comes() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    engine = ServerEngine()
    messages(engine, head)
    assert engine.expects_continue(STREAM)
    expected = [engine.body_expected]
    assert sent(engine, ResponseHead(100)) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not engine.expects_continue(STREAM)
    assert messages(engine, b"hi") == [Chunk(b"hi"), End()]
    assert [*expected, engine.body_expected] == [True, False]
    early = ServerEngine()
    early.receive(head + b"hi")
    next(early.messages())
    assert not early.expects_continue(STREAM)


def test_an_answer_in_place_of_continue_closes() -> None:
    engine = ServerEngine()
    messages(
        engine, b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    assert b"connection: close" in sent(engine, EMPTY, End())
    assert engine.finished


def test_interim_responses_are_kept_from_http_1_0() -> None:
    engine = ServerEngine()
    messages(engine, GET.replace(b"1.1", b"1.0"))
    assert sent(engine, ResponseHead(103)) == b""


def test_an_answer_to_no_request_closes() -> None:
    engine = ServerEngine()
    messages(engine, GET[:10])
    assert engine.has_partial_head
    answer = sent(engine, ResponseHead(408, Headers([(b"content-length", b"0")])), End())
    assert b"connection: close" in answer
    assert engine.finished


def test_a_half_closed_client_is_answered_before_the_end() -> None:
    engine = ServerEngine()
    messages(engine, GET + GET, b"")
    lives = []
    for _ in range(2):
        sent(engine, EMPTY, End())
        lives.append((engine.keep_alive, engine.finished))
        messages(engine)
    assert lives == [(True, False), (False, True)]


def test_a_client_that_leaves_between_requests_is_no_fault() -> None:
    for before in (b"", b"\r\n"):
        engine = ServerEngine()
        assert messages(engine, before, b"") == [] if before else messages(engine, b"") == []
        assert engine.finished
        assert not engine.readable()


WEBSOCKET = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = ResponseHead(
    101, Headers([(b"connection", b"upgrade"), (b"upgrade", b"websocket")]), b"Switching Protocols"
)


def test_an_accepted_upgrade_leaves_what_is_behind_to_the_tunnel() -> None:
    engine = ServerEngine()
    made = messages(engine, WEBSOCKET + b"\x81\x05hello")
    assert made[-1] == End()
    assert engine.upgrade_requested
    assert messages(engine) == []
    assert sent(engine, SWITCH).startswith(b"HTTP/1.1 101 ")
    assert engine.upgraded
    assert engine.finished
    assert engine.leftover() == b"\x81\x05hello"


def test_a_refused_upgrade_makes_what_is_behind_the_next_request() -> None:
    engine = ServerEngine()
    messages(engine, WEBSOCKET + GET)
    sent(engine, EMPTY, End())
    assert not engine.upgraded
    assert [type(m) for m in messages(engine)] == [RequestHead, End]


@pytest.mark.parametrize(
    "raw",
    [
        WEBSOCKET.replace(b"websocket", b"h2c"),
        WEBSOCKET.replace(b"Connection: Upgrade\r\n", b""),
        WEBSOCKET.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WEBSOCKET.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\nhi"),
    ],
)
def test_an_upgrade_that_may_not_go_on_is_not_offered(raw: bytes) -> None:
    engine = ServerEngine()
    head = messages(engine, raw)[0]
    assert isinstance(head, RequestHead)
    assert b"upgrade" not in head.headers
    assert not engine.upgrade_requested
    with pytest.raises(ExchangeError):
        engine.send(STREAM, SWITCH) if head.version == b"1.1" else engine.send(STREAM, REQUEST)


def test_http2_among_the_protocols_offered_is_left_out() -> None:
    engine = ServerEngine()
    head = messages(engine, WEBSOCKET.replace(b"websocket", b"h2c, websocket"))[0]
    assert isinstance(head, RequestHead)
    assert head.headers.all(b"upgrade") == [b"websocket"]


UPGRADE = RequestHead(
    b"GET",
    b"http",
    b"a",
    b"/chat",
    Headers([(b"connection", b"upgrade"), (b"upgrade", b"websocket")]),
)


def test_a_client_takes_the_101_it_asked_for_and_no_other() -> None:
    engine = asked(UPGRADE)
    head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
    made = messages(engine, head % b"WebSocket" + b"\x81\x00")
    assert [m.status for m in made if isinstance(m, ResponseHead)] == [101]
    assert engine.upgraded
    assert engine.finished
    assert not engine.reusable
    assert engine.leftover() == b"\x81\x00"
    with pytest.raises(ProtocolError):
        messages(asked(UPGRADE), head % b"h2c")


def test_a_client_whose_upgrade_is_refused_reads_the_answer() -> None:
    engine = asked(UPGRADE)
    made = messages(engine, b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    assert made[-2:] == [Chunk(b"no"), End()]
    assert not engine.upgraded


def test_a_client_puts_host_first_and_frames_its_body_as_told() -> None:
    headers = Headers([(b"x", b"y"), (b"transfer-encoding", b"chunked")])
    head = RequestHead(b"POST", b"http", b"example.com", b"/p?q", headers)
    assert sent(ClientEngine(), head, Chunk(b"hi"), End()) == (
        b"POST /p?q HTTP/1.1\r\nhost: example.com\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n"
        b"2\r\nhi\r\n0\r\n\r\n"
    )
    with pytest.raises(ExchangeError):
        sent(ClientEngine(), REQUEST, Chunk(b"a body that no field announced"))


@pytest.mark.parametrize(
    "pair",
    [
        (b"x", b"1\r\nset-cookie: a=b"),
        (b"x", b"1\nset-cookie: a=b"),
        (b"x", b"1\r"),
        (b"x", b"\x00"),
        (b"x", b"\x7f"),
        (b"x: 1\r\ny", b"2"),
        (b"x ", b"1"),
        (b"x:", b"1"),
        (b"", b"1"),
        (b"Content-Length", b"7"),
        (b"Transfer-Encoding", b"chunked"),
        (b"transfer-encoding ", b"chunked"),
        (b"content-length", b"7\r\nx: 1"),
        (b"connection", b"close\r\nx: 1"),
    ],
    ids=repr,
)
def test_a_field_that_cannot_be_sent_is_our_own_fault_and_nothing_leaves(pair: Pair) -> None:
    server, fields = ServerEngine(), Headers([(b"age", b"1"), pair])
    messages(server, GET)
    with pytest.raises(ExchangeError) as told:
        server.send(STREAM, ResponseHead(200, fields))
    assert told.value.failure is Failure.INTERNAL
    assert server.outgoing() == []
    client = ClientEngine()
    with pytest.raises(ExchangeError):
        client.send(STREAM, replace(REQUEST, headers=fields))
    assert client.outgoing() == []


def test_a_client_goes_on_with_a_second_request() -> None:
    engine = asked()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    states = []
    for _ in range(2):
        assert messages(engine, answer)[-1] == End()
        states.append((engine.reusable, engine.finished))
        sent(engine, REQUEST, End())
        states.append((engine.reusable, engine.finished))
    assert states == [(True, False), (False, False)] * 2


@pytest.mark.parametrize("idle", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""])
def test_a_client_sends_nothing_after_bytes_or_an_end_that_came_while_idle(idle: bytes) -> None:
    engine = ClientEngine()
    engine.receive(idle)
    assert not engine.reusable
    with pytest.raises(ProtocolError) as caught:
        engine.send(STREAM, REQUEST)
    assert caught.value.retry
    assert engine.outgoing() == []


def test_a_second_request_before_the_first_is_answered_is_our_fault() -> None:
    engine = asked()
    with pytest.raises(ExchangeError) as caught:
        sent(engine, REQUEST)
    assert caught.value.failure is Failure.INTERNAL


def test_an_answer_before_the_end_of_the_request_leaves_nothing_to_reuse() -> None:
    engine = ClientEngine()
    sent(engine, RequestHead(b"POST", b"http", b"a", b"/", Headers([(b"content-length", b"9")])))
    made = messages(engine, b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
    assert made[-1] == End()
    assert not engine.reusable


def test_sides_send_only_their_own_heads() -> None:
    server, client = ServerEngine(), ClientEngine()
    for engine, head in ((server, REQUEST), (client, EMPTY)):
        with pytest.raises(ExchangeError):
            engine.send(STREAM, head)


def test_a_client_that_failed_is_finished() -> None:
    engine = asked()
    with pytest.raises(ProtocolError):
        messages(engine, b"junk\r\n")
    assert engine.finished
    assert not engine.readable()


def heads(made: list[Message]) -> Iterator[RequestHead]:
    return (message for message in made if isinstance(message, RequestHead))


def test_host_is_the_authority_and_no_field() -> None:
    engine = ServerEngine(scheme=b"https")
    (head,) = heads(
        messages(engine, b"GET /a?b HTTP/1.1\r\nHost: EXAMPLE.com:443\r\nX: Y\r\n\r\n")
    )
    assert head == RequestHead(b"GET", b"https", b"example.com", b"/a?b", Headers([(b"x", b"Y")]))


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ((b"content-length", b"9"), (b"ab", b"cd")),
        ((b"transfer-encoding", b"chunked"), (b"2\r\nab\r\n5\r\n", b"\r\n2\r\ncd\r\n0\r\n\r\n")),
    ],
)
def test_a_piece_that_is_sent_beside_is_counted_and_framed(
    field: Pair, told: tuple[bytes, bytes]
) -> None:
    engine = ServerEngine()
    messages(engine, GET)
    sent(engine, ResponseHead(200, Headers([field])))
    engine.send(STREAM, Chunk(b"ab"))
    assert engine.send_beside(STREAM, 5)
    assert engine.body_sent == 7
    assert b"".join(engine.outgoing()) == told[0]
    assert sent(engine, Chunk(b"cd"), End()) == told[1]
    assert engine.body_sent == 9
    assert engine.window(STREAM) == Limits().unread_bytes
    assert engine.keep_alive


def test_too_much_that_is_sent_beside_is_our_own_fault() -> None:
    engine = ServerEngine()
    messages(engine, GET)
    sent(engine, ResponseHead(200, Headers([(b"content-length", b"3")])))
    for _ in range(2):
        with pytest.raises(ExchangeError) as caught:
            engine.send_beside(STREAM, 4)
        assert caught.value.failure is Failure.INTERNAL


def test_nothing_is_sent_beside_where_there_is_no_body() -> None:
    engine = ServerEngine()
    messages(engine, GET.replace(b"GET", b"HEAD"))
    sent(engine, ResponseHead(200, Headers([(b"content-length", b"3")])))
    assert not engine.send_beside(STREAM, 3)
    assert sent(engine, End()) == b""
    assert engine.keep_alive
