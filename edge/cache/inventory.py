"""Everything that the store holds, a batch at a time, while it goes on changing.

First come the rows of the disk, in the order in which they were first stored, then what is in
memory only. A variant in both is told once, as memory has it. What is there throughout is told;
what comes or goes meanwhile may be or not (see `scan`). Bounded memory: the keys that were in
memory at the start, and which of their variants have been told.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from edge.cache.packing import PRIMARY_BYTES, row_key

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator

    from edge.cache.entry import Entry, Seq, Variant
    from edge.cache.held import Held, Resource
    from edge.cache.packing import Scanned
    from edge.cache.ram import RamStore
    from edge.cache.tier import Tier

BATCH_ITEMS: Final = 256


@dataclass(frozen=True, slots=True)
class Item:
    """A stored variant. `bytes` is what it takes: of the disk if it is there, or of memory.

    `in_memory` and `on_disk` are where its body is; a large one's head may be in memory alone.
    `hits` counts the requests it has answered since it came to memory; None where it is not there.
    No purge up to the number `passed` covers it for all that memory knows.
    """

    entry: Entry
    bytes: int
    in_memory: bool
    on_disk: bool
    hits: int | None
    passed: Seq


class Inventory:
    """The items of a store; see `Store.scan`."""

    def __init__(self, ram: RamStore[Resource], disk: Tier | None) -> None:
        keys = ram.keys()
        self._ram = ram
        self._scan = disk.scan(BATCH_ITEMS) if disk is not None else None
        self._keys = frozenset(keys)
        self._told: set[builtins.bytes] = set()
        self._rest = self._in_memory(keys)

    async def next(self) -> list[Item] | None:
        """Some more items, at most `BATCH_ITEMS`, perhaps none; None at the end.

        Raises `scan.Unreadable`.
        """
        if self._scan is not None:
            rows = await self._scan.next()
            if rows is not None:
                return [self._on_disk(row) for row in rows]
            self._scan = None
        await trio.lowlevel.checkpoint()
        items = list(islice(self._rest, BATCH_ITEMS))
        return [item for item in items if item is not None] if items else None

    def _on_disk(self, row: Scanned) -> Item:
        digest = row.key[:PRIMARY_BYTES]
        if digest in self._keys:
            self._told.add(row.key)
        held = self._held(digest, row.entry.variant)
        if held is None:
            return Item(row.entry, row.charge, False, True, None, row.entry.fetched_at)
        return Item(held.entry, row.charge, held.body is not None, True, held.hits, held.passed)

    def _held(self, digest: builtins.bytes, variant: Variant) -> Held | None:
        resource = self._ram.peek(digest)
        for held in resource.variants if resource is not None else ():
            if held.entry.variant == variant:
                return held
        return None

    def _in_memory(self, keys: list[builtins.bytes]) -> Iterator[Item | None]:
        """What is still in memory of `keys` and was not told; None for what was."""
        for digest in keys:
            resource = self._ram.peek(digest)
            if resource is None:
                yield None
                continue
            for held in resource.variants:
                # A copy is stored by another worker, and told of there.
                told = held.lease is not None or row_key(held.entry) in self._told
                yield None if told else _in_memory_only(held)


def _in_memory_only(held: Held) -> Item:
    return Item(held.entry, held.cost, True, False, held.hits, held.passed)
