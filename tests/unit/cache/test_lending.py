"""The store of one of several workers: what it lends, and the copies that it holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge.cache import codec
from edge.cache.leases import Leases
from edge.cache.lending import BODY_BYTES, LendingStore, may_be_lent
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.entry import Entry
    from edge.cache.held import Held
    from tests.unit.cache.conftest import MakeEntry, OpenDisk

MIB = 1 << 20
BODY = b"12345"


class Node:
    """Two workers without a disk: the owner of all keys, and the other."""

    def __init__(self) -> None:
        leases = Leases()
        self.owner = LendingStore(MIB, leases=leases, owns=lambda digest: True)
        self.other = LendingStore(MIB, leases=leases, owns=lambda digest: False)

    async def store(self, entry: Entry, body: bytes = BODY) -> Held:
        held = self.owner.begin(entry)
        assert held.fill is not None
        await held.fill.write(body)
        await self.owner.commit(held)
        return held

    def copy(self, entry: Entry, body: bytes = BODY) -> None:
        """Lend what is stored, and have it put down at once."""
        self.other.keep_copy(codec.to_bytes(entry), body, self.owner.lend(entry.key))

    def copies(self, entry: Entry) -> list[Entry]:
        found = self.other.find_nowait(entry.key)
        assert found is not None
        return [held.entry for held in found.variants]


async def test_a_copy_is_found_and_read_as_what_is_stored(make_entry: MakeEntry) -> None:
    node, entry = Node(), make_entry()
    await node.store(entry)
    node.copy(entry)
    found = node.other.glance(entry.key)
    assert found is not None
    (held,) = found.variants
    assert (held.entry, node.other.whole_nowait(held)) == (entry, BODY)


async def test_a_copy_is_not_found_when_it_is_of_no_use_any_more(make_entry: MakeEntry) -> None:
    node, entry = Node(), make_entry(keep_until=2000.0)
    await node.store(entry)
    node.copy(entry)
    found = node.other.find_nowait(entry.key, 2001.0)
    assert found is not None
    assert not found


async def test_under_a_key_of_others_nothing_is_nothing_and_asks_no_disk(
    make_entry: MakeEntry, open_disk: OpenDisk
) -> None:
    entry = make_entry()
    async with open_disk() as disk:
        store = LendingStore(MIB, disk, leases=Leases(), owns=lambda digest: False)
        found = store.find_nowait(entry.key)
        assert found is not None
        assert not found


async def test_under_a_key_of_its_own_the_disk_is_asked(
    make_entry: MakeEntry, open_disk: OpenDisk
) -> None:
    async with open_disk() as disk:
        store = LendingStore(MIB, disk, leases=Leases(), owns=lambda digest: True)
        assert store.find_nowait(make_entry().key) is None


CHANGES: list[Callable[[LendingStore, Held], object]] = [
    lambda store, held: store.invalidate(held.entry.key),
    lambda store, held: store.drop(held),
    lambda store, held: store.freshen(held, replace(held.entry, date=2000.0)),
    lambda store, held: store.begin(replace(held.entry, date=2000.0)),
]


@pytest.mark.parametrize("change", CHANGES, ids=["invalidate", "drop", "freshen", "begin"])
async def test_copies_end_with_what_they_are_of(
    make_entry: MakeEntry, change: Callable[[LendingStore, Held], object]
) -> None:
    node, entry = Node(), make_entry()
    held = await node.store(entry)
    node.copy(entry)
    assert node.copies(entry) == [entry]
    change(node.owner, held)
    assert node.copies(entry) == []


async def test_copies_end_when_what_was_being_filled_takes_their_place(
    make_entry: MakeEntry,
) -> None:
    node, entry = Node(), make_entry()
    await node.store(entry)
    new = node.owner.begin(replace(entry, date=2000.0))
    node.copy(entry)  # it was lent while the new one came, as one of another variant is
    assert new.fill is not None
    await new.fill.write(BODY)
    await node.owner.commit(new)
    assert node.copies(entry) == []


async def test_what_is_broken_off_ends_copies_for_nothing(make_entry: MakeEntry) -> None:
    node, entry = Node(), make_entry()
    await node.store(entry)
    new = node.owner.begin(replace(entry, date=2000.0))
    node.owner.abort(new, ExchangeError(Failure.BODY_TRUNCATED))
    node.copy(entry)
    assert node.copies(entry) == [entry]


async def test_a_copy_put_down_late_is_none(make_entry: MakeEntry) -> None:
    node, entry = Node(), make_entry()
    await node.store(entry)
    lease = node.owner.lend(entry.key)
    node.owner.invalidate(entry.key)
    node.other.keep_copy(codec.to_bytes(entry), BODY, lease)
    assert node.copies(entry) == []
    assert len(node.other._ram) == 0


def test_a_copy_that_cannot_be_read_is_none(make_entry: MakeEntry) -> None:
    node, entry = Node(), make_entry()
    node.other.keep_copy(codec.to_bytes(entry)[:-1], BODY, 0)
    assert node.copies(entry) == []


def test_a_copy_without_all_of_its_body_is_none(make_entry: MakeEntry) -> None:
    node, entry = Node(), make_entry()
    node.copy(entry, BODY[1:])
    assert node.copies(entry) == []


def test_variants_are_copied_side_by_side_and_replace_their_own_kind(
    make_entry: MakeEntry,
) -> None:
    node = Node()
    english = make_entry(variant=((b"accept-language", b"en"),))
    german = make_entry(variant=((b"accept-language", b"de"),))
    newer = replace(english, date=2000.0)
    for entry in (english, german, newer):
        node.copy(entry)
    assert node.copies(english) == [newer, german]


def test_only_those_copies_are_found_that_have_not_ended(make_entry: MakeEntry) -> None:
    node = Node()
    english = make_entry(variant=((b"accept-language", b"en"),))
    german = make_entry(variant=((b"accept-language", b"de"),))
    node.copy(english)
    node.owner.invalidate(english.key)
    node.copy(german)
    assert node.copies(english) == [german]


def test_copies_are_forgotten_by_their_key(make_entry: MakeEntry) -> None:
    node, entry = Node(), make_entry()
    node.copy(entry)
    node.other.drop_copies(entry.key)
    assert node.copies(entry) == []


async def test_copies_are_not_told_of_as_stored(make_entry: MakeEntry) -> None:
    node, entry = Node(), make_entry()
    await node.store(entry)
    node.copy(entry)
    assert not await node.other.look(entry.key)
    assert await node.owner.look(entry.key)
    batch = await node.other.scan().next()
    assert batch == []


async def test_who_owns_nothing_any_more_has_nothing_and_stores_nothing(
    make_entry: MakeEntry,
) -> None:
    node, entry = Node(), make_entry()
    await node.store(entry)
    coming = node.owner.begin(make_entry(b"b"))
    node.owner.disown()
    assert coming.fill is not None
    await coming.fill.write(BODY)
    await node.owner.commit(coming)
    for key in (entry.key, coming.entry.key):
        found = node.owner.find_nowait(key)
        assert found is not None
        assert not found
    assert node.owner.statistics().memory.entries == 0


async def test_only_what_is_whole_in_memory_and_small_may_be_lent(make_entry: MakeEntry) -> None:
    node = Node()
    held = await node.store(make_entry())
    assert may_be_lent(held, (held,))
    filling = node.owner.begin(make_entry(b"b"))
    assert not may_be_lent(filling, (filling,))
    large = await node.store(make_entry(b"c", None), bytes(BODY_BYTES + 1))
    assert not may_be_lent(large, (large,))
    held.body = None
    assert not may_be_lent(held, (held,))


async def test_what_varies_unlike_its_siblings_is_not_lent(make_entry: MakeEntry) -> None:
    node = Node()
    held = await node.store(make_entry(variant=((b"accept-language", b"en"),)))
    sibling = await node.store(make_entry(variant=((b"accept-language", b"de"),)))
    other = await node.store(make_entry(variant=((b"cookie", None),)))
    assert may_be_lent(held, (held, sibling))
    assert not may_be_lent(held, (held, sibling, other))


async def test_answers_made_from_copies_are_counted_each_once_and_no_others(
    make_entry: MakeEntry,
) -> None:
    node, entry = Node(), make_entry()
    await node.store(entry)
    node.copy(entry)
    for store in (node.other, node.owner):
        slot = store.at_hand(entry.key)
        assert slot is not None
        held = slot.value.variants[0]
        store.serve(slot, held)  # as the lane does with what it knows,
        store.use(entry.key)  # with what it does not,
        store.open_nowait(held)  # and as a task does
        store.use(make_entry(b"other").key)
    assert (node.other.served_copies, node.owner.served_copies) == (3, 0)
