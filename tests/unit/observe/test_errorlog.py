from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edge.observe.errorlog import BURST, KINDS, LINE_BYTES, ErrorLog

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    def __init__(self) -> None:
        self.reading = 0.0

    def __call__(self) -> float:
        return self.reading


def log_at(path: Path, clock: Clock | None = None) -> ErrorLog:
    return ErrorLog(str(path), now=lambda: 0.0, clock=clock or Clock())


def test_a_line_has_time_kind_request_and_words(tmp_path: Path) -> None:
    log = log_at(tmp_path / "e")
    log.tell("loop", "came back", request_id="7f")
    assert (tmp_path / "e").read_text() == "1970-01-01T00:00:00.000Z loop [7f]: came back\n"


def test_one_kind_in_excess_is_counted_and_hides_no_other(tmp_path: Path) -> None:
    clock = Clock()
    log = log_at(tmp_path / "e", clock)
    for _ in range(100):
        log.tell("loop", "again")
    log.tell("disk", "full")
    clock.reading = 5.0
    log.tell("loop", "again")
    lines = (tmp_path / "e").read_text().splitlines()
    assert len(lines) == int(BURST) + 2
    assert lines[-2].endswith("disk: full")
    assert lines[-1].endswith(f"again ({100 - int(BURST)} more suppressed)")


def test_what_was_suppressed_last_is_told_at_the_end(tmp_path: Path) -> None:
    log = log_at(tmp_path / "e")
    for _ in range(12):
        log.tell("loop", "again")
    log.close()
    log.tell("loop", "after the end")
    assert (tmp_path / "e").read_text().splitlines()[-1].endswith("loop: 2 suppressed")


def test_a_message_cannot_make_a_line_of_its_own(tmp_path: Path) -> None:
    log_at(tmp_path / "e").tell("k", "a\nb\x1b[2J\u2028\udcff" + "x" * 9_000)
    data = (tmp_path / "e").read_bytes()
    assert data.count(b"\n") == 1
    assert b"a\\nb\\x1b[2J\\u2028\\udcff" in data
    assert len(data) <= LINE_BYTES


def test_kinds_without_end_are_forgotten(tmp_path: Path) -> None:
    log = log_at(tmp_path / "e")
    for number in range(KINDS + 50):
        log.tell(str(number), "x")
    assert log.statistics().written == KINDS + 50


def test_a_pipe_without_room_loses_lines_and_holds_up_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = log_at(path)
    for number in range(40):
        log.tell(str(number), "x" * 4_000)
    os.close(reader)
    log.tell("no one", "reads")
    told = log.statistics()
    assert told.written + told.dropped == 41
    assert told.dropped > 20


def test_after_a_rename_lines_go_to_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "e"
    path.parent.mkdir()
    log = log_at(path)
    path.rename(tmp_path / "old")
    log.reopen()
    log.tell("k", "new")
    assert "new" in path.read_text()
    path.parent.rename(tmp_path / "moved")
    log.reopen()
    assert "cannot reopen" in (tmp_path / "moved" / "e").read_text()


def test_a_log_that_is_off_writes_nothing() -> None:
    log = ErrorLog("off")
    log.tell("k", "x")
    assert log.statistics().written == 0


def test_what_an_operator_did_is_noted_however_much_was_said_before(tmp_path: Path) -> None:
    log = log_at(tmp_path / "e")
    for _ in range(100):
        log.tell("purge", "a client's")
        log.note("purge", "an operator's")
    lines = (tmp_path / "e").read_text().splitlines()
    assert sum("an operator's" in line for line in lines) == 100
    assert len(lines) == 100 + int(BURST)
