"""The hostile messages of this folder as bytes, for whoever sends them."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_REPEATED = re.compile(rb"\{\{(.*?)\*([0-9]+)\}\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sends, and what it may be answered."""

    name: str
    family: str
    raw: bytes
    status: tuple[int, ...]
    closes: bool
    ends: bool


@dataclass(frozen=True, slots=True)
class Response:
    """What an origin sends, and what becomes of it."""

    name: str
    family: str
    raw: bytes
    method: bytes
    failure: str
    body: bytes
    reusable: bool
    ends: bool


def requests() -> list[Request]:
    """Every hostile request, and the benign ones beside them."""
    return [
        Request(
            case["name"],
            case["family"],
            _bytes(case["raw"]),
            tuple(case["status"]),
            case["closes"],
            case.get("ends", False),
        )
        for case in _load("hostile_requests.toml")["request"]
    ]


def responses() -> list[Response]:
    """Every hostile response, and the benign ones beside them."""
    return [
        Response(
            case["name"],
            case["family"],
            _bytes(case["raw"]),
            case.get("method", "GET").encode(),
            case["failure"],
            case.get("body", "").encode("latin-1"),
            case["reusable"],
            case["ends"],
        )
        for case in _load("hostile_responses.toml")["response"]
    ]


def _load(name: str) -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))


def _bytes(text: str) -> bytes:
    return _REPEATED.sub(lambda found: found[1] * int(found[2]), text.encode("latin-1"))
