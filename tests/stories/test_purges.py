"""No fetch under way can undo a purge: plays drawn at random, and nodes that break a rule.

`EDGE_PLAYS=10000` before the command has so many plays of each kind drawn, others each time.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, example, find, given, settings

from tests.stories import purge_mutants as mutants
from tests.stories.purge_model import PAGES, Scope
from tests.stories.purge_moves import (
    READ,
    WRITE,
    Answer,
    Ask,
    Change,
    End,
    Hurry,
    Move,
    Open,
    Pass,
    Purge,
    Restart,
    Retag,
    See,
    Shut,
    Tell,
)
from tests.stories.purge_plans import RARE, RARE_ON_DISK, plans
from tests.stories.purge_play import play

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = int(os.environ.get("EDGE_PLAYS", "0"))

A, _, C = PAGES
TAG_X, TAG_Y, URL_A, URL_C = (
    Scope("tag", "x"),
    Scope("tag", "y"),
    Scope("url", A.url),
    Scope("url", C.url),
)
LONG: list[Move] = [Pass(65), Pass(65)]


def plays(standard: int) -> settings:
    """So many plays, the same each time; or as many as were asked for, and always others."""
    return settings(
        max_examples=EXAMPLES or standard,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.slow
@plays(400)
@given(plans(RARE))
# A 304 that brings other tags does not take the page out of a soft purge's reach,
@example([Ask(A), Answer(), *LONG, Ask(A), Retag(A, "y"), See(), Purge(TAG_X, True), Tell()])
# nor does an answer to HEAD out of a hard one's.
@example(
    [Ask(A), Answer(), *LONG, Ask(A, method="HEAD"), Retag(A, "y"), See(), Purge(TAG_X), Tell()]
)
# A 304 that comes late does not undo what one that was asked for later has said.
@example(
    [
        *(Ask(C), Answer(), Ask(C), See(), Purge(URL_C, True), Ask(C), Retag(C, "y"), Answer()),
        *(Purge(TAG_Y), Retag(C), Tell()),
    ]
)
# What was asked for before a soft purge does not take the place of what was asked for after it,
@example([Ask(A), See(), Purge(URL_A, True), Ask(A), Change(A, "x"), Answer(), Ask(A), Tell()])
# even if its head came earlier.
@example(
    [
        *(Ask(A), See(), Tell(0, "head"), Purge(URL_A, True), *LONG, Ask(A), Change(A, "x")),
        *(Answer(), Ask(A), End()),
    ]
)
# A 304 does not vouch for a body that has not come.
@example([Ask(C), See(), Tell(0, "head"), Ask(C), End(0, True), Ask(C), Answer()])
def test_no_fetch_under_way_undoes_a_purge(plan: list[Move]) -> None:
    assert play(plan) == []


@pytest.mark.slow
@plays(150)
@given(plans(RARE_ON_DISK))
# What was purged is not found after the node was killed,
@example([Ask(A), Answer(), Purge(TAG_X), Restart(killed=True), Ask(A)])
# also where its removal had no time,
@example([Ask(A), Answer(), Shut(WRITE), Purge(TAG_X), Ask(A), See(), Restart(killed=True)])
# nor what a lookup had begun to look for before.
@example([Ask(A), Answer(), Restart(), Shut(READ), Ask(A), Purge(URL_A), Ask(A), Open()])
def test_no_restart_and_no_slow_disk_undoes_a_purge(plan: list[Move]) -> None:
    with TemporaryDirectory() as directory:
        assert play(plan, Path(directory)) == []


@pytest.mark.slow
@plays(200)
@given(plans(RARE))
@example([Ask(A), Answer(), Ask(A), Ask(A), Purge(TAG_X), Ask(A), Answer()])
@example([Ask(A), Answer(), Ask(A), Ask(A), Purge(TAG_X, True), Ask(A), Change(A, "x"), Answer()])
def test_no_copy_in_another_worker_undoes_a_purge(plan: list[Move]) -> None:
    assert play(plan, by_hop=True) == []


# --- what breaks a rule is seen

KEPT: dict[Callable[[pytest.MonkeyPatch], None], list[Move]] = {
    mutants.numbered_when_its_head_comes: [Ask(A), See(), Purge(TAG_X), Tell()],
    mutants.numbered_when_it_is_whole: [
        *(Ask(A), See(), Tell(0, "head"), Purge(TAG_X, True), End()),
    ],
    mutants.numbered_when_the_origin_is_asked: [
        *(Ask(C), Answer(), Hurry(), Ask(C), Purge(URL_C)),
    ],
    mutants.numbered_when_it_is_validated: [
        *(Ask(C), Answer(), Ask(C), See(), Purge(URL_C), Tell()),
    ],
    mutants.escaped_by_other_tags: [
        *(Ask(C), Answer(), Ask(C), Retag(C, "y"), See(), Purge(TAG_X), Tell()),
    ],
    mutants.not_judged_when_the_head_comes: [Ask(A), See(), Purge(TAG_X, True), Ask(A), Tell()],
    mutants.never_judged: [Ask(A), See(), Purge(URL_A, True), Ask(A), Tell()],
    mutants.validated_though_dead: [Ask(A), Answer(), Purge(TAG_X)],
    mutants.passed_for_ever: [
        *(Ask(C), Answer(), Ask(C), Retag(C, "y"), See(), Purge(TAG_Y), Ask(C), Tell()),
    ],
    mutants.soft_is_fresh: [Ask(A), Answer(), Purge(TAG_X, True)],
    mutants.renewed_though_broken_off: [
        *(Ask(C), See(), Tell(0, "head"), Ask(C), End(0, True), Ask(C), Answer()),
    ],
    mutants.older_in_place_of_newer: [
        *(Ask(A), See(), Purge(URL_A, True), Ask(A), Change(A, "x"), Answer(), Ask(A), Tell()),
    ],
}


@pytest.mark.parametrize("mutate", KEPT, ids=lambda mutate: mutate.__name__)
def test_a_node_that_breaks_a_rule_is_found_out(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = KEPT[mutate]
    assert play(plan) == []
    mutate(monkeypatch)
    # Who of those in a hurry comes first is for Trio to draw: it draws anew for each play.
    assert any(play(plan) for _ in range(40))


RETAGGED_AND_KILLED: list[Move] = [
    *(Ask(A), Answer(), *LONG[:1], Retag(A, "y"), Shut(WRITE), Ask(A), Answer(), Purge(TAG_Y)),
    *(Restart(killed=True), Ask(A)),
]


def test_a_purge_that_is_told_before_its_tags_are_on_disk_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert play(RETAGGED_AND_KILLED, tmp_path / "right") == []
    mutants.told_before_it_is_settled(monkeypatch)
    assert play(RETAGGED_AND_KILLED, tmp_path / "wrong") != []


@pytest.mark.parametrize(
    "mutate",
    [
        mutants.numbered_when_its_head_comes,
        mutants.numbered_when_it_is_validated,
        mutants.not_judged_when_the_head_comes,
        mutants.validated_though_dead,
    ],
    ids=lambda mutate: mutate.__name__,
)
def test_a_node_that_breaks_a_rule_is_found_out_by_chance(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    rules = settings(plays(1_000), max_examples=1_000, phases=[Phase.generate])
    find(plans(RARE), lambda plan: bool(play(plan)), settings=rules, random=Random(1))


@plays(50)
@given(plans(RARE))
@example([Ask(A), See(), Purge(URL_A), Ask(A), Tell()])
@example([Ask(A), See(), Purge(URL_A, True), Ask(A), Tell()])
def test_to_join_a_flight_that_was_overtaken_costs_nothing_but_the_wait(plan: list[Move]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        mutants.not_judged_when_joined(patch)
        assert play(plan) == []
