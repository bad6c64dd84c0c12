"""Names of what a purge may cover: one URL, a path prefix, a host, a tag, a group.

An entry knows the names of everything that covers it, worked out once when it is made; a purge
writes down one name. So whether a purge covers an entry is whether the two share a name: a lookup,
whatever the number of entries. Neither side searches, and nothing needs a pattern.

A name is bytes with a kind in front:

- `u` a URL: authority and target, as they are keyed. The scheme is left out, since whoever purges
  a page means the page, however it is fetched. All variants have the name.
- `p` a path prefix: authority and path up to and with a `/`. The path of an entry is a directory
  too, so that the prefix `/blog` covers `/blog`, `/blog/`, `/blog?x` and `/blog/x`, and not
  `/blogging`. An entry has the prefixes of its first `DEPTH` segments; a purge that goes deeper
  would cover nothing, and is refused.
- `h` a host: without its port, for all ports, and with it, for that one.
- `t` a tag, on every host; `T` a tag on one host. Who may purge one host only is given the second,
  so that one tenant cannot empty another's part of the store by guessing its tags.
- `g` a group of RFC 9875, of one origin.

In all of them the host is in lower case, without a final dot, and an IPv6 address in its shortest
form: a client who spells the host in its own way gets an entry of its own, and a purge of the host
must cover that as well. The kinds are told apart by their first byte, and the parts within a kind
because no authority holds a `/` or a NUL.

What is kept and compared is a name's `digest`, 8 bytes. Two names of one digest are purged
together, which is too much and never too little. Among 5,000,000 names there is such a pair with a
chance of one in a million. Who may purge one host, and searches long enough for a tag that has the
digest of another host's page, makes that host's origin answer once more.

Turned down: patterns (to match one against all that is stored cannot take constant time, and to
keep them as bans makes every later lookup pay); the scheme or the method in names of URLs.
"""

from __future__ import annotations

from hashlib import blake2b
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

DEPTH: Final = 16  # segments; deep trees of files have ten
DIGEST_BYTES: Final = 8
MOST_BYTES: Final = 4096 * DIGEST_BYTES  # of one entry: its tags twice, its groups, and 20 others


class ScopeRefused(ValueError):  # noqa: N818 - it says what became of the scope
    """A scope that cannot be purged; the text tells an operator why, and what to do instead."""


def url_name(authority: bytes, target: bytes) -> bytes:
    """The name of one URL; `target` is as it is keyed, with its query."""
    return b"u%b%b" % (_canonical(authority), target)


def prefix_name(authority: bytes, path: bytes) -> bytes:
    """The name of all below a normalised path, and of the path itself.

    Raises `ScopeRefused` for what could cover nothing: deeper than `DEPTH`, or no prefix.
    """
    if not path.startswith(b"/"):
        raise ScopeRefused('a prefix is a path; begin it with "/"')
    name = _directory(path)
    if (depth := name.count(b"/") - 1) > DEPTH:
        raise ScopeRefused(
            f"a prefix has at most {DEPTH} levels, this one {depth}; "
            "name a shorter prefix, a tag or the host"
        )
    return b"p%b%b" % (_canonical(authority), name)


def host_name(authority: bytes) -> bytes:
    """The name of a host, on all its ports; where `authority` has a port, on that port alone."""
    return b"h" + _canonical(authority)


def tag_name(tag: bytes, host: bytes | None = None) -> bytes:
    """The name of a tag on every host, or on `host` alone, whose port means nothing."""
    if host is None:
        return b"t" + tag
    return b"T%b\0%b" % (_parts(host)[0], tag)


def group_name(scheme: bytes, authority: bytes, group: bytes) -> bytes:
    """The name of a group of one origin (RFC 9875 §2.1)."""
    return b"g%b://%b\0%b" % (scheme, _canonical(authority), group)


def names_of(key_url: bytes, tags: Sequence[bytes], groups: Sequence[bytes]) -> list[bytes]:
    """Every name of the entry whose `Key.url` this is: `http://host/path?query`."""
    scheme, _, rest = key_url.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    target = slash + path
    host, port = _parts(authority)
    canonical = host + port
    names = [b"u%b%b" % (canonical, target), b"h" + host]
    if port:
        names.append(b"h" + canonical)
    names += [b"p%b%b" % (canonical, prefix) for prefix in _prefixes(target.partition(b"?")[0])]
    names += [b"t" + tag for tag in tags]
    names += [b"T%b\0%b" % (host, tag) for tag in tags]
    names += [b"g%b://%b\0%b" % (scheme, canonical, group) for group in groups]
    return names


def digest(name: bytes) -> bytes:
    """What is kept of a name: 8 bytes."""
    return blake2b(name, digest_size=DIGEST_BYTES).digest()


def packed(names: Iterable[bytes]) -> bytes:
    """The digests of `names`, one behind the other."""
    return b"".join(map(digest, names))


def digests(scopes: bytes) -> frozenset[bytes]:
    """The digests that were `packed`."""
    places = range(0, len(scopes), DIGEST_BYTES)
    return frozenset(scopes[at : at + DIGEST_BYTES] for at in places)


# --- parts of names


def _parts(authority: bytes) -> tuple[bytes, bytes]:
    """Host and `:port` (b"" where there is none), each host in its one spelling."""
    host, bracket, port = authority.lower().partition(b"]")
    if bracket:
        return _shortest(host[1:]), port
    host, colon, port = host.partition(b":")
    return host.removesuffix(b"."), colon + port


def _shortest(address: bytes) -> bytes:
    """An IPv6 address in its shortest form, in brackets; what is none stays as it is."""
    try:
        return b"[%b]" % IPv6Address(address.decode("ascii")).compressed.encode("ascii")
    except ValueError:
        return b"[%b]" % address


def _canonical(authority: bytes) -> bytes:
    return b"".join(_parts(authority))


def _directory(path: bytes) -> bytes:
    return path if path.endswith(b"/") else path + b"/"


def _prefixes(path: bytes) -> Iterator[bytes]:
    """The path's own directory and those around it, at most `DEPTH` below the root."""
    directory = _directory(path)
    at = directory.find(b"/")
    for _ in range(DEPTH + 1):
        yield directory[: at + 1]
        at = directory.find(b"/", at + 1)
        if at < 0:
            return


# --- for people


def told(name: bytes) -> tuple[str, str]:
    """A name's kind and what it names, in words that are safe to print."""
    kind, rest = name[:1], name[1:]
    first, _, last = rest.partition(b"\0")
    if kind == b"T":
        return "tag", f"{_text(last)} on {_text(first)}"
    if kind == b"g":
        return "group", f"{_text(last)} of {_text(first)}"
    return _KINDS[kind], _text(rest)


_KINDS: Final = {b"u": "url", b"p": "prefix", b"h": "host", b"t": "tag"}


def _text(value: bytes) -> str:
    """Bytes for a terminal: what could not be seen, or would move the cursor, is escaped."""
    text = value.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
