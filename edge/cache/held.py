"""What the store holds of one resource: its variants, each a head and where its body is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.cache.body import MemoryBody

if TYPE_CHECKING:
    from edge.cache.body import Body
    from edge.cache.entry import Entry
    from edge.cache.fill import Fill
    from edge.cache.packing import StoredRow

ENTRY_BYTES: Final = 1600  # measured: the objects of a head, without its fields
FIELD_BYTES: Final = 170  # measured: the objects of one field, without its bytes
READY_BYTES: Final = 1400  # of `ready`, without the bytes of the fields, which it has twice more


class Held:
    """One stored variant: its head, and where its body is.

    The body is in `body` (memory), in `row` (disk), in both, or still in `fill`. No purge up to
    the number `passed` covers it, as far as those who judge it have noted. `hits` counts the
    requests that it has answered since it came to memory. In `ready` whoever answers with it keeps
    what would be the same the next time; a new head has a new one. One that is a copy of what
    another worker stores has a `lease`, and is that only as long as it is current (see `leases`).
    One whose body does not shrink when it is coded is `uncodable`.
    """

    __slots__ = (
        "body", "dropped", "entry", "fill", "heir", "hits", "lease", "opened_at", "passed",
        "ready", "row", "uncodable", "used",
    )  # fmt: skip

    def __init__(
        self,
        entry: Entry,
        *,
        body: bytes | None = None,
        row: StoredRow | None = None,
        fill: Fill | None = None,
    ) -> None:
        self.entry = entry
        self.body = body
        self.row = row
        self.fill = fill
        self.heir: Held | None = None  # the same body under a newer head
        self.opened_at = float("-inf")
        self.used = 0
        self.hits = 0
        self.dropped = False  # while it was being filled
        self.passed = entry.fetched_at
        self.ready: object = None
        self.lease: int | None = None
        self.uncodable = False

    @property
    def newest(self) -> Held:
        """Who has the body now: a 304 may have come in between."""
        held = self
        while held.heir is not None:
            held = held.heir
        return held

    def count_hit(self) -> None:
        """Note that a request was answered with this, and not for its fetch."""
        self.newest.hits += 1

    def lose(self, row: StoredRow) -> None:
        """The body that `row` tells of is not on disk any more."""
        if self.row is row:
            self.row = None

    def is_same(self, other: Held) -> bool:
        """Whether both stand for one stored answer: it may have left memory and come back."""
        return self is other or self.entry == other.entry

    def reader(self) -> Body | None:
        """A reader of the body; None where only the disk has it."""
        if self.body is not None:
            return MemoryBody(self.body)
        return self.fill.reader() if self.fill is not None else None

    @property
    def cost(self) -> int:
        """About the bytes of memory that this takes."""
        entry = self.entry
        size = ENTRY_BYTES + READY_BYTES + len(entry.key.url) + len(entry.scopes)
        for name, value in entry.headers:
            size += FIELD_BYTES + 3 * (len(name) + len(value))
        if self.row is not None:
            size += len(self.row.checks)
        return size + (len(self.body) if self.body is not None else 0)


@dataclass(frozen=True, slots=True)
class Resource:
    """What is stored under one key; `variants` is empty where there is nothing."""

    variants: tuple[Held, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.variants)


NOTHING: Final = Resource()


def asked_at(entry: Entry) -> tuple[int, float]:
    """When an entry was asked for, to be compared; purges tell it better than a clock."""
    return entry.fetched_at, entry.times.request_time


def kept(resource: Resource, now: float) -> Resource:
    """`resource` less what is of no more use at `now`; all of it where `now` is 0."""
    if not now:
        return resource
    for held in resource.variants:
        if held.entry.keep_until <= now:
            break
    else:
        return resource
    return Resource(tuple(held for held in resource.variants if held.entry.keep_until > now))


def resource_of(rows: list[StoredRow]) -> Resource:
    """What `rows` tell of, all of one resource."""
    return Resource(tuple(Held(row.entry, body=row.inline, row=row) for row in rows))
