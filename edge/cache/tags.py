"""Tags and groups: what an origin calls its answers, so that it can purge them by that.

A tag is one word in a field that the site names. Every such field has its own idea of what stands
between two words, and origins are written for one of them, so each is read as its inventor reads
it; the lines of a field are read one by one:

- Surrogate-Key (Fastly): white space separates. A comma is part of a key.
- Cache-Tag (Cloudflare) and Edge-Cache-Tag (Akamai): commas separate, white space around a tag is
  not part of it, empty members are none.
- xkey (varnish-modules): commas, spaces and tabs all separate; and so for every other field, since
  a plugin whose field nobody knows writes either.

Tags are compared byte for byte, as Fastly and xkey do.

A purge must reach every answer that has its tag, so a tag is never forgotten: an answer with more
tags than `MOST_TAGS`, or a tag longer than `TAG_BYTES`, is not stored at all. (Fastly and Akamai
drop what is too much, and the answer lives on past the purges of what was dropped.)

What may be purged is what some field can carry. `check_tag` refuses the rest, since a purge that
covers nothing and says "done" is worse than one that is refused: nothing at all, control
characters, white space at an end (every field trims it), and a tag with both a comma and white
space in it: one or the other ends a tag in each of the fields.

Groups (RFC 9875) are tags by standard: structured strings, of one origin. What does not parse, or
is no list of strings, is ignored whole, as RFC 9651 §4.2 wants. We must read 32 groups of 32
characters (§2); we read all that a head has room for. An answer in more than `MOST_GROUPS` groups
is not stored, for the reason above; a Cache-Group-Invalidation has no such limit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast

import http_sf

from edge.cache.scope import ScopeRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge.wire.message import Headers

MOST_TAGS: Final = 1024  # Cloudflare takes 1,000, Akamai 128, CloudFront 50
TAG_BYTES: Final = 1024  # as Fastly; Akamai takes 128
MOST_GROUPS: Final = 1024  # RFC 9875 §2 asks for 32

DEFAULT_FIELDS: Final = (b"surrogate-key", b"cache-tag", b"xkey")
CACHE_GROUPS: Final = b"cache-groups"
INVALIDATION: Final = b"cache-group-invalidation"

_OWS: Final = b" \t"
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# Strings without escapes, which is what groups are: http_sf takes 50 ms over a head full of them.
_STRING: Final = re.compile(rb'"([ !#-\[\]-~]*+)"')
_PLAIN_LIST: Final = re.compile(rb'(?:"[ !#-\[\]-~]*+"(?:[ \t]*+,[ \t]*+(?=")|\Z))++')
_WHITE: Final = re.compile(rb"[ \t]")


class TooManyTags(ValueError):  # noqa: N818 - it says what there are
    """More tags or groups than are remembered, or a tag too long: not to be stored."""


def tags_in(name: bytes, values: list[bytes]) -> list[bytes]:
    """The tags in the lines of the field `name` (lower case), as they stand there."""
    cut = _CUTS.get(name, _by_both)
    return [tag for value in values for tag in cut(value)]


def _by_space(value: bytes) -> list[bytes]:
    return value.split()


def _by_comma(value: bytes) -> list[bytes]:
    return [tag for member in value.split(b",") if (tag := member.strip(_OWS))]


def _by_both(value: bytes) -> list[bytes]:
    return value.replace(b",", b" ").split()


_CUTS: Final[Mapping[bytes, Callable[[bytes], list[bytes]]]] = {
    b"surrogate-key": _by_space,
    b"cache-tag": _by_comma,
    b"edge-cache-tag": _by_comma,
    b"xkey": _by_both,
}


def all_tags(headers: Headers, fields: Sequence[bytes]) -> tuple[bytes, ...]:
    """The distinct tags in these fields, in order, however many they are."""
    if {name for name, _ in headers.pairs}.isdisjoint(fields):
        return ()
    return tuple(dict.fromkeys(tag for name in fields for tag in tags_in(name, headers.all(name))))


def tags_of(headers: Headers, fields: Sequence[bytes]) -> tuple[bytes, ...]:
    """The distinct tags in these fields, in order; raises `TooManyTags`."""
    tags = all_tags(headers, fields)
    if len(tags) > MOST_TAGS or any(len(tag) > TAG_BYTES for tag in tags):
        raise TooManyTags
    return tags


def has_too_many(headers: Headers, fields: Sequence[bytes]) -> bool:
    """Whether an answer with these fields has tags or groups that would have to be forgotten."""
    try:
        tags_of(headers, fields)
    except TooManyTags:
        return True
    return len(groups_of(headers)) > MOST_GROUPS


def check_tag(tag: bytes) -> None:
    """Raise `ScopeRefused` for what no answer can be tagged with."""
    if not tag:
        raise ScopeRefused("an empty tag is on no answer; give its name")
    if len(tag) > TAG_BYTES:
        raise ScopeRefused(f"a tag has at most {TAG_BYTES} bytes, this one {len(tag)}; shorten it")
    if _CONTROL.search(tag):
        raise ScopeRefused("a tag holds no control characters; take them out")
    if tag != tag.strip(_OWS):
        raise ScopeRefused("a tag has no white space around it; take it off")
    if b"," in tag and _WHITE.search(tag):
        raise ScopeRefused("no field has a comma and white space in one tag; name two tags")


def groups_of(headers: Headers, name: bytes = CACHE_GROUPS) -> tuple[bytes, ...]:
    """The distinct groups that a field names, in order (RFC 9875 §2, §3); parameters are ignored.

    () where the field is not there, or is no list of strings. Whether Cache-Group-Invalidation
    counts (not in answers to safe methods) is for the caller to know.
    """
    value = headers.joined(name)
    if value is None:
        return ()
    if _PLAIN_LIST.fullmatch(value):
        return tuple(dict.fromkeys(_STRING.findall(value)))
    try:
        parsed = http_sf.parse(value, tltype="list")
    except (http_sf.StructuredFieldError, ValueError, OverflowError):
        # The last two: a Date item beyond what Python's datetime can hold.
        return ()
    members = cast("list[tuple[object, object]]", parsed)
    groups = [item.encode("ascii") for item, _ in members if type(item) is str]
    return tuple(dict.fromkeys(groups)) if len(groups) == len(members) else ()
