"""What a node answers, as text for people: tables of names and values, in words and units.

A document may carry what came from outside (names of origins, URLs, fields): nothing of it gets
to a terminal but what can be printed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

DEEPEST: Final = 16  # tables in tables; further ones are told on one line


def ask(path: Path) -> dict[str, Any]:
    """The node's status. Raises `edge.asking.Unreachable`, `edge.asking.NodeRefused`."""
    from edge.asking import Node

    return Node(path).get("/v1/status")


def as_text(document: Mapping[str, Any]) -> str:
    """A document for a person: one value a line, tables indented, names in words."""
    return "".join(f"{line}\n" for line in _lines(document, 0))


def _lines(table: Mapping[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    plain = {name for name, value in table.items() if not _is_block(value, depth)}
    width = max((len(words(name)) for name in plain), default=0)
    for name, value in table.items():
        if name in plain:
            yield f"{indent}{words(name):<{width}}  {told(name, value)}"
        else:
            yield f"{indent}{words(name)}"
            yield from _block(value, depth + 1)


def _is_block(value: object, depth: int) -> bool:
    """Whether a value has lines of its own: a table, a list of tables, or one of sentences."""
    if depth >= DEEPEST:
        return False
    if isinstance(value, list):
        return any(isinstance(each, Mapping) or " " in str(each) for each in value)
    return isinstance(value, Mapping)


def _block(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _lines(value, depth)
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
    for unit in ("_bytes", "_s"):
        name = name.removesuffix(unit) if name.endswith(unit) and name != unit else name
    return clean(name.replace("_", " "))


def told(name: str, value: object) -> str:
    """A value in the unit that its name ends in."""
    if value is None:
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
        return f"{value:.3f} s".replace(".000", "")
    return ""


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
