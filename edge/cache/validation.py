"""Validators at work: answering conditional requests, making them, freshening by their answers.

Three questions, all of RFC 9110 §13 and RFC 9111 §4.3. Does a client's condition hold for what is
stored (`preconditions`)? What do we ask the origin, so that it need not send again what we have
(`conditional`)? And when it says "not modified", which entry does it mean and what becomes of it
(`matches_304`, `freshened`)? Whether to ask at all, and whether the answer may be used, is
`decision`'s.

A client's own conditions never reach the origin on a request whose answer may be stored: a 304 or
a 412 to one client is nothing to keep for another. They are answered here, from the whole.

Entity tags are compared byte for byte and sent as they were received. An ETag that is not a
well-formed tag (unquoted, `w/"x"`) is still sent back, since the origin that made it may know it;
it equals only its own bytes, and never strongly.

A 304 must not freshen the wrong entry. An entity tag says which of several variants is meant; a
date does not, so a variant that this request does not select is offered only if it has a tag, and
a 304 without any validator means an entry only when one alone was offered.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from edge.cache import vary
from edge.cache.freshness import age_field, date_field
from edge.wire.fields import (
    AnyTag,
    format_date,
    parse_date,
    parse_entity_tag,
    parse_entity_tags,
    tokens,
)
from edge.wire.hop import end_to_end
from edge.wire.message import Headers, Pair, RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.cache.entry import Entry, Seq, Terms, Times
    from edge.cache.vary import VaryPolicy

PRECONDITIONS: Final = frozenset(
    (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
)
CONDITIONALS: Final = PRECONDITIONS | {b"if-range", b"range"}

# A 304 does not change these. Content-Length: RFC 9111 §3.2. The others tell of the stored bytes,
# which a 304 does not bring (Content-Digest, in a 304, would be that of its own empty content);
# Age is worked out anew for each answer.
UNCHANGED_BY_304: Final = frozenset(
    (
        b"age", b"content-digest", b"content-encoding", b"content-length", b"content-md5",
        b"content-range",
    )
)  # fmt: skip

# RFC 9110 §15.4.5: what a 200 would have had of these, a 304 has too.
_TOLD_BY_304: Final = frozenset(
    (b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary")
)

MOST_TAGS_BYTES: Final = 4096  # of If-None-Match; origins commonly take 8 KiB a line


class Outcome(Enum):
    """What a request's preconditions make of the stored answer."""

    PROCEED = "proceed"
    NOT_MODIFIED = "not-modified"  # answer 304
    FAILED = "failed"  # answer 412


# --- what a client asks of us


def preconditions(request: RequestHead, entry: Entry) -> Outcome:
    """What `request`'s conditions make of answering with `entry`, in RFC 9110 §13.2.2's order.

    If-Range is `ranges`' affair, as it never changes more than which bytes are sent.
    """
    headers = request.headers
    if PRECONDITIONS.isdisjoint([name for name, _ in headers.pairs]):
        return Outcome.PROCEED
    if not 200 <= entry.status < 300:  # RFC 9110 §13.2.1: nothing but a success is conditional
        return Outcome.PROCEED
    if not _holds_as_expected(headers, entry):
        return Outcome.FAILED
    reads = request.method in (b"GET", b"HEAD")
    known = headers.joined(b"if-none-match")
    if known is not None:
        if not _is_among(known, entry, strongly=False):
            return Outcome.PROCEED
        return Outcome.NOT_MODIFIED if reads else Outcome.FAILED
    if reads and _is_unmodified_since(headers, entry):
        return Outcome.NOT_MODIFIED
    return Outcome.PROCEED


def _holds_as_expected(headers: Headers, entry: Entry) -> bool:
    """Steps 1 and 2: If-Match, and If-Unmodified-Since where there is no If-Match."""
    expected = headers.joined(b"if-match")
    if expected is not None:
        return _is_among(expected, entry, strongly=True)
    since, modified = _moment(headers, b"if-unmodified-since", entry), last_modified(entry)
    return since is None or modified is None or modified <= since


def _is_unmodified_since(headers: Headers, entry: Entry) -> bool:
    """Step 4: If-Modified-Since."""
    since = _moment(headers, b"if-modified-since", entry)
    if since is None:
        return False
    modified = last_modified(entry)
    if modified is None:
        modified = entry.date  # RFC 9111 §4.3.2: Date stands in for a missing Last-Modified
    return modified <= since


