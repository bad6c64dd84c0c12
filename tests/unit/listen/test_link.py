"""A connection between two workers: frames in, frames out, and how it ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from edge.errors import ProtocolError
from edge.listen.link import Link
from edge.wire.frames import Later, Wanted, Welcome
from edge.wire.message import Chunk, End
from tests.stories.line import Line

if TYPE_CHECKING:
    from pathlib import Path


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


async def test_a_descriptor_goes_with_its_frame_and_what_was_kept_back(tmp_path: Path) -> None:
    one, other = pair()
    file = os.open(tmp_path, os.O_RDONLY)
    one.put(Wanted())
    assert await one.lend(Later(), file)
    assert reusable(one)
    assert [await other.receive() for _ in range(2)] == [Wanted(), Later()]
    taken = other.take_descriptor()
    assert taken is not None
    assert os.path.samestat(os.fstat(taken), os.fstat(file))
    assert other.take_descriptor() is None
    os.close(taken)
    os.close(file)


async def test_where_none_can_be_passed_nothing_is_sent_and_nothing_lost() -> None:
    class Refusing(Line):
        async def send_passing(self, *_: object) -> bool:
            return False

    class Unable:
        """A transport that knows of none."""

        def __init__(self, line: Line) -> None:
            self.send_parts = line.send_parts

    for unable in (Unable, lambda line: Refusing(line._in, line._out, b"")):
        here, there = Line.pair()
        link, other = Link(cast("Any", unable(here))), Link(there)
        link.put(Wanted())
        assert not await link.lend(Later(), 0)
        await link.flush()
        assert await other.receive() == Wanted()
        assert other.at_hand() is None
        assert link.take_descriptor() is None


async def test_it_is_known_whether_this_side_has_ended() -> None:
    one, _ = pair()
    assert not one.has_ended
    await one.end()
    assert one.has_ended
