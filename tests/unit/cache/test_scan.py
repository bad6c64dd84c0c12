"""A scan of the disk tier: what is there throughout is seen once, whatever else goes on."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.cache.disk import Disk
from edge.cache.entry import Seq
from edge.cache.packing import row_key
from edge.cache.scan import SCAN_ROWS, Unreadable
from edge.cache.threads import Inline, Threads
from edge.cache.writer import RETRY_S
from tests.unit.cache.conftest import BIRTH_ID

if TYPE_CHECKING:
    from pathlib import Path

    from edge.cache.packing import Scanned
    from edge.cache.scan import Scan
    from edge.cache.threads import MakeWorkers
    from tests.unit.cache.conftest import Clock, MakeEntry, OpenDisk

STEPS = st.lists(
    st.tuples(st.sampled_from(["look", "save", "again", "remove", "reap"]), st.integers(0, 11)),
    max_size=40,
)


async def rest(scan: Scan) -> list[Scanned]:
    seen: list[Scanned] = []
    while (rows := await scan.next()) is not None:
        seen += rows
    return seen


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_a_scan_sees_every_row_in_bounded_batches(
    open_disk: OpenDisk, make_entry: MakeEntry, io: MakeWorkers
) -> None:
    async with open_disk(io=io) as disk:
        entries = [make_entry(b"%d" % number) for number in range(SCAN_ROWS + 10)]
        for entry in entries:
            disk.save(entry, b"hello")
        await disk.flush()
        scan = disk.scan()
        first = await scan.next()
        assert first is not None
        assert len(first) == scan.looked_at == SCAN_ROWS
        assert [row.entry for row in first + await rest(scan)] == entries
        assert await scan.next() is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, quota_bytes=st.sampled_from([600_000, 64 << 20]))
def test_what_is_there_throughout_is_seen_once_and_nothing_live_is_removed(
    make_entry: MakeEntry,
    tmp_path_factory: pytest.TempPathFactory,
    clock: Clock,
    steps: list[tuple[str, int]],
    quota_bytes: int,
) -> None:
    """With saves, replacements, removals, evictions and sweeping between any two steps."""
    directory = tmp_path_factory.mktemp("scan") / "store"
    body = bytes(40_000 if quota_bytes < 1 << 20 else 5)

    async def run() -> None:
        disk = Disk(
            directory,
            birth=BIRTH_ID,
            quota_bytes=quota_bytes,
            io=Inline,
            log=lambda line: None,
            clock=clock,
        )
        await disk.open()
        version = 0

        def save(name: int) -> None:
            nonlocal version
            version += 1
            entry = make_entry(b"%d" % name, len(body), etag=b'"%d"' % version)
            disk.save(replace(entry, fetched_at=Seq(version)), body)

        async def present() -> dict[bytes, tuple[int, int]]:
            rows = await rest(disk.scan())
            return {row.key: (row.rowid, row.entry.fetched_at) for row in rows}

        for name in range(6):
            save(name)
        live = await present()
        throughout = {(key, rowid) for key, (rowid, _) in live.items()}
        scan, seen = disk.scan(2), list[bytes]()
        rows: list[Scanned] | None = []
        for deed, name in steps:
            if deed == "look":
                rows = await scan.next() or []
                seen += [row.key for row in rows]
            elif deed in ("save", "again"):
                save(name % 6 if deed == "again" else name)
            elif deed == "remove":
                disk.remove(make_entry(b"%d" % name).key.digest)
            else:  # all that the last step saw is dead; what has come since is not
                await disk.remove_dead(rows or [])
                dead = {row.key: (row.rowid, row.entry.fetched_at) for row in rows or []}
                spared = {key: row for key, row in live.items() if dead.get(key) != row}
                assert await present() == spared
            live = await present()
            throughout &= {(key, rowid) for key, (rowid, _) in live.items()}
        seen += [row.key for row in await rest(scan)]
        assert [seen.count(key) for key, _ in throughout] == [1] * len(throughout)
        await disk.close()

    trio.run(run)


async def test_a_row_that_stays_is_seen_exactly_once(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        entries = [make_entry(b"%d" % number) for number in range(6)]
        for entry in entries:
            disk.save(entry, b"hello")
        scan = disk.scan(2)
        seen = await scan.next() or []
        for entry in entries:
            disk.save(replace(entry, status=203), b"hello")
        disk.save(make_entry(b"new"), b"hello")
        seen += await rest(scan)
        assert [row.key for row in seen] == [row_key(entry) for entry in entries]
        assert [row.entry.status for row in seen] == [200, 200, 203, 203, 203, 203]


async def test_what_is_being_removed_is_not_seen(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk(io=Threads) as disk:
        stays, goes = make_entry(b"stays"), make_entry(b"goes")
        disk.save(stays, b"hello")
        disk.save(goes, b"hello")
        await disk.flush()
        disk.remove(goes.key.digest)
        assert [row.entry for row in await rest(disk.scan())] == [stays]


@pytest.mark.usefixtures("impatient")
async def test_what_could_not_be_removed_is_not_seen(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        disk.save(make_entry(), b"hello")
        lock = sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        disk.remove(make_entry().key.digest)
        assert await rest(disk.scan()) == []
        lock.close()


async def test_a_rotten_head_is_told_removed_and_not_seen(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, log: list[str]
) -> None:
    entries = [make_entry(b"%d" % number) for number in range(3)]
    async with open_disk() as disk:
        for entry in entries:
            disk.save(entry, b"hello")
        database = sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None)
        database.execute("UPDATE Cache SET value = zeroblob(200) WHERE rowid = 2")
        database.execute("UPDATE Cache SET raw = 0 WHERE rowid = 3")
        database.close()
        assert [row.entry for row in await rest(disk.scan())] == entries[:1]
        assert "rows refused" in log[0]
        assert disk.statistics().rows <= 2


async def test_a_scan_blocks_no_writer_and_no_writer_blocks_it(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        for number in range(4):
            disk.save(make_entry(b"%d" % number), b"hello")
        scan = disk.scan(2)
        await scan.next()
        other = sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None, timeout=0)
        other.execute("BEGIN IMMEDIATE")  # raises if the scan held a lock
        assert len(await scan.next() or []) == 2
        other.execute("ROLLBACK")
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        other.close()


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_a_scan_begins_again_with_a_database_made_anew(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, io: MakeWorkers
) -> None:
    async with open_disk(io=io) as disk:
        for number in range(4):
            disk.save(make_entry(b"%d" % number), b"hello")
        await disk.flush()
        scan = disk.scan(2)
        await scan.next()
        (tmp_path / "store" / "cache.db").unlink()
        new = make_entry(b"new")
        disk.save(new, b"hello")
        await disk.flush()
        assert [row.entry for row in await rest(scan)] == [new]


async def test_a_database_that_breaks_under_a_scan_is_told_and_made_anew(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, log: list[str]
) -> None:
    async with open_disk() as disk:
        for number in range(400):
            disk.save(make_entry(b"%d" % number, 4000), bytes(4000))
    async with open_disk() as disk:
        with (tmp_path / "store" / "cache.db").open("r+b") as file:
            file.seek(8192)
            file.write(os.urandom(1_500_000))
        scan = disk.scan()
        with pytest.raises(Unreadable):
            await rest(scan)
        assert any("moved aside" in line for line in log)
        assert await rest(scan) == []


@pytest.mark.usefixtures("impatient")
async def test_without_a_database_there_is_nothing_to_scan_until_there_is_one(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, clock: Clock
) -> None:
    entry = make_entry()
    async with open_disk() as disk:
        disk.save(entry, b"hello")
    lock = sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None)
    lock.execute("PRAGMA locking_mode = EXCLUSIVE")
    lock.execute("BEGIN EXCLUSIVE")
    async with open_disk() as disk:
        scan = disk.scan()
        with pytest.raises(Unreadable):
            await scan.next()
        lock.close()
        clock.now += RETRY_S
        await disk.load(entry.key.digest)  # has it opened
        assert [row.entry for row in await rest(scan)] == [entry]
