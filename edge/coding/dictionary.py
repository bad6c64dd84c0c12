"""Dictionaries that clients may already hold (RFC 9842): what becomes one, and which one is meant.

A response with Use-As-Dictionary becomes a dictionary for the URLs of its `match`, once all of its
body is there; a client that kept it says its SHA-256 in Available-Dictionary, and may be sent dcz
made with it. Whoever asks is the client; here it is only checked that what it names is one that
this origin gave out for this URL.

`Dictionaries` is what one worker has at hand, bounded in number and in bytes; what is used longest
ago goes first. What other workers have learned it finds on the node's `shelf`. Everything is held
by *realm*: the site's name and the origin (scheme and authority) that the dictionary came from.
Nothing is ever found across realms, so no page can be compressed with another origin's secrets
(RFC 9842 §9.3).

`match` is a URL pattern (§2.1.1). Of those, what servers write is understood: a path, absolute or
relative to the dictionary's own, with `*` for any text, and a query behind `?`; no query means any
query. A pattern with groups, names, braces, escapes or another host is not understood, and such a
response is then no dictionary: clients may hold it, but are answered as if they did not.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import http_sf

from edge.coding.zstd import ZstdDict
from edge.routing.site import Glob

if TYPE_CHECKING:
    from edge.wire.message import Headers

MOST: Final = 256
MOST_BYTES: Final = 16 * 1024 * 1024
MOST_EACH: Final = 1024 * 1024
MOST_REALM: Final = 128  # the bundles of one large application, in two versions
LEAST_BYTES: Final = 8  # zstd's own bound
MOST_ID: Final = 1024  # RFC 9842 §2.1.3
_MOST_VALUE: Final = 4096  # of Use-As-Dictionary: a pattern, and an id
_DIGEST: Final = re.compile(rb":([A-Za-z0-9+/]{43}=):")  # a byte sequence of 32 (RFC 9651 §3.3.5)
_LITERAL: Final = re.compile(rb"[A-Za-z0-9\-._~!$&',;=@%/*]*+")  # of what may stand in a path
_LITERAL_QUERY: Final = re.compile(rb"[A-Za-z0-9\-._~!$&',;=@%/*?]*+")


class Realm(NamedTuple):
    """Within what a dictionary may be used: one site, and one origin of its."""

    site: str
    origin: bytes
    """Scheme and authority, in lower case: `https://www.example.com`."""


class UrlMatch(NamedTuple):
    """Which URLs of its origin a dictionary is for."""

    path: Glob
    query: Glob | None
    """None for any query, or none."""

    @property
    def pattern(self) -> bytes:
        """A `match` that says so, absolute: `url_match` makes this of it again."""
        path = b"*".join(self.path.parts)
        return path if self.query is None else b"%b?%b" % (path, b"*".join(self.query.parts))

    def takes(self, target: bytes) -> bool:
        """Whether a request target in origin form is one."""
        path, mark, query = target.partition(b"?")
        if not self.path.matches(path):
            return False
        return self.query is None or self.query.matches(query if mark else b"")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a Use-As-Dictionary says: for which URLs, and by which id (b"" for none).

    `match_dest` are the request destinations (Sec-Fetch-Dest) it is for; all, where empty.
    """

    match: UrlMatch
    id: bytes = b""
    match_dest: frozenset[bytes] = frozenset()

    def is_meant_for(self, destination: bytes | None) -> bool:
        """Whether it is for a request with this Sec-Fetch-Dest; None where it has none."""
        return not self.match_dest or destination is None or destination in self.match_dest


@dataclass(slots=True, eq=False)
class Dictionary:
    """A body that clients may hold; `digest` is its SHA-256."""

    content: bytes
    offer: Offer
    digest: bytes = field(init=False)
    digested: tuple[ZstdDict, int] = field(init=False, repr=False)
    """As the zstd library takes it: indexed by the first encoder of each level, and kept so."""
    is_indexed: bool = field(default=False, init=False)
    """Whether an encoder has been made with it."""

    def __post_init__(self) -> None:
        self.digest = sha256(self.content).digest()
        self.digested = ZstdDict(self.content, is_raw=True).as_digested_dict


