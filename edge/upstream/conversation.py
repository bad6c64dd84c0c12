"""One request and its response on one connection to an origin.

Reading and sending go on side by side, because an origin may answer before it has the whole
request. The reader is whoever calls `receive`; the sender is `pump`, a task of its own where
there is a body. They meet in three places only: the pump ends (how long to wait for the head
counts from there), the pump has *trouble* (the reader is woken and raises it), or the response
ends first (the owner cancels the pump, and the connection is not used again).

A request is never ended as if it were whole when it is not: where the body's source fails, the
connection is broken off. An origin that stops reading before it has answered is given up after
`between_bytes_s`; one that has answered is only no longer sent to.

How long a wait may be: for the head `first_byte_s` after the request was sent, anew after each
interim response (the engine bounds their number); for more body `between_bytes_s`; while the body
is still being sent, the sender's own deadlines hold; and always what is left of `total_s`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

import trio

from edge.errors import ExchangeError, Failure
from edge.upstream.transport import READ_BYTES
from edge.wire.client import ClientEngine
from edge.wire.message import Chunk, End, Message, RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from edge.upstream.origin import Origin
    from edge.upstream.pool import Connection
    from edge.wire.h1 import Limits

STREAM: Final = 1  # HTTP/1.1 has one at a time
TURNS: Final = 32  # reads and messages without waiting, before others run: 16 of each, 1 MiB


class BodySource(Protocol):
    """Where a request's body comes from; `length` is None where it is not known."""

    @property
    def length(self) -> int | None: ...

    async def receive(self) -> Chunk | End: ...


