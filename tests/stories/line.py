"""A connection in memory: a `Transport` with what TCP has and Trio's memory streams lack.

At most `capacity` bytes are under way in each direction, so that a reader who does not read stops
the writer; a reset reaches the other side as an error; and closing with unread bytes resets.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final

import trio

from edge.upstream.transport import copy_some, divided

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.upstream.transport import Data, Part

CAPACITY: Final = 65_536
IMMEDIATE: Final = 16  # as with sockets: calls in a row that do not wait


class _Way:
    """One direction."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.data = bytearray()
        self.ended = False  # by its writer
        self.deserted = False  # by its reader
        self.reset = False
        self.news = trio.lowlevel.ParkingLot()
        self.passed: int | None = None  # a descriptor on its way


class Line:
    """One end of a connection; `pair` makes both."""

    def __init__(self, to_here: _Way, to_there: _Way, peer: bytes) -> None:
        self.peer = peer
        self._in = to_here
        self._out = to_there
        self._closed = False
        self._immediate = 0

    @staticmethod
    def pair(
        here: bytes = b"192.0.2.1", there: bytes = b"192.0.2.2", capacity: int = CAPACITY
    ) -> tuple[Line, Line]:
        """Two ends, each with the other's address as its peer."""
        one, two = _Way(capacity), _Way(capacity)
        return Line(one, two, there), Line(two, one, here)

    def receive_nowait(self, most: int) -> bytes | None:
        self._check_open()
        if self._in.reset:
            raise trio.BrokenResourceError("reset by the other side")
        if not self._in.data:
            return b"" if self._in.ended else None
        taken = bytes(self._in.data[:most])
        del self._in.data[:most]
        self._in.news.unpark_all()
        return taken

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._fair()
        while (data := self.receive_nowait(max_bytes or CAPACITY)) is None:
            self._immediate = 0
            await self._in.news.park()
        return data

    def send_nowait(self, data: Data) -> int:
        self._check_open()
        if self._out.ended:
            raise trio.ClosedResourceError("this direction was ended")
        if self._out.deserted or self._in.reset:
            raise trio.BrokenResourceError("the other side is gone")
        taken = bytes(data[: self._out.capacity - len(self._out.data)])
        self._out.data += taken
        self._out.news.unpark_all()
        return len(taken)

    async def send_all(self, data: Data, *, stall_s: float = math.inf) -> None:
        await self.send_parts([data], stall_s=stall_s)

    async def send_parts(self, parts: Sequence[Part], *, stall_s: float = math.inf) -> None:
        await self._fair()
        self._check_open()
        data, span = divided(parts)
        for part in data:
            sent = 0
            while sent < len(part):
                if count := self.send_nowait(part[sent:]):
                    sent += count
                    continue
                self._immediate = 0
                with trio.fail_after(stall_s):
                    await self._out.news.park()
        while span is not None and len(span):
            await copy_some(self, span, stall_s)

    async def send_passing(self, parts: Sequence[Data], descriptor: int) -> bool:
        self._check_open()
        assert self._out.passed is None
        self._out.passed = os.dup(descriptor)
        await self.send_parts(parts)
        return True

    def take_descriptor(self) -> int | None:
        passed, self._in.passed = self._in.passed, None
        return passed

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._out.deserted or self._in.reset:
            raise trio.BrokenResourceError("the other side is gone")
        self._out.ended = True
        self._out.news.unpark_all()

    def readable_now(self) -> bool:
        return bool(self._in.data) or self._in.ended or self._in.reset

    async def wait_ended(self) -> None:
        while not (self._in.reset or (self._in.ended and not self._in.data)):
            await self._in.news.park()

    def close(self) -> None:
        if not self._closed:
            self._end(reset=bool(self._in.data))

    def abort(self) -> None:
        if not self._closed:
            self._end(reset=True)

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def _end(self, *, reset: bool) -> None:
        self._closed = True
        if (passed := self.take_descriptor()) is not None:
            os.close(passed)
        self._out.ended = True
        self._out.reset = self._out.reset or reset
        self._in.deserted = True
        self._in.news.unpark_all()
        self._out.news.unpark_all()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this transport was closed")

    async def _fair(self) -> None:
        self._immediate += 1
        if self._immediate >= IMMEDIATE:
            self._immediate = 0
            await trio.lowlevel.checkpoint()
