"""Purge numbers against the plainest model: a list of all purges there ever were."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge.cache.areas import AREA_SCOPES
from edge.cache.entry import Seq
from edge.cache.purge import MOST_SCOPES, Cover, Manner, Purge, Purges, Verdict
from edge.cache.scope import digest, packed

# Two hosts, each with what a purge that is confined to it may name.
OWN = {
    host: (b"u%b/a" % host, b"T%b\0front" % host, b"ghttp://%b\0cart" % host, b"h%b" % host)
    for host in (b"one", b"two")
}
NAMES = (b"tfront", b"tother", *OWN[b"one"], *OWN[b"two"])
WORSE = [Verdict.LIVE, Verdict.STALE, Verdict.DEAD]
Bounds = tuple[int, int, int]  # scopes, scopes of one area, areas

names = st.lists(st.sampled_from(NAMES), max_size=3)
hosts = st.sampled_from([None, *OWN])
manners = st.sampled_from(Manner)
clocks = st.integers(0, 99).map(float)
bounds = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 2))


def complete(found: set[bytes]) -> tuple[bytes, ...]:
    """The names of an entry: with what is a host's own it has the host."""
    around = {own[-1] for own in OWN.values() if found.intersection(own)}
    return tuple(sorted(found | around))


scopes = st.sets(st.sampled_from(NAMES)).map(complete)


@st.composite
def histories(draw: st.DrawFn) -> list[Purge]:
    """Purges as they may follow each other, with gaps in the numbers and a clock that jumps."""
    found: list[Purge] = []
    for _ in range(draw(st.integers(0, 12))):
        number = (found[-1].number if found else 0) + draw(st.integers(1, 2))
        host, manner, when = draw(hosts), draw(manners), draw(clocks)
        everything = host is None and draw(st.integers(0, 5)) == 0
        those = names if host is None else st.lists(st.sampled_from(OWN[host]), max_size=3)
        covered = [] if everything else draw(those)
        found.append(
            purge_of(number, *covered, manner=manner, when=when, all=everything, host=host)
        )
    return found


def purge_of(
    number: int,
    *covered: bytes,
    manner: Manner = Manner.HARD,
    when: float = 0.0,
    all: bool = False,  # noqa: A002 - as the command says it
    host: bytes | None = None,
) -> Purge:
    area = b"" if host is None else digest(b"h" + host)
    return Purge(Seq(number), when, "me", manner, all, packed(covered), len(covered), (), area)


def recorded(
    history: list[Purge], most_scopes: int = 100, area_scopes: int = 100, most_areas: int = 100
) -> Purges:
    known = Purges(most_scopes, area_scopes, most_areas)
    for purge in history:
        known.record(purge)
    return known


def covers(purge: Purge, covered: tuple[bytes, ...]) -> bool:
    pieces = {purge.digests[at : at + 8] for at in range(0, len(purge.digests), 8)}
    return purge.everything or not pieces.isdisjoint(map(digest, covered))


def overtaking(history: list[Purge], fetched_at: int, covered: tuple[bytes, ...]) -> list[Purge]:
    return [each for each in history if each.number > fetched_at and covers(each, covered)]


def latest(history: list[Purge]) -> int:
    return history[-1].number if history else 0


def modelled(history: list[Purge], fetched_at: int, covered: tuple[bytes, ...]) -> Verdict:
    if fetched_at > latest(history):
        return Verdict.DEAD  # from another life
    later = overtaking(history, fetched_at, covered)
    if not later:
        return Verdict.LIVE
    soft = all(each.manner is Manner.SOFT for each in later)
    return Verdict.STALE if soft else Verdict.DEAD


numbers = st.integers(0, 24).map(Seq)


@given(histories(), numbers, scopes)
def test_a_purge_covers_what_was_looked_up_before_it(
    history: list[Purge], fetched_at: Seq, covered: tuple[bytes, ...]
) -> None:
    found = recorded(history).verdict(fetched_at, packed(covered))
    assert found is modelled(history, fetched_at, covered)


@given(histories(), numbers, scopes, bounds)
def test_a_bounded_table_may_purge_too_much_and_never_too_little(
    history: list[Purge], fetched_at: Seq, covered: tuple[bytes, ...], most: Bounds
) -> None:
    known = recorded(history, *most)
    found = known.verdict(fetched_at, packed(covered))
    assert WORSE.index(found) >= WORSE.index(modelled(history, fetched_at, covered))
    assert len(known) <= 3 * most[0]


