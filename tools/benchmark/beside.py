"""hit-beside-misses: what hits notice of requests that wait, and of a body that streams through.

Quiet and busy rounds alternate: wrk asks for 1 KiB hits at the same even pace in both. In the busy
ones a hundred misses a second wait for an origin that takes a second for each, and an object of
10 GiB streams through to one reader that takes 1 MiB of it a second, while the origin gives it as
fast as a good line would. Origin and clients are in a thread of this process that shares the
load's core and gives way to it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

import trio

from tools.benchmark import proof
from tools.benchmark.comparison import cell, verdict
from tools.benchmark.figures import ratio
from tools.benchmark.loads import PACED_HIT, Goal
from tools.benchmark.objects import SMALL
from tools.benchmark.peers import start_peers, tell_notes
from tools.benchmark.plain import HEAD_END, Broken, Client, Origin, content, head, parse_head
from tools.benchmark.report import MIB, Report, milliseconds
from tools.benchmark.servers import Server, program
from tools.benchmark.wrk import Run, run_wrk

if TYPE_CHECKING:
    from tools.benchmark.report import Wishes

ROUNDS: Final = 5
SECONDS: Final = 5.0
WARM_S: Final = 1.0
SETTLE_S: Final = 1.5  # until as many misses wait as will
MISSES_PER_S: Final = 100
WAIT_S: Final = 1.0
BIG_BYTES: Final = 10 * 1024 * MIB
BIG_PER_S: Final = 50 * MIB  # from the origin
READ_PER_S: Final = MIB
PIECE: Final = 64 * 1024
TARDY: Final = 0.9  # of the misses that should have been made
GOAL: Final = Goal("p99", 2.0)
OURS: Final = "this node"
NICE: Final = 10
CORE: Final = 1
ROOM: Final = ("--disk", "16GiB")  # nginx has as much
BLOCK: Final = content("/big", PIECE)


@dataclass(slots=True)
class Seen:
    """What became of the misses and of the stream in one busy run."""

    asked: int = 0
    answered: int = 0
    given_bytes: int = 0  # of the stream, by the origin
    read_bytes: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether misses were as frequent as they should be; a busy machine makes fewer."""
        return self.answered >= TARDY * MISSES_PER_S * (self.seconds - WAIT_S)


def give_way() -> None:
    """Have the thread that calls share the load's core, and let that go first."""
    with suppress(OSError):  # Linux takes both for a thread, and not for its process
        os.sched_setaffinity(0, {CORE})
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class Trouble:
    """The origin, and the clients whose requests wait; lives in a thread of its own."""

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[tuple[trio.lowlevel.TrioToken, str]] = queue.SimpleQueue()
        self._stop = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._streams: set[trio.SocketStream] = set()
        self._nursery: trio.Nursery | None = None
        self._seen = Seen()
        self._began = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._token, self.origin = self._told.get(timeout=30)

    # --- from other threads ---

    def begin(self, port: int, mark: str) -> None:
        """Let misses wait and the big object stream, on the server at `port`."""
        trio.from_thread.run_sync(self._begin, port, mark, trio_token=self._token)

    def end(self) -> Seen:
        """Stop both; what was seen."""
        return trio.from_thread.run_sync(self._end, trio_token=self._token)

    def close(self) -> None:
        """End the thread."""
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join()

    # --- in the thread ---

    def _run(self) -> None:
        give_way()
        trio.run(self._serve)

    async def _serve(self) -> None:
        origin = Origin(self._respond)
        async with trio.open_nursery() as nursery:
            await nursery.start(origin.run)
            self._nursery = nursery
            self._told.put((trio.lowlevel.current_trio_token(), origin.url))
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    async def _respond(self, target: str, stream: trio.SocketStream) -> None:
        if target.startswith("/big/"):
            await self._stream(stream)
            return
        if target.startswith("/wait/"):
            await trio.sleep(WAIT_S)
        await stream.send_all(head(len(SMALL)) + SMALL)

    async def _stream(self, stream: trio.SocketStream) -> None:
        self._streams.add(stream)
        try:
            await stream.send_all(head(BIG_BYTES))
            due = trio.current_time()
            for _ in range(BIG_BYTES // PIECE):
                await stream.send_all(BLOCK)
                self._seen.given_bytes += len(BLOCK)
                due = max(due + PIECE / BIG_PER_S, trio.current_time() - 1)
                await trio.sleep_until(due)
        except trio.ClosedResourceError as error:
            raise Broken("told to end") from error
        finally:
            self._streams.discard(stream)

    def _begin(self, port: int, mark: str) -> None:
        assert self._nursery is not None
        self._seen, self._scope = Seen(), trio.CancelScope()
        self._began = trio.current_time()
        self._nursery.start_soon(self._clients, port, mark, self._scope, self._seen)

    def _end(self) -> Seen:
        assert self._scope is not None
        self._scope.cancel()
        for stream in self._streams:
            stream.socket.close()
        self._seen.seconds = trio.current_time() - self._began
        return self._seen

    async def _clients(self, port: int, mark: str, scope: trio.CancelScope, seen: Seen) -> None:
        made: list[Client] = []
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_read_slowly, port, f"/big/{mark}", seen)
                await _ask_evenly(nursery, port, f"/wait/{mark}/", made, seen)
        for client in made:
            await client.close()


