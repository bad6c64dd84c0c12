"""Bodies on disk: every byte that comes out was verified in the copy that it comes from."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
import trio

from edge.cache.bytesdisk import new_filename
from edge.cache.descriptors import OpenBody
from edge.cache.diskbody import (
    POOL_BLOCKS,
    Blocks,
    BodyLost,
    DiskBody,
    NoDescriptors,
    open_verified,
)
from edge.cache.integrity import BLOCK_BYTES, blocks_in, checks_of
from edge.cache.packing import StoredRow, row_key
from edge.cache.pages import Pages
from edge.cache.threads import Inline
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cache.conftest import MakeEntry

LENGTH = BLOCK_BYTES * 3 + 1000
BODY = os.urandom(LENGTH)


@pytest.fixture
def row(tmp_path: Path, make_entry: MakeEntry) -> StoredRow:
    entry = make_entry(length=LENGTH)
    filename = new_filename(row_key(entry))
    (tmp_path / filename).parent.mkdir(parents=True)
    (tmp_path / filename).write_bytes(BODY)
    return StoredRow(row_key(entry), entry, checks_of(BODY), None, filename)


@pytest.fixture
def lost() -> list[str]:
    return []


def opened(tmp_path: Path, row: StoredRow, lost: list[str], blocks: Blocks) -> DiskBody:
    descriptor, stamp, _ = open_verified(str(tmp_path), row, 1)
    opened = OpenBody(descriptor, row, stamp, Pages(), lambda: 0.0)
    return DiskBody(
        opened, row, blocks, Inline(), lambda each: os.close(each.descriptor), lost.append
    )


def flip(tmp_path: Path, row: StoredRow, at: int) -> None:
    with (tmp_path / str(row.filename)).open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("most", [1000, 65_536, BLOCK_BYTES, 10 * BLOCK_BYTES])
async def test_a_body_is_read_whole_in_pieces_of_any_size(
    tmp_path: Path, row: StoredRow, lost: list[str], most: int
) -> None:
    body = opened(tmp_path, row, lost, Blocks())
    got = bytearray()
    while data := await body.read(len(got), most):
        assert len(data) <= most
        got += data
    body.close()
    assert (bytes(got), body.length, lost) == (BODY, LENGTH, [])


async def test_a_flipped_byte_is_found_before_its_block_is_given_out(
    tmp_path: Path, row: StoredRow, lost: list[str]
) -> None:
    body = opened(tmp_path, row, lost, Blocks())
    flip(tmp_path, row, 2 * BLOCK_BYTES + 7)
    assert await body.read(BLOCK_BYTES, 10) == BODY[BLOCK_BYTES : BLOCK_BYTES + 10]
    with pytest.raises(ExchangeError) as caught:
        await body.read(2 * BLOCK_BYTES, 1)
    assert caught.value.failure is Failure.BODY_LOST
    assert lost == ["block 2 has rotted"]
    body.close()


async def test_a_file_cut_off_while_it_is_read_is_found(
    tmp_path: Path, row: StoredRow, lost: list[str]
) -> None:
    body = opened(tmp_path, row, lost, Blocks())
    os.truncate(tmp_path / str(row.filename), LENGTH - 1)
    with pytest.raises(ExchangeError):
        await body.read(LENGTH - 10, 10)
    body.close()


@pytest.mark.parametrize("at", [0, BLOCK_BYTES - 1])
def test_the_first_block_is_verified_before_anything_is_given(
    tmp_path: Path, row: StoredRow, at: int
) -> None:
    flip(tmp_path, row, at)
    with pytest.raises(BodyLost):
        open_verified(str(tmp_path), row, 1)


def test_a_short_long_missing_or_linked_file_is_lost(tmp_path: Path, row: StoredRow) -> None:
    path = tmp_path / str(row.filename)
    for size in (0, LENGTH - 1, LENGTH + 1):
        os.truncate(path, size)
        with pytest.raises(BodyLost):
            open_verified(str(tmp_path), row, 1)
    path.unlink()
    with pytest.raises(BodyLost):
        open_verified(str(tmp_path), row, 1)
    path.symlink_to("/etc/hostname")
    with pytest.raises(BodyLost):
        open_verified(str(tmp_path), row, 1)


def test_no_descriptors_says_nothing_about_the_body(
    tmp_path: Path, row: StoredRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NoDescriptors):
        open_verified(str(tmp_path), row, 1)


def test_all_blocks_can_be_had_at_once(tmp_path: Path, row: StoredRow) -> None:
    descriptor, _, blocks = open_verified(str(tmp_path), row, blocks_in(LENGTH))
    os.close(descriptor)
    assert b"".join(blocks) == BODY


def test_the_pool_of_blocks_is_bounded_and_forgets_the_least_recent() -> None:
    blocks = Blocks(2)
    blocks.put("a", 0, b"0")
    blocks.put("a", 1, b"1")
    assert blocks.get("a", 0) == b"0"
    blocks.put("b", 0, b"2")
    assert [blocks.get("a", 0), blocks.get("a", 1), blocks.get("b", 0)] == [b"0", None, b"2"]
    assert POOL_BLOCKS * BLOCK_BYTES <= 16 << 20


async def test_a_closed_body_gives_its_descriptor_back_once(
    tmp_path: Path, row: StoredRow, lost: list[str]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    body = opened(tmp_path, row, lost, Blocks())
    body.close()
    body.close()
    with pytest.raises(trio.ClosedResourceError):
        await body.read(0, 1)
    assert len(os.listdir("/proc/self/fd")) == before
