"""Authority to site, and request to rule: exact names before wildcards, the first rule that fits.

A host is looked up as it was asked for, without its port and without one final dot. An exact name
wins, then the longest `*.name` that it ends in (any number of labels deep), then `*`. The cost is
bounded by the 253 bytes of a host and does not depend on how many sites there are.

Rules look at the path as it will be forwarded, so no spelling of a path reaches the origin by
other rules than it was judged by. Which extension a pattern asks for is told here; whether an
answer keeps that promise is the law's to say (`cache.suspicion`).

A rule may also look at fields, cookies and the client's place, which are not in the key by
themselves (`Match.reads_beyond_url`): where such a rule changes what the origin is asked, whoever
makes the key must put the rule into it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from edge.wire.cookies import values_of
from edge.wire.fields import parse_media_type
from edge.wire.message import Headers

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")

HOST_BYTES: Final = 253  # RFC 1035 §2.3.4, without the final dot


def host_of(authority: bytes) -> bytes:
    """The host that an authority names, in lower case: no port, no final dot."""
    if authority.startswith(b"["):
        return authority.partition(b"]")[0].lower() + b"]"
    return authority.partition(b":")[0].lower().removesuffix(b".")


class HostTable(Generic[T]):
    """What belongs to which host; patterns are `name`, `*.name` or `*`, in lower case."""

    __slots__ = ("_deepest", "_exact", "_rest", "_suffixes")

    def __init__(self, pairs: Iterable[tuple[bytes, T]]) -> None:
        self._exact: dict[bytes, T] = {}
        self._suffixes: dict[bytes, T] = {}
        self._rest: T | None = None
        for pattern, value in pairs:
            if pattern == b"*":
                self._rest = value
            elif pattern.startswith(b"*."):
                self._suffixes[pattern[2:]] = value
            else:
                self._exact[pattern] = value
        self._deepest = max((len(suffix) for suffix in self._suffixes), default=0)

    def find(self, authority: bytes) -> T | None:
        """What the authority's host belongs to, or None where no pattern takes it."""
        host = host_of(authority)
        if (found := self._exact.get(host)) is not None:
            return found
        if self._suffixes and len(host) <= HOST_BYTES:
            return self._by_suffix(host)
        return self._rest

    def matched(self, authority: bytes) -> bytes | None:
        """The pattern that takes the host, for people; None where `find` gives None."""
        host = host_of(authority)
        if host in self._exact:
            return host
        at = host.find(b".", 1) if len(host) <= HOST_BYTES else -1
        while at >= 0:
            if host[at + 1 :] in self._suffixes:
                return b"*" + host[at:]
            at = host.find(b".", at + 1)
        return None if self._rest is None else b"*"

    @property
    def patterns(self) -> tuple[bytes, ...]:
        """All patterns: exact names, then those with a star."""
        rest = () if self._rest is None else (b"*",)
        return (*self._exact, *(b"*." + suffix for suffix in self._suffixes), *rest)

    def _by_suffix(self, host: bytes) -> T | None:
        at = host.find(b".", max(0, len(host) - self._deepest - 1))
        while at >= 0:  # the longest suffix first
            if at and (found := self._suffixes.get(host[at + 1 :])) is not None:
                return found
            at = host.find(b".", at + 1)
        return self._rest


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern in which `*` is any text, `/` too; `parts` is what stands between the stars."""

    parts: tuple[bytes, ...]

    @classmethod
    def parse(cls, pattern: bytes) -> Glob:
        """The pattern as written; every other character stands for itself."""
        return cls(tuple(pattern.split(b"*")))

    def matches(self, text: bytes) -> bool:
        """Whether the whole text fits: each part is sought once, so the cost is linear."""
        first, last = self.parts[0], self.parts[-1]
        if not self.is_open:
            return text == first
        if len(text) < len(first) + len(last):
            return False
        if not (text.startswith(first) and text.endswith(last)):
            return False
        at, end = len(first), len(text) - len(last)
        for part in self.parts[1:-1]:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    def captures(self, text: bytes) -> tuple[bytes, ...] | None:
        """What each star stands for, the earlier as short as can be; None where it does not fit.

        Parts and captures in turn are the text again. Linear, as `matches` is.
        """
        if not self.matches(text):
            return None
        if not self.is_open:
            return ()
        at, end = len(self.parts[0]), len(text) - len(self.parts[-1])
        found: list[bytes] = []
        for part in self.parts[1:-1]:
            next_at = text.find(part, at, end)
            found.append(text[at:next_at])
            at = next_at + len(part)
        return (*found, text[at:end])

    @property
    def is_open(self) -> bool:
        """Whether the pattern has a star, and so takes more than one text."""
        return len(self.parts) > 1

    @property
    def extension(self) -> bytes | None:
        """The extension that the pattern asks for (`css` of `*.css`), if its end is one."""
        last = self.parts[-1]
        if not self.is_open or not last.startswith(b".") or b"/" in last:
            return None
        return last.rpartition(b".")[2].lower() or None


class Whereabouts(Protocol):
    """What a rule may ask of a client's place: ISO codes in upper case, "" where unknown."""

    @property
    def country(self) -> str: ...
    @property
    def continent(self) -> str: ...


