"""The rows of the fault table that hurt the store and the process: kills, power, disks.

A row is a function of a `Stage` that does the damage under load and gives back what it saw. What
hurts from the network is in `fault_rows_network`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.live.fault_load import Load, Tally, check_all, popular, respond
from tests.live.hostile_harness import SOCKETS, Node, Origin, is_plainly_served, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOOL_SETS = ("store.memory=1MiB", "store.free_floor=1MiB", "timeouts.linger=200ms")


@dataclass
class Row:
    """One line of the table."""

    fault: str
    tally: Tally = field(default_factory=Tally)
    demands: list[tuple[str, bool]] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0

    def demand(self, what: str, is_met: bool) -> None:
        self.demands.append((what, is_met))

    @property
    def passed(self) -> bool:
        return not self.tally.wrong and all(is_met for _, is_met in self.demands)


@dataclass
class Stage:
    """Where a row plays: a directory of its own, and how thorough to be."""

    directory: Path
    quick: bool = False
    say: Callable[[str], None] = lambda text: None

    def node(self, origin: Origin, *sets: str, **more: object) -> Node:
        arguments = {"sets": (*TOOL_SETS, *sets), **more}
        return Node(self.directory / "node", origin.url, **arguments)  # type: ignore[arg-type]


def orphans_of(shards: list[Path]) -> int:
    """Files that no row names."""
    return sum(map(_orphans_of, shards))


def _orphans_of(shard: Path) -> int:
    spools = len(list((shard / "spool").glob("*")))
    named = {name for (name,) in rows_of(shard, "SELECT filename FROM Cache")}
    bodies = [path for path in (shard / "bodies").rglob("*") if path.is_file()]
    return spools + sum(str(path.relative_to(shard)) not in named for path in bodies)


def rows_of(shard: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"file:{shard}/cache.db?mode=ro", uri=True) as database:
        rows = database.execute(query).fetchall()
    database.close()
    return rows


def kill_worker(stage: Stage) -> Row:
    """kill -9 of one worker after the other under load, its mates at work."""
    times = 10 if stage.quick else 100
    row = Row(f"kill -9 of a worker, {times} times")
    kept, slowest = popular(), 0.0
    with Origin(respond) as origin, stage.node(origin) as node:
        row.tally.add(check_all(node.port, kept))
        with Load(node.port) as load:
            for number in range(times):
                time.sleep(0.1 + 0.3 * random.Random(number).random())
                workers = [worker["pid"] for worker in node.status()["workers"]]
                os.kill(workers[number % len(workers)], signal.SIGKILL)
                began = time.monotonic()
                is_served = wait_until(lambda: is_plainly_served(node.port), 5)
                slowest = max(slowest, time.monotonic() - began if is_served else 5.0)
                stage.say(f"kill {number + 1} of {times}")
        in_flight = load.tally.lost + load.tally.failed
        answered = set(load.tally.statuses)
        row.tally.add(load.tally)
        row.tally.add(check_all(node.port, kept))
        is_swept = wait_until(lambda: not orphans_of(node.shards), 15 if stage.quick else 60)
        row.demand(f"next 200 after {slowest:.2f} s at most (1 s)", slowest < 1)
        row.demand(f"{in_flight} lost in flight (at most 8 a kill)", in_flight <= 8 * times)
        row.demand("no answer tells of trouble", answered == {200})
        row.demand("no orphans", is_swept)
        row.demand("the node lives", node.is_running())
    return row


def kill_node(stage: Stage) -> Row:
    """kill -9 of the node under load, again and again."""
    times = 5 if stage.quick else 50
    row = Row(f"kill -9 of the node, {times} times")
    kept, slowest, usable = popular(), 0.0, 1.0
    with Origin(respond) as origin, stage.node(origin) as node:
        port = node.port
        row.tally.add(check_all(port, kept))
        time.sleep(0.5)
        with Load(port) as load:
            for number in range(times):
                time.sleep(0.3 + random.Random(number).random())
                node.kill()
                node.start()
                slowest = max(slowest, node.ready_s)
                origin.clear()
                again = check_all(port, kept)
                usable = min(usable, again.hits / len(kept))
                row.tally.add(again)
                stage.say(f"kill {number + 1} of {times}: ready in {node.ready_s:.2f} s")
        in_flight = load.tally.lost
        row.tally.add(load.tally)
        is_swept = wait_until(lambda: not orphans_of(node.shards), 15 if stage.quick else 60)
        row.demand(f"ready in {slowest:.2f} s (3 s)", slowest < 3)
        row.demand(f"{usable:.1%} of complete objects usable (99 %)", usable >= 0.99)
        row.demand(f"{in_flight} lost in flight (at most 8 a kill)", in_flight <= 8 * times)
        row.demand("no orphans", is_swept)
    return row


def power_loss(stage: Stage) -> Row:
    """The directory as it was at one moment, less what had not reached the disk."""
    times = 3 if stage.quick else 20
    row = Row(f"power loss, {times} times")
    kept, slowest = popular(120), 0.0
    with Origin(respond) as origin, stage.node(origin) as node:
        row.tally.add(check_all(node.port, kept))
        for number in range(times):
            copy = stage.directory / f"copy-{number}"
            with Load(node.port) as load:
                time.sleep(1)
                node.signal(signal.SIGSTOP)
                shutil.copytree(node.store, copy / "store", ignore=SOCKETS)
                node.signal(signal.SIGCONT)
            row.tally.add(load.tally)
            for shard in (copy / "store").glob("shard-*"):
                _lose_tails(shard, random.Random(number))
            with Node(copy, origin.url, sets=TOOL_SETS) as survivor:
                slowest = max(slowest, survivor.ready_s)
                row.tally.add(check_all(survivor.port, kept))
                with Load(survivor.port) as load:
                    time.sleep(0.5)
                row.tally.add(load.tally)
            shutil.rmtree(copy)
            stage.say(f"loss {number + 1} of {times}")
    row.demand(f"starts, in {slowest:.2f} s", slowest < 3)
    row.demand("no client error", not row.tally.failed + row.tally.lost)
    return row


def _lose_tails(shard: Path, rng: random.Random) -> None:
    """What ext4 leaves of files that were never synced: short, or full of zeros; or nothing."""
    wal = shard / "cache.db-wal"
    if wal.exists():
        os.truncate(wal, rng.randrange(wal.stat().st_size + 1) & ~4095)
    (shard / "cache.db-shm").unlink(missing_ok=True)
    for path in [path for path in (shard / "bodies").rglob("*") if path.is_file()]:
        size, fate = path.stat().st_size, rng.random()
        if fate < 0.2:
            path.unlink()
        elif fate < 0.5:
            os.truncate(path, rng.randrange(size) & ~4095)
            if fate < 0.35:
                os.truncate(path, size)


def disk_full(stage: Stage) -> Row:
    """No room left on the file system, under load; then room again."""
    row = Row("disk full")
    place = stage.directory / "small"
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "edge-faults", str(place)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        row.skipped = "no tmpfs may be mounted here"
        return row
    try:
        with Origin(respond) as origin:
            sets = "store.disk=1GiB"
            with stage.node(origin, sets, store=place / "store") as node:
                _fill_up_under_load(node, place, row)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
    return row


def _fill_up_under_load(node: Node, place: Path, row: Row) -> None:
    def disk() -> dict[str, int]:
        found: dict[str, int] = node.status()["store"]["disk"]
        return found

    row.tally.add(check_all(node.port, popular()))
    with Load(node.port) as load:
        time.sleep(1)
        with (place / "hog").open("wb", buffering=0) as hog:
            for _ in range(20):
                _write_until_full(hog.fileno())
                time.sleep(0.1)
        was_shut = disk()["is_shut"]
        (place / "hog").unlink()
        recovers = wait_until(lambda: not disk()["is_shut"], 15)
        saved = disk()["saved"]
        stores = wait_until(lambda: disk()["saved"] > saved, 5)
    row.tally.add(load.tally)
    row.demand(f"no client error ({load.tally.failed + load.tally.lost})",
               not load.tally.failed + load.tally.lost)  # fmt: skip
    row.demand("stores nothing while it is full" if was_shut else "makes room", True)
    row.demand("recovers by itself", recovers and stores)


def _write_until_full(descriptor: int) -> None:
    try:
        while os.write(descriptor, bytes(65_536)):
            pass
    except OSError:
        pass


def rot(stage: Stage) -> Row:
    """Stored bodies with a byte flipped, cut short, or gone."""
    row = Row("flipped byte, truncated, deleted")
    kept = popular()
    with Origin(respond) as origin, stage.node(origin) as node:
        row.tally.add(check_all(node.port, kept))
        node.stop()
        places = [path for shard in node.shards for path in (shard / "bodies").rglob("*")]
        bodies = sorted(path for path in places if path.is_file())
        rng = random.Random(1)
        for number, path in enumerate(bodies):
            size = path.stat().st_size
            if number % 3 == 0:
                with path.open("r+b") as file:
                    file.seek(rng.randrange(size))
                    byte = file.read(1)
                    file.seek(-1, 1)
                    file.write(bytes([byte[0] ^ (1 << rng.randrange(8))]))
            elif number % 3 == 1:
                os.truncate(path, rng.randrange(size))
            else:
                path.unlink()
        origin.clear()
        node.start()
        found = check_all(node.port, kept)
        row.tally.add(found)
        asked, lost = len(origin.asked), node.status()["store"]["disk"]["lost"]
        row.demand(f"{len(bodies)} hurt, {asked} fetched again", asked == len(bodies) > 0)
        row.demand(f"{lost} counted", lost == len(bodies))
        row.demand("no client error", not found.failed + found.lost)
        with Load(node.port) as load:
            time.sleep(1)
        row.tally.add(load.tally)
    return row


def _zeros(path: Path, start: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(size))


def _replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BAD_INDEXES: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(random.Random(1).randbytes(100_000)),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "header zeroed": lambda path: _zeros(path, 0, 100),
    "pages zeroed": lambda path: _zeros(path, 4096, path.stat().st_size // 2),
    "a directory": _replace_by_directory,
}


def bad_index(stage: Stage) -> Row:
    """A database that is corrupt, of something else, or gone."""
    row = Row("corrupt or missing index")
    kept, slowest, silent = popular(100), 0.0, []
    with Origin(respond) as origin, stage.node(origin) as node:
        row.tally.add(check_all(node.port, kept))
        node.stop()
        good = stage.directory / "good"
        shutil.copytree(node.store, good, ignore=SOCKETS)
        for name, hurt in BAD_INDEXES.items():
            shutil.rmtree(node.store)
            shutil.copytree(good, node.store)
            for shard in node.shards:
                hurt(shard / "cache.db")
            said = len(node.complaints())
            node.start()
            slowest = max(slowest, node.ready_s)
            for _ in range(2):
                found = check_all(node.port, kept)
                row.tally.add(found)
            row.demand(f"{name}: stores again", found.hits == len(kept))
            node.stop()
            if len(node.complaints()) == said and name not in ("missing", "empty"):
                silent.append(name)
            stage.say(name)
    row.demand(f"starts in {slowest:.2f} s (3 s)", slowest < 3)
    row.demand("says so" + (f"; silent: {silent}" if silent else ""), not silent)
    return row


class _Bomb:
    """What a planted pickle would do: make a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self._path,)


