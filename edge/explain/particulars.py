"""What is known of a request and of what is stored for it, as the sections of an explanation.

Values for JSON: text that is safe to print, numbers, lists. Times are Unix seconds where they are
moments and end in `_s` where they are spans. A section that has nothing to tell is None.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from edge.cache import vary
from edge.cache.freshness import arrival_age, current_age, time_to_live
from edge.cache.key import key_parts
from edge.cache.purge import Verdict
from edge.cache.ruling import CachePolicy
from edge.cache.scope import digest, digests, names_of, told
from edge.cache.tags import all_tags, groups_of
from edge.cache.validation import conditional
from edge.explain import prospect
from edge.explain.question import plain
from edge.routing.site import TypeMatch
from edge.serving.errand import without_credentials
from edge.serving.finding import NOTHING, is_overtaken, look_at
from edge.serving.trip import crowd_of, flight_key, trip_of
from edge.wire.hop import upgrade_offered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from edge.cache.entry import Entry
    from edge.cache.held import Held, Resource
    from edge.cache.purge import Cover, Purge, Purges
    from edge.cache.ruling import Types
    from edge.explain.question import Question
    from edge.routing.site import Match
    from edge.serving.admission import Admitted
    from edge.serving.finding import Found
    from edge.serving.visit import Parts, Tools
    from edge.wire.message import RequestHead

LONG: Final = 8192  # of a value from outside, in bytes: as much as is told of it
_STATES: Final = {
    Verdict.LIVE: "live",
    Verdict.STALE: "soft-purged",
    Verdict.DEAD: "purged",
}
_NOT_SETTINGS: Final = ("by_path", "by_type")


@dataclass(frozen=True, slots=True)
class Case:
    """A request that was admitted, and all that is known when it is judged."""

    question: Question
    head: RequestHead
    admitted: Admitted
    parts: Parts
    tools: Tools
    resource: Resource
    found: Found
    purges: Purges
    now: float

    @property
    def held(self) -> Held | None:
        """The stored variant that is told of: the one selected, else the one purged."""
        if self.found.held is not None:
            return self.found.held
        request, policy = self.admitted.request, self.admitted.policy
        dead = {id(held.entry): held for held in self.found.dead}
        entries = [held.entry for held in self.found.dead]
        chosen = vary.choose(entries, request, policy.vary)
        return None if chosen is None else dead[id(chosen)]

    @property
    def ttl(self) -> float | None:
        """Seconds of freshness left of what is selected; None where nothing is."""
        entry = self.found.entry
        return None if entry is None else time_to_live(entry, self.now)


def of(
    case: Case, goes: str, reason: str, recall: Callable[[int], Purge | None]
) -> dict[str, Any]:
    """All sections, in order; `goes` is how the request goes to the origin, and why."""
    sent = _sent(case, goes, reason)
    held = case.held
    stored = held.entry if held is not None else None
    is_here = case.admitted.redirect is not None  # no one is asked, and nothing is fetched
    return {
        "request": {
            **of_question(case.question, case.parts),
            **_request(case, sent),
            "at": _seconds(case.now),
        },
        "site": _site(case),
        "key": _key(case.admitted),
        "variant": _variant(case),
        "stored": None if held is None else _stored(case, held),
        "freshness": None if stored is None else _freshness(case, stored),
        "purges": _purges(case, held, recall),
        "decision": decision(case, goes, reason),
        "flight": None if is_here else _flight(case),
        "route": None if is_here else _route(case, sent, goes),
    }


def lines(text: bytes) -> str:
    """Bytes for people, cut only where they are very long."""
    return plain(text, LONG)


# --- the request


def of_question(question: Question, parts: Parts) -> dict[str, Any]:
    """The request as it was asked about."""
    return {
        "method": lines(question.method),
        "url": lines(question.url),
        "from": lines(question.from_address),
        "trusted": parts.trusted.trusts(question.from_address),
        "notes": question.notes(parts.trusted),
    }


def _request(case: Case, sent: RequestHead) -> dict[str, Any]:
    names = list(dict.fromkeys(name for name, _ in case.head.headers))
    before, after = case.head.headers, sent.headers
    return {
        "client": lines(case.admitted.client),
        "target": lines(case.admitted.request.target),
        "dropped": [lines(name) for name in names if name not in after],
        "rewritten": [
            lines(name) for name in names if name in after and before.all(name) != after.all(name)
        ],
    }


def _sent(case: Case, goes: str, reason: str) -> RequestHead:
    """The request as the origin would see it."""
    admitted = case.admitted
    shared = goes in ("leads", "joins", "behind")
    found = case.found if shared else NOTHING
    trip = trip_of(admitted, case.parts.ways, case.purges.latest, found)
    if not shared:
        upgrade = upgrade_offered(case.head) if reason == "upgrade" else None
        return trip.outgoing(admitted.request, upgrade)
    request = admitted.request
    if goes == "behind":
        request = without_credentials(request, found.entry)
    entries = [held.entry for held in found.variants]
    return trip.outgoing(conditional(request, entries, admitted.policy.vary))


# --- the site


def _site(case: Case) -> dict[str, Any]:
    admitted = case.admitted
    site, request = admitted.site, admitted.request
    host = case.parts.sites.matched(request.authority)
    rules = site.rules_for(request, admitted.place)
    matched = None
    if rules:
        rule = rules[-1]
        matched = {"index": site.rules.index(rule), "match": _words(rule.match)}
    return {
        "name": site.name,
        "host": None if host is None else lines(host),
        "rule": matched,
        "rules": len(site.rules),
        "cache": _differing(admitted.policy, CachePolicy()),
        "by_type": [
            {"types": _types(types), "cache": _differing(policy, CachePolicy())}
            for types, policy in admitted.policy.by_type
        ],
    }


def _types(types: Types) -> list[str]:
    """The media types that a rule waits for, as they are written."""
    globs = types.globs if isinstance(types, TypeMatch) else ()
    return [lines(b"*".join(glob.parts)) for glob in globs]


def _words(match: Match) -> str:
    """What a rule is for: `path /live/*; methods GET, HEAD`."""
    words = []
    if match.path is not None:
        words.append(f"path {lines(b'*'.join(match.path.parts))}")
    if match.methods:
        words.append(f"methods {', '.join(lines(name) for name in sorted(match.methods))}")
    if match.hosts is not None:
        words.append(f"hosts {', '.join(lines(host) for host in match.hosts.patterns)}")
    for kind, patterns in (("header", match.headers), ("cookie", match.cookies)):
        words += [f"{kind} {lines(name)} {lines(b'*'.join(g.parts))}" for name, g in patterns]
    words += [f"{kind} {', '.join(sorted(codes))}" for kind, codes in _codes(match)]
    return "; ".join(words) or "everything"


def _codes(match: Match) -> Iterator[tuple[str, frozenset[str]]]:
    if match.countries:
        yield "country", match.countries
    if match.continents:
        yield "continent", match.continents


def _differing(policy: Any, default: Any) -> dict[str, Any]:
    """The settings that are not what they are by default, under their names in the settings."""
    differing: dict[str, Any] = {}
    for each in fields(policy):
        value, usual = getattr(policy, each.name), getattr(default, each.name)
        if value == usual or each.name in _NOT_SETTINGS:
            continue
        if is_dataclass(value):
            inner = _differing(value, usual)
            prefix = "" if each.name == "freshness" else f"{each.name}."
            differing |= {prefix + name: inner[name] for name in inner}
        else:
            differing[each.name.removesuffix("_s")] = _value(value)
    return differing


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return lines(value)
    return [_value(each) for each in value] if isinstance(value, tuple) else value


# --- key and variant


def _key(admitted: Admitted) -> dict[str, Any]:
    request = admitted.request
    parts = key_parts(
        request.scheme,
        request.authority,
        request.target,
        request,
        admitted.site.key,
        admitted.by,
    )
    return {
        "url": lines(admitted.key.url),
        "digest": admitted.key.digest.hex(),
        "parts": {name: _part(name, value) for name, value in parts},
    }


def _part(name: str, value: bytes) -> str | list[str] | None:
    """A part of a key for people; one of the site's own is as many values as the request has."""
    if " " not in name and name != "cookies":
        return lines(value)
    values = [lines(each) for each in _listed(value)]
    return values if len(values) > 1 else values[0] if values else None


