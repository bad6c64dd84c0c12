"""What was coded comes back; what is broken, or a bomb, is refused while memory stays flat."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.coding.decoders import MOST_PARTS, PIECE_BYTES, Bounds, Decoder
from edge.coding.encoders import encoder
from edge.coding.negotiate import CODED, Coding
from edge.coding.zstd import CompressionParameter, ZstdCompressor
from edge.errors import ExchangeError, Failure
from tests.unit.coding.texts import TEXT, Piece, cuts

MIB = 1024 * 1024
BOUNDS = Bounds(most_bytes=64 * MIB, ratio=200, free_bytes=MIB)
LARGEST_PIECE = 2 * PIECE_BYTES  # brotli goes by its blocks

codings = st.sampled_from(sorted(CODED))


def coded(coding: Coding, body: bytes, level: int = 5) -> bytes:
    coder = encoder(coding, level)
    return coder.encode(body) + coder.finish()


def decoded(coding: Coding, data: bytes, size: int = 1 << 30, bounds: Bounds = BOUNDS) -> bytes:
    decoder = Decoder(coding, bounds)
    out = []
    for start in range(0, len(data), size):
        for piece in decoder.pieces(data[start : start + size]):
            assert len(piece) <= LARGEST_PIECE
            out.append(piece)
    decoder.finish()
    assert decoder.taken_bytes == len(data)
    assert decoder.given_bytes == sum(map(len, out))
    return b"".join(out)


def fault(coding: Coding, data: bytes, size: int) -> Failure | None:
    try:
        decoded(coding, data, size)
    except ExchangeError as error:
        return error.failure
    return None


def refusal(coding: Coding, data: bytes, size: int = 1 << 30, bounds: Bounds = BOUNDS) -> str:
    with pytest.raises(ExchangeError) as caught:
        decoded(coding, data, size, bounds)
    assert caught.value.failure is Failure.BAD_RESPONSE
    return caught.value.detail


@settings(deadline=None)
@given(coding=codings, level=st.integers(1, 9), body=cuts, size=st.integers(1, 5000))
def test_any_cut_of_what_was_coded_gives_it_back(
    coding: Coding, level: int, body: list[Piece], size: int
) -> None:
    coder = encoder(coding, level)
    out = []
    for piece in body:
        out.append(coder.encode(piece.data))
        if piece.is_flushed:
            out.append(coder.flush())
    out.append(coder.finish())
    assert decoded(coding, b"".join(out), size) == b"".join(piece.data for piece in body)


@pytest.mark.parametrize("coding", sorted(CODED))
def test_a_large_body_comes_in_pieces(coding: Coding) -> None:
    assert decoded(coding, coded(coding, TEXT * 3)) == TEXT * 3


@pytest.mark.parametrize("coding", sorted(CODED))
def test_what_was_flushed_is_given_at_once(coding: Coding) -> None:
    coder, decoder = encoder(coding, 5), Decoder(coding)
    first = coder.encode(TEXT[:5000]) + coder.flush()
    assert b"".join(decoder.pieces(memoryview(first))) == TEXT[:5000]


@settings(deadline=None)
@given(coding=codings, junk=st.binary(max_size=300), size=st.integers(1, 400))
def test_junk_is_a_bad_response_and_nothing_else(coding: Coding, junk: bytes, size: int) -> None:
    assert fault(coding, junk, size) in (None, Failure.BAD_RESPONSE)


@settings(deadline=None)
@given(coding=codings, at=st.integers(0, 2000), byte=st.integers(0, 255), data=st.data())
def test_a_flipped_byte_is_a_bad_response_or_decodes(
    coding: Coding, at: int, byte: int, data: st.DataObject
) -> None:
    good = bytearray(coded(coding, TEXT[:8000]))
    good[at % len(good)] = byte
    found = fault(coding, bytes(good), data.draw(st.integers(1, 3000)))
    assert found in (None, Failure.BAD_RESPONSE)


@pytest.mark.parametrize("coding", sorted(CODED))
def test_a_body_that_breaks_off_is_refused(coding: Coding) -> None:
    whole = coded(coding, TEXT[:5000])
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        assert "breaks off" in refusal(coding, whole[:length])


@pytest.mark.parametrize("coding", sorted(CODED))
def test_junk_behind_the_end_is_refused(coding: Coding) -> None:
    for size in (1, 1 << 20):
        assert refusal(coding, coded(coding, TEXT[:5000]) + b"junk that is no part", size)


@pytest.mark.parametrize("size", [1, 3, 4096, 1 << 20])
def test_members_and_frames_are_one_body(size: int) -> None:
    parts = [TEXT[:3000], b"", TEXT[3000:9000]]
    for coding in (Coding.GZIP, Coding.ZSTD):
        together = b"".join(coded(coding, part) for part in parts)
        assert decoded(coding, together, size) == TEXT[:9000]


def test_a_skippable_frame_is_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"  # RFC 8878 §3.1.2
    assert decoded(Coding.ZSTD, skippable + coded(Coding.ZSTD, b"told")) == b"told"


@pytest.mark.parametrize("coding", [Coding.GZIP, Coding.ZSTD])
def test_parts_are_counted(coding: Coding) -> None:
    empty = coded(coding, b"")
    assert decoded(coding, empty * MOST_PARTS) == b""
    assert "parts" in refusal(coding, empty * (MOST_PARTS + 1))


def test_brotli_has_one_part() -> None:
    one = coded(Coding.BR, b"one")
    for size in (len(one), 1 << 20):
        assert refusal(Coding.BR, one * 2, size)


def bomb(coding: Coding, size: int) -> bytes:
    """`size` zero bytes, as small as they get."""
    match coding:
        case Coding.BR:
            return brotli.compress(bytes(size), quality=5)
        case Coding.GZIP:
            return gzip.compress(bytes(size), 9)
        case _:
            coder = ZstdCompressor(options={CompressionParameter.compression_level: 5})
            return coder.compress(bytes(size)) + coder.flush()


@pytest.mark.parametrize("coding", sorted(CODED))
@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_a_bomb_is_refused_and_memory_stays_flat(coding: Coding, size: int) -> None:
    data = bomb(coding, 48 * MIB)
    decoder = Decoder(coding, BOUNDS)
    tracemalloc.start()
    try:
        with pytest.raises(ExchangeError, match="200 times") as caught:
            for start in range(0, len(data), size):
                for piece in decoder.pieces(data[start : start + size]):
                    assert len(piece) <= LARGEST_PIECE
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.failure is Failure.BAD_RESPONSE
    assert most < MIB
    allowed = max(BOUNDS.free_bytes, BOUNDS.ratio * decoder.taken_bytes)
    assert decoder.given_bytes <= allowed + LARGEST_PIECE


@pytest.mark.parametrize("coding", sorted(CODED))
def test_nothing_is_decoded_ahead(coding: Coding) -> None:
    decoder = Decoder(coding, Bounds())
    pieces = decoder.pieces(bomb(coding, 48 * MIB))
    next(pieces)
    assert decoder.given_bytes <= LARGEST_PIECE


@pytest.mark.parametrize("coding", [Coding.ZSTD, Coding.GZIP])
def test_parts_without_content_are_a_step_each(coding: Coding) -> None:
    decoder = Decoder(coding, Bounds())
    pieces = decoder.pieces(coded(coding, b"") * 100)
    assert list(pieces) == [b""] * 100


def test_all_that_can_be_had_of_a_piece_is_given_at_once() -> None:
    # zlib may have used up its input and still hold output back, where a limit stopped it
    data = gzip.compress(bytes(MIB), 9)
    for length in range(20, len(data) - 8):
        decoder = Decoder(Coding.GZIP, Bounds())
        given = sum(map(len, decoder.pieces(data[:length])))
        assert given == len(zlib.decompressobj(31).decompress(data[:length]))


@pytest.mark.parametrize("coding", sorted(CODED))
def test_no_body_is_larger_than_the_bound(coding: Coding) -> None:
    bounds = Bounds(most_bytes=100_000, ratio=10**9)
    assert decoded(coding, coded(coding, TEXT[:100_000]), bounds=bounds) == TEXT[:100_000]
    assert "100000 bytes" in refusal(coding, coded(coding, TEXT[:100_001]), bounds=bounds)


def test_a_small_body_may_shrink_as_it_likes() -> None:
    for coding in CODED:
        assert decoded(coding, bomb(coding, MIB)) == bytes(MIB)


def test_a_zstd_window_beyond_8_mib_is_refused() -> None:
    parameter = CompressionParameter
    coder = ZstdCompressor(options={parameter.window_log: 24, parameter.compression_level: 3})
    assert "breaks off" not in refusal(Coding.ZSTD, coder.compress(TEXT) + coder.flush())


def test_what_has_no_decoder_is_refused() -> None:
    for coding in (Coding.IDENTITY, Coding.DCZ):
        with pytest.raises(ValueError, match="not decoded"):
            Decoder(coding)


def test_gzip_is_not_deflate() -> None:
    assert refusal(Coding.GZIP, zlib.compress(TEXT[:1000]))
