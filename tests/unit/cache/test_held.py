"""What is held of a resource."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge.cache.held import NOTHING, Held, Resource, kept
from edge.cache.packing import StoredRow

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