@given(histories(), numbers, scopes, bounds)
def test_verdicts_only_worsen_as_purges_come_and_improve_with_later_lookups(
    history: list[Purge], fetched_at: Seq, covered: tuple[bytes, ...], most: Bounds
) -> None:
    held = packed(covered)
    verdicts = [
        WORSE.index(recorded(history[:count], *most).verdict(fetched_at, held))
        for count in range(len(history) + 1)
        if fetched_at <= latest(history[:count])
    ]
    assert verdicts == sorted(verdicts)
    known = recorded(history, *most)
    assume(fetched_at < known.latest)
    now, later = (known.verdict(Seq(fetched_at + n), held) for n in (0, 1))
    assert WORSE.index(later) <= WORSE.index(now)


@given(histories(), scopes, bounds)
def test_what_was_looked_up_after_the_latest_purge_is_live(
    history: list[Purge], covered: tuple[bytes, ...], most: Bounds
) -> None:
    known = recorded(history, *most)
    assert known.verdict(known.latest, packed(covered)) is Verdict.LIVE


@given(histories(), numbers, scopes, bounds | st.just((100, 100, 100)))
def test_an_answer_is_stale_no_later_than_its_first_soft_purge_made_it(
    history: list[Purge], fetched_at: Seq, covered: tuple[bytes, ...], most: Bounds
) -> None:
    known = recorded(history, *most)
    later = overtaking(history, fetched_at, covered)
    if known.verdict(fetched_at, packed(covered)) is Verdict.STALE:
        first = min((each.when for each in later if each.manner is Manner.SOFT), default=inf)
        assert known.stale_since(fetched_at, packed(covered)) <= first


@given(histories(), numbers, scopes)
def test_the_time_of_a_single_soft_purge_is_exact(
    history: list[Purge], fetched_at: Seq, covered: tuple[bytes, ...]
) -> None:
    history = [replace(one, when=float(one.number)) for one in history]
    later = overtaking(history, fetched_at, covered)
    if len(later) == 1 and later[0].manner is Manner.SOFT:
        found = recorded(history).stale_since(fetched_at, packed(covered))
        assert found == later[0].when


def test_of_two_soft_purges_of_one_scope_the_first_counts() -> None:
    known = recorded(
        [
            purge_of(1, b"tother", manner=Manner.SOFT, when=5.0),
            purge_of(2, b"tfront", manner=Manner.SOFT, when=10.0),
            purge_of(3, b"tfront", manner=Manner.SOFT, when=20.0),
        ]
    )
    assert known.stale_since(Seq(1), packed([b"tfront"])) == 10.0
    assert known.stale_since(Seq(2), packed([b"tfront"])) == 20.0
    assert known.stale_since(Seq(0), packed([b"tfront"])) == 5.0  # too early, and never too late
    assert known.stale_since(Seq(3), packed([b"tfront"])) == inf


def test_a_soft_purge_whose_time_is_forgotten_was_long_ago() -> None:
    front, other = b"tfront", b"tother"
    often = [purge_of(2 + n, other, manner=Manner.SOFT, when=9.0) for n in range(5)]
    known = recorded([purge_of(1, front, manner=Manner.SOFT, when=8.0), *often], most_scopes=4)
    assert known.verdict(Seq(0), packed([front])) is Verdict.STALE
    assert known.stale_since(Seq(0), packed([front])) == 0.0


def test_a_clock_set_back_leaves_no_purge_in_the_future() -> None:
    whens = (30.0, 40.0, 20.0)
    history = [
        purge_of(n, b"t%d" % n, manner=Manner.SOFT, when=when) for n, when in enumerate(whens, 1)
    ]
    known = recorded(history)
    assert known.stale_since(Seq(0), packed([b"t1"])) == 20.0


@pytest.mark.parametrize("manner", Manner)
@pytest.mark.parametrize("later", Manner)
def test_a_scope_purged_in_two_manners_has_the_harder_one_of_those_that_came_later(
    manner: Manner, later: Manner
) -> None:
    history = [purge_of(1, b"tfront", manner=manner), purge_of(2, b"tfront", manner=later)]
    for fetched_at in (0, 1, 2):
        found = recorded(history).verdict(Seq(fetched_at), packed([b"tfront"]))
        assert found is modelled(history, fetched_at, (b"tfront",))


