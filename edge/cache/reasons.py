"""Why a request went the way it did: the one vocabulary of log, counters and Cache-Status.

Every decision carries a `Reason`. The log prints its `slug`, the counter is labelled with it, and
`cache_status` makes the RFC 9211 member of it, so the three cannot disagree. There are two kinds.
Reasons *to look elsewhere or not* come from `on_request` and `on_failure` and say whether the
request went forward (`fwd`). Reasons *to keep or not* come from `on_response`; they say what
became of the answer, stand beside the first kind as its `detail`, and carry `fwd=miss`, RFC
9211's word for "cannot say", for the case that nothing else is known.

RFC 9211 §2.1 calls a hit what was answered without going forward. So an answer served stale while
it is fetched in the background is a hit with a negative ttl, and one served stale after the
origin failed is not: it says `fwd=stale`, with what happened as its detail.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final


class Reason(Enum):
    """One reason: (slug, whether it is a hit, RFC 9211 `fwd` or None, `detail` or None)."""

    # Answered from the store.
    HIT = ("hit", True, None, None)
    STALE_WHILE_REVALIDATE = ("stale-while-revalidate", True, None, b"stale-while-revalidate")
    STALE_ACCEPTED = ("stale-accepted", True, None, b"max-stale")
    # Answered here, with an error.
    ONLY_IF_CACHED = ("only-if-cached", False, None, b"only-if-cached")
    # Answered here, for who may empty the store.
    PURGE = ("purge", False, None, b"purge")
    # Answered here, with where to go instead.
    REDIRECT = ("redirect", False, None, b"redirect")

    # Sent forward.
    URI_MISS = ("uri-miss", False, b"uri-miss", None)
    VARY_MISS = ("vary-miss", False, b"vary-miss", None)
    STALE = ("stale", False, b"stale", None)
    NO_CACHE = ("no-cache", False, b"stale", b"no-cache")
    SOFT_PURGED = ("soft-purged", False, b"stale", b"soft-purged")
    REQUEST = ("request", False, b"request", None)
    METHOD = ("method", False, b"method", None)
    BYPASS = ("bypass", False, b"bypass", None)
    BODY = ("body", False, b"bypass", b"body")
    UPGRADE = ("upgrade", False, b"bypass", b"upgrade")

    # Sent forward, and the origin failed.
    STALE_IF_ERROR = ("stale-if-error", False, b"stale", b"stale-if-error")
    NOTHING_STORED = ("nothing-stored", False, b"miss", b"nothing-stored")
    STALE_FORBIDDEN = ("stale-forbidden", False, b"stale", b"stale-forbidden")
    TOO_STALE = ("too-stale", False, b"stale", b"too-stale")
    NOT_THE_ORIGIN = ("not-the-origin", False, b"miss", b"not-the-origin")

    # The answer was kept.
    STORED = ("stored", False, b"miss", None)
    FRESHENED = ("freshened", False, b"stale", b"freshened")
    HEAD_FRESHENED = ("head-freshened", False, b"miss", b"freshened")

    # The answer was not kept.
    NO_STORE = ("no-store", False, b"miss", b"no-store")
    PRIVATE = ("private", False, b"miss", b"private")
    NOT_UNDERSTOOD = ("not-understood", False, b"miss", b"not-understood")
    REQUEST_NO_STORE = ("request-no-store", False, b"request", b"no-store")
    AUTHORIZATION = ("authorization", False, b"miss", b"authorization")
    COOKIE = ("cookie", False, b"miss", b"cookie")
    SET_COOKIE = ("set-cookie", False, b"miss", b"set-cookie")
    VARY_ANY = ("vary-any", False, b"miss", b"vary-any")
    TOO_MANY_TAGS = ("too-many-tags", False, b"miss", b"too-many-tags")
    STRANGE = ("strange-request", False, b"miss", b"strange-request")
    STATUS = ("status", False, b"miss", b"status")
    UNUSABLE = ("no-lifetime", False, b"miss", b"no-lifetime")
    HEAD = ("head", False, b"miss", b"head")
    HEAD_DIFFERS = ("head-differs", False, b"miss", b"head-differs")
    PARTIAL = ("partial", False, b"partial", b"partial")
    UNASKED = ("unasked", False, b"miss", b"unasked")
    OVERTAKEN = ("overtaken", False, b"miss", b"overtaken")  # by a write, while it was under way
    NOT_STORED_HERE = ("validator-mismatch", False, b"stale", b"validator-mismatch")

    def __init__(self, slug: str, is_hit: bool, fwd: bytes | None, detail: bytes | None) -> None:
        self.slug: Final = slug
        self.is_hit: Final = is_hit
        self.fwd: Final = fwd
        self.detail: Final = detail


_SF_TOKEN: Final = re.compile(rb"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_SF_STRING: Final = re.compile(rb"[\x20-\x7e]*")


def cache_status(
    node_name: bytes,
    reason: Reason,
    *,
    ttl: float | None = None,
    stored: bool = False,
    collapsed: bool = False,
    fwd_status: int | None = None,
    key: bytes | None = None,
    because: Reason | None = None,
) -> bytes:
    """This node's member of Cache-Status (RFC 9211 §2).

    `reason` is why the request went forward or not; `because`, where the origin answered, what
    became of the answer. `ttl` is seconds of freshness left, negative for stale. `fwd_status`
    and `collapsed` say nothing about a request that did not go forward, and are left out then.
    """
    parts = [_name(node_name), b"; hit" if reason.is_hit else b""]
    if reason.fwd is not None:
        parts.append(b"; fwd=%b" % reason.fwd)
        parts.append(b"" if fwd_status is None else b"; fwd-status=%d" % fwd_status)
        parts.append(b"; collapsed" if collapsed else b"")
    parts.append(b"; stored" if stored else b"")
    parts.append(b"" if ttl is None else b"; ttl=%d" % (ttl // 1))
    detail = _detail(reason, because)
    parts.append(b"" if detail is None else b"; detail=%b" % detail)
    parts.append(b"" if key is None else b"; key=%b" % _string(key))
    return b"".join(parts)


def _detail(reason: Reason, because: Reason | None) -> bytes | None:
    """What the answer's fate adds, else what the request's own reason says."""
    return because.detail if because is not None and because.detail else reason.detail


def _name(node_name: bytes) -> bytes:
    """The name as a token where it is one, else as a string."""
    return node_name if _SF_TOKEN.fullmatch(node_name) else _string(node_name)


def _string(value: bytes) -> bytes:
    """A structured-field string (RFC 9651 §3.3.3); others than ASCII escaped as `%xx`."""
    if _SF_STRING.fullmatch(value) is None:
        value = b"".join(
            bytes([octet]) if 0x20 <= octet <= 0x7E else b"%%%02x" % octet for octet in value
        )
    return b'"%b"' % value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
