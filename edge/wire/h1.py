"""HTTP/1.1 over h11 behind the strict gate: what both sides share, and the server.

Theory of operation
-------------------
Received bytes go through `gate` (which refuses, and cuts message from message) to h11 (which reads
heads and bodies and keeps the state of both sides), and what h11 tells is put into the messages of
`message`. What is sent goes to h11 and from there, body data untouched, to the queue. h11 decides
what lets a connection live on: `Connection: close`, HTTP/1.0, a body without a length. It knows no
keep-alive with HTTP/1.0, so those connections close after one exchange.

- *One request at a time.* Messages of the next request are made when both sides of this exchange
  are done; until then its bytes wait in the gate, which is what keeps pipelined answers in order
  and an error in its turn.
- *An answer after an error.* The bytes at fault never reached h11, so it can still frame one
  response. The engine marks it `connection: close`. The same holds for a response to no request
  (a timeout), and for a final answer to a client that still waits for `100 Continue`: whether it
  sends its body is then its own secret, and what follows cannot be read (RFC 9110 §10.1.1).
- *Upgrades.* A request keeps its Upgrade only where it may go on: `hop.upgrade_offered` allows it
  and there is no body. Until the final answer is known no further byte is read as HTTP: after 101
  they are `leftover`, after any other status they are the next request.
- *Framing of what is sent.* A response is framed by the Content-Length it has, else by chunks, or
  by closing towards HTTP/1.0. A request has a body only where its head says Content-Length or
  `Transfer-Encoding: chunked`. A body sent for HEAD, 204 or 304 is dropped here, so that no caller
  needs to know.
- *Plain exchanges* do without h11 (see `direct` and `plainserver`), which is made when needed.
- *Heads.* h11 is told of the fields that its state rests on, and writes them; the others are
  checked by `serial` and put behind them, each with its name and value as they are, in order.
- *Our own faults.* A body that disagrees with its length is `ExchangeError(INTERNAL)`, and the
  connection is broken off: a short body never looks whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Final, cast

import h11

from edge.errors import ExchangeError, Failure, ProtocolError
from edge.wire.gate import RequestGate
from edge.wire.grammar import RESPONSE_LIMITS, Limits
from edge.wire.hop import upgrade_offered
from edge.wire.message import Chunk, End, Headers, Message, RequestHead, Reset, ResponseHead
from edge.wire.serial import FRAMING, REASONS, divided
from edge.wire.target import parse_request_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge.wire.gate import Gate
    from edge.wire.message import Pair

__all__ = ["OVER", "RESPONSE_LIMITS", "STREAM", "WHOLE", "H1Side", "Limits", "ServerEngine"]

STREAM: Final = 1  # HTTP/1.1 has one at a time

OVER: Final = (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)
_NOT_YIELDED: Final = frozenset({b"host", b"http2-settings"})  # RFC 9113 §3.1 took the latter away
WHOLE: Final = h11.EndOfMessage()


class _Beside:
    """Stands for bytes that never come here: h11 asks no more of data than their number."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


