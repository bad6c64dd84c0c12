"""A plain HTTP/1.1 client and a plain origin on Trio, for scenarios that must see every byte.

Both know the other side: heads are small and well formed, requests have no bodies, and what the
client asks for comes with Content-Length. Everything else is a fault of what stands between them,
and raises.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

READ_BYTES: Final = 1 << 18
HEAD_END: Final = b"\r\n\r\n"


class Broken(Exception):  # noqa: N818 - it says what the answer is
    """The connection ended, or the answer is not to be understood, before it was whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; names of `fields` are lower-case."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes


def parse_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Status and fields of an answer's head; raises `Broken`."""
    first, *lines = head.split(b"\r\n")
    words = first.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or len(words[1]) != 3:
        raise Broken(f"not an answer: {first[:80]!r}")
    pairs = (line.partition(b":") for line in lines)
    return int(words[1]), {name.lower(): value.strip() for name, _, value in pairs}


class Client:
    """One kept connection to 127.0.0.1; asking after a failure makes a new one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None

    async def get(self, target: str, host: str = "bench.example") -> Answer:
        """The whole answer to a GET; raises `Broken`."""
        return await self.ask(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    async def ask(self, request: bytes) -> Answer:
        """The whole answer to a request; raises `Broken`."""
        try:
            if self._stream is None:
                self._stream = await self._connect()
            await self._stream.send_all(request)
            return await self._answer(self._stream)
        except (Broken, OSError, trio.BrokenResourceError) as error:
            await self.close()
            raise Broken(str(error)) from error

    async def _connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self._port)

    async def _answer(self, stream: trio.SocketStream) -> Answer:
        data = bytearray()
        while (end := data.find(HEAD_END)) < 0:
            data += await _some(stream)
        status, fields = parse_head(bytes(data[:end]))
        if b"content-length" not in fields:
            raise Broken("an answer without its length")
        start = end + len(HEAD_END)
        stop = start + int(fields[b"content-length"])
        while len(data) < stop:
            data += await _some(stream)
        if fields.get(b"connection") == b"close":
            await self.close()
        return Answer(status, fields, bytes(data[start:stop]))

    async def close(self) -> None:
        """Let the connection go."""
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)
            self._stream = None


async def _some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(READ_BYTES)
    if not data:
        raise Broken("the connection ended")
    return bytes(data)


class Origin:
    """An origin on a port of its own; `respond(target, stream)` sends a whole answer."""

    def __init__(self, respond: Callable[[str, trio.SocketStream], Awaitable[None]]) -> None:
        self.asked: Counter[str] = Counter()
        self._respond = respond
        self._listener: trio.SocketListener | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._listener is not None
        return f"http://127.0.0.1:{self._listener.socket.getsockname()[1]}"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=4096)
        self._listener = listeners[0]
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        data = bytearray()
        try:
            while True:
                while (end := data.find(HEAD_END)) < 0:
                    data += await _some(stream)
                target = bytes(data[:end]).split(b" ", 2)[1].decode("ascii")
                del data[: end + len(HEAD_END)]
                self.asked[target] += 1
                await self._respond(target, stream)
        except (Broken, trio.BrokenResourceError):
            await trio.aclose_forcefully(stream)


def head(length: int | None, status: int = 200, lifetime_s: int = 86_400) -> bytes:
    """The head of an answer: its length, or chunked; not to be stored if `lifetime_s` is 0."""
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    keep = b"max-age=%d" % lifetime_s if lifetime_s else b"no-store"
    return b"HTTP/1.1 %d Fine\r\n%b\r\ncache-control: %b\r\n\r\n" % (status, framing, keep)


def content(name: str, length: int) -> bytes:
    """`length` bytes that belong to `name` and to no other."""
    block = blake2b(name.encode(), digest_size=64).digest()
    return (block * (length // len(block) + 1))[:length]
