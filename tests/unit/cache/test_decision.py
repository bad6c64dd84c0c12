"""The law: the vectors of decisions.toml, and the laws that hold for all."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields as fields_of
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge.cache import decision, vary
from edge.cache.decision import (
    CachePolicy,
    Fail,
    Fetch,
    Forward,
    Freshen,
    Keep,
    Reason,
    Refetch,
    Refuse,
    Revalidate,
    Serve,
    ServeStale,
)
from edge.cache.entry import Entry, Key, Seq, Source, Times
from edge.cache.freshness import FreshnessPolicy, softened
from edge.cache.scope import group_name, names_of, packed, tag_name
from edge.cache.tags import MOST_TAGS
from edge.errors import ExchangeError, Failure
from edge.wire.fields import format_date
from edge.wire.message import Headers, RequestHead, ResponseHead

T = 1_800_000_000.0
NOW = Times(T, T)
KEY = Key(b"k" * 16, b"http://example.com/")
FRESHNESS_FIELDS = {field.name for field in fields_of(FreshnessPolicy)}


def expanded() -> list[dict[str, Any]]:
    """The cases, one for each value of `each`, `forbid` and `statuses`."""
    path = Path(__file__).parents[2] / "vectors" / "decisions.toml"
    cases: list[dict[str, Any]] = tomllib.loads(path.read_text())["case"]
    return [
        filled(case, status, each, forbid)
        for case in cases
        for status in case.get("statuses", [None])
        for each in case.get("each", [None])
        for forbid in case.get("forbid", [None])
    ]


def filled(
    case: dict[str, Any], status: int | None, each: str | None, forbid: str | None
) -> dict[str, Any]:
    text = json.dumps({k: v for k, v in case.items() if k not in ("each", "forbid", "statuses")})
    text = text.replace("{each}", json.dumps(each or "")[1:-1])
    new: dict[str, Any] = json.loads(text.replace("{forbid}", forbid or ""))
    if status is not None:
        new["response"]["status"] = status
    new["each"] = each
    new["id"] = " ".join(str(part) for part in (new["says"], status, each, forbid) if part)
    return new


def headers(lines: list[str]) -> Headers:
    def dated(match: re.Match[str]) -> str:
        return format_date(T + int(match[1])).decode()

    pairs = []
    for line in lines:
        line = re.sub(r"\{(-?[0-9]+)\}", dated, line)
        name, _, value = re.sub(r"\(([0-9]+)\)", lambda m: "a" * int(m[1]), line).partition(": ")
        pairs.append((name.encode(), value.encode()))
    return Headers(pairs)


def request_of(told: dict[str, Any]) -> RequestHead:
    return RequestHead(
        told.get("method", "GET").encode(),
        b"http",
        b"example.com",
        told.get("target", "/").encode(),
        headers(told.get("headers", [])),
    )


def response_of(told: dict[str, Any]) -> ResponseHead:
    return ResponseHead(told.get("status", 200), headers(told.get("headers", [])))


def policy_of(told: dict[str, Any]) -> CachePolicy:
    told = dict(told)
    if "by_extension" in told:
        told["by_extension"] = told["by_extension"].encode()
    times = {name: told.pop(name) for name in list(told) if name in FRESHNESS_FIELDS}
    return CachePolicy(freshness=FreshnessPolicy(**times), **told)


def stored(told: dict[str, Any] | None, policy: CachePolicy) -> tuple[Entry, ...]:
    """What is stored, as the law itself stored it."""
    if told is None:
        return ()
    response = response_of(told)
    kept = decision.on_response(
        request_of(told.get("request", {})), response, NOW, replace(policy, bypass=False)
    )
    assert isinstance(kept, Keep), kept
    return (kept.entry(KEY, response.status, NOW, Seq(0)),)


Ruling = Any


def ruling(case: dict[str, Any]) -> Ruling:
    policy = policy_of(case.get("policy", {}))
    request = request_of(case.get("request", {}))
    entries = stored(case.get("stored"), policy)
    selected = vary.choose(entries, request)
    soft = "softened" in case
    if soft and selected is not None:
        selected = softened(selected, T + case["softened"])
    now = T + case.get("after", 0)
    match case.get("ask", "response"):
        case "request":
            return decision.on_request(request, selected, now, policy, variants=entries, soft=soft)
        case "failure":
            return decision.on_failure(selected, failure_of(case["each"]), now, policy)
        case "response":
            return decision.on_response(request, response_of(case["response"]), NOW, policy)
        case "head":
            request = replace(request, method=b"HEAD")
    return decision.on_response(
        request,
        response_of(case["response"]),
        NOW,
        policy,
        variants=entries,
        validating=case["ask"] == "not-modified",
    )


def failure_of(name: str) -> ExchangeError | ResponseHead:
    if name.isdecimal():
        return ResponseHead(int(name))
    return ExchangeError(next(failure for failure in Failure if failure.slug == name))


def words(found: Ruling) -> str:
    """A ruling as the vectors spell it."""
    parts = [type(found).__name__, found.because.slug]
    parts += [flag for flag in ("background", "stale") if getattr(found, flag, False)]
    if isinstance(found, Refuse):
        parts.append(str(found.status))
    return " ".join(parts)


CASES = expanded()
RULINGS = [case for case in CASES if case.get("ask") != "write"]
WRITES = [case for case in CASES if case.get("ask") == "write"]


@pytest.mark.parametrize("case", RULINGS, ids=[case["id"] for case in RULINGS])
def test_rulings(case: dict[str, Any]) -> None:
    found = ruling(case)
    assert words(found) == case["expect"]
    if isinstance(found, (Keep, Freshen)):
        kept = found.headers_to_store if isinstance(found, Keep) else found.entry.headers
        terms = found.terms if isinstance(found, Keep) else found.entry.terms
        assert terms.lifetime_s == case.get("lifetime", terms.lifetime_s)
        names = {name.decode() for name, _ in kept}
        assert names.isdisjoint(case.get("lacks", []))
        assert names.issuperset(case.get("has", []))
    if isinstance(found, (Forward, Refetch)):
        assert (found.drop is not None) == case.get("drops", False)


@pytest.mark.parametrize("case", WRITES, ids=[case["id"] for case in WRITES])
def test_writes(case: dict[str, Any]) -> None:
    found = decision.invalidates(request_of(case["request"]), response_of(case["response"]))
    assert found == [target.encode() for target in case["targets"]]


# --- laws

DIRECTIVES = st.sampled_from(
    [
        *("max-age=0", "max-age=60", "s-maxage=60", "no-store", "no-cache", "private", "public"),
        *("must-revalidate", "proxy-revalidate", "must-understand", "immutable", "max-age=x"),
        *(
            "stale-while-revalidate=30",
            "stale-if-error=30",
            'no-cache="x"',
            'private="set-cookie"',
        ),
        *("only-if-cached", "max-stale", "min-fresh=5"),
    ]
)
CACHE_CONTROL = st.lists(DIRECTIVES, max_size=4).map(", ".join)
STATUSES = st.sampled_from([200, 204, 206, 301, 302, 304, 400, 404, 416, 500, 501, 503, 599])


@st.composite
def responses(draw: st.DrawFn) -> ResponseHead:
    lines = [f"cache-control: {draw(CACHE_CONTROL)}"] if draw(st.booleans()) else []
    lines += draw(
        st.lists(
            st.sampled_from(
                [
                    *(
                        'etag: "a"',
                        "last-modified: {-9000}",
                        "date: {0}",
                        "date: {-40}",
                        "age: 30",
                    ),
                    *("expires: {60}", "set-cookie: a=b", "vary: foo", "vary: *"),
                    *("cdn-cache-control: max-age=5", "cdn-cache-control: no-store"),
                    "pragma: no-cache",
                ]
            ),
            max_size=4,
        )
    )
    return ResponseHead(draw(STATUSES), headers(lines))


@st.composite
def requests(draw: st.DrawFn) -> RequestHead:
    lines = draw(
        st.lists(
            st.sampled_from(
                [
                    *("cookie: a=b", "authorization: x", "range: bytes=0-", 'if-none-match: "a"'),
                    *("content-length: 3", "content-length: 0", "foo: 1", "pragma: no-cache"),
                    *("x-http-method-override: PUT", "upgrade: websocket", "connection: upgrade"),
                ]
            ),
            max_size=3,
        )
    )
    if draw(st.booleans()):
        lines.append(f"cache-control: {draw(CACHE_CONTROL)}")
    method = draw(st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "FROB"]))
    return request_of({"method": method, "headers": lines})


POLICIES = st.builds(
    CachePolicy,
    bypass=st.booleans(),
    freshness=st.builds(
        FreshnessPolicy,
        ttl_s=st.none() | st.just(60.0),
        default_ttl_s=st.none() | st.just(60.0),
        stale_while_revalidate_s=st.none() | st.just(30.0),
        stale_if_error_s=st.none() | st.just(30.0),
        max_stale_s=st.sampled_from([0.0, 3600.0]),
        heuristic=st.booleans(),
    ),
    honour_request_directives=st.booleans(),
    set_cookie=st.sampled_from(["safe", "rfc"]),
    must_revalidate_allows_authorization=st.booleans(),
    store_post=st.booleans(),
    by_path=st.booleans(),
    by_extension=st.none() | st.just(b"css"),
)


@given(requests(), responses(), POLICIES, CACHE_CONTROL, st.sampled_from(["no-store", "private"]))
def test_no_store_and_private_are_never_kept(
    request: RequestHead, response: ResponseHead, policy: CachePolicy, besides: str, forbids: str
) -> None:
    assume(forbids == "private" or "must-understand" not in besides)  # RFC 9111 §5.2.2.3
    head = response.headers.without({b"cdn-cache-control", b"cache-control"})
    head = head.plus((b"cache-control", f"{besides}, {forbids}".encode()))
    found = decision.on_response(request, replace(response, headers=head), NOW, policy)
    assert not isinstance(found, Keep)


@given(requests(), requests(), responses(), POLICIES, st.integers(0, 5000))
def test_what_forbids_stale_is_never_served_stale(
    first: RequestHead,
    second: RequestHead,
    response: ResponseHead,
    policy: CachePolicy,
    after: int,
) -> None:
    head = response.headers.without({b"cdn-cache-control", b"cache-control"})
    head = head.plus((b"cache-control", b"max-age=60, must-revalidate, stale-if-error=9999"))
    kept = decision.on_response(first, replace(response, headers=head), NOW, policy)
    if not isinstance(kept, Keep):
        return
    entry = kept.entry(KEY, response.status, NOW, Seq(0))
    found = decision.on_request(second, entry, T + after, policy, variants=(entry,))
    fresh = decision.is_plainly_fresh(entry, request_of({}), T + after)
    assert fresh or not isinstance(found, Serve)
    assert not isinstance(found, Revalidate) or not found.background
    failed = decision.on_failure(entry, ResponseHead(503), T + after, policy)
    assert isinstance(failed, Fail)


@given(
    requests(),
    requests(),
    responses(),
    POLICIES,
    st.integers(-10, 900),
    st.booleans(),
    st.booleans(),
)
def test_the_cheap_side_never_says_yes_where_the_law_says_otherwise(
    first: RequestHead,
    second: RequestHead,
    response: ResponseHead,
    policy: CachePolicy,
    after: int,
    anew: bool,
    often: bool,
) -> None:
    policy = replace(policy, bypass=False)
    if often:  # what is kept at random is seldom plainly fresh
        first = replace(first, method=b"GET")
        head = response.headers.without({b"cdn-cache-control", b"cache-control", b"pragma"})
        response = ResponseHead(200, head.plus((b"cache-control", b"max-age=600, public")))
    kept = decision.on_response(first, response, NOW, policy)
    if not isinstance(kept, Keep):
        return
    entry = kept.entry(KEY, response.status, NOW, Seq(0))
    request = second if anew else first
    if vary.selects(entry, request) and decision.is_plainly_fresh(entry, request, T + after):
        found = decision.on_request(request, entry, T + after, policy, variants=(entry,))
        assert found == Serve(Reason.HIT)


@given(requests(), responses(), responses(), POLICIES, st.booleans())
def test_there_is_always_a_ruling(
    request: RequestHead,
    before: ResponseHead,
    response: ResponseHead,
    policy: CachePolicy,
    validating: bool,
) -> None:
    kept = decision.on_response(request_of({}), before, NOW, policy)
    entries = (kept.entry(KEY, before.status, NOW, Seq(0)),) if isinstance(kept, Keep) else ()
    found = decision.on_response(
        request, response, NOW, policy, variants=entries, validating=validating
    )
    assert isinstance(found, (Keep, Freshen, Refetch, Forward))
    if isinstance(found, Keep):
        assert found.keep_until > T
        assert request.method != b"HEAD"
        assert response.status not in (206, 304)
    asked = decision.on_request(request, next(iter(entries), None), T, policy, variants=entries)
    assert isinstance(asked, (Serve, Revalidate, Fetch, Refuse))


@given(requests(), responses(), POLICIES)
def test_what_was_kept_can_be_used(
    request: RequestHead, response: ResponseHead, policy: CachePolicy
) -> None:
    kept = decision.on_response(request, response, NOW, policy)
    if isinstance(kept, Keep) and request.method == b"GET":
        entry = kept.entry(KEY, response.status, NOW, Seq(0))
        assert vary.selects(entry, request)
        assert entry.keep_until > T


# --- what the vectors cannot say


def test_kept_entries_carry_all_that_a_lookup_needs() -> None:
    request = request_of({"headers": ["foo: 1"]})
    response = response_of(
        {
            "headers": [
                "cache-control: max-age=60",
                "date: {-5}",
                "age: 7",
                "vary: foo",
                "xkey: front",
            ]
        }
    )
    times = Times(T - 2, T)
    kept = decision.on_response(request, response, times, CachePolicy())
    assert isinstance(kept, Keep)
    entry = kept.entry(KEY, 200, times, Seq(4), length=9)
    assert (entry.date, entry.age_field, entry.variant) == (T - 5, 7, ((b"foo", b"1"),))
    assert (entry.fetched_at, entry.length) == (4, 9)
    assert entry.scopes == packed(names_of(KEY.url, (b"front",), ()))
    assert entry.keep_until == T + 51 + 3600
    assert entry.terms.source is Source.MAX_AGE


def kept_entry(lines: list[str], request: RequestHead | None = None) -> Entry:
    kept = decision.on_response(
        request or request_of({}), ResponseHead(200, headers(lines)), NOW, CachePolicy()
    )
    assert isinstance(kept, Keep)
    return kept.entry(KEY, 200, NOW, Seq(1))


def freshen(
    entries: tuple[Entry, ...], lines: list[str], *, asked: list[str] | None = None
) -> Any:
    return decision.on_response(
        request_of({"headers": asked or []}),
        ResponseHead(304, headers(lines)),
        Times(T + 100, T + 100),
        CachePolicy(),
        variants=entries,
        validating=True,
        as_of=Seq(9),
    )


def test_a_304_picks_one_of_several_variants_by_its_tag() -> None:
    one = kept_entry(
        ["cache-control: max-age=60", 'etag: "1"', "vary: foo"],
        request_of({"headers": ["foo: 1"]}),
    )
    two = kept_entry(
        ["cache-control: max-age=60", 'etag: "2"', "vary: foo"],
        request_of({"headers": ["foo: 2"]}),
    )
    found = freshen((one, two), ['etag: "2"'], asked=["foo: 1"])
    assert isinstance(found, Freshen)
    assert (found.old, found.entry.variant) == (two, two.variant)


def test_a_304_renews_the_times_and_takes_the_requests_purge_number() -> None:
    old = kept_entry(["cache-control: max-age=60", 'etag: "1"', "age: 40"])
    found = freshen((old,), ['etag: "1"'])
    assert isinstance(found, Freshen)
    assert (found.entry.times.response_time, found.entry.age_field) == (T + 100, 0)
    assert found.entry.keep_until == T + 100 + 60 + 3600
    assert found.entry.fetched_at == 9


def test_a_304_that_changes_vary_changes_the_variant() -> None:
    old = kept_entry(["cache-control: max-age=60", 'etag: "1"'])
    found = freshen((old,), ['etag: "1"', "vary: foo"], asked=["foo: 1"])
    assert isinstance(found, Freshen)
    assert found.entry.variant == ((b"foo", b"1"),)


def test_a_304_drops_what_it_names_as_private_from_the_stored_copy() -> None:
    old = kept_entry(["cache-control: max-age=60", 'etag: "1"', "x: old"])
    found = freshen((old,), ['etag: "1"', 'cache-control: max-age=60, private="x"', "x: new"])
    assert isinstance(found, Freshen)
    assert b"x" not in found.entry.headers


def test_a_304_that_says_vary_any_ends_what_is_stored() -> None:
    old = kept_entry(["cache-control: max-age=60", 'etag: "1"'])
    assert freshen((old,), ['etag: "1"', "vary: *"]) == Refetch(Reason.VARY_ANY, drop=old)


def tagged_304(stored: list[str], *lines: str) -> Any:
    old = kept_entry(["cache-control: max-age=60", 'etag: "1"', *stored])
    return freshen((old,), ['etag: "1"', *lines])


def has(entry: Entry, name: bytes) -> bool:
    return packed([name]) in [entry.scopes[at : at + 8] for at in range(0, len(entry.scopes), 8)]


def test_a_304_brings_new_tags_and_groups() -> None:
    found = tagged_304(
        ["cache-tag: a", "xkey: x", 'cache-groups: "g"'], "cache-tag: b", 'cache-groups: "h"'
    )
    assert found.entry.scopes == packed(names_of(KEY.url, (b"b", b"x"), (b"h",)))


def test_a_304_that_says_nothing_of_tags_leaves_them() -> None:
    found = tagged_304(["cache-tag: a, b", 'cache-groups: "g"'])
    assert found.entry.scopes == packed(names_of(KEY.url, (b"a", b"b"), (b"g",)))


def test_tags_from_a_field_that_is_withheld_outlive_a_304_without_it() -> None:
    old = ['cache-control: max-age=60, no-cache="cache-tag, cache-groups"']
    first = tagged_304([*old, "cache-tag: a", "xkey: x", 'cache-groups: "g"'], "xkey: y").entry
    assert b"cache-tag" not in first.headers
    second = freshen((first,), ['etag: "1"', "cache-control: max-age=60", "xkey: z"]).entry
    for name in (tag_name(b"a"), group_name(b"http", b"example.com", b"g"), tag_name(b"z")):
        assert has(second, name)
    assert has(first, tag_name(b"y"))
    assert not has(second, tag_name(b"x"))
    assert not has(second, tag_name(b"y"))


def test_a_304_with_more_tags_than_are_remembered_ends_what_is_stored() -> None:
    many = " ".join(map(str, range(MOST_TAGS + 1)))
    found = tagged_304([], f"xkey: {many}")
    assert isinstance(found, Refetch)
    assert found.because is Reason.TOO_MANY_TAGS
    assert found.drop is not None


def test_tags_that_are_withheld_do_not_pile_up_without_end() -> None:
    hides = 'cache-control: max-age=60, no-cache="xkey"'
    entry = kept_entry([hides, 'etag: "1"'])
    rounds = 0
    while True:
        words = " ".join(f"{rounds}-{each}" for each in range(MOST_TAGS))
        found = freshen((entry,), ['etag: "1"', hides, f"xkey: {words}"])
        if isinstance(found, Refetch):
            break
        entry, rounds = found.entry, rounds + 1
    assert (found.because, rounds) == (Reason.TOO_MANY_TAGS, 1)


@given(requests(), responses(), POLICIES, st.integers(0, 900), st.integers(-900, 900))
def test_what_was_soft_purged_is_never_a_hit_whatever_the_clock_says(
    request: RequestHead, response: ResponseHead, policy: CachePolicy, since: int, after: int
) -> None:
    kept = decision.on_response(request_of({}), response, NOW, policy)
    if not isinstance(kept, Keep):
        return
    entry = softened(kept.entry(KEY, response.status, NOW, Seq(0)), T + since)
    now = T + since + after
    found = decision.on_request(request, entry, now, policy, variants=(entry,), soft=True)
    assert found.because is not Reason.HIT
    if after >= 0:
        assert not decision.is_plainly_fresh(entry, request_of({}), now)


def test_an_entry_that_varies_on_everything_is_a_miss() -> None:
    entry = replace(kept_entry(["cache-control: max-age=60"]), vary_any=True)
    found = decision.on_request(request_of({}), entry, T, CachePolicy(), variants=(entry,))
    assert found == Fetch(Reason.VARY_MISS)
    assert not decision.is_plainly_fresh(entry, request_of({}), T)


def test_a_bypassed_site_serves_nothing_stale() -> None:
    entry = kept_entry(["cache-control: max-age=60"])
    found = decision.on_failure(entry, ResponseHead(503), T, CachePolicy(bypass=True))
    assert found == Fail(Reason.NOTHING_STORED)
    assert decision.on_failure(entry, ResponseHead(503), T, CachePolicy()) == ServeStale(
        Reason.STALE_IF_ERROR
    )


def test_a_site_may_name_other_targeted_fields() -> None:
    policy = CachePolicy(targets=(b"edge-cache-control", b"cdn-cache-control"))
    lines = ["cdn-cache-control: max-age=5", "edge-cache-control: max-age=7"]
    kept = decision.on_response(request_of({}), ResponseHead(200, headers(lines)), NOW, policy)
    assert isinstance(kept, Keep)
    assert kept.terms.lifetime_s == 7


class Css:
    """One media type."""

    def takes(self, content_type: bytes) -> bool:
        return content_type == b"text/css"


TYPED = CachePolicy(
    by_type=((Css(), CachePolicy(freshness=FreshnessPolicy(ttl_s=7.0), tags=(b"x-tags",))),)
)


def typed(content_type: bytes, status: int = 200) -> ResponseHead:
    told = [(b"content-type", content_type), (b"cache-control", b"max-age=60"), (b"etag", b'"1"')]
    return ResponseHead(status, Headers([*told, (b"x-tags", b"a"), (b"xkey", b"b")]))


@pytest.mark.parametrize(
    ("content_type", "lifetime_s", "tags"),
    [(b"text/css", 7.0, (b"a",)), (b"text/html", 60.0, (b"b",))],
)
def test_an_answer_is_kept_by_the_rule_of_its_type(
    content_type: bytes, lifetime_s: float, tags: tuple[bytes, ...]
) -> None:
    get = RequestHead(b"GET", b"http", b"example.com", b"/")
    keep = decision.on_response(get, typed(content_type), NOW, TYPED)
    assert isinstance(keep, Keep)
    assert (keep.terms.lifetime_s, keep.tags) == (lifetime_s, tags)
    stored = keep.entry(KEY, 200, NOW, Seq(0), length=1)
    renewed = decision.on_response(
        get, typed(content_type, 304), NOW, TYPED, variants=(stored,), validating=True
    )
    assert isinstance(renewed, Freshen)
    assert renewed.entry.terms.lifetime_s == lifetime_s


def test_an_answer_that_its_type_keeps_out_is_not_stored_and_not_renewed() -> None:
    get = RequestHead(b"GET", b"http", b"example.com", b"/")
    none = replace(TYPED, by_type=((Css(), CachePolicy(bypass=True)),))
    assert decision.on_response(get, typed(b"text/css"), NOW, none) == Forward(Reason.BYPASS)
    keep = decision.on_response(get, typed(b"text/css"), NOW, TYPED)
    assert isinstance(keep, Keep)
    stored = keep.entry(KEY, 200, NOW, Seq(0), length=1)
    for status, method in ((304, b"GET"), (200, b"HEAD")):
        ruled = decision.on_response(
            replace(get, method=method), typed(b"text/css", status), NOW, none,
            variants=(stored,), validating=True,
        )  # fmt: skip
        assert ruled.because is Reason.BYPASS
    assert isinstance(decision.on_response(get, typed(b"text/html"), NOW, none), Keep)
