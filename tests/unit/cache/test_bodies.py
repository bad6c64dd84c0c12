"""Bodies that are read from their files: opened once for many, verified before they are given."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edge.cache.bodies import Bodies
from edge.cache.bytesdisk import new_filename
from edge.cache.descriptors import COARSE_CLOCK
from edge.cache.diskbody import FIRST_BLOCKS, BodyLost, NoDescriptors
from edge.cache.integrity import BLOCK_BYTES, checks_of
from edge.cache.packing import StoredRow, row_key
from edge.cache.pages import Pages
from edge.cache.threads import Inline
from edge.errors import ExchangeError, Failure
from tests.unit.cache.conftest import entry_of

if TYPE_CHECKING:
    from pathlib import Path

    from edge.cache.diskbody import DiskBody

LENGTH = (FIRST_BLOCKS + 1) * BLOCK_BYTES + 77
BODY = os.urandom(LENGTH)


class Store:
    """A directory with bodies, and those of them that are open."""

    def __init__(self, directory: Path, most: int | None = None) -> None:
        self.directory = directory
        self.lost: list[str] = []
        self.bodies = Bodies(
            str(directory), Inline(), lambda _, why: self.lost.append(why), most=most
        )

    def make(self, name: bytes = b"a", body: bytes = BODY) -> StoredRow:
        entry = entry_of(name, len(body))
        filename = new_filename(row_key(entry))
        path = self.directory / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        while os.stat(path).st_ctime_ns >= time.clock_gettime_ns(COARSE_CLOCK):
            pass  # until the clock that stamps files has ticked
        return StoredRow(row_key(entry), entry, checks_of(body), None, filename)

    def path(self, row: StoredRow) -> Path:
        return self.directory / str(row.filename)


async def read_all(body: DiskBody, most: int = 50_000) -> bytes:
    got = bytearray()
    while data := await body.read(len(got), most):
        got += data
    return bytes(got)


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def tells(path: Path) -> bool:
    """Whether the kernel says what of this is in the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return Pages().are_cached(descriptor, 0, 1)
    finally:
        os.close(descriptor)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    if not tells(store.path(store.make(b"probe", b"x"))):
        pytest.skip("this kernel does not say what is in the page cache")
    return store


async def test_what_one_has_read_the_next_may_have_sent(store: Store) -> None:
    row = store.make()
    first = await store.bodies.open(row)
    assert first.sendable(0, LENGTH) == FIRST_BLOCKS * BLOCK_BYTES
    assert store.bodies.lend_nowait(row, 0, 10) is None
    assert await read_all(first) == BODY
    first.close()
    second = store.bodies.lend_nowait(row, 0, LENGTH)
    assert second is not None
    assert second.sendable(5, LENGTH - 5) == LENGTH - 5
    assert second.descriptor == first.descriptor
    third = store.bodies.open_nowait(row)
    assert third is not None
    assert await read_all(third) == BODY
    second.close()
    third.close()
    with pytest.raises(trio.ClosedResourceError):
        third.sendable(0, 1)
    store.bodies.files.clear()
    assert first.descriptor == -1


async def test_a_body_that_is_not_open_or_not_begun_is_to_be_waited_for(store: Store) -> None:
    row = store.make()
    assert store.bodies.open_nowait(row) is None
    body = await store.bodies.open(row)
    body.close()
    flip(store.path(row), 0)
    flip(store.path(row), 0)
    store.bodies._blocks._held.clear()
    assert store.bodies.open_nowait(row) is None
    again = await store.bodies.open(row)
    assert await read_all(again) == BODY
    again.close()
    assert store.lost == []


async def test_a_body_half_forgotten_is_verified_again_from_the_file_that_is_open(
    store: Store,
) -> None:
    row = store.make()
    body = await store.bodies.open(row)
    store.bodies._blocks._held.clear()
    body._opened.dropped(0)
    again = await store.bodies.open(row)
    assert again.descriptor == body.descriptor
    assert again.sendable(0, LENGTH) == FIRST_BLOCKS * BLOCK_BYTES
    body.close()
    again.close()


async def test_what_rots_below_an_open_file_is_lost_and_opened_anew(store: Store) -> None:
    row = store.make()
    body = await store.bodies.open(row)
    assert await read_all(body) == BODY
    flip(store.path(row), 2 * BLOCK_BYTES)
    store.bodies._blocks._held.clear()
    with pytest.raises(ExchangeError) as caught:
        await body.read(2 * BLOCK_BYTES, 10)
    assert caught.value.failure is Failure.BODY_LOST
    body.close()
    with pytest.raises(BodyLost):
        await store.bodies.open(row)
    assert store.lost == ["block 2 has rotted"] * 2
    assert len(store.bodies.files) == 0


