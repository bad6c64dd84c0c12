"""One order, one transaction, one line; and what it would purge, counted without doing it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Final

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.cache.journal import Journal
from edge.cache.purge import Manner, Purge, Purges, Verdict
from edge.cache.scope import (
    group_name,
    host_name,
    names_of,
    packed,
    prefix_name,
    tag_name,
    url_name,
)
from edge.orders import MOST_SCOPES_IN_ORDER, Order
from edge.purging import MOST_GROUPS_AT_ONCE, Matcher, Purging, dry_run, matches
from edge.routing.site import HostTable
from edge.wire.message import Headers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edge.config.policies import Site

NOW: Final = 1_000.0


class Paper:
    """A journal that keeps what it is given in memory, and is full when told so."""

    def __init__(self) -> None:
        self.purges = Purges()
        self.written: list[Purge] = []
        self.full = False

    async def purge(
        self,
        *,
        digests: bytes,
        everything: bool,
        manner: Manner,
        who: str,
        when: float,
        words: tuple[str, ...],
        count: int,
    ) -> Purge:
        await trio.lowlevel.checkpoint()
        if self.full:
            raise OSError("no room")
        number = Seq(self.purges.latest + 1)
        purge = Purge(number, when, who, manner, everything, digests, count, words)
        self.purges.record(purge)
        self.written.append(purge)
        return purge


@pytest.fixture
def journal() -> Paper:
    return Paper()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def purging(journal: Paper, lines: list[str]) -> Purging:
    table: HostTable[Site] = HostTable(())
    return Purging(journal, lambda: table, lambda: NOW, lines.append)


def entry(url: bytes, *tags: bytes, groups: Sequence[bytes] = (), at: int = 0) -> Entry:
    return Entry(
        key=Key(b"0" * 16, url),
        status=200,
        headers=Headers(),
        times=Times(NOW, NOW),
        date=NOW,
        age_field=0,
        terms=Terms(600.0, Source.MAX_AGE),
        variant=(),
        length=3,
        fetched_at=Seq(at),
        keep_until=NOW + 600,
        scopes=packed(names_of(url, tags, groups)),
    )


# --- purging ------------------------------------------------------------------


async def test_an_order_is_one_transaction_and_one_line(
    purging: Purging, journal: Paper, lines: list[str]
) -> None:
    names = (
        tag_name(b"front"),
        url_name(b"a.example", b"/x"),
        prefix_name(b"a.example", b"/y"),
        host_name(b"b.example"),
    )
    purge = await purging.carry_out(Order(names, soft=True), "uid 0, pid 123")
    assert journal.written == [purge]
    assert purge == Purge(
        number=Seq(1),
        when=NOW,
        who="uid 0, pid 123",
        manner=Manner.SOFT,
        everything=False,
        digests=packed(names),
        count=4,
        words=("tag front", "url a.example/x", "prefix a.example/y/", "host b.example"),
    )
    assert lines == ["purge 1 (soft): tag front, and 3 more; by uid 0, pid 123"]


async def test_everything_and_one_scope_have_their_words(
    purging: Purging, journal: Paper, lines: list[str]
) -> None:
    await purging.carry_out(Order(everything=True), "uid 0")
    await purging.carry_out(Order((tag_name(b"a\nb", b"h"),)), "10.0.0.1")
    assert lines == [
        "purge 1 (hard): everything; by uid 0",
        "purge 2 (hard): tag a\\nb on h; by 10.0.0.1",
    ]
    assert journal.written[0].everything
    assert journal.written[0].words == ()


async def test_only_the_first_twenty_scopes_are_put_in_words(purging: Purging) -> None:
    purge = await purging.carry_out(
        Order(tuple(tag_name(b"%d" % n) for n in range(3_000))), "uid 0"
    )
    assert (len(purge.words), purge.count, len(purge.digests)) == (20, 3_000, 24_000)


async def test_a_purge_that_cannot_be_written_is_not_in_force(
    purging: Purging, journal: Paper, lines: list[str]
) -> None:
    journal.full = True
    with pytest.raises(OSError, match="no room"):
        await purging.carry_out(Order((tag_name(b"a"),)), "uid 0")
    assert lines == []
    assert journal.purges.latest == 0


async def test_others_have_their_turn_while_a_large_order_is_made_ready(
    purging: Purging,
) -> None:
    names = tuple(tag_name(b"%d" % n) for n in range(MOST_SCOPES_IN_ORDER))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        await purging.carry_out(Order(names), "uid 0")
        nursery.cancel_scope.cancel()
    assert turns > 90


async def test_the_journal_takes_what_it_is_given(tmp_path: Path, lines: list[str]) -> None:
    journal = Journal(tmp_path, log=lines.append)
    await journal.open("birth")
    try:
        await journal.begin("birth")
        table: HostTable[Site] = HostTable(())
        purging = Purging(journal, lambda: table, lambda: NOW, lines.append)
        purge = await purging.carry_out(Order((tag_name(b"t"),)), "uid 0")
        purges = journal.follower().current()
        stored = entry(b"http://a.example/1", b"t")
        assert purges.latest == purge.number
        assert purges.verdict(stored.fetched_at, stored.scopes) is Verdict.DEAD
    finally:
        await journal.close()


# --- groups -------------------------------------------------------------------


async def test_groups_are_invalidated_on_their_own_origin(
    purging: Purging, journal: Paper, lines: list[str]
) -> None:
    who = "the origin, to 10.0.0.1"
    purge = await purging.invalidate_groups(b"https", b"a.example", [b"news", b"x y"], who)
    assert purge is not None
    assert purge.manner is Manner.GROUPS
    own = entry(b"https://a.example/1", groups=[b"x y"])
    other = entry(b"https://b.example/1", groups=[b"x y"])
    plain = entry(b"http://a.example/1", groups=[b"x y"])
    verdicts = [journal.purges.verdict(e.fetched_at, e.scopes) for e in (own, other, plain)]
    assert verdicts == [Verdict.DEAD, Verdict.LIVE, Verdict.LIVE]
    news = group_name(b"https", b"a.example", b"news")
    assert purge.digests.startswith(packed([news]))
    (line,) = lines
    assert line.startswith("purge 1 (groups): group news of https://a.example, and 1 more; by the")


async def test_too_many_groups_stand_for_the_host_and_none_for_nothing(
    purging: Purging, journal: Paper
) -> None:
    assert await purging.invalidate_groups(b"http", b"a.example", [], "o") is None
    groups = [b"%d" % n for n in range(MOST_GROUPS_AT_ONCE + 1)]
    exact = await purging.invalidate_groups(b"http", b"a.example", groups[1:], "o")
    assert exact is not None
    assert (exact.manner, exact.count) == (Manner.GROUPS, MOST_GROUPS_AT_ONCE)
    assert await purging.invalidate_groups(b"http", b"a.example", groups, "o")
    assert journal.written[-1].words == ("host a.example",)
    assert journal.written[-1].manner is Manner.HARD
    stays = entry(b"http://b.example/", groups=groups, at=1)
    goes = entry(b"http://a.example/", at=1)
    assert journal.purges.verdict(stays.fetched_at, stays.scopes) is Verdict.LIVE
    assert journal.purges.verdict(goes.fetched_at, goes.scopes) is Verdict.DEAD


# --- matching -----------------------------------------------------------------

URLS = st.sampled_from([b"http://a.example/x/y?z", b"http://b.example:81/", b"https://[::1]/x"])
NAMES = st.sampled_from(
    [
        url_name(b"a.example", b"/x/y?z"),
        prefix_name(b"a.example", b"/x"),
        prefix_name(b"[::1]", b"/x"),
        host_name(b"b.example"),
        host_name(b"b.example:81"),
        tag_name(b"t"),
        tag_name(b"t", b"a.example"),
    ]
)


@given(URLS, st.booleans(), st.lists(NAMES, max_size=4), st.booleans(), st.booleans())
@settings(max_examples=200)
def test_an_order_matches_exactly_what_it_would_purge(
    url: bytes, tagged: bool, names: list[bytes], everything: bool, soft: bool
) -> None:
    stored = entry(url, *([b"t"] if tagged else []))
    order = Order(tuple(dict.fromkeys(names)), everything, soft)
    purges = Purges()
    manner = Manner.SOFT if soft else Manner.HARD
    purges.record(
        Purge(Seq(1), NOW, "", manner, everything, packed(order.names), len(order.names), ())
    )
    covered = purges.verdict(stored.fetched_at, stored.scopes) is not Verdict.LIVE
    assert matches(order, stored) is covered
    assert Matcher(order).covers(stored) is covered


def test_an_entry_without_scopes_is_matched_by_everything_alone() -> None:
    bare = replace(entry(b"http://a.example/"), scopes=b"")
    assert matches(Order(everything=True), bare)
    assert not matches(Order((tag_name(b"a"),)), bare)


def test_looking_at_an_entry_costs_the_same_whatever_the_order() -> None:
    matcher = Matcher(Order(tuple(tag_name(b"%d" % n) for n in range(MOST_SCOPES_IN_ORDER))))
    stored = entry(b"http://a.example/x/y?z", b"t")
    began = perf_counter()
    for _ in range(1_000):
        assert not matcher.covers(stored)
    assert perf_counter() - began < 1.0


# --- the dry run --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    entry: Entry
    bytes: int


class Shelf:
    """A scan of what is on a shelf."""

    def __init__(self, *batches: list[Stored]) -> None:
        self._batches = iter(batches)

    async def next(self) -> list[Stored] | None:
        await trio.lowlevel.checkpoint()
        return next(self._batches, None)


async def tried(
    order: Order, shelf: Shelf, purges: Purges, of: int = 0
) -> list[dict[str, int | bool]]:
    documents: list[dict[str, int | bool]] = []

    async def emit(document: Mapping[str, int | bool]) -> None:
        await trio.lowlevel.checkpoint()
        documents.append(json.loads(json.dumps(document)))

    await dry_run(order, shelf, purges, emit, of=of)
    return documents


async def test_a_dry_run_tells_how_far_it_is_and_at_last_that_it_is_done() -> None:
    tagged, plain = entry(b"http://a.example/1", b"t"), entry(b"http://a.example/2")
    shelf = Shelf([Stored(tagged, 10), Stored(plain, 5)], [], [Stored(tagged, 7)])
    assert await tried(Order((tag_name(b"t"),)), shelf, Purges(), of=4) == [
        {"looked_at": 2, "of": 4, "matches": 1, "bytes": 10},
        {"looked_at": 2, "of": 4, "matches": 1, "bytes": 10},
        {"looked_at": 3, "of": 4, "matches": 2, "bytes": 17},
        {"looked_at": 3, "of": 4, "matches": 2, "bytes": 17, "done": True},
    ]


async def test_a_dry_run_of_nothing_stored_is_done_at_once() -> None:
    (only,) = await tried(Order(everything=True), Shelf(), Purges())
    assert only == {"looked_at": 0, "of": 0, "matches": 0, "bytes": 0, "done": True}


async def test_a_dry_run_counts_the_soft_purged_and_not_the_dead(
    purging: Purging, journal: Paper
) -> None:
    await purging.carry_out(Order((tag_name(b"dead"),)), "uid 0")
    await purging.carry_out(Order((tag_name(b"stale"),), soft=True), "uid 0")
    shelf = Shelf(
        [
            Stored(entry(b"http://a.example/1", b"dead"), 1),
            Stored(entry(b"http://a.example/2", b"stale"), 2),
            Stored(entry(b"http://a.example/3", b"dead", at=1), 4),
        ]
    )
    last = (await tried(Order(everything=True), shelf, journal.purges, of=2))[-1]
    assert (last["matches"], last["bytes"], last["of"]) == (2, 6, 3)
    assert journal.purges.latest == 2
