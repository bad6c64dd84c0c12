"""Jobs: each changes the rows it is about, and only while they are what it thinks they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge.cache.entry import Seq
from edge.cache.integrity import checks_of
from edge.cache.jobs import Job, Rehead, Remove, RemoveRefused, Save
from edge.cache.packing import Packed, pack, row_key
from edge.cache.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge.cache.entry import Entry
    from tests.unit.cache.conftest import MakeEntry

BODY = b"hello"


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    opened = Rows(tmp_path, 1 << 18)
    yield opened
    opened.close()


def save_of(entry: Entry) -> Save:
    job = Save(entry, checks_of(BODY), BODY, None, lambda row: None)
    job.packed = Packed(pack(entry, job.checks, BODY))
    return job


def do(rows: Rows, *jobs: Job) -> None:
    with rows.batch():
        for job in jobs:
            job.apply(rows)


def heads(rows: Rows, entry: Entry) -> list[Entry]:
    return [row.entry for row in rows.find(entry.key.digest)[0]]


def test_a_save_replaces_what_the_key_had(rows: Rows, make_entry: MakeEntry) -> None:
    old, new = make_entry(), make_entry(etag=b'"2"')
    do(rows, save_of(old), save_of(new))
    assert heads(rows, new) == [new]
    assert save_of(new).prefix == row_key(new)


def test_a_save_without_its_packed_form_does_nothing(rows: Rows, make_entry: MakeEntry) -> None:
    do(rows, Save(make_entry(), b"", BODY, None, lambda row: None))
    assert heads(rows, make_entry()) == []


def test_a_head_is_changed_only_while_it_is_the_one_that_was_meant(
    rows: Rows, make_entry: MakeEntry
) -> None:
    first, second, third = (make_entry(etag=b'"%d"' % number) for number in range(3))
    do(rows, save_of(first), Rehead(first, second))
    assert heads(rows, first) == [second]
    do(rows, Rehead(first, third))
    assert heads(rows, first) == [second]


def test_a_removal_may_spare_what_is_newer(rows: Rows, make_entry: MakeEntry) -> None:
    old, new = make_entry(at=1000.0), make_entry(at=2000.0)
    do(rows, save_of(new), Remove(row_key(old), old))
    assert heads(rows, new) == [new]
    do(rows, Remove(row_key(old), new))
    assert heads(rows, new) == []


def test_a_removal_spares_what_was_asked_for_after_a_later_purge(
    rows: Rows, make_entry: MakeEntry
) -> None:
    old = make_entry(at=2000.0)
    new = replace(make_entry(at=1000.0), fetched_at=Seq(1))  # the clock was set back
    do(rows, save_of(new), Remove(row_key(old), old))
    assert heads(rows, new) == [new]


def test_a_row_that_reads_well_again_is_not_removed_as_refused(
    rows: Rows, make_entry: MakeEntry
) -> None:
    entry = make_entry()
    do(rows, save_of(entry), RemoveRefused(entry.key.digest, [1]))
    assert heads(rows, entry) == [entry]
