"""What the law is given and what it may rule: a site's policy, and one small type per ruling.

The law itself is `decision`. Every ruling says why (`reasons`), and carries what its executor
needs and cannot know: nothing here does anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from edge.cache.entry import Entry, Key, Seq, Terms, Times, Variant
from edge.cache.freshness import FreshnessPolicy
from edge.cache.reasons import Reason
from edge.cache.scope import names_of, packed
from edge.cache.tags import DEFAULT_FIELDS
from edge.cache.vary import VaryPolicy

if TYPE_CHECKING:
    from edge.wire.message import Headers


class Types(Protocol):
    """Some media types."""

    def takes(self, content_type: bytes) -> bool:
        """Whether a value of Content-Type is one of them."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What a site, or the rule of it that matched, says about caching."""

    bypass: bool = False
    freshness: FreshnessPolicy = field(default_factory=FreshnessPolicy)
    honour_request_directives: bool = False
    set_cookie: Literal["safe", "rfc"] = "safe"  # safe: public, s-maxage or a targeted lifetime
    must_revalidate_allows_authorization: bool = False  # RFC 9111 §3.5; many add it out of habit
    store_post: bool = False  # for later GETs: fresh, and Content-Location is the target
    targets: tuple[bytes, ...] = (b"cdn-cache-control",)  # RFC 9213, the most telling first
    vary: VaryPolicy = field(default_factory=VaryPolicy)
    tags: tuple[bytes, ...] = DEFAULT_FIELDS  # the fields that tags are taken from: lower case
    by_path: bool = False  # the rule matched a part of the path
    by_extension: bytes | None = None  # it matched by this extension: lower case, no dot
    by_type: tuple[tuple[Types, CachePolicy], ...] = ()  # what holds for answers of some types

    def of_answer(self, headers: Headers) -> CachePolicy:
        """The policy for an answer with these fields: the first whose types it is of."""
        if self.by_type:
            told = headers.get(b"content-type") or b""
            for types, policy in self.by_type:
                if types.takes(told):
                    return policy
        return self


# --- what may be ruled


@dataclass(frozen=True, slots=True)
class Serve:
    """Answer from the store, now."""

    because: Reason
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Revalidate:
    """Validate what is stored; `background`: serve it stale now, and validate behind."""

    because: Reason
    background: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """Send the request forward."""

    because: Reason


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with an error of our own."""

    status: int
    because: Reason


@dataclass(frozen=True, slots=True)
class Keep:
    """Store the answer, and pass it on."""

    terms: Terms
    headers_to_store: Headers
    keep_until: float
    date: float
    age_field: int
    variant: Variant
    tags: tuple[bytes, ...] = ()
    groups: tuple[bytes, ...] = ()
    because: Reason = Reason.STORED

    def scopes(self, key: Key) -> bytes:
        """What a purge may cover the answer by, under `key`, as `Entry.scopes` has it."""
        return packed(names_of(key.url, self.tags, self.groups))

    def entry(
        self,
        key: Key,
        status: int,
        times: Times,
        fetched_at: Seq,
        *,
        length: int | None = None,
        reason: bytes = b"",
        body: bytes = b"",
    ) -> Entry:
        """The entry to begin with; `length` is the body's, where it is known.

        `reason` is the phrase behind the status, and `body` what tells the body from others.
        """
        return Entry(
            key=key,
            status=status,
            headers=self.headers_to_store,
            times=times,
            date=self.date,
            age_field=self.age_field,
            terms=self.terms,
            variant=self.variant,
            length=length,
            fetched_at=fetched_at,
            keep_until=self.keep_until,
            scopes=self.scopes(key),
            reason=reason,
            body=body,
        )


@dataclass(frozen=True, slots=True)
class Freshen:
    """Put `entry` in the place of `old`, over the same body, and answer from it."""

    entry: Entry
    old: Entry
    because: Reason = Reason.FRESHENED


@dataclass(frozen=True, slots=True)
class Refetch:
    """The 304 is of no use: ask again without conditions. `drop` must leave the store."""

    because: Reason
    drop: Entry | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """Pass the answer on and do not store it. `drop` must leave the store."""

    because: Reason
    drop: Entry | None = None


@dataclass(frozen=True, slots=True)
class ServeStale:
    """Answer from the store although it is stale."""

    because: Reason


@dataclass(frozen=True, slots=True)
class Fail:
    """Let the failure stand: the error's status, or the origin's own answer."""

    because: Reason


OnRequest: TypeAlias = Serve | Revalidate | Fetch | Refuse
OnResponse: TypeAlias = Keep | Freshen | Refetch | Forward
OnFailure: TypeAlias = ServeStale | Fail
