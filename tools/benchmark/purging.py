"""purge: how long until a purge is acknowledged, what is served then, and what purges cost later.

First two nodes, one with a million stored objects and one with ten thousand, are told to purge the
same kinds of things in turn. Behind each acknowledgement the origin must be asked for what was
purged, and for nothing else: a node that answers wrongly is a fault, one that is slow is not. What
is covered is told here by the names of objects, not by the node's own scopes. The object that a
name was taken from is asked for at once, others when all of a kind are done; half of them have
been asked for before, so that they are in memory as well as on disk.

Then come lookups (see `lookups`), and Varnish (see `bans`).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from tools.benchmark import bans, lookups
from tools.benchmark.admin import Admin, timed_purge
from tools.benchmark.catalogue import (
    KINDS,
    Item,
    Purged,
    Shape,
    number_in,
    sorted_out,
)
from tools.benchmark.figures import Unreadable, percentile
from tools.benchmark.plain import Broken, Client, Origin
from tools.benchmark.report import Report, progress
from tools.benchmark.servers import ROOT, NotReady, Server, running, start_node
from tools.benchmark.stores import SHARD, copied, disk_option, kept_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.benchmark.report import Wishes

OBJECTS: Final = 1_000_000
FEW_OBJECTS: Final = 10_000
TAGS_SHARE: Final = 10  # so many times fewer tags than objects
FEWEST_TAGS: Final = 20_000  # or the transactions would cover everything
SINGLE: Final = 200  # purges of each kind
QUICK_SINGLE: Final = 60
TRANSACTIONS: Final = 10  # more of them would cover nearly everything
TRANSACTION_TAGS: Final = 1000
LAST: Final = 50  # purges of everything
SAMPLE: Final = 100  # asked for behind each kind: so many purged, so many not
SEARCHED: Final = 200_000  # objects looked through for them
START_SAMPLE: Final = 200
SYNCS: Final = 60
COMMANDS: Final = 3
WATCH_S: Final = 5.0
GOAL_MS: Final = 10.0


def measure(wishes: Wishes) -> Report:
    """The scenario."""
    report = Report()
    objects = wishes.objects or OBJECTS
    shape = Shape(objects, wishes.tags or max(FEWEST_TAGS, objects // TAGS_SHARE))
    parts: tuple[Callable[[Wishes, Shape, Report], None], ...] = (
        _acknowledge,
        lookups.measure,
        bans.measure,
    )
    for part in parts:
        try:
            part(wishes, shape, report)
        except* (NotReady, Broken, subprocess.CalledProcessError, Unreadable) as group:
            report.fault(f"broken off: {first_of(group)}")
    return report


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of the exceptions themselves, however deep."""
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first


# --- until it is acknowledged -------------------------------------------------


@dataclass(slots=True)
class Subject:
    """One node with its store, what was purged from it, and how its answers were."""

    shape: Shape
    directory: Path
    origin: Origin
    server: Server
    client: Client
    chance: random.Random
    purged: Purged = field(default_factory=Purged)
    waits_s: dict[str, list[float]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)  # of purged objects, by kind
    kept: dict[str, int] = field(default_factory=dict)  # of others
    wrong: list[str] = field(default_factory=list)  # purged and served all the same
    lost: list[str] = field(default_factory=list)  # not purged and fetched all the same

    @property
    def socket(self) -> Path:
        """The admin socket."""
        return self.directory / "admin"

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"{self.shape.objects:,} objects"

    def some(self, count: int) -> list[Item]:
        """Objects by chance."""
        found = self.chance.choices(range(self.shape.objects), k=count)
        return [self.shape.item(number) for number in found]

    async def is_fetched(self, item: Item) -> bool:
        """Whether the origin is asked for an object; a wrong answer raises `Broken`."""
        before = self.origin.asked[item.target]
        answer = await self.client.get(item.target, item.host)
        fetched = self.origin.asked[item.target] > before
        if answer.status != 200 or answer.body not in (item.stored, item.fetched):
            raise Broken(f"{item.url}: {answer.status}, {answer.body[:40]!r}")
        if fetched and answer.body != item.fetched:
            self.wrong.append(item.url)
        return fetched

    async def check_purged(self, kind: str, items: list[Item]) -> None:
        """All of `items` have been purged since they were asked for last."""
        for item in items:
            if not await self.is_fetched(item):
                self.wrong.append(item.url)
        self.asked[kind] = self.asked.get(kind, 0) + len(items)

    async def check_kept(self, kind: str, items: list[Item]) -> None:
        """None of `items` was ever purged."""
        for item in items:
            if await self.is_fetched(item):
                self.lost.append(item.url)
        self.kept[kind] = self.kept.get(kind, 0) + len(items)


