"""Whether an answer may be kept, and on what terms: the storing half of the law (RFC 9111 §3).

Asked by `decision` alone. Three sieves, in this order. What is *forbidden*: no lifetime and no
site rule gets an answer past that. What is *missing*: an answer that states no lifetime is kept
only if one may be guessed, or its status is one that RFC 9110 §15.1 lets us keep without. And what
is *useless*: never fresh, not to be validated, and nobody asked for its stale use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge.cache import freshness, scope, tags, vary
from edge.cache.directives import NOTHING, Directives, request_directives, response_directives
from edge.cache.entry import Source, Terms, Times
from edge.cache.invalidation import same_origin_target
from edge.cache.reasons import Reason
from edge.cache.ruling import CachePolicy, Forward, Keep
from edge.cache.suspicion import PROVOKED, is_odd, keeps_promise
from edge.wire.hop import end_to_end
from edge.wire.target import has_hidden_delimiter, split_target

if TYPE_CHECKING:
    from edge.cache.entry import Entry
    from edge.cache.freshness import FreshnessPolicy
    from edge.wire.message import Headers, RequestHead, ResponseHead

_STATED: Final = frozenset((Source.TARGETED, Source.S_MAXAGE, Source.MAX_AGE, Source.EXPIRES))

# Statuses whose caching requirements this node knows and keeps: those of RFC 9110 §15, 9111, 6585,
# 7725. 206 is known, and not stored.
_UNDERSTOOD: Final = frozenset(
    (*range(200, 207), *range(300, 306), 307, 308, *range(400, 418), 421, 422, 423, 424, 425)
) | frozenset((426, 428, 429, 431, 451, *range(500, 506), 511))


def judged(
    request: RequestHead, response: ResponseHead, times: Times, policy: CachePolicy
) -> Keep | Forward:
    """Whether to keep an answer that is neither a 304 nor to a HEAD."""
    directives, targeted = response_directives(response.headers, policy.targets)
    reason = _prohibition(request, response, directives, targeted, policy)
    if reason is not None:
        return Forward(reason)
    rules = rules_for(request, response, policy)
    terms = freshness.terms(
        response,
        directives,
        times,
        rules,
        targeted=targeted,
        may_guess=_may_guess(request, response, directives),
    )
    reason = _too_little(request, response, directives, terms)
    if reason is not None:
        return Forward(reason)
    keep = kept(request, response, times, directives, terms, rules, policy)
    return keep if _is_usable(keep, directives, rules, times) else Forward(Reason.UNUSABLE)


def _prohibition(
    request: RequestHead,
    response: ResponseHead,
    directives: Directives,
    targeted: bool,
    policy: CachePolicy,
) -> Reason | None:
    """What forbids storing, whatever lifetime and site rules there are; None if nothing does."""
    if response.status == 206:
        return Reason.PARTIAL
    if directives.must_understand and response.status not in _UNDERSTOOD:
        return Reason.NOT_UNDERSTOOD
    if _honours(policy, request).no_store:
        return Reason.REQUEST_NO_STORE
    if b"authorization" in request.headers and not _is_for_all(directives, policy):
        return Reason.AUTHORIZATION
    if response.status in PROVOKED and request.method == b"GET" and is_odd(request):
        return Reason.STRANGE
    return own_prohibition(response.headers, directives, targeted, policy)


def own_prohibition(
    headers: Headers, directives: Directives, targeted: bool, policy: CachePolicy
) -> Reason | None:
    """The part of `_prohibition` that lies in the answer alone, and that a 304 can bring."""
    # RFC 9111 §5.2.2.3: must-understand, understood, stands instead of the no-store beside it
    if directives.no_store and not directives.must_understand:
        return Reason.NO_STORE
    if directives.private:
        return Reason.PRIVATE
    if b"set-cookie" in headers and not _may_set_cookie(directives, targeted, policy):
        return Reason.SET_COOKIE
    if vary.vary_names(headers) is None:
        return Reason.VARY_ANY
    return Reason.TOO_MANY_TAGS if tags.has_too_many(headers, policy.tags) else None


def _honours(policy: CachePolicy, request: RequestHead) -> Directives:
    """The request's directives as far as this site obeys them."""
    return request_directives(request.headers) if policy.honour_request_directives else NOTHING


def _is_for_all(directives: Directives, policy: CachePolicy) -> bool:
    """Whether an answer to an authorised request may serve others (RFC 9111 §3.5)."""
    return (
        directives.public
        or directives.s_maxage is not None
        or (directives.must_revalidate and policy.must_revalidate_allows_authorization)
    )


def _may_set_cookie(directives: Directives, targeted: bool, policy: CachePolicy) -> bool:
    """Whether an answer that sets a cookie may be stored, cookie and all."""
    return (
        policy.set_cookie == "rfc"
        or directives.public
        or directives.s_maxage is not None
        or (targeted and directives.max_age is not None)
        or b"set-cookie" in withheld(directives)  # then the stored copy has none
    )


