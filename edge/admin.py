"""The admin socket: HTTP/1.1 and JSON over a UNIX socket, for `edge status` and for curl.

Who may open the socket may ask: its mode is 0660, so that is the node's user and group. It is not
the public side, so it speaks h11 as it is; but a caller that hangs, floods or never reads holds
one of a few places for a bounded time and nothing else, and where all are taken a newcomer is
turned away. What can be asked is a table of routes.

A socket file outlives a node that was killed. Such a file is replaced, but only if no one answers
behind it, and only by renaming a socket that already listens with the right mode: there is no
moment at which anyone else may connect. At the end the file is removed if it is still ours.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import h11
import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MODE: Final = 0o660
CALLERS: Final = 16
REQUEST_S: Final = 10.0
IDLE_S: Final = 30.0
HEAD_BYTES: Final = 16_384
BODY_BYTES: Final = 65_536
READ_BYTES: Final = 16_384
LINGER_S: Final = 1.0
LINGER_BYTES: Final = 1024 * 1024

_BOTH_DONE: Final = {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
_JSON: Final = b"application/json"
_PROBLEM: Final = b"application/problem+json"  # RFC 9457


@dataclass(frozen=True, slots=True)
class Reply:
    """What a caller is told."""

    status: int
    document: Mapping[str, Any]
    allow: bytes = b""


class AdminSocket:
    """A listening admin socket. Raises OSError where it cannot be made, or is in use."""

    def __init__(self, path: Path, status: Callable[[], Mapping[str, Any]]) -> None:
        self._path = path
        self._routes: dict[bytes, dict[bytes, Callable[[], Mapping[str, Any]]]] = {
            b"/v1/status": {b"GET": status}
        }
        self._socket = _listen(path)
        self._identity = _identity(path)
        self._places = trio.CapacityLimiter(CALLERS)

    async def run(self) -> None:
        """Answer callers until cancelled; then remove the socket's file."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._socket))
        try:
            await trio.serve_listeners(self._serve, [listener])
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening and remove the file, if it is still ours."""
        if self._socket.fileno() >= 0:
            self._socket.close()
        if self._identity is not None and _identity(self._path) == self._identity:
            self._path.unlink(missing_ok=True)
        self._identity = None

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                self._places.acquire_nowait()
            except trio.WouldBlock:
                return
            try:
                await self._converse(stream, h11.Connection(h11.SERVER, HEAD_BYTES))
            except trio.BrokenResourceError:
                return  # the caller left
            finally:
                self._places.release()

    async def _converse(self, stream: trio.SocketStream, wire: h11.Connection) -> None:
        while True:
            with trio.move_on_after(IDLE_S) as waiting:
                request = await _next(stream, wire)
            if waiting.cancelled_caught or not isinstance(request, h11.Request | Reply):
                return
            with trio.move_on_after(REQUEST_S) as answering:
                await self._answer(stream, wire, request)
            if answering.cancelled_caught:
                return
            if wire.states != _BOTH_DONE:
                await _linger(stream)
                return
            wire.start_next_cycle()

    async def _answer(
        self, stream: trio.SocketStream, wire: h11.Connection, request: h11.Request | Reply
    ) -> None:
        if isinstance(request, Reply):
            reply = request
        else:
            reply = await _read_body(stream, wire) or self._reply(request)
        headers = [(b"cache-control", b"no-store")]
        if reply.allow:
            headers.append((b"allow", reply.allow))
        if wire.their_state is not h11.DONE:
            headers.append((b"connection", b"close"))
        body = msgspec.json.encode(reply.document, enc_hook=str)
        kind = _JSON if reply.status < 400 else _PROBLEM
        headers += [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        head = wire.send(h11.Response(status_code=reply.status, headers=headers))
        data = wire.send(h11.Data(data=body)) if head else None
        end = wire.send(h11.EndOfMessage())
        await stream.send_all((head or b"") + (data or b"") + (end or b""))

    def _reply(self, request: h11.Request) -> Reply:
        path = request.target.partition(b"?")[0]
        methods = self._routes.get(path)
        if methods is None:
            known = ", ".join(route.decode("ascii") for route in self._routes)
            return problem(404, f"nothing is here; there is {known}")
        if request.method not in methods:
            allow = b", ".join(sorted(methods))
            return problem(405, f"use {allow.decode('ascii')} here", allow)
        return Reply(200, methods[request.method]())


def problem(status: int, detail: str, allow: bytes = b"") -> Reply:
    """An error as RFC 9457 writes it."""
    return Reply(status, {"status": status, "detail": detail}, allow)


async def _next(stream: trio.SocketStream, wire: h11.Connection) -> object:
    """The next event, or a `Reply` to bytes that are not a request."""
    while True:
        try:
            event = wire.next_event()
        except h11.RemoteProtocolError as error:
            return problem(error.error_status_hint, str(error))
        if event is not h11.NEED_DATA:
            return event
        wire.receive_data(await stream.receive_some(READ_BYTES))


async def _read_body(stream: trio.SocketStream, wire: h11.Connection) -> Reply | None:
    """Read a request's body away; a `Reply` where it is bad or too large."""
    size = 0
    if wire.they_are_waiting_for_100_continue:
        return None
    while not isinstance(event := await _next(stream, wire), h11.EndOfMessage):
        if isinstance(event, Reply):
            return event
        size += len(event.data) if isinstance(event, h11.Data) else 0
        if size > BODY_BYTES or not isinstance(event, h11.Data):
            return problem(413, f"at most {BODY_BYTES} bytes of body")
    return None


async def _linger(stream: trio.SocketStream) -> None:
    """Read on for a little, since closing with unread input would destroy the answer."""
    with trio.move_on_after(LINGER_S):
        await stream.send_eof()
        size = 0
        while size < LINGER_BYTES and (data := await stream.receive_some(READ_BYTES)):
            size += len(data)


def _listen(path: Path) -> socket.socket:
    if answers(path):
        raise OSError(errno.EADDRINUSE, "another node answers here", str(path))
    if _identity(path) is None and os.path.lexists(path):
        raise OSError(errno.EEXIST, "not a socket; move it away", str(path))
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(fresh))
        fresh.chmod(MODE)
        listener.listen(CALLERS)
        listener.setblocking(False)
        fresh.replace(path)
    except OSError:
        listener.close()
        fresh.unlink(missing_ok=True)
        raise
    return listener


def answers(path: Path) -> bool:
    """Whether someone listens on the socket file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.ETIMEDOUT)  # its backlog is full: alive
    return True


def _identity(path: Path) -> tuple[int, int] | None:
    """Which socket a file is; None where it is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None
