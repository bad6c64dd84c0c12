"""Presence: what is said not to be on disk is not there, whatever happens meanwhile."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.cache import presence, sketch
from edge.cache.disk import Disk
from edge.cache.rows import Rows
from edge.cache.threads import Inline, Threads
from edge.cache.writer import RETRY_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.cache.threads import MakeWorkers
    from tests.unit.cache.conftest import Clock, MakeEntry, OpenDisk

T = TypeVar("T")


class SlowReaders(Inline):
    """What is posted waits until it is let go, one job at a time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.waiting: list[Callable[[], None]] = []

    def post(self, job: Callable[[], None]) -> None:
        self.waiting.append(job)

    def let_one_go(self) -> None:
        if self.waiting:
            self.waiting.pop(0)()


def slow_readers(made: list[SlowReaders], *, writes_too: bool = False) -> MakeWorkers:
    def make(count: int, name: str, at_exit: Callable[[], None] = lambda: None) -> Inline:
        if "read" not in name and not writes_too:
            return Inline(count, name, at_exit)
        made.append(SlowReaders(count, name, at_exit))
        return made[-1]

    return make


@pytest.mark.parametrize("io", [Inline, Threads])
async def test_what_was_there_before_and_what_has_come_since_is_never_lacking(
    open_disk: OpenDisk, make_entry: MakeEntry, io: MakeWorkers
) -> None:
    before = [make_entry(b"before-%d" % number) for number in range(1500)]
    since = [make_entry(b"since-%d" % number) for number in range(20)]
    never = [make_entry(b"never-%d" % number).key.digest for number in range(100)]
    async with open_disk(io=io) as disk:
        for entry in before:
            disk.save(entry, b"hello")
    async with open_disk(io=io) as disk:
        assert not disk.lacks(never[0])  # nobody has looked yet
        for entry in since:
            disk.save(entry, b"hello")
        while not any(disk.lacks(digest) for digest in never):
            await disk.flush()
        for entry in before + since:
            assert not disk.lacks(entry.key.digest)
            assert len(await disk.load(entry.key.digest)) == 1
        assert [await disk.load(digest) for digest in never] == [[]] * 100
        assert sum(map(disk.lacks, never)) > 90
    assert not disk.lacks(never[0])  # it is closed: whoever asks is told so


