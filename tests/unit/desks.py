"""Processes that can be asked, in a test's own loop: good ones, and such that break off."""

from __future__ import annotations

import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from edge.admin.call import Call, Caller, Reply, Streamed
from edge.admin.desk import Desk
from edge.admin.socket import AdminSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from edge.admin.call import Handler, Routes

ANYONE = Caller(7, 7, 42)


@asynccontextmanager
async def at_desk(path: Path, routes: Routes) -> AsyncIterator[Desk]:
    """What answers at `path` with these handlers."""
    sockets = AdminSocket(path, routes, lambda *_: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sockets.run)
        yield Desk(str(path))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def breaking_off(path: Path, said: bytes) -> AsyncIterator[Desk]:
    """What says this to whoever asks at `path`, and then is gone."""
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await listener.bind(str(path))
    listener.listen(8)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(said)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listener)])
        yield Desk(str(path))
        nursery.cancel_scope.cancel()


def call_of(method: str, path: str, body: object = None, **query: str) -> Call:
    """A call as the admin socket hands it on; a body that is not bytes is told as JSON."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = {name: [value] for name, value in query.items()}
    return Call(method.encode(), path.encode(), given, data, ANYONE)


async def answered(routes: Mapping[bytes, Mapping[bytes, Handler]], call: Call) -> Any:
    """The document of a reply, or all that a stream brings."""
    return await told_by(await routes[call.path][call.method](call))


async def told_by(answer: Reply | Streamed) -> Any:
    """The document, or the bytes."""
    if isinstance(answer, Reply):
        return answer.document
    pieces: list[bytes] = []

    async def send(piece: bytes | memoryview) -> None:
        pieces.append(bytes(piece))

    await answer.produce(send)
    return b"".join(pieces)