class H1Side(ABC):
    """What the two sides share: the way in through gate and h11, and the queue out."""

    def __init__(self, role: type[h11.CLIENT | h11.SERVER], gate: Gate, limits: Limits) -> None:
        self._role = role
        self._gate = gate
        self._limits = limits
        self._queue: list[bytes | memoryview] = []
        self._behind: list[bytes | memoryview] = []  # of what the driver sends itself
        self._queued_bytes = 0
        self._unread_bytes = 0  # of body, yielded and not taken by a reader
        self._fault: ProtocolError | None = None  # the peer's
        self._broken = False  # by us
        self._upgraded = False
        self._reading = False  # a message is under way, or awaited
        self._bodiless = False  # what is sent now has no body, whatever its head says
        self.body_received = 0
        """Body bytes of the current message yielded so far, without framing."""
        self.body_sent = 0
        """Body bytes of the current message queued so far, without framing."""

    @cached_property
    def _h11(self) -> h11.Connection:
        return h11.Connection(self._role, max_incomplete_event_size=self._limits.head_bytes)

    # The way in.

    def receive(self, data: bytes) -> None:
        """Take what was read from the peer; `b""` means that no more will come."""
        self._gate.receive(data)

    def messages(self) -> Iterator[tuple[int, Message]]:
        """The messages that can be made now, with `STREAM`; raises `ProtocolError` in its turn.

        An iterator may be left at any point; the next one goes on from there.
        """
        while (message := self._next()) is not None:
            yield STREAM, message

    def _next(self) -> Message | None:
        if self._fault is not None:
            raise self._fault.anew()
        try:
            return self._read() if self._is_reading() else None
        except ProtocolError as fault:
            self._fault = fault.anew()
            raise

    def _read(self) -> Message | None:
        """The next message, passing on more input where h11 needs it."""
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:  # the gate leaves few: a 101 unasked
                raise ProtocolError(self._bad, str(error)) from error
            if isinstance(event, h11.Event):
                return self._message(event)
            pieces = self._gate.take()
            if not pieces:
                return None
            for piece in pieces:
                self._h11.receive_data(cast("bytes", piece))

    def _message(self, event: h11.Event) -> Message:
        match event:
            case h11.Data():
                return self._counted(Chunk(bytes(event.data)))
            case h11.EndOfMessage():
                self._reading = False
                return End()
            case _:
                return self._head(event)

    def _counted(self, chunk: Chunk) -> Chunk:
        self._unread_bytes += len(chunk.data)
        self.body_received += len(chunk.data)
        return chunk

    def consumed(self, stream: int, size: int) -> None:
        """Tell that a reader took `size` of the body bytes yielded so far."""
        self._unread_bytes -= size

    def readable(self) -> bool:
        """Is more input wanted: neither body nor what is behind it has piled up?"""
        return (
            not (self._fault or self._upgraded or self._gate.ended)
            and self._unread_bytes < self._limits.unread_bytes
            and self._gate.buffered < self._limits.head_bytes
        )

    @property
    def upgraded(self) -> bool:
        """A 101 has passed: the connection speaks another protocol from `leftover` on."""
        return self._upgraded

    def leftover(self) -> bytes:
        """Take the bytes received behind the last message."""
        return self._gate.leftover()

    # The way out.

    def send(self, stream: int, message: Message) -> None:
        """Queue `message`; raises `ExchangeError(INTERNAL)` where it breaks our own framing."""
        match message:
            case Chunk():
                if not self._bodiless and len(message.data):
                    self._emit(lambda: h11.Data(data=cast("bytes", message.data)))
                    self.body_sent += len(message.data)
            case End():
                self._emit(lambda: WHOLE)
            case Reset():
                self._broken = True
            case _:
                self._send_head(message)

    def send_beside(self, stream: int, size: int) -> bool:
        """Count in `size` bytes of body which the driver sends itself; raises as `send`.

        Their place is behind what the next `outgoing` gives, and before what the one after that
        does. False where they are not to be sent.
        """
        if self._bodiless:
            return False
        beside = _Beside(size)
        _, parts = self._framed(lambda: h11.Data(data=cast("bytes", beside)))
        at = parts.index(cast("bytes", beside))
        self._queue += parts[:at]
        self._behind += parts[at + 1 :]
        self._queued_bytes += sum(map(len, parts)) - size
        self.body_sent += size
        return True

    def _framed(self, make: Callable[[], h11.Event]) -> tuple[h11.Event, list[bytes]]:
        """An event and its bytes; h11 checks it while it is made and while it is sent."""
        if self._broken:
            raise ExchangeError(Failure.INTERNAL, "the stream was broken off")
        try:
            event = make()
            return event, self._h11.send_with_data_passthrough(event) or []
        except h11.LocalProtocolError as error:
            self._broken = True
            raise ExchangeError(Failure.INTERNAL, str(error)) from error

    def _emit(self, make: Callable[[], h11.Event], lines: bytes = b"") -> None:
        """Queue the event's bytes.

        `lines` are field lines that a head has besides those that h11 was told of.
        """
        event, parts = self._framed(make)
        if lines:  # before the empty line that ends a head
            parts = [b"".join(parts)[:-2], lines, b"\r\n"]
        if isinstance(event, h11.Data):
            self._queue += parts
        else:
            self._queue += [b"".join(parts)] if parts else []
        self._queued_bytes += sum(map(len, parts))

    def outgoing(self) -> list[bytes | memoryview]:
        """Take what is queued, in order; body data are the very objects that were sent."""
        queue, self._queue, self._behind = self._queue, self._behind, []
        self._queued_bytes = sum(map(len, self._queue))
        return queue

    def window(self, stream: int) -> int:
        """Body bytes that may be sent now without queueing more than the high-water mark."""
        return max(0, self._limits.unread_bytes - self._queued_bytes)

    def _begin_cycle(self) -> None:
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        self._begin_counting()

    def _begin_counting(self) -> None:
        self._unread_bytes = self.body_received = self.body_sent = 0
        self._reading = True

    # What differs between the sides.

    _gate: Gate
    _bad: Failure

    def _is_reading(self) -> bool:
        """May the next input be read as a message now?"""
        return self._reading

    @abstractmethod
    def _head(self, event: h11.Event) -> Message:
        """The head that `event` is, checked as far as h11 and the gate did not."""

    @abstractmethod
    def _send_head(self, head: RequestHead | ResponseHead) -> None:
        """Queue `head`; what the other side would send is our own fault."""


