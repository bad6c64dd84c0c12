"""hit-1k, hit-1m, miss-1k: this node beside nginx, under wrk.

Both stand before the same origin. They take turns, and the order turns about from round to round,
so that neither always runs on the warmer machine. The server under load has core 0; wrk and the
origin share core 1, where there is one.
"""

from __future__ import annotations

import subprocess
import urllib.request
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from tools.benchmark.figures import Load, ratio, read_wrk
from tools.benchmark.report import MIB, Report, milliseconds
from tools.benchmark.servers import (
    Server,
    pinned,
    program,
    running,
    start_nginx_cache,
    start_nginx_origin,
    start_node,
    start_plain_origin,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tools.benchmark.report import Wishes

ROUNDS: Final = 5
SECONDS: Final = 4.0
WARM_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of load: what is asked for, over how many connections."""

    target: str
    connections: int
    is_unique: bool = False


KINDS: Final = {
    "hit-1k": Kind("/1k", 64),
    "hit-1m": Kind("/1m", 16),
    "miss-1k": Kind("/miss", 64, is_unique=True),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One server in one round."""

    load: Load
    cpu_us: float  # for each request
    resident_bytes: int


def measure(name: str, wishes: Wishes) -> Report:
    """One of `KINDS`."""
    kind, report = KINDS[name], Report()
    wrk, nginx = program("wrk"), program("nginx")
    if wrk is None:
        report.fault("not measured: wrk is missing")
        return report
    with ExitStack() as stack:
        place = wishes.directory
        if nginx is None:
            origin = stack.enter_context(running(start_plain_origin(place / "origin")))
        else:
            origin = stack.enter_context(running(start_nginx_origin(nginx, place / "origin")))
        servers = [stack.enter_context(running(start_node(place / "node", origin.url)))]
        if nginx is not None:
            peer = start_nginx_cache(nginx, place / "nginx", origin.url)
            servers.append(stack.enter_context(running(peer)))
        runs = _rounds(wrk, kind, servers, wishes)
        for server in servers if not kind.is_unique else ():
            _check_hit(server, kind, report)
    _tell(report, runs, wishes.rounds or ROUNDS)
    return report


def _rounds(wrk: str, kind: Kind, servers: list[Server], wishes: Wishes) -> dict[str, list[Run]]:
    for server in servers:
        run_wrk(wrk, kind, server, WARM_S, wishes.directory, "warm")
    runs: dict[str, list[Run]] = {server.name: [] for server in servers}
    for number in range(wishes.rounds or ROUNDS):
        for server in servers if number % 2 == 0 else reversed(servers):
            seconds = wishes.seconds or SECONDS
            run = run_wrk(wrk, kind, server, seconds, wishes.directory, str(number))
            runs[server.name].append(run)
    return runs


def run_wrk(wrk: str, kind: Kind, server: Server, seconds: float, place: Path, mark: str) -> Run:
    """One run of wrk; `mark` is in the targets of this run alone, where they are unique."""
    command = [
        *pinned(1), wrk, "--threads", "1", "--connections", str(kind.connections),
        "--duration", f"{max(1, round(seconds))}s", "--latency",
    ]  # fmt: skip
    if kind.is_unique:
        script = place / "unique.lua"
        script.write_text(UNIQUE % f"{kind.target}/{mark}/")
        command += ["--script", str(script)]
    before = server.cpu_s()
    done = subprocess.run(
        [*command, server.url + kind.target], capture_output=True, text=True, check=True
    )
    used = server.cpu_s() - before
    load = read_wrk(done.stdout)
    return Run(load, 1e6 * used / max(1, load.requests), server.resident_bytes())


UNIQUE: Final = """\
local number = 0
function request()
  number = number + 1
  return wrk.format("GET", "%s" .. number)
end
"""


def _check_hit(server: Server, kind: Kind, report: Report) -> None:
    with urllib.request.urlopen(server.url + kind.target) as answer:
        status = answer.headers.get("Cache-Status", "")
        size = len(answer.read())
    if "hit" not in status.lower() or size not in (1024, MIB):
        report.fault(f"{server.name}: not a hit: {status!r}, {size} bytes")


def _tell(report: Report, runs: dict[str, list[Run]], rounds: int) -> None:
    heading = ("", "requests/s", "p50", "p99", "CPU µs/request", "resident MiB", "failed")
    report.say("  " + "".join(f"{word:>16}" for word in heading))
    for name, each in runs.items():
        failed = sum(run.load.failed for run in each)
        cells = (
            name,
            f"{median(run.load.per_s for run in each):.0f}",
            milliseconds(median(run.load.p50_s for run in each)),
            milliseconds(median(run.load.p99_s for run in each)),
            f"{median(run.cpu_us for run in each):.1f}",
            f"{max(run.resident_bytes for run in each) / MIB:.0f}",
            str(failed),
        )
        report.say("  " + "".join(f"{cell:>16}" for cell in cells))
        report.figures[name] = [asdict(run) for run in each]
        if failed:
            report.fault(f"{name}: {failed} requests failed")
    report.say(f"  medians of {rounds} rounds; resident: the largest")
    if len(runs) == 2:
        _compare(report, *runs.values())


def _compare(report: Report, ours: list[Run], theirs: list[Run]) -> None:
    measures = {
        "requests/s": ([r.load.per_s for r in ours], [r.load.per_s for r in theirs]),
        "p50": ([r.load.p50_s for r in ours], [r.load.p50_s for r in theirs]),
        "p99": ([r.load.p99_s for r in ours], [r.load.p99_s for r in theirs]),
        "CPU/request": ([r.cpu_us for r in ours], [r.cpu_us for r in theirs]),
    }
    for name, (mine, others) in measures.items():
        found = ratio(mine, others)
        said = "no ratio: one round tells of no spread" if found is None else str(found)
        report.say(f"  ours/nginx {name}: {said}")
        telling = found is not None and found.is_telling
        report.figures[f"ratio {name}"] = asdict(found) if found and telling else None
