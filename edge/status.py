"""What a node answers, as text for people: tables of names and values, in words and units.

A document may carry what came from outside (names of origins, URLs, fields): nothing of it gets
to a terminal but what can be printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

DEEPEST: Final = 16  # tables in tables; further ones are told on one line
_UNITS: Final = ("_bytes", "_s")


def ask(path: Path) -> dict[str, Any]:
    """The node's status. Raises `edge.asking.Unreachable`, `edge.asking.NodeRefused`."""
    from edge.asking import Node

    return Node(path).get("/v1/status")


def as_text(document: Mapping[str, Any]) -> str:
    """A document for a person: one value a line, tables indented, names in words."""
    return "".join(f"{line}\n" for line in _lines(document, 0))


def _lines(table: Mapping[str, Any], depth: int, unit: str = "") -> Iterator[str]:
    """A table's lines; `unit` is what its numbers are in where their own names do not say."""
    indent = "  " * depth
    names = _names(table)
    plain = {name for name, value in table.items() if not _is_block(value, depth)}
    width = max((len(names[name]) for name in plain), default=0)
    for name, value in table.items():
        if name in plain:
            in_unit = name if name == "count" else f"{name}{unit}"
            yield f"{indent}{names[name]:<{width}}  {told(in_unit, value)}"
        else:
            yield f"{indent}{names[name]}"
            yield from _block(value, depth + 1, _unit_of(name))


def _names(table: Mapping[str, Any]) -> dict[str, str]:
    """Every name in words; those that differ in nothing but their unit are told apart."""
    taken = Counter(map(words, table))
    return {
        name: words(name) if taken[words(name)] == 1 else f"{words(name)} {_KINDS[_unit_of(name)]}"
        for name in table
    }


_KINDS: Final = {"_bytes": "size", "_s": "time", "": "rows"}


def _unit_of(name: str) -> str:
    return next((unit for unit in _UNITS if name.endswith(unit) and name != unit), "")


def _is_block(value: object, depth: int) -> bool:
    """Whether a value has lines of its own: a table, a list of tables, or one of sentences."""
    if depth >= DEEPEST or not value:
        return False
    if isinstance(value, list):
        return any(isinstance(each, Mapping) or " " in str(each) for each in value)
    return isinstance(value, Mapping)


def _block(value: Any, depth: int, unit: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _lines(value, depth, unit)
        return
    indent = "  " * depth
    for each in value:
        if isinstance(each, Mapping):
            first, *rest = [*_lines(each, depth + 1)] or [""]
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        else:
            yield f"{indent}{told('', each)}"


def words(name: str) -> str:
    """A name in words, without its unit, which its value has."""
    return clean(name.removesuffix(_unit_of(name)).replace("_", " "))


def told(name: str, value: object) -> str:
    """A value in the unit that its name ends in; `-` where there is none."""
    if value is None or value in ("", [], {}, ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(name, float(value)) or str(value)
    return clean(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _number(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_ratio"):
        return f"{value:.1%}"
    if name.endswith("_s"):
        return seconds(value)
    return ""


def seconds(value: float) -> str:
    """A time in seconds, or in milliseconds where it is short."""
    if 0 < abs(value) < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3f} s".replace(".000", "")


def size(count: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def clean(text: str) -> str:
    """Text that cannot move a terminal's cursor: some of it comes from outside."""
    return "".join(c if c.isprintable() else "?" for c in text)
