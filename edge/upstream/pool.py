"""The connections to one origin: how many, which one next, and who waits for one.

At most `max_connections` exist at once, those being made and those upgraded included. Whoever
finds none waits in order of arrival, `connect_s` at most, and is then refused as `OVERLOADED`.
Connections not in use are kept last in, first out, so that the fewest stay warm and the rest grow
old; each is closed when its time is up, or one second before the origin's own `Keep-Alive:
timeout` runs out. One that can be read while idle has been closed, or has said more than it was
asked: it is never used again. Nor is one to an address that the name has no more (`keep_only`).

Every change here is synchronous and leaves the counts true; only waiting and connecting await.
Closing a transport does not wait, so it is done on the spot.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from collections.abc import Container

    from edge.upstream.dial import Dialer
    from edge.upstream.transport import Transport

SWEEP_S: Final = 1.0  # how long a connection that the origin has closed may hold a descriptor
MARGIN_S: Final = 1.0  # closed this much before the origin would: no race with its FIN


class Connection:
    """One connection and what the pool knows of it; `reused` once it has carried a request."""

    __slots__ = ("born", "expires", "reused", "transport")

    def __init__(self, transport: Transport, born: float) -> None:
        self.transport = transport
        self.born = born
        self.expires = born
        self.reused = False


class _Waiter:
    """Someone in the queue: `granted` an idle connection, or (None) the right to make one."""

    __slots__ = ("done", "fresh", "granted")

    def __init__(self, fresh: bool) -> None:
        self.fresh = fresh
        self.done = trio.Event()
        self.granted: Connection | None = None


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A moment's counts, and since the start how often a connection was made, and used again."""

    open: int
    idle: int
    waiting: int
    made: int
    reused: int
    failures_in_a_row: int


