"""A server engine that answers a plain request without h11: what the lane passes on is one.

Theory of operation
-------------------
A request that cannot be answered from the lane goes to a task and an engine, and nearly always it
is a miss: one whole plain head, read already, to be answered by a plain head and a body of the
length that it says. h11 would read the one again and write the other, for an eighth of what a miss
costs. Here the plain reader reads, `serial` writes, and what is left to know is how many bytes of
the body are still owed.

- *The first request only.* The lane makes an engine for each that it passes on. What comes behind
  that one, before the connection is parked again, goes the ordinary way.
- *Handed over before the answer.* Where the answer turns out to be more than plain (interim, in
  chunks, the connection's last), the request's bytes are given to gate and h11 as if they had just
  come, and `ServerEngine` goes on from there. A test compares the two ways to the byte.
- *Our own faults* are told as there: a body that belies its length breaks the connection off.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NoReturn

import h11

from edge.errors import ExchangeError, Failure
from edge.wire.h1 import ServerEngine
from edge.wire.message import Chunk, End, Message, RequestHead, Reset, ResponseHead
from edge.wire.serial import plain_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.wire.grammar import Limits


class _Answer(Enum):
    """How far the answer to a plain request is."""

    OWED = auto()
    BODY = auto()
    WHOLE = auto()


class PlainServerEngine(ServerEngine):
    """See the module; `read` gives the request that some bytes are, if it is whole and plain."""

    def __init__(
        self, limits: Limits, scheme: bytes, read: Callable[[bytes], RequestHead | None]
    ) -> None:
        super().__init__(limits, scheme)
        self._read_plain = read
        self._is_fresh = True
        self._plain: RequestHead | None = None  # the request under way, of which h11 knows nothing
        self._raw = b""
        self._head_due = self._end_due = False
        self._answer = _Answer.OWED
        self._owed_bytes = 0  # of the answer's body

    # The way in.

    def receive(self, data: bytes) -> None:
        """Take what was read from the peer; `b""` means that no more will come."""
        is_fresh, self._is_fresh = self._is_fresh, False
        head = self._read_plain(data) if is_fresh else None
        if head is not None and _lives_on(head):
            self._plain, self._raw, self._method = head, data, head.method
            self._head_due = self._end_due = True
        else:
            super().receive(data)

    def readable(self) -> bool:
        """Is more input wanted: neither body nor what is behind it has piled up?"""
        held = len(self._raw) if self._head_due else 0  # of which the gate knows nothing
        return super().readable() and held + self._gate.buffered < self._limits.head_bytes

    def leftover(self) -> bytes:
        """Take the bytes received behind the last message."""
        if self._head_due:
            self._hand_over()
        return super().leftover()

    def _is_reading(self) -> bool:
        if self._is_over:
            self._catch_up()
        return super()._is_reading() if self._plain is None else self._end_due

    def _read(self) -> Message | None:
        if self._plain is None:
            return super()._read()
        if self._head_due:
            self._head_due = False
            return self._plain
        self._end_due = self._reading = False
        return End()

    def _hand_over(self) -> None:
        """Have `ServerEngine` know what it would if it had read the request."""
        self._plain = None
        self._gate.receive(self._raw + self._gate.leftover())
        if not self._head_due:
            super()._read()
            if not self._end_due:
                super()._read()
        self._head_due = self._end_due = False

    def _catch_up(self) -> None:
        """Have h11 in the state that the exchange, which is over, would have left it in."""
        self._plain = None
        self._h11.receive_data(self._raw)
        while self._h11.their_state is not h11.DONE:
            self._h11.next_event()
        self._h11.send(h11.Response(status_code=204, headers=[]))  # as good as any that lives on
        self._h11.send(h11.EndOfMessage())

    # What is asked.

    @property
    def _is_over(self) -> bool:
        """All of a plain exchange is, and nothing was begun since."""
        whole = self._answer is _Answer.WHOLE and not self._end_due
        return whole and self._plain is not None

    @property
    def has_partial_head(self) -> bool:
        """Some bytes of a next request have come, and no message of it was made."""
        return super().has_partial_head if self._plain is None else self._head_due

    @property
    def can_answer(self) -> bool:
        """A final response can still be sent: to the request, or to what failed to be one."""
        if self._plain is None:
            return super().can_answer
        return not self._broken and self._answer is _Answer.OWED

    @property
    def keep_alive(self) -> bool:
        """Nothing yet forbids another exchange on this connection."""
        return super().keep_alive if self._plain is None else not self.finished

    @property
    def is_at_rest(self) -> bool:
        """Nothing has come behind a request whose connection lives on, not even an end."""
        return not self._head_due and super().is_at_rest

    @property
    def finished(self) -> bool:
        """Nothing more will be read or made: write what `outgoing` holds, then close."""
        if self._plain is None:
            return super().finished
        has_left = self._gate.ended and not self._gate.buffered
        return self._broken or (self._is_over and has_left)

    def expects_continue(self, stream: int) -> bool:
        """The client waits for `100 Continue` before it sends its body."""
        return self._plain is None and super().expects_continue(stream)

    # The way out.

    def send(self, stream: int, message: Message) -> None:
        """Queue `message`; raises `ExchangeError(INTERNAL)` where it breaks our own framing."""
        if self._head_due:  # before it was read: an answer to nothing, or our fault
            self._hand_over()
        if self._plain is None or isinstance(message, Reset | RequestHead):
            super().send(stream, message)
        elif isinstance(message, Chunk):
            if len(message.data) and not self._bodiless:
                self._send_body(message.data)
        elif isinstance(message, End):
            self._send_end()
        else:
            self._send_answer(stream, message)

    def _send_answer(self, stream: int, head: ResponseHead) -> None:
        if self._is_over:
            self._catch_up()
        if self._plain is None or head.status == 101:  # an answer to nothing, or to no Upgrade
            super().send(stream, head)
            return
        if self._broken or self._answer is not _Answer.OWED:
            self._fail("an answer has begun")
        if head.status >= 200:  # before it may prove to be our fault
            self._bodiless = self._method == b"HEAD" or head.status in (204, 304)
        written = None if b"connection" in head.headers else plain_head(head)
        if written is None:
            self._hand_over()
            super().send(stream, head)
            return
        self._owed_bytes = 0 if self._bodiless else int(head.headers.get(b"content-length") or 0)
        self._answer = _Answer.BODY
        self._put(written)

    def send_beside(self, stream: int, size: int) -> bool:
        """Count in `size` bytes of body which the driver sends itself; raises as `send`.

        Nothing comes behind them but more of the body.
        """
        if self._plain is None:
            return super().send_beside(stream, size)
        if self._bodiless:
            return False
        self._count_body(size)
        return True

    def _send_body(self, data: bytes | memoryview) -> None:
        self._count_body(len(data))
        self._put(data)

    def _count_body(self, size: int) -> None:
        if self._broken or self._answer is not _Answer.BODY or size > self._owed_bytes:
            self._fail("a body longer than was said")
        self._owed_bytes -= size
        self.body_sent += size

    def _send_end(self) -> None:
        if self._broken or self._answer is not _Answer.BODY or self._owed_bytes:
            self._fail("a body shorter than was said")
        self._answer = _Answer.WHOLE

    def _put(self, data: bytes | memoryview) -> None:
        self._queue.append(data)
        self._queued_bytes += len(data)

    def _fail(self, why: str) -> NoReturn:
        self._broken = True
        raise ExchangeError(Failure.INTERNAL, why)


def _lives_on(head: RequestHead) -> bool:
    """Whether the connection does, behind a plain request."""
    said = head.headers.get(b"connection")
    return head.method in (b"GET", b"HEAD") and (said is None or said.lower() == b"keep-alive")
