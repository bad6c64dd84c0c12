"""What a hit costs, and what is held, once very many purges have been made.

In this process: whether an entry is still good, asked as the exchange asks it, in nanoseconds.
Then two nodes that answer the same hits in turn: one is left alone, in the other the purges are
made half-way, none of which covers what is asked for. The two differ by something before, too;
what the purges cost is how much more they differ after. Every purge is one of its own, with its
own number and its own record in the journal.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import trio

from edge.cache.entry import Seq
from edge.cache.held import Held
from edge.cache.journal import Journal
from edge.cache.purge import Manner
from edge.cache.scope import digest, packed, tag_name
from edge.serving.finding import judge
from tools.benchmark.admin import Admin, purge_tags
from tools.benchmark.catalogue import Shape
from tools.benchmark.loads import KINDS
from tools.benchmark.peers import start_origin
from tools.benchmark.report import MIB, Report, progress
from tools.benchmark.servers import Server, program, running, start_node
from tools.benchmark.stores import Maker
from tools.benchmark.throughput import WARM_S
from tools.benchmark.wrk import Run, run_wrk

if TYPE_CHECKING:
    from pathlib import Path

    from edge.cache.journal import Follower
    from tools.benchmark.report import Wishes

PURGES: Final = 100_000
PURGES_SHARE: Final = 10  # so many times fewer than objects, where those are few
ROUNDS: Final = 12
SECONDS: Final = 2.0
QUICK_SECONDS: Final = 1.0
SCOPES: Final = 8
LOOPS: Final = 100_000
REPEATS: Final = 7
WRITERS: Final = 64
APPENDED: Final = 1000  # purges whose records are measured: too few to be compacted
GOAL_US: Final = 2.0
BIRTH: Final = "0" * 32
KIND: Final = KINDS["hit-1k"]


def measure(wishes: Wishes, shape: Shape, report: Report) -> None:
    """Both parts."""
    count = min(PURGES, max(APPENDED, shape.objects // PURGES_SHARE))
    trio.run(_in_process, wishes.directory, count, report)
    _on_nodes(wishes, shape, count, report)


# --- in this process ----------------------------------------------------------


async def _in_process(place: Path, count: int, report: Report) -> None:
    directory = place / "journal"
    directory.mkdir()
    journal = Journal(directory, log=progress)
    await journal.open(BIRTH)
    await journal.begin(BIRTH)
    follower, held = journal.follower(), _held()
    figures: dict[str, float] = {}
    report.say(
        f"  nanoseconds of CPU to find out whether an entry of {SCOPES} scopes is still good"
    )
    figures["no purge, passed"] = _judge_ns(held, follower, Seq(0))
    await _purge(journal, 0, 1)
    figures["1 purge, not passed"] = _judge_ns(held, follower, Seq(0))
    per_record = await _append(journal)
    progress(f"{count:,} purges in this process")
    began = time.perf_counter()
    await _purge(journal, APPENDED, count)
    took = time.perf_counter() - began
    latest = follower.current().latest
    figures[f"{count:,} purges, passed"] = _judge_ns(held, follower, latest)
    figures[f"{count:,} purges, not passed"] = _judge_ns(held, follower, Seq(0))
    covered = Held(replace(held.entry, scopes=held.entry.scopes + digest(_name(count - 1))))
    figures[f"{count:,} purges, covered by the last"] = _judge_ns(covered, follower, Seq(0))
    for name, ns in figures.items():
        report.say(f"  {name:44}{ns:>8.0f} ns")
    more = figures[f"{count:,} purges, not passed"] - figures["no purge, passed"]
    report.goal("more for a lookup that has to probe", more / 1000, GOAL_US, "µs")
    await journal.close()
    report.figures["lookup_ns"] = figures
    report.figures["purges_per_s"] = (count - APPENDED) / took
    await _open_again(directory, count, per_record, report)


async def _append(journal: Journal) -> float:
    """Bytes that one purge takes in the journal's file."""
    before = journal.statistics().file_bytes
    await _purge(journal, 1, APPENDED)
    return (journal.statistics().file_bytes - before) / (APPENDED - 1)