def test_a_full_table_of_hard_purges_kills_what_is_older_than_what_it_forgot() -> None:
    known = recorded([purge_of(1, b"ta"), purge_of(2, b"tb")], most_scopes=1)
    assert known.floor == 1
    assert known.verdict(Seq(0), b"") is Verdict.DEAD
    assert known.verdict(Seq(1), b"") is Verdict.LIVE


def test_a_full_table_of_soft_purges_kills_nothing() -> None:
    history = [purge_of(n, b"t%d" % n, manner=Manner.SOFT, when=7.0) for n in (1, 2)]
    known = recorded(history, most_scopes=1)
    assert known.floor == 0
    assert known.verdict(Seq(0), b"") is Verdict.STALE
    assert known.stale_since(Seq(0), b"") == 0.0  # the time went with it
    assert known.verdict(Seq(1), b"") is Verdict.LIVE


def test_a_scope_purged_again_is_the_last_to_be_forgotten() -> None:
    again = [purge_of(1, b"ta"), purge_of(2, b"tb"), purge_of(3, b"ta"), purge_of(4, b"tc")]
    known = recorded(again, most_scopes=2)
    assert known.floor == 2


def test_a_full_table_forgets_a_little_more_than_it_must() -> None:
    known = recorded([purge_of(n, b"t%d" % n) for n in range(1, 66)], most_scopes=64)
    assert (known.floor, len(known)) == (3, 62)


def test_a_transaction_larger_than_the_table_covers_all_it_names() -> None:
    covered = [b"t%d" % n for n in range(100_000)]
    known = recorded([purge_of(1, *covered), purge_of(2, *covered)], most_scopes=1000)
    assert all(known.verdict(Seq(1), digest(name)) is Verdict.DEAD for name in covered)
    assert known.verdict(Seq(2), digest(covered[0])) is Verdict.LIVE


def test_everything_purged_leaves_nothing_to_remember() -> None:
    known = recorded([purge_of(1, b"ta"), purge_of(2, b"tb", manner=Manner.SOFT)])
    known.record(purge_of(3, all=True))
    assert len(known) == 0
    assert known.verdict(Seq(2), b"") is Verdict.DEAD


def test_everything_soft_is_stale_and_not_dead() -> None:
    history = [purge_of(1, all=True, manner=Manner.SOFT, when=4.0)]
    known = recorded(history)
    assert known.verdict(Seq(0), b"") is Verdict.STALE
    assert known.stale_since(Seq(0), b"") == 4.0


def test_a_raised_floor_kills_what_is_older_and_counts_as_known() -> None:
    known = recorded([purge_of(1, b"ta"), purge_of(5, b"tb")])
    known.raise_floor(Seq(3))
    assert (known.floor, known.latest, len(known)) == (3, 5, 2)
    known.raise_floor(Seq(9))
    assert (known.floor, known.latest, len(known)) == (9, 9, 0)
    with pytest.raises(ValueError, match="purge 9 after purge 9"):
        known.record(purge_of(9))


def test_numbers_must_rise() -> None:
    known = recorded([purge_of(1, b"ta")])
    with pytest.raises(ValueError, match="purge 1 after purge 1"):
        known.record(purge_of(1, b"tb"))


def test_half_a_digest_and_everything_confined_are_no_purges() -> None:
    with pytest.raises(ValueError, match="7 bytes are no whole number of digests"):
        Purge(Seq(1), 0.0, "", Manner.HARD, False, b"1234567", 1, ())
    with pytest.raises(ValueError, match="7 bytes are no digest of an area"):
        Purge(Seq(1), 0.0, "", Manner.HARD, False, b"", 1, (), b"1234567")
    with pytest.raises(ValueError, match="confined to no area"):
        purge_of(1, all=True, host=b"one")


@given(histories(), numbers, scopes, bounds)
def test_what_covers_an_entry_is_told_exactly_when_it_is_not_live(
    history: list[Purge], fetched_at: Seq, covered: tuple[bytes, ...], most: Bounds
) -> None:
    known = recorded(history, *most)
    assume(fetched_at <= known.latest)
    found = known.covering(fetched_at, covered)
    verdict = known.verdict(fetched_at, packed(covered))
    hard = any(cover.manner is not Manner.SOFT for cover in found)
    assert verdict is (Verdict.DEAD if hard else Verdict.STALE if found else Verdict.LIVE)
    assert [cover.number for cover in found] == sorted(cover.number for cover in found)


