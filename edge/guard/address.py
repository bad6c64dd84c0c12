"""Which hop is the real client: the nearest one that no trusted proxy vouches for.

A connection's peer is a fact; everything else is hearsay. `X-Forwarded-For` and `Forwarded`
(RFC 7239) are chains to which each proxy adds who spoke to it, so they are read from the right
and only while the speaker is in a trusted network. The walk ends at the first address that is not
trusted, or at one that cannot be read (`unknown`, `_hidden`, junk): then the last address that
could be read is the client, since nothing behind it is known.

Most proxies keep one of the two fields and pass the other on as the client wrote it. Where both
are there and do not tell the same client, one of them is forged and it cannot be told which, so
neither is believed. That hides a forger behind its proxy's address, which is safe; believing the
wrong field would let it be anyone.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from edge.wire.fields import tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge.wire.message import Headers

HOPS: Final = 32  # more than any real chain; what is further left is not looked at
UNIX: Final = b"unix"
FORWARDING_FIELDS: Final = (b"x-forwarded-for", b"forwarded")

_Ip: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_WITH_PORT = re.compile(rb"([0-9.]{7,15})(?::[0-9]{1,5})?")
_BRACKETED = re.compile(rb"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?")
_BARE_V6 = re.compile(rb"[0-9A-Fa-f:.]{2,45}")
_PAIR = re.compile(rb'(?:[^";]++|"(?:[^"\\]++|\\.?+)*+"?+)++', re.DOTALL)
_FOR = re.compile(rb'for=(?:"(?P<quoted>[^"\\]*)"|(?P<plain>[^\s;,"]+))', re.IGNORECASE)


def parse_ip(text: bytes) -> _Ip | None:
    """An address in any of the forms that proxies write, port dropped; None for anything else.

    An IPv4 address mapped into IPv6, as a dual-stack listener shows it, is the IPv4 address.
    """
    found = _WITH_PORT.fullmatch(text) or _BRACKETED.fullmatch(text)
    bare = found[1] if found else text if _BARE_V6.fullmatch(text) else None
    if bare is None:
        return None
    try:
        ip = ipaddress.ip_address(bare.decode("ascii"))
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


@dataclass(frozen=True, slots=True)
class Networks:
    """A set of networks: one set of prefixes for each length that occurs."""

    prefixes: tuple[tuple[int, int, frozenset[int]], ...] = ()  # (version, shift, prefixes)
    unix: bool = False

    @classmethod
    def parse(cls, networks: Iterable[str]) -> Networks:
        """Networks from "10.0.0.0/8", "::1" or "unix". Raises `ValueError`."""
        table: dict[tuple[int, int], set[int]] = {}
        unix = False
        for text in networks:
            if text == "unix":
                unix = True
                continue
            network = ipaddress.ip_network(text)
            shift = network.max_prefixlen - network.prefixlen
            prefix = int(network.network_address) >> shift
            table.setdefault((network.version, shift), set()).add(prefix)
        rows = ((version, shift, frozenset(found)) for (version, shift), found in table.items())
        return cls(tuple(rows), unix)

    def __bool__(self) -> bool:
        return self.unix or bool(self.prefixes)

    def __contains__(self, ip: object) -> bool:
        if not isinstance(ip, ipaddress.IPv4Address | ipaddress.IPv6Address):
            return False
        value = int(ip)
        return any(
            version == ip.version and value >> shift in prefixes
            for version, shift, prefixes in self.prefixes
        )

    def trusts(self, peer: bytes) -> bool:
        """Whether a connection's peer is in these networks; a UNIX socket's peer is `unix`."""
        if not self:
            return False
        return self.unix if peer in (b"", UNIX) else parse_ip(peer.partition(b"%")[0]) in self


def client_address(peer: bytes, chain: Sequence[bytes]) -> bytes:
    """The client's address by `believed_chain`, else the peer's: canonical, no port and no zone;
    `unix` for a UNIX socket's peer."""
    return chain[0] if chain else _plain(peer)


def certain_client(peer: bytes, headers: Headers, trusted: Networks) -> bytes | None:
    """The client's address where it is beyond doubt, for what only some may do; else None.

    A trusted peer that passes on what cannot be believed speaks for a client that nobody knows:
    its own address is not that client's.
    """
    chain = believed_chain(peer, headers, trusted)
    client = client_address(peer, chain)
    if not trusted.trusts(peer) or not trusted.trusts(client):
        return client
    told = [_told(headers, name) for name in FORWARDING_FIELDS if name in headers]
    is_clear = all(None not in hops and len(hops) < HOPS for hops in told)
    return client if is_clear and (chain or not told) else None


@lru_cache(maxsize=1024)  # a client asks more than once, and reading an address takes 8 µs
def _plain(peer: bytes) -> bytes:
    ip = parse_ip(peer.partition(b"%")[0])
    return str(ip).encode("ascii") if ip else peer or UNIX


def believed_chain(peer: bytes, headers: Headers, trusted: Networks) -> tuple[bytes, ...]:
    """The addresses that a trusted peer vouches for, the client's first; else ()."""
    if not trusted.trusts(peer):
        return ()
    told = [_walk(_told(headers, name), trusted) for name in FORWARDING_FIELDS if name in headers]
    return told[0] if told and all(chain[:1] == told[0][:1] for chain in told) else ()


def _walk(hops: Sequence[_Ip | None], trusted: Networks) -> tuple[bytes, ...]:
    """The hops that are believed, of a chain that begins at its right end; turned round."""
    believed: list[bytes] = []
    for hop in hops:
        if hop is None:
            break
        believed.append(str(hop).encode("ascii"))
        if hop not in trusted:
            break
    return tuple(reversed(believed))


def _told(headers: Headers, name: bytes) -> list[_Ip | None]:
    return _hops(headers.all(name), forwarded=name == b"forwarded")


def _hops(lines: Sequence[bytes], *, forwarded: bool) -> list[_Ip | None]:
    """The chain from its right end, at most `HOPS`; None for a hop that cannot be read."""
    hops: list[_Ip | None] = []
    for line in reversed(lines[-HOPS:]):
        # X-Forwarded-For knows no quoting: a quote there is one more thing that is no address.
        members = tokens(line) if forwarded else line.rsplit(b",", HOPS)
        for member in reversed(members):
            text = _for_of(member) if forwarded else member.strip(b" \t")
            hops.append(parse_ip(text))
            if len(hops) == HOPS:
                return hops
    return hops


def _for_of(element: bytes) -> bytes:
    """The node of a forwarded-element's one `for`, else b"" (RFC 7239 §4, §6)."""
    # A Host that a proxy quotes here is its client's own word, and may spell a `for`.
    pairs = _PAIR.findall(element) if b'"' in element else element.split(b";")
    found = [match for pair in pairs if (match := _FOR.fullmatch(pair.strip(b" \t")))]
    return (found[0]["quoted"] or found[0]["plain"] or b"") if len(found) == 1 else b""
