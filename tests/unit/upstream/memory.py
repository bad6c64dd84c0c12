"""A `Transport` over a Trio stream: what tests in memory use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import trio

from edge.upstream.transport import PIECE_BYTES, READ_BYTES, copy_some, divided

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.upstream.transport import Data, Part


@runtime_checkable
class _Closable(Protocol):
    def close(self) -> None: ...


class StreamTransport:
    """A `Transport` over a Trio stream that closes without waiting.

    `readable` answers for `readable_now`, since streams have no such question. `abort` is a plain
    close: memory has no reset.
    """

    __slots__ = ("_halves", "_readable", "_stream", "peer")

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        peer: bytes = b"",
        readable: Callable[[], bool] = lambda: False,
    ) -> None:
        halves = _halves(stream)
        if not halves:
            raise TypeError(f"{type(stream).__name__} cannot be closed without waiting")
        self._stream = stream
        self._halves = halves
        self._readable = readable
        self.peer = peer

    async def wait_ended(self) -> None:
        await trio.sleep_forever()  # streams cannot say without being read

    def receive_nowait(self, most: int) -> bytes | None:
        return None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes or READ_BYTES))

    def send_nowait(self, data: Data) -> int:
        return 0

    async def send_all(self, data: Data, *, stall_s: float = math.inf) -> None:
        with memoryview(data) as whole:
            for start in range(0, len(whole), PIECE_BYTES):
                with trio.fail_after(stall_s):
                    await self._stream.send_all(whole[start : start + PIECE_BYTES])

    async def send_parts(self, parts: Sequence[Part], *, stall_s: float = math.inf) -> None:
        data, span = divided(parts)
        await self.send_all(b"".join(data), stall_s=stall_s)
        while span is not None and len(span):
            await copy_some(self, span, stall_s)

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        else:
            await trio.lowlevel.checkpoint()

    def readable_now(self) -> bool:
        return self._readable()

    def close(self) -> None:
        for half in self._halves:
            half.close()

    def abort(self) -> None:
        self.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


def _halves(stream: trio.abc.Stream) -> list[_Closable]:
    ends = (
        (stream.send_stream, stream.receive_stream)
        if isinstance(stream, trio.StapledStream)
        else (stream,)
    )
    return [end for end in ends if isinstance(end, _Closable)]
