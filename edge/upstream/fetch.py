"""One fetch from an origin: a connection, the request, the response, and one retry.

    async with upstream.fetch(request, body) as response:
        ... response.head ...
        while isinstance(message := await response.receive(), Chunk): ...

The connection goes back to the pool the moment the response has ended, not when the block is
left; where there is no body, that is with the head, but for a 304 that nobody asked for. Left
earlier, the block breaks the connection off: reading away what nobody wants was turned down, since
a new connection costs less than most remains, and an origin that never ends nothing.

A connection that was used before may have been closed by the origin while the request was on its
way. Where such a one dies before the first byte of an answer, the request is sent once more, on a
new connection, if its method is idempotent (RFC 9110 §9.2.2) and none of its body is gone.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from edge.errors import ExchangeError, Failure
from edge.upstream.conversation import BodySource, Conversation
from edge.upstream.dial import Dialer
from edge.upstream.pool import Connection, Pool, PoolStatistics
from edge.wire.fields import parse_delta, tokens
from edge.wire.h1 import RESPONSE_LIMITS, Limits
from edge.wire.message import Chunk, End, Headers, RequestHead, ResponseHead, Times
from edge.wire.serial import FRAMING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Container
    from contextlib import AbstractAsyncContextManager

    from edge.upstream.origin import Origin
    from edge.upstream.transport import Transport

__all__ = ["BodySource", "Response", "Upstream"]

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
UPLOAD_SHARE: Final = 4  # one connection in so many may wait for a client's body
BODILESS: Final = frozenset({204, 304})  # RFC 9110 §6.4.1, beside answers to HEAD
HAVE_BODIES: Final = frozenset({b"POST", b"PUT", b"PATCH"})


class Response:
    """A response as it arrives.

    `times` are Unix seconds. `peer` is the origin's address as text. After a 101, `tunnel` is the
    connection and `leftover` what already came through it; else None and b"".
    """

    def __init__(
        self,
        conversation: Conversation,
        head: ResponseHead,
        times: Times,
        done: Callable[[], None],
    ) -> None:
        self.head = head
        self.times = times
        self.peer = conversation.connection.transport.peer
        self.reused = conversation.connection.reused
        self.tunnel: Transport | None = None
        self.leftover = b""
        self._conversation = conversation
        self._done = done
        self._end: End | None = None
        self._watch: Callable[[ExchangeError | None], None] | None = None
        if head.status == 101:
            self.tunnel = conversation.connection.transport
            self.leftover = conversation.leftover()

    async def receive(self) -> Chunk | End:
        """The next piece of the body, or its end; raises `ExchangeError`."""
        if self._end is not None:
            return self._end
        try:
            message = await self._conversation.receive()
        except ExchangeError as error:
            if self._watch is not None:
                self._watch(error)
            raise
        if isinstance(message, End):
            self._end = message
            self._done()
            if self._watch is not None:
                self._watch(None)
        return message

    def watch(self, ended: Callable[[ExchangeError | None], None]) -> None:
        """Have `ended` told how the body ends: whole (None), or with what `receive` raises.

        At once where it has ended already. Nothing is told where the block is left before that,
        nor of a 101.
        """
        if self._end is None:
            self._watch = ended
        else:
            ended(None)


class Upstream:
    """One origin server, and everything under way to it.

    `connect` makes a transport in place of the network; `now` is the wall clock, in Unix seconds.
    `run` must be running for unused connections to be closed in time.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        connect: Callable[[Origin], Awaitable[Transport]] | None = None,
        now: Callable[[], float] = time.time,
        limits: Limits = RESPONSE_LIMITS,
    ) -> None:
        self.origin = origin
        self._pool = Pool(Dialer(origin, connect))
        self._now = now
        self._limits = limits

    async def run(self) -> None:
        """Tend the pool; cancelled, close what is idle."""
        await self._pool.run()

    def keep_only(self, addresses: Container[bytes]) -> None:
        """Retire the connections to any other address, as text, once they are not in use."""
        self._pool.keep_only(addresses)

    def statistics(self) -> PoolStatistics:
        """The pool's counts."""
        return self._pool.statistics()

    def fetch(
        self,
        request: RequestHead,
        body: BodySource | None = None,
        *,
        interim: Callable[[ResponseHead], Awaitable[None]] | None = None,
        once: bool = False,
    ) -> AbstractAsyncContextManager[Response]:
        """The response to `request`, from its head on; raises `ExchangeError`.

        `request` is as it goes out, less its framing, which follows from `body`. Interim responses
        other than 101 are given to `interim`. What may be sent only `once` as it is goes on a new
        connection, which cannot have been closed long ago.
        """
        call = _Call(self._pool, self.origin, self._limits, self._now, once=once)
        framed = _framed(request, body)
        if body is None:
            return _Fetch(call, framed, interim)
        return _upload(call, framed, body, interim)


class _Fetch:
    """The block in which a response to a request without a body may be read."""

    __slots__ = ("_call", "_interim", "_request")

    def __init__(
        self,
        call: _Call,
        request: RequestHead,
        interim: Callable[[ResponseHead], Awaitable[None]] | None,
    ) -> None:
        self._call = call
        self._request = request
        self._interim = interim

    async def __aenter__(self) -> Response:
        answered = False
        try:
            response = await self._call.answer(self._request, None, self._interim, None)
            answered = True
        finally:
            if not answered:
                self._call.leave()
        return response

    async def __aexit__(self, *_: object) -> None:
        self._call.leave()