class ServerEngine(H1Side):
    """A client's connection: yields requests, sends responses."""

    _gate: RequestGate
    _bad = Failure.BAD_MESSAGE

    def __init__(self, limits: Limits | None = None, scheme: bytes = b"http") -> None:
        limits = limits or Limits()
        super().__init__(h11.SERVER, RequestGate(limits), limits)
        self._scheme = scheme
        self._method = b""
        self._body_expected = False
        self._upgrade_requested = False
        self._reading = True

    @property
    def has_partial_head(self) -> bool:
        """Some bytes of a next request have come, and no message of it was made."""
        return self._h11.our_state is h11.IDLE and self._gate.buffered > 0

    @property
    def body_expected(self) -> bool:
        """The request has a body, and its `End` was not yielded yet."""
        return self._body_expected and self._reading

    @property
    def upgrade_requested(self) -> bool:
        """The request offers another protocol: it may be answered by a 101."""
        return self._upgrade_requested

    @property
    def can_answer(self) -> bool:
        """A final response can still be sent: to the request, or to what failed to be one."""
        return not self._broken and self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    @property
    def keep_alive(self) -> bool:
        """Nothing yet forbids another exchange on this connection.

        Told for certain once the request's `End` was yielded and the response's was sent.
        """
        return self._fault is None and not self.finished and self._h11.their_state not in OVER

    @property
    def is_at_rest(self) -> bool:
        """Nothing has come behind a request whose connection lives on, not even an end.

        To be asked when the request was read to its end and its response was sent.
        """
        return self.keep_alive and not self._gate.buffered and not self._gate.ended

    @property
    def finished(self) -> bool:
        """Nothing more will be read or made: write what `outgoing` holds, then close."""
        ours = self._h11.our_state
        if self._broken or self._upgraded or ours in OVER:
            return True
        if ours is h11.DONE and self._fault is not None:
            return True
        return self._is_idle() and self._gate.ended and not self._gate.buffered

    def expects_continue(self, stream: int) -> bool:
        """The client waits for `100 Continue` before it sends its body."""
        return self._h11.they_are_waiting_for_100_continue and not self._gate.buffered

    def _is_idle(self) -> bool:
        ours, theirs = self._h11.our_state, self._h11.their_state
        return ours is h11.IDLE or (ours is h11.DONE and theirs is h11.DONE)

    def _is_reading(self) -> bool:
        if not self._reading and self._is_idle():
            self._begin_cycle()
            self._gate.next_request()
            self._method = b""
            self._body_expected = self._upgrade_requested = self._bodiless = False
        return self._reading

    def _head(self, event: h11.Event) -> RequestHead:
        assert isinstance(event, h11.Request)
        self._method = event.method
        self._body_expected = not self._gate.whole
        pairs = [(name.lower(), value) for name, value in event.headers.raw_items()]
        hosts = [value for name, value in pairs if name == b"host"]
        scheme, authority, target = parse_request_target(
            event.method, event.target, hosts, self._scheme, event.http_version
        )
        headers = Headers(pair for pair in pairs if pair[0] not in _NOT_YIELDED)
        head = RequestHead(event.method, scheme, authority, target, headers, event.http_version)
        _check_expectation(head)
        return self._with_upgrade(head) if b"upgrade" in headers else head

    def _with_upgrade(self, head: RequestHead) -> RequestHead:
        """`head` with those protocols that may be offered on; none where there is a body."""
        protocols = None if self._body_expected else upgrade_offered(head)
        self._upgrade_requested = protocols is not None
        if protocols is None:
            headers = head.headers.without({b"upgrade"})
        else:
            headers = head.headers.replaced(b"upgrade", protocols)
        return RequestHead(
            head.method, head.scheme, head.authority, head.target, headers, head.version
        )

    def _send_head(self, head: RequestHead | ResponseHead) -> None:
        if not isinstance(head, ResponseHead):
            raise ExchangeError(Failure.INTERNAL, "a server sends responses")
        if head.status < 200:
            return self._send_interim(head)
        if self._fault is None and not self._reading:
            self._is_reading()  # an answer to no request, between two of them
        pairs = head.headers.pairs
        if head.status == 204:
            pairs = head.headers.without(FRAMING).pairs  # RFC 9110 §8.6
        if self._is_last() and b"connection" not in head.headers:
            pairs = (*pairs, (b"connection", b"close"))
        self._bodiless = self._method == b"HEAD" or head.status in (204, 304)
        judged, lines = divided(pairs)
        return self._emit(lambda: _event(h11.Response, head, judged), lines)

    def _is_last(self) -> bool:
        """Whether the answer about to be sent ends the connection for a reason h11 cannot know."""
        return (
            self._fault is not None
            or self._h11.our_state is h11.IDLE
            or self.expects_continue(STREAM)
        )

    def _send_interim(self, head: ResponseHead) -> None:
        if self._h11.their_http_version == b"1.0":
            return  # RFC 9110 §15.2: HTTP/1.0 knows none
        if head.status == 101 and not self._upgrade_requested:
            raise ExchangeError(Failure.INTERNAL, "101 to a request without Upgrade")
        pairs = list(head.headers.without(FRAMING))
        self._emit(lambda: _event(h11.InformationalResponse, head, pairs))
        self._upgraded = head.status == 101


def _event(
    kind: type[h11.Response | h11.InformationalResponse],
    head: ResponseHead,
    pairs: list[Pair],
) -> h11.Event:
    reason = head.reason or REASONS.get(head.status, b"")
    return kind(status_code=head.status, headers=pairs, reason=reason)


def _check_expectation(head: RequestHead) -> None:
    """Raise 417 for an expectation other than 100-continue (RFC 9110 §10.1.1); 1.0 has none."""
    if head.version == b"1.1" and b"expect" in head.headers:
        value = head.headers.joined(b"expect") or b""
        if value.lower() != b"100-continue":
            raise ProtocolError(Failure.BAD_EXPECTATION, f"Expect {value[:40]!r}")
