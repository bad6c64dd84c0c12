"""The store: memory over disk. The only door through which an exchange meets either.

*What is where.* Memory holds resources: for each, the heads of all its variants, and the bodies of
those small enough. Disk holds every variant's row, and the body unless it is small. A resource in
memory is complete: what memory does not list under it is not on disk either, so a hit in memory
never asks the disk, and one look on disk brings all variants. A resource that is not in memory is
looked for on disk, unless that is known to have none of it; nothing is loaded at start.

*Being filled.* `begin` makes an entry visible at once, its body still coming, so that whoever asks
next reads along. What it is to replace stays until `commit`: if the origin breaks off, the old
answer is still there. An entry being filled that is dropped or invalidated meanwhile is read to
its end by those who read it, and then not stored.

*From fill to tiers.* A committed body that memory admits is handed to memory as it is and saved to
disk behind the scenes. A larger one is already in a spool, and is read from there until its row is
committed. A body that neither tier takes is gone when its readers are.

*Promotion.* The second opening within a minute of a body that is on disk only, if it is small
enough, brings it to memory whole and verified. The first does not: most objects on a CDN are asked
for once.

*Variants* of one resource are bounded in number; beyond, the one not opened for longest goes.

Every change of state here is synchronous; only looking on disk, opening a body there, and writing
the end of a large body wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from edge.cache.body import Body, MemoryBody
from edge.cache.diskbody import BodyLost, NoDescriptors
from edge.cache.fill import Fill
from edge.cache.held import NOTHING, Held, Resource, asked_at, kept, resource_of
from edge.cache.inventory import Inventory
from edge.cache.ram import LARGEST_FRACTION, RamStatistics, RamStore, Slot
from edge.cache.spool import FileSpool
from edge.cache.window import FillMemory
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edge.cache.body import Spool
    from edge.cache.diskbody import DiskBody
    from edge.cache.entry import Entry, Key
    from edge.cache.packing import StoredRow
    from edge.cache.tier import DiskStatistics, Tier

VARIANTS: Final = 32
OBJECT_BYTES: Final = 1 << 20
LARGEST_FILL_BYTES: Final = 32 << 20
SPOOL_BYTES: Final = 1 << 30  # of an answer that is not stored: how far its reader may be behind
STREAM_SPOOL_BYTES: Final = 32 << 20  # where it may have no end: the origin is not free the sooner
PROMOTE_WITHIN_S: Final = 60.0
PREPARE_HITS: Final = 16  # from one try to the next: to verify a file takes 0.3 ms a MiB
PROMOTE_FRACTION: Final = 64  # of the memory


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """What both tiers hold and have done."""

    memory: RamStatistics
    disk: DiskStatistics | None
    filling: int
    fill_memory_bytes: int
    promoted: int


class Store:
    """Memory of `memory_bytes` over `disk`; without a disk, memory alone.

    The disk is opened and closed by whoever made it. Memory keeps bodies of at most `object_bytes`
    where there is a disk for larger ones, and a resource at most `variants` variants.
    """

    def __init__(
        self,
        memory_bytes: int,
        disk: Tier | None = None,
        *,
        fill_memory_bytes: int = 64 << 20,
        object_bytes: int = OBJECT_BYTES,
        variants: int = VARIANTS,
    ) -> None:
        self._ram: RamStore[Resource] = RamStore(memory_bytes)
        self._disk = disk
        self._filling: dict[bytes, tuple[Held, ...]] = {}
        self._fill_memory = FillMemory(fill_memory_bytes)
        self._variants = variants
        self._promote_bytes = min(object_bytes, memory_bytes // PROMOTE_FRACTION)
        # Without a disk, what a fill cannot hold cannot be stored: let it hold what memory takes.
        alone = min(memory_bytes // LARGEST_FRACTION, LARGEST_FILL_BYTES) if disk is None else 0
        self._fill_bytes = max(object_bytes, alone)
        self._ticks = count(1)
        self._promoted = 0
        if disk is not None:
            disk.hot = self.holds

    def holds(self, digest: bytes) -> bool:
        """Whether a resource is in memory; may be asked in any thread."""
        return digest in self._ram

    # Finding and opening.

    def find_nowait(self, key: Key, now: float = 0.0) -> Resource | None:
        """What is stored under `key`; None where the disk has to be asked.

        With `now` (Unix seconds), less what is not to be kept until then.
        """
        return self._complete(key.digest, self._ram.get(key.digest), now)

    def glance(self, key: Key, now: float = 0.0) -> Resource | None:
        """As `find_nowait`, but it counts as no use until `use` says so: for who may find that
        somebody else has to answer."""
        return self._complete(key.digest, self._ram.peek(key.digest), now)

    def use(self, key: Key) -> None:
        """Count what a glance has found as used."""
        self._ram.get(key.digest)

    def at_hand(self, key: Key) -> Slot[Resource] | None:
        """Where memory has what is stored under `key`, if all of it is there and nothing of it is
        being filled. It counts as no use until `serve` says so."""
        if self._filling and key.digest in self._filling:
            return None
        return self._ram.slot(key.digest)

    def serve(self, slot: Slot[Resource], held: Held) -> None:
        """Count what is at hand as used, and its variant `held` as opened."""
        self._ram.use(slot)
        held.hits += 1
        held.used = next(self._ticks)

    def _complete(self, digest: bytes, resource: Resource | None, now: float) -> Resource | None:
        """What memory has, with what is being filled; None where the disk has to be asked."""
        if resource is None:
            if self._disk is not None and not self._disk.lacks(digest):
                return None
            resource = NOTHING
        if digest in self._filling:
            resource = self._with_filling(digest, resource)
        return kept(resource, now)

    async def find(self, key: Key, now: float = 0.0) -> Resource:
        """What is stored under `key`, in memory or on disk."""
        found = self.find_nowait(key, now)
        if found is not None or self._disk is None:
            return found or NOTHING
        rows = await self._disk.load(key.digest, now)
        resource = self._ram.peek(key.digest)  # someone else may have been quicker
        if resource is None:
            resource = resource_of(rows)
            if rows:
                self._put(key.digest, resource)
        return kept(self._with_filling(key.digest, resource), now)

    async def look(self, key: Key, now: float = 0.0) -> Resource:
        """What `find` would find; it changes nothing, and counts as no use."""
        resource = self._ram.peek(key.digest)
        if resource is None and self._disk is not None:
            rows = await self._disk.peek(key.digest)
            resource = self._ram.peek(key.digest) or resource_of(rows)
        return kept(self._with_filling(key.digest, resource or NOTHING), now)

    def is_in_memory(self, held: Held) -> bool:
        """Whether what `look` gave is in memory, and was not only read from disk to be told of."""
        resource = self._ram.peek(held.entry.key.digest)
        return resource is not None and held in resource.variants

    def scan(self) -> Inventory:
        """Goes over everything that is stored, without what is being filled."""
        return Inventory(self._ram, self._disk)

    def open_nowait(self, held: Held) -> Body | None:
        """A reader of the body, or None where the disk is needed. Raises as `open` does."""
        held = held.newest
        body, row = self._open_at_hand(held), held.row
        if body is not None or self._disk is None or row is None:
            return body
        return self._disk.body_nowait(row) if row.length > self._promote_bytes else None

    def whole_nowait(self, held: Held) -> bytes | None:
        """The body where memory has it whole; asked and counted as `open_nowait` is."""
        held = held.newest if held.heir is not None else held
        held.hits += 1
        held.used = next(self._ticks)
        return held.body

    def lend_nowait(self, held: Held, offset: int, most: int) -> DiskBody | None:
        """A reader whose file has these bytes ready to be sent, not counted as a use; or None.

        What memory holds and is asked for often is made ready: its file costs less to send from.
        """
        held, disk = held.newest, self._disk
        if disk is None or (row := held.row) is None or held.fill is not None:
            return None
        if held.body is None and row.length <= self._promote_bytes:
            return None  # it goes to memory when it is asked for again
        lent = disk.lend_nowait(row, offset, most)
        if lent is None and held.body is not None and held.hits % PREPARE_HITS == 0:
            disk.prepare(row, partial(held.lose, row))
        return lent

    async def open(self, held: Held) -> Body:
        """A reader of the body; raises BODY_LOST, and then `held` is a miss."""
        held = held.newest
        body = self._open_at_hand(held)
        return body if body is not None else await self._open_behind(held, self._read_or_promote)

    async def peek_body(self, held: Held) -> Body:
        """As `open`, but it counts as no use and brings nothing to memory."""
        held = held.newest
        body = held.reader()
        return body if body is not None else await self._open_behind(held, _read)

    def _open_at_hand(self, held: Held) -> Body | None:
        held.used = next(self._ticks)
        return held.reader()

    async def _open_behind(
        self, held: Held, read: Callable[[Tier, Held, StoredRow], Awaitable[Body]]
    ) -> Body:
        """What `read` opens on the disk; raises BODY_LOST."""
        if self._disk is None or held.row is None:
            self._forget(held)
            raise ExchangeError(Failure.BODY_LOST, "in neither tier")
        try:
            return await read(self._disk, held, held.row)
        except BodyLost as error:
            self._forget(held)
            raise ExchangeError(Failure.BODY_LOST, str(error)) from error
        except NoDescriptors as error:
            raise ExchangeError(Failure.BODY_LOST, str(error)) from error

    async def _read_or_promote(self, disk: Tier, held: Held, row: StoredRow) -> Body:
        clock = trio.current_time()
        second_use = clock - held.opened_at <= PROMOTE_WITHIN_S
        held.opened_at = clock
        if not second_use or row.length > self._promote_bytes:
            return await disk.body(row)
        data = await disk.whole(row)
        if held.body is None:
            held.body = data
            self._promoted += 1
            self._resize(held.entry.key.digest)
        return MemoryBody(data)

    # Storing.

    def begin(self, entry: Entry) -> Held:
        """Make `entry` visible, its body to be written to `fill`; end by `commit` or `abort`.

        One that is outdated already stays out of sight, and is not stored.
        """
        digest = entry.key.digest
        fill = Fill(
            partial(self._disk.spool, entry.length, digest) if self._disk is not None else None,
            shared=True,
            memory_bytes=self._fill_bytes,
            memory=self._fill_memory,
            expected=entry.length,
        )
        held = Held(entry, fill=fill)
        filling = self._filling.get(digest, ())
        if not self._is_outdated(entry, filling):
            self._filling[digest] = (*filling, held)
        return held

    @property
    def make_spool(self) -> Callable[[], Spool] | None:
        """Makes a file for bytes that have to wait; None where there is no disk."""
        return self._disk.spool if self._disk is not None else None

    def private_fill(self, expected: int | None = None) -> Fill:
        """A fill for one reader, which is never stored; `expected` is its announced length."""
        return Fill(
            self.make_spool,
            shared=False,
            lone_bytes=SPOOL_BYTES if expected is not None else STREAM_SPOOL_BYTES,
            memory=self._fill_memory,
            expected=expected,
        )

    def abort(self, held: Held, error: ExchangeError) -> None:
        """The body will not be whole: its readers get `error`, and nothing is stored."""
        self._unlist(held)
        if held.fill is not None:
            held.fill.fail(error)
            held.fill.close()

    async def commit(self, held: Held) -> None:
        """The body is whole: store it in place of what the variant had.

        One that is not of its announced length is aborted instead (`held.fill.failed`). Cancelled
        while the end of a large body is written, it leaves nothing stored.
        """
        fill = held.fill
        assert fill is not None
        fill.finish()
        if fill.failed or not self._is_wanted(held):
            self._unlist(held)
            fill.close()
            return
        if held.entry.length != fill.size:
            held.entry = replace(held.entry, length=fill.size)
        checks = fill.block_checks()
        data = fill.whole() if fill.storable else None
        if data is not None:
            self._keep(held, data, checks)
        else:
            await self._settle(held, fill, checks)

    async def _settle(self, held: Held, fill: Fill, checks: bytes) -> None:
        """Store a body that is in a spool, or forget what it would have replaced."""
        spool, is_wanted = None, False
        try:
            spool = await fill.settle()
        finally:
            is_wanted = self._is_wanted(held)
            self._unlist(held)
            if spool is None or not is_wanted:
                fill.close()
        if not is_wanted:
            return
        self._add(held)
        if self._disk is not None and isinstance(spool, FileSpool):
            self._disk.save(held.entry, spool, checks, lambda row: self._saved(held, row))
        else:
            self.drop(held)

    def _keep(self, held: Held, data: bytes, checks: bytes) -> None:
        """Store a body that is in memory as it is."""
        fill, held.fill, held.body = held.fill, None, data
        if fill is not None:
            fill.close()
        self._unlist(held)
        self._add(held)
        if self._disk is not None:
            self._disk.save(held.entry, data, checks, lambda row: self._saved(held, row))

    def _saved(self, held: Held, row: StoredRow | None) -> None:
        """The disk has `held` now, or has refused it."""
        held = held.newest
        held.row = None if row is None else replace(row, entry=held.entry)
        fill, held.fill = held.fill, None
        if fill is not None:
            fill.close()
        if held.row is None and held.body is None:
            self._forget(held)

    # Changing.

    def freshen(self, held: Held, new: Entry) -> Held:
        """`held` under the head `new` (RFC 9111 §4.3.4), which it has from now on."""
        held = held.newest
        if new.length is None:  # the old head was not told: its body was not whole yet
            new = replace(new, length=held.entry.length)
        if self._is_listed(held):
            held.entry, held.passed = new, new.fetched_at
            return held
        digest = new.key.digest
        resource = self._ram.peek(digest) or NOTHING
        twin = next((one for one in resource.variants if one.is_same(held)), held)
        row = twin.row or held.row
        heir = Held(
            new,
            body=held.body or twin.body,
            row=None if row is None else replace(row, entry=new),
            fill=held.fill,
        )
        heir.used, heir.opened_at, heir.hits = held.used, held.opened_at, held.hits
        heir.uncodable = held.uncodable
        held.heir = twin.heir = heir
        if twin in resource.variants:
            swapped = tuple(heir if one is twin else one for one in resource.variants)
            self._put(digest, Resource(swapped))
        if self._disk is not None:
            self._disk.replace(held.entry, new)
        return heir

    def invalidate(self, key: Key) -> None:
        """Forget all variants, those being filled too (RFC 9111 §4.4)."""
        self._filling.pop(key.digest, None)
        self._ram.remove(key.digest)
        if self._disk is not None:
            self._disk.remove(key.digest)

    def drop(self, held: Held) -> None:
        """Forget one variant; one that is being filled is read to its end, and not stored.

        What came in its place stays, and so does what one being filled was to replace.
        """
        if self._is_listed(held):
            self._unlist(held)
            held.dropped = True
        if held.dropped:  # by a crowd, perhaps, one after the other
            return
        self._forget(held)
        if self._disk is not None:
            self._disk.drop(held.entry)

    async def settle(self, *, synced: bool = True) -> None:
        """Return when all changes made before outlive this process; `synced`, a loss of power."""
        if self._disk is not None:
            await (self._disk.sync() if synced else self._disk.flush())

    def statistics(self) -> StoreStatistics:
        """What is held and was done."""
        return StoreStatistics(
            memory=self._ram.statistics(),
            disk=self._disk.statistics() if self._disk is not None else None,
            filling=sum(len(held) for held in self._filling.values()),
            fill_memory_bytes=self._fill_memory.used_bytes,
            promoted=self._promoted,
        )

    # Memory.

    def _with_filling(self, digest: bytes, resource: Resource) -> Resource:
        """`resource` and what is being filled and may still be read from its first byte."""
        filling = self._filling.get(digest, ())
        joinable = tuple(held for held in filling if held.fill is None or held.fill.joinable)
        return Resource(joinable + resource.variants) if joinable else resource

    def _is_listed(self, held: Held) -> bool:
        return held in self._filling.get(held.entry.key.digest, ())

    def _is_wanted(self, held: Held) -> bool:
        """Whether to store what was filled: not what was dropped or invalidated meanwhile."""
        return self._is_listed(held) and not self._is_outdated(held.entry)

    def _is_outdated(self, entry: Entry, filling: tuple[Held, ...] = ()) -> bool:
        """Whether there is something of the variant that was asked for later.

        So a slow answer does not take the place of a newer one, from before a soft purge perhaps.
        """
        resource = self._ram.peek(entry.key.digest)
        others = (*filling, *(resource.variants if resource is not None else ()))
        same = (one.entry for one in others if one.entry.variant == entry.variant)
        return any(asked_at(one) > asked_at(entry) for one in same)

    def _unlist(self, held: Held) -> None:
        digest = held.entry.key.digest
        rest = tuple(one for one in self._filling.get(digest, ()) if one is not held)
        if rest:
            self._filling[digest] = rest
        else:
            self._filling.pop(digest, None)

    def _add(self, held: Held) -> None:
        """Put a new variant in place of what had its selecting fields."""
        digest = held.entry.key.digest
        held.used = next(self._ticks)
        resource = self._ram.peek(digest)
        if resource is None and held.entry.variant and self._disk is not None:
            return  # there may be other variants on disk: the next look there brings all
        old = resource.variants if resource is not None else ()
        variants = (held, *(one for one in old if one.entry.variant != held.entry.variant))
        if len(variants) > self._variants:
            # Those that have come from disk and not been opened since go by age.
            oldest = min(variants, key=lambda one: (one.used, one.entry.times.response_time))
            variants = tuple(one for one in variants if one is not oldest)
            if self._disk is not None:
                self._disk.drop(oldest.entry)
        self._put(digest, Resource(variants))

    def _forget(self, held: Held) -> None:
        """Take a variant out of memory."""
        digest = held.entry.key.digest
        resource = self._ram.peek(digest)
        if resource is None:
            return
        rest = tuple(one for one in resource.variants if not one.is_same(held))
        if len(rest) == len(resource.variants):
            return
        if rest:
            self._put(digest, Resource(rest))
        else:
            self._ram.remove(digest)

    def _put(self, digest: bytes, resource: Resource) -> None:
        self._ram.put(digest, resource, sum(held.cost for held in resource.variants))

    def _resize(self, digest: bytes) -> None:
        if (resource := self._ram.peek(digest)) is not None:
            self._put(digest, resource)


async def _read(disk: Tier, _: Held, row: StoredRow) -> Body:
    return await disk.body(row, is_use=False)
