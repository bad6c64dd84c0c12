"""Parked connections: those that nothing is to be done on, and the requests answered from there.

Theory of operation
-------------------
A connection that waits for its next request owns no task. It is *parked*: its socket is in one
epoll set, and one task waits for the whole set. When it wakes, it reads each ready socket once. If
what came is a request that `Desk.answer` can answer at once, the answer is sent with one call, and
the connection stays parked. Everything else *unparks* it: a task runs the ordinary `Connection`
with the bytes that were read, and ends when there is nothing to do on the connection any more,
which is then parked again. A newcomer is read from at once, and parked only where that leaves
something to wait for: most have sent their request before they are accepted. What another worker
may answer at once is asked for there, by a task without a driver; where that comes to nothing, the
driver begins with the same bytes, and where it comes to a file, the lane sends it as any other.

- *It decides nothing.* It reads, asks the desk, and sends. Which bytes are a request, and what
  answers it, is said there; what is bad or late is the driver's to refuse.
- *One owner.* A socket is in the epoll set or in a task's hands, never both: it is taken out
  before the task begins, and put in after it has ended.
- *Fair.* One request a socket and round, and a bounded number of rounds, requests and seconds
  before other tasks have their turn; and however many of those are ready, the lane has its own
  again between two of their steps (`between`). Who has not asked yet waits in an epoll set of its
  own, inside the other one, of which few are seen in a round: a crowd that comes at once is let in
  as fast as it can be served, and who was here before does not wait behind it.
- *One round, one time of day.* The desk is told when a round begins, and when it is over: what is
  the same for all of it is looked up once, and what is only to be noted is noted together. How
  long each answer took is measured for each.
- *A client that does not read* is not read from: what the kernel did not take of an answer is
  *owed* (see `debts`), and the connection waits in the same epoll set until it takes more. It is
  parked only when all has left, or given up when it has taken nothing for `send_s`, or a quarter
  longer.
- *Deadlines.* Idle connections are closed by a sweep every now and then, so `idle_s` is exceeded
  by a quarter at most. A part of a head unparks at once, so the driver's deadline holds for it.
- *Ends.* Someone who leaves between two requests is not missed. A client that has said that its
  request is its last is told and closed without more ado: nothing can come that would reset the
  connection and destroy the answer (RFC 9112 §9.6). Where it is we who want no more of it, it may
  be sending: so a task lingers. While the node drains, whatever a
  parked connection has sent is still answered, and each is closed by the driver, politely.

The epoll set is level-triggered: nothing has to be remembered of a socket that was read once and
has more to say. Where there is no epoll, every connection has a task, and nothing else changes.
"""

from __future__ import annotations

import select
from enum import Enum, auto
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import trio

from edge.errors import ExchangeError, Failure
from edge.listen.between import Between
from edge.listen.debts import Busy, Debt, Debts, behind, close_file
from edge.upstream.transport import FileSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.listen.connection import Connection, ConnectionPolicy
    from edge.listen.tcp import Connections, Open
    from edge.upstream.transport import Data, Part, SocketTransport

R = TypeVar("R")

READ_BYTES: Final = 8_192  # a larger head is the driver's; more would only be allocated, not read
BATCH: Final = 64
ROUNDS: Final = 2  # more make small hits no cheaper, and others wait for their turn
ROUND_S: Final = 0.002  # of what is not so small; those that are left will still be ready
NEWCOMERS_S: Final = 0.001  # of a round
OTHERS_S: Final = 0.002  # for what is no hit, before the lane is looked at again
LONGEST_SWEEP_S: Final = 5.0
TURN_BYTES: Final = 16 << 20  # of large answers: 3 ms; then others have their turn
IS_POSSIBLE: Final = hasattr(select, "epoll")


class After(Enum):
    """What is to be done with a connection behind an answer."""

    PARK = auto()
    CLOSE = auto()  # as the client has said
    LINGER = auto()  # close, and the client does not expect it

    __hash__ = object.__hash__  # Enum's own is Python code


