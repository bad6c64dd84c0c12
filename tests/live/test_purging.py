"""Purges against a real node: no interleaving, and no kill -9, brings back what was purged.

`EDGE_INTERLEAVINGS=10000` is the full form, `EDGE_KILLS=100` that of the kills, and `EDGE_SEED=7`
makes other choices; what was seen is printed.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
import trio

from tests.live.hostile_harness import Node
from tests.live.purge_load import GONE, Page, calling
from tests.live.purge_storm import Order, Storm, by_operator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.live.purge_load import Caller, Name

pytestmark = pytest.mark.live

INTERLEAVINGS: Final = int(os.environ.get("EDGE_INTERLEAVINGS", "1000"))
KILLS: Final = int(os.environ.get("EDGE_KILLS", "10"))
SEED: Final = int(os.environ.get("EDGE_SEED", "1"))

FOR_LONG: Final = "max-age=86400"
TOGETHER: Final = 5
# Tags between two that are looked at, so that a purge is of many pages of the file; fewer where
# all of them would be more than the node can remember one by one.
FILLERS: Final = min(4_000, 200_000 // TOGETHER // KILLS)


@asynccontextmanager
async def a_node(storm: Storm, directory: Path) -> AsyncIterator[Node]:
    """A node before the storm's origin; all that was seen is printed."""
    async with trio.open_nursery() as nursery:
        await nursery.start(storm.origin.run)
        origin = f"http://127.0.0.1:{storm.origin.port}"
        node = Node(directory, origin, sets=('site.purge_from=["127.0.0.1"]',))
        try:
            yield node.start()
        finally:
            node.stop()
            print(f"seed {storm.seed}: {storm.tally}")
        nursery.cancel_scope.cancel()


def is_unharmed(storm: Storm, node: Node) -> None:
    """What every test here demands at its end."""
    assert storm.tally.wrong == []
    assert storm.tally.failed == []
    assert " internal" not in node.complaints()


@pytest.mark.slow
async def test_no_interleaving_of_a_purge_with_slow_fetches_brings_anything_back(
    tmp_path: Path,
) -> None:
    storm = Storm(SEED)
    async with a_node(storm, tmp_path) as node, storm.blowing(node):
        await storm.wait_purges(INTERLEAVINGS)
    is_unharmed(storm, node)
    amid, answers = storm.tally.amid, storm.tally.answers
    assert amid["something"] > INTERLEAVINGS / 10  # half, where the machine has nothing else to do
    assert amid["a fetch"] > INTERLEAVINGS / 12
    assert amid["a body"] > INTERLEAVINGS / 40
    assert amid["followers"] > INTERLEAVINGS / 50
    assert amid["a validation"] > INTERLEAVINGS / 100
    assert answers["hit"] > INTERLEAVINGS / 4  # it was a cache all the while


# --- kill -9


CALM: Final = [Page(1000 + nth, "calm.example", f"/{nth}", FOR_LONG, ()) for nth in range(12)]


class Round:
    """Pages of one life of the node: some are purged before its end, some at it."""

    def __init__(self, number: int) -> None:
        self.number = number
        first = 2000 + 20 * number
        self.before = [
            Page(first + nth, "before.example", f"/{number}/{nth}", FOR_LONG, ())
            for nth in range(4)
        ]
        self.tags = [f"at-{number}-{nth}" for nth in range(TOGETHER)]
        self.at_end = [
            Page(first + 10 + nth, "end.example", f"/{number}/{nth}", FOR_LONG, (tag,))
            for nth, tag in enumerate(self.tags)
        ]
        self.was_acknowledged = False

    @property
    def pages(self) -> list[Page]:
        return [*self.before, *self.at_end]

    def order_before(self) -> Order:
        """A purge that is acknowledged before the kill."""
        names: list[Name] = [("url", page.host, page.target) for page in self.before]
        if self.number % 2:
            names = [("prefix", self.before[0].host, f"/{self.number}/")]
        return Order("before", frozenset(names), soft=False)

    def order_at_end(self) -> Order:
        """One large transaction that the kill may hit; what it covers stands far apart in it."""
        fillers = [[f"{tag}-{nth}" for nth in range(FILLERS)] for tag in self.tags]
        tags = [tag for many, own in zip(fillers, self.tags, strict=True) for tag in (own, *many)]
        return Order("at end", frozenset(("tag", tag) for tag in tags), soft=False)


async def saved(operator: Caller) -> int | None:
    """How many objects the node's disk has taken; None while it has more to take."""
    answer = await operator.ask("GET", "/v1/status", "edge")
    told = json.loads(answer.body)
    store = told["store"]
    is_idle = not (told["flights"] or store["filling"] or store["disk"]["queued_bytes"])
    return store["disk"]["saved"] if is_idle else None


