"""Request and key policy → the primary key a resource is stored under.

The one law: *the key is made of the bytes that are forwarded*. `forwarded_target` gives the target
as the origin will see it, and `key_of` hashes exactly that, so a parameter that a site leaves out
of the key never reaches the origin, and two requests that the origin can tell apart by scheme,
host or target never share a key. A site may add request fields and cookies, which are keyed as
they came.

Each part is hashed with its length before it, and a part that may be absent or repeated with the
number of its values, so that no choice of values makes two lists of parts look alike. The digest
is BLAKE2b of 16 bytes: 0.4 µs, and no one finds two targets that collide (a faster hash that
is not collision-resistant would let a client choose which page it overwrites).

The method is not a part: HEAD is answered from what GET stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from edge.cache.entry import Key
from edge.wire.cookies import parse_cookies
from edge.wire.target import Target, edit_query, normalise, split_target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge.wire.message import RequestHead

DIGEST_BYTES: Final = 16
BY: Final = "by"  # no field and no cookie: those are named "header …" and "cookie …"


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """What tells one stored resource from another; in a parameter's name `*` is any run."""

    host: bool = True  # False only where the origin is always sent one and the same Host
    query_keep: tuple[bytes, ...] | None = None  # None keeps all, () none
    query_drop: tuple[bytes, ...] = ()
    query_sort: bool = False
    headers: tuple[bytes, ...] = ()  # lower case
    cookies: tuple[bytes, ...] = ()


DEFAULT: Final = KeyPolicy()


def forwarded_target(target: bytes, policy: KeyPolicy = DEFAULT) -> bytes:
    """`target` (origin form) as it is both keyed and sent to the origin: RFC 3986 normal form,
    with the site's query rules applied. Idempotent; raises what `normalise` raises.
    """
    parts = split_target(target)
    query = edit_query(
        parts.query, keep=policy.query_keep, drop=policy.query_drop, sort=policy.query_sort
    )
    return Target(normalise(parts.path), query).joined()


def key_of(
    scheme: bytes,
    authority: bytes,
    target: bytes,
    request: RequestHead,
    policy: KeyPolicy = DEFAULT,
    by: bytes = b"",
) -> Key:
    """The key of `request` for `target`, which `forwarded_target` has made.

    `authority` is canonical: lower case, default port dropped. `by` is what else tells one answer
    from another that is no part of the message: an arm of an experiment, a place.
    """
    host = authority if policy.host else b"*"  # no authority is a lone asterisk
    extra = _extra_parts(request, policy) if policy.headers or policy.cookies else ()
    hashed = b"%d:%b%d:%b%d:%b" % (len(scheme), scheme, len(host), host, len(target), target)
    for name, value in extra:
        hashed += _listed((name.encode(), value))
    if by:
        hashed += _listed((BY.encode(), by))
    digest = blake2b(hashed, digest_size=DIGEST_BYTES).digest()
    return Key(digest, b"%b://%b%b" % (scheme, host, target))


def key_parts(
    scheme: bytes,
    authority: bytes,
    target: bytes,
    request: RequestHead,
    policy: KeyPolicy = DEFAULT,
    by: bytes = b"",
) -> tuple[tuple[str, bytes], ...]:
    """What `key_of` hashes, in order and with names, for people to read."""
    host = authority if policy.host else b"*"
    base = (("scheme", scheme), ("host", host), ("target", target))
    return (*base, *_extra_parts(request, policy), *(((BY, by),) if by else ()))


def _extra_parts(request: RequestHead, policy: KeyPolicy) -> tuple[tuple[str, bytes], ...]:
    """The site's own parts; each value is a list, so that absent, empty and doubled differ."""
    parts = [
        (f"header {name.decode('latin-1')}", _listed(request.headers.all(name)))
        for name in policy.headers
    ]
    if policy.cookies:
        parts += _cookie_parts(request.headers.all(b"cookie"), policy.cookies)
    return tuple(parts)


def _cookie_parts(lines: list[bytes], names: tuple[bytes, ...]) -> list[tuple[str, bytes]]:
    cookies = parse_cookies(lines)
    if cookies is None:
        # The origin may read such a line in another way than we do: key on all of it.
        return [("cookies", _listed(lines))]
    return [
        (f"cookie {name.decode('latin-1')}", _listed(v for n, v in cookies if n == name))
        for name in names
    ]


def _listed(values: Iterable[bytes]) -> bytes:
    """Values one behind the other, each with its length: `3:abc0:`. No values: empty."""
    return b"".join(b"%d:%b" % (len(value), value) for value in values)
