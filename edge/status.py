"""`edge status`: what a node answers on its admin socket, asked for and told to a person."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

ASK_S = 10.0
REPLY_BYTES = 16 * 1024 * 1024


class _UnixConnection(http.client.HTTPConnection):
    """The standard library's client over a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ASK_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket in place of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ASK_S)
        self.sock.connect(str(self._path))


def ask(path: Path) -> dict[str, Any]:
    """The node's status. Raises OSError where no one answers, ValueError at a strange answer."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/v1/status", headers={"connection": "close"})
        reply = connection.getresponse()
        document = json.loads(reply.read(REPLY_BYTES))
    except http.client.HTTPException as error:
        raise ValueError(f"this is no admin socket ({error})") from error
    finally:
        connection.close()
    if reply.status != 200 or not isinstance(document, dict):
        raise ValueError(f"the node answered {reply.status}")
    return document


def as_text(document: Mapping[str, Any]) -> str:
    """The status for a person: one value a line, tables indented, names in words."""
    return "".join(f"{line}\n" for line in _lines(document, ""))


def _lines(table: Mapping[str, Any], indent: str) -> Iterator[str]:
    width = max((len(_words(name)) for name in table), default=0)
    for name, value in table.items():
        words = _words(name)
        if isinstance(value, Mapping):
            yield f"{indent}{words}"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{words:<{width}}  {_told(name, value)}"


def _words(name: str) -> str:
    for unit in ("_bytes", "_s"):
        name = name.removesuffix(unit) if name.endswith(unit) and name != unit else name
    return _clean(name.replace("_", " "))


def _told(name: str, value: object) -> str:
    if value is None:
        return "-"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and name.endswith("_bytes"):
        return _size(float(str(value)))
    if number and name.endswith("_ratio"):
        return f"{float(str(value)):.1%}"
    if number and name.endswith("_s"):
        return f"{float(str(value)):.3f} s".replace(".000", "")
    return _clean(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _clean(text: str) -> str:
    """Text that cannot move a terminal's cursor: some names come from outside."""
    return "".join(c if c.isprintable() else "?" for c in text)
