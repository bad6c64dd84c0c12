"""Counters that all workers of a node share: 64-bit numbers in one piece of anonymous memory.

It is made before the workers are forked, with a slot for each, and every worker writes to its own
slot alone. So nothing is locked, nothing is lost between two who add at once, and whoever reads
adds the slots up. A worker that takes a dead one's place goes on in its slot: numbers that only
grow go on growing, and those that tell of a moment are set to nothing.

To count a request costs as few additions as there are things to know of it. What a request *was*
(outcome, reason, status, error) is one row, so it is one addition, and is folded out by whoever
reads. Its two times fall into one cell of a table, duration by first byte, and not into two
histograms; of their sums the second is only what came after the first byte.

The rows, and the origins, are named by text in the slot itself. Numbers made in one process would
mean something else in the next one, which may have read other settings. A name is written before
its length, and what has no length is not there, so a worker that dies while it writes leaves no
half of a name. There are so many places and no more; what finds none is counted under `other`,
and a request still by its outcome and class of status.

Arms of experiments have such places too, each with a table of what its requests were: class of
status by whether the store was asked and had it. A request counts in each of its experiments.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from edge.observe.metrics import (
    BUCKETS,
    CLASSES,
    COLUMNS,
    ORIGIN_POINTS,
    OTHER,
    POINTS,
    TIMES_S,
    Kind,
    status_class,
)
from edge.observe.reading import ArmTold, Histogram, OriginTold, Reading, Served

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edge.observe.metrics import Point

ROWS: Final = 768  # a node under every kind of load has been seen to use some 150
SPARE_ROWS: Final = 96  # of them, for requests by outcome and class alone: 7 outcomes * 6 * 2
ORIGINS: Final = 257
ARMS: Final = 65  # of all experiments together, and `other`
ARM_NAME_BYTES: Final = 384  # a site's host, an experiment and an arm
NAME_BYTES: Final = 96  # the longest row that reasons and errors can make is of 80
PAGE_BYTES: Final = 4096  # no two workers write to one cache line

_CELL: Final = 8
_NAME_CELLS: Final = 1 + NAME_BYTES // _CELL  # its length first

# A `Served`: the table of times, then these.
_TABLE: Final = BUCKETS * COLUMNS
_FIRST_US: Final = _TABLE
_AFTER_US: Final = _TABLE + 1
_SENT: Final = _TABLE + 2
_SERVED_CELLS: Final = _TABLE + 3
_NONE: Final = BUCKETS  # the column of answers without a first byte

# An origin: the histogram's buckets, then these.
_WAIT_US: Final = BUCKETS
_FAILED: Final = BUCKETS + 1
_ORIGIN_POINTS: Final = BUCKETS + 2
_ORIGIN_CELLS: Final = _ORIGIN_POINTS + len(ORIGIN_POINTS)

# An arm: the table of kinds, then these.
NO_LOOK_UP: Final = 0
LOOKED_UP: Final = 1
FOUND: Final = 2
_KINDS: Final = 3  # of each class of status
_VISITORS: Final = len(CLASSES) * _KINDS
_ARM_TIMES: Final = _VISITORS + 1
_ARM_US: Final = _ARM_TIMES + BUCKETS
_ARM_CELLS: Final = _ARM_US + 1
_ARM_NAME_CELLS: Final = 1 + ARM_NAME_BYTES // _CELL

# A slot.
_STARTS: Final = 0
_STARTED: Final = 1
_POINTS: Final = 2
_HITS: Final = _POINTS + len(POINTS)
_REST: Final = _HITS + _SERVED_CELLS
_ROWS: Final = _REST + _SERVED_CELLS
_ORIGINS: Final = _ROWS + ROWS * (_NAME_CELLS + 1)
_ARMS: Final = _ORIGINS + ORIGINS * (_NAME_CELLS + _ORIGIN_CELLS)
_END: Final = _ARMS + ARMS * (_ARM_NAME_CELLS + _ARM_CELLS)
SLOT_BYTES: Final = -(-_END * _CELL // PAGE_BYTES) * PAGE_BYTES
_SLOT_CELLS: Final = SLOT_BYTES // _CELL


class Tallies:
    """The counters of all workers, and one slot for the keeper, which counts what is the node's:
    to be made before they are forked."""

    def __init__(self, workers: int) -> None:
        shared = memoryview(mmap.mmap(-1, (workers + 1) * SLOT_BYTES)).cast("Q")
        slots = [
            shared[number * _SLOT_CELLS : (number + 1) * _SLOT_CELLS]
            for number in range(workers + 1)
        ]
        self._slots, self._kept = slots[:-1], slots[-1]

    def take(self, worker: int, now: float) -> Tally:
        """A worker's own slot, from its process: it alone may write there until it ends."""
        self.vacate(worker)
        slot = self._slots[worker]
        slot[_STARTS] += 1
        slot[_STARTED] = int(now)
        return Tally(slot)

    def keep(self) -> Tally:
        """The keeper's slot, from its process."""
        self._set_nothing(self._kept)
        return Tally(self._kept)

    def vacate(self, worker: int) -> None:
        """A worker has ended: what was of the moment is over."""
        self._set_nothing(self._slots[worker])

    def _set_nothing(self, slot: memoryview) -> None:
        _set_nothing(slot, _POINTS, POINTS)
        for _, cell in _names(slot, _ORIGINS, ORIGINS, _ORIGIN_CELLS):
            _set_nothing(slot, cell + _ORIGIN_POINTS, ORIGIN_POINTS)

    def reading(self) -> Reading:
        """The numbers of all workers together."""
        total = _read(self._kept)
        for reading in self.by_worker().values():
            total = total.plus(reading)
        return total

    def by_worker(self) -> dict[str, Reading]:
        """The numbers of each worker that there has been, by its slot's number."""
        return {
            str(number): _read(slot) for number, slot in enumerate(self._slots) if slot[_STARTS]
        }


