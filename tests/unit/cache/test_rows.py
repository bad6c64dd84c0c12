"""Rows: what was packed is found, and nothing else is: no pickle, no path, no rot."""

from __future__ import annotations

import os
import pickle
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge.cache.bytesdisk import new_filename
from edge.cache.integrity import checks_of
from edge.cache.packing import (
    Packed,
    pack,
    row_key,
)
from edge.cache.rows import Foreign, Rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge.cache.entry import Entry
    from tests.unit.cache.conftest import MakeEntry

KIB = 1024
FRUIT = ((b"accept-language", b"en"),)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    (tmp_path / "bodies").mkdir()
    return tmp_path


@pytest.fixture
def rows(directory: Path) -> Iterator[Rows]:
    opened = Rows(directory, 256 * KIB)
    yield opened
    opened.close()


def put(
    rows: Rows, entry: Entry, body: bytes = b"hello", directory: Path | None = None
) -> str | None:
    """Store a row, its body in a file if there is a directory; the file's name."""
    key, checks = row_key(entry), checks_of(body)
    if directory is None:
        packed, filename = Packed(pack(entry, checks, body)), None
    else:
        ready = directory / "spool" / "ready"
        ready.write_bytes(body)
        filename = new_filename(key)
        packed = Packed(pack(entry, checks), filename, str(ready), len(body))
    with rows.batch():
        rows.put(key, packed)
    return filename