async def _ask_evenly(
    nursery: trio.Nursery, port: int, prefix: str, made: list[Client], seen: Seen
) -> None:
    free: list[Client] = []
    due = trio.current_time()
    while True:
        if not free:
            made.append(Client(port))
            free.append(made[-1])
        nursery.start_soon(_miss, free.pop(), f"{prefix}{seen.asked}", free, seen)
        seen.asked += 1
        due += 1 / MISSES_PER_S
        await trio.sleep_until(due)


async def _miss(client: Client, target: str, free: list[Client], seen: Seen) -> None:
    try:
        answer = await client.get(target)
    except Broken as error:
        seen.faults.append(f"{target}: {error}")
    else:
        seen.answered += 1
        if answer.status != 200 or answer.body != SMALL:
            seen.faults.append(f"{target}: {answer.status}, {len(answer.body)} bytes")
    free.append(client)


async def _read_slowly(port: int, target: str, seen: Seen) -> None:
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await _read(stream, target, seen)
    except (Broken, OSError, trio.BrokenResourceError) as error:
        seen.faults.append(f"{target}: {error}")


async def _read(stream: trio.SocketStream, target: str, seen: Seen) -> None:
    await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: bench.example\r\n\r\n".encode())
    data = await stream.receive_some(PIECE)
    status, fields = parse_head(bytes(data).partition(HEAD_END)[0])
    if status != 200 or fields.get(b"content-length") != b"%d" % BIG_BYTES:
        raise Broken(f"a wrong answer: {bytes(data)[:200]!r}")
    while data:
        seen.read_bytes += len(data)
        await trio.sleep(len(data) / READ_PER_S)
        data = await stream.receive_some(PIECE)
    raise Broken(f"ended after {seen.read_bytes} bytes")


# --- measuring ----------------------------------------------------------------


def measure(wishes: Wishes) -> Report:
    """The scenario."""
    report, wrk = Report(), program("wrk")
    if wrk is None:
        report.fault("not measured: wrk is missing")
        return report
    with ExitStack() as stack:
        trouble = stack.enter_context(closing(Trouble()))
        servers = start_peers(
            stack, wishes.directory, trouble.origin, report, memory="4G", extra=ROOM
        )
        for server in servers:
            run_wrk(wrk, PACED_HIT, server, WARM_S, wishes.directory, "warm")
            proof.check(server, PACED_HIT, "before")
        rounds = [_round(wrk, trouble, servers, wishes, n) for n in range(wishes.rounds or ROUNDS)]
    names = [server.name for server in servers]
    for name in names:
        _tell(report, name, [each[name] for each in rounds])
    report.say(
        f"  medians of {len(rounds)} rounds; hits are asked for at an even pace; CPU is all that "
        "a server used, by its hits"
    )
    tell_notes(report, names)
    return report


@dataclass(frozen=True, slots=True)
class Pair:
    """One server in one round."""

    quiet: Run
    busy: Run
    seen: Seen


def _round(
    wrk: str, trouble: Trouble, servers: list[Server], wishes: Wishes, number: int
) -> dict[str, Pair]:
    place, seconds, pairs = wishes.directory, wishes.seconds or SECONDS, {}
    for server in servers if number % 2 == 0 else reversed(servers):
        quiet = run_wrk(wrk, PACED_HIT, server, seconds, place, "")
        trouble.begin(server.port, f"{server.name.replace(' ', '-')}-{number}")
        time.sleep(SETTLE_S)
        busy = run_wrk(wrk, PACED_HIT, server, seconds, place, "")
        pairs[server.name] = Pair(quiet, busy, trouble.end())
        proof.check(server, PACED_HIT, "after")
    return pairs


def _tell(report: Report, name: str, pairs: list[Pair]) -> None:
    quiet, busy = [each.quiet for each in pairs], [each.busy for each in pairs]
    for word, runs in (("quiet", quiet), ("busy", busy)):
        report.say(
            f"  {name:12}{word:8}{median(run.load.per_s for run in runs):>9,.0f} requests/s   "
            f"p50 {milliseconds(median(run.load.p50_s for run in runs)):>9}   "
            f"p99 {milliseconds(median(run.load.p99_s for run in runs)):>9}   "
            f"CPU {median(run.cpu_us for run in runs):>7.1f} µs   "
            f"memory {median(run.resident_bytes for run in runs) / MIB:>6.1f} MiB"
        )
    misses = sum(each.seen.answered for each in pairs)
    read = sum(each.seen.read_bytes for each in pairs) / MIB
    given = sum(each.seen.given_bytes for each in pairs) / MIB
    report.say(f"  {'':12}{misses} misses, {given:.0f} MiB streamed in, {read:.0f} read")
    found = ratio([run.load.p99_s for run in busy], [run.load.p99_s for run in quiet])
    if all(each.seen.is_full for each in pairs):
        goal = f" ({verdict(GOAL, found)})" if name == OURS else ""
        report.say(f"  {'':12}p99 busy by quiet: {cell(found)}{goal}")
    else:
        report.say(f"  {'':12}no ratio: there were fewer misses than there should have been")
        found = None
    report.figures[name] = {
        "rounds": [asdict(each) for each in pairs],
        "ratio": asdict(found) if found and found.is_telling else None,
    }
    failed = sum(run.load.failed for run in (*quiet, *busy))
    faults = [fault for each in pairs for fault in each.seen.faults]
    if failed or faults:
        report.fault(f"{name}: {failed} hits failed; {len(faults)} others: {faults[:3]}")
