"""Which variant of a resource a request selects (RFC 9111 §4.1).

A response names in `Vary` the request fields it was chosen by. What those fields said in the
request that fetched it is kept with the entry as its *variant*: pairs of name and normalised
value, None for a field that was not there. A later request selects the entry when its own fields,
normalised the same way, give the same pairs. The pairs are compared as pairs and never joined to
one string, so no value can be made to look like two.

Normalising happens here only; the origin sees the field as the client wrote it. It must therefore
only equate values that no origin may tell apart: white space around the members of a list, the
letter case of codings and language tags, the order of codings. A field that is known not to be a
list (`Cookie`, `User-Agent`), and any value with a quoted string in it, is compared as it stands.
A member that cannot be read is kept as written, never dropped: dropping it would equate two
requests that the origin answers differently. Reducing `Accept-Encoding` to the codings that this
node knows was turned down for the same reason, and so, by default, was ignoring the order of
languages, which some origins take for a preference.

A `Vary` that cannot be read as a list of names is taken as `*`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from edge.wire.fields import is_token
from edge.wire.hop import PER_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.cache.entry import Entry, Variant
    from edge.wire.message import Headers, RequestHead

MOST_NAMES: Final = 32  # more than any real Vary; past it, the response counts as `Vary: *`

# Fields whose grammar is not a list (RFC 9110, 6265): their commas and spaces mean something else.
SINGLE_FIELDS: Final = frozenset(
    (
        b"authorization", b"content-type", b"cookie", b"date", b"dnt", b"from", b"host",
        b"if-modified-since", b"if-range", b"if-unmodified-since", b"max-forwards", b"origin",
        b"proxy-authorization", b"range", b"referer", b"save-data", b"sec-ch-ua-platform",
        b"upgrade-insecure-requests", b"user-agent",
    )
)  # fmt: skip

_WEIGHT: Final = re.compile(rb"q=(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\Z")  # RFC 9110 §12.4.2

_MEMO_VALUE_BYTES: Final = 256  # longer values are normalised anew: the memo stays under 1 MiB


@dataclass(frozen=True, slots=True)
class VaryPolicy:
    """How the fields that responses vary on are compared."""

    unordered: tuple[bytes, ...] = ()  # as Accept-Encoding is: without regard to case and order
    languages: tuple[bytes, ...] = ()  # as Accept-Language is: without regard to case
    sort_languages: bool = False  # nor to order: only for origins that go by q-values


DEFAULT: Final = VaryPolicy()


def vary_names(headers: Headers) -> tuple[bytes, ...] | None:
    """The request fields a response varies on, lower-case, sorted; None for `*` and its like."""
    value = headers.joined(b"vary")
    if value is None:
        return ()
    names = {member.strip(b" \t").lower() for member in value.split(b",")} - {b""}
    if b"*" in names or len(names) > MOST_NAMES or not all(map(is_token, names)):
        return None
    if not PER_PATH.isdisjoint(names):  # written by us: no client's request can select by them
        return None
    return tuple(sorted(names))


def variant(names: Sequence[bytes], request: RequestHead, policy: VaryPolicy = DEFAULT) -> Variant:
    """What `request` says in the fields `names`, normalised, in the order of `names`."""
    if not names:
        return ()
    pairs = request.headers.pairs
    return tuple(
        [(name, _normal(name, [v for n, v in pairs if n == name], policy)) for name in names]
    )


def selects(entry: Entry, request: RequestHead, policy: VaryPolicy = DEFAULT) -> bool:
    """Whether `entry` may answer `request` as far as Vary goes; never so under `Vary: *`."""
    if entry.vary_any:
        return False
    stored = entry.variant
    return not stored or variant([name for name, _ in stored], request, policy) == stored


def choose(
    entries: Sequence[Entry], request: RequestHead, policy: VaryPolicy = DEFAULT
) -> Entry | None:
    """The entry that `request` selects, or None.

    Of several, one with a Vary comes before one without (RFC 9111 §4.1: a default response that
    forgot its Vary must not hide a better one), then the most recent Date, then what was asked
    for last.
    """
    matching = [entry for entry in entries if selects(entry, request, policy)]
    if len(matching) < 2:
        return matching[0] if matching else None
    return max(matching, key=_rank)


def superseded(
    entries: Sequence[Entry], request: RequestHead, newest: Entry, policy: VaryPolicy = DEFAULT
) -> list[Entry]:
    """The entries that `newest`, a whole answer to `request`, takes the place of.

    Not only those of the same variant: when an origin changes its Vary, the older entries that
    the same request selects would otherwise be preferred to its newer answer for ever.
    """
    return [
        entry
        for entry in entries
        if entry is not newest
        and entry.times.request_time <= newest.times.request_time
        and (entry.variant == newest.variant or selects(entry, request, policy))
    ]


def _rank(entry: Entry) -> tuple[bool, float, float, int, float]:
    times = entry.times
    return (
        bool(entry.variant), entry.date, times.response_time, entry.fetched_at, times.request_time,
    )  # fmt: skip


def _normal(name: bytes, lines: list[bytes], policy: VaryPolicy) -> bytes | None:
    """The lines of field `name` in the form they are compared in; None where there are none."""
    if not lines:
        return None
    if name in SINGLE_FIELDS:
        return b"\n".join(lines)  # a line feed is in no field value: two lines are not one
    value = lines[0] if len(lines) == 1 else b", ".join(lines)
    if name == b"accept-encoding" or name in policy.unordered:
        return _memo(_unordered, value)
    if name == b"accept-language" or name in policy.languages:
        return _memo(_unordered if policy.sort_languages else _languages, value)
    return _listed(value)


def _memo(normalise: Callable[[bytes], bytes], value: bytes) -> bytes:
    return _memoised(normalise, value) if len(value) <= _MEMO_VALUE_BYTES else normalise(value)


@lru_cache(maxsize=2048)
def _memoised(normalise: Callable[[bytes], bytes], value: bytes) -> bytes:
    return normalise(value)


def _listed(value: bytes) -> bytes:
    """A list without its white space and empty members (RFC 9110 §5.6.1)."""
    if b'"' in value:
        return value  # commas in quoted strings do not part members: leave it alone
    if b"," not in value:
        return value.strip(b" \t")
    return b",".join(_members(value))


def _languages(value: bytes) -> bytes:
    return _listed(value).lower()  # RFC 4647 §2: tags are compared without regard to case


def _unordered(value: bytes) -> bytes:
    """A list of weighed members in lower case, sorted, with each weight in its shortest form."""
    listed = _listed(value).lower()
    if b'"' in listed:
        return listed
    members = {_shortest(member) for member in _members(listed)}
    if len({member.partition(b";")[0] for member in members}) < len(members):
        return listed  # a name twice with two weights: which one counts may hang on the order
    return b",".join(sorted(members))


def _shortest(member: bytes) -> bytes:
    name, *parameters = (part.strip(b" \t") for part in member.split(b";"))
    if len(parameters) == 1 and _WEIGHT.match(parameters[0]):
        weight = (
            parameters[0].rstrip(b"0").rstrip(b".") if b"." in parameters[0] else parameters[0]
        )
        parameters = [] if weight == b"q=1" else [weight]  # RFC 9110 §12.4.2: no weight is 1
    return b";".join([name, *parameters])


def _members(value: bytes) -> list[bytes]:
    return [bare for member in value.split(b",") if (bare := member.strip(b" \t"))]