async def _open_again(directory: Path, count: int, per_record: float, report: Report) -> None:
    """How long a node waits for the journal at start, and how large it is when compacted."""
    journal = Journal(directory, log=progress)
    began = time.perf_counter()
    if not await journal.open(BIRTH):
        report.fault("the journal could not be read again")
    took = time.perf_counter() - began
    per_scope = journal.statistics().opening_bytes / count
    await journal.close()
    report.say(
        f"  journal: {per_record:.0f} bytes a purge, {per_scope:.0f} once compacted; "
        f"read and compacted in {1000 * took:.0f} ms at start"
    )
    report.figures["journal"] = {
        "record_bytes": per_record,
        "compacted_bytes": per_scope,
        "open_s": took,
    }


def _held() -> Held:
    entry = Maker(time.time()).entry(Shape(1, 1).item(0))
    names = (tag_name(b"of-%d" % number) for number in range(SCOPES))
    return Held(replace(entry, scopes=packed(names)))


def _name(number: int) -> bytes:
    return tag_name(b"unused-%d" % number)


async def _purge(journal: Journal, start: int, stop: int) -> None:
    """Purge the tags of these numbers, each by itself."""
    numbers = iter(range(start, stop))

    async def work() -> None:
        for number in numbers:
            await journal.purge(
                digests=digest(_name(number)),
                everything=False,
                manner=Manner.HARD,
                who="uid 0",
                when=time.time(),
                words=(f"tag unused-{number}",),
                count=1,
            )

    async with trio.open_nursery() as nursery:
        for _ in range(WRITERS):
            nursery.start_soon(work)


def _judge_ns(held: Held, follower: Follower, passed: Seq) -> float:
    """Nanoseconds of CPU for a judgement of what has `passed` so many purges: a median."""
    current, took = follower.current, []
    for _ in range(REPEATS):
        start = time.thread_time_ns()
        for _ in repeat(None, LOOPS):
            held.passed = passed
            judge(held, current())
        between = time.thread_time_ns()
        for _ in repeat(None, LOOPS):
            held.passed = passed
        end = time.thread_time_ns()
        took.append((between - start - (end - between)) / LOOPS)
    return median(took)


# --- on nodes -----------------------------------------------------------------


@dataclass(slots=True)
class Pair:
    """The rounds of both nodes, before the purges or after."""

    alone: list[Run]
    purged: list[Run]

    @property
    def differences_us(self) -> list[float]:
        """How much more CPU a request took where purges are made, round by round."""
        rounds = zip(self.purged, self.alone, strict=True)
        return [mine.cpu_us - other.cpu_us for mine, other in rounds]


def _on_nodes(wishes: Wishes, shape: Shape, count: int, report: Report) -> None:
    wrk, place = program("wrk"), wishes.directory / "lookups"
    if wrk is None:
        report.fault("requests after purges not measured: wrk is missing")
        return
    seconds = wishes.seconds or (QUICK_SECONDS if shape.is_quick else SECONDS)
    with ExitStack() as stack:
        origin = stack.enter_context(running(start_origin(place / "origin")))
        alone = stack.enter_context(running(start_node(place / "alone", origin.url)))
        socket = place / "admin"
        options = ("--admin", str(socket))
        purged = start_node(place / "purged", origin.url, extra=options)
        stack.enter_context(running(purged))
        for server in (alone, purged):
            run_wrk(wrk, KIND, server, WARM_S, place, "warm")
        rounds = wishes.rounds or ROUNDS
        progress("hits before the purges")
        before = _rounds(wrk, alone, purged, rounds, seconds, place)
        memory = _purge_node(purged, socket, count)
        progress("hits after the purges")
        after = _rounds(wrk, alone, purged, rounds, seconds, place)
        memory += _purge_node(purged, socket, count, first=count)
        status = trio.run(_status, socket)
    _tell_load(before, after, count, report)
    _tell_memory(memory, count, status, report)