class Desk(Protocol[R]):
    """Who answers. What is given out for `close` is the desk's own affair.

    Between `begin` and `settle` nothing else happens in the process.
    """

    def begin(self) -> None:
        """Requests are going to be asked, all of them about now."""

    def settle(self) -> None:
        """No more for the moment."""

    def answer(self, data: bytes, peer: bytes) -> tuple[Sequence[Part], R, After] | None:
        """The bytes that answer the request `data`, if that needs no waiting.

        The source of a part of a file is closed here.
        """

    def close(self, record: R, took_s: float, error: ExchangeError | None = None) -> None:
        """An answer has been sent, or has not for this reason."""

    def hop(self, data: bytes, peer: bytes) -> Hop | None:
        """A way to have the request `data` answered by another worker at once, if there is one."""


class Hop(Protocol):
    """A plain request that another worker may answer at once; `close` is called in any case."""

    async def ask(self) -> Sequence[Part] | None:
        """The answer, or its beginning; None where it is the driver's to answer.

        The source of a part of a file is closed by `close`.
        """

    async def more(self) -> Data | None:
        """What follows; None at the end. Raises `ExchangeError`."""

    def close(self, took_s: float, error: ExchangeError | None) -> None:
        """The answer has been sent, or has not for this reason."""


class Parked:
    """A connection without a task."""

    __slots__ = ("_lane", "has_left", "idle_since", "is_new", "transport", "watched_by")

    idle = True
    head_since: float | None = None

    def __init__(self, lane: Lane[R], transport: SocketTransport, clock: float) -> None:
        self._lane = lane
        self.has_left = False  # it is in other hands, or closed
        self.is_new = True  # no request has come on it
        self.transport = transport
        self.idle_since = clock
        self.watched_by: select.epoll | None = None

    def shed(self) -> None:
        self._lane.close(self)

    def give_up(self) -> None:
        """There is no part of a head."""

    def drain(self) -> None:
        self._lane.drain(self)