@asynccontextmanager
async def _upload(
    call: _Call,
    request: RequestHead,
    body: BodySource,
    interim: Callable[[ResponseHead], Awaitable[None]] | None,
) -> AsyncIterator[Response]:
    """The same for a request that has a body, which a task of its own sends."""
    # What the block raises must come out as it is and not in a group, so the nursery is left
    # as if nothing had been raised. The pump that runs in it raises nothing.
    manager = trio.open_nursery()
    nursery = await manager.__aenter__()
    try:
        yield await call.answer(request, body, interim, nursery)
    finally:
        call.leave()
        nursery.cancel_scope.cancel()
        await manager.__aexit__(None, None, None)


class _Call:
    """One fetch: at most two conversations, of which one at a time holds a connection."""

    def __init__(
        self,
        pool: Pool,
        origin: Origin,
        limits: Limits,
        now: Callable[[], float],
        *,
        once: bool = False,
    ) -> None:
        self._once = once
        self._pool = pool
        self._origin = origin
        self._limits = limits
        self._now = now
        self._deadline = trio.current_time() + origin.total_s
        self._current: Conversation | None = None
        self._timeout_s: float | None = None
        self._pumping = trio.CancelScope()

    async def answer(
        self,
        request: RequestHead,
        body: BodySource | None,
        interim: Callable[[ResponseHead], Awaitable[None]] | None,
        nursery: trio.Nursery | None,
    ) -> Response:
        """The response to the first try, or to the one more that is allowed."""
        if self._once:
            return await self._try(request, body, interim, nursery, fresh=True)
        try:
            return await self._try(request, body, interim, nursery, fresh=False)
        except ExchangeError as error:
            if not self._died_unheard(error):
                raise
        self.leave()
        return await self._try(request, body, interim, nursery, fresh=True)

    async def _try(
        self,
        request: RequestHead,
        body: BodySource | None,
        interim: Callable[[ResponseHead], Awaitable[None]] | None,
        nursery: trio.Nursery | None,
        *,
        fresh: bool,
    ) -> Response:
        conversation = await self._begin(request.method, fresh=fresh)
        request_time = self._now()
        try:
            if await conversation.ask(request, body) and nursery and body:
                conversation.consumed = True  # or as good as: the task runs when it will
                nursery.start_soon(self._pump, conversation, body)
            head = await conversation.head(interim)
        except ExchangeError as error:
            if error.failure is Failure.CLOSED_EARLY:  # the engine cannot know what is repeatable
                error.retry = conversation.may_repeat()
            raise
        self._timeout_s = _keep_alive_s(head.headers)
        response = Response(conversation, head, Times(request_time, self._now()), self._finish)
        has_end = request.method == b"HEAD" or head.status in BODILESS
        if has_end and not _is_unasked(request, head):
            await response.receive()  # its end, come already: nobody might ask for it
        return response

    async def _begin(self, method: bytes, *, fresh: bool) -> Conversation:
        self._current = Conversation(
            (None if fresh else self._pool.acquire_nowait()) or await self._acquire(fresh),
            self._origin,
            self._limits,
            deadline=self._deadline,
            repeatable=method in IDEMPOTENT,
        )
        return self._current

    async def _acquire(self, fresh: bool) -> Connection:
        with trio.move_on_at(self._deadline):
            return await self._pool.acquire(fresh=fresh)
        raise ExchangeError(Failure.TOTAL_TIMEOUT, "no connection yet", retry=True)

    async def _pump(self, conversation: Conversation, body: BodySource) -> None:
        with self._pumping:
            await conversation.pump(body)

    def _died_unheard(self, error: ExchangeError) -> bool:
        current = self._current
        return (
            current is not None
            and current.connection.reused
            and not current.heard
            and error.failure is Failure.CLOSED_EARLY
            and error.retry
        )

    def _finish(self) -> None:
        """The response has ended: the connection goes back, or away."""
        if self._current is not None and self._current.is_reusable():
            self._pool.release(self._current.connection, timeout_s=self._timeout_s)
            self._current = None
        elif self._current is not None:
            self._drop(self._current, broken_off=not self._current.sent)

    def leave(self) -> None:
        """Break off what is under way; nothing where the response has ended."""
        if self._current is not None:
            self._drop(self._current, broken_off=not self._current.upgraded)

    def _drop(self, current: Conversation, *, broken_off: bool) -> None:
        self._current = None
        self._pumping.cancel()
        self._pool.discard(current.connection, broken_off=broken_off)


def _framed(request: RequestHead, body: BodySource | None) -> RequestHead:
    """`request` with the framing that its body needs, and no other."""
    names = [name for name, _ in request.headers.pairs]
    if body is None and request.method not in HAVE_BODIES and FRAMING.isdisjoint(names):
        return request
    headers = request.headers.without(FRAMING)
    if body is None:
        # RFC 9110 §8.6: a method that usually has a body says that it has none.
        if request.method in HAVE_BODIES:
            headers = headers.plus((b"content-length", b"0"))
    elif body.length is None:
        headers = headers.plus((b"transfer-encoding", b"chunked"))
    else:
        headers = headers.plus((b"content-length", b"%d" % body.length))
    return replace(request, headers=headers)


def _is_unasked(request: RequestHead, head: ResponseHead) -> bool:
    """Whether it is a 304 to no condition (RFC 9110 §15.4.5): what its origin sends next, nobody
    knows."""
    headers = request.headers
    return head.status == 304 and not (
        b"if-none-match" in headers or b"if-modified-since" in headers
    )


def _keep_alive_s(headers: Headers) -> float | None:
    """How long the origin promises to keep an idle connection, in seconds."""
    for value in headers.all(b"keep-alive"):
        for parameter in tokens(value):
            if parameter[:8].lower() == b"timeout=":
                return parse_delta(parameter[8:])
    return None
