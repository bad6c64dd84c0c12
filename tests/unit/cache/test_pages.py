"""Asking the kernel what of a file it has in memory."""

from __future__ import annotations

import os
from mmap import PAGESIZE
from typing import TYPE_CHECKING

import pytest

from edge.cache.pages import Pages

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 64 * PAGESIZE + 10


@pytest.fixture
def descriptor(tmp_path: Path) -> int:
    (tmp_path / "file").write_bytes(bytes(SIZE))
    return os.open(tmp_path / "file", os.O_RDWR | os.O_CLOEXEC)


def test_what_was_just_written_is_there_and_what_was_dropped_is_not(descriptor: int) -> None:
    pages = Pages()
    if not pages.are_cached(descriptor, 0, SIZE):
        pytest.skip("this kernel, or this file system, does not say")
    os.fsync(descriptor)  # pages that are not on the medium cannot be dropped
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    if pages.are_cached(descriptor, 0, PAGESIZE):
        pytest.skip("this file system does not drop pages")
    assert not pages.are_cached(descriptor, 0, SIZE)
    os.pread(descriptor, SIZE, 0)
    assert pages.are_cached(descriptor, 0, SIZE)
    os.close(descriptor)


def test_what_is_beyond_the_end_or_not_open_is_not_there(descriptor: int) -> None:
    pages = Pages()
    assert not pages.are_cached(descriptor, 0, SIZE + PAGESIZE)
    os.close(descriptor)
    assert not pages.are_cached(descriptor, 0, 1)
