"""What is told of sites and origins: `cache`, `[origin.NAME]`, `[[site]]`, `[[site.rule]]`.

A `cache` table of a site takes what it does not set from the node's, and a rule's from its site's;
the inheritance is worked out while reading, so a `Config` holds only whole tables.
"""

from __future__ import annotations

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Mapping  # noqa: TC003
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003
from typing import ClassVar, Literal

from edge.config import notation as n
from edge.config.notation import NOT_HERE, span, wait
from edge.settings import setting
from edge.settings.kinds import DAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class VarySettings:
    """`cache.vary`: which differences between requests' selecting fields mean nothing."""

    unordered: tuple[str, ...] = field(
        default=(),
        metadata=setting("Further fields compared as Accept-Encoding is.", n.KEYED_FIELD),
    )
    languages: tuple[str, ...] = field(
        default=(),
        metadata=setting("Further fields compared as Accept-Language is.", n.KEYED_FIELD),
    )
    sort_languages: bool = field(
        default=False, metadata=setting("Ignore the order of languages; only q-values count.")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """`cache`, of the node, a site or a rule: on what terms answers are kept and used again."""

    bypass: bool = field(
        default=False, metadata=setting("Neither answer from the store nor put into it.")
    )
    ttl: float | None = field(
        default=None,
        metadata=span(
            "Lifetime in place of what the origin says; private and no-store still hold."
        ),
    )
    default_ttl: float | None = field(
        default=None,
        metadata=span("Lifetime where the origin says nothing."),
    )
    heuristic: bool = field(
        default=True, metadata=setting("Guess a lifetime from Last-Modified (RFC 9111 §4.2.2).")
    )
    heuristic_fraction: float = field(
        default=0.1,
        metadata=setting("Share of the time since Last-Modified.", least=0.0, most=1.0),
    )
    heuristic_max: float = field(default=DAY_S, metadata=span("Longest lifetime by guess."))
    heuristic_error_max: float = field(
        default=60.0, metadata=span("Longest lifetime of an error by guess.")
    )
    max_stale: float = field(
        default=3_600.0,
        metadata=span(
            "How long an answer is kept past its lifetime, for validation and for trouble at "
            "the origin."
        ),
    )
    stale_while_revalidate: float | None = field(
        default=None,
        metadata=span("This window in place of the origin's (RFC 5861 §3)."),
    )
    stale_if_error: float | None = field(
        default=None,
        metadata=span("This window in place of the origin's (RFC 5861 §4)."),
    )
    honour_request_directives: bool = field(
        default=False,
        metadata=setting("Let clients' Cache-Control make this node validate or fetch."),
    )
    set_cookie: Literal["safe", "rfc"] = field(
        default="safe",
        metadata=setting(
            "Answers with Set-Cookie: store only those marked for it, or as RFC 9111 §7.3 allows."
        ),
    )
    must_revalidate_allows_authorization: bool = field(
        default=False,
        metadata=setting(
            "must-revalidate lets answers to Authorization be shared (RFC 9111 §3.5)."
        ),
    )
    store_post: bool = field(
        default=False,
        metadata=setting("Store answers to POST that say for which URL they stand (§4)."),
    )
    targets: tuple[str, ...] = field(
        default=("cdn-cache-control",),
        metadata=setting(
            "Fields that stand in Cache-Control's place, the most telling first (RFC 9213).",
            n.KEYED_FIELD,
            most_members=8,
        ),
    )
    vary: VarySettings = field(
        default_factory=VarySettings, metadata=setting("How selecting fields are compared.")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginTimeouts:
    """`origin.NAME.timeouts`."""

    connect: float = field(default=5.0, metadata=wait("For a free connection, and for a new one."))
    first_byte: float = field(
        default=30.0, metadata=wait("From the request's end to the response head.")
    )
    between_bytes: float = field(
        default=30.0, metadata=wait("Standstill while a body goes either way.")
    )
    total: float = field(default=3_600.0, metadata=wait("For one request, its body included."))
    idle: float = field(default=60.0, metadata=wait("For an unused connection to be kept."))


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginSettings:
    """`[origin.NAME]`: where content comes from."""

    unbuilt: ClassVar[Mapping[str, str]] = {
        "at": f"geography: {NOT_HERE}",
        "balance": f"balancing: {NOT_HERE}; name one server",
        "check": f"health checks: {NOT_HERE}",
    }

    servers: tuple[str, ...] = field(
        metadata=setting(
            "The origin's URL; this version takes one.", n.SERVER, fewest=1, most_members=1
        )
    )
    ca: Path | None = field(
        default=None,
        metadata=setting("PEM file of the CAs to trust in place of the system's."),
    )
    host: str | None = field(
        default=None,
        metadata=setting("Host to send in place of the client's.", n.HOST_FIELD),
    )
    max_connections: int = field(
        default=256,
        metadata=setting("Connections at once; more requests wait.", least=1, most=100_000),
    )
    max_idle: int = field(
        default=64,
        metadata=setting("Unused connections kept at once.", least=0, most=100_000),
    )
    timeouts: OriginTimeouts = field(
        default_factory=OriginTimeouts, metadata=setting("How long the origin may take.")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """`site.route`: which origin a site's requests go to."""

    unbuilt: ClassVar[Mapping[str, str]] = {
        "nearest": f'geography: {NOT_HERE}; write first = ["NAME"]',
        "via": f"shields: {NOT_HERE}",
        "retries": f"retries by policy: {NOT_HERE}",
        "budget": f"retries by policy: {NOT_HERE}",
    }

    first: tuple[str, ...] = field(
        metadata=setting("The origin, by name; this version takes one.", fewest=1, most_members=1)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySettings:
    """`site.query`: what of the query is forwarded, and so keyed."""

    keep: tuple[str, ...] = field(
        default=(), metadata=setting("Parameters to keep; others are dropped.", n.PARAMETER)
    )
    drop: tuple[str, ...] = field(default=(), metadata=setting("Parameters to drop.", n.PARAMETER))
    sort: bool = field(default=False, metadata=setting("Sort parameters by name."))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """`site.key`: what else tells one stored answer from another."""

    headers: tuple[str, ...] = field(
        default=(), metadata=setting("Request fields to key by.", n.KEYED_FIELD, most_members=32)
    )
    cookies: tuple[str, ...] = field(
        default=(), metadata=setting("Cookies to key by.", n.COOKIE_NAME, most_members=32)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadersSettings:
    """`site.headers`: changes to every answer's fields."""

    set: Mapping[str, str] = field(
        default_factory=dict,
        metadata=setting(
            "Fields to set, in place of any of that name.",
            n.FIELD_VALUE,
            names=n.FIELD_NAME,
            most_members=64,
        ),
    )
    remove: tuple[str, ...] = field(
        default=(), metadata=setting("Fields to take out.", n.FIELD_NAME, most_members=64)
    )
    keep: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            "Which of Server and X-Powered-By, taken out otherwise, to let through.",
            n.FIELD_NAME,
            most_members=64,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchSettings:
    """`site.rule.match`: the requests a rule is for; what is left out matches all."""

    path: str | None = field(
        default=None,
        metadata=setting("Pattern of the path as forwarded; `*` is any text.", n.GLOB),
    )
    methods: tuple[str, ...] = field(
        default=(), metadata=setting("Methods.", n.METHOD, most_members=64)
    )
    hosts: tuple[str, ...] = field(
        default=(), metadata=setting("Hosts, as in site.hosts.", n.HOST, most_members=64)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSettings:
    """`[[site.rule]]`: other terms for some requests; the first that matches holds."""

    match: MatchSettings = field(metadata=setting("The requests that the rule is for."))
    cache: CacheSettings = field(
        default_factory=CacheSettings,
        metadata=setting("Terms that differ from the site's.", inherits=True),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """`[[site]]`: some hosts, their origin, and their rules."""

    unbuilt: ClassVar[Mapping[str, str]] = {
        "compress": f"compression: {NOT_HERE}",
        "experiment": f"experiments: {NOT_HERE}",
    }

    hosts: tuple[str, ...] = field(
        metadata=setting("Hosts: exact, `*.` before a name, or `*`.", n.HOST, fewest=1)
    )
    route: RouteSettings = field(metadata=setting("Where the site's requests go."))
    query: QuerySettings = field(
        default_factory=QuerySettings, metadata=setting("What of the query counts.")
    )
    key: KeySettings = field(
        default_factory=KeySettings, metadata=setting("What else the key is made of.")
    )
    headers: HeadersSettings = field(
        default_factory=HeadersSettings, metadata=setting("Changes to answers' fields.")
    )
    cache: CacheSettings = field(
        default_factory=CacheSettings,
        metadata=setting("Terms that differ from the node's.", inherits=True),
    )
    tags: tuple[str, ...] = field(
        default=("surrogate-key", "cache-tag", "xkey"),
        metadata=setting(
            "Fields of answers whose words are tags to purge by, each with its own separators.",
            n.FIELD_NAME,
            most_members=16,
        ),
    )
    strip_tags: bool = field(
        default=False, metadata=setting("Take these fields out of what clients are sent.")
    )
    purge_from: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            "Who may send PURGE requests to the public port; to others it is no method.",
            n.NETWORK,
        ),
    )
    purge_reach: Literal["host", "node"] = field(
        default="host",
        metadata=setting(
            "What a PURGE with tags covers: the host that it is sent to, or all hosts; "
            "whoever may PURGE can then empty the whole node."
        ),
    )
    rules: tuple[RuleSettings, ...] = field(
        default=(), metadata=setting("Other terms for some requests.", key="rule")
    )