def _plant(path: Path, bomb: bytes, secret: Path) -> None:
    """Put a pickle into every fourth row of a database, and names outside into two more."""
    with sqlite3.connect(path) as database:
        change = "UPDATE Cache SET "
        database.execute(change + "mode = 4, value = ? WHERE rowid % 4 = 0", (bomb,))
        database.execute(
            change + "filename = ? WHERE filename NOT NULL AND rowid % 4 = 1", (str(secret),)
        )
        name = "bodies/../../../secret"
        database.execute(
            change + "filename = ? WHERE filename NOT NULL AND rowid % 4 = 2", (name,)
        )
        database.execute(
            "INSERT INTO Cache (key, raw, mode, value) VALUES (?, 0, 4, ?)", (bomb, bomb)
        )
        database.execute(
            "INSERT OR REPLACE INTO Settings VALUES ('disk_pickle_protocol', ?)", (bomb,)
        )
    database.close()


def planted(stage: Stage) -> Row:
    """Rows that would be unpickled, or that name a file outside."""
    import pickle

    row = Row("planted pickle, planted absolute file name")
    kept = popular(100)
    flag, secret = stage.directory / "flag", stage.directory / "secret"
    stage.directory.mkdir(parents=True, exist_ok=True)
    secret.write_bytes(b"secret" * 10_000)
    bomb = pickle.dumps(_Bomb(str(flag)))
    with Origin(respond) as origin, stage.node(origin) as node:
        row.tally.add(check_all(node.port, kept))
        node.stop()
        for shard in node.shards:
            _plant(shard / "cache.db", bomb, secret)
        for _ in range(2):
            node.start()
            found = check_all(node.port, kept)
            row.tally.add(found)
            node.stop()
        row.demand("nothing runs", not flag.exists())
        row.demand("nothing outside is read or removed", secret.exists())
        row.demand("no client error", not row.tally.failed + row.tally.lost)
    return row


