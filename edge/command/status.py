"""What a node answers, as text for people: tables of names and values, in words and units.

`as_text` gives each value a line, for what is read through. `overview` is for what is glanced at:
a table's values follow each other on its line, and tables that are alike are rows of one.

A document may carry what came from outside (names of origins, URLs, fields): nothing of it gets
to a terminal but what can be printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

DEEPEST: Final = 16  # tables in tables; further ones are told on one line
WIDTH: Final = 100  # columns; what is wider has further lines
_UNITS: Final = ("_bytes", "_s", "_unix")
_LAST_MOMENT: Final = 253_402_300_800  # Unix seconds; later years have five digits


def ask(path: Path) -> dict[str, Any]:
    """The node's status. Raises `asking.Unreachable`, `asking.NodeRefused`."""
    from edge.command.asking import Node

    return Node(path).get("/v1/status")


def as_text(document: Mapping[str, Any]) -> str:
    """A document for a person: one value a line, tables indented, names in words."""
    return "".join(f"{line}\n" for line in _lines(document, 0))


def overview(document: Mapping[str, Any]) -> str:
    """A document at a glance: a table's values on one line, and tables that are alike as rows."""
    return "".join(f"{line}\n" for line in _glance(document, 0, ""))


def _glance(table: Mapping[str, Any], depth: int, unit: str) -> Iterator[str]:
    indent = "  " * depth
    names = _names(table)
    width = max(map(len, names.values()), default=0)
    for name, value in table.items():
        label = f"{indent}{names[name]:<{width}}  "
        rows = _alike(value)
        if rows is not None and (lines := _columns(rows, depth + 1)) is not None:
            yield label.rstrip()
            yield from lines
        elif isinstance(value, Mapping) and _is_block(value, depth):
            inner = _unit_of(name)
            yield from _wrapped(label, _pairs(value, depth + 1, inner))
            blocks = {key: each for key, each in value.items() if _is_block(each, depth + 1)}
            yield from _glance(blocks, depth + 1, inner)
        elif _is_block(value, depth):
            yield label.rstrip()
            yield from _block(value, depth + 1, _unit_of(name))
        else:
            yield label + told(_in_unit(name, unit), value)


def _in_unit(name: str, unit: str) -> str:
    """A name that says what its value is in; `unit` is its table's."""
    return name if name == "count" else f"{name}{unit}"


def _pairs(table: Mapping[str, Any], depth: int, unit: str) -> list[str]:
    """The plain values of a table, each with its name."""
    names = _names(table)
    return [
        f"{names[name]} {told(_in_unit(name, unit), value)}"
        for name, value in table.items()
        if not _is_block(value, depth)
    ]


def _wrapped(label: str, pairs: Sequence[str]) -> Iterator[str]:
    """Pairs behind a label, on as many lines as they take, below each other."""
    line = label
    for number, pair in enumerate(pairs):
        if number and len(line) + len(pair) >= WIDTH:
            yield line.rstrip()
            line = " " * len(label)
        line += f"{pair}, " if number < len(pairs) - 1 else pair
    yield line.rstrip()


def _alike(value: object) -> list[tuple[str, Mapping[str, Any]]] | None:
    """Tables under names, or in a list, that have the same names with plain values; else None."""
    if isinstance(value, Mapping):
        tables = [(words(name), each) for name, each in value.items()]
    elif isinstance(value, list):
        tables = [("", each) for each in value]
    else:
        return None
    if not tables or not all(isinstance(each, Mapping) and each for _, each in tables):
        return None
    shape = list(tables[0][1])
    is_alike = all(
        list(each) == shape and not any(_is_block(inner, 0) for inner in each.values())
        for _, each in tables
    )
    return tables if is_alike else None


def _columns(rows: Sequence[tuple[str, Mapping[str, Any]]], depth: int) -> list[str] | None:
    """Tables that are alike as rows below their names; None where they are too wide."""
    head = ["", *_names(rows[0][1]).values()]
    cells = [[name, *(told(key, each) for key, each in table.items())] for name, table in rows]
    if not any(name for name, _ in rows):
        head, cells = head[1:], [line[1:] for line in cells]
    lines = [head, *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if 2 * depth + sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        return None
    return [
        "  " * depth
        + "  ".join(
            f"{cell:<{width}}" if not at else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _lines(table: Mapping[str, Any], depth: int, unit: str = "") -> Iterator[str]:
    """A table's lines; `unit` is what its numbers are in where their own names do not say."""
    indent = "  " * depth
    names = _names(table)
    plain = {name for name, value in table.items() if not _is_block(value, depth)}
    width = max((len(names[name]) for name in plain), default=0)
    for name, value in table.items():
        if name in plain:
            yield f"{indent}{names[name]:<{width}}  {told(_in_unit(name, unit), value)}"
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


_KINDS: Final = {"_bytes": "size", "_s": "time", "_unix": "moment", "": "rows"}


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
    if name.endswith("_unix") and 0 <= value < _LAST_MOMENT:
        return f"{datetime.fromtimestamp(int(value), UTC):%Y-%m-%dT%H:%M:%SZ}"
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
