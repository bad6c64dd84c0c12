"""diskcache's `Disk` for bytes and nothing else: no pickle, no path but ours, no file opened.

It takes and gives bytes, knows no other mode, and refuses the rest (`RowRefused`). Files it does
not write: a finished one is renamed into place, and one whose row goes is unlinked when the
transaction has been committed, never before (see `Rows.batch`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from os import path
from typing import Any, Final

import diskcache

from edge.cache.packing import Packed, RowRefused, file_charge, is_body_name

MODE_RAW: Final = 1
MODE_BINARY: Final = 2


def new_filename(key: bytes) -> str:
    """A name for a body that no other file has or had: readers may cache by it."""
    name = key.hex()
    return f"bodies/{name[:2]}/{name}-{secrets.token_hex(8)}"


class BytesDisk(diskcache.Disk):
    """diskcache's way to columns and files and back, for bytes and nothing else."""

    def __init__(self, directory: str, min_file_size: int = 0, pickle_protocol: int = 0) -> None:
        super().__init__(directory, min_file_size, pickle_protocol)
        self.placed: list[str] = []  # put in place by the transaction under way
        self.condemned: list[str] = []  # to be unlinked when it has been committed

    def put(self, key: Any) -> tuple[Any, bool]:
        """A key for the database."""
        if type(key) is not bytes:
            raise RowRefused(f"a key is bytes, not {type(key).__name__}")
        return sqlite3.Binary(key), True

    def get(self, key: Any, raw: Any) -> Any:
        """A key from the database."""
        if type(key) is not bytes or raw != 1:
            raise RowRefused("a key that is not bytes")
        return key

    def store(
        self, value: Any, read: bool, key: Any = diskcache.UNKNOWN
    ) -> tuple[int, int, str | None, Any]:
        """The columns for a `Packed`, its file renamed into place; raises OSError."""
        if type(value) is not Packed or read:
            raise RowRefused("only packed rows are stored")
        if value.filename is None or value.ready is None:
            return 0, MODE_RAW, None, sqlite3.Binary(value.blob)
        place = path.join(self._directory, value.filename)
        self.placed.append(value.filename)
        try:
            os.rename(value.ready, place)
        except FileNotFoundError:
            os.makedirs(path.dirname(place), 0o700, exist_ok=True)
            os.rename(value.ready, place)
        size = file_charge(value.body_bytes)
        return size, MODE_BINARY, value.filename, sqlite3.Binary(value.blob)

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> Any:
        """The blob of a row; opens nothing; raises `RowRefused`."""
        if type(value) is not bytes or mode not in (MODE_RAW, MODE_BINARY):
            raise RowRefused("a value that is not bytes")
        if (mode == MODE_BINARY) != (filename is not None):
            raise RowRefused("a file where none belongs, or none where one does")
        if filename is not None and not is_body_name(filename):
            raise RowRefused("a file name that was not made here")
        return value

    def filename(self, key: Any = None, value: Any = None) -> tuple[str, str]:
        """Never: a body's name is made by `new_filename`."""
        raise RowRefused("no file is written here")

    def remove(self, file_path: str) -> None:
        """Note a file to be unlinked; a name that is not ours is forgotten."""
        if is_body_name(file_path):
            self.condemned.append(file_path)

    def settle(self, committed: bool) -> None:
        """Unlink what the transaction that has ended leaves without a row."""
        gone = self.condemned if committed else self.placed
        for filename in gone:
            with contextlib.suppress(OSError):  # the sweep finds what stays
                os.unlink(path.join(self._directory, filename))
        self.placed, self.condemned = [], []
