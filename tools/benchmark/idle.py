"""connections: what ten thousand idle connections hold in memory.

Each server is measured empty (it has answered a few requests), with all connections open and
nothing said on them, and when each has had one answer to a browser's head and is silent again.
They come from several addresses of the loopback network, so that no address runs short of ports.
Memory is what the server's processes hold beside the files they map, whose share changes with what
else runs; what the kernel holds for sockets is not in it.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from tools.benchmark import proof
from tools.benchmark.loads import KINDS
from tools.benchmark.peers import start_origin, start_peers
from tools.benchmark.plain import HEAD_END
from tools.benchmark.report import MIB, Report, progress
from tools.benchmark.servers import NotReady, Server, allow_descriptors, running

if TYPE_CHECKING:
    from tools.benchmark.report import Wishes

CONNECTIONS: Final = 10_000
SPARE: Final = 1000  # descriptors for all else
SOURCES: Final = 8
AT_ONCE: Final = 64
GOAL_KIB: Final = 3.0
PATIENCE_S: Final = 30.0
SETTLE_S: Final = 0.25
SETTLED_BYTES: Final = 64 * 1024
KIND: Final = KINDS["hit-browser-heads"]


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that a server holds, and with how many connections."""

    connections: int
    empty: int
    opened: int
    answered: int

    @property
    def opened_kib(self) -> float:
        """For each connection on which nothing was said."""
        return (self.opened - self.empty) / self.connections / 1024

    @property
    def answered_kib(self) -> float:
        """For each connection that has had an answer."""
        return (self.answered - self.empty) / self.connections / 1024


def measure(wishes: Wishes) -> Report:
    """The scenario."""
    report, count = Report(), wishes.clients or CONNECTIONS
    allow_descriptors(count + SPARE)
    held: dict[str, list[Held]] = {}
    for number in range(wishes.rounds or 1):
        with ExitStack() as stack:
            place = wishes.directory / str(number)
            origin = stack.enter_context(running(start_origin(place / "origin")))
            extra = ("--set", f"limits.connections={2 * count}", "--set", "timeouts.idle=10m")
            servers = start_peers(stack, place, origin.url, report, extra=extra)
            for server in servers:
                progress(f"{server.name}: {count:,} connections")
                held.setdefault(server.name, []).append(_hold(server, count))
    _tell(report, held, count)
    return report


def _hold(server: Server, count: int) -> Held:
    for _ in range(AT_ONCE):
        proof.ask(server.port, KIND.request())
    proof.check(server, KIND, "before")
    empty = _settled(server)
    with ExitStack() as stack:
        socks = [stack.enter_context(_connection(server.port, each)) for each in range(count)]
        opened = _settled(server)
        for first in range(0, count, AT_ONCE):
            _ask_all(socks[first : first + AT_ONCE])
        answered = _settled(server)
        closed = _readable(socks)
        if closed:
            raise NotReady(f"{server.name}: {closed} of {count} connections were closed")
    return Held(count, empty, opened, answered)


def _connection(port: int, number: int) -> socket.socket:
    address = (f"127.0.0.{2 + number % SOURCES}", 0)
    return socket.create_connection(("127.0.0.1", port), PATIENCE_S, source_address=address)


def _settled(server: Server) -> int:
    """Resident bytes, once they no longer change: what was opened has then been accepted."""
    last, until = server.anonymous_bytes(), time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        time.sleep(SETTLE_S)
        now = server.anonymous_bytes()
        if abs(now - last) < SETTLED_BYTES:
            return now
        last = now
    raise NotReady(f"{server.name}: its memory does not come to rest")


def _ask_all(socks: list[socket.socket]) -> None:
    """One request on each, and the whole answers; raises `NotReady`."""
    for sock in socks:
        sock.sendall(KIND.request())
    for sock in socks:
        data = b""
        while not data.partition(HEAD_END)[2].endswith(KIND.body):
            piece = sock.recv(65_536)
            if not piece:
                raise NotReady(f"a connection ended after {data[:200]!r}")
            data += piece
        if not data.startswith(b"HTTP/1.1 200 "):
            raise NotReady(f"a wrong answer: {data[:200]!r}")


def _readable(socks: list[socket.socket]) -> int:
    """How many have something to say though nothing was asked: that they have ended."""
    poll = select.epoll()
    for sock in socks:
        poll.register(sock, select.EPOLLIN)
    events = poll.poll(0, len(socks))
    poll.close()
    return len(events)


def _tell(report: Report, held: dict[str, list[Held]], count: int) -> None:
    report.say(f"  KiB resident for each of {count:,} connections above the empty server")
    report.say(f"  {'':16}{'nothing said':>16}{'one answer each':>18}{'empty, MiB':>14}")
    for name, each in held.items():
        opened, answered = (
            median(held.opened_kib for held in each),
            median(held.answered_kib for held in each),
        )
        empty = median(held.empty for held in each) / MIB
        report.say(f"  {name:16}{opened:>16.2f}{answered:>18.2f}{empty:>14.1f}")
        report.figures[name] = [
            {**asdict(held), "opened_kib": held.opened_kib, "answered_kib": held.answered_kib}
            for held in each
        ]
        if name == "this node":
            most = max(opened, answered)
    report.goal("the more of both for this node", most, GOAL_KIB, "KiB")
