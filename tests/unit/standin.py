"""A stand-in for a node: an admin socket with handlers of a test's own, in a thread of its own."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from edge.admin.socket import AdminSocket, Call, Reply, Streamed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from edge.admin.socket import Handler, Send


def replying(document: Mapping[str, Any], status: int = 200) -> Handler:
    """A handler that always says the same."""

    async def reply(call: Call) -> Reply:
        return Reply(status, document)

    return reply


def refusing(error: Exception) -> Handler:
    """A handler that always raises the same."""

    async def refuse(call: Call) -> Reply:
        raise error

    return refuse


def streaming(*pieces: bytes, times: int = 1, then: Exception | None = None) -> Handler:
    """A handler that streams `pieces`, over and over, and may fail at the end."""

    async def produce(send: Send) -> None:
        for _ in range(times):
            for piece in pieces:
                await send(piece)
        if then is not None:
            raise then

    async def stream(call: Call) -> Streamed:
        return Streamed(b"application/x-ndjson", produce)

    return stream


@contextmanager
def standing_in(path: Path, routes: Mapping[str, Handler]) -> Iterator[list[Call]]:
    """Answer at `path`; `routes` are by `POST /v1/purge`. Gives the calls as they come."""
    calls: list[Call] = []
    table: dict[bytes, dict[bytes, Handler]] = {}
    for route, handler in routes.items():
        method, _, where = route.partition(" ")
        table.setdefault(where.encode(), {})[method.encode()] = _noting(calls, handler)
    node = AdminSocket(path, table, lambda caller, words, done: None)
    scope = trio.CancelScope()
    token: list[trio.lowlevel.TrioToken] = []
    ready = threading.Event()

    async def run() -> None:
        token.append(trio.lowlevel.current_trio_token())
        ready.set()
        with scope:
            await node.run()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    ready.wait(10)
    try:
        yield calls
    finally:
        token[0].run_sync_soon(scope.cancel)
        thread.join(10)


def _noting(calls: list[Call], handler: Handler) -> Handler:
    async def note(call: Call) -> Reply | Streamed:
        calls.append(call)
        return await handler(call)

    return note


@contextmanager
def saying(path: Path, data: bytes, *, read: Callable[[socket.socket], object]) -> Iterator[None]:
    """Whatever answers at `path` says `data` to its first caller, after `read`, and ends."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    listener.settimeout(10)

    def serve() -> None:
        try:
            accepted, _ = listener.accept()
        except OSError:  # no one asked
            return
        with accepted:
            accepted.settimeout(10)
            read(accepted)
            accepted.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listener.close()


def read_some(caller: socket.socket) -> None:
    """Read a short request."""
    caller.recv(65_536)
