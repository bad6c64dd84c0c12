"""A lane over real sockets, whose desk answers some requests at once."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from edge.errors import ExchangeError, Failure
from edge.listen.connection import Connection, ConnectionPolicy
from edge.listen.lane import After, Lane
from edge.listen.tcp import Connections
from edge.upstream.transport import FileSpan, SocketTransport
from edge.wire.message import Chunk, End, Headers, ResponseHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from edge.listen.connection import ClientStream
    from edge.upstream.transport import Data, Part
    from edge.wire.message import RequestHead

QUICK = b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
PARTS = b"GET /parts HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
AT_ONCE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nquick"
BY_TASK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n/slow"
LAST = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
FINAL = b"GET /final HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LAST_FILE = b"GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
FILE = b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n"
UNWANTED = b"PURGE /a HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = bytes(range(256)) * 65_536  # more than two kernels take
RESET = struct.pack("ii", 1, 0)


class FakeHop:
    """What another worker answers: `parts`, or None; then `rest`, or a failure."""

    def __init__(
        self, parts: Sequence[Part] | None, *rest: Data, failure: Failure | None = None
    ) -> None:
        self.parts = parts
        self.rest = list(rest)
        self.failure = failure
        self.go = trio.Event()
        self.closed: list[str | None] = []

    async def ask(self) -> Sequence[Part] | None:
        await self.go.wait()
        return self.parts

    async def more(self) -> Data | None:
        await trio.lowlevel.checkpoint()
        if self.rest:
            return self.rest.pop(0)
        if self.failure is not None:
            raise ExchangeError(self.failure)
        return None

    def close(self, took_s: float, error: ExchangeError | None) -> None:
        assert took_s >= 0
        self.closed.append(error.failure.slug if error else None)


class OnDisk:
    """A file with `body`; all of it may be sent until it `rots` or is `dropped`."""

    def __init__(self, path: Path, body: bytes) -> None:
        path.write_bytes(body)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.body = body
        self.users = self.read_bytes = 0
        self.dropped = self.rots = False

    def sendable(self, offset: int, most: int) -> int:
        return 0 if self.dropped or self.rots else most

    def refuse(self) -> None:
        raise AssertionError("a plain file")

    async def read(self, offset: int, most: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.rots:
            raise ExchangeError(Failure.BODY_LOST)
        data = self.body[offset : offset + most]
        self.read_bytes += len(data)
        return data

    def close(self) -> None:
        self.users -= 1


class Node:
    """Answers by a task, with the target, whatever `answer` does not answer at once."""

    def __init__(self, policy: ConnectionPolicy, most: int) -> None:
        self.connections = Connections(most)
        self.policy = policy
        self.begun = False
        self.told: list[tuple[bytes, str | None]] = []
        self.driven: list[bytes] = []
        self.hops: dict[bytes, FakeHop] = {}  # what other workers answer, once each
        self.source: OnDisk | None = None  # what FILE is answered from
        self.lane: Lane[bytes]
        self.clients: trio.Nursery

    def begin(self) -> None:
        assert not self.begun
        self.begun = True

    def settle(self) -> None:
        self.begun = False

    def answer(self, data: bytes, peer: bytes) -> tuple[Sequence[Part], bytes, After] | None:
        assert self.begun
        assert peer == b"192.0.2.1"
        after = After.CLOSE if data.startswith((FINAL, LAST_FILE)) else After.PARK
        after = After.LINGER if data == UNWANTED else after
        if data in (FILE, LAST_FILE) and self.source is not None:
            self.source.users += 1
            return [b"head", FileSpan(self.source, 0, len(self.source.body))], data, after
        answers: dict[bytes, Sequence[Part]] = {
            QUICK: [AT_ONCE], LARGE: [BODY], PARTS: [AT_ONCE[:9], AT_ONCE[9:]],
            FINAL: [LAST], UNWANTED: [LAST], FINAL + b"large": [BODY],
        }  # fmt: skip
        return (answers[data], data, after) if data in answers else None

    def close(self, record: bytes, took_s: float, error: ExchangeError | None = None) -> None:
        assert took_s >= 0
        self.told.append((record, error.failure.slug if error else None))

    def hop(self, data: bytes, peer: bytes) -> FakeHop | None:
        return self.hops.pop(data, None)

    def make(self, transport: SocketTransport, first: bytes) -> Connection:
        self.driven.append(first)
        return Connection(
            transport, transport.peer, self.policy, self.serve, self.refuse,
            first=first, may_park=True,
        )  # fmt: skip

    async def serve(self, stream: ClientStream, head: RequestHead) -> None:
        length = b"%d" % len(head.target)
        await stream.send(ResponseHead(200, Headers([(b"content-length", length)])), more=True)
        await stream.send(Chunk(head.target), more=True)
        await stream.send(End())

    @staticmethod
    def refuse(peer: bytes, error: ExchangeError) -> tuple[ResponseHead, bytes]:
        return ResponseHead(error.status, Headers([(b"content-length", b"2")])), b"no"

    def connect(self, first: bytes = b"") -> trio.SocketStream:
        """A client that has sent `first` by the time that it is taken in."""
        here, there = socket.socketpair()
        here.sendall(first)
        here.setblocking(False)
        self.lane.take_in(SocketTransport(there, peer=b"192.0.2.1"))
        return trio.SocketStream(trio.socket.from_stdlib_socket(here))


@asynccontextmanager
async def a_node(policy: ConnectionPolicy | None = None, most: int = 100) -> AsyncIterator[Node]:
    node = Node(policy or ConnectionPolicy(), most)
    async with trio.open_nursery() as clients:
        node.clients = clients
        node.lane = Lane(node.connections, node, node.make, lambda: node.policy, clients)
        clients.start_soon(node.lane.run)
        yield node
        node.connections.drain()
        node.lane.stop()
    assert node.connections.statistics().open == 0


async def received(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := await stream.receive_some()):
        data += piece
    return data
