"""A node's store: laid out once, and no kill makes it hold what it cannot judge."""

from __future__ import annotations

import os
import shutil
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import pytest
import trio

from edge.cache.disk import Disk
from edge.cache.estate import Estate
from edge.cache.home import NotAStore, StoreBusy, read_birth
from edge.cache.journal import Journal
from edge.cache.purge import Manner
from edge.cache.shards import Shards, owner_of
from edge.cache.threads import Inline
from tests.unit.cache.conftest import BIRTH_ID, entry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

QUOTA: Final = 8 << 20
LARGE: Final = bytes(40_000)
ENTRIES: Final = [entry_of(b"%d" % n, len(LARGE) if n % 2 else 5) for n in range(6)]
ALL: Final = {entry.key.url for entry in ENTRIES}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


# --- laying it out


def test_there_are_as_many_shards_as_there_were_workers_at_first(store: Path) -> None:
    for workers in (3, 1, 8):
        estate = Estate(store)
        estate.enter(workers)
        assert estate.shards == 3
        assert estate.shard(2) == store / "shard-2"
        estate.leave()
        estate.leave()
    assert (store / "shards").read_text() == "3"


def test_a_new_estate_has_no_birth_until_one_is_made(store: Path) -> None:
    estate = Estate(store)
    estate.enter(1)
    assert estate.birth == ""
    first = estate.renew_birth()
    assert (len(first), estate.birth, read_birth(store)) == (32, first, first)
    second = estate.renew_birth()
    assert second != first
    (store / "birth.new").mkdir()
    with pytest.raises(OSError, match="cannot be emptied"):
        estate.renew_birth()
    assert (estate.birth, read_birth(store)) == (second, second)
    estate.leave()
    again = Estate(store)
    again.enter(1)
    assert again.birth == second
    again.leave()


@pytest.mark.usefixtures("impatient")
def test_an_estate_has_one_node_at_a_time(store: Path) -> None:
    estate = Estate(store)
    estate.enter(1)
    with pytest.raises(StoreBusy):
        Estate(store).enter(1)
    estate.leave()
    again = Estate(store)
    again.enter(1)
    again.leave()


@pytest.mark.parametrize("thing", ["thesis.txt", "cache.db", "purges"])
def test_a_directory_of_other_things_is_left_alone(store: Path, thing: str) -> None:
    store.mkdir(mode=0o755)
    (store / thing).touch()
    with pytest.raises(NotAStore):
        Estate(store).enter(1)
    assert os.listdir(store) == [thing]
    assert store.stat().st_mode & 0o777 == 0o755


@pytest.mark.usefixtures("impatient")
def test_what_cannot_be_laid_out_is_let_go(store: Path) -> None:
    (store / "shards.new").mkdir(parents=True)
    (store / "shard-0").mkdir()
    with pytest.raises(IsADirectoryError):
        Estate(store).enter(1)
    (store / "shards.new").rmdir()
    estate = Estate(store)
    estate.enter(1)
    estate.leave()


@pytest.mark.parametrize("rot", [None, b"", b"0", b"two", b"-1", b"99999"])
def test_without_the_number_of_shards_nothing_that_is_stored_is_used(
    store: Path, rot: bytes | None
) -> None:
    estate = Estate(store)
    estate.enter(4)
    estate.renew_birth()
    estate.leave()
    for number in range(4):
        estate.shard(number).mkdir(exist_ok=True)
    if rot is None:
        (store / "shards").unlink()
    else:
        (store / "shards").write_bytes(rot)
    again = Estate(store)
    again.enter(2)
    assert (again.shards, again.birth) == (4, "")  # no folder is left that belongs to nobody
    again.leave()


# --- whole lives of a node


class Life:
    """What a node finds when it starts, on the whole way that it goes."""

    def __init__(self, store: Path, workers: int) -> None:
        self.store = store
        self.workers = workers
        self.found: set[bytes] = set()
        self.latest = 0

    async def live(self, *, purge: bool = False, save: bool = False) -> None:
        """Start, look, and end in order."""
        estate = Estate(self.store)
        async with AsyncExitStack() as stack:
            estate.enter(self.workers)
            stack.callback(estate.leave)
            journal = Journal(self.store, log=lambda _: None, io=Inline)
            stack.push_async_callback(journal.close)
            if not await journal.open(estate.birth):
                await journal.begin(estate.renew_birth())
            tiers = [
                Shards(
                    estate, slot, self.workers, quota_bytes=QUOTA, io=Inline, log=lambda _: None
                )
                for slot in range(self.workers)
            ]
            for tier in tiers:
                await tier.open()
                stack.push_async_callback(tier.close)
            for entry in ENTRIES:
                digest = entry.key.digest
                tier = tiers[owner_of(digest, estate.shards, self.workers)]
                if save:
                    tier.save(entry, LARGE[: entry.length])
                for row in await tier.load(digest):
                    assert await tier.whole(row) == LARGE[: entry.length]
                    self.found.add(entry.key.url)
            if purge:
                await an_order(journal)
            self.latest = journal.follower().current().latest


async def an_order(journal: Journal) -> None:
    await journal.purge(
        digests=b"d" * 16,
        everything=False,
        manner=Manner.HARD,
        who="me",
        when=0.0,
        words=("tag d",),
        count=1,
    )


async def lived(store: Path, workers: int) -> tuple[set[bytes], int]:
    """What the next life finds stored, and the number of the last purge that it knows."""
    life = Life(store, workers)
    await life.live()
    return life.found, life.latest


