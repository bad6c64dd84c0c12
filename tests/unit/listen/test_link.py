"""A connection between two workers: frames in, frames out, and how it ends."""

from __future__ import annotations

import pytest
import trio

from edge.errors import ProtocolError
from edge.listen.link import Link
from edge.wire.frames import Later, Wanted, Welcome
from edge.wire.message import Chunk, End
from tests.stories.line import Line


def pair() -> tuple[Link, Link]:
    here, there = Line.pair()
    return Link(here), Link(there)


def reusable(link: Link) -> bool:
    return link.is_reusable


async def test_frames_arrive_in_order_and_together() -> None:
    one, other = pair()
    one.put(Welcome())
    await one.send(Later())
    assert other.at_hand() is None  # nothing was read yet
    assert await other.receive() == Welcome()
    assert other.at_hand() == Later()
    await one.flush()  # nothing to send
    assert other.at_hand() is None


async def test_the_end_and_a_break_are_both_no_more_frames() -> None:
    one, other = pair()
    await one.end()
    assert await other.receive() is None
    one, other = pair()
    one.abort()
    assert await other.receive() is None
    assert await one.receive() is None  # closed here, too


async def test_what_is_no_frame_is_an_error() -> None:
    here, there = Line.pair()
    await here.send_all(b"HTTP/1.1 400 Bad\r\n")
    with pytest.raises(ProtocolError):
        await Link(there).receive()


async def test_a_link_is_reusable_between_two_questions_only() -> None:
    one, other = pair()
    assert reusable(one)
    one.put(Wanted())
    assert not reusable(one)
    await one.flush()
    assert reusable(one)
    assert not reusable(other)  # something waits to be read
    assert await other.receive() == Wanted()
    await one.send(Chunk(b"abc"))
    assert await other.receive() == Chunk(b"abc")
    await one.end()
    assert not reusable(one)
    await other.wait_ended()
    assert not reusable(other)


async def test_a_link_with_half_a_frame_read_is_not_reusable() -> None:
    here, there = Line.pair()
    link = Link(there)
    await here.send_all(b"\0\0\0\5\3ab")
    assert await link.receive() == Chunk(b"ab")
    assert not link.is_reusable


async def test_sending_to_who_is_gone_says_so() -> None:
    one, other = pair()
    other.close()
    with pytest.raises(trio.BrokenResourceError):
        await one.send(End())