def test_covers_are_told_with_their_names_oldest_first() -> None:
    _, tag, group, host = OWN[b"one"]
    history = [
        purge_of(1, b"tfront"),
        purge_of(2, all=True),
        purge_of(3, b"tfront", manner=Manner.SOFT),
        purge_of(4, group, host=b"one"),
        purge_of(5, tag, host=b"one", manner=Manner.SOFT),
        purge_of(6, b"tother"),
        purge_of(7, OWN[b"two"][0], host=b"two"),
    ]
    assert recorded(history).covering(Seq(0), [b"tfront", group, host, tag]) == [
        Cover(Seq(2), Manner.HARD, None),
        Cover(Seq(3), Manner.SOFT, b"tfront"),
        Cover(Seq(4), Manner.HARD, group),
        Cover(Seq(5), Manner.SOFT, tag),
    ]


def test_a_host_of_which_too_much_was_purged_is_told_as_that() -> None:
    url, tag, _, host = OWN[b"one"]
    history = [purge_of(1, url, host=b"one"), purge_of(2, tag, host=b"one")]
    assert recorded(history, area_scopes=1).covering(Seq(0), [host]) == [
        Cover(Seq(1), Manner.HARD, host, is_floor=True)
    ]


@settings(max_examples=200)
@given(histories(), st.integers(0, 12), numbers, scopes, bounds)
def test_tables_adopted_halfway_judge_like_those_that_saw_it_all(
    history: list[Purge], cut: int, fetched_at: Seq, covered: tuple[bytes, ...], most: Bounds
) -> None:
    through, late = recorded(history, *most), Purges(*most)
    late.adopt(recorded(history[:cut], *most).snapshot())
    for purge in history[cut:]:
        late.record(purge)
    assert late.snapshot() == through.snapshot()
    held = packed(covered)
    assert late.verdict(fetched_at, held) is through.verdict(fetched_at, held)