async def an_older_store(store: Path) -> None:
    """With the database in the root, a purge that it was told of, and a body being written."""
    disk = Disk(store, birth=BIRTH_ID, quota_bytes=QUOTA, io=Inline, log=lambda _: None)
    await disk.open()
    for entry in ENTRIES:
        disk.save(entry, LARGE[: entry.length])
    await disk.close()
    (store / "spool" / "left").write_bytes(b"an orphan")
    (store / "cache.db.broken").touch()
    journal = Journal(store, log=lambda _: None, io=Inline)
    await journal.open(BIRTH_ID)
    await journal.begin(BIRTH_ID)
    await an_order(journal)
    await journal.close()


async def a_store(store: Path) -> None:
    """Of two shards, with a purge that it was told of."""
    await Life(store, 2).live(purge=True, save=True)


def files_of(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_what_is_stored_outlives_restarts(store: Path, workers: int) -> None:
    await a_store(store)
    assert await lived(store, workers) == (ALL, 1)


@pytest.mark.parametrize("name", ["birth", "purges", "shards", "shard-0/birth", "shard-1/birth"])
async def test_what_cannot_be_judged_any_more_is_gone_for_good(store: Path, name: str) -> None:
    await a_store(store)
    lost = (store / name).read_bytes()
    (store / name).unlink()
    found, latest = await lived(store, 2)
    assert found < ALL
    assert (found == set()) is ("shard-" not in name)
    assert latest == ("shard-" in name)
    if "shard-" not in name:
        (store / name).write_bytes(lost)  # too late
        assert (await lived(store, 2))[0] == set()
    kept = [path for path in files_of(store) if "bodies" in path]
    assert len(kept) == sum(int(url.rpartition(b"/")[2]) % 2 for url in found)


async def test_an_older_store_becomes_the_only_shard(store: Path) -> None:
    await an_older_store(store)
    assert await lived(store, 1) == (ALL, 1)
    assert await lived(store, 3) == (ALL, 1)
    assert set(os.listdir(store)) == {"birth", "lock", "purges", "shard-0", "shards"}


async def test_an_older_store_is_emptied_where_it_would_have_to_be_divided(store: Path) -> None:
    await an_older_store(store)
    assert await lived(store, 2) == (set(), 1)
    assert not [path for path in files_of(store) if "bodies/" in path or "spool/" in path]


async def test_what_an_older_version_has_left_since_is_not_taken_for_the_newest(
    store: Path, tmp_path: Path
) -> None:
    await an_older_store(tmp_path / "older")
    await a_store(store)
    for name in ("cache.db", "bodies", "spool"):
        (tmp_path / "older" / name).rename(store / name)
    assert await lived(store, 2) == (set(), 0)
    assert {path.partition("/")[0] for path in files_of(store)} == {
        "birth", "lock", "purges", "shard-0", "shard-1", "shards",
    }  # fmt: skip


# --- kill -9 between any two steps


class Killed(BaseException):
    """The process is no more."""


class Killer:
    """Copies the store as it is before the step of number `at`, and ends the life there."""

    CALLS = ("open", "mkdir", "chmod", "rename", "unlink", "rmdir", "write", "ftruncate", "fsync")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._steps = 0
        self._at = 0
        self._copy: Callable[[], object] | None = None
        self._sync = os.fsync  # is a step, and is not made: no power is lost here
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **more: object) -> object:
            if self._copy is not None:
                self._steps += 1
                if self._steps == self._at:
                    copy, self._copy = self._copy, None
                    copy()
                    raise Killed
            return None if call is self._sync else call(*arguments, **more)

        return counted

    async def kills(self, life: Life, place: Path, at: int) -> bool:
        """Whether the life was ended at this step, with `place` for what it leaves behind."""
        self._steps, self._at = 0, at
        self._copy = lambda: shutil.copytree(life.store, place, dirs_exist_ok=True)
        try:
            await life.live()
        except BaseException:
            if self._copy is not None:
                raise
        was_killed, self._copy = self._copy is None, None
        return was_killed


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Killer]:
    with monkeypatch.context() as patch:
        yield Killer(patch)


async def nothing(store: Path) -> None:
    await trio.Path(store).mkdir()


async def without(store: Path, name: str) -> None:
    await a_store(store)
    (store / name).unlink()


BEFORE: Final = {
    "nothing": (nothing, 2, set()),
    "a store": (a_store, 2, ALL),
    "no journal": (lambda store: without(store, "purges"), 2, set()),
    "no birth": (lambda store: without(store, "birth"), 2, set()),
    "no number": (lambda store: without(store, "shards"), 2, set()),
    "an older store": (an_older_store, 1, ALL),
    "an older store to be divided": (an_older_store, 2, set()),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_kill_at_any_step_leaves_what_was_stored_with_its_purges_or_nothing(
    tmp_path: Path, killer: Killer, before: str, stride: int
) -> None:
    make, workers, kept = BEFORE[before]
    await make(tmp_path / "stock")
    at, was_killed = 1 - stride, True
    while was_killed:
        at += stride
        place = tmp_path / f"{at}"
        shutil.copytree(tmp_path / "stock", place / "0")
        was_killed = await killer.kills(Life(place / "0", workers), place / "1", at)
        last = place / "1" if was_killed else place / "0"
        if was_killed and await killer.kills(Life(place / "1", workers), place / "2", at):
            last = place / "2"
        found, latest = await lived(last, workers)
        assert found in (set(), kept)
        assert latest == 1 or not found
        again = Life(last, workers)
        await again.live(save=True)
        assert again.found == ALL
        shutil.rmtree(place)
    assert at > 10
    if kept:
        assert found == kept
