"""Lines in memory keep the promises that sockets keep."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.upstream.transport import SocketTransport, Transport
from tests.stories.line import Line

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[], tuple[Transport, Transport]]


def sockets() -> tuple[Transport, Transport]:
    one, two = socket.socketpair()
    return SocketTransport(one, peer=b"192.0.2.2"), SocketTransport(two, peer=b"192.0.2.1")


BOTH = pytest.mark.parametrize("make", [sockets, Line.pair])


@BOTH
async def test_what_one_end_sends_the_other_receives_until_the_end(make: Make) -> None:
    here, there = make()
    assert there.receive_nowait(10) is None
    assert not there.readable_now()
    await here.send_parts([b"ab", memoryview(b"cd"), b""])
    await here.send_eof()
    assert there.readable_now()
    assert await there.receive_some(3) == b"abc"
    assert await there.receive_some() == b"d"
    assert await there.receive_some() == b""
    assert there.receive_nowait(1) == b""
    await there.send_all(b"back")
    assert await here.receive_some() == b"back"
    here.close()
    there.close()


@BOTH
async def test_a_reader_who_does_not_read_stops_the_writer(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    here, there = make()
    with pytest.raises(trio.TooSlowError):
        await here.send_all(bytes(1 << 22), stall_s=5)
    here.close()
    there.close()


@BOTH
async def test_closing_with_unread_bytes_resets(make: Make) -> None:
    here, there = make()
    await here.send_all(b"unread")
    await there.send_all(b"lost?")
    there.close()
    with pytest.raises(trio.BrokenResourceError):
        while await here.receive_some():
            pass
    here.close()


@BOTH
async def test_a_closed_end_says_so_also_to_those_who_wait_in_it(make: Make) -> None:
    here, there = make()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await here.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        here.close()
    here.close()
    with pytest.raises(trio.ClosedResourceError):
        await here.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await there.send_all(b"x")
    there.close()


async def test_an_abort_reaches_the_other_side_as_an_error() -> None:
    here, there = Line.pair()
    await here.send_all(b"part")
    here.abort()
    with pytest.raises(trio.BrokenResourceError):
        await there.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await there.send_eof()
    there.close()
