"""The scenarios of `loads.KINDS`: this node beside its peers, under wrk.

All stand before the same origin. They take turns, and the order turns about from round to round,
so that none always runs on the warmer machine. The server under load has core 0; wrk and the
origin share core 1, where there is one. Each must answer rightly before it is measured, and still
afterwards; what the origin was asked meanwhile tells how many hits there were.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Final

from tools.benchmark import comparison, proof
from tools.benchmark.limit import NAME as LIMIT
from tools.benchmark.loads import KINDS, Kind
from tools.benchmark.mixture import FILL_DONE, HIT_SHARE, Mixture
from tools.benchmark.objects import requests_told
from tools.benchmark.peers import start_origin, start_peers, tell_notes
from tools.benchmark.report import Report, progress
from tools.benchmark.servers import NotReady, Server, program, running
from tools.benchmark.wrk import Run, run_until, run_wrk

if TYPE_CHECKING:
    from pathlib import Path

    from tools.benchmark.report import Wishes

ROUNDS: Final = 5
SECONDS: Final = 4.0
WARM_S: Final = 1.0
MISSES: Final = 0.001  # of requests for what is stored; with more it is not hits that are measured
DIGITS: Final = 0.99  # wrk tells bytes with three of them
HIT_MARGIN: Final = 0.015
COUNTED: Final = b"GET /requests HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def measure(name: str, wishes: Wishes) -> Report:
    """One of `KINDS`."""
    kind, report = KINDS[name], Report()
    if kind.mixture is not None and wishes.objects:
        kind = replace(kind, mixture=Mixture(wishes.objects))
    wrk = program("wrk")
    if wrk is None:
        report.fault("not measured: wrk is missing")
        return report
    with ExitStack() as stack:
        place = wishes.directory
        origin = stack.enter_context(running(start_origin(place / "origin")))
        servers = start_peers(
            stack, place, origin.url, report, memory=kind.memory, beside_limit=kind.beside_limit
        )
        Course(wrk, kind, origin, servers, report).run(wishes)
    return report


class Course:
    """One scenario on running servers, ours first."""

    def __init__(
        self, wrk: str, kind: Kind, origin: Server, servers: list[Server], report: Report
    ) -> None:
        self._wrk = wrk
        self._kind = kind
        self._origin = origin
        self._servers = servers
        self._report = report
        self._hits: dict[str, list[float]] = {server.name: [] for server in servers}

    def run(self, wishes: Wishes) -> None:
        """Warm, check, measure, check again, tell."""
        for server in self._servers:
            self._warm(server, wishes.directory)
            proof.check(server, self._kind, "before")
        runs: dict[str, list[Run]] = {server.name: [] for server in self._servers}
        for number in range(wishes.rounds or ROUNDS):
            for server in self._servers if number % 2 == 0 else reversed(self._servers):
                run = self._measure(server, wishes, str(number))
                runs[server.name].append(run)
        for server in self._servers:
            proof.check(server, self._kind, "after")
        comparison.tell(self._report, runs, self._kind.goals)
        self._tell_hits()
        tell_notes(self._report, runs)

    def _warm(self, server: Server, place: Path) -> None:
        if self._kind.mixture is not None and server.name != LIMIT:
            progress(f"{server.name}: {self._kind.mixture.stored:,} objects to be stored")
            script = place / "fill.lua"
            script.write_text(self._kind.mixture.fill_script())
            run_until(self._wrk, server, script, FILL_DONE, connections=self._kind.connections)
        run_wrk(self._wrk, self._kind, server, WARM_S, place, "warm")

    def _measure(self, server: Server, wishes: Wishes, mark: str) -> Run:
        seconds = wishes.seconds or SECONDS
        before = self._origin_requests()
        run = run_wrk(self._wrk, self._kind, server, seconds, wishes.directory, mark)
        missed = self._origin_requests() - before - 1  # that one is this one
        # Of misses some are still on their way when wrk has ended.
        self._hits[server.name].append(max(0.0, 1 - missed / max(1, run.load.requests)))
        expected = DIGITS * len(self._kind.body) * run.load.requests
        if run.load.read_bytes < expected:
            raise NotReady(
                f"{server.name}: {run.load.read_bytes:.0f} of {expected:.0f} bytes came"
            )
        return run

    def _origin_requests(self) -> int:
        return requests_told(proof.ask(self._origin.port, COUNTED).body.decode())

    def _tell_hits(self) -> None:
        shares = {name: median(each) for name, each in self._hits.items() if name != LIMIT}
        told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        self._report.say(f"  hits, by what the origin was asked: {told}")
        self._report.figures["hits"] = shares
        for name, share in shares.items():
            if not self._is_right(share):
                self._report.fault(f"{name}: {share:.2%} of the requests were hits")

    def _is_right(self, share: float) -> bool:
        if self._kind.mixture is not None:
            return abs(share - HIT_SHARE) < HIT_MARGIN
        return share < MISSES if self._kind.is_unique else share > 1 - MISSES
