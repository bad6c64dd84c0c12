"""What a rule or an arm changes of a request: its fields, its path, or where the client shall go.

Paths come normalised (`wire.target`) and are judged and keyed so; a rewrite alters only what the
origin is asked for. Its law: *the result is in normal form and begins as the rule says*. What a
client can put behind a star may not make a dot segment there, not even for an origin that decodes
`%2F` before it looks for segments, and may not complete an escape. Such a request is refused, not
forwarded unchanged: whoever could choose between the two would choose the page that is stored.

A redirect names scheme and host, the rule's or those of the request, and a star stands only in
the path behind them. So no path leads to another host (`//evil.example` as a relative reference
would), and nothing of the request can end the field.

Field edits never touch what frames a message, what belongs to one hop, what selects or validates a
stored response (`Accept-*`, `If-*`, `Range`), or what the node itself says to the next hop: those
names are refused when settings are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final

from edge.errors import Failure, ProtocolError
from edge.routing.site import Glob
from edge.wire.fields import is_token
from edge.wire.hop import HOP_BY_HOP, PROTECTED
from edge.wire.message import Headers
from edge.wire.target import Target, normalise, parse_authority, split_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge.wire.message import Pair, RequestHead

# --- fields -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FieldEdits:
    """Fields to take out (lower-case names), then to put in place of whatever has their names."""

    remove: frozenset[bytes] = frozenset()
    put: tuple[Pair, ...] = ()

    def applied(self, headers: Headers) -> Headers:
        """`headers` so edited; of two values put under one name the later one holds."""
        if not self.remove and not self.put:
            return headers
        put = dict(self.put)
        kept = [
            pair for pair in headers.pairs if pair[0] not in self.remove and pair[0] not in put
        ]
        return Headers([*kept, *put.items()])

    def then(self, later: FieldEdits) -> FieldEdits:
        """Both in one: first these, then `later`."""
        over = later.remove | dict(later.put).keys()
        put = tuple(pair for pair in self.put if pair[0] not in over) + later.put
        return FieldEdits(self.remove | later.remove, put)


# Of `PROTECTED` these neither frame, select nor validate: a site may speak to its origin by them.
_FREE: Final = frozenset({b"authorization", b"cookie", b"origin", b"referer", b"user-agent"})
NOT_TO_ORIGIN: Final = HOP_BY_HOP | (PROTECTED - _FREE) | {b"edge-proof"}
_OF_NODE: Final = (b"x-forwarded-", b"x-geo-")  # written from what is known here (`wire.hop`)
# What frames a message or tells of its way is the node's own (RFC 9110 §7.6.1, RFC 9112 §6).
NOT_TO_CLIENT: Final = HOP_BY_HOP | frozenset(
    b"age cache-status cdn-loop content-length content-range date expect host via".split()
)

_VALUE = re.compile(rb"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
VALUE_BYTES: Final = 4096


def check_to_origin(edits: FieldEdits) -> Iterator[str]:
    """What may not be edited of a request on its way to the origin, in words for the operator."""
    for name in _names(edits):
        dashed = name.replace(b"_", b"-")  # CGI-like origins read both as one
        if dashed in NOT_TO_ORIGIN or dashed.startswith(_OF_NODE):
            yield f"{name!r} is the node's own or the client's alone to send; leave it out"
    yield from _check_form(edits)


def _names(edits: FieldEdits) -> list[bytes]:
    return sorted(edits.remove | dict(edits.put).keys())


def _check_form(edits: FieldEdits) -> Iterator[str]:
    for name in _names(edits):
        if not is_token(name) or name != name.lower():
            yield f"{name!r} is no field name; use lower-case letters, digits and -"
    for name, value in edits.put:
        if len(value) > VALUE_BYTES or not _VALUE.fullmatch(value):
            yield f"{name!r}: no field value; use up to {VALUE_BYTES} bytes of ASCII, no line ends"


# --- paths --------------------------------------------------------------------

# A segment of dots, with all that some origin takes for a segment's end: an escaped slash or
# backslash, a path parameter.
_LEAVES = re.compile(rb"(?:/|%2F|%5C)\.\.?+(?=/|;|%2F|%5C|%3B|\Z)")


def _kept_inside(path: bytes) -> bytes:
    """`path` where it is in normal form and no reader goes up in it. Raises ProtocolError."""
    if normalise(path) != path or _LEAVES.search(path):
        raise ProtocolError(Failure.BAD_MESSAGE, "a path that leaves where it is rewritten to")
    return path


def with_prefix(prefix: bytes, target: bytes) -> bytes:
    """An origin-form target, normalised, behind a prefix; `*` stays.

    Raises ProtocolError(BAD_MESSAGE) for a path that an origin may read as leaving the prefix.
    """
    if not prefix or not target.startswith(b"/"):
        return target
    parts = split_target(target)
    return Target(_kept_inside(prefix + parts.path), parts.query).joined()


def check_prefix(prefix: bytes) -> Iterator[str]:
    """What is wrong with a prefix, in words for the operator."""
    if not prefix.startswith(b"/") or prefix.endswith(b"/") or not _is_inside(prefix):
        yield f'{prefix!r} is no prefix; write it like "/new", without a final slash or dots'


def _is_inside(path: bytes) -> bool:
    try:
        return bool(_kept_inside(path))
    except ProtocolError:
        return False


@dataclass(frozen=True, slots=True)
class PrefixRewrite:
    """The beginning of a path taken off at a segment's end, and another put in its place."""

    strip: bytes
    add: bytes
    keep_query: bool = True

    @classmethod
    def parse(cls, strip: bytes, add: bytes, *, keep_query: bool = True) -> PrefixRewrite:
        """Both like "/old", or empty. Raises ValueError with words for the operator."""
        for prefix in filter(None, (strip, add)):
            for words in check_prefix(prefix):
                raise ValueError(words)
        return cls(strip, add, keep_query)

    def applied(self, target: bytes) -> bytes:
        """`target`, normalised, rewritten; as it is where it does not begin so.

        Raises ProtocolError(BAD_MESSAGE) as `with_prefix` does.
        """
        parts = split_target(target)
        rest = parts.path.removeprefix(self.strip)
        if not parts.path.startswith(self.strip + b"/") and parts.path != self.strip:
            return target
        query = parts.query if self.keep_query else None
        return Target(_kept_inside(self.add + rest or b"/"), query).joined()


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """A path made of what the stars of `source` took; the nth star of `to` gets the nth."""

    source: Glob
    to: Glob
    keep_query: bool = True

    @classmethod
    def parse(cls, source: bytes, to: bytes, *, keep_query: bool = True) -> PathRewrite:
        """Patterns like "/old/*" and "/new/*". Raises ValueError with words for the operator."""
        made = cls(Glob.parse(source), Glob.parse(to), keep_query)
        _check_stars(made.source, made.to)
        _check_template(made.to)
        return made

    def applied(self, target: bytes) -> bytes:
        """`target`, normalised, rewritten; as it is where `source` does not take its path.

        Raises ProtocolError(BAD_MESSAGE) where what a star took would leave the place it is put.
        """
        parts = split_target(target)
        taken = self.source.captures(parts.path)
        if taken is None:
            return target
        query = parts.query if self.keep_query else None
        return Target(_kept_inside(_filled(self.to, taken)), query).joined()


