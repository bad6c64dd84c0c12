"""The inventory: everything stored, in memory or on disk, each once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge.cache.entry import Entry, Seq
from edge.cache.inventory import BATCH_ITEMS, Inventory, Item
from edge.cache.store import Store
from edge.cache.threads import Inline, Threads

if TYPE_CHECKING:
    from edge.cache.held import Held
    from edge.cache.threads import MakeWorkers
    from tests.unit.cache.conftest import MakeEntry, OpenDisk

MIB = 1 << 20


async def fill(store: Store, entry: Entry, body: bytes = b"hello") -> Held:
    held = store.begin(entry)
    assert held.fill is not None
    await held.fill.write(body)
    await store.commit(held)
    return held


async def rest(inventory: Inventory) -> list[Item]:
    items: list[Item] = []
    while (batch := await inventory.next()) is not None:
        assert len(batch) <= BATCH_ITEMS
        items += batch
    return items


def where(items: list[Item]) -> dict[bytes, tuple[bool, bool]]:
    assert len({(item.entry.key.url, item.entry.variant) for item in items}) == len(items)
    return {
        item.entry.key.url.rpartition(b"/")[2]: (item.in_memory, item.on_disk) for item in items
    }


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_each_is_told_once_with_the_tiers_that_have_it(
    open_disk: OpenDisk, make_entry: MakeEntry, io: MakeWorkers
) -> None:
    async with open_disk(io=io) as disk:
        await fill(Store(MIB, disk), make_entry(b"disk"))
        store = Store(MIB, disk)
        await fill(store, make_entry(b"both"))
        await disk.flush()
        disk.drop((await fill(store, make_entry(b"memory"))).entry)
        await disk.flush()
        store.begin(make_entry(b"filling"))
        assert where(await rest(store.scan())) == {
            b"disk": (False, True),
            b"both": (True, True),
            b"memory": (True, False),
        }


async def test_without_a_disk_it_is_what_memory_holds(make_entry: MakeEntry) -> None:
    store = Store(64 * MIB)
    names = [b"%d" % number for number in range(2 * BATCH_ITEMS)]
    for name in names:
        await fill(store, make_entry(name))
    assert where(await rest(store.scan())) == dict.fromkeys(names, (True, False))
    assert await rest(Store(MIB).scan()) == []


async def test_all_variants_of_a_resource_are_told(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    variants = [((b"accept-language", name),) for name in (b"en", b"de")]
    async with open_disk() as disk:
        for stores in (1, 2):
            store = Store(MIB, disk)
            if stores == 1:
                for variant in variants:
                    await fill(store, make_entry(variant=variant))
            items = await rest(store.scan())
            assert {item.entry.variant for item in items} == set(variants)
            assert len(items) == 2


async def test_an_item_tells_hits_size_and_the_purge_it_has_passed(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        entry = replace(make_entry(), fetched_at=Seq(3))
        held = await fill(store, entry)
        held.count_hit()
        held.passed = Seq(7)
        (item,) = await rest(store.scan())
        assert (item.entry, item.hits, item.passed) == (entry, 1, 7)
        assert item.bytes > 128
        (item,) = await rest(Store(MIB, disk).scan())
        assert (item.hits, item.passed) == (None, 3)
        alone = Store(MIB)
        held = await fill(alone, entry)
        (item,) = await rest(alone.scan())
        assert item.bytes == held.cost


async def test_memorys_newer_head_stands_for_the_row(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk(io=Threads) as disk:
        store = Store(MIB, disk)
        held = await fill(store, make_entry())
        await disk.flush()
        inventory = store.scan()
        newer = make_entry(etag=b'"2"', at=2000.0)
        store.freshen(held, newer)
        assert [item.entry for item in await rest(inventory)] == [newer]


async def test_what_leaves_memory_meanwhile_is_told_by_the_disk_or_not_at_all(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        stays, goes = await fill(store, make_entry(b"stays")), make_entry(b"goes")
        disk.drop((await fill(store, goes)).entry)
        inventory = store.scan()
        store.invalidate(goes.key)
        assert [item.entry for item in await rest(inventory)] == [stays.entry]


async def test_of_what_is_in_both_tiers_memory_tells_nothing_more_in_bounded_batches(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(64 * MIB, disk)
        for number in range(BATCH_ITEMS + 5):
            await fill(store, make_entry(b"%d" % number))
        inventory = store.scan()
        batches = []
        while (batch := await inventory.next()) is not None:
            batches.append(len(batch))
        assert batches == [BATCH_ITEMS, 5, 0, 0]
