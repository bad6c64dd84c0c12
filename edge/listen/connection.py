"""One client's HTTP/1.1 connection: the task that *is* the exchange.

The connection's task reads a head, hands it to the exchange with a `ClientStream`, and comes back
for the next. A client is never trusted with more than this connection: every wait for it has a
deadline, what it has not read is not buffered here (the stream sends a chunk and waits for the
kernel to take it), and what it has not asked for yet is not read.

How a connection ends tells the client the truth. A response that could not be finished is broken
off with a reset, so that it cannot be taken for whole. An answer after which there may be unread
input is followed by a half-close and a short, bounded drain, because closing a socket with unread
bytes in it resets the connection and can destroy the answer on its way (RFC 9112 §9.6).
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

import trio

from edge.errors import ExchangeError, Failure
from edge.wire.h1 import Limits, ServerEngine
from edge.wire.message import Chunk, End, Headers, Message, RequestHead, Reset, ResponseHead
from edge.wire.plainserver import PlainServerEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.upstream.transport import FileSpan, Part, Transport

READ_BYTES = 65_536
DRAIN_BYTES = 262_144  # what is read of a request nobody wanted, before the connection is given up
LINGER_BYTES = 16 << 20  # a fast client has as much under way when it is told to stop
FIRST_S = 1.0  # for the first request of a connection that came just before draining
TURNS = 16  # pieces of a request's body taken without waiting, before others run
CONTINUE = ResponseHead(100, Headers(), b"Continue")


@dataclass(frozen=True, slots=True)
class ConnectionPolicy:
    """What a client's connection may cost in time and size."""

    limits: Limits = field(default_factory=Limits)
    head_s: float = 10.0  # nginx 60, Varnish 5, Apache 20-40 (mod_reqtimeout)
    idle_s: float = 60.0
    body_grace_s: float = 10.0
    body_rate: int = 500  # bytes a second, once the grace is over (Apache's MinRate)
    send_s: float = 30.0
    request_body_bytes: int = 1 << 30
    linger_s: float = 2.0
    tunnel_idle_s: float = 600.0


class RequestBody(Protocol):
    """A request's body; `length` in bytes, None where it is not known."""

    @property
    def length(self) -> int | None: ...

    async def receive(self) -> Chunk | End: ...


class ClientStream(Protocol):
    """What an exchange sees of its client."""

    peer: bytes
    head_sent: bool  # whether the final response head has gone out
    sent_bytes: int  # of body

    def request_body(self) -> RequestBody | None: ...

    async def send(self, message: Message, *, more: bool = False) -> None: ...

    async def send_file(self, span: FileSpan) -> None: ...

    async def flush(self) -> None: ...

    async def wait_left(self) -> None: ...

    async def tunnel(self, upstream: Transport, leftover: bytes) -> None: ...


Handler: TypeAlias = Callable[[ClientStream, RequestHead], Awaitable[None]]
Refusal: TypeAlias = Callable[[bytes, ExchangeError], tuple[ResponseHead, bytes]]
"""(peer, why) → what a client is told whose message never became a request; it also logs."""


