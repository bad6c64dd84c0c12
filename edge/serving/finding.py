"""What the store has for a request, less what has been purged, and what the law says to that.

Shared by the exchange, which acts on it, and by `edge explain`, which only tells; so the two
cannot disagree. Whoever answers takes the purge number first and reads the store then (see
`cache.purge`): a purge that comes in between must win.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from edge.cache import decision, vary
from edge.cache.freshness import softened
from edge.cache.purge import Verdict
from edge.cache.ranges import Span
from edge.cache.reasons import Reason
from edge.cache.ruling import Fetch, Revalidate, Serve, ServeStale
from edge.cache.scope import names_of, packed
from edge.cache.validation import CONDITIONALS
from edge.coding import renditions
from edge.errors import ExchangeError, Failure
from edge.serving.trip import crowd_of, flight_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.entry import Entry, Key
    from edge.cache.flight import Flight, FlightKey, Flights
    from edge.cache.held import Held, Resource
    from edge.cache.lending import LendingStore
    from edge.cache.purge import Purges
    from edge.cache.ruling import CachePolicy, OnRequest
    from edge.serving.answer import Answer
    from edge.serving.trip import Asking
    from edge.serving.visit import Visit
    from edge.wire.message import RequestHead

FAR_BYTES: Final = 8 << 20  # a range that begins so far ahead of a fill is fetched by itself


@dataclass(frozen=True, slots=True)
class Found:
    """What the store has for a request.

    `held` is the variant that it selects, and `entry` that one's head as the law is to see it: one
    that was soft-purged has its lifetime behind it (`soft`). `variants` are all that may be
    validated; `dead` is what a purge covers, to be dropped.
    """

    held: Held | None = None
    entry: Entry | None = None
    variants: tuple[Held, ...] = ()
    soft: bool = False
    dead: tuple[Held, ...] = ()


NOTHING = Found()


def judge(held: Held, purges: Purges) -> Verdict:
    """What the purges make of a stored variant; what it has passed once it need not pass again."""
    if held.passed == purges.latest:
        return Verdict.LIVE
    verdict = look_at(held, purges)
    if verdict is Verdict.LIVE:
        held.passed = purges.latest
    return verdict


def look_at(held: Held, purges: Purges) -> Verdict:
    """What the purges make of a stored variant, without taking note of it."""
    return purges.verdict(held.passed, held.entry.scopes)


def lone(
    resource: Resource,
    request: RequestHead,
    policy: CachePolicy,
    purges: Purges,
    judge: Callable[[Held, Purges], Verdict] = judge,
) -> Held | None:
    """The only variant there is, where no purge covers it and `request` selects it.

    That is nearly always so, and then `select` has nothing more to say.
    """
    if len(resource.variants) != 1:
        return None
    held = resource.variants[0]
    entry = held.entry
    if held.passed < purges.latest and judge(held, purges) is not Verdict.LIVE:
        return None
    if entry.vary_any or (entry.variant and not vary.selects(entry, request, policy.vary)):
        return None
    return held


def select(
    resource: Resource,
    request: RequestHead,
    policy: CachePolicy,
    purges: Purges,
    judge: Callable[[Held, Purges], Verdict] = judge,
) -> Found:
    """Which of the stored variants `request` selects, as of the purges known now."""
    if (only := lone(resource, request, policy, purges, judge)) is not None:
        return Found(only, only.entry, resource.variants)
    judged = [(held, judge(held, purges)) for held in resource.variants]
    dead = tuple(held for held, verdict in judged if verdict is Verdict.DEAD)
    living = {id(held.entry): held for held, verdict in judged if verdict is not Verdict.DEAD}
    variants = tuple(living.values())
    chosen = vary.choose([held.entry for held in variants], request, policy.vary)
    if chosen is None:
        return Found(variants=variants, dead=dead)
    held = living[id(chosen)]
    if judge(held, purges) is not Verdict.STALE:
        return Found(held, chosen, variants, dead=dead)
    since = purges.stale_since(held.passed, chosen.scopes)
    return Found(held, softened(chosen, since), variants, soft=True, dead=dead)


def rule(
    request: RequestHead,
    found: Found,
    digest: bytes,
    flights: Flights[Held],
    policy: CachePolicy,
    now: float,
) -> OnRequest | ServeStale:
    """What is to be done with `request`, whose key has the digest `digest`.

    As the law says; but where the client would wait for an origin that hung a moment ago, and
    something stale may stand in, that is served at once.
    """
    ruling = decision.on_request(
        request,
        found.entry,
        now,
        policy,
        variants=[held.entry for held in found.variants],
        soft=found.soft,
    )
    if not isinstance(ruling, Revalidate | Fetch) or _is_for_one(ruling):
        return ruling
    if found.entry is None or not flights.is_troubled(digest):
        return ruling
    instead = decision.on_failure(
        found.entry, ExchangeError(Failure.FIRST_BYTE_TIMEOUT), now, policy
    )
    return instead if isinstance(instead, ServeStale) else ruling


def _is_for_one(ruling: Revalidate | Fetch) -> bool:
    """Whether nobody waits for the origin, or the answer is to be the client's alone."""
    if isinstance(ruling, Revalidate):
        return ruling.background
    return ruling.because is decision.Reason.REQUEST


