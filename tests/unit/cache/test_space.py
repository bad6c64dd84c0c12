"""Space: the quota, the floor, the reserve, and which errors mean what."""

from __future__ import annotations

import errno
import os
import sqlite3
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from edge.cache.space import SAMPLE_S, Space, is_corrupt, is_full

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cache.conftest import Clock

MIB = 1 << 20


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the file system says is free, in bytes: `free.bytes`."""
    told = SimpleNamespace(bytes=1000 * MIB)

    def statvfs(path: object) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=told.bytes // 4096, f_frsize=4096)

    monkeypatch.setattr(os, "statvfs", statvfs)
    return told


def space_of(directory: Path, clock: Clock, quota: int = 64 * MIB, floor: int = 0) -> Space:
    space = Space(directory, quota, floor, clock)
    space.sample()
    return space


def test_everything_together_stays_within_the_quota(
    tmp_path: Path, clock: Clock, free: SimpleNamespace
) -> None:
    space = space_of(tmp_path, clock)
    assert space.capacity + space.wal_bytes + space.reserve_bytes == 64 * MIB
    space.committed, space.spooled, space.queued = 30 * MIB, 10 * MIB, 10 * MIB
    left = space.capacity - 50 * MIB
    assert space.fits(left)
    assert not space.fits(left + 1)


def test_near_the_floor_room_is_what_is_free_above_it(
    tmp_path: Path, clock: Clock, free: SimpleNamespace
) -> None:
    free.bytes = 24 * MIB
    space = space_of(tmp_path, clock, floor=20 * MIB)
    room = 4 * MIB - space.wal_bytes - space.reserve_bytes
    assert space.fits(room)
    assert not space.fits(room + 1)
    assert space.over(room + 5) == 5


def test_far_below_the_floor_nothing_is_stored_until_space_comes_back(
    tmp_path: Path, clock: Clock, free: SimpleNamespace
) -> None:
    space = space_of(tmp_path, clock, floor=20 * MIB)
    free.bytes = 9 * MIB
    assert space.fits(1)  # asked a moment ago
    clock.now += SAMPLE_S
    space.sample()
    assert not space.fits(1)
    free.bytes = 100 * MIB
    clock.now += SAMPLE_S
    space.sample()
    assert space.fits(1)


def test_the_reserve_is_real_and_is_taken_again(tmp_path: Path, clock: Clock) -> None:
    space = space_of(tmp_path, clock)
    reserve = tmp_path / "reserve"
    assert reserve.stat().st_blocks * 512 >= space.reserve_bytes
    space.give_reserve()
    assert not reserve.exists()
    space.refuse_for_now()
    assert not space.fits(1)
    clock.now += SAMPLE_S
    space.sample()
    assert reserve.exists()
    assert space.fits(1)


def test_a_file_system_that_does_not_answer_shuts_the_store(tmp_path: Path, clock: Clock) -> None:
    space = space_of(tmp_path / "gone", clock)
    assert not space.fits(1)


def test_a_body_that_would_take_nearly_everything_may_not(
    tmp_path: Path, clock: Clock, free: SimpleNamespace
) -> None:
    space = space_of(tmp_path, clock)
    half = space.capacity // 2
    assert space.may_displace(1, half)
    assert not space.may_displace(1, space.capacity)
    space.spooled = half
    assert space.may_displace(1, half)
    assert not space.may_displace(half, half)


def test_a_full_disk_is_told_from_a_broken_database() -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    broken = sqlite3.DatabaseError("malformed")
    broken.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    busy = sqlite3.OperationalError("locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
    assert [is_full(error) for error in (full, broken, busy)] == [True, False, False]
    assert [is_corrupt(error) for error in (full, broken, busy)] == [False, True, False]
    assert is_full(OSError(errno.ENOSPC, ""))
    assert is_full(OSError(errno.EDQUOT, ""))
    assert not is_full(OSError(errno.EIO, ""))
    assert not is_corrupt(OSError(errno.EIO, ""))