STEPS = st.lists(
    st.tuples(st.sampled_from(["read", "save", "again", "remove", "ask"]), st.integers(0, 11)),
    max_size=60,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_changes_between_the_steps_of_the_reading_are_not_missed(
    make_entry: MakeEntry, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    made: list[SlowReaders] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presence, "STEP_KEYS", 2)
        directory = tmp_path_factory.mktemp("store")
        disk = Disk(
            directory,
            birth="b" * 32,
            quota_bytes=64 << 20,
            io=slow_readers(made),
            log=lambda _: None,
        )
        await disk.open()
        entries = [make_entry(b"%d" % number) for number in range(12)]
        stored: set[int] = set()
        for number in range(0, 12, 3):
            disk.save(entries[number], b"hello")
            stored.add(number)
        for what, number in steps:
            entry = entries[number]
            if what == "save":
                disk.save(entry, b"hello")
                stored.add(number)
            elif what == "again" and number in stored:
                other = make_entry(b"%d" % number, variant=((b"x", b"%d" % len(steps)),))
                disk.replace(entry, other)
            elif what == "remove":
                disk.remove(entry.key.digest)
                stored.discard(number)
            elif what == "read":
                made[0].let_one_go()
            for one in stored:
                assert not disk.lacks(entries[one].key.digest)
        disk.lacks(make_entry(b"never").key.digest)
        for _ in range(20):
            made[0].let_one_go()
        assert disk.lacks(make_entry(b"never").key.digest)
        assert not any(disk.lacks(entries[one].key.digest) for one in stored)
        await disk.close()


async def test_another_sketch_is_made_when_more_have_come_than_there_was_room_for(
    open_disk: OpenDisk, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sketch, "LEAST_ROOM", 8)
    made: list[SlowReaders] = []
    entries = [make_entry(b"%d" % number) for number in range(40)]
    never = make_entry(b"never").key.digest
    async with open_disk(io=slow_readers(made)) as disk:
        assert not disk.lacks(never)
        while made[0].waiting:
            made[0].let_one_go()
        assert disk.lacks(never)
        for entry in entries:
            disk.save(entry, b"hello")
            assert not disk.lacks(entry.key.digest)
        assert len(made[0].waiting) == 1  # one is being made, for as many as there were
        for _ in range(2):
            while made[0].waiting:
                made[0].let_one_go()
            assert not any(disk.lacks(entry.key.digest) for entry in entries)
        assert made[0].waiting == []  # there is room in it for those that have come since


async def test_a_database_made_anew_is_asked_until_it_is_known(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path, clock: Clock
) -> None:
    entry, never = make_entry(), make_entry(b"never").key.digest
    made: list[SlowReaders] = []
    async with open_disk(io=slow_readers(made)) as disk:
        assert not disk.lacks(never)
        (tmp_path / "store" / "cache.db").unlink()
        disk.save(entry, b"hello")  # which finds that the database has gone
        assert not disk.lacks(never)
        while made[0].waiting:
            made[0].let_one_go()
        assert disk.lacks(never)
        assert not disk.lacks(entry.key.digest)
        clock.now += RETRY_S


async def test_a_database_that_cannot_be_read_is_asked_every_time(
    open_disk: OpenDisk, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    never = make_entry(b"never").key.digest
    asked: list[bytes] = []

    def fail(_: object, behind: bytes, limit: int) -> list[bytes]:
        asked.append(behind)
        raise sqlite3.OperationalError("not now")

    async with open_disk() as disk:
        monkeypatch.setattr("edge.cache.rows.Rows.keys_behind", fail)
        disk.save(make_entry(), b"hello")
        assert not disk.lacks(never)
        assert not disk.lacks(never)
        assert await disk.load(never) == []
        assert asked == [b""]  # once: a failing disk is not to be asked again and again
        assert len(await disk.load(make_entry().key.digest)) == 1
    assert any("not now" in line for line in log)


async def test_what_is_still_queued_when_the_reading_begins_is_not_missed(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    entry, never = make_entry(), make_entry(b"never").key.digest
    made: list[SlowReaders] = []
    async with open_disk(io=slow_readers(made, writes_too=True)) as disk:
        disk.save(entry, b"hello")
        assert not disk.lacks(never)
        while made[0].waiting:
            made[0].let_one_go()
        assert disk.lacks(never)
        assert not disk.lacks(entry.key.digest)
        while made[1].waiting:
            made[1].let_one_go()


async def test_without_a_database_nothing_is_known(
    open_disk: OpenDisk, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("not now")

    monkeypatch.setattr("edge.cache.writer.Rows", fail)
    async with open_disk() as disk:
        assert not disk.lacks(make_entry().key.digest)
        assert await disk.load(make_entry().key.digest) == []


@pytest.mark.parametrize("fails", [False, True])
async def test_what_was_read_of_a_database_that_has_gone_meanwhile_counts_for_nothing(
    open_disk: OpenDisk,
    make_entry: MakeEntry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
) -> None:
    entry, never = make_entry(), make_entry(b"never").key.digest
    honest = Rows.keys_behind
    async with open_disk() as disk:

        def vanish(rows: Rows, behind: bytes, limit: int) -> list[bytes]:
            monkeypatch.setattr(Rows, "keys_behind", honest)
            (tmp_path / "store" / "cache.db").unlink()
            disk.save(entry, b"hello")  # which finds that the database has gone
            assert not disk.lacks(never)  # and another sketch is begun
            if fails:
                raise sqlite3.OperationalError("gone")
            return []

        monkeypatch.setattr(Rows, "keys_behind", vanish)
        assert not disk.lacks(never)
        assert disk.lacks(never)
        assert not disk.lacks(entry.key.digest)
