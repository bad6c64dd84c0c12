"""A client's connection, with a handler in place of the exchange; tests/stories has the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from edge.errors import ExchangeError, Failure
from edge.listen.connection import FIRST_S, Connection, ConnectionPolicy
from edge.upstream.transport import FileSpan
from edge.wire.message import Chunk, End, Headers, ResponseHead
from tests.stories.line import Line

if TYPE_CHECKING:
    from trio.testing import MockClock

    from edge.listen.connection import ClientStream, Handler
    from edge.wire.message import RequestHead

GET = b"GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: site.example\r\nContent-Length: 8\r\n\r\n"


class Node:
    """Runs connections with `handler`, and notes what was refused."""

    def __init__(self, handler: Handler, policy: ConnectionPolicy | None = None) -> None:
        self.refused: list[ExchangeError] = []
        self._handler = handler
        self._policy = policy or ConnectionPolicy()

    def connect(self, capacity: int = 1 << 16) -> tuple[Line, Connection]:
        client, server = Line.pair(capacity=capacity)
        connection = Connection(server, b"192.0.2.2", self._policy, self._handler, self._refuse)
        return client, connection

    def _refuse(self, peer: bytes, error: ExchangeError) -> tuple[ResponseHead, bytes]:
        self.refused.append(error)
        return ResponseHead(error.status, Headers([(b"content-length", b"2")])), b"no"


async def answer(stream: ClientStream, head: RequestHead) -> None:
    """Answers with the target."""
    length = b"%d" % len(head.target)
    await stream.send(ResponseHead(200, Headers([(b"content-length", length)])), more=True)
    await stream.send(Chunk(head.target), more=True)
    await stream.send(End())


async def everything(client: Line) -> bytes:
    data = b""
    while piece := await client.receive_some():
        data += piece
    return data


async def dialogue(node: Node, said: bytes) -> bytes:
    """What a client that says this and then ends its direction is told."""
    client, connection = node.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await client.send_all(said)
        await client.send_eof()
        data = await everything(client)
        client.close()
    return data


async def broken_off(node: Node) -> None:
    """A dialogue that the node ends with a reset."""
    client, connection = node.connect()
    await client.send_all(GET)
    await connection.run()
    with pytest.raises(trio.BrokenResourceError):
        await everything(client)


async def test_requests_on_one_connection_are_answered_in_turn() -> None:
    told = await dialogue(Node(answer), GET + GET.replace(b"/a", b"/b"))
    assert told.count(b"HTTP/1.1 200 OK") == 2
    assert told.index(b"/a") < told.index(b"/b")


async def test_an_answer_that_was_not_ended_is_broken_off() -> None:
    async def half(stream: ClientStream, head: RequestHead) -> None:
        await stream.send(ResponseHead(200, Headers([(b"content-length", b"9")])), more=True)
        await stream.send(Chunk(b"half"))

    await broken_off(Node(half))


async def test_a_handler_that_fails_harms_its_own_connection_only() -> None:
    async def fail(stream: ClientStream, head: RequestHead) -> None:
        raise ValueError("ours")

    node = Node(fail)
    await broken_off(node)
    assert [error.failure for error in node.refused] == [Failure.INTERNAL]


async def test_a_cancelled_exchange_breaks_its_connection_off(autojump_clock: MockClock) -> None:
    async def for_ever(stream: ClientStream, head: RequestHead) -> None:
        await stream.send(ResponseHead(200, Headers()))
        await trio.sleep_forever()

    client, connection = Node(for_ever).connect()
    await client.send_all(GET)
    with trio.move_on_after(5):
        await connection.run()
    with pytest.raises(trio.BrokenResourceError):
        await everything(client)


@pytest.mark.parametrize(
    ("said", "status"),
    [(b"BAD\r\n\r\n", b"400"), (GET.replace(b"1.1", b"2.0"), b"505"), (b"G", b"408")],
)
async def test_what_is_no_request_is_refused_and_the_connection_ended(
    said: bytes, status: bytes, autojump_clock: MockClock
) -> None:
    node = Node(answer)
    client, connection = node.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await client.send_all(said)
        told = await everything(client)
        client.close()
    assert told.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in told.lower()
    assert len(node.refused) == 1


@pytest.mark.parametrize("capacity", [1 << 16, 4])
async def test_a_client_that_cannot_be_told_of_its_refusal_is_dropped(
    capacity: int, autojump_clock: MockClock
) -> None:
    client, connection = Node(answer).connect(capacity)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await client.send_all(b"BAD\r\n\r\n")
        if capacity > 4:
            client.abort()


async def test_a_body_nobody_read_is_read_away_before_the_next_request() -> None:
    told = await dialogue(Node(answer), POST + b"12345678" + GET.replace(b"/a", b"/b"))
    assert told.count(b"HTTP/1.1 200 OK") == 2


async def test_a_body_is_read_in_pieces_and_ends() -> None:
    got: list[bytes] = []

    async def read(stream: ClientStream, head: RequestHead) -> None:
        body = stream.request_body()
        assert body is not None
        assert body.length == 8
        while isinstance(message := await body.receive(), Chunk):
            got.append(bytes(message.data))
        await answer(stream, head)

    await dialogue(Node(read), POST + b"12345678")
    assert b"".join(got) == b"12345678"


@pytest.mark.parametrize("peer_gone", [False, True])
async def test_a_body_that_stops_is_an_error_of_the_clients(
    *, peer_gone: bool, autojump_clock: MockClock
) -> None:
    failures: list[Failure] = []

    async def read(stream: ClientStream, head: RequestHead) -> None:
        body = stream.request_body()
        assert body is not None
        try:
            while isinstance(await body.receive(), Chunk):
                pass
        except ExchangeError as error:
            failures.append(error.failure)

    client, connection = Node(read).connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await client.send_all(POST + b"1234")
        await trio.testing.wait_all_tasks_blocked()
        if peer_gone:
            client.abort()
    assert failures == [Failure.CLIENT_LEFT if peer_gone else Failure.BODY_TIMEOUT]


async def test_a_body_is_allowed_as_long_as_its_bytes_deserve(autojump_clock: MockClock) -> None:
    policy = ConnectionPolicy(body_grace_s=1.0, body_rate=1)
    client, connection = Node(_swallow, policy).connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await client.send_all(POST)
        for octet in b"12345678":  # a byte a second is just enough
            await trio.sleep(0.9)
            await client.send_all(bytes([octet]))
        await client.send_eof()
        assert (await everything(client)).startswith(b"HTTP/1.1 200")
        client.close()


async def _swallow(stream: ClientStream, head: RequestHead) -> None:
    body = stream.request_body()
    assert body is not None
    while isinstance(await body.receive(), Chunk):
        pass
    await answer(stream, head)


async def test_what_is_shed_is_closed_at_once_and_what_is_at_work_is_not_shed(
    autojump_clock: MockClock,
) -> None:
    client, connection = Node(answer).connect()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await trio.testing.wait_all_tasks_blocked()
        connection.shed()
    assert trio.current_time() == began  # no lingering, though the client keeps its end open
    assert await everything(client) == b""

    busy, connection = Node(answer).connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await busy.send_all(GET[:5])
        await trio.testing.wait_all_tasks_blocked()
        connection.shed()
        await busy.send_all(GET[5:])
        await busy.send_eof()
        assert (await everything(busy)).startswith(b"HTTP/1.1 200")
        busy.close()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_connection_is_shed_before_and_after_its_task_has_begun(*, begun: bool) -> None:
    client, connection = Node(answer).connect()
    if not begun:
        connection.shed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        if begun:
            await trio.testing.wait_all_tasks_blocked()
            connection.shed()
    assert await everything(client) == b""


async def test_what_was_read_before_there_was_a_task_is_answered_also_while_draining() -> None:
    node = Node(answer)
    client, server = Line.pair()
    connection = Connection(
        server, b"192.0.2.2", ConnectionPolicy(), answer, node._refuse, first=GET, may_park=True
    )
    assert not connection.idle
    connection.drain()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        said = await everything(client)
        client.close()
    assert b"connection: close" in said
    assert said.endswith(b"/a")


@pytest.mark.parametrize("is_running", [True, False])
async def test_who_came_just_before_the_draining_has_a_moment_to_ask(
    autojump_clock: MockClock, *, is_running: bool
) -> None:
    node = Node(answer)
    client, server = Line.pair()
    connection = Connection(server, b"192.0.2.2", ConnectionPolicy(), answer, node._refuse)
    async with trio.open_nursery() as nursery:
        if is_running:
            nursery.start_soon(connection.run)
            await trio.testing.wait_all_tasks_blocked()
        connection.drain()
        if not is_running:
            nursery.start_soon(connection.run)
        await trio.sleep(FIRST_S / 2)
        await client.send_all(GET)
        said = await everything(client)
    assert b"connection: close" in said
    assert said.endswith(b"/a")


async def test_who_has_asked_before_or_says_nothing_is_closed_by_draining(
    autojump_clock: MockClock,
) -> None:
    node = Node(answer)
    for has_asked, waits_s in ((True, 0.0), (False, FIRST_S)):
        client, server = Line.pair()
        policy = ConnectionPolicy(linger_s=0.0)
        connection = Connection(server, b"192.0.2.2", policy, answer, node._refuse)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            if has_asked:
                await client.send_all(GET)
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            connection.drain()
            said = await everything(client)
        assert said.endswith(b"/a") is has_asked
        assert trio.current_time() - began == waits_s


@pytest.mark.parametrize("behind", [b"", GET[:9], GET])
async def test_only_a_connection_at_rest_is_parked(
    behind: bytes, autojump_clock: MockClock
) -> None:
    node = Node(answer)
    client, server = Line.pair()
    connection = Connection(
        server, b"192.0.2.2", ConnectionPolicy(), answer, node._refuse,
        first=POST + b"xxxxxxxx" + behind, may_park=True,
    )  # fmt: skip
    parked = await connection.run()
    assert parked is (behind != GET[:9])  # that one waits for the rest, in vain
    assert client.readable_now()
    client.close()
    server.close()


class Given:
    """What may not be sent without being read; `lost` where it ends."""

    descriptor = -1

    def __init__(self, body: bytes, lost: int | None = None) -> None:
        self._body = body
        self._lost = lost

    def sendable(self, offset: int, most: int) -> int:
        return 0

    def refuse(self) -> None: ...

    async def read(self, offset: int, most: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._lost is not None and offset >= self._lost:
            raise ExchangeError(Failure.BODY_LOST)
        return self._body[offset : offset + most]

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("method", "field", "told"),
    [
        (b"GET", (b"content-length", b"10"), b"..filebody"),
        (b"HEAD", (b"content-length", b"10"), b""),
        (b"GET", (b"x-y", b"z"), b"2\r\n..\r\n8\r\nfilebody\r\n0\r\n\r\n"),
    ],
)
async def test_a_part_of_a_file_is_framed_and_counted(
    method: bytes, field: tuple[bytes, bytes], told: bytes
) -> None:
    counted: list[int] = []

    async def handler(stream: ClientStream, head: RequestHead) -> None:
        await stream.send(ResponseHead(200, Headers([field])), more=True)
        await stream.send(Chunk(b".."), more=True)
        await stream.send_file(FileSpan(Given(b"a file body"), 2, 6))
        await stream.send_file(FileSpan(Given(b"a file body"), 7, 11))
        await stream.send(End())
        counted.append(stream.sent_bytes)

    got = await dialogue(Node(handler), GET.replace(b"GET", method, 1))
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    if method == b"GET" and field[0] == b"content-length":
        assert counted == [10]
    assert body.replace(b"4\r\nfile\r\n4\r\nbody", b"8\r\nfilebody") == told


async def test_a_file_that_is_lost_on_the_way_breaks_the_answer_off() -> None:
    sent: list[int] = []

    async def handler(stream: ClientStream, head: RequestHead) -> None:
        await stream.send(ResponseHead(200, Headers([(b"content-length", b"99999")])), more=True)
        try:
            await stream.send_file(FileSpan(Given(bytes(99_999), lost=20_000), 0, 99_999))
        finally:
            sent.append(stream.sent_bytes)

    node = Node(handler)
    client, connection = node.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await client.send_all(GET)
        with pytest.raises(trio.BrokenResourceError):
            await everything(client)
    assert 0 < sent[0] < 99_999