class Pool:
    """Connections to one origin; times are readings of `trio.current_time()`."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._origin = dialer.origin
        self._total = 0  # in use, idle, and being made
        self._idle: deque[Connection] = deque()  # newest at the right
        # First come, first served. As long as there are exchanges waiting: their number is
        # bounded where clients are accepted, and none stays longer than `connect_s`.
        self._queue: OrderedDict[_Waiter, None] = OrderedDict()
        self._has_idle = trio.Event()
        self._made = 0
        self._reused = 0
        self._closed = False
        self._addresses: Container[bytes] = ()  # of the origin, as they were `_looked_up`
        self._looked_up = -math.inf

    def statistics(self) -> PoolStatistics:
        """Counts as they are now."""
        return PoolStatistics(
            open=self._total,
            idle=len(self._idle),
            waiting=len(self._queue),
            made=self._made,
            reused=self._reused,
            failures_in_a_row=self._dialer.backoff.failures,
        )

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """A connection for one request, never a used one if `fresh`.

        Must be given back by `release` or `discard`. Raises `ExchangeError`, always with `retry`.
        """
        connection = self._take(fresh=fresh) if self._may_take() else await self._wait(fresh=fresh)
        return await self._make() if connection is None else self._again(connection)

    def acquire_nowait(self) -> Connection | None:
        """An idle connection, if there is one for which no one else has been waiting."""
        if not self._idle or self._queue:
            return None
        connection = self._take_idle()
        return None if connection is None else self._again(connection)

    def release(self, connection: Connection, *, timeout_s: float | None = None) -> None:
        """Give back a connection that can carry another request.

        `timeout_s` is what the origin's Keep-Alive field promises.
        """
        clock = trio.current_time()
        idle_s = self._origin.idle_s
        if timeout_s is not None:
            idle_s = min(idle_s, timeout_s - MARGIN_S)
        connection.expires = min(clock + idle_s, connection.born + self._origin.life_s)
        if connection.expires <= clock or self._is_retired(connection):
            self.discard(connection)
        elif self._queue:
            self._grant(connection)
        elif self._closed:
            self.discard(connection)
        else:
            self._keep(connection)

    def discard(self, connection: Connection, *, broken_off: bool = False) -> None:
        """Give back a connection of no more use; `broken_off` where a message was not whole."""
        if broken_off:
            connection.transport.abort()
        else:
            connection.transport.close()
        self._leave()

    def keep_only(self, addresses: Container[bytes]) -> None:
        """Retire connections to other addresses: the idle now, the rest as they are given back.

        What is made from now on may know better: a name is looked up for each new connection.
        """
        self._addresses = addresses
        self._looked_up = trio.current_time()
        self.sweep()

    def sweep(self) -> None:
        """Close the idle connections whose time is up, and those that the origin has closed."""
        clock = trio.current_time()
        kept: deque[Connection] = deque()
        for connection in self._idle:
            if self._is_usable(connection, clock):
                kept.append(connection)
            else:
                self.discard(connection)
        self._idle = kept

    async def run(self) -> None:
        """Sweep every second while anything is idle; close what is idle when cancelled."""
        try:
            while True:
                await self._has_idle.wait()
                await trio.sleep(SWEEP_S)
                self.sweep()
                if not self._idle:
                    self._has_idle = trio.Event()
        finally:
            self.close()

    def close(self) -> None:
        """Close what is idle now, and the rest as it is given back."""
        self._closed = True
        while self._idle:
            self.discard(self._idle.pop())

    def _may_take(self) -> bool:
        """Whether someone who comes now need not queue: no one may be overtaken."""
        return not self._queue and (bool(self._idle) or self._total < self._origin.max_connections)

    def _take(self, *, fresh: bool) -> Connection | None:
        """The newest idle connection that lives, or (None) the right to make one, counted."""
        if not fresh and (connection := self._take_idle()) is not None:
            return connection
        if self._total >= self._origin.max_connections:
            self.discard(self._idle.popleft())  # wanted fresh: the oldest makes room
        self._total += 1
        return None

    def _take_idle(self) -> Connection | None:
        clock = trio.current_time()
        while self._idle:
            connection = self._idle.pop()
            if self._is_usable(connection, clock):
                return connection
            self.discard(connection)
        return None

    def _again(self, connection: Connection) -> Connection:
        connection.reused = True
        self._reused += 1
        return connection

    def _is_usable(self, connection: Connection, clock: float) -> bool:
        if clock >= connection.expires or self._is_retired(connection):
            return False
        return not connection.transport.readable_now()

    def _is_retired(self, connection: Connection) -> bool:
        if connection.born > self._looked_up:
            return False
        return connection.transport.peer not in self._addresses

    def _keep(self, connection: Connection) -> None:
        self._idle.append(connection)
        self._has_idle.set()
        if len(self._idle) > self._origin.max_idle:
            self.discard(self._idle.popleft())

    def _grant(self, connection: Connection | None) -> None:
        """Give `connection`, or the right to make one, to who has waited longest."""
        waiter, _ = self._queue.popitem(last=False)
        if connection is not None and waiter.fresh:
            connection.transport.close()  # its place is what the waiter gets
            connection = None
        waiter.granted = connection
        waiter.done.set()

    def _leave(self) -> None:
        """One connection fewer: the place goes to who has waited longest."""
        if self._queue:
            self._grant(None)
        else:
            self._total -= 1

    async def _wait(self, *, fresh: bool) -> Connection | None:
        waiter = _Waiter(fresh)
        self._queue[waiter] = None
        with ExitStack() as undo:
            undo.callback(self._withdraw, waiter)
            with trio.move_on_after(self._origin.connect_s):
                await waiter.done.wait()
            if not waiter.done.is_set():
                detail = f"{self._origin.max_connections} connections busy"
                raise ExchangeError(Failure.OVERLOADED, detail, retry=True)
            undo.pop_all()
        return self._living(waiter.granted)

    def _withdraw(self, waiter: _Waiter) -> None:
        """Undo a wait that ended badly; what was granted meanwhile goes to the next."""
        if not waiter.done.is_set():
            del self._queue[waiter]
        elif waiter.granted is None:
            self._leave()
        else:
            self.discard(waiter.granted)

    def _living(self, granted: Connection | None) -> Connection | None:
        if granted is not None and not self._is_usable(granted, trio.current_time()):
            granted.transport.close()
            return None  # its place is still counted
        return granted

    async def _make(self) -> Connection:
        with ExitStack() as undo:
            undo.callback(self._leave)
            transport = await self._dialer.open()
            undo.pop_all()
        self._made += 1
        return Connection(transport, trio.current_time())