class Tally:
    """One worker's slot, as it writes to it."""

    __slots__ = ("_arms", "_cells", "_origins", "_rows", "_seen")

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self._rows = _Directory(cells, _ROWS, ROWS, 1)
        self._origins = _Directory(cells, _ORIGINS, ORIGINS, _ORIGIN_CELLS)
        self._arms = _Directory(cells, _ARMS, ARMS, _ARM_CELLS, ARM_NAME_BYTES)
        self._seen: dict[int, int] = {}

    def row(self, cache: str, reason: str, status: int, error: str | None) -> int:
        """Where requests of one kind are counted: to be asked for once and given to `add`."""
        error = error or ""
        found = self._rows.find((cache, reason, str(status), error), keep=SPARE_ROWS)
        if found is None:
            rough = cache, OTHER, status_class(str(status)), error and OTHER
            found = self._rows.find(rough)
        return self._rows.other if found is None else found

    def add(
        self, row: int, sent_bytes: int, total_s: float, first_byte_s: float | None, *, hit: bool
    ) -> None:
        """Count one request: four additions where all was sent at once, else five."""
        cells = self._cells
        served = _HITS if hit else _REST
        bucket = bisect_left(TIMES_S, total_s)
        cells[row] += 1
        cells[served + _SENT] += sent_bytes
        if total_s == first_byte_s:
            first_us, column = int(total_s * 1e6 + 0.5), bucket
        elif first_byte_s is None:
            first_us, column = 0, _NONE
        else:
            first_us, column = int(first_byte_s * 1e6 + 0.5), bisect_left(TIMES_S, first_byte_s)
        cells[served + bucket * COLUMNS + column] += 1
        if first_us > 0:
            cells[served + _FIRST_US] += first_us
        if total_s != first_byte_s:
            after_us = int(total_s * 1e6 + 0.5) - first_us
            if after_us > 0:
                cells[served + _AFTER_US] += after_us

    def add_hits(
        self, alike: Mapping[tuple[int, int], int], sent_bytes: int, took_us: int
    ) -> None:
        """Count hits that were sent at once: how many of each row and bucket of `TIMES_S`, and
        what they come to together."""
        cells = self._cells
        for (row, bucket), count in alike.items():
            cells[row] += count
            cells[_HITS + bucket * COLUMNS + bucket] += count
        cells[_HITS + _SENT] += sent_bytes
        if took_us > 0:
            cells[_HITS + _FIRST_US] += took_us

    def waited(self, origin: str, waited_s: float) -> None:
        """A request waited for this origin's head, or to learn that there would be none."""
        cells, cell = self._cells, self._origin(origin)
        cells[cell + bisect_left(TIMES_S, waited_s)] += 1
        cells[cell + _WAIT_US] += max(0, int(waited_s * 1e6 + 0.5))

    def failed(self, origin: str) -> None:
        """This origin failed a request."""
        self._cells[self._origin(origin) + _FAILED] += 1

    def arm(self, experiment: str, arm: str) -> int:
        """Where requests of one arm are counted: to be asked for once and given to `add_arm`."""
        found = self._arms.find((experiment, arm))
        return self._arms.other if found is None else found

    def add_arm(
        self, arm: int, status: int, look_up: int, bucket: int, took_us: int, count: int = 1
    ) -> None:
        """Count requests of an arm that are alike: one of `NO_LOOK_UP`, `LOOKED_UP` and `FOUND`,
        all in one bucket of `TIMES_S`, and what their times come to together."""
        cells = self._cells
        at = status // 100 - 1 if 100 <= status < 600 else len(CLASSES) - 1
        cells[arm + at * _KINDS + look_up] += count
        cells[arm + _ARM_TIMES + bucket] += count
        if took_us > 0:
            cells[arm + _ARM_US] += took_us

    def add_visitors(self, arm: int, count: int) -> None:
        """So many visitors were given this arm."""
        self._cells[arm + _VISITORS] += count

    def publish(self, document: Mapping[str, Any]) -> None:
        """Tell what the node's status document says of this worker at the moment."""
        self._tell(_POINTS, POINTS, document)
        origins: Mapping[str, Any] = document.get("origins", {})
        told = {self._origin(name): each for name, each in origins.items()}
        told.pop(self._origins.other, None)  # several under one name would undo one another
        for _, cell in self._origins:
            if cell in told:
                self._tell(cell + _ORIGIN_POINTS, ORIGIN_POINTS, told[cell])
            else:  # one that settings left out has nothing open
                _set_nothing(self._cells, cell + _ORIGIN_POINTS, ORIGIN_POINTS)

    def _origin(self, name: str) -> int:
        found = self._origins.find((name,))
        return self._origins.other if found is None else found

    def _tell(self, start: int, points: Sequence[Point], document: Mapping[str, Any]) -> None:
        for cell, point in enumerate(points, start):
            value = point.value_in(document)
            if value is None:
                continue
            if point.family.kind is Kind.COUNTER:
                self._grow(cell, value)
            else:
                self._cells[cell] = max(0, value)

    def _grow(self, cell: int, value: int) -> None:
        """Add what a number has grown by; one that fell has begun anew, with a new part."""
        seen = self._seen.get(cell, 0)
        self._cells[cell] += value - seen if value >= seen else max(0, value)
        self._seen[cell] = value


