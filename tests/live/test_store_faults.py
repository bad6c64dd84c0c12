"""The store under faults, on a real disk: never wrong, never an outage.

Bodies are made from their entry's name and version, so that whatever is found can be checked
without having been remembered.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edge.cache.disk import Disk
from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.cache.store import Store
from edge.errors import ExchangeError
from edge.wire.message import Headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from edge.cache.held import Held

pytestmark = pytest.mark.live

KIB, MIB = 1 << 10, 1 << 20
SIZES = (0, 700, 12 * KIB, 40 * KIB, 300 * KIB, 2 * MIB + 17)
ROUNDS = 5


def entry_of(number: int, version: int = 0, size: int | None = None) -> Entry:
    url = b"http://example.com/%d" % number
    length = SIZES[number % len(SIZES)] if size is None else size
    return Entry(
        key=Key(blake2b(url, digest_size=16).digest(), url),
        status=200,
        headers=Headers([(b"etag", b'"%d"' % version)]),
        times=Times(1000.0 + version, 1000.0 + version),
        date=1000.0,
        age_field=0,
        terms=Terms(600.0, Source.MAX_AGE),
        variant=(),
        length=length,
        fetched_at=Seq(0),
        keep_until=9e9,
    )


def body_of(entry: Entry) -> bytes:
    """The one right body for an entry."""
    etag = entry.headers.get(b"etag")
    assert etag is not None
    assert entry.length is not None
    seed = blake2b(entry.key.url + etag).digest()
    return (seed * (entry.length // len(seed) + 1))[: entry.length]


@asynccontextmanager
async def opened(
    directory: Path, log: list[str], quota_bytes: int = 1 << 30, floor: int = 0
) -> AsyncIterator[tuple[Disk, Store]]:
    disk = Disk(
        directory,
        birth="b" * 32,
        quota_bytes=quota_bytes,
        free_floor_bytes=floor,
        log=log.append,
    )
    await disk.open()
    try:
        yield disk, Store(256 * KIB, disk)
    finally:
        await disk.close()


async def fill(store: Store, entry: Entry) -> Held:
    """Store an entry as an exchange would."""
    held = store.begin(entry)
    assert held.fill is not None
    reader = store.open_nowait(held)
    assert reader is not None
    body, offset = body_of(entry), 0
    while offset < len(body):
        await held.fill.write(body[offset : offset + 60_000])
        while data := reader.read_nowait(offset, 60_000):
            offset += len(data)
    await store.commit(held)
    reader.close()
    return held


async def read(store: Store, held: Held) -> bytes | None:
    """The whole body, or None where it is found to be lost."""
    try:
        body = await store.open(held)
    except ExchangeError:
        return None
    got = bytearray()
    try:
        while data := await body.read(len(got), 65_536):
            got += data
    except ExchangeError:
        return None
    finally:
        body.close()
    return bytes(got)


async def count_right(store: Store, numbers: range) -> int:
    """How many are found whole; fails on one that is found wrong."""
    right = 0
    for number in numbers:
        for held in (await store.find(entry_of(number).key)).variants:
            got = await read(store, held)
            assert got is None or got == body_of(held.entry)
            right += got is not None
    return right


async def fill_many(directory: Path, log: list[str], count: int) -> None:
    async with opened(directory, log) as (disk, store):
        for number in range(count):
            await fill(store, entry_of(number))
        await disk.flush()
        assert await count_right(store, range(count)) == count


def body_files(directory: Path) -> list[Path]:
    return sorted(path for path in (directory / "bodies").rglob("*") if path.is_file())


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x40]))


def used_bytes(file_system: Path) -> int:
    """What the file system has given out: exact, as a walk over moving files is not."""
    found = os.statvfs(file_system)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def log() -> list[str]:
    return []


async def test_a_flipped_byte_in_any_body_file_is_found(directory: Path, log: list[str]) -> None:
    await fill_many(directory, log, 60)
    files = body_files(directory)
    for index, path in enumerate(files):
        flip(path, [0, path.stat().st_size - 1, path.stat().st_size // 2][index % 3])
    async with opened(directory, log) as (disk, store):
        assert await count_right(store, range(60)) == 60 - len(files)
        await disk.flush()
        assert disk.statistics().lost == len(files)
        assert await count_right(store, range(60)) == 60 - len(files)
        for number in range(60):
            await fill(store, entry_of(number))
        assert await count_right(store, range(60)) == 60


@pytest.mark.parametrize("fault", ["truncated", "emptied", "grown", "deleted"])
async def test_a_body_file_of_another_length_is_a_miss(
    directory: Path, log: list[str], fault: str
) -> None:
    await fill_many(directory, log, 30)
    files = body_files(directory)
    for path in files:
        size = path.stat().st_size
        if fault == "deleted":
            path.unlink()
        else:
            os.truncate(path, {"truncated": size - 1, "emptied": 0, "grown": size + 1}[fault])
    async with opened(directory, log) as (disk, store):
        assert await count_right(store, range(30)) == 30 - len(files)
        assert disk.statistics().lost == len(files)
    assert any("body lost" in line for line in log)


async def test_a_flipped_byte_anywhere_in_the_database_is_never_served(
    directory: Path, log: list[str]
) -> None:
    await fill_many(directory, log, 30)
    size = (directory / "cache.db").stat().st_size
    for at in range(17, size, max(1, size // 40)):
        flip(directory / "cache.db", at % (directory / "cache.db").stat().st_size)
        async with opened(directory, log) as (disk, store):
            await count_right(store, range(30))
            await fill(store, entry_of(1))
            await disk.flush()
            assert await count_right(store, range(1, 2)) == 1


@pytest.mark.parametrize("fault", ["junk", "empty", "short", "missing", "directory"])
async def test_a_broken_database_starts_in_time_and_stores_again(
    directory: Path, log: list[str], fault: str
) -> None:
    await fill_many(directory, log, 30)
    database = directory / "cache.db"
    match fault:
        case "junk":
            database.write_bytes(os.urandom(50_000))
        case "empty":
            database.write_bytes(b"")
        case "short":
            os.truncate(database, database.stat().st_size // 2 + 100)
        case "missing":
            database.unlink()
        case _:
            database.unlink()
            database.mkdir()
    before = time.monotonic()
    async with opened(directory, log) as (disk, store):
        assert time.monotonic() - before < 3
        await count_right(store, range(30))
        for number in range(30):
            await fill(store, entry_of(number))
        await disk.flush()
        assert await count_right(store, range(30)) == 30
    copies = [name for name in os.listdir(directory) if "broken" in name]
    assert len(copies) <= 3  # the database, its log and its index


async def test_a_database_that_rots_under_a_running_store_is_replaced(
    directory: Path, log: list[str]
) -> None:
    await fill_many(directory, log, 60)
    async with opened(directory, log) as (disk, store):
        await count_right(store, range(10))
        with (directory / "cache.db").open("r+b") as file:
            file.write(os.urandom(400_000))
        for _ in range(3):
            await count_right(store, range(60))
            for number in range(60):
                await fill(store, entry_of(number, 1))
            await disk.flush()
        assert await count_right(store, range(60)) == 60
    async with opened(directory, log) as (disk, store):
        assert await count_right(store, range(60)) == 60


class Planted:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path(self.mark),))


async def test_planted_pickles_are_not_run_and_planted_paths_not_read(
    directory: Path, log: list[str], tmp_path: Path
) -> None:
    await fill_many(directory, log, 30)
    mark, secret = tmp_path / "was-run", tmp_path / "secret"
    secret.write_bytes(body_of(entry_of(3)))
    planted = pickle.dumps(Planted(str(mark)))
    connection = sqlite3.connect(directory / "cache.db", isolation_level=None)
    connection.execute("UPDATE Cache SET mode = 4, value = ? WHERE rowid % 5 = 0", (planted,))
    connection.execute("UPDATE Cache SET raw = 0, key = ? WHERE rowid = 1", (planted,))
    connection.execute("UPDATE Cache SET filename = ? WHERE rowid % 5 = 4", (str(secret),))
    connection.execute("UPDATE Cache SET filename = '/etc/hostname', mode = 2 WHERE rowid = 2")
    connection.close()
    async with opened(directory, log) as (disk, store):
        assert 10 < await count_right(store, range(30)) < 25
        await disk.flush()
        for number in range(200):  # evict whatever is there, planted rows too
            await fill(store, entry_of(1000 + number, size=300 * KIB))
    assert not mark.exists()
    assert secret.exists()


async def test_files_that_no_row_names_are_gone_soon(directory: Path, log: list[str]) -> None:
    await fill_many(directory, log, 12)
    kept = body_files(directory)
    (directory / "clean").unlink()
    for number in range(3000):
        name = f"{number:064x}"
        folder = directory / "bodies" / name[:2]
        folder.mkdir(exist_ok=True)
        (folder / f"{name}-{'0' * 16}").write_bytes(b"orphan")
        (directory / "spool" / f"{number}").write_bytes(b"orphan")
    async with opened(directory, log) as (disk, store):
        with trio.fail_after(20):
            while body_files(directory) != kept or os.listdir(directory / "spool"):
                await disk.flush()
        assert await count_right(store, range(12)) == 12


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`mount(size)`: a file system of `size` bytes; skips where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()

    def mounted(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "edge-test", str(place)]
        if (
            os.geteuid() != 0
            or subprocess.run(command, check=False, capture_output=True).returncode
        ):
            pytest.skip("no tmpfs may be mounted here")
        return place

    yield mounted
    if place.is_mount():
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def small_disk(mount: Callable[[int], Path]) -> Path:
    return mount(16 * MIB)


async def test_a_full_disk_stores_nothing_serves_on_and_recovers(
    small_disk: Path, log: list[str]
) -> None:
    directory = small_disk / "store"
    async with opened(directory, log) as (disk, store):
        for number in range(30):
            await fill(store, entry_of(number, size=100 * KIB))
        await disk.flush()
        with (small_disk / "hog").open("wb", buffering=0) as hog:
            try:
                while hog.write(bytes(64 * KIB)):
                    pass
            except OSError:
                pass
        for round_ in range(3):
            assert await count_right(store, range(30)) == 30  # what is stored is served
            for number in range(100, 140):
                await fill(store, entry_of(number, size=100 * KIB + round_))
            await disk.flush()
            store.invalidate(entry_of(round_).key)
            assert await count_right(store, range(round_, round_ + 1)) == 0
            await fill(store, entry_of(round_, size=10))
            await trio.sleep(0.4)
        (small_disk / "hog").unlink()
        with trio.fail_after(10):
            while disk.statistics().is_shut or not await count_right(store, range(200, 201)):
                await fill(store, entry_of(200, size=100 * KIB))
                await disk.flush()
                await trio.sleep(0.1)
    async with opened(directory, log) as (disk, store):
        assert await count_right(store, range(200, 201)) == 1


async def test_a_disk_smaller_than_the_quota_keeps_turning_over(
    small_disk: Path, log: list[str]
) -> None:
    async with opened(small_disk / "store", log, 1 << 30, floor=4 * MIB) as (disk, store):
        for number in range(400):
            await fill(store, entry_of(number, size=100 * KIB))
            await disk.flush()
        assert await count_right(store, range(399, 400)) == 1
        assert disk.statistics().evicted > 100
        free = os.statvfs(small_disk)
        assert free.f_bavail * free.f_frsize > 2 * MIB


async def most_used(place: Path, work: Callable[[], Awaitable[None]]) -> int:
    """The most that is in use on a file system while `work` goes on, looked at all the time."""
    before, most = used_bytes(place), 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, used_bytes(place) - before)
            await trio.sleep(0.0005)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await work()
        nursery.cancel_scope.cancel()
    return max(most, used_bytes(place) - before)


async def test_the_quota_holds_on_the_disk_itself(
    mount: Callable[[int], Path], log: list[str]
) -> None:
    place, quota = mount(128 * MIB), 24 * MIB

    async def write(store: Store, first: int) -> None:
        for number in range(first, 240, 4):
            await fill(store, entry_of(number))

    async def work() -> None:
        async with opened(place / "store", log, quota) as (disk, store):
            async with trio.open_nursery() as writers:
                for first in range(4):
                    writers.start_soon(write, store, first)
            await disk.flush()
            assert disk.statistics().evicted > 0
            assert await count_right(store, range(240)) > 20

    most = await most_used(place, work)
    assert quota // 2 < most <= quota + MIB


async def test_the_quota_holds_when_one_large_body_displaces_many_small_ones(
    mount: Callable[[int], Path], log: list[str]
) -> None:
    place, quota = mount(128 * MIB), 24 * MIB

    async def work() -> None:
        async with opened(place / "store", log, quota) as (disk, store):
            for number in range(2500):
                await fill(store, entry_of(number, size=12 * KIB))
                if number % 100 == 0:
                    await disk.flush()
            await disk.flush()
            await fill(store, entry_of(9999, size=16 * MIB))
            await disk.flush()
            assert await count_right(store, range(9999, 10_000)) == 1

    most = await most_used(place, work)
    assert quota * 3 // 4 < most <= quota + MIB


CHILD = """
import sys, trio
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_store_faults import entry_of, fill, opened

