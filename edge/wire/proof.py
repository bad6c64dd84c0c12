"""The proof by which an edge shows a shield who it is, and for whom it speaks: one field.

    Edge-Proof: v=1, edge=fra1, t=1764500000.123456, id="ab12-3", for="203.0.113.9", scheme=https,
        origins="us eu", key=:base64:, target=:base64:, order=1, mac=:base64:

Theory of operation
-------------------
- *What is proven.* `mac` is HMAC-SHA256 over a list, each member with its length: the method, the
  authority and the target of the request line, everything that stands before `mac`, and the
  fields that a shield passes on for the edge (`hop.vouched_for`). So no claim can be altered,
  added or left out, and none can be moved to another request.
- *What is not.* Other fields and the body: what stands between edge and shield may alter these,
  as it may alter answers. Whoever does not trust that path puts TLS on it.
- *One spelling.* There is one order of members and one way to write each. It is not read as a
  structured field, which could be written in many ways; `mac` is compared as text.
- *Judged before it is read.* Length, version and place of `mac` are looked at, then `mac` is
  computed; claims are taken apart only where it is right. So strangers cost one hash, and no
  claim of theirs reaches a parser.
- *Time.* A proof counts for `skew_s` before and after the shield's time. `t` is in microseconds,
  so that a request that is sent again, dressed anew, has another proof.
- *The authority* is compared without a default port: whether :80 or :443 is one hangs on the
  scheme, and between edge and shield that is another than the client's. Where the client's
  authority ends in one of the two, `host` says it.

- *Orders.* What the edge's operator has ordered, or someone whom the edge lets purge, says so by
  `order`. A method does not: clients use the same.

Whether a proof was seen before is not asked here: see `mark`.

*Refusals.* A shield that believes no proof answers 403 as it would to anyone. To an edge's client
that would say something of what it asked for, and it has to be told apart from an origin's 403
that comes through a shield. Both end in the shield's own member of Cache-Status, whatever an
origin has put before that, and only a refusal's has the reason for its `detail`.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hmac import compare_digest, digest
from typing import TYPE_CHECKING, Final

from edge.errors import ExchangeError, Failure
from edge.wire.hop import vouched_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.wire.message import RequestHead, ResponseHead

FIELD: Final = b"edge-proof"
REFUSALS: Final = {
    failure.slug.encode("ascii"): failure
    for failure in (
        Failure.NO_PROOF,
        Failure.BAD_PROOF,
        Failure.PROOF_EXPIRED,
        Failure.PROOF_USED,
        Failure.NOT_FROM_HERE,
    )
}
MOST_BYTES: Final = 16_384  # of a field; a target of 8 KiB takes 11 of them
SECRET_BYTES: Final = 16  # the least; 32 random ones are as good as any
MOST_ORIGINS: Final = 32
MOST_HOPS: Final = 33  # those of `guard.address`, and the edge's peer

_VERSION: Final = b"v=1, "
_MAC: Final = b", mac=:"
_MAC_BYTES: Final = len(_MAC) + 44 + 1
_CONTEXT: Final = b"edge-proof 1"
DEFAULT_PORTS: Final = (b":80", b":443")

_EDGE: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}+"
_ID: Final = rb"[0-9A-Za-z._-]{1,128}+"
_ADDRESS: Final = rb"[0-9A-Za-z.:%_-]{1,128}+"
_HOST: Final = rb"[0-9A-Za-z.:_\[\]%~!$&'()*+,;=-]{1,512}+"
_NAME: Final = rb"[0-9A-Za-z_-]{1,64}+"
_BASE64: Final = rb"[0-9A-Za-z+/]++={0,2}+"
_TARGET: Final = re.compile(rb"\*|/[\x21-\x7e]{0,8191}+")
_KEY_BYTES: Final = 1024
_TIME: Final = rb"[0-9]{1,11}+\.[0-9]{6}+"

_COVERED: Final = re.compile(
    rb"v=1, edge=(?P<edge>%b), t=(?P<t>%b), id=\"(?P<id>%b)\", for=\"(?P<hops>%b(?: %b){0,32}+)\""
    rb", scheme=(?P<scheme>https?+)(?:, host=\"(?P<host>%b)\")?+"
    rb"(?:, origins=\"(?P<origins>%b(?: %b){0,31}+)\")?+"
    rb"(?:, key=:(?P<key>%b):)?+(?:, target=:(?P<target>%b):)?+(?:, order=(?P<order>1))?+"
    % (_EDGE, _TIME, _ID, _ADDRESS, _ADDRESS, _HOST, _NAME, _NAME, _BASE64, _BASE64)
)


class ProofError(ExchangeError):
    """A request that does not come from an edge, as far as it shows: its failure says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What an edge says of a request that it sends on.

    `edge` is its name, a token; `id` is the request's, as in the edge's log. `hops` are addresses,
    the client's first, and the last is whoever connected to the edge (`unix`: by a UNIX socket).
    `scheme` is that of the client's request, and `host` its authority where the request between
    the two has another. `origins` are names of origins in the order the edge would have them
    asked. `key` is what the edge keys by beside the URL. `target` is what the origin is to be
    asked for, where that is not what the client asked for. `order` says that the edge itself
    orders a purge.
    """

    edge: bytes
    id: bytes
    hops: tuple[bytes, ...]
    scheme: bytes
    host: bytes | None = None
    origins: tuple[bytes, ...] = ()
    key: bytes = b""
    target: bytes | None = None
    order: bool = False

    @property
    def client(self) -> bytes:
        """The client's address."""
        return self.hops[0]


