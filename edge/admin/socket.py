"""The admin socket: HTTP/1.1 and JSON over a UNIX socket, for the `edge` command and for curl.

Who may open the socket may ask: its mode is 0660, so that is the node's user and group. Who it was
is asked of the kernel once, at accept, and is said with every call that could change something.
What can be asked is a table of routes; what stands behind them knows nothing of HTTP.

It is not the public side, so it speaks h11 as it is. But a caller that hangs, floods or never
reads holds one of `CALLERS` places for a bounded time and nothing else, and where all are taken a
newcomer is told so. A body has at most `BODY_BYTES`, and all bodies together have `BODIES_BYTES`:
bytes are counted as they come and given back when the call is over; who finds no room is refused,
not kept waiting, so that two half-read bodies never wait for each other.

A handler is called with the whole request or not at all, and is not cancelled when its caller
leaves: what it began, it ends. A stream is for its reader only, and ends with it. One that fails
after its first piece is broken off, never ended as if it were whole.

A socket file outlives a node that was killed. Such a file is replaced, but only if no one answers
behind it, and only by renaming a socket that already listens with the right mode: there is no
moment at which anyone else may connect. At the end the file is removed if it is still ours.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import stat
import struct
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

import h11
import msgspec
import trio

from edge.admin.call import Call, Caller, Handler, Refused, Reply, Routes, Send, Streamed, Told

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [  # what handlers are written with, and those who make the socket
    "AdminSocket", "Call", "Caller", "Handler", "Refused", "Reply", "Routes", "Send",
    "Streamed", "Told", "answers",
]  # fmt: skip

MODE: Final = 0o660
CALLERS: Final = 32
IDLE_S: Final = 30.0
PROGRESS_S: Final = 10.0  # without a byte of a request that has begun
REQUEST_S: Final = 60.0  # for all of it: 16 MiB take a tenth of a second here
STALL_S: Final = 30.0  # for a reader to take `PIECE_BYTES`
WATCH_S: Final = 1.0  # between two looks whether a stream's reader is still there
HEAD_BYTES: Final = 131_072  # a request of 32 KiB to be explained, percent-encoded, fits
BODY_BYTES: Final = 16 * 1024 * 1024
BODIES_BYTES: Final = 4 * BODY_BYTES
PIECE_BYTES: Final = 65_536
READ_BYTES: Final = 65_536
QUERY_FIELDS: Final = 1000
LINGER_S: Final = 1.0
LINGER_BYTES: Final = 1024 * 1024

_BOTH_DONE: Final = {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
_SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_JSON: Final = b"application/json"
_PROBLEM: Final = b"application/problem+json"  # RFC 9457
_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid


class AdminSocket:
    """A listening admin socket. Raises OSError where it cannot be made, or is in use.

    `listener` is one that already listens at `path`, and whose file is somebody else's to remove.
    `told` is given a line, without the caller, for each call that could change something and for
    each fault of ours: `POST /v1/purge 200: purge 17`.
    """

    def __init__(
        self,
        path: Path,
        routes: Routes,
        told: Told,
        *,
        listener: socket.socket | None = None,
        callers: int = CALLERS,
    ) -> None:
        self._path = path
        self._callers = callers
        self._desk = _Desk(routes, told)
        self._socket = _listen(path) if listener is None else listener
        self._identity = _identity(path) if listener is None else None
        self._places = trio.CapacityLimiter(callers)
        self._accepting = trio.CancelScope()

    async def run(self) -> None:
        """Answer callers until cancelled; then remove the socket's file."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._socket))
        try:
            async with trio.open_nursery() as calls:
                with self._accepting:
                    await trio.serve_listeners(self._serve, [listener], handler_nursery=calls)
        finally:
            self.close()

    def stop(self) -> None:
        """Accept no more callers; `run` ends when those that there are have been answered."""
        self._accepting.cancel()

    def close(self) -> None:
        """Stop listening and remove the file, if it is still ours."""
        if self._socket.fileno() >= 0:
            self._socket.close()
        if self._identity is not None and _identity(self._path) == self._identity:
            self._path.unlink(missing_ok=True)
        self._identity = None

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            conversation = _Conversation(stream, _caller(stream), self._desk)
            try:
                self._places.acquire_nowait()
            except trio.WouldBlock:
                await conversation.turn_away(self._callers)
                return
            try:
                await conversation.run()
            finally:
                self._places.release()