def _listed(value: bytes) -> Iterator[bytes]:
    """The values that a key holds one behind the other, each with its length: `3:abc0:`."""
    at = 0
    while at < len(value):
        start = value.index(b":", at) + 1
        at = start + int(value[at : start - 1])
        yield value[start:at]


def _variant(case: Case) -> dict[str, Any] | None:
    """What the request says in the fields that stored answers vary on."""
    variants = case.resource.variants
    if not variants:
        return None
    names = sorted({name for held in variants for name, _ in held.entry.variant})
    pairs = vary.variant(names, case.admitted.request, case.admitted.policy.vary)
    return {
        "fields": {lines(name): None if value is None else lines(value) for name, value in pairs},
        "stored": len(variants),
        "purged": len(case.found.dead),
        "variants": [fields_of(held.entry) for held in variants],
    }


def fields_of(entry: Entry) -> dict[str, str | None]:
    """What a stored variant is for; `Vary: *` is for no one."""
    if entry.vary_any:
        return {"*": None}
    return {lines(name): None if value is None else lines(value) for name, value in entry.variant}


# --- what is stored


def _stored(case: Case, held: Held) -> dict[str, Any]:
    entry = held.entry
    return {
        "state": _STATES[look_at(held, case.purges)],
        "status": entry.status,
        "bytes": entry.length,
        "where": where(held, in_memory=case.tools.store.is_in_memory(held)),
        "etag": _field(entry, b"etag"),
        "last_modified": _field(entry, b"last-modified"),
        "asked_at": entry.times.request_time,
        "stored_at": entry.times.response_time,
        "hits": held.hits,
        "purge": entry.fetched_at,
        "other_variants": len(case.resource.variants) - 1,
    }


