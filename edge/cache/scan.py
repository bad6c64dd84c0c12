"""Going over all rows of the disk tier, a few at a time, while everything else goes on.

A scan holds nothing between two steps: no transaction, no connection, only the row id that it has
got to. Ids rise and a row keeps its own, so *every row that is there throughout is seen exactly
once*. One that comes or goes meanwhile may be seen or not; a variant that was removed and stored
again may be seen twice. A scan ends at the id that was the highest when it began, or might never
end. Where the database is made anew under it, it begins again with the new one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edge.cache.writer import ROW_ERRORS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edge.cache.packing import Scanned
    from edge.cache.rows import Glance, Rows
    from edge.cache.threads import Workers
    from edge.cache.writer import Writer

SCAN_ROWS: Final = 256


class Unreadable(OSError):  # noqa: N818 - it says what the database is
    """The database cannot be read, or not written, just now. That has been told already."""


class Scan:
    """The rows of a disk tier; see `Disk.scan`. It sees every change made before its first step.

    `sift(glance)` runs in the loop: the rows of a step that may still be found.
    """

    def __init__(
        self,
        writer: Writer,
        readers: Workers,
        workers: Workers,
        flush: Callable[[], Awaitable[None]],
        sift: Callable[[Glance], list[Scanned]],
        step_rows: int,
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._workers = workers
        self._flush = flush
        self._sift = sift
        self._step_rows = step_rows
        self._rows: Rows | None = None
        self._behind = 0
        self._last = 0
        self.looked_at = 0

    async def next(self) -> list[Scanned] | None:
        """Some more rows, at most `step_rows`, perhaps none; None at the end.

        Raises `Unreadable`; the next call tries again from where it was.
        """
        if self._rows is None:
            await self._flush()
        glance = await self._readers.run(self._look)
        if glance is None:
            return None
        self._behind = glance.behind
        self.looked_at += len(glance.rows) + len(glance.refused)
        return self._sift(glance)

    def _look(self) -> Glance | None:
        """The next step; in a reading thread."""
        rows = self._writer.rows
        if rows is None:
            raise Unreadable("there is no database")
        try:
            if rows is not self._rows:
                self._rows, self._last, self._behind = rows, rows.last_rowid(), 0
            return rows.scan(self._behind, self._last, self._step_rows)
        except ROW_ERRORS as error:
            self._workers.post(partial(self._writer.fail, error))
            raise Unreadable(str(error)) from error