@dataclass(slots=True)
class _Desk:
    """What all conversations share."""

    routes: Routes
    told: Told
    body_bytes: int = field(default=0, init=False)  # of all bodies now in memory

    def handler(self, method: bytes, path: bytes) -> Handler:
        """Who answers; raises `Refused` with what could be asked instead."""
        methods = self.routes.get(path)
        if method == b"OPTIONS" and (methods is not None or path == b"*"):
            return self._options
        if methods is None:
            known = ", ".join(
                f"{method.decode('ascii')} {path.decode('ascii')}"
                for path, methods in self.routes.items()
                for method in methods
            )
            raise Refused(404, "", f"nothing is here; there is {known}")
        handler = methods.get(b"GET" if method == b"HEAD" else method)
        if handler is None:
            use = " or ".join(method.decode("ascii") for method in methods)
            raise Refused(405, "", f"use {use} here", allow=_allow(methods))
        return handler

    async def _options(self, call: Call) -> Reply:
        everywhere = {method for methods in self.routes.values() for method in methods}
        allow = _allow(self.routes.get(call.path, everywhere))
        return Reply(200, {"methods": allow.decode("ascii").split(", ")}, allow)


@dataclass(frozen=True, slots=True)
class _Written:
    """A reply in bytes."""

    status: int
    body: bytes
    allow: bytes
    words: str | None