class Connection:
    """One accepted HTTP/1.1 connection, from its first byte to its last.

    `first` is what was read of it before it had a task. One that `may_park` ends its task, and not
    itself, when there is nothing to do on it. `read_plain` reads plain requests of this scheme.
    """

    def __init__(
        self,
        transport: Transport,
        peer: bytes,
        policy: ConnectionPolicy,
        handle: Handler,
        refuse: Refusal,
        scheme: bytes = b"http",
        *,
        first: bytes = b"",
        may_park: bool = False,
        read_plain: Callable[[bytes], RequestHead | None] | None = None,
    ) -> None:
        self.peer = peer
        self.idle = not first
        self.idle_since = trio.current_time()
        self.draining = False
        self.is_new = True  # no request has come on it
        self.head_since: float | None = None  # when a head began of which there is only a part
        self._transport = transport
        self._policy = policy
        self._handle = handle
        self._refuse = refuse
        if read_plain is None:
            self._engine = ServerEngine(policy.limits, scheme)
        else:
            self._engine = PlainServerEngine(policy.limits, scheme, read_plain)
        self._scope = trio.CancelScope()
        self._stream = 0
        self._broken = False
        self._shed = False
        self._current: H1Stream | None = None
        self._may_park = may_park
        self._has_first = bool(first)  # which is answered even where it is the last
        if first:
            self._engine.receive(first)

    async def run(self) -> bool:
        """Serve requests until the client leaves, errs, or is no longer wanted.

        True where there is nothing to do at the moment and the connection is to be parked: whoever
        asked for that has it now, open. Else it is closed.
        """
        parked = False
        try:
            while not parked and await self._serve_next():
                parked = self._may_park and self._engine.is_at_rest
        except (trio.BrokenResourceError, trio.ClosedResourceError, ExchangeError):
            self._broken = True  # gone, or deaf: there is no one to tell
        except Exception as error:  # around a connection: no client takes its worker down
            self._broken = True
            self._refuse(self.peer, ExchangeError(Failure.INTERNAL, repr(error)))
        finally:
            if not parked:
                await self._close()
        return parked

    def shed(self) -> None:
        """Close the connection now, without lingering, if no request is at work on it."""
        if self.idle:
            self.idle = False
            self._shed = True
            self._scope.cancel()

    def give_up(self) -> None:
        """Break the connection off now if all there is of its next request is part of a head."""
        if self.head_since is not None:
            self.head_since = None
            self._broken = True
            self._scope.cancel()

    def drain(self) -> None:
        """Close the connection as soon as no request is at work on it; of one that is new, the
        first is waited for a moment: its client cannot know that it came too late."""
        self.draining = True
        if self._current is not None:
            self._current.is_last = True
        if self.idle and self.is_new:
            soon = trio.current_time() + FIRST_S
            self._scope.deadline = min(self._scope.deadline, soon)
        elif self.idle:
            self.idle = False
            self._scope.cancel()

    async def _serve_next(self) -> bool:
        try:
            head = await self._next_head()
        except ExchangeError as error:
            self.head_since = None
            await self._answer_refusal(error)
            return False
        self.head_since = None
        if head is None:
            return False
        self.idle = self._shed = False
        stream = H1Stream(
            self._engine, self._transport, self._policy, self._stream, self.peer, head
        )
        self._current, stream.is_last = stream, self.draining
        try:
            await self._handle(stream, head)
        finally:
            self._current = None
            self._broken = not stream.complete
        return await self._may_go_on(stream)

    async def _next_head(self) -> RequestHead | None:
        """The next request's head; None when the client has left or was idle for too long."""
        self.idle, self.idle_since = not self._has_first, trio.current_time()
        is_over = self._shed or (self.draining and not self.is_new)
        if is_over and not self._has_first:
            return None
        self._has_first = False
        if (head := self._head_in_hand()) is not None:
            return head
        started = False
        patience_s = FIRST_S if self.draining else self._policy.idle_s
        self._scope = scope = trio.CancelScope(deadline=trio.current_time() + patience_s)
        with scope:
            while not self._engine.finished:
                if not started and self._engine.has_partial_head:
                    # Counted from the first byte, however slowly the rest may drip.
                    started, self.idle = True, False
                    self.head_since = trio.current_time()
                    scope.deadline = self.head_since + self._policy.head_s
                self._engine.receive(await self._transport.receive_some(READ_BYTES))
                if (head := self._head_in_hand()) is not None:
                    return head
            return None
        if started and not self._broken:
            raise ExchangeError(Failure.HEAD_TIMEOUT)
        return None

    def _head_in_hand(self) -> RequestHead | None:
        """A head among what was read; passes over the end of the request before it."""
        for number, message in self._engine.messages():
            if isinstance(message, RequestHead):
                self._stream, self.is_new = number, False
                return message
        return None

    async def _answer_refusal(self, error: ExchangeError) -> None:
        head, body = self._refuse(self.peer, error)
        if not self._engine.can_answer:
            self._broken = True
            return
        self._stream += 1
        stream = H1Stream(self._engine, self._transport, self._policy, self._stream, self.peer)
        await stream.send(head, more=True)
        await stream.send(Chunk(body), more=True)
        await stream.send(End())

    async def _may_go_on(self, stream: H1Stream) -> bool:
        if stream.tunnelled or not stream.complete or self.draining:
            return False
        if not self._engine.keep_alive:
            return False
        return not self._engine.body_expected or await stream.finish_request()

    async def _close(self) -> None:
        if self._broken:
            self._transport.abort()
            return
        # One that is shed had nothing to say, and its descriptor is wanted now.
        await leave(self._transport, 0 if self._shed else self._policy.linger_s)


