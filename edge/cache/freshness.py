"""How old a stored response is, how long it is fresh, and for how long it is of use after that.

RFC 9111 §4.2, RFC 5861 and the lifetimes of RFC 9213. Everything a response's directives and the
site's policy say about time is worked out here once, on arrival, as `Terms`; a lookup then costs
a subtraction and three comparisons.

Where a lifetime comes from, first that applies:

1. The site's `ttl`. It replaces what the origin says about *how long*, never *whether*: it is
   asked only about answers that may be stored, it does not lift `no-cache` or the directives that
   forbid stale use, and it does not make errors live: a site that says "/static/* for a day" does
   not mean the 404 of a file that is uploaded a minute later.
2. The targeted field, or `s-maxage`, `max-age`, `Expires` (minus `Date`, never minus now).
3. The site's `default_ttl`, for answers that succeed or redirect.
4. The heuristic of RFC 9111 §4.2.2, for the statuses of RFC 9110 §15.1 or with `public`.

A site's times count from arrival, since an operator thinks of what this node does; the origin's
count from age zero, since `Age` is part of what the origin says. Steps 3 and 4 are guesses. The
law (`decision`) says when guessing is not allowed at all.

Turned down: capping the origin's explicit lifetime (the origin knows); reading `Pragma` as a
directive (RFC 9111 §5.4), except that it stops a guess; letting `stale-while-revalidate` lift the
prohibition that `s-maxage` carries (RFC 9111 §5.2.2.10 is plain; the targeted field has no such
side effect and is the way to say both).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from edge.cache.directives import Directives, pragma_no_cache
from edge.cache.entry import Entry, Source, Terms, Times
from edge.wire.fields import parse_date, parse_delta

if TYPE_CHECKING:
    from edge.wire.message import Headers, ResponseHead

HEURISTIC_STATUSES: Final = frozenset((200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501))
"""RFC 9110 §15.1: cacheable without explicit freshness."""


@dataclass(frozen=True, slots=True)
class FreshnessPolicy:
    """What a site says about time, in seconds; None leaves it to the origin."""

    ttl_s: float | None = None  # in place of the origin's, from arrival; not for errors
    default_ttl_s: float | None = None  # where the origin states none, from arrival
    stale_while_revalidate_s: float | None = None
    stale_if_error_s: float | None = None
    max_stale_s: float = 3600.0  # for validation, and for trouble where no directive speaks
    heuristic: bool = True
    heuristic_fraction: float = 0.1  # RFC 9111 §4.2.2's example
    heuristic_max_s: float = 86400.0
    heuristic_error_max_s: float = 60.0  # nginx's customary `proxy_cache_valid 404 1m`

    def without_rule(self) -> FreshnessPolicy:
        """This policy less what a site's rule grants: for answers that the rule does not fit."""
        return FreshnessPolicy(
            max_stale_s=self.max_stale_s,
            heuristic=self.heuristic,
            heuristic_fraction=self.heuristic_fraction,
            heuristic_max_s=self.heuristic_max_s,
            heuristic_error_max_s=self.heuristic_error_max_s,
        )


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Seconds from age zero, and who says so."""

    seconds: float
    source: Source


UNSTATED: Final = Lifetime(0.0, Source.NONE)


class Freshness(Enum):
    """What a stored response may be used for at a given time."""

    FRESH = "fresh"
    STALE_WHILE_REVALIDATE = "stale-while-revalidate"
    STALE_ACCEPTED = "stale-accepted"  # the request's own max-stale
    STALE_IF_ERROR = "stale-if-error"
    EXPIRED = "expired"


def age_field(headers: Headers) -> int:
    """The Age a response arrived with, in seconds; 0 where there is none that can be read.

    RFC 9111 §5.1: the first member of the first line counts; an invalid one is ignored.
    """
    value = headers.get(b"age")
    if value is None:
        return 0
    return parse_delta(value.split(b",", 1)[0].strip(b" \t")) or 0


def date_field(headers: Headers, times: Times) -> float:
    """When the origin made a response: Date, or the time of arrival (RFC 9110 §6.6.1)."""
    date = _lone_date(headers, b"date", times.response_time)
    return times.response_time if date is None else date


def _lone_date(headers: Headers, name: bytes, now: float) -> float | None:
    """The date in the only line of that name, None where there are none, several or a bad one."""
    values = headers.all(name)
    return parse_date(values[0], now) if len(values) == 1 else None


def arrival_age(date: float, age: float, times: Times) -> float:
    """How old a response was on arrival: `corrected_initial_age` of RFC 9111 §4.2.3, seconds."""
    apparent_age = max(0.0, times.response_time - date)
    response_delay = max(0.0, times.response_time - times.request_time)
    return max(apparent_age, age + response_delay)


def current_age(entry: Entry, now: float) -> float:
    """Seconds since the origin made or last vouched for `entry` (RFC 9111 §4.2.3).

    `now` is Unix seconds by the clock that stamped `entry`. Never negative, and never less than
    the age on arrival, whatever the clock does.
    """
    arrived_old = arrival_age(entry.date, entry.age_field, entry.times)
    return grown_age(arrived_old, entry.times.response_time, now)


def grown_age(arrived_old: float, response_time: float, now: float) -> float:
    """The age at `now` of what came at `response_time`, and was `arrived_old` then; seconds."""
    return arrived_old + (now - response_time if now > response_time else 0.0)


def time_to_live(entry: Entry, now: float) -> float:
    """Seconds of freshness left; negative once stale (the `ttl` of RFC 9211 §2.4)."""
    return entry.terms.lifetime_s - current_age(entry, now)


def softened(entry: Entry, since: float) -> Entry:
    """`entry` with its lifetime ended at `since` (Unix seconds), when a soft purge covered it.

    It is never fresh from then on, and its stale windows begin there, unless they had begun
    before. `keep_until` stays.
    """
    lifetime_s = min(entry.terms.lifetime_s, current_age(entry, since))
    return replace(entry, terms=replace(entry.terms, lifetime_s=lifetime_s))


def lifetime(
    response: ResponseHead,
    directives: Directives,
    times: Times,
    policy: FreshnessPolicy,
    *,
    targeted: bool = False,
    may_guess: bool = True,
) -> Lifetime:
    """How long a response is fresh (RFC 9111 §4.2.1), under a site's policy."""
    stated = stated_lifetime(response, directives, times, targeted=targeted)
    if policy.ttl_s is not None and _is_for_rules(response.status, stated):
        return Lifetime(_from_arrival(policy.ttl_s, response, times), Source.RULE)
    if stated is not None:
        return stated
    return _guess(response, directives, times, policy, targeted) if may_guess else UNSTATED


