"""What an operator (JSON) or a plugin (a PURGE request) says, as an order: the scopes to purge.

An order is read whole or refused whole: one fault in a hundred thousand lines and nothing is
purged, since an operator who mistyped one of them has not yet said what is meant. Every fault
has its way out (see `draft`).

What is named has to be spelt as what was stored, so a URL goes the way that a request for it goes:
its host to a site, its target through that site's rules. Nothing is guessed beyond that. A `*` is
a character like any other, a host is one host, and what can be read in two ways (user info, a
backslash, a path that cannot be keyed) is refused, so that no order reaches a host that it does
not name.

A PURGE names the URL that it asks for, or tags if it has a field of tags. Plugins were written
against caches that search: their patterns are refused with what to send instead, but for the one
that every plugin sends to empty a folder, `X-Purge-Method: regex` with a path that ends in `/.*`,
which is a prefix. To answer "purged" and purge something else than was meant would be the worst of
all, so a path that ends in a bare `*` is not taken for a URL unless `exact` says that it is one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edge.cache.key import DEFAULT, forwarded_target
from edge.cache.scope import ScopeRefused, host_name, prefix_name, tag_name, url_name
from edge.cache.tags import check_tag, tags_in
from edge.errors import ProtocolError
from edge.purging.draft import Draft, Fault, Order, OrderRefused, Unfit, shown
from edge.routing.site import host_of
from edge.wire.target import Authority, parse_authority, split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.cache.key import KeyPolicy
    from edge.routing.site import HostTable
    from edge.serving.terms import Site
    from edge.wire.message import Headers, RequestHead

__all__ = [
    "MOST_SCOPES_IN_ORDER",
    "Fault",
    "Order",
    "OrderRefused",
    "order_from_json",
    "order_from_purge",
]

MOST_SCOPES_IN_ORDER: Final = 100_000  # two such orders fit the tables of purges
_SUGGESTED: Final = 200


# --- from an operator ---------------------------------------------------------


class _Member(str):
    """The name of a JSON member that equals no other, so that none hides behind its double."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


_FLAGS: Final = ("all", "soft", "dry_run", "local")
_EXAMPLE: Final = '{"url": ["http://shop.example/page"]}'
_DECODER: Final = msgspec.json.Decoder(
    dict[_Member, Any], dec_hook=lambda _type, name: _Member(name)
)


def order_from_json(document: bytes, sites: HostTable[Site]) -> Order:
    """The order that a JSON document gives; raises `OrderRefused`."""
    draft = Draft()
    members = _members(document, draft)
    everything, soft, dry_run, local = (_flag(name, members, draft) for name in _FLAGS)
    on = _host_of_all(members, draft)
    told = {kind: _values(kind, members, draft) for kind in _READERS}
    count = sum(map(len, told.values()))
    if count > MOST_SCOPES_IN_ORDER:
        most = f"{count} scopes; an order has at most {MOST_SCOPES_IN_ORDER}"
        raise OrderRefused([Fault("", "", f"{most}: split it, or purge a prefix, a host, or all")])
    if everything and count:
        draft.refuse("all", True, "purges everything: leave out url, prefix, host and tag")
    elif not everything and not count:
        draft.check()
        draft.refuse("", "", "purges nothing: name a url, prefix, host or tag, or all")
    if everything and on:
        draft.refuse("on", on, "one host and everything: purge the host")
    places = _Places(sites, draft, on)
    for kind, values in told.items():
        _read(kind, values, places, draft)
    return draft.order(everything=everything, soft=soft, dry_run=dry_run, local=local, on=on)