async def main():
    async with opened(Path({directory!r}), [], {quota}) as (disk, store):
        print("ready", flush=True)
        version, first = int(sys.argv[1]), int(sys.argv[1]) * 50
        while True:
            for number in range(first, first + 50):
                await fill(store, entry_of(number, version))
            await disk.flush()
            print(first, flush=True)
            first += 25
            version += 1

trio.run(main)
"""


async def test_kill_9_at_any_moment_loses_only_what_was_being_written(
    directory: Path, log: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "child.py"
    child = CHILD.format(
        folder=str(Path(__file__).parent), directory=str(directory), quota=200 * MIB
    )
    script.write_text(child)
    for round_ in range(ROUNDS):
        process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
            [sys.executable, str(script), str(round_)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        told = process.stdout.readline()  # at least one flush was acknowledged
        await trio.sleep(0.03 + 0.13 * round_)
        process.send_signal(signal.SIGKILL)
        told = (told + process.stdout.read()).split()[-1]
        process.wait()
        process.stdout.close()
        before = time.monotonic()
        async with opened(directory, log, 200 * MIB) as (disk, store):
            assert time.monotonic() - before < 3
            last = int(told)
            assert await count_right(store, range(last, last + 50)) == 50
            await count_right(store, range(last + 200))
            assert disk.statistics().lost == 0
            for _ in range(300):  # the sweep goes on behind what is asked of the writer
                await disk.flush()
            assert os.listdir(directory / "spool") == []
            assert len(body_files(directory)) <= disk.statistics().rows
    assert not any("moved aside" in line for line in log)


async def test_without_descriptors_a_body_is_a_miss_and_stays_stored(
    directory: Path, log: list[str]
) -> None:
    await fill_many(directory, log, 12)
    async with opened(directory, log) as (disk, store):
        found = [await store.find(entry_of(number).key) for number in range(12)]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            got = [await read(store, held) for one in found for held in one.variants]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert None in got
        assert disk.statistics().lost == 0
        assert await count_right(store, range(12)) == 12
