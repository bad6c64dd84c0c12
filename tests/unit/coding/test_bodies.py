"""A body read in another coding: the same bytes, however they come, and an end only at the end."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.body import MemoryBody
from edge.cache.fill import Fill
from edge.cache.threads import Inline
from edge.coding.bodies import FIRST_BYTES, PROOF_BYTES, Decoded, Encoded
from edge.coding.coders import Coders
from edge.coding.decoders import Decoder
from edge.coding.negotiate import Coding
from edge.coding.policy import CompressPolicy
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from edge.cache.body import Body
    from edge.coding.bodies import Recoded

POLICY: Final = CompressPolicy()
CODED: Final = (Coding.BR, Coding.ZSTD, Coding.GZIP)


def encoded(
    body: Body,
    coding: Coding,
    expected: int | None = None,
    turns: trio.Semaphore | None = None,
) -> Encoded:
    coder = Coders(Inline(), Inline()).begin(coding, POLICY, expected)
    assert coder is not None
    return Encoded(body, expected, turns or trio.Semaphore(2), coder)


def decoded(data: bytes, expected: int | None = None) -> Decoded:
    return Decoded(MemoryBody(data), expected, trio.Semaphore(2), Decoder(Coding.GZIP))


async def all_of(body: Recoded, most: int = 100_000) -> bytes:
    found = b""
    while data := body.read_nowait(len(found), most) or await body.read(len(found), most):
        found += data
    assert body.given == len(found)
    return found


def plain(coding: Coding, data: bytes) -> bytes:
    decoder = Decoder(coding)
    found = b"".join(decoder.pieces(data))
    decoder.finish()
    return found


@pytest.mark.parametrize("coding", CODED)
async def test_a_large_body_begins_to_show_before_much_of_it_is_coded(coding: Coding) -> None:
    text = b"".join(b"<p>line %d</p>\n" % number for number in range(30_000))
    body = encoded(MemoryBody(text), coding, len(text))
    begun = bytes(await body.read(0, 100_000))
    assert body.taken == FIRST_BYTES
    assert b"".join(Decoder(coding).pieces(begun)) == text[:FIRST_BYTES]
    rest = b""
    while data := await body.read(len(begun) + len(rest), 100_000):
        rest += data
    assert plain(coding, begun + rest) == text


@given(
    coding=st.sampled_from(CODED),
    pieces=st.lists(st.binary(min_size=1, max_size=300).map(lambda piece: piece * 20)),
    most=st.integers(1, 5000),
)
def test_decoded_it_is_what_it_was(coding: Coding, pieces: list[bytes], most: int) -> None:
    async def go() -> None:
        fill = Fill(None, shared=True)
        reader = fill.reader()
        read = b""

        async def take() -> None:
            nonlocal read
            read = await all_of(encoded(reader, coding), most)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            for piece in pieces:
                await fill.write(piece)
                await trio.testing.wait_all_tasks_blocked()
            fill.finish()
        assert plain(coding, read) == b"".join(pieces)
        reader.close()

    trio.run(go)


async def test_what_has_come_can_be_read_before_more_does() -> None:
    for coding in CODED:
        fill = Fill(None, shared=True)
        reader = fill.reader()
        body, decoder, found = encoded(reader, coding), Decoder(coding), b""
        for word in (b"one", b"two", b"three"):
            await fill.write(word)
            found = b""
            while found != word:
                found += b"".join(decoder.pieces(await body.read(body.given, 10)))
        reader.close()


async def test_a_source_that_breaks_off_does_so_here() -> None:
    fill = Fill(None, shared=True)
    reader = fill.reader()
    await fill.write(b"x" * 1000)
    fill.fail(ExchangeError(Failure.BODY_TRUNCATED))
    with pytest.raises(ExchangeError) as caught:
        await all_of(encoded(reader, Coding.BR))
    assert caught.value.failure is Failure.BODY_TRUNCATED
    reader.close()


async def test_a_source_that_is_shorter_than_it_said_is_not_whole() -> None:
    for body in (encoded(MemoryBody(b"123"), Coding.BR, 4), decoded(gzip.compress(b"1"), 99)):
        with pytest.raises(ExchangeError) as caught:
            await all_of(body)
        assert caught.value.failure is Failure.BODY_TRUNCATED


@given(st.binary(max_size=2000).map(lambda data: data * 300), st.integers(1, 70_000))
def test_what_was_coded_comes_as_it_was(data: bytes, most: int) -> None:
    async def go() -> None:
        body = decoded(gzip.compress(data))
        await body.prove()
        assert await all_of(body, most) == data

    trio.run(go)


async def test_a_bomb_is_known_for_one_before_a_byte_is_given() -> None:
    body = decoded(gzip.compress(bytes(20 << 20)))
    with pytest.raises(ExchangeError) as caught:
        await body.prove()
    assert caught.value.failure is Failure.BAD_RESPONSE
    assert body.given == 0
    assert body.given_ahead < 8 * PROOF_BYTES


async def test_what_is_no_bomb_is_not_decoded_far_ahead() -> None:
    text = b"".join(b"%d," % number for number in range(2_000_000))
    body = decoded(gzip.compress(text))
    await body.prove()
    assert PROOF_BYTES <= body.given_ahead < 2 * PROOF_BYTES
    assert await all_of(body) == text


@given(
    data=st.lists(st.binary(min_size=1, max_size=50).map(lambda piece: piece * 20), max_size=9),
    coding=st.sampled_from((Coding.BR, Coding.ZSTD)),
    cut=st.integers(1, 400),
    most=st.integers(1, 5000),
)
def test_one_may_stand_before_another(
    data: list[bytes], coding: Coding, cut: int, most: int
) -> None:
    async def go() -> None:
        coded = gzip.compress(b"".join(data))
        fill = Fill(None, shared=True)
        reader = fill.reader()
        turns = trio.Semaphore(1)  # which is enough, as none is taken within another
        source = Decoded(reader, len(coded), turns, Decoder(Coding.GZIP))
        read = b""

        async def take() -> None:
            nonlocal read
            await source.prove()
            read = await all_of(encoded(source, coding, turns=turns), most)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            for start in range(0, len(coded), cut):
                await fill.write(coded[start : start + cut])
                await trio.testing.wait_all_tasks_blocked()
            fill.finish()
        assert plain(coding, read) == b"".join(data)
        reader.close()

    trio.run(go)


@pytest.mark.parametrize("coding", [Coding.BR, Coding.ZSTD])
async def test_what_is_at_hand_is_not_flushed_piece_by_piece(coding: Coding) -> None:
    text = b"".join(b"%d," % number for number in range(400_000))
    source = decoded(gzip.compress(text))
    await source.prove()
    found = await all_of(encoded(source, coding))
    assert found == await all_of(encoded(MemoryBody(text), coding))


async def test_what_is_decoded_wrongly_is_told_to_who_codes_it() -> None:
    with pytest.raises(ExchangeError) as caught:
        await all_of(encoded(decoded(gzip.compress(b"x" * 1000)[:-1]), Coding.BR))
    assert caught.value.failure is Failure.BAD_RESPONSE


async def test_a_slow_source_is_not_waited_for_to_prove_it() -> None:
    fill = Fill(None, shared=True)
    reader = fill.reader()
    coded = gzip.compress(b"a" * 5000 + b"b" * 5000)
    await fill.write(coded[:-10])
    body = Decoded(reader, None, trio.Semaphore(2), Decoder(Coding.GZIP))
    with trio.fail_after(1):
        await body.prove()
    assert body.given_ahead > 0
    reader.close()
