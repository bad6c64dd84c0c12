"""Renditions: coded variants, which were made of a stored body by coding or decoding it.

Theory of operation
-------------------
What an origin answers is fetched, judged and stored as it came. Where a client is to get it in
another coding, that is made once and stored under a key of its own, derived from the key and the
coding, whose digest has the same first bytes: so the same worker owns it, it lies in the same
shard, and the same lease covers copies of it.

- *Such a variant is a body, and no more.* Whether it may answer is never asked of it, but of its
  source, which the law has ruled on; and its head is made of its source's head as that is now. So
  a 304 renews it, and a purge covers it, without its being touched; it is kept as long as its
  source is, by being told of that at times (`is_lasting`).
- *It fits one body.* Every stored body has a mark (`Entry.body`), which a 304 leaves alone, and a
  variant names the one that it is made of (`made_of`). What has been fetched anew, after a purge
  or not, has another mark: what was made of the old body is of no more use from that moment on,
  and neither is what is still being made of it.
- *Its octets are its own.* How they came about hangs on what flushed when, so each has a mark of
  its own, which is in its entity tag: no range of one is joined to a range of another.
- *Conditions are held against the source.* Who has any coding of what is stored, and still accepts
  that coding, has it: a 304 names the tag that the client named.

What a client is to get follows from its Accept-Encoding, the site's order and the head that came
(see `policy` for what that says of a body's length), never from what happens to be stored: so each
client gets one coding at all times, and each worker can tell which. What its origin coded goes as
it is to all who accept that, which costs nothing; for others it is decoded, and coded in what they
like best where that pays. The origin sees one value of Accept-Encoding, and all answers that vary
on it are one variant.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.cache.entry import Key
from edge.coding.negotiate import CODED, Acceptance, Coding, acceptance, choose
from edge.coding.policy import (
    Stays,
    forbids_transform,
    has_to_stay,
    is_coded,
    may_recompress,
    origin_coding,
    pays,
    why_not,
)
from edge.coding.representation import (
    coded_headers,
    decoded_headers,
    mark_of,
    plain_tag,
    varied_headers,
)
from edge.wire.fields import AnyTag, parse_entity_tag, parse_entity_tags
from edge.wire.message import Headers, ResponseHead

if TYPE_CHECKING:
    from edge.cache.entry import Entry
    from edge.cache.held import Held, Resource
    from edge.coding.policy import CompressPolicy
    from edge.wire.message import RequestHead

RENEWED_S: Final = 60.0  # how long a source may outlast what was made of it, or less is renewed
SHARED_BYTES: Final = 2  # of a digest: what names its shard, its owner and its lease
UNMARKED: Final = b"\0"  # the body of an entry that was stored without a mark
_NOT_MADE: Final = mark_of(b"")  # in the tag of what there is no body of (yet): of HEAD and 304
_TAGS: Final = frozenset((b"if-match", b"if-none-match"))
AVAILABLE: Final = b"available-dictionary"
ASKED_CODED: Final = b"br, zstd, gzip"


class Wish(NamedTuple):
    """What a request's Accept-Encoding comes to: what it `accepts`, None where nothing may be
    transformed; and the best `coding` of the site's that it may be sent, None for identity."""

    accepts: Acceptance | None
    coding: Coding | None


def wish(request: RequestHead, policy: CompressPolicy) -> Wish:
    """In what coding `request`, as its client sent it, is best answered."""
    if forbids_transform(request.headers):
        return Wish(None, None)
    accepts = acceptance(request.headers.joined(b"accept-encoding"))
    return _wish(accepts, policy.codings)


@lru_cache(1024)
def _wish(accepts: Acceptance, codings: tuple[Coding, ...]) -> Wish:
    made = tuple(coding for coding in codings if coding in CODED)
    best = choose(accepts, made, {*made, Coding.IDENTITY})
    return Wish(accepts, None if best is Coding.IDENTITY else best)


