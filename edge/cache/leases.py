"""Leases: how the owner of a key ends the copies that other workers hold of its answers.

A worker may answer with a copy of what another worker stores. That one, the owner, has to be able
to end all copies at once, wherever they are, also those that are still on their way to whoever
asked. So all workers of a node share a table of numbers, the cells, and a copy has the number that
its cell had when the owner began to look for the answer. Ending copies is adding one to the cell:
one write, whatever there is of copies. A copy with another number than the cell's is no copy.

The law: *whoever looks after the owner has replaced, renewed, dropped or invalidated an answer is
not given a copy of what was before.* It is the purges' law again (see `purge`), with the same
shape, and holds by these rules:

1. The owner reads the cell *before* it reads its store, and hands that number out with what it
   found. So a copy of something that changed meanwhile has an old number; put down however late,
   it is none.
2. The owner adds one *before* it changes anything. It is one thread, and awaits nothing between
   the two, so no number is handed out in between.
3. Who holds a copy reads the cell at each look-up.
4. A cell has one writer. The two bytes of a digest that name the cell are those by which the owner
   is found, so all keys of a cell have one owner.

*Ordinary traffic adds nothing.* When the owner reads a cell to hand its number out, it notes that,
and adds one only where there is such a note. The note is the cell's and not the entry's, since an
entry may leave the owner's memory, come back from disk and be another object then. A worker that
begins knows nothing of what the one before it has handed out: it takes all numbers for handed out.

*Cells are shared* by keys, two in 65,536 by chance. What ends one key's copies ends those of the
others in its cell; they are had again for a question. Turned down: a message to every worker,
which would have to be waited for; a number for each key, of which there would be too many.

The numbers are eight bytes each, aligned, and written as one; the memory is shared by all
processes forked from the one that made it.
"""

from __future__ import annotations

import mmap
from typing import Final

CELLS: Final = 65_536  # as many as two bytes can name: 512 KiB
_LAST: Final = (1 << 64) - 1


class Leases:
    """The table as one process sees it. To be made before processes are forked."""

    __slots__ = ("_cells", "_lent")

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, CELLS * 8)).cast("Q")
        self._lent = bytearray(b"\1") * CELLS

    def current(self, digest: bytes) -> int:
        """The number that copies of what is stored under `digest` have to have."""
        return self._cells[digest[0] << 8 | digest[1]]

    def lend(self, digest: bytes) -> int:
        """The same, to be handed out: for the owner, before it reads its store."""
        cell = digest[0] << 8 | digest[1]
        self._lent[cell] = 1
        return self._cells[cell]

    def end(self, digest: bytes) -> None:
        """End all copies that may have been handed out: for the owner, before it changes."""
        cell = digest[0] << 8 | digest[1]
        if self._lent[cell]:
            self._lent[cell] = 0
            self._cells[cell] = (self._cells[cell] + 1) & _LAST