@given(histories(), st.integers(0, 12), numbers, scopes, bounds, bounds)
def test_adopting_makes_no_verdict_better(
    history: list[Purge],
    cut: int,
    fetched_at: Seq,
    covered: tuple[bytes, ...],
    most: Bounds,
    other: Bounds,
) -> None:
    known = recorded(history[:cut], *most)
    known.raise_floor(Seq(known.latest // 2))
    assume(fetched_at <= known.latest)
    before = known.verdict(fetched_at, packed(covered))
    known.adopt(recorded(history, *other).snapshot())
    after = known.verdict(fetched_at, packed(covered))
    assert WORSE.index(after) >= WORSE.index(before)
    assert WORSE.index(after) >= WORSE.index(modelled(history, fetched_at, covered))


@pytest.mark.parametrize(
    ("host", "manner", "verdict"),
    [
        (None, Manner.SOFT, Verdict.STALE),
        (b"one", Manner.SOFT, Verdict.DEAD),
        (b"one", Manner.HARD, Verdict.DEAD),
    ],
)
def test_adopting_keeps_what_an_overflow_has_covered(
    host: bytes | None, manner: Manner, verdict: Verdict
) -> None:
    history = [purge_of(n, b"T%d" % n, manner=manner, host=host) for n in (1, 2)]
    known = recorded(history, most_scopes=1)
    known.adopt(recorded(history).snapshot())
    assert known.verdict(Seq(0), packed([b"Tother", b"hone"])) is verdict


def test_what_is_remembered_of_soft_purges_is_bounded() -> None:
    known = Purges(8)
    for number in range(1, 400):
        known.record(purge_of(number, b"t%d" % (number // 2), manner=Manner.SOFT))
    tables = known.snapshot()
    assert all(len(keys) <= 8 * 8 for keys, _ in (tables.soft, tables.soft_before))
    assert len(tables.soft_times[0]) <= 8 * 8


@given(histories(), numbers, scopes)
def test_adopting_tables_that_know_less_is_made_up_for_by_the_floor(
    history: list[Purge], fetched_at: Seq, covered: tuple[bytes, ...]
) -> None:
    known = recorded(history)
    known.adopt(Purges().snapshot())
    found = known.verdict(fetched_at, packed(covered))
    assert WORSE.index(found) >= WORSE.index(modelled(history, fetched_at, covered))


# Confined purges.


@given(histories(), numbers, scopes, st.integers(1, 3))
def test_an_areas_overflow_changes_no_verdict_outside_that_area(
    history: list[Purge], fetched_at: Seq, covered: tuple[bytes, ...], share: int
) -> None:
    one = digest(b"hone")
    outside = packed(name for name in covered if name not in OWN[b"one"])
    without = recorded([each for each in history if each.area != one], area_scopes=share)
    withal = recorded(history, area_scopes=share)
    assume(fetched_at <= min(without.latest, withal.latest))
    expected = without.verdict(fetched_at, outside)
    assert withal.verdict(fetched_at, outside) is expected


def test_what_is_confined_covers_nothing_of_the_name_elsewhere() -> None:
    known = recorded([purge_of(1, b"tfront", host=b"one")])
    assert known.verdict(Seq(0), packed([b"tfront", b"htwo"])) is Verdict.LIVE
    assert known.verdict(Seq(0), packed([b"tfront", b"hone"])) is Verdict.DEAD


def test_an_area_with_more_than_its_share_loses_what_is_older_than_it_forgot() -> None:
    history = [purge_of(n, b"Tone\0%d" % n, host=b"one") for n in (1, 2, 3)]
    known = recorded(history, area_scopes=2)
    assert known.verdict(Seq(0), packed([b"hone"])) is Verdict.DEAD
    assert known.verdict(Seq(1), packed([b"hone"])) is Verdict.LIVE
    assert known.verdict(Seq(1), packed([b"hone", b"Tone\0002"])) is Verdict.DEAD
    assert (known.floor, len(known)) == (0, 2)


def test_soft_purges_have_their_times_in_an_area_too() -> None:
    history = [
        purge_of(1, b"Ttwo\0a", host=b"two", manner=Manner.SOFT, when=4.0),
        purge_of(2, b"Tone\0a", host=b"one", manner=Manner.SOFT, when=5.0),
        purge_of(3, b"Tone\0a", host=b"one", manner=Manner.SOFT, when=9.0),
    ]
    known = recorded(history)
    held = packed([b"hone", b"Tone\0a"])
    assert known.verdict(Seq(1), held) is Verdict.STALE
    assert known.stale_since(Seq(1), held) == 5.0
    assert known.stale_since(Seq(2), held) == 9.0


def test_everything_and_a_raised_floor_leave_no_areas() -> None:
    known = recorded([purge_of(1, b"Tone\0a", host=b"one"), purge_of(2, all=True)])
    assert len(known) == 0
    known.record(purge_of(3, b"Tone\0a", host=b"one"))
    known.raise_floor(Seq(4))
    assert (len(known), known.snapshot().areas) == (0, ())


def test_only_floors_of_too_many_areas_reach_beyond_them() -> None:
    hosts = (b"one", b"one", b"two", b"two")
    history = [purge_of(n, b"T%d" % n, host=host) for n, host in enumerate(hosts, 1)]
    known = recorded(history, most_scopes=2, area_scopes=1)
    crowded = recorded(history, most_scopes=1, area_scopes=1)
    assert (known.floor, crowded.floor) == (0, 2)
    assert crowded.verdict(Seq(1), packed([b"hone"])) is Verdict.DEAD
    late = Purges(1, 1)
    late.adopt(known.snapshot())
    assert late.floor == 3


def test_one_host_that_is_purged_without_end_empties_no_other() -> None:
    known = Purges()
    other = packed([b"hshop.example", b"ushop.example/", b"Tshop.example\0front"])
    for number in range(1, 101):
        tags = (b"Thostile.example\0%d-%d" % (number, each) for each in range(4000))
        known.record(purge_of(number, *tags, host=b"hostile.example"))
    assert known.verdict(Seq(0), other) is Verdict.LIVE
    assert known.floor == 0
    assert len(known) <= AREA_SCOPES < MOST_SCOPES
    assert known.verdict(Seq(0), packed([b"hhostile.example"])) is Verdict.DEAD
    assert known.verdict(known.latest, packed([b"hhostile.example"])) is Verdict.LIVE


def test_what_has_a_number_from_another_life_is_dead() -> None:
    known = recorded([purge_of(3, b"tx")])
    assert known.verdict(Seq(4), b"") is Verdict.DEAD
    assert Purges().verdict(Seq(1), b"") is Verdict.DEAD
