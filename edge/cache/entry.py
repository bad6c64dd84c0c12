"""A stored response: its head, times, validators, variant, scopes and purge number; its byte form.

An entry is one variant of one resource and never changes: a 304 or a HEAD makes a new one. What
its directives and the site's policy say about reuse is worked out once, when it arrives, and kept
as `Terms`; no later code reads Cache-Control again. The body is not here: see `fill` and `disk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import NewType

from edge.wire.message import Headers, Times

__all__ = ["Entry", "Key", "Seq", "Source", "Terms", "Times", "Variant"]

Seq = NewType("Seq", int)
"""A purge number: the one current when a request looked in the store."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a resource is stored under.

    `digest` is 16 bytes over the length-prefixed parts (scheme, host, path, query, and what the
    site adds), so that no two requests with different forwarded bytes share one. `url` is the
    same in words, for people: `http://example.com/a?b`.
    """

    digest: bytes
    url: bytes


class Source(Enum):
    """Where a lifetime comes from."""

    RULE = "rule"
    TARGETED = "targeted"
    S_MAXAGE = "s-maxage"
    MAX_AGE = "max-age"
    EXPIRES = "expires"
    HEURISTIC = "heuristic"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a stored response may be used again; all in seconds.

    `lifetime_s` counts from age zero. `while_revalidate_s` and `if_error_s` count from the end of
    the lifetime; `if_error_s` already includes what the site grants without directives, and both
    are 0 where the directives forbid stale use. `always_validate` is an unqualified no-cache.
    """

    lifetime_s: float
    source: Source
    while_revalidate_s: float = 0.0
    if_error_s: float = 0.0
    always_validate: bool = False


Variant = tuple[tuple[bytes, bytes | None], ...]
"""The selecting fields of a request: `(lower-case name, normalised value or None)` in the order
of the name. Empty where the response does not vary."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored response.

    `headers` are as they will be sent on, without hop-by-hop fields, Age, and fields that the
    directives keep out of stores. `date` is the Date field, or the time of arrival where there is
    none; `age_field` the Age it arrived with, in seconds. `length` is the size of the whole body
    in bytes, None while it is not known. `keep_until` is when it is of no more use, not even for
    validation. `scopes` are the digests of the names that a purge may cover it by, 8 bytes each
    (see `scope`). `body` tells its body from every other that was stored under its key, and stays
    when a 304 renews the head; where the body was made of another one's, by coding it or decoding
    it, `made_of` is that one's `body`. Times are Unix seconds.
    """

    key: Key
    status: int
    headers: Headers
    times: Times
    date: float
    age_field: int
    terms: Terms
    variant: Variant
    length: int | None
    fetched_at: Seq
    keep_until: float
    vary_any: bool = False  # `Vary: *`: never selected without validation (RFC 9111 §4.1)
    scopes: bytes = b""
    reason: bytes = b""
    body: bytes = b""
    made_of: bytes = b""


def body_mark(times: Times, fetched_at: Seq, number: int) -> bytes:
    """What tells a body that was fetched then from others under its key: 8 bytes.

    `number` is another one each time that a process asks: clocks are coarse.
    """
    told = b"%r %r %d %d" % (times.request_time, times.response_time, fetched_at, number)
    return blake2b(told, digest_size=8).digest()
