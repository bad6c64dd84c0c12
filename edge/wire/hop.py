"""What changes at each hop: Connection, Via, Forwarded, CDN-Loop, and what no one may smuggle in.

Three kinds of fields, three treatments:

**For one connection only** (RFC 9110 §7.6.1): `HOP_BY_HOP`, and whatever Connection nominates,
stop here, both ways, before anything is stored or forwarded. With one exception, `PROTECTED`: a
sender that nominates Host, Cache-Control or Authorization does not describe its connection; it
wants us to drop a field on which framing, access or caching rests, after having judged by it.
§7.6.1 forbids nominating such fields, so the nomination is void and the field stays.

**Claims about the path so far** (`CLAIMS`: X-Forwarded-Host, X-Original-URL, True-Client-IP,
method overrides, forged geography …): origins obey them, keys do not hold them, so each would be a
way to have another answer stored under this key. They are dropped, whoever sends them.
Four are then written anew from what is known here: Forwarded, X-Forwarded-For, -Host and -Proto.
Host and scheme are those in the key. Trust in a proxy before us enters in two places only, both
the caller's: `Forwarding.chain` (by `guard.address`) and the scheme (by `claimed_scheme`).
CGI-like origins read `_` and `-` in a name as one, so a name that spells one of these fields with
an underscore goes as well; others with an underscore travel on, as applications use them.

**Traces** (Via, CDN-Loop): each hop adds a member and removes none. `loops` finds our own.

What this file does not do: decide whether a sender is trusted (`guard.address`), whether a loop or
a Max-Forwards of 0 ends the exchange (`serving.exchange`), or frame a message (`engine`).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from edge.wire.fields import OWS, is_token, parse_delta, tokens
from edge.wire.message import Headers, Pair, RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Mapping

HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings "
    b"proxy-authenticate proxy-authentication-info proxy-authorization".split()
)

PROTECTED: Final = frozenset(
    b"host content-length content-type content-encoding content-language content-range "
    b"content-location content-disposition "
    b"authorization www-authenticate cookie set-cookie origin location "
    b"cache-control cdn-cache-control surrogate-control pragma expires age date vary "
    b"cache-status cache-tag cache-groups cache-group-invalidation surrogate-key xkey "
    b"etag last-modified if-match if-none-match if-modified-since if-unmodified-since "
    b"range if-range accept-ranges accept accept-charset accept-encoding accept-language "
    b"via cdn-loop forwarded x-forwarded-for x-forwarded-host x-forwarded-proto "
    b"expect max-forwards user-agent referer".split()
)

CLAIMS: Final = frozenset(
    b"host forwarded x-forwarded forwarded-for x-host x-http-host-override x-original-host "
    b"x-original-url x-original-uri x-rewrite-url x-url-scheme x-scheme front-end-https "
    b"x-http-method x-http-method-override x-method-override surrogate-capability proxy "
    b"x-real-ip true-client-ip client-ip x-client-ip x-cluster-client-ip proxy-client-ip "
    b"wl-proxy-client-ip x-remote-ip x-remote-addr x-originating-ip x-azure-clientip "
    b"x-azure-socketip x-appengine-user-ip cf-connecting-ip cf-connecting-ipv6 fastly-client-ip "
    b"cf-ipcountry x-appengine-country x-country-code x-geoip-country edge-proof".split()
)
_CLAIM_PREFIXES: Final = (b"x-forwarded-", b"x-geo-", b"cloudfront-viewer-")

# What `to_origin` writes from more than the key: an answer that varies on one of these was made
# for one client's path, and no field of a later request can select it: as good as `Vary: *`.
PER_PATH: Final = frozenset({b"forwarded", b"x-forwarded-for", b"via", b"cdn-loop", b"edge-proof"})

# Claims that say what an edge found out for the origin: an edge that is proven vouches for them.
# The others are written anew behind it, too, or nobody has a use for them; and what stands between
# two nodes may add to X-Forwarded-*.
_VOUCHED_FOR: Final = CLAIMS - {b"host", b"forwarded", b"x-forwarded", b"proxy", b"edge-proof"}
_VOUCHED_PREFIXES: Final = (b"x-geo-", b"cloudfront-viewer-")

# Answered or rewritten by every hop itself; `to_origin` leaves these out, then adds its own.
_REMADE: Final = frozenset({b"via", b"cdn-loop", b"expect"})


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What an origin is told about the hop before it.

    `name` is this node's pseudonym, a token. `peer` is the address of whoever connected, no port
    (b"": unknown). `scheme` and `host` are those in the key. `chain` holds the addresses that a
    trusted `peer` vouches for, the client's first; it is empty where `peer` is not trusted.
    `vouched` are claims that pass on: this node's own, or those of someone who is known.
    """

    name: bytes
    peer: bytes
    scheme: bytes
    host: bytes
    chain: tuple[bytes, ...] = ()
    vouched: tuple[Pair, ...] = ()


