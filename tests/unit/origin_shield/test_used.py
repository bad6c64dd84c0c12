from __future__ import annotations

import os
import signal
from itertools import count

import pytest

from origin_shield.used import BUCKETS, PLACES, NoRoomError, Used

NOW = 1_764_500_000.0
MARK = bytes(range(16))


def in_a_child(used: Used, mark: bytes) -> bool:
    """Whether another process could take the proof."""
    if (pid := os.fork()) == 0:
        os._exit(0 if used.take(mark, NOW, NOW + 60) else 7)
    return os.waitpid(pid, 0)[1] == 0


def marks_of(bucket: int) -> list[bytes]:
    beginning = bucket.to_bytes(2, "big")
    return [beginning + number.to_bytes(14, "big") for number in range(PLACES + 1)]


def test_a_proof_counts_once_while_its_time_lasts() -> None:
    used = Used()
    assert used.take(MARK, NOW, NOW + 60)
    assert not used.take(MARK, NOW, NOW + 60)
    assert not used.take(MARK, NOW + 60, NOW + 120)
    assert used.take(bytes([*MARK[:15], 0]), NOW, NOW + 60)
    assert used.take(MARK, NOW + 60.1, NOW + 120)  # no more than a name: its time is over
    told = used.statistics()
    assert (told.noted, told.refused, told.full) == (3, 2, 0)


def test_what_one_worker_has_taken_no_other_takes() -> None:
    used = Used()
    assert in_a_child(used, MARK)
    assert not in_a_child(used, MARK)
    assert not used.take(MARK, NOW, NOW + 60)


def test_two_that_come_at_once_are_not_both_taken() -> None:
    used, numbers = Used(), count()
    for number in (next(numbers) for _ in range(20)):
        mark = os.urandom(14) + number.to_bytes(2, "big")
        reading, writing = os.pipe()
        pids = []
        for _ in range(3):
            if (pid := os.fork()) == 0:
                os.close(writing)
                os.read(reading, 1)  # until all are let go
                os._exit(0 if used.take(mark, NOW, NOW + 60) else 7)
            pids.append(pid)
        os.close(reading)
        os.close(writing)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert sorted(codes) == [0, 7, 7]


def test_where_there_is_no_place_nothing_is_taken() -> None:
    used = Used()
    *taken, over = marks_of(5)
    assert all(used.take(mark, NOW, NOW + 60) for mark in taken)
    with pytest.raises(NoRoomError):
        used.take(over, NOW, NOW + 60)
    assert used.take(marks_of(6)[0], NOW, NOW + 60)  # there is elsewhere
    assert used.take(over, NOW + 61, NOW + 120)  # and later
    assert used.statistics().full == 1


def test_a_worker_that_is_killed_leaves_no_lock_behind() -> None:
    used = Used()
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        assert used._lock(MARK[0] << 8 | MARK[1])
        os.write(writing, b"x")
        signal.pause()
    os.read(reading, 1)
    assert not used.take(MARK, NOW, NOW + 60)  # who holds the lock may be taking it
    assert used.take(b"\xff" * 16, NOW, NOW + 60)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert used.take(MARK, NOW, NOW + 60)
    os.close(reading)
    os.close(writing)


def test_the_room_is_for_so_many() -> None:
    assert BUCKETS * PLACES >= 1_500 * 120  # a second, for twice the skew of a minute
