"""The reaper: what a purge has killed leaves the disk, at a bounded effort, and nothing else."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

from edge.cache.entry import Entry, Seq
from edge.cache.packing import row_key
from edge.cache.purge import Manner, Purge, Purges
from edge.cache.reaper import LEAST_PAUSE_S, PAUSES, RETRY_S, STEP_ROWS, Reaper
from edge.cache.scope import digest
from edge.cache.threads import Inline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.cache.disk import Disk
    from tests.unit.cache.conftest import MakeEntry, OpenDisk

T = TypeVar("T")

MINUTE = 60.0
HALF_S = 8.5 * LEAST_PAUSE_S  # of a pass over a thousand rows
TAG = digest(b"tag")


def tagged(entry: Entry, tag: bytes = b"tag", fetched_at: int = 0) -> Entry:
    return replace(entry, scopes=digest(tag), fetched_at=Seq(fetched_at))


def purge(purges: Purges, tag: bytes | None = b"tag", manner: Manner = Manner.HARD) -> None:
    """The next purge; of everything without a tag."""
    number = Seq(purges.latest + 1)
    digests = b"" if tag is None else digest(tag)
    purges.record(Purge(number, 0.0, "me", manner, tag is None, digests, 1, ()))


async def stored(disk: Disk) -> set[bytes]:
    scan, keys = disk.scan(), set[bytes]()
    while (rows := await scan.next()) is not None:
        keys |= {row.key for row in rows}
    return keys


class Counted(Inline):
    """Workers without threads that count what they are asked to do."""

    runs = 0

    async def run(self, job: Callable[[], T]) -> T:
        Counted.runs += 1
        return await super().run(job)


async def test_what_a_purge_killed_goes_and_the_rest_stays(
    open_disk: OpenDisk, make_entry: MakeEntry, autojump_clock: object
) -> None:
    purges = Purges()
    async with open_disk() as disk, trio.open_nursery() as nursery:
        dead = [tagged(make_entry(b"d%d" % number)) for number in range(STEP_ROWS)]
        live = [tagged(make_entry(b"l%d" % number), b"other") for number in range(STEP_ROWS)]
        late = tagged(make_entry(b"late"), fetched_at=1)
        for entry in (*dead, *live, late):
            disk.save(entry, b"hello")
        reaper = Reaper(disk, lambda: purges)
        nursery.start_soon(reaper.run)
        await trio.sleep(MINUTE)
        assert disk.statistics().rows == 2 * STEP_ROWS + 1
        purge(purges)
        await trio.sleep(MINUTE)
        assert await stored(disk) == {row_key(entry) for entry in (*live, late)}
        told = reaper.statistics()
        assert (told.swept_to, told.is_sweeping, told.left, told.dead_left) == (1, False, 0, 0)
        assert (told.removed, told.looked_at) == (STEP_ROWS, 2 * STEP_ROWS + 1)
        assert told.removed_bytes >= STEP_ROWS * 128
        nursery.cancel_scope.cancel()


async def test_a_soft_purge_removes_nothing_and_one_of_everything_all(
    open_disk: OpenDisk, make_entry: MakeEntry, autojump_clock: object
) -> None:
    purges = Purges()
    async with open_disk() as disk, trio.open_nursery() as nursery:
        disk.save(tagged(make_entry()), b"hello")
        nursery.start_soon(Reaper(disk, lambda: purges).run)
        purge(purges, manner=Manner.SOFT)
        await trio.sleep(MINUTE)
        assert disk.statistics().rows == 1
        purge(purges, None)
        await trio.sleep(MINUTE)
        assert disk.statistics().rows == 0
        nursery.cancel_scope.cancel()


async def test_purges_from_before_the_start_are_swept_once_and_no_purge_costs_nothing(
    open_disk: OpenDisk, make_entry: MakeEntry, autojump_clock: object
) -> None:
    purges = Purges()
    purge(purges)
    async with open_disk(io=Counted) as disk, trio.open_nursery() as nursery:
        disk.save(tagged(make_entry()), b"hello")
        nursery.start_soon(Reaper(disk, lambda: purges).run)
        await trio.sleep(MINUTE)
        assert disk.statistics().rows == 0
        before = Counted.runs
        await trio.sleep(100 * MINUTE)
        assert Counted.runs == before
        nursery.cancel_scope.cancel()


async def test_a_purge_in_the_middle_of_a_pass_means_another(
    open_disk: OpenDisk, make_entry: MakeEntry, autojump_clock: object
) -> None:
    purges = Purges()
    async with open_disk() as disk, trio.open_nursery() as nursery:
        entries = [tagged(make_entry(b"%d" % at), b"%d" % (at % 2)) for at in range(1000)]
        for entry in entries:
            disk.save(entry, b"hello")
        reaper = Reaper(disk, lambda: purges)
        purge(purges, b"none of them")
        nursery.start_soon(reaper.run)
        await trio.sleep(HALF_S)
        middle = reaper.statistics()
        assert (middle.is_sweeping, middle.left) == (True, 1000 - middle.looked_at)
        purge(purges, b"1")
        assert reaper.statistics().left == 1000  # those seen may be dead by now
        await trio.sleep(MINUTE)
        assert await stored(disk) == {row_key(entry) for entry in entries[::2]}
        assert reaper.statistics().swept_to == 2
        nursery.cancel_scope.cancel()


async def test_what_is_left_is_estimated_by_what_was_seen(
    open_disk: OpenDisk, make_entry: MakeEntry, autojump_clock: object
) -> None:
    purges = Purges()
    async with open_disk() as disk, trio.open_nursery() as nursery:
        for number in range(1000):
            tag = b"tag" if number % 4 == 0 else b"other"
            disk.save(tagged(make_entry(b"%d" % number), tag), b"hello")
        reaper = Reaper(disk, lambda: purges)
        purge(purges)
        assert reaper.statistics().dead_left == reaper.statistics().left == 1000
        nursery.start_soon(reaper.run)
        await trio.sleep(HALF_S)
        told = reaper.statistics()
        assert abs(told.dead_left - told.left / 4) < 10
        nursery.cancel_scope.cancel()


async def test_a_step_pauses_for_longer_than_it_works(
    open_disk: OpenDisk, make_entry: MakeEntry, autojump_clock: object
) -> None:
    class Slow(Inline):
        async def run(self, job: Callable[[], T]) -> T:
            result = await super().run(job)
            await trio.sleep(1.0)
            return result

    purges = Purges()
    purge(purges, b"none of them")
    async with open_disk(io=Slow) as disk, trio.open_nursery() as nursery:
        for number in range(2 * STEP_ROWS):
            disk.save(tagged(make_entry(b"%d" % number)), b"hello")
        reaper = Reaper(disk, lambda: purges)
        nursery.start_soon(reaper.run)
        await trio.sleep(2 * PAUSES)  # two steps of a second each, and their pauses
        assert reaper.statistics().swept_to == 0
        await trio.sleep(60)
        assert reaper.statistics().swept_to == 1
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_cannot_be_written_is_tried_again_later(
    open_disk: OpenDisk,
    make_entry: MakeEntry,
    autojump_clock: object,
    tmp_path: Path,
    log: list[str],
) -> None:
    purges = Purges()
    async with open_disk() as disk, trio.open_nursery() as nursery:
        dead, live = tagged(make_entry(b"dead")), tagged(make_entry(b"live"), b"other")
        for entry in (dead, live):
            disk.save(entry, b"hello")
        lock = sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        reaper = Reaper(disk, lambda: purges)
        purge(purges)
        nursery.start_soon(reaper.run)
        await trio.sleep(RETRY_S * 2.5)
        assert (reaper.statistics().removed, reaper.statistics().is_sweeping) == (0, True)
        assert disk._writer.undead == set()  # a row that comes in its place must not be hidden
        assert "error" in log[0]
        lock.close()
        await trio.sleep(RETRY_S * 1.5)
        assert await stored(disk) == {row_key(live)}
        assert reaper.statistics().removed == 1
        nursery.cancel_scope.cancel()


async def test_a_database_made_anew_under_a_pass_is_swept_too(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, autojump_clock: object
) -> None:
    purges = Purges()
    async with open_disk() as disk, trio.open_nursery() as nursery:
        for number in range(1000):
            disk.save(tagged(make_entry(b"%d" % number)), b"hello")
        reaper = Reaper(disk, lambda: purges)
        purge(purges)
        nursery.start_soon(reaper.run)
        await trio.sleep(HALF_S)
        (tmp_path / "store" / "cache.db").unlink()
        overtaken, live = tagged(make_entry(b"overtaken")), tagged(make_entry(b"live"), b"other")
        for entry in (overtaken, live):
            disk.save(entry, b"hello")
        await trio.sleep(MINUTE)
        assert await stored(disk) == {row_key(live)}
        nursery.cancel_scope.cancel()


async def test_a_pass_that_was_broken_off_is_not_taken_for_done(
    open_disk: OpenDisk, make_entry: MakeEntry, autojump_clock: object
) -> None:
    purges = Purges()
    async with open_disk() as disk:
        for number in range(1000):
            disk.save(tagged(make_entry(b"%d" % number)), b"hello")
        reaper = Reaper(disk, lambda: purges)
        purge(purges)
        with trio.move_on_after(0.02):
            await reaper.run()
        told = reaper.statistics()
        assert (told.is_sweeping, told.swept_to) == (False, 0)
        assert 0 < told.removed < 1000
        assert told.left == 1000 - told.removed
        with trio.move_on_after(MINUTE):
            await reaper.run()
        assert disk.statistics().rows == 0