def _filled(template: Glob, taken: tuple[bytes, ...]) -> bytes:
    between = taken[: len(template.parts) - 1]
    return b"".join(chain.from_iterable(zip_longest(template.parts, between, fillvalue=b"")))


_CUT_ESCAPE = re.compile(rb"%[0-9A-Fa-f]?\Z")


def _check_stars(source: Glob, to: Glob) -> None:
    """Raises ValueError for stars without a match, and for those that would cut an escape."""
    if len(to.parts) > len(source.parts):
        raise ValueError(
            f"has {len(to.parts) - 1} stars for {len(source.parts) - 1}; take some out"
        )
    for part in (*source.parts[:-1], *to.parts[:-1]):
        if _CUT_ESCAPE.search(part):
            raise ValueError(f"{part!r} ends within an escape; put the star elsewhere")


def _check_template(to: Glob) -> None:
    """Raises ValueError for a path that no request could be given."""
    sample = _filled(to, (b"x",) * (len(to.parts) - 1))
    if not to.parts[0].startswith(b"/") or not _is_inside(sample):
        raise ValueError('is no path to rewrite to; write it like "/new/*", without dots or "?"')


# --- redirects ----------------------------------------------------------------

STATUSES: Final = frozenset({301, 302, 303, 307, 308})
ANY_PATH: Final = Glob.parse(b"/*")
_ABSOLUTE = re.compile(rb"(https?)://([^/?*]++)(/[^?]*+)(?:\?([^*]*+))?+")
_RELATIVE = re.compile(rb"()()(/[^?]*+)(?:\?([^*]*+))?+")
_LOCATION = re.compile(rb"[\x21\x22\x24-\x7e]++")  # visible ASCII; a "#" would end the query


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a client is sent. `base` is scheme and host (b"": the request's own)."""

    base: bytes
    path: Glob
    query: bytes | None = None
    status: int = 302
    keep_query: bool = True
    source: Glob = field(default=ANY_PATH)

    @classmethod
    def parse(
        cls, to: bytes, *, status: int = 302, keep_query: bool = True, source: Glob = ANY_PATH
    ) -> Redirect:
        """A path or an http(s) URL whose path may have stars for those of `source`, like
        "https://new.example/*". Raises ValueError with words for the operator.
        """
        if status not in STATUSES:
            raise ValueError(f"{status} is no redirect; use 301, 302, 303, 307 or 308")
        found = _ABSOLUTE.fullmatch(to) or _RELATIVE.fullmatch(to)
        if found is None or to.startswith(b"//") or not _LOCATION.fullmatch(to):
            words = "is nowhere to send to; write a path or an http(s) URL with one, stars in it"
            raise ValueError(f"{words}, without #")
        path = Glob.parse(found[3])
        _check_stars(source, path)
        _check_template(path)
        base = b"%b://%b" % (found[1], _checked_host(found[2], found[1])) if found[1] else b""
        return cls(base, path, found[4], status, keep_query, source)

    def location(self, request: RequestHead) -> bytes | None:
        """The Location for `request`, whose target is normalised; None where it is not taken, or
        would be sent to where it is.

        An absolute URL, but where the client named no host. Raises ProtocolError(BAD_MESSAGE) as
        `PathRewrite.applied` does.
        """
        parts = split_target(request.target)
        taken = self.source.captures(parts.path)
        if taken is None:
            return None
        path = _kept_inside(_filled(self.path, taken))
        own = b"%b://%b" % (request.scheme, request.authority) if request.authority else b""
        base = self.base or own
        if not base:
            path = b"/" + path.lstrip(b"/")  # RFC 3986 §4.2: "//" begins a host
        made = base + Target(path, self._joined(parts.query)).joined()
        if _LOCATION.fullmatch(made) is None:
            raise ProtocolError(Failure.BAD_MESSAGE, "a target that cannot stand in Location")
        return None if made == own + request.target else made

    def _joined(self, query: bytes | None) -> bytes | None:
        """The redirect's own query, then the request's."""
        if not self.keep_query or query is None:
            return self.query
        return query if self.query is None else b"%b&%b" % (self.query, query)


def _checked_host(host: bytes, scheme: bytes) -> bytes:
    try:
        return parse_authority(host).canonical(scheme)
    except ProtocolError as error:
        raise ValueError(f"{host!r} is no host to send to: {error}") from error
