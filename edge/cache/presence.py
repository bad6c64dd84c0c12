"""Which resources may be on disk, known without asking it.

Most of what a cache does not have in memory it does not have at all, and to be told so by the
database takes a thread and back: a fifth of a miss. So the loop keeps a sketch of the digests
that have rows. What the sketch does not hold is not there; of anything else the disk knows.

*Never a false "not there".* A sketch tells of one opening of the database, and counts for nothing
under another. It is made from the keys of all rows, read a few at a time in a reading thread,
after the first lookup that could use it; until it is whole the disk is asked. Every change that
may put a row somewhere is noted before it is queued; while a sketch is being made, in that as
well, which begins with the changes that are queued then. So a row that the reading misses was
noted: it was put there, or moved, behind the reader's back. The directory is one process's (see
`home`), so that no row can come from elsewhere.

*Bounded.* There is room for twice the rows that there are when it is made, in 1.25 to 2.5 bytes
for each: at most 5 bytes for each row. What was removed still counts; when more have come than
there is room for, a new one is made while the old one still serves, and then it is three times
as much for a moment.

*Failures.* A sketch that cannot be made is done without until the database is next opened: the
writer hears of the error, and opens it again where that helps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edge.cache.packing import PRIMARY_BYTES
from edge.cache.sketch import Sketch
from edge.cache.writer import ROW_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edge.cache.rows import Rows
    from edge.cache.threads import Workers
    from edge.cache.writer import Writer

STEP_KEYS: Final = 512  # about a millisecond, in which the loop waits for its turn a few times


class _Making:
    """A sketch that is being made of `rows`: `read` is the thread's, `noted` the loop's."""

    __slots__ = ("noted", "read", "rows")

    def __init__(self, rows: Rows, room: int) -> None:
        self.rows = rows
        self.read, self.noted = Sketch(room), Sketch(room)


class Presence:
    """What is known of a disk tier's resources. Methods are the loop's, but for `_step`.

    `queued` gives the digests of all resources that have changes queued.
    """

    def __init__(
        self,
        writer: Writer,
        readers: Workers,
        fail: Callable[[BaseException], None],
        queued: Callable[[], Iterable[bytes]],
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._fail = fail
        self._queued = queued
        self._rows: Rows | None = None  # of which `_sketch` tells
        self._sketch: Sketch | None = None
        self._making: _Making | None = None
        self._hopeless: Rows | None = None

    def note(self, digest: bytes) -> None:
        """A change is about to be queued by which the resource may have a row."""
        if self._sketch is not None:
            self._sketch.add(digest)
        if self._making is not None:
            self._making.noted.add(digest)

    def lacks(self, digest: bytes) -> bool:
        """Whether the disk has nothing under `digest`, for certain."""
        rows, sketch = self._writer.rows, self._sketch
        if rows is None:
            return False
        if rows is not self._rows or sketch is None:
            self._begin(rows)
            return False
        if sketch.is_full:
            self._begin(rows)
        return digest not in sketch

    def _begin(self, rows: Rows) -> None:
        """Make a sketch of `rows`, unless that is being done or cannot be."""
        making = self._making
        if rows is self._hopeless or (making is not None and making.rows is rows):
            return
        self._making = making = _Making(rows, 2 * self._writer.count)
        for digest in self._queued():
            making.noted.add(digest)
        self._readers.post(partial(self._step, making, b""))

    def _step(self, making: _Making, behind: bytes) -> None:
        """Take note of the next keys behind `behind`; in a reading thread."""
        if self._writer.rows is not making.rows:
            return  # the loop begins again, with the rows that there are now
        try:
            keys = making.rows.keys_behind(behind, STEP_KEYS)
        except ROW_ERRORS as error:
            self._fail(error)
            self._readers.call_loop(partial(self._given_up, making))
            return
        for key in keys:
            making.read.add(key[:PRIMARY_BYTES])
        if keys:
            self._readers.post(partial(self._step, making, keys[-1]))
        else:
            self._readers.call_loop(partial(self._made, making))

    def _made(self, making: _Making) -> None:
        if making is not self._making:
            return
        making.read.merge(making.noted)
        self._rows, self._sketch, self._making = making.rows, making.read, None

    def _given_up(self, making: _Making) -> None:
        if making is self._making:
            self._making, self._hopeless = None, making.rows
