"""Gathered bodies: whole where they are small, in order whatever holds them, bounded in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import edge.serving.gathering as subject
from edge.cache.body import SpoolFull
from edge.errors import ExchangeError, Failure
from edge.serving.gathering import GATHER_S, MEMORY_BYTES, GatheredBody
from edge.wire.message import Chunk, End

if TYPE_CHECKING:
    from trio.testing import MockClock

PIECE = 16 * 1024


class Client:
    """A request's body, in pieces; `error` in place of its end."""

    def __init__(
        self, pieces: list[bytes], *, told: bool, error: ExchangeError | None = None
    ) -> None:
        self.pieces = list(pieces)
        self.length = sum(map(len, pieces)) if told else None
        self.asked = 0
        self._error = error

    async def receive(self) -> Chunk | End:
        self.asked += 1
        if self.pieces:
            return Chunk(self.pieces.pop(0))
        if self._error is not None:
            raise self._error
        return End()


class File:
    """A spool in memory that takes `room` bytes."""

    def __init__(self, room: int) -> None:
        self.data = bytearray()
        self.room = room
        self.closed = False

    async def write(self, data: bytes) -> None:
        if len(self.data) + len(data) > self.room:
            raise SpoolFull
        self.data += data

    def read_nowait(self, offset: int, most: int) -> bytes | None:
        return bytes(self.data[offset : offset + most])

    async def read(self, offset: int, most: int) -> bytes:
        return bytes(self.data[offset : offset + most])

    def reset(self) -> None:
        self.data.clear()

    def close(self) -> None:
        self.closed = True


def pieces_of(size: int) -> list[bytes]:
    return [bytes([index % 251]) * PIECE for index in range(size // PIECE)]


async def all_of(body: GatheredBody) -> bytes:
    out = bytearray()
    while isinstance(message := await body.receive(), Chunk):
        out += message.data
    return bytes(out)


async def test_a_small_body_is_whole_before_the_origin_is_asked() -> None:
    body = GatheredBody(Client([b"name=", b"value"], told=False), None)
    await body.gather()
    assert body.is_whole
    assert await all_of(body) == b"name=value"


async def test_a_body_of_known_length_waits_on_disk_beyond_what_memory_may_hold() -> None:
    file = File(1 << 20)
    pieces = pieces_of(512 * 1024)
    body = GatheredBody(Client(pieces, told=True), lambda: file)
    await body.gather()
    assert body.is_whole
    assert len(file.data) == 512 * 1024 - MEMORY_BYTES
    assert await all_of(body) == b"".join(pieces)
    body.close()
    assert file.closed


async def test_a_body_of_unknown_length_flows_when_its_beginning_is_here() -> None:
    client = Client(pieces_of(512 * 1024), told=False)
    body = GatheredBody(client, lambda: File(1 << 20))
    await body.gather()
    assert not body.is_whole
    assert client.asked == MEMORY_BYTES // PIECE


async def test_a_large_body_flows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "WHOLE_BYTES", 256 * 1024)
    client = Client(pieces_of(512 * 1024), told=True)
    body = GatheredBody(client, lambda: File(1 << 20))
    await body.gather()
    assert not body.is_whole
    assert client.asked == MEMORY_BYTES // PIECE


async def test_a_body_that_does_not_come_flows_when_there_is_no_more_patience(
    autojump_clock: MockClock,
) -> None:
    class Silent(Client):
        async def receive(self) -> Chunk | End:
            if not self.pieces:
                await trio.sleep_forever()
            return await super().receive()

    body = GatheredBody(Silent([b"begin"], told=False), None)
    await body.gather()
    assert not body.is_whole
    assert trio.current_time() == GATHER_S
    assert await body.receive() == Chunk(b"begin")


async def test_a_body_that_breaks_off_while_it_is_gathered_says_why() -> None:
    client = Client([b"x"], told=False, error=ExchangeError(Failure.BODY_TIMEOUT))
    with pytest.raises(ExchangeError) as raised:
        await GatheredBody(client, None).gather()
    assert raised.value.failure is Failure.BODY_TIMEOUT


@given(
    sizes=st.lists(st.integers(1, 40_000), max_size=20),
    told=st.booleans(),
    room=st.integers(0, 300_000),
    has_disk=st.booleans(),
)
async def test_every_byte_arrives_once_and_in_order(
    sizes: list[int], *, told: bool, room: int, has_disk: bool
) -> None:
    pieces = [bytes([index % 251]) * size for index, size in enumerate(sizes)]
    body = GatheredBody(Client(pieces, told=told), (lambda: File(room)) if has_disk else None)
    await body.gather()
    assert await all_of(body) == b"".join(pieces)
