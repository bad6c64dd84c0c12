"""A body in another coding, made as it is read.

`Encoded` and `Decoded` stand before another body and are bodies themselves, for one reader who
reads from the first byte to the last. What the source has at hand is taken a piece at a time, and
what comes of it is given out; before the source is waited for, all that went in is flushed out, so
that a reader can have all that has come. A source that breaks off raises what it raises, here too.

One may stand before another: `Encoded` before `Decoded` is what an origin coded in one coding, in
another one.

Each piece is a turn: no more than `turns` allows are taken at once, and others run in between,
whatever the source has at hand. So however many bodies are being coded, a request that needs none
of it waits for two short steps at most.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from edge.coding.decoders import DEFAULT_BOUNDS
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

    from edge.cache.body import Body
    from edge.coding.coders import Coder
    from edge.coding.decoders import Decoder

PIECE_BYTES: Final = 64 * 1024  # of a source at a time
FIRST_BYTES: Final = 8 * 1024  # to be coded: less than a millisecond, and a page begins to show
PROOF_BYTES: Final = 1 << 20  # decoded ahead: a bomb has blown up by then, or looks like one


class Recoded(ABC):
    """What `body`, of `expected` bytes (None: not known), is in another coding. Whoever made
    it closes it, and what it is made by."""

    first_bytes = PIECE_BYTES
    """How much of the source is taken at first."""

    def __init__(self, body: Body, expected: int | None, turns: trio.Semaphore) -> None:
        self._body = body
        self._expected = expected
        self._turns = turns
        self._pending: bytes = b""
        self._at = 0  # up to here it was given out
        self._ended = False
        self.taken = 0
        """Bytes of the source that were read."""
        self.given = 0
        """Bytes that were given out."""

    @property
    def length(self) -> int | None:
        """See `Body`: it is never known before."""
        return None

    def read_nowait(self, offset: int, most: int) -> bytes | memoryview | None:
        """See `Body.read_nowait`; what is yet to be made of what is at hand is waited for, too."""
        return self._taken_out(offset, most) if self._is_pending or self._ended else None

    async def read(self, offset: int, most: int) -> bytes | memoryview:
        """See `Body.read`."""
        while not self._is_pending and not self._ended:
            await self._advance(waits=True)
        return self._taken_out(offset, most)

    async def prepare(self) -> None:
        """Have something pending, if it can be made of what the source has at hand."""
        while not self._is_pending and not self._ended:
            if not await self._advance(waits=False):
                return

    def close(self) -> None:
        """See `Body.close`."""
        self._pending, self._at, self._ended = b"", 0, True

    @property
    def _is_pending(self) -> bool:
        return self._at < len(self._pending)

    def _taken_out(self, offset: int, most: int) -> bytes:
        assert offset == self.given, "it is read once, in order"
        data = self._pending[self._at : self._at + most]
        self._at += len(data)
        self.given += len(data)
        return data

    def _add(self, data: bytes) -> None:
        """Have `data` given out, behind what is pending."""
        self._pending = self._pending[self._at :] + data if self._is_pending else data
        self._at = 0

    async def _advance(self, *, waits: bool) -> bool:
        """Have something pending, or come nearer to it, or end; False where it `waits` for nothing
        and the source has nothing at hand."""
        if isinstance(self._body, Recoded):  # in turns of its own: none is taken within another
            await self._body.prepare()
        async with self._turns:
            if await self._made_at_hand():
                return True
            most = PIECE_BYTES if self.taken else self.first_bytes
            data = self._body.read_nowait(self.taken, most)
            if data is None and await self._flushed():
                return True
        if data is None:
            if not waits:
                return False
            data = await self._body.read(self.taken, most)
        self.taken += len(data)
        async with self._turns:
            await self._go_on(data)
        return True

    async def _go_on(self, data: bytes | memoryview) -> None:
        if data:
            await self._take(data)
            return
        if self._expected is not None and self.taken != self._expected:
            raise ExchangeError(Failure.BODY_TRUNCATED)
        await self._finish()
        self._ended = True

    async def _made_at_hand(self) -> bool:
        """Have pending what comes of what was taken before; False where nothing is left of it."""
        return False

    async def _flushed(self) -> bool:
        """Have pending what is needed to read all that was taken; False where nothing is left."""
        return False

    @abstractmethod
    async def _take(self, data: bytes | memoryview) -> None:
        """Have `data` go in."""

    @abstractmethod
    async def _finish(self) -> None:
        """The source has come to its end."""


class Encoded(Recoded):
    """A body as `coder` codes it. What comes of the first piece is given out at once: coders
    keep back as much as 256 KiB, and would have a client wait for all of it to be coded."""

    first_bytes = FIRST_BYTES

    def __init__(
        self, body: Body, expected: int | None, turns: trio.Semaphore, coder: Coder
    ) -> None:
        super().__init__(body, expected, turns)
        self._coder = coder
        self._is_flushed = True

    async def _flushed(self) -> bool:
        if self._is_flushed:
            return False
        self._is_flushed = True
        data = await self._coder.encode(b"", flush=True)
        self._add(data)
        return bool(data)

    async def _take(self, data: bytes | memoryview) -> None:
        is_first = self.taken == len(data)
        self._is_flushed = is_first and (self._expected is None or self._expected > self.taken)
        self._add(await self._coder.encode(data, flush=self._is_flushed))

    async def _finish(self) -> None:
        self._add(await self._coder.finish())


class Decoded(Recoded):
    """A body that its origin coded, as it was before; raises BAD_RESPONSE for what is not in its
    coding, and for what decodes to too much."""

    def __init__(
        self, body: Body, expected: int | None, turns: trio.Semaphore, decoder: Decoder
    ) -> None:
        super().__init__(body, expected, turns)
        self._decoder = decoder
        self._pieces: Iterator[bytes] = iter(())

    async def _made_at_hand(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._add(piece)
        return True

    async def prove(self) -> None:
        """Decode ahead, as far as the source is at hand, until it does not look like a bomb.

        So that a client can be told of one before it is told anything else.
        """
        while not self._ended and (self.given_ahead < PROOF_BYTES or self._is_suspect):
            if not await self._advance(waits=not self._is_pending):
                return

    @property
    def given_ahead(self) -> int:
        """Bytes that are pending."""
        return len(self._pending) - self._at

    @property
    def _is_suspect(self) -> bool:
        return self._decoder.given_bytes > DEFAULT_BOUNDS.ratio * self._decoder.taken_bytes

    async def _take(self, data: bytes | memoryview) -> None:
        self._pieces = self._decoder.pieces(data)

    async def _finish(self) -> None:
        self._decoder.finish()
