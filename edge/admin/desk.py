"""One process of a node asks another: HTTP/1.1 over a UNIX socket, as the admin socket speaks it.

Where the other has died, the socket that its parent holds keeps the caller waiting for its
successor. `Unanswered` says that a call was cut short; whether it was done is not known then.
"""

from __future__ import annotations

import json
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import h11
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

READ_BYTES: Final = 65_536
HEAD_BYTES: Final = 131_072
ANSWER_BYTES: Final = 64 << 20


class Unanswered(OSError):  # noqa: N818 - what it is
    """The other process did not answer, or not to the end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A head, and the pieces of what follows it as they come."""

    status: int
    content_type: bytes
    pieces: AsyncIterator[bytes]

    async def whole(self) -> bytes:
        """All that follows the head; raises `Unanswered`."""
        data = bytearray()
        async for piece in self.pieces:
            data += piece
            if len(data) > ANSWER_BYTES:
                raise Unanswered("an answer that does not end")
        return bytes(data)


class Desk:
    """The process behind the socket `path`; each call has a connection of its own."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def document(
        self, method: bytes, target: bytes, body: bytes = b""
    ) -> tuple[int, dict[str, Any]]:
        """The status and the document of an answer; raises `Unanswered`."""
        async with self.asked(method, target, body) as answer:
            data = await answer.whole()
        try:
            document = json.loads(data)  # which reads surrogate escapes, as `socket` writes them
        except ValueError as error:
            raise Unanswered(f"an answer that is no document: {error}") from error
        if not isinstance(document, dict):
            raise Unanswered("an answer that is no document")
        return answer.status, document

    @asynccontextmanager
    async def asked(
        self, method: bytes, target: bytes, body: bytes = b""
    ) -> AsyncIterator[Answer]:
        """The answer to a call; raises `Unanswered`, also amid its pieces."""
        try:
            stream = await trio.open_unix_socket(self._path)
        except OSError as error:
            raise Unanswered(str(error)) from error
        async with stream:
            wire = h11.Connection(h11.CLIENT, HEAD_BYTES)
            fields = [(b"host", b"edge"), (b"content-length", b"%d" % len(body))]
            request = h11.Request(method=method, target=target, headers=fields)
            data = wire.send(request) or b""
            data += (wire.send(h11.Data(data=body)) or b"") + (
                wire.send(h11.EndOfMessage()) or b""
            )
            try:
                await stream.send_all(data)
            except trio.BrokenResourceError as error:
                raise Unanswered(str(error)) from error
            head = await _next(wire, stream)
            if not isinstance(head, h11.Response):
                raise Unanswered("no answer came")
            kind = next((value for name, value in head.headers if name == b"content-type"), b"")
            async with aclosing(_pieces(wire, stream)) as pieces:
                yield Answer(head.status_code, kind, pieces)


async def _pieces(wire: h11.Connection, stream: trio.SocketStream) -> AsyncGenerator[bytes, None]:
    while not isinstance(event := await _next(wire, stream), h11.EndOfMessage):
        if not isinstance(event, h11.Data):
            raise Unanswered("the answer broke off")
        yield bytes(event.data)


async def _next(wire: h11.Connection, stream: trio.SocketStream) -> object:
    try:
        while (event := wire.next_event()) is h11.NEED_DATA:
            wire.receive_data(bytes(await stream.receive_some(READ_BYTES)))
    except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
        raise Unanswered(str(error)) from error
    return event
