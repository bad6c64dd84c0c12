"""Which bytes of a stored body a request is answered with (RFC 9110 §14).

`plan` decides between the whole, one part, several parts, or none; `pieces` and `part_headers`
say how that looks on the wire. Only GET has ranges, only of a stored 200, and a Range that cannot
be read is as if it were not there. If-Range is compared strongly: when in doubt, the whole.

Asking is cheaper than answering, so what is asked is tamed first. Parts that overlap or lie side
by side are sent as one (§15.3.7.2 allows it), so no byte is ever sent twice; where more than
`FEW_PARTS` are left, so are those that are nearer than the head of a part is long. A reader of few
parts gets just what it asked for. The parts keep the order in which they were first asked for, as
§15.3.7.2 wishes. If there are still more than `MOST_PARTS`, the Range is ignored: §14.2 allows it
for "many small ranges".

A multipart answer has a length before it has a first byte: every literal piece is made up front,
and the sum is the Content-Length. The boundary is a hash of the entry and of a salt that the
caller keeps to itself, so that no author of a page can put the boundary into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from edge.cache.validation import is_dated_strongly, last_modified
from edge.wire.fields import RangeSpec, parse_date, parse_entity_tag, parse_range

if TYPE_CHECKING:
    from edge.cache.entry import Entry
    from edge.wire.message import Headers, Pair, RequestHead

FEW_PARTS: Final = 8
MOST_PARTS: Final = 32  # after joining; what asks for more is no reader
NEAR_BYTES: Final = 80  # RFC 9110 §15.3.7.2 names 80 bytes as the least a part's head costs


class Span(NamedTuple):
    """Octets `start` up to but not including `stop` of a body."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many octets it has."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Whole:
    """No range applies: the answer is what it would be without one."""


@dataclass(frozen=True, slots=True)
class Single:
    """206 with one part."""

    span: Span
    length: int


@dataclass(frozen=True, slots=True)
class Multiple:
    """206 with multipart/byteranges: at least two spans that share no octet."""

    spans: tuple[Span, ...]
    length: int
    boundary: bytes


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """416: nothing that was asked for is there."""

    length: int


Plan: TypeAlias = Whole | Single | Multiple | Unsatisfiable

_WHOLE: Final = Whole()


def plan(request: RequestHead, entry: Entry, length: int, salt: bytes = b"") -> Plan:
    """How `request` is answered from the `length` bytes of `entry`'s body.

    To be asked after `validation.preconditions` said to proceed. `salt` is up to 64 secret bytes
    that boundaries are made from.
    """
    specs = _wanted(request, entry)
    if specs is None:
        return _WHOLE
    found = [span for spec in specs if (span := _resolved(spec, length)) is not None]
    if not found:
        return Unsatisfiable(length)
    if not length:
        return _WHOLE  # the last n bytes of nothing: satisfiable, but no Content-Range can say so
    spans = _joined(found, 0)
    if len(spans) > FEW_PARTS:
        spans = _joined(found, NEAR_BYTES)
    if len(spans) == 1:
        return Single(spans[0], length)
    if len(spans) > MOST_PARTS or b"content-encoding" in entry.headers:
        return _WHOLE  # several parts of a coding, with what stands between them, are in no coding
    return Multiple(spans, length, _boundary(entry, salt))


def content_range(span: Span | None, length: int) -> bytes:
    """A Content-Range value: of a part, or (None) that of a 416."""
    if span is None:
        return b"bytes */%d" % length
    return b"bytes %d-%d/%d" % (span.start, span.stop - 1, length)


def part_headers(headers: Headers, plan: Single | Multiple) -> Headers:
    """The stored fields of a 200 as they stand on the 206 that `plan` makes of it."""
    kept = headers.without((b"content-length", b"content-range"))
    if isinstance(plan, Multiple):
        # RFC 9110 §15.3.7.2: no Content-Range on the outside of several parts
        kept = kept.replaced(b"content-type", b"multipart/byteranges; boundary=" + plan.boundary)
    else:
        kept = kept.plus((b"content-range", content_range(plan.span, plan.length)))
    return kept.plus((b"content-length", b"%d" % content_length(pieces(headers, plan))))


def pieces(headers: Headers, plan: Single | Multiple) -> tuple[bytes | Span, ...]:
    """The content of the 206, in order: literal bytes, and spans of the stored body."""
    if isinstance(plan, Single):
        return (plan.span,)
    kind = headers.get(b"content-type")
    described = b"" if kind is None else b"Content-Type: %b\r\n" % kind
    found: list[bytes | Span] = []
    for span in plan.spans:
        told = content_range(span, plan.length)
        start = b"\r\n--" if found else b"--"
        head = b"%b%b\r\n%bContent-Range: %b\r\n\r\n" % (start, plan.boundary, described, told)
        found += (head, span)
    found.append(b"\r\n--%b--\r\n" % plan.boundary)
    return tuple(found)


def content_length(pieces: tuple[bytes | Span, ...]) -> int:
    """How many bytes `pieces` are together."""
    return sum(piece.size if isinstance(piece, Span) else len(piece) for piece in pieces)


def unsatisfiable_headers(plan: Unsatisfiable) -> tuple[Pair, ...]:
    """The fields of a 416 (RFC 9110 §15.5.17)."""
    return ((b"content-range", content_range(None, plan.length)), (b"content-length", b"0"))


def _wanted(request: RequestHead, entry: Entry) -> list[RangeSpec] | None:
    """The ranges that are to be heeded; None for none."""
    asked = request.headers.all(b"range")
    if len(asked) != 1 or request.method != b"GET" or entry.status != 200:
        return None
    conditions = request.headers.all(b"if-range")
    if conditions and not (len(conditions) == 1 and _is_same(conditions[0], entry)):
        return None
    return parse_range(asked[0])


def _is_same(condition: bytes, entry: Entry) -> bool:
    """Whether an If-Range names exactly what is stored (RFC 9110 §13.1.5)."""
    tag = parse_entity_tag(condition)
    if tag is not None:
        stored = parse_entity_tag(entry.headers.get(b"etag") or b"")
        return stored is not None and tag.is_strongly(stored)
    if entry.made_of:  # a date is that of all codings, whose octets are not the same
        return False
    date = parse_date(condition, entry.times.response_time)
    return date is not None and date == last_modified(entry) and is_dated_strongly(entry)


def _resolved(spec: RangeSpec, length: int) -> Span | None:
    """The octets that `spec` means in a body of `length`; None where it is unsatisfiable."""
    if spec.first is None:
        return Span(max(0, length - spec.last), length) if spec.last else None
    if spec.first >= length:
        return None
    return Span(spec.first, length if spec.last is None else min(spec.last + 1, length))


def _joined(spans: list[Span], gap: int) -> tuple[Span, ...]:
    """`spans`, those at most `gap` octets apart made one, in the order first asked for."""
    groups: list[tuple[int, Span]] = []
    for index, span in sorted(enumerate(spans), key=lambda item: item[1]):
        if groups and span.start - groups[-1][1].stop <= gap:
            first, (start, stop) = groups[-1]
            groups[-1] = (min(first, index), Span(start, max(stop, span.stop)))
        else:
            groups.append((index, span))
    return tuple(span for _, span in sorted(groups))


def _boundary(entry: Entry, salt: bytes) -> bytes:
    named = b"%b%b" % (entry.key.digest, entry.headers.get(b"etag") or b"")
    return blake2b(named, digest_size=18, key=salt[:64], person=b"byteranges").hexdigest().encode()
