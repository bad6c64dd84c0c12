"""Purge numbers against the plainest model: a list of all purges there ever were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.entry import Seq
from edge.cache.purge import Purges, Verdict

SCOPES = (b"all", b"host", b"host/a/", b"tag")
PURGES = st.lists(st.tuples(st.sampled_from(SCOPES), st.booleans()), max_size=12)
WORSE = [Verdict.LIVE, Verdict.STALE, Verdict.DEAD]


def recorded(purges: list[tuple[bytes, bool]], most_scopes: int = 100) -> Purges:
    known = Purges(most_scopes)
    for number, (scope, soft) in enumerate(purges, 1):
        known.record(Seq(number), scope, soft=soft)
    return known


def modelled(
    purges: list[tuple[bytes, bool]], fetched_at: int, scopes: tuple[bytes, ...]
) -> Verdict:
    later = [soft for scope, soft in purges[fetched_at:] if scope in scopes]
    if not later:
        return Verdict.LIVE
    return Verdict.STALE if all(later) else Verdict.DEAD


@given(PURGES, st.integers(0, 12), st.sets(st.sampled_from(SCOPES)))
def test_a_purge_covers_what_was_looked_up_before_it(
    purges: list[tuple[bytes, bool]], fetched_at: int, scopes: set[bytes]
) -> None:
    covered = tuple(scopes)
    found = recorded(purges).verdict(Seq(fetched_at), covered)
    assert found is modelled(purges, fetched_at, covered)


@given(PURGES, st.integers(0, 12), st.sets(st.sampled_from(SCOPES)), st.integers(1, 3))
def test_a_bounded_table_may_purge_too_much_and_never_too_little(
    purges: list[tuple[bytes, bool]], fetched_at: int, scopes: set[bytes], most: int
) -> None:
    covered = tuple(scopes)
    found = recorded(purges, most).verdict(Seq(fetched_at), covered)
    expected = modelled(purges, fetched_at, covered)
    assert WORSE.index(found) >= WORSE.index(expected)


@given(PURGES, st.integers(0, 12), st.sets(st.sampled_from(SCOPES)), st.integers(1, 3))
def test_verdicts_only_worsen_as_purges_come_and_improve_with_later_lookups(
    purges: list[tuple[bytes, bool]], fetched_at: int, scopes: set[bytes], most: int
) -> None:
    covered = tuple(scopes)
    verdicts = [
        WORSE.index(recorded(purges[:count], most).verdict(Seq(fetched_at), covered))
        for count in range(len(purges) + 1)
    ]
    assert verdicts == sorted(verdicts)
    known = recorded(purges, most)
    now, later = (known.verdict(Seq(fetched_at + n), covered) for n in (0, 1))
    assert WORSE.index(later) <= WORSE.index(now)


@pytest.mark.parametrize(
    ("scope", "fetched_at", "verdict"),
    [
        (b"tag", 1, Verdict.DEAD),
        (b"tag", 2, Verdict.LIVE),
        (b"host", 2, Verdict.STALE),
        (b"all", 2, Verdict.LIVE),
        (b"all", 0, Verdict.DEAD),  # below the floor: its purge was forgotten
    ],
)
def test_a_purge_kills_or_softens_what_is_older_and_the_floor_kills_the_rest(
    scope: bytes, fetched_at: int, verdict: Verdict
) -> None:
    known = recorded([(b"host/a/", False), (b"tag", False), (b"host", True)], most_scopes=1)
    assert known.floor == 1
    assert known.verdict(Seq(fetched_at), (scope,)) is verdict


def test_nothing_purged_is_one_comparison() -> None:
    assert Purges().verdict(Seq(0), (b"all",)) is Verdict.LIVE


def test_numbers_must_rise() -> None:
    known = recorded([(b"all", False)])
    with pytest.raises(ValueError, match="purge 1 after purge 1"):
        known.record(Seq(1), b"tag")
