"""hit-beside-coding: what hits notice of a thousand requests at once for what is to be coded.

Quiet rounds, and busy ones in which a crowd comes every second: a thousand clients at once, each
on a connection of its own, five for each of two hundred pages that nobody has asked for yet. wrk
asks for 1 KiB hits at the same even pace in all of them. The crowds of one kind of busy round
accept `br`, those of another no coding, which shows what of it is the coding; peers, which code
nothing here, have only these, and show what of it is the crowd's. Clients and origin share the
load's core and give way to it.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from itertools import count
from statistics import median
from typing import TYPE_CHECKING, Final

import trio

from edge.coding.decoders import Decoder
from edge.coding.negotiate import Coding
from tools.benchmark import proof
from tools.benchmark.beside import give_way
from tools.benchmark.comparison import cell, verdict
from tools.benchmark.figures import ratio
from tools.benchmark.loads import PACED_HIT, Goal
from tools.benchmark.objects import SMALL
from tools.benchmark.peers import start_peers, tell_notes
from tools.benchmark.plain import HEAD_END, Broken, Origin, head, parse_head
from tools.benchmark.report import Report, milliseconds
from tools.benchmark.servers import Server, program
from tools.benchmark.texts import MANUAL
from tools.benchmark.wrk import Run, run_wrk

if TYPE_CHECKING:
    from tools.benchmark.report import Wishes

ROUNDS: Final = 5
SECONDS: Final = 5.0
WARM_S: Final = 1.0
EACH_S: Final = 1.0
PAGES: Final = 200
CLIENTS: Final = 1000
PAGE: Final = MANUAL[: 32 << 10]
OURS: Final = "this node"
KINDS: Final = ("quiet", "identity", "br")
PEERS_KINDS: Final = ("quiet", "identity")
GOAL: Final = Goal("p99", 2.0)
ON: Final = ("--set", "site.compress={}")


@dataclass(slots=True)
class Seen:
    """What became of the crowds of one round."""

    asked: int = 0
    answered: int = 0
    sent_bytes: int = 0
    longest_s: float = 0.0
    faults: list[str] = field(default_factory=list)


class Crowds:
    """The origin, and those who come at once; lives in a thread of its own."""

    def __init__(self) -> None:
        self._marks = count()
        self._stop = trio.Event()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._up.wait(timeout=30)

    # --- from other threads

    def begin(self, port: int, coding: str) -> Seen:
        """Let crowds come to the server at `port`, until `end`."""
        seen = Seen()
        trio.from_thread.run_sync(self._begin, port, coding, seen, trio_token=self._token)
        return seen

    def end(self) -> None:
        """Let no more come, and wait for those that are there."""
        trio.from_thread.run(self._end, trio_token=self._token)

    def close(self) -> None:
        """End the thread."""
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join()

    # --- in the thread

    def _run(self) -> None:
        give_way()
        trio.run(self._serve)

    async def _serve(self) -> None:
        made = Origin(self._respond)
        async with trio.open_nursery() as nursery:
            await nursery.start(made.run)
            self._nursery, self._token = nursery, trio.lowlevel.current_trio_token()
            self.origin = made.url
            self._up.set()
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    async def _respond(self, target: str, stream: trio.SocketStream) -> None:
        if target.startswith("/page/"):
            kind = b"HTTP/1.1 200 Fine\r\ncontent-type: text/plain\r\n"
            await stream.send_all(head(len(PAGE)).replace(b"HTTP/1.1 200 Fine\r\n", kind) + PAGE)
        else:
            await stream.send_all(head(len(SMALL)) + SMALL)

    def _begin(self, port: int, coding: str, seen: Seen) -> None:
        self._scope, self._gone = trio.CancelScope(), trio.Event()
        self._nursery.start_soon(self._come, port, coding, seen)

    async def _end(self) -> None:
        self._scope.cancel()
        await self._gone.wait()

    async def _come(self, port: int, coding: str, seen: Seen) -> None:
        due = trio.current_time()
        async with trio.open_nursery() as nursery:
            with self._scope:
                while True:
                    mark = next(self._marks)
                    for number in range(CLIENTS):
                        target = f"/page/{mark}/{number % PAGES}"
                        nursery.start_soon(_ask, port, target, coding, seen)
                    due += EACH_S
                    await trio.sleep_until(due)
        self._gone.set()


async def _ask(port: int, target: str, coding: str, seen: Seen) -> None:
    """One client: it asks once, and compares what it gets."""
    seen.asked += 1
    began = trio.current_time()
    request = (
        f"GET {target} HTTP/1.1\r\nHost: bench.example\r\nAccept-Encoding: {coding}\r\n"
        "Connection: close\r\n\r\n"
    )
    data = bytearray()
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request.encode())
            async for piece in stream:
                data += piece
        body = _body(bytes(data))
    except (Broken, OSError, trio.BrokenResourceError) as error:
        seen.faults.append(f"{target}: {error}")
        return
    seen.sent_bytes += len(data)
    seen.answered += 1
    seen.longest_s = max(seen.longest_s, trio.current_time() - began)
    if body != PAGE:
        seen.faults.append(f"{target}: {len(body)} other bytes")


def _body(data: bytes) -> bytes:
    """The content of an answer, decoded; raises `Broken`."""
    start, _, rest = data.partition(HEAD_END)
    status, fields = parse_head(start)
    if status != 200:
        raise Broken(f"{status}")
    body = rest
    if b"content-length" not in fields:
        body, size = b"", -1
        while size:
            line, _, rest = rest.partition(b"\r\n")
            size = int(line or b"-1", 16)
            if size < 0 or len(rest) < size + 2:
                raise Broken("it breaks off")
            body, rest = body + rest[:size], rest[size + 2 :]
    coding = fields.get(b"content-encoding")
    if coding is None:
        return body
    decoder = Decoder(Coding(coding.decode()))
    body = b"".join(decoder.pieces(body))
    decoder.finish()
    return body


# --- measuring


def measure(wishes: Wishes) -> Report:
    """The scenario."""
    report, wrk, place = Report(), program("wrk"), wishes.directory
    if wrk is None:
        report.fault("not measured: wrk is missing")
        return report
    with ExitStack() as stack:
        crowds = stack.enter_context(closing(Crowds()))
        servers = start_peers(stack, place, crowds.origin, report, extra=ON)
        for server in servers:
            run_wrk(wrk, PACED_HIT, server, WARM_S, place, "warm")
            proof.check(server, PACED_HIT, "before")
        rounds = [
            {server.name: _round(wrk, crowds, server, wishes, number) for server in servers}
            for number in range(wishes.rounds or ROUNDS)
        ]
        for server in servers:
            proof.check(server, PACED_HIT, "after")
    for server in servers:
        _tell(report, server.name, [each[server.name] for each in rounds])
    tell_notes(report, [server.name for server in servers])
    return report


def _round(
    wrk: str, crowds: Crowds, server: Server, wishes: Wishes, number: int
) -> dict[str, tuple[Run, Seen]]:
    seconds, found = wishes.seconds or SECONDS, {}
    kinds = KINDS if server.name == OURS else PEERS_KINDS
    for kind in kinds if number % 2 == 0 else reversed(kinds):
        seen = crowds.begin(server.port, kind) if kind != "quiet" else Seen()
        run = run_wrk(wrk, PACED_HIT, server, seconds, wishes.directory, "")
        if kind != "quiet":
            crowds.end()
        found[kind] = run, seen
        time.sleep(1.0)  # what was coded for a crowd is stored by then
    return found


def _tell(report: Report, name: str, rounds: list[dict[str, tuple[Run, Seen]]]) -> None:
    quiet = [each["quiet"][0].load.p99_s for each in rounds]
    report.say(f"  {name}")
    told = report.figures[name] = {}
    for kind in rounds[0]:
        runs, seen = zip(*(each[kind] for each in rounds), strict=True)
        report.say(
            f"    {kind:10}{median(run.load.per_s for run in runs):>9,.0f} hits/s   "
            f"p50 {milliseconds(median(run.load.p50_s for run in runs)):>9}   "
            f"p99 {milliseconds(median(run.load.p99_s for run in runs)):>9}"
        )
        told[kind] = [(asdict(run), asdict(each)) for run, each in zip(runs, seen, strict=True)]
        if kind == "quiet":
            continue
        found = ratio([run.load.p99_s for run in runs], quiet)
        answered = sum(each.answered for each in seen)
        goal = f" ({verdict(GOAL, found)})" if kind == "br" else ""
        report.say(
            f"    {'':10}p99 by quiet: {cell(found)}{goal}; {answered:,} of the crowds answered, "
            f"the longest after {milliseconds(max(each.longest_s for each in seen))}"
        )
        faults = [fault for each in seen for fault in each.faults]
        failed = sum(run.load.failed for run in runs)
        if faults or failed:
            report.fault(
                f"{name}: {failed} hits failed; {len(faults)} of the crowds: {faults[:3]}"
            )
