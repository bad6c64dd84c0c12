"""What the tests of fills are made of: a spool in memory that can be slow, full or stuck."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from edge.cache.body import Body, Spool, SpoolFull
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.fill import Fill

MOST: Final = 64 * 1024
GONE: Final = ExchangeError(Failure.CLOSED_EARLY, "the origin broke off")


class FakeSpool:
    """A `Spool` in memory. `full_at` bounds its bytes; `slow` makes every call wait a turn."""

    def __init__(self, full_at: int | None = None, *, slow: bool = False) -> None:
        self.data = bytearray()
        self.full_at = full_at
        self.slow = slow
        self.writes: list[int] = []
        self.most_held = 0
        self.resets = 0
        self.used = False
        self.writing = False
        self.closed = False
        self.gate: trio.Event | None = None

    async def write(self, data: bytes) -> None:
        assert not self.closed
        self.used = self.writing = True
        try:
            await self._wait()
        finally:
            self.writing = False
        if self.full_at is not None and len(self.data) + len(data) > self.full_at:
            raise SpoolFull
        self.data += data
        self.writes.append(len(data))
        self.most_held = max(self.most_held, len(self.data))

    def read_nowait(self, offset: int, most: int) -> bytes | None:
        assert not self.closed
        return None if self.slow else bytes(self.data[offset : offset + most])

    async def read(self, offset: int, most: int) -> bytes:
        assert not self.closed
        await self._wait()
        return bytes(self.data[offset : offset + most])

    def reset(self) -> None:
        assert not self.closed
        assert not self.writing
        self.data.clear()
        self.resets += 1

    def close(self) -> None:
        self.closed = True

    async def _wait(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        elif self.slow:
            await trio.lowlevel.checkpoint()


def as_spool(spool: FakeSpool) -> Callable[[], Spool]:
    """What a fill makes its spool with."""
    return lambda: spool


def body_of(length: int) -> bytes:
    """A body whose every offset is told by its neighbourhood."""
    return b"".join(index.to_bytes(4, "big") for index in range(-(-length // 4)))[:length]


async def rest_of(body: Body, offset: int = 0, most: int = MOST) -> bytes:
    """Everything from `offset` to the end."""
    out = bytearray()
    while data := await body.read(offset + len(out), most):
        assert len(data) <= most
        out += data
    return bytes(out)


async def first_of(body: Body, size: int, offset: int = 0) -> bytes:
    """`size` bytes from `offset`."""
    out = bytearray()
    while len(out) < size:
        out += await body.read(offset + len(out), size - len(out))
    return bytes(out)


def pair_of(fill: Fill) -> tuple[Fill, Body]:
    """A fill and its first reader."""
    return fill, fill.reader()
