"""The rows of the disk tier: one for each stored variant, in diskcache, bytes only.

A row's key is the resource's digest and the variant's digest (see `packing`), so that all variants
of a resource stand side by side in the key's index and one range query finds them. Its value is a
blob: head, checks of the body, and the body itself where it is small; a larger body is a file that
the row names. One SQLite row thus commits head, checks and body together: there is no
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
import sqlite3
from dataclasses import dataclass
from functools import partial
from os import path
from typing import TYPE_CHECKING, Any, Final

import diskcache

from edge.cache.bytesdisk import BytesDisk
from edge.cache.packing import (
    KEY_BYTES,
    PAGE_BYTES,
    PRIMARY_BYTES,
    Packed,
    RowRefused,
    Scanned,
    StoredRow,
    TooShort,
    Victim,
    file_charge,
    is_body_name,
    key_of_filename,
    mark_of,
    pack,
    row_charge,
    row_key,
    unpack,
    unpack_head,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edge.cache.entry import Entry

INLINE_BYTES: Final = 16 * 1024  # from here on a file costs less than pages of a database
VARIANTS: Final = 32
FREE_PAGES: Final = 64  # 256 KiB: what the next rows take again
CONNECTION_PAGES: Final = 1024  # 4 MiB for each thread; diskcache's own 32 MiB is for one
START_BYTES: Final = 4096  # of a blob, for a scan: nearly every head and its checks
WHOLE_BYTES: Final = 2**30  # of a blob: all of it; substr counts in 32 bits
BUSY_S: Final = 1.0  # for the lock; there is one writer, so only a checkpoint can hold it

DATABASE: Final = "cache.db"  # diskcache's name for it
DATABASE_LOG: Final = DATABASE + "-wal"
DATABASE_FILES: Final = (DATABASE, DATABASE_LOG, DATABASE + "-shm")

_SCAN: Final = (
    "SELECT rowid, key, raw, mode, filename, size, length(value), substr(value, 1, ?) FROM Cache"
)
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


class Foreign(ValueError):  # noqa: N818 - it says what the file is
    """A database that this module did not make."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What a step of a scan has found: `behind` is the last row id that it looked at.

    `refused` are row ids and keys of rows that must be removed; None for a key that is not ours.
    """

    rows: list[Scanned]
    refused: list[tuple[int, bytes | None]]
    behind: int


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

    def scan(self, behind: int, last: int, limit: int) -> Glance | None:
        """The next rows behind row id `behind`, none above `last`, in the order of their ids.

        Heads and checks are verified as `unpack` does, and nothing else: the bodies are not read.
        None at the end. A row keeps its id for as long as it is there, and a new one gets an id
        above all others.
        """
        found = self._sql(
            _SCAN + " WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?",
            (START_BYTES, behind, last, limit),
        )
        rows, refused, seen = [], [], None
        for columns in found:  # row by row: the interpreter is free between two
            seen = columns[0]
            try:
                row = self._scanned(columns)
            except RowRefused:
                key = columns[1]
                ours = type(key) is bytes and len(key) == KEY_BYTES
                refused.append((seen, key if ours else None))
            else:
                rows += row
        return None if seen is None else Glance(rows, refused, seen)

    def _scanned(self, columns: tuple[Any, ...]) -> list[Scanned]:
        """The row in these columns of `_SCAN`, if it is still there; raises `RowRefused`."""
        rowid, key, raw, mode, filename, size, blob_bytes, start = columns
        start = self._disk.fetch(mode, filename, start, True)
        key = self._disk.get(key, raw)
        try:
            entry = unpack_head(key, start, blob_bytes, filename)[0]
        except TooShort:
            again = self._sql(_SCAN + " WHERE rowid = ?", (WHOLE_BYTES, rowid)).fetchall()
            return [row for columns in again for row in self._scanned(columns)]
        charge = (size if type(size) is int else 0) + row_charge(blob_bytes)
        return [Scanned(rowid, key, entry, charge, mark_of(start))]

    def keys_behind(self, behind: bytes, limit: int) -> list[bytes]:
        """The next keys behind `behind`, in their own order; read from the index alone."""
        found = self._sql(
            "SELECT key FROM Cache WHERE key > ? ORDER BY key LIMIT ?", (behind, limit)
        )
        return [key for (key,) in found.fetchall()]

    def last_rowid(self) -> int:
        """The highest row id; 0 where there is no row."""
        ((last,),) = self._sql("SELECT COALESCE(MAX(rowid), 0) FROM Cache").fetchall()
        return int(last)

    def remove_scanned(self, row: Scanned) -> bool:
        """Remove a row that a scan saw, if no other has taken its place; whether it was there."""
        found = self._sql(
            "SELECT filename FROM Cache"
            " WHERE rowid = ? AND key = ? AND raw = 1 AND substr(value, 1, ?) = ?",
            (row.rowid, row.key, len(row.mark), row.mark),
        ).fetchall()
        for (filename,) in found:
            self._remove(row.rowid, filename)
        return bool(found)

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
