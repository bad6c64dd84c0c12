"""The board: one document that the keeper writes and every worker reads, in shared memory.

It is made before processes are forked. There is one writer, the keeper, and it must never have to
wait for a reader, nor a reader for it; either may be killed at any moment. So there are two
places for the document, and the *version*, a number that only grows, tells which one holds it:
the even ones are in the first place, the odd ones in the second. The writer writes where the
version does not point, and moves the version on with one store of eight bytes when all is there.

A writer that is killed in the middle leaves the version, and with it the document before, as they
were; the next one writes over what is half done. A reader that is so slow that the writer has come
round to its place meanwhile finds that out: each place tells which version it holds, which is
taken away first and given back last, and a sum of its bytes. Then it reads again, or, having been
overtaken over and over, has none for now. The sum is there since the order in which another
processor sees these stores is not ours to say.

Each process that goes by the board has a *seat*, where it tells who it is and which version it
goes by. So an order can wait for all of them without asking anyone. The parent empties a seat when
its process has ended.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Final
from zlib import crc32

MOST_BYTES: Final = 1 << 20
TRIES: Final = 4  # of a reader that is overtaken; a document is copied in 0.1 ms at most

_CELL: Final = 8
_VERSION: Final = 0
_SEATS: Final = 8  # the version has a cache line of its own
_SEAT_CELLS: Final = 8  # and so has each seat
_GOES_BY: Final = 0  # one more than the version: 0 is an empty seat
_SLOT: Final = 1
_PID: Final = 2

# A place: what it holds, then the bytes.
_HOLDS: Final = 0
_LENGTH: Final = 1
_SUM: Final = 2
_TEXT: Final = 3
_PLACE_CELLS: Final = _TEXT + MOST_BYTES // _CELL


@dataclass(frozen=True, slots=True)
class Seated:
    """A process that goes by the board, in its place of the node, and the version it goes by."""

    slot: int
    pid: int
    version: int

    def __str__(self) -> str:
        return f"worker {self.slot} (pid {self.pid})"


class Board:
    """The board with so many seats. To be made before processes are forked."""

    __slots__ = ("_cells", "_places", "_seats")

    def __init__(self, seats: int) -> None:
        self._seats = seats
        places = _SEATS + seats * _SEAT_CELLS
        self._places = places, places + _PLACE_CELLS
        # Pages of it that nobody writes to cost nothing.
        size = (places + 2 * _PLACE_CELLS) * _CELL
        self._cells = memoryview(mmap.mmap(-1, size)).cast("Q")

    @property
    def version(self) -> int:
        """The number of the newest document; 0 before the first."""
        return self._cells[_VERSION]

    def write(self, document: bytes) -> int:
        """Put up a document; the version it has. For the keeper alone.

        Raises `ValueError` for one of more than `MOST_BYTES`, and then the old one stays.
        """
        if len(document) > MOST_BYTES:
            raise ValueError(f"{len(document)} bytes; the board takes at most {MOST_BYTES}")
        cells, version = self._cells, self._cells[_VERSION] + 1
        at = self._places[version & 1]
        cells[at + _HOLDS] = 0  # first: who still reads there has to see that it is overtaken
        self._text(at)[: len(document)] = document
        cells[at + _LENGTH] = len(document)
        cells[at + _SUM] = crc32(document)
        cells[at + _HOLDS] = version
        cells[_VERSION] = version
        return version

    def read(self) -> tuple[int, bytes] | None:
        """The newest document with its version; None where there is none, or it is being written
        over faster than it can be read: what was read before is good until the next try."""
        for _ in range(TRIES):
            version = self._cells[_VERSION]
            if not version:
                return None
            document = self._read_from(self._places[version & 1], version)
            if document is not None:
                return version, document
        return None

    def _read_from(self, at: int, version: int) -> bytes | None:
        cells = self._cells
        if cells[at + _HOLDS] != version:
            return None
        length, told = cells[at + _LENGTH], cells[at + _SUM]
        if length > MOST_BYTES:
            return None
        document = bytes(self._text(at)[:length])
        if cells[at + _HOLDS] != version or crc32(document) != told:
            return None
        return document

    def _text(self, at: int) -> memoryview:
        return self._cells[at + _TEXT : at + _PLACE_CELLS].cast("B")

    # Seats.

    def sit(self, seat: int, slot: int, pid: int, version: int) -> None:
        """The process `pid` in `slot` goes by `version` from now on; it alone writes here."""
        at = _SEATS + self._checked(seat) * _SEAT_CELLS
        self._cells[at + _SLOT] = slot
        self._cells[at + _PID] = pid
        self._cells[at + _GOES_BY] = version + 1

    def vacate(self, seat: int) -> None:
        """The process in this seat has ended."""
        self._cells[_SEATS + self._checked(seat) * _SEAT_CELLS + _GOES_BY] = 0

    def seated(self) -> list[Seated]:
        """Who goes by the board, and by which version."""
        told = []
        for at in range(_SEATS, _SEATS + self._seats * _SEAT_CELLS, _SEAT_CELLS):
            goes_by, slot, pid = self._cells[at : at + 3]
            if goes_by:
                told.append(Seated(slot, pid, goes_by - 1))
        return told

    def _checked(self, seat: int) -> int:
        if not 0 <= seat < self._seats:
            raise IndexError(f"seat {seat} of {self._seats}")
        return seat
