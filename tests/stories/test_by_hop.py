"""The hop's law: a client who comes to a worker that does not own the key gets the same answer.

Two nodes live through the same, one of a single worker, one of two, where all clients come to the
worker who owns nothing: by the lane and its copies first, by a task where that leaves it alone.
Bytes, log records and complaints must always be the same.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from edge.explain.question import Question
from edge.hop.desk import HopDesk
from edge.listen.lane import After
from edge.wire.grammar import Limits
from tests.stories.test_both_ways import (
    FRESH,
    WINDOW,
    Act,
    Node,
    acts,
    page,
    rename,
    said,
    written,
)
from tests.stories.test_explain import (
    NODES,
    TRUSTING,
    Stage,
    a_stage,
    fetching,
    pausing,
    purging,
    questions,
    strange_questions,
)
from tests.unit.sent import joined

if TYPE_CHECKING:
    from edge.hop.desk import Glancing

LAW: Final = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


class Entrance:
    """The node of two workers. Requests are answered as its lane answers, then by a task."""

    def __init__(self, stage: Stage) -> None:
        tools = stage.edge.entrance._tools
        assert tools.relays is not None
        self.stage = stage
        self.by_copy = self.by_glance = 0
        log = stage.edge.records.extend
        self._desk = HopDesk(stage.edge.entrance, tools, Limits(), log, tools.relays)

    async def ask(self, question: Question) -> tuple[bytes, bool]:
        """All bytes that the request is answered with, and whether the connection ends then."""
        data, peer = written(question), question.from_address
        got: bytes | None = None
        ends = False
        self._desk.begin()
        if (answered := self._desk.answer(data, peer)) is not None:
            parts, record, after = answered
            self._desk.close(record, 0.001)
            ends = after is not After.PARK
            self.by_copy += 1
            got = joined(parts)
        elif (hop := self._desk.hop(data, peer)) is not None:
            got = await _glanced(hop)
            self.by_glance += got is not None
        self._desk.settle()
        await self.stage.edge.settle()
        if got is None:
            return await Node(self.stage, None).ask(question)
        await self.stage.play.release()
        await self.stage.edge.settle()
        return got, ends


async def _glanced(hop: Glancing) -> bytes | None:
    parts = await hop.ask()
    if parts is None:
        hop.close(0.001, None)
        return None
    got = joined(parts)
    while (piece := await hop.more()) is not None:
        got += piece
    hop.close(0.001, None)
    return got


async def act(sets: list[str], acts: list[Act]) -> tuple[int, int]:
    async with a_stage(sets) as one, a_stage(sets, by_hop=True) as other:
        entrance = Entrance(other)
        nodes = Node(one, None), entrance
        for each in acts:
            if isinstance(each, Question):
                await one.edge.settle()
                for node in nodes:
                    node.stage.play.status, node.stage.play.slow_s = 200, 0.0
                at_home, by_hop = [await node.ask(each) for node in nodes]
                assert by_hop == at_home, each
            else:
                async with trio.open_nursery() as nursery:  # or one's time would pass for both
                    for node in nodes:
                        nursery.start_soon(each, node.stage)
            await one.edge.settle()
            assert said(other.edge) == said(one.edge), each
        return entrance.by_copy, entrance.by_glance


def play(sets: list[str], acts: list[Act]) -> tuple[int, int]:
    """How many of the requests among `acts` a copy answered, and how many a glance at the owner;
    all are answered alike."""
    return trio.run(partial(act, sets, acts), clock=MockClock(autojump_threshold=0))


@LAW
@given(sets=NODES, acts=acts(questions()))
@example(sets=[], acts=[fetching(WINDOW), page(), page(), pausing(15.0), page(), page()])
@example(sets=[], acts=[fetching(WINDOW), page(), page(), purging(tag=["front"]), page(), page()])
@example(sets=[], acts=[fetching(FRESH), page(), page(), rename, page(), page()])
def test_what_another_worker_owns_is_answered_alike(sets: list[str], acts: list[Act]) -> None:
    copies, glances = play(sets, acts)
    event(f"{copies} by copies, {glances} by glances")


@LAW
@given(
    sets=st.lists(st.sampled_from(TRUSTING), unique=True),
    acts=acts(st.one_of(questions(), strange_questions())),
)
def test_strange_requests_are_answered_alike(sets: list[str], acts: list[Act]) -> None:
    copies, glances = play(sets, acts)
    event(f"{copies} by copies, {glances} by glances")


def test_copies_answer_at_once() -> None:
    acts: list[Act] = [
        fetching(FRESH),
        page(), page(), page(method=b"HEAD"),
        page((b"If-None-Match", b'"1"')), page((b"If-None-Match", b'"2"')),
        page((b"Range", b"bytes=2-4")), page((b"Range", b"bytes=0-0,5-6")),
        page((b"Cookie", b"a=1"), (b"Cache-Control", b"no-cache")),
    ]  # fmt: skip
    assert play([], acts) == (len(acts) - 2, 1)  # a glance brings the copy


def test_a_copy_is_not_used_when_it_is_stale() -> None:
    assert play([], [fetching(WINDOW), page(), page(), pausing(15.0), page()]) == (1, 2)


def test_a_copy_is_not_used_when_a_soft_purge_covers_it() -> None:
    soft = purging(tag=["front"], soft=True)
    assert play([], [fetching(WINDOW), page(), page(), soft, page()]) == (1, 2)


def test_a_copy_is_not_used_when_it_was_purged() -> None:
    assert play([], [fetching(FRESH), page(), page(), purging(all=True), page()]) == (1, 1)
