"""The error log: plain lines for people, at a bounded rate, that never hold up a request.

Every message has a kind, and each kind a budget that refills with time, so that one broken origin
cannot fill a disk or hide another trouble behind itself. What a budget does not cover is counted,
and the kind's next line says how many were suppressed. What an operator has done is noted without
a budget: it is as rare as it takes to be done, and has to be there when someone asks who did it. A
line is cut to what a pipe takes whole, and is written only when the other side has room; what
finds none is dropped and counted, since a terminal that was stopped with Ctrl-S must not stop the
node.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

BURST: Final = 10.0
REFILL_PER_S: Final = 0.2  # a line every five seconds, of each kind, for as long as it lasts
KINDS: Final = 256  # further ones push out the one that was quiet for longest
LINE_BYTES: Final = 4_096  # PIPE_BUF on Linux: written whole or not at all


@dataclass(frozen=True, slots=True)
class ErrorLogStatistics:
    """Lines since the start."""

    written: int
    suppressed: int
    dropped: int


class _Budget:
    """The lines that one kind of message may still write."""

    __slots__ = ("lines", "suppressed", "when")

    def __init__(self, clock: float) -> None:
        self.lines = BURST
        self.suppressed = 0
        self.when = clock

    def take(self, clock: float) -> bool:
        self.lines = min(BURST, self.lines + (clock - self.when) * REFILL_PER_S)
        self.when = clock
        if self.lines < 1.0:
            self.suppressed += 1
            return False
        self.lines -= 1.0
        return True


class ErrorLog:
    """Lines to a file, to standard error (`-`), or nowhere (`off`). Raises OSError when made."""

    def __init__(
        self,
        target: str,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = target
        self._now = now
        self._clock = clock
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()
        self._written = self._suppressed = self._dropped = 0
        self._fd = _open(target)

    def tell(self, kind: str, message: str, *, request_id: str | None = None) -> None:
        """Write one line, if its kind's budget allows it."""
        budget = self._budget(kind)
        if not budget.take(self._clock()):
            self._suppressed += 1
            return
        more = f" ({budget.suppressed} more suppressed)" if budget.suppressed else ""
        budget.suppressed = 0
        about = f" [{request_id}]" if request_id else ""
        self._write(f"{_stamp(self._now())} {kind}{about}: {message}", more)

    def note(self, kind: str, message: str) -> None:
        """Write one line about what an operator has done, or tried to do."""
        self._write(f"{_stamp(self._now())} {kind}: {message}", "")

    def reopen(self) -> None:
        """Go on in a new file after the old one was renamed; keeps the old where it cannot."""
        try:
            fd = _open(self._target)
        except OSError as error:
            self.tell("error-log", f"cannot reopen {self._target}: {error}")
            return
        self._release()
        self._fd = fd

    def close(self) -> None:
        """Write what was suppressed and not told, then let go of the file."""
        for kind, budget in self._budgets.items():
            if budget.suppressed:
                self._write(f"{_stamp(self._now())} {kind}: {budget.suppressed} suppressed", "")
                budget.suppressed = 0
        self._release()
        self._fd = -1

    def statistics(self) -> ErrorLogStatistics:
        """Lines written and not, since the start."""
        return ErrorLogStatistics(self._written, self._suppressed, self._dropped)

    def _budget(self, kind: str) -> _Budget:
        budget = self._budgets.get(kind)
        if budget is None:
            budget = self._budgets[kind] = _Budget(self._clock())
            if len(self._budgets) > KINDS:
                self._budgets.popitem(last=False)
        self._budgets.move_to_end(kind)
        return budget

    def _write(self, line: str, more: str) -> None:
        if self._fd < 0:
            return
        room = LINE_BYTES - len(more) - 1
        data = _printable(line)[:room] + more.encode("ascii") + b"\n"
        try:
            if not _has_room(self._fd):
                raise BlockingIOError
            os.write(self._fd, data)
            self._written += 1
        except OSError:
            self._dropped += 1

    def _release(self) -> None:
        if self._fd > 2:
            os.close(self._fd)


def _open(target: str) -> int:
    if target == "off":
        return -1
    if target == "-":
        return sys.__stderr__.fileno() if sys.__stderr__ else -1
    return os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _has_room(fd: int) -> bool:
    """Whether a pipe or terminal takes at least `LINE_BYTES` now; a file always does."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return any(event & select.POLLOUT for _, event in poll.poll(0))


def _stamp(now: float) -> str:
    return (
        datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def _printable(line: str) -> bytes:
    """UTF-8 without controls, so that no message can make a line of its own or move a cursor."""
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line[: LINE_BYTES * 2])
    return escaped.encode("utf-8", "backslashreplace")
