"""workers: whether a 1 KiB hit costs the same in a node of two workers as in a node of one.

Both nodes may use all cores, and each worker is given the same light load, far from what it could
do, so that neither the load nor the other worker is in a server's way. The same for each worker,
and not for each node: what a hit costs hangs on how many are ready when a worker wakes up, in
every server (with half the load a loop in C needs 1.2 times as much for each).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tools.benchmark import comparison, proof
from tools.benchmark.loads import PACED_HIT, Goal
from tools.benchmark.peers import start_origin
from tools.benchmark.report import Report
from tools.benchmark.servers import NotReady, Server, program, running, start_node
from tools.benchmark.wrk import Run, run_wrk

if TYPE_CHECKING:
    from tools.benchmark.report import Wishes

ROUNDS: Final = 5
SECONDS: Final = 4.0
WARM_S: Final = 1.0
WORKERS: Final = {"two workers": 2, "one worker": 1}
GOAL: Final = Goal("CPU/request", 1.15, ("one worker",))


def measure(wishes: Wishes) -> Report:
    """The scenario."""
    report, wrk = Report(), program("wrk")
    if wrk is None:
        report.fault("not measured: wrk is missing")
        return report
    with ExitStack() as stack:
        place = wishes.directory
        origin = stack.enter_context(running(start_origin(place / "origin")))
        servers: dict[str, Server] = {}
        for name, count in WORKERS.items():
            try:
                server = start_node(place / str(count), origin.url, core=None, workers=count)
            except NotReady as refusal:
                report.say(f"  not measured: the node does not run with {name}: {refusal}")
                report.figures["missing"] = str(refusal)
                return report
            servers[name] = stack.enter_context(running(server))
        comparison.tell(report, _rounds(wrk, servers, wishes), (GOAL,))
    return report


def _rounds(wrk: str, servers: dict[str, Server], wishes: Wishes) -> dict[str, list[Run]]:
    place, runs = wishes.directory, dict[str, list[Run]]()
    loads = {
        name: replace(PACED_HIT, connections=count * PACED_HIT.connections)
        for name, count in WORKERS.items()
    }
    for name, server in servers.items():
        run_wrk(wrk, loads[name], server, WARM_S, place, "warm", core=None)
        proof.check(server, loads[name], "before")
        runs[name] = []
    for number in range(wishes.rounds or ROUNDS):
        turns = list(servers.items())
        for name, server in turns if number % 2 == 0 else reversed(turns):
            seconds = wishes.seconds or SECONDS
            run = run_wrk(wrk, loads[name], server, seconds, place, str(number), core=None)
            runs[name].append(run)
    return runs