def withheld(directives: Directives) -> frozenset[bytes]:
    """The fields that must not be in a stored copy (RFC 9111 §5.2.2.4, §5.2.2.7)."""
    return directives.no_cache_fields | directives.private_fields


def rules_for(
    request: RequestHead, response: ResponseHead, policy: CachePolicy
) -> FreshnessPolicy:
    """What the site grants this answer: less, where its rule may have been led astray."""
    if policy.by_extension is not None and not keeps_promise(
        policy.by_extension, response.headers
    ):
        return policy.freshness.without_rule()
    if policy.by_path and has_hidden_delimiter(split_target(request.target).path):
        return policy.freshness.without_rule()
    return policy.freshness


def _may_guess(request: RequestHead, response: ResponseHead, directives: Directives) -> bool:
    """Whether a lifetime may be made up for an answer that states none."""
    if request.method == b"POST":  # RFC 9110 §9.3.3: explicit freshness only
        return False
    if b"cookie" in request.headers and not directives.public:
        return False
    return response.status < 400 or not is_odd(request)


def _too_little(
    request: RequestHead, response: ResponseHead, directives: Directives, terms: Terms
) -> Reason | None:
    """What is missing for storing an answer that nothing forbids to (RFC 9111 §3)."""
    if request.method == b"POST" and not _is_its_own_location(request, response, terms):
        return Reason.METHOD
    if terms.source is not Source.NONE or directives.public:
        return None
    if b"cookie" in request.headers:
        return Reason.COOKIE
    if response.status not in freshness.HEURISTIC_STATUSES:
        return Reason.STATUS
    return Reason.STRANGE if response.status >= 400 and is_odd(request) else None


def _is_its_own_location(request: RequestHead, response: ResponseHead, terms: Terms) -> bool:
    """Whether a POST's answer is what a GET of the same URI would bring (RFC 9110 §9.3.3)."""
    locations = response.headers.all(b"content-location")
    target = same_origin_target(request, request.target)
    return (
        terms.source in _STATED
        and 200 <= response.status < 300
        and len(locations) == 1
        and target is not None
        and same_origin_target(request, locations[0]) == target
    )


def kept(
    request: RequestHead,
    response: ResponseHead,
    times: Times,
    directives: Directives,
    terms: Terms,
    rules: FreshnessPolicy,
    policy: CachePolicy,
) -> Keep:
    """All that an entry needs of an answer."""
    headers = response.headers
    date, age = freshness.date_field(headers, times), freshness.age_field(headers)
    arrived_old = freshness.arrival_age(date, age, times)
    return Keep(
        terms=terms,
        headers_to_store=end_to_end(headers).without(withheld(directives) | {b"age"}),
        keep_until=freshness.keep_until(terms, arrived_old, times, rules),
        date=date,
        age_field=age,
        variant=vary.variant(vary.vary_names(headers) or (), request, policy.vary),
        # From the head as it came: a field that is withheld from the stored copy tags it, too.
        tags=tags.all_tags(headers, policy.tags),
        groups=tags.groups_of(headers),
    )


def renewed_scopes(old: Entry, keep: Keep, policy: CachePolicy) -> bytes:
    """What a purge may cover `old` by once it is renewed as `keep` says.

    The renewed head's tags stand in the place of the old ones. But of those that `old` had from
    fields that were withheld from it, the renewed head knows nothing: these stay. Where such
    fields change again and again it grows; the caller bounds it.
    """
    shown = tags.all_tags(old.headers, policy.tags)
    names = scope.names_of(old.key.url, shown, tags.groups_of(old.headers))
    new = keep.scopes(old.key)
    known = scope.digests(scope.packed(names)) | scope.digests(new)
    return new + b"".join(sorted(scope.digests(old.scopes) - known))


def _is_usable(keep: Keep, directives: Directives, rules: FreshnessPolicy, times: Times) -> bool:
    """Whether a stored answer would ever spare the origin anything.

    It is fresh for a while, or can be validated, or its origin or site asks for stale use. An
    answer with a lifetime of nothing and no validator is not kept just for trouble: that would
    write every uncacheable page to disk.
    """
    terms = keep.terms
    left_s = terms.lifetime_s - freshness.arrival_age(keep.date, keep.age_field, times)
    if left_s > 0 and not terms.always_validate:
        return True
    if keep.keep_until <= times.response_time:
        return False
    asked_for = (
        *(directives.stale_while_revalidate, directives.stale_if_error),
        *(rules.stale_while_revalidate_s, rules.stale_if_error_s),
    )
    return (
        b"etag" in keep.headers_to_store
        or b"last-modified" in keep.headers_to_store
        or (any(asked_for) and terms.while_revalidate_s + terms.if_error_s > 0)
    )
