"""Sending an answer: its head as it leaves, then its pieces at the client's pace.

Head and first piece leave in one write where the piece is at hand. A body that cannot be had to
its end is told by breaking the connection off, so that no one takes a part for the whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from edge.cache.body import MemoryBody
from edge.cache.diskbody import DiskBody
from edge.cache.ranges import Span
from edge.cache.reasons import Reason, cache_status
from edge.errors import ExchangeError, Failure, Side
from edge.serving.answer import TO_THE_END, finished, refusal
from edge.upstream.transport import FileSpan
from edge.wire.hop import end_to_end
from edge.wire.message import Chunk, End, ResponseHead

if TYPE_CHECKING:
    from edge.cache.fill import Body
    from edge.serving.answer import Answer
    from edge.serving.errand import AnyFlight
    from edge.serving.visit import Visit

# Of a body in one client's hands; the kernel's buffers come on top. The large piece, a third
# cheaper by the byte, is for a client that has shown that it reads, and reads at once.
SMALL_PIECE_BYTES: Final = 16_384
PIECE_BYTES: Final = 49_152
SHARED_PIECE_BYTES: Final = 262_144  # of a body in memory, which all readers have in common
SHOWN_BYTES: Final = 262_144  # more than the kernels at both ends take for one that does not read
AT_ONCE_S: Final = 0.05

# A client's fault after which its connection is still in step.
_HARMLESS: Final = frozenset({Failure.NOT_IN_STORE, Failure.LOOP, Failure.MISDIRECTED})
_GONE: Final = frozenset({Failure.CLIENT_LEFT, Failure.SEND_TIMEOUT})


async def deliver(
    visit: Visit,
    answer: Answer,
    body: Body | None,
    because: Reason,
    *,
    fate: Reason | None = None,
    age: float | None = None,
    ttl: float | None = None,
    fwd_status: int | None = None,
    collapsed: bool = False,
) -> None:
    """Send `answer`, with its spans taken from `body`.

    `because` is why the request went where it did, `fate` what became of a fetched answer; `age`
    and `ttl` in seconds, where they say anything.
    """
    parts = visit.parts
    status = cache_status(
        parts.name,
        because,
        ttl=ttl,
        stored=fate is Reason.STORED and not collapsed,
        collapsed=collapsed,
        fwd_status=fwd_status,
        because=fate,
        key=visit.key.url if visit.tells_key else None,
    )
    head = finished(
        answer.head,
        name=parts.name,
        rules=visit.terms.fields,
        cache_status=status,
        age=age,
        cookies=visit.cookies if visit.arms else (),
    )
    visit.answered(because, fate, ttl, head.status)
    await visit.stream.send(head, more=True)
    if head.status == 101:
        await visit.stream.flush()  # it has no end: what comes behind it is the tunnel's
        return
    for piece in answer.pieces:
        if isinstance(piece, Span):
            assert body is not None
            await _send_span(visit, body, piece)
        else:
            await visit.stream.send(Chunk(piece), more=True)
    await visit.stream.send(End())


async def _send_span(visit: Visit, body: Body, span: Span) -> None:
    stream, offset = visit.stream, span.start
    if isinstance(body, DiskBody):
        await stream.send_file(FileSpan(body, span.start, min(span.stop, body.length)))
        return
    is_shared = isinstance(body, MemoryBody)
    size = SHARED_PIECE_BYTES if is_shared else SMALL_PIECE_BYTES
    while offset < span.stop:
        most = min(size, span.stop - offset)
        data = body.read_nowait(offset, most)
        if data is None:
            await stream.flush()  # what is there should not wait for what is not
            data = await body.read(offset, most)
        if not data:
            if span.stop == TO_THE_END:
                return
            raise ExchangeError(Failure.BODY_TRUNCATED)
        offset += len(data)
        if offset == span.stop:  # it leaves together with the end
            await stream.send(Chunk(data), more=True)
            return
        if is_shared:
            await stream.send(Chunk(data))
            continue
        began = trio.current_time()
        await stream.send(Chunk(data))
        reads_on = offset - span.start > SHOWN_BYTES and trio.current_time() - began < AT_ONCE_S
        size = PIECE_BYTES if reads_on else SMALL_PIECE_BYTES


async def follow_interims(visit: Visit, flight: AnyFlight) -> None:
    """Pass interim responses on until the flight has landed (RFC 9110 §15.2)."""
    visit.forward()
    told = 0
    while interims := await flight.wait_interims(told):
        told += len(interims)
        for head in interims:
            if visit.head.version != b"1.0":
                await visit.stream.send(replace(head, headers=end_to_end(head.headers)))
    visit.landed(flight.upstream)


async def deliver_refusal(visit: Visit, error: ExchangeError) -> None:
    """Tell the client of `error`, if there is still a way to: an answer begun is broken off."""
    if visit.stream.head_sent or error.failure in _GONE:
        visit.failed(error)
        return
    now, name = visit.tools.now(), visit.parts.name
    head, body = own_answer(error, visit.id, now, name, visit.because)
    visit.refused(error)
    pieces = [] if visit.head.method == b"HEAD" else [Chunk(body)]
    try:
        await visit.stream.send(head, more=True)
        for piece in pieces:
            await visit.stream.send(piece, more=True)
        await visit.stream.send(End())
    except ExchangeError as gone:
        visit.failed(gone)


def own_answer(
    error: ExchangeError, request_id: str, now: float, name: bytes, because: Reason | None = None
) -> tuple[ResponseHead, bytes]:
    """What the node called `name` tells of `error`: a whole head, and the body."""
    head, body = refusal(error, request_id, now)
    own = [(b"connection", b"close")] if ends_connection(error) else []
    own.append((b"cache-status", own_status(name, error, because)))
    return replace(head, headers=head.headers.plus(*own)), body


def ends_connection(error: ExchangeError) -> bool:
    """Whether nothing more is read from a client that is told of `error`."""
    return error.side is Side.CLIENT and error.failure not in _HARMLESS


def own_status(name: bytes, error: ExchangeError, because: Reason | None = None) -> bytes:
    """This node's member of Cache-Status on an answer of its own making (RFC 9211 §2.8)."""
    went = b"" if because is None or because.fwd is None else b"; fwd=" + because.fwd
    return b"%b%b; detail=%b" % (name, went, error.failure.slug.encode())
