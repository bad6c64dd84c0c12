"""The store from where an exchange stands: find, read, begin, commit."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.cache.store import PROMOTE_WITHIN_S, STREAM_SPOOL_BYTES, VARIANTS, Store
from edge.cache.threads import Inline, Threads
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from pathlib import Path

    from edge.cache.body import Body
    from edge.cache.diskbody import DiskBody
    from edge.cache.entry import Entry
    from edge.cache.fill import Fill
    from edge.cache.held import Held
    from edge.cache.threads import MakeWorkers
    from tests.unit.cache.conftest import MakeEntry, OpenDisk

MIB = 1 << 20
LARGE = os.urandom(3 * MIB + 5)
GONE = ExchangeError(Failure.BODY_TRUNCATED)


def with_language(make_entry: MakeEntry, language: bytes, **more: object) -> Entry:
    entry: Entry = make_entry(variant=((b"accept-language", language),), **more)
    return entry


def fill_of(held: Held) -> Fill:
    assert held.fill is not None
    return held.fill


def reader_of(store: Store, held: Held) -> Body:
    """A reader that needs no disk."""
    body = store.open_nowait(held)
    assert body is not None
    return body


def in_memory(store: Store, entry: Entry) -> tuple[Held, ...]:
    """What is found without the disk."""
    found = store.find_nowait(entry.key)
    assert found is not None
    return found.variants


async def pour(store: Store, held: Held, body: bytes) -> None:
    """Write a body while a reader keeps up, as without one a full store would wait for one."""
    reader, taken = reader_of(store, held), 0
    for start in range(0, len(body), 200_000):
        await fill_of(held).write(body[start : start + 200_000])
        while taken < fill_of(held).size:
            taken += len(await reader.read(taken, 65_536))
    reader.close()


async def fill(store: Store, entry: Entry, body: bytes) -> Held:
    held = store.begin(entry)
    await pour(store, held, body)
    await store.commit(held)
    return held


async def read(store: Store, held: Held) -> bytes:
    body = await store.open(held)
    got = bytearray()
    while data := await body.read(len(got), 65_536):
        got += data
    body.close()
    return bytes(got)


async def bodies(store: Store, entry: Entry) -> list[bytes]:
    found = await store.find(entry.key)
    return [await read(store, held) for held in found.variants]


async def test_without_a_disk_memory_alone_remembers(make_entry: MakeEntry) -> None:
    store = Store(MIB)
    entry = make_entry()
    assert not store.find_nowait(entry.key)
    await fill(store, entry, b"hello")
    assert await bodies(store, entry) == [b"hello"]
    (held,) = in_memory(store, entry)
    assert reader_of(store, held).read_nowait(0, 9) == b"hello"
    assert not await store.find(make_entry(b"other").key)


async def test_without_a_disk_a_body_that_memory_refuses_is_gone_when_read(
    make_entry: MakeEntry,
) -> None:
    store = Store(MIB)
    entry = make_entry(length=MIB // 2)
    await fill(store, entry, bytes(MIB // 2))
    assert not await store.find(entry.key)


async def test_without_a_disk_what_memory_takes_is_stored_whole(make_entry: MakeEntry) -> None:
    store = Store(64 * MIB)
    entry = make_entry(length=len(LARGE))
    await fill(store, entry, LARGE)
    assert await bodies(store, entry) == [LARGE]


async def test_what_is_being_filled_is_found_and_read_along(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        entry = make_entry(length=None)
        held = store.begin(entry)
        await fill_of(held).write(b"hel")
        (found,) = (await store.find(entry.key)).variants
        assert found is held
        body = reader_of(store, found)
        assert body.read_nowait(0, 9) == b"hel"
        await fill_of(held).write(b"lo")
        await store.commit(held)
        assert await body.read(3, 9) == b"lo"
        assert await body.read(5, 9) == b""
        body.close()
        assert held.entry.length == 5
        assert store.statistics().filling == 0


async def test_the_old_answer_stays_until_the_new_one_is_whole(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        old, new = make_entry(length=3), make_entry(length=3, etag=b'"2"')
        await fill(store, old, b"old")
        held = store.begin(new)
        await fill_of(held).write(b"ne")
        store.abort(held, GONE)
        assert await bodies(store, old) == [b"old"]
        await fill(store, new, b"new")
        assert await bodies(store, old) == [b"new"]


async def test_a_slow_answer_does_not_take_the_place_of_one_that_was_asked_for_later(
    make_entry: MakeEntry,
) -> None:
    store = Store(MIB)
    early, late = make_entry(at=1000.0), make_entry(at=1001.0)
    slow = store.begin(early)
    await fill(store, late, b"newer")
    await pour(store, slow, b"older")
    await store.commit(slow)
    assert await bodies(store, late) == [b"newer"]

    too_slow = store.begin(early)  # its head has come after the newer answer
    assert await bodies(store, late) == [b"newer"]
    await pour(store, too_slow, b"older")
    await store.commit(too_slow)
    assert await bodies(store, late) == [b"newer"]
    assert store.statistics().filling == store.statistics().fill_memory_bytes == 0


async def test_a_body_of_another_length_than_announced_is_not_stored(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        held = store.begin(make_entry(length=10))
        await fill_of(held).write(b"short")
        await store.commit(held)
        assert fill_of(held).failed
        assert not await store.find(held.entry.key)


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_a_large_body_goes_to_disk_and_is_read_from_there(
    open_disk: OpenDisk, make_entry: MakeEntry, io: MakeWorkers
) -> None:
    entry = make_entry(length=len(LARGE))
    async with open_disk(io=io) as disk:
        store = Store(MIB, disk)
        held = await fill(store, entry, LARGE)
        assert await read(store, held) == LARGE
        await disk.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert held.fill is None
        assert await bodies(store, entry) == [LARGE]
        assert disk.statistics().spooled_bytes == 0
        assert store.statistics().fill_memory_bytes == 0
    async with open_disk(io=io) as disk:
        assert await bodies(Store(MIB, disk), entry) == [LARGE]


async def test_all_variants_come_from_disk_at_once(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    entries = [with_language(make_entry, name, length=2) for name in (b"en", b"de", b"fr")]
    async with open_disk() as disk:
        store = Store(MIB, disk)
        for entry in entries:
            await fill(store, entry, entry.variant[0][1] or b"")
    async with open_disk() as disk:
        store = Store(MIB, disk)
        assert store.find_nowait(entries[0].key) is None
        assert sorted(await bodies(store, entries[0])) == [b"de", b"en", b"fr"]
        assert len(in_memory(store, entries[0])) == 3


async def test_a_new_variant_does_not_hide_those_on_disk(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    english = with_language(make_entry, b"en", length=2)
    german = with_language(make_entry, b"de", length=2)
    async with open_disk() as disk:
        await fill(Store(MIB, disk), english, b"en")
        store = Store(MIB, disk)  # as if memory had forgotten it
        await fill(store, german, b"de")
        assert sorted(await bodies(store, german)) == [b"de", b"en"]


async def test_variants_are_capped_and_the_least_opened_goes(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(4 * MIB, disk)
        first = with_language(make_entry, b"0", length=1)
        await store.find(first.key)
        for number in range(VARIANTS + 5):
            await fill(store, with_language(make_entry, b"%d" % number, length=1), b"x")
            found = await store.find(first.key)
            await read(store, found.variants[-1])
        assert len((await store.find(first.key)).variants) == VARIANTS
        assert disk.statistics().rows == VARIANTS


async def test_an_endless_answer_for_one_who_does_not_read_takes_little_of_the_disk(
    open_disk: OpenDisk,
) -> None:
    async with (
        open_disk(quota_bytes=4 * STREAM_SPOOL_BYTES) as disk,
        trio.open_nursery() as nursery,
    ):
        store = Store(MIB, disk)
        fill = store.private_fill()
        reader = fill.reader()

        async def pour() -> None:
            while True:
                await fill.write(bytes(1 << 18))

        nursery.start_soon(pour)
        await wait_all_tasks_blocked()
        assert STREAM_SPOOL_BYTES - MIB < fill.size < STREAM_SPOOL_BYTES + 2 * MIB
        nursery.cancel_scope.cancel()
        reader.close()
        fill.close()


async def test_of_variants_that_come_from_disk_the_oldest_goes(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    numbers = range(VARIANTS + 1)
    entries = [with_language(make_entry, b"%d" % at, length=1, at=at) for at in numbers]
    async with open_disk() as disk:
        for entry in entries[:-1]:
            await fill(Store(4 * MIB, disk), entry, b"x")
        store = Store(4 * MIB, disk)
        assert len((await store.find(entries[0].key)).variants) == VARIANTS
        await fill(store, entries[-1], b"x")
        left = {held.entry.variant for held in (await store.find(entries[0].key)).variants}
        assert left == {entry.variant for entry in entries[1:]}


async def test_a_freshened_head_stands_over_the_same_body_in_both_tiers(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    for body in (b"hello", LARGE):
        old = make_entry(length=len(body))
        new = make_entry(length=len(body), etag=b'"2"', at=2000.0)
        async with open_disk() as disk:
            store = Store(MIB, disk)
            held = await fill(store, old, body)
            heir = store.freshen(held, replace(new, length=len(body)))
            assert heir.entry == new
            assert await bodies(store, old) == [body]
        async with open_disk() as disk:
            store = Store(MIB, disk)
            (held,) = (await store.find(old.key)).variants
            assert held.entry == new
            assert await read(store, held) == body
            store.drop(held)


async def test_a_head_freshened_by_one_that_knew_no_length_has_the_bodys(
    make_entry: MakeEntry,
) -> None:
    store = Store(MIB)
    held = await fill(store, make_entry(length=5), b"hello")
    first = store.freshen(held, make_entry(etag=b'"2"'))
    second = store.freshen(held, make_entry(etag=b'"3"'))  # by who had found the first head
    assert (first.entry.length, second.entry.length) == (5, 5)
    (now,) = (await store.find(held.entry.key)).variants
    assert now is second


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_a_head_freshened_while_its_body_is_being_saved_keeps_it(
    open_disk: OpenDisk, make_entry: MakeEntry, io: MakeWorkers
) -> None:
    old = make_entry(length=len(LARGE))
    new = make_entry(length=len(LARGE), etag=b'"2"')
    async with open_disk(io=io) as disk:
        store = Store(MIB, disk)
        held = await fill(store, old, LARGE)
        heir = store.freshen(held, new)
        await disk.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert heir.fill is None
        assert await read(store, heir) == LARGE
        assert await read(store, held) == LARGE  # for who found it before the 304 came


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_an_invalidated_resource_is_gone_from_both_tiers(
    open_disk: OpenDisk, make_entry: MakeEntry, io: MakeWorkers
) -> None:
    async with open_disk(io=io) as disk:
        store = Store(MIB, disk)
        entry = make_entry()
        await fill(store, entry, b"hello")
        store.invalidate(entry.key)
        assert not await store.find(entry.key)


async def test_what_is_invalidated_while_it_is_filled_is_read_and_not_stored(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    for size in (5, len(LARGE)):
        async with open_disk() as disk:
            store = Store(MIB, disk)
            held = store.begin(make_entry(length=size))
            reader = reader_of(store, held)
            await fill_of(held).write(LARGE[:size])
            store.invalidate(held.entry.key)
            await store.commit(held)
            got = b""
            while data := await reader.read(len(got), 65_536):
                got += data
            reader.close()
            assert got == LARGE[:size]
            assert not await store.find(held.entry.key)
            assert disk.statistics().spooled_bytes == 0


async def test_a_dropped_variant_leaves_the_others(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        await store.find(make_entry().key)
        english = await fill(store, with_language(make_entry, b"en", length=2), b"en")
        await fill(store, with_language(make_entry, b"de", length=2), b"de")
        store.drop(english)
        assert await bodies(store, english.entry) == [b"de"]


async def test_a_lost_body_is_a_miss_and_is_forgotten(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    entry = make_entry(length=len(LARGE))
    async with open_disk() as disk:
        store = Store(MIB, disk)
        held = await fill(store, entry, LARGE)
        (tmp_path / "store" / str(held.row and held.row.filename)).unlink()
        with pytest.raises(ExchangeError) as caught:
            await store.open(held)
        assert caught.value.failure is Failure.BODY_LOST
        assert not await store.find(entry.key)


async def test_the_second_opening_within_a_while_brings_a_body_to_memory(
    open_disk: OpenDisk, make_entry: MakeEntry, autojump_clock: object
) -> None:
    body = os.urandom(100_000)
    entry = make_entry(length=len(body))
    async with open_disk() as disk:
        await fill(Store(MIB, disk), entry, body)
        store = Store(64 * MIB, disk)
        (held,) = (await store.find(entry.key)).variants
        assert await read(store, held) == body
        await trio.sleep(PROMOTE_WITHIN_S + 1)
        assert await read(store, held) == body
        assert held.body is None
        assert await read(store, held) == body
        assert store.statistics().promoted == 1
        assert store.open_nowait(held) is not None


async def test_what_is_not_to_be_kept_any_longer_is_not_found(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        entry = make_entry(keep_until=5000.0)
        await fill(store, entry, b"hello")
        assert await store.find(entry.key, 4999.0)
        assert not await store.find(entry.key, 5000.0)
        assert not await Store(MIB, disk).find(entry.key, 5000.0)
        assert disk.statistics().rows == 0


async def test_memory_is_bounded_and_the_disk_has_the_rest(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        for number in range(500):
            await fill(store, make_entry(b"%d" % number, 4000), b"%04d" % number * 1000)
        held_bytes = store.statistics().memory.held_bytes
        assert held_bytes <= MIB
        for number in range(500):
            entry = make_entry(b"%d" % number, 4000)
            assert await bodies(store, entry) == [b"%04d" % number * 1000]


async def test_a_full_store_serves_on_without_storing(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        disk._space.shut = True
        disk._space._next_sample = float("inf")
        entry = make_entry(length=len(LARGE))
        held = store.begin(entry)
        reader = reader_of(store, held)
        got = bytearray()

        async def read_on() -> None:
            while data := await reader.read(len(got), 65_536):
                got.extend(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_on)
            for start in range(0, len(LARGE), 100_000):
                await fill_of(held).write(LARGE[start : start + 100_000])
            await store.commit(held)
        reader.close()
        assert bytes(got) == LARGE
        assert not await store.find(entry.key)
        small = make_entry(b"small")
        await fill(store, small, b"hello")
        assert await bodies(store, small) == [b"hello"]  # memory remembers


async def test_a_commit_cancelled_half_way_leaves_nothing(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(MIB, disk)
        held = store.begin(make_entry(length=len(LARGE)))
        for start in range(0, len(LARGE), 100_000):
            await fill_of(held).write(LARGE[start : start + 100_000])
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.commit(held)
        assert scope.cancelled_caught
        assert not await store.find(held.entry.key)
        assert store.statistics().filling == 0
        assert disk.statistics().spooled_bytes == 0


@pytest.mark.parametrize("seed", range(4))
async def test_no_one_ever_finds_what_a_change_before_has_replaced(
    open_disk: OpenDisk, make_entry: MakeEntry, seed: int
) -> None:
    """Small memory, small quota, threads: most looks go to disk, and often behind a change."""

    async def live(store: Store, name: bytes, dice: random.Random) -> None:
        newest: bytes | None = None
        for version in range(40):
            entry = make_entry(name, None, etag=b'"%d"' % version, at=1000.0 + version)
            body = b"%s %d " % (name, version) * dice.choice([1, 300, 3000, 300_000])
            match dice.choice(["store", "store", "look", "break", "invalidate", "drop"]):
                case "store":
                    await fill(store, entry, body)
                    newest = body
                case "break":
                    held = store.begin(entry)
                    await pour(store, held, body)
                    store.abort(held, GONE)
                case "invalidate":
                    store.invalidate(entry.key)
                    newest = None
                case "drop":
                    for held in (await store.find(entry.key)).variants:
                        store.drop(held)
                    newest = None
            for held in (await store.find(entry.key)).variants:
                try:
                    assert await read(store, held) == newest
                except ExchangeError:
                    continue  # evicted in between

    dice = random.Random(seed)
    async with open_disk(io=Threads, quota_bytes=8 * MIB) as disk:
        store = Store(32 * 1024, disk)
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(live, store, b"%d" % number, random.Random(dice.random()))
        assert store.statistics().filling == 0
        await disk.flush()
        with trio.fail_after(10):  # threads give spools back in their own time
            while disk.statistics().spooled_bytes:
                await trio.lowlevel.checkpoint()
        assert disk.statistics().queued_bytes == 0


async def test_what_memory_holds_is_lent_from_its_file_once_that_is_ready(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(64 * MIB, disk)
        held = await fill(store, make_entry(b"a", MIB), LARGE[:MIB])
        await disk.flush()
        assert held.body is not None
        body = await lent(store, held)
        assert os.pread(body.descriptor, MIB, 0) == LARGE[:MIB]
        body.close()
        name = os.readlink(f"/proc/self/fd/{body.descriptor}")
        os.unlink(name)
        held.hits = 1
        assert store.lend_nowait(held, 0, MIB) is None
        assert (held.row is not None, disk.statistics().lost) == (True, 0)
        held.hits = 16
        assert store.lend_nowait(held, 0, MIB) is None
        assert (held.row, disk.statistics().lost) == (None, 1)
        assert store.lend_nowait(held, 0, MIB) is None
        assert await read(store, held) == LARGE[:MIB]


async def test_what_is_on_disk_only_is_lent_where_it_is_too_large_for_memory(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk() as disk:
        store = Store(64 * MIB, disk)
        small = await fill(store, make_entry(b"a", 700_000), LARGE[:700_000])
        large = await fill(store, make_entry(b"b", len(LARGE)), LARGE)
        await disk.flush()
        small.body = None
        for _ in range(2):
            assert await read(store, large) == LARGE
        body = await lent(store, large)
        assert os.pread(body.descriptor, 9, 100) == LARGE[100:109]
        body.close()
        first, second = await store.open(small), await store.open(small)
        first.close()
        small.body = None
        assert store.lend_nowait(small, 0, 9) is None
        second.close()


async def lent(store: Store, held: Held) -> DiskBody:
    """Its file, once the clock that stamps files has ticked since it was written."""
    while (body := store.lend_nowait(held, 0, 1000)) is None:
        await read(store, held)
    return body
