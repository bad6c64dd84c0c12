"""The owner's side of the hop: what is relayed, glanced at and invalidated on a connection."""

from __future__ import annotations

import os
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
    Lent,
    Wanted,
    Welcome,
    Whole,
)
from edge.wire.message import Chunk, End, Headers, RequestHead, Reset, ResponseHead
from tests.stories.line import Line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from edge.upstream.transport import Part

ASK = Ask("id-1", b"192.0.2.7", b"GET", b"http", b"a", b"/", b"1.1", ())
POST = Ask("id-2", b"192.0.2.7", b"POST", b"http", b"a", b"/", b"1.1", (), True, 3)
OK = ResponseHead(200, Headers([(b"content-length", b"4")]))
FACTS = Facts("hit", "hit", 5, None, None, None, 200)
COPY = Copy(b"form", 7)


LONG = 200_000
LENDING = Ask("id-1", b"192.0.2.7", b"GET", b"http", b"a", b"/", b"1.1", (), takes_files=True)


class Stored:
    """A body in a file that may be sent from it."""

    def __init__(self, path: Path) -> None:
        self.content = os.urandom(LONG)
        path.write_bytes(self.content)
        self.descriptor = os.open(path, os.O_RDONLY)
        self.is_good = True
        self.closed = 0

    def loan(self, start: int, stop: int) -> Lent | None:
        return Lent(start, stop, "name", LONG, b"", (1, 2, 3, 4, 5), 0.0) if self.is_good else None

    def sendable(self, offset: int, most: int) -> int:
        return most

    def refuse(self) -> None:
        raise AssertionError("no one sends from it")

    async def read(self, offset: int, most: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return os.pread(self.descriptor, most, offset)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    made = Stored(tmp_path / "body")
    yield made
    os.close(made.descriptor)


class Desk:
    """Has an answer at once to `b"quick"`, and a long one to `b"long"`."""

    def __init__(self) -> None:
        self.invalidated: list[bytes] = []
        self.file: Stored | None = None

    def answer_glance(self, glance: Glance) -> tuple[Whole, Sequence[Part]] | None:
        if glance.data == b"file":
            assert self.file is not None
            rest = (FileSpan(self.file, 0, LONG),)
            return Whole(FACTS, b"head", LONG, LONG, None, self.file.loan(0, LONG)), rest
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


# --- files that are lent


def sending(stored: Stored, start: int = 0) -> Callable[..., Awaitable[None]]:
    """Answers with a part of a file."""

    async def handle(stream: HopStream, head: RequestHead) -> None:
        await stream.send(OK, more=True)
        await stream.send_file(FileSpan(stored, start, LONG))
        assert stream.sent_bytes == LONG - start
        await stream.send(End())

    return handle


async def body_of(owner: Owner) -> bytes:
    """What comes as chunks, to its end."""
    got = b""
    while not isinstance(frame := await owner.link.receive(), End):
        assert isinstance(frame, Chunk)
        got += frame.data
    return got


async def test_a_part_of_a_file_is_lent_to_who_takes_files(stored: Stored) -> None:
    async with Owner(sending(stored)) as owner:
        for _ in range(2):
            await owner.link.send(LENDING)
            assert await owner.link.receive() == Answered(OK, Facts())
            assert await owner.link.receive() == stored.loan(0, LONG)
            taken = owner.link.take_descriptor()
            assert taken is not None
            assert os.path.samestat(os.fstat(taken), os.fstat(stored.descriptor))
            os.close(taken)
            await owner.link.send(End())
            assert await owner.link.receive() == End()


async def test_it_is_copied_where_the_other_side_has_no_room_for_it(stored: Stored) -> None:
    async with Owner(sending(stored)) as owner:
        await owner.link.send(LENDING)
        await owner.link.receive()
        assert isinstance(await owner.link.receive(), Lent)
        await owner.link.send(Wanted())
        assert await body_of(owner) == stored.content


async def test_it_is_copied_where_the_other_side_can_say_nothing_any_more(
    stored: Stored,
) -> None:
    async with Owner(sending(stored)) as owner:
        await owner.link.send(LENDING)
        await owner.link.end()
        await owner.link.receive()
        assert isinstance(await owner.link.receive(), Lent)
        assert await body_of(owner) == stored.content


async def test_it_is_copied_where_it_is_small_or_not_good_or_not_asked_for(
    stored: Stored,
) -> None:
    async with Owner(sending(stored, LONG - 100_000)) as owner:
        await owner.link.send(LENDING)
        await owner.link.receive()
        assert await body_of(owner) == stored.content[-100_000:]
    stored.is_good = False
    async with Owner(sending(stored)) as owner:
        await owner.link.send(LENDING)
        await owner.link.receive()
        assert await body_of(owner) == stored.content
    stored.is_good = True
    async with Owner(sending(stored)) as owner:
        await owner.link.send(ASK)
        await owner.link.receive()
        assert await body_of(owner) == stored.content


async def test_it_is_copied_where_no_descriptor_can_be_passed(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    monkeypatch.setattr(Line, "send_passing", refused)
    async with Owner(sending(stored)) as owner:
        await owner.link.send(LENDING)
        assert await owner.link.receive() == Answered(OK, Facts())
        assert await body_of(owner) == stored.content
        owner.desk.file = stored
        await owner.link.send(Glance(b"192.0.2.7", b"file", True))
        assert await owner.link.receive() == Later()
        assert stored.closed == 1


async def test_a_glance_at_a_file_is_answered_with_it_in_one_frame(stored: Stored) -> None:
    async with Owner() as owner:
        owner.desk.file = stored
        await owner.link.send(Glance(b"192.0.2.7", b"file", True))
        whole = await owner.link.receive()
        assert whole == Whole(FACTS, b"head", LONG, LONG, None, stored.loan(0, LONG))
        taken = owner.link.take_descriptor()
        assert taken is not None
        os.close(taken)
        assert stored.closed == 1
        await owner.link.send(Glance(b"192.0.2.7", b"quick"))
        assert await owner.link.receive() == Whole(FACTS, b"answer", 3)


async def test_who_is_gone_before_it_is_lent_a_file_is_a_client_that_left(
    stored: Stored,
) -> None:
    raised: list[Failure] = []

    async def handle(stream: HopStream, head: RequestHead) -> None:
        owner.link.abort()
        try:
            await stream.send_file(FileSpan(stored, 0, LONG))
        except ExchangeError as error:
            raised.append(error.failure)

    async with Owner(handle) as owner:
        await owner.link.send(LENDING)
        await wait_all_tasks_blocked()
    assert raised == [Failure.CLIENT_LEFT]