class Conversation:
    """See the module. `repeatable` says that the method may be repeated."""

    def __init__(
        self,
        connection: Connection,
        origin: Origin,
        limits: Limits,
        *,
        deadline: float,
        repeatable: bool,
    ) -> None:
        self.connection = connection
        self.heard = False  # a byte of the response has come
        self.consumed = False  # something of the request's body may be gone
        self._transport = connection.transport
        self._origin = origin
        self._engine = ClientEngine(limits)
        self._deadline = deadline
        self._repeatable = repeatable
        self._messages: Iterator[tuple[int, Message]] = iter(())
        self.upgraded = False  # the answer was a 101
        self._answered = False  # the final head has come
        self._ended = False  # the origin will send no more
        self._sending = True
        self.sent = False  # all of the request
        self._head_due = math.inf
        self._turns = 0
        self._waiting: trio.CancelScope | None = None
        self._trouble: ExchangeError | None = None

    # --- sending

    async def ask(self, request: RequestHead, body: BodySource | None) -> bool:
        """Send the head, and the end where there is no body. True if the body may follow."""
        self._engine.send(STREAM, request)
        if body is None:
            self._engine.send(STREAM, End())
        try:
            await self._flush()
        except trio.TooSlowError as error:
            raise self._standstill() from error
        except trio.BrokenResourceError:
            # The origin is gone, but its last words (408, 400) may be waiting to be read.
            self._stop_sending(sent=False)
            return False
        if body is None:
            self._stop_sending(sent=True)
        return body is not None

    async def pump(self, body: BodySource) -> None:
        """Send the body until its end. Raises nothing: `receive` tells what went wrong."""
        try:
            await self._send_body(body)
        except trio.TooSlowError:
            if not self._answered:
                return self._fail(self._standstill())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the reader will see what the origin had to say
        except ExchangeError as error:
            return self._fail(error)
        else:
            return self._stop_sending(sent=True)
        return self._stop_sending(sent=False)

    async def _send_body(self, body: BodySource) -> None:
        left = body.length
        while left != 0:  # with its last byte a body of known length has ended, said or not
            self.consumed = True
            message = await body.receive()
            if left is not None:
                left = _left(left, message)
            self._engine.send(STREAM, message)
            if isinstance(message, End):
                return await self._flush()
            if left != 0:
                await self._flush()
        self._engine.send(STREAM, End())
        return await self._flush()

    async def _flush(self) -> None:
        if parts := self._engine.outgoing():
            await self._transport.send_parts(parts, stall_s=self._origin.between_bytes_s)

    def _stop_sending(self, *, sent: bool) -> None:
        self._sending = False
        self.sent = sent
        self._head_due = trio.current_time() + self._origin.first_byte_s
        if self._waiting is not None:
            self._waiting.deadline = self._wait_until()

    def _fail(self, error: ExchangeError) -> None:
        self._trouble = error
        self._transport.abort()  # the request is not whole, and must not look so
        if self._waiting is not None:
            self._waiting.cancel()

    # --- receiving

    async def head(
        self, interim: Callable[[ResponseHead], Awaitable[None]] | None
    ) -> ResponseHead:
        """The final response's head, or a 101; interim ones go to `interim`."""
        while True:
            message = await self._next()
            if not isinstance(message, ResponseHead):
                raise self._error(Failure.BAD_RESPONSE, "no head")
            if message.status >= 200 or message.status == 101:
                self._answered = True
                self.upgraded = message.status == 101
                return message
            if interim is not None:
                await interim(message)
            self._head_due = trio.current_time() + self._origin.first_byte_s

    async def receive(self) -> Chunk | End:
        """The next piece of the response's body, or its end."""
        await self._fair()
        message = await self._next()
        if isinstance(message, Chunk):
            self._engine.consumed(STREAM, len(message.data))
            return message
        if isinstance(message, End):
            return message
        raise self._error(Failure.BAD_RESPONSE, "a head inside a body")

    def is_reusable(self) -> bool:
        """After the end: whether the connection can carry another request."""
        return self.sent and not self._ended and self._engine.reusable

    def leftover(self) -> bytes:
        """After a 101: what came behind it."""
        return self._engine.leftover()

    async def _next(self) -> Message:
        while True:
            if self._trouble is not None:
                raise self._trouble
            for _, message in self._messages:
                return message
            if self._ended:
                raise self._broken_off("the end of input")
            await self._read()

    async def _read(self) -> None:
        """Hand the engine what comes next."""
        now = trio.current_time()
        if now >= self._deadline:
            raise self._too_late()
        await self._fair()  # before the read: cancelled after it, bytes would be lost
        try:
            # Before the head there is nothing yet, as a rule: do not ask in vain.
            data = self._transport.receive_nowait(READ_BYTES) if self._answered else None
            if data is None:
                data = await self._wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # Never told to the engine as an end of input: a reset must not complete a body.
            raise self._trouble or self._broken_off("reset") from error
        self.heard = self.heard or bool(data)
        self._ended = not data
        self._engine.receive(data)
        self._messages = self._engine.messages()

    async def _fair(self) -> None:
        self._turns += 1
        if self._turns >= TURNS:
            self._turns = 0
            await trio.lowlevel.checkpoint()

    async def _wait(self) -> bytes:
        data = None
        with trio.CancelScope(deadline=self._wait_until()) as self._waiting:
            data = await self._transport.receive_some(READ_BYTES)
        self._turns = 0
        if data is None:
            raise self._trouble or self._too_late()
        return data

    def _wait_until(self) -> float:
        if self._sending:
            return self._deadline
        if not self._answered:
            return min(self._deadline, self._head_due)
        return min(self._deadline, trio.current_time() + self._origin.between_bytes_s)

    # --- errors

    def may_repeat(self) -> bool:
        """Whether the same request may be sent again, as far as this attempt went."""
        return self._repeatable and not self._answered and not self.consumed

    def _error(self, failure: Failure, detail: str) -> ExchangeError:
        return ExchangeError(failure, detail, retry=self.may_repeat())

    def _broken_off(self, how: str) -> ExchangeError:
        if self._answered:
            return self._error(Failure.BODY_TRUNCATED, how)
        return self._error(Failure.CLOSED_EARLY, how)

    def _standstill(self) -> ExchangeError:
        stall_s = self._origin.between_bytes_s
        return self._error(Failure.BETWEEN_BYTES_TIMEOUT, f"took nothing for {stall_s:g} s")

    def _too_late(self) -> ExchangeError:
        if trio.current_time() >= self._deadline:
            return self._error(Failure.TOTAL_TIMEOUT, f"after {self._origin.total_s:g} s")
        if self._answered:
            stall_s = self._origin.between_bytes_s
            return self._error(Failure.BETWEEN_BYTES_TIMEOUT, f"sent nothing for {stall_s:g} s")
        return self._error(
            Failure.FIRST_BYTE_TIMEOUT, f"no head in {self._origin.first_byte_s:g} s"
        )


def _left(left: int, message: Chunk | End) -> int:
    """What of a body of known length is still to come; raises where the source breaks its word."""
    left -= len(message.data) if isinstance(message, Chunk) else 0
    if left < 0 or (left > 0 and isinstance(message, End)):
        raise ExchangeError(Failure.INTERNAL, "a request body is not as long as it said")
    return left