class _Directory:
    """Named places in a slot: `places` of them, each with `width` cells. The first is `other`."""

    def __init__(
        self,
        cells: memoryview,
        start: int,
        places: int,
        width: int,
        name_bytes: int = NAME_BYTES,
    ) -> None:
        self._cells = cells
        self._start = start
        self._places = places
        self._width = width
        self._name_bytes = name_bytes
        self._name_cells = 1 + name_bytes // _CELL
        self._known = dict(_names(cells, start, places, width, self._name_cells))
        self.other = self._known.get(OTHER.encode()) or self._write(OTHER.encode())

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return iter(self._known.items())

    def find(self, words: tuple[str, ...], *, keep: int = 0) -> int | None:
        """The first cell of what has this name; made where more than `keep` places are free."""
        name = "\0".join(words).encode("utf-8", "backslashreplace")
        found = self._known.get(name)
        if found is not None:
            return found
        fits = 0 < len(name) <= self._name_bytes and name.count(b"\0") == len(words) - 1
        if not fits or self._places - len(self._known) <= keep:
            return None
        return self._write(name)

    def _write(self, name: bytes) -> int:
        at = self._start + len(self._known) * (self._name_cells + self._width)
        first = at + self._name_cells
        room = self._cells[at + 1 : first].cast("B")
        room[: len(name)] = name
        self._cells[at] = len(name)
        self._known[name] = first
        return first