class Lane(Generic[R]):
    """The parked connections of a worker. `make` makes one's driver, with what was read of it."""

    def __init__(
        self,
        connections: Connections,
        desk: Desk[R],
        make: Callable[[SocketTransport, bytes], Connection],
        policy: Callable[[], ConnectionPolicy],
        clients: trio.Nursery,
    ) -> None:
        self._connections = connections
        self._desk = desk
        self._make = make
        self._policy = policy
        self._clients = clients
        self._parked: dict[int, Parked] = {}
        self._epoll = select.epoll()
        self._newcomers = select.epoll()
        self._epoll.register(self._newcomers.fileno(), select.EPOLLIN)
        self._debts = Debts(
            self._epoll, connections, desk.settle, self._park_again, policy, clients
        )
        self._clock = 0.0  # Trio's, when the round began
        self._turn_bytes = 0  # sent in large answers in this round
        self._stopped = False
        self._between = Between(self._go_round, OTHERS_S)
        self._scope = trio.CancelScope()

    def __len__(self) -> int:
        return len(self._parked)

    def take_in(self, transport: SocketTransport) -> None:
        """Take a new connection in."""
        self._clock = trio.current_time()
        parked = Parked(self, transport, self._clock)
        self._connections.add(parked)
        if not self._stopped:
            self._desk.begin()
            self._attend(parked, perf_counter())
            self._desk.settle()
        if not parked.has_left:
            self._park(parked)

    async def run(self) -> None:
        """Answer from the parked connections until stopped; closes those that are left."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._sweep)
                    nursery.start_soon(self._between.run)
                    while True:
                        await trio.lowlevel.wait_readable(self._epoll.fileno())
                        self._between.act()
        finally:
            self._stopped = True
            for parked in list(self._parked.values()):
                self.close(parked)
            self._debts.write_off(Failure.DRAINING)
            self._epoll.close()
            self._newcomers.close()

    def stop(self) -> None:
        """Park none from now on: those that are parked go to tasks, to be closed there."""
        self._stopped = True
        for parked in list(self._parked.values()):
            self.drain(parked)
        self._debts.hand_over()
        self._scope.cancel()

    def close(self, parked: Parked) -> None:
        """Close a connection that is parked."""
        self._unlist(parked)
        self._connections.remove(parked)
        parked.transport.close()

    def drain(self, parked: Parked) -> None:
        """Give a parked connection to a task, with what can be read of it."""
        try:
            data = parked.transport.receive_nowait(READ_BYTES)
        except trio.BrokenResourceError:
            self.close(parked)
        else:
            self._unpark(parked, data or b"")

    # One turn.

    def _go_round(self) -> None:
        """Read from those that have something to say, each at most once a round."""
        poll, parked_by, newcomers = self._epoll.poll, self._parked, self._newcomers.fileno()
        for _ in range(ROUNDS):
            ready = poll(0, BATCH)
            if not ready:
                return
            self._clock = trio.current_time()
            self._turn_bytes = 0
            self._desk.begin()
            clock = began = perf_counter()
            for number, _ in ready:
                parked = parked_by.get(number)
                if parked is not None:  # it may have been closed for another's sake
                    clock = self._attend(parked, clock)
                elif number == newcomers:
                    clock = self._see_newcomers(clock)
                else:
                    self._turn_bytes += self._debts.collect(number, self._clock)
                    clock = perf_counter()
                if clock - began > ROUND_S or self._turn_bytes > TURN_BYTES:
                    break
            self._desk.settle()
            if clock - began > ROUND_S or self._turn_bytes > TURN_BYTES:
                return

    def _see_newcomers(self, clock: float) -> float:
        """Read from some that have not asked for anything yet; the time then."""
        until = clock + NEWCOMERS_S
        for number, _ in self._newcomers.poll(0, BATCH):
            parked = self._parked.get(number)
            if parked is not None:
                clock = self._attend(parked, clock)
            if clock > until:
                break
        return clock

    def _attend(self, parked: Parked, began: float) -> float:
        """Read once from a connection, and answer if that can be done at once; the time then."""
        transport = parked.transport
        try:
            data = transport.receive_nowait(READ_BYTES)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            if data is not None:
                self.close(parked)
            return began
        answered = self._desk.answer(data, transport.peer)
        if answered is None:
            hop = self._desk.hop(data, transport.peer)
            if hop is None:
                self._unpark(parked, data)
            else:
                self._send_on(parked, data, hop, began)
            return perf_counter()
        parts, record, after = answered
        try:
            if len(parts) == 1 and not isinstance(parts[0], FileSpan):
                sent, size = transport.send_nowait(parts[0]), len(parts[0])
            else:
                size = sum(map(len, parts))  # before: a part of a file becomes shorter
                sent = transport.send_parts_nowait(parts)
                self._turn_bytes += sent
        except trio.BrokenResourceError:
            clock = perf_counter()
            close_file(parts)
            self._desk.close(record, clock - began, ExchangeError(Failure.CLIENT_LEFT))
            self.close(parked)
            return clock
        clock = perf_counter()
        if sent == size and len(parts) > 1:
            close_file(parts)
        if sent != size or after is After.LINGER:
            self._owe(parked, behind(parts, sent), record, began, after)
            return clock
        parked.idle_since = self._clock
        self._desk.close(record, clock - began)
        if after is After.CLOSE:
            self.close(parked)
        elif parked.is_new:
            self._has_asked(parked)
        return clock

    # From hand to hand.

    def _park(self, parked: Parked) -> None:
        if self._stopped:
            return self._unpark(parked, b"")
        if not self._watch(parked):
            return self._unpark(parked, b"")
        self._parked[parked.transport.fileno()] = parked
        return None

    def _watch(self, parked: Parked) -> bool:
        """Watch it among its like; False where there are no more watches: it has a task, then."""
        epoll = self._newcomers if parked.is_new else self._epoll
        try:
            epoll.register(parked.transport.fileno(), select.EPOLLIN)
        except OSError:
            return False
        parked.watched_by = epoll
        return True

    def _has_asked(self, parked: Parked) -> None:
        """It is no newcomer any more."""
        parked.is_new = False
        if parked.watched_by is not None:
            self._unwatch(parked)
            self._park(parked)

    def _unwatch(self, parked: Parked) -> None:
        number = parked.transport.fileno()
        self._parked.pop(number, None)
        if parked.watched_by is not None:
            parked.watched_by.unregister(number)
            parked.watched_by = None

    def _unlist(self, parked: Parked) -> None:
        parked.has_left = True
        self._unwatch(parked)

    def _unpark(self, parked: Parked, data: bytes) -> None:
        """Give a connection to a task, which begins with `data`."""
        self._unlist(parked)
        connection = self._make(parked.transport, data)
        connection.is_new = parked.is_new
        self._connections.swap(parked, connection)
        self._clients.start_soon(self._drive, parked.transport, connection)

    async def _drive(self, transport: SocketTransport, connection: Connection) -> None:
        if await self._connections.run(connection):
            self._park_again(transport, connection)

    def _park_again(self, transport: SocketTransport, was: Open) -> None:
        parked = Parked(self, transport, trio.current_time())
        parked.is_new = False
        self._connections.swap(was, parked)
        self._park(parked)

    def _send_on(self, parked: Parked, data: bytes, hop: Hop, began: float) -> None:
        """Give a connection to a task that has its request answered by another worker."""
        self._unlist(parked)
        busy = Busy(trio.current_time())
        self._connections.swap(parked, busy)
        self._clients.start_soon(self._have_answered, parked.transport, busy, data, hop, began)

    async def _have_answered(
        self, transport: SocketTransport, busy: Busy, data: bytes, hop: Hop, began: float
    ) -> None:
        error: ExchangeError | None = ExchangeError(Failure.DRAINING)  # where it is cancelled
        owed: Sequence[Part] = ()
        try:
            parts = await hop.ask()
            if parts and isinstance(parts[-1], FileSpan) and not self._stopped:
                owed, error = parts, None
            else:
                error = await self._passed_on(transport, parts, hop) if parts else None
        finally:
            if not owed:
                hop.close(perf_counter() - began, error)
            if error is not None:
                transport.abort()  # so that no one takes a part for the whole
                self._connections.remove(busy)
        if owed:  # it needs neither a task nor the other worker any more
            clock = trio.current_time()
            debt = Debt(transport, list(owed), hop.close, began, clock, stays=True)
            self._connections.swap(busy, debt)
            self._debts.incur(debt, is_watched=False)
        elif parts is None:
            connection = self._make(transport, data)
            self._connections.swap(busy, connection)
            await self._drive(transport, connection)
        elif error is None:
            self._park_again(transport, busy)

    async def _passed_on(
        self, transport: SocketTransport, parts: Sequence[Part], hop: Hop
    ) -> ExchangeError | None:
        """Send what another worker answers; why not, where it could not be."""
        stall_s = self._policy().send_s
        try:
            await transport.send_parts(parts, stall_s=stall_s)
            while (piece := await hop.more()) is not None:
                await transport.send_all(piece, stall_s=stall_s)
        except trio.TooSlowError:
            return ExchangeError(Failure.SEND_TIMEOUT)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return ExchangeError(Failure.CLIENT_LEFT)
        except ExchangeError as known:
            return known
        return None

    def _owe(
        self, parked: Parked, rest: list[Part], record: R, began: float, after: After
    ) -> None:
        """Let a connection wait for its client to take the rest of an answer, begun at `began`."""
        parked.has_left = True
        transport, stays = parked.transport, after is After.PARK
        close = partial(self._desk.close, record)
        debt = Debt(transport, rest, close, began, self._clock, stays=stays)
        self._connections.swap(parked, debt)
        is_watched = parked.watched_by is self._epoll
        if is_watched:
            del self._parked[transport.fileno()]
        else:
            self._unwatch(parked)
        self._debts.incur(debt, is_watched=is_watched)

    # Those that have nothing to say.

    async def _sweep(self) -> None:
        while True:
            policy = self._policy()
            idle_s, send_s = policy.idle_s, policy.send_s
            await trio.sleep(min(idle_s / 4, send_s / 4, LONGEST_SWEEP_S))
            clock = trio.current_time()
            for parked in list(self._parked.values()):
                if parked.idle_since < clock - idle_s:
                    self.close(parked)
            self._debts.write_off(Failure.SEND_TIMEOUT, clock - send_s)
