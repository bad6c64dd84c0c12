"""The rows of the disk tier: one for each stored variant, in diskcache, bytes only.

A row's key is the resource's digest (16 bytes) and the variant's digest (16 bytes), so that all
variants of a resource stand side by side in the key's index and one range query finds them. Its
value is a blob: head, checks of the body, and the body itself where it is small; a larger body is
a file that the row names. One SQLite row thus commits head, checks and body together: there is no
moment at which a head without its body, or the other way about, can be found.

What diskcache 5.6.3 does that must not happen here, and what is done about it:

- It unpickles what a row says is a pickle (CVE-2025-69872, never fixed), keys too. `BytesDisk`
  takes and gives bytes, knows no other mode, and refuses the rest (`RowRefused`).
- It opens whatever path the `filename` column holds, `/etc/hostname` too. Here the name must be
  the one that this row's key would get, and nothing is opened in this module at all.
- It reads its settings, class attributes and pragmas among them, from the database file. All
  settings are given here, and a file that holds others is `Foreign`.
- It expands `~` and `$` in the directory's name: refused.
- It memory-maps the file, so that a truncated one kills the process by SIGBUS: turned off.
- In a nested transaction it unlinks files before the commit: `batch` does, behind it.
- After a failed COMMIT it leaves the transaction open: `batch` closes the connection.
- `set` on a row that keeps its file would unlink that file: `rehead` writes the columns itself.
- Its triggers have strings in double quotes, which SQLite built with DQS=0 takes for names.
- Its own eviction counts rows, not bytes, and writes for each read: policy `none`, cull limit 0.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from os import path
from struct import Struct
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import diskcache

from edge.cache.codec import from_bytes, to_bytes
from edge.cache.integrity import CHECK_BYTES, blocks_in, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edge.cache.entry import Entry

KEY_BYTES: Final = 32
PRIMARY_BYTES: Final = 16
INLINE_BYTES: Final = 16 * 1024  # from here on a file costs less than pages of a database
PAGE_BYTES: Final = 4096
VARIANTS: Final = 32
FREE_PAGES: Final = 64  # 256 KiB: what the next rows take again
CONNECTION_PAGES: Final = 1024  # 4 MiB for each thread; diskcache's own 32 MiB is for one
BUSY_S: Final = 1.0  # for the lock; there is one writer, so only a checkpoint can hold it

DATABASE: Final = "cache.db"  # diskcache's name for it
DATABASE_FILES: Final = (DATABASE, DATABASE + "-wal", DATABASE + "-shm")

MODE_RAW: Final = 1
MODE_BINARY: Final = 2

_BODY_NAME: Final = re.compile(r"bodies/([0-9a-f]{2})/(\1[0-9a-f]{62})-[0-9a-f]{16}")
_LAYOUT: Final = Struct("!4sIII")  # magic, bytes of head, bytes of checks, CRC-32 of the three
_MAGIC: Final = b"ROW\x01"
_TABLES: Final = frozenset({"Cache", "Settings"})
_SETTINGS: Final[dict[str, str | int]] = {
    "statistics": 0,
    "tag_index": 0,
    "eviction_policy": "none",
    "size_limit": 2**62,
    "cull_limit": 0,
    "sqlite_auto_vacuum": 2,  # incremental: evicting must give space back, but not at each commit
    "sqlite_cache_size": CONNECTION_PAGES,
    "sqlite_journal_mode": "wal",
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 1,
    "disk_min_file_size": 0,
    "disk_pickle_protocol": 0,
}


class RowRefused(ValueError):  # noqa: N818 - it says what was done
    """A row that this module did not write, or that has rotted."""


class Foreign(ValueError):  # noqa: N818 - it says what the file is
    """A database that this module did not make."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A stored variant as its row tells it: the body is `inline`, or in the file `filename`."""

    key: bytes
    entry: Entry
    checks: bytes
    inline: bytes | None
    filename: str | None

    @property
    def length(self) -> int:
        """Bytes of the whole body; rows are only made of entries that know it."""
        assert self.entry.length is not None
        return self.entry.length


