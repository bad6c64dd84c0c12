"""What the loop asks of the thread that writes: changes to rows, as values.

Each knows the `prefix` of the row keys that it is about. Should it fail, nothing under that prefix
may be found any more: it would be what the change was to replace or remove.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from edge.cache.packing import PRIMARY_BYTES, row_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.entry import Entry
    from edge.cache.packing import Packed, StoredRow
    from edge.cache.rows import Rows
    from edge.cache.spool import FileSpool


@dataclass(slots=True, eq=False)
class Save:
    """Store a finished body: `data`, or the file of `spool`. `done(row)` runs in the loop."""

    entry: Entry
    checks: bytes
    data: bytes | None
    spool: FileSpool | None
    done: Callable[[StoredRow | None], None]
    row: StoredRow | None = None
    packed: Packed | None = None
    key: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.key = row_key(self.entry)

    @property
    def prefix(self) -> bytes:
        """What must not be found if this fails."""
        return self.key

    def apply(self, rows: Rows) -> None:
        """Put the row, with its file, in place of what the key had."""
        if self.packed is not None:
            rows.put(self.key, self.packed)


@dataclass(slots=True, eq=False)
class Rehead:
    """Give the stored body of `old` the head `new`."""

    old: Entry
    new: Entry

    @property
    def prefix(self) -> bytes:
        """What must not be found if this fails."""
        return row_key(self.old)

    def apply(self, rows: Rows) -> None:
        """Change the row if it is still that of `old`."""
        key = row_key(self.old)
        for row in rows.find(key[:PRIMARY_BYTES])[0]:
            if row.key == key and row.entry == self.old:
                rows.rehead(row, self.new)


@dataclass(slots=True, eq=False)
class Remove:
    """Remove every row under `prefix`; with `unless_newer`, only what is no newer than that."""

    prefix: bytes
    unless_newer: Entry | None = None

    def apply(self, rows: Rows) -> None:
        """Remove them."""
        if self.unless_newer is not None:
            for row in rows.find(self.prefix[:PRIMARY_BYTES])[0]:
                if row.key == self.prefix and _is_newer(row.entry, self.unless_newer):
                    return
        rows.remove(self.prefix)


def _is_newer(entry: Entry, than: Entry) -> bool:
    # Clocks stand still and go back; the purge number of a later request is never the lower one.
    came, other = entry.times.response_time, than.times.response_time
    return came > other or entry.fetched_at > than.fetched_at


@dataclass(slots=True, eq=False)
class RemoveRefused:
    """Remove rows that could not be read."""

    prefix: bytes
    rowids: list[int]

    def apply(self, rows: Rows) -> None:
        """Remove those that still cannot."""
        rows.remove_rowids(self.rowids)


Job: TypeAlias = Save | Rehead | Remove | RemoveRefused
