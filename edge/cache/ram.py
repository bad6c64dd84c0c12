"""The memory tier: values under byte keys, bounded in bytes, evicted by S3-FIFO.

*The policy* is S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP
2023): a newcomer enters a small queue that has a tenth of the memory. If it was used again by
the time it reaches the front, it moves to the main queue; if not, it leaves, and only its key is
remembered, among the ghosts. A newcomer that is still a ghost goes to the main queue at once. At
the front of the main queue a used value pays one use to go round again. A use is a counter that
stops at three, so a hit moves nothing: one or two dictionary lookups and one addition.

*Why not another.* Most of what a CDN node is asked for once is never asked for again, and a
crawler asks for everything once. LRU lets both wash through all of the memory. SIEVE (Zhang et
al., NSDI 2024) is simpler than S3-FIFO and as good on skewed traffic, but its authors say that it
does not resist scans; here they reach a tenth of the memory. `tools/simulate` compares the four
on Zipf traffic of 0.8 and 1.0: above LRU by 6 to 12 points of hit ratio, by 14 to 16 while a
crawler passes, and above SIEVE by 1 to 3 points except in calm traffic with much memory.

*What differs from the paper.* Sizes are in bytes, as in the authors' libCacheSim. Looking for a
victim gives at most `CHANCES` values another round and then takes the next one whatever its
uses, so that one `put` into a memory full of popular values costs microseconds, not the walk
through all of them. Values above an eighth of the memory are refused: one of them costs the hits
of everything it displaces, and disks are good at large things.

*Invariants.* The cost of what is held is never above the capacity. Every value costs its size
and `OVERHEAD_BYTES`, and there are no more ghosts than values, so neither empty values nor keys
made up by a client can outgrow the bound. A value disappears only by `remove`, by being replaced,
or by being returned from `put` as evicted.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

V = TypeVar("V")

OVERHEAD_BYTES: Final = (
    512  # measured 330 B: a slot, a 16-byte key and its place in a queue; a ghost
)
LARGEST_FRACTION: Final = 8
SMALL_FRACTION: Final = 10  # the paper's; a twentieth or a fifth differ by 1 point at most
MOST_USES: Final = 3  # the paper's two bits
CHANCES: Final = 64  # under 50 µs; the simulated hit ratios are within 0.1 point of no bound's


@dataclass(frozen=True, slots=True)
class RamStatistics:
    """What a `RamStore` holds (bytes include the overhead) and what it has done so far."""

    capacity_bytes: int
    held_bytes: int
    entries: int
    ghosts: int
    hits: int
    misses: int
    inserted: int
    evicted: int
    refused: int


class Slot(Generic[V]):
    """Where a value is held. Good until anything else is asked of the store."""

    __slots__ = ("cost", "uses", "value")

    def __init__(self, value: V, cost: int) -> None:
        self.value = value
        self.cost = cost
        self.uses = 0


class RamStore(Generic[V]):
    """Values of at most `capacity_bytes` in all, by byte key; the least useful leave first."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._small_target = capacity_bytes // SMALL_FRACTION
        self._small: OrderedDict[bytes, Slot[V]] = OrderedDict()
        self._main: OrderedDict[bytes, Slot[V]] = OrderedDict()
        self._ghosts: OrderedDict[bytes, None] = OrderedDict()
        self._small_bytes = 0
        self._main_bytes = 0
        self._hits = 0
        self._misses = 0
        self._inserted = 0
        self._evicted = 0
        self._refused = 0

    def get(self, key: bytes) -> V | None:
        """The value under `key`, counted as used; None where there is none."""
        slot = self._main.get(key) or self._small.get(key)
        if slot is None:
            self._misses += 1
            return None
        self.use(slot)
        return slot.value

    def slot(self, key: bytes) -> Slot[V] | None:
        """Where the value under `key` is, not counted as used until `use` says so."""
        return self._main.get(key) or self._small.get(key)

    def use(self, slot: Slot[V]) -> None:
        """Count what a slot holds as used."""
        self._hits += 1
        if slot.uses < MOST_USES:
            slot.uses += 1

    def peek(self, key: bytes) -> V | None:
        """The value under `key`, not counted as used."""
        slot = self._main.get(key) or self._small.get(key)
        return None if slot is None else slot.value

    def admits(self, size: int) -> bool:
        """Whether a value of `size` bytes may enter at all."""
        return size + OVERHEAD_BYTES <= self._capacity // LARGEST_FRACTION

    def put(self, key: bytes, value: V, size: int) -> list[tuple[bytes, V]]:
        """Hold `value`, `size` bytes, in place of what was under `key`; returns who had to leave.

        `key` itself is never among them. Where `size` is not admitted nothing is under `key`
        afterwards: the old value is as replaced as if the new one had been taken.
        """
        to_main = key in self._main or key in self._ghosts
        old = self._take(key)
        if not self.admits(size):
            self._refused += 1
            return []
        slot = Slot(value, size + OVERHEAD_BYTES)
        slot.uses = old.uses if old is not None else 0
        self._inserted += old is None
        self._ghosts.pop(key, None)
        evicted = self._make_room(slot.cost)
        self._append(key, slot, to_main=to_main)
        return evicted

    def remove(self, key: bytes) -> V | None:
        """Forget `key`, also as a ghost; returns what was under it."""
        self._ghosts.pop(key, None)
        slot = self._take(key)
        return None if slot is None else slot.value

    def clear(self) -> None:
        """Forget everything but the counters."""
        for queue in (self._small, self._main, self._ghosts):
            queue.clear()
        self._small_bytes = self._main_bytes = 0

    def keys(self) -> list[bytes]:
        """Every key as of now."""
        return [*self._small, *self._main]

    def items(self) -> Iterator[tuple[bytes, V]]:
        """Every key and value as of now, not counted as used; the store may change meanwhile."""
        slots = list(self._small.items()) + list(self._main.items())
        return ((key, slot.value) for key, slot in slots)

    def statistics(self) -> RamStatistics:
        """What is held and what was done."""
        return RamStatistics(
            capacity_bytes=self._capacity,
            held_bytes=self._small_bytes + self._main_bytes,
            entries=len(self),
            ghosts=len(self._ghosts),
            hits=self._hits,
            misses=self._misses,
            inserted=self._inserted,
            evicted=self._evicted,
            refused=self._refused,
        )

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def __contains__(self, key: object) -> bool:
        return key in self._main or key in self._small

    def _append(self, key: bytes, slot: Slot[V], *, to_main: bool) -> None:
        if to_main:
            self._main[key] = slot
            self._main_bytes += slot.cost
        else:
            self._small[key] = slot
            self._small_bytes += slot.cost

    def _take(self, key: bytes) -> Slot[V] | None:
        """Unlink the slot of `key` from its queue."""
        slot = self._main.pop(key, None)
        if slot is not None:
            self._main_bytes -= slot.cost
            return slot
        slot = self._small.pop(key, None)
        if slot is not None:
            self._small_bytes -= slot.cost
        return slot

    def _make_room(self, cost: int) -> list[tuple[bytes, V]]:
        """Evict until `cost` more bytes fit."""
        evicted: list[tuple[bytes, V]] = []
        while self._small_bytes + self._main_bytes + cost > self._capacity:
            evicted.append(self._evict())
        self._evicted += len(evicted)
        while len(self._ghosts) > len(self):
            self._ghosts.popitem(last=False)
        return evicted

    def _evict(self) -> tuple[bytes, V]:
        """Drop one value: the first without a use, or the one after `CHANCES` that had one."""
        chances = CHANCES
        while True:
            from_small = self._small_bytes > self._small_target or not self._main
            key, slot = self._pop_first(from_small=from_small)
            if slot.uses == 0 or chances == 0:
                break
            chances -= 1
            slot.uses = 0 if from_small else slot.uses - 1
            self._append(key, slot, to_main=True)
        if from_small:
            self._ghosts[key] = None
        return key, slot.value

    def _pop_first(self, *, from_small: bool) -> tuple[bytes, Slot[V]]:
        key, slot = (self._small if from_small else self._main).popitem(last=False)
        if from_small:
            self._small_bytes -= slot.cost
        else:
            self._main_bytes -= slot.cost
        return key, slot
