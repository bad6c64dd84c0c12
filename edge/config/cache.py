"""What is told of caching: `cache`, of the node, a site or a rule.

A `cache` table of a site takes what it does not set from the node's, and a rule's from its site's;
the inheritance is worked out while reading, so a `Config` holds only whole tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edge.config import notation as n
from edge.config.notation import span
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
