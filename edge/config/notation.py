"""How the edge's own values are written in its settings: addresses, hosts, networks, patterns.

Each is a `Kind`: it refuses what is not of it with the text to write instead, and what it gives
is canonical (hosts and field names in lower case), so that two spellings of one thing are equal.
"""

from __future__ import annotations

import ipaddress
import re

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Iterator  # noqa: TC003
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from edge.routing.rewrite import NOT_TO_CLIENT
from edge.settings import Complaint, Kind, UnfitError, of_text, setting
from edge.settings.kinds import DAY_S, DURATION, YEARS_10_S
from edge.upstream.origin import parse_origin
from edge.wire.hop import is_claim

if TYPE_CHECKING:
    from edge.settings.schema import Setting

NOT_HERE: Final = "this version does not have it yet"
MOST_WORKERS: Final = 256
CONTINENTS: Final = ("AF", "AN", "AS", "EU", "NA", "OC", "SA")
SOCKET_PATH_BYTES: Final = 100  # sun_path holds 107; a new socket is made beside the old (admin)

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[A-Za-z0-9.-]{1,253}))?:(?P<port>[0-9]{1,5})")  # fmt: skip # noqa: E501
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
_BRACKETED = re.compile(r"\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]")
_DIGITS = re.compile(r"[0-9.]+")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")  # RFC 9110 §5.6.2
_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_PARAMETER = re.compile(r"[!\"$%'()+,./0-9:;<>?@A-Z\[\\\]^_`a-z{|}~-]{0,256}\*?")
_PREFIX = re.compile(r"/[\x21\x22\x24-\x29\x2b-\x3e\x40-\x7e]{0,1023}")  # the same without `*`
_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]{0,1023}")
_PATTERN = re.compile(r"[\x20-\x7e]{1,1024}")
_COOKIE_PATH = re.compile(r"/[\x21-\x3a\x3c-\x7e]{0,1023}")  # RFC 6265 §4.1.1: no `;`
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MEDIA_TYPE = re.compile(r"(?:[A-Za-z0-9!#$&^_.+-]{1,64}|\*)/(?:[A-Za-z0-9!#$&^_.+*-]{1,64})")
_REDIRECT = re.compile(r"(?:https?://[A-Za-z0-9._:\[\]-]{1,255})?/(?!/)[\x21-\x7e]{0,1023}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_GLOB = re.compile(r"[/*][\x21-\x22\x24-\x3e\x40-\x7e]{0,1023}")  # no space, `#` or `?`


class Address(NamedTuple):
    """Where to listen: an address without brackets or a name, and a port; port 0 is any free."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def overlaps(self, other: Address) -> bool:
        """Whether both cannot be listened on: they are one, or one is all of the other's kind."""
        if self.port != other.port or (":" in self.host) != (":" in other.host):
            return False
        return self.host == other.host or not {self.host, other.host}.isdisjoint(_ALL)


_ALL = ("0.0.0.0", "::")


def parse_address(text: str) -> Address:
    """The address of "127.0.0.1:8080", "[::]:80" or "localhost:80". Raises `UnfitError`."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise UnfitError('is not an address to listen on; write it like "127.0.0.1:8080"')
    if found["host"] is None and found["v6"] is None:
        raise UnfitError(f'names no address; for all of them write "0.0.0.0:{found["port"]}"')
    if int(found["port"]) > 65_535:
        raise UnfitError("has no such port; use 0 to 65535")
    return Address(_checked_ip(found["v6"] or found["host"].lower()), int(found["port"]))


def _checked_ip(host: str) -> str:
    """A host as it is, or canonical where it is an IP address or would be one."""
    if ":" not in host and not _DIGITS.fullmatch(host):
        return host
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise UnfitError("holds no IP address; write it like 127.0.0.1 or [::1]") from None


def _read_server(text: str) -> str:
    try:
        parse_origin(text)
    except ValueError as error:
        raise UnfitError(str(error).removeprefix(f'"{text}"').lstrip(": ")) from None
    return text


def _read_network(text: str) -> str:
    if text == "unix":
        return text
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        wide = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UnfitError('is not a network; write it like "10.0.0.0/8", or "unix"') from None
    raise UnfitError(f'has bits behind its prefix; write "{wide}"')


def _read_host(text: str) -> str:
    if text == "*":
        return text
    if bracketed := _BRACKETED.fullmatch(text):
        return f"[{_checked_ip(bracketed[1])}]"
    if ":" in text or "/" in text:
        raise UnfitError("is not a host name; leave scheme and port out")
    if not _HOST.fullmatch(text) or ".." in text:
        raise UnfitError('is not a host name; write "shop.example", "*.shop.example" or "*"')
    return _checked_ip(text.lower())


def _read_host_field(text: str) -> str:
    found = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+)(:[0-9]{1,5})?", text)
    if found is None or "*" in text:
        raise UnfitError('is not a host; write "origin.example" or "origin.example:8080"')
    return _read_host(found[1]) + (found[2] or "")


def _read_token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise UnfitError("is not a name; use letters, digits and - without spaces")
    return text


def _read_field_name(text: str) -> str:
    name = _read_token(text).lower()
    if name.encode() in NOT_TO_CLIENT:
        raise UnfitError("is a field that the node sets itself; leave it out")
    return name


def _read_client_field(text: str) -> str:
    name = _read_token(text).lower()
    if is_claim(name.replace("_", "-").encode("ascii")):  # CGI-like origins read both as one
        way_out = 'for places write country = ["DE"] in match, or key.place; for hosts, site.hosts'
        raise UnfitError(f"is what clients claim of themselves, and is not believed; {way_out}")
    return name


def _read_field_value(text: str) -> str:
    if not _FIELD_VALUE.fullmatch(text):
        raise UnfitError("is not a field value; use ASCII without spaces around it")
    return text


def _read_parameter(text: str) -> str:
    if not _PARAMETER.fullmatch(text):
        raise UnfitError('is not a parameter; write its name, or a beginning like "utm_*"')
    return text


def _read_glob(text: str) -> str:
    if not _GLOB.fullmatch(text):
        raise UnfitError('is not a path pattern; write it like "/static/*", without a query')
    return text


def _read_prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise UnfitError('is not the beginning of a path; write it like "/v2"')
    return text.rstrip("/") or "/"


def _read_target(text: str) -> str:
    if not _TARGET.fullmatch(text):
        raise UnfitError('is not a path to ask for; write it like "/healthz"')
    return text


def _read_pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise UnfitError("is not a pattern; use ASCII, `*` for any text")
    return text


def _read_cookie_path(text: str) -> str:
    if not _COOKIE_PATH.fullmatch(text):
        raise UnfitError('is not the Path of a cookie; write it like "/"')
    return text


def _read_label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise UnfitError("is not a name; use letters, digits, - and _")
    return text


def _read_code(text: str, example: str) -> str:
    if not (len(text) == 2 and text.isascii() and text.isalpha()):
        raise UnfitError(f'is not a code of two letters; write it like "{example}"')
    return text.upper()


def _read_continent(text: str) -> str:
    code = _read_code(text, "EU")
    if code not in CONTINENTS:
        raise UnfitError(f"is not a continent; there are {', '.join(CONTINENTS)}")
    return code


def _read_media_type(text: str) -> str:
    if not _MEDIA_TYPE.fullmatch(text):
        raise UnfitError('is not a media type; write it like "image/*" or "text/html"')
    return text.lower()


def _read_redirect_target(text: str) -> str:
    if not _REDIRECT.fullmatch(text) or "\\" in text or "#" in text or "?" in text:
        raise UnfitError('is not where to go; write it like "/new/*" or "https://b.example/*"')
    return text


def _read_redirect_status(raw: object) -> int:
    if isinstance(raw, bool) or raw not in (301, 302, 303, 307, 308):
        raise UnfitError("is not the status of a redirect; use 301, 302, 303, 307 or 308")
    return int(str(raw))


def _read_socket(text: str) -> Path:
    if len(text.encode("utf-8", "surrogateescape")) > SOCKET_PATH_BYTES:
        raise UnfitError(f"is too long for a socket; at most {SOCKET_PATH_BYTES} bytes")
    return Path(text)


def _read_variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise UnfitError('is not the name of a variable; write it like "EDGE_SECRET"')
    return text


def _read_workers(raw: object) -> int:
    """How many; 0 stands for as many as there are cores."""
    if raw == "auto":
        return 0
    if isinstance(raw, bool) or not isinstance(raw, int) or not 1 <= raw <= MOST_WORKERS:
        raise UnfitError(f'is no number of workers; write "auto", or 1 to {MOST_WORKERS}')
    return raw


def _written_workers(workers: int) -> str | int:
    return workers or "auto"


ADDRESS = of_text("address:port", parse_address)
SERVER = of_text("http:// or https:// URL", _read_server)
NETWORK = of_text('network, or "unix"', _read_network)
HOST = of_text("host name", _read_host)
HOST_FIELD = of_text("host, with or without port", _read_host_field)
TOKEN = of_text("name", _read_token)
METHOD = of_text("method", _read_token)
COOKIE_NAME = of_text("cookie name", _read_token)
FIELD_NAME = of_text("field name", _read_field_name)
KEYED_FIELD = of_text("field name", lambda text: _read_token(text).lower())
CLIENT_FIELD = of_text("field name", _read_client_field)
FIELD_VALUE = of_text("field value", _read_field_value)
PARAMETER = of_text("parameter name, `*` ends a beginning", _read_parameter)
GLOB = of_text("path pattern", _read_glob)
PATH_PREFIX = of_text("beginning of a path", _read_prefix)
TARGET = of_text("path", _read_target)
PATTERN = of_text("pattern", _read_pattern)
COOKIE_PATH = of_text("path", _read_cookie_path)
LABEL = of_text("name", _read_label)
COUNTRY = of_text("country code", lambda text: _read_code(text, "DE"))
CONTINENT = of_text("continent code", _read_continent)
MEDIA_TYPE = of_text("media type", _read_media_type)
REDIRECT_TARGET = of_text("path or URL", _read_redirect_target)
REDIRECT_STATUS = Kind("301, 302, 303, 307 or 308", _read_redirect_status, int)
VARIABLE = of_text("name of an environment variable", _read_variable)
LOG = of_text('path, "-" or "off"', str)
SOCKET = of_text("path", _read_socket)
WORKERS = Kind(f'"auto", or 1 to {MOST_WORKERS}', _read_workers, _written_workers)


def span(says: str, **rest: Any) -> dict[str, Setting]:
    """The declaration of a duration that may be nothing."""
    return setting(says, DURATION, least=0.0, most=YEARS_10_S, **rest)


def wait(says: str, **rest: Any) -> dict[str, Setting]:
    """The declaration of a deadline: never nothing, since then nothing could be done in time."""
    return setting(says, DURATION, least=0.001, most=30 * DAY_S, **rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSettings:
    """Where a secret stands: `{ env = "NAME" }` or `{ file = "PATH" }`, and never here.

    Files of settings are copied, printed and committed. `edge.secret` reads what is named.
    """

    hidden: ClassVar[bool] = True  # who writes one here all the same does not see it in a log

    env: str | None = field(
        default=None, metadata=setting("An environment variable of the node.", VARIABLE)
    )
    file: Path | None = field(
        default=None, metadata=setting("A file that only the node's user may read.")
    )

    def check(self) -> Iterator[Complaint]:
        """Neither or both of the two."""
        if (self.env is None) == (self.file is None):
            yield Complaint((), None, 'write { env = "NAME" } or { file = "PATH" }')
