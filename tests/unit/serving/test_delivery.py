"""Sending an answer: what leaves together, what is told when it cannot be ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from edge.cache.body import MemoryBody
from edge.cache.flight import Failed, Flight
from edge.cache.ranges import Span
from edge.cache.reasons import Reason
from edge.errors import ExchangeError, Failure
from edge.routing.experiment import Arm, Assignment, Experiment
from edge.serving.answer import TO_THE_END, Answer
from edge.serving.delivery import (
    PIECE_BYTES,
    SHARED_PIECE_BYTES,
    SHOWN_BYTES,
    SMALL_PIECE_BYTES,
    deliver,
    deliver_refusal,
    follow_interims,
    own_status,
)
from edge.serving.terms import Terms
from edge.serving.visit import Parts, Tools, Visit
from edge.wire.cookies import CookieTerms
from edge.wire.message import Chunk, End, Headers, RequestHead, ResponseHead
from tests.unit.unpurged import nothing_purged

if TYPE_CHECKING:
    from edge.upstream.transport import FileSpan
    from edge.wire.message import Message


class Stream:
    """A client who writes down what it is sent; `gone` makes it leave at the next write."""

    def __init__(self) -> None:
        self.peer = b"198.51.100.1"
        self.head_sent = False
        self.sent_bytes = 0
        self.gone = False
        self.writes: list[list[Message]] = []
        self._kept: list[Message] = []

    def request_body(self) -> None:
        return None

    async def send(self, message: Message, *, more: bool = False) -> None:
        self._kept.append(message)
        self.head_sent = self.head_sent or isinstance(message, ResponseHead)
        if not more:
            await self.flush()

    async def send_file(self, span: FileSpan) -> None:
        self._kept.append(Chunk(await span.source.read(span.offset, len(span))))
        await self.flush()

    async def flush(self) -> None:
        if self.gone:
            raise ExchangeError(Failure.CLIENT_LEFT)
        if self._kept:
            self.writes.append(self._kept)
            self._kept = []

    async def wait_left(self) -> None:
        await trio.sleep_forever()

    async def tunnel(self, upstream: object, leftover: bytes) -> None:
        raise AssertionError("no tunnel here")

    def body(self) -> bytes:
        sent = [message for write in self.writes for message in write]
        return b"".join(bytes(message.data) for message in sent if isinstance(message, Chunk))


class OnDisk:
    """A body that is at hand, and whose pieces are its reader's own."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def read_nowait(self, offset: int, most: int) -> bytes:
        return self._data[offset : offset + most]

    async def read(self, offset: int, most: int) -> bytes:
        return self._data[offset : offset + most]

    def close(self) -> None:
        pass


class Slow(MemoryBody):
    """A body that is never at hand at once."""

    def read_nowait(self, offset: int, most: int) -> Any:
        return None


def a_visit(stream: Stream, method: bytes = b"GET", version: bytes = b"1.1") -> Visit:
    told: list[tuple[str, str, str | None]] = []
    tools = SimpleNamespace(
        purges=nothing_purged(),
        now=lambda: 1000.0,
        new_id=lambda: "id-1",
        log=told.append,
        complain=lambda *words: told.append(words),
    )
    parts = SimpleNamespace(name=b"edge1")
    head = RequestHead(method, b"http", b"site.example", b"/a", version=version)
    visit = Visit(cast("Tools", tools), cast("Parts", parts), stream, head)
    visit.terms, visit.arms = Terms(), ()
    return visit


async def test_head_and_a_small_body_leave_in_one_write() -> None:
    stream = Stream()
    answer = Answer(ResponseHead(200), (Span(0, 4),))
    await deliver(a_visit(stream), answer, MemoryBody(b"body"), Reason.HIT, age=1.0, ttl=9.0)
    assert len(stream.writes) == 1
    head, chunk, end = stream.writes[0]
    assert isinstance(head, ResponseHead)
    assert head.headers.get(b"cache-status") == b"edge1; hit; ttl=9"
    assert (chunk, end) == (Chunk(b"body"), End())


async def test_a_new_visitor_is_told_its_arm_and_no_other_visitor_is() -> None:
    arms = (Arm(b"x", 1.0), Arm(b"y", 1.0))
    experiment = Experiment(b"e", CookieTerms(b"ab", ttl_s=None), arms)
    for is_new in (True, False):
        stream = Stream()
        visit = a_visit(stream)
        visit.request = visit.head
        visit.arms = (Assignment(experiment, arms[1], is_new=is_new),)
        await deliver(visit, Answer(ResponseHead(204)), None, Reason.HIT)
        (head, _), *_ = stream.writes
        assert isinstance(head, ResponseHead)
        told = head.headers.all(b"set-cookie")
        assert [each.partition(b";")[0] for each in told] == [b"ab=y"] * is_new


async def test_what_is_at_hand_does_not_wait_for_what_is_not() -> None:
    stream = Stream()
    await deliver(
        a_visit(stream), Answer(ResponseHead(200), (Span(0, 4),)), Slow(b"body"), Reason.URI_MISS
    )
    assert [len(write) for write in stream.writes] == [1, 2]


