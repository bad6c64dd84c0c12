"""Files beside the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge.cache.files import sync_file, unlink, write_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_written_whole_and_in_place_of_none(tmp_path: Path) -> None:
    path = tmp_path / "body"
    write_file(str(path), b"hello")
    sync_file(path)
    assert path.read_bytes() == b"hello"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_file(str(path), b"other")
    assert path.read_bytes() == b"hello"


def test_a_file_that_is_not_there_is_removed_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.touch()
    unlink(path)
    unlink(str(path))
    unlink(None)
    assert not path.exists()


def test_what_is_not_there_cannot_be_synced(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_file(tmp_path / "body")