def asks_by_dictionary(request: RequestHead, policy: CompressPolicy | None) -> bool:
    """Whether a request names a dictionary that its answer may be coded with."""
    return policy is not None and policy.dictionaries and AVAILABLE in request.headers


def coding_of(head: ResponseHead, wished: Wish, policy: CompressPolicy) -> Coding | None:
    """What an answer with this head is to be coded in; IDENTITY where it is only to be decoded for
    its client, None where it goes as it came."""
    found = judgement(head, wished, policy)
    return found if isinstance(found, Coding) else None


def judgement(head: ResponseHead, wished: Wish, policy: CompressPolicy) -> Coding | Stays:
    """As `coding_of`, with the reason why an answer goes as it came."""
    came = origin_coding(head.headers)
    if came is None or (came is not Coding.IDENTITY and came not in CODED):
        return Stays.CODED
    if wished.accepts is None:
        return Stays.FORBIDDEN
    if came is Coding.IDENTITY:
        if wished.coding is None:
            return Stays.UNASKED
        return why_not(head, policy) or wished.coding
    if head.status == 206:
        return Stays.STATUS
    if has_to_stay(head.headers):
        return Stays.HELD
    best = choose(wished.accepts, (came,), (came, Coding.IDENTITY))
    if best is came:
        return Stays.ACCEPTED
    if wished.coding is not None and pays(head, policy):
        return wished.coding
    return best or Stays.REFUSED


def coding_for(entry: Entry, wished: Wish, policy: CompressPolicy) -> Coding | None:
    """As `coding_of`, of what is stored."""
    return coding_of(ResponseHead(entry.status, entry.headers), wished, policy)


def is_chosen(head: ResponseHead, policy: CompressPolicy) -> bool:
    """Whether answers of this kind go to clients in what they accept, so that others may get
    another one: all have to tell of that, also what goes as it came."""
    came = origin_coding(head.headers)
    if came in CODED:
        return head.status == 206 or not has_to_stay(head.headers)
    return came is Coding.IDENTITY and pays(head, policy)


# --- keys and entries


def key_of(key: Key, coding: Coding, by: bytes = b"") -> Key:
    """What the variant in `coding` of what is under `key` is stored under; `by` is the digest of
    the dictionary that it was coded with."""
    return Key(_digest(key.digest, coding, by), key.url)


@lru_cache(4096)
def _digest(digest: bytes, coding: Coding, by: bytes) -> bytes:
    told = b"%b coded %b%b" % (digest, coding.token, by)
    rest = blake2b(told, digest_size=len(digest) - SHARED_BYTES).digest()
    return digest[:SHARED_BYTES] + rest


def fields_of(headers: Headers, coding: Coding, body: bytes = b"") -> Headers:
    """The fields of a variant of what has `headers`; `body` is the mark of its own, if any."""
    if coding is Coding.IDENTITY:
        return decoded_headers(headers)
    return coded_headers(headers, coding, mark_of(body) if body else _NOT_MADE)


def mark(entry: Entry) -> bytes:
    """What a variant made of the body of `entry` names it by."""
    return entry.body or UNMARKED


def entry_of(
    source: Entry,
    coding: Coding,
    body: bytes = b"",
    length: int | None = None,
    *,
    by: bytes = b"",
) -> Entry:
    """The entry of a variant of `source`: in all but its fields and its body what that is.

    `body` is the mark of the variant's own, b"" where there is none; `length` its size in bytes,
    where it is known; `by` the digest of its dictionary.
    """
    return replace(
        source,
        key=key_of(source.key, coding, by),
        headers=fields_of(source.headers, coding, body),
        length=length,
        body=body,
        made_of=mark(source),
    )


def as_now(source: Entry, variant: Entry, coding: Coding) -> Entry:
    """The entry of a stored `variant` as its source's head makes it now."""
    made = entry_of(source, coding, variant.body, variant.length)
    return replace(made, key=variant.key)