async def test_a_large_body_goes_in_pieces_and_ends_with_the_last() -> None:
    stream = Stream()
    small = SHOWN_BYTES // SMALL_PIECE_BYTES + 1  # until the client has shown that it reads
    length = small * SMALL_PIECE_BYTES + 3 * PIECE_BYTES
    body, span = OnDisk(bytes(length)), Span(0, length)
    await deliver(a_visit(stream), Answer(ResponseHead(200), (span,)), body, Reason.HIT)
    assert [len(write) for write in stream.writes] == [2, *[1] * (small + 1), 2]
    assert len(stream.body()) == length


async def test_a_body_in_memory_goes_in_large_pieces_since_its_readers_share_it() -> None:
    stream = Stream()
    length = 4 * SHARED_PIECE_BYTES
    body, span = MemoryBody(bytes(length)), Span(0, length)
    await deliver(a_visit(stream), Answer(ResponseHead(200), (span,)), body, Reason.HIT)
    assert [len(write) for write in stream.writes] == [2, 1, 1, 2]
    assert len(stream.body()) == length


async def test_a_switch_of_protocols_has_no_end() -> None:
    stream = Stream()
    switch = ResponseHead(101, Headers([(b"upgrade", b"websocket")]))
    await deliver(a_visit(stream), Answer(switch), None, Reason.UPGRADE)
    assert [type(each) for write in stream.writes for each in write] == [ResponseHead]


async def test_literal_pieces_and_spans_are_sent_in_their_order() -> None:
    stream = Stream()
    pieces = (b"<", Span(1, 3), b"|", Span(0, 1), b">")
    await deliver(
        a_visit(stream), Answer(ResponseHead(206), pieces), MemoryBody(b"abc"), Reason.HIT
    )
    assert stream.body() == b"<bc|a>"


async def test_a_body_of_unknown_length_is_read_to_its_end() -> None:
    stream = Stream()
    answer = Answer(ResponseHead(200), (Span(0, TO_THE_END),))
    await deliver(a_visit(stream), answer, MemoryBody(b"body"), Reason.URI_MISS)
    assert stream.body() == b"body"
    assert stream.writes[-1][-1] == End()


async def test_a_body_that_ends_before_its_span_has_no_end() -> None:
    stream = Stream()
    answer = Answer(ResponseHead(200), (Span(0, 9),))
    with pytest.raises(ExchangeError) as caught:
        await deliver(a_visit(stream), answer, MemoryBody(b"body"), Reason.HIT)
    assert caught.value.failure is Failure.BODY_TRUNCATED
    assert all(message != End() for write in stream.writes for message in write)


async def test_a_refusal_is_told_once_and_never_behind_a_head() -> None:
    stream = Stream()
    visit = a_visit(stream)
    await deliver_refusal(visit, ExchangeError(Failure.CONNECT_REFUSED))
    assert len(stream.writes) == 1
    assert (visit.record.status, visit.record.error) == (502, "connect-refused")
    await deliver_refusal(visit, ExchangeError(Failure.BODY_TRUNCATED))
    assert len(stream.writes) == 1


@pytest.mark.parametrize(
    ("failure", "closes"),
    [(Failure.BODY_TOO_LARGE, True), (Failure.LOOP, False), (Failure.CLOSED_EARLY, False)],
)
async def test_after_a_fault_in_the_message_the_connection_is_closed(
    failure: Failure, *, closes: bool
) -> None:
    stream = Stream()
    await deliver_refusal(a_visit(stream, b"HEAD"), ExchangeError(failure))
    head = stream.writes[0][0]
    assert isinstance(head, ResponseHead)
    assert (head.headers.get(b"connection") == b"close") == closes
    assert stream.body() == b""


async def test_a_client_who_is_gone_is_told_nothing() -> None:
    stream = Stream()
    await deliver_refusal(a_visit(stream), ExchangeError(Failure.SEND_TIMEOUT))
    assert stream.writes == []
    stream.gone = True
    visit = a_visit(stream)
    await deliver_refusal(visit, ExchangeError(Failure.CONNECT_REFUSED))
    assert visit.record.error == "client-left"


@pytest.mark.parametrize(("version", "told"), [(b"1.1", 1), (b"1.0", 0)])
async def test_interim_responses_pass_without_what_belongs_to_one_hop(
    version: bytes, told: int
) -> None:
    stream = Stream()
    flight = Flight[Any]((b"k", ()), nothing_purged().current().latest)
    flight.tell(ResponseHead(103, Headers([(b"link", b"<a>"), (b"keep-alive", b"x")])))
    flight.land(Failed(ExchangeError(Failure.CLOSED_EARLY)))
    await follow_interims(a_visit(stream, version=version), flight)
    assert stream.writes == [[ResponseHead(103, Headers([(b"link", b"<a>")]))]] * told


def test_our_own_answers_say_so() -> None:
    error = ExchangeError(Failure.CONNECT_REFUSED)
    assert own_status(b"edge1", error) == b"edge1; detail=connect-refused"
    with_reason = own_status(b"edge1", error, Reason.URI_MISS)
    assert with_reason == b"edge1; fwd=uri-miss; detail=connect-refused"