_NOMINATING_NOTHING: Final = frozenset({b"keep-alive", b"Keep-Alive"})  # but what goes anyway


def end_to_end(headers: Headers) -> Headers:
    """`headers` without those meant for one connection (RFC 9110 §7.6.1)."""
    if HOP_BY_HOP.isdisjoint([name for name, _ in headers.pairs]):
        return headers  # without a Connection, nothing is nominated
    return headers.without(_for_one_hop(headers))


def _for_one_hop(headers: Headers) -> frozenset[bytes]:
    names = HOP_BY_HOP
    for value in headers.all(b"connection"):
        if value not in _NOMINATING_NOTHING:
            # Cut at every comma: there are no quoted strings here for one to hide in.
            names |= {option.strip(OWS).lower() for option in value.split(b",")} - PROTECTED
    return names


# --- towards the origin -------------------------------------------------------


def to_origin(
    head: RequestHead, forwarding: Forwarding, *, upgrade: bytes | None = None
) -> RequestHead:
    """`head` as it goes to the origin: scrubbed, and with this hop's own fields behind.

    `upgrade` (from `upgrade_offered`) asks for another protocol on the origin's connection. Expect
    goes, since the body is asked for here; Max-Forwards is counted down where it applies.
    """
    kept = [pair for pair in end_to_end(head.headers) if not _is_remade(pair[0])]
    headers = Headers(kept).plus(
        *forwarding.vouched, *_traces(head, forwarding.name), *_provenance(forwarding)
    )
    if hops := hops_left(head):
        headers = headers.replaced(b"max-forwards", b"%d" % (hops - 1))
    if upgrade is not None:
        headers = headers.plus(*_upgrade_fields(upgrade))
    return RequestHead(
        head.method, head.scheme, head.authority, head.target, headers, head.version
    )


def vouched_for(headers: Headers) -> tuple[Pair, ...]:
    """The claims among `headers` that pass on where an edge is known to have made them."""
    pairs = headers.pairs  # a list, as a generator costs twice as much
    return tuple([p for p in pairs if p[0] in _VOUCHED_FOR or p[0].startswith(_VOUCHED_PREFIXES)])


def _is_remade(name: bytes) -> bool:
    """Whether a client's field of this name stops here, or is written anew."""
    if b"_" in name:
        dashed = name.replace(b"_", b"-")
        return is_claim(dashed) or dashed in PROTECTED or dashed in HOP_BY_HOP
    return name in _REMADE or is_claim(name)


def is_claim(name: bytes) -> bool:
    """Whether a field of this name (lower case) says of its client what nobody has found out."""
    return name in CLAIMS or name.startswith(_CLAIM_PREFIXES)


def _traces(head: RequestHead, name: bytes) -> tuple[Pair, Pair]:
    """Via (RFC 9110 §7.6.3) and CDN-Loop (RFC 8586) with one more member each."""
    via = _appended(head.headers, b"via", b"%b %b" % (head.version, name))
    return (b"via", via), (b"cdn-loop", _appended(head.headers, b"cdn-loop", name))


def _appended(headers: Headers, name: bytes, member: bytes) -> bytes:
    """The lines of a list field joined to one, with `member` at its end."""
    return b", ".join([*filter(None, headers.all(name)), member])


def _provenance(forwarding: Forwarding) -> list[Pair]:
    """Forwarded (RFC 7239) and its three older kin."""
    hops = [address.partition(b"%")[0] for address in (*forwarding.chain, forwarding.peer)]
    elements = [b"for=" + _node(hop) for hop in hops]
    elements[-1] += b";proto=" + forwarding.scheme
    fields = [
        (b"x-forwarded-for", b", ".join(hop or b"unknown" for hop in hops)),
        (b"x-forwarded-proto", forwarding.scheme),
    ]
    if forwarding.host:
        elements[-1] += b";host=" + _quoted(forwarding.host)
        fields.append((b"x-forwarded-host", forwarding.host))
    return [(b"forwarded", b", ".join(elements)), *fields]