@dataclass(frozen=True, slots=True)
class Packed:
    """What `BytesDisk` stores: a blob, and the finished file to put in place beside it."""

    blob: bytes
    filename: str | None = None
    ready: str | None = None
    body_bytes: int = 0

    @property
    def charge(self) -> int:
        """What this takes of the quota, in bytes."""
        return row_charge(len(self.blob)) + file_charge(self.body_bytes)


@dataclass(frozen=True, slots=True)
class Victim:
    """A row as eviction sees it."""

    rowid: int
    key: bytes
    charge: int
    filename: str | None


def row_key(entry: Entry) -> bytes:
    """The key of `entry`'s row: 16 bytes for the resource, 16 for the variant (zero if none)."""
    return entry.key.digest + _variant_digest(entry)


def _variant_digest(entry: Entry) -> bytes:
    if not entry.variant:
        return bytes(16)
    parts = []
    for name, value in entry.variant:
        parts += [b"%d:" % len(name), name]
        parts += [b"-"] if value is None else [b"%d:" % len(value), value]
    return blake2b(b"".join(parts), digest_size=16).digest()


def row_charge(blob_bytes: int) -> int:
    """About what a row takes in the database file: its share of pages, index and slack."""
    rows_in_page = (PAGE_BYTES - 36) // (blob_bytes + 80)
    if rows_in_page:
        return PAGE_BYTES // rows_in_page + 128
    return file_charge(blob_bytes + 64) + 256


def file_charge(size: int) -> int:
    """What a file of `size` bytes takes on most file systems."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def new_filename(key: bytes) -> str:
    """A name for a body that no other file has or had: readers may cache by it."""
    name = key.hex()
    return f"bodies/{name[:2]}/{name}-{secrets.token_hex(8)}"


def key_of_filename(filename: str) -> bytes | None:
    """The row key that a body's name holds; None for any other name."""
    match = _BODY_NAME.fullmatch(filename)
    return bytes.fromhex(match[2]) if match else None


def pack(entry: Entry, checks: bytes, inline: bytes | memoryview = b"") -> bytes:
    """A row's blob."""
    head = to_bytes(entry)
    crc = crc32(checks, crc32(head))
    return b"".join((_LAYOUT.pack(_MAGIC, len(head), len(checks), crc), head, checks, inline))


def unpack(key: bytes, blob: bytes, filename: str | None) -> StoredRow:
    """The row that `blob` holds, its body verified where it is inline; raises `RowRefused`."""
    if len(blob) < _LAYOUT.size:
        raise RowRefused("too short")
    magic, head_bytes, checks_bytes, crc = _LAYOUT.unpack_from(blob)
    checks_at = _LAYOUT.size + head_bytes
    body_at = checks_at + checks_bytes
    if magic != _MAGIC or body_at > len(blob):
        raise RowRefused("not a row of this version")
    if crc32(memoryview(blob)[_LAYOUT.size : body_at]) != crc:
        raise RowRefused("checksum differs")
    try:
        entry = from_bytes(blob[_LAYOUT.size : checks_at])
    except ValueError as fault:
        raise RowRefused(str(fault)) from fault
    inline = blob[body_at:] if filename is None else None
    row = StoredRow(key, entry, blob[checks_at:body_at], inline, filename)
    _check(row, len(blob) - body_at)
    return row


def _check(row: StoredRow, inline_bytes: int) -> None:
    if row_key(row.entry) != row.key:
        raise RowRefused("a head under another's key")
    if row.entry.length is None or blocks_in(row.length) * CHECK_BYTES != len(row.checks):
        raise RowRefused("a length that its checks do not fit")
    if inline_bytes != (row.length if row.filename is None else 0):
        raise RowRefused("a body of another length")
    if row.inline and not verify(0, row.inline, row.checks):
        raise RowRefused("a rotten body")
    if row.filename is not None and key_of_filename(row.filename) != row.key:
        raise RowRefused("a body under another's name")


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


def is_body_name(filename: object) -> bool:
    """Whether this is a name that `new_filename` makes."""
    return type(filename) is str and _BODY_NAME.fullmatch(filename) is not None


