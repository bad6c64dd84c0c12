"""A process of a node: it does its work, says why it could not, and ends with its parent."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

import pytest

from edge.process.child import KEEPER, Child, how, in_words, start
from edge.process.leash import Drain, Ready, Taken
from tests.unit.process.test_leash import said_by

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


def started(work: Callable[[socket.socket], None], slot: int = 0) -> Child:
    return start(slot, 0, work, lambda: None, "edge")


def ended(child: Child) -> int:
    """The exit code of a child, or minus the signal that has ended it."""
    _, status = os.waitpid(child.pid, 0)
    child.leash.close()
    return os.waitstatus_to_exitcode(status)


def waiting(leash: socket.socket) -> None:
    """Say that there is a process, and wait."""
    leash.send(said_by(Ready()))
    signal.pause()


def heard_from(child: Child) -> list[object]:
    """What it says first."""
    select.select([child.leash], [], [], 10)
    return list(child.leash.heard())


def test_a_child_does_its_work_and_ends(capfd: pytest.CaptureFixture[str]) -> None:
    def work(leash: socket.socket) -> None:
        leash.send(said_by(Taken(7)))

    child = started(work)
    assert heard_from(child) == [Taken(7)]
    assert ended(child) == 0
    assert capfd.readouterr() == ("", "")


def test_what_is_the_parents_alone_is_let_go_of_before() -> None:
    reading, writing = os.pipe()

    def leave() -> None:
        os.write(writing, b"left")

    child = start(0, 0, lambda _: None, leave, "edge")
    assert os.read(reading, 9) == b"left"
    assert ended(child) == 0
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    ("error", "tells"),
    [
        (OSError(98, "Address already in use"), "edge: Address already in use\n"),
        (OSError(2, "None here", "/x"), "edge: [Errno 2] None here: '/x'\n"),
        (OSError("store.dir: /x is in use"), "edge: store.dir: /x is in use\n"),
        (ValueError("store.dir: is not given"), "edge: store.dir: is not given\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_in_one_sentence(
    capfd: pytest.CaptureFixture[str], error: Exception, tells: str
) -> None:
    def fail(_: socket.socket) -> None:
        raise error

    assert ended(started(fail)) == 1
    assert capfd.readouterr() == ("", tells)


def test_a_fault_of_ours_is_told_with_its_place(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(_: socket.socket) -> None:
        raise RuntimeError("a fault")

    assert ended(started(fail)) == 1
    told = capfd.readouterr().err
    assert "test_child.py" in told
    assert told.endswith("RuntimeError: a fault\n")


def test_what_the_parent_has_still_to_write_is_written_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    print("ready")
    assert ended(started(lambda _: None)) == 0
    assert capfd.readouterr().out == "ready\n"


def test_a_child_dies_with_its_parent() -> None:
    alive, kept = os.pipe()  # whoever lives has one end

    def beget() -> None:
        child = started(waiting)
        heard_from(child)
        os.write(kept, b".")
        signal.pause()

    parent = os.fork()
    if parent == 0:
        try:
            os.close(alive)
            beget()
        finally:
            os._exit(1)
    os.close(kept)
    assert os.read(alive, 1) == b"."
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert os.read(alive, 1) == b""
    os.close(alive)


def test_a_terminals_signals_are_left_to_the_parent_and_term_ends_it() -> None:
    child = started(waiting)
    heard_from(child)
    os.kill(child.pid, signal.SIGINT)
    os.kill(child.pid, signal.SIGHUP)
    os.kill(child.pid, signal.SIGTERM)
    assert ended(child) == -signal.SIGTERM


def test_one_that_runs_has_not_ended_and_one_that_is_killed_has() -> None:
    child = started(waiting)
    heard_from(child)
    assert child.ended() is None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    status = child.ended()
    assert status is not None
    assert how(status) == "was ended by signal 9 (Killed)"
    child.leash.close()


def test_one_that_does_not_listen_is_killed() -> None:
    child = started(waiting)
    heard_from(child)
    for _ in range(100_000):
        if not child.leash.say(Drain()):
            break
    child.say(Drain())
    assert ended(child) == -signal.SIGKILL


def test_a_child_has_a_name_for_the_log() -> None:
    worker, keeper = started(lambda _: None, 3), started(lambda _: None, KEEPER)
    assert worker.name == f"worker 3 (pid {worker.pid})"
    assert keeper.name == f"keeper (pid {keeper.pid})"
    assert [ended(worker), ended(keeper)] == [0, 0]


def test_an_end_is_told_in_words() -> None:
    assert how(3 << 8) == "ended with code 3"
    assert in_words(OSError("of ours")) == "of ours"
