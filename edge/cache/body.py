"""What the bytes of an answer come from, and where they wait when memory cannot hold them.

A `Body` is one reader's view of a stored, or half-written, or ready-made body; the exchange knows
no other. A `Spool` is the growing file behind a body that is being written (see `fill`); the disk
tier makes them.
"""

from __future__ import annotations

from typing import Protocol

from edge.cache.window import part_of


class SpoolFull(Exception):  # noqa: N818 - it names a state of the disk, not a mistake
    """The disk, or the store's quota on it, has no room for what was to be spooled."""


class Body(Protocol):
    """What an answer's bytes come from: one object for each reader."""

    @property
    def length(self) -> int | None:
        """The whole body's length in bytes; None while it is not known."""

    def read_nowait(self, offset: int, most: int) -> bytes | memoryview | None:
        """Up to `most` bytes from `offset`; b"" at the end; None where `read` would wait.

        Raises `ExchangeError`: the writer's, where it failed, or BODY_LOST.
        """

    async def read(self, offset: int, most: int) -> bytes | memoryview:
        """The same, but waits. It does not yield to the loop when the bytes are at hand."""

    def close(self) -> None:
        """The reader is done, or is gone; may be called again, and during a cancelled read."""


class Spool(Protocol):
    """A growing file. `close` and `reset` come also while a cancelled call is still at work."""

    async def write(self, data: bytes) -> None:
        """Append all of `data`, or raise `SpoolFull` and leave what was there readable."""

    def read_nowait(self, offset: int, most: int) -> bytes | None:
        """Up to `most` bytes from `offset`, or None where the disk must be waited for."""

    async def read(self, offset: int, most: int) -> bytes:
        """The same, but waits. Raises `ExchangeError` (BODY_LOST) where the file fails."""

    def reset(self) -> None:
        """Make it empty: the next write is at offset 0 again."""

    def close(self) -> None:
        """Give it up: the file is removed, unless the disk tier has taken it over."""


class MemoryBody:
    """A body that is whole and in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def length(self) -> int:
        """The body's length in bytes."""
        return len(self._data)

    def read_nowait(self, offset: int, most: int) -> bytes | memoryview:
        """Up to `most` bytes from `offset`, not copied; b"" at the end."""
        return part_of(self._data, offset, most)

    async def read(self, offset: int, most: int) -> bytes | memoryview:
        """The same: there is nothing to wait for."""
        return part_of(self._data, offset, most)

    def close(self) -> None:
        """Nothing to give back."""
