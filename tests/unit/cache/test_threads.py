"""Worker threads: results, order, cancellation, and a stand-in that keeps the same promises."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import trio

from edge.cache import threads
from edge.cache.threads import Inline, Threads, run_while_wanted


@pytest.fixture(params=[Threads, Inline], ids=["threads", "inline"])
def kind(request: pytest.FixtureRequest) -> type[Threads | Inline]:
    chosen: type[Threads | Inline] = request.param
    return chosen


async def test_a_job_returns_its_result(kind: type[Threads | Inline]) -> None:
    workers = kind(2, "test")
    assert await workers.run(lambda: 1 + 1) == 2
    await workers.close()


async def test_a_job_raises_where_it_was_asked_for(kind: type[Threads | Inline]) -> None:
    workers = kind(2, "test")
    with pytest.raises(OSError, match="no disk"):
        await workers.run(partial(_fail, OSError("no disk")))
    assert await workers.run(lambda: "still alive") == "still alive"
    await workers.close()


async def test_posted_jobs_are_done_in_order_before_the_end(kind: type[Threads | Inline]) -> None:
    workers = kind(1, "test")
    done: list[int] = []
    for number in range(100):
        workers.post(partial(done.append, number))
    await workers.close()
    assert done == list(range(100))


async def test_a_job_may_post_another(kind: type[Threads | Inline]) -> None:
    workers = kind(1, "test")
    done: list[str] = []

    def first() -> None:
        workers.post(partial(done.append, "second"))
        done.append("first")

    workers.post(first)
    await workers.run(lambda: None)  # behind `first`
    await workers.run(lambda: None)  # behind what that posted
    await workers.close()
    assert done == ["first", "second"]


async def test_each_worker_runs_its_farewell(kind: type[Threads | Inline]) -> None:
    farewells: list[None] = []
    workers = kind(1, "test", lambda: farewells.append(None))
    await workers.close()
    assert len(farewells) == 1


async def test_every_reaches_each_thread_once() -> None:
    workers, other = Threads(4, "test"), Threads(1, "other")
    seen: list[int] = []
    await other.run(lambda: workers.every(lambda: seen.append(threading.get_ident())))
    assert len(seen) == len(set(seen)) == 4
    await workers.close()
    await other.close()


async def test_a_job_that_no_thread_has_begun_is_taken_back_when_cancelled() -> None:
    workers = Threads(1, "test")
    started, release = threading.Event(), threading.Event()
    done: list[str] = []

    def hold() -> None:
        started.set()
        release.wait(10)

    workers.post(hold)
    await trio.to_thread.run_sync(started.wait)
    with trio.move_on_after(0) as scope:
        await workers.run(partial(done.append, "taken back"))
    assert scope.cancelled_caught
    release.set()
    await workers.close()
    assert done == []


async def test_a_job_that_has_begun_is_waited_for_though_cancelled() -> None:
    workers = Threads(1, "test")
    started, release = threading.Event(), threading.Event()
    ended: list[str] = []

    def slow() -> None:
        started.set()
        release.wait(10)
        ended.append("job")

    async def ask() -> None:
        await workers.run(slow)
        ended.append("waiter")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.to_thread.run_sync(started.wait)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            assert ended == []
            release.set()
    assert ended == ["job", "waiter"]
    await workers.close()


async def test_a_job_that_is_wanted_is_waited_for(kind: type[Threads | Inline]) -> None:
    workers = kind(1, "test")
    assert await run_while_wanted(workers, lambda: 1 + 1) == 2
    with pytest.raises(OSError, match="no disk"):
        await run_while_wanted(workers, partial(_fail, OSError("no disk")))
    await workers.close()


async def test_who_is_cancelled_does_not_wait_for_what_nobody_wants() -> None:
    workers = Threads(1, "test")
    started, release = threading.Event(), threading.Event()
    done: list[str] = []

    def slow() -> None:
        started.set()
        release.wait(10)
        done.append("first")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_while_wanted, workers, slow)
        await trio.to_thread.run_sync(started.wait)
        nursery.start_soon(run_while_wanted, workers, partial(done.append, "second"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert done == []
    await workers.close(0)  # does not wait for it either
    assert done == []
    release.set()
    await workers.close()
    assert done == ["first"]


async def test_many_tasks_share_few_threads() -> None:
    workers = Threads(2, "test")
    results: list[int] = []

    async def ask(number: int) -> None:
        results.append(await workers.run(lambda: number))

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(ask, number)
    await workers.close()
    assert sorted(results) == list(range(200))


async def test_an_unhurried_job_waits_for_the_next_and_goes_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "LINGER_S", 60.0)
    workers = Threads(1, "test")
    done: list[str] = []
    workers.post_unhurried(partial(done.append, "first"))
    workers.post_unhurried(partial(done.append, "second"))
    await workers.run(partial(done.append, "third"))
    assert done == ["first", "second", "third"]
    workers.post_unhurried(partial(done.append, "last"))
    await workers.close()
    assert done[3:] == ["last"]


async def test_an_unhurried_job_does_not_wait_for_ever() -> None:
    workers = Threads(1, "test")
    done = trio.Event()
    workers.post_unhurried(lambda: workers.call_loop(done.set))
    await done.wait()
    await workers.close()


async def test_nothing_is_unhurried_without_threads() -> None:
    workers = Inline()
    done: list[str] = []
    workers.post_unhurried(partial(done.append, "at once"))
    assert done == ["at once"]
    await workers.close()


def _fail(error: Exception) -> None:
    raise error
