"""What is held of a resource."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge.cache.fill import Fill
from edge.cache.held import NOTHING, Held, Resource, kept, resource_of
from edge.cache.packing import StoredRow
from edge.cache.window import FillMemory

if TYPE_CHECKING:
    from tests.unit.cache.conftest import MakeEntry


def test_the_newest_head_has_the_body(make_entry: MakeEntry) -> None:
    old, middle, new = (Held(make_entry(b"a")) for _ in range(3))
    old.heir, middle.heir = middle, new
    assert old.newest is middle.newest is new.newest is new


def test_what_is_held_costs_its_head_its_scopes_its_checks_and_its_body(
    make_entry: MakeEntry,
) -> None:
    entry = make_entry(b"a")
    bare = Held(entry).cost
    assert Held(entry, body=b"x" * 100).cost == bare + 100
    assert Held(replace(entry, scopes=bytes(24))).cost == bare + 24 - len(entry.scopes)
    row = StoredRow(b"", entry, b"1234", None, None)
    assert Held(entry, row=row).cost == bare + 4


def test_a_resource_is_something_if_it_has_a_variant(make_entry: MakeEntry) -> None:
    assert not NOTHING
    assert Resource((Held(make_entry(b"a")),))


def test_what_is_of_no_more_use_is_not_kept(make_entry: MakeEntry) -> None:
    short = Held(replace(make_entry(b"a"), keep_until=10.0))
    long = Held(replace(make_entry(b"a"), keep_until=20.0))
    both = Resource((short, long))
    assert kept(both, 0.0) is both
    assert kept(both, 9.0) is both
    assert kept(both, 10.0).variants == (long,)


def test_a_body_that_is_lost_on_disk_is_not_looked_for_there(make_entry: MakeEntry) -> None:
    row = StoredRow(b"", make_entry(b"a"), b"1234", None, None)
    held = Held(make_entry(b"a"), row=row)
    held.lose(replace(row))
    assert held.row is row
    held.lose(row)
    assert held.row is None


def test_a_body_is_read_from_memory_or_from_what_is_being_filled(make_entry: MakeEntry) -> None:
    held = Held(make_entry(b"a"))
    assert held.reader() is None
    held.fill = Fill(None, shared=True, memory=FillMemory(1 << 20))
    reader = held.reader()
    assert reader is not None
    assert reader.read_nowait(0, 9) is None
    held.body = b"whole"
    whole = held.reader()
    assert whole is not None
    assert whole.read_nowait(0, 9) == b"whole"
    reader.close()
    held.fill.close()


def test_what_left_memory_and_came_back_is_the_same(make_entry: MakeEntry) -> None:
    one = Held(make_entry(b"a"))
    (back,) = resource_of([StoredRow(b"", replace(one.entry), b"1234", b"body", None)]).variants
    assert one.is_same(one)
    assert one.is_same(back)
    assert back.body == b"body"
    assert not one.is_same(Held(make_entry(b"b")))
