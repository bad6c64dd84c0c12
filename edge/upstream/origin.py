"""What is known and wished about one origin server: where it is, and how long it may take."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, Final

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+))"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _says(sentence: str, unit: str = "") -> dict[str, Any]:
    return {"says": sentence, "unit": unit}


@dataclass(frozen=True, slots=True)
class Origin:
    """One origin server's place and the bounds on talking to it; times in seconds."""

    scheme: str = field(metadata=_says("http or https"))
    host: str = field(metadata=_says("name or address, without brackets"))
    port: int = field(metadata=_says("TCP port"))
    ca: str | None = field(
        default=None,
        metadata=_says("PEM file of the authorities to trust in place of the system's", "path"),
    )
    connect_s: float = field(
        default=5.0,
        metadata=_says(
            "longest wait for a connection to come free, and again for a new one to be made "
            "(name, TCP and TLS together)",
            "seconds",
        ),
    )
    first_byte_s: float = field(
        default=30.0,
        metadata=_says("longest wait for the response's head once the request is sent", "seconds"),
    )
    between_bytes_s: float = field(
        default=30.0,
        metadata=_says("longest standstill while a body is received or sent", "seconds"),
    )
    total_s: float = field(
        default=3600.0,
        metadata=_says("longest that one request may take, body included", "seconds"),
    )
    idle_s: float = field(
        default=60.0,
        metadata=_says("how long an unused connection is kept for the next request", "seconds"),
    )
    life_s: float = field(
        default=3600.0,
        metadata=_says(
            "how old a connection may grow, so that a change of address is followed", "seconds"
        ),
    )
    max_connections: int = field(
        default=256, metadata=_says("connections at once; further requests wait in order")
    )
    max_idle: int = field(default=64, metadata=_says("unused connections kept at once"))

    @property
    def authority(self) -> bytes:
        """The Host that names this server, its scheme's default port left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port == _DEFAULT_PORTS[self.scheme]:
            return host.encode("ascii")
        return f"{host}:{self.port}".encode("ascii")

    @property
    def url(self) -> str:
        """What names this server to people, always with its port: `http://eu-1.example:80`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_origin(url: str) -> Origin:
    """The origin that `url` names, with default bounds: `https://eu-1.example:8443`.

    Raises `ValueError` with a sentence for the operator.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f'"{url}" is not an origin; write it like "http://127.0.0.1:3000"')
    scheme = match["scheme"]
    port = int(match["port"] or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise ValueError(f'"{url}": {port} is not a port; use 1 to 65535')
    if match["v6"] is None:
        return Origin(scheme, match["host"].lower(), port)
    try:
        return Origin(scheme, str(ipaddress.IPv6Address(match["v6"])), port)
    except ValueError:
        raise ValueError(f'"{url}": [{match["v6"]}] is not an IPv6 address') from None
