"""The journal's file: what is written lasts, what fails is not there, what is lost is told."""

from __future__ import annotations

import errno
import os
import signal
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge.cache import pen as pen_module
from edge.cache.entry import Seq
from edge.cache.ledger import END_BYTES, HEADER_BYTES, LedgerDamaged, purge_bytes, read_purge
from edge.cache.pen import LEAP, Order, Pen, close_all, frames_in, told, way_out
from edge.cache.purge import Manner, Purges, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BIRTH = "b" * 32


def order_of(tag: int, count: int = 1, word: str = "tag") -> Order:
    digests = b"".join((tag + n).to_bytes(8, "little") for n in range(count))
    return Order(digests, False, Manner.HARD, "uid 0", 5.0, (f"{word} {tag}",), count)


class Desk:
    """A path, what was logged, and the pens that wrote there."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "purges"
        self.log: list[str] = []
        self.pens: list[Pen] = []
        self.offers: deque[int] = deque()

    def pen(self) -> Pen:
        made = Pen(self.path, memoryview(bytearray(16)).cast("Q"), self.offers, self.log.append)
        self.pens.append(made)
        return made

    def begun(self) -> Pen:
        pen = self.pen()
        assert pen.open(BIRTH) is None
        pen.begin(BIRTH)
        return pen

    def replayed(self) -> Purges:
        """What a later process would know."""
        known = self.pen().open(BIRTH)
        assert known is not None
        return known


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    for pen in desk.pens:
        pen.close()
    close_all(desk.offers)


def failing(code: int, times: int = 1, after: int = 0) -> Callable[..., int]:
    """A system call that works `after` times, and then fails `times` times."""
    left = [after, times]

    def call(*_: object, **__: object) -> int:
        if left[0]:
            left[0] -= 1
            return 0
        if left[1]:
            left[1] -= 1
            raise OSError(code, os.strerror(code))
        return 0

    return call


def is_dead(known: Purges, tag: int, fetched_at: int = 0) -> bool:
    return known.verdict(Seq(fetched_at), tag.to_bytes(8, "little")) is Verdict.DEAD


# --- what is written


def test_what_was_written_is_known_after_a_restart_and_numbers_go_on(desk: Desk) -> None:
    desk.begun().write([order_of(1), order_of(2)])
    again = desk.pen()
    known = again.open(BIRTH)
    assert known is not None
    assert (known.latest, known.floor, len(known), again.shared[0]) == (2, 0, 2, 2)
    again.write([third := order_of(3)])
    assert third.purge is not None
    assert third.purge.number == 3
    assert [purge.words for purge in again.recent] == [("tag 1",), ("tag 2",), ("tag 3",)]
    assert is_dead(desk.replayed(), 3, 2)
    assert desk.log == []


def test_a_hundred_thousand_scopes_are_one_purge(desk: Desk) -> None:
    pen = desk.begun()
    pen.write([order_of(1, 100_000)])
    known = desk.replayed()
    assert (known.latest, len(known)) == (1, 100_000)
    assert (pen.syncs, pen.recorded) == (1, 1)


def test_room_is_allocated_ahead(desk: Desk) -> None:
    pen = desk.begun()
    ahead = desk.path.stat().st_size
    assert ahead > pen_module.AHEAD_BYTES
    for tag in range(100):
        pen.write([order_of(tag)])
    assert desk.path.stat().st_size == ahead
    pen.write([order_of(1, 100_000)])
    assert desk.path.stat().st_size >= pen.end + pen_module.AHEAD_BYTES // 2


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSPC])
def test_a_file_system_that_allocates_nothing_ahead_is_good_enough(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(code, 99))
    desk.begun().write([order_of(1)])
    desk.pens[0].write([order_of(2)])
    assert desk.path.stat().st_size == desk.pens[0].end + END_BYTES
    assert len(desk.replayed()) == 2


def test_bytes_that_are_taken_a_few_at_a_time_are_all_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: real(file, data[:7], at))
    desk.begun().write([order_of(1)])
    assert len(desk.replayed()) == 1


# --- what fails


@pytest.fixture(params=["write", "sync", "sync and undo", "short write"])
def fault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the next purge fail in one of the ways there are."""
    real = os.pwrite
    short = failing(errno.ENOSPC, 1, 1)

    def write_some(file: int, data: bytes, at: int) -> int:
        short()
        return real(file, data[:9], at) if len(data) > 20 else real(file, data, at)

    def fail() -> None:
        if request.param == "write":
            monkeypatch.setattr(os, "pwrite", _once(failing(errno.ENOSPC), real))
        elif request.param == "short write":
            monkeypatch.setattr(os, "pwrite", write_some)
        else:
            monkeypatch.setattr(os, "fdatasync", _once(failing(errno.EIO), os.fdatasync))
        if request.param == "sync and undo":
            monkeypatch.setattr(os, "ftruncate", failing(errno.EIO))

    return fail


