"""The table of a load scenario: what was measured, and how ours stands to each peer's; pure."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from tools.benchmark.figures import Ratio, ratio
from tools.benchmark.report import MIB, Report, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tools.benchmark.loads import Goal
    from tools.benchmark.wrk import Run

MEASURES: Final[dict[str, Callable[[Run], float]]] = {
    "requests/s": lambda run: run.load.per_s,
    "p50": lambda run: run.load.p50_s,
    "p99": lambda run: run.load.p99_s,
    "CPU/request": lambda run: run.cpu_us,
    "memory": lambda run: float(run.resident_bytes),
}
_CELLS: Final[dict[str, Callable[[float], str]]] = {
    "requests/s": lambda value: f"{value:,.0f}",
    "p50": milliseconds,
    "p99": milliseconds,
    "CPU/request": lambda value: f"{value:.1f} µs",
    "memory": lambda value: f"{value / MIB:.1f} MiB",
}
NAME_WIDTH: Final = 16
WIDTH: Final = 20


def tell(report: Report, runs: dict[str, list[Run]], goals: Sequence[Goal] = ()) -> None:
    """Say the table of `runs`, ours first, round by round; broken answers are faults."""
    rounds = len(next(iter(runs.values())))
    _row(report, "", [*MEASURES, "failed"])
    for name, each in runs.items():
        failed = sum(run.load.failed for run in each)
        cells = [_CELLS[key](median(map(of, each))) for key, of in MEASURES.items()]
        _row(report, name, [*cells, str(failed)])
        if failed:
            report.fault(f"{name}: {failed} requests failed")
    report.figures["runs"] = {name: [asdict(run) for run in each] for name, each in runs.items()}
    report.say(
        f"  medians of {rounds} rounds; CPU is user and system of all of a server's processes"
    )
    if len(runs) > 1:
        _tell_ratios(report, runs, goals)


def _tell_ratios(report: Report, runs: dict[str, list[Run]], goals: Sequence[Goal]) -> None:
    ours, *peers = runs
    _row(report, f"{ours} by", [*MEASURES])
    told: dict[str, dict[str, Any]] = {}
    for peer in peers:
        found = {
            key: ratio([of(run) for run in runs[ours]], [of(run) for run in runs[peer]])
            for key, of in MEASURES.items()
        }
        _row(report, peer, [cell(each) for each in found.values()])
        told[peer] = {
            key: asdict(each) if each and each.is_telling else None for key, each in found.items()
        }
        for goal in goals:
            if peer in goal.peers:
                report.say(f"  {goal.measure} by {peer}'s: {verdict(goal, found[goal.measure])}")
    report.figures["ratios"] = told


def _row(report: Report, name: str, cells: Sequence[str]) -> None:
    report.say(f"  {name:{NAME_WIDTH}}" + "".join(f"{each:>{WIDTH}}" for each in cells))


def cell(found: Ratio | None) -> str:
    """A ratio with its extremes, where the rounds agree on it; else only that there is none."""
    if found is None:
        return "one round, no ratio"
    extremes = f"{found.least:.3g}–{found.most:.3g}"
    return f"{found.middle:.3g} ({extremes})" if found.is_telling else f"noise ({extremes})"


def verdict(goal: Goal, found: Ratio | None) -> str:
    """Whether a goal is met: by all rounds, by none, or not to be told from these."""
    asked = f"{'at least' if goal.is_least else 'at most'} {goal.bound:g}"
    if found is None:
        return f"{asked}: not to be told from one round"
    met = [
        value >= goal.bound if goal.is_least else value <= goal.bound
        for value in (found.least, found.most)
    ]
    if all(met):
        return f"{asked}: goal met"
    if any(met):
        return f"{asked}: rounds on both sides of the goal"
    return f"{asked}: GOAL MISSED"
