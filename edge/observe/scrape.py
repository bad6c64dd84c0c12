"""Where Prometheus asks: HTTP/1.1 on an address of its own, with nothing there but `/metrics`.

It is not a public port: whoever reaches it may read, and it tells nothing of clients or of what is
stored. Still nobody there can do harm. A connection is for one question; it has so long to ask it
and so long to take the answer, holds one of `CALLERS` places for that time, and where all are
taken a newcomer is told so and closed. The text is made anew at most once in `FRESH_S`, however
many ask, and whoever reads it slowly holds that text and no one else.

It reads the memory that workers share and waits for none of them: it may run in any process, and
tells of a worker that hangs as of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import h11
import trio

from edge import __version__
from edge.listen.tcp import address_of, bind
from edge.observe.exposition import CONTENT_TYPE, exposition

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.config import Address
    from edge.observe.reading import Reading
    from edge.observe.tally import Tallies

CALLERS: Final = 16
REQUEST_S: Final = 10.0  # Prometheus' own scrape_timeout
SEND_S: Final = 30.0
LINGER_S: Final = 1.0
LINGER_BYTES: Final = 65_536
HEAD_BYTES: Final = 16_384
READ_BYTES: Final = 16_384
FRESH_S: Final = 1.0
PUBLISH_S: Final = 1.0

_PLAIN: Final = b"text/plain; charset=utf-8"
_BY: Final = {b"": False, b"by=worker": True}


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    kind: bytes = _PLAIN
    fields: tuple[tuple[bytes, bytes], ...] = ()


class Scrapes:
    """Answers scrapes at `address`. Raises OSError where that cannot be had.

    `told` is given a line for each fault of ours.
    """

    def __init__(self, address: Address, tallies: Tallies, told: Callable[[str], None]) -> None:
        self._tallies = tallies
        self._told = told
        self._texts: dict[bool, tuple[float, bytes]] = {}
        self._places = trio.CapacityLimiter(CALLERS)
        self._socket = bind(address.host, address.port)

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return address_of(self._socket)

    async def run(self) -> None:
        """Answer until cancelled; then listen no more."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._socket))
        await trio.serve_listeners(self._serve, [listener])

    def close(self) -> None:
        """Listen no more, where `run` was never called."""
        self._socket.close()

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                await self._serve_in_a_place(stream)
            except trio.BrokenResourceError:
                return  # the caller left
            except Exception as error:  # around a connection: the node lives on
                self._told(f"a scrape failed: {type(error).__name__}: {error}")

    async def _serve_in_a_place(self, stream: trio.SocketStream) -> None:
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            full = _Answer(503, b"all %d places are taken; ask again in a moment\n" % CALLERS)
            with trio.move_on_after(LINGER_S):
                await _send(h11.Connection(h11.SERVER), stream, full, with_body=True)
            return
        try:
            await self._converse(stream)
        finally:
            self._places.release()

    async def _converse(self, stream: trio.SocketStream) -> None:
        wire = h11.Connection(h11.SERVER, HEAD_BYTES)
        with trio.move_on_after(REQUEST_S) as patience:
            try:
                request = await _request(wire, stream)
            except h11.RemoteProtocolError as error:
                wrong = _Answer(error.error_status_hint, f"{error}\n".encode())
                await _send(wire, stream, wrong, with_body=True)
                return
        if patience.cancelled_caught or request is None:
            return
        answer = self._answer(request.method, request.target)
        await _send(wire, stream, answer, with_body=request.method != b"HEAD")

    def _answer(self, method: bytes, target: bytes) -> _Answer:
        path, _, query = target.partition(b"?")
        if path != b"/metrics":
            return _Answer(404, b"nothing is here but /metrics\n")
        if method not in (b"GET", b"HEAD"):
            return _Answer(405, b"use GET or HEAD here\n", fields=((b"allow", b"GET, HEAD"),))
        if query not in _BY:
            return _Answer(400, b"there is /metrics and /metrics?by=worker\n")
        return _Answer(200, self._text(by_worker=_BY[query]), CONTENT_TYPE)

    def _text(self, *, by_worker: bool) -> bytes:
        clock = trio.current_time()
        made, text = self._texts.get(by_worker, (clock - FRESH_S, b""))
        if made > clock - FRESH_S:
            return text
        tallies = self._tallies
        readings: dict[str | None, Reading] = {}
        if by_worker:
            readings.update(tallies.by_worker())
        else:
            readings[None] = tallies.reading()
        text = exposition(readings, version=__version__)
        self._texts[by_worker] = clock, text
        return text


async def publishing(publish: Callable[[], None]) -> None:
    """Have a worker's numbers published again and again, and once more when cancelled."""
    try:
        while True:
            publish()
            await trio.sleep(PUBLISH_S)
    finally:
        publish()


async def _request(wire: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """The head of what is asked; None where nothing is. Raises `h11.RemoteProtocolError`."""
    while (event := wire.next_event()) is h11.NEED_DATA:
        wire.receive_data(bytes(await stream.receive_some(READ_BYTES)))
    return event if isinstance(event, h11.Request) else None


async def _send(
    wire: h11.Connection, stream: trio.SocketStream, answer: _Answer, *, with_body: bool
) -> None:
    """Send the one answer of a connection and let it arrive; gives up in time."""
    fields = [
        (b"content-type", answer.kind),
        (b"content-length", b"%d" % len(answer.body)),
        (b"connection", b"close"),
        *answer.fields,
    ]
    phrase = HTTPStatus(answer.status).phrase.encode("ascii")
    response = h11.Response(status_code=answer.status, headers=fields, reason=phrase)
    head = wire.send(response) or b""
    with trio.move_on_after(SEND_S) as patience:
        await stream.send_all(head + answer.body if with_body else head)
        await stream.send_eof()
    if not patience.cancelled_caught:
        await _linger(stream)


async def _linger(stream: trio.SocketStream) -> None:
    """Read on for a little, since closing with unread input would cut the caller short."""
    size = 0
    with trio.move_on_after(LINGER_S):
        while size < LINGER_BYTES and (data := await stream.receive_some(READ_BYTES)):
            size += len(data)