def sign(secret: bytes, head: RequestHead, claims: Claims, now: float) -> bytes:
    """The value of the field that proves `claims` for `head`, which goes out at `now`.

    `head` is as it will be sent, but for this field. Raises ValueError for claims that cannot be
    made: of another grammar than their own, or too long.
    """
    said = _written(claims, now)
    if not _may_be_said(claims) or _COVERED.fullmatch(said) is None:
        raise ValueError(f"an edge cannot claim this: {claims}")
    value = said + _MAC + _mac(secret, _proven(head, said)) + b":"
    if len(value) > MOST_BYTES:
        raise ValueError(f"claims of {len(value)} bytes; at most {MOST_BYTES}")
    return value


def verify(secrets: Sequence[bytes], head: RequestHead, now: float, skew_s: float) -> Claims:
    """What an edge that has one of `secrets` claims of `head`, at `now` or about then.

    Raises `ProofError` where there is no proof, or another one than it should be.
    """
    value = _value(head)
    said, mac = value[:-_MAC_BYTES], value[-_MAC_BYTES:]
    if not mac.startswith(_MAC) or mac[-1:] != b":":
        raise ProofError(Failure.BAD_PROOF, "it does not end in a mac")
    told, proven = mac[len(_MAC) : -1], _proven(head, said)
    right = [compare_digest(_mac(secret, proven), told) for secret in secrets]
    if True not in right:  # all have been compared: how long it took tells nothing
        raise ProofError(Failure.BAD_PROOF, "its mac is that of no secret, or another request")
    found = _COVERED.fullmatch(said)
    if found is None:
        raise ProofError(Failure.BAD_PROOF, "its claims cannot be read")
    off_s = float(found["t"]) - now
    if abs(off_s) > skew_s:
        raise ProofError(Failure.PROOF_EXPIRED, f"its time is {off_s:+.1f} s off")
    claims = _claims(found)
    if claims is None:
        raise ProofError(Failure.BAD_PROOF, "its claims cannot be used")
    return claims


def mark(head: RequestHead) -> bytes:
    """What tells the proof of `head`, which has been verified, from every other: 44 bytes."""
    return (head.headers.get(FIELD) or b"")[-45:-1]


def refusal(head: ResponseHead) -> Failure | None:
    """Why a shield has refused what `head` answers; None where it has not."""
    if head.status != 403:
        return None
    own = (head.headers.joined(b"cache-status") or b"").rpartition(b",")[2]
    _, mark, why = own.partition(b"; detail=")
    return REFUSALS.get(why) if mark else None


def _value(head: RequestHead) -> bytes:
    values = head.headers.all(FIELD)
    if len(values) != 1:
        failure = Failure.BAD_PROOF if values else Failure.NO_PROOF
        raise ProofError(failure, f"{len(values)} fields" if values else "")
    if len(values[0]) > MOST_BYTES:
        raise ProofError(Failure.BAD_PROOF, f"{len(values[0])} bytes are too many")
    if not values[0].startswith(_VERSION):
        raise ProofError(Failure.BAD_PROOF, "its version is unknown")
    return values[0]


def _mac(secret: bytes, proven: bytes) -> bytes:
    return b64encode(digest(secret, proven, "sha256"))


def _proven(head: RequestHead, said: bytes) -> bytes:
    """All that a mac is over, each part with its length: no two lists of parts are one text."""
    parts = [_CONTEXT, head.method, _bare(head.authority), head.target, said]
    for pair in vouched_for(head.headers):
        parts += pair
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def _bare(authority: bytes) -> bytes:
    """An authority without a port that may be a default one."""
    host, colon, port = authority.rpartition(b":")
    return host if colon + port in DEFAULT_PORTS else authority


def _written(claims: Claims, now: float) -> bytes:
    """Everything before the mac."""
    said = b'v=1, edge=%b, t=%.6f, id="%b", for="%b", scheme=%b' % (
        claims.edge,
        now,
        claims.id,
        b" ".join(claims.hops),
        claims.scheme,
    )
    if claims.host is not None:
        said += b', host="%b"' % claims.host
    if claims.origins:
        said += b', origins="%b"' % b" ".join(claims.origins)
    if claims.key:
        said += b", key=:%b:" % b64encode(claims.key)
    if claims.target is not None:
        said += b", target=:%b:" % b64encode(claims.target)
    if claims.order:
        said += b", order=1"
    return said


def _may_be_said(claims: Claims) -> bool:
    """Whether what is claimed keeps to its bounds, as far as `_COVERED` does not see to it."""
    if b" " in b"".join((*claims.hops, *claims.origins)) or len(claims.key) > _KEY_BYTES:
        return False
    return claims.target is None or _TARGET.fullmatch(claims.target) is not None


def _claims(found: re.Match[bytes]) -> Claims | None:
    """What was said, as `_COVERED` has matched it; None where some of it is not as it may be."""
    key, target = (_decoded(found[name]) for name in ("key", "target"))
    if target is not None and _TARGET.fullmatch(target) is None:
        return None
    if key is not None and not 0 < len(key) <= _KEY_BYTES:
        return None
    return Claims(
        edge=found["edge"],
        id=found["id"],
        hops=tuple(found["hops"].split(b" ")),
        scheme=found["scheme"],
        host=found["host"],
        origins=tuple(found["origins"].split(b" ")) if found["origins"] else (),
        key=key or b"",
        target=target,
        order=found["order"] is not None,
    )


def _decoded(text: bytes | None) -> bytes | None:
    """What base64 stands for; b"" where it is none, or not as it is written here."""
    if text is None:
        return None
    try:
        octets = b64decode(text, validate=True)
    except ValueError:
        return b""
    return octets if b64encode(octets) == text else b""