def _members(document: bytes, draft: Draft) -> dict[str, Any]:
    """The members of the document; one that is unknown, or there twice, is a fault."""
    try:
        pairs = _DECODER.decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"an order is a JSON object like {_EXAMPLE}; {_unread(document, error)}"
        raise OrderRefused([Fault("", shown(document), message)]) from error
    known = (*_READERS, *_FLAGS, "on")
    members: dict[str, Any] = {}
    for member, value in pairs.items():
        name = str(member)
        if name not in known:
            draft.refuse(shown(name), value, f"is unknown; there is {', '.join(known)}")
        elif name in members:
            draft.refuse(name, value, "is there twice; give it once, with all its values")
        else:
            members[name] = value
    return members


def _is_utf8(document: bytes) -> bool:
    try:
        document.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unread(document: bytes, error: Exception) -> str:
    """Why a document was not read, in plain words."""
    begins = document.strip()[:1]
    if not begins:
        return "this body is empty"
    if not _is_utf8(document):
        return "this is not UTF-8"
    if isinstance(error, RecursionError):
        return "this is too deep"
    if _LONE_SURROGATE.search(document):
        return "this has half of a surrogate pair (\\ud800 to \\udfff), which is no character"
    if isinstance(error, msgspec.ValidationError):
        kind = _OTHER_KINDS.get(begins, "a number")
        return "this has a number out of range" if begins == b"{" else f"this is {kind}"
    if "truncated" in str(error):
        return "this ends too early"
    return f"this is none: {str(error).removeprefix('JSON is malformed: ')}"


_OTHER_KINDS: Final = {b"[": "a list", b'"': "a string", b"n": "null", b"t": "true", b"f": "false"}
_HIGH: Final = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE: Final = re.compile(b"%b(?!%b)|(?<!%b)%b" % (_HIGH, _LOW, _HIGH, _LOW))


def _flag(name: str, members: dict[str, Any], draft: Draft) -> bool:
    value = members.get(name, False)
    if not isinstance(value, bool):
        draft.refuse(name, value, "must be true or false")
    return value is True


def _host_of_all(members: dict[str, Any], draft: Draft) -> bytes | None:
    """The host that the order is confined to; None where it is to none."""
    try:
        return _authority(_ascii(members["on"]), _HOST_LIKE).host if "on" in members else None
    except (AttributeError, Unfit):
        draft.refuse("on", members["on"], f"is no host; {_HOST_LIKE}")
        return None


def _values(kind: str, members: dict[str, Any], draft: Draft) -> list[Any]:
    value = members.get(kind, [])
    if isinstance(value, list):
        return value
    draft.refuse(kind, value, f'must be a list of strings, like "{kind}": ["…"]')
    return []


def _read(kind: str, values: list[Any], places: _Places, draft: Draft) -> None:
    read = _READERS[kind]
    for at, value in enumerate(values):
        if not isinstance(value, str):
            draft.refuse(f"{kind}[{at}]", value, "must be a string")
            continue
        try:
            read(value, places, draft)
        except (Unfit, ScopeRefused) as error:
            draft.refuse(f"{kind}[{at}]", value, error)


def _tag(text: str, places: _Places, draft: Draft) -> None:
    tag = text.encode()
    check_tag(tag)
    draft.add(tag_name(tag, places.on))


_STAR: Final = (
    "in a url or prefix * is a character like any other; "
    "to purge what is below a path, give the path as a prefix"
)


def _url(text: str, places: _Places, draft: Draft) -> None:
    authority, path, query = _located(text)
    place = places.find(authority)
    target = _forwarded(path + query, place.key)
    if b"*" in target:
        draft.note(_STAR)
    for each in place.authorities:
        draft.add(url_name(each, target))


def _prefix(text: str, places: _Places, draft: Draft) -> None:
    authority, path, query = _located(text)
    if query:
        raise Unfit("a prefix has no query; leave out what begins with ?")
    place = places.find(authority)
    path = _forwarded(path, place.key)
    names = [prefix_name(each, path) for each in place.authorities]
    if b"*" in path:
        draft.note(_STAR)
    for name in names:
        draft.add(name)


