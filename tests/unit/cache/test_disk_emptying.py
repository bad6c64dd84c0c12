"""The disk tier emptied, swept and looked at: what goes, in which order, and what must stay."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge.cache.entry import Entry, Seq
from edge.cache.home import BIRTH, read_birth
from edge.cache.scan import Unreadable
from edge.cache.threads import Inline, Threads
from tests.unit.cache.conftest import BIRTH_ID

if TYPE_CHECKING:
    from pathlib import Path

    from edge.cache.disk import Disk
    from edge.cache.packing import Scanned
    from edge.cache.threads import MakeWorkers
    from tests.unit.cache.conftest import MakeEntry, OpenDisk

LARGE = bytes(100_000)
OTHER = "c" * 32


async def scanned(disk: Disk) -> list[Scanned]:
    scan = disk.scan()
    seen: list[Scanned] = []
    while (rows := await scan.next()) is not None:
        seen += rows
    return seen


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def save_some(disk: Disk, make_entry: MakeEntry) -> list[Entry]:
    entries = [make_entry(b"s"), make_entry(b"l", len(LARGE))]
    disk.save(entries[0], b"hello")
    disk.save(entries[1], LARGE)
    return entries


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_a_tier_that_is_given_another_birth_holds_nothing(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, io: MakeWorkers
) -> None:
    store = tmp_path / "store"
    async with open_disk(io=io) as disk:
        entries = save_some(disk, make_entry)
    async with open_disk(io=io, birth=OTHER) as disk:
        assert [await disk.load(entry.key.digest) for entry in entries] == [[], []]
        assert read_birth(store) == OTHER
        assert (disk.statistics().rows, disk.statistics().rebuilt) == (0, 0)
        disk.save(entries[0], b"again")
        await disk.flush()
        assert disk.statistics().committed_bytes < 100_000
    assert files_in(store / "bodies") == files_in(store / "spool") == []
    assert not list(store.glob("*.broken*"))
    async with open_disk(io=io, birth=OTHER) as disk:
        assert [len(await disk.load(entry.key.digest)) for entry in entries] == [1, 0]


async def test_a_tier_that_cannot_be_emptied_is_not_opened_and_keeps_its_birth(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    async with open_disk() as disk:
        small, _ = save_some(disk, make_entry)
    (store / f"{BIRTH}.new").mkdir()  # no birth can be written
    with pytest.raises(OSError, match="cannot be emptied"):
        async with open_disk(birth=OTHER):
            pass
    assert read_birth(store) == BIRTH_ID
    (store / f"{BIRTH}.new").rmdir()
    async with open_disk(birth=OTHER) as disk:  # and it has been let go
        assert await disk.load(small.key.digest) == []


async def test_a_tier_without_a_usable_database_can_be_emptied(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        save_some(disk, make_entry)
    (tmp_path / "store" / "cache.db").write_bytes(b"rot" * 10_000)
    async with open_disk(birth=OTHER) as disk:
        assert disk.statistics().rebuilt == 0
        entry = make_entry(b"new")
        disk.save(entry, b"hello")
        assert len(await disk.load(entry.key.digest)) == 1


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_what_was_found_dead_goes_unless_something_else_has_come(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, io: MakeWorkers
) -> None:
    async with open_disk(io=io) as disk:
        small, _ = save_some(disk, make_entry)
        await disk.flush()
        rows = await scanned(disk)
        newer = replace(small, fetched_at=Seq(1))
        disk.replace(small, newer)  # queued, perhaps, when the removal comes
        removed = await disk.remove_dead(rows)
        assert removed == (1, rows[1].charge)
        assert [row.entry for row in await scanned(disk)] == [newer]
        assert files_in(tmp_path / "store" / "bodies") == []
        assert await disk.remove_dead(rows) == (0, 0)


async def test_many_are_removed_in_bounded_transactions(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        for number in range(200):
            disk.save(make_entry(b"%d" % number), b"hello")
        rows = await scanned(disk)
        assert await disk.remove_dead(rows[:199]) == (199, sum(row.charge for row in rows[:199]))
        assert disk.statistics().rows == 1


@pytest.mark.usefixtures("impatient")
async def test_a_removal_of_the_dead_that_fails_hides_no_row(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        small, _ = save_some(disk, make_entry)
        rows = await scanned(disk)
        lock = sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unreadable):
            await disk.remove_dead(rows)
        assert len(await disk.load(small.key.digest)) == 1
        lock.close()
        assert (await disk.remove_dead(rows))[0] == 2
    with pytest.raises(Unreadable):
        await disk.remove_dead(rows)


async def test_what_is_only_looked_at_is_not_used_and_not_removed(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    expired = make_entry(b"expired", keep_until=1.0)
    async with open_disk() as disk:
        small, large = save_some(disk, make_entry)
        disk.save(expired, b"hello")
        database = sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None)
        database.execute("UPDATE Cache SET value = zeroblob(200) WHERE rowid = 1")
        database.close()
        assert await disk.peek(small.key.digest) == []
        assert [row.entry for row in await disk.peek(expired.key.digest)] == [expired]
        (row,) = await disk.peek(large.key.digest)
        (await disk.body(row, is_use=False)).close()
        assert disk._writer.hand.marks == 0
        assert disk.statistics().rows == 3
        (await disk.body(row)).close()
        assert disk._writer.hand.marks == 1
    assert await disk.peek(large.key.digest) == []
    assert os.listdir(tmp_path / "store" / "spool") == []
