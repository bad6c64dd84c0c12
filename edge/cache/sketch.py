"""A set of digests in a few bits each, which never says of one that it holds that it does not.

A Bloom filter. The digests are hashes already, so the four places of one are cut out of it: what
is not held is told, as a rule, by the first of them. Nothing can be taken out again; whoever has
put in more than there is `room` for makes a new one. Until then at most one in eighty of those
that are not held is taken for one that is.

A client may choose URLs whose digests are taken for others' that are held. That gains it a look
on the disk, which is what it had without this.

Turned down: a set of the digests themselves (70 bytes each, where this takes 1.25 to 5), and
filters that can forget (to take out once too often is to say that what is there is not).
"""

from __future__ import annotations

from typing import Final

PLACES: Final = 4
PLACE_BITS: Final = 32  # of a digest of 16 bytes, for each place
DIGEST_BITS: Final = 10  # of the filter, for each digest that there is room for
LEAST_ROOM: Final = 65_536  # 128 KiB
MOST_ROOM: Final = 2**PLACE_BITS // DIGEST_BITS  # what the places of a digest can tell apart


class Sketch:
    """Digests of 16 bytes; `room` of them, or a few more."""

    __slots__ = ("_bits", "_mask", "added", "room")

    def __init__(self, room: int) -> None:
        self.room = min(max(room, LEAST_ROOM), MOST_ROOM)
        size = 1 << (self.room * DIGEST_BITS - 1).bit_length()
        self._mask = size - 1
        self._bits = bytearray(size // 8)
        self.added = 0
        """How many were put in that it did not seem to hold."""

    @property
    def is_full(self) -> bool:
        """Whether more were put in than there is room for."""
        return self.added > self.room

    def add(self, digest: bytes) -> None:
        """Hold `digest` from now on."""
        bits, mask, number = self._bits, self._mask, int.from_bytes(digest, "little")
        is_new = False
        for _ in range(PLACES):
            place = number & mask
            bit = 1 << (place & 7)
            if not bits[place >> 3] & bit:
                bits[place >> 3] |= bit
                is_new = True
            number >>= PLACE_BITS
        self.added += is_new

    def __contains__(self, digest: bytes) -> bool:
        """Whether `digest` may have been put in; False is certain."""
        bits, mask, number = self._bits, self._mask, int.from_bytes(digest, "little")
        for _ in range(PLACES):
            place = number & mask
            if not bits[place >> 3] & (1 << (place & 7)):
                return False
            number >>= PLACE_BITS
        return True

    def merge(self, other: Sketch) -> None:
        """Hold what `other` holds, too, which was made for the same room."""
        assert other.room == self.room
        both = int.from_bytes(self._bits, "little") | int.from_bytes(other._bits, "little")
        self._bits[:] = both.to_bytes(len(self._bits), "little")
        self.added += other.added
