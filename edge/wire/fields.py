"""Field values: lists, q-values, dates, deltas, entity tags, ranges (RFC 9110 §5.6, §8, §12, §14).

Every parser takes the bytes of one value (several lines are joined by ", " first) and returns a
value, or None where the bytes are not what the grammar says; none raises, and none is worse than
linear. What a malformed field *means* is for those who ask: a bad Expires has expired, a bad
Range is not there, a bad entity tag matches nothing.

Bytes keep us out of the traps of `str`: on bytes `isdigit`, `lower`, `strip(b" \\t")`, `\\d` and
IGNORECASE know ASCII only. `int` is called on digits that a pattern has counted, never on input.
Repetitions are possessive (`++`, `*+`), so no pattern can backtrack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from functools import lru_cache
from typing import Final

OWS: Final = b" \t"  # RFC 9110 §5.6.3

# --- the smallest parts -------------------------------------------------------

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
_MEMBER = re.compile(rb'(?:[^",]++|"(?:[^"\\]++|\\.?+)*+"?+)++', re.DOTALL)


def is_token(value: bytes) -> bool:
    """Whether `value` is a token (RFC 9110 §5.6.2): a method, a field name, a coding."""
    return _TOKEN.fullmatch(value) is not None


def tokens(value: bytes) -> list[bytes]:
    """The members of a comma-separated list, trimmed, empty ones left out (RFC 9110 §5.6.1).

    A comma inside a quoted string does not separate; a string that is never closed runs to the
    end. Members come as they stand, case and quotes kept; they need not be tokens.
    """
    members = _MEMBER.findall(value) if b'"' in value else value.split(b",")
    return [trimmed for member in members if (trimmed := member.strip(OWS))]


# --- numbers ------------------------------------------------------------------

DELTA_MAX: Final = 2**31  # RFC 9111 §1.2.2: what cannot be represented is taken as this
_POSITION_MAX: Final = 10**18  # far above any body; keeps int() off thousands of digits


def _bounded(digits: bytes, most: int) -> int:
    """The number that ASCII `digits` write, or `most` where that is less."""
    significant = digits.lstrip(b"0")
    if len(significant) > 19:
        return most
    return min(int(significant or b"0"), most)


def parse_delta(value: bytes) -> int | None:
    """Delta-seconds (RFC 9111 §1.2.2): digits only, at most `DELTA_MAX`; else None."""
    return _bounded(value, DELTA_MAX) if value.isdigit() else None


# --- dates (RFC 9110 §5.6.7) --------------------------------------------------

_DAYS: Final = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS: Final = (
    *(b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun"),
    *(b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"),
)
_MONTH_NUMBERS: Final = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}

_DAY_NAME = b"(?:" + b"|".join(_DAYS) + b")"
_LONG_DAY_NAME = b"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH_NAME = b"(?P<month>" + b"|".join(_MONTHS) + b")"
_CLOCK = rb"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_DAY, _YEAR = rb"(?P<day>[0-9]{2})", rb"(?P<year>[0-9]{4})"

# The name of the day is not held against the date: generators get it wrong by hand and nothing
# is lost, while a date taken as invalid is one that has expired.
_IMF_FIXDATE = re.compile(
    b"%b, %b %b %b %b GMT" % (_DAY_NAME, _DAY, _MONTH_NAME, _YEAR, _CLOCK), re.IGNORECASE
)
_RFC850 = re.compile(
    b"%b, %b-%b-(?P<year>[0-9]{2}) %b GMT" % (_LONG_DAY_NAME, _DAY, _MONTH_NAME, _CLOCK),
    re.IGNORECASE,
)
_ASCTIME = re.compile(
    b"%b %b (?P<day>[0-9]{2}| [0-9]) %b %b" % (_DAY_NAME, _MONTH_NAME, _CLOCK, _YEAR),
    re.IGNORECASE,
)
_FIXDATE_BYTES: Final = 29
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()


def parse_date(value: bytes, now: float) -> float | None:
    """The Unix seconds that an HTTP-date names, or None; `now` only dates two-digit years.

    The three forms of RFC 9110 §5.6.7 exactly, but for the case of names; a leap second counts
    as the second after it. Two field lines, joined, are no date.
    """
    if len(value) == _FIXDATE_BYTES and (seconds := _fixdate(value)) is not None:
        return seconds
    if match := _IMF_FIXDATE.fullmatch(value) or _ASCTIME.fullmatch(value):
        return _seconds(match, int(match["year"]))
    if match := _RFC850.fullmatch(value):
        return _seconds(match, _full_year(match, now))
    return None


@lru_cache(maxsize=256)  # an answer's Date is nearly always that of others before it
def _fixdate(value: bytes) -> float | None:
    match = _IMF_FIXDATE.fullmatch(value)
    return None if match is None else _seconds(match, int(match["year"]))


def _seconds(match: re.Match[bytes], year: int) -> float | None:
    """Unix seconds of a matched date in `year`; None for a day that its month does not have."""
    try:
        day = date(year, _MONTH_NUMBERS[match["month"].lower()], int(match["day"]))
    except ValueError:
        return None
    days = day.toordinal() - _EPOCH_ORDINAL
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    return float(((days * 24 + hour) * 60 + minute) * 60 + second)


def _full_year(match: re.Match[bytes], now: float) -> int:
    """The last year with these two digits in which the date is not over 50 years ahead of `now`.

    RFC 9110 §5.6.7. Moments are compared by their parts, since 29 February may not exist.
    """
    today = datetime.fromtimestamp(now, UTC)
    latest = (today.year + 50, today.month, today.day, today.hour, today.minute, today.second)
    month = _MONTH_NUMBERS[match["month"].lower()]
    moment = (month, int(match["day"]), int(match["hour"]), int(match["minute"]))
    year = latest[0] - latest[0] % 100 + int(match["year"])
    return year if (year, *moment, int(match["second"])) <= latest else year - 100


def format_date(now: float) -> bytes:
    """`now` (Unix seconds) as an IMF-fixdate, cut to the second."""
    return _imf_fixdate(int(now // 1))


@lru_cache(maxsize=64)  # most callers ask for this second again
def _imf_fixdate(second: int) -> bytes:
    when = datetime.fromtimestamp(second, UTC)
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        *(_DAYS[when.weekday()], when.day, _MONTHS[when.month - 1], when.year),
        *(when.hour, when.minute, when.second),
    )


# --- entity tags (RFC 9110 §8.8.3) --------------------------------------------

# Beyond `etagc`, a space is let through, as RFC 2616 allowed it and nothing is ambiguous by it.
# There are no escapes in an entity tag: a backslash is an octet like any other.
_ENTITY_TAG = re.compile(rb'(W/)?+"([\x20\x21\x23-\x7e\x80-\xff]*+)"')
_TAG_MEMBER = re.compile(rb'(?:[^",]++|"[^"]*+"?+)++')


class AnyTag(Enum):
    """The `*` of If-Match and If-None-Match: any current representation."""

    ANY = b"*"


@dataclass(frozen=True, slots=True)
class EntityTag:
    """A validator: `opaque` is what stands between the quotes, compared byte for byte."""

    opaque: bytes
    weak: bool = False

    def is_strongly(self, other: EntityTag) -> bool:
        """Strong comparison (RFC 9110 §8.8.3.2): equal, and neither weak."""
        return not self.weak and not other.weak and self.opaque == other.opaque

    def is_weakly(self, other: EntityTag) -> bool:
        """Weak comparison: equal, weak or not."""
        return self.opaque == other.opaque

    def format(self) -> bytes:
        """The tag as it stands in a field."""
        return b'%b"%b"' % (b"W/" if self.weak else b"", self.opaque)


def parse_entity_tag(value: bytes) -> EntityTag | None:
    """The one tag of an ETag or If-Range, or None; an unquoted one is none."""
    match = _ENTITY_TAG.fullmatch(value)
    return EntityTag(match[2], weak=match[1] is not None) if match else None


def parse_entity_tags(value: bytes) -> list[EntityTag] | AnyTag:
    """The tags of If-Match or If-None-Match; a member that is no tag is left out."""
    if value == b"*":
        return AnyTag.ANY
    found = (parse_entity_tag(member.strip(OWS)) for member in _TAG_MEMBER.findall(value))
    return [tag for tag in found if tag is not None]


# --- ranges (RFC 9110 §14) ----------------------------------------------------

MAX_RANGES: Final = 64  # Apache stops at 200; a viewer of PDFs asks for a dozen
_RANGE = re.compile(rb"([0-9]*+)-([0-9]*+)")


@dataclass(frozen=True, slots=True)
class RangeSpec:
    """One range asked for, in octets. Both inclusive; `first` None: the last `last` octets;
    `last` None: from `first` to the end. Never both None, and `first` is not past `last`."""

    first: int | None
    last: int | None


def parse_range(value: bytes) -> list[RangeSpec] | None:
    """The byte ranges asked for, in order; None where the field is to be ignored.

    That is for another unit, a malformed set, or more than `MAX_RANGES` (RFC 9110 §14.2 lets a
    server ignore what looks like an attack). A number too large to be real is merely large.
    """
    unit, _, ranges = value.partition(b"=")
    members = tokens(ranges)
    if unit.lower() != b"bytes" or not 0 < len(members) <= MAX_RANGES:
        return None
    specs: list[RangeSpec] = []
    for member in members:
        if (spec := _range_spec(member)) is None:
            return None
        specs.append(spec)
    return specs


def _range_spec(member: bytes) -> RangeSpec | None:
    match = _RANGE.fullmatch(member)
    if match is None or member == b"-":
        return None
    first, last = (
        _bounded(digits, _POSITION_MAX) if digits else None for digits in match.groups()
    )
    if first is not None and last is not None and first > last:
        return None
    return RangeSpec(first, last)


# --- media types (RFC 9110 §8.3) ----------------------------------------------


def parse_media_type(value: bytes) -> bytes:
    """The essence of a Content-Type, lower case (b"text/html"); b"" where there is none."""
    essence = value.partition(b";")[0].strip(OWS).lower()
    kind, _, subtype = essence.partition(b"/")
    return essence if is_token(kind) and is_token(subtype) else b""