def _is_among(tags: bytes, entry: Entry, *, strongly: bool) -> bool:
    """Whether a list of entity tags, or `*`, has the stored one in it."""
    listed = parse_entity_tags(tags)
    if isinstance(listed, AnyTag):
        return True
    stored = entry.headers.get(b"etag")
    if stored is None:
        return False
    ours = parse_entity_tag(stored)
    if ours is None:
        return not strongly and stored in tokens(tags)
    return any(tag.is_strongly(ours) if strongly else tag.is_weakly(ours) for tag in listed)


def not_modified_headers(entry: Entry) -> Headers:
    """The fields of the 304 that stands for `entry`, without Age and the like.

    Those of RFC 9110 §15.4.5, the targeted forms of Cache-Control, and Last-Modified where there
    is no ETag to go by.
    """
    has_tag = b"etag" in entry.headers
    return Headers(
        (name, value)
        for name, value in entry.headers
        if name in _TOLD_BY_304
        or name.endswith(b"-cache-control")
        or (name == b"last-modified" and not has_tag)
    )


# --- what we ask of an origin


def unconditional(request: RequestHead) -> RequestHead:
    """`request` for the whole representation: no conditions, no range."""
    if CONDITIONALS.isdisjoint([name for name, _ in request.headers.pairs]):
        return request
    return replace(request, headers=request.headers.without(CONDITIONALS))


def offered(
    request: RequestHead, variants: Sequence[Entry], policy: VaryPolicy = vary.DEFAULT
) -> tuple[Entry, ...]:
    """The entries that a conditional request names, the selected one first.

    Give these to `matches_304`. A variant that `request` does not select is named only by a tag.
    """
    selected = vary.choose(variants, request, policy)
    found, size = [], 0
    for entry in sorted(variants, key=lambda entry: (entry is not selected, -entry.date)):
        tag = _offered_tag(entry)
        size += len(tag or b"") + 2
        dated = entry is selected and last_modified(entry) is not None
        if (tag and size <= MOST_TAGS_BYTES) or dated:
            found.append(entry)
    return tuple(found)


def conditional(
    request: RequestHead, variants: Sequence[Entry], policy: VaryPolicy = vary.DEFAULT
) -> RequestHead:
    """`request` as it goes to the origin to validate `variants` (RFC 9111 §4.3.1).

    The client's own conditions and Range are gone. Without a validator to offer it is a plain
    request for the whole.
    """
    entries = offered(request, variants, policy) if variants else ()
    tags = [tag for entry in entries if (tag := _offered_tag(entry))]
    fields: list[Pair] = []
    if tags:
        fields.append((b"if-none-match", b", ".join(dict.fromkeys(tags))))
    if entries and vary.selects(entries[0], request, policy):
        modified = entries[0].headers.get(b"last-modified")
        if modified is not None and last_modified(entries[0]) is not None:
            fields.append((b"if-modified-since", modified))
    bare = unconditional(request)
    return replace(bare, headers=bare.headers.plus(*fields)) if fields else bare


def _offered_tag(entry: Entry) -> bytes | None:
    """The stored ETag, byte for byte; None for none, and for what would ask another question."""
    tag = entry.headers.get(b"etag")
    return None if tag in (b"", b"*") else tag  # `If-None-Match: *` is true of any representation


# --- what an origin answers


def matches_304(variants: Sequence[Entry], not_modified: ResponseHead) -> Entry | None:
    """The entry of those `offered` that a 304 vouches for (RFC 9111 §4.3.4), or None.

    None means: ask again without conditions. The letter of the RFC would also have us refetch
    when a 304 carries no validator and the only stored response has one; origins that leave the
    tag out of a 304 are common, and there is nothing else that they can mean.
    """
    headers = not_modified.headers
    if b"etag" not in headers and b"last-modified" not in headers:
        return variants[0] if len(variants) == 1 else None
    meant = [entry for entry in variants if _vouches(headers, entry)]
    return max(meant, key=lambda entry: entry.date, default=None)


def _vouches(headers: Headers, entry: Entry) -> bool:
    """Whether a 304's validators are the entry's; a tag on both sides decides alone."""
    theirs, ours = headers.get(b"etag"), entry.headers.get(b"etag")
    if theirs is not None and ours is not None:
        return _is_same_tag(theirs, ours)
    if headers.get(b"last-modified") != entry.headers.get(b"last-modified"):
        return False
    if theirs is None or (tag := parse_entity_tag(theirs)) is None or tag.weak:
        return b"last-modified" in headers
    # RFC 9111 §4.3.4: a 304 with a strong validator updates only what has that strong validator
    return is_dated_strongly(entry)