class _Conversation:
    """One caller's connection: its calls, one behind the other."""

    def __init__(self, stream: trio.SocketStream, caller: Caller, desk: _Desk) -> None:
        self._stream = stream
        self._caller = caller
        self._desk = desk
        self._wire = h11.Connection(h11.SERVER, HEAD_BYTES)
        self._due: float | None = None  # when a request that has begun must be whole
        self._body_bytes = 0
        self._left = False  # the caller; nothing more can be sent

    async def run(self) -> None:
        """Answer until either side has had enough."""
        try:
            while await self._next_call():
                self._wire.start_next_cycle()
                begun = bool(self._wire.trailing_data[0])
                self._due = trio.current_time() + REQUEST_S if begun else None
        except trio.BrokenResourceError:
            return  # the caller left
        except Exception as error:  # around a connection: the node lives on
            self._desk.told(self._caller, f"connection given up: {_fault(error)}", False)

    async def turn_away(self, places: int) -> None:
        """Say that there is no place, to whoever may be listening."""
        full = Refused(503, "", f"all {places} places are taken; ask again in a moment")
        try:
            await self._reply(_written(full.reply()))
        except trio.BrokenResourceError:
            return

    async def _next_call(self) -> bool:
        """Answer one call; whether there may be another."""
        try:
            event = await self._event()
        except Refused as refused:
            await self._reply(_written(refused.reply()))
        else:
            if not isinstance(event, h11.Request):
                return False
            await self._answer(event)
        if self._wire.states != _BOTH_DONE:
            await self._linger()
            return False
        return True

    async def _answer(self, request: h11.Request) -> None:
        try:
            outcome = await self._outcome(request)
        except Refused as refused:
            outcome = _written(refused.reply())
        finally:
            self._desk.body_bytes -= self._body_bytes
            self._body_bytes = 0
        if isinstance(outcome, Streamed):
            await self._pour(request, outcome)
        else:
            await self._conclude(request, outcome)

    async def _outcome(self, request: h11.Request) -> _Written | Streamed:
        path, _, query = request.target.partition(b"?")
        handler = self._desk.handler(request.method, path)
        fields = _query(query)
        body = await self._body(request)
        try:
            outcome = await handler(Call(request.method, path, fields, body, self._caller))
            return outcome if isinstance(outcome, Streamed) else _written(outcome)
        except Refused:
            raise
        except Exception as error:  # around a call, as around a stream
            raise _failure(error) from error

    async def _body(self, request: h11.Request) -> bytes:
        """The request's body, whole. Raises `Refused` where it is bad or there is no room."""
        declared = next((int(v) for k, v in request.headers if k == b"content-length"), 0)
        self._check_room(declared)
        if self._wire.they_are_waiting_for_100_continue:
            await self._send(
                self._wire.send(h11.InformationalResponse(status_code=100, headers=[]))
            )
        body = bytearray()
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            self._check_room(len(event.data))
            self._body_bytes += len(event.data)
            self._desk.body_bytes += len(event.data)
            body += event.data
            await trio.lowlevel.checkpoint()  # a piece of input may be thousands of small chunks
        return bytes(body)

    def _check_room(self, size: int) -> None:
        if self._body_bytes + size > BODY_BYTES:
            raise Refused(413, "", f"at most {BODY_BYTES} bytes of body; ask in parts")
        if self._desk.body_bytes + size > BODIES_BYTES:
            raise Refused(503, "", "too many large requests at once; ask again in a moment")

    async def _event(self) -> object:
        """The next event. Raises `Refused` at bytes that are no request, or come too late."""
        while True:
            try:
                event = self._wire.next_event()
            except h11.RemoteProtocolError as error:
                raise Refused(error.error_status_hint, "", f"{error}; nothing was done") from error
            if event is not h11.NEED_DATA:
                return event
            self._wire.receive_data(await self._receive())

    async def _receive(self) -> bytes:
        """More input; b"" at its end, and from a caller who has nothing to ask."""
        now = trio.current_time()
        patience_s = IDLE_S if self._due is None else min(PROGRESS_S, self._due - now)
        with trio.move_on_after(max(0.0, patience_s)):
            data = bytes(await self._stream.receive_some(READ_BYTES))
            self._due = self._due or trio.current_time() + REQUEST_S
            return data
        if self._due is None:
            return b""
        raise Refused(408, "", "the request did not come to its end in time; nothing was done")

    async def _conclude(self, request: h11.Request, written: _Written) -> None:
        """Tell the log, then the caller, who may have left."""
        changes = request.method not in _SAFE and written.words is not None
        if changes or written.status >= 500:
            about = f": {written.words}" if written.words else ""
            self._tell(request, f"{written.status}{about}", done=written.status < 400)
        await self._reply(written, whole=request.method != b"HEAD")

    def _tell(self, request: h11.Request, outcome: str, *, done: bool) -> None:
        path = request.target.partition(b"?")[0][:200].decode("ascii")
        line = f"{request.method.decode('ascii')} {path} {outcome}"
        self._desk.told(self._caller, line, done)

    async def _reply(self, written: _Written, *, whole: bool = True) -> None:
        kind = _JSON if written.status < 400 else _PROBLEM
        fields = [(b"content-length", b"%d" % len(written.body))]
        if written.allow:
            fields.append((b"allow", written.allow))
        data = self._head(written.status, kind, fields)
        if whole:
            data += self._wire.send(h11.Data(data=written.body)) or b""
        await self._send(data + (self._wire.send(h11.EndOfMessage()) or b""))

    def _head(self, status: int, kind: bytes, fields: list[tuple[bytes, bytes]]) -> bytes:
        fields = [(b"content-type", kind), (b"cache-control", b"no-store"), *fields]
        if self._wire.their_state is not h11.DONE:
            fields.append((b"connection", b"close"))
        phrase = HTTPStatus(status).phrase.encode("ascii")
        response = h11.Response(status_code=status, headers=fields, reason=phrase)
        return self._wire.send(response) or b""

    async def _pour(self, request: h11.Request, streamed: Streamed) -> None:
        if request.http_version < b"1.1":
            old = Refused(505, "", "ask with HTTP/1.1: in 1.0 a cut looks like an end")
            await self._conclude(request, _written(old.reply()))
        elif request.method == b"HEAD":
            head = self._head(200, streamed.content_type, [])
            await self._send(head + (self._wire.send(h11.EndOfMessage()) or b""))
        else:
            failed = await self._produced(streamed)
            await self._end(request, streamed, failed)

    async def _produced(self, streamed: Streamed) -> Refused | None:
        """Run a stream to its end, or until its reader left; what it failed with."""
        failed, over = None, False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_left, self._stream, nursery.cancel_scope)
            failed = await self._failed(streamed)
            over = True
            nursery.cancel_scope.cancel()
        self._left = self._left or not over
        return failed

    async def _failed(self, streamed: Streamed) -> Refused | None:
        async def send(piece: bytes | memoryview) -> None:
            view = memoryview(piece).cast("B")
            for start in range(0, len(view), PIECE_BYTES):
                part = h11.Data(data=bytes(view[start : start + PIECE_BYTES]))
                head = self._stream_head(streamed)
                await self._send(head + (self._wire.send(part) or b""))

        try:
            await streamed.produce(send)
        except Refused as refused:
            return refused
        except Exception as error:  # around a stream
            return _failure(error)
        return None

    async def _end(self, request: h11.Request, streamed: Streamed, failed: Refused | None) -> None:
        """End a stream as it deserves: well, as a problem in its place, or broken off."""
        if self._left:
            raise trio.BrokenResourceError("the reader left")
        if failed is None:
            end = self._stream_head(streamed) + (self._wire.send(h11.EndOfMessage()) or b"")
            if request.method not in _SAFE:
                self._tell(request, "200", done=True)
            await self._send(end)
        elif self._wire.our_state is h11.SEND_RESPONSE:
            await self._conclude(request, _written(failed.reply()))
        else:
            self._tell(request, f"broken off: {failed.words}", done=False)
            raise trio.BrokenResourceError("a stream was broken off")

    def _stream_head(self, streamed: Streamed) -> bytes:
        """The head, once: it goes with the first piece."""
        begun = self._wire.our_state is not h11.SEND_RESPONSE
        return b"" if begun else self._head(200, streamed.content_type, [])

    async def _send(self, data: bytes | None) -> None:
        """Send all; raises BrokenResourceError where the caller has left or does not read."""
        view = memoryview(data or b"")
        try:
            for start in range(0, len(view), PIECE_BYTES):
                with trio.fail_after(STALL_S):
                    await self._stream.send_all(view[start : start + PIECE_BYTES])
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            self._left = True
            raise trio.BrokenResourceError("the caller left, or does not read") from error

    async def _linger(self) -> None:
        """Read on for a little, since closing with unread input would cut the caller short."""
        with trio.move_on_after(LINGER_S):
            await self._stream.send_eof()
            size = 0
            while size < LINGER_BYTES and (data := await self._stream.receive_some(READ_BYTES)):
                size += len(data)


