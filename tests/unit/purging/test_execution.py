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
    digest,
    group_name,
    host_name,
    names_of,
    packed,
    prefix_name,
    tag_name,
    url_name,
)
from edge.purging.execution import (
    MOST_GROUPS_AT_ONCE,
    MOST_TAGS_AT_ONCE,
    Matcher,
    Purging,
    dry_run,
    matches,
)
from edge.purging.orders import MOST_SCOPES_IN_ORDER, Order
from edge.routing.site import host_of
from edge.wire.message import Headers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


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
        area: bytes,
    ) -> Purge:
        await trio.lowlevel.checkpoint()
        if self.full:
            raise OSError("no room")
        number = Seq(self.purges.latest + 1)
        purge = Purge(number, when, who, manner, everything, digests, count, words, area)
        self.purges.record(purge)
        self.written.append(purge)
        return purge


@pytest.fixture
def journal() -> Paper:
    return Paper()


@pytest.fixture
def lines() -> list[str]:
    return []


async def settled() -> None:
    """All is on disk."""
    await trio.lowlevel.checkpoint()


def unheard(_line: str) -> None:
    """A log that no one reads."""


@pytest.fixture
def purging(journal: Paper, lines: list[str]) -> Purging:
    return Purging(journal, settled, lambda: NOW, lines.append, lines.append)


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
        area=b"",
    )
    assert lines == ['purge 1 (soft): "tag front", and 3 more; by uid 0, pid 123']