def offer(headers: Headers, target: bytes) -> Offer | None:
    """What a response to `target` offers as a dictionary; None for none that can be used.

    Other types than `raw` are none (RFC 9842 §2.1.4), and so is what cannot be read.
    """
    said = headers.joined(b"use-as-dictionary")
    if said is None or len(said) > _MOST_VALUE:
        return None
    try:
        told: Any = http_sf.parse(said, tltype="dictionary")
    except (http_sf.StructuredFieldError, ValueError, OverflowError):
        return None
    match, kind, name = (told.get(key, (default, {}))[0] for key, default in _MEMBERS)
    if not isinstance(match, str) or not isinstance(name, str) or len(name) > MOST_ID:
        return None
    if str(kind) != "raw":
        return None
    found, meant = url_match(match.encode("ascii"), target), _destinations(told.get("match-dest"))
    if found is None or meant is None:
        return None
    return Offer(found, name.encode("ascii"), meant)


_MEMBERS: Final = (("match", None), ("type", "raw"), ("id", ""))


def url_match(pattern: bytes, base: bytes) -> UrlMatch | None:
    """The URLs that a `match` takes, resolved against the dictionary's own target; None where it
    is not understood (see above)."""
    path, mark, query = pattern.partition(b"?")
    if not path.startswith(b"/"):
        if not path:
            return None
        path = base.partition(b"?")[0].rpartition(b"/")[0] + b"/" + path
    if path.startswith(b"//") or b"/." in path:
        return None  # another host; or to be resolved in ways that a pattern can hide
    if _LITERAL.fullmatch(path) is None or _LITERAL_QUERY.fullmatch(query) is None:
        return None
    return UrlMatch(Glob.parse(path), Glob.parse(query) if mark else None)


def available(headers: Headers) -> bytes | None:
    """The SHA-256 that a request's Available-Dictionary names; None for none, several, or junk."""
    said = headers.all(b"available-dictionary")
    match = _DIGEST.fullmatch(said[0]) if len(said) == 1 else None
    return None if match is None else b64decode(match[1])


def _destinations(member: Any) -> frozenset[bytes] | None:
    """The strings of `match-dest`, an inner list (RFC 9842 §2.1.2); None for anything else."""
    if member is None:
        return frozenset()
    values, _ = member
    if not isinstance(values, list) or not all(isinstance(value, str) for value, _ in values):
        return None
    return frozenset(value.encode("ascii") for value, _ in values)


class Dictionaries:
    """The dictionaries that a worker has at hand.

    At most `most` of them in `most_bytes` together, `most_each` bytes each, and `most_realm` of
    one realm, so that no site crowds out the others. One that is used takes five times its size.
    """

    def __init__(
        self,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        most_each: int = MOST_EACH,
        most_realm: int = MOST_REALM,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._most_each = most_each
        self._most_realm = most_realm
        self._held: OrderedDict[tuple[Realm, bytes], Dictionary] = OrderedDict()
        self._realms: dict[Realm, dict[bytes, Dictionary]] = {}
        self.held_bytes = 0
        """The contents together."""

    def __len__(self) -> int:
        return len(self._held)

    def fits(self, size: int) -> bool:
        """Whether a body of `size` bytes may become a dictionary at all."""
        return LEAST_BYTES <= size <= min(self._most_each, self._most_bytes)

    def add(self, realm: Realm, made: Dictionary) -> bool:
        """Have this one at hand; False where it does not fit.

        It takes the place of one with the same body, as it has the newer offer.
        """
        size = len(made.content)
        if not self.fits(size):
            return False
        self._drop((realm, made.digest))
        if len(self._realms.get(realm, ())) >= self._most_realm:
            self._drop(next(key for key in self._held if key[0] == realm))
        while self._held and (
            len(self._held) >= self._most or self.held_bytes + size > self._most_bytes
        ):
            self._drop(next(iter(self._held)))
        self._held[realm, made.digest] = made
        self._realms.setdefault(realm, {})[made.digest] = made
        self.held_bytes += size
        return True

    def find(self, realm: Realm, digest: bytes) -> Dictionary | None:
        """The dictionary of this realm that a client names: it is used."""
        found = self._held.get((realm, digest))
        if found is not None:
            self._held.move_to_end((realm, digest))
        return found

    def look(self, realm: Realm, digest: bytes) -> Dictionary | None:
        """The same, without its being used."""
        return self._held.get((realm, digest))

    def has_elsewhere(self, digest: bytes) -> bool:
        """Whether any realm has a dictionary of this digest; looks through all."""
        return any(held == digest for _, held in self._held)

    def _drop(self, key: tuple[Realm, bytes]) -> None:
        found = self._held.pop(key, None)
        if found is None:
            return
        self.held_bytes -= len(found.content)
        realm, digest = key
        del self._realms[realm][digest]
        if not self._realms[realm]:
            del self._realms[realm]
