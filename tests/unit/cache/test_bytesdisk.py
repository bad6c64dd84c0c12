"""diskcache's door to the database: bytes in, bytes out, and no file that is not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.bytesdisk import MODE_BINARY, MODE_RAW, BytesDisk, new_filename
from edge.cache.packing import Packed, RowRefused, is_body_name, key_of_filename

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(32)


@pytest.fixture
def disk(tmp_path: Path) -> BytesDisk:
    (tmp_path / "bodies").mkdir()
    return BytesDisk(str(tmp_path))


@given(st.binary(min_size=32, max_size=32))
def test_a_new_filename_holds_its_key_and_is_new(key: bytes) -> None:
    assert key_of_filename(new_filename(key)) == key
    assert new_filename(key) != new_filename(key)


def test_only_packed_rows_under_bytes_can_be_stored(disk: BytesDisk) -> None:
    with pytest.raises(RowRefused):
        disk.put("key")
    for value, read in (({"a": 1}, False), (Packed(b""), True)):
        with pytest.raises(RowRefused):
            disk.store(value, read, KEY)
    with pytest.raises(RowRefused):
        disk.filename(KEY)


@pytest.mark.parametrize(
    ("mode", "filename", "value"),
    [
        (4, None, b"pickled"),
        (MODE_RAW, None, "text"),
        (MODE_RAW, new_filename(KEY), b""),
        (MODE_BINARY, None, b""),
        (MODE_BINARY, "/etc/hostname", b""),
    ],
)
def test_columns_that_were_not_made_here_are_refused(
    disk: BytesDisk, mode: int, filename: str | None, value: object
) -> None:
    with pytest.raises(RowRefused):
        disk.fetch(mode, filename, value, False)
    with pytest.raises(RowRefused):
        disk.get(KEY, 0)


@pytest.mark.parametrize("committed", [True, False])
def test_files_are_settled_with_their_transaction(
    disk: BytesDisk, tmp_path: Path, committed: bool
) -> None:
    old, new = new_filename(KEY), new_filename(KEY)
    for body, name in ((b"old", old), (b"new", new)):
        (tmp_path / "ready").write_bytes(body)
        disk.store(Packed(b"", name, str(tmp_path / "ready"), 3), False, KEY)
        if name is old:
            disk.settle(True)
    disk.remove(old)
    disk.remove("/etc/hostname")
    assert is_body_name(old)
    disk.settle(committed)
    assert [(tmp_path / name).exists() for name in (old, new)] == [not committed, committed]
