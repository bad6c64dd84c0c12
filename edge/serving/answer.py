"""What a client is sent: from a stored response, from a fetched one, or of our own making.

Pure composition, in the order of RFC 9110 §13.2.2 and §14.2: preconditions first, then ranges,
then the whole. An `Answer` is a head and the pieces of its content in order: literal bytes, and
spans of the body that goes with it. Whoever sends it needs to decide nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edge.cache import ranges
from edge.cache.ranges import Multiple, Single, Span, Unsatisfiable
from edge.cache.validation import (
    UNCHANGED_BY_304,
    Outcome,
    not_modified_headers,
    preconditions,
)
from edge.coding import renditions
from edge.coding.representation import OF_THE_OCTETS
from edge.routing.rewrite import FieldEdits
from edge.wire.fields import format_date
from edge.wire.hop import end_to_end, to_client
from edge.wire.message import Headers, Pair, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.cache.entry import Entry
    from edge.errors import ExchangeError
    from edge.wire.message import RequestHead

TO_THE_END: Final = 1 << 62
"""The stop of a span whose body has no known length: read until it ends."""

BODILESS: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Answer:
    """A head, and the pieces of its content: bytes as they are, spans of a body."""

    head: ResponseHead
    pieces: tuple[bytes | Span, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldRules(FieldEdits):
    """What a site does to the fields of every response, after all else."""

    remove: frozenset[bytes] = frozenset({b"server", b"x-powered-by"})


def from_entry(
    request: RequestHead,
    entry: Entry,
    length: int | None,
    salt: bytes,
    told: RequestHead | None = None,
) -> Answer:
    """How `request` is answered with `entry`, whose body has `length` bytes (None: not known yet).

    The head has the entry's fields, not yet Age and what else `finished` adds. `told` is the
    request as its client sent it, where answers are coded: its conditions may name any coding.
    """
    judged = renditions.judged(entry, request)
    outcome = preconditions(request, judged)
    if outcome is Outcome.NOT_MODIFIED:
        headers = not_modified_headers(entry)
        tag = renditions.held_tag(told, judged.headers) if told is not None else None
        return Answer(ResponseHead(304, headers.replaced(b"etag", tag) if tag else headers))
    if outcome is Outcome.FAILED:
        return Answer(ResponseHead(412, Headers([(b"content-length", b"0")])))
    if length is not None:
        planned = ranges.plan(request, entry, length, salt)
        if isinstance(planned, Unsatisfiable):
            return Answer(ResponseHead(416, Headers(ranges.unsatisfiable_headers(planned))))
        if isinstance(planned, (Single, Multiple)):
            head = ResponseHead(206, ranges.part_headers(entry.headers, planned))
            return Answer(head, ranges.pieces(entry.headers, planned))
    return _whole(request, entry, length)


def _whole(request: RequestHead, entry: Entry, length: int | None) -> Answer:
    headers = entry.headers
    if length is not None and entry.status not in BODILESS:
        headers = headers.replaced(b"content-length", b"%d" % length)
    head = ResponseHead(entry.status, headers, entry.reason)
    return Answer(head, whole_body(request, head, length))


def for_its_client(answer: Answer, shown: renditions.Shown, fetched: ResponseHead) -> Answer:
    """`answer`, of what is `shown`, with what `fetched` brought for its own client alone.

    Fields named in `private` or `no-cache` are not stored (RFC 9111 §5.2.2.4, §5.2.2.7), but they
    are meant for whoever asked; not those that speak of octets which it does not get.
    """
    stored = {name for name, _ in shown.source.headers} | UNCHANGED_BY_304
    if shown.entry.made_of:
        stored |= OF_THE_OCTETS
    own = [pair for pair in end_to_end(fetched.headers) if pair[0] not in stored]
    if not own:
        return answer
    return replace(answer, head=replace(answer.head, headers=answer.head.headers.plus(*own)))


def whole_body(
    request: RequestHead, head: ResponseHead, length: int | None
) -> tuple[bytes | Span, ...]:
    """The pieces of an answer that is not cut: none where there is no content to send."""
    if request.method == b"HEAD" or head.status in BODILESS or length == 0:
        return ()
    return (Span(0, TO_THE_END if length is None else length),)


def finished(
    head: ResponseHead,
    *,
    name: bytes,
    rules: FieldEdits,
    cache_status: bytes,
    age: float | None = None,
    cookies: Sequence[bytes] = (),
) -> ResponseHead:
    """`head` as it leaves: Age and our member of Cache-Status added, the site's rules applied.

    `age` is in seconds, for answers from the store; None leaves the Age that came (RFC 9111 §5.1).
    `cookies` are for this client alone: what is stored never has them.
    """
    before = head.headers.joined(b"cache-status")
    # RFC 9211 §2: a list, the member nearest to the origin first
    own = {b"cache-status": cache_status if not before else before + b", " + cache_status}
    if age is not None:
        own[b"age"] = b"%d" % age
    put = {field: value for field, value in own.items() if field not in rules.remove}
    put.update(rules.put)
    told = to_client(head, name, rules.remove, put)
    if not cookies:
        return told
    given = [(b"set-cookie", cookie) for cookie in cookies]
    return replace(told, headers=told.headers.plus(*given, ONE_VISITORS))


def redirection(status: int, location: bytes) -> ResponseHead:
    """The answer that sends a client somewhere else (RFC 9110 §15.4), which is in Location."""
    return ResponseHead(status, Headers([(b"location", location), (b"content-length", b"0")]))


# RFC 9111 §7.3: a shared cache may store a Set-Cookie, and give all behind it one visitor's arm.
ONE_VISITORS: Final = (b"cache-control", b"private")

_WORDS: Final = {
    400: "Bad request", 405: "Method not allowed", 408: "Request timeout",
    413: "Content too large", 414: "URI too long", 417: "Expectation failed",
    421: "Misdirected request", 431: "Request header fields too large", 500: "Internal error",
    502: "Bad gateway", 503: "Service unavailable", 504: "Gateway timeout",
    505: "HTTP version not supported", 508: "Loop detected",
}  # fmt: skip


def refusal(error: ExchangeError, request_id: str, now: float) -> tuple[ResponseHead, bytes]:
    """The answer that tells of `error`: neutral words and the request's id, nothing of ours.

    A client's error closes the connection: what follows a bad message cannot be trusted.
    """
    words = _WORDS.get(error.status, "Error")
    body = f"{error.status} {words}\nrequest {request_id}\n".encode()
    pairs: list[Pair] = [
        (b"date", format_date(now)),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if error.status == 405:
        # RFC 9110 §15.5.6 wants Allow; what is refused here is refused everywhere
        pairs.append((b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
    if error.status == 503:
        pairs.append((b"retry-after", b"1"))
    return ResponseHead(error.status, Headers(pairs)), body