async def test_everything_and_one_scope_have_their_words(
    purging: Purging, journal: Paper, lines: list[str]
) -> None:
    await purging.carry_out(Order(everything=True), "uid 0")
    await purging.carry_out(Order((tag_name(b"a\nb", b"h"),)), "10.0.0.1")
    assert lines == [
        "purge 1 (hard): everything; by uid 0",
        'purge 2 (hard): "tag a\\nb on h"; by 10.0.0.1',
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
        purging = Purging(journal, settled, lambda: NOW, lines.append, lines.append)
        purge = await purging.carry_out(Order((tag_name(b"t"),)), "uid 0")
        purges = journal.follower().current()
        stored = entry(b"http://a.example/1", b"t")
        assert purges.latest == purge.number
        assert purges.verdict(stored.fetched_at, stored.scopes) is Verdict.DEAD
    finally:
        await journal.close()


# --- confined ---------------------------------------------------------------------------


async def test_what_is_confined_is_in_force_on_its_host_and_no_other(
    purging: Purging, journal: Paper
) -> None:
    order = Order((tag_name(b"t", b"a.example"),))
    purge = await purging.carry_out(order, "10.0.0.1", host=b"a.example")
    assert purge.area == digest(host_name(b"a.example"))
    for url, verdict in (
        (b"http://a.example:81/", Verdict.DEAD),
        (b"http://b.example/", Verdict.LIVE),
    ):
        stored = entry(url, b"t")
        assert journal.purges.verdict(stored.fetched_at, stored.scopes) is verdict


@pytest.mark.parametrize("soft", [False, True])
async def test_too_many_tags_of_one_host_stand_for_the_host(
    purging: Purging, journal: Paper, lines: list[str], soft: bool
) -> None:
    names = tuple(tag_name(b"%d" % n, b"a.example") for n in range(MOST_TAGS_AT_ONCE + 1))
    exact = await purging.carry_out(Order(names[1:], soft=soft), "10.0.0.1", host=b"a.example")
    assert exact.count == MOST_TAGS_AT_ONCE
    purge = await purging.carry_out(Order(names, soft=soft), "10.0.0.1", host=b"a.example")
    assert purge.digests == packed([host_name(b"a.example")])
    assert (purge.manner, purge.count) == (Manner.SOFT if soft else Manner.HARD, 1)
    how = "soft" if soft else "hard"
    told = f'purge 2 ({how}): "host a.example in place of 129 tags"; by 10.0.0.1'
    assert lines[-1] == told
    stays, goes = entry(b"http://b.example/", at=1), entry(b"http://a.example:81/", at=1)
    assert journal.purges.verdict(stays.fetched_at, stays.scopes) is Verdict.LIVE
    assert journal.purges.verdict(goes.fetched_at, goes.scopes) is not Verdict.LIVE


async def test_one_hosts_purges_without_end_empty_no_other(
    purging: Purging, journal: Paper
) -> None:
    for at_once in (4_000, MOST_TAGS_AT_ONCE):
        for turn in range(100):
            tags = (b"%d-%d" % (turn, each) for each in range(at_once))
            names = tuple(tag_name(tag, b"a.example") for tag in tags)
            await purging.carry_out(Order(names), "10.0.0.1", host=b"a.example")
    stays = entry(b"http://b.example/", b"front")
    assert journal.purges.verdict(stays.fetched_at, stays.scopes) is Verdict.LIVE
    assert journal.purges.floor == 0


async def test_everything_is_not_carried_out_for_one_host(purging: Purging) -> None:
    with pytest.raises(ValueError, match="confined to no area"):
        await purging.carry_out(Order(everything=True), "10.0.0.1", host=b"a.example")


AUTHORITIES = st.sampled_from(
    [b"a.example", b"A.Example.:81", b"a.example.", b"[::1]", b"[0:0::0001]:81", b"[::1].", b"*"]
)


@given(AUTHORITIES, st.sampled_from([b"http", b"https"]))
async def test_all_that_a_confined_purge_can_cover_is_in_its_area(
    authority: bytes, scheme: bytes
) -> None:
    journal = Paper()
    purging = Purging(journal, settled, lambda: NOW, unheard, unheard)
    host = host_of(authority)
    names = (
        url_name(authority, b"/x"),
        prefix_name(authority, b"/"),
        tag_name(b"t", host),
        host_name(authority),
    )
    stored = entry(scheme + b"://" + authority + b"/x", b"t", groups=[b"g"])
    for name in names:
        purge = await purging.carry_out(Order((name,)), "x", host=host)
        before = replace(stored, fetched_at=Seq(purge.number - 1))
        assert journal.purges.verdict(before.fetched_at, before.scopes) is Verdict.DEAD
    purge = await purging.invalidate_groups(scheme, authority, [b"g"], "x") or purge
    assert journal.purges.verdict(Seq(purge.number - 1), stored.scopes) is Verdict.DEAD


async def test_a_url_that_was_written_to_is_invalidated_on_its_host(
    purging: Purging, journal: Paper
) -> None:
    purge = await purging.invalidate_url(b"a.example:81", b"/x?y", "a write, by 10.0.0.1")
    assert (purge.manner, purge.area) == (Manner.HARD, digest(host_name(b"a.example")))
    own, other = entry(b"http://a.example:81/x?y"), entry(b"http://a.example:81/x")
    verdicts = [journal.purges.verdict(e.fetched_at, e.scopes) for e in (own, other)]
    assert verdicts == [Verdict.DEAD, Verdict.LIVE]


# --- groups -------------------------------------------------------------------


async def test_groups_are_invalidated_on_their_own_origin(
    purging: Purging, journal: Paper, lines: list[str]
) -> None:
    who = "the origin, to 10.0.0.1"
    purge = await purging.invalidate_groups(b"https", b"a.example", [b"news", b"x y"], who)
    assert purge is not None
    assert (purge.manner, purge.area) == (Manner.HARD, digest(host_name(b"a.example")))
    own = entry(b"https://a.example/1", groups=[b"x y"])
    other = entry(b"https://b.example/1", groups=[b"x y"])
    plain = entry(b"http://a.example/1", groups=[b"x y"])
    verdicts = [journal.purges.verdict(e.fetched_at, e.scopes) for e in (own, other, plain)]
    assert verdicts == [Verdict.DEAD, Verdict.LIVE, Verdict.LIVE]
    news = group_name(b"https", b"a.example", b"news")
    assert purge.digests.startswith(packed([news]))
    (line,) = lines
    assert line.startswith('purge 1 (hard): "group news of https://a.example", and 1 more; by the')


async def test_too_many_groups_stand_for_the_host_and_none_for_nothing(
    purging: Purging, journal: Paper
) -> None:
    assert await purging.invalidate_groups(b"http", b"a.example", [], "o") is None
    groups = [b"%d" % n for n in range(MOST_GROUPS_AT_ONCE + 1)]
    exact = await purging.invalidate_groups(b"http", b"a.example", groups[1:], "o")
    assert exact is not None
    assert exact.count == MOST_GROUPS_AT_ONCE
    assert await purging.invalidate_groups(b"http", b"a.example", groups, "o")
    assert journal.written[-1].words == ("host a.example in place of 129 groups",)
    assert journal.written[-1].area == digest(host_name(b"a.example"))
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


@pytest.mark.parametrize(
    ("name", "waits"),
    [
        (tag_name(b"t"), True),
        (tag_name(b"t", b"a.example"), True),
        (group_name(b"http", b"a.example", b"g"), True),
        (url_name(b"a.example", b"/"), False),
        (host_name(b"a.example"), False),
    ],
)
async def test_what_only_heads_tell_is_purged_when_the_heads_are_on_disk(
    journal: Paper, name: bytes, *, waits: bool
) -> None:
    settled_after: list[int] = []

    async def settle() -> None:
        await trio.lowlevel.checkpoint()
        settled_after.append(journal.purges.latest)

    purging = Purging(journal, settle, lambda: NOW, unheard, unheard)
    await purging.carry_out(Order((name,)), "uid 0")
    assert settled_after == ([1] if waits else [])


async def test_an_operators_purges_and_a_hosts_own_are_told_apart(journal: Paper) -> None:
    operator: list[str] = []
    others: list[str] = []
    purging = Purging(journal, settled, lambda: NOW, operator.append, others.append)
    await purging.carry_out(Order((tag_name(b'a"; by uid 0'),)), "uid 7")
    await purging.carry_out(Order((url_name(b"a.example", b"/"),)), "10.0.0.1", host=b"a.example")
    assert operator == ['purge 1 (hard): "tag a\'; by uid 0"; by uid 7']
    assert others == ['purge 2 (hard): "url a.example/"; by 10.0.0.1']
