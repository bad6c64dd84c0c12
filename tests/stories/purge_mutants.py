"""Nodes that break a rule of purging, each in the way that one would easily do it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from edge.cache import vary
from edge.cache.purge import Verdict
from edge.cache.store import Store
from edge.serving import finding
from edge.serving.errand import Errands
from edge.serving.exchange import Exchange

if TYPE_CHECKING:
    import pytest

    from edge.cache.entry import Entry, Seq
    from edge.cache.held import Held
    from edge.cache.purge import Purges
    from edge.serving.finding import Found
    from edge.serving.trip import Trip
    from edge.serving.visit import Visit

AnyCall = Any


def _latest(errands: Errands) -> Seq:
    return errands._purges.current().latest


def _trust_304s(patch: pytest.MonkeyPatch) -> None:
    """Renew whatever a 304 vouches for, without asking whether it has been purged."""
    patch.setattr(Errands, "_renewed", lambda self, trip, held, new: new)


def numbered_when_its_head_comes(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: an answer has the number of the moment at which it is begun to be stored."""
    keep: AnyCall = Errands._keep

    async def late(self: Errands, flight: AnyCall, trip: Trip, *rest: AnyCall) -> None:
        await keep(self, flight, replace(trip, as_of=_latest(self)), *rest)

    patch.setattr(Errands, "_keep", late)
    patch.setattr(Errands, "_is_overtaken", lambda self, flight, trip, keep: flight.overtaken)


def numbered_when_it_is_whole(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: an answer has the number of the moment at which it is stored."""
    keep: AnyCall = Errands._keep
    commit: AnyCall = Store.commit
    at_work: list[Errands] = []

    async def remember(self: Errands, *arguments: AnyCall) -> None:
        at_work[:] = [self]
        await keep(self, *arguments)

    async def late(self: Store, held: Held) -> None:
        held.entry = replace(held.entry, fetched_at=_latest(at_work[0]))
        held.passed = held.entry.fetched_at
        await commit(self, held)

    patch.setattr(Errands, "_keep", remember)
    patch.setattr(Store, "commit", late)


def numbered_when_the_origin_is_asked(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: a new number is taken for the conditional request."""
    fetch: AnyCall = Errands._fetch

    async def late(self: Errands, flight: AnyCall, trip: Trip, variants: AnyCall) -> bool:
        again: bool = await fetch(self, flight, replace(trip, as_of=_latest(self)), variants)
        return again

    patch.setattr(Errands, "_fetch", late)
    _trust_304s(patch)


def numbered_when_it_is_validated(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: what a 304 vouches for has the number of that moment."""

    def late(self: Errands, trip: Trip, held: Held, new: Entry) -> Entry:
        return replace(new, fetched_at=_latest(self))

    patch.setattr(Errands, "_renewed", late)


def not_judged_when_the_head_comes(patch: pytest.MonkeyPatch) -> None:
    """Rule 3: who has joined a flight takes what it brings."""

    def share(self: Exchange, visit: Visit, held: Held) -> bool:
        return vary.selects(held.entry, visit.request, visit.policy.vary)

    patch.setattr(Exchange, "_may_share", share)


def not_judged_when_joined(patch: pytest.MonkeyPatch) -> None:
    """Half of rule 3: every flight may be joined."""
    patch.setattr(finding, "is_overtaken", lambda flight, key, purges: False)


def never_judged(patch: pytest.MonkeyPatch) -> None:
    """All of rule 3."""
    not_judged_when_joined(patch)
    not_judged_when_the_head_comes(patch)


def validated_though_dead(patch: pytest.MonkeyPatch) -> None:
    """Rule 4: what was purged is still offered for validation."""
    select: AnyCall = finding.select

    def generous(*arguments: AnyCall) -> Found:
        found: Found = select(*arguments)
        return replace(found, variants=(*found.variants, *found.dead), dead=())

    patch.setattr(finding, "select", generous)
    _trust_304s(patch)


def escaped_by_other_tags(patch: pytest.MonkeyPatch) -> None:
    """Rule 2, its end: a 304 with other tags takes the stored ones away, purged or not."""
    _trust_304s(patch)


def passed_for_ever(patch: pytest.MonkeyPatch) -> None:
    """What a stored answer has passed is taken for passed by the head that renews it."""
    freshen: AnyCall = Store.freshen

    def keep(self: Store, held: Held, new: Entry) -> Held:
        passed = held.newest.passed
        fresh: Held = freshen(self, held, new)
        fresh.passed = max(passed, fresh.passed)
        return fresh

    patch.setattr(Store, "freshen", keep)


def soft_is_fresh(patch: pytest.MonkeyPatch) -> None:
    """A soft purge is taken no notice of."""
    select: AnyCall = finding.select

    def judge(held: Held, purges: Purges) -> Verdict:
        verdict = finding.judge(held, purges)
        return Verdict.LIVE if verdict is Verdict.STALE else verdict

    patch.setattr(finding, "select", lambda *arguments: select(*arguments, judge=judge))


def renewed_though_broken_off(patch: pytest.MonkeyPatch) -> None:
    """A 304 stands for a body that has not come."""
    renewed: AnyCall = Errands._renewed

    def trust(self: Errands, trip: Trip, held: Held, new: Entry) -> Entry | None:
        fill, held.fill = held.fill, None
        try:
            entry: Entry | None = renewed(self, trip, held, new)
        finally:
            held.fill = fill
        return entry

    patch.setattr(Errands, "_renewed", trust)


def older_in_place_of_newer(patch: pytest.MonkeyPatch) -> None:
    """A slow answer takes the place of one that was asked for after it."""
    patch.setattr(Store, "_is_outdated", lambda self, entry, filling=(): False)


def told_before_it_is_settled(patch: pytest.MonkeyPatch) -> None:
    """A purge by tag does not wait until the heads that tell the tags are on disk."""

    async def at_once(self: Store) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(Store, "settle", at_once)