def copied(
    visit: Visit, store: LendingStore, flights: Flights[Held], purges: Purges, now: float
) -> Found:
    """What another worker's key has copied here, if it answers as it is, and as a hit."""
    policy = visit.terms.compress
    wished = renditions.wish(visit.head, policy) if policy is not None else None
    for key in renditions.keys_of_copies(visit.key, wished):
        copies = store.find_nowait(key, now)
        if not copies:
            continue
        found = select(copies, visit.request, visit.policy, purges)
        if found.dead:
            store.drop_copies(key)
        ruling = rule(visit.request, found, visit.key.digest, flights, visit.policy, now)
        if not isinstance(ruling, Serve) or ruling.because is not Reason.HIT:
            continue
        assert found.held is not None  # as it is served
        stands = renditions.may_stand_alone(found.held.entry, visit.request, wished, policy)
        return found if stands else NOTHING
    return NOTHING


# --- how a request goes forward, where nothing stored answers it


@dataclass(frozen=True, slots=True)
class Alone:
    """As it is, for an answer that is one client's."""


@dataclass(frozen=True, slots=True)
class Joins:
    """With those who wait for the same."""

    flight: Flight[Held]


@dataclass(frozen=True, slots=True)
class Leads:
    """As a flight of its own, which others may join unless the key is `lonely`."""

    key: FlightKey
    lonely: bool


Way: TypeAlias = Alone | Joins | Leads


def way(asking: Asking, found: Found, flights: Flights[Held], purges: Purges) -> Way:
    """How a request goes to the origin that is to be validated or fetched."""
    request, digest = asking.request, asking.key.digest
    if request.method == b"HEAD":
        return Alone()
    lonely = flights.is_lonely(digest, crowd_of(request))
    if lonely and not CONDITIONALS.isdisjoint(name for name, _ in request.headers):
        # The last answer was for one client only, so this one's own conditions may go with it.
        return Alone()
    key = flight_key(asking, found)
    flight = None if lonely else flights.find(key)
    if flight is None or is_overtaken(flight, asking.key, purges):
        return Leads(key, lonely)
    return Joins(flight)


def is_overtaken(flight: Flight[Held], key: Key, purges: Purges) -> bool:
    """Whether a purge came since a flight began, as far as that is known before its head."""
    if flight.as_of >= purges.latest:
        return False
    scopes = packed(names_of(key.url, (), ()))
    return purges.verdict(flight.as_of, scopes) is not Verdict.LIVE


def is_far_ahead(composed: Answer, held: Held) -> bool:
    """Whether a range begins so far ahead of what has come that asking for it is quicker."""
    fill = held.fill
    if fill is None or fill.finished or len(composed.pieces) != 1:
        return False
    piece = composed.pieces[0]
    return isinstance(piece, Span) and piece.start > fill.size + FAR_BYTES
