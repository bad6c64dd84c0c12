"""What any worker has learned all find, each reads it once, and nobody waits long for it."""

from __future__ import annotations

from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Final

import pytest
import trio
import trio.testing

from edge.cache.threads import Inline, Threads
from edge.coding.dictionary import Realm
from edge.coding.library import MOST_READ, READ_WITHIN_S, Library
from edge.coding.shelf import Shelf
from tests.unit.coding.test_shelf import OFFER, OTHERS, REALM, made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BODY: Final = made().content
DIGEST: Final = made().digest


class Held(Inline):
    """Workers who do nothing until they are let."""

    def __init__(
        self, count: int = 1, name: str = "", at_exit: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(count, name, at_exit)
        self.jobs: list[Callable[[], None]] = []

    def post(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def let(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf")


@pytest.fixture
def words() -> list[str]:
    return []


def counts(library: Library) -> tuple[int, int, int, int]:
    told = library.statistics()
    return told.held, told.learned, told.read, told.unknown


async def test_what_one_worker_has_learned_another_reads_once(shelf: Shelf) -> None:
    one, other = Library(shelf, Threads), Library(shelf, Threads)
    await one.learn(REALM, BODY, OFFER)
    for _ in range(3):
        found = await other.find(REALM, DIGEST)
        assert found is not None
        assert (found.content, found.offer) == (BODY, OFFER)
    assert counts(one) == (1, 1, 0, 0)
    assert counts(other) == (1, 0, 1, 0)
    assert other.statistics().held_bytes == len(BODY)
    await one.close()
    await other.close()


async def test_nothing_is_found_across_realms(shelf: Shelf) -> None:
    one, other = Library(shelf), Library(shelf)
    await one.learn(REALM, BODY, OFFER)
    for realm in OTHERS:
        for library in (one, other):
            assert await library.find(realm, DIGEST) is None
            assert await library.has_elsewhere(DIGEST)
    assert not await other.has_elsewhere(bytes(32))


async def test_without_a_shelf_there_is_what_was_learned_here() -> None:
    library = Library()
    await library.learn(REALM, BODY, OFFER)
    for find in (library.find, library.look):
        assert await find(REALM, DIGEST) is not None
        assert await find(REALM, bytes(32)) is None
    assert await library.has_elsewhere(DIGEST)
    assert not await library.has_elsewhere(bytes(32))


@pytest.mark.parametrize("size", [0, 7, 2 << 20])
async def test_what_does_not_fit_is_not_learned(shelf: Shelf, size: int) -> None:
    library, content = Library(shelf), bytes(size)
    assert not library.fits(len(content))
    await library.learn(REALM, content, OFFER)
    assert counts(library) == (0, 0, 0, 0)
    assert not shelf.has(REALM, sha256(content).digest())


async def test_digests_that_nobody_has_learned_leave_nothing(shelf: Shelf, tmp_path: Path) -> None:
    library, random = Library(shelf, Held), Random(1)
    await Library(shelf).learn(REALM, BODY, OFFER)
    before = list((tmp_path / "shelf").iterdir())
    for _ in range(10_000):
        assert await library.find(REALM, random.randbytes(32)) is None
    assert counts(library) == (0, 0, 0, 10_000)
    assert not library._coming
    assert list((tmp_path / "shelf").iterdir()) == before
    assert isinstance(library._workers, Held)
    assert not library._workers.jobs  # no file was looked for


async def test_who_asks_for_the_same_waits_for_one_reading(shelf: Shelf) -> None:
    await Library(shelf).learn(REALM, BODY, OFFER)
    library = Library(shelf, Held)
    workers, found = library._workers, []
    assert isinstance(workers, Held)

    async def ask() -> None:
        found.append(await library.find(REALM, DIGEST))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert len(workers.jobs) == 1
        workers.let()
    assert found == [await library.look(REALM, DIGEST)] * 5
    assert found[0] is not None
    assert counts(library) == (1, 0, 1, 0)


async def test_a_slow_disk_is_not_waited_for(shelf: Shelf, autojump_clock: object) -> None:
    await Library(shelf).learn(REALM, BODY, OFFER)
    library = Library(shelf, Held)
    workers, before = library._workers, trio.current_time()
    assert isinstance(workers, Held)
    for _ in range(2):
        assert await library.find(REALM, DIGEST) is None
    assert trio.current_time() - before == pytest.approx(2 * READ_WITHIN_S)
    assert len(workers.jobs) == 1
    workers.let()
    assert await library.find(REALM, DIGEST) is not None


async def test_no_more_files_are_waited_for_than_there_may_be(
    shelf: Shelf, autojump_clock: object
) -> None:
    realms = [Realm(f"site-{number}", REALM.origin) for number in range(MOST_READ + 1)]
    library, learner = Library(shelf, Held), Library(shelf)
    for realm in realms:
        await learner.learn(realm, BODY, OFFER)
    async with trio.open_nursery() as nursery:
        for realm in realms[:-1]:
            nursery.start_soon(library.find, realm, DIGEST)
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        assert await library.find(realms[-1], DIGEST) is None
        assert trio.current_time() == before
        assert len(library._coming) == MOST_READ


async def test_what_was_learned_meanwhile_is_newer(shelf: Shelf) -> None:
    await Library(shelf).learn(REALM, BODY, OFFER)
    library = Library(shelf, Held)
    workers = library._workers
    assert isinstance(workers, Held)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(library.find, REALM, DIGEST)
        await trio.testing.wait_all_tasks_blocked()
        await library.learn(REALM, BODY, OFFER)
        newer = await library.look(REALM, DIGEST)
        workers.let()
    assert await library.find(REALM, DIGEST) is newer
    assert counts(library) == (1, 1, 0, 0)


@pytest.mark.parametrize("manner", ["gone", "broken", "unread"])
async def test_what_cannot_be_read_is_unknown_and_forgotten(
    shelf: Shelf, tmp_path: Path, words: list[str], manner: str
) -> None:
    await Library(shelf).learn(REALM, BODY, OFFER)
    (path,) = (tmp_path / "shelf").iterdir()
    if manner == "broken":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    if manner == "unread":
        path.mkdir()
    library = Library(shelf, tell=words.append)
    assert await library.look(REALM, DIGEST) is None
    assert shelf.has(REALM, DIGEST)  # looking changes nothing
    assert not words
    assert await library.find(REALM, DIGEST) is None
    assert not shelf.has(REALM, DIGEST)
    assert counts(library) == (0, 0, 0, 1)
    assert [word.partition(":")[0] for word in words] == (
        ["a dictionary cannot be read"] if manner == "unread" else []
    )


async def test_what_the_disk_does_not_take_is_known_here(
    shelf: Shelf, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "shelf").touch()
    library = Library(shelf, tell=words.append)
    await library.learn(REALM, BODY, OFFER)
    assert await library.find(REALM, DIGEST) is not None
    assert await Library(shelf).find(REALM, DIGEST) is None
    assert not await library.has_elsewhere(bytes(32))  # nor does that raise
    (word,) = words
    assert word.startswith("a dictionary is known to one worker alone: ")


async def test_looking_changes_nothing(shelf: Shelf) -> None:
    await Library(shelf).learn(REALM, BODY, OFFER)
    library = Library(shelf)
    before = library.statistics()
    found = await library.look(REALM, DIGEST)
    assert found is not None
    assert found.content == BODY
    assert await library.look(REALM, bytes(32)) is None
    assert library.statistics() == before


def test_uses_are_counted() -> None:
    library = Library()
    library.count_use()
    assert library.statistics().used == 1
