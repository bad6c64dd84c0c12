"""Streaming decoders that a bomb cannot fill: of brotli, Zstandard and gzip.

A few hundred bytes can decode to gigabytes, so nothing is decoded ahead of whoever takes it.
`Decoder.pieces` is lazy, and each piece is about `PIECE_BYTES` long, whatever comes in. What
came out is held against what went in: past `Bounds.free_bytes`, more than `Bounds.ratio` times as
much is a bomb, and so is more than `Bounds.most_bytes`. An origin that sends one, or anything that
is not what its Content-Encoding says, has sent a bad response.

Codings end by themselves. gzip may have more members (RFC 1952 §2.2), Zstandard more frames
(RFC 8878 §3.1); brotli ends for good. Junk behind the end, and an end that does not come, are
faults. Members and frames are counted: an empty one is 20 bytes and costs as much as a long one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, assert_never

import brotli

from edge.coding.negotiate import Coding
from edge.coding.zstd import WINDOW_LOG_MOST, DecompressionParameter, ZstdDecompressor, ZstdError
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES: Final = 64 * 1024
SLICE_BYTES: Final = 4096  # that a library is given at once: it copies what it leaves over
MOST_PARTS: Final = 4096  # members or frames; bgzip makes one of each 64 KiB

_GZIP: Final = 31


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a coded body may become. Real text rarely shrinks to less than a fiftieth."""

    most_bytes: int = 1024 * 1024 * 1024
    ratio: int = 200
    free_bytes: int = 4 * 1024 * 1024  # up to here a high ratio harms nobody


DEFAULT_BOUNDS: Final = Bounds()


class _Library(Protocol):
    """One part of a body (a gzip member, a zstd frame) by one library."""

    def give(self, data: bytes) -> bytes:
        """What comes out, about `PIECE_BYTES` at most; b"" of data asks for more of the same."""

    @property
    def is_ended(self) -> bool: ...

    @property
    def is_hungry(self) -> bool:
        """Whether nothing more comes out before more goes in."""

    @property
    def left_over(self) -> bytes:
        """What went in behind the end."""


class Decoder:
    """One body on its way out of a coding. Raises `ExchangeError` with BAD_RESPONSE."""

    __slots__ = ("_bounds", "_coding", "_part", "_parts", "given_bytes", "taken_bytes")

    def __init__(self, coding: Coding, bounds: Bounds = DEFAULT_BOUNDS) -> None:
        self._coding = coding
        self._bounds = bounds
        self._part: _Library | None = _library(coding)
        self._parts = 1
        self.taken_bytes = 0
        """How much went in."""
        self.given_bytes = 0
        """How much came out."""

    def pieces(self, data: bytes | memoryview) -> Iterator[bytes]:
        """What comes out as `data` goes in, piece by piece; b"" where a part came to its end, as
        thousands of them may hold nothing.

        To be taken to its end before the next call.
        """
        for start in range(0, len(data), SLICE_BYTES):
            part = bytes(data[start : start + SLICE_BYTES])
            self.taken_bytes += len(part)
            while part:
                library = self._current()
                yield from self._drained(library, part)
                part = library.left_over if library.is_ended else b""
                if library.is_ended:
                    self._part = None
                    yield b""

    def finish(self) -> None:
        """Raise unless the body ended where its coding does; an empty one never did."""
        if self._part is not None:
            raise self._fault("it breaks off")

    def _current(self) -> _Library:
        """The part that bytes belong to now: behind the end of one, another."""
        if self._part is None:
            self._parts += 1
            if self._coding is Coding.BR:
                raise self._fault("there is something behind its end")
            if self._parts > MOST_PARTS:
                raise self._fault(f"it has more than {MOST_PARTS} parts")
            self._part = _library(self._coding)
        return self._part

    def _drained(self, library: _Library, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                piece = library.give(data)
            except (zlib.error, ZstdError, brotli.error, EOFError) as cause:
                raise self._fault(str(cause)) from cause
            data = b""
            if piece:
                self._count(len(piece))
                yield piece
            if library.is_ended or library.is_hungry:
                return

    def _count(self, size: int) -> None:
        self.given_bytes = given = self.given_bytes + size
        bounds = self._bounds
        if given > bounds.most_bytes:
            raise self._fault(f"it decodes to more than {bounds.most_bytes} bytes")
        if given > bounds.free_bytes and given > bounds.ratio * self.taken_bytes:
            raise self._fault(f"it decodes to more than {bounds.ratio} times its size")

    def _fault(self, why: str) -> ExchangeError:
        return ExchangeError(Failure.BAD_RESPONSE, f"body in {self._coding}: {why}")


class _Gzip:
    __slots__ = ("_coder", "_is_full")

    def __init__(self) -> None:
        self._coder = zlib.decompressobj(_GZIP)
        self._is_full = False

    def give(self, data: bytes) -> bytes:
        piece = self._coder.decompress(data or self._coder.unconsumed_tail, PIECE_BYTES)
        self._is_full = len(piece) >= PIECE_BYTES  # zlib may hold more back, its input used up
        return piece

    @property
    def is_ended(self) -> bool:
        return self._coder.eof

    @property
    def is_hungry(self) -> bool:
        return not self._is_full and not self._coder.unconsumed_tail

    @property
    def left_over(self) -> bytes:
        return self._coder.unused_data


class _Zstd:
    __slots__ = ("_coder",)

    def __init__(self) -> None:
        bounds: dict[int, int] = {DecompressionParameter.window_log_max: WINDOW_LOG_MOST}
        self._coder = ZstdDecompressor(options=bounds)

    def give(self, data: bytes) -> bytes:
        return self._coder.decompress(data, PIECE_BYTES)

    @property
    def is_ended(self) -> bool:
        return self._coder.eof

    @property
    def is_hungry(self) -> bool:
        return self._coder.needs_input

    @property
    def left_over(self) -> bytes:
        return self._coder.unused_data


class _Brotli:
    """Gives a block beyond the limit at times (98 KiB for 64), and holds output back when it could
    take more input already: it is hungry when asking again yields nothing."""

    __slots__ = ("_coder", "_gave")

    def __init__(self) -> None:
        self._coder = brotli.Decompressor()
        self._gave = False

    def give(self, data: bytes) -> bytes:
        piece = self._coder.process(data, output_buffer_limit=PIECE_BYTES)
        self._gave = bool(piece)
        return piece

    @property
    def is_ended(self) -> bool:
        return self._coder.is_finished()

    @property
    def is_hungry(self) -> bool:
        return not self._gave and self._coder.can_accept_more_data()

    @property
    def left_over(self) -> bytes:
        return b""  # it raises for what stands behind the end


def _library(coding: Coding) -> _Library:
    match coding:
        case Coding.BR:
            return _Brotli()
        case Coding.ZSTD:
            return _Zstd()
        case Coding.GZIP:
            return _Gzip()
        case Coding.IDENTITY | Coding.DCZ:
            raise ValueError(f"{coding} is not decoded here")
        case _:
            assert_never(coding)
