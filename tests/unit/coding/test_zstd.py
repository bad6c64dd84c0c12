"""The library has what the coders stand on, whichever of the two it is."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

from edge.coding import zstd


def test_the_standard_librarys_is_taken_where_there_is_one() -> None:
    home = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    assert zstd.ZstdDict is import_module(home).ZstdDict


def test_a_window_beyond_the_bound_is_refused() -> None:
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {parameter.window_log: zstd.WINDOW_LOG_MOST + 1}
    coder = zstd.ZstdCompressor(options=options)
    frame = coder.compress(b"x" * 100) + coder.flush(zstd.ZstdCompressor.FLUSH_BLOCK)
    most: dict[int, int] = {zstd.DecompressionParameter.window_log_max: zstd.WINDOW_LOG_MOST}
    with pytest.raises(zstd.ZstdError):
        zstd.ZstdDecompressor(options=most).decompress(frame)


def test_a_raw_dictionary_is_one_without_an_id() -> None:
    assert zstd.ZstdDict(b"any bytes at all", is_raw=True).dict_id == 0
