"""Request bodies that wait here until they are worth an origin's connection.

A client that sends its body a byte at a time may take as long as the minimum rate lets it; an
origin's connection is too dear for that, and a few hundred such clients would take all of them.
So a body is gathered for up to `GATHER_S` before the origin is asked: whole, where its length is
known and at most `WHOLE_BYTES` (beyond `MEMORY_BYTES` it waits on disk), else its beginning. What
is not whole by then flows on from there, with back-pressure, and needs one of the origin's upload
places. Those are a part of its connections only, so that slow clients never have all, and requests
whose bodies come at an honest pace never meet them.

Gathering every body to its end was turned down: an upload of gigabytes would be written twice and
begin when it has ended, and an origin that answers to a beginning would never see one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from edge.cache.body import SpoolFull
from edge.wire.message import Chunk, End

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.body import Spool
    from edge.listen.connection import RequestBody

GATHER_S: Final = 1.0
MEMORY_BYTES: Final = 64 * 1024
WHOLE_BYTES: Final = 16 << 20  # nearly every form and API call; nginx gathers all it lets in
PIECE_BYTES: Final = 64 * 1024


class GatheredBody:
    """A request's body of which a beginning, or all, is here; a `BodySource`.

    `make_spool` may raise `SpoolFull`; None where there is no disk. Whoever made it closes it.
    """

    def __init__(self, body: RequestBody, make_spool: Callable[[], Spool] | None) -> None:
        self.is_whole = False
        self._body = body
        self._make_spool = make_spool
        self._early: deque[bytes | memoryview] = deque()  # then what is on disk, then `_late`
        self._held = 0  # bytes in memory
        self._spool: Spool | None = None
        self._spooled = 0
        self._taken = 0  # of what was spooled
        self._late = b""  # found no room any more

    @property
    def length(self) -> int | None:
        """The body's length in bytes, where it is known."""
        return self._body.length

    async def gather(self) -> None:
        """Take in what is to be here before the origin is asked; raises the body's errors."""
        most = MEMORY_BYTES
        if self.length is not None and self.length <= WHOLE_BYTES:
            most = WHOLE_BYTES
        size, until = 0, trio.current_time() + GATHER_S
        while size < most:
            with trio.move_on_at(until) as patience:  # not around `_keep`, which must not be cut
                message = await self._body.receive()
            if patience.cancelled_caught:
                return
            if isinstance(message, End):
                self.is_whole = True
                return
            size += len(message.data)
            if not await self._keep(message.data):
                return

    async def _keep(self, data: bytes | memoryview) -> bool:
        """Keep `data`; False if no more may be kept, and the rest has to flow."""
        if self._spool is None and self._held + len(data) <= MEMORY_BYTES:
            self._early.append(data)
            self._held += len(data)
            return True
        try:
            await self._to_disk(bytes(data))
        except SpoolFull:
            self._late = bytes(data)
            return False
        return True

    async def _to_disk(self, data: bytes) -> None:
        if self._spool is None:
            if self._make_spool is None:
                raise SpoolFull("there is no disk")
            self._spool = self._make_spool()
        await self._spool.write(data)
        self._spooled += len(data)

    async def receive(self) -> Chunk | End:
        """The next piece: from memory, from disk, then from the client itself."""
        if self._early:
            return Chunk(self._early.popleft())
        if self._spool is not None and self._taken < self._spooled:
            data = await self._spool.read(self._taken, PIECE_BYTES)
            self._taken += len(data)
            return Chunk(data)
        if self._late:
            data, self._late = self._late, b""
            return Chunk(data)
        return End() if self.is_whole else await self._body.receive()

    def close(self) -> None:
        """Give back what is kept."""
        self._early.clear()
        if self._spool is not None:
            self._spool.close()
