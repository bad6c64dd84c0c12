"""The store of one of several workers: it lends what it owns, and holds copies of what others own.

What this worker owns is stored as ever; only copies of it end (see `leases`) before anything of it
changes. What it does not own it never stores. It may hold copies of that in memory, among its own
answers and in the same room: whole, small, lent by the owner with a lease, and found as long as
that is current. Under a key of others nothing else is found, and what is not found says nothing.

A copy answers as it is. Nothing of it may be validated, renewed, followed or written to disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edge.cache import codec
from edge.cache.codec import EntryCorrupt
from edge.cache.held import NOTHING, Held, Resource, kept
from edge.cache.store import VARIANTS, Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.body import Body
    from edge.cache.entry import Entry, Key
    from edge.cache.leases import Leases
    from edge.cache.ram import Slot

BODY_BYTES: Final = 65_536  # of a copy; a larger body costs more to send than to ask for
HEAD_BYTES: Final = 16_384  # of a copy, in its byte form


class LendingStore(Store):
    """A `Store` of which this worker `owns` a part, by the digest of the key."""

    def __init__(
        self,
        *told: Any,
        leases: Leases,
        owns: Callable[[bytes], bool],
        **more: Any,
    ) -> None:
        super().__init__(*told, **more)
        self._leases = leases
        self._owns = owns
        self.served_copies = 0  # answers made from copies, each counted once

    # As an owner.

    def lend(self, key: Key) -> int:
        """The lease for what is found under `key` from now on."""
        return self._leases.lend(key.digest)

    def begin(self, entry: Entry) -> Held:
        self._end(entry.key.digest)  # from now on it is found before what it replaces
        return super().begin(entry)

    def freshen(self, held: Held, new: Entry) -> Held:
        self._end(new.key.digest)
        return super().freshen(held, new)

    def invalidate(self, key: Key) -> None:
        self._end(key.digest)
        super().invalidate(key)

    def drop(self, held: Held) -> None:
        self._end(held.entry.key.digest)
        super().drop(held)

    def _add(self, held: Held) -> None:
        self._end(held.entry.key.digest)
        super()._add(held)

    def disown(self) -> None:
        """Own nothing from now on: another worker does. What is being filled is read to its end by
        those who read it, and not stored; memory is given up, as it is not told of changes."""
        self._owns = _nothing
        self._filling.clear()
        self._ram.clear()

    def _end(self, digest: bytes) -> None:
        """End copies, where they are this worker's to end: each cell has one writer."""
        if self._owns(digest):
            self._leases.end(digest)

    # As one who holds copies.

    def keep_copy(self, form: bytes, body: bytes, lease: int) -> None:
        """Hold a copy of what another worker stores; `form` is its entry's byte form.

        One that has ended meanwhile, has not all of its body, or cannot be read, is not held.
        """
        try:
            entry = codec.from_bytes(form)
        except EntryCorrupt:
            return
        digest = entry.key.digest
        if lease != self._leases.current(digest) or entry.length != len(body):
            return
        copy = Held(entry, body=body)
        copy.lease = lease
        held = self._ram.peek(digest) or NOTHING
        others = (one for one in held.variants if one.entry.variant != entry.variant)
        self._put(digest, Resource((copy, *others)[:VARIANTS]))

    def drop_copies(self, key: Key) -> None:
        """Forget what is held of a key that another worker owns."""
        self._ram.remove(key.digest)

    def use(self, key: Key) -> None:
        found = self._ram.get(key.digest)
        if found is not None:
            self._count(found.variants[0])  # none is empty

    def serve(self, slot: Slot[Resource], held: Held) -> None:
        super().serve(slot, held)
        self._count(held)

    def open_nowait(self, held: Held) -> Body | None:
        self._count(held)
        return super().open_nowait(held)

    def _count(self, held: Held) -> None:
        """Count an answer, where it is made from a copy."""
        if held.lease is not None:
            self.served_copies += 1

    async def look(self, key: Key, now: float = 0.0) -> Resource:
        return await super().look(key, now) if self._owns(key.digest) else NOTHING

    def at_hand(self, key: Key) -> Slot[Resource] | None:
        slot = super().at_hand(key)
        if slot is None:
            return None
        lease = slot.value.variants[0].lease  # none is empty
        is_current = lease is None or lease == self._leases.current(key.digest)
        return slot if is_current else None

    def _complete(self, digest: bytes, resource: Resource | None, now: float) -> Resource | None:
        if resource is not None and resource.variants[0].lease is not None:  # none is empty
            return kept(self._current(digest, resource), now)
        if resource is None and not self._owns(digest):
            return NOTHING
        return super()._complete(digest, resource, now)

    def _current(self, digest: bytes, copies: Resource) -> Resource:
        """Those of the copies that have not ended."""
        lease = self._leases.current(digest)
        for held in copies.variants:
            if held.lease != lease:
                break
        else:
            return copies
        return Resource(tuple(held for held in copies.variants if held.lease == lease))


def _nothing(digest: bytes) -> bool:
    return False


def may_be_lent(held: Held, variants: tuple[Held, ...]) -> bool:
    """Whether a copy of `held` may be lent, which was found among `variants`.

    It is whole, in memory and small. Its variants all vary on the same fields, so that a request
    that selects this one selects no other: who has the copy knows of no others.
    """
    if held.fill is not None or held.body is None or len(held.body) > BODY_BYTES:
        return False
    names = [name for name, _ in held.entry.variant]
    return all([name for name, _ in one.entry.variant] == names for one in variants)