def _host(text: str, places: _Places, draft: Draft) -> None:
    octets = _ascii(text, "has white space or a control character, which no host has")
    if not octets:
        raise Unfit(f"is empty; {_HOST_LIKE}")
    if b"*" in octets:
        raise Unfit(
            "a host is purged by its own name; name each, or purge a tag they share, or all"
        )
    if not octets.translate(None, b"0123456789ABCDEFabcdef:.") and octets.count(b":") > 1:
        octets = b"[%b]" % octets
    if octets.translate(None, b"/?#@") != octets:
        raise Unfit("give the host alone, like shop.example; for a part of it, use a prefix")
    authority = _authority(octets, _HOST_LIKE)
    if authority.port in _WITHOUT_SAYING:
        raise Unfit("80 and 443 go without saying; give the host alone, for all its ports")
    places.key_of(authority.host)
    draft.add(host_name(authority.canonical(b"")))


_READERS: Final[dict[str, Callable[[str, _Places, Draft], None]]] = {
    "url": _url,
    "prefix": _prefix,
    "host": _host,
    "tag": _tag,
}


# --- what a URL says ----------------------------------------------------------

_WITHOUT_SAYING: Final = (80, 443)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a URL points: its authority, in every spelling that requests for it may be keyed
    with, and how its site keys them."""

    authorities: tuple[bytes, ...]
    key: KeyPolicy


def _spellings(authority: Authority) -> tuple[bytes, ...]:
    """The authorities that requests for one may be keyed with.

    Whether 80 or 443 goes without saying is judged by the scheme of a request's connection, and a
    proxy in front may have told another. So where one of them is written out, there are both.
    """
    host, port = authority.host, authority.port
    ports = (None, port) if port in _WITHOUT_SAYING else (port,)
    return tuple(Authority(host, each).canonical(b"") for each in ports)


class _Places:
    """The places of one order, each worked out once: an order has few hosts and many paths."""

    def __init__(self, sites: HostTable[Site], draft: Draft, on: bytes | None) -> None:
        self.on = on
        self._sites = sites
        self._draft = draft
        self._found: dict[bytes, _Place] = {}

    def find(self, octets: bytes) -> _Place:
        """The place that an authority names; raises `Unfit`."""
        place = self._found.get(octets)
        if place is None:
            found = _authority(octets)
            place = self._found[octets] = _Place(_spellings(found), self.key_of(found.host))
        return place

    def key_of(self, host: bytes) -> KeyPolicy:
        """How the host's site keys; the default, with a note, where no site serves it. Raises
        `Unfit` where all is to be on another host."""
        if self.on not in (None, host):
            raise Unfit(f"is not on {shown(self.on)}, as the order says of all of it")
        site = self._sites.find(host)
        if site is None:
            self._draft.note("no site serves", host)
            return DEFAULT
        return site.key


_URL = re.compile(rb"https?://([^/?#]*+)([^?#]*+)(\?[^#]*+)?+(#.*)?+", re.IGNORECASE | re.DOTALL)
_INVISIBLE = re.compile(rb"[^\x21-\x7e]")
_WRITE_LIKE: Final = "write it like http://shop.example/page"
_HOST_LIKE: Final = "write it like shop.example"


def _located(text: str) -> tuple[bytes, bytes, bytes]:
    """`(authority, path, query)` of a URL, as written, the query with its `?`; raises `Unfit`."""
    match = _URL.fullmatch(_ascii(text))
    if match is None:
        raise Unfit(f"is no URL; {_WRITE_LIKE}")
    authority, path, query, fragment = match.groups(b"")
    if fragment:
        raise Unfit("a URL is purged without its #fragment; leave it out")
    if b"@" in authority:
        raise Unfit("a URL is purged without user info; leave out what stands before the @")
    return authority, path or b"/", query


def _authority(octets: bytes, like: str = _WRITE_LIKE) -> Authority:
    """The host and port, without a final dot: with and without it is the same host here."""
    try:
        found = parse_authority(octets)
    except ProtocolError as error:
        raise Unfit(f"no host is called {shown(octets) or 'nothing'}; {like}") from error
    return Authority(found.host.removesuffix(b"."), found.port)


def _forwarded(target: bytes, key: KeyPolicy) -> bytes:
    try:
        return forwarded_target(target, key)
    except ProtocolError as error:
        raise Unfit(f"{error.detail}, so nothing is stored under it") from error


_ESCAPED: Final = "has white space or a control character; escape it (a space is %20)"


def _ascii(text: str, invisible: str = _ESCAPED) -> bytes:
    """The bytes of visible ASCII; raises `Unfit` with how to write what is not."""
    if not text.isascii():
        raise _NotAscii(text)
    octets = text.encode("ascii")
    if _INVISIBLE.search(octets):
        raise Unfit(invisible)
    return octets


class _NotAscii(Unfit):
    """A URL or host with letters that no request has; in words only when told, for they cost."""

    def __str__(self) -> str:
        text: str = self.args[0]
        host = re.split("[/?#]", text.partition("://")[2] or text, maxsplit=1)[0]
        if not host.isascii():
            return "write the host as it is asked for, in ASCII (xn--…)"
        if len(text) > _SUGGESTED:
            return "is not ASCII; percent-encode it, as it is asked for"
        octets = _INVISIBLE.sub(lambda found: b"%%%02X" % found[0][0], text.encode())
        return f"write it as it is asked for: {octets.decode('ascii')}"


# --- from a plugin ------------------------------------------------------------

_TAGS_IN_XKEY: Final = "send the tags themselves, as in xkey: news front"
_NO_PATTERN: Final = (
    f"a pattern would have to be held against every stored object; {_TAGS_IN_XKEY}"
)
_REFUSED_FIELDS: Final[dict[bytes, str]] = {
    b"x-magento-tags-pattern": _NO_PATTERN,  # Magento 2
    b"x-cache-tags-pattern": _NO_PATTERN,  # Proxy Cache Purge (WordPress), from 5.4 on
    b"x-ban-regex": _NO_PATTERN,
    b"x-ban-url": _NO_PATTERN,
    b"x-purge-regex": _NO_PATTERN,
    b"x-location-id": f"is not known here; {_TAGS_IN_XKEY}",  # eZ Publish
    b"x-litespeed-purge": "is LiteSpeed's own; send PURGE for each URL, or its tags in xkey",
}

# A site that reads its tags from one of these may still be told of them by another.
_COMMON_FIELDS: Final = (b"surrogate-key", b"cache-tag", b"xkey")
_SOFT_FIELD: Final = b"xkey-softpurge"  # FOSHttpCache, Ibexa
_PURGE_FIELDS: Final = (
    b"xkey-purge",
    _SOFT_FIELD,
    b"key",  # eZ Platform 1 and 2
    b"cache-tags",  # Drupal's varnish_purge
    b"purge-cache-tags",  # Drupal's purge_purger_http
    b"x-cache-tags",  # FOSHttpCache
)
_BETWEEN_TAGS = re.compile(rb"[ \t,|]++")  # spaces or commas, and `|` where a pattern was sent
_OF_PATTERNS: Final = b"\\()[]^$*"
_PURGE_METHODS: Final = (b"default", b"exact", b"regex", b"tags")


def order_from_purge(request: RequestHead, site: Site) -> Order:
    """The order that a PURGE request gives, which never reaches another host than its own unless
    the site's reach is the node; raises `OrderRefused`.

    Soft where `Fastly-Soft-Purge: 1` says so, or all of its tags are in a field for soft purges.
    """
    draft, headers = Draft(), request.headers
    for name, message in _REFUSED_FIELDS.items():
        if (value := headers.get(name)) is not None:
            draft.refuse(_spelt(name), value, message)
    if not request.authority:
        draft.refuse("host", "", "a PURGE needs a Host")
    fields = _tag_fields(headers, site)
    method = (headers.get(b"x-purge-method") or b"default").strip().lower()
    soft = (headers.get(b"fastly-soft-purge") or b"").strip() == b"1"
    if not fields and request.method != b"PURGE":
        draft.refuse("method", request.method, "only PURGE names a URL; or send tags, in xkey")
    draft.check()
    if fields:
        _read_tags(fields, _reached(request, site), draft)
        soft = soft or fields.keys() == {_SOFT_FIELD}
    else:
        _read_target(request, site, method, draft)
    return draft.order(soft=soft)


def _reached(request: RequestHead, site: Site) -> bytes | None:
    """The one host whose tags are purged; None for every host."""
    return None if site.purge_reach == "node" else host_of(request.authority)


def _tag_fields(headers: Headers, site: Site) -> dict[bytes, Sequence[bytes]]:
    """The tags that each field brings; a field without any is there, too."""
    found: dict[bytes, Sequence[bytes]] = {}
    for name in dict.fromkeys((*site.terms.cache.tags, *_COMMON_FIELDS)):
        if values := headers.all(name):
            found[name] = tuple(tags_in(name, values))
    for name in _PURGE_FIELDS:
        if values := headers.all(name):
            members = (tag for value in values for tag in _BETWEEN_TAGS.split(value) if tag)
            found[name] = (*found.get(name, ()), *members)
    return found


def _read_tags(fields: dict[bytes, Sequence[bytes]], host: bytes | None, draft: Draft) -> None:
    for field, tags in fields.items():
        if not tags:
            draft.refuse(_spelt(field), "", "names no tag; leave it out to purge the URL")
        for tag in tags:
            try:
                if field in _PURGE_FIELDS and tag.translate(None, _OF_PATTERNS) != tag:
                    raise Unfit(_NO_PATTERN)
                check_tag(tag)
                draft.add(tag_name(tag, host))
            except (Unfit, ScopeRefused) as error:
                draft.refuse(_spelt(field), tag, error)


def _read_target(request: RequestHead, site: Site, method: bytes, draft: Draft) -> None:
    try:
        target = _forwarded(request.target, site.key)
        if method not in _PURGE_METHODS:
            raise Unfit("X-Purge-Method is default, exact, or regex for a path that ends in /.*")
        if method == b"tags":
            raise Unfit(f"X-Purge-Method is tags, and there are none; {_TAGS_IN_XKEY}")
        for authority in _spellings(parse_authority(request.authority)):
            if method == b"regex":
                draft.add(prefix_name(authority, _folder(target)))
            else:
                draft.add(url_name(authority, _told_exactly(target, method)))
    except (Unfit, ScopeRefused) as error:
        draft.refuse("target", request.target, error)


def _folder(pattern: bytes) -> bytes:
    """The path that a pattern ending in `/.*` is for everything below of."""
    path = pattern.removesuffix(b".*")
    # What is left is a pattern as plugins make them: a path as it is, its dots not escaped.
    if path == pattern or not path.endswith(b"/") or path.translate(None, b"()[]{}|^$*+?") != path:
        raise Unfit(f"the one pattern that can be had is a path with /.* at its end; {_LIST_THEM}")
    return path


_LIST_THEM: Final = "else send PURGE for each URL, or for the tags in xkey"


def _told_exactly(target: bytes, method: bytes) -> bytes:
    """`target`, unless it looks like a pattern and no one said that it is none."""
    parts = split_target(target)
    if method != b"exact" and parts.query is None and parts.path.endswith(b"*"):
        folder = parts.path.rpartition(b"/")[0].decode("latin-1")
        raise Unfit(
            f"ends in *: for all below {shown(folder)}/ send X-Purge-Method: regex and "
            f"{shown(folder)}/.* as path; for the URL itself X-Purge-Method: exact"
        )
    return target


def _spelt(name: bytes) -> str:
    return name.decode("latin-1")
