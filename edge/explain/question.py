"""A request that is only asked about: "what would this node do with it?"

Read strictly, because whoever mistypes a question gets an answer to another one. What can be said
on a connection may be asked, however hostile; only what could not be written as one request is
refused here: a line break in it, a URL that names no host, an address that is none.

The question is then written out as the bytes that a client would send and read by the very engine
that reads connections. So a field that a client would be refused for is refused here in the same
words, and nothing can be explained that no client could bring about.

A URL with https: this node is asked by http, by a proxy that has ended TLS. Such a proxy says so
in X-Forwarded-Proto, and is believed where it is trusted. So the field is written for one that is
trusted; for anyone else the question is taken as it would arrive, as one by http, with a note. To
refuse it was turned down: a proxy that the settings forgot to trust is what one looks for here.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edge.wire.fields import is_token
from edge.wire.h1 import ServerEngine
from edge.wire.message import RequestHead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge.guard.address import Networks
    from edge.wire.grammar import Limits
    from edge.wire.message import Pair

HERE: Final = b"127.0.0.1"  # who asks if no one is named: curl on this machine
FIELD: Final = "write it like 'Accept-Encoding: gzip'"
UNIX: Final = b"unix"

_URL: Final = re.compile(
    rb"(https?)://([^/?#]*+)(/[^?#]*+)?+(\?[^#]*+)?+(?:#.*+)?+", re.IGNORECASE | re.DOTALL
)
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]++")
_PORTS: Final = {b"http": b":80", b"https": b":443"}
_PARAMETERS: Final = ("url", "method", "field", "from")
_SHOWN: Final = 100
_DETAIL: Final = 200
_REPR: Final = re.compile(r"""\bb(['"])(.*?)\1""")  # of bytes, as the log has them
_PROTO: Final = b"x-forwarded-proto"


class QuestionRefused(ValueError):  # noqa: N818 - it is an answer
    """What cannot be asked; the text names the part, its value and the way out."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request as a client at `from_address` would make it. Raises `QuestionRefused`.

    `fields` are as written, Host too where another than the URL's is meant.
    """

    url: bytes
    method: bytes = b"GET"
    fields: tuple[Pair, ...] = ()
    from_address: bytes = HERE
    scheme: bytes = field(init=False)
    authority: bytes = field(init=False)
    target: bytes = field(init=False)

    def __post_init__(self) -> None:
        scheme, authority, target = _located(self.url)
        if not is_token(self.method):
            raise QuestionRefused(f'method: "{plain(self.method)}" is no method; write GET')
        for name, value in self.fields:
            _check_field(name, value)
        parts = {"scheme": scheme, "authority": authority, "target": target}
        for name_of_part, part in parts.items():
            object.__setattr__(self, name_of_part, part)
        object.__setattr__(self, "from_address", _address(self.from_address))

    def head(self, limits: Limits, trusted: Networks) -> RequestHead:
        """The request as the node would read it; raises `ProtocolError` as a connection does."""
        engine = ServerEngine(limits)
        engine.receive(self.written(trusted))
        return next(each for _, each in engine.messages() if isinstance(each, RequestHead))

    def written(self, trusted: Networks) -> bytes:
        """The bytes of its head; `trusted` are the networks whose word is believed."""
        names = {name.lower() for name, _ in self.fields}
        pairs = [] if b"host" in names else [(b"Host", self.authority)]
        pairs += self.fields
        if self._says_https(trusted) and _PROTO not in names:
            pairs.append((_PROTO, b"https"))
        lines = [b"%b %b HTTP/1.1" % (self.method, self.target)]
        lines += [b"%b: %b" % pair for pair in pairs]
        return b"\r\n".join([*lines, b"", b""])

    def notes(self, trusted: Networks) -> list[str]:
        """What is taken otherwise than it was asked, in words."""
        if self.scheme == b"http" or self._says_https(trusted):
            return []
        return [
            f"this node is asked by http, and {plain(self.from_address)} is not in "
            "node.trusted_proxies, so that its word that it was https would not be believed: "
            "taken as http; name a trusted proxy (--from)"
        ]

    def _says_https(self, trusted: Networks) -> bool:
        return self.scheme == b"https" and trusted.trusts(self.from_address)


def asked(query: Mapping[str, list[str]]) -> Question:
    """The question in a query: `url`, `method`, `field` (again and again), `from`.

    Raises `QuestionRefused`.
    """
    for name in query:
        if name not in _PARAMETERS:
            known = ", ".join(_PARAMETERS)
            raise QuestionRefused(f'"{plain(_octets(name))}" is unknown; there is {known}')
    return Question(
        url=_once(query, "url", b""),
        method=_once(query, "method", b"GET"),
        fields=tuple(_field(_octets(line)) for line in query.get("field", ())),
        from_address=_once(query, "from", HERE),
    )


def _once(query: Mapping[str, list[str]], name: str, otherwise: bytes) -> bytes:
    values = query.get(name, [])
    if len(values) > 1:
        raise QuestionRefused(f"{name}: is there {len(values)} times; give one")
    return _octets(values[0]) if values else otherwise


def _octets(text: str) -> bytes:
    """The bytes that were sent, which need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _field(line: bytes) -> Pair:
    name, colon, value = line.partition(b":")
    if not colon:
        raise QuestionRefused(f'field: "{plain(line)}" has no colon; {FIELD}')
    return name, value.strip(b" \t")


def _check_field(name: bytes, value: bytes) -> None:
    shown = plain(b"%b: %b" % (name, value))
    if not name or b":" in name:
        raise QuestionRefused(f'field: "{shown}" has no name that ends at its colon; {FIELD}')
    if b"\r" in name + value or b"\n" in name + value:
        raise QuestionRefused(f'field: "{shown}" has a line break; give each field by itself')


def _located(url: bytes) -> tuple[bytes, bytes, bytes]:
    """Scheme, authority and target of a URL, as a client takes it apart."""
    if not url:
        raise QuestionRefused("url: is missing; write it like http://shop.example/page")
    if _VISIBLE.fullmatch(url) is None:
        raise QuestionRefused(
            f'url: "{plain(url)}" has white space, control characters or letters beyond ASCII; '
            "percent-encode them (a space is %20)"
        )
    match = _URL.fullmatch(url)
    if match is None or not match[2]:
        raise QuestionRefused(f'url: "{plain(url)}"; write it like http://shop.example/page')
    if b"@" in match[2]:
        raise QuestionRefused(
            f'url: "{plain(url)}" has user info; leave out what stands before the @, and give it '
            "as field: Authorization"
        )
    scheme, authority = match[1].lower(), match[2]
    # As clients do: the scheme's own port is not written in Host.
    authority = authority.removesuffix(_PORTS[scheme])
    return scheme, authority, (match[3] or b"/") + (match[4] or b"")


def _address(text: bytes) -> bytes:
    """An address as a listener tells it: canonical, without port or zone."""
    if text == UNIX:
        return text
    try:
        ip = ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        ip = None
    if ip is None or b"%" in text:
        raise QuestionRefused(
            f'from: "{plain(text)}" is no address; write it like 192.0.2.7 or 2001:db8::7, '
            "without port or zone"
        )
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    return str(ip).encode("ascii")


def worded(detail: str) -> str:
    """What is wrong with a message, for people: safe to print, and bytes in plain quotes."""
    return plain(_REPR.sub(r'"\2"', detail).encode("utf-8", "surrogateescape"), _DETAIL)


def plain(value: bytes, most: int = _SHOWN) -> str:
    """Bytes for people, on one line: at most so many, and none that moves a cursor."""
    text = value[: most + 1].decode("utf-8", "backslashreplace")
    shown = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text[:most]
    )
    return shown + "…" if len(value) > most else shown
