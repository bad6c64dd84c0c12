"""The journal: in force when acknowledged, in every process, through restarts, or not at all."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.cache import journal as journal_module
from edge.cache import ledger, pen
from edge.cache.entry import Seq
from edge.cache.journal import (
    Follower,
    Journal,
    JournalError,
    follower_of,
    shared_number,
)
from edge.cache.purge import Manner, Purge, Verdict
from edge.cache.scope import digest, packed
from edge.cache.threads import Inline, MakeWorkers, Threads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

BIRTH = "b" * 32
AREA = digest(b"hsite.example")


async def purge(
    journal: Journal,
    *names: bytes,
    manner: Manner = Manner.HARD,
    everything: bool = False,
    when: float = 5.0,
    area: bytes = b"",
) -> Purge:
    words = tuple(name.decode() for name in names)
    return await journal.purge(
        digests=packed(names),
        everything=everything,
        manner=manner,
        who="uid 0",
        when=when,
        words=words,
        count=len(names),
        area=area,
    )


@asynccontextmanager
async def opened(
    directory: Path, io: MakeWorkers = Inline, birth: str = BIRTH, log: list[str] | None = None
) -> AsyncIterator[Journal]:
    """A journal as a node has it: opened, or begun."""
    lines: list[str] = [] if log is None else log
    journal = Journal(directory, log=lines.append, io=io)
    if not await journal.open(birth):
        await journal.begin(birth)
    try:
        yield journal
    finally:
        await journal.close()


def judged(follower: Follower, name: bytes, fetched_at: int = 0) -> Verdict:
    return follower.current().verdict(Seq(fetched_at), digest(name))


@pytest.fixture(params=[Inline, Threads], ids=["inline", "threads"])
def io(request: pytest.FixtureRequest) -> MakeWorkers:
    kind: MakeWorkers = request.param
    return kind


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are compacted after a few purges."""
    monkeypatch.setattr(pen, "SLACK_BYTES", 500)


