"""A connection between two workers of a node, as either of them holds it: frames, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from edge.listen.passing import Passing
from edge.wire.frames import FrameReader, written

if TYPE_CHECKING:
    from edge.upstream.transport import Data, Transport
    from edge.wire.frames import Frame


READ_BYTES: Final = 16_384  # a client that does not read holds so much of what is relayed to it


class Link:
    """Sends and receives frames over `transport`, which it owns.

    Sending raises `trio.BrokenResourceError` where the other worker is gone.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._reader = FrameReader()
        self._queue: list[Data] = []
        self._ended = False  # this direction
        self.idle_since = 0.0

    # Sending.

    def put(self, frame: Frame) -> None:
        """Keep `frame` back, to leave in one write with what comes next."""
        self._queue += written(frame)

    async def flush(self) -> None:
        """Send what was kept back; waits as long as the other side does not read."""
        queue, self._queue = self._queue, []
        if queue:
            await self._transport.send_parts(queue)

    async def send(self, frame: Frame) -> None:
        """Send `frame`, and what was kept back before it."""
        self.put(frame)
        await self.flush()

    async def end(self) -> None:
        """Tell the other side that nothing more will be sent, or is waited for by anyone."""
        self._ended = True
        await self._transport.send_eof()

    async def lend(self, frame: Frame, descriptor: int) -> bool:
        """Send `frame`, and what was kept back, with a descriptor, which stays the caller's.

        False where the transport cannot pass it, and then nothing was sent.
        """
        if not isinstance(self._transport, Passing):
            return False
        queue, self._queue = self._queue, []
        if await self._transport.send_passing([*queue, *written(frame)], descriptor):
            return True
        self._queue = queue
        return False

    @property
    def has_ended(self) -> bool:
        """Whether the other side was told that nothing more will be sent."""
        return self._ended

    # Receiving.

    def take_descriptor(self) -> int | None:
        """The descriptor that came with the last frame, which is the caller's from now on; None
        where there was none, or no room for it in this process."""
        transport = self._transport
        return transport.take_descriptor() if isinstance(transport, Passing) else None

    def at_hand(self) -> Frame | None:
        """The next frame among what was read already, if it is there; raises `ProtocolError`."""
        return self._reader.next()

    async def receive(self) -> Frame | None:
        """The next frame; None where there are no more, for whatever cause.

        Raises `ProtocolError` for what is no frame.
        """
        while (frame := self._reader.next()) is None:
            try:
                data = await self._transport.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._reader.receive(data)
        return frame

    async def wait_ended(self) -> None:
        """Return when the other side has ended or broken off, having said nothing more."""
        await self._transport.wait_ended()

    # Ends.

    @property
    def is_reusable(self) -> bool:
        """Whether, between two questions, it can carry another."""
        is_open = not self._ended and self._reader.is_between
        return is_open and not self._queue and not self._transport.readable_now()

    def close(self) -> None:
        """Close; what was sent still arrives."""
        self._transport.close()

    def abort(self) -> None:
        """Break off."""
        self._transport.abort()
