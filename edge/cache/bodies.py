"""The stored bodies that are being read, or that were a short while ago: files and blocks.

Opening a body verifies its first blocks, unless they are known to be right; a crowd that opens
the same one waits for the first of them. Files stay open for whoever comes next (`descriptors`),
verified blocks for those who read along (`diskbody`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

from edge.cache.descriptors import Descriptors, most_kept
from edge.cache.diskbody import (
    FIRST_BLOCKS,
    Blocks,
    BodyLost,
    DiskBody,
    NoDescriptors,
    Opened,
    first_blocks,
    open_verified,
)
from edge.cache.integrity import BLOCK_BYTES, blocks_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.descriptors import OpenBody, Stamp
    from edge.cache.packing import StoredRow
    from edge.cache.threads import Workers

PREPARED: Final = 4  # at once: as many as there are threads to read


class Bodies:
    """The open bodies of the store in `directory`, read by `readers` where they are not at hand.

    `lost(row, why)` is told of one that is not what was stored.
    """

    def __init__(
        self,
        directory: str,
        readers: Workers,
        lost: Callable[[StoredRow, str], None],
        *,
        most: int | None = None,
    ) -> None:
        self.files = Descriptors(most_kept() if most is None else most)
        self._directory = directory
        self._readers = readers
        self._lost = lost
        self._blocks = Blocks()
        self._preparing: set[str] = set()
        self._beginning: dict[str, trio.Event] = {}  # bodies whose first blocks are being verified

    def open_nowait(self, row: StoredRow) -> DiskBody | None:
        """A reader of the body of `row`; None where something has to be waited for."""
        assert row.filename is not None
        opened = self.files.take(row.filename)
        if opened is None:
            return None
        if self._has_begun(opened, row):
            return self._reader(opened, row)
        self.files.give_back(opened)
        return None

    def lend_nowait(self, row: StoredRow, offset: int, most: int) -> DiskBody | None:
        """A reader, where all of the body is verified and these bytes can be sent at once."""
        assert row.filename is not None
        opened = self.files.lend(row.filename, offset, most)
        return None if opened is None else self._reader(opened, row)

    async def open(self, row: StoredRow) -> DiskBody:
        """A reader, its first blocks verified; raises `BodyLost` or `NoDescriptors`.

        A crowd shares them: verified for each of a thousand readers they would be 1 GiB at once.
        """
        name = row.filename
        assert name is not None
        while (turn := self._beginning.get(name)) is not None:
            await turn.wait()
        if (body := self.open_nowait(row)) is not None:
            return body
        self._beginning[name] = turn = trio.Event()
        try:
            return self._reader(await self._begun(row), row)
        finally:
            del self._beginning[name]
            turn.set()

    def prepare(self, row: StoredRow, lost: Callable[[], None]) -> None:
        """Have the body's file opened and verified behind the scenes, so that it can be lent.

        `lost` is told, too, where that cannot be.
        """
        name = row.filename
        if name is None or name in self._preparing or len(self._preparing) >= PREPARED:
            return
        if (opened := self.files.peek(name)) is not None and opened.is_refused:
            return
        self._preparing.add(name)
        self._readers.post(lambda: self._prepare(row, lost))

    def _prepare(self, row: StoredRow, lost: Callable[[], None]) -> None:
        """In a reader: open and verify; what there are no descriptors for is left alone."""
        opened: Opened | None = None
        why = ""
        try:
            opened = open_verified(self._directory, row, blocks_in(row.length))
        except BodyLost as error:
            why = str(error)
        except NoDescriptors:
            pass
        self._readers.call_loop(lambda: self._prepared(row, opened, why, lost))

    def _prepared(
        self, row: StoredRow, opened: Opened | None, why: str, lost: Callable[[], None]
    ) -> None:
        assert row.filename is not None
        self._preparing.discard(row.filename)
        if why:
            self._lose(row, why)
            lost()
        if opened is None:
            return
        file = self.files.add(opened.descriptor, row, opened.stamp)
        for index in range(len(opened.blocks)):
            file.mark(index, opened.stamp)
        self.files.give_back(file)

    async def whole(self, row: StoredRow) -> bytes:
        """The body, all of it verified; raises as `open` does."""
        opened = await self._open_verified(row, blocks_in(row.length))
        os.close(opened.descriptor)
        return b"".join(opened.blocks)

    def _reader(self, opened: OpenBody, row: StoredRow) -> DiskBody:
        return DiskBody(
            opened,
            row,
            self._blocks,
            self._readers,
            self.files.give_back,
            lambda why: self._lose(row, why),
        )

    def _lose(self, row: StoredRow, why: str) -> None:
        self.files.close(row.filename)
        self._lost(row, why)

    def _has_begun(self, opened: OpenBody, row: StoredRow) -> bool:
        """Whether the first blocks are verified and at hand: no reader breaks off there."""
        first = range(min(FIRST_BLOCKS, blocks_in(row.length)))
        if all(self._blocks.get(opened.name, index) is not None for index in first):
            return True
        most = min(FIRST_BLOCKS * BLOCK_BYTES, row.length)
        return opened.sendable(0, most) == most

    async def _begun(self, row: StoredRow) -> OpenBody:
        """The body's file, its first blocks read and verified."""
        assert row.filename is not None
        opened = self.files.take(row.filename)
        if opened is None:
            descriptor, stamp, blocks = await self._open_verified(row, FIRST_BLOCKS)
            opened = self.files.add(descriptor, row, stamp)
        else:
            stamp, blocks = await self._read_first(opened, row)
        for index, block in enumerate(blocks):
            opened.mark(index, stamp)
            self._blocks.put(opened.name, index, block)
        return opened

    async def _read_first(self, opened: OpenBody, row: StoredRow) -> tuple[Stamp, list[bytes]]:
        stamp, descriptor = opened.stamp(), opened.descriptor
        opened.dropped(0)
        blocks = None
        try:
            blocks = await self._readers.run(
                lambda: first_blocks(descriptor, stamp, row, FIRST_BLOCKS)
            )
            return stamp, blocks
        except (BodyLost, OSError) as error:
            self._lose(row, str(error))
            raise BodyLost(str(error)) from error
        finally:
            if blocks is None:
                self.files.give_back(opened)

    async def _open_verified(self, row: StoredRow, most: int) -> Opened:
        while True:
            try:
                return await self._readers.run(lambda: open_verified(self._directory, row, most))
            except BodyLost as error:
                self._lose(row, str(error))
                raise
            except NoDescriptors:
                if not self.files.give_way():
                    raise
