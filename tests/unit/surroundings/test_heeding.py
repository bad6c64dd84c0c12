"""A process that goes by the board."""

from __future__ import annotations

import os
from typing import Any

import trio

from edge.surroundings.board import Board, Seated
from edge.surroundings.heeding import LOOK_S, Heeding
from edge.surroundings.standing import NamedServer, Standing, drained, to_bytes

EU = NamedServer("eu", "http://eu-1.example")
DRAINED = drained(Standing(), [EU])


def test_what_stands_there_counts_from_the_beginning() -> None:
    board = Board(2)
    board.write(to_bytes(DRAINED))
    heeding = Heeding(board, 1, 0)
    assert (heeding.standing, heeding.version) == (DRAINED, 1)
    assert board.seated() == [Seated(0, os.getpid(), 1)]
    told: list[Standing] = []
    heeding.follow(told.append)
    assert told == [DRAINED]


def test_an_empty_board_says_nothing_and_who_looks_is_seated_all_the_same() -> None:
    board = Board(1)
    heeding = Heeding(board, 0, 3)
    heeding.look()
    assert (heeding.standing, heeding.version) == (Standing(), 0)
    assert board.seated() == [Seated(3, os.getpid(), 0)]


def test_the_seat_tells_a_version_only_when_everything_goes_by_it() -> None:
    board = Board(1)
    heeding = Heeding(board, 0, 0)
    seen: list[tuple[bool, int]] = []
    heeding.follow(lambda standing: seen.append((standing == DRAINED, board.seated()[0].version)))
    board.write(to_bytes(DRAINED))
    heeding.look()
    heeding.look()  # no news
    assert seen == [(False, 0), (True, 0)]
    assert board.seated()[0].version == 1


def test_what_cannot_be_read_is_told_of_once_and_what_was_there_holds() -> None:
    board = Board(1)
    lines: list[str] = []
    board.write(to_bytes(DRAINED))
    heeding = Heeding(board, 0, 0, lines.append)
    board.write(b"nonsense")
    heeding.look()
    heeding.look()
    assert len(lines) == 1
    assert "what stands on the board cannot be read" in lines[0]
    assert (heeding.standing, heeding.version) == (DRAINED, 1)
    assert board.seated()[0].version == 1
    board.write(to_bytes(Standing()))
    heeding.look()
    assert (heeding.standing, heeding.version) == (Standing(), 3)


async def test_news_are_heeded_within_a_look(autojump_clock: Any) -> None:
    board = Board(1)
    heeding = Heeding(board, 0, 0)
    told: list[float] = []
    heeding.follow(lambda _: told.append(trio.current_time()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heeding.run)
        await trio.sleep(1.05)
        written = trio.current_time()
        board.write(to_bytes(DRAINED))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert len(told) == 2
    assert told[1] - written <= LOOK_S