def stated_lifetime(
    response: ResponseHead, directives: Directives, times: Times, *, targeted: bool = False
) -> Lifetime | None:
    """The lifetime that the origin states, None where it states none."""
    if targeted:  # RFC 9213 §2.2: Cache-Control and Expires are not looked at
        seconds = directives.max_age if directives.s_maxage is None else directives.s_maxage
        return None if seconds is None else Lifetime(seconds, Source.TARGETED)
    if directives.s_maxage is not None:
        return Lifetime(directives.s_maxage, Source.S_MAXAGE)
    if directives.max_age is not None:
        return Lifetime(directives.max_age, Source.MAX_AGE)
    if b"expires" in response.headers:
        return Lifetime(_until_expires(response.headers, times), Source.EXPIRES)
    return None


def _until_expires(headers: Headers, times: Times) -> float:
    """`Expires` minus `Date`, 0 where that is negative or Expires is invalid (RFC 9111 §5.3)."""
    expires = _lone_date(headers, b"expires", times.response_time)
    return 0.0 if expires is None else max(0.0, expires - date_field(headers, times))


def _is_for_rules(status: int, stated: Lifetime | None) -> bool:
    """Whether a site's `ttl` speaks about answers of this status."""
    return status < 400 and (status in HEURISTIC_STATUSES or stated is not None)


def _from_arrival(seconds: float, response: ResponseHead, times: Times) -> float:
    """A lifetime from age zero that ends `seconds` after arrival."""
    date = date_field(response.headers, times)
    return seconds + arrival_age(date, age_field(response.headers), times)


def _guess(
    response: ResponseHead,
    directives: Directives,
    times: Times,
    policy: FreshnessPolicy,
    targeted: bool,
) -> Lifetime:
    """A lifetime for a response that states none."""
    headers = response.headers
    has_directives = targeted or b"cache-control" in headers
    if not has_directives and pragma_no_cache(headers):
        return UNSTATED
    if policy.default_ttl_s is not None and _is_for_rules(response.status, None):
        return Lifetime(_from_arrival(policy.default_ttl_s, response, times), Source.RULE)
    if response.status in HEURISTIC_STATUSES or directives.public:
        return _heuristic(response, times, policy)
    return UNSTATED


