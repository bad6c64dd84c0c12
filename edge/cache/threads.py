"""Long-lived worker threads for blocking work, and a stand-in that has none.

Trio's own pool lets an idle thread go after ten seconds, and with it the SQLite connection that
diskcache keeps for each thread; a hop to it also costs twice a hop to these (measured: 98 µs
against 49 one at a time, 18 each with fifty at once). So the store keeps a few threads of its own:
a queue that all of them read, and `run_sync_soon` to wake the task that waits.

A job that a thread has begun is always waited for, also by a cancelled task: it may be in the
middle of a write, and whoever cancels must not close the file under it. A job that no thread has
begun is taken back at once. Whoever pops the ticket decides which of the two it is.
"""

from __future__ import annotations

import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

LINGER_S = 0.02  # at 500 jobs a second ten share what one costs, and nobody waits for them
CLOSE_S = 10.0  # a thread stuck in a dead disk is left behind (it is a daemon), not waited for


class Workers(Protocol):
    """What runs blocking jobs."""

    async def run(self, job: Callable[[], T]) -> T:
        """What `job` returns or raises, done in a worker."""

    def post(self, job: Callable[[], None]) -> None:
        """Have `job` done some time later, behind what was posted before; it must not raise."""

    def post_unhurried(self, job: Callable[[], None]) -> None:
        """As `post`, but it may wait `LINGER_S` for company, and no longer than for the next job.

        For where there is one worker: the others would not be waited for.
        """

    def call_loop(self, job: Callable[[], None]) -> None:
        """From within a job: have `job` done in Trio's thread."""

    def every(self, job: Callable[[], None]) -> None:
        """Do `job` once in each worker and wait; to be called from other workers' jobs only."""

    async def close(self) -> None:
        """Do what is queued, then end; after this nothing may be posted."""


class MakeWorkers(Protocol):
    """`Threads`, or `Inline`. `at_exit` runs in each worker as its last job."""

    def __call__(
        self, count: int, name: str, at_exit: Callable[[], None] = lambda: None
    ) -> Workers:
        """Workers that are ready."""


class _Unhurried:
    """A job that waits a little for others to come, when a thread has got to it."""

    __slots__ = ("job",)

    def __init__(self, job: Callable[[], None]) -> None:
        self.job = job


class Threads:
    """`count` threads that live until `close`; the first call must come from within Trio."""

    def __init__(self, count: int, name: str, at_exit: Callable[[], None] = lambda: None) -> None:
        self._queue: SimpleQueue[Callable[[], object] | _Unhurried | None] = SimpleQueue()
        self._at_exit = at_exit
        self._token: trio.lowlevel.TrioToken = trio.lowlevel.current_trio_token()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True)
            for index in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, job: Callable[[], T]) -> T:
        """What `job` returns or raises; cancelled only where no thread has begun it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        task = trio.lowlevel.current_task()
        ticket = [job]

        def work() -> None:
            try:
                claimed = ticket.pop()
            except IndexError:
                return  # the waiter took it back
            result = outcome.capture(claimed)
            self.call_loop(lambda: trio.lowlevel.reschedule(task, result))

        def take_back(_: Any) -> trio.lowlevel.Abort:
            try:
                ticket.pop()
            except IndexError:
                return trio.lowlevel.Abort.FAILED
            return trio.lowlevel.Abort.SUCCEEDED

        self._queue.put(work)
        result: T = await trio.lowlevel.wait_task_rescheduled(take_back)
        return result

    def post(self, job: Callable[[], None]) -> None:
        """Have `job` done later, by whichever thread comes first."""
        self._queue.put(job)

    def post_unhurried(self, job: Callable[[], None]) -> None:
        """Have `job` done when something else is asked for, or after `LINGER_S`."""
        self._queue.put(_Unhurried(job))

    def call_loop(self, job: Callable[[], None]) -> None:
        """Have `job` done in Trio's thread; nothing happens where Trio is over."""
        try:
            self._token.run_sync_soon(job)
        except trio.RunFinishedError:
            return

    def every(self, job: Callable[[], None]) -> None:
        """Do `job` once in each thread; returns when all have, or after `CLOSE_S`."""
        meeting = threading.Barrier(len(self._threads) + 1)

        def meet() -> None:
            try:
                job()
            finally:
                _wait(meeting)  # no thread can take a second one before all have their first

        for _ in self._threads:
            self._queue.put(meet)
        _wait(meeting)

    async def close(self, patience_s: float = CLOSE_S) -> None:
        """Do what is queued, then end the threads; waits `patience_s` for each at the most."""
        for _ in self._threads:
            self._queue.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._join, patience_s)

    def _join(self, patience_s: float) -> None:
        for thread in self._threads:
            thread.join(patience_s)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            while isinstance(job, _Unhurried):
                following = self._next_soon()
                _do(job.job)
                job = following
            if job is None:
                break
            _do(job)
            del job  # not to be kept alive until the next one comes
        self._at_exit()

    def _next_soon(self) -> Callable[[], object] | _Unhurried | None:
        """The next job, if it comes before long; else one that does nothing."""
        try:
            return self._queue.get(timeout=LINGER_S)
        except Empty:
            return _nothing


class Inline:
    """The same without threads: every job is done where it is asked for. For tests."""

    def __init__(
        self, count: int = 1, name: str = "", at_exit: Callable[[], None] = lambda: None
    ) -> None:
        self._at_exit = at_exit
        self._posted: deque[Callable[[], None]] = deque()
        self._busy = False

    async def run(self, job: Callable[[], T]) -> T:
        """What `job` returns or raises; a checkpoint, and cancelled only before the job."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            return job()
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def post(self, job: Callable[[], None]) -> None:
        """Do `job` now, or behind the one that posts it."""
        self._posted.append(job)
        if self._busy:
            return
        self._busy = True
        try:
            while self._posted:
                self._posted.popleft()()
        finally:
            self._busy = False

    def post_unhurried(self, job: Callable[[], None]) -> None:
        """As `post`."""
        self.post(job)

    def call_loop(self, job: Callable[[], None]) -> None:
        """Do `job` now: this is Trio's thread."""
        job()

    def every(self, job: Callable[[], None]) -> None:
        """Do `job` now: there is one worker."""
        job()

    async def close(self) -> None:
        """Nothing is queued."""
        await trio.lowlevel.checkpoint()
        self._at_exit()


async def run_while_wanted(workers: Workers, job: Callable[[], T]) -> T:
    """What `job` returns or raises, done in one of `workers`.

    Who is cancelled does not wait for it, as for `Workers.run`: a job that has begun goes on for
    nothing. So it must touch nothing that others have when nobody waits for it any more.
    """
    done = trio.Event()
    results: list[outcome.Maybe[T]] = []
    is_wanted = True

    def work() -> None:
        if is_wanted:
            results.append(outcome.capture(job))
            workers.call_loop(done.set)

    workers.post(work)
    try:
        await done.wait()
    finally:
        is_wanted = False
    return results[0].unwrap()


def _do(job: Callable[[], object]) -> None:
    result = outcome.capture(job)
    if isinstance(result, outcome.Error):
        # A posted job that raises is a fault of ours: told like any thread's death,
        # without the death, since the other jobs still need the thread.
        _tell(result.error)


def _nothing() -> None:
    """The job of nobody."""


def _tell(error: BaseException) -> None:
    here = threading.current_thread()
    threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, here)))


def _wait(meeting: threading.Barrier) -> None:
    try:
        meeting.wait(CLOSE_S)
    except threading.BrokenBarrierError:
        return
