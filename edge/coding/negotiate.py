"""Which content coding a client is sent (RFC 9110 §12.5.3).

`acceptance` reads an Accept-Encoding, `ranked` puts a site's codings into the order in which this
client may be given them, and `choose` takes the first that is at hand. All are memoised: clients
send some dozens of different values, and every hit asks.

Weights decide, the site's order breaks ties. What is listed comes before what is merely not
refused, so an unlisted `identity` comes last; a client that sends no Accept-Encoding at all takes
anything by the letter of §12.5.3, but those that do so are scripts that decode nothing: identity
comes first for them, and a coded form is for where nothing else can be had.

What cannot be read is taken so that nobody gets what it cannot decode: a coding whose weight is
malformed is refused, a malformed `identity` or `*` is not there, and a name that comes twice has
the least of its weights. `dcz` is meant only where it is named: `*` does not ask for a dictionary
(RFC 9842 §6.1). A value of more than `LONGEST_BYTES` is read as if it were empty.

A client may refuse everything that is there, identity too. `choose` then gives None; §12.4.1 lets
a server disregard the field rather than send a 406, and so the caller had better send what it has.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.wire.fields import OWS, tokens

if TYPE_CHECKING:
    from collections.abc import Container

LONGEST_BYTES: Final = 512  # browsers send less than 40
_MEMO_VALUES: Final = 1024  # so the memo stays under 1 MiB
_MEMO_CHOICES: Final = 4096

_WEIGHT: Final = re.compile(rb"[qQ]=(?:(0)(?:\.([0-9]{0,3}))?|(1)(?:\.0{0,3})?)")  # §12.4.2
_UNLISTED: Final = 1  # below 2, the weight of q=0.001
_FULL: Final = 2000


class Coding(StrEnum):
    """A content coding by the name that stands in fields; `identity` is the lack of one."""

    IDENTITY = "identity"
    BR = "br"
    ZSTD = "zstd"
    GZIP = "gzip"
    DCZ = "dcz"
    """Zstandard with a dictionary that the client told of (RFC 9842 §5)."""

    @property
    def token(self) -> bytes:
        """The name as it stands in a field."""
        return _TOKENS[self]


_TOKENS: Final = {coding: coding.value.encode("ascii") for coding in Coding}
_BY_TOKEN: Final = {token: coding for coding, token in _TOKENS.items()} | {b"x-gzip": Coding.GZIP}


CODED: Final = frozenset((Coding.BR, Coding.ZSTD, Coding.GZIP))
"""What is coded and decoded for any client: dcz is for those alone who have the dictionary."""


class Acceptance(NamedTuple):
    """What one Accept-Encoding says of each coding: twice the weight in thousandths.

    0 is refused; 1 is an `identity` that is neither listed nor refused. `is_silent` where there
    was no field.
    """

    identity: int
    br: int
    zstd: int
    gzip: int
    dcz: int
    is_silent: bool = False

    def weight(self, coding: Coding) -> int:
        """What is said of `coding`; 0 where it may not be sent."""
        weight: int = getattr(self, coding.value)
        return weight

    def accepts(self, coding: Coding) -> bool:
        """Whether an answer in `coding` may be sent at all."""
        return self.weight(coding) > 0


SILENT: Final = Acceptance(_FULL, _UNLISTED, _UNLISTED, _UNLISTED, 0, is_silent=True)
_NOTHING_CODED: Final = Acceptance(_UNLISTED, 0, 0, 0, 0)


def known_coding(token: bytes) -> Coding | None:
    """The coding of this name in any case, `x-gzip` being gzip (§8.4.1.3); None for others."""
    return _BY_TOKEN.get(token.lower())


def acceptance(accept_encoding: bytes | None) -> Acceptance:
    """What an Accept-Encoding allows: its lines joined by ", ", or None where there is none."""
    if accept_encoding is None:
        return SILENT
    if len(accept_encoding) > LONGEST_BYTES:
        return _NOTHING_CODED
    return _read(accept_encoding)


@lru_cache(_MEMO_CHOICES)
def ranked(accepted: Acceptance, order: tuple[Coding, ...]) -> tuple[Coding, ...]:
    """All of `order`, and identity, that a client accepts: what it had best be sent comes first.

    `order` is the site's, which decides between equal weights; identity is behind it unless it
    stands in it.
    """
    candidates = (*order, *(() if Coding.IDENTITY in order else (Coding.IDENTITY,)))
    found = [coding for coding in dict.fromkeys(candidates) if accepted.accepts(coding)]
    return tuple(sorted(found, key=accepted.weight, reverse=True))


def choose(
    accepted: Acceptance, order: tuple[Coding, ...], available: Container[Coding]
) -> Coding | None:
    """The best of what is `available`, or can be made; None where a client refuses all of it.

    Whatever stands neither in the site's `order` nor is identity is never chosen.
    """
    for coding in ranked(accepted, order):
        if coding in available:
            return coding
    return None


@lru_cache(_MEMO_VALUES)
def _read(value: bytes) -> Acceptance:
    told: dict[bytes, int] = {}
    for member in tokens(value):
        name, semicolon, parameters = member.partition(b";")
        name = name.rstrip(OWS).lower()
        weight = _weight(parameters.strip(OWS)) if semicolon else _FULL
        if weight is None:
            if name in (b"*", b"identity"):
                continue
            weight = 0
        if (coding := _BY_TOKEN.get(name)) is not None:
            name = coding.token
        told[name] = min(weight, told.get(name, _FULL))
    rest = told.get(b"*")
    coded = rest or 0
    return Acceptance(
        identity=told.get(b"identity", _UNLISTED if rest is None else rest),
        br=told.get(b"br", coded),
        zstd=told.get(b"zstd", coded),
        gzip=told.get(b"gzip", coded),
        dcz=told.get(b"dcz", 0),
    )


def _weight(parameter: bytes) -> int | None:
    """Twice the thousandths that a weight says; None where it is none."""
    match = _WEIGHT.fullmatch(parameter)
    if match is None:
        return None
    return _FULL if match[1] is None else 2 * int((match[2] or b"").ljust(3, b"0"))
