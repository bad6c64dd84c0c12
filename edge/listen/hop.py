"""The owner's side of the hop: connections from other workers, and the requests relayed on them.

A hop connection's task is the exchange, as a client's is. To an exchange the other worker looks
like the client that it speaks for: it reads at that client's pace, ends its side when that client
has, and is gone when that client is. It has no deadlines of its own. Whoever asks is a worker of
this node, which keeps its clients' deadlines and closes its own connections; the kernel closes
those of one that died.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

import trio

from edge.errors import ExchangeError, Failure
from edge.listen.link import Link
from edge.upstream.transport import divided
from edge.wire.frames import (
    Answered,
    Ask,
    Broken,
    Copy,
    Facts,
    Glance,
    Invalidate,
    Later,
    Wanted,
    Welcome,
    Whole,
)
from edge.wire.message import Chunk, End, Message, RequestHead, Reset, ResponseHead

if TYPE_CHECKING:
    from edge.upstream.transport import FileSpan, Part, Transport
    from edge.wire.frames import Frame, Lent

PIECE_BYTES: Final = 49_152  # of a file: what one reader holds in memory
LENT_BYTES: Final = 131_072  # of a file: less costs no more to copy


@runtime_checkable
class Lender(Protocol):
    """A source of parts of a file that can be lent."""

    @property
    def descriptor(self) -> int:
        """The file's."""

    def loan(self, start: int, stop: int) -> Lent | None:
        """What goes with the descriptor; None where these bytes may not be sent from it now."""


class HopStream:
    """A relayed request and its response; implements `ClientStream`.

    `tell` says what is known of the answer for the other worker's log; `copy`, set before the
    final head is sent, is what it takes to keep a copy of it.
    """

    def __init__(self, link: Link, ask: Ask) -> None:
        self.id = ask.id
        self.peer = ask.peer
        self.length = ask.length
        self.drawn = ask.drawn
        self.head_sent = False
        self.sent_bytes = 0
        self.complete = False  # the answer went out whole
        self.copy: Copy | None = None
        self.tell: Callable[[], Facts] = Facts
        self._link = link
        self._takes_files = ask.takes_files
        self._has_body = ask.has_body
        self._asked_for_body = False
        self._whole = trio.Event()  # the request's body has been read to its end
        if not ask.has_body:
            self._whole.set()

    @property
    def is_read(self) -> bool:
        """Whether the request's body has been read to its end, or will never come."""
        return self._whole.is_set() or not self._asked_for_body

    def request_body(self) -> HopStream | None:
        """The request's body, None where it has none."""
        return self if self._has_body else None

    async def receive(self) -> Chunk | End:
        """The next piece of the request's body; CLIENT_LEFT where no more comes."""
        if self._whole.is_set():
            return End()
        if not self._asked_for_body:
            self._asked_for_body = True
            await self._send(Wanted())
        frame = await self._link.receive()
        if isinstance(frame, Chunk):
            return frame
        if isinstance(frame, End):
            self._whole.set()
            return frame
        raise ExchangeError(Failure.CLIENT_LEFT, "in the middle of its request")

    async def send(self, message: Message, *, more: bool = False) -> None:
        """Send a message; with `more`, keep it back. CLIENT_LEFT where the other side is gone."""
        match message:
            case ResponseHead() if message.status >= 200:
                self.head_sent = True
                self._link.put(Answered(message, self.tell(), self.copy))
            case ResponseHead() | Chunk() | End():
                self._link.put(message)
                self.sent_bytes += len(message.data) if isinstance(message, Chunk) else 0
            case RequestHead() | Reset():
                return  # `complete` stays false
        if not more:
            await self.flush()
        self.complete = isinstance(message, End)

    async def send_file(self, span: FileSpan) -> None:
        """Send a part of a file as body, lending it where that can be; errors as for `send`, and
        what reading it raises."""
        if self._takes_files and len(span) >= LENT_BYTES and await self._lent(span):
            self.sent_bytes += len(span)
            span.offset = span.stop
        while len(span):
            data = await span.source.read(span.offset, min(PIECE_BYTES, len(span)))
            span.offset += len(data)
            await self.send(Chunk(data), more=not len(span))  # it leaves together with the end

    async def _lent(self, span: FileSpan) -> bool:
        """Whether the other side has been lent a part of a file, and has taken it."""
        source = span.source
        lent = source.loan(span.offset, span.stop) if isinstance(source, Lender) else None
        if lent is None:
            return False
        try:
            if not await self._link.lend(lent, source.descriptor):
                return False
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ExchangeError(Failure.CLIENT_LEFT) from error
        # Nothing is said where its client has ended its side: then it goes on without.
        return isinstance(await self._link.receive(), End)

    async def flush(self) -> None:
        """Send what was kept back."""
        try:
            await self._link.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ExchangeError(Failure.CLIENT_LEFT) from error

    async def _send(self, frame: Frame) -> None:
        self._link.put(frame)
        await self.flush()

    async def wait_left(self) -> None:
        """Return when the client has ended its side, once its request has been read whole."""
        await self._whole.wait()
        await self._link.wait_ended()

    async def tunnel(self, upstream: Transport, leftover: bytes) -> None:
        """Never asked for: requests for another protocol are not relayed."""
        await trio.lowlevel.checkpoint()
        raise ExchangeError(Failure.INTERNAL, "a tunnel through another worker")