async def test_what_rots_before_its_first_blocks_are_read_again_is_lost(store: Store) -> None:
    row = store.make()
    body = await store.bodies.open(row)
    store.bodies._blocks._held.clear()
    flip(store.path(row), 0)
    body._opened.stamp()
    while not body._opened.stamp().is_settled:
        pass
    with pytest.raises(BodyLost):
        await store.bodies.open(row)
    assert store.lost == ["block 0 has rotted"]
    body.close()
    assert body.descriptor == -1


@pytest.mark.parametrize("fault", ["truncated", "removed"])
async def test_a_file_that_goes_or_is_cut_is_lost_to_the_next_reader(
    store: Store, fault: str
) -> None:
    row = store.make()
    body = await store.bodies.open(row)
    if fault == "removed":
        store.path(row).unlink()
    else:
        os.truncate(store.path(row), LENGTH - 1)
    with pytest.raises(BodyLost):
        await store.bodies.open(row)
    assert len(store.lost) == 1
    assert await body.read(0, 10) == BODY[:10]
    body.close()


async def test_a_crowd_opens_and_verifies_once(store: Store) -> None:
    row, bodies = store.make(), []

    async def opens() -> None:
        bodies.append(await store.bodies.open(row))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(opens)
    assert len({body.descriptor for body in bodies}) == 1
    for body in bodies:
        body.close()


async def test_a_kept_file_gives_way_when_descriptors_run_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await store.bodies.open(store.make(b"kept"))
    kept.close()
    really, tries = os.open, []

    def refuse(path: str, flags: int, *more: Any) -> int:
        tries.append(path)
        if len(store.bodies.files):
            raise OSError(errno.EMFILE, "too many open files")
        return really(path, flags, *more)

    row = store.make()
    monkeypatch.setattr(os, "open", refuse)
    body = await store.bodies.open(row)
    assert len(tries) == 2
    with pytest.raises(NoDescriptors):  # the only one is being read from
        await store.bodies.open(store_row(store, b"b", monkeypatch, really, refuse))
    body.close()
    assert store.lost == []


def store_row(
    store: Store, name: bytes, monkeypatch: pytest.MonkeyPatch, really: Any, refuse: Any
) -> StoredRow:
    """A body made while there are descriptors."""
    monkeypatch.setattr(os, "open", really)
    row = store.make(name)
    monkeypatch.setattr(os, "open", refuse)
    return row


async def test_a_whole_body_is_had_verified_and_its_file_is_not_kept(store: Store) -> None:
    row = store.make()
    assert await store.bodies.whole(row) == BODY
    assert len(store.bodies.files) == 0
    flip(store.path(row), LENGTH - 1)
    with pytest.raises(BodyLost):
        await store.bodies.whole(row)


async def test_where_nothing_may_be_sent_unread_all_is_read_and_verified(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = store.make()
    body = await store.bodies.open(row)
    body.refuse()
    assert await read_all(body) == BODY
    assert body.sendable(0, LENGTH) == 0
    body.close()
    again = store.bodies.open_nowait(row)  # the first blocks are still in the pool
    assert again is not None
    again.close()


async def test_a_file_is_made_ready_to_be_lent_behind_the_scenes(store: Store) -> None:
    row, lost = store.make(), []
    assert store.bodies.lend_nowait(row, 0, 10) is None
    store.bodies.prepare(row, lambda: lost.append(row))
    body = store.bodies.lend_nowait(row, 0, LENGTH)
    assert body is not None
    body.close()
    flip(store.path(row), LENGTH - 1)
    store.bodies.prepare(row, lambda: lost.append(row))
    assert lost == [row]
    assert store.lost == ["block 5 has rotted"]
    assert store.bodies.lend_nowait(row, 0, 10) is None
    store.bodies.prepare(replace(row, filename=None), lambda: lost.append(row))
    assert lost == [row]


async def test_a_file_that_is_refused_is_not_made_ready_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = store.make()
    body = await store.bodies.open(row)
    body.refuse()
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened again"))
    store.bodies.prepare(row, lambda: None)
    body.close()


async def test_where_there_are_no_descriptors_nothing_is_made_ready(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = store.make()

    def refuse(*_: object) -> int:
        raise OSError(errno.ENFILE, "too many open files")

    monkeypatch.setattr(os, "open", refuse)
    store.bodies.prepare(row, lambda: pytest.fail("it is as good as ever"))
    assert (store.lost, len(store.bodies.files)) == ([], 0)
