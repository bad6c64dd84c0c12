"""first-byte: a hundred clients wait for one key of an origin that drips.

The waiters are raw sockets in one epoll set, in a thread that does nothing else, so that what is
measured is when the kernel had the bytes and not when a client got round to them.
"""

from __future__ import annotations

import re
import select
import socket
import time
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Final

import trio

from tools.benchmark.plain import HEAD_END, Origin, head
from tools.benchmark.report import Report
from tools.benchmark.servers import running, start_node

if TYPE_CHECKING:
    from tools.benchmark.report import Wishes

ROUNDS: Final = 5
WAITERS: Final = 100
GOAL_MS: Final = 5.0
HEAD_AFTER_S: Final = 0.5
DRIPS: Final = 10
DRIP_S: Final = 0.05
PATIENCE_S: Final = 20.0
_LAST_CHUNK: Final = re.compile(rb"(?:\A|\r\n)0\r\n\r\n\Z")


@dataclass(slots=True)
class Waiter:
    """One client; its times are by the clock of `time.perf_counter`."""

    sock: socket.socket
    data: bytearray = field(default_factory=bytearray)
    head_at: float = 0.0
    body_at: float = 0.0
    done: bool = False

    def take(self) -> None:
        """What the kernel has; and when."""
        data = self.sock.recv(65_536)
        now = time.perf_counter()
        self.data += data
        end = self.data.find(HEAD_END)
        if end >= 0:
            self.head_at = self.head_at or now
            if len(self.data) > end + len(HEAD_END):
                self.body_at = self.body_at or now
        self.done = not data or _LAST_CHUNK.search(self.data[-16:]) is not None

    @property
    def drips(self) -> int:
        """How many drips came, if all of it did; else 0."""
        first, _, body = bytes(self.data).partition(HEAD_END)
        whole = _LAST_CHUNK.search(body) is not None and first.startswith(b"HTTP/1.1 200 ")
        return body.count(b"~") if whole else 0


async def drip(_target: str, stream: trio.SocketStream) -> None:
    """A head after a while, then a byte at a time."""
    await trio.sleep(HEAD_AFTER_S)
    await stream.send_all(head(None))
    for _ in range(DRIPS):
        await trio.sleep(DRIP_S)
        await stream.send_all(b"1\r\n~\r\n")
    await stream.send_all(b"0\r\n\r\n")


def wait_together(port: int, target: str, count: int) -> list[Waiter]:
    """Ask at once, the first one a little ahead; back when all have their answers."""
    waiters, poll = {}, select.epoll()
    request = b"GET %b HTTP/1.1\r\nHost: bench.example\r\n\r\n" % target.encode()
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(request)
        poll.register(sock, select.EPOLLIN)
        waiters[sock.fileno()] = Waiter(sock)
        if number == 0:
            time.sleep(0.02)  # so that it is known who leads
    until = time.monotonic() + PATIENCE_S
    busy = len(waiters)
    while busy and time.monotonic() < until:
        for number, _ in poll.poll(0.1):
            waiters[number].take()
            if waiters[number].done:
                poll.unregister(number)
                busy -= 1
    poll.close()
    for waiter in waiters.values():
        waiter.sock.close()
    return list(waiters.values())


def measure(wishes: Wishes) -> Report:
    """The scenario."""
    report = Report()
    trio.run(_measure, wishes, report)
    return report


async def _measure(wishes: Wishes, report: Report) -> None:
    origin = Origin(drip)
    count = wishes.clients or WAITERS
    worst_heads, worst_bodies = [], []
    async with trio.open_nursery() as nursery:
        await nursery.start(origin.run)
        with running(start_node(wishes.directory, origin.url)) as server:
            for number in range(wishes.rounds or ROUNDS):
                target = f"/drip/{number}"
                work = partial(wait_together, server.port, target, count)
                waiters = await trio.to_thread.run_sync(work)
                last = _tell(report, number, waiters, origin.asked[target])
                worst_heads.append(last[0])
                worst_bodies.append(last[1])
        nursery.cancel_scope.cancel()
    for part, late in (("head", worst_heads), ("body", worst_bodies)):
        report.goal(
            f"{part} farthest from the leader's, median of rounds", median(late), GOAL_MS, "ms"
        )


def _tell(report: Report, number: int, waiters: list[Waiter], asked: int) -> tuple[float, float]:
    leader = waiters[0]
    heads = [1000 * (each.head_at - leader.head_at) for each in waiters[1:]]
    bodies = [1000 * (each.body_at - leader.body_at) for each in waiters[1:]]
    whole = sum(each.drips == DRIPS for each in waiters)
    report.say(
        f"  round {number}: {len(waiters)} clients, origin asked {asked} times; first byte after "
        f"the leader's: of the head {_spread(heads)}, of the body {_spread(bodies)}"
    )
    report.figures[f"round {number}"] = {"asked": asked, "head_ms": heads, "body_ms": bodies}
    if asked != 1 or whole != len(waiters):
        report.fault(f"round {number}: origin asked {asked} times, {whole} whole answers")
    # Tasks woken together run in either order, so that the leader may just as well be the last.
    return max(map(abs, heads)), max(map(abs, bodies))


def _spread(delays_ms: list[float]) -> str:
    """Negative are those who had it before the leader."""
    return f"{min(delays_ms):.2f} to {max(delays_ms):.2f} ms, median {median(delays_ms):.2f}"
