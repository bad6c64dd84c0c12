"""The owner's side of the hop: what is relayed, glanced at and invalidated on a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.errors import ExchangeError, Failure
from edge.listen.hop import HopConnection, HopStream
from edge.listen.link import Link
from edge.upstream.transport import FileSpan
from edge.wire.frames import (
    Answered,
    Ask,
    Broken,
    Copy,
    Facts,
    Glance,
    Invalidate,
    Later,
    Wanted,
    Welcome,
    Whole,
)
from edge.wire.message import Chunk, End, Headers, RequestHead, Reset, ResponseHead
from tests.stories.line import Line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from edge.upstream.transport import Data

ASK = Ask("id-1", b"192.0.2.7", b"GET", b"http", b"a", b"/", b"1.1", ())
POST = Ask("id-2", b"192.0.2.7", b"POST", b"http", b"a", b"/", b"1.1", (), True, 3)
OK = ResponseHead(200, Headers([(b"content-length", b"4")]))
FACTS = Facts("hit", "hit", 5, None, None, None, 200)
COPY = Copy(b"form", 7)


class Desk:
    """Has an answer at once to `b"quick"`, and a long one to `b"long"`."""

    def __init__(self) -> None:
        self.invalidated: list[bytes] = []

    def answer_glance(self, glance: Glance) -> tuple[Whole, Sequence[Data]] | None:
        assert glance.peer == b"192.0.2.7"
        if glance.data == b"quick":
            return Whole(FACTS, b"answer", 3), ()
        return (Whole(FACTS, b"head", 5, 5), (b"abc", b"de")) if glance.data == b"long" else None

    async def invalidate(self, told: Invalidate) -> None:
        self.invalidated.append(told.url)


class Owner:
    """One hop connection, as the other worker holds it."""

    def __init__(
        self, handle: Callable[[HopStream, RequestHead], Awaitable[None]] | None = None
    ) -> None:
        here, there = Line.pair()
        self.link = Link(here)
        self.desk = Desk()
        self.connection = HopConnection(there, handle or answer, self.desk)

    async def __aenter__(self) -> Owner:
        self._manager = trio.open_nursery()
        self.nursery = await self._manager.__aenter__()
        self.nursery.start_soon(self.connection.run)
        assert await self.link.receive() == Welcome()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)


async def answer(stream: HopStream, head: RequestHead) -> None:
    stream.tell, stream.copy = lambda: FACTS, COPY
    await stream.send(OK, more=True)
    await stream.send(Chunk(b"body"), more=True)
    await stream.send(End())


async def test_an_answer_goes_back_with_what_the_log_says_and_a_copy_keeps() -> None:
    async with Owner() as owner:
        for _ in range(2):
            await owner.link.send(ASK)
            assert await owner.link.receive() == Answered(OK, FACTS, COPY)
            assert await owner.link.receive() == Chunk(b"body")
            assert await owner.link.receive() == End()


async def test_interim_answers_go_back_and_a_reset_does_not() -> None:
    interim = ResponseHead(103, Headers([(b"link", b"</a>")]))

    async def handle(stream: HopStream, head: RequestHead) -> None:
        assert (stream.id, stream.peer, head) == ("id-1", b"192.0.2.7", ASK.head)
        await stream.send(interim)
        assert not stream.head_sent
        await stream.send(Reset(ExchangeError(Failure.INTERNAL)))

    async with Owner(handle) as owner:
        await owner.link.send(ASK)
        assert await owner.link.receive() == interim
        assert await owner.link.receive() == Broken(Facts())
        await owner.link.send(ASK)  # the connection is still in step
        assert await owner.link.receive() == interim


async def test_a_requests_body_is_sent_for_and_read_to_its_end() -> None:
    got = []

    async def handle(stream: HopStream, head: RequestHead) -> None:
        body = stream.request_body()
        assert body is not None
        assert body.length == 3
        while isinstance(message := await body.receive(), Chunk):
            got.append(bytes(message.data))
        assert await body.receive() == End()
        await answer(stream, head)

    async with Owner(handle) as owner:
        await owner.link.send(POST)
        assert await owner.link.receive() == Wanted()
        await owner.link.send(Chunk(b"abc"))
        await owner.link.send(End())
        assert isinstance(await owner.link.receive(), Answered)
        assert got == [b"abc"]


async def test_a_body_that_nobody_wants_leaves_the_connection_in_step() -> None:
    async with Owner() as owner:
        for _ in range(2):
            await owner.link.send(POST)
            assert isinstance(await owner.link.receive(), Answered)
            assert await owner.link.receive() == Chunk(b"body")
            assert await owner.link.receive() == End()


async def test_a_body_that_was_read_in_part_ends_the_connection() -> None:
    async def handle(stream: HopStream, head: RequestHead) -> None:
        await stream.receive()
        await answer(stream, head)

    async with Owner(handle) as owner:
        await owner.link.send(POST)
        assert await owner.link.receive() == Wanted()
        await owner.link.send(Chunk(b"a"))
        assert isinstance(await owner.link.receive(), Answered)
        assert [await owner.link.receive() for _ in range(3)] == [Chunk(b"body"), End(), None]


async def test_who_leaves_in_the_middle_of_its_request_has_left() -> None:
    failures = []

    async def handle(stream: HopStream, head: RequestHead) -> None:
        try:
            await stream.receive()
        except ExchangeError as error:
            failures.append(error.failure)

    async with Owner(handle) as owner:
        await owner.link.send(POST)
        assert await owner.link.receive() == Wanted()
        await owner.link.end()
        assert isinstance(await owner.link.receive(), Broken)
    assert failures == [Failure.CLIENT_LEFT]


async def test_the_clients_leaving_is_seen_and_it_may_have_left_before_the_answer() -> None:
    seen = []

    async def handle(stream: HopStream, head: RequestHead) -> None:
        assert stream.request_body() is None
        await stream.wait_left()
        with pytest.raises(ExchangeError) as caught:
            await answer(stream, head)
        seen.append(caught.value.failure)

    async with Owner(handle) as owner:
        await owner.link.send(ASK)
        await wait_all_tasks_blocked()
        owner.link.abort()
        await wait_all_tasks_blocked()
    assert seen == [Failure.CLIENT_LEFT]


async def test_there_is_no_tunnel_through_a_worker() -> None:
    here, _ = Line.pair()
    with pytest.raises(ExchangeError):
        await HopStream(Link(here), ASK).tunnel(here, b"")


async def test_a_glance_is_answered_at_once_or_never() -> None:
    async with Owner() as owner:
        await owner.link.send(Glance(b"192.0.2.7", b"quick"))
        assert await owner.link.receive() == Whole(FACTS, b"answer", 3)
        await owner.link.send(Glance(b"192.0.2.7", b"slow"))
        assert await owner.link.receive() == Later()
        await owner.link.send(Glance(b"192.0.2.7", b"long"))
        assert await owner.link.receive() == Whole(FACTS, b"head", 5, 5)
        assert [await owner.link.receive() for _ in range(2)] == [Chunk(b"abc"), Chunk(b"de")]


async def test_what_is_invalidated_is_so_when_that_is_said() -> None:
    async with Owner() as owner:
        await owner.link.send(Invalidate(bytes(16), b"http://a/"))
        assert await owner.link.receive() == End()
        assert owner.desk.invalidated == [b"http://a/"]


async def test_what_is_no_question_ends_the_connection() -> None:
    async with Owner() as owner:
        await owner.link.send(Wanted())
        assert await owner.link.receive() is None


async def test_an_idle_connection_is_closed_at_once_when_it_drains() -> None:
    async with Owner() as owner:
        await wait_all_tasks_blocked()
        owner.connection.give_up()  # there is nothing to give up
        assert owner.connection.idle
        owner.connection.drain()
        assert await owner.link.receive() is None


async def test_a_busy_connection_is_closed_after_its_answer_when_it_drains() -> None:
    go = trio.Event()

    async def handle(stream: HopStream, head: RequestHead) -> None:
        await go.wait()
        await answer(stream, head)

    async with Owner(handle) as owner:
        await owner.link.send(ASK)
        await wait_all_tasks_blocked()
        owner.connection.drain()
        go.set()
        assert isinstance(await owner.link.receive(), Answered)
        assert [await owner.link.receive() for _ in range(3)] == [Chunk(b"body"), End(), None]


async def test_a_worker_that_is_gone_at_once_is_no_error() -> None:
    here, there = Line.pair()
    here.abort()
    assert not await HopConnection(there, answer, Desk()).run()


class Given:
    """What can be had of a file by reading; it breaks off behind `body`."""

    descriptor = -1

    def __init__(self, body: bytes) -> None:
        self.body = body

    def sendable(self, offset: int, most: int) -> int:
        return most

    def refuse(self) -> None:
        raise AssertionError("it is not sent from")

    async def read(self, offset: int, most: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if offset >= len(self.body):
            raise ExchangeError(Failure.BODY_LOST)
        return self.body[offset : offset + most]

    def close(self) -> None:
        raise AssertionError("it is its owner's to close")


async def test_a_part_of_a_file_is_read_and_sent() -> None:
    body = bytes(range(256)) * 1000

    async def handle(stream: HopStream, head: RequestHead) -> None:
        await stream.send(OK, more=True)
        await stream.send_file(FileSpan(Given(body), 1, len(body) - 1))
        assert stream.sent_bytes == len(body) - 2
        with pytest.raises(ExchangeError):
            await stream.send_file(FileSpan(Given(body), len(body) - 1, len(body) + 1))

    async with Owner(handle) as owner:
        await owner.link.send(ASK)
        assert isinstance(await owner.link.receive(), Answered)
        got = b""
        while isinstance(frame := await owner.link.receive(), Chunk):
            got += frame.data
        assert isinstance(frame, Broken)
        assert got == body[1:]