class H1Stream:
    """One request and its response on an HTTP/1.1 connection; implements `ClientStream`."""

    def __init__(
        self,
        engine: ServerEngine,
        transport: Transport,
        policy: ConnectionPolicy,
        number: int,
        peer: bytes,
        head: RequestHead | None = None,
    ) -> None:
        self.peer = peer
        self.length = _content_length(head)
        self.head_sent = False
        self.complete = False  # the response went out whole, or nothing of it did and none is owed
        self.tunnelled = False
        self.is_last = False  # the connection closes behind it, which the client should know
        self.sent_bytes = 0
        self.received_bytes = 0
        self._engine = engine
        self._transport = transport
        self._policy = policy
        self._number = number
        self._waited_s = 0.0
        self._turns = 0
        self._request_done = False
        self._whole = trio.Event()  # the request's body has been read to its end
        self._torn = False

    def request_body(self) -> H1Stream | None:
        """The request's body, None where it has none; raises BODY_TOO_LARGE where it says so."""
        if not self._engine.body_expected:
            return None
        if self.length is not None and self.length > self._policy.request_body_bytes:
            raise ExchangeError(Failure.BODY_TOO_LARGE)
        return self

    async def receive(self) -> Chunk | End:
        """The request's next piece of body, read at the client's pace but not below the minimum.

        Errors: BODY_TIMEOUT, BODY_TOO_LARGE, CLIENT_LEFT, or what the engine finds in the bytes.
        """
        if self._request_done:
            return End()
        await self._fair()
        if self._engine.expects_continue(self._number) and not self.head_sent:
            self._engine.send(self._number, CONTINUE)
            await self.flush()
        while True:
            for _, message in self._engine.messages():
                if isinstance(message, Chunk):
                    return self._counted(message)
                if isinstance(message, End):
                    self._request_done = True
                    self._whole.set()
                    return message
                if isinstance(message, Reset):
                    raise message.error
            await self._read_more()

    async def wait_left(self) -> None:
        """Return when the client has ended its side, once its request has been read whole.

        It may have gone, or may only have nothing more to say. Not to be awaited while another
        task reads from the connection.
        """
        if self._engine.body_expected:
            await self._whole.wait()
        await self._transport.wait_ended()

    async def _fair(self) -> None:
        """Let others run now and then: a read may hold hundreds of messages."""
        self._turns += 1
        if self._turns >= TURNS:
            self._turns = 0
            await trio.lowlevel.checkpoint()

    def _counted(self, chunk: Chunk) -> Chunk:
        self.received_bytes += len(chunk.data)
        self._engine.consumed(self._number, len(chunk.data))
        if self.received_bytes > self._policy.request_body_bytes:
            raise ExchangeError(Failure.BODY_TOO_LARGE)
        return chunk

    async def _read_more(self) -> None:
        policy = self._policy
        allowed_s = policy.body_grace_s + self.received_bytes / policy.body_rate - self._waited_s
        began = trio.current_time()
        with trio.move_on_after(max(0.0, allowed_s)) as scope:
            try:
                data = await self._transport.receive_some(READ_BYTES)
            except trio.BrokenResourceError as error:
                raise ExchangeError(Failure.CLIENT_LEFT) from error
        self._waited_s += trio.current_time() - began
        if scope.cancelled_caught:
            raise ExchangeError(Failure.BODY_TIMEOUT)
        self._engine.receive(data)

    async def send(self, message: Message, *, more: bool = False) -> None:
        """Send a message; with `more`, keep it back to leave in one write with the next.

        Errors: SEND_TIMEOUT when the client takes nothing at all for `send_s`, CLIENT_LEFT.
        """
        if isinstance(message, Reset):
            return  # `complete` stays false: the connection will be broken off
        if self.is_last and isinstance(message, ResponseHead) and message.status >= 200:
            headers = message.headers.without({b"connection"}).plus((b"connection", b"close"))
            message = replace(message, headers=headers)
        self._engine.send(self._number, message)
        if isinstance(message, ResponseHead):
            self.head_sent = self.head_sent or message.status >= 200
        elif isinstance(message, Chunk):
            self.sent_bytes += len(message.data)
        if not more:
            await self.flush()
        if isinstance(message, End):
            self.complete = True

    async def send_file(self, span: FileSpan) -> None:
        """Send a part of a file as body; errors as for `send`, and what reading it raises."""
        start = span.offset
        if not self._engine.send_beside(self._number, len(span)):
            return
        try:
            await self._send_parts([*self._engine.outgoing(), span])
        finally:
            self.sent_bytes += span.offset - start

    async def flush(self) -> None:
        """Send what was kept back."""
        await self._send_parts(self._engine.outgoing())

    async def _send_parts(self, parts: Sequence[Part]) -> None:
        if self._torn:
            raise ExchangeError(Failure.CLIENT_LEFT, "an earlier write was broken off")
        if not parts:
            return
        # Until they have left whole: the task that sends 100 Continue may be cancelled at it.
        self._torn = True
        try:
            await self._transport.send_parts(parts, stall_s=self._policy.send_s)
            self._torn = False
        except trio.TooSlowError as error:
            raise ExchangeError(Failure.SEND_TIMEOUT) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ExchangeError(Failure.CLIENT_LEFT) from error

    async def finish_request(self) -> bool:
        """Read away what is left of the request; False if that is more than it is worth."""
        drained = self.received_bytes
        try:
            while not self._request_done:
                await self.receive()
                if self.received_bytes - drained > DRAIN_BYTES:
                    return False
        except ExchangeError:
            return False
        return True

    async def tunnel(self, upstream: Transport, leftover: bytes) -> None:
        """Copy bytes both ways until both have ended, or for too long neither said anything."""
        self.tunnelled = True
        await self.flush()
        async with trio.open_nursery() as nursery:
            pulse = _Pulse(self._policy.tunnel_idle_s, nursery.cancel_scope)
            first = self._engine.leftover()
            nursery.start_soon(_copy, self._transport, upstream, first, pulse)
            nursery.start_soon(_copy, upstream, self._transport, leftover, pulse)
        self.complete = not pulse.broken