_NO_FIELDS: Final = Headers()


@dataclass(frozen=True, slots=True)
class Match:
    """The requests that a rule is for; what is left out takes all.

    `headers` (names in lower case) and `cookies` each ask for a value that fits their pattern,
    one of several sent; `countries` and `continents` hold ISO codes, and no place is in none.
    """

    path: Glob | None = None
    methods: frozenset[bytes] = field(default=frozenset())
    hosts: HostTable[bool] | None = None
    headers: tuple[tuple[bytes, Glob], ...] = ()
    cookies: tuple[tuple[bytes, Glob], ...] = ()
    countries: frozenset[str] = field(default=frozenset())
    continents: frozenset[str] = field(default=frozenset())

    def takes(
        self,
        method: bytes,
        authority: bytes,
        path: bytes,
        headers: Headers = _NO_FIELDS,
        place: Whereabouts | None = None,
    ) -> bool:
        """Whether a request is the rule's; `path` is as forwarded, without its query."""
        if self.methods and method not in self.methods:
            return False
        if self.path is not None and not self.path.matches(path):
            return False
        if self.hosts is not None and not self.hosts.find(authority):
            return False
        return not self.reads_beyond_url or self._takes_sender(headers, place)

    @property
    def reads_beyond_url(self) -> bool:
        """Whether two requests for one URL may differ in whether they are taken, but by method."""
        return bool(self.headers or self.cookies or self.countries or self.continents)

    def _takes_sender(self, headers: Headers, place: Whereabouts | None) -> bool:
        if self.countries and (place is None or place.country not in self.countries):
            return False
        if self.continents and (place is None or place.continent not in self.continents):
            return False
        for name, glob in self.headers:
            if not any(glob.matches(value) for value in headers.all(name)):
                return False
        for name, glob in self.cookies:
            if not any(glob.matches(value) for value in values_of(headers, name)):
                return False
        return True


@dataclass(frozen=True, slots=True)
class TypeMatch:
    """The media types that a rule is for, by patterns like `image/*`, in lower case."""

    globs: tuple[Glob, ...]

    @classmethod
    def parse(cls, patterns: Iterable[bytes]) -> TypeMatch:
        """Patterns of media types, in any case."""
        return cls(tuple(Glob.parse(pattern.lower()) for pattern in patterns))

    def takes(self, content_type: bytes | None) -> bool:
        """Whether a response's Content-Type is one; its parameters do not count, none is none."""
        essence = parse_media_type(content_type) if content_type else b""
        return bool(essence) and any(glob.matches(essence) for glob in self.globs)


@dataclass(frozen=True, slots=True)
class Rule(Generic[T]):
    """A match and what holds for its requests; with `types`, for their answers of those types."""

    match: Match
    terms: T
    types: TypeMatch | None = None


def rules_for(
    rules: Iterable[Rule[T]],
    method: bytes,
    authority: bytes,
    path: bytes,
    headers: Headers = _NO_FIELDS,
    place: Whereabouts | None = None,
) -> tuple[Rule[T], ...]:
    """The rules that hold for a request, top to bottom: the first that takes it, and before that
    those that take it and wait for the type of its answer."""
    taken = []
    for rule in rules:
        if rule.match.takes(method, authority, path, headers, place):
            taken.append(rule)
            if rule.types is None:
                break
    return tuple(taken)