Handler: TypeAlias = Callable[[HopStream, RequestHead], Awaitable[None]]


class OwnersDesk(Protocol):
    """What an owner does at once for another worker."""

    def answer_glance(self, glance: Glance) -> tuple[Whole, Sequence[Part]] | None:
        """The answer, and what is to follow it, or the part of a file that is to go with it and
        to be closed; None where it would have to wait."""

    async def invalidate(self, told: Invalidate) -> None:
        """Make all unusable that is stored under a key."""


class HopConnection:
    """A connection from another worker; `handle` leaves the stream's answer whole, or not."""

    head_since: float | None = None

    def __init__(self, transport: Transport, handle: Handler, desk: OwnersDesk) -> None:
        self.idle = True
        self.idle_since = trio.current_time()
        self._link = Link(transport)
        self._handle = handle
        self._desk = desk
        self._draining = False

    async def run(self) -> bool:
        """Answer until the other side leaves, or this one is no longer wanted; then it is closed.

        Always False: it is never parked.
        """
        try:
            await self._link.send(Welcome())
            while await self._answer_next():
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError, ExchangeError):
            pass  # the other worker is gone
        finally:
            self._link.close()
        return False

    def shed(self) -> None:
        """Close the connection now if no request is at work on it."""
        if self.idle:
            self._link.close()

    def give_up(self) -> None:
        """There is no part of a head."""

    def drain(self) -> None:
        """Close the connection as soon as no request is at work on it."""
        self._draining = True
        self.shed()

    async def _answer_next(self) -> bool:
        if self._draining:
            return False
        self.idle, self.idle_since = True, trio.current_time()
        frame = await self._link.receive()
        self.idle = False
        match frame:
            case Ask():
                return await self._relayed(frame)
            case Glance():
                await self._glanced(frame)
                return True
            case Invalidate():
                await self._desk.invalidate(frame)
                await self._link.send(End())
                return True
            case _:
                return False

    async def _glanced(self, glance: Glance) -> None:
        answered = self._desk.answer_glance(glance)
        if answered is None:
            await self._link.send(Later())
            return
        whole, rest = answered
        data, span = divided(rest)
        if span is not None:
            await self._lend(whole, span)
            return
        self._link.put(whole)
        for part in data:
            self._link.put(Chunk(memoryview(part)))
        await self._link.flush()

    async def _lend(self, whole: Whole, span: FileSpan) -> None:
        """Send an answer with the file that its rest is in."""
        try:
            is_lent = await self._link.lend(whole, span.source.descriptor)
        finally:
            span.source.close()
        if not is_lent:
            await self._link.send(Later())

    async def _relayed(self, ask: Ask) -> bool:
        stream = HopStream(self._link, ask)
        await self._handle(stream, ask.head)
        if not stream.complete:
            with contextlib.suppress(ExchangeError):
                await stream._send(Broken(stream.tell()))
        return stream.is_read
