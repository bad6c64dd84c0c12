"""restart: kill -9 a node under load whose store is full of objects, and start it again.

Every object's bytes follow from its name, so each answer is known to be right or wrong. After the
kill the origin answers nothing but 503: what then comes back complete came from the store. Objects
count as lost only if their answer was complete before the kill.
"""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from tools.benchmark.plain import Answer, Broken, Client, Origin, content, head
from tools.benchmark.report import MIB, Report
from tools.benchmark.servers import Server, free_port, start_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tools.benchmark.report import Wishes

OBJECTS: Final = 100_000
SECONDS: Final = 3.0  # of load after the filling, until the kill
CLIENTS: Final = 32
LARGE_EVERY: Final = 50
LARGE_BYTES: Final = 100 * 1024
RECLAIM_S: Final = 60.0
UNFINISHED: Final = 8  # bodies that are being written when the node is killed: orphans for sure
UNFINISHED_BYTES: Final = 4 * MIB
GOAL_READY_S: Final = 2.0
GOAL_LOST: Final = 0.01
MEMORY: Final = ("--memory", "64MiB")
ROOM_BYTES: Final = 16 * 1024  # for each object, more than twice of what it takes
LEAST_ROOM: Final = 10 * 1024 * MIB


def size_of(number: int) -> int:
    """The size of one object in bytes: 1 to 8 KiB, and of one in fifty 100 KiB."""
    if number % LARGE_EVERY == 0:
        return LARGE_BYTES
    return 1024 + random.Random(number).randrange(7 * 1024)


def body_of(target: str) -> bytes:
    """The right bytes of /o/N."""
    return content(target, size_of(int(target.rpartition("/")[2])))


