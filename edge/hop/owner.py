"""Who of a node's workers owns a key: it alone stores the key's answers and fetches them.

The shard of a key follows from the first two bytes of its digest and from the number of shards;
who owns a shard follows from the number of workers. So a key has one owner, every worker can tell
which, and nothing has to be asked or agreed upon.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.cache.shards import owner_of


@dataclass(frozen=True, slots=True)
class Owners:
    """The owners as the worker in `slot` sees them, of so many workers and shards."""

    slot: int
    workers: int
    shards: int

    def owner_of(self, digest: bytes) -> int:
        """The slot of the worker who owns a resource, by its key's digest."""
        return owner_of(digest, self.shards, self.workers)

    def owns(self, digest: bytes) -> bool:
        """Whether this worker does."""
        return self.owner_of(digest) == self.slot