def _node(address: bytes) -> bytes:
    """A node of RFC 7239 §6: IPv6 addresses in brackets, and therefore quoted."""
    return b'"[%b]"' % address if b":" in address else address or b"unknown"


def _quoted(value: bytes) -> bytes:
    """`value`, which holds neither quotes nor backslashes, as a token or quoted string."""
    return value if is_token(value) else b'"%b"' % value


def hops_left(head: RequestHead) -> int | None:
    """Max-Forwards where it counts (RFC 9110 §7.6.2), else None; at 0 the request ends here."""
    if head.method not in (b"OPTIONS", b"TRACE"):
        return None
    return parse_delta(head.headers.joined(b"max-forwards") or b"")


# --- upgrades -----------------------------------------------------------------

# HTTP over the upgraded connection would carry requests past everything that judges requests
# (`h2c` smuggling); TLS would hide them. Both are for one hop, and this is not that hop.
_OWN_PROTOCOLS: Final = frozenset({b"h2c", b"h2", b"h3", b"http", b"tls"})


def upgrade_offered(head: RequestHead) -> bytes | None:
    """The protocols of Upgrade that may be offered on to the origin, or None (RFC 9110 §7.8)."""
    if head.headers.get(b"upgrade") is None:
        return None
    options = tokens((head.headers.joined(b"connection") or b"").lower())
    if head.version != b"1.1" or b"upgrade" not in options:
        return None
    protocols = tokens(head.headers.joined(b"upgrade") or b"")
    foreign = [p for p in protocols if p.partition(b"/")[0].lower() not in _OWN_PROTOCOLS]
    return b", ".join(foreign) or None


def _upgrade_fields(protocols: bytes) -> tuple[Pair, Pair]:
    return (b"connection", b"upgrade"), (b"upgrade", protocols)


# --- towards the client -------------------------------------------------------

_NOTHING: Final[Mapping[bytes, bytes]] = MappingProxyType({})


def to_client(
    head: ResponseHead,
    name: bytes,
    drop: frozenset[bytes] = frozenset(),
    put: Mapping[bytes, bytes] = _NOTHING,
) -> ResponseHead:
    """`head` as it goes to a client: end-to-end fields less those the site will not show
    (`drop`: lower-case names), Via with `name` added, then `put` in place of all that have its
    names; a 101 keeps its Upgrade."""
    via = _appended(head.headers, b"via", b"%b %b" % (head.version, name))
    own = {b"via": via, **put}
    names = _for_one_hop(head.headers) | drop | own.keys()
    pairs = [pair for pair in head.headers.pairs if pair[0] not in names]
    pairs += own.items()
    if head.status == 101 and (protocols := head.headers.joined(b"upgrade")):
        pairs += _upgrade_fields(protocols)
    return ResponseHead(head.status, Headers(pairs), head.reason, head.version)


# --- what earlier hops say ----------------------------------------------------

_TRACES: Final = frozenset({b"via", b"cdn-loop"})


def loops(headers: Headers, name: bytes) -> int:
    """How often this request has passed a node of our `name`, by CDN-Loop and Via.

    The two are two views of one path, so the larger count is the answer, not the sum.
    """
    if _TRACES.isdisjoint([field for field, _ in headers.pairs]):
        return 0
    own = name.lower()
    passed = tokens((headers.joined(b"cdn-loop") or b"").lower())
    through = tokens((headers.joined(b"via") or b"").lower())
    by_loop = sum(member.partition(b";")[0].rstrip(OWS) == own for member in passed)
    by_via = sum(member.split(None, 2)[1:2] == [own] for member in through)
    return max(by_loop, by_via)


def claimed_scheme(headers: Headers) -> bytes | None:
    """The scheme in X-Forwarded-Proto where it is one, b"http" or b"https", and said once.

    Worth as much as the sender. It belongs in the key, as the request's scheme, if believed.
    """
    scheme = (headers.joined(b"x-forwarded-proto") or b"").lower()
    return scheme if scheme in (b"http", b"https") else None
