"""A process goes by what stands on the board: it looks there again and again.

To look costs one read of a number, so it is done often, and nobody need be told that there is
news. Which version a process goes by stands in its seat, so that an order can wait for everyone.
What cannot be read is told of once, and the process goes on by what it had.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

from edge.surroundings.standing import Standing, from_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.surroundings.board import Board

LOOK_S: Final = 0.1


class Heeding:
    """What this process in `slot` goes by, told on its `seat` of the board.

    `tell` is given a line for the error log. It has looked once when it is made.
    """

    def __init__(
        self, board: Board, seat: int, slot: int, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self._board = board
        self._seat = seat
        self._slot = slot
        self._tell = tell
        self._heed: list[Callable[[Standing], None]] = []
        self._looked = 0
        self.standing = Standing()
        self.version = 0
        self._sit()
        self.look()

    def follow(self, heed: Callable[[Standing], None]) -> None:
        """Call `heed` with how all stand: now, and whenever that is another."""
        self._heed.append(heed)
        heed(self.standing)

    def look(self) -> None:
        """Go by the newest that stands there."""
        if self._board.version == self._looked:
            return
        read = self._board.read()
        if read is None:
            return  # the next look will find it
        self._looked, document = read
        try:
            standing = from_bytes(document)
        except ValueError as error:
            self._tell(f"what stands on the board cannot be read: {error}")
            return
        self.standing = standing
        for heed in self._heed:
            heed(standing)
        self.version = self._looked
        self._sit()  # last: who is told that it goes by an order relies on it

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await trio.sleep(LOOK_S)

    def _sit(self) -> None:
        self._board.sit(self._seat, self._slot, os.getpid(), self.version)
