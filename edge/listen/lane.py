"""Parked connections: those that nothing is to be done on, and the requests answered from there.

Theory of operation
-------------------
A connection that waits for its next request owns no task. It is *parked*: its socket is in one
epoll set, and one task waits for the whole set. When it wakes, it reads each ready socket once. If
what came is a request that `Desk.answer` can answer at once, the answer is sent with one call, and
the connection stays parked. Everything else *unparks* it: a task runs the ordinary `Connection`
with the bytes that were read, and ends when there is nothing to do on the connection any more,
which is then parked again.

- *It decides nothing.* It reads, asks the desk, and sends. Which bytes are a request, and what
  answers it, is said there; what is bad or late is the driver's to refuse.
- *One owner.* A socket is in the epoll set or in a task's hands, never both: it is taken out
  before the task begins, and put in after it has ended.
- *Fair.* One request a socket and round, and a bounded number of rounds and requests before other
  tasks have their turn.
- *A client that does not read* is not read from: what the kernel did not take of an answer goes to
  a task, and the connection is parked only when that has left, or is given up after `send_s`.
- *Deadlines.* Idle connections are closed by a sweep every now and then, so `idle_s` is exceeded
  by a quarter at most. A part of a head unparks at once, so the driver's deadline holds for it.
- *Ends.* Someone who leaves between two requests is not missed. While the node drains, whatever a
  parked connection has sent is still answered, and each is closed by the driver, politely.

The epoll set is level-triggered: nothing has to be remembered of a socket that was read once and
has more to say. Where there is no epoll, every connection has a task, and nothing else changes.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import trio

from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.listen.connection import Connection, ConnectionPolicy
    from edge.listen.tcp import Connections, Open
    from edge.upstream.transport import Data, SocketTransport

R = TypeVar("R")

READ_BYTES: Final = 8_192  # a larger head is the driver's; more would only be allocated, not read
BATCH: Final = 64
ROUNDS: Final = 2  # 2 ms of small hits; more make them no cheaper, and others wait for their turn
LONGEST_SWEEP_S: Final = 5.0
IS_POSSIBLE: Final = hasattr(select, "epoll")


class Desk(Protocol[R]):
    """Who answers. What is given out for `close` is the desk's own affair."""

    def answer(self, data: bytes, peer: bytes) -> tuple[Sequence[Data], R] | None:
        """The bytes that answer the request `data`, if that needs no waiting."""

    def close(self, record: R, took_s: float, error: ExchangeError | None = None) -> None:
        """An answer has been sent, or has not for this reason."""


class Parked:
    """A connection without a task."""

    __slots__ = ("_lane", "idle_since", "transport")

    idle = True
    head_since: float | None = None

    def __init__(self, lane: Lane[R], transport: SocketTransport, clock: float) -> None:
        self._lane = lane
        self.transport = transport
        self.idle_since = clock

    def shed(self) -> None:
        self._lane.close(self)

    def give_up(self) -> None:
        """There is no part of a head."""

    def drain(self) -> None:
        self._lane.drain(self)


