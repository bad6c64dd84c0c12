"""The lane's law: what is answered at once is, to the byte, what an exchange would have answered.

Two equal nodes live through the same; then both are asked the same. One is asked by way of a
task, the other by `Quick` first, and by a task only where that leaves it alone. Bytes, log
records, complaints, counters and what is noted of the stored answers must always be the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
import trio
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from msgspec import structs
from trio.testing import MockClock

from edge.explain.question import Question
from edge.listen.lane import After
from edge.serving.quick import Quick
from edge.wire.grammar import Limits
from tests.stories.test_explain import (
    NODES,
    PAUSES,
    PURGES,
    STEPS,
    TRUSTING,
    Stage,
    Step,
    a_stage,
    fetching,
    pausing,
    pending,
    purging,
    questions,
    strange_questions,
)
from tests.unit.sent import joined

if TYPE_CHECKING:
    from tests.stories.world import Edge

ROOM_BYTES: Final = 40_000  # so that what is known of requests is also forgotten


@dataclass
class Node:
    """One of the two. `quick` is None where every request has a task."""

    stage: Stage
    quick: Quick | None
    answered_at_once: int = 0

    async def ask(self, question: Question) -> tuple[bytes, bool]:
        """All bytes that the request is answered with, and whether the connection ends then."""
        data, peer = written(question), question.from_address
        if self.quick is not None:
            self.quick.begin()
            answered = self.quick.answer(data, peer)
            if answered is not None:
                parts, record, after = answered
                self.quick.close(record, 0.001)
                self.quick.settle()
                self.answered_at_once += 1
                await self.stage.edge.settle()
                await self.stage.play.release()
                await self.stage.edge.settle()
                return joined(parts), after is not After.PARK
        wire = self.stage.client.connect(address=peer, capacity=1 << 17)
        await wire.send(data)
        await self.stage.edge.settle()
        await self.stage.play.release()
        await self.stage.edge.settle()
        try:
            got = wire.line.receive_nowait(1 << 17) or b""
            ended = wire.line.receive_nowait(1) is not None
        except trio.BrokenResourceError:
            got, ended = b"", True
        wire.close()
        await self.stage.edge.settle()
        return got, ended


def written(question: Question) -> bytes:
    """The request as a client writes it."""
    names = [name.lower() for name, _ in question.fields]
    lines = [b"%b %b HTTP/1.1" % (question.method, question.target)]
    lines += [b"Host: site.example"] if b"host" not in names else []
    lines += [b"%b: %b" % pair for pair in question.fields]
    data = b"\r\n".join([*lines, b"", b""])
    if (b"Content-Length", b"3") in question.fields:
        data += b"xyz"
    elif b"transfer-encoding" in names:
        data += b"0\r\n\r\n"
    return data


def noted(edge: Edge) -> Any:
    """All that answering changes, but for durations and the order of what ends at one time."""
    held = [
        (key, [(each.hits, each.passed, each.entry) for each in resource.variants])
        for key, resource in edge.store._ram.items()
    ]
    return edge.store.statistics(), held, *said(edge)


def said(edge: Edge) -> tuple[Any, ...]:
    """What is told of answering, but for durations and the order of what ends at one time."""
    records = [
        structs.replace(record, total_s=0.0, first_byte_s=None, upstream_s=None)
        for record in sorted(edge.records, key=lambda record: int(record.id[3:]))
    ]
    return records, sorted(edge.complaints), len(edge.flights)


Act: TypeAlias = Question | Step


async def act(sets: list[str], acts: list[Act]) -> int:
    async with a_stage(sets) as one, a_stage(sets) as other:
        edge = other.edge
        quick = Quick(
            edge.exchange, edge.tools, Limits(), edge.records.extend, room_bytes=ROOM_BYTES
        )
        nodes = Node(one, None), Node(other, quick)
        for each in acts:
            if isinstance(each, Question):
                await one.edge.settle()
                for node in nodes:
                    node.stage.play.status, node.stage.play.slow_s = 200, 0.0
                ordinary, by_lane = [await node.ask(each) for node in nodes]
                assert by_lane == ordinary, each
            else:
                async with trio.open_nursery() as nursery:  # at one time, which trouble rests on
                    for node in nodes:
                        nursery.start_soon(each, node.stage)
            await one.edge.settle()
            assert noted(other.edge) == noted(one.edge), each
        return nodes[1].answered_at_once


def play(sets: list[str], acts: list[Act]) -> int:
    """How many of the requests among `acts` were answered at once; all are answered alike."""
    return trio.run(partial(act, sets, acts), clock=MockClock(autojump_threshold=0))


async def rename(stage: Stage) -> None:
    """New settings, with another name of the node."""
    parts = stage.edge.exchange.parts
    parts = replace(parts, name=parts.name + b"x", salt=b"new")
    stage.edge.exchange.parts = stage.edge.entrance.parts = parts


def asking(draw: st.DrawFn, kind: st.SearchStrategy[Question]) -> list[Question]:
    """A request, and perhaps the very same once more."""
    return [draw(kind)] * draw(st.sampled_from((1, 2, 3)))


@st.composite
def acts(draw: st.DrawFn, kind: st.SearchStrategy[Question]) -> list[Act]:
    """Something is stored; then there are requests, and what may change their answers."""
    chosen: list[Act] = list(draw(STEPS))
    other = st.one_of(PAUSES, PAUSES, PURGES, st.just(rename), pending())
    for _ in range(draw(st.integers(1, 4))):
        chosen += asking(draw, kind)
        chosen += [draw(other)] * draw(st.integers(0, 1))
    return [*chosen, *asking(draw, kind)]


LAW: Final = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
FRESH: Final = {"Cache-Control": "max-age=60", "ETag": '"1"', "Vary": "Accept-Encoding"}
WINDOW: Final = {"Cache-Control": "max-age=10, stale-while-revalidate=20", "xkey": "front"}


def page(*fields: tuple[bytes, bytes], method: bytes = b"GET") -> Question:
    return Question(b"http://site.example/a", method, fields)


@LAW
@given(sets=NODES, acts=acts(questions()))
@example(sets=[], acts=[fetching(WINDOW), pausing(15.0), page(), page(), page()])
@example(sets=[], acts=[fetching(WINDOW), page(), purging(tag=["front"], soft=True), page()])
@example(sets=[], acts=[fetching(WINDOW), page(), purging(tag=["front"]), page(), page()])
@example(sets=[], acts=[fetching(FRESH), page(), rename, page((b"Range", b"bytes=0-0,5-6"))])
def test_what_is_stored_is_answered_alike(sets: list[str], acts: list[Act]) -> None:
    event(f"{play(sets, acts)} answered at once")


@LAW
@given(
    sets=st.lists(st.sampled_from(TRUSTING), unique=True),
    acts=acts(st.one_of(questions(), strange_questions())),
)
def test_strange_requests_are_answered_alike(sets: list[str], acts: list[Act]) -> None:
    event(f"{play(sets, acts)} answered at once")


def test_most_of_what_is_fresh_is_answered_at_once() -> None:
    acts: list[Act] = [
        fetching(FRESH),
        page(), page(), page(method=b"HEAD"),
        page((b"If-None-Match", b'"1"')), page((b"If-None-Match", b'"2"')),
        page((b"If-Match", b'"9"')),
        page((b"Range", b"bytes=2-4")), page((b"Range", b"bytes=0-0,5-6")),
        page((b"Range", b"bytes=99-")),
        page((b"User-Agent", b"x"), (b"Cookie", b"a=1"), (b"Cache-Control", b"no-cache")),
    ]  # fmt: skip
    assert play([], acts) == len(acts) - 1


CLOSE: Final = (b"Connection", b"close")


def test_the_last_request_of_a_connection_is_answered_at_once() -> None:
    acts: list[Act] = [
        fetching(FRESH), page(CLOSE), page(), page(CLOSE), page(CLOSE, method=b"HEAD"),
        page(CLOSE, (b"If-None-Match", b'"1"')), page(CLOSE, (b"Range", b"bytes=2-4")),
    ]  # fmt: skip
    assert play([], acts) == len(acts) - 1


@pytest.mark.parametrize("last", [(), (CLOSE,)])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_refusals_that_need_no_waiting_are_given_at_once(
    method: bytes, last: tuple[tuple[bytes, bytes], ...]
) -> None:
    only = (b"Cache-Control", b"only-if-cached")
    acts: list[Act] = [
        fetching(WINDOW), pausing(200.0), page(only, *last, method=method),
        page((b"Host", b"other.example"), *last, method=method),
        page((b"CDN-Loop", b"edge1"), *last, method=method), page(*last, method=b"PURGE"),
    ] * 2  # fmt: skip
    honours = "site.cache.honour_request_directives=true"
    assert play([honours, 'site.hosts=["site.example"]'], acts) == len(acts) - 4


def test_who_may_purge_is_asked_each_time() -> None:
    purge = page(method=b"PURGE")
    theirs = replace(purge, from_address=b"198.51.100.1")
    acts: list[Act] = [fetching(FRESH), purge, page(), theirs, page(), purge, page()]
    assert play(['site.purge_from=["198.51.100.0/24"]'], acts) == 4


def test_what_is_stale_is_answered_at_once_and_fetched_behind() -> None:
    assert play([], [fetching(WINDOW), pausing(15.0), page()]) == 1


def test_what_a_soft_purge_covers_goes_by_the_law() -> None:
    soft = purging(tag=["front"], soft=True)
    assert play([], [fetching(WINDOW), page(), soft, page()]) == 2


def test_what_was_purged_is_not_answered_at_once_again() -> None:
    assert play([], [fetching(FRESH), page(), purging(all=True), page()]) == 1


def test_a_trusted_peer_is_answered_at_once_as_whom_it_speaks_for() -> None:
    told = Question(
        b"http://site.example/a",
        b"GET",
        ((b"X-Forwarded-For", b"203.0.113.9"), (b"Cache-Status-Key", b"?1")),
    )
    sets = ['node.trusted_proxies=["198.51.100.0/24"]']
    other = replace(told, from_address=b"203.0.113.7")
    assert play(sets, [fetching(FRESH), told, other, told, other]) == 4


def test_an_origins_digits_are_not_taken_for_ours() -> None:
    fresh = {**FRESH, "X-Odd": "111111111 333333333"}
    assert play([], [fetching(fresh), page(), pausing(6.0), page()]) == 2