def where(held: Held, *, in_memory: bool) -> str:
    """Where the body is: memory, disk, both, or still on its way.

    A small one comes with its row, and is on disk alone unless the memory tier has it.
    """
    if held.fill is not None and held.body is None:
        return "on its way"
    if held.row is None:
        return "memory"
    return "both" if in_memory and held.body is not None else "disk"


def _field(entry: Entry, name: bytes) -> str | None:
    value = entry.headers.get(name)
    return None if value is None else lines(value)


def _freshness(case: Case, stored: Entry) -> dict[str, Any]:
    """The age as a sum: the larger of the first two, and `resident_s`."""
    ruled = case.found.entry or stored
    times, terms = stored.times, stored.terms
    delay = max(0.0, times.response_time - times.request_time)
    return {
        "age_s": _seconds(current_age(stored, case.now)),
        "by_date_s": _seconds(max(0.0, times.response_time - stored.date)),
        "by_age_field_s": _seconds(stored.age_field + delay),
        "resident_s": _seconds(max(0.0, case.now - times.response_time)),
        "arrived_s": _seconds(arrival_age(stored.date, stored.age_field, times)),
        "lifetime_s": _seconds(terms.lifetime_s),
        "source": terms.source.value,
        "ended_early_s": _seconds(terms.lifetime_s - ruled.terms.lifetime_s),
        "ttl_s": _seconds(time_to_live(ruled, case.now)),
        "stale_while_revalidate_s": _seconds(terms.while_revalidate_s),
        "stale_if_error_s": _seconds(terms.if_error_s),
        "always_validate": terms.always_validate,
        "keep_until": _seconds(stored.keep_until),
    }


def _seconds(value: float) -> float:
    return round(value, 3)


# --- purges


def names_known(entry: Entry, tag_fields: Iterable[bytes]) -> list[bytes]:
    """The names of the scopes that `entry` was given, as far as its fields still tell them."""
    tags = all_tags(entry.headers, tuple(tag_fields))
    names = names_of(entry.key.url, tags, groups_of(entry.headers))
    given = digests(entry.scopes)
    return [name for name in names if digest(name) in given]


def _purges(
    case: Case, held: Held | None, recall: Callable[[int], Purge | None]
) -> dict[str, Any]:
    document: dict[str, Any] = {"latest": case.purges.latest, "floor": case.purges.floor}
    if held is None:
        return {**document, "tags": [], "scopes": [], "unnamed": 0, "covering": []}
    entry, site_tags = held.entry, case.admitted.policy.tags
    names = names_known(entry, site_tags)
    return {
        **document,
        "tags": [lines(tag) for tag in all_tags(entry.headers, site_tags)],
        "scopes": [_scope(name) for name in names if not name.startswith(b"T")],
        "unnamed": len(digests(entry.scopes)) - len({digest(name) for name in names}),
        "covering": [_cover(cover, recall(cover.number)) for cover in covers(case, held)],
    }


