"""The law: may this request be answered from the store, may this answer be kept, what on failure.

RFC 9111, with 5861, 8246 and 9213. Nothing else in this program decides these; everything else
asks. The functions are pure: they are told the time and never look at a clock, and they return a
value that says what to do and *why* (`reasons`). The order of the questions is the policy:

- `may_use_store`: is the store to be asked at all? Not for other methods, a site's bypass, no host
  at all, a body on GET (its bytes are not in the key), an upgrade.
- `on_request`: what is found, and how old. Fresh: serve. Stale inside its window: serve, and fetch
  behind. Else validate. A client's wishes are ignored, but for `only-if-cached`, since a client
  that can say `no-cache` can empty the cache for the origin; sites for trusted networks may
  honour them.
- `on_response`: prohibitions first (`storing`), which no site rule lifts; then the lifetime,
  from a rule, the origin or a guess; then whether that makes it worth a place.
- `on_failure`: stale, where time and directives allow; else the failure itself.

Where answers depend on who asked, doubt is against storing: a request with Cookie is not guessed
about, one with Authorization needs the origin's word, Set-Cookie needs the origin's word that it
is meant for all. What the origin says outright is believed, as browsers send cookies with all
they ask for, and distrusting every answer to them would be caching nothing.

A refused answer never destroys the stored one, with two exceptions: a 304 that says what is stored
must not be (any more), and a HEAD that says it is out of date. Those carry `drop`.

Turned down: storing `Vary: *` (nothing but a fetch can tell whether it fits, so it would never be
read); validating another variant's tag on a variant miss (RFC 9111 §4.1 lets us, but origins that
give one tag to several codings then hand gzip to who cannot read it); storing parts (a 206 is
passed on, the exchange asks for wholes).
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final, assert_never

from edge.cache import freshness, storing, validation, vary
from edge.cache.directives import (
    NOTHING,
    Directives,
    parse_cache_control,
    request_directives,
    response_directives,
)
from edge.cache.freshness import Freshness
from edge.cache.invalidation import invalidates
from edge.cache.reasons import Reason
from edge.cache.ruling import (
    CachePolicy,
    Fail,
    Fetch,
    Forward,
    Freshen,
    Keep,
    OnFailure,
    OnRequest,
    OnResponse,
    Refetch,
    Refuse,
    Revalidate,
    Serve,
    ServeStale,
)
from edge.cache.scope import MOST_BYTES
from edge.cache.suspicion import has_body
from edge.errors import ExchangeError, Side
from edge.wire.hop import upgrade_offered
from edge.wire.message import RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.cache.entry import Entry, Seq, Times

__all__ = [
    "CachePolicy",
    "Fail",
    "Fetch",
    "Forward",
    "Freshen",
    "Keep",
    "Reason",
    "Refetch",
    "Refuse",
    "Revalidate",
    "Serve",
    "ServeStale",
    "invalidates",
    "is_plain",
    "is_plainly_fresh",
    "is_stored_post",
    "may_use_store",
    "on_failure",
    "on_request",
    "on_response",
    "plainly_fresh_until",
]

_LOOKED_UP: Final = frozenset((b"GET", b"HEAD"))
TROUBLE: Final = frozenset((500, 502, 503, 504))  # RFC 5861 §4


# --- requests


_BODY_OR_UPGRADE: Final = frozenset((b"content-length", b"transfer-encoding", b"upgrade"))


def may_use_store(request: RequestHead, policy: CachePolicy) -> Reason | None:
    """Why the store must not be asked about `request`; None where it may."""
    if request.method not in _LOOKED_UP:
        return Reason.METHOD
    if policy.bypass or not request.authority:  # HTTP/1.0 named no host: nor could a purge
        return Reason.BYPASS
    if _BODY_OR_UPGRADE.isdisjoint([name for name, _ in request.headers.pairs]):
        return None
    if has_body(request):
        return Reason.BODY
    return None if upgrade_offered(request) is None else Reason.UPGRADE


ROUNDING_S: Final = 0.001
# The names by which a request may ask for more than what is stored and fresh. Conditions and
# ranges are not among them: they are asked of the answer, whichever it is.
_NOT_PLAIN: Final = frozenset(
    (b"cache-control", b"pragma", b"content-length", b"transfer-encoding", b"upgrade", b"expect")
)


def is_plain(request: RequestHead) -> bool:
    """Whether nothing in `request` can keep what is fresh from being served."""
    names = [name for name, _ in request.headers.pairs]
    is_asked = request.method in _LOOKED_UP and request.authority != b""
    return is_asked and _NOT_PLAIN.isdisjoint(names)


def plainly_fresh_until(entry: Entry) -> float:
    """Until when `entry` may be served to plain requests that select it; Unix seconds.

    Some time before its lifetime ends, as sums are rounded in other ways where ages are compared.
    """
    terms = entry.terms
    if terms.always_validate or entry.vary_any:
        return -inf
    arrived_old = freshness.arrival_age(entry.date, entry.age_field, entry.times)
    if arrived_old >= terms.lifetime_s:
        return -inf
    return entry.times.response_time + (terms.lifetime_s - arrived_old) - ROUNDING_S


def is_plainly_fresh(entry: Entry, request: RequestHead, now: float) -> bool:
    """Whether `entry`, which `request` has selected, may be served as it is: cheap, sufficient.

    Never true where `on_request` would not serve it as a hit, under any policy without a bypass,
    as long as no purge covers it. False says nothing. Both halves may be remembered.
    """
    return is_plain(request) and now < plainly_fresh_until(entry)


def on_request(
    request: RequestHead,
    entry: Entry | None,
    now: float,
    policy: CachePolicy,
    *,
    variants: Sequence[Entry] = (),
    soft: bool = False,
) -> OnRequest:
    """What to do with `request`, which selected `entry` of `variants` (all under its key).

    `soft` says that a soft purge covers the entry, and that `freshness.softened` has ended its
    lifetime at that moment. So it is used as any stale answer is, where time and directives allow.
    """
    reason = may_use_store(request, policy)
    if reason is Reason.METHOD:
        return Fetch(reason)
    wished = request_directives(request.headers)
    asked = wished if policy.honour_request_directives else NOTHING
    if reason is not None:
        decision: OnRequest = Fetch(reason)
    elif asked.no_store:  # RFC 9111 §5.2.1.5: nothing of this exchange may be kept
        decision = Fetch(Reason.REQUEST)
    elif entry is None or entry.vary_any:
        decision = Fetch(Reason.VARY_MISS if variants else Reason.URI_MISS)
    else:
        decision = _on_found(entry, asked, now, soft)
    if wished.only_if_cached and _goes_forward(decision):
        return Refuse(504, Reason.ONLY_IF_CACHED)  # RFC 9111 §5.2.1.7
    return decision


def _goes_forward(decision: OnRequest) -> bool:
    """Whether the client would wait for the origin."""
    return isinstance(decision, Fetch) or (
        isinstance(decision, Revalidate) and not decision.background
    )


def _on_found(entry: Entry, asked: Directives, now: float, soft: bool) -> OnRequest:
    """What to do with a stored answer that the request selects."""
    if now >= entry.keep_until and freshness.time_to_live(entry, now) <= 0:
        return Fetch(Reason.STALE)
    if asked.no_cache:
        return Revalidate(Reason.REQUEST)
    if _is_reload_of_immutable(entry, asked, now):
        asked = replace(asked, max_age=None)
    state = freshness.state(entry, asked, now)
    match state:
        case Freshness.FRESH if not soft:
            return Serve(Reason.HIT)
        case Freshness.STALE_WHILE_REVALIDATE:
            return Revalidate(Reason.STALE_WHILE_REVALIDATE, background=True)
        case Freshness.STALE_ACCEPTED:
            return Serve(Reason.STALE_ACCEPTED, stale=True)
        case Freshness.FRESH | Freshness.STALE_IF_ERROR | Freshness.EXPIRED:
            return _on_stale(entry, now, soft)  # soft and fresh: the clock was before the purge
        case _:
            assert_never(state)


def _on_stale(entry: Entry, now: float, soft: bool) -> OnRequest:
    """What to do with a stored answer that cannot be used without asking."""
    if entry.terms.always_validate:
        return Revalidate(Reason.NO_CACHE)
    if soft:
        return Revalidate(Reason.SOFT_PURGED)
    is_fresh = freshness.time_to_live(entry, now) > 0
    return Revalidate(Reason.REQUEST if is_fresh else Reason.STALE)


def _is_reload_of_immutable(entry: Entry, asked: Directives, now: float) -> bool:
    """Whether a client's max-age is the reload that a fresh `immutable` makes pointless.

    RFC 8246 §2: validate only on a stronger sign, such as no-cache. Cache-Control is read again
    only here, on a site that honours clients' directives, for a request that has a max-age.
    """
    if asked.max_age is None or freshness.time_to_live(entry, now) <= 0:
        return False
    return parse_cache_control(entry.headers.all(b"cache-control")).immutable


# --- responses


def on_response(
    request: RequestHead,
    response: ResponseHead,
    times: Times,
    policy: CachePolicy,
    *,
    variants: Sequence[Entry] = (),
    validating: bool = False,
    as_of: Seq | None = None,
) -> OnResponse:
    """What to do with the origin's final `response` to `request`, as the client sent it.

    `variants` are all entries under the key; `validating` says that the request sent was
    `validation.conditional(request, variants)`. `as_of` is the purge number that the request took
    (see `purge`). A `Forward` of a 304 or 206 because of UNASKED or PARTIAL is right only
    where the client's own conditions or range went to the origin; else the origin is at fault.
    """
    reason = None if is_stored_post(request, policy) else may_use_store(request, policy)
    if reason is not None:
        return Forward(reason)
    if response.status == 304:
        if not validating:
            return Forward(Reason.UNASKED)
        return _on_not_modified(request, response, times, policy, variants, as_of)
    if request.method == b"HEAD":
        return _on_head(request, response, times, policy, variants, as_of)
    policy = policy.of_answer(response.headers)
    if policy.bypass:
        return Forward(Reason.BYPASS)
    return storing.judged(request, response, times, policy)


def is_stored_post(request: RequestHead, policy: CachePolicy) -> bool:
    """Whether this is a POST whose answer may be for later GETs (RFC 9110 §9.3.3)."""
    return policy.store_post and not policy.bypass and request.method == b"POST"


# --- responses that tell of what is stored


def _on_not_modified(
    request: RequestHead,
    response: ResponseHead,
    times: Times,
    policy: CachePolicy,
    variants: Sequence[Entry],
    as_of: Seq | None,
) -> Freshen | Refetch:
    """Freshen the entry that a 304 vouches for (RFC 9111 §4.3.4), or ask again."""
    offered = validation.offered(request, variants, policy.vary)
    old = validation.matches_304(offered, response)
    if old is None:
        return Refetch(Reason.NOT_STORED_HERE)
    new = _freshened(request, old, response, times, policy, as_of)
    return Refetch(new, drop=old) if isinstance(new, Reason) else Freshen(new, old)


def _on_head(
    request: RequestHead,
    response: ResponseHead,
    times: Times,
    policy: CachePolicy,
    variants: Sequence[Entry],
    as_of: Seq | None,
) -> Freshen | Forward:
    """Freshen what a HEAD agrees with, drop what it does not (RFC 9111 §4.3.5).

    Only a 200 speaks of the stored representation; an answer to HEAD itself is never stored.
    """
    old = vary.choose(variants, request, policy.vary)
    if old is None or response.status != 200:
        return Forward(Reason.HEAD)
    if not validation.head_updates(old, response):
        return Forward(Reason.HEAD_DIFFERS, drop=old)
    new = _freshened(request, old, response, times, policy, as_of)
    if isinstance(new, Reason):
        return Forward(new)
    return Freshen(new, old, Reason.HEAD_FRESHENED)


def _freshened(
    request: RequestHead,
    old: Entry,
    received: ResponseHead,
    times: Times,
    policy: CachePolicy,
    as_of: Seq | None,
) -> Entry | Reason:
    """`old` as `received` renews it, or why it may not be kept any more.

    Cookie and Authorization on the request are no hindrance: the body was stored for other
    reasons, and the origin has now said that this client, too, gets that very one. Guessing is
    as good as it was then.
    """
    head = _renewed_head(old, received, times)
    policy = policy.of_answer(head.headers)
    if policy.bypass:
        return Reason.BYPASS
    directives, targeted = response_directives(head.headers, policy.targets)
    reason = storing.own_prohibition(head.headers, directives, targeted, policy)
    if reason is not None:
        return reason
    rules = storing.rules_for(request, head, policy)
    terms = freshness.terms(head, directives, times, rules, targeted=targeted)
    keep = storing.kept(request, head, times, directives, terms, rules, policy)
    entry = validation.freshened(
        old, received, times, terms, keep_until=keep.keep_until, fetched_at=as_of
    )
    scopes = storing.renewed_scopes(old, keep, policy)
    if len(scopes) > MOST_BYTES:
        return Reason.TOO_MANY_TAGS
    headers = entry.headers.without(storing.withheld(directives))
    entry = replace(entry, headers=headers, scopes=scopes)
    has_same_names = [name for name, _ in old.variant] == [name for name, _ in keep.variant]
    return entry if has_same_names else replace(entry, variant=keep.variant)


def _renewed_head(old: Entry, received: ResponseHead, times: Times) -> ResponseHead:
    """The stored head as `received` leaves it, with the Age that came with `received`."""
    headers = validation.updated_headers(old.headers, received.headers, times)
    age = (b"age", b"%d" % freshness.age_field(received.headers))
    return ResponseHead(old.status, headers.without((b"age",)).plus(age))


# --- failures


def on_failure(
    entry: Entry | None, failure: ExchangeError | ResponseHead, now: float, policy: CachePolicy
) -> OnFailure:
    """Whether to serve `entry` in place of a failure (RFC 9111 §4.2.4, RFC 5861 §4).

    `failure` is an error on the way to the origin, or what the origin answered. Ask this before
    `on_response`; after a `Fail`, an answer still goes there.
    """
    if not _is_trouble(failure):
        return Fail(Reason.NOT_THE_ORIGIN)
    if entry is None or policy.bypass:
        return Fail(Reason.NOTHING_STORED)
    if entry.terms.always_validate or not freshness.is_stale_allowed(entry):
        return Fail(Reason.STALE_FORBIDDEN)
    staleness = -freshness.time_to_live(entry, now)
    window_s = max(entry.terms.if_error_s, entry.terms.while_revalidate_s)
    return ServeStale(Reason.STALE_IF_ERROR) if staleness < window_s else Fail(Reason.TOO_STALE)


def _is_trouble(failure: ExchangeError | ResponseHead) -> bool:
    """Whether it is the origin that is in trouble, and not the client, the request or us."""
    if isinstance(failure, ExchangeError):
        return failure.side is Side.UPSTREAM
    return failure.status in TROUBLE
