"""Streaming encoders of brotli, Zstandard, gzip and dcz, all alike.

Windows and tables are no larger than a body needs, where its length is known, and windows never
larger than clients must have (RFC 9659: 8 MiB for zstd). gzip is made by isal at low levels, by
zlib-ng at the others, and by zlib where those are not installed (the extra `fast`). All libraries
release the GIL while they work; which thread calls them is the caller's affair, one at a time.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, assert_never

import brotli

from edge.coding.negotiate import Coding
from edge.coding.zstd import ZstdCompressor, ZstdError

if TYPE_CHECKING:
    from edge.coding.dictionary import Dictionary


def _optional(name: str) -> Any:
    """A module of the extra `fast`, or None where that is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


_isal = _optional("isal.isal_zlib")
_zlib_ng = _optional("zlib_ng.zlib_ng")

ISAL_LEVELS: Final = 3  # up to which isal is the faster at the same size
_GZIP: Final = 31  # zlib's window of 32 KiB, in gzip's frame (RFC 1952)

# Brotli's tables follow its window: 0.1 MiB an encoder at 14, 0.9 at 19.
_BROTLI_WINDOW_FAST: Final = 19
_BROTLI_WINDOW_HIGH: Final = 22
_BROTLI_WINDOW_LEAST: Final = 10
_BROTLI_HIGH: Final = 10  # from this quality on memory is not what counts

DCZ_MAGIC: Final = bytes.fromhex("5e2a4d1820000000")  # RFC 9842 §5: a skippable frame of 32 bytes


class Encoder(Protocol):
    """One body on its way into a coding."""

    def encode(self, data: bytes | memoryview) -> bytes:
        """What comes out as `data` goes in; often nothing."""

    def flush(self) -> bytes:
        """All that is needed to decode what went in so far; nothing where nothing did since."""

    def finish(self) -> bytes:
        """The rest. Nothing may go in after it."""


class BrotliEncoder:
    """Brotli (RFC 7932) at quality 0 to 11; `length` is the body's, if it is known."""

    __slots__ = ("_coder", "_is_flushed")

    def __init__(self, quality: int, length: int | None = None) -> None:
        window = _BROTLI_WINDOW_HIGH if quality >= _BROTLI_HIGH else _BROTLI_WINDOW_FAST
        if length is not None:
            window = min(max(_BROTLI_WINDOW_LEAST, length.bit_length() + 1), window)
        self._coder = brotli.Compressor(quality=quality, lgwin=window)
        self._is_flushed = True

    def encode(self, data: bytes | memoryview) -> bytes:
        """See `Encoder`."""
        if not data:
            return b""
        self._is_flushed = False
        return self._coder.process(data)

    def flush(self) -> bytes:
        """See `Encoder`."""
        if self._is_flushed:
            return b""
        self._is_flushed = True
        return self._coder.flush()

    def finish(self) -> bytes:
        """See `Encoder`."""
        return self._coder.finish()


class ZstdEncoder:
    """Zstandard (RFC 8878) at level 1 to 19; `length` is the body's, if it is known.

    The library makes its tables as large as the body needs only if it is told the length as a
    promise (at level 19 and 8 KiB: 2 ms instead of 60, and 80 MiB less). A broken one is a
    ValueError.

    With a `dictionary` the frame stands behind the header of dcz (RFC 9842 §5), which is given
    out with the first bytes.
    """

    __slots__ = ("_coder", "_head", "_is_flushed")

    def __init__(
        self, level: int, length: int | None = None, dictionary: Dictionary | None = None
    ) -> None:
        self._is_flushed = True
        self._head = b"" if dictionary is None else DCZ_MAGIC + dictionary.digest
        raw = None if dictionary is None else dictionary.digested
        # A level's own window is 2 MiB at 3 and 8 MiB at 19: RFC 9659's bound is never passed.
        self._coder = ZstdCompressor(level, zstd_dict=raw)
        if dictionary is not None:
            dictionary.is_indexed = True
        if length is not None:
            self._coder.set_pledged_input_size(length)

    def encode(self, data: bytes | memoryview) -> bytes:
        """See `Encoder`."""
        if not data:
            return b""
        self._is_flushed = False
        return self._coded(data, ZstdCompressor.CONTINUE)

    def flush(self) -> bytes:
        """See `Encoder`."""
        if self._is_flushed:
            return b""
        self._is_flushed = True
        return self._coded(b"", ZstdCompressor.FLUSH_BLOCK)

    def finish(self) -> bytes:
        """See `Encoder`."""
        return self._coded(b"", ZstdCompressor.FLUSH_FRAME)

    def _coded(self, data: bytes | memoryview, mode: Literal[0, 1, 2]) -> bytes:
        try:
            coded = self._coder.compress(data, mode)
        except ZstdError as cause:
            raise ValueError("a body of another length than was told") from cause
        if not coded or not self._head:
            return coded
        head, self._head = self._head, b""
        return head + coded


class GzipEncoder:
    """gzip (RFC 1952) at zlib's levels 1 to 9. No name, no time: equal bodies give equal bytes."""

    __slots__ = ("_coder", "_is_flushed")

    def __init__(self, level: int) -> None:
        self._is_flushed = True
        self._coder = _gzip_compressor(level)

    def encode(self, data: bytes | memoryview) -> bytes:
        """See `Encoder`."""
        if not data:
            return b""
        self._is_flushed = False
        return self._coder.compress(data)

    def flush(self) -> bytes:
        """See `Encoder`."""
        if self._is_flushed:
            return b""
        self._is_flushed = True
        return self._coder.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        """See `Encoder`."""
        return self._coder.flush(zlib.Z_FINISH)


class _GzipCompressor(Protocol):
    """What zlib, zlib-ng and isal all have."""

    def compress(self, data: bytes | memoryview, /) -> bytes: ...

    def flush(self, mode: int = ..., /) -> bytes: ...


def encoder(
    coding: Coding, level: int, length: int | None = None, dictionary: Dictionary | None = None
) -> Encoder:
    """An encoder of `coding` at `level` of its own scale, for a body of `length` bytes.

    None where that is not known; a wrong length is a ValueError later on, or costs size.

    dcz needs its `dictionary`, the others have none: ValueError. So it is for identity.
    """
    if (dictionary is not None) != (coding is Coding.DCZ):
        raise ValueError(f"{coding}: dcz needs a dictionary, and nothing else has one")
    match coding:
        case Coding.BR:
            return BrotliEncoder(level, length)
        case Coding.ZSTD | Coding.DCZ:
            return ZstdEncoder(level, length, dictionary)
        case Coding.GZIP:
            return GzipEncoder(level)
        case Coding.IDENTITY:
            raise ValueError("identity needs no encoder")
        case _:
            assert_never(coding)


def is_by_isal(level: int) -> bool:
    """Whether gzip at this level is made by isal, ten times as fast as zlib."""
    return level <= ISAL_LEVELS and _isal is not None


def _gzip_compressor(level: int) -> _GzipCompressor:
    library = _isal if is_by_isal(level) else _zlib_ng or zlib
    made: _GzipCompressor = library.compressobj(level, zlib.DEFLATED, _GZIP)
    return made
