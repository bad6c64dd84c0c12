"""Servers in memory that answer as they are told to: what groups and ways are tested with."""

from __future__ import annotations

import errno
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from edge.upstream.origin import Origin
from edge.upstream.transport import SocketTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edge.upstream.transport import Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def answer(status: int, *fields: bytes, body: bytes = b"") -> bytes:
    """A whole response of HTTP/1.1."""
    lines = [b"HTTP/1.1 %d X" % status, b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Server:
    """One server: `says` this to each request, `after_s`; or refuses, or hangs up unheard."""

    def __init__(self) -> None:
        self.says = OK
        self.after_s = 0.0
        self.then_s = 0.0  # between the head and the body
        self.refuses = False
        self.hangs_up = False
        self.asked: list[bytes] = []
        self.connections: list[SocketTransport] = []
        self.at_work = 0
        self.most_at_work = 0

    async def serve(self, transport: SocketTransport) -> None:
        """Answer what comes through one connection, to its end."""
        unread = b""
        with transport_closed(transport):
            while True:
                while b"\r\n\r\n" not in unread:
                    data = await transport.receive_some()
                    if not data:
                        return
                    unread += data
                head, _, unread = unread.partition(b"\r\n\r\n")
                while len(unread) < length_of(head):
                    unread += await transport.receive_some()
                unread = unread[length_of(head) :]
                self.asked.append(head)
                if self.hangs_up:
                    return
                await self._answer(transport)

    async def _answer(self, transport: SocketTransport) -> None:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            await trio.sleep(self.after_s)
            head, blank, body = self.says.partition(b"\r\n\r\n")
            if self.then_s:
                await transport.send_all(head + blank)
                await trio.sleep(self.then_s)
                await transport.send_all(body)
            else:
                await transport.send_all(self.says)
        finally:
            self.at_work -= 1

    def die(self) -> None:
        """Refuse from now on, and break off what there is."""
        self.refuses = True
        for transport in self.connections:
            transport.abort()


class transport_closed:  # noqa: N801 - reads as what it is: a block
    """A block whose connection may go at any time, and is gone at its end."""

    def __init__(self, transport: SocketTransport) -> None:
        self._transport = transport

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._transport.close()
        gone = (trio.BrokenResourceError, trio.ClosedResourceError)
        return kind is not None and issubclass(kind, gone)


def length_of(head: bytes) -> int:
    """What the head says of its body's length."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


class Network:
    """Servers by host; each comes to be when it is first spoken of."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery  # whose tasks end with the network
        self._servers: dict[str, Server] = {}

    def __getitem__(self, host: str) -> Server:
        return self._servers.setdefault(host, Server())

    async def connect(self, origin: Origin) -> Transport:
        """A connection to a server, made like one over TCP."""
        await trio.lowlevel.checkpoint()
        server = self[origin.host]
        if server.refuses:
            raise OSError(errno.ECONNREFUSED, "refused")
        ours, theirs = socket.socketpair()
        transport = SocketTransport(theirs)
        server.connections.append(transport)
        self.nursery.start_soon(server.serve, transport)
        return SocketTransport(ours, peer=origin.host.encode())


@asynccontextmanager
async def a_network() -> AsyncIterator[Network]:
    """A network that is gone at the end of the block."""
    async with trio.open_nursery() as nursery:
        yield Network(nursery)
        nursery.cancel_scope.cancel()


def origin(host: str, **changes: float) -> Origin:
    """A server's settings with some of its bounds changed."""
    return Origin("http", host, 80, **changes)  # type: ignore[arg-type]