async def all_saved(operator: Caller) -> int:
    """The same, once it has no more to take."""
    with trio.fail_after(10):
        while (count := await saved(operator)) is None:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)
    return count


async def visit(storm: Storm, node: Node, pages: list[Page]) -> None:
    """Look at each page, by a few clients."""

    async def look(some: list[Page]) -> None:
        async with calling(node.port) as caller:
            for page in some:
                await storm.look(caller, page)

    async with trio.open_nursery() as nursery:
        for nth in range(8):
            nursery.start_soon(look, pages[nth::8])


async def fill(storm: Storm, node: Node, pages: list[Page]) -> None:
    """Have all `pages` on the node's disk."""
    async with calling(node.admin) as operator:
        before = await all_saved(operator)
        await visit(storm, node, pages)
        assert await all_saved(operator) == before + len(pages)


async def are_hits(storm: Storm, caller: Caller, pages: list[Page]) -> list[bool]:
    """Which of the pages are answered from the store."""
    answers = []
    for page in pages:
        answer = await storm.look(caller, page)
        answers.append("hit" in answer.cache)
    return answers


async def purge_at_end(storm: Storm, node: Node, this: Round) -> None:
    order, look = this.order_at_end(), storm.origin.looks
    async with calling(node.admin) as operator:
        try:
            await by_operator(order, operator)
        except GONE:
            return
    this.was_acknowledged = True
    covered = frozenset(("tag", tag) for tag in this.tags)
    storm.acknowledged(Order("at end", covered, soft=False), look)


async def purge_before(storm: Storm, node: Node, this: Round) -> None:
    order, look = this.order_before(), storm.origin.looks
    async with calling(node.admin) as operator:
        await by_operator(order, operator)
    storm.acknowledged(order, look)


async def wait_written(node: Node) -> None:
    """Until something is written to the journal."""
    journal = node.store / "purges"
    before = journal.stat().st_mtime_ns
    while journal.stat().st_mtime_ns == before:
        await trio.lowlevel.checkpoint()


async def die_in_a_storm(storm: Storm, node: Node, this: Round, rng: random.Random) -> None:
    """kill -9 at once behind an acknowledgement, with a large purge under way."""
    async with storm.blowing(node), trio.open_nursery() as nursery:
        await trio.sleep(0.1)
        nursery.start_soon(purge_at_end, storm, node, this)
        await trio.sleep(0.2 * rng.random())
        await purge_before(storm, node, this)
        storm.is_over = True
        node.kill()


async def die_while_writing(storm: Storm, node: Node, this: Round, rng: random.Random) -> None:
    """kill -9 when the journal is seen to be written to, or a little later."""
    await purge_before(storm, node, this)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(purge_at_end, storm, node, this)
        with trio.move_on_after(5):
            await wait_written(node)
        await trio.sleep(rng.choice((0, 0, 0.001, 0.003)))
        node.kill()


async def check_what_is_left(storm: Storm, node: Node, this: Round) -> str:
    """Hold a node that was started again to what it has acknowledged; how the large one ended."""
    async with calling(node.port) as caller:
        hits = await are_hits(storm, caller, this.at_end)
        assert hits in ([False] * TOGETHER, [True] * TOGETHER)
        assert not (this.was_acknowledged and hits[0])
        assert not any(await are_hits(storm, caller, this.before))
        assert all(await are_hits(storm, caller, CALM))
    await visit(storm, node, storm.stormy)
    if this.was_acknowledged:
        return "acknowledged"
    return "not in force" if hits[0] else "in force, not acknowledged"


@pytest.mark.slow
async def test_kill_9_undoes_no_purge_that_was_acknowledged_and_halves_none(
    tmp_path: Path,
) -> None:
    rounds = [Round(number) for number in range(KILLS)]
    further = [*CALM, *(page for each in rounds for page in each.pages)]
    storm, rng = Storm(SEED, further, everything=False), random.Random(SEED)
    ends: Counter[str] = Counter()
    async with a_node(storm, tmp_path) as node:
        await fill(storm, node, CALM)
        for this in rounds:
            await fill(storm, node, this.pages)
            die = rng.choice((die_in_a_storm, die_while_writing))
            await die(storm, node, this, rng)
            node.start()
            ends[await check_what_is_left(storm, node, this)] += 1
        print(f"large transactions: {dict(ends)}")
    is_unharmed(storm, node)
    assert sum(ends.values()) == KILLS