def _once(fails: Callable[..., int], real: Callable[..., object]) -> Callable[..., object]:
    def call(*args: object) -> object:
        fails()
        return real(*args)

    return call


def test_a_purge_that_could_not_be_written_is_not_in_force_and_the_next_one_is(
    desk: Desk, fault: Callable[[], None]
) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    fault()
    with pytest.raises(OSError):
        pen.write([lost := order_of(2)])
    assert (lost.purge, pen.shared[0]) == (None, 1)
    assert len(desk.replayed()) == 1

    pen.write([order_of(3)])
    known = desk.replayed()
    assert pen.shared[0] == known.latest == 3  # a number that failed is not used again
    assert (known.floor, len(known)) == (0, 2)
    assert not is_dead(known, 2)


def test_after_a_failed_sync_the_file_is_written_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    monkeypatch.setattr(os, "fdatasync", _once(failing(errno.EIO), os.fdatasync))
    with pytest.raises(OSError):
        pen.write([order_of(2)])
    before = desk.path.stat().st_ino
    pen.write([order_of(3)])
    assert desk.path.stat().st_ino != before
    assert desk.log == [f"{desk.path}: written anew: it could not be written before"]


@pytest.mark.parametrize("name", ["open", "dup", "fsync", "rename"])
def test_a_file_that_cannot_be_written_anew_leaves_what_was_in_force(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    desk.path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(errno.EROFS, 9))
        for _ in range(2):
            with pytest.raises(OSError):
                pen.write([order_of(2)])
    assert list(desk.path.parent.iterdir()) == []
    pen.write([order_of(3)])
    assert desk.replayed().latest == 2
    assert is_dead(desk.replayed(), 1)


def test_a_directory_that_cannot_be_synced_may_bring_the_old_file_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    desk.path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.EIO, 1, 1))
        with pytest.raises(OSError):
            pen.write([order_of(2)])
    renamed = desk.path.stat().st_ino
    pen.write([order_of(3)])
    assert desk.path.stat().st_ino != renamed
    assert len(desk.replayed()) == 2


def test_without_a_journal_purges_are_refused_until_there_can_be_one(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "gone")
    pen = desk.begun()
    assert desk.log == [
        f"{desk.path}: cannot be written: No such file or directory; check its disk: "
        "until then nothing can be purged"
    ]
    with pytest.raises(FileNotFoundError):
        pen.write([order_of(1)])
    desk.path.parent.mkdir()
    pen.write([order_of(2)])
    assert pen.shared[0] == 1
    assert desk.log[1:] == [f"{desk.path}: written anew: there was none"]
    pen.close()
    close_all(desk.offers)


