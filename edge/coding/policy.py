"""Where compression pays, and how much of it: what a site says of it, and the judgement of a head.

Nothing is coded that is a part or has no body, that must not be transformed, that is too small to
gain or too large to be paid for, or of a type that does not shrink. What the origin signed is
passed on as it is (RFC 9421: the signature may cover the tag). An event stream is left alone too:
it would hold an encoder for as long as a client stays.

**How large a body is** counts as its origin announced it, in the Content-Length of the head that
is judged: what came without one may be of any size, however short it turns out to be (nginx's
gzip_min_length goes by that field alone, too). So the judgement is the same for the first client,
who is answered before the end has come, and for all after it, for HEAD and for parts, before and
after a restart, in every worker: one stored answer has one representation in each coding, and no
client sees it change to another and back. What the first client was promised holds for all, and so
what has no announced length is kept coded however little it shrinks (`is_sized`). What its origin
coded has none, as nobody told how long it was before; but where it is too large even so, it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, assert_never

from edge.coding.negotiate import CODED, Coding, known_coding
from edge.routing.site import TypeMatch
from edge.wire.fields import parse_media_type, tokens

if TYPE_CHECKING:
    from edge.wire.message import Headers, ResponseHead

KIB: Final = 1024
MIB: Final = 1024 * KIB

# What compresses well in practice: as the lists of nginx, Apache's h5bp and large CDNs have it.
DEFAULT_TYPES: Final = (
    b"text/*", b"*+json", b"*+xml", b"*+text", b"application/json", b"application/javascript",
    b"application/x-javascript", b"application/ecmascript", b"application/xml",
    b"application/x-ndjson", b"application/wasm", b"application/graphql", b"application/rtf",
    b"application/vnd.ms-fontobject", b"application/x-font-ttf", b"application/x-font-opentype",
    b"font/ttf", b"font/otf", b"font/collection", b"font/sfnt", b"image/bmp",
    b"image/vnd.microsoft.icon", b"image/x-icon", b"model/gltf+json", b"model/obj",
)  # fmt: skip
_ENDLESS: Final = b"text/event-stream"

_STATUSES: Final = frozenset((200, 203, 300, 403, 404, 410))
_SPOKEN_FOR: Final = frozenset((b"content-range", b"signature", b"signature-input"))


@dataclass(frozen=True, slots=True)
class Levels:
    """How hard each coding tries, on its own scale: brotli 0-11, zstd 1-19, gzip 1-9."""

    br: int
    zstd: int
    gzip: int

    def of(self, coding: Coding) -> int:
        """The level of `coding`; dcz has zstd's. No level for identity: ValueError."""
        match coding:
            case Coding.BR:
                return self.br
            case Coding.ZSTD | Coding.DCZ:
                return self.zstd
            case Coding.GZIP:
                return self.gzip
            case Coding.IDENTITY:
                raise ValueError("identity has no level")
            case _:
                assert_never(coding)


# Browsers take all three alike. Coded once and sent often, text is smallest in brotli: hot, it has
# 0.68 to 0.84 of the bytes of gzip -6, where zstd has 0.71 to 0.97. On a miss zstd costs less.
DEFAULT_CODINGS: Final = (Coding.BR, Coding.ZSTD, Coding.GZIP)

# MB/s on HTML, one core: brotli 5 54, zstd 3 300, gzip 2 (isal) 500; brotli 11 1, zstd 19 3.
FIRST: Final = Levels(br=5, zstd=3, gzip=2)
HIGH: Final = Levels(br=11, zstd=19, gzip=9)


@dataclass(frozen=True, slots=True)
class CompressPolicy:
    """A site's `compress`. Sizes are in bytes of the body as it comes from the origin.

    `codings` is the order in which ties are broken. `ask` is what origins are asked for: identity,
    or whatever can be stored and decoded. An object is coded again at `high` when it had
    `recompress_after` coded hits (0: never) within `recompress_within_s`, if it has at most
    `recompress_most_bytes`; that may take `recompress_most_s` of a processor. What has more than
    `worth` of its size left when coded proves incompressible and is not kept coded. `dictionaries`
    allows dcz for clients that tell of a dictionary.
    """

    codings: tuple[Coding, ...] = DEFAULT_CODINGS
    min_bytes: int = 512
    most_bytes: int = 64 * MIB
    types: TypeMatch = field(default_factory=lambda: TypeMatch.parse(DEFAULT_TYPES))
    ask: Literal["identity", "coded"] = "identity"
    first: Levels = FIRST
    high: Levels = HIGH
    recompress_after: int = 3
    recompress_within_s: float = 300.0
    recompress_most_bytes: int = 4 * MIB
    recompress_most_s: float = 10.0
    worth: float = 0.95
    dictionaries: bool = True


