"""Many shards as one tier: each key has one owner, who does with it what one disk would do."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.cache.body import SpoolFull
from edge.cache.disk import Disk
from edge.cache.diskbody import BodyLost
from edge.cache.entry import Seq
from edge.cache.estate import Estate
from edge.cache.home import StoreBusy
from edge.cache.integrity import checks_of
from edge.cache.shards import Shards, owner_of, shard_of
from edge.cache.threads import Inline
from tests.unit.cache.conftest import BIRTH_ID, entry_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from edge.cache.entry import Entry
    from edge.cache.packing import StoredRow

    Told = tuple[Entry, bytes]

DIGESTS = st.binary(min_size=16, max_size=16)
NAMES = 12
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["save", "large", "spool", "remove", "drop", "rehead", "reap", "expire"]),
        st.integers(0, NAMES - 1),
    ),
    max_size=25,
)


@given(digest=DIGESTS, shards=st.integers(1, 64), workers=st.integers(1, 64))
def test_every_digest_has_one_shard_and_that_one_owner(
    digest: bytes, shards: int, workers: int
) -> None:
    shard, owner = shard_of(digest, shards), owner_of(digest, shards, workers)
    assert 0 <= shard < shards
    assert [slot for slot in range(workers) if shard in range(slot, shards, workers)] == [owner]


@given(digest=DIGESTS, shards=st.integers(1, 64))
def test_a_shard_does_not_depend_on_the_workers(digest: bytes, shards: int) -> None:
    assert owner_of(digest, shards, shards) == shard_of(digest, shards)
    assert owner_of(digest, shards, 1) == 0


def test_the_shards_are_about_equal() -> None:
    found = [0] * 7
    for number in range(7000):
        found[shard_of(entry_of(b"%d" % number).key.digest, 7)] += 1
    assert min(found) > 850
    assert max(found) < 1150


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    """Of three shards."""
    return settled(tmp_path / "store", 3)


def settled(directory: Path, shards: int) -> Estate:
    estate = Estate(directory)
    estate.enter(shards)
    estate.renew_birth()
    estate.leave()
    return estate


@asynccontextmanager
async def owners(estate: Estate, workers: int) -> AsyncIterator[list[Shards]]:
    """All workers' tiers, opened."""
    async with AsyncExitStack() as stack:
        tiers = [
            Shards(estate, slot, workers, quota_bytes=64 << 20, io=Inline, log=print)
            for slot in range(workers)
        ]
        for tier in tiers:
            await tier.open()
            stack.push_async_callback(tier.close)
        yield tiers


async def found(tier: Disk | Shards, name: int) -> list[Told]:
    """What is found under a name, each with its body."""
    rows = await tier.load(entry_of(b"%d" % name).key.digest)
    assert await tier.peek(entry_of(b"%d" % name).key.digest) == rows
    told = []
    for row in rows:
        body = await tier.body(row)
        data = await body.read(0, 1 << 20)
        body.close()
        assert bytes(data) == await tier.whole(row)
        told.append((row.entry, bytes(data)))
    return told


async def all_rows(tiers: Sequence[Disk | Shards]) -> set[tuple[bytes, Entry, int]]:
    rows = []
    for tier in tiers:
        scan = tier.scan(3)
        seen = 0
        while (step := await scan.next()) is not None:
            assert len(step) <= 3
            rows += step
            seen += len(step)
        assert scan.looked_at == seen
        assert await scan.next() is None
    told = {(row.key, row.entry, row.charge) for row in rows}
    assert len(told) == len(rows)
    return told


async def take(tier: Disk | Shards, deed: str, entry: Entry) -> None:
    """One step of the model."""
    digest = entry.key.digest
    if deed in ("save", "large", "spool"):
        body = b"%5d" % entry.fetched_at * (1 if deed == "save" else 10_000)
        entry = replace(entry, length=len(body))
        if deed == "spool":
            spool = tier.spool(len(body), digest)
            await spool.write(body)
            tier.save(entry, spool, checks_of(body))
            spool.close()
        else:
            tier.save(entry, body)
    elif deed == "remove":
        tier.remove(digest)
    elif deed == "expire":
        await tier.load(digest, entry.keep_until)
    elif deed == "reap":
        scan, dead = tier.scan(), []
        while (step := await scan.next()) is not None:
            dead += [row for row in step if row.entry.fetched_at % 2]
        rows, size = await tier.remove_dead(dead)
        assert (rows, size) == (len(dead), sum(row.charge for row in dead))
    else:
        for row in await tier.peek(digest):
            if deed == "drop":
                tier.drop(row.entry)
            else:
                tier.replace(row.entry, replace(row.entry, fetched_at=entry.fetched_at))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, shards=st.integers(1, 4), workers=st.integers(1, 5))
def test_all_owners_together_do_what_one_disk_does(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, int]],
    shards: int,
    workers: int,
) -> None:
    place = tmp_path_factory.mktemp("shards")

    async def run() -> None:
        alone = Disk(place / "alone", birth=BIRTH_ID, quota_bytes=64 << 20, io=Inline, log=print)
        await alone.open()
        async with owners(settled(place / "store", shards), workers) as tiers:
            for number, (deed, name) in enumerate(steps):
                entry = replace(entry_of(b"%d" % name), fetched_at=Seq(number))
                owner = tiers[owner_of(entry.key.digest, shards, workers)]
                await take(alone, deed, entry)
                if deed == "reap":
                    for tier in tiers:
                        await take(tier, deed, entry)
                else:
                    await take(owner, deed, entry)
                assert await found(owner, name) == await found(alone, name)
            for name in range(NAMES):
                held = await found(alone, name)
                slot = owner_of(entry_of(b"%d" % name).key.digest, shards, workers)
                told = [await found(tier, name) for tier in tiers]
                assert told.pop(slot) == held
                assert not any(told)
            assert await all_rows(tiers) == await all_rows([alone])
            parts = [tier.statistics() for tier in tiers]
            assert sum(part.rows for part in parts) == alone.statistics().rows
            assert sum(part.saved for part in parts) == alone.statistics().saved
            assert sum(part.quota_bytes for part in parts) == (64 << 20) // shards * shards
        await alone.close()

    trio.run(run)