def made_in(entry: Entry) -> Coding | None:
    """The coding that a variant was made in, IDENTITY where it was decoded; None for what is no
    variant, or one that says of itself that nothing comes of it (`lent`)."""
    if not entry.made_of or entry.made_of == mark(entry):
        return None
    return origin_coding(entry.headers)


def is_lasting(variant: Entry, source: Entry) -> bool:
    """Whether a variant is kept about as long as its source, which may have been renewed since."""
    return variant.keep_until + RENEWED_S >= source.keep_until


def told(entry: Entry, policy: CompressPolicy) -> Entry:
    """`entry`, an answer that is chosen by Accept-Encoding, as it goes to clients of the site: it
    tells of dictionaries, where one may be chosen by them as well (RFC 9842 §6.2)."""
    if not policy.dictionaries:
        return entry
    return replace(entry, headers=varied_headers(entry.headers, by_dictionary=True))


def plain(source: Entry, policy: CompressPolicy) -> Entry:
    """`source` as it goes to who gets it as it is stored."""
    if not is_chosen(ResponseHead(source.status, source.headers), policy):
        return source
    return told(replace(source, headers=varied_headers(source.headers)), policy)


def fitting(resource: Resource, source: Entry) -> Held | None:
    """The variant among those under a derived key that is made of the body of `source`."""
    wanted = mark(source)
    for held in resource.variants:
        entry = held.entry
        if entry.made_of == wanted and entry.variant == source.variant:
            return held
    return None


def has_part_of(request: RequestHead, source: Entry, variant: Held | None) -> bool:
    """Whether a range of `source` itself is asked for, by who would else get its `variant`: the
    client accepts it, and has a part of that, or nothing else is here whole."""
    if is_coded(source.headers) or request.method != b"GET" or b"range" not in request.headers:
        return False
    condition = request.headers.get(b"if-range")
    if condition is None:
        return variant is None or variant.entry.length is None
    tag = parse_entity_tag(condition)
    ours = parse_entity_tag(source.headers.get(b"etag") or b"")
    return tag is not None and ours is not None and tag.is_strongly(ours)


class Shown(NamedTuple):
    """What an answer is made of: the body of `held`, under the head `entry`.

    `held` is None where there is no body yet, and the answer has none. `source` is the entry that
    the law has ruled on.
    """

    held: Held | None
    entry: Entry
    source: Entry


def keys_of_copies(key: Key, wished: Wish | None) -> tuple[Key, ...]:
    """The keys under which another worker's answer may be copied here, the likelier first."""
    if wished is None or wished.coding is None:
        return (key,)
    return key_of(key, wished.coding), key


def may_stand_alone(
    copy: Entry, request: RequestHead, wished: Wish | None, policy: CompressPolicy | None
) -> bool:
    """Whether a copy answers `request` as it is: its owner would neither make another body of it,
    nor have to say of which of two a part is meant."""
    if policy is None or wished is None:
        return True
    if asks_by_dictionary(request, policy):
        return False  # its owner may have the dictionary
    if copy.made_of:
        return b"range" not in request.headers
    return coding_for(copy, wished, policy) is None


def lent(shown: Shown) -> Entry:
    """The entry that goes with a copy. Of what does not shrink it says that it is made already, of
    itself: whoever has the copy could not know otherwise that nothing else comes of it."""
    entry, held = shown.entry, shown.held
    if held is None or not held.uncodable or entry.made_of:
        return entry
    return replace(entry, made_of=mark(entry))


def is_final(shown: Shown, policy: CompressPolicy | None) -> bool:
    """Whether what is shown is what its owner will go on showing, so that copies of it are worth
    making: who answers with a copy does not tell the owner, who would never see it earn more."""
    held = shown.held
    if policy is None or held is None or not shown.entry.made_of:
        return True
    if origin_coding(shown.entry.headers) is Coding.DCZ:
        return False  # who has no dictionary looks for none
    if is_coded(shown.source.headers):
        return False  # who accepts that gets that, and a copy of this tells nobody of it
    return held.uncodable or not may_improve(shown.source, policy)