async def leave(transport: Transport, linger_s: float) -> None:
    """Close a connection behind its last answer, so that this arrives whatever is on its way."""
    with trio.CancelScope(shield=True) as scope:
        scope.deadline = trio.current_time() + linger_s
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await _linger(transport)
    transport.close()


async def _linger(transport: Transport) -> None:
    await transport.send_eof()
    drained = 0
    while drained < LINGER_BYTES:
        data = await transport.receive_some(READ_BYTES)
        if not data:
            return
        drained += len(data)


def _content_length(head: RequestHead | None) -> int | None:
    value = head.headers.get(b"content-length") if head else None
    return None if value is None else int(value)  # digits: the engine has seen to it


class _Pulse:
    """The deadline of a tunnel: moved on by every byte in either direction."""

    def __init__(self, idle_s: float, scope: trio.CancelScope) -> None:
        self._idle_s = idle_s
        self._scope = scope
        self.broken = False
        self.beat()

    def beat(self) -> None:
        self._scope.deadline = trio.current_time() + self._idle_s

    def stop(self) -> None:
        """One side has broken off: so is the other, for which it must not look like an end."""
        self.broken = True
        self._scope.cancel()


async def _copy(source: Transport, sink: Transport, first: bytes, pulse: _Pulse) -> None:
    try:
        data = first or await source.receive_some(READ_BYTES)
        while data:
            await sink.send_all(data)
            pulse.beat()
            data = await source.receive_some(READ_BYTES)
            pulse.beat()
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pulse.stop()