def _is_same_tag(theirs: bytes, ours: bytes) -> bool:
    sent, stored = parse_entity_tag(theirs), parse_entity_tag(ours)
    if sent is None or stored is None:
        return theirs == ours
    # RFC 9111 §4.3.4: a strong tag in the 304 asks for the same strong tag in the store
    return sent.is_weakly(stored) if sent.weak else sent.is_strongly(stored)


def updated_headers(stored: Headers, received: Headers, times: Times) -> Headers:
    """The stored fields as a 304, or a 200 to HEAD, leaves them (RFC 9111 §3.2).

    Every field that came replaces all lines of its name, but for hop-by-hop fields and those in
    `UNCHANGED_BY_304`. A missing Date is the time of arrival (RFC 9110 §6.6.1); the stored one
    would make the entry look old to the next cache.
    """
    news = end_to_end(received).without(UNCHANGED_BY_304)
    if b"date" not in news:
        news = news.plus((b"date", format_date(times.response_time)))
    replaced = {name for name, _ in news}
    return Headers((*stored.without(replaced), *news))


def freshened(
    entry: Entry,
    received: ResponseHead,
    times: Times,
    terms: Terms,
    *,
    keep_until: float | None = None,
    fetched_at: Seq | None = None,
) -> Entry:
    """`entry` as a 304 (or an agreeing HEAD) renews it: other fields, other times, same body.

    `terms` and `keep_until` (by default as far off as it was) come from the `updated_headers`;
    `fetched_at` is the number that the request took before it looked in the store. The variant
    and the scopes stay: who lets a 304 change Vary or tags replaces them too.
    """
    headers = updated_headers(entry.headers, received.headers, times)
    kept_for = entry.keep_until - entry.times.response_time
    return replace(
        entry,
        headers=headers,
        times=times,
        date=date_field(headers, times),
        age_field=age_field(received.headers),
        terms=terms,
        keep_until=times.response_time + kept_for if keep_until is None else keep_until,
        fetched_at=entry.fetched_at if fetched_at is None else fetched_at,
        vary_any=vary.vary_names(headers) is None,
    )


def head_updates(entry: Entry, response: ResponseHead) -> bool:
    """Whether a 200 to HEAD tells of the same representation as `entry` (RFC 9111 §4.3.5).

    True: freshen the entry by it. False: the entry is out of date and may not be used again.
    """
    if response.status != 200 or entry.status != 200:
        return False
    theirs, ours = response.headers, entry.headers
    tag, stored_tag = theirs.get(b"etag"), ours.get(b"etag")
    if tag is not None and (stored_tag is None or not _is_same_tag(tag, stored_tag)):
        return False
    modified = theirs.get(b"last-modified")
    if modified is not None and modified != ours.get(b"last-modified"):
        return False
    return _is_same_length(theirs, entry)


def _is_same_length(headers: Headers, entry: Entry) -> bool:
    told = headers.get(b"content-length")
    if told is None:
        return True
    if entry.length is not None:
        return told == b"%d" % entry.length
    return told == entry.headers.get(b"content-length")


# --- dates as validators


def last_modified(entry: Entry) -> float | None:
    """The stored Last-Modified in Unix seconds; None where there is none, or no date."""
    value = entry.headers.get(b"last-modified")
    return None if value is None else parse_date(value, entry.times.response_time)


def is_dated_strongly(entry: Entry) -> bool:
    """Whether the stored Last-Modified is a strong validator (RFC 9110 §8.8.2.2).

    It is when the origin answered at least a second after: within one second a representation
    can change twice and keep its date. Both times are by the origin's clock.
    """
    modified = last_modified(entry)
    return modified is not None and modified + 1 <= entry.date


def _moment(headers: Headers, name: bytes, entry: Entry) -> float | None:
    """The date of a conditional field; None (ignore it) for none, several, or no date.

    Two-digit years are read as of the entry's arrival: near enough to now for a span of fifty
    years, and the answer then depends on nothing but the request and the entry.
    """
    values = headers.all(name)
    return parse_date(values[0], entry.times.response_time) if len(values) == 1 else None
