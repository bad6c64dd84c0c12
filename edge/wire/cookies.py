"""Cookies: the ones a request brings, and the Set-Cookie that gives one (RFC 6265, 6265bis).

Two ways of reading, for two purposes. `parse_cookies` is strict, a line whole or not at all: for
keys by cookies, where a client that can make us and the origin read different values out of one
line could choose what others are served. `values_of` finds one cookie as browsers and servers do
(RFC 6265bis §5.7, §5.8: pairs are cut at semicolons, whatever else is in them), so that what some
script has written beside it (`g_state={"i_l":0}`) hides no session from a rule and costs no
visitor their arm. What is decided by it goes into the key by itself.

Of the lifetime only Max-Age is written. It wins over Expires wherever both are known (RFC 6265
§5.3), every browser of the last decade knows it, and it needs no clock, neither ours nor theirs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from edge.wire.fields import is_token

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from edge.wire.message import Headers

# RFC 6265 §4.1.1 cookie-octet: no controls, white space, double quote, comma, semicolon, backslash
_OCTETS: Final = rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*+"
_PAIR: Final = (
    rb"[ \t]*+[!#$%%&'*+\-.^_`|~0-9A-Za-z]++=(?:\"%b\"|%b)[ \t]*+" % (_OCTETS, _OCTETS)
)  # fmt: skip
_LINE = re.compile(rb"%b(?:;%b)*+" % (_PAIR, _PAIR))
_PARTS = re.compile(rb"([^=; \t]++)=([^; \t]*+)")  # of a line that is whole

# --- what a request brings ----------------------------------------------------


def parse_cookies(lines: Iterable[bytes]) -> list[tuple[bytes, bytes]] | None:
    """The cookies of all `Cookie` lines, in order; None where one breaks RFC 6265 §4.2.1.

    Values keep their double quotes.
    """
    found: list[tuple[bytes, bytes]] = []
    for line in lines:
        if _LINE.fullmatch(line) is None:
            return None
        found += _PARTS.findall(line)
    return found


def values_of(headers: Headers, name: bytes) -> list[bytes]:
    """Every value of one cookie, in order, whatever the others look like; quotes are kept.

    A name that no line holds is told without reading them.
    """
    lines = headers.all(b"cookie")
    for line in lines:
        if name in line:
            break
    else:
        return []
    found = _named(name).findall(b";" + b";".join(lines))
    return [value.rstrip(b" \t") for value in found]


@lru_cache(maxsize=256)  # the names are the sites'
def _named(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb";[ \t]*+%b=([^;]*+)" % re.escape(name))


def without_cookies(headers: Headers, names: Collection[bytes]) -> Headers:
    """`headers` less the cookies of these names, and less a Cookie that is empty then.

    As they are where a line cannot be read strictly: nobody knows what else would be taken out.
    """
    lines = headers.all(b"cookie")
    if not any(name in line for line in lines for name in names):
        return headers
    cookies = parse_cookies(lines)
    if cookies is None:
        return headers
    kept = [b"%b=%b" % pair for pair in cookies if pair[0] not in names]
    if len(kept) == len(cookies):
        return headers
    if not kept:
        return headers.without((b"cookie",))
    return headers.replaced(b"cookie", b"; ".join(kept))


# --- Set-Cookie ---------------------------------------------------------------

VALUE_BYTES: Final = 1024  # 6265bis §5.6: of an attribute; a name and value may have 4096
LONGEST_S: Final = 400 * 86_400  # 6265bis §5.5: browsers keep no cookie longer
_SAME_SITE: Final = frozenset({b"Strict", b"Lax", b"None"})
_VALUE = re.compile(_OCTETS)
_PATH = re.compile(
    rb"/[\x21-\x3a\x3c-\x7e]*+"
)  # 6265bis §4.1.1 path-value, less the space: no ";"
_DOMAIN = re.compile(rb"[a-z0-9_-]++(?:\.[a-z0-9_-]++)++")


@dataclass(frozen=True, slots=True)
class CookieTerms:
    """How a cookie is given.

    `ttl_s` is its lifetime in seconds (None: as long as the browser is open); `domain` b"" is the
    host alone; `secure` None is as the request came: Secure over TLS.
    """

    name: bytes
    ttl_s: float | None = 30 * 86_400
    path: bytes = b"/"
    domain: bytes = b""
    same_site: bytes = b"Lax"
    http_only: bool = True
    secure: bool | None = None

    def check(self) -> Iterator[tuple[str, str]]:
        """What a browser would refuse or cut: the attribute's name, and words for the operator."""
        name = _shown(self.name)
        if not is_token(self.name) or len(self.name) > VALUE_BYTES:
            yield "name", f"{name} is no cookie's name; use letters, digits, - and _"
        if self.ttl_s is not None and not 1 <= self.ttl_s <= LONGEST_S:
            yield "ttl", f"{self.ttl_s:g} s is not kept by browsers; use 1 s to 400 days"
        if not _PATH.fullmatch(self.path) or len(self.path) > VALUE_BYTES:
            yield "path", f'{_shown(self.path)} is no path; begin it with "/", without ";"'
        if self.domain and not (_DOMAIN.fullmatch(self.domain) and len(self.domain) <= 253):
            words = 'is no domain; write it like "shop.example", in lower case, or leave it out'
            yield "domain", f"{_shown(self.domain)} {words}"
        if self.same_site not in _SAME_SITE:
            yield "same_site", f"{_shown(self.same_site)} is unknown; use Strict, Lax or None"
        yield from self._check_promises()

    def _check_promises(self) -> Iterator[tuple[str, str]]:
        """What browsers demand of SameSite=None, and of a name's prefix (6265bis §4.1.3)."""
        if self.same_site == b"None" and not self.secure:
            yield "secure", 'browsers drop SameSite=None without Secure; set secure = "always"'
        prefix = self.name[:9].lower()  # §5.7: compared without case
        if prefix.startswith((b"__secure-", b"__host-")) and not self.secure:
            yield "secure", f'{_shown(self.name)} demands Secure; set secure = "always"'
        if prefix.startswith(b"__host-"):
            if self.domain:
                yield "domain", f"{_shown(self.name)} may have no domain; leave it out"
            if self.path != b"/":
                yield "path", f'{_shown(self.name)} must have the path "/"'

    def given(self, value: bytes, scheme: bytes) -> bytes:
        """The Set-Cookie that gives `value` over `scheme`, both as they are checked."""
        line = b"%b=%b" % (self.name, value)
        if self.ttl_s is not None:
            line += b"; Max-Age=%d" % self.ttl_s
        line += b"; Path=" + self.path
        if self.domain:
            line += b"; Domain=" + self.domain
        if self.secure or (self.secure is None and scheme == b"https"):
            line += b"; Secure"
        if self.http_only:
            line += b"; HttpOnly"
        return line + b"; SameSite=" + self.same_site


def is_cookie_value(value: bytes) -> bool:
    """Whether `value` can be given as it stands (RFC 6265 §4.1.1), without quotes."""
    return _VALUE.fullmatch(value) is not None


def _shown(value: bytes) -> str:
    return '"' + value[:64].decode("latin-1").encode("unicode_escape").decode("ascii") + '"'
