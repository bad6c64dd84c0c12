"""What two workers say to each other: any cut gives the same frames, and no other bytes do."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import Failure, ProtocolError
from edge.wire.frames import (
    MOST_BYTES,
    Answered,
    Ask,
    Broken,
    Copy,
    Facts,
    Frame,
    FrameReader,
    Glance,
    Invalidate,
    Later,
    Lent,
    Wanted,
    Welcome,
    Whole,
    ask,
    written,
)
from edge.wire.message import Chunk, End, Headers, RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Iterable

PAIRS = ((b"host", b"a"), (b"x", b"\xff"), (b"x", b""))
HEAD = ResponseHead(404, Headers(PAIRS), b"Nope", b"1.0")
FACTS = Facts("hit", "hit", -3, "main", 0.5, "client-left", 200)
LENT = Lent(3, 900, "bodies/00/x", 1000, b"\0\1\2\3", (1, 1000, 1, 1 << 62, 5), 0.25)
FRAMES: list[Frame] = [
    Welcome(),
    Ask("id-1", b"::1", b"GET", b"https", b"a", b"/?x", b"1.0", PAIRS, True, 5),
    Glance(b"::1", b"GET / HTTP/1.1\r\n\r\n"),
    ResponseHead(103, Headers(PAIRS)),
    Answered(HEAD, FACTS, Copy(b"form", 1 << 63)),
    Answered(HEAD, Facts()),
    Whole(FACTS, b"HTTP/1.1 200 OK\r\n\r\n", 9, 4, Copy(b"form", 0)),
    Whole(FACTS, b"HTTP/1.1 200 OK\r\n\r\n", 897, 897, None, LENT),
    Glance(b"::1", b"GET / HTTP/1.1\r\n\r\n", True),
    LENT,
    Later(),
    Chunk(b"body"),
    Chunk(b"x" * 1000),
    End(),
    Broken(FACTS),
    Wanted(),
    Invalidate(bytes(16), b"http://a/"),
]


def joined(frames: Iterable[Frame]) -> bytes:
    return b"".join(part for frame in frames for part in written(frame))


def read(pieces: Iterable[bytes]) -> list[Frame]:
    """All frames, with the pieces of a chunk put together where nothing is between."""
    reader, frames = FrameReader(), list[Frame]()
    for piece in pieces:
        reader.receive(piece)
        while (frame := reader.next()) is not None:
            if isinstance(frame, Chunk):
                frame = Chunk(bytes(frame.data))
            frames.append(frame)
    assert reader.is_between
    return frames


def body(frames: Iterable[Frame]) -> list[Frame | bytes]:
    """The same with the data of neighbouring chunks joined: how a body is cut means nothing."""
    out: list[Frame | bytes] = []
    for frame in frames:
        if not isinstance(frame, Chunk):
            out.append(frame)
        elif out and isinstance(out[-1], bytes):
            out[-1] += bytes(frame.data)
        else:
            out.append(bytes(frame.data))
    return out


@given(
    frames=st.lists(st.sampled_from(FRAMES), max_size=6),
    cuts=st.lists(st.integers(1, 40), min_size=1),
)
def test_any_cut_gives_the_frames_that_were_written(frames: list[Frame], cuts: list[int]) -> None:
    data, pieces, at = joined(frames), list[bytes](), 0
    while at < len(data):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(data[at : at + size])
        at += size
    assert body(read(pieces)) == body(frames)
    assert read([data] if data else []) == frames


def test_a_chunk_is_neither_copied_to_be_written_nor_waited_for_to_be_read() -> None:
    data = memoryview(bytes(100))
    prefix, sent = written(Chunk(data))
    assert sent is data
    reader = FrameReader()
    reader.receive(bytes(prefix) + bytes(60))
    assert reader.next() == Chunk(memoryview(bytes(60)))
    assert reader.next() is None
    assert not reader.is_between
    whole = bytes(40)
    reader.receive(whole)
    piece = reader.next()
    assert isinstance(piece, Chunk)
    assert piece.data is whole


def test_a_question_is_the_head_that_it_relays() -> None:
    head = RequestHead(b"POST", b"https", b"a:1", b"/x", Headers(PAIRS), b"1.0")
    question = ask(head, b"192.0.2.1", "id-7", has_body=True, length=None)
    assert question.head == head
    assert (question.id, question.peer, question.has_body) == ("id-7", b"192.0.2.1", True)
    assert question.drawn == ()


def test_a_question_tells_which_arms_were_drawn_for_the_visitor() -> None:
    head = RequestHead(b"GET", b"http", b"a", b"/")
    arms = ((b"checkout", b"new"), (b"search", b"old"))
    question = ask(head, b"192.0.2.1", "id-7", has_body=False, length=None, drawn=arms)
    reader = FrameReader()
    reader.receive(b"".join(map(bytes, written(question))))
    read = reader.next()
    assert read == question
    assert isinstance(read, Ask)
    assert read.drawn == arms


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">IB", MOST_BYTES + 1, 6),
        struct.pack(">IB", 0, 3),  # an empty chunk
        struct.pack(">IB", 0, 99),
        struct.pack(">IB", 1, 4) + b"x",  # an end with something in it
        struct.pack(">IB", 1, 6) + b"\xc1",
        struct.pack(">IB", 3, 6) + b"\x92\xa1x",
        struct.pack(">IB", 2000, 6) + b"\x91" * 2000,
    ],
)
def test_bytes_that_are_no_frame_raise_one_kind_of_error(data: bytes) -> None:
    reader = FrameReader()
    reader.receive(data)
    with pytest.raises(ProtocolError) as caught:
        reader.next()
    assert caught.value.failure is Failure.OWNER_GONE


@given(data=st.binary(max_size=60))
def test_no_bytes_raise_another_error(data: bytes) -> None:
    reader = FrameReader()
    reader.receive(data)
    try:
        while reader.next() is not None:
            pass
    except ProtocolError:
        pass
