"""A process of a node, as its parent starts it and sees it."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Final

from edge.process.leash import Leash, pair

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from edge.process.leash import Down

KEEPER: Final = -1  # in place of a slot
_PR_SET_PDEATHSIG: Final = 1


class Signals:
    """Signals of a process, told by a descriptor that can be polled; they do nothing else."""

    def __init__(self, *numbers: int) -> None:
        self._reads, self._writes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in numbers:
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """To be polled."""
        return self._reads

    def come(self) -> bytes:
        """The numbers of those that have come, a byte each."""
        return os.read(self._reads, 4096)

    def close(self) -> None:
        """Hear of no more of them."""
        signal.set_wakeup_fd(-1)
        os.close(self._reads)
        os.close(self._writes)


class Child:
    """A process; `slot` is `KEEPER` for the keeper. It is `leaving` once it was told to end."""

    def __init__(self, slot: int, tally: int, pid: int, leash: Leash) -> None:
        self.slot = slot
        self.tally = tally
        self.pid = pid
        self.leash = leash
        self.since = time.time()
        self.began = time.monotonic()
        self.is_ready = False
        self.is_leaving = False
        self.is_deaf = False  # it has closed its end of the leash
        self.has_released = False
        self.taken = 0  # the turn of the settings that it goes by
        self.kill_at: float | None = None
        self.end_by = math.inf  # of the time that it was given to drain

    @property
    def name(self) -> str:
        """For the log."""
        what = "keeper" if self.slot == KEEPER else f"worker {self.slot}"
        return f"{what} (pid {self.pid})"

    def say(self, message: Down, text: bytes | None = None) -> None:
        """Tell it; one that does not listen is of no more use."""
        if not self.leash.say(message, text):
            self.kill()

    def kill(self) -> None:
        """kill -9; its end is seen like any other."""
        os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own

    def ended(self) -> int | None:
        """How it ended, as `os.waitpid` says; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return status if pid else None


def start(
    slot: int,
    tally: int,
    work: Callable[[socket.socket], None],
    leave: Callable[[], None],
    program: str,
) -> Child:
    """A new process that does `work` with its end of a leash, after `leave` has let go of what is
    the parent's alone. Where it fails, it says so in the name of `program`."""
    leash, theirs = pair()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        pid = os.fork()
    except OSError:
        leash.close()
        theirs.close()
        raise
    if pid == 0:
        code = 1
        try:
            _be_a_child_of(parent)
            leash.close()
            leave()
            code = _done(work, theirs, program)
        finally:
            os._exit(code)  # nothing of the parent's is to be cleaned up here
    theirs.close()
    return Child(slot, tally, pid, leash)


def _be_a_child_of(parent: int) -> None:
    """End when the parent does; leave its signals to it."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _done(work: Callable[[socket.socket], None], theirs: socket.socket, program: str) -> int:
    """Do the work; the exit code."""
    try:
        work(theirs)
    except (OSError, ValueError) as error:
        print(f"{program}: {in_words(error)}", file=sys.stderr, flush=True)
        return 1
    except Exception:  # the last that can be said of a process
        traceback.print_exc()
        return 1
    return 0


def in_words(error: OSError | ValueError) -> str:
    """Why something could not be done, without numbers where there are words."""
    words = isinstance(error, OSError) and error.filename is None and error.strerror
    return str(words or error)


def how(status: int) -> str:
    """How a process ended, for the log."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with code {code}"
    return f"was ended by signal {-code} ({signal.strsignal(-code)})"