def clock(stage: Stage) -> Row:
    """The system's clock stepped under load, for this process alone."""
    row = Row("clock steps of an hour, three days, and back")
    stage.directory.mkdir(parents=True, exist_ok=True)
    offset = stage.directory / "offset"
    offset.write_text("0")
    (stage.directory / "sitecustomize.py").write_text(SHIFTED_CLOCK)
    environment = {"PYTHONPATH": str(stage.directory), "CLOCK_OFFSET": str(offset)}
    kept = popular(100)
    with Origin(respond) as origin, stage.node(origin, environment=environment) as node:
        row.tally.add(check_all(node.port, kept))
        began = time.time()
        for step in (3600, -3600, 3 * 86_400, -3 * 86_400, 0):
            offset.write_text(str(step))
            with Load(node.port) as load:
                time.sleep(1)
            row.tally.add(load.tally)
            origin.clear()
            found = check_all(node.port, kept)
            row.tally.add(found)
            row.demand(f"{step:+} s: all still hits", found.hits == len(kept))
            age = float(node.get(kept[0], host="load.example").field("age") or "nan")
            row.demand(f"age {age:g}", -1 <= age <= time.time() - began + 2)
            stage.say(f"{step:+} s")
        node.stop()
        offset.write_text("-3600")
        node.start()
        found = check_all(node.port, kept)
        row.tally.add(found)
        age = float(node.get(kept[0], host="load.example").field("age") or "nan")
        row.demand(f"started an hour early: age {age:g}", age >= 0)
    return row


SHIFTED_CLOCK = """
import os, time
def _shift(real, unit):
    def now():
        with open(os.environ["CLOCK_OFFSET"]) as file:
            return real() + type(real())(float(file.read() or 0) * unit)
    return now
time.time = _shift(time.time, 1)
time.time_ns = _shift(time.time_ns, 10**9)
"""
