"""A consistent hash ring: which member a key belongs to, and who is next where that one is out.

Every member stands at many points of a circle, as many as its weight says; a key belongs to the
member of the first point at or behind the key's own. The points of a member follow from its name
and weight alone. So one that goes moves only its own keys, and one that comes takes only what is
its own from then on; every process and node that knows the same names agrees, without a word.

*Bounded load* (Mirrokni, Thorup, Zadimoghaddam 2016) keeps one hot key from drowning its member:
who has more than `LOAD` times its fair share of the requests at work is passed over, and the next
one on the ring takes the key as long as that lasts.

For each point the whole order of members is known beforehand, as one byte a member, so that a
look-up is a bisection and a few steps, never a walk over the points of members that are out.
Rendezvous hashing was turned down for its cost of one hash a member for each look-up; Maglev's
table because it moves a few keys of members that stay.
"""

from __future__ import annotations

from bisect import bisect_left
from hashlib import blake2b
from math import ceil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_MEMBERS: Final = 64
POINTS: Final = 160  # for a weight of 1, as in ketama: shares within about 8 % of the weights
MOST_POINTS: Final = 256 * POINTS  # in all; heavier rings are thinned, each by the same factor
LOAD: Final = 1.25  # of the fair share; HAProxy's documentation recommends 1.25 to 1.5
_POINT_BYTES: Final = 8
_BLOCK_BYTES: Final = 64  # one digest gives eight points


def place_of(key: bytes) -> tuple[int, float]:
    """Where `key` stands on every ring, and a fraction in [0, 1) that is independent of it.

    The fraction lets a caller hand over a share of a member's keys, the same ones each time.
    """
    digest = blake2b(key, digest_size=2 * _POINT_BYTES).digest()
    where = int.from_bytes(digest[:_POINT_BYTES], "big")
    return where, (int.from_bytes(digest[_POINT_BYTES:], "big") >> 11) / (1 << 53)


class Ring:
    """Members by index, each with a name that is its own and a weight; immutable.

    A member of weight 0 has no keys. As long as the weights add up to 256 at most, a member's
    points depend on nothing but itself; beyond that all are thinned by a power of two.
    """

    __slots__ = ("_orders", "_points")

    def __init__(self, names: Sequence[str], weights: Sequence[float]) -> None:
        if len(names) > MOST_MEMBERS:
            raise ValueError(f"{len(names)} members on one ring; {MOST_MEMBERS} is the most")
        if len(set(names)) != len(names):
            raise ValueError(f"members of one ring share a name: {', '.join(sorted(names))}")
        points = sorted(
            (point, names[index], index)
            for index, count in enumerate(_counts(weights))
            for point in _points(names[index], count)
        )
        self._points = [point for point, _, _ in points]
        self._orders = _orders([index for _, _, index in points])

    def order(self, where: int) -> bytes:
        """The members in the order in which they are asked for a key that stands at `where`."""
        if not self._points:
            return b""
        return self._orders[bisect_left(self._points, where) % len(self._points)]

    def owner(self, key: bytes) -> int | None:
        """Whose `key` is; None where no member has a weight."""
        order = self.order(place_of(key)[0])
        return order[0] if order else None


def most_at_work(weight: float, weights: float, at_work: int) -> int:
    """How many requests a member may have at work, a new one included, with bounded load.

    `weights` is the sum over all members that may be chosen, `at_work` what they have in hand.
    These bounds add up to more than `at_work`, so that one member always has room.
    """
    return ceil(LOAD * (at_work + 1) * weight / weights)


def _counts(weights: Sequence[float]) -> list[int]:
    """How many points each weight gives: at least one where there is a weight at all."""
    scale: float = POINTS
    while scale * sum(weights) > MOST_POINTS:
        scale /= 2
    return [max(1, round(scale * weight)) if weight > 0 else 0 for weight in weights]


def _points(name: str, count: int) -> Iterator[int]:
    """The first `count` points of a member: those of a smaller weight are among them."""
    told = name.encode()
    for block in range(ceil(count * _POINT_BYTES / _BLOCK_BYTES)):
        digest = blake2b(b"%d " % block + told, digest_size=_BLOCK_BYTES).digest()
        left = min(_BLOCK_BYTES, (count * _POINT_BYTES) - block * _BLOCK_BYTES)
        for start in range(0, left, _POINT_BYTES):
            yield int.from_bytes(digest[start : start + _POINT_BYTES], "big")


def _orders(owners: Sequence[int]) -> list[bytes]:
    """For each point, all members in the order in which the circle is met from there."""
    order = bytes(dict.fromkeys(owners))  # from the first point on: what follows the last one
    orders: list[bytes] = []
    for owner in reversed(owners):
        if order[0] != owner:
            one = bytes((owner,))
            order = one + order.replace(one, b"")
        orders.append(order)
    orders.reverse()
    return orders
