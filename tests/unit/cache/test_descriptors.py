"""Open files of bodies: never a byte that was not verified, and never one open too many."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.cache import descriptors as subject
from edge.cache.bytesdisk import new_filename
from edge.cache.descriptors import AGAIN_S, RESIDENT_S, Descriptors, OpenBody, most_kept, stamp_of
from edge.cache.diskbody import read_block
from edge.cache.integrity import BLOCK_BYTES, blocks_in, checks_of, verify
from edge.cache.packing import PRIMARY_BYTES, StoredRow, row_key
from edge.cache.pages import Pages
from tests.unit.cache.conftest import Clock, entry_of

LENGTH = 2 * BLOCK_BYTES + 1000


class Bodies:
    """Bodies in files below `directory`, and the descriptors of some."""

    def __init__(self, directory: Path, most: int = 8) -> None:
        self.directory = directory
        self.clock = Clock()
        self.files = Descriptors(most, lambda: self.clock.now)
        self.bodies: dict[str, bytes] = {}

    def make(self, name: bytes = b"a", length: int = LENGTH) -> StoredRow:
        entry, body = entry_of(name, length), os.urandom(length)
        filename = new_filename(row_key(entry))
        self.bodies[filename] = body
        path = self.directory / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return StoredRow(row_key(entry), entry, checks_of(body), None, filename)

    def path(self, row: StoredRow) -> Path:
        return self.directory / str(row.filename)

    def open(self, row: StoredRow) -> OpenBody:
        flags = os.O_RDONLY | os.O_CLOEXEC
        descriptor = os.open(self.path(row), flags)
        return self.files.add(descriptor, row, stamp_of(descriptor))

    def read(self, opened: OpenBody, row: StoredRow) -> None:
        """Read and verify what is right of it, as readers do."""
        for index in range(blocks_in(row.length)):
            stamp = opened.stamp()
            block = read_block(opened.descriptor, row.length, index)
            if verify(index, block, row.checks):
                opened.mark(index, stamp)

    def ready(self, name: bytes = b"a") -> tuple[StoredRow, OpenBody]:
        """A body whose file is open, and all of it verified."""
        row = self.make(name)
        opened = self.open(row)
        settle(opened)
        self.read(opened, row)
        return row, opened


def settle(opened: OpenBody) -> None:
    """Let the clock that stamps files tick."""
    while not opened.stamp().is_settled:
        pass


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.fixture
def bodies(tmp_path: Path) -> Bodies:
    (tmp_path / "probe").write_bytes(b"x")
    descriptor = os.open(tmp_path / "probe", os.O_RDONLY)
    is_told = Pages().are_cached(descriptor, 0, 1)
    os.close(descriptor)
    if not is_told:
        pytest.skip("this kernel does not say what is in the page cache")
    return Bodies(tmp_path)


def test_what_was_verified_may_be_sent_and_nothing_else(bodies: Bodies) -> None:
    row = bodies.make()
    opened = bodies.open(row)
    settle(opened)
    assert opened.sendable(0, LENGTH) == 0
    assert opened.lacks(1)
    block = os.pread(opened.descriptor, BLOCK_BYTES, BLOCK_BYTES)
    stamp = opened.stamp()
    assert verify(1, block, row.checks)
    opened.mark(1, stamp)
    assert not opened.lacks(1)
    assert [opened.sendable(0, LENGTH), opened.sendable(BLOCK_BYTES - 1, 2)] == [0, 0]
    assert opened.sendable(BLOCK_BYTES, LENGTH - BLOCK_BYTES) == BLOCK_BYTES
    assert opened.sendable(BLOCK_BYTES + 5, 10) == 10
    assert not opened.is_verified


@pytest.mark.parametrize("fault", ["flipped", "truncated", "grown", "touched"])
def test_a_file_that_was_changed_has_to_be_read_again(bodies: Bodies, fault: str) -> None:
    row, opened = bodies.ready()
    assert opened.sendable(0, LENGTH) == LENGTH
    path = bodies.path(row)
    match fault:
        case "flipped":
            flip(path, LENGTH - 1)
        case "truncated":
            os.truncate(path, LENGTH - 1)
        case "grown":
            os.truncate(path, LENGTH + 1)
        case _:
            os.utime(path, (0, 0))
    assert opened.sendable(0, LENGTH) == 0
    assert bodies.files.lend(opened.name, 0, LENGTH) is None
    settle(opened)
    bodies.read(opened, row)
    right = {"flipped": 2 * BLOCK_BYTES, "truncated": 2 * BLOCK_BYTES}.get(fault, LENGTH)
    assert opened.sendable(0, LENGTH) == right


@pytest.mark.parametrize("fault", ["removed", "replaced", "grown"])
def test_a_file_that_is_not_the_stored_one_any_more_is_opened_anew(
    bodies: Bodies, fault: str
) -> None:
    row, opened = bodies.ready()
    path, descriptor = bodies.path(row), opened.descriptor
    match fault:
        case "removed":
            path.unlink()
        case "replaced":
            other = path.with_suffix(".new")
            other.write_bytes(path.read_bytes())
            other.rename(path)
        case _:
            os.truncate(path, LENGTH + 1)
    assert bodies.files.lend(opened.name, 0, LENGTH) is None
    settle(opened)
    bodies.read(opened, row)  # a reader goes on, and what it reads is right
    assert opened.sendable(0, LENGTH) == LENGTH
    assert bodies.files.lend(opened.name, 0, LENGTH) is None
    assert bodies.files.take(opened.name) is None
    assert (len(bodies.files), opened.descriptor) == (0, descriptor)
    bodies.files.give_back(opened)
    assert opened.descriptor == -1


def test_a_file_that_was_changed_a_moment_ago_is_not_trusted_yet(
    bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = bodies.make()
    changed_ns = os.stat(bodies.path(row)).st_ctime_ns
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: changed_ns)
    opened = bodies.open(row)
    bodies.read(opened, row)
    assert (opened.sendable(0, LENGTH), opened.lacks(0)) == (0, False)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: changed_ns + 1)
    assert opened.sendable(0, LENGTH) == 0
    bodies.read(opened, row)
    assert opened.sendable(0, LENGTH) == LENGTH


def test_what_was_read_before_a_change_counts_for_nothing_after_it(bodies: Bodies) -> None:
    row = bodies.make()
    opened = bodies.open(row)
    settle(opened)
    stamp = opened.stamp()
    flip(bodies.path(row), 0)
    flip(bodies.path(row), 0)
    opened.stamp()
    opened.mark(0, stamp)
    assert opened.sendable(0, 10) == 0


def test_everything_is_verified_again_after_a_while(bodies: Bodies) -> None:
    row, opened = bodies.ready()
    bodies.clock.now += AGAIN_S
    assert opened.sendable(0, LENGTH) == LENGTH
    bodies.clock.now += 1
    assert opened.sendable(0, LENGTH) == 0
    bodies.read(opened, row)
    assert opened.sendable(0, LENGTH) == LENGTH


def test_what_left_the_page_cache_is_verified_again(bodies: Bodies) -> None:
    row, opened = bodies.ready()
    assert opened.sendable(0, LENGTH) == LENGTH
    os.sync()
    os.posix_fadvise(opened.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    if Pages().are_cached(opened.descriptor, BLOCK_BYTES, BLOCK_BYTES):
        pytest.skip("this file system does not drop pages")
    assert opened.sendable(BLOCK_BYTES, 10) == 10  # it was there a moment ago
    bodies.clock.now += 2 * RESIDENT_S
    assert opened.sendable(BLOCK_BYTES, 10) == 0
    os.pread(opened.descriptor, LENGTH, 0)
    assert [opened.sendable(0, 10), opened.sendable(BLOCK_BYTES, 10)] == [10, 0]
    assert opened.sendable(2 * BLOCK_BYTES, 10) == 0  # the kernel may have read ahead
    bodies.read(opened, row)
    assert opened.sendable(0, LENGTH) == LENGTH


def test_where_the_kernel_does_not_say_what_is_in_memory_nothing_is_sent_unread(
    bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pages, "are_cached", lambda *_: False)
    _, opened = bodies.ready()
    assert opened.is_refused
    assert (opened.sendable(0, LENGTH), opened.lacks(0)) == (0, False)


def test_the_least_recently_asked_for_is_closed_first(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path, most=2)
    rows = [bodies.make(b"%d" % number) for number in range(3)]
    first, second = bodies.open(rows[0]), bodies.open(rows[1])
    settle(first)
    settle(second)
    assert bodies.files.take(first.name) is first
    bodies.open(rows[2])
    assert bodies.files.take(second.name) is None
    assert second.descriptor >= 0  # someone reads from it
    bodies.files.give_back(second)
    assert (second.descriptor, len(bodies.files)) == (-1, 2)


def test_files_that_no_one_reads_give_way_when_descriptors_run_out(bodies: Bodies) -> None:
    first, second = bodies.open(bodies.make(b"a")), bodies.open(bodies.make(b"b"))
    assert not bodies.files.give_way()
    bodies.files.give_back(second)
    assert bodies.files.give_way()
    assert (first.is_kept, second.descriptor) == (True, -1)
    assert not bodies.files.give_way()


def test_a_file_opened_again_takes_the_place_of_the_first(bodies: Bodies) -> None:
    row = bodies.make()
    first, second = bodies.open(row), bodies.open(row)
    assert (first.is_kept, second.is_kept, len(bodies.files)) == (False, True, 1)
    bodies.files.discard(first)
    assert second.is_kept
    bodies.files.give_back(first)
    bodies.files.clear()
    bodies.files.give_back(second)
    assert (first.descriptor, second.descriptor) == (-1, -1)


def test_what_was_removed_is_closed_and_what_was_not_stays(bodies: Bodies) -> None:
    row, opened = bodies.ready()
    primary = row.key[:PRIMARY_BYTES]
    bodies.files.give_back(opened)
    bodies.files.close_removed(primary)
    bodies.files.close_removed(bytes(16))
    assert opened.is_kept
    bodies.path(row).unlink()
    bodies.files.close_removed(primary)
    assert opened.descriptor == -1
    bodies.files.close(row.filename)
    bodies.files.close(None)


def test_at_most_a_part_of_the_descriptors_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in ((256, 32), (1 << 20, subject.MOST), (resource.RLIM_INFINITY, subject.MOST)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert most_kept() == most


class Files(RuleBasedStateMachine):
    """Readers, and someone who changes files under them.

    The law: what may be sent is at that moment, byte for byte, what was stored.
    """

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory()
        self.bodies = Bodies(Path(self._place.name), most=3)
        self.rows = [self.bodies.make(b"%d" % number, BLOCK_BYTES + 9) for number in range(5)]
        self.using: list[tuple[OpenBody, StoredRow]] = []
        self.made: list[OpenBody] = []

    numbers = st.integers(0, 4)

    @rule(number=numbers)
    def opens(self, number: int) -> None:
        row = self.rows[number]
        opened = self.bodies.files.take(str(row.filename))
        if opened is None and self.bodies.path(row).exists():
            opened = self.bodies.open(row)
            self.made.append(opened)
        if opened is not None:
            self.using.append((opened, row))

    @rule(number=numbers, offset=st.integers(0, BLOCK_BYTES + 8))
    def borrows(self, number: int, offset: int) -> None:
        row = self.rows[number]
        opened = self.bodies.files.lend(str(row.filename), offset, row.length - offset)
        if opened is not None:
            assert self.bodies.path(row).exists()
            self.using.append((opened, row))
            self._check(opened, row, offset, row.length - offset)

    @precondition(lambda self: self.using)
    @rule(data=st.data())
    def reads(self, data: st.DataObject) -> None:
        opened, row = data.draw(st.sampled_from(self.using))
        settle(opened)
        self.bodies.read(opened, row)

    @precondition(lambda self: self.using)
    @rule(data=st.data(), offset=st.integers(0, BLOCK_BYTES + 8))
    def sends(self, data: st.DataObject, offset: int) -> None:
        opened, row = data.draw(st.sampled_from(self.using))
        self._check(opened, row, offset, opened.sendable(offset, row.length - offset))

    @precondition(lambda self: self.using)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        opened, row = data.draw(st.sampled_from(self.using))
        self.using.remove((opened, row))
        self.bodies.files.give_back(opened)

    @rule(number=numbers, at=st.integers(0, BLOCK_BYTES + 8))
    def flips(self, number: int, at: int) -> None:
        path = self.bodies.path(self.rows[number])
        if path.exists() and path.stat().st_size > at:
            flip(path, at)

    @rule(number=numbers, length=st.integers(0, BLOCK_BYTES + 20))
    def cuts(self, number: int, length: int) -> None:
        path = self.bodies.path(self.rows[number])
        if path.exists():
            os.truncate(path, length)

    @rule(number=numbers)
    def removes(self, number: int) -> None:
        row = self.rows[number]
        self.bodies.path(row).unlink(missing_ok=True)
        self.bodies.files.close_removed(row.key[:PRIMARY_BYTES])
        assert row.filename not in self.bodies.files._kept

    @rule(number=numbers)
    def restores(self, number: int) -> None:
        row = self.rows[number]
        other = self.bodies.path(row).with_suffix(".new")
        other.write_bytes(self.bodies.bodies[str(row.filename)])
        other.rename(self.bodies.path(row))

    @rule()
    def gives_way(self) -> None:
        self.bodies.files.give_way()

    @rule(passed=st.sampled_from([RESIDENT_S, AGAIN_S]))
    def waits(self, passed: float) -> None:
        self.bodies.clock.now += passed + 0.1

    def _check(self, opened: OpenBody, row: StoredRow, offset: int, size: int) -> None:
        body = self.bodies.bodies[str(row.filename)]
        assert os.pread(opened.descriptor, size, offset) == body[offset : offset + size]

    @invariant()
    def is_bounded(self) -> None:
        kept = self.bodies.files
        assert len(kept) <= 3
        for opened in self.made:
            used = sum(one is opened for one, _ in self.using)
            assert opened.users == used
            assert (opened.descriptor >= 0) == (opened.is_kept or used > 0)

    def teardown(self) -> None:
        self.bodies.files.clear()
        for opened, _ in self.using:
            self.bodies.files.give_back(opened)
        assert all(opened.descriptor < 0 for opened in self.made)
        self._place.cleanup()


TestFiles = Files.TestCase
TestFiles.settings = settings(max_examples=60, stateful_step_count=40)
