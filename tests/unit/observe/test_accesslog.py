from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import trio

from edge.observe.accesslog import AccessLog
from edge.observe.record import Outcome, Record, text

if TYPE_CHECKING:
    from pathlib import Path


def record(number: int, target: bytes = b"/") -> Record:
    return Record(time=1.5, id=str(number), client="::1", target=text(target), cache=Outcome.HIT)


def silence(message: str) -> None:
    raise AssertionError(message)


async def written(log: AccessLog, *records: Record) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await trio.testing.wait_all_tasks_blocked()
        for each in records:
            log.add(each)
        nursery.cancel_scope.cancel()


def ids(path: Path) -> list[str]:
    return [msgspec.json.decode(line)["id"] for line in path.read_bytes().splitlines()]


async def test_every_record_is_a_line_of_json_in_order(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), trouble=silence)
    await written(log, *(record(n) for n in range(10_000)))
    assert ids(path) == [str(n) for n in range(10_000)]
    assert (log.statistics().written, log.statistics().dropped) == (10_000, 0)
    line = msgspec.json.decode(path.read_bytes().splitlines()[0])
    assert (line["cache"], line["ttl"], line["time"]) == ("hit", None, 1.5)


async def test_hostile_bytes_stay_in_their_line(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    await written(AccessLog(str(path), trouble=silence), record(1, b'/\xff\n"\x1b'))
    (line,) = path.read_bytes().splitlines()
    assert msgspec.json.decode(line)["target"] == '/\\xff\n"\x1b'
    assert line.isascii()


async def test_what_finds_no_room_is_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), trouble=silence, room=2)
    await written(log, *(record(n) for n in range(5)))
    assert ids(path) == ["0", "1"]
    assert log.statistics().dropped == 3


async def test_after_a_rename_lines_go_to_a_new_file(tmp_path: Path) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(str(path), trouble=silence)
    path.rename(old)
    log.reopen()
    await written(log, record(1))
    assert (ids(path), ids(old)) == (["1"], [])


async def test_a_file_that_cannot_be_reopened_is_kept_and_told(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "access.log"
    path.parent.mkdir()
    told: list[str] = []
    log = AccessLog(str(path), trouble=told.append)
    path.parent.rename(tmp_path / "moved")
    log.reopen()
    await written(log, record(1))
    assert ids(tmp_path / "moved" / "access.log") == ["1"]
    assert len(told) == 1


async def test_a_write_that_fails_is_told_and_counted() -> None:
    told: list[str] = []
    log = AccessLog("/dev/full", trouble=told.append)
    await written(log, record(1), record(2))
    assert log.statistics().dropped == 2
    assert len(told) == 1


async def test_a_pipe_that_no_one_empties_holds_up_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.2  # the thread has begun to write
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(path), trouble=silence, room=4_096)
    await written(log, *(record(n, b"/" * 100) for n in range(5_000)))
    assert log.statistics().written < 5_000
    data = b""
    os.set_blocking(reader, True)
    while len(data) < 4_096 * 200:  # the thread left behind ends when its batch is read
        data += os.read(reader, 1 << 20)
    os.close(reader)
    assert data.startswith(b"{")


async def test_a_log_that_is_off_takes_nothing() -> None:
    log = AccessLog("off", trouble=silence)
    await written(log, record(1))
    assert log.statistics().written == log.statistics().dropped == 0


async def test_records_that_come_together_are_taken_in_order_as_far_as_there_is_room(
    tmp_path: Path,
) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), trouble=silence, room=3)
    log.add_all([])
    log.add_all([record(1), record(2)])
    log.add_all([record(3), record(4)])
    await written(log)
    assert ids(path) == ["1", "2", "3"]
    assert log.statistics().dropped == 1
    AccessLog("off", trouble=silence).add_all([record(5)])
