"""Twin of edge/cache/integrity.py."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.integrity import (
    BLOCK_BYTES,
    CHECK_BYTES,
    RunningChecks,
    blocks_in,
    checks_of,
    verify,
)

LENGTHS = [
    0,
    1,
    BLOCK_BYTES - 1,
    BLOCK_BYTES,
    BLOCK_BYTES + 1,
    3 * BLOCK_BYTES,
    3 * BLOCK_BYTES + 7,
]


def body_of(length: int) -> bytes:
    """A body without two equal blocks."""
    return b"".join(index.to_bytes(4, "big") for index in range(-(-length // 4)))[:length]


def test_an_empty_body_has_no_checks() -> None:
    assert checks_of(b"") == b""
    assert RunningChecks().checks() == b""


def test_the_check_of_a_short_body_is_its_crc32_big_endian() -> None:
    assert checks_of(b"hello") == crc32(b"hello").to_bytes(4, "big")


@pytest.mark.parametrize("length", LENGTHS)
def test_every_block_of_a_body_verifies(length: int) -> None:
    body = body_of(length)
    checks = checks_of(body)
    assert len(checks) == CHECK_BYTES * blocks_in(length)
    for index in range(blocks_in(length)):
        block = body[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]
        assert verify(index, block, checks)
        assert verify(index, memoryview(block), memoryview(checks))


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_flipped_bit_never_verifies(data: bytes, draw: st.DataObject) -> None:
    checks = checks_of(data)
    where = draw.draw(st.integers(0, len(data) - 1))
    bit = draw.draw(st.integers(0, 7))
    rotten = bytearray(data)
    rotten[where] ^= 1 << bit
    assert not verify(0, bytes(rotten), checks)


def test_a_truncated_block_does_not_verify() -> None:
    body = body_of(BLOCK_BYTES + 100)
    checks = checks_of(body)
    assert not verify(1, body[BLOCK_BYTES:-1], checks)
    assert not verify(1, b"", checks)


def test_a_block_under_the_index_of_another_does_not_verify() -> None:
    body = body_of(2 * BLOCK_BYTES)
    assert not verify(0, body[BLOCK_BYTES:], checks_of(body))


@pytest.mark.parametrize("index", [-1, 2, 3, 1 << 40])
def test_an_index_without_a_check_does_not_verify(index: int) -> None:
    body = body_of(BLOCK_BYTES + 1)
    assert not verify(index, body[BLOCK_BYTES:], checks_of(body))


def test_checks_cut_short_do_not_verify() -> None:
    assert not verify(0, b"hello", checks_of(b"hello")[:3])


def test_more_than_a_block_does_not_verify() -> None:
    long = bytes(BLOCK_BYTES + 1)
    assert not verify(0, long, crc32(long).to_bytes(4, "big"))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("piece", [100_003, BLOCK_BYTES, 10 * BLOCK_BYTES])
def test_checks_of_pieces_are_the_checks_of_the_whole(length: int, piece: int) -> None:
    body = body_of(length)
    running = RunningChecks()
    for start in range(0, length, piece):
        running.add(body[start : start + piece])
        assert running.checks() == checks_of(body[: start + piece])
    running.add(b"")
    assert running.checks() == checks_of(body)