def covers(case: Case, held: Held) -> list[Cover]:
    """The purges that cover a stored variant, as far as its names are known, oldest first."""
    names = names_known(held.entry, case.admitted.policy.tags)
    return case.purges.covering(held.passed, names)


def _scope(name: bytes) -> str:
    return " ".join(told(name))


def _covered(cover: Cover, purge: Purge | None) -> str:
    """What a purge covers, in words; one that is no longer known may have been everything."""
    if cover.name is not None:
        return _scope(cover.name) + (", or too much on it to be remembered" * cover.is_floor)
    if purge is None:
        return "everything, or too much to be remembered"
    return "everything" if purge.everything else "too much to be remembered"


def _cover(cover: Cover, purge: Purge | None) -> dict[str, Any]:
    return {
        "number": cover.number,
        "manner": cover.manner.value,
        "scope": _covered(cover, purge),
        "when": None if purge is None else _seconds(purge.when),
        "who": None if purge is None else lines(purge.who.encode()),
    }


# --- how it was decided, and where it would go


def decision(case: Case, goes: str, reason: str) -> list[str]:
    """The questions of the law and their answers, one sentence each."""
    chain = [f"the site is {case.admitted.site.name}"]
    if case.admitted.redirect is not None:
        return [*chain, f"so: {reason}, by its rule"]
    if not case.resource.variants:
        chain.append("nothing is stored under the key")
    else:
        count, dead = len(case.resource.variants), len(case.found.dead)
        chain.append(f"stored under the key: {count}, of which purged: {dead}")
        chain.append(_choice(case))
    if case.ttl is not None:
        state = "fresh" if case.ttl > 0 else "stale"
        more = " more" if case.ttl > 0 else ""
        chain.append(f"it is {state} for {abs(case.ttl):.0f} s{more}")
    if case.found.soft:
        chain.append("a soft purge has ended its lifetime")
    chain.append(f"so: {reason}" + (f", {_GOES[goes]}" if goes else ""))
    return chain


_GOES: Final = {
    "alone": "the request goes to the origin for this client alone",
    "leads": "the request goes to the origin, and others may share the answer",
    "joins": "the request waits for a fetch that is under way",
    "behind": "the origin is asked behind the answer",
}


def _choice(case: Case) -> str:
    if case.found.held is not None:
        return "the request selects one of them"
    if case.held is not None:
        return "the request selects one that has been purged"
    return "the request selects none of them"


def _flight(case: Case) -> dict[str, Any]:
    """What is under way for the key, and what the last answers have taught."""
    admitted, flights = case.admitted, case.tools.flights
    digest_ = admitted.key.digest
    flight = flights.find(flight_key(admitted, case.found))
    return {
        "aloft_s": None if flight is None else _seconds(trio.current_time() - flight.began),
        "overtaken": flight is not None and is_overtaken(flight, admitted.key, case.purges),
        "lonely": flights.is_lonely(digest_, crowd_of(admitted.request)),
        "troubled": flights.is_troubled(digest_),
    }


def _route(case: Case, sent: RequestHead, goes: str) -> dict[str, Any]:
    admitted, ways = case.admitted, case.parts.ways
    origins = prospect.origins_of(admitted, ways)
    first = next(iter(origins), None)
    return {
        "goes": goes or None,
        "arms": prospect.arms_of(admitted),
        "place": prospect.place_of(admitted, ways),
        "via": prospect.via(admitted, ways),
        "origins": origins,
        "origin": first["name"] if first is not None else None,
        "host": lines(_host(case, sent)),
        "target": lines(admitted.asked),
        "conditions": {
            name.decode("ascii"): lines(value)
            for name, value in sent.headers
            if name in (b"if-none-match", b"if-modified-since")
        },
    }


def _host(case: Case, sent: RequestHead) -> bytes:
    """The Host that the first origin is sent."""
    ways = case.parts.ways
    group = next(
        (ways.groups[n] for n in ways.origins_of(case.admitted) if n in ways.groups), None
    )
    if group is None:
        return sent.authority
    return group.host or sent.authority or group.settings.servers[0].authority