def _acknowledge(wishes: Wishes, shape: Shape, report: Report) -> None:
    few = Shape(min(FEW_OBJECTS, shape.objects // 2), shape.tags)
    directory = wishes.store or Path(tempfile.gettempdir()) / "edge-bench-stores"
    stores = []
    for each in (few, shape):
        place, told = kept_store(directory, each)
        size = (place / SHARD / "cache.db").stat().st_size
        report.say(
            f"  {each.objects:,} objects with {each.tags:,} tags, {size / each.objects:.0f} bytes "
            f"each, built in {told.build_s:.0f} s: {place}"
        )
        report.figures[f"store of {each.objects}"] = {"build_s": told.build_s, "bytes": size}
        stores.append((each, place))
    trio.run(_with_nodes, wishes.directory, stores, report)


async def _with_nodes(directory: Path, stores: list[tuple[Shape, Path]], report: Report) -> None:
    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            subjects = []
            for shape, place in stores:
                origin = Origin(partial(_respond, shape))
                await nursery.start(origin.run)
                here = directory / f"node-{shape.objects}"
                here.mkdir()
                copied(place, here / "store")
                began = time.perf_counter()
                options = ("--admin", str(here / "admin"), *disk_option(shape))
                server = stack.enter_context(running(start_node(here, origin.url, extra=options)))
                report.say(
                    f"  ready with {shape.objects:,} objects {time.perf_counter() - began:.2f} s "
                    "after the start"
                )
                client, chance = Client(server.port), random.Random(1)
                subjects.append(Subject(shape, here, origin, server, client, chance))
            await _all_kinds(subjects, report)
            nursery.cancel_scope.cancel()


async def _respond(shape: Shape, target: str, stream: trio.SocketStream) -> None:
    """The origin: every object, other than it was stored."""
    item = shape.item(number_in(target))
    fields = b"".join(b"%b: %b\r\n" % pair for pair in item.fields())
    await stream.send_all(b"HTTP/1.1 200 Fine\r\n%b\r\n%b" % (fields, item.fetched))


async def _all_kinds(subjects: list[Subject], report: Report) -> None:
    for subject in subjects:
        await subject.check_kept("start", subject.some(START_SAMPLE))
        if subject.lost:
            raise NotReady(
                f"{len(subject.lost)} of {START_SAMPLE} objects are not served from a store that "
                "was built for this: remove it, or name another --store"
            )
    for kind in KINDS:
        progress(f"purging by {kind}")
        single = QUICK_SINGLE if subjects[-1].shape.is_quick else SINGLE
        await _purge_kind(subjects, kind, single)
    progress(f"purging {TRANSACTION_TAGS} tags at once")
    await _purge_kind(subjects, "tag", TRANSACTIONS, TRANSACTION_TAGS)
    await _purge_by_command(subjects[-1], report)
    await _watch_reaper(subjects[-1], report)
    progress("purging everything")
    await _purge_everything(subjects)
    _tell(subjects, report)


def _label(kind: str, at_once: int) -> str:
    return kind if at_once == 1 else f"{at_once:,} tags at once"


async def _purge_kind(subjects: list[Subject], kind: str, count: int, at_once: int = 1) -> None:
    """Purge by `kind` so many times, the nodes in turn; then see what is left."""
    label = _label(kind, at_once)
    before = [Purged(names={k: set(v) for k, v in each.purged.names.items()}) for each in subjects]
    now = [Purged() for _ in subjects]
    for number in range(count):
        for subject, known in zip(subjects, now, strict=True):
            items = subject.some(at_once)
            if number % 2:
                await subject.is_fetched(items[0])  # so that it is in memory
            names = list(dict.fromkeys(item.scope(kind) for item in items))
            wait_s = await timed_purge(subject.socket, **{kind: names})
            subject.waits_s.setdefault(label, []).append(wait_s)
            known.add(kind, names)
            subject.purged.add(kind, names)
            await subject.check_purged(label, items[:1])
    for subject, known, old in zip(subjects, now, before, strict=True):
        await _look_around(subject, label, known, old)


async def _look_around(subject: Subject, label: str, now: Purged, before: Purged) -> None:
    """Ask for what the purges of one kind cover, and has not been asked for since, and others."""
    since = set(subject.origin.asked)
    found, others = sorted_out(_strewn(subject), now, before, SAMPLE)
    await subject.check_purged(label, [item for item in found if item.target not in since])
    await subject.check_kept(label, others)


def _strewn(subject: Subject) -> Iterator[Item]:
    """Many objects, each once, in no order."""
    count = subject.shape.objects
    numbers = subject.chance.sample(range(count), min(count, SEARCHED))
    return map(subject.shape.item, numbers)


async def _purge_everything(subjects: list[Subject]) -> None:
    for _ in range(LAST):
        for subject in subjects:
            item = subject.some(1)[0]
            await subject.is_fetched(item)
            wait_s = await timed_purge(subject.socket, all=True)
            subject.waits_s.setdefault("all", []).append(wait_s)
            subject.purged.add("all", ())
            await subject.check_purged("all", [item])
    for subject in subjects:
        since = set(subject.origin.asked)
        items = (item for item in _strewn(subject) if item.target not in since)
        await subject.check_purged("all", list(islice(items, SAMPLE)))


async def _purge_by_command(subject: Subject, report: Report) -> None:
    """The same transaction by `edge purge tag --file -`, a process of its own."""
    waits = []
    for _ in range(COMMANDS):
        items = subject.some(TRANSACTION_TAGS)
        names = [item.scope("tag") for item in items]
        began = time.perf_counter()
        said = await trio.to_thread.run_sync(_command, subject.socket, names)
        waits.append(time.perf_counter() - began)
        if said:
            report.fault(f"edge purge tag --file -: {said}")
        subject.purged.add("tag", names)
        await subject.check_purged("command", items[:1])
    best = 1000 * min(waits)
    report.say(
        f"  `edge purge tag --file -` of {TRANSACTION_TAGS:,} tags, as a command: {best:.0f} ms"
    )
    report.figures["command_s"] = waits


async def _watch_reaper(subject: Subject, report: Report) -> None:
    """What removing the dead from the disk takes of a processor while nobody asks for anything."""
    admin = Admin(subject.socket)
    before, cpu_s = (await admin.status())["purges"]["dead_on_disk"], subject.server.cpu_s()
    await trio.sleep(WATCH_S)
    after, used = (await admin.status())["purges"]["dead_on_disk"], subject.server.cpu_s() - cpu_s
    await admin.close()
    rows = max(0, after["looked_at"] - before["looked_at"])
    report.say(
        f"  sweeping {subject.name} while nobody asks for any: {used / WATCH_S:.1%} of a core, "
        f"{rows / WATCH_S:,.0f} a second"
    )
    report.figures["reaper"] = {"cpu": used / WATCH_S, "rows_per_s": rows / WATCH_S}


def _command(socket: Path, names: list[str]) -> str:
    command = [sys.executable, "-m", "edge", "purge", "tag", "--file", "-"]
    done = subprocess.run(
        [*command, "--socket", str(socket)],
        input="\n".join(names), capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else f"{done.returncode}: {done.stderr}"


# --- telling ------------------------------------------------------------------


def _tell(subjects: list[Subject], report: Report) -> None:
    report.say("  milliseconds until a purge was acknowledged: p50, p99, worst")
    titles = "".join(f"{each.name:>30}" for each in subjects)
    report.say(f"  {'':24}{'n':>5}{titles}")
    for label in subjects[0].waits_s:
        waits = [[1000 * wait for wait in each.waits_s[label]] for each in subjects]
        cells = "".join(f"{_spread(each):>30}" for each in waits)
        report.say(f"  {label:24}{len(waits[0]):>5}{cells}")
    _tell_syncs(subjects[-1].directory, report)
    every = [waits_s for subject in subjects for waits_s in subject.waits_s.values()]
    for share in (0.5, 0.99):
        worst = 1000 * max(percentile(waits_s, share) for waits_s in every)
        report.goal(f"the slowest kind's p{100 * share:.0f}", worst, GOAL_MS, "ms")
    for subject in subjects:
        report.figures[subject.name] = _figures(subject)
        asked, kept = sum(subject.asked.values()), sum(subject.kept.values())
        report.say(
            f"  {subject.name}: {asked} purged ones asked for, {len(subject.wrong)} not fetched; "
            f"{kept} others asked for, {len(subject.lost)} fetched"
        )
        if subject.wrong:
            report.fault(f"{len(subject.wrong)} served after a purge, such as {subject.wrong[0]}")
        if subject.lost:
            report.fault(f"{len(subject.lost)} lost without a purge, such as {subject.lost[0]}")


def _spread(waits_ms: list[float]) -> str:
    figures = (percentile(waits_ms, 0.5), percentile(waits_ms, 0.99), max(waits_ms))
    return "".join(f"{each:9.2f}" for each in figures)


def _figures(subject: Subject) -> dict[str, Any]:
    return {
        "waits_s": subject.waits_s,
        "purged_asked": subject.asked,
        "purged_served": len(subject.wrong),
        "others_asked": subject.kept,
        "others_fetched": len(subject.lost),
    }


def _tell_syncs(directory: Path, report: Report) -> None:
    """What of the wait is the disk's: a sync of a few bytes in a file that has its length."""
    file = os.open(directory / "sync", os.O_RDWR | os.O_CREAT, 0o600)
    took = []
    try:
        os.posix_fallocate(file, 0, 1 << 20)
        os.fsync(file)
        for number in range(SYNCS):
            began = time.perf_counter()
            os.pwrite(file, b"x" * 100, 100 * number)
            os.fdatasync(file)
            took.append(time.perf_counter() - began)
    finally:
        os.close(file)
    spread = _spread([1000 * each for each in took])
    report.say(f"  {'(one fdatasync alone)':24}{SYNCS:>5}{spread:>30}")
    report.figures["fdatasync_s"] = took
