"""The disk tier from outside: what is saved is found, what fails is a miss."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.cache.body import SpoolFull
from edge.cache.disk import Disk
from edge.cache.diskbody import BodyLost
from edge.cache.home import NotAStore, StoreBusy
from edge.cache.integrity import BLOCK_BYTES, checks_of
from edge.cache.packing import row_key
from edge.cache.threads import Inline, Threads
from tests.unit.cache.conftest import BIRTH_ID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.cache.body import Body
    from edge.cache.entry import Entry
    from edge.cache.packing import StoredRow
    from edge.cache.threads import MakeWorkers
    from tests.unit.cache.conftest import Clock, MakeEntry, OpenDisk

MIB = 1 << 20
LARGE = os.urandom(BLOCK_BYTES * 5 + 3)


async def read_all(body: Body) -> bytes:
    got = bytearray()
    while data := await body.read(len(got), 65_536):
        got += data
    body.close()
    return bytes(got)


async def body_of(disk: Disk, entry: Entry) -> bytes | None:
    for row in await disk.load(entry.key.digest):
        if row.key == row_key(entry):
            return await read_all(await disk.body(row))
    return None


@pytest.mark.parametrize("io", [Inline, Threads])
@pytest.mark.parametrize("size", [0, 5, 16_384, 16_385, len(LARGE)])
async def test_what_is_saved_is_found_with_its_body(
    open_disk: OpenDisk, make_entry: MakeEntry, io: MakeWorkers, size: int
) -> None:
    entry = make_entry(length=size)
    async with open_disk(io=io) as disk:
        disk.save(entry, LARGE[:size])
        assert await body_of(disk, entry) == LARGE[:size]


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_a_restart_keeps_everything(
    open_disk: OpenDisk, make_entry: MakeEntry, io: MakeWorkers
) -> None:
    small, large = make_entry(b"s", 5), make_entry(b"l", len(LARGE))
    async with open_disk(io=io) as disk:
        disk.save(small, b"hello")
        disk.save(large, LARGE)
    async with open_disk(io=io) as disk:
        assert await body_of(disk, small) == b"hello"
        assert await body_of(disk, large) == LARGE


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_a_spooled_body_is_renamed_and_not_copied(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, io: MakeWorkers
) -> None:
    entry = make_entry(length=len(LARGE))
    rows: list[StoredRow | None] = []
    async with open_disk(io=io) as disk:
        spool = disk.spool()
        await spool.write(LARGE)
        inode = spool.path.stat().st_ino
        disk.save(entry, spool, checks_of(LARGE), rows.append)
        await disk.flush()
        assert await spool.read(3, 4) == LARGE[3:7]  # who reads the spool reads on
        spool.close()
        assert await body_of(disk, entry) == LARGE
        assert (tmp_path / "store" / str(rows[0] and rows[0].filename)).stat().st_ino == inode
        assert disk.statistics().spooled_bytes == 0
        assert os.listdir(tmp_path / "store" / "spool") == []


async def test_a_spool_given_up_leaves_nothing(open_disk: OpenDisk, tmp_path: Path) -> None:
    async with open_disk() as disk:
        spool = disk.spool()
        await spool.write(LARGE)
        spool.close()
        assert disk.statistics().spooled_bytes == 0
        assert os.listdir(tmp_path / "store" / "spool") == []


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_a_lookup_sees_every_change_made_before_it(
    open_disk: OpenDisk, make_entry: MakeEntry, io: MakeWorkers
) -> None:
    async with open_disk(io=io) as disk:
        for number in range(50):
            entry = make_entry(length=5, etag=b'"%d"' % number)
            disk.save(entry, b"%05d" % number)
            assert await body_of(disk, entry) == b"%05d" % number
            disk.remove(entry.key.digest)
            assert await disk.load(entry.key.digest) == []


T = TypeVar("T")


class LateReaders(Inline):
    """What was read comes to who asked only once `gate` is open."""

    gate: trio.Event

    async def run(self, job: Callable[[], T]) -> T:
        result = job()
        await self.gate.wait()
        return result


def late_readers(count: int, name: str, at_exit: Callable[[], None] = lambda: None) -> Inline:
    return LateReaders(count, name, at_exit) if "read" in name else Inline(count, name, at_exit)


async def test_a_change_that_overtakes_a_lookup_spoils_it(
    open_disk: OpenDisk, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_entry()
    monkeypatch.setattr(LateReaders, "gate", trio.Event(), raising=False)
    async with open_disk(io=late_readers) as disk:
        disk.save(entry, b"hello")
        found: list[list[StoredRow]] = []

        async def look() -> None:
            found.append(await disk.load(entry.key.digest))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()  # each has read the row by now
            disk.remove(entry.key.digest)
            disk.save(make_entry(b"another"), b"hello")
            LateReaders.gate.set()
        assert found == [[]] * 5


async def test_a_new_head_is_found_over_the_old_body(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    for size in (5, len(LARGE)):
        old, new = make_entry(length=size), make_entry(length=size, etag=b'"2"')
        async with open_disk() as disk:
            disk.save(old, LARGE[:size])
            disk.replace(old, new)
            disk.replace(old, make_entry(length=size, etag=b'"3"'))  # no longer what is stored
            assert [row.entry for row in await disk.load(old.key.digest)] == [new]
            assert await body_of(disk, new) == LARGE[:size]


async def test_dropping_an_old_entry_spares_a_newer_one(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    old, new = make_entry(at=1000.0), make_entry(at=2000.0)
    async with open_disk() as disk:
        disk.save(new, b"hello")
        disk.drop(old)
        assert await body_of(disk, new) == b"hello"
        disk.drop(new)
        assert await body_of(disk, new) is None


async def test_expired_rows_are_not_found_and_go(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    entry = make_entry(keep_until=5000.0)
    async with open_disk() as disk:
        disk.save(entry, b"hello")
        assert len(await disk.load(entry.key.digest, 4999.0)) == 1
        assert await disk.load(entry.key.digest, 5000.0) == []
        assert disk.statistics().rows == 0


async def test_a_lost_body_is_told_and_its_row_goes(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, log: list[str]
) -> None:
    entry = make_entry(length=len(LARGE))
    async with open_disk() as disk:
        disk.save(entry, LARGE)
        (row,) = await disk.load(entry.key.digest)
        (tmp_path / "store" / str(row and row.filename)).unlink()
        with pytest.raises(BodyLost):
            await disk.body(row)
        assert await disk.load(entry.key.digest) == []
        assert disk.statistics().lost == 1
        assert "body lost" in log[0]


async def test_the_directory_is_the_owners_alone(open_disk: OpenDisk, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o755)
    async with open_disk():
        for name in ("", "spool", "bodies"):
            assert stat.S_IMODE((tmp_path / "store" / name).stat().st_mode) == 0o700


@pytest.mark.usefixtures("impatient")
async def test_a_directory_has_one_user(open_disk: OpenDisk) -> None:
    async with open_disk():
        with pytest.raises(StoreBusy):
            async with open_disk():
                pass


async def test_a_directory_with_other_things_in_it_is_refused(
    open_disk: OpenDisk, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir(mode=0o755)
    (tmp_path / "store" / "thesis.txt").write_text("dear to someone")
    with pytest.raises(NotAStore):
        async with open_disk():
            pass
    assert os.listdir(tmp_path / "store") == ["thesis.txt"]
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o755


async def test_an_invalidated_resource_needs_no_look_to_be_gone(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    entry = make_entry()
    async with open_disk(io=Threads) as disk:
        disk.save(entry, b"hello")
        await disk.flush()
        disk.remove(entry.key.digest)
        with trio.move_on_after(0):  # a look would be a wait, and be cancelled
            assert await disk.load(entry.key.digest) == []
            disk.save(entry, b"again")
        assert await body_of(disk, entry) == b"again"


async def test_a_queue_that_is_full_drops_the_save_and_what_it_would_have_replaced(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    old, new = make_entry(at=1000.0), make_entry(at=2000.0, length=MIB)
    refused: list[StoredRow | None] = []
    async with open_disk() as disk:
        disk.save(old, b"hello")
        disk._space.queued = 1 << 40
        disk.save(new, bytes(MIB), done=refused.append)
        disk._space.queued = 0
        assert refused == [None]
        assert await disk.load(old.key.digest) == []
        assert disk.statistics().dropped == 1


async def test_a_quota_too_small_for_a_body_refuses_its_spool(open_disk: OpenDisk) -> None:
    async with open_disk(quota_bytes=2 * MIB) as disk:
        spool = disk.spool()
        with pytest.raises(SpoolFull):
            for _ in range(100):
                await spool.write(bytes(64 * 1024))
        spool.close()
        assert disk.statistics().spooled_bytes == 0


async def test_a_database_removed_while_in_use_is_made_anew(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, log: list[str]
) -> None:
    directory = tmp_path / "store"
    old, first, second = make_entry(b"old"), make_entry(b"first"), make_entry(b"second")
    async with open_disk() as disk:
        disk.save(old, b"hello")
        await disk.flush()
        for name in ("cache.db", "cache.db-wal", "cache.db-shm"):
            (directory / name).unlink(missing_ok=True)
        disk.save(first, b"hello")
        await disk.flush()
        assert any("moved aside" in line for line in log)
        assert await disk.load(old.key.digest) == []
    async with open_disk() as disk:
        disk.save(second, b"hello")
        assert await body_of(disk, first) == await body_of(disk, second) == b"hello"


async def test_a_directory_removed_while_in_use_is_told_and_not_made_again(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, log: list[str]
) -> None:
    async with open_disk() as disk:
        await disk.flush()
        shutil.rmtree(tmp_path / "store")
        refused: list[object] = []
        disk.save(make_entry(b"first"), b"hello", done=refused.append)
        await disk.flush()
        assert refused == [None]
        assert any("cannot be opened" in line for line in log)
        assert not (tmp_path / "store").exists()


async def test_a_foreign_database_is_moved_aside(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, log: list[str]
) -> None:
    entry = make_entry()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "birth").write_text(BIRTH_ID)
    (tmp_path / "store" / "cache.db").write_bytes(b"this is no database" * 500)
    async with open_disk() as disk:
        disk.save(entry, b"hello")
        assert await body_of(disk, entry) == b"hello"
    assert any("moved aside" in line for line in log)
    assert (tmp_path / "store" / "cache.db.broken").exists()


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_a_database_that_breaks_while_running_is_replaced(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, log: list[str], io: MakeWorkers
) -> None:
    async with open_disk(io=io) as disk:
        for number in range(200):
            disk.save(make_entry(b"%d" % number, 4000), bytes(4000))
        await disk.flush()
        await disk.load(make_entry(b"0").key.digest)
    entry = make_entry(b"new")
    async with open_disk(io=io) as disk:
        with (tmp_path / "store" / "cache.db").open("r+b") as file:
            file.seek(100)
            file.write(os.urandom(500_000))
        for number in range(200):
            await disk.load(make_entry(b"%d" % number).key.digest)
        await disk.flush()
        disk.save(entry, b"hello")
        assert await body_of(disk, entry) == b"hello"
    assert any("moved aside" in line for line in log)


@pytest.mark.usefixtures("impatient")
async def test_an_invalidation_holds_though_the_database_takes_no_writes(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    entry, other = make_entry(b"a"), make_entry(b"b")
    async with open_disk() as disk:
        disk.save(entry, b"hello")
        disk.save(other, b"hello")
        lock = sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        disk.remove(entry.key.digest)
        assert await disk.load(entry.key.digest) == []
        assert len(await disk.load(other.key.digest)) == 1
        lock.execute("ROLLBACK")
        lock.close()
        disk.save(make_entry(b"c"), b"hello")
        assert disk._writer.undead == set()
        assert disk.statistics().rows == 2


async def test_orphans_are_swept_after_an_unclean_end(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    entry = make_entry(length=len(LARGE))
    store = tmp_path / "store"
    async with open_disk() as disk:
        disk.save(entry, LARGE)
    (store / "clean").unlink()
    name = f"{'ab' * 32}-{'0' * 16}"
    (store / "bodies" / "ab").mkdir(exist_ok=True)
    (store / "bodies" / "ab" / name).write_bytes(b"orphan")
    (store / "spool" / "dead-beef").write_bytes(b"orphan")
    async with open_disk() as disk:
        await disk.flush()
        assert not (store / "bodies" / "ab" / name).exists()
        assert os.listdir(store / "spool") == []
        assert await body_of(disk, entry) == LARGE


async def test_a_missing_database_starts_empty_and_its_bodies_go(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    entry = make_entry(length=len(LARGE))
    async with open_disk() as disk:
        disk.save(entry, LARGE)
    (tmp_path / "store" / "cache.db").unlink()
    async with open_disk() as disk:
        assert await disk.load(entry.key.digest) == []
        assert [
            path for path in (tmp_path / "store" / "bodies").rglob("*") if path.is_file()
        ] == []


async def test_what_is_used_outlives_what_is_not(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk(quota_bytes=4 * MIB) as disk:
        loved = make_entry(b"loved", 100_000)
        disk.save(loved, bytes(100_000))
        for number in range(200):
            disk.save(make_entry(b"%d" % number, 50_000), bytes(50_000))
            assert await disk.load(loved.key.digest) != []
        assert disk.statistics().evicted > 100


async def test_what_is_in_memory_is_passed_over(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk(quota_bytes=4 * MIB) as disk:
        loved = make_entry(b"loved", 100_000)
        disk.hot = lambda digest: digest == loved.key.digest
        disk.save(loved, bytes(100_000))
        for number in range(200):
            disk.save(make_entry(b"%d" % number, 50_000), bytes(50_000))
        assert await disk.load(loved.key.digest) != []


async def test_eviction_ends_though_everything_is_loved(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk(quota_bytes=4 * MIB) as disk:
        disk.hot = lambda digest: True
        for number in range(300):
            disk.save(make_entry(b"%d" % number, 50_000), bytes(50_000))
        last = make_entry(b"299", 50_000)
        assert await body_of(disk, last) == bytes(50_000)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([0, 100, 20_000, 300_000, 900_000])),
        max_size=40,
    )
)
def test_the_quota_is_never_passed_and_bodies_are_right(
    make_entry: MakeEntry,
    tmp_path_factory: pytest.TempPathFactory,
    clock: Clock,
    steps: list[tuple[int, int]],
) -> None:
    quota = 3 * MIB
    directory = tmp_path_factory.mktemp("quota") / "store"

    async def run() -> None:
        disk = Disk(
            directory,
            birth=BIRTH_ID,
            quota_bytes=quota,
            io=Inline,
            log=lambda line: None,
            clock=clock,
        )
        await disk.open()
        held: dict[bytes, bytes] = {}
        for at, (number, size) in enumerate(steps):
            body = bytes([at % 256]) * size
            entry = make_entry(b"%d" % number, size)
            disk.save(entry, body)
            held[entry.key.digest] = body
            assert used(directory) <= quota
            for digest, right in held.items():
                for row in await disk.load(digest):
                    assert await read_all(await disk.body(row)) == right
        await disk.close()
        assert used(directory) <= quota

    trio.run(run)


def used(directory: Path) -> int:
    """Bytes that the directory's files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_what_was_queued_is_on_the_disk_when_it_is_synced(
    open_disk: OpenDisk,
    make_entry: MakeEntry,
    io: MakeWorkers,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    synced: list[tuple[str, int]] = []
    sync = os.fdatasync

    def note(descriptor: int) -> None:
        rows = sqlite3.connect(tmp_path / "store" / "cache.db")
        ((count,),) = rows.execute("SELECT COUNT(*) FROM Cache").fetchall()
        rows.close()
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2], count))
        sync(descriptor)

    async with open_disk(io=io) as disk:
        for number in range(120):
            disk.save(make_entry(b"%d" % number), b"hello")
        monkeypatch.setattr(os, "fdatasync", note)
        await disk.sync()
        assert synced == [("cache.db-wal", 120)]
        (tmp_path / "store" / "cache.db-wal").rename(tmp_path / "log")
        await disk.sync()  # as where the log has been folded in
        (tmp_path / "log").rename(tmp_path / "store" / "cache.db-wal")
    await disk.sync()


async def test_a_disk_that_cannot_be_synced_is_told(
    open_disk: OpenDisk,
    make_entry: MakeEntry,
    monkeypatch: pytest.MonkeyPatch,
    log: list[str],
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    async with open_disk() as disk:
        disk.save(make_entry(), b"hello")
        monkeypatch.setattr(os, "fdatasync", fail)
        await disk.sync()
    assert any("Input/output" in line for line in log)