def _caller(stream: trio.SocketStream) -> Caller:
    data = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return Caller(uid, gid, pid)


async def _until_left(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Cancel `scope` once the caller has closed; its half of the connection may well be."""
    poll = select.poll()
    poll.register(stream.socket.fileno(), 0)  # POLLHUP is always told
    while not poll.poll(0):  # noqa: ASYNC110 - after a half-close nothing else tells of it
        await trio.sleep(WATCH_S)
    scope.cancel()


def _allow(methods: Mapping[bytes, Handler] | set[bytes]) -> bytes:
    return b", ".join(sorted({*methods, b"OPTIONS"} | ({b"HEAD"} if b"GET" in methods else set())))


def _query(query: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="surrogateescape",
            max_num_fields=QUERY_FIELDS,
        )
    except ValueError as error:
        raise Refused(400, "", f"at most {QUERY_FIELDS} fields in a query") from error


def _written(reply: Reply) -> _Written:
    try:
        body = msgspec.json.encode(reply.document, enc_hook=str)
    except UnicodeEncodeError:  # surrogate escapes, which JSON can say and UTF-8 cannot
        body = json.dumps(reply.document, default=str).encode("ascii")
    return _Written(reply.status, body, reply.allow, reply.words)


def _failure(error: Exception) -> Refused:
    """A fault of ours: neutral words for the caller, the place for the log."""
    return Refused(500, "", "the node failed at this; its error log says how", words=_fault(error))


def _fault(error: Exception) -> str:
    frames = extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


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
