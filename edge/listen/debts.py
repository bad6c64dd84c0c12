"""Answers that a client has not taken whole yet: it is owed the rest, and its connection waits.

Who owes has no task as a rule: the socket waits in the lane's epoll set until there is room, and
then more is sent with one call. Where a part of a file has to be read first, or the connection is
to be closed behind the answer with care, a task does that. A debt is paid, or it is written off
and its connection broken off: so no one takes a part of an answer for the whole.
"""

from __future__ import annotations

import select
from time import perf_counter
from typing import TYPE_CHECKING

import trio

from edge.errors import ExchangeError, Failure
from edge.listen.connection import leave
from edge.upstream.transport import FileSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.listen.connection import ConnectionPolicy
    from edge.listen.tcp import Connections, Open
    from edge.upstream.transport import Part, SocketTransport


class Busy:
    """A connection at work without a driver: nothing is done to it before that is over."""

    __slots__ = ("idle_since",)

    idle = False
    head_since: float | None = None

    def __init__(self, clock: float) -> None:
        self.idle_since = clock

    def shed(self) -> None:
        """It is not idle."""

    def give_up(self) -> None:
        """There is no part of a head."""

    def drain(self) -> None:
        """It is drained when it would be parked."""


class Debt(Busy):
    """A connection whose client has not taken all of an answer yet: not `rest`.

    The answer was begun at `began`, by `perf_counter`; `close` is told how long it has taken, and
    why it failed, where it did. The connection `stays` behind it, or is closed. `idle_since` is
    when the client last took something.
    """

    __slots__ = ("began", "close", "rest", "stays", "transport")

    def __init__(
        self,
        transport: SocketTransport,
        rest: list[Part],
        close: Callable[[float, ExchangeError | None], None],
        began: float,
        clock: float,
        *,
        stays: bool,
    ) -> None:
        super().__init__(clock)
        self.transport = transport
        self.rest = rest
        self.close = close
        self.began = began
        self.stays = stays


class Debts:
    """What is owed in a lane, whose epoll set and nursery these are.

    `park` has a connection parked again, in place of what stood for it. `settle` is called when
    debts have been closed at a time of their own; other calls are the lane's, which settles.
    """

    def __init__(
        self,
        epoll: select.epoll,
        connections: Connections,
        settle: Callable[[], None],
        park: Callable[[SocketTransport, Open], None],
        policy: Callable[[], ConnectionPolicy],
        clients: trio.Nursery,
    ) -> None:
        self._epoll = epoll
        self._connections = connections
        self._settle = settle
        self._park = park
        self._policy = policy
        self._clients = clients
        self._waiting: dict[int, Debt] = {}

    def incur(self, debt: Debt, *, is_watched: bool) -> None:
        """Have a connection wait for its client; `is_watched`: it is in the epoll set."""
        number = debt.transport.fileno()
        if not debt.rest:  # only to be closed with care
            if is_watched:
                self._epoll.unregister(number)
            self._have_paid(debt)
            return
        try:
            if is_watched:
                self._epoll.modify(number, select.EPOLLOUT)
            else:
                self._epoll.register(number, select.EPOLLOUT)
        except OSError:  # no more watches: it has a task, then
            self._have_paid(debt)
        else:
            self._waiting[number] = debt

    def collect(self, number: int, clock: float) -> int:
        """Send more of what is owed on a socket, if anything is; how much was sent."""
        debt = self._waiting.get(number)
        if debt is None:
            return 0
        try:
            sent = debt.transport.send_parts_nowait(debt.rest)
        except trio.BrokenResourceError:
            self._write_off(debt, Failure.CLIENT_LEFT)
            return 0
        rest = behind(debt.rest, sent)
        if not rest:
            self._paid(debt)
        elif sent:
            debt.rest, debt.idle_since = rest, clock
        elif isinstance(rest[0], FileSpan) and rest[0].must_be_read():
            self._release(debt)
            self._have_paid(debt)
        return sent

    def hand_over(self) -> None:
        """Have tasks send all that is owed; to be called at any time."""
        for debt in list(self._waiting.values()):
            self._release(debt)
            self._have_paid(debt)

    def write_off(self, failure: Failure, since: float | None = None) -> None:
        """Break all off, or those that took nothing after `since`; to be called at any time."""
        for debt in list(self._waiting.values()):
            if since is None or debt.idle_since < since:
                self._write_off(debt, failure)
        self._settle()

    def _release(self, debt: Debt) -> None:
        """Take a connection out of the epoll set."""
        number = debt.transport.fileno()
        if self._waiting.pop(number, None) is not None:
            self._epoll.unregister(number)

    def _paid(self, debt: Debt) -> None:
        """All of an answer has left from here."""
        self._release(debt)
        close_file(debt.rest)
        debt.close(perf_counter() - debt.began, None)
        if debt.stays:
            self._park(debt.transport, debt)
        else:
            self._clients.start_soon(self._end, debt)

    def _write_off(self, debt: Debt, failure: Failure) -> None:
        self._release(debt)
        close_file(debt.rest)
        debt.close(perf_counter() - debt.began, ExchangeError(failure))
        debt.transport.abort()
        self._connections.remove(debt)

    def _have_paid(self, debt: Debt) -> None:
        self._clients.start_soon(self._pay, debt)

    async def _pay(self, debt: Debt) -> None:
        """Send the rest of an answer, which may wait for a disk."""
        error: ExchangeError | None = ExchangeError(Failure.DRAINING)  # where it is cancelled
        try:
            await debt.transport.send_parts(debt.rest, stall_s=self._policy().send_s)
            error = None
        except trio.TooSlowError:
            error = ExchangeError(Failure.SEND_TIMEOUT)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            error = ExchangeError(Failure.CLIENT_LEFT)
        except ExchangeError as lost:
            error = lost
        finally:
            if error is not None:
                self._write_off(debt, error.failure)
            else:
                close_file(debt.rest)
                debt.close(perf_counter() - debt.began, None)
            self._settle()
        if error is None and debt.stays:
            self._park(debt.transport, debt)
        elif error is None:
            await self._end(debt)

    async def _end(self, debt: Debt) -> None:
        """Close a connection behind its last answer."""
        await leave(debt.transport, self._policy().linger_s)
        self._connections.remove(debt)


def behind(parts: Sequence[Part], sent: int) -> list[Part]:
    """What is behind the first `sent` bytes of `parts`, not copied.

    A part of a file, which is the last, knows by itself what was sent of it.
    """
    rest: list[Part] = []
    for part in parts:
        if isinstance(part, FileSpan):
            if len(part):
                rest.append(part)
        elif sent < len(part):
            rest.append(memoryview(part)[sent:])
            sent = 0
        else:
            sent -= len(part)
    return rest


def close_file(parts: Sequence[Part]) -> None:
    """Close the source of the part of a file, where there is one."""
    if parts and isinstance(last := parts[-1], FileSpan):
        last.source.close()
