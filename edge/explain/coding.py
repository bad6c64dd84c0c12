"""In which content coding a request's answer goes, and why, as a section of an explanation.

What is chosen is what `coding.renditions.judgement` says, as for the answer itself; here it is
put into words, with how far that variant is made, and with the dictionary that it would be coded
with (see `dictionary`). Looking it up makes none, and counts as no use. Of an answer that is yet
to come from an origin only the client's side of the choice is known.

Values for JSON; sizes are in bytes. A `state` is stored, begun or unmade.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edge.coding import renditions
from edge.coding.negotiate import CODED, Coding
from edge.coding.policy import Stays, is_coded, origin_coding
from edge.explain.dictionary import named
from edge.explain.question import plain
from edge.wire.message import ResponseHead

if TYPE_CHECKING:
    from edge.cache.entry import Entry
    from edge.cache.held import Held
    from edge.coding.policy import CompressPolicy
    from edge.coding.renditions import Wish
    from edge.explain.dictionary import Named
    from edge.explain.particulars import Case

NO_COMPRESS: Final = "no-compress"
_BY_ITSELF: Final = frozenset(
    (Stays.ACCEPTED.value, Stays.CODED.value)
)  # the reason is how it came
_OF_STATE: Final = {
    "begun": "being made",
    "unmade": "made when it is first asked for",
}


class _Told(NamedTuple):
    """An answer's `coding`, None where it is not known yet; `why` it goes as it is; the words; and
    the `dictionary` that its request names, where that counts."""

    coding: str | None
    why: str | None
    says: str
    state: str | None = None
    length: int | None = None
    of_bytes: int | None = None
    dictionary: Named | None = None


async def of(case: Case, outcome: str, goes: str) -> dict[str, Any] | None:
    """The section, by the verdict's `outcome` and how the request goes to its origin; None where
    what answers is neither stored nor an origin's. What is to be validated is told of as if its
    origin found it unchanged."""
    source = case.found.held
    if outcome in ("hit", "stale", "revalidate") and source is not None:
        told = await _of_stored(case, source)
    elif goes:
        told = await _of_coming(case, goes)
    else:
        return None
    return {
        "coding": told.coding,
        "why": told.why,
        "says": told.says,
        "state": told.state,
        "bytes": told.length,
        "of_bytes": told.of_bytes,
        "dictionary": None if told.dictionary is None else told.dictionary.document(),
    }


async def _of_stored(case: Case, source: Held) -> _Told:
    policy, entry = case.admitted.terms.compress, source.entry
    if policy is None:
        return _as_it_is(entry, NO_COMPRESS, "the site has no compress")
    head = ResponseHead(entry.status, entry.headers)
    wished = renditions.wish(case.head, policy)
    found = renditions.judgement(head, wished, policy)
    if isinstance(found, Stays):
        return _as_it_is(entry, found.value, why_words(found, head, wished, policy))
    if source.newest.uncodable:
        return _as_it_is(entry, Stays.UNSHRUNK.value, _WHY[Stays.UNSHRUNK])
    dictionary = await named(case) if found in CODED else None
    by = dictionary.by if dictionary is not None else b""
    found = Coding.DCZ if by else found
    key = renditions.key_of(entry.key, found, by)
    variant = renditions.fitting(await case.tools.store.look(key, case.now), entry)
    if renditions.has_part_of(case.admitted.request, entry, variant):
        return _as_it_is(entry, Stays.PART.value, _WHY[Stays.PART])
    state = _state(variant)
    length = variant.entry.length if variant is not None else None
    of_bytes = None if is_coded(entry.headers) else entry.length  # no share of other octets
    says = f"{_chosen(found, entry, policy, dictionary)}, {_made(state, length, of_bytes)}"
    says += _but_not_by(dictionary)
    return _Told(found.value, None, says, state, length, entry.length, dictionary)


def _as_it_is(entry: Entry, why: str, words: str) -> _Told:
    """What goes as it is stored: `identity: image/png is not compressed`."""
    came = came_in(entry)
    says = f"{came}, as the origin coded it"
    if why not in _BY_ITSELF:
        says = f"{came}: {words}" if came == Coding.IDENTITY else f"{says}: {words}"
    return _Told(came, why, says, length=entry.length)


def came_in(entry: Entry) -> str:
    """The coding of what is stored, also one that is not known here."""
    coding = origin_coding(entry.headers)
    if coding is not None:
        return coding.value
    return plain(entry.headers.joined(b"content-encoding") or b"")


def _chosen(coding: Coding, entry: Entry, policy: CompressPolicy, dictionary: Named | None) -> str:
    """`br (of br, zstd, gzip)`, `dcz by dictionary …`, `decoded from gzip`, or that and one of
    them: `decoded from gzip, coded br (of br, zstd, gzip)`."""
    decoded = f"decoded from {came_in(entry)}"
    if coding is Coding.IDENTITY:
        return decoded
    chosen = f"{coding} (of {_names(policy)})"
    if coding is Coding.DCZ and dictionary is not None:
        chosen = f"dcz by {dictionary.says}"
    return f"{decoded}, coded {chosen}" if is_coded(entry.headers) else chosen


def _names(policy: CompressPolicy) -> str:
    return ", ".join(policy.codings)


def _state(variant: Held | None) -> str:
    if variant is None:
        return "unmade"
    return "stored" if variant.entry.length is not None else "begun"


def _made(state: str, length: int | None, of_bytes: int | None) -> str:
    """How far a variant is made: `stored, 1234 bytes, 23 % of 5432`."""
    if length is None:
        return _OF_STATE[state]
    share = f", {100 * length / of_bytes:.0f} % of {of_bytes}" if of_bytes else ""
    return f"stored, {length} bytes{share}"


def _but_not_by(dictionary: Named | None) -> str:
    """Behind the words: why the dictionary that is named is not used, if it is not."""
    return "" if dictionary is None or dictionary.why is None else f"; {dictionary.says}"


async def _of_coming(case: Case, goes: str) -> _Told:
    """What an origin is yet to answer: what its client's side of the choice comes to."""
    policy = case.admitted.terms.compress
    if policy is None:
        return _Told(None, NO_COMPRESS, "as it comes: the site has no compress")
    wished = renditions.wish(case.head, policy)
    if wished.accepts is None:
        why = Stays.FORBIDDEN
    elif wished.coding is None:
        why = Stays.UNASKED
    else:
        dictionary = await named(case, goes)
        chosen = f"{wished.coding} (of {_names(policy)})"
        if dictionary is not None and dictionary.why is None:
            chosen = f"dcz by {dictionary.says}"
        says = f"{chosen}, if what comes is worth it{_but_not_by(dictionary)}"
        return _Told(None, None, says, dictionary=dictionary)
    return _Told(None, why.value, f"as it comes: {client_words(why, wished, policy)}")


