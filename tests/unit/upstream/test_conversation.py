"""One request and its response, seen from the side that must know what became of it.

What a fetch makes of these is told in test_fetch.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ExchangeError, Failure
from edge.upstream.conversation import Conversation, _left
from edge.upstream.origin import Origin
from edge.upstream.pool import Connection
from edge.upstream.transport import SocketTransport, Transport
from edge.wire.h1 import RESPONSE_LIMITS
from edge.wire.message import Chunk, End, Headers, Message, RequestHead
from tests.unit.upstream.memory import StreamTransport

ORIGIN = Origin("http", "origin.example", 80)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"


class Body:
    """A request's body: `pieces`, then nothing until cancelled, or the end."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self.length = None
        self._pieces = list(pieces)
        self._ends = ends

    async def receive(self) -> Chunk | End:
        if self._pieces:
            return Chunk(self._pieces.pop(0))
        if not self._ends:
            await trio.sleep_forever()
        return End()


def a_conversation(
    here: Transport, *, method: bytes = b"GET", deadline: float = 100.0
) -> tuple[Conversation, RequestHead]:
    conversation = Conversation(
        Connection(here, trio.current_time()),
        ORIGIN,
        RESPONSE_LIMITS,
        deadline=trio.current_time() + deadline,
        repeatable=method == b"GET",
    )
    return conversation, RequestHead(method, b"http", b"site.example", b"/", Headers())


def sockets() -> tuple[SocketTransport, SocketTransport]:
    one, two = socket.socketpair()
    return SocketTransport(one), SocketTransport(two)


async def everything(conversation: Conversation) -> list[Message]:
    messages: list[Message] = [await conversation.head(None)]
    while not isinstance(messages[-1], End):
        messages.append(await conversation.receive())
    return messages


async def test_memory_streams_carry_a_conversation_too(autojump_clock: Any) -> None:
    one, two = trio.testing.memory_stream_pair()
    here = StreamTransport(one)
    conversation, request = a_conversation(here)
    assert not await conversation.ask(request, None)
    await two.send_all(ANSWER)
    messages = await everything(conversation)
    assert b"".join(m.data for m in messages if isinstance(m, Chunk)) == b"body"
    assert conversation.is_reusable()
    here.close()


@pytest.mark.parametrize("cut", range(1, len(ANSWER)))
async def test_an_answer_cut_anywhere_is_the_same(cut: int, autojump_clock: Any) -> None:
    here, there = sockets()
    conversation, request = a_conversation(here)
    await conversation.ask(request, None)

    async def answer() -> None:
        await there.send_all(ANSWER[:cut])
        await trio.sleep(1)
        await there.send_all(ANSWER[cut:])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        messages = await everything(conversation)
    assert b"".join(m.data for m in messages if isinstance(m, Chunk)) == b"body"
    here.close()
    there.close()


@pytest.mark.parametrize("cut", range(len(ANSWER)))
async def test_an_answer_that_stops_anywhere_is_never_whole(cut: int, autojump_clock: Any) -> None:
    here, there = sockets()
    conversation, request = a_conversation(here)
    await conversation.ask(request, None)
    await there.send_all(ANSWER[:cut])
    there.close()
    with pytest.raises(ExchangeError) as caught:
        await everything(conversation)
    before_the_head = cut < ANSWER.index(b"body")
    assert caught.value.failure is (
        Failure.CLOSED_EARLY if before_the_head else Failure.BODY_TRUNCATED
    )
    assert conversation.heard is (cut > 0)
    assert conversation.may_repeat() is before_the_head
    assert not conversation.is_reusable()
    here.close()


async def test_what_may_be_repeated_ends_with_the_first_touch_of_the_body(
    autojump_clock: Any,
) -> None:
    here, there = sockets()
    conversation, request = a_conversation(here)
    body = Body(b"x")
    framed = RequestHead(
        request.method,
        request.scheme,
        request.authority,
        request.target,
        Headers([(b"transfer-encoding", b"chunked")]),
    )
    assert await conversation.ask(framed, body)
    assert conversation.may_repeat()
    await conversation.pump(body)
    assert conversation.sent
    assert not conversation.may_repeat()
    here.close()
    there.close()


async def test_a_method_that_is_not_idempotent_is_never_repeated(autojump_clock: Any) -> None:
    here, there = sockets()
    conversation, _ = a_conversation(here, method=b"POST")
    assert not conversation.may_repeat()
    here.close()
    there.close()


async def test_a_deadline_that_has_passed_needs_no_waiting(autojump_clock: Any) -> None:
    here, there = sockets()
    conversation, request = a_conversation(here, deadline=0.0)
    await conversation.ask(request, None)
    with pytest.raises(ExchangeError) as caught:
        await conversation.head(None)
    assert caught.value.failure is Failure.TOTAL_TIMEOUT
    here.close()
    there.close()


@given(st.lists(st.integers(min_value=1, max_value=50)), st.integers(min_value=0, max_value=500))
def test_a_body_is_right_exactly_when_its_pieces_sum_to_its_length(
    sizes: list[int], length: int
) -> None:
    def count() -> int:
        left = length
        for size in sizes:
            left = _left(left, Chunk(b"x" * size))
        return _left(left, End())

    if sum(sizes) == length:
        assert count() == 0
    else:
        with pytest.raises(ExchangeError):
            count()
