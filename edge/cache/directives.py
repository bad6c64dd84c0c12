"""Cache-Control and the targeted fields, parsed once into frozen values (RFC 9111 §5.2, RFC 9213).

Two parsers, because the two grammars fail in opposite directions. `Cache-Control` is old and
loosely written: what cannot be read is taken in its most restrictive sense. A targeted field
(`CDN-Cache-Control`) is a structured-field dictionary: what cannot be read is as if it were not
there, and one that can be read replaces `Cache-Control` and `Expires` whole.

How `Cache-Control` is read: a line is cut at the commas outside quoted strings. A member that is
a token, with or without `=` and a token or a quoted string right behind it, is *sound*. Any other
member (spaces around `=`, `;` for a comma, a quote left open) is *damaged*: every word in it that
names a directive counts, and none of their arguments does. So `max-age=60; private` is private,
and `max-age =60` is a lifetime of 0, but neither can make an answer live longer than was meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import http_sf

from edge.wire.fields import is_token, parse_delta, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edge.wire.message import Headers

FOREVER_S: Final = 2**31
"""What a `max-stale` without an argument allows, and the bound of every other number here
(RFC 9111 §1.2.2: a larger one counts as this)."""


@dataclass(frozen=True, slots=True)
class Directives:
    """What one Cache-Control says. Times are whole seconds; None means absent.

    A directive whose argument cannot be read stands at its most restrictive value (a lifetime of
    0). `no_cache_fields` and `private_fields` hold lower-case field names of the qualified forms;
    the unqualified form sets `no_cache` or `private` itself.
    """

    max_age: int | None = None
    s_maxage: int | None = None
    no_store: bool = False
    no_cache: bool = False
    no_cache_fields: frozenset[bytes] = frozenset()
    private: bool = False
    private_fields: frozenset[bytes] = frozenset()
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    immutable: bool = False
    no_transform: bool = False
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    # Requests only.
    min_fresh: int | None = None
    max_stale: int | None = None  # without an argument: 2**31, any staleness
    only_if_cached: bool = False


NOTHING: Final = Directives()
"""No directive at all."""

# Each with what makes two differing values into the more restrictive one.
_SECONDS: Final = {
    b"max-age": min,
    b"s-maxage": min,
    b"stale-while-revalidate": min,
    b"stale-if-error": min,
    b"min-fresh": max,
    b"max-stale": min,
}
_RESTRICTING: Final = frozenset(
    (b"no-store", b"must-revalidate", b"proxy-revalidate", b"no-transform", b"only-if-cached")
)
_LOOSENING: Final = frozenset((b"public", b"immutable", b"must-understand"))
_LISTING: Final = frozenset((b"no-cache", b"private"))

# A stored answer without one of these would be another answer: compressed bytes without their
# label, one variant served for all. A directive that names one is read as the unqualified form.
_INSEPARABLE: Final = frozenset(
    (b"content-type", b"content-encoding", b"content-length", b"content-range", b"vary")
)

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SOUND: Final = re.compile(
    rb"(?P<name>%b)(?:=(?P<argument>%b|\"(?:[^\"\\]|\\.)*\"))?" % (_TOKEN, _TOKEN), re.DOTALL
)
_LEADING_TOKEN: Final = re.compile(_TOKEN)
_BREAKS: Final = re.compile(rb"[;,\"\s=]")
_UNREADABLE: Final = b""
_MEMO_VALUE_BYTES: Final = 128  # an origin has few, and short ones: the memo stays under 1 MiB

Member: TypeAlias = tuple[bytes, bytes | None]


def parse_cache_control(values: Sequence[bytes]) -> Directives:
    """What these Cache-Control lines say (RFC 9111 §5.2). Never fails; doubt is a restriction."""
    if len(values) == 1 and len(values[0]) <= _MEMO_VALUE_BYTES:
        return _remembered(values[0])
    return _parsed(values)


@lru_cache(maxsize=512)
def _remembered(value: bytes) -> Directives:
    return _parsed((value,))


def _parsed(values: Sequence[bytes]) -> Directives:
    reading = _Reading()
    for value in values:
        for member in tokens(value):
            for name, argument in _members(member):
                reading.take(name, argument)
    return reading.directives()


def _members(member: bytes) -> Iterator[Member]:
    """A sound member as it stands; every word of a damaged one, each with no argument to trust."""
    sound = _SOUND.fullmatch(member)
    if sound is not None:
        yield sound["name"].lower(), sound["argument"]
        return
    for piece in _BREAKS.split(member):
        word = _LEADING_TOKEN.match(piece)
        if word is not None:
            yield word[0].lower(), _UNREADABLE


class _Reading:
    """Directives while they are being read: repeated ones are merged towards the stricter."""

    __slots__ = ("fields", "flags", "seconds")

    def __init__(self) -> None:
        self.seconds: dict[bytes, int] = {}
        self.flags: set[bytes] = set()
        self.fields: dict[bytes, frozenset[bytes]] = {}

    def take(self, name: bytes, argument: bytes | None) -> None:
        """Count one directive; `argument` is b"" where there is one that cannot be read."""
        if name in _SECONDS:
            stricter, value = _SECONDS[name], _seconds(name, argument)
            self.seconds[name] = stricter(self.seconds.get(name, value), value)
        elif name in _RESTRICTING or (name in _LOOSENING and argument is None):
            self.flags.add(name)
        elif name in _LISTING:
            self.name_fields(name, None if argument is None else _unquoted(argument))

    def name_fields(self, name: bytes, listed: bytes | None) -> None:
        """Count a `no-cache` or `private`, with the fields that it lists or as a whole."""
        names = _field_names(listed)
        if names is None:
            self.flags.add(name)
        else:
            self.fields[name] = self.fields.get(name, frozenset()) | names

    def directives(self) -> Directives:
        """All that was counted."""
        seconds, flags, fields = self.seconds, self.flags, self.fields
        return Directives(
            max_age=seconds.get(b"max-age"),
            s_maxage=seconds.get(b"s-maxage"),
            no_store=b"no-store" in flags,
            no_cache=b"no-cache" in flags,
            no_cache_fields=fields.get(b"no-cache", frozenset()),
            private=b"private" in flags,
            private_fields=fields.get(b"private", frozenset()),
            public=b"public" in flags,
            must_revalidate=b"must-revalidate" in flags,
            proxy_revalidate=b"proxy-revalidate" in flags,
            must_understand=b"must-understand" in flags,
            immutable=b"immutable" in flags,
            no_transform=b"no-transform" in flags,
            stale_while_revalidate=seconds.get(b"stale-while-revalidate"),
            stale_if_error=seconds.get(b"stale-if-error"),
            min_fresh=seconds.get(b"min-fresh"),
            max_stale=seconds.get(b"max-stale"),
            only_if_cached=b"only-if-cached" in flags,
        )


def _seconds(name: bytes, argument: bytes | None) -> int:
    """The argument in seconds, or the value of `name` that allows least."""
    if argument is None and name == b"max-stale":  # RFC 9111 §5.2.1.2: any staleness
        return FOREVER_S
    value = None if argument is None else parse_delta(_unquoted(argument))
    if value is not None:
        return value
    return FOREVER_S if name == b"min-fresh" else 0


def _unquoted(argument: bytes) -> bytes:
    """What stands between the quotes. No directive needs an escape, so none is undone."""
    return argument[1:-1] if argument[:1] == b'"' else argument


def _field_names(listed: bytes | None) -> frozenset[bytes] | None:
    """The lower-case names listed, or None where the directive must count as a whole."""
    names = frozenset(name.lower() for name in tokens(listed or b""))
    if not names or not all(map(is_token, names)) or names & _INSEPARABLE:
        return None
    return names


def parse_targeted(values: Sequence[bytes]) -> Directives | None:
    """What these lines of a targeted field say, None where the field must be ignored.

    RFC 9213 §2.1: an empty field and one with a syntax error are ignored whole; a member with a
    value of the wrong type is ignored alone.
    """
    dictionary = _dictionary(b", ".join(values))
    if not dictionary:
        return None
    reading = _Reading()
    for key, (value, _) in dictionary.items():
        _take_typed(reading, key.encode(), value)
    return reading.directives()


def _dictionary(value: bytes) -> dict[str, tuple[object, object]]:
    """A structured-field dictionary (RFC 9651 §3.2), empty where it is none."""
    try:
        parsed = http_sf.parse(value, tltype="dictionary")
    except (http_sf.StructuredFieldError, ValueError, OverflowError):
        # The last two: a Date item beyond what Python's datetime can hold.
        return {}
    return cast("dict[str, tuple[object, object]]", parsed)


def _take_typed(reading: _Reading, name: bytes, value: object) -> None:
    """Count one member: integers for times, strings for lists of fields, true for the rest."""
    if name in _SECONDS:
        if type(value) is int:  # a Boolean is an int to Python, not to RFC 9651
            reading.seconds[name] = max(0, min(value, FOREVER_S))
    elif name in _LISTING:
        if value is True:
            reading.name_fields(name, None)
        elif isinstance(value, str) and type(value) is str:
            reading.name_fields(name, value.encode())
    elif value is True and (name in _RESTRICTING or name in _LOOSENING):
        reading.flags.add(name)


def response_directives(
    headers: Headers, targets: Sequence[bytes] = (b"cdn-cache-control",)
) -> tuple[Directives, bool]:
    """A response's directives, and whether they come from a targeted field.

    The first of `targets` (lower-case names, most specific first) that is there and can be read
    wins; else Cache-Control speaks (RFC 9213 §2.2).
    """
    for target in targets:
        values = headers.all(target)
        targeted = parse_targeted(values) if values else None
        if targeted is not None:
            return targeted, True
    return parse_cache_control(headers.all(b"cache-control")), False


def request_directives(headers: Headers) -> Directives:
    """A request's directives; `Pragma: no-cache` counts where there is no Cache-Control.

    RFC 9111 §5.4 deprecates Pragma; whoever trusts a client's Cache-Control means this too.
    """
    values = headers.all(b"cache-control")
    if values:
        return parse_cache_control(values)
    return Directives(no_cache=True) if pragma_no_cache(headers) else NOTHING


def pragma_no_cache(headers: Headers) -> bool:
    """Whether a Pragma line says no-cache."""
    return any(
        member.lower() == b"no-cache"
        for value in headers.all(b"pragma")
        for member in tokens(value)
    )
