"""The store looked at and cleared of the dead: no side effects here, the right ones there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge.cache.entry import Entry, Seq
from edge.cache.store import Store
from edge.cache.threads import Inline, Threads
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from pathlib import Path

    from edge.cache.body import Body
    from edge.cache.held import Held
    from edge.cache.threads import MakeWorkers
    from tests.unit.cache.conftest import MakeEntry, OpenDisk

MIB = 1 << 20
SOME = bytes(10_000)
LARGE = bytes(3 * MIB)


async def fill(store: Store, entry: Entry, body: bytes = b"hello") -> Held:
    held = store.begin(entry)
    assert held.fill is not None
    reader, taken = held.fill.reader(), 0
    for start in range(0, len(body), 200_000):
        await held.fill.write(body[start : start + 200_000])
        while taken < held.fill.size:
            taken += len(await reader.read(taken, 65_536))
    reader.close()
    await store.commit(held)
    return held


async def read(body: Body) -> bytes:
    got = bytearray()
    while data := await body.read(len(got), 65_536):
        got += data
    body.close()
    return bytes(got)


def entries(found: tuple[Held, ...]) -> set[Entry]:
    return {held.entry for held in found}


async def test_looking_finds_what_finding_does_and_changes_nothing(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    variants = [make_entry(variant=((b"accept-language", name),)) for name in (b"en", b"de")]
    expired = make_entry(b"expired", keep_until=1.0)
    async with open_disk() as disk:
        for entry in (*variants, expired):
            await fill(Store(MIB, disk), entry)
        store = Store(MIB, disk)
        before = store.statistics()
        assert entries((await store.look(variants[0].key, 5.0)).variants) == set(variants)
        assert not await store.look(expired.key, 5.0)
        assert store.statistics() == before
        assert store.find_nowait(variants[0].key) is None
        assert disk._writer.hand.marks == 0
        found = await store.find(variants[0].key, 5.0)
        assert (await store.look(variants[0].key, 5.0)).variants == found.variants


async def test_looking_shows_what_is_being_filled(make_entry: MakeEntry) -> None:
    store = Store(MIB)
    held = store.begin(make_entry())
    assert (await store.look(held.entry.key)).variants == (held,)
    assert not await store.look(make_entry(b"other").key)


async def test_a_body_peeked_at_is_read_and_not_promoted(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    large, small = make_entry(b"large", len(LARGE)), make_entry(b"small", 20_000)
    async with open_disk() as disk:
        await fill(Store(MIB, disk), large, LARGE)
        await fill(Store(MIB, disk), small, bytes(20_000))
        store = Store(64 * MIB, disk)
        for entry, body in ((large, LARGE), (small, bytes(20_000))):
            for _ in range(3):
                (held,) = (await store.look(entry.key)).variants
                assert await read(await store.peek_body(held)) == body
            (held,) = (await store.find(entry.key)).variants
            for _ in range(3):
                assert await read(await store.peek_body(held)) == body
            assert (held.hits, held.used, held.body) == (0, 0, None)
        assert store.statistics().promoted == 0


async def test_a_body_in_memory_or_being_filled_can_be_peeked_at(make_entry: MakeEntry) -> None:
    store = Store(MIB)
    held = store.begin(make_entry())
    assert held.fill is not None
    await held.fill.write(b"hello")
    body = await store.peek_body(held)
    assert await body.read(0, 9) == b"hello"
    body.close()
    await store.commit(held)
    assert await read(await store.peek_body(held)) == b"hello"
    assert held.hits == 0


async def test_a_lost_body_peeked_at_is_forgotten(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        held = await fill(store, make_entry(length=len(LARGE)), LARGE)
        (tmp_path / "store" / str(held.row and held.row.filename)).unlink()
        with pytest.raises(ExchangeError) as caught:
            await store.peek_body(held)
        assert caught.value.failure is Failure.BODY_LOST
        assert not await store.look(held.entry.key)


async def test_a_new_head_has_the_hits_of_the_old_and_its_own_purge_number(
    make_entry: MakeEntry,
) -> None:
    store = Store(MIB)
    held = await fill(store, make_entry())
    held.passed = Seq(9)
    held.count_hit()
    heir = store.freshen(held, replace(make_entry(etag=b'"2"'), fetched_at=Seq(4)))
    assert (heir.hits, heir.passed) == (1, 4)
    held.count_hit()  # by who had found the old head
    assert heir.hits == 2
    filling = store.begin(replace(make_entry(b"b", None), fetched_at=Seq(2)))
    assert filling.passed == 2
    filling.passed = Seq(9)
    assert store.freshen(filling, replace(filling.entry, fetched_at=Seq(5))).passed == 5


@pytest.mark.parametrize("body", [b"hello", LARGE])
async def test_one_dropped_while_it_is_filled_is_read_to_its_end_and_not_stored(
    open_disk: OpenDisk, make_entry: MakeEntry, body: bytes
) -> None:
    """What it was to replace is judged by itself: it may have other tags."""
    old = make_entry(length=3, at=1000.0)
    new = make_entry(length=len(body), at=2000.0, etag=b'"2"')
    async with open_disk() as disk:
        store = Store(MIB, disk)
        await fill(store, old, b"old")
        held = store.begin(new)
        assert held.fill is not None
        reader, got = held.fill.reader(), bytearray()
        for start in range(0, len(body), 200_000):
            await held.fill.write(body[start : start + 200_000])
            store.drop(held)
            while len(got) < held.fill.size:
                got += await reader.read(len(got), 65_536)
        await store.commit(held)
        assert await reader.read(len(got), 9) == b""
        reader.close()
        assert bytes(got) == body
        assert entries((await store.find(old.key)).variants) == {old}
        assert entries((await Store(MIB, disk).find(old.key)).variants) == {old}
        assert disk.statistics().spooled_bytes == 0


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_one_dropped_before_it_is_saved_is_in_neither_tier(
    open_disk: OpenDisk, make_entry: MakeEntry, io: MakeWorkers
) -> None:
    for body in (b"hello", LARGE):
        async with open_disk(io=io) as disk:
            store = Store(MIB, disk)
            held = await fill(store, make_entry(length=len(body)), body)
            store.drop(held)
            assert not await store.find(held.entry.key)
            await disk.flush()
            assert not await Store(MIB, disk).find(held.entry.key)


async def test_one_that_is_only_a_row_is_dropped_from_the_disk(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        await fill(Store(MIB, disk), make_entry(length=len(SOME)), SOME)
        store = Store(MIB, disk)
        (held,) = (await store.look(make_entry().key)).variants
        store.drop(held)
        assert disk.statistics().rows == 0


@pytest.mark.parametrize("at", [2000.0, 1000.0, 500.0])
async def test_dropping_the_old_spares_the_new_that_has_its_place(
    open_disk: OpenDisk, make_entry: MakeEntry, at: float
) -> None:
    """Also where the clock stood still or went back: the newer purge number tells."""
    old = make_entry(at=1000.0)
    new = replace(make_entry(at=at, etag=b'"2"'), fetched_at=Seq(1))
    async with open_disk() as disk:
        store = Store(MIB, disk)
        held = await fill(store, old)
        await fill(store, new)
        store.drop(held)
        assert entries((await store.find(old.key)).variants) == {new}
        assert entries((await Store(MIB, disk).find(old.key)).variants) == {new}


async def test_dropping_a_head_that_was_freshened_spares_its_heir(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    new = replace(make_entry(etag=b'"2"'), fetched_at=Seq(1))
    async with open_disk() as disk:
        store = Store(MIB, disk)
        held = await fill(store, make_entry())
        store.freshen(held, new)
        store.drop(held)
        assert entries((await store.find(new.key)).variants) == {new}
        assert entries((await Store(MIB, disk).find(new.key)).variants) == {new}


async def test_dropping_what_is_stored_spares_what_is_being_filled(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        old = await fill(store, make_entry())
        new = store.begin(make_entry(length=5, etag=b'"2"', at=2000.0))
        store.drop(old)
        assert (await store.find(old.entry.key)).variants == (new,)
        assert new.fill is not None
        await new.fill.write(b"again")
        await store.commit(new)
        assert entries((await Store(MIB, disk).find(old.entry.key)).variants) == {new.entry}


async def test_a_glance_counts_as_no_use_until_it_is_said_to_be_one(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    entry = make_entry()
    async with open_disk() as disk:
        store = Store(MIB, disk)
        assert store.glance(entry.key) is None  # the disk has to be asked
        held = await fill(store, entry)
        found = store.glance(entry.key)
        assert found is not None
        assert found.variants == (held,)
        memory = store.statistics().memory
        assert (memory.hits, memory.misses) == (0, 0)
        store.use(entry.key)
        assert store.statistics().memory.hits == 1
    assert Store(MIB).glance(entry.key) is not None


async def test_a_whole_body_is_given_out_as_it_is_and_counted(make_entry: MakeEntry) -> None:
    store = Store(MIB)
    held = await fill(store, make_entry())
    heir = store.freshen(held, replace(held.entry, fetched_at=Seq(1)))
    before = heir.used
    assert store.whole_nowait(held) is heir.body
    assert (heir.hits, held.hits) == (1, 0)
    assert heir.used > before


async def test_what_is_at_hand_is_counted_when_it_is_served(make_entry: MakeEntry) -> None:
    store = Store(MIB)
    entry = make_entry()
    assert store.at_hand(entry.key) is None
    held = await fill(store, entry)
    slot = store.at_hand(entry.key)
    assert slot is not None
    assert slot.value.variants == (held,)
    memory, before = store.statistics().memory, held.used
    assert (memory.hits, memory.misses, held.hits) == (0, 0, 0)
    store.serve(slot, held)
    assert (store.statistics().memory.hits, held.hits) == (1, 1)
    assert held.used > before
    other = make_entry(b"b")
    new = store.begin(other)
    assert store.at_hand(entry.key) is slot
    assert store.at_hand(other.key) is None  # it is being filled
    store.abort(new, ExchangeError(Failure.CLOSED_EARLY))
