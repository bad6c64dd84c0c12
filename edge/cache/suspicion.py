"""Requests and answers that do not fit together: what poisoning and deception look like from here.

*Poisoning.* One client sends something that the origin refuses, and everyone gets the refusal. It
works where what made the origin refuse is not in the key: a head larger than the origin takes, a
control character, a field that overrides the method. Nobody can list every field that upsets some
origin, and refusing to store errors for any request with a field unknown to us would store none,
since clients, proxies and tracers add fields to everything. So a request is *odd* by traits that
an honest GET does not have and that are known to provoke (the "cache-poisoned denial of service"
papers; Kettle's and others' lists): size near what common origins accept, octets outside of
visible ASCII, names no library writes, fields that speak about a body, a method, a condition or a
hop. What the traits let through is bounded in time: a guessed lifetime of an error is a minute.

For an odd request, the answers of `PROVOKED` are not stored, whatever they say about themselves:
an origin that sends `max-age` with all it sends does not mean the 400 it gave to nonsense. Other
errors are stored only with explicit freshness. The target is no trait: it is in the key.

*Deception.* A victim is led to `/account/x.css`; the origin ignores what follows `/account`, and a
rule that caches `*.css` stores the account page. So a rule by extension holds only where the
answer's Content-Type is one that the extension promises, and a rule by path only where the origin
cannot see other segments in it than we did (`target.has_hidden_delimiter`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from edge.wire.fields import parse_delta, parse_media_type

if TYPE_CHECKING:
    from edge.wire.message import Headers, RequestHead

PROVOKED: Final = frozenset((400, 405, 412, 413, 414, 415, 416, 417, 421, 426, 431, 501, 505))
"""What an origin says to a request that it does not like the form of."""

_HEAD_BYTES: Final = 8 * 1024  # nginx, Tomcat and Apache (a line) stop at 8 KiB
_VALUE_BYTES: Final = 4 * 1024  # several frameworks stop at 4 KiB a field
_FIELDS: Final = 64  # Apache stops at 100, and what stands before it adds its own

_HONEST_NAME: Final = re.compile(rb"[a-z0-9]+(?:-[a-z0-9]+)*")
_HONEST_VALUE: Final = re.compile(rb"[\t\x20-\x7e]*")
_PROVOKING_NAMES: Final = frozenset(
    (
        *(b"content-encoding", b"content-type", b"content-range", b"transfer-encoding"),
        *(b"expect", b"upgrade", b"max-forwards", b"trailer", b"proxy-authorization"),
        *(b"range", b"if-range", b"if-match", b"if-unmodified-since"),
        *(b"x-http-method", b"x-http-method-override", b"x-method-override"),
        *(b"x-original-url", b"x-rewrite-url", b"x-original-method"),
    )
)


def has_body(request: RequestHead) -> bool:
    """Whether a body comes with `request`, or may (RFC 9112 §6.3)."""
    headers = request.headers
    if b"transfer-encoding" in headers:
        return True
    return any(parse_delta(value) != 0 for value in headers.all(b"content-length"))


def is_odd(request: RequestHead) -> bool:
    """Whether `request` has a trait that is known to provoke errors."""
    headers = request.headers
    return (
        request.method != b"GET"
        or len(headers) > _FIELDS
        or sum(len(name) + len(value) for name, value in headers) > _HEAD_BYTES
        or has_body(request)
        or any(_is_odd_field(name, value) for name, value in headers)
    )


def _is_odd_field(name: bytes, value: bytes) -> bool:
    return (
        len(value) > _VALUE_BYTES
        or name in _PROVOKING_NAMES
        or _HONEST_NAME.fullmatch(name) is None
        or _HONEST_VALUE.fullmatch(value) is None
    )


# What an extension promises: whole types end in "/". Extensions not listed promise anything but
# a page or data made for one reader.
_SCRIPTS: Final = (b"text/javascript", b"application/javascript", b"application/x-javascript")
_FONTS: Final = (
    b"font/",
    b"application/font-",
    b"application/x-font-",
    b"application/vnd.ms-font",
)
_PROMISES: Final[dict[bytes, tuple[bytes, ...]]] = {
    b"css": (b"text/css",),
    b"js": _SCRIPTS,
    b"mjs": _SCRIPTS,
    b"json": (b"application/json", b"text/json", b"application/manifest+json"),
    b"map": (b"application/json", b"application/octet-stream", b"text/plain"),
    b"xml": (b"application/xml", b"text/xml", b"application/rss+xml", b"application/atom+xml"),
    b"txt": (b"text/plain",),
    b"csv": (b"text/csv", b"text/plain"),
    b"pdf": (b"application/pdf",),
    b"wasm": (b"application/wasm",),
    b"html": (b"text/html", b"application/xhtml+xml"),
    b"htm": (b"text/html", b"application/xhtml+xml"),
    **dict.fromkeys((b"woff", b"woff2", b"ttf", b"otf", b"eot"), _FONTS),
    **dict.fromkeys(
        (b"png", b"jpg", b"jpeg", b"gif", b"webp", b"avif", b"svg", b"ico", b"bmp", b"tiff"),
        (b"image/",),
    ),
    **dict.fromkeys((b"mp4", b"webm", b"mov", b"m4v", b"ogv", b"mkv"), (b"video/",)),
    **dict.fromkeys((b"mp3", b"ogg", b"wav", b"flac", b"m4a", b"aac"), (b"audio/", b"video/")),
}
_PERSONAL: Final = (b"text/html", b"application/xhtml+xml", b"application/json", b"text/json")


def keeps_promise(extension: bytes, headers: Headers) -> bool:
    """Whether an answer is of a type that `extension` (lower case, no dot) promises.

    No, or no readable, Content-Type promises nothing.
    """
    types = [parse_media_type(value) for value in headers.all(b"content-type")]
    if len(types) != 1 or not types[0]:
        return False
    promised = _PROMISES.get(extension)
    if promised is None:
        return types[0] not in _PERSONAL and not types[0].endswith(b"+json")
    return any(
        types[0].startswith(kind) if kind.endswith((b"/", b"-")) else types[0] == kind
        for kind in promised
    )
