"""What went in comes out, however it is cut and flushed; what was flushed can be read at once."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.coding import encoders
from edge.coding.dictionary import Dictionary, Offer, url_match
from edge.coding.encoders import DCZ_MAGIC, Encoder, encoder
from edge.coding.negotiate import Coding
from edge.coding.zstd import WINDOW_LOG_MOST, ZstdDecompressor, ZstdDict
from tests.unit.coding.texts import TEXT, cuts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.unit.coding.texts import Piece

MATCH = url_match(b"/*", b"/")
assert MATCH is not None
DICTIONARY = Dictionary(TEXT[:50_000], Offer(MATCH))
LEVELS = {
    Coding.BR: range(12), Coding.ZSTD: range(1, 20), Coding.GZIP: range(1, 10),
    Coding.DCZ: range(1, 20),
}  # fmt: skip

efforts = st.sampled_from(
    [(coding, level) for coding, levels in LEVELS.items() for level in levels]
)


class Reader:
    """Decodes what has come so far, by the libraries' own decoders."""

    def __init__(self, coding: Coding) -> None:
        self._coding = coding
        self._head = b""
        self._gzip = zlib.decompressobj(31)
        self._brotli = brotli.Decompressor()
        raw = ZstdDict(DICTIONARY.content, is_raw=True) if coding is Coding.DCZ else None
        self._zstd = ZstdDecompressor(zstd_dict=raw)

    def read(self, data: bytes) -> bytes:
        match self._coding:
            case Coding.GZIP:
                return self._gzip.decompress(data)
            case Coding.BR:
                return self._brotli.process(data) if data else b""
            case Coding.DCZ:
                missing = 40 - len(self._head)
                self._head += data[:missing]
                data = data[missing:] if missing else data
        return self._zstd.decompress(data) if data else b""

    @property
    def is_ended(self) -> bool:
        match self._coding:
            case Coding.GZIP:
                return self._gzip.eof and not self._gzip.unused_data
            case Coding.BR:
                return self._brotli.is_finished()
            case _:
                return self._zstd.eof and not self._zstd.unused_data


def made(coding: Coding, level: int, length: int | None) -> Encoder:
    return encoder(coding, level, length, DICTIONARY if coding is Coding.DCZ else None)


def whole(coder: Encoder, pieces: Iterable[bytes]) -> bytes:
    return b"".join([*(coder.encode(piece) for piece in pieces), coder.finish()])


@settings(deadline=None)
@given(effort=efforts, body=cuts, is_length_known=st.booleans())
def test_any_cut_and_any_flushing_gives_the_body_back(
    effort: tuple[Coding, int], body: list[Piece], is_length_known: bool
) -> None:
    coding, level = effort
    length = sum(len(piece.data) for piece in body) if is_length_known else None
    coder, reader = made(coding, level, length), Reader(coding)
    sent = read = b""
    for piece in body:
        read += reader.read(coder.encode(piece.data))
        sent += piece.data
        assert sent.startswith(read)
        if piece.is_flushed:
            read += reader.read(coder.flush())
            assert read == sent  # all that went in can be read
            assert coder.flush() == b""  # nothing new, nothing sent
    read += reader.read(coder.finish())
    assert read == sent
    assert reader.is_ended


@settings(deadline=None)
@given(effort=efforts, wrong=st.integers(0, 100))
def test_a_wrong_length_costs_size_or_is_refused(effort: tuple[Coding, int], wrong: int) -> None:
    try:
        coded = whole(made(*effort, wrong), [TEXT[:50]])
    except ValueError:
        assert effort[0] in (Coding.ZSTD, Coding.DCZ)
        assert wrong != 50
    else:
        assert Reader(effort[0]).read(coded) == TEXT[:50]


@pytest.mark.parametrize("coding", LEVELS)
def test_views_are_taken_as_bytes_are(coding: Coding) -> None:
    coder = made(coding, 5, None)
    coded = coder.encode(memoryview(TEXT)[100:40_000]) + coder.finish()
    assert Reader(coding).read(coded) == TEXT[100:40_000]