class Stays(Enum):
    """Why an answer goes as it came, or as it is stored; the values are for programs."""

    STATUS = "status"
    SMALL = "small"
    LARGE = "large"
    CODED = "coded"
    """By its origin, in a coding that is not decoded here, or in several."""
    HELD = "held"
    """It says so itself (no-transform), or its fields speak of its octets."""
    TYPE = "type"
    ENDLESS = "endless"
    FORBIDDEN = "forbidden"
    """Its client says no-transform."""
    UNASKED = "unasked"
    """Of what the site codes in, its client accepts nothing, or would rather have identity."""
    ACCEPTED = "accepted"
    """Its client accepts the coding in which it came."""
    REFUSED = "refused"
    """So does its client with all that there could be: it is sent what there is."""
    UNSHRUNK = "unshrunk"
    """It was coded, and hardly smaller for it."""
    PART = "part"
    """A part of what is stored is asked for."""


def pays(head: ResponseHead, policy: CompressPolicy) -> bool:
    """Whether the body of an answer with this head is worth coding under `policy`, once it is in
    no coding."""
    return why_not(head, policy) is None


def why_not(head: ResponseHead, policy: CompressPolicy) -> Stays | None:
    """Why the body of an answer is not worth coding, see `pays`; None where it is."""
    if head.status not in _STATUSES:
        return Stays.STATUS
    headers = head.headers
    length = announced_length(headers)
    if length is not None and length < policy.min_bytes and not is_coded(headers):
        return Stays.SMALL
    if length is not None and length > policy.most_bytes:
        return Stays.LARGE
    if has_to_stay(headers):
        return Stays.HELD
    kind = headers.get(b"content-type")
    if not policy.types.takes(kind):
        return Stays.TYPE
    return Stays.ENDLESS if parse_media_type(kind or b"") == _ENDLESS else None


def announced_length(headers: Headers) -> int | None:
    """The length in bytes that an answer's own fields tell of its body; None where they do not."""
    told = headers.get(b"content-length")
    return None if told is None else int(told)  # digits: the engine has seen to it


def is_sized(headers: Headers) -> bool:
    """Whether the length of the body, in no coding, was known before it was first coded: then
    coding it may be given up where it does not shrink."""
    return origin_coding(headers) is Coding.IDENTITY and announced_length(headers) is not None


def is_worth(coded_bytes: int, plain_bytes: int, policy: CompressPolicy) -> bool:
    """Whether a coded body has shrunk enough to be kept."""
    return coded_bytes <= plain_bytes * policy.worth


def may_recompress(length: int, policy: CompressPolicy) -> bool:
    """Whether a body of `length` bytes may be coded again at high effort once it has earned it.

    Nothing is to be gained of one that is coded only because nobody knew how short it is.
    """
    is_within = policy.min_bytes <= length <= policy.recompress_most_bytes
    return policy.recompress_after > 0 and is_within


def has_to_stay(headers: Headers) -> bool:
    """Whether an answer with these fields goes as it came: it says so, or they speak of its
    octets."""
    if forbids_transform(headers):
        return True
    return not _SPOKEN_FOR.isdisjoint([name for name, _ in headers.pairs])


def forbids_transform(headers: Headers) -> bool:
    """Whether a request (RFC 9111 §5.2.1.6) or a response (§5.2.2.6) says no-transform."""
    said = headers.joined(b"cache-control")
    if said is None or b"no-transform" not in said.lower():
        return False
    return any(m.partition(b"=")[0].lower() == b"no-transform" for m in tokens(said))


def is_coded(headers: Headers) -> bool:
    """Whether an answer came in a coding that is decoded here."""
    return origin_coding(headers) in CODED


def origin_coding(headers: Headers) -> Coding | None:
    """The one coding that an answer came in; None for an unknown one, or several."""
    said = headers.joined(b"content-encoding")
    if said is None:
        return Coding.IDENTITY
    members = tokens(said)
    return known_coding(b",".join(members)) if members else Coding.IDENTITY