def tamper(directory: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(directory / "cache.db")
    with connection:
        connection.execute(statement, values)
    connection.close()


def test_a_row_is_found_as_it_was_packed(rows: Rows, make_entry: MakeEntry) -> None:
    entry = make_entry()
    put(rows, entry)
    ((row,), refused) = rows.find(entry.key.digest)
    assert (row.entry, row.inline, row.filename, refused) == (entry, b"hello", None, [])


def test_all_variants_of_a_resource_are_found_and_no_others(
    rows: Rows, make_entry: MakeEntry
) -> None:
    plain, english = make_entry(), make_entry(variant=FRUIT)
    for entry in (plain, english, make_entry(b"b")):
        put(rows, entry)
    found, _ = rows.find(plain.key.digest)
    assert {row.entry.variant for row in found} == {(), FRUIT}


def test_a_large_body_is_renamed_into_place(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    entry = make_entry(length=3)
    filename = put(rows, entry, b"abc", directory)
    assert filename is not None
    assert (directory / str(filename)).read_bytes() == b"abc"
    assert os.listdir(directory / "spool") == []
    assert rows.find(entry.key.digest)[0][0].filename == filename
    assert rows.has_body(filename)


def test_a_replaced_body_is_unlinked_behind_the_commit(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    entry = make_entry(length=3)
    old = put(rows, entry, b"abc", directory)
    new = put(rows, entry, b"def", directory)
    assert not (directory / str(old)).exists()
    assert (directory / str(new)).read_bytes() == b"def"


def test_a_batch_that_fails_leaves_rows_and_files_as_they_were(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    entry = make_entry(length=3)
    old = put(rows, entry, b"abc", directory)
    ready = directory / "spool" / "ready"
    ready.write_bytes(b"def")
    name = new_filename(row_key(entry))
    with pytest.raises(ZeroDivisionError), rows.batch():
        packed = Packed(pack(entry, checks_of(b"def")), name, str(ready), 3)
        rows.put(row_key(entry), packed)
        raise ZeroDivisionError
    assert (directory / str(old)).read_bytes() == b"abc"
    assert not (directory / name).exists()
    assert rows.find(entry.key.digest)[0][0].filename == old


def test_a_new_head_keeps_the_body(rows: Rows, directory: Path, make_entry: MakeEntry) -> None:
    old, new = make_entry(length=3), make_entry(length=3, etag=b'"2"')
    filename = put(rows, old, b"abc", directory)
    ((row,), _) = rows.find(old.key.digest)
    with rows.batch():
        rows.rehead(row, new)
    ((row,), _) = rows.find(old.key.digest)
    assert (row.entry, row.filename) == (new, filename)
    assert (directory / str(filename)).read_bytes() == b"abc"


def test_a_head_of_another_variant_moves_its_row(rows: Rows, make_entry: MakeEntry) -> None:
    old, new = make_entry(), make_entry(variant=FRUIT)
    put(rows, old)
    ((row,), _) = rows.find(old.key.digest)
    with rows.batch():
        rows.rehead(row, new)
    ((row,), refused) = rows.find(old.key.digest)
    assert (row.entry, row.inline, refused) == (new, b"hello", [])


def test_totals_are_what_rows_and_files_take(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    _, empty = rows.totals()
    put(rows, make_entry(b"a"), b"hello")
    put(rows, make_entry(b"b", 5000), bytes(5000), directory)
    count, size = rows.totals()
    assert count == 2
    assert empty + 8192 <= size < empty + sum(victim.charge for victim in rows.victims(0, 10))
    with rows.batch():
        rows.remove(make_entry(b"b").key.digest)
    assert rows.totals()[1] == size - 8192


def test_a_charge_covers_what_the_database_really_takes(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    for size in (100, 1 * KIB, 3 * KIB, 9 * KIB, 16 * KIB):
        for number in range(60):
            put(rows, make_entry(b"%d-%d" % (size, number), size), bytes(size))
    rows.checkpoint()
    real = (directory / "cache.db").stat().st_size
    assert real * 0.9 <= rows.totals()[1] <= real * 1.5


@pytest.mark.parametrize(
    "filename",
    [
        "/etc/hostname",
        "../secret",
        "bodies/../../etc/hostname",
        "bodies/ab/" + "ab" * 32 + "-" + "0" * 16 + "\n",
        "bodies/ab/" + "cd" * 32 + "-" + "0" * 16,
        "bodies/AB/" + "AB" * 32 + "-" + "0" * 16,
        "",
    ],
)
def test_a_planted_filename_is_refused(
    rows: Rows, directory: Path, make_entry: MakeEntry, filename: str
) -> None:
    entry = make_entry(length=3)
    put(rows, entry, b"abc", directory)
    tamper(directory, "UPDATE Cache SET filename = ?", filename)
    found, refused = rows.find(entry.key.digest)
    assert (found, len(refused)) == ([], 1)


def test_a_planted_pickle_is_never_loaded(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    mark = directory / "was-run"
    entry = make_entry()
    put(rows, entry)

    class Planted:
        def __reduce__(self) -> tuple[object, ...]:
            return (mark.touch, ())

    tamper(directory, "UPDATE Cache SET mode = 4, value = ?", pickle.dumps(Planted()))
    found, refused = rows.find(entry.key.digest)
    assert (found, len(refused)) == ([], 1)
    with rows.batch():
        rows.remove_rowids(refused)
    assert rows.totals()[0] == 0
    assert not mark.exists()


def test_a_planted_pickled_key_can_be_evicted_but_not_run(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    put(rows, make_entry())
    tamper(directory, "UPDATE Cache SET raw = 0, key = ?", pickle.dumps(print))
    (victim,) = rows.victims(0, 10)
    with rows.batch():
        rows.evict(victim)
    assert rows.totals()[0] == 0


@pytest.mark.parametrize("value", ["text", 5, None, 1.5])
def test_a_value_that_is_not_bytes_is_refused(
    rows: Rows, directory: Path, make_entry: MakeEntry, value: object
) -> None:
    entry = make_entry()
    put(rows, entry)
    tamper(directory, "UPDATE Cache SET value = ?", value)
    assert rows.find(entry.key.digest)[0] == []


def test_a_row_under_another_key_is_refused(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    one, two = make_entry(b"a"), make_entry(b"b")
    put(rows, one)
    tamper(directory, "UPDATE Cache SET key = ?", row_key(two))
    assert rows.find(two.key.digest)[0] == []


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE Other (x)",
        "CREATE VIEW Look AS SELECT * FROM Cache",
        "INSERT INTO Settings VALUES ('sqlite_writable_schema', 1)",
        "INSERT INTO Settings VALUES ('disk_evil', 1)",
        "UPDATE Settings SET value = 'much' WHERE key = 'size'",
        "UPDATE Settings SET value = -1 WHERE key = 'count'",
    ],
)
def test_a_database_with_more_or_less_in_it_is_foreign(directory: Path, statement: str) -> None:
    Rows(directory, 256 * KIB).close()
    tamper(directory, statement)
    with pytest.raises(Foreign):
        Rows(directory, 256 * KIB)


def test_a_directory_that_would_be_expanded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "$HOME").mkdir()
    with pytest.raises(OSError, match="name"):
        Rows(tmp_path / "$HOME", 256 * KIB)


def test_strings_in_the_schema_stand_in_single_quotes(rows: Rows, directory: Path) -> None:
    connection = sqlite3.connect(directory / "cache.db")
    statements = connection.execute("SELECT sql FROM sqlite_master").fetchall()
    connection.close()
    assert any("'count'" in str(statement) for (statement,) in statements)
    assert not any('"' in str(statement) for (statement,) in statements)


def test_variants_of_one_resource_are_bounded_the_first_stored_goes(
    directory: Path, make_entry: MakeEntry
) -> None:
    rows = Rows(directory, 256 * KIB, variants=3)
    one = [make_entry(variant=((b"accept-language", b"%d" % number),)) for number in range(5)]
    with rows.batch():
        for entry in one:
            put(rows, entry)
        put(rows, one[4])
        put(rows, make_entry(b"other"))
    found, _ = rows.find(one[0].key.digest)
    assert {row.entry.variant for row in found} == {entry.variant for entry in one[2:]}
    assert rows.totals()[0] == 4
    rows.close()


def scanned(rows: Rows, step: int = 2) -> tuple[list[Entry], int]:
    """What a scan in small steps sees, and how many were refused."""
    seen, refused, behind = [], 0, 0
    while (glance := rows.scan(behind, rows.last_rowid(), step)) is not None:
        assert len(glance.rows) + len(glance.refused) <= step
        seen += [row.entry for row in glance.rows]
        refused += len(glance.refused)
        behind = glance.behind
    return seen, refused


def test_a_scan_sees_every_head_once_in_the_order_of_storing(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    small = [make_entry(b"%d" % number) for number in range(5)]
    for entry in small:
        put(rows, entry)
    large = make_entry(b"large", 3)
    put(rows, large, b"abc", directory)
    assert scanned(rows) == ([*small, large], 0)


def test_a_scan_of_nothing_is_at_its_end(rows: Rows) -> None:
    assert rows.last_rowid() == 0
    assert rows.scan(0, 0, 10) is None


def test_a_scan_reads_long_heads_and_long_checks(rows: Rows, make_entry: MakeEntry) -> None:
    entry = replace(make_entry(), scopes=bytes(8 * 4000))
    put(rows, entry)
    assert scanned(rows) == ([entry], 0)


def test_a_scan_charges_what_eviction_would_free(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    put(rows, make_entry(b"a"))
    put(rows, make_entry(b"b", 5000), bytes(5000), directory)
    glance = rows.scan(0, 10, 10)
    assert glance is not None
    assert [row.charge for row in glance.rows] == [row.charge for row in rows.victims(0, 10)]


def test_a_scan_tells_rotten_rows_apart(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    entries = [make_entry(b"%d" % number) for number in range(6)]
    for entry in entries:
        put(rows, entry)
    tamper(directory, "UPDATE Cache SET value = 'text' WHERE rowid = 2")
    tamper(directory, "UPDATE Cache SET value = zeroblob(500) WHERE rowid = 3")
    tamper(directory, "UPDATE Cache SET raw = 0, key = x'00' WHERE rowid = 4")
    tamper(directory, "UPDATE Cache SET value = substr(value, 1, 9) WHERE rowid = 5")
    glance = rows.scan(0, 10, 10)
    assert glance is not None
    assert [row.entry for row in glance.rows] == [entries[0], entries[5]]
    keys = {2: row_key(entries[1]), 3: row_key(entries[2]), 4: None, 5: row_key(entries[4])}
    assert dict(glance.refused) == keys


def test_what_a_scan_saw_is_removed_unless_something_else_is_there(
    rows: Rows, directory: Path, make_entry: MakeEntry
) -> None:
    old, new = make_entry(length=3), make_entry(length=3, etag=b'"2"')
    filename = put(rows, old, b"abc", directory)
    glance = rows.scan(0, 10, 10)
    assert glance is not None
    (row,) = glance.rows
    put(rows, new, b"abc")  # takes the old one's row id
    with rows.batch():
        assert not rows.remove_scanned(row)
    put(rows, old, b"abc", directory)
    with rows.batch():
        assert rows.remove_scanned(row)
        assert not rows.remove_scanned(row)
    assert filename is not None
    assert rows.totals()[0] == 0
    assert [path for path in (directory / "bodies").rglob("*") if path.is_file()] == []