@pytest.mark.parametrize("coding", LEVELS)
def test_equal_bodies_give_equal_bytes(coding: Coding) -> None:
    first, second = (whole(made(coding, 9, 40_000), [TEXT[:40_000]]) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("coding", LEVELS)
def test_more_effort_is_smaller(coding: Coding) -> None:
    body = [TEXT[60_000:160_000]]
    least, most = LEVELS[coding][1], LEVELS[coding][-1]
    low, high = (len(whole(made(coding, level, 100_000), body)) for level in (least, most))
    assert high < low < 100_000 // 2


def test_gzip_is_a_plain_member_without_name_or_time() -> None:
    for level in range(1, 10):
        coded = whole(encoder(Coding.GZIP, level), [TEXT[:1000]])
        assert coded[:4] == b"\x1f\x8b\x08\x00"  # RFC 1952 §2.3: deflate, no flags
        assert coded[4:8] == bytes(4)
        assert gzip.decompress(coded) == TEXT[:1000]


@pytest.mark.parametrize("missing", [("_isal",), ("_zlib_ng",), ("_isal", "_zlib_ng")])
def test_gzip_needs_no_accelerator(
    missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        monkeypatch.setattr(encoders, name, None)
    for level in (1, 3, 4, 9):
        coded = whole(encoder(Coding.GZIP, level), [TEXT[:9000]])
        assert gzip.decompress(coded) == TEXT[:9000]
    assert encoders.is_by_isal(2) is ("_isal" not in missing)


def test_isal_is_for_low_levels_only() -> None:
    assert not encoders.is_by_isal(4)


def test_what_is_not_installed_is_none() -> None:
    assert encoders._optional("edge.no_such_module") is None


def window_of(frame: bytes) -> int:
    """What a decoder of a Zstandard frame must hold, in bytes (RFC 8878 §3.1.1.1)."""
    assert frame[:4] == b"\x28\xb5\x2f\xfd"
    descriptor = frame[4]
    if descriptor & 0x20:  # a single segment: its window is its content
        size = 1 << (descriptor >> 6)
        return int.from_bytes(frame[5 : 5 + size], "little") + (256 if size == 2 else 0)
    base = 1 << (10 + (frame[5] >> 3))
    return base + (base >> 3) * (frame[5] & 7)


@pytest.mark.parametrize("level", [1, 3, 9, 19])
@pytest.mark.parametrize("length", [None, 100, 50_000, 3_000_000, 100_000_000])
def test_a_zstd_window_is_no_larger_than_clients_must_have(level: int, length: int | None) -> None:
    coder = encoder(Coding.ZSTD, level, length)
    started = coder.encode(TEXT[:100]) + coder.flush()
    assert window_of(started) <= 1 << WINDOW_LOG_MOST  # RFC 9659
    if length is not None:
        assert window_of(started) <= max(1024, length)


@pytest.mark.parametrize("length", [None, 20_000])
@pytest.mark.parametrize("level", [3, 19])
def test_dcz_is_laid_out_as_rfc_9842_has_it(level: int, length: int | None) -> None:
    body = TEXT[10_000:30_000]
    coder = encoder(Coding.DCZ, level, length, DICTIONARY)
    first = coder.encode(body) + coder.flush()
    coded = first + coder.finish()

    assert coded[:8] == DCZ_MAGIC == b"\x5e\x2a\x4d\x18\x20\x00\x00\x00"
    assert int.from_bytes(coded[:4], "little") == 0x184D2A5E  # RFC 8878 §3.1.2: skippable
    assert int.from_bytes(coded[4:8], "little") == 32
    assert coded[8:40] == DICTIONARY.digest
    assert window_of(coded[40:]) <= 1 << WINDOW_LOG_MOST  # §5: 8 MiB, or 1.25 of the dictionary
    assert not coded[44] & 0x03  # no dictionary id: raw content has none
    frames = ZstdDecompressor(zstd_dict=ZstdDict(DICTIONARY.content, is_raw=True))
    assert frames.decompress(coded[40:]) == body
    skipping = ZstdDecompressor()
    assert skipping.decompress(coded[:40]) == b""  # a decoder that knows no dcz skips the header
    assert skipping.eof


def test_the_header_of_dcz_goes_out_once_even_for_nothing() -> None:
    coder = encoder(Coding.DCZ, 3, None, DICTIONARY)
    assert coder.encode(b"") == coder.flush() == b""
    ended = coder.finish()
    assert ended[:40] == DCZ_MAGIC + DICTIONARY.digest
    assert ended.count(DICTIONARY.digest) == 1


def test_a_changed_page_is_a_tenth_of_its_brotli() -> None:
    old = DICTIONARY.content
    new = old[:20_000] + b"<p>a new paragraph</p>" + old[20_050:]
    by_dictionary = whole(encoder(Coding.DCZ, 3, len(new), DICTIONARY), [new])
    assert len(by_dictionary) * 10 <= len(whole(encoder(Coding.BR, 11, len(new)), [new]))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: encoder(Coding.IDENTITY, 1),
        lambda: encoder(Coding.DCZ, 3),
        lambda: encoder(Coding.ZSTD, 3, None, DICTIONARY),
    ],
)
def test_what_has_no_encoder_is_refused(wrong: Callable[[], Encoder]) -> None:
    with pytest.raises(ValueError, match=r"identity|dcz"):
        wrong()
