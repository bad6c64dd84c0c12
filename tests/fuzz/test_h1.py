"""Laws of the HTTP/1.1 engines: one kind of error, one reading, what is sent arrives."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import Failure, ProtocolError
from edge.wire.client import ClientEngine
from edge.wire.h1 import STREAM, Limits, ServerEngine
from edge.wire.message import Chunk, End, Headers, Message, RequestHead, ResponseHead
from tests.vectors import hostile

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMITS = Limits(
    head_bytes=400,
    target_bytes=60,
    fields=8,
    chunk_line_bytes=24,
    extension_bytes=60,
    trailer_bytes=80,
    interim_heads=3,
)
EMPTY = ResponseHead(200, Headers([(b"content-length", b"0")]))
Outcome: TypeAlias = tuple[list[Message], "Failure | None"]

# Pieces that fall together into heads and bodies, good and bad, far more often than bytes do.
PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n", b"POST /x?y HTTP/1.1\r\n", b"HEAD / HTTP/1.0\r\n",
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Hint\r\n", b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 204\r\n", b"HTTP/1.1 101 Go\r\n",
        b"Host: a.example\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"X: " + b"y" * 70 + b"\r\n",
        b"\r\n", b"\r", b"\n", b"abc", b"3\r\nabc\r\n", b"2;a=b\r\nhi\r\n", b"0\r\n\r\n",
        b"0\r\nT: x\r\n\r\n", b"ffffffffffffffff\r\n", b" ", b":", b"\x00", b"\xff", b"z" * 90,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ]
)  # fmt: skip
BYTES = st.one_of(st.lists(PIECES, max_size=12).map(b"".join), st.binary(max_size=300))
CUTS = st.lists(st.integers(0, 600), max_size=12)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


def read(engine: ServerEngine | ClientEngine, pieces: Sequence[bytes], ends: bool) -> Outcome:
    """The messages made of `pieces`, body pieces joined, requests answered; and the failure."""
    made: list[Message] = []
    try:
        for piece in [*pieces, *([b""] if ends else [])]:
            engine.receive(piece)
            for _, message in engine.messages():
                last = made[-1] if made else None
                if isinstance(message, Chunk) and isinstance(last, Chunk):
                    made[-1] = Chunk(bytes(last.data) + bytes(message.data))
                else:
                    made.append(message)
                if isinstance(message, End) and isinstance(engine, ServerEngine):
                    engine.send(STREAM, EMPTY)
                    engine.send(STREAM, End())
    except ProtocolError as error:
        return made, error.failure
    return made, None


def asked(method: bytes = b"GET") -> ClientEngine:
    engine = ClientEngine(LIMITS)
    engine.send(STREAM, RequestHead(method, b"http", b"a", b"/"))
    engine.send(STREAM, End())
    return engine


@settings(max_examples=200)
@given(BYTES, CUTS, st.booleans())
def test_a_server_reads_any_bytes_the_same_however_they_are_cut(
    data: bytes, places: list[int], ends: bool
) -> None:
    whole = read(ServerEngine(LIMITS), [data] if data else [], ends)
    assert read(ServerEngine(LIMITS), cut(data, places), ends) == whole
    single = [data[i : i + 1] for i in range(len(data))]
    assert read(ServerEngine(LIMITS), single, ends) == whole


@settings(max_examples=200)
@given(BYTES, CUTS, st.booleans(), st.sampled_from([b"GET", b"HEAD"]))
def test_a_client_reads_any_bytes_the_same_however_they_are_cut(
    data: bytes, places: list[int], ends: bool, method: bytes
) -> None:
    whole = read(asked(method), [data] if data else [], ends)
    assert read(asked(method), cut(data, places), ends) == whole
    single = [data[i : i + 1] for i in range(len(data))]
    assert read(asked(method), single, ends) == whole


SEEDS = [case.raw for case in hostile.requests() if len(case.raw) < 500]


@settings(max_examples=200)
@given(st.sampled_from(SEEDS), st.integers(0, 500), st.binary(max_size=3), st.integers(0, 3))
def test_a_mutated_vector_is_messages_or_a_protocol_error(
    raw: bytes, place: int, inserted: bytes, removed: int
) -> None:
    mutant = raw[:place] + inserted + raw[place + removed :]
    whole = read(ServerEngine(), [mutant] if mutant else [], True)
    assert read(ServerEngine(), [mutant[i : i + 1] for i in range(len(mutant))], True) == whole


@settings(max_examples=200)
@given(st.sampled_from(SEEDS), st.integers(0, 500), st.binary(max_size=2))
def test_what_the_gate_lets_through_h11_alone_reads_the_same(
    raw: bytes, place: int, inserted: bytes
) -> None:
    raw = raw[:place] + inserted + raw[place:]
    made, failure = read(ServerEngine(), [raw], False)
    if failure is not None or not made or made.count(End()) != 1 or made[-1] != End():
        return
    oracle = h11.Connection(h11.SERVER)
    oracle.receive_data(raw.removeprefix(b"\r\n"))  # the gate forgives one empty line
    head = oracle.next_event()
    assert isinstance(head, h11.Request)
    assert isinstance(made[0], RequestHead)
    assert head.method == made[0].method
    body = b""
    while isinstance(event := oracle.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert body == b"".join(bytes(m.data) for m in made if isinstance(m, Chunk))


# --- what one side sends, the other receives ----------------------------------

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12).map(
    lambda name: b"x-" + name.encode()
)
VALUE = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30
).map(lambda value: value.encode("latin-1"))
FIELDS = st.lists(st.tuples(TOKEN, VALUE), max_size=6)
BODY = st.lists(st.binary(min_size=1, max_size=200), max_size=4)


def framing(body: list[bytes], by_length: bool) -> tuple[bytes, bytes]:
    """The field that frames `body`; it leaves before the others, whose order stays."""
    if by_length:
        return b"content-length", b"%d" % sum(map(len, body))
    return b"transfer-encoding", b"chunked"


def passed(
    sender: ServerEngine | ClientEngine,
    head: RequestHead | ResponseHead,
    body: list[bytes],
    places: Sequence[int],
) -> list[bytes]:
    for message in (head, *map(Chunk, body), End()):
        sender.send(STREAM, message)
    return cut(b"".join(sender.outgoing()), places)


@settings(max_examples=150)
@given(FIELDS, BODY, st.booleans(), CUTS)
def test_a_request_sent_is_received_equal(
    fields: list[tuple[bytes, bytes]], body: list[bytes], by_length: bool, places: list[int]
) -> None:
    head = RequestHead(
        b"POST", b"http", b"a.example", b"/p?q", Headers([framing(body, by_length), *fields])
    )
    made, failure = read(ServerEngine(), passed(ClientEngine(), head, body, places), False)
    assert failure is None
    assert made[0] == head
    assert b"".join(bytes(m.data) for m in made if isinstance(m, Chunk)) == b"".join(body)
    assert made[-1] == End()


@settings(max_examples=150)
@given(FIELDS, BODY, st.booleans(), CUTS, st.sampled_from([200, 404, 503]))
def test_a_response_sent_is_received_equal(
    fields: list[tuple[bytes, bytes]],
    body: list[bytes],
    by_length: bool,
    places: list[int],
    status: int,
) -> None:
    server, client = ServerEngine(), ClientEngine()
    client.send(STREAM, RequestHead(b"GET", b"http", b"a", b"/"))
    client.send(STREAM, End())
    server.receive(b"".join(client.outgoing()))
    list(server.messages())
    own = [framing(body, True)] if by_length else []
    head = ResponseHead(status, Headers([*own, *fields]), b"A reason")
    made, failure = read(client, passed(server, head, body, places), False)
    assert failure is None
    received = made[0]
    assert isinstance(received, ResponseHead)
    assert (received.status, received.reason) == (status, b"A reason")
    assert received.headers.without({b"transfer-encoding"}) == head.headers
    assert b"".join(bytes(m.data) for m in made if isinstance(m, Chunk)) == b"".join(body)
    assert made[-1] == End()
    assert client.reusable
    assert server.keep_alive
