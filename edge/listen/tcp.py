"""Accepting: TCP listeners, and the connections that are open.

Connections are bounded. At the bound, and when the process has run out of descriptors, one that no
request is at work on gives way, idle or with a head that does not come to its end; when there is
none, accepting waits for a moment and the kernel's backlog holds the newcomers, so that those
already being served are not harmed.
"""

from __future__ import annotations

import errno
import socket
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import trio

from edge.listen.passing import PassingTransport
from edge.upstream.transport import SocketTransport, tune

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG = 4_096  # Linux caps it at net.core.somaxconn
ACCEPT_S = 0.002  # then other tasks have their turn
HEAD_GRACE_S = 1.0  # a head that takes longer is not a client in a hurry
IDLE_GRACE_S = 0.5  # nor is one that has had nothing to ask for so long
SHED_PAUSE_S = 0.002  # for the connection that was shed to end
PAUSE_S = 0.05  # after descriptors ran out: short enough to recover within a second
OPTIONS_ARE_INHERITED = sys.platform == "linux"  # from the listener: two system calls less
OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# accept(2): errors of the new connection, which Linux reports here, are like EAGAIN
PASSING = {
    errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.EINTR, errno.ENETDOWN, errno.ENOPROTOOPT,
    errno.EHOSTDOWN, errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH,
    errno.ETIMEDOUT, errno.ECONNRESET,
}  # fmt: skip


def bind(host: str, port: int, *, shares: bool = False) -> socket.socket:
    """A listening, non-blocking socket; IPv6 ones take IPv6 only. Raises OSError.

    With `shares` others of this user may listen there as well (SO_REUSEPORT): the kernel then
    divides newcomers among them.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        tune(listener)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        message = f"cannot listen on {host}, port {port}: {error.strerror}"
        raise OSError(error.errno, message) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Where a listener listens, as `host:port`."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """Connections now and since the start."""

    open: int
    idle: int
    accepted: int
    shed: int


class Open(Protocol):
    """An open connection, with a task or without, as those see it who may have to close it.

    What its attributes and methods say and do is told at `Connection`.
    """

    @property
    def idle(self) -> bool: ...
    @property
    def idle_since(self) -> float: ...
    @property
    def head_since(self) -> float | None: ...

    def shed(self) -> None: ...

    def give_up(self) -> None: ...

    def drain(self) -> None: ...


class Served(Open, Protocol):
    """One that a task serves, until it is closed or is to be parked (True)."""

    async def run(self) -> bool: ...


class Connections:
    """The open connections of a node, bounded by `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: dict[Open, None] = {}  # in order of acceptance, or of having been parked
        self._accepted = 0
        self._shed = 0
        self._draining = False

    def statistics(self) -> ConnectionStatistics:
        """A snapshot; idle ones are counted, so this is linear in the connections."""
        idle = sum(connection.idle for connection in self._open)
        return ConnectionStatistics(len(self._open), idle, self._accepted, self._shed)

    @property
    def are_full(self) -> bool:
        """Whether one more has to wait, or another to give way."""
        return len(self._open) >= self.most

    def has_room(self) -> bool:
        """Whether one more may be accepted; makes room by shedding an idle one if need be."""
        return not self.are_full or self.shed_one()

    def shed_one(self) -> bool:
        """Close a connection that no request is at work on; False when there is none.

        One that has been at a head for a while goes first, then one that has been idle for a
        while, then any that has sent part of a head, then any idle one: it may only just have
        come, or be between two requests. The oldest of its kind each time.
        """
        clock = trio.current_time()
        begun = [each for each in self._open if each.head_since is not None]
        slow = [each for each in begun if (each.head_since or 0.0) < clock - HEAD_GRACE_S]
        idle = [each for each in self._open if each.idle]
        rested = [each for each in idle if each.idle_since < clock - IDLE_GRACE_S]
        if slow or (begun and not rested):
            (slow or begun)[0].give_up()
        elif idle:
            (rested or idle)[0].shed()
        else:
            return False
        self._shed += 1
        return True

    def drain(self) -> None:
        """Close idle connections now and the others after their exchange."""
        self._draining = True
        for connection in list(self._open):
            connection.drain()

    def add(self, connection: Open) -> None:
        """Count a new one among the open ones, from before its task begins."""
        self._open[connection] = None
        self._accepted += 1

    def swap(self, old: Open, new: Open) -> None:
        """Count `new`, which is the same connection in other hands, in place of `old`."""
        self._open.pop(old, None)
        self._open[new] = None

    def remove(self, connection: Open) -> None:
        """One of them has been closed."""
        self._open.pop(connection, None)

    async def run(self, connection: Served) -> bool:
        """Serve one connection, counted among the open ones while it lasts.

        True where it is still open, and counted: it is to be parked.
        """
        if connection not in self._open:
            self.add(connection)
        if self._draining:
            connection.drain()
        parked = False
        try:
            parked = await connection.run()
        finally:
            if not parked:
                self.remove(connection)
        return parked


def in_a_task(
    connections: Connections, make: Callable[[SocketTransport], Served], clients: trio.Nursery
) -> Callable[[SocketTransport], None]:
    """Takes in connections, and gives each a task among `clients` for as long as it is open."""

    def take_in(transport: SocketTransport) -> None:
        connection = make(transport)
        connections.add(connection)
        clients.start_soon(connections.run, connection)

    return take_in


async def accept(
    listener: socket.socket,
    connections: Connections,
    take_in: Callable[[SocketTransport], None],
    say: Callable[[str], None],
    *,
    giving_way: Connections | None = None,
) -> None:
    """Accept until cancelled. Where there are no descriptors left, one of those `giving_way` does,
    or one of the `connections`.

    `take_in` counts a newcomer among the `connections`; those outlive this task while the node
    drains.
    """
    while True:
        await trio.lowlevel.wait_readable(listener)
        until, is_first = perf_counter() + ACCEPT_S, True
        while is_first or perf_counter() < until:
            if not is_first and connections.are_full:
                break  # let no one give way before there is someone to give way to
            is_first = False
            if not connections.has_room():
                await trio.sleep(PAUSE_S)
                break
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                await _after_failure(error, giving_way or connections, say)
                break
            if isinstance(address, tuple):
                peer = address[0].encode("ascii")
                take_in(SocketTransport(sock, peer=peer, tuned=OPTIONS_ARE_INHERITED))
            else:  # a UNIX socket's, which says nothing
                take_in(PassingTransport(sock))


async def _after_failure(
    error: OSError, connections: Connections, say: Callable[[str], None]
) -> None:
    if error.errno in PASSING:
        return
    if error.errno not in OUT_OF_DESCRIPTORS:
        raise error
    shed = connections.shed_one()
    say(f"{error.strerror}; {'closed one that was at no request' if shed else 'waiting'}")
    await trio.sleep(SHED_PAUSE_S if shed else PAUSE_S)
