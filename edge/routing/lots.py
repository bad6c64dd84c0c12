"""Weighted lots: who draws what, so that raising one weight moves people only into it.

Weighted rendezvous hashing. For each name a keyed hash of the visitor gives a number evenly spread
in (0, 1]; `-ln(u) / weight` is then the time of the first event of a process of that rate, and the
name whose event comes first wins. Of independent processes each is first in proportion to its
rate, so shares tend to the weights; and a raised weight only brings its own event forward, so a
visitor stays or moves into that name, never between two others. Nothing is remembered, and whoever
has the key draws the same.

Names are hashed, not places: their order, and names that others have, change nothing. A bucket
table (`hash % 100`, cut at the weights' sums) is cheaper, but a raised weight pushes visitors from
every arm behind it into the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from math import log
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WEIGHT_LEAST: Final = 1e-6  # but 0; far from where a quotient by it is infinite
WEIGHT_MOST: Final = 1e6
_UNIT: Final = 2.0**-53  # what a double tells apart in (0, 1]


@dataclass(frozen=True, slots=True)
class Lots:
    """Names and their weights, none negative; `scope` and `key` keep drawings independent.

    Two drawings with other scopes say nothing of each other, and without the key no one can work
    out what a visitor draws. A weight of 0 is never drawn.
    """

    names: tuple[bytes, ...]
    weights: tuple[float, ...]
    scope: bytes
    key: bytes = b""
    _rows: tuple[tuple[int, float, bytes], ...] = field(init=False, repr=False, compare=False)
    _total: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        drawn = zip(range(len(self.names)), self.weights, self._keys(), strict=True)
        rows = tuple(row for row in drawn if row[1] > 0)
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "_total", sum(weight for _, weight, _ in rows))

    def of_visitor(self, visitor: bytes) -> int | None:
        """The index of what `visitor` draws, always the same; None where all weights are 0."""
        best, first = None, 0.0
        for index, weight, key in self._rows:
            drawn = int.from_bytes(blake2b(visitor, digest_size=8, key=key).digest()) >> 11
            moment = -log((drawn + 1) * _UNIT) / weight
            if best is None or moment < first:
                best, first = index, moment
        return best

    def of_roll(self, roll: float) -> int | None:
        """The index that `roll`, evenly spread in [0, 1), falls on; None where all weights are 0.

        For those who cannot be told apart: there is no one to move.
        """
        left, index = roll * self._total, None
        for index, weight, _ in self._rows:  # noqa: B007 - the last takes what rounding leaves
            left -= weight
            if left < 0:
                break
        return index

    def _keys(self) -> Iterator[bytes]:
        """One key a name, made once: then a drawing hashes the visitor and nothing else."""
        # RFC 7693 §2.1: no key is longer than 64 bytes
        secret = self.key if len(self.key) <= 64 else blake2b(self.key).digest()
        for name in self.names:
            told = b"%d:%b%d:%b" % (len(self.scope), self.scope, len(name), name)
            yield blake2b(told, digest_size=32, key=secret).digest()


def check_weights(weights: Iterable[float]) -> Iterator[str]:
    """What is no weight, and weights of which none can be drawn, in words for the operator."""
    total = 0.0
    for weight in weights:
        if weight != 0 and not WEIGHT_LEAST <= weight <= WEIGHT_MOST:
            yield f"{weight:g} is no weight; use 0, or {WEIGHT_LEAST:g} to {WEIGHT_MOST:g}"
        else:
            total += weight
    if total == 0:
        yield "no weight is above 0; give one"