class Owed:
    """A connection whose client has not taken all of an answer yet."""

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
        self._stopped = False
        self._scope = trio.CancelScope()

    def __len__(self) -> int:
        return len(self._parked)

    def take_in(self, transport: SocketTransport) -> None:
        """Take a new connection in."""
        parked = Parked(self, transport, trio.current_time())
        self._connections.add(parked)
        self._park(parked)

    async def run(self) -> None:
        """Answer from the parked connections until stopped; closes those that are left."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._sweep)
                    while True:
                        await trio.lowlevel.wait_readable(self._epoll.fileno())
                        self._go_round()
        finally:
            self._stopped = True
            for parked in list(self._parked.values()):
                self.close(parked)
            self._epoll.close()

    def stop(self) -> None:
        """Park none from now on: those that are parked go to tasks, to be closed there."""
        self._stopped = True
        for parked in list(self._parked.values()):
            self.drain(parked)
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
        poll, parked_by = self._epoll.poll, self._parked
        for _ in range(ROUNDS):
            ready = poll(0, BATCH)
            if not ready:
                return
            clock = trio.current_time()
            for number, _ in ready:
                parked = parked_by.get(number)
                if parked is not None:  # it may have been closed for another's sake
                    clock = self._attend(parked, clock)

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
            self._unpark(parked, data)
            return trio.current_time()
        parts, record = answered
        try:
            if len(parts) == 1:
                sent, size = transport.send_nowait(parts[0]), len(parts[0])
            else:
                sent, size = transport.send_parts_nowait(parts), sum(map(len, parts))
        except trio.BrokenResourceError:
            parked.idle_since = clock = trio.current_time()
            self._desk.close(record, clock - began, ExchangeError(Failure.CLIENT_LEFT))
            self.close(parked)
            return clock
        parked.idle_since = clock = trio.current_time()
        if sent == size:
            self._desk.close(record, clock - began)
        else:
            self._owe(parked, _behind(parts, sent), record, began)
        return clock

    # From hand to hand.

    def _park(self, parked: Parked) -> None:
        if self._stopped:
            return self._unpark(parked, b"")
        number = parked.transport.fileno()
        try:
            self._epoll.register(number, select.EPOLLIN)
        except OSError:  # no more watches: it has a task, then
            return self._unpark(parked, b"")
        self._parked[number] = parked
        return None

    def _unlist(self, parked: Parked) -> None:
        number = parked.transport.fileno()
        if self._parked.pop(number, None) is not None:
            self._epoll.unregister(number)

    def _unpark(self, parked: Parked, data: bytes) -> None:
        """Give a connection to a task, which begins with `data`."""
        self._unlist(parked)
        connection = self._make(parked.transport, data)
        self._connections.swap(parked, connection)
        self._clients.start_soon(self._drive, parked.transport, connection)

    async def _drive(self, transport: SocketTransport, connection: Connection) -> None:
        if await self._connections.run(connection):
            self._park_again(transport, connection)

    def _park_again(self, transport: SocketTransport, was: Open) -> None:
        parked = Parked(self, transport, trio.current_time())
        self._connections.swap(was, parked)
        self._park(parked)

    def _owe(self, parked: Parked, rest: list[Data], record: R, began: float) -> None:
        """Give a connection to a task that sends the rest of an answer, begun at `began`."""
        self._unlist(parked)
        owed = Owed(trio.current_time())
        self._connections.swap(parked, owed)
        self._clients.start_soon(self._pay, parked.transport, owed, rest, record, began)

    async def _pay(
        self, transport: SocketTransport, owed: Owed, rest: list[Data], record: R, began: float
    ) -> None:
        error: ExchangeError | None = ExchangeError(Failure.DRAINING)  # where it is cancelled
        try:
            await transport.send_parts(rest, stall_s=self._policy().send_s)
            error = None
        except trio.TooSlowError:
            error = ExchangeError(Failure.SEND_TIMEOUT)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            error = ExchangeError(Failure.CLIENT_LEFT)
        finally:
            self._desk.close(record, trio.current_time() - began, error)
            if error is not None:
                transport.abort()  # so that no one takes a part for the whole
                self._connections.remove(owed)
        if error is None:
            self._park_again(transport, owed)

    # Those that have nothing to say.

    async def _sweep(self) -> None:
        while True:
            idle_s = self._policy().idle_s
            await trio.sleep(min(idle_s / 4, LONGEST_SWEEP_S))
            latest = trio.current_time() - idle_s
            for parked in list(self._parked.values()):
                if parked.idle_since < latest:
                    self.close(parked)


def _behind(parts: Sequence[Data], sent: int) -> list[Data]:
    """What is behind the first `sent` bytes of `parts`, not copied."""
    rest: list[Data] = []
    for part in parts:
        if sent < len(part):
            rest.append(memoryview(part)[sent:])
        sent = max(0, sent - len(part))
    return rest
