"""How one value is written in a settings file: its kind, its unit, and the way out of a mistake.

A kind reads a TOML value into the value that the program uses and writes it back; reading what it
wrote gives the same value. Times become float seconds, sizes int bytes. Numbers of a unit are
strings, so that no reader has to guess the unit: a bare 5 is refused with the text to write.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_S = 86_400.0
YEARS_10_S = 3_650 * DAY_S
KIB = 1024
MIB = KIB**2
GIB = KIB**3
TIB = KIB**4

_TEXT_LIMIT = 4_096
# The number of digits is bounded so that int() and Decimal() are, too.
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,3})?)(B|KiB|MiB|GiB|TiB)")
_NEARLY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)[ _]*([A-Za-z]{0,12})")
_SECONDS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3_600),
    "d": Decimal(86_400),
}
_BYTES = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_DURATION_WORDS = (
    ("ms", ("ms", "msec", "msecs", "milli", "millis", "millisecond", "milliseconds")),
    ("s", ("", "s", "sec", "secs", "second", "seconds")),
    ("m", ("m", "min", "mins", "minute", "minutes")),
    ("h", ("h", "hr", "hrs", "hour", "hours")),
    ("d", ("d", "day", "days")),
)
_SIZE_WORDS = (
    ("B", ("", "b", "byte", "bytes")),
    ("KiB", ("k", "kb", "kib")),
    ("MiB", ("m", "mb", "mib")),
    ("GiB", ("g", "gb", "gib")),
    ("TiB", ("t", "tb", "tib")),
)


class UnfitError(Exception):
    """A value that is not of its kind; the text completes the sentence that begins with it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to write a value. `read` raises `UnfitError`; `write` gives a TOML value."""

    name: str
    read: Callable[[object], Any]
    write: Callable[[Any], str | int | float | bool]


def of_text(name: str, read: Callable[[str], Any], write: Callable[[Any], str] = str) -> Kind:
    """A kind that is written as a string; `read` gets printable text and raises `UnfitError`."""
    return Kind(name, lambda raw: read(_text(raw)), write)


def parse_duration(text: str) -> float | None:
    """Seconds for "250ms", "10s", "5m", "1h" or "1d"; None for anything else."""
    found = _DURATION.fullmatch(text)
    return float(Decimal(found[1]) * _SECONDS[found[2]]) if found else None


def format_duration(seconds: float) -> str:
    """The text of the largest unit that gives a whole number, else milliseconds in decimals."""
    exact = Decimal(repr(float(seconds)))
    for unit in ("d", "h", "m", "s"):
        if exact and exact % _SECONDS[unit] == 0:
            return f"{int(exact / _SECONDS[unit])}{unit}"
    if not exact:
        return "0s"
    digits = f"{exact / _SECONDS['ms']:f}"
    return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + "ms"


def parse_size(text: str) -> int | None:
    """Bytes for "512B", "64KiB", "1.5GiB"; None for anything else, and for parts of a byte."""
    found = _SIZE.fullmatch(text)
    if not found:
        return None
    exact = Decimal(found[1]) * _BYTES[found[2]]
    return int(exact) if exact == int(exact) else None


def format_size(size: int) -> str:
    """The text of the largest unit that gives a whole number."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def _nearest(raw: object, words: tuple[tuple[str, tuple[str, ...]], ...], example: str) -> str:
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return example
    found = _NEARLY.fullmatch(str(raw)[:64].strip(" "))
    for unit, spellings in words if found else ():
        if found and found[2].lower() in spellings:
            return found[1] + unit
    return example


def _read_duration(raw: object) -> float:
    value = parse_duration(raw) if isinstance(raw, str) else None
    if value is None:
        raise UnfitError(f'is not a duration; try "{_nearest(raw, _DURATION_WORDS, "10s")}"')
    return value


def _read_size(raw: object) -> int:
    value = parse_size(raw) if isinstance(raw, str) else None
    if value is None:
        raise UnfitError(f'is not a size; try "{_nearest(raw, _SIZE_WORDS, "64KiB")}"')
    return value


def _read_count(raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise UnfitError("is not a whole number; write it without quotes or unit")
    return raw


def _read_number(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise UnfitError("is not a number; write it without quotes")
    if not -1e15 < raw < 1e15:  # also what is infinite or not a number
        raise UnfitError("is not a number that can be used here")
    return float(raw)


def _read_switch(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise UnfitError("is neither true nor false; write one of them without quotes")
    return raw


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise UnfitError("is not text; put it between double quotes")
    if not raw:
        raise UnfitError("is empty; leave the setting out for its default")
    if len(raw) > _TEXT_LIMIT:
        raise UnfitError(f"is too long; at most {_TEXT_LIMIT} characters")
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in raw):
        raise UnfitError("holds a control character; take it out")
    return raw


def choice(options: tuple[str, ...]) -> Kind:
    """One of a few words."""
    listed = " or ".join(f'"{option}"' for option in options)

    def read(raw: object) -> str:
        if isinstance(raw, str) and raw in options:
            return raw
        near = difflib.get_close_matches(str(raw)[:64], options, n=1) if raw else []
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise UnfitError(f"is not a choice here; write {listed}{hint}")

    return Kind(listed, read, str)


DURATION = Kind("duration", _read_duration, format_duration)
SIZE = Kind("size", _read_size, format_size)
COUNT = Kind("count", _read_count, int)
NUMBER = Kind("number", _read_number, float)
SWITCH = Kind("true or false", _read_switch, bool)
TEXT = of_text("text", str)
PATH = of_text("path", Path)
