"""slow-readers: a thousand clients take a 100 MiB object and hardly read it.

First cold, all at once, then hot. Meanwhile one client asks for a small object again and again: it
should not notice. The origin should be done as fast as the node's disk takes the object, long
before any of the readers.
"""

from __future__ import annotations

import socket
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from tools.benchmark.figures import percentile
from tools.benchmark.plain import Broken, Client, Origin, content, head, parse_head
from tools.benchmark.report import MIB, Report, milliseconds
from tools.benchmark.servers import running, start_node

if TYPE_CHECKING:
    from tools.benchmark.report import Wishes
    from tools.benchmark.servers import Server

READERS: Final = 1000
SECONDS: Final = 15.0
SIZE: Final = 100 * MIB
PIECE: Final = 256 * 1024
READ_BYTES: Final = 1024  # a second, by each reader
WINDOW_BYTES: Final = 4096
GOAL_MIB: Final = 300
SAMPLE_S: Final = 0.1
CONTROL_S: Final = 0.02
SMALL: Final = content("small", 1024)
BLOCK: Final = content("/big", PIECE)


@dataclass(slots=True)
class Phase:
    """What was seen while one crowd read."""

    resident: list[int] = field(default_factory=list)
    kernel_pages: list[int] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    started: int = 0
    broken: int = 0
    control_failed: int = 0


class BigOrigin:
    """One object of 100 MiB, and how long it took to be rid of it."""

    def __init__(self) -> None:
        self.took_s: list[float] = []

    async def respond(self, target: str, stream: trio.SocketStream) -> None:
        if target != "/big":
            await stream.send_all(head(len(SMALL)) + SMALL)
            return
        began = trio.current_time()
        await stream.send_all(head(SIZE))
        for _ in range(SIZE // PIECE):
            await stream.send_all(BLOCK)
        self.took_s.append(trio.current_time() - began)


def measure(wishes: Wishes) -> Report:
    """The scenario."""
    report = Report()
    for number in range(wishes.rounds or 1):
        trio.run(_measure, wishes, report, wishes.directory / str(number))
    return report


async def _measure(wishes: Wishes, report: Report, place: Path) -> None:
    big = BigOrigin()
    origin = Origin(big.respond)
    async with trio.open_nursery() as nursery:
        await nursery.start(origin.run)
        with running(start_node(place, origin.url)) as server:
            alone = Phase()
            with trio.move_on_after(3):
                await _control(server.port, alone)
            _tell(report, "nobody", alone, server)
            for name in ("cold", "hot"):
                phase = await _crowd(server, wishes)
                _tell(report, name, phase, server)
                await _check(server, report)
                if name == "cold":
                    _tell_origin(report, origin, big)
            await trio.sleep(1)
            rest = server.resident_bytes() / MIB
            report.say(f"  resident when they have left: {rest:.0f} MiB")
            report.goal("most resident ever", server.peak_bytes() / MIB, GOAL_MIB, "MiB")
            report.figures["peak_mib"] = server.peak_bytes() / MIB
        nursery.cancel_scope.cancel()


async def _crowd(server: Server, wishes: Wishes) -> Phase:
    phase = Phase()
    with trio.move_on_after(wishes.seconds or SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, server, phase)
            nursery.start_soon(_control, server.port, phase)
            for _ in range(wishes.clients or READERS):
                nursery.start_soon(_read_slowly, server.port, phase)
    return phase


async def _read_slowly(port: int, phase: Phase) -> None:
    with trio.socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES)
        try:
            await sock.connect(("127.0.0.1", port))
            await sock.send(b"GET /big HTTP/1.1\r\nHost: bench.example\r\n\r\n")
            first = await sock.recv(READ_BYTES)
            status, fields = parse_head(first.partition(b"\r\n\r\n")[0])
            if status != 200 or fields.get(b"content-length") != b"%d" % SIZE:
                raise Broken(f"a wrong answer: {first!r}")
            phase.started += 1
            while first:
                await trio.sleep(1)
                first = await sock.recv(READ_BYTES)
            raise Broken("ended early")
        except (OSError, Broken):
            phase.broken += 1


async def _watch(server: Server, phase: Phase) -> None:
    while True:
        phase.resident.append(server.resident_bytes())
        phase.kernel_pages.append(_kernel_pages())
        await trio.sleep(SAMPLE_S)


def _kernel_pages() -> int:
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1])
    return 0


async def _control(port: int, phase: Phase) -> None:
    async with aclosing(_Closing(port)) as closing:
        while True:
            began = trio.current_time()
            try:
                answer = await closing.client.get("/small")
                right = answer.status == 200 and answer.body == SMALL
            except Broken:
                right = False
            phase.waits_s.append(trio.current_time() - began)
            phase.control_failed += not right
            await trio.sleep(CONTROL_S)


class _Closing:
    def __init__(self, port: int) -> None:
        self.client = Client(port)

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await self.client.close()


async def _check(server: Server, report: Report) -> None:
    """One who reads it all, from the store."""
    began = trio.current_time()
    try:
        answer = await Client(server.port).get("/big")
    except Broken as error:
        report.fault(f"not to be had whole: {error}; {server.last_words()}")
        return
    took = trio.current_time() - began
    status = answer.fields.get(b"cache-status", b"").decode()
    if answer.body != BLOCK * (SIZE // PIECE):
        report.fault("the object came back with other bytes")
    report.say(f"  read whole afterwards in {took:.2f} s: {status}")


def _tell(report: Report, name: str, phase: Phase, server: Server) -> None:
    most = max(phase.resident, default=server.resident_bytes()) / MIB
    kernel = max(phase.kernel_pages, default=0) * 4096 / MIB
    p50, p99 = percentile(phase.waits_s, 0.5), percentile(phase.waits_s, 0.99)
    worst = max(phase.waits_s, default=0.0)
    report.say(
        f"  {name}: {phase.started} reading, {phase.broken} broken off; resident {most:.0f} MiB, "
        f"kernel's TCP buffers {kernel:.0f} MiB; control client: {len(phase.waits_s)} hits, "
        f"p50 {milliseconds(p50)}, p99 {milliseconds(p99)}, worst {milliseconds(worst)}"
    )
    report.figures[name] = {
        "reading": phase.started,
        "broken": phase.broken,
        "resident_mib": most,
        "kernel_mib": kernel,
        "control": {"count": len(phase.waits_s), "p50_s": p50, "p99_s": p99, "worst_s": worst},
    }
    if phase.broken or phase.control_failed:
        report.fault(f"{name}: {phase.broken} readers, {phase.control_failed} controls failed")


def _tell_origin(report: Report, origin: Origin, big: BigOrigin) -> None:
    asked = origin.asked["/big"]
    took = ", ".join(f"{each:.2f}" for each in big.took_s) or "never"
    report.say(f"  the origin was asked {asked} times and rid of the object after {took} s")
    report.figures["origin"] = {"asked": asked, "released_s": big.took_s}
    if asked != 1 or not big.took_s:
        report.fault(f"origin: asked {asked} times, done {len(big.took_s)} times")