# --- reasons in words


def why_words(why: Stays, head: ResponseHead, wished: Wish, policy: CompressPolicy) -> str:
    """Why an answer with this head goes as it is."""
    match why:
        case Stays.FORBIDDEN | Stays.UNASKED:
            return client_words(why, wished, policy)
        case Stays.STATUS:
            return f"an answer of status {head.status} is not compressed"
        case Stays.SMALL:
            return f"smaller than compress.min, {policy.min_bytes} bytes"
        case Stays.LARGE:
            return f"larger than compress.max, {policy.most_bytes} bytes"
        case Stays.TYPE:
            kind = head.headers.get(b"content-type")
            named = "what has no Content-Type" if kind is None else plain(kind)
            return f"{named} is not compressed"
        case _:
            return _WHY[why]


def client_words(why: Stays, wished: Wish, policy: CompressPolicy) -> str:
    """Why a client is to get nothing that is coded here."""
    accepts = wished.accepts
    if why is Stays.FORBIDDEN or accepts is None:
        return "the request says no-transform"
    if accepts.is_silent:
        return "the request has no Accept-Encoding"
    if any(accepts.accepts(coding) for coding in policy.codings):
        return f"the client would rather have it than any of {_names(policy)}"
    return f"the client accepts none of {_names(policy)}"


_WHY: Final = {
    Stays.CODED: "it is not decoded here",
    Stays.HELD: "its own fields forbid a change (no-transform, Content-Range or a signature)",
    Stays.ENDLESS: "an event stream is not compressed",
    Stays.ACCEPTED: "the client accepts that",
    Stays.REFUSED: "the client accepts neither that nor identity",
    Stays.UNSHRUNK: "did not shrink",
    Stays.PART: "the range is one of the body as it is stored",
}