@dataclass(slots=True)
class Story:
    """What happened to each object, by target."""

    complete: dict[str, float] = field(default_factory=dict)  # when, by trio's clock
    usable: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    is_closed: bool = False

    async def respond(self, target: str, stream: trio.SocketStream) -> None:
        """The origin."""
        if self.is_closed:
            await stream.send_all(head(0, status=503, lifetime_s=0))
        elif target.startswith("/unfinished/"):
            body = content(target, UNFINISHED_BYTES)
            await stream.send_all(head(len(body)) + body[: len(body) * 3 // 4])
            await trio.sleep_forever()
        else:
            body = body_of(target)
            await stream.send_all(head(len(body)) + body)


def measure(wishes: Wishes) -> Report:
    """The scenario."""
    report = Report()
    for number in range(wishes.rounds or 1):
        trio.run(_measure, wishes, report, wishes.directory / str(number))
    return report


async def _measure(wishes: Wishes, report: Report, place: Path) -> None:
    story, count = Story(), wishes.objects or OBJECTS
    origin = Origin(story.respond)
    async with trio.open_nursery() as nursery:
        await nursery.start(origin.run)
        began, port = time.perf_counter(), free_port()
        extra = (*MEMORY, "--disk", f"{max(LEAST_ROOM, ROOM_BYTES * count) // MIB}MiB")
        server = start_node(place, origin.url, port=port, extra=extra)
        try:
            empty_s = time.perf_counter() - began
            await _fill(server, story, report, count)
            killed = await _load_and_kill(server, story, count, wishes.seconds or SECONDS)
            story.is_closed = True
            shard = place / "store" / "shard-0"
            files = _files(shard)
            began = time.perf_counter()
            server = start_node(place, origin.url, port=port, extra=extra)
            ready_s = time.perf_counter() - began
            report.say(f"  ready {empty_s:.2f} s after the start with an empty store")
            report.goal("ready after kill -9", ready_s, GOAL_READY_S, "s")
            report.figures |= {"ready_s": ready_s, "ready_empty_s": empty_s}
            await _count_orphans(shard, files, report)
            await _look_again(server, story)
            _tell(report, story, killed)
        finally:
            server.stop()
        nursery.cancel_scope.cancel()


async def _with_clients(
    port: int, targets: Iterator[str], use: Callable[[str, Answer | None], None]
) -> None:
    """Ask for all of `targets` over many connections; None is an answer that was not whole."""

    async def ask() -> None:
        client = Client(port)
        for target in targets:
            try:
                use(target, await client.get(target))
            except Broken:
                use(target, None)
        await client.close()

    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(ask)


async def _fill(server: Server, story: Story, report: Report, count: int) -> None:
    def use(target: str, answer: Answer | None) -> None:
        if answer is None or answer.status != 200 or answer.body != body_of(target):
            report.fault(f"filling: {target}: {answer.status if answer else 'broken'}")
        else:
            story.complete[target] = trio.current_time()

    began, cpu_s = time.perf_counter(), server.cpu_s()
    await _with_clients(server.port, (f"/o/{number}" for number in range(count)), use)
    took, used = time.perf_counter() - began, server.cpu_s() - cpu_s
    report.say(
        f"  {count} objects filled in {took:.0f} s, {1e6 * used / count:.0f} µs of CPU each; "
        f"resident {server.resident_bytes() / MIB:.0f} MiB"
    )
    report.figures |= {"objects": count, "fill_s": took, "fill_cpu_us": 1e6 * used / count}


async def _load_and_kill(server: Server, story: Story, count: int, seconds: float) -> float:
    """Hits and misses for a while, then kill -9 in the midst of them; when that was."""
    until, killed = trio.current_time() + seconds, 0.0

    def targets() -> Iterator[str]:
        chance, fresh = random.Random(1), count
        while not killed:
            fresh += 1
            yield f"/o/{fresh if chance.random() < 0.5 else chance.randrange(count)}"

    def use(target: str, answer: Answer | None) -> None:
        if answer is not None and answer.status == 200:
            story.complete.setdefault(target, trio.current_time())

    async def kill() -> None:
        nonlocal killed
        await trio.sleep_until(until)
        await trio.to_thread.run_sync(server.kill)
        killed = trio.current_time()

    async def leave_unfinished(number: int) -> None:
        with suppress(Broken):
            await Client(server.port).get(f"/unfinished/{number}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        for number in range(UNFINISHED):
            nursery.start_soon(leave_unfinished, number)
        await _with_clients(server.port, targets(), use)
    return killed


async def _look_again(server: Server, story: Story) -> None:
    def use(target: str, answer: Answer | None) -> None:
        if answer is None:
            story.broken.append(target)
        elif answer.status != 200:
            story.lost.append(target)
        elif answer.body != body_of(target):
            story.wrong.append(target)
        else:
            story.usable += 1

    await _with_clients(server.port, iter(list(story.complete)), use)


def _files(shard: Path) -> set[str]:
    """Bodies and spools, relative to the shard."""
    found = [*shard.glob("bodies/*/*"), *shard.glob("spool/*")]
    return {str(path.relative_to(shard)) for path in found}


def _named(shard: Path) -> set[str]:
    """The files that rows name."""
    with sqlite3.connect(f"file:{shard}/cache.db?mode=ro", uri=True) as database:
        rows = database.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")
        return {str(name) for (name,) in rows}


async def _count_orphans(shard: Path, before: set[str], report: Report) -> None:
    """Wait until no file is left that no row names; nothing is stored meanwhile."""
    began = time.perf_counter()
    left = _files(shard) - _named(shard)
    while left and time.perf_counter() - began < RECLAIM_S:
        await trio.sleep(0.1)
        left = _files(shard) - _named(shard)
    took, gone = time.perf_counter() - began, len(before - _files(shard))
    report.say(
        f"  {gone} of {len(before)} files reclaimed, none left after {took:.1f} s of running"
    )
    report.figures |= {"files": len(before), "reclaimed": gone, "reclaimed_s": took}
    if left:
        report.fault(f"{len(left)} orphans left after {RECLAIM_S:.0f} s, such as {min(left)}")


def _tell(report: Report, story: Story, killed: float) -> None:
    total, gone = len(story.complete), len(story.lost) + len(story.broken)
    report.say(f"  {story.usable} of {total} complete objects usable ({story.usable / total:.4%})")
    report.goal("lost", gone / total, GOAL_LOST, "of all")
    ages = [killed - story.complete[target] for target in story.lost]
    if ages:
        report.say(
            f"  lost ones were complete {min(ages):.3f} to {max(ages):.3f} s before the kill"
        )
    report.figures |= {
        "complete": total,
        "usable": story.usable,
        "lost": len(story.lost),
        "broken": len(story.broken),
        "wrong": len(story.wrong),
    }
    if story.wrong or story.broken:
        report.fault(f"{len(story.wrong)} wrong answers, {len(story.broken)} broken off")
