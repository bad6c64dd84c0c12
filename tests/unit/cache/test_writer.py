"""The writer: one queue, in order; failures that hold back, and recover."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from edge.cache import writer as writer_module
from edge.cache.writer import RETRY_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cache.conftest import Clock, MakeEntry, OpenDisk


async def test_a_batch_that_fails_once_is_tried_without_its_saves(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    """What could not be stored is not there in its old form either."""
    old, new = make_entry(at=1000.0), make_entry(at=2000.0, length=20_000)
    told: list[object] = []
    async with open_disk() as disk:
        disk.save(old, b"hello")
        (tmp_path / "store" / "spool").rmdir()  # so that no file can be written
        disk.save(new, bytes(20_000), done=told.append)
        assert told == [None]
        assert await disk.load(old.key.digest) == []
        (tmp_path / "store" / "spool").mkdir()
        disk.save(new, bytes(20_000))
        assert [row.entry for row in await disk.load(new.key.digest)] == [new]


@pytest.mark.usefixtures("impatient")
async def test_removals_that_fail_are_made_up_for(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    entries = [make_entry(b"%d" % number) for number in range(5)]
    async with open_disk() as disk:
        for entry in entries:
            disk.save(entry, b"hello")
        lock = sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        for entry in entries[:3]:
            disk.remove(entry.key.digest)
        assert [len(await disk.load(entry.key.digest)) for entry in entries] == [0, 0, 0, 1, 1]
        lock.execute("ROLLBACK")
        lock.close()
        disk.drop(entries[3])
        assert disk.statistics().rows == 1


@pytest.mark.usefixtures("impatient")
async def test_too_many_removals_that_fail_give_the_database_up(
    open_disk: OpenDisk,
    make_entry: MakeEntry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: list[str],
) -> None:
    monkeypatch.setattr(writer_module, "UNDEAD_KEYS", 1)
    async with open_disk() as disk:
        for number in range(3):
            disk.save(make_entry(b"%d" % number), b"hello")
        lock = sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        for number in range(2):
            disk.remove(make_entry(b"%d" % number).key.digest)
        lock.close()
        assert await disk.load(make_entry(b"2").key.digest) == []
        disk.save(make_entry(), b"hello")
        assert disk.statistics().rows == 1
    assert any("moved aside" in line for line in log)


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_cannot_be_opened_is_tried_again(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, clock: Clock
) -> None:
    entry = make_entry()
    async with open_disk() as disk:
        disk.save(entry, b"hello")
    lock = sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None)
    lock.execute("PRAGMA locking_mode = EXCLUSIVE")
    lock.execute("BEGIN EXCLUSIVE")
    async with open_disk() as disk:
        assert await disk.load(entry.key.digest) == []
        lock.close()
        clock.now += RETRY_S
        await disk.load(entry.key.digest)  # has it opened
        assert len(await disk.load(entry.key.digest)) == 1


async def test_the_database_gives_space_back_after_much_was_removed(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        for number in range(600):
            disk.save(make_entry(b"%d" % number, 12_000), bytes(12_000))
        for number in range(600):
            disk.remove(make_entry(b"%d" % number).key.digest)
    assert (tmp_path / "store" / "cache.db").stat().st_size < 3 << 20
