"""Make a MaxMind-format database of ranges of addresses.

The file is written by `mmdb_writer`; its tree is grown here. The library's own way, one network
after the other, takes 70 s for a list of all networks of the world and lets the last of two that
overlap win. Here ranges are first cut so that the inner one of two wins whatever their order, then
halved down from the whole: two blocks that say the same become one, and equal subtrees are one
node. That takes seconds, and a third of the room.
"""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from mmdb_writer import SearchTreeLeaf, SearchTreeNode, TreeWriter

from tools.atlas.sources import SourceError, countries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mmdb_writer import MMDBType

    from tools.atlas.sources import Range, Spot, Table

    Child: TypeAlias = SearchTreeNode | SearchTreeLeaf | None
    Step: TypeAlias = Callable[[int, int], None]

BITS: Final = 128
STEP_RANGES: Final = 20_000


class Piece(NamedTuple):
    """Addresses of which all sources together say one thing."""

    first: int
    last: int
    spot: int


def build(
    table: Table, out: Path, *, built: float, notice: str, step: Step = lambda done, of: None
) -> str:
    """Write the database of a table to `out`, all or nothing; its type.

    `built` is Unix seconds; `notice` says whose data it is. Raises `SourceError` and `OSError`.
    """
    pieces = list(flatten(table.ranges))
    is_city = any(spot.is_more_than_country for spot in table.spots)
    kind = "Edge-City" if is_city else "Edge-Country"
    root = grow(pieces, [SearchTreeLeaf(record) for record in records(table.spots)], step)
    meta = {
        "ip_version": 6,
        "database_type": kind,
        "languages": ["en"],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "description": {"en": notice},
        "build_epoch": int(built),
    }
    _write(TreeWriter(root, meta), out)
    return kind


def flatten(ranges: Sequence[Range]) -> Iterator[Piece]:
    """Cut ranges into pieces in order, where of one within another the inner one holds.

    Raises `SourceError` where two overlap and neither is within the other, or are the same.
    """
    around: list[Range] = []  # those that are open at `at`, the inner ones last
    at = 0
    for new in sorted(ranges, key=lambda each: (each.first, -each.last)):
        while around and around[-1].last < new.first:
            done = around.pop()
            if at <= done.last:
                yield Piece(at, done.last, done.spot)
                at = done.last + 1
        if around:
            _check(new, around[-1])
            if at < new.first:
                yield Piece(at, new.first - 1, around[-1].spot)
        at = new.first
        around.append(new)
    for done in reversed(around):
        if at <= done.last:
            yield Piece(at, done.last, done.spot)
            at = done.last + 1


def _check(new: Range, outer: Range) -> None:
    if (new.first, new.last) == (outer.first, outer.last):
        raise SourceError([f"{new}: the same addresses as in {outer}; leave one of them out"])
    if new.last > outer.last:
        raise SourceError([f"{new}: overlaps {outer}, and neither is within the other"])


def grow(
    pieces: Sequence[Piece], leaves: Sequence[SearchTreeLeaf], step: Step = lambda done, of: None
) -> SearchTreeNode:
    """The tree of pieces in order, no two of which overlap; `leaves` are by number of their spot.

    `step` is told now and then how many of all pieces are done.
    """
    root = _Grower(pieces, leaves, step).grow(0, BITS, 0, len(pieces))
    return root if isinstance(root, SearchTreeNode) else SearchTreeNode(root, root)


class _Grower:
    def __init__(
        self, pieces: Sequence[Piece], leaves: Sequence[SearchTreeLeaf], step: Step
    ) -> None:
        self._pieces = pieces
        self._firsts = [piece.first for piece in pieces]
        self._leaves = leaves
        self._step = step
        self._told = 0
        self._nodes: dict[tuple[int, int], SearchTreeNode] = {}  # keeps what the numbers are of

    def grow(self, start: int, bits: int, low: int, high: int) -> Child:
        """The 2^`bits` addresses from `start`, into which the pieces `low` to `high` reach."""
        if low == high:
            return None
        piece = self._pieces[low]
        if piece.first <= start and start + (1 << bits) - 1 <= piece.last:
            self._tell(low)
            return self._leaves[piece.spot]
        middle = start + (1 << bits - 1)
        cut = bisect_left(self._firsts, middle, low, high)
        reaches_over = cut > low and self._pieces[cut - 1].last >= middle
        left = self.grow(start, bits - 1, low, cut)
        return self._joined(left, self.grow(middle, bits - 1, cut - reaches_over, high))

    def _joined(self, left: Child, right: Child) -> Child:
        if left is right and not isinstance(left, SearchTreeNode):
            return left
        key = (id(left), id(right))
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = SearchTreeNode(left, right)
        return node

    def _tell(self, done: int) -> None:
        if done >= self._told + STEP_RANGES:
            self._told = done
            self._step(done, len(self._pieces))


def records(spots: Sequence[Spot] | dict[Spot, int]) -> list[MMDBType]:
    """What the database has of each spot, in the form of a MaxMind City record."""
    known = countries()
    return [
        _record(spot, known[spot.country].continent, known[spot.country].name) for spot in spots
    ]


def _record(spot: Spot, continent: str, name: str) -> MMDBType:
    record: dict[str, MMDBType] = {
        "continent": {"code": continent},
        "country": {"iso_code": spot.country, "names": {"en": name}},
    }
    if spot.subdivision:
        record["subdivisions"] = [{"iso_code": spot.subdivision}]
    if spot.city:
        record["city"] = {"names": {"en": spot.city}}
    if spot.at:
        # mmdb_writer caches values by equality, where 1 and 1.0 are one: always float.
        record["location"] = {
            "latitude": float(spot.at.latitude),
            "longitude": float(spot.at.longitude),
        }
    return record


def _write(writer: TreeWriter, out: Path) -> None:
    """Write beside `out`, then rename: who has the old file open keeps it."""
    fd, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    made = Path(name)
    try:
        os.close(fd)
        writer.write(name)
        made.chmod(0o644)
        made.replace(out)
    finally:
        made.unlink(missing_ok=True)