def test_a_file_that_is_read_only_is_known_and_refuses_purges(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.begun().write([order_of(1)])
    real = os.open

    def read_only(path: Path, flags: int, mode: int = 0) -> int:
        if flags & (os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    pen = desk.pen()
    known = pen.open(BIRTH)
    assert known is not None
    assert is_dead(known, 1)
    with pytest.raises(OSError) as refused:
        pen.write([order_of(2)])
    assert way_out(refused.value) == "let this node write to its directory"
    monkeypatch.setattr(os, "open", real)
    pen.write([order_of(3)])
    assert len(desk.replayed()) == 2


# --- what becomes of a file behind our back


def _remove(path: Path) -> None:
    path.unlink()


def _swap(path: Path) -> None:
    path.with_name("copy").write_bytes(path.read_bytes())
    path.with_name("copy").rename(path)


@pytest.mark.parametrize(
    ("meddle", "why"),
    [(_remove, "it had been removed"), (_swap, "another file had taken its place")],
)
def test_a_file_that_lost_its_name_is_written_anew(
    desk: Desk, meddle: Callable[[Path], None], why: str
) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    meddle(desk.path)
    pen.write([order_of(2)])
    assert desk.log == [f"{desk.path}: written anew: {why}"]
    known = desk.replayed()
    assert (known.floor, len(known)) == (0, 2)


@pytest.mark.parametrize("left", [0, 20, HEADER_BYTES, -1, -2])
def test_a_file_that_was_cut_has_purged_everything(desk: Desk, left: int) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    before = pen.end
    pen.write([order_of(2)])
    os.truncate(desk.path, {-1: before, -2: pen.end - 1}.get(left, left))
    pen.write([order_of(3)])
    assert desk.log[0].endswith("; all that was stored before is taken for purged")
    assert desk.log[1] == f"{desk.path}: written anew: it had been cut"
    known = desk.replayed()
    assert (known.floor, known.latest, len(known)) == (2, 3, 1)


def test_a_reader_that_could_not_read_it_has_it_written_anew(desk: Desk) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    pen.shared[1] = 1
    pen.write([order_of(2)])
    pen.write([order_of(3)])
    assert desk.log == [f"{desk.path}: written anew: purge 1 could not be read from it"]
    assert (desk.replayed().floor, len(desk.replayed())) == (0, 3)


# --- opening


def test_a_journal_of_another_store_is_none(desk: Desk) -> None:
    desk.begun().write([order_of(1)])
    for birth in ("c" * 32, ""):
        assert desk.pen().open(birth) is None
    why = f"{desk.path}: cannot be used: it is of another store; the store begins empty"
    assert desk.log == [why, why]


def test_a_journal_without_a_birth_can_be_written_and_not_opened(desk: Desk) -> None:
    pen = desk.pen()
    assert pen.open("") is None
    pen.begin("")
    pen.write([order_of(1)])
    assert desk.pen().open("") is None


def test_a_journal_begun_again_goes_on_with_its_numbers(desk: Desk) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    pen.begin("c" * 32)
    pen.write([order_of(2)])
    known = desk.pen().open("c" * 32)
    assert known is not None
    assert (known.floor, known.latest, len(known)) == (1, 2, 1)


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))
    path.with_name("elsewhere").write_bytes(b"precious")


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, pen_module.LARGEST_FILE_BYTES + 1)


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (_link, "Too many levels of symbolic links"),
        (os.mkfifo, "it is no file"),
        (_huge, "268435457 bytes are more than a journal can have"),
        (Path.touch, "too short for a journal of purges"),
    ],
)
def test_what_is_no_journal_is_replaced_by_one(
    desk: Desk, plant: Callable[[Path], None], why: str
) -> None:
    plant(desk.path)
    pen = desk.begun()
    assert desk.log == [f"{desk.path}: cannot be used: {why}; the store begins empty"]
    pen.write([order_of(1)])
    assert len(desk.replayed()) == 1
    elsewhere = desk.path.with_name("elsewhere")
    assert not elsewhere.exists() or elsewhere.read_bytes() == b"precious"


def test_a_folder_in_its_place_refuses_purges(desk: Desk) -> None:
    desk.path.mkdir()
    with pytest.raises(IsADirectoryError):
        desk.begun().write([order_of(1)])


def test_what_a_killed_compaction_left_behind_is_removed(desk: Desk) -> None:
    beside = desk.path.with_name("purges.new")
    beside.write_bytes(b"half")
    desk.begun()
    assert not beside.exists()


def damage(path: Path, place: int = HEADER_BYTES + 20) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (old,) = file.read(1)
        file.seek(place)
        file.write(bytes([old ^ 1]))


