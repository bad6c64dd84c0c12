"""The board, by its law: whoever reads has a whole document, the newest or the one before."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.surroundings import board as module
from edge.surroundings.board import MOST_BYTES, Board, Seated

if TYPE_CHECKING:
    from collections.abc import Callable

documents = st.binary(max_size=64) | st.sampled_from([b"", b"x" * MOST_BYTES, b"y" * 70_000])


class Killed(BaseException):
    """Stands for SIGKILL: what was stored so far stays stored, and nothing after it is."""


class Dying:
    """Cells in which the writer is killed at its n-th store."""

    def __init__(self, cells: memoryview, stores: int) -> None:
        self._cells, self._left = cells, [stores]

    def __getitem__(self, at: Any) -> Any:
        found = self._cells[at]
        return _DyingBytes(found, self._left) if isinstance(at, slice) else found

    def __setitem__(self, at: int, value: int) -> None:
        _count(self._left)
        self._cells[at] = value


class _DyingBytes:
    def __init__(self, cells: memoryview, left: list[int]) -> None:
        self._cells, self._left = cells, left

    def cast(self, _format: Any) -> _DyingBytes:
        return _DyingBytes(self._cells.cast("B"), self._left)

    def __setitem__(self, at: slice, value: bytes) -> None:
        try:
            _count(self._left)
        except Killed:
            half = len(value) // 2
            self._cells[:half] = value[:half]
            raise
        self._cells[at] = value


def _count(left: list[int]) -> None:
    if not left[0]:
        raise Killed
    left[0] -= 1


STORES: Final = 6  # holds, text, length, sum, holds, version


class TheBoard(RuleBasedStateMachine):
    """A writer that is killed at any store, others in its place, and a reader at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.board = Board(2)
        self.whole: list[bytes] = []
        self.seen = 0

    @rule(document=documents)
    def write(self, document: bytes) -> None:
        assert self.board.write(document) == len(self.whole) + 1
        self.whole.append(document)

    @rule(document=documents, stores=st.integers(0, STORES - 1))
    def be_killed(self, document: bytes, stores: int) -> None:
        cells = self.board._cells
        self.board._cells = Dying(cells, stores)  # type: ignore[assignment]
        with pytest.raises(Killed):
            self.board.write(document)
        self.board._cells = cells

    @rule()
    def refuse(self) -> None:
        with pytest.raises(ValueError, match="at most 1048576"):
            self.board.write(b"x" * (MOST_BYTES + 1))

    @precondition(lambda self: len(self.whole) > 0)
    @rule()
    def see_what_changed(self) -> None:
        read = self.board.read()
        assert read is not None
        assert (read[0] > self.seen) or read[0] == self.seen == self.board.version
        self.seen = read[0]

    @invariant()
    def whoever_reads_has_the_newest_whole(self) -> None:
        assert self.board.version == len(self.whole)
        expected = (len(self.whole), self.whole[-1]) if self.whole else None
        assert self.board.read() == expected


TheBoard.TestCase.settings = settings(max_examples=60, stateful_step_count=20)
TestTheBoard = TheBoard.TestCase


def test_the_stores_of_a_write_are_as_many_as_a_writer_is_killed_at() -> None:
    board = Board(1)
    cells = board._cells
    board._cells = Dying(cells, STORES)  # type: ignore[assignment]
    board.write(b"whole")
    board._cells = cells
    assert board.read() == (1, b"whole")


@pytest.mark.parametrize("cell", [module._HOLDS, module._LENGTH, module._SUM, module._TEXT])
def test_a_reader_that_was_overtaken_has_none(cell: int) -> None:
    board = Board(1)
    version = board.write(b"document")
    board._cells[board._places[version & 1] + cell] ^= 1 << 40
    assert board.read() is None
    board.write(b"next")
    assert board.read() == (2, b"next")


def forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return child


def test_readers_of_a_process_that_writes_without_end_have_whole_documents_in_order() -> None:
    board = Board(1)

    def write_on() -> None:
        number = 0
        while True:
            number += 1
            board.write(b"%08d" % number * (1 + number % 5_000))

    child = forked(write_on)
    last, had = 0, 0
    try:
        while had < 300:
            read = board.read()
            if read is None:
                continue
            version, document = read
            assert version >= last
            assert document == b"%08d" % version * (1 + version % 5_000)
            last, had = version, had + (version != last)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.live
def test_a_writer_killed_again_and_again_leaves_what_readers_had_and_the_next_goes_on() -> None:
    board = Board(1)

    def write_on() -> None:
        while True:
            version = board.version + 1
            board.write(b"%08d" % version * 20_000)

    for _ in range(40):
        before = board.version
        child = forked(write_on)
        while board.version < before + 3:
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        version = board.version
        assert board.read() == (version, b"%08d" % version * 20_000)
    assert board.write(b"next") == version + 1
    assert board.read() == (version + 1, b"next")


def test_who_sits_is_told_to_other_processes_until_the_seat_is_vacated() -> None:
    board = Board(3)

    def sit() -> None:
        board.sit(2, 1, 4_000_000, 0)
        os._exit(0)

    os.waitpid(forked(sit), 0)
    board.sit(0, 0, 42, 7)
    assert board.seated() == [Seated(0, 42, 7), Seated(1, 4_000_000, 0)]
    assert str(board.seated()[1]) == "worker 1 (pid 4000000)"
    board.vacate(2)
    assert board.seated() == [Seated(0, 42, 7)]
    for seat in (-1, 3):
        with pytest.raises(IndexError):
            board.sit(seat, 0, 1, 1)
        with pytest.raises(IndexError):
            board.vacate(seat)
