"""What a write makes unusable: the URI, and what the answer points at (RFC 9111 §4.4).

Only targets of the same origin count (scheme, host, port), else one site could empty another's
part of the store. References are resolved here and not with `urllib`, which raises on `[`, drops
tabs and newlines, and knows nothing of our normalisation: what is invalidated has to be spelt as
what was keyed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from edge.errors import ProtocolError
from edge.wire.target import normalise, parse_authority, split_target

if TYPE_CHECKING:
    from edge.wire.message import RequestHead, ResponseHead

SAFE_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH", b"QUERY")
)
"""Methods known to be safe (IANA's registry). Any other, known or not, may have changed things."""

_ABSOLUTE: Final = re.compile(rb"(?:([A-Za-z][A-Za-z0-9+.-]*):)?//([^/?#]*)(.*)", re.DOTALL)
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:")


def is_write(request: RequestHead, response: ResponseHead) -> bool:
    """Whether this exchange may have changed things: a 2xx or 3xx to an unsafe method."""
    return request.method not in SAFE_METHODS and 200 <= response.status < 400


def invalidates(request: RequestHead, response: ResponseHead) -> list[bytes]:
    """The normalised same-origin targets that this exchange makes unusable; at most three.

    If it is a write: the target URI, Location, Content-Location.
    """
    if not is_write(request, response):
        return []
    references = [request.target]
    for name in (b"location", b"content-location"):
        references += response.headers.all(name)[:1]
    targets = (same_origin_target(request, reference) for reference in references)
    return list(dict.fromkeys(target for target in targets if target is not None))


def same_origin_target(request: RequestHead, reference: bytes) -> bytes | None:
    """The origin-form target a reference names on the request's own origin; None for elsewhere.

    RFC 3986 §5.2: resolved against the request's URI, then normalised. A reference that cannot be
    read names nothing.
    """
    reference = reference.partition(b"#")[0]
    absolute = _ABSOLUTE.fullmatch(reference)
    try:
        if absolute is not None:
            return _on_origin(request, absolute[1], absolute[2], absolute[3])
        if _SCHEME.match(reference):  # mailto: and the like
            return None
        return _normalised(_merged(request.target, reference))
    except ProtocolError:
        return None


def _on_origin(
    request: RequestHead, scheme: bytes | None, authority: bytes, target: bytes
) -> bytes | None:
    """The target of an absolute reference, if it is of the request's origin."""
    if scheme is not None and scheme.lower() != request.scheme:
        return None
    theirs = parse_authority(authority).canonical(request.scheme)
    if theirs != parse_authority(request.authority).canonical(request.scheme):
        return None
    return _normalised(target if target.startswith(b"/") else b"/" + target)


def _merged(base: bytes, reference: bytes) -> bytes:
    """A relative reference against the base's path (RFC 3986 §5.2.3)."""
    if reference.startswith(b"/"):
        return reference
    if reference == b"":
        return base
    path = split_target(base).path
    if reference.startswith(b"?"):
        return path + reference
    return path.rpartition(b"/")[0] + b"/" + reference


def _normalised(target: bytes) -> bytes:
    """`target` with its path spelt as the key spells it; raises ProtocolError."""
    path, mark, query = target.partition(b"?")
    return normalise(path) + mark + query