def _names(
    cells: memoryview, start: int, places: int, width: int, name_cells: int = _NAME_CELLS
) -> Iterator[tuple[bytes, int]]:
    """The names in a directory, and where their cells begin."""
    step = name_cells + width
    for at in range(start, start + places * step, step):
        length = cells[at]
        if not length:
            return
        room = cells[at + 1 : at + name_cells].cast("B")
        yield bytes(room[:length]), at + name_cells


def _set_nothing(cells: memoryview, start: int, points: Sequence[Point]) -> None:
    for cell, point in enumerate(points, start):
        if point.family.kind is Kind.GAUGE:
            cells[cell] = 0


def _read(slot: memoryview) -> Reading:
    reading = Reading(slot[_STARTS], slot[_STARTED], slot[_POINTS:_HITS].tolist())
    reading.hits = _read_served(slot[_HITS:_REST].tolist())
    reading.rest = _read_served(slot[_REST:_ROWS].tolist())
    for name, cell in _names(slot, _ROWS, ROWS, 1):
        if slot[cell]:
            cache, reason, status, error = _words(name)
            reading.requests[cache, reason, status, error] = slot[cell]
    for name, cell in _names(slot, _ORIGINS, ORIGINS, _ORIGIN_CELLS):
        numbers = slot[cell : cell + _ORIGIN_CELLS].tolist()
        if name != OTHER.encode() or any(numbers):
            reading.origins[name.decode("utf-8", "replace")] = _read_origin(numbers)
    for name, cell in _names(slot, _ARMS, ARMS, _ARM_CELLS, _ARM_NAME_CELLS):
        numbers = slot[cell : cell + _ARM_CELLS].tolist()
        if any(numbers):
            experiment, _, arm = name.decode("utf-8", "replace").partition("\0")
            reading.arms[experiment, arm or OTHER] = _read_arm(numbers)
    return reading


def _words(name: bytes) -> list[str]:
    words = name.decode("utf-8", "replace").split("\0")
    return words if len(words) == 4 else [OTHER] * 4


def _read_served(numbers: list[int]) -> Served:
    first_us = numbers[_FIRST_US]
    table = [numbers[row : row + COLUMNS] for row in range(0, _TABLE, COLUMNS)]
    return Served(
        duration=Histogram([sum(row) for row in table], first_us + numbers[_AFTER_US]),
        first_byte=Histogram([sum(row[at] for row in table) for at in range(BUCKETS)], first_us),
        sent_bytes=numbers[_SENT],
    )


def _read_origin(numbers: list[int]) -> OriginTold:
    wait = Histogram(numbers[:BUCKETS], numbers[_WAIT_US])
    return OriginTold(wait, numbers[_FAILED], numbers[_ORIGIN_POINTS:])


def _read_arm(numbers: list[int]) -> ArmTold:
    table = [numbers[at : at + _KINDS] for at in range(0, _VISITORS, _KINDS)]
    hits = sum(row[FOUND] for row in table)
    return ArmTold(
        [sum(row) for row in table],
        hits + sum(row[LOOKED_UP] for row in table),
        hits,
        numbers[_VISITORS],
        Histogram(numbers[_ARM_TIMES:_ARM_US], numbers[_ARM_US]),
    )
