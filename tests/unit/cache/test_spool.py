"""Spools: what was written is read, space is asked for first and given back last."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cache.body import SpoolFull
from edge.cache.space import Space
from edge.cache.spool import FileSpool, read_cached
from edge.cache.threads import Inline, Threads

if TYPE_CHECKING:
    from pathlib import Path

    from edge.cache.threads import MakeWorkers
    from tests.unit.cache.conftest import Clock

MIB = 1 << 20


class Tier:
    """What a spool needs of the disk tier."""

    def __init__(self, directory: Path, clock: Clock, io: MakeWorkers = Inline) -> None:
        self.space = Space(directory, 8 * MIB, 0, clock)
        self.workers = io(1, "test")
        self.errors: list[OSError] = []
        self.asked: list[tuple[int, int]] = []
        self.directory = directory
        self.path = directory / "spool"

    def spool(self) -> FileSpool:
        return FileSpool(self.path, self.space, self.workers, self.make_room, self.errors.append)

    async def make_room(self, more: int, size: int) -> None:
        self.asked.append((more, size))


@pytest.fixture
def tier(tmp_path: Path, clock: Clock) -> Tier:
    return Tier(tmp_path, clock)


async def test_what_was_written_is_read_by_offset(tier: Tier) -> None:
    spool = tier.spool()
    await spool.write(b"hello ")
    await spool.write(b"world")
    assert await spool.read(3, 5) == b"lo wo"
    assert await spool.read(11, 5) == b""
    assert spool.read_nowait(0, 99) in (b"hello world", None)
    assert spool.size == tier.space.spooled == 11
    spool.close()
    assert (tier.space.spooled, tier.path.exists()) == (0, False)


async def test_a_full_quota_is_told_and_leaves_what_was_there(tier: Tier) -> None:
    spool = tier.spool()
    await spool.write(b"hello")
    tier.space.committed = tier.space.capacity
    with pytest.raises(SpoolFull):
        await spool.write(b"world")
    assert tier.asked == [(5, 10)]
    assert await spool.read(0, 99) == b"hello"
    spool.close()


async def test_an_error_of_the_file_system_is_told_as_full(tier: Tier) -> None:
    tier.path = tier.directory / "no" / "such" / "directory"
    spool = tier.spool()
    with pytest.raises(SpoolFull):
        await spool.write(b"hello")
    assert len(tier.errors) == 1
    spool.close()
    assert tier.space.spooled == 0


async def test_a_reset_spool_starts_anew_and_gives_space_back(tier: Tier) -> None:
    spool = tier.spool()
    await spool.write(b"x" * 100_000)
    spool.reset()
    assert (tier.space.spooled, tier.path.stat().st_size) == (0, 0)
    await spool.write(b"again")
    assert await spool.read(0, 99) == b"again"
    spool.close()
    assert tier.space.spooled == 0


async def test_a_reset_never_cuts_off_what_was_written_after_it(
    tmp_path: Path, clock: Clock
) -> None:
    tier = Tier(tmp_path, clock, Threads)
    spool = tier.spool()
    for number in range(200):
        await spool.write(b"%d" % number)
        assert await spool.read(0, 99) == b"%d" % number
        spool.reset()
    spool.close()
    await tier.workers.run(lambda: None)
    await tier.workers.close()
    assert not tier.path.exists()


async def test_a_spool_that_was_taken_over_stays_on_disk(tier: Tier) -> None:
    spool = tier.spool()
    await spool.write(b"hello")
    spool.take_over()
    assert await spool.read(0, 99) == b"hello"
    spool.close()
    assert tier.path.read_bytes() == b"hello"
    assert tier.space.spooled == 5
    spool.release()
    assert tier.space.spooled == 0


async def test_a_spool_that_was_never_written_leaves_nothing(tier: Tier) -> None:
    tier.spool().close()
    assert not tier.path.exists()


@settings(max_examples=50)
@given(size=st.integers(0, 300), offset=st.integers(0, 400), most=st.integers(1, 400))
def test_cached_reading_gives_the_bytes_of_the_file(size: int, offset: int, most: int) -> None:
    data = os.urandom(size)
    descriptor = os.memfd_create("test")
    os.write(descriptor, data)
    read = read_cached(descriptor, offset, most)
    os.close(descriptor)
    assert read in (data[offset : offset + most] or None, None)


def test_cached_reading_of_a_closed_file_is_none() -> None:
    assert read_cached(-1, 0, 10) is None