def _rounds(
    wrk: str, alone: Server, purged: Server, rounds: int, seconds: float, place: Path
) -> Pair:
    pair = Pair([], [])
    for number in range(rounds):
        turns = [(alone, pair.alone), (purged, pair.purged)]
        for server, runs in turns if number % 2 == 0 else reversed(turns):
            runs.append(run_wrk(wrk, KIND, server, seconds, place, ""))
    return pair


@dataclass(frozen=True, slots=True)
class Memory:
    """What a node held before some purges, and after."""

    before_bytes: int
    after_bytes: int
    took_s: float


def _purge_node(server: Server, socket: Path, count: int, first: int = 0) -> list[Memory]:
    """Purge so many tags that nothing has."""
    progress(f"{count:,} purges over the admin socket")
    before, began = server.resident_bytes(), time.perf_counter()
    tags = (f"unused-{number}" for number in range(first, first + count))
    trio.run(purge_tags, socket, tags)
    return [Memory(before, server.resident_bytes(), time.perf_counter() - began)]


async def _status(socket: Path) -> dict[str, Any]:
    admin = Admin(socket)
    status = await admin.status()
    await admin.close()
    return status


def _tell_load(before: Pair, after: Pair, count: int, report: Report) -> None:
    report.say(f"  CPU µs a 1 KiB hit, medians     before    after {count:,} purges in the second")
    for name in ("alone", "purged"):
        cells = "".join(
            f"{median(run.cpu_us for run in getattr(pair, name)):>11.1f}"
            for pair in (before, after)
        )
        title = "the node left alone" if name == "alone" else "the node that was purged"
        report.say(f"  {title:27}{cells}")
    old, new = before.differences_us, after.differences_us
    more, doubt = median(new) - median(old), math.hypot(doubt_of(old), doubt_of(new))
    report.say(f"  more a hit after the purges: {more:+.2f} µs, give or take {doubt:.2f}")
    if doubt <= GOAL_US:
        report.goal("more CPU a hit", more, GOAL_US, "µs")
    else:
        report.say("  the machine is too unsteady to hold that against the goal; see above")
    failed = sum(run.load.failed for pair in (before, after) for run in pair.alone + pair.purged)
    if failed:
        report.fault(f"{failed} requests failed")
    report.figures["hits"] = {
        "before": asdict(before),
        "after": asdict(after),
        "more_us": more,
        "doubt_us": doubt,
    }


def doubt_of(values: list[float]) -> float:
    """How far the median of `values` may be from that of many more: its standard error.

    By the median of the deviations, for values that are about normal but for some gross ones.
    """
    middle = median(values)
    deviation = 1.4826 * median(abs(value - middle) for value in values)
    return 1.2533 * deviation / math.sqrt(len(values))


def _tell_memory(memory: list[Memory], count: int, status: dict[str, Any], report: Report) -> None:
    start = memory[0].before_bytes
    for number, each in enumerate(memory, 1):
        total = number * count
        report.say(
            f"  {total:,} purges held: {(each.after_bytes - each.before_bytes) / count:.0f} bytes "
            f"of memory each for the last {count:,}, {(each.after_bytes - start) / total:.0f} "
            f"for all; made at {count / each.took_s:,.0f} a second"
        )
    told = status["purges"]
    report.say(
        f"  resident {memory[-1].after_bytes / MIB:.0f} MiB, {told['scopes']:,} scopes in the "
        f"tables, journal {told['journal']['file_bytes'] / MIB:.1f} MiB"
    )
    report.figures["memory"] = [asdict(each) for each in memory]
    report.figures["purges_status"] = told
    if told["scopes"] != len(memory) * count:
        report.fault(f"{told['scopes']} scopes are held after {len(memory) * count} purges")