def test_a_damaged_journal_has_purged_everything_and_numbers_leap(desk: Desk) -> None:
    pen = desk.begun()
    pen.write([order_of(1), order_of(2)])
    damage(desk.path, pen.end - 1)
    known = desk.replayed()
    assert (known.floor, known.latest, len(known)) == (1 + LEAP, 1 + LEAP, 0)
    assert desk.log[0].startswith(f"{desk.path}: damaged: the checksum of the record at byte ")
    assert desk.log[0].endswith(" differs; all that was stored before is taken for purged")

    again = desk.pen()  # it was written anew at once
    assert again.open(BIRTH) is not None
    again.write([order_of(3)])
    assert again.shared[0] == 2 + LEAP
    assert len(desk.log) == 1


def test_a_damaged_journal_that_cannot_be_written_anew_leaps_as_far_each_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    damage(desk.path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing(errno.EROFS, 9))
        for _ in range(2):
            assert desk.replayed().floor == LEAP
    assert "not compacted: Read-only file system; let this node write to its " in desk.log[1]
    desk.pens[-1].write([order_of(2)])
    known = desk.replayed()
    assert (known.floor, known.latest, len(known)) == (LEAP, LEAP + 1, 1)


def test_the_last_record_cut_anywhere_is_all_there_or_everything_was_purged(desk: Desk) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    before = pen.end
    pen.write([order_of(2), order_of(3)])
    whole = desk.path.read_bytes()[: pen.end + 2 * END_BYTES]
    for size in range(before, len(whole) + 1):
        desk.path.write_bytes(whole[:size])
        known = desk.replayed()
        complete = (known.latest, known.floor, len(known)) == (3, 0, 3)
        assert complete or (known.floor == known.latest >= LEAP and not len(known))
        assert complete == (size >= pen.end + END_BYTES)
        desk.pens.pop().close()


def killed(deed: Callable[[], None]) -> None:
    """Do `deed` in a process that ends by kill -9 on the way."""
    child = os.fork()
    if not child:
        try:
            deed()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_a_purge_whose_process_was_killed_before_it_was_published_is_in_force(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    monkeypatch.setattr(os, "fdatasync", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    killed(lambda: pen.write([order_of(2)]))
    assert pen.shared[0] == 1
    known = desk.replayed()
    assert (known.latest, known.floor) == (2, 0)
    assert is_dead(known, 2, 1)


@pytest.mark.parametrize("written", [8, 9, 50, 4096, 8192])
def test_purges_whose_process_was_killed_while_it_wrote_are_not_in_force_and_harm_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    pen = desk.begun()
    pen.write([order_of(1)])
    real = os.pwrite

    def write_some(file: int, data: bytes, at: int) -> int:
        real(file, data[:written], at)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write_some)
        killed(lambda: pen.write([order_of(2), order_of(3, 2000)]))
    again = desk.pen()
    known = again.open(BIRTH)
    assert known is not None
    assert (known.latest, known.floor, len(known)) == (1, 0, 1)
    assert desk.log == [f"{desk.path}: the last purge was not finished, and is not in force"]

    again.write([order_of(4)])  # it was written anew at once
    known = desk.replayed()
    assert (known.latest, known.floor, len(known)) == (2, 0, 2)
    assert is_dead(known, 4, 1)
    assert len(desk.log) == 1


def test_the_newest_file_is_offered_to_a_reader_in_this_process(desk: Desk) -> None:
    pen = desk.begun()
    pen.begin(BIRTH)
    (offered,) = desk.offers
    assert os.path.sameopenfile(offered, pen.file)


# --- compaction


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pen_module, "SLACK_BYTES", 500)
    monkeypatch.setattr(pen_module, "START_SLACK_BYTES", 200)


def test_a_file_that_has_grown_is_compacted_and_says_the_same(desk: Desk, small: None) -> None:
    pen = desk.begun()
    longest = 0
    for tag in range(200):
        pen.write([order_of(tag % 3)])
        longest = max(longest, pen.end - 2 * pen.opened)
        pen.compact()
    assert pen.compactions > 3
    assert longest < 600
    known = desk.replayed()
    assert (known.latest, known.floor, len(known)) == (200, 0, 3)
    assert len(pen.recent) == len(desk.pens[-1].recent) == 200
    assert desk.log == []


