"""How much may be under way to an origin at once, and how much may wait for it.

At most `at_work` requests have a place. Beyond them at most `waiting` queue in order of arrival,
each `patience_s` at most; whoever finds the queue full, or has waited in vain, is refused as
OVERLOADED, which a client is told as 503 with Retry-After where nothing stale can stand in. So an
origin in trouble is asked no more than it can bear, and nobody waits long for it.

A wait for a place is of the same kind as one for a connection, only for all servers of an origin
together; so its patience is the settings' `connect_s`, not one more number to be told.

Taking a free place costs no checkpoint: whoever takes it goes on to wait for the origin anyway.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """A moment's counts, and since the start how many had to wait, and were refused."""

    at_work: int
    waiting: int
    waited: int
    refused: int


class Place:
    """A right to be under way; `release` it once done with it, more often does no harm."""

    __slots__ = ("_breaker",)

    def __init__(self, breaker: Breaker) -> None:
        self._breaker: Breaker | None = breaker

    def release(self) -> None:
        """Let the next one in."""
        if self._breaker is not None:
            breaker, self._breaker = self._breaker, None
            breaker._leave()

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Breaker:
    """See the module. `at_work` is 1 at least, `waiting` may be 0."""

    def __init__(self, at_work: int, waiting: int, patience_s: float) -> None:
        self.at_work = at_work
        self.waiting = waiting
        self.patience_s = patience_s
        self._taken = 0
        self._queue: OrderedDict[trio.Event, None] = OrderedDict()  # `waiting` at most
        self._waited = 0
        self._refused = 0

    @property
    def bounds(self) -> tuple[int, int, float]:
        """What it was made with."""
        return self.at_work, self.waiting, self.patience_s

    def acquire_nowait(self) -> Place | None:
        """A place, if there is one for which nobody waits."""
        if self._taken >= self.at_work:
            return None
        # Nobody waits where a place is free: the one who frees it hands it over.
        self._taken += 1
        return Place(self)

    async def acquire(self) -> Place:
        """A place, in order of arrival; raises OVERLOADED, safe to try elsewhere."""
        place = self.acquire_nowait()
        if place is not None:
            return place
        if len(self._queue) >= self.waiting:
            raise self._refusal(f"{self.at_work} at work, {self.waiting} waiting")
        await self._wait()
        return Place(self)

    def statistics(self) -> BreakerStatistics:
        """Counts as they are now."""
        return BreakerStatistics(self._taken, len(self._queue), self._waited, self._refused)

    async def _wait(self) -> None:
        """Be given a place, counted already."""
        granted = trio.Event()
        self._queue[granted] = None
        self._waited += 1
        with ExitStack() as undo:
            undo.callback(self._withdraw, granted)
            with trio.move_on_after(self.patience_s):
                await granted.wait()
            if not granted.is_set():
                raise self._refusal(f"{self.at_work} at work for {self.patience_s:g} s")
            undo.pop_all()

    def _withdraw(self, granted: trio.Event) -> None:
        """Undo a wait that ended badly; a place that came with its end goes to the next."""
        if granted.is_set():
            self._leave()
        else:
            del self._queue[granted]

    def _leave(self) -> None:
        """A place is free: it goes to who has waited longest."""
        if self._queue:
            self._queue.popitem(last=False)[0].set()
        else:
            self._taken -= 1

    def _refusal(self, detail: str) -> ExchangeError:
        self._refused += 1
        return ExchangeError(Failure.OVERLOADED, detail, retry=True)