def may_improve(source: Entry, policy: CompressPolicy) -> bool:
    """Whether what is made of the body of `source` may be coded again at high effort: not where it
    has to be decoded first, which is for the few that do not accept what all others get."""
    if source.length is None or is_coded(source.headers):
        return False
    return may_recompress(source.length, policy)


# --- conditions


def asked(headers: Headers, policy: CompressPolicy, *, writes: bool = False) -> Headers:
    """A request's fields as they are judged and go to the origin: with the one Accept-Encoding
    that all have, and conditions that name the origin's own tags, too.

    Behind a tag of ours comes the origin's that it was made of, where its client still accepts
    that coding: if not, it has nothing that it could use. Where it `writes`, it names what it has
    read, in whatever coding. Ours stays, as the origin may be a node like this, with tags of the
    kind. If-Range is left alone: it means the octets of one variant.
    """
    value = ASKED_CODED if policy.ask == "coded" else Coding.IDENTITY.token
    told = headers.joined(b"accept-encoding")
    if not _TAGS.isdisjoint([name for name, _ in headers.pairs]):
        accepts = acceptance(None if writes else told)
        headers = Headers(
            (name, _named(text, accepts) if name in _TAGS else text) for name, text in headers
        )
    return headers.replaced(b"accept-encoding", value)


def _named(value: bytes, accepts: Acceptance) -> bytes:
    """A list of tags with the origin's behind ours; where it has none of ours, as it stands."""
    listed = parse_entity_tags(value)
    if isinstance(listed, AnyTag):
        return value
    named: list[bytes] = []
    for tag in listed:
        origins, coding = plain_tag(tag)
        named.append(tag.format())
        if coding is not None and accepts.accepts(coding):
            named.append(origins.format())
    return value if len(named) == len(listed) else b", ".join(dict.fromkeys(named))


def held_tag(request: RequestHead, source: Headers) -> bytes | None:
    """The tag of If-None-Match that names what has the fields `source`, in a coding that `request`
    accepts, as its client wrote it; None where none does."""
    told, tag = request.headers.joined(b"if-none-match"), source.get(b"etag")
    ours = parse_entity_tag(tag) if tag is not None else None
    listed = parse_entity_tags(told) if told is not None else AnyTag.ANY
    if ours is None or isinstance(listed, AnyTag):
        return None
    accepts = acceptance(request.headers.joined(b"accept-encoding"))
    for each in listed:
        plain, coding = plain_tag(each)
        named = plain if coding is not None and accepts.accepts(coding) else each
        if named.is_weakly(ours) or each.is_weakly(ours):
            return each.format()
    return None


def judged(entry: Entry, request: RequestHead) -> Entry:
    """What the conditions of a request are held against where it is answered with `entry`: of a
    variant that was coded here, its source's tag. What was decoded here has its source's already,
    made weak, though another node like this may have coded that, and given it a tag like ours.

    Whoever says by If-Match what a part is to be of means the octets of one variant.
    """
    tag = parse_entity_tag(entry.headers.get(b"etag") or b"") if entry.made_of else None
    if tag is None or (b"if-match" in request.headers and b"range" in request.headers):
        return entry
    plain, coding = plain_tag(tag)
    if coding is not origin_coding(entry.headers):
        return entry
    return replace(entry, headers=entry.headers.replaced(b"etag", plain.format()))


def held_by(request: RequestHead, head: ResponseHead) -> ResponseHead:
    """A 304 to `request`, as its client sent it, with the tag that the client has."""
    tag = held_tag(request, head.headers)
    return head if tag is None else replace(head, headers=head.headers.replaced(b"etag", tag))