def test_a_file_is_compacted_when_it_is_opened(desk: Desk, small: None) -> None:
    pen = desk.begun()
    for tag in range(8):
        pen.write([order_of(tag)])
    again = desk.pen()
    assert again.open(BIRTH) is not None
    assert again.compactions == 1
    assert again.end == again.opened
    again.write([order_of(9)])
    known = desk.replayed()
    assert (known.latest, len(known)) == (9, 9)


def test_a_file_that_cannot_be_compacted_grows_for_a_while_and_is_then_refused(
    desk: Desk, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pen = desk.begun()
    limit = pen.opened + 2 * (pen.opened + 500)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing(errno.ENOSPC, 999))
        with pytest.raises(OSError) as refused:
            for tag in range(200):
                pen.write([order_of(tag)])
                pen.compact()
    assert way_out(refused.value) == "make room on its disk"
    assert 0 < pen.end - limit < 100
    assert set(desk.log) == {
        f"{desk.path}: not compacted: No space left on device; make room on its disk"
    }
    assert len(desk.log) < 5
    pen.write([order_of(1)])
    assert desk.log[-1] == f"{desk.path}: written anew: it had grown too long"
    assert desk.replayed().floor == 0


def test_compaction_finds_damage_and_takes_everything_for_purged(desk: Desk, small: None) -> None:
    pen = desk.begun()
    for tag in range(20):
        pen.write([order_of(tag)])
    damage(desk.path, pen.end - 1)
    pen.compact()
    assert pen.compactions == 1
    assert desk.log[0].endswith("; all that was stored before is taken for purged")
    known = desk.replayed()
    assert (known.floor, known.latest) == (20, 20)


# --- reading piece by piece


def test_records_are_read_however_they_lie_in_the_windows(tmp_path: Path) -> None:
    orders = [order_of(tag, size) for tag, size in enumerate((1, 600, 3, 5000, 1), 1)]
    purges = [order.numbered(number) for number, order in enumerate(orders, 1)]
    path = tmp_path / "purges"
    for lead in range(0, 200, 8):
        for tail in (0, 3, 8, 9000):
            records = b"".join(map(purge_bytes, purges))
            path.write_bytes(bytes(lead) + records + bytes(tail))
            with path.open("rb") as file:
                found = list(frames_in(file.fileno(), lead))
            assert [read_purge(frame.payload) for frame in found] == purges
            assert found[-1].end == lead + len(records)


def test_many_small_records_are_read_to_the_last(tmp_path: Path) -> None:
    records = [purge_bytes(order_of(n).numbered(n)) for n in range(1, 1000)]
    path = tmp_path / "purges"
    path.write_bytes(b"".join(records) + bytes(END_BYTES))
    with path.open("rb") as file:
        assert sum(1 for _ in frames_in(file.fileno(), 0)) == 999


def test_a_record_that_the_file_does_not_hold_is_damage(tmp_path: Path) -> None:
    record = purge_bytes(order_of(1, 600).numbered(1))
    path = tmp_path / "purges"
    path.write_bytes(record[:-1])
    with (
        path.open("rb") as file,
        pytest.raises(LedgerDamaged, match="the file ends within the record at byte 0"),
    ):
        list(frames_in(file.fileno(), 0))


@pytest.mark.parametrize(
    ("code", "way"),
    [
        (errno.EDQUOT, "make room on its disk"),
        (errno.EACCES, "let this node write to its directory"),
        (errno.EMFILE, "raise the limit of open files"),
        (errno.EIO, "check its disk"),
    ],
)
def test_every_error_has_a_way_out(code: int, way: str) -> None:
    assert way_out(OSError(code, "")) == way


def test_errors_are_told_in_words() -> None:
    assert told(OSError(errno.EIO, "Input/output error")) == "Input/output error"
    assert told(OSError("only text")) == "only text"
    assert told(LedgerDamaged("no opening")) == "no opening"