def refuse(code: int) -> Callable[..., int]:
    def call(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    return call


# --- in force


async def test_a_purge_is_in_force_when_it_is_acknowledged(
    tmp_path: Path, io: MakeWorkers
) -> None:
    async with opened(tmp_path, io) as journal:
        follower = journal.follower()
        assert judged(follower, b"tfront") is Verdict.LIVE
        assert (await purge(journal, b"tfront")).number == 1
        assert judged(follower, b"tfront") is Verdict.DEAD
        assert (await purge(journal, b"thome", manner=Manner.SOFT, when=7.0)).number == 2
        assert judged(follower, b"thome") is Verdict.STALE
        assert follower.current().stale_since(Seq(0), digest(b"thome")) == 7.0
        assert judged(follower, b"tfront", 1) is Verdict.LIVE


async def test_a_purge_is_in_force_after_a_restart_and_numbers_go_on(
    tmp_path: Path, io: MakeWorkers
) -> None:
    async with opened(tmp_path, io) as journal:
        await purge(journal, b"tfront")
    async with opened(tmp_path, io) as journal:
        assert judged(journal.follower(), b"tfront") is Verdict.DEAD
        assert (await purge(journal, everything=True)).number == 2
        assert judged(journal.follower(), b"tother", 1) is Verdict.DEAD


async def test_the_same_purges_are_seen_as_they_come(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        known = journal.follower().current()
        await purge(journal, b"tfront")
        assert journal.follower().current() is known


@pytest.mark.parametrize("birth", ["", "c" * 32])
async def test_a_store_with_another_birth_has_to_be_emptied(tmp_path: Path, birth: str) -> None:
    async with opened(tmp_path) as journal:
        await purge(journal, b"tfront")
    log: list[str] = []
    async with opened(tmp_path, birth=birth, log=log) as journal:
        assert journal.follower().current().latest == 0
        assert (await purge(journal, b"tfront")).number == 1
        assert judged(journal.follower(), b"tfront") is Verdict.DEAD
    assert "is of another store" in log[0]


async def test_a_hundred_thousand_scopes_are_one_transaction(tmp_path: Path) -> None:
    names = [b"t%d" % n for n in range(100_000)]
    async with opened(tmp_path, Threads) as journal:
        done = await purge(journal, *names)
        assert (done.number, done.count, len(done.words)) == (1, 100_000, 20)
        purges = journal.follower().current()
        assert len(purges) == 100_000
        assert purges.verdict(Seq(0), digest(names[-1])) is Verdict.DEAD


async def test_the_recent_purges_are_told_newest_first_and_after_a_restart(
    tmp_path: Path, io: MakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pen, "RECENT", 3)
    monkeypatch.setattr(ledger, "RECENT", 3)
    monkeypatch.setattr(journal_module, "RECENT", 3)
    async with opened(tmp_path, io) as journal:
        for name in (b"ta", b"tb", b"tc", b"td"):
            await purge(journal, name)
        recent = journal.follower().recent()
    assert [(one.number, one.words, one.digests) for one in recent] == [
        (4, ("td",), b""),
        (3, ("tc",), b""),
        (2, ("tb",), b""),
    ]
    async with opened(tmp_path, io) as journal:
        assert journal.follower().recent() == recent
        assert recent[0].who == "uid 0"


async def test_words_are_few_short_and_printable(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        done = await journal.purge(
            digests=b"",
            everything=True,
            manner=Manner.HARD,
            who="\udcff",
            when=0.0,
            words=("x" * 9999,) * 99,
            count=99,
        )
    assert done.who == "\\udcff"
    assert len(done.words) == 20
    assert done.words[0] == "x" * 199 + "…"


async def test_what_is_no_purge_is_refused_before_it_is_queued(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        with pytest.raises(ValueError, match="confined to no area"):
            await purge(journal, everything=True, area=AREA)
        assert journal.statistics().refused == 0


# --- at once, and cancelled


class Gate:
    """Syncs that wait to be let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, file: int) -> None:
        self.reached.set()
        assert self.open.wait(10)
        self._real(file)

    async def wait_reached(self) -> None:
        await trio.to_thread.run_sync(self.reached.wait)


async def test_purges_that_come_while_one_is_synced_share_the_next_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, numbers = Gate(monkeypatch), dict[int, int]()

    async def ask(tag: int) -> None:
        numbers[tag] = (await purge(journal, b"t%d" % tag)).number

    async with opened(tmp_path, Threads) as journal, trio.open_nursery() as nursery:
        nursery.start_soon(ask, 0)
        await gate.wait_reached()
        for tag in range(1, 6):
            nursery.start_soon(ask, tag)
            await trio.testing.wait_all_tasks_blocked()
        assert numbers == {}  # the loop went on, and nothing was acknowledged before the sync
        gate.open.set()
    assert numbers == {tag: tag + 1 for tag in range(6)}
    assert journal.statistics().syncs == 2
    async with opened(tmp_path) as journal:
        assert len(journal.follower().current()) == 6


async def test_nothing_is_published_before_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with opened(tmp_path, Threads) as journal, trio.open_nursery() as nursery:
        nursery.start_soon(partial(purge, journal, b"tfront"))
        await gate.wait_reached()
        assert judged(journal.follower(), b"tfront") is Verdict.LIVE
        gate.open.set()


async def test_a_purge_cancelled_before_the_pen_took_it_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with opened(tmp_path, Threads) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(purge, journal, b"tfirst"))
            await gate.wait_reached()
            with trio.move_on_after(0) as scope:
                await purge(journal, b"tsecond")
            assert scope.cancelled_caught
            gate.open.set()
        assert (await purge(journal, b"tthird")).number == 2
        assert judged(journal.follower(), b"tsecond") is Verdict.LIVE


async def test_a_purge_cancelled_while_it_is_written_is_in_force_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with opened(tmp_path, Threads) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(purge, journal, b"ta", b"tb"))
            await gate.wait_reached()
            nursery.cancel_scope.cancel()
            gate.open.set()
        assert judged(journal.follower(), b"ta") is Verdict.DEAD
        assert judged(journal.follower(), b"tb") is Verdict.DEAD


async def test_a_purge_is_not_begun_by_a_cancelled_task(tmp_path: Path, io: MakeWorkers) -> None:
    async with opened(tmp_path, io) as journal:
        with trio.CancelScope() as scope:
            scope.cancel()
            await purge(journal, b"tfront")
        assert scope.cancelled_caught
        assert journal.follower().current().latest == 0


async def test_too_much_that_waits_for_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "WAITING_BYTES", 3000)
    gate = Gate(monkeypatch)
    async with opened(tmp_path, Threads) as journal, trio.open_nursery() as nursery:
        nursery.start_soon(partial(purge, journal, b"ta"))
        await gate.wait_reached()
        nursery.start_soon(partial(purge, journal, b"tb"))
        nursery.start_soon(partial(purge, journal, b"tc"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(JournalError, match="too many purges are waiting for the disk; wait"):
            await purge(journal, b"td")
        gate.open.set()
    assert journal.statistics().latest == 3


async def test_an_opening_that_is_cancelled_leaves_no_threads(tmp_path: Path) -> None:
    before = threading.active_count()
    journal = Journal(tmp_path, log=print, io=Threads)
    with trio.CancelScope() as scope:
        scope.cancel()
        await journal.open(BIRTH)
    assert scope.cancelled_caught
    assert not [one for one in threading.enumerate() if one.name.startswith("edge-journal")]
    assert threading.active_count() <= before + 1  # Trio keeps the one that waited


# --- refused


async def test_a_purge_that_cannot_be_kept_is_an_error_and_not_in_force(
    tmp_path: Path, io: MakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, io) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", refuse(errno.ENOSPC))
            with pytest.raises(JournalError) as refused:
                await purge(journal, b"tfront")
        why = f"{tmp_path}/purges: not purged: No space left on device"
        assert str(refused.value) == f"{why}; make room on its disk, then purge again"
        assert isinstance(refused.value.__cause__, OSError)
        assert judged(journal.follower(), b"tfront") is Verdict.LIVE
        assert journal.statistics().fault == why
        assert journal.statistics().refused == 1
        await purge(journal, b"tother")
        assert judged(journal.follower(), b"tfront") is Verdict.LIVE
        assert judged(journal.follower(), b"tother") is Verdict.DEAD
        assert journal.statistics().fault == ""


async def test_all_that_share_a_sync_are_refused_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    refused: list[str] = []

    async def ask(name: bytes) -> None:
        try:
            await purge(journal, name)
        except JournalError as error:
            refused.append(str(error))

    async with opened(tmp_path, Threads) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, b"ta")
            await gate.wait_reached()
            monkeypatch.setattr(os, "fdatasync", refuse(errno.EIO))
            nursery.start_soon(ask, b"tb")
            nursery.start_soon(ask, b"tc")
            await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
        assert len(refused) == 2
        assert all("not purged: Input/output error; check its disk" in why for why in refused)
        assert judged(journal.follower(), b"ta") is Verdict.DEAD
        assert judged(journal.follower(), b"tb") is Verdict.LIVE
        monkeypatch.setattr(os, "fdatasync", lambda _: None)
        assert (await purge(journal, b"td")).number == 4
        assert judged(journal.follower(), b"tb") is Verdict.LIVE
        assert judged(journal.follower(), b"td") is Verdict.DEAD


async def test_a_fault_of_ours_harms_no_later_purge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(pen, "purge_bytes", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await purge(journal, b"tfront")
        await purge(journal, b"tother")
        assert judged(journal.follower(), b"tfront") is Verdict.LIVE


async def test_a_node_without_a_journal_serves_and_purges_when_there_can_be_one(
    tmp_path: Path, io: MakeWorkers
) -> None:
    async with opened(tmp_path / "gone", io) as journal:
        assert judged(journal.follower(), b"tfront") is Verdict.LIVE
        with pytest.raises(JournalError, match="not purged: No such file or directory"):
            await purge(journal, b"tfront")
        assert judged(journal.follower(), b"tfront") is Verdict.LIVE
        (tmp_path / "gone").mkdir()
        await purge(journal, b"tfront")
        assert judged(journal.follower(), b"tfront") is Verdict.DEAD


async def test_a_journal_that_is_closed_refuses_and_still_tells(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await purge(journal, b"tfront")
    with pytest.raises(JournalError, match="not purged: the node is stopping; start it"):
        await purge(journal, b"tother")
    await journal.close()
    assert judged(journal.follower(), b"tfront") is Verdict.DEAD


# --- compaction and readers


async def test_a_reader_misses_nothing_when_the_file_is_compacted(
    tmp_path: Path, io: MakeWorkers, small: None
) -> None:
    log: list[str] = []
    async with opened(tmp_path, io, log=log) as journal:
        for number in range(1, 100):
            done = await purge(journal, b"t%d" % (number % 4))
            assert done.number == number
            if number % 3 == 0:
                assert (
                    judged(journal.follower(), b"t%d" % (number % 4), number - 1) is Verdict.DEAD
                )
        assert journal.statistics().compactions > 2
        assert journal.follower().current().floor == 0
    assert log == []


async def test_a_reader_that_slept_through_two_compactions_reads_the_opening(
    tmp_path: Path, small: None
) -> None:
    async with opened(tmp_path) as journal:
        for number in range(100):
            await purge(journal, b"t%d" % (number % 4))
        known = journal.follower().current()
        assert (known.latest, known.floor, len(known)) == (100, 0, 4)


@pytest.mark.parametrize("meddle", ["remove", "garbage", "another"])
async def test_a_reader_that_cannot_read_takes_everything_for_purged(
    tmp_path: Path, meddle: str
) -> None:
    log: list[str] = []
    async with opened(tmp_path, log=log) as journal:
        done = await purge(journal, b"tfront")
        path = tmp_path / "purges"
        whole = path.read_bytes()
        os.truncate(path, 10)
        path.unlink()
        if meddle == "garbage":
            path.write_bytes(b"garbage")
        if meddle == "another":
            header = ledger.header_bytes(ledger.Header("c", 0))
            path.write_bytes(header + whole[ledger.HEADER_BYTES :])
        journal.follower().close()  # as in a process without the pen
        assert judged(journal.follower(), b"tother") is Verdict.DEAD
        assert judged(journal.follower(), b"tother", done.number) is Verdict.LIVE
        assert log[0].startswith(f"{path}: purge 1 cannot be read: ")
        assert log[0].endswith("; all that was stored before is taken for purged")

        await purge(journal, b"tfront")  # in a file that is written anew
        assert judged(journal.follower(), b"tfront", 1) is Verdict.DEAD
        assert judged(journal.follower(), b"tother", 1) is Verdict.LIVE


async def test_a_damaged_record_is_left_behind_with_its_file(tmp_path: Path) -> None:
    log: list[str] = []
    async with opened(tmp_path, log=log) as journal:
        await purge(journal, b"tfront")
        with (tmp_path / "purges").open("r+b") as file:
            file.seek(journal.statistics().file_bytes - 1)
            file.write(b"\xff")
        assert judged(journal.follower(), b"tother") is Verdict.DEAD
        await purge(journal, b"tfront")
        assert judged(journal.follower(), b"tother", 1) is Verdict.LIVE
        assert judged(journal.follower(), b"tfront", 1) is Verdict.DEAD
    assert f"{tmp_path}/purges: written anew: purge 1 could not be read from it" in log


async def test_a_reader_takes_nothing_that_is_not_in_force(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        path = tmp_path / "purges"
        begun = path.read_bytes()[: journal.statistics().file_bytes]
        await purge(journal, b"tfront")
        unpublished = Purge(Seq(2), 0.0, "", Manner.HARD, False, digest(b"ta"), 1, ())
        path.write_bytes(begun + ledger.purge_bytes(unpublished) + bytes(ledger.END_BYTES))
        purges = journal.follower().current()
        assert (purges.latest, purges.floor) == (1, 1)


async def test_a_reader_finds_a_file_that_holds_no_opening_or_not_enough(tmp_path: Path) -> None:
    log: list[str] = []
    async with opened(tmp_path, log=log) as journal:
        follower = journal.follower()
        for reach, name in ((1, b"tfront"), (9, b"tother")):
            await purge(journal, name)
            follower.close()
            header = ledger.header_bytes(ledger.Header(BIRTH, reach))
            (tmp_path / "purges").write_bytes(header + bytes(ledger.END_BYTES))
            assert judged(follower, b"tany") is Verdict.DEAD
    told = [line for line in log if "cannot be read" in line]
    assert len(told) == 2
    assert "purge 1 cannot be read: it has no opening;" in told[0]


async def test_a_reader_without_a_descriptor_of_its_own_opens_the_file_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as journal:
        await purge(journal, b"tfront")
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", refuse(errno.EMFILE))
        journal = Journal(tmp_path, log=print, io=Inline)
        assert await journal.open(BIRTH)
    await purge(journal, b"tother")
    assert judged(journal.follower(), b"tother", 1) is Verdict.DEAD
    assert judged(journal.follower(), b"tfront") is Verdict.DEAD
    assert journal.follower().current().floor == 0
    await journal.close()


async def test_a_reader_needs_no_descriptor_of_its_own_when_there_are_none_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None
) -> None:
    async with opened(tmp_path) as journal:
        await purge(journal, b"t0")
        while journal.statistics().compactions < 3:
            await purge(journal, b"t1")
        await purge(journal, b"t2")
        monkeypatch.setattr(os, "open", refuse(errno.EMFILE))
        assert judged(journal.follower(), b"t2") is Verdict.DEAD
        assert journal.follower().current().floor == 0
        monkeypatch.undo()


async def test_nothing_is_left_open(tmp_path: Path, small: None) -> None:
    before = os.listdir("/proc/self/fd")
    async with opened(tmp_path) as journal:
        for number in range(40):
            await purge(journal, b"t%d" % number)
            if number % 3 == 0:
                journal.follower().current()
    assert os.listdir("/proc/self/fd") == before


class Child:
    """A worker: a process forked from this one, which looks at the purges all the time."""

    def __init__(self, follower: Follower) -> None:
        self._ask, child_asked = os.pipe()[::-1]
        self._answer, child_answer = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                os.close(self._ask)
                _look(follower, child_asked, child_answer)
            finally:
                os._exit(0)
        os.close(child_asked)
        os.close(child_answer)

    def verdict(self, tag: int, fetched_at: int) -> tuple[str, int]:
        """What the worker makes of an entry now, and its floor."""
        os.write(self._ask, b"%8d%8d" % (tag, fetched_at))
        verdict, floor = os.read(self._answer, 100).decode().split()
        return verdict, int(floor)

    def end(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._ask)
        os.close(self._answer)


def _look(follower: Follower, asked: int, answer: int) -> None:
    while True:
        follower.current()
        if not select.select([asked], [], [], 0)[0]:
            continue
        if not (question := os.read(asked, 16)):
            return
        purges = follower.current()
        verdict = purges.verdict(Seq(int(question[8:])), digest(b"t%d" % int(question[:8])))
        os.write(answer, f"{verdict.value} {purges.floor}".encode())


async def test_a_worker_process_knows_of_a_purge_when_it_is_acknowledged(
    tmp_path: Path, small: None
) -> None:
    async with opened(tmp_path) as journal:
        await purge(journal, b"t1")
        watching, dozing = Child(journal.follower()), Child(journal.follower())
        try:
            for number in range(2, 300):
                await purge(journal, b"t%d" % number)
                assert watching.verdict(number, number - 1) == ("dead", 0)
                assert watching.verdict(number, number) == ("live", 0)
                if number % 50 == 0:
                    assert dozing.verdict(number - 30, number - 31) == ("dead", 0)
            assert watching.verdict(1, 0) == ("dead", 0)
        finally:
            watching.end()
            dozing.end()
        assert journal.statistics().compactions > 3


# --- a keeper in a process of its own


async def test_another_processs_follower_knows_what_the_keeper_acknowledged(
    tmp_path: Path, small: None
) -> None:
    shared = shared_number()
    journal = Journal(tmp_path, log=print, io=Inline, shared=shared)
    assert not await journal.open("")
    await journal.begin(BIRTH)
    log: list[str] = []
    follower = follower_of(tmp_path, BIRTH, shared, log.append)
    for number in range(1, 50):
        await purge(journal, b"t%d" % number)
        assert judged(follower, b"t%d" % number, number - 1) is Verdict.DEAD
        assert judged(follower, b"t%d" % number, number) is Verdict.LIVE
    assert follower.recent() == journal.follower().recent()
    recalled = follower.recall(49)
    assert recalled is not None
    assert recalled.words == ("t49",)
    assert follower.recall(50) is None
    assert log == []
    follower.close()
    await journal.close()


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_new_keeper_gives_no_number_that_one_before_it_gave(
    tmp_path: Path, *, is_lost: bool
) -> None:
    shared = shared_number()
    first = Journal(tmp_path, log=print, io=Inline, shared=shared)
    assert not await first.open("")
    await first.begin(BIRTH)
    for name in (b"ta", b"tb"):
        await purge(first, name)
    await first.close()
    if is_lost:
        (tmp_path / "purges").unlink()
    second = Journal(tmp_path, log=lambda _: None, io=Inline, shared=shared)
    if not await second.open(BIRTH):
        await second.begin(BIRTH)
    assert (await purge(second, b"tc")).number == 3
    assert judged(second.follower(), b"tc", 2) is Verdict.DEAD
    await second.close()


# --- the law


steps = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["purge", "everything", "confined"]),
            st.integers(0, 5),
            st.sampled_from(Manner),
        ),
        st.tuples(st.sampled_from(["restart", "fail", "fail sync", "remove", "look"])),
    ),
    max_size=30,
)


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps)
async def test_whatever_happens_what_was_acknowledged_is_purged_and_nothing_else_is(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    acknowledged: list[Purge] = []
    log: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pen, "SLACK_BYTES", 100)
        journal = Journal(directory, log=log.append, io=Inline)
        await journal.open(BIRTH)
        await journal.begin(BIRTH)
        for what, *how in [*steps, ("look",)]:
            if what == "restart" and (directory / "purges").exists():
                await journal.close()
                journal = Journal(directory, log=log.append, io=Inline)
                assert await journal.open(BIRTH)
            elif what == "remove":
                (directory / "purges").unlink(missing_ok=True)
            elif what in ("fail", "fail sync"):
                with pytest.MonkeyPatch.context() as fault:
                    name = "pwrite" if what == "fail" else "fdatasync"
                    fault.setattr(os, name, refuse(errno.EIO))
                    with pytest.raises(JournalError):
                        await purge(journal, b"tfailed")
            elif what in ("purge", "everything", "confined"):
                tag, manner = how
                assert isinstance(tag, int)
                assert isinstance(manner, Manner)
                names = [] if what == "everything" else [b"t%d" % tag]
                area = AREA if what == "confined" else b""
                done = await purge(journal, *names, manner=manner, everything=not names, area=area)
                acknowledged.append(done)
            else:
                check(journal.follower(), acknowledged)
        await journal.close()


def check(follower: Follower, acknowledged: list[Purge]) -> None:
    """Hold the tables against the list of what was acknowledged."""
    purges = follower.current()
    for fetched_at in {0, *(one.number for one in acknowledged)}:
        for name in (b"tfailed", *(b"t%d" % tag for tag in range(6))):
            for is_within in (False, True):
                later = [
                    one.manner is Manner.SOFT
                    for one in acknowledged
                    if one.number > fetched_at
                    and (one.everything or one.digests == digest(name))
                    and (is_within or not one.area)
                ]
                expected = Verdict.DEAD
                if all(later):
                    expected = Verdict.STALE if later else Verdict.LIVE
                scopes = digest(name) + (AREA if is_within else b"")
                assert purges.verdict(Seq(fetched_at), scopes) is expected
