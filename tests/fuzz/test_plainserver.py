"""The law of the plain server engine: it does as `ServerEngine` does, whatever comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import ExchangeError, Failure, ProtocolError
from edge.wire.h1 import STREAM, Limits, ServerEngine
from edge.wire.message import Chunk, End, Headers, Message, RequestHead, Reset, ResponseHead
from edge.wire.plain import PlainReader
from edge.wire.plainserver import PlainServerEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

Step: TypeAlias = "bytes | Message | str"

PLAIN = b"GET /a HTTP/1.1\r\nHost: a.example\r\nX: y\r\n\r\n"
REQUESTS = st.sampled_from(
    [PLAIN] * 4
    + [
        b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n", PLAIN + PLAIN, PLAIN + b"GET", b"GE", b"bad\r\n\r\n", b"",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ]
)  # fmt: skip


def head(status: int, *pairs: tuple[bytes, bytes]) -> ResponseHead:
    return ResponseHead(status, Headers(pairs), b"Fine" if status == 201 else b"")


LENGTH = (b"content-length", b"3")
ANSWERS = st.sampled_from(
    [head(200, (b"x", b"y"), LENGTH)] * 4
    + [
        head(200, (b"content-length", b"0")), head(201, LENGTH), head(304), head(304, LENGTH),
        head(204), head(204, LENGTH), head(200), head(200, LENGTH, LENGTH), head(103), head(101),
        head(200, LENGTH, (b"connection", b"close")), head(200, LENGTH, (b"Bad Name", b"x")),
        head(200, (b"transfer-encoding", b"chunked")), head(200, (b"content-length", b"x")),
    ]
)  # fmt: skip
OTHERS: st.SearchStrategy[Step] = st.sampled_from(
    [
        Chunk(b"abc"), Chunk(b"abc"), Chunk(b"a"), Chunk(b""), Chunk(memoryview(b"bc")),
        End(), End(), Reset(ExchangeError(Failure.INTERNAL)),
        RequestHead(b"GET", b"http", b"a", b"/"), "read", "read", "read one",
    ]
)  # fmt: skip
STEPS = st.lists(st.one_of(REQUESTS, ANSWERS, OTHERS), max_size=14)
USUAL: list[Step] = ["read one", head(200, (b"x", b"y"), LENGTH), Chunk(b"abc"), End()]
LIVES = st.lists(
    st.one_of(
        st.tuples(REQUESTS, ANSWERS).map(
            lambda two: [two[0], "read", two[1], Chunk(b"abc"), End()]
        ),
        REQUESTS.map(lambda data: [data, *USUAL]),
        REQUESTS.map(lambda data: [data, *USUAL, "read"]),
        STEPS,
    ),
    max_size=4,
).map(lambda parts: [step for part in parts for step in part])


def state(engine: ServerEngine) -> tuple[object, ...]:
    return (
        engine.has_partial_head, engine.body_expected, engine.upgrade_requested,
        engine.can_answer, engine.keep_alive, engine.is_at_rest, engine.finished,
        engine.expects_continue(STREAM), engine.readable(), engine.window(STREAM),
        engine.body_sent, engine.body_received, engine.upgraded,
    )  # fmt: skip


def told(engine: ServerEngine, steps: Sequence[Step], *, looks: bool) -> list[object]:
    """All that can be known from outside; with `looks`, also what is asked between the steps."""
    seen: list[object] = []
    awaited = False  # a request has been read, and not been answered
    for step in steps:
        is_final = isinstance(step, ResponseHead) and step.status >= 200
        to_nothing = is_final and not awaited
        if to_nothing and not engine.can_answer:
            continue
        awaited = awaited and not is_final
        try:
            if isinstance(step, bytes):
                engine.receive(step)
            elif isinstance(step, str):
                for _, message in engine.messages():
                    seen.append(message)
                    awaited = awaited or isinstance(message, RequestHead)
                    if step == "read one":
                        break
            else:
                engine.send(STREAM, step)
        except (ExchangeError, ProtocolError) as error:
            seen.append(error.failure)
        seen.append(b"".join(engine.outgoing()))
        if looks:
            seen.append(state(engine))
        if to_nothing or engine.finished:  # nothing is read behind a refusal, or the end
            break
    return [*seen, state(engine), engine.leftover()]


@settings(max_examples=500)
@given(LIVES, st.booleans())
def test_a_life_is_the_same_as_with_h11(steps: list[Step], looks: bool) -> None:
    limits = Limits(head_bytes=400, unread_bytes=100)
    ours = PlainServerEngine(limits, b"http", PlainReader(limits).read)
    assert told(ours, steps, looks=looks) == told(ServerEngine(limits), steps, looks=looks)
