"""Checks that tell a stored body from what bits have rotted to: one CRC-32 for each block.

A body is cut into blocks of `BLOCK_BYTES`, the last one shorter, and each block has its CRC-32 in
four bytes, big-endian; the checks of a body are those joined in order, and an empty body has
none. A block is small enough to be verified before its first byte is sent, so that a flipped bit
in the last gigabyte of a film is found without reading the ones before it; and the checks of a
gigabyte are 16 KiB, small enough to stand in a row beside the head. CRC-32 is there to find
accidents: any burst of up to 32 bits, and all but one in 2^32 of anything worse.
It is no defence against someone who can write to the store.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

BLOCK_BYTES: Final = 256 * 1024  # crc32 of one takes well under a millisecond
CHECK_BYTES: Final = 4


def checks_of(data: bytes | memoryview) -> bytes:
    """The checks of a whole body: four bytes a block."""
    view = memoryview(data)
    blocks = range(0, len(view), BLOCK_BYTES)
    return b"".join(_check(crc32(view[start : start + BLOCK_BYTES])) for start in blocks)


def verify(block_index: int, data: bytes | memoryview, checks: bytes | memoryview) -> bool:
    """Whether `data` is, byte for byte, the whole block that `checks` has at `block_index`.

    False too where `checks` has no such block or `data` is longer than a block can be.
    """
    start = block_index * CHECK_BYTES
    if block_index < 0 or start + CHECK_BYTES > len(checks) or len(data) > BLOCK_BYTES:
        return False
    return checks[start : start + CHECK_BYTES] == _check(crc32(data))


def blocks_in(length: int) -> int:
    """How many blocks a body of `length` bytes has."""
    return -(-length // BLOCK_BYTES)


class RunningChecks:
    """The checks of a body that comes in pieces of any size."""

    __slots__ = ("_done", "_into_block", "_running")

    def __init__(self) -> None:
        self._done = bytearray()
        self._running = 0
        self._into_block = 0

    def add(self, data: bytes | memoryview) -> None:
        """Count in the next piece of the body."""
        if self._into_block + len(data) < BLOCK_BYTES:  # the common case, without a view
            self._running = crc32(data, self._running)
            self._into_block += len(data)
            return
        view = memoryview(data)
        while len(view) >= BLOCK_BYTES - self._into_block:
            rest = BLOCK_BYTES - self._into_block
            self._done += _check(crc32(view[:rest], self._running))
            self._running = self._into_block = 0
            view = view[rest:]
        self._running = crc32(view, self._running)
        self._into_block = len(view)

    def checks(self) -> bytes:
        """The checks of what was added so far; its last block may still grow."""
        tail = _check(self._running) if self._into_block else b""
        return bytes(self._done) + tail


def _check(crc: int) -> bytes:
    return crc.to_bytes(CHECK_BYTES, "big")
