"""Zstandard as the standard library has it from 3.14 on, or its backport."""

from __future__ import annotations

import sys
from typing import Final

if sys.version_info >= (3, 14):  # pragma: no cover - one of the two, by the interpreter
    from compression.zstd import (
        CompressionParameter,
        DecompressionParameter,
        ZstdCompressor,
        ZstdDecompressor,
        ZstdDict,
        ZstdError,
    )
else:  # pragma: no cover
    from backports.zstd import (
        CompressionParameter,
        DecompressionParameter,
        ZstdCompressor,
        ZstdDecompressor,
        ZstdDict,
        ZstdError,
    )

__all__ = [
    "WINDOW_LOG_MOST",
    "CompressionParameter",
    "DecompressionParameter",
    "ZstdCompressor",
    "ZstdDecompressor",
    "ZstdDict",
    "ZstdError",
]

WINDOW_LOG_MOST: Final = 23  # RFC 9659: 8 MiB, the most that a client of the coding must have