class Rows(diskcache.Cache):
    """The rows of one directory. Each thread has its own connection: `close` closes the caller's.

    Everything may raise `sqlite3.Error`, `OSError` or `diskcache.Timeout`; opening may also raise
    `Foreign`. Only the thread that opened it writes, in `batch`.
    """

    _disk: BytesDisk
    _is_made = False

    def __init__(self, directory: Path, wal_bytes: int, variants: int = VARIANTS) -> None:
        self._variants = variants
        name = str(directory)
        if path.expandvars(path.expanduser(name)) != name:
            raise OSError(f"a store's directory cannot have ~ or $ in its name: {name}")
        settings = _SETTINGS | {
            "sqlite_journal_size_limit": wal_bytes,
            "sqlite_wal_autocheckpoint": max(16, wal_bytes // PAGE_BYTES // 2),
        }
        _screen(directory / DATABASE, frozenset(settings) | {"count", "size", "hits", "misses"})
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            super().__init__(name, timeout=BUSY_S, disk=BytesDisk, **settings)
            self._is_made = True
            self.totals()
            undo.pop_all()

    @property
    def _sql(self) -> Callable[..., sqlite3.Cursor]:
        execute = self._con.execute
        return execute if self._is_made else partial(_single_quoted, execute)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """A transaction, its files with it: an error leaves all as it was."""
        done = False
        try:
            with self.transact():
                yield
            done = True
        finally:
            self._disk.settle(done)
            if not done:
                self.close()

    def find(self, primary: bytes) -> tuple[list[StoredRow], list[int]]:
        """All variants under `primary`, and the row ids of those that must be removed."""
        rows, refused = [], []
        for rowid, key, raw, mode, filename, value in self._sql(
            "SELECT rowid, key, raw, mode, filename, value FROM Cache"
            " WHERE key >= ? AND key <= ? LIMIT ?",
            (*_range(primary), 2 * self._variants),  # a setting before may have let more in
        ).fetchall():
            try:
                blob = self._disk.fetch(mode, filename, value, True)
                rows.append(unpack(self._disk.get(key, raw), blob, filename))
            except RowRefused:
                refused.append(rowid)
        return rows, refused

    def put(self, key: bytes, packed: Packed) -> None:
        """Put a row in place of what the key had, and of the resource's first if too many."""
        self.set(key, packed)
        if any(key[PRIMARY_BYTES:]):
            found = self._sql(
                "SELECT rowid, filename FROM Cache WHERE key >= ? AND key <= ? ORDER BY rowid",
                _range(key[:PRIMARY_BYTES]),
            )
            for rowid, filename in found.fetchall()[: -self._variants]:
                self._remove(rowid, filename)

    def rehead(self, old: StoredRow, new: Entry) -> None:
        """Give the body of `old` the head `new`, under the key that `new` has."""
        key = row_key(new)
        if key != old.key:
            self.remove(key)
        filename = old.filename
        if filename is not None and key != old.key:
            self.remove(old.key)  # the name holds the key: not worth a second name for the file
            return
        blob = pack(new, old.checks, old.inline or b"")
        charge = file_charge(old.length) if filename else 0
        self._sql(
            "UPDATE Cache SET key = ?, value = ?, size = ? WHERE key = ? AND raw = 1",
            (key, blob, charge, old.key),
        )

    def remove(self, prefix: bytes) -> int:
        """Remove every row whose key begins with `prefix` (16 bytes or more): how many."""
        found = self._sql(
            "SELECT rowid, filename FROM Cache WHERE key >= ? AND key <= ?", _range(prefix)
        ).fetchall()
        for rowid, filename in found:
            self._remove(rowid, filename)
        return len(found)

    def remove_rowids(self, rowids: list[int]) -> None:
        """Remove these rows, whatever their keys are, if they are still refused."""
        for rowid in rowids:
            found = self._sql(
                "SELECT key, raw, mode, filename, value FROM Cache WHERE rowid = ?", (rowid,)
            ).fetchall()
            for key, raw, mode, filename, value in found:
                try:
                    blob = self._disk.fetch(mode, filename, value, True)
                    unpack(self._disk.get(key, raw), blob, filename)
                except RowRefused:
                    self._remove(rowid, filename)

    def victims(self, behind: int, limit: int) -> list[Victim]:
        """The next rows behind row id `behind`, in the order in which they were first stored."""
        found = self._sql(
            "SELECT rowid, key, size, length(value), filename FROM Cache"
            " WHERE rowid > ? ORDER BY rowid LIMIT ?",
            (behind, limit),
        ).fetchall()
        return [
            Victim(
                rowid,
                key if type(key) is bytes else b"",
                (size if type(size) is int else 0)
                + row_charge(blob_bytes if type(blob_bytes) is int else 0),
                filename if is_body_name(filename) else None,
            )
            for rowid, key, size, blob_bytes, filename in found
        ]

    def evict(self, victim: Victim) -> None:
        """Remove a row that `victims` gave."""
        self._remove(victim.rowid, victim.filename)

    def has_body(self, filename: str) -> bool:
        """Whether a row names this file."""
        key = key_of_filename(filename)
        found = self._sql(
            "SELECT filename FROM Cache WHERE key = ? AND raw = 1", (key,)
        ).fetchall()
        return found == [(filename,)]

    def totals(self) -> tuple[int, int]:
        """Rows, and the bytes that they and their files take; raises `Foreign` if these cannot be.

        Rows that outlive their neighbours leave pages half empty, so pages are what is counted.
        """
        found = dict(
            self._sql("SELECT key, value FROM Settings WHERE key IN ('count', 'size')").fetchall()
        )
        count, size = found.get("count"), found.get("size")
        if type(count) is not int or type(size) is not int or count < 0 or size < 0:
            raise Foreign(f"{count!r} rows of {size!r} bytes")
        pages_of = "SELECT * FROM pragma_page_count, pragma_freelist_count"
        ((pages, free),) = self._sql(pages_of).fetchall()
        return count, size + (pages - free) * PAGE_BYTES

    def recount(self) -> None:
        """Work the sum of charges out again, in case it has rotted; reads every row."""
        self._sql(
            "UPDATE Settings SET value = (SELECT COALESCE(SUM(size), 0) FROM Cache)"
            " WHERE key = 'size'"
        )

    def shrink(self, most_pages: int) -> None:
        """Give free pages back to the file system, but for `FREE_PAGES`; bounded work.

        What is free in the database is in no row's charge, so it has to be little.
        """
        ((free,),) = self._sql("PRAGMA freelist_count").fetchall()
        pages = min(free - FREE_PAGES, most_pages)
        if pages > 0:
            # Not by execute: that takes one step of a statement without columns, which is a page.
            self._con.executescript(f"PRAGMA incremental_vacuum({pages:d})")

    def checkpoint(self) -> None:
        """Move the log into the database and empty it, as far as readers allow."""
        self._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _remove(self, rowid: int, filename: object) -> None:
        self._sql("DELETE FROM Cache WHERE rowid = ?", (rowid,))
        if is_body_name(filename):
            assert isinstance(filename, str)
            self._disk.remove(filename)


def _single_quoted(
    execute: Callable[..., sqlite3.Cursor], statement: str, *values: object
) -> sqlite3.Cursor:
    return execute(statement.replace('"', "'"), *values)


def _range(prefix: bytes) -> tuple[bytes, bytes]:
    return prefix, prefix + b"\xff" * (KEY_BYTES - len(prefix) + 1)


def _screen(database: Path, settings: frozenset[str]) -> None:
    """Raise `Foreign` for a file that is SQLite's but not ours, before diskcache obeys it."""
    if not database.exists():
        for name in DATABASE_FILES[1:]:  # a log without its database belongs to nothing
            with contextlib.suppress(FileNotFoundError):
                database.with_name(name).unlink()
        return
    with contextlib.closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
        tables = connection.execute("SELECT name, type FROM sqlite_master").fetchall()
        if not tables:
            return
        names = {name for name, kind in tables if kind in ("table", "view")}
        views = {name for name, kind in tables if kind == "view"}
        if names - {"sqlite_sequence", "sqlite_stat1"} != _TABLES or views:
            raise Foreign("other tables than ours")
        keys = {key for (key,) in connection.execute("SELECT key FROM Settings").fetchall()}
        if not keys <= settings:
            raise Foreign("other settings than ours")