def _heuristic(response: ResponseHead, times: Times, policy: FreshnessPolicy) -> Lifetime:
    """A share of the time that the response had not changed for (RFC 9111 §4.2.2)."""
    modified = _lone_date(response.headers, b"last-modified", times.response_time)
    unchanged = 0.0 if modified is None else date_field(response.headers, times) - modified
    if not policy.heuristic or unchanged <= 0:
        return UNSTATED
    bound = policy.heuristic_error_max_s if response.status >= 400 else policy.heuristic_max_s
    return Lifetime(min(unchanged * policy.heuristic_fraction, bound), Source.HEURISTIC)


def forbids_stale(directives: Directives) -> bool:
    """Whether a response must not be used stale, whatever happens (RFC 9111 §4.2.4)."""
    return (
        directives.must_revalidate
        or directives.proxy_revalidate
        or directives.s_maxage is not None  # RFC 9111 §5.2.2.10: implies proxy-revalidate
        or directives.no_cache
    )


def terms(
    response: ResponseHead,
    directives: Directives,
    times: Times,
    policy: FreshnessPolicy,
    *,
    targeted: bool = False,
    may_guess: bool = True,
) -> Terms:
    """On what terms a response may be used again."""
    fresh = lifetime(response, directives, times, policy, targeted=targeted, may_guess=may_guess)
    while_revalidate_s, if_error_s = _stale_windows(response.status, directives, policy)
    return Terms(
        lifetime_s=fresh.seconds,
        source=fresh.source,
        while_revalidate_s=while_revalidate_s,
        if_error_s=if_error_s,
        always_validate=directives.no_cache,
    )


def _stale_windows(
    status: int, directives: Directives, policy: FreshnessPolicy
) -> tuple[float, float]:
    """Seconds past the lifetime: while revalidating, and on trouble. The site speaks first."""
    if forbids_stale(directives):
        return 0.0, 0.0
    # An old failure is no better than a new one, so nothing is granted to it unasked.
    granted = policy.max_stale_s if status < 500 else 0.0
    return (
        _first(policy.stale_while_revalidate_s, directives.stale_while_revalidate, 0.0),
        _first(policy.stale_if_error_s, directives.stale_if_error, granted),
    )


def _first(rule: float | None, directive: float | None, otherwise: float) -> float:
    """The first that is not None."""
    if rule is not None:
        return rule
    return otherwise if directive is None else float(directive)


def keep_until(agreed: Terms, arrived_old: float, times: Times, policy: FreshnessPolicy) -> float:
    """When a response is of no more use, not even for validation; Unix seconds."""
    fresh_s = max(0.0, agreed.lifetime_s - arrived_old)
    stale_s = max(policy.max_stale_s, agreed.while_revalidate_s, agreed.if_error_s)
    return times.response_time + fresh_s + stale_s


def state(entry: Entry, asked: Directives, now: float) -> Freshness:
    """What `entry` may be used for now, by its terms and the request's own directives.

    `asked` is `directives.NOTHING` where the request's directives are not honoured.
    """
    age = current_age(entry, now)
    staleness = age - entry.terms.lifetime_s
    if not entry.terms.always_validate:
        if staleness < 0 and _is_fresh_enough(age, -staleness, asked):
            return Freshness.FRESH
        if 0 <= staleness < entry.terms.while_revalidate_s:
            return Freshness.STALE_WHILE_REVALIDATE
        if asked.max_stale is not None and 0 <= staleness <= asked.max_stale:
            return Freshness.STALE_ACCEPTED if is_stale_allowed(entry) else Freshness.EXPIRED
        if staleness < entry.terms.if_error_s:
            return Freshness.STALE_IF_ERROR
    return Freshness.EXPIRED


def _is_fresh_enough(age: float, left_s: float, asked: Directives) -> bool:
    """Whether a fresh response satisfies the request's max-age and min-fresh (RFC 9111 §5.2.1)."""
    if asked.max_age is not None and age > asked.max_age:
        return False
    return asked.min_fresh is None or left_s >= asked.min_fresh


def is_stale_allowed(entry: Entry) -> bool:
    """Whether any stale use is; both windows are 0 where the directives forbid it."""
    return entry.terms.while_revalidate_s > 0 or entry.terms.if_error_s > 0