async def test_what_was_stored_is_found_by_other_numbers_of_workers(estate: Estate) -> None:
    entries = [entry_of(b"%d" % number) for number in range(20)]
    async with owners(estate, 3) as tiers:
        for entry in entries:
            tiers[owner_of(entry.key.digest, 3, 3)].save(entry, b"hello")
    for workers in (1, 2, 5):
        async with owners(estate, workers) as tiers:
            for entry in entries:
                held = [len(await tier.load(entry.key.digest)) for tier in tiers]
                assert held.index(1) == owner_of(entry.key.digest, 3, workers)
                assert sum(held) == 1


async def test_nothing_is_stored_or_found_for_another_owner(estate: Estate) -> None:
    async with owners(estate, 4) as tiers:
        mine, nobody = tiers[0], tiers[3]
        theirs = next(
            entry
            for entry in (entry_of(b"%d" % number) for number in range(100))
            if shard_of(entry.key.digest, 3) == 1
        )
        tiers[1].save(theirs, b"hello")
        (row,) = await tiers[1].load(theirs.key.digest)
        for tier in (mine, nobody):
            done: list[StoredRow | None] = []
            tier.save(theirs, b"hello", done=done.append)
            tier.replace(theirs, theirs)
            tier.remove(theirs.key.digest)
            tier.drop(theirs)
            await tier.flush()
            assert done == [None]
            assert await tier.load(theirs.key.digest) == await tier.peek(theirs.key.digest) == []
            assert await tier.remove_dead([]) == (0, 0)
            for read in (tier.body, tier.whole):
                with pytest.raises(BodyLost):
                    await read(row)
            with pytest.raises(SpoolFull):
                tier.spool(5, theirs.key.digest)
        assert len(await tiers[1].load(theirs.key.digest)) == 1


async def test_a_worker_without_a_shard_stores_nothing_and_finds_nothing(estate: Estate) -> None:
    async with owners(estate, 4) as tiers:
        nobody = tiers[3]
        with pytest.raises(SpoolFull):
            nobody.spool()
        assert await nobody.scan().next() is None
        await nobody.sync()
        assert nobody.statistics().quota_bytes == nobody.statistics().rows == 0


async def test_what_is_not_to_be_saved_is_spooled_in_turns(estate: Estate) -> None:
    async with owners(estate, 1) as (tier,):
        spools = [tier.spool() for _ in range(6)]
        assert len({spool.path.parent for spool in spools}) == 3
        for spool in spools:
            spool.close()


async def test_what_is_in_memory_is_told_to_all_shards(estate: Estate) -> None:
    async with owners(estate, 2) as tiers:
        told = {b"hot"}
        tiers[0].hot = told.__contains__
        assert tiers[0].hot(b"hot")
        assert [disk.hot(b"hot") for disk in tiers[0]._disks.values()] == [True] * 2
        assert not tiers[1].hot(b"hot")


async def test_all_shards_are_opened_or_none(estate: Estate, tmp_path: Path) -> None:
    (tmp_path / "store" / "shard-2").mkdir()
    (tmp_path / "store" / "shard-2" / "birth").mkdir()
    (tmp_path / "store" / "shard-2" / "spool").touch()
    tier = Shards(estate, 0, 1, quota_bytes=64 << 20, io=Inline, log=print)
    with pytest.raises(FileExistsError):
        await tier.open()
    await tier.close()
    for name in ("shard-0", "shard-1"):
        assert "clean" in os.listdir(tmp_path / "store" / name)
    (tmp_path / "store" / "shard-2" / "birth").rmdir()
    (tmp_path / "store" / "shard-2" / "spool").unlink()
    await tier.open()
    await tier.close()


@pytest.mark.usefixtures("impatient")
async def test_a_shard_has_one_owner_at_a_time(estate: Estate) -> None:
    async with owners(estate, 2):
        with pytest.raises(StoreBusy):
            await Shards(estate, 2, 3, quota_bytes=64 << 20, io=Inline, log=print).open()


async def test_files_are_opened_and_lent_by_who_owns_them(estate: Estate) -> None:
    body = os.urandom(300_000)
    entries = [replace(entry_of(b"%d" % number), length=len(body)) for number in range(9)]
    async with owners(estate, 2) as tiers:
        for entry in entries:
            tiers[owner_of(entry.key.digest, 3, 2)].save(entry, body)
        await tiers[0].flush()
        await tiers[1].flush()
        for entry in entries:
            owner = owner_of(entry.key.digest, 3, 2)
            mine, other = tiers[owner], tiers[1 - owner]
            (row,) = await mine.load(entry.key.digest)
            assert mine.body_nowait(row) is mine.lend_nowait(row, 0, 9) is None
            lost: list[bool] = []
            for tier in (mine, other):
                tier.prepare(row, lambda lost=lost: lost.append(True))  # type: ignore[misc]
            await trio.testing.wait_all_tasks_blocked()
            for lent in (mine.body_nowait(row), mine.lend_nowait(row, 0, len(body))):
                assert lent is not None
                lent.close()
            assert other.body_nowait(row) is other.lend_nowait(row, 0, 9) is None
            assert not lost
