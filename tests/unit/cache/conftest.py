"""What the store's tests are made of: entries, a clock that is set by hand, and a disk tier."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

import pytest

from edge.cache import home, rows
from edge.cache.disk import Disk
from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times, Variant
from edge.cache.threads import Inline, MakeWorkers
from edge.wire.message import Headers

if TYPE_CHECKING:
    from pathlib import Path

MakeEntry: TypeAlias = Callable[..., Entry]
OpenDisk: TypeAlias = Callable[..., AbstractAsyncContextManager[Disk]]

BIRTH_ID = "b" * 32


def entry_of(
    name: bytes = b"a",
    length: int | None = 5,
    *,
    variant: Variant = (),
    etag: bytes = b'"1"',
    at: float = 1000.0,
    keep_until: float = 9000.0,
) -> Entry:
    """An entry for `http://example.com/<name>`."""
    url = b"http://example.com/" + name
    return Entry(
        key=Key(blake2b(url, digest_size=16).digest(), url),
        status=200,
        headers=Headers([(b"content-type", b"text/plain"), (b"etag", etag)]),
        times=Times(at, at),
        date=at,
        age_field=0,
        terms=Terms(600.0, Source.MAX_AGE),
        variant=variant,
        length=length,
        fetched_at=Seq(0),
        keep_until=keep_until,
    )


@pytest.fixture
def make_entry() -> MakeEntry:
    return entry_of


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for another's lock end at once."""
    monkeypatch.setattr(rows, "BUSY_S", 0.01)
    monkeypatch.setattr(home, "PATIENCE_S", 0.0)


@pytest.fixture
def log() -> list[str]:
    """What the store has to say."""
    return []


@pytest.fixture
def open_disk(tmp_path: Path, clock: Clock, log: list[str]) -> OpenDisk:
    """`async with open_disk() as disk`: a tier in the test's directory, without threads."""

    @asynccontextmanager
    async def opened(
        *,
        birth: str = BIRTH_ID,
        quota_bytes: int = 64 << 20,
        free_floor_bytes: int = 0,
        io: MakeWorkers = Inline,
    ) -> AsyncIterator[Disk]:
        disk = Disk(
            tmp_path / "store",
            birth=birth,
            quota_bytes=quota_bytes,
            free_floor_bytes=free_floor_bytes,
            io=io,
            log=log.append,
            clock=clock,
        )
        await disk.open()
        try:
            yield disk
        finally:
            await disk.close()

    return opened
