"""What the store needs of its disk tier: one `Disk`, or the `Shards` that a worker owns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edge.cache.body import Body
    from edge.cache.diskbody import DiskBody
    from edge.cache.entry import Entry
    from edge.cache.packing import Scanned, StoredRow
    from edge.cache.spool import FileSpool


@dataclass(frozen=True, slots=True)
class DiskStatistics:
    """What the tier holds and has done. Bytes as the quota counts them."""

    rows: int
    committed_bytes: int
    spooled_bytes: int
    queued_bytes: int
    quota_bytes: int
    saved: int
    dropped: int
    evicted: int
    lost: int
    errors: int
    rebuilt: int
    is_shut: bool


def summed(parts: Iterable[DiskStatistics]) -> DiskStatistics:
    """What all `parts` hold and have done together; shut where any of them is."""
    told = list(parts)
    sums = {
        field.name: sum(getattr(part, field.name) for part in told)
        for field in fields(DiskStatistics)
    }
    return DiskStatistics(**sums | {"is_shut": bool(sums["is_shut"])})


class RowScan(Protocol):
    """Goes over the rows of a tier; see `scan`."""

    @property
    def looked_at(self) -> int:
        """How many rows it has seen."""

    async def next(self) -> list[Scanned] | None:
        """Some more rows, perhaps none; None at the end. Raises `scan.Unreadable`."""


class Tier(Protocol):
    """See `disk.Disk` for what each of these does, and for its order and durability.

    `hot(digest)` tells eviction what to pass over; it is the store's to set.
    """

    hot: Callable[[bytes], bool]

    def lacks(self, digest: bytes) -> bool:
        """Whether nothing is stored under a resource's digest, and no one need be asked."""

    async def load(self, digest: bytes, now: float = 0.0) -> list[StoredRow]:
        """All variants stored under a resource's digest, less those expired at `now`."""

    async def peek(self, digest: bytes) -> list[StoredRow]:
        """The same, expired ones too, and nothing is changed."""

    async def body(self, row: StoredRow, *, is_use: bool = True) -> Body:
        """The body of `row`; raises `BodyLost` or `NoDescriptors`."""

    def body_nowait(self, row: StoredRow) -> DiskBody | None:
        """The same, where it is in a file that is open; None where that has to be waited for."""

    def lend_nowait(self, row: StoredRow, offset: int, most: int) -> DiskBody | None:
        """The same, where all is verified and these bytes can be sent at once."""

    def prepare(self, row: StoredRow, lost: Callable[[], None]) -> None:
        """Have the file of `row` made ready to be lent, behind the scenes, or `lost` told."""

    async def whole(self, row: StoredRow) -> bytes:
        """The body of `row`, all of it verified, for memory; raises as `body` does."""

    def spool(self, expected: int | None = None, digest: bytes | None = None) -> FileSpool:
        """A new spool, for a body under `digest` if it is to be saved; raises `SpoolFull`."""

    def save(
        self,
        entry: Entry,
        data: bytes | FileSpool,
        checks: bytes | None = None,
        done: Callable[[StoredRow | None], None] = lambda row: None,
    ) -> None:
        """Store a whole body in place of what the variant had; `done(None)` where it cannot be."""

    def replace(self, old: Entry, new: Entry) -> None:
        """Give the stored body of `old` the head `new` (RFC 9111 §4.3.4)."""

    def remove(self, digest: bytes) -> None:
        """Remove all variants of a resource."""

    def drop(self, entry: Entry) -> None:
        """Remove the variant that `entry` is, unless a newer response has taken its place."""

    def scan(self, step_rows: int = ...) -> RowScan:
        """Goes over all rows, `step_rows` at a time; the tier must be open."""

    async def remove_dead(self, dead: list[Scanned]) -> tuple[int, int]:
        """Remove what a scan has seen, where it is still there: rows and bytes."""

    async def sync(self) -> None:
        """Return when everything queued before has been done, and outlives a loss of power."""

    async def flush(self) -> None:
        """Return when everything queued before has been done."""

    def statistics(self) -> DiskStatistics:
        """What is held and was done."""
