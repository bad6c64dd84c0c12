"""Settings as text: back to TOML, and the reference made from the declarations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.settings.schema import (
    NONE,
    Declared,
    Setting,
    Shape,
    declared,
    kind_of,
    member_of,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def render(value: Any) -> str:
    """The TOML text that reads back as `value`: every setting, defaults too."""
    return "".join(f"{line}\n" for line in _table(value, "")).lstrip("\n")


def _table(value: Any, path: str) -> Iterator[str]:
    inner: list[tuple[Declared, Any]] = []
    for each in declared(type(value)):
        held = getattr(value, each.name)
        if held is None:
            yield f"{each.key} = {_quoted(NONE)}"
        elif _has_tables(each.hint):
            inner.append((each, held))
        else:
            yield f"{each.key} = {_inline(each.hint, each.setting, held)}"
    for each, held in inner:
        yield from _tables(each, held, f"{path}.{each.key}" if path else each.key)


def _has_tables(hint: Any) -> bool:
    shape = shape_of(hint)
    if shape in (Shape.LIST, Shape.NAMED):
        return shape == Shape.NAMED or _has_tables(member_of(hint))
    return shape == Shape.TABLE


def _tables(each: Declared, held: Any, path: str) -> Iterator[str]:
    shape = shape_of(each.hint)
    if shape == Shape.LIST:
        for member in held:
            yield from ("", f"[[{path}]]", *_table(member, path))
    elif shape == Shape.NAMED:
        yield from _named(each, held, path)
    else:
        yield from ("", f"[{path}]", *_table(held, path))


def _named(each: Declared, held: Mapping[str, Any], path: str) -> Iterator[str]:
    member = member_of(each.hint)
    if not _has_tables(member):
        yield from ("", f"[{path}]")
        for name, value in held.items():
            yield f"{_quoted(name)} = {_inline(member, each.setting, value)}"
        return
    for name, value in held.items():
        inner = f"{path}.{_quoted(name)}"
        yield from ("", f"[{inner}]", *_table(value, inner))


def _inline(hint: Any, extra: Setting, value: Any) -> str:
    if shape_of(hint) == Shape.LIST:
        return "[" + ", ".join(_inline(member_of(hint), extra, item) for item in value) + "]"
    return _scalar(kind_of(hint, extra).write(value))


def _scalar(written: str | int | float | bool) -> str:
    return _quoted(written) if isinstance(written, str) else json.dumps(written)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's, but for DEL, which JSON leaves bare."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the reference: where the setting stands, how it is written, what it does."""

    path: str
    kind: str
    default: str
    says: str


def reference(schema: type, path: str = "", around: frozenset[str] = frozenset()) -> Iterator[Row]:
    """Every setting of a schema in order; an inherited table is told once."""
    for each in declared(schema):
        inner = f"{path}.{each.key}" if path else each.key
        if each.setting.inherits and each.key in around:
            yield Row(inner, f"as [{each.key}]", "inherited", each.setting.says)
        else:
            yield from _rows(each, inner, around)
        if each.setting.inherits:
            around |= {each.key}


def _rows(each: Declared, path: str, around: frozenset[str]) -> Iterator[Row]:
    shape = shape_of(each.hint)
    if not _has_tables(each.hint):
        yield Row(path, _kind_words(each), _default_words(each), each.setting.says)
    elif shape == Shape.TABLE:
        yield from reference(each.hint, path, around)
    elif shape == Shape.LIST:
        yield from reference(member_of(each.hint), path, around)
    elif _has_tables(member_of(each.hint)):
        yield from reference(member_of(each.hint), f"{path}.NAME", around)
    else:
        words = f"table of {kind_of(member_of(each.hint), each.setting).name}"
        yield Row(path, words, _default_words(each), each.setting.says)


def _kind_words(each: Declared) -> str:
    if shape_of(each.hint) == Shape.LIST:
        return f"list of {kind_of(member_of(each.hint), each.setting).name}"
    words = kind_of(each.hint, each.setting).name + _bounds(each)
    return f"{words}, or {_quoted(NONE)}" if each.optional else words


def _bounds(each: Declared) -> str:
    extra, write = each.setting, kind_of(each.hint, each.setting).write
    least = _scalar(write(extra.least)).strip('"') if extra.least is not None else ""
    most = _scalar(write(extra.most)).strip('"') if extra.most is not None else ""
    return f", {least} to {most}" if least and most else f", from {least}" if least else ""


def _default_words(each: Declared) -> str:
    if each.setting.default_says:
        return each.setting.default_says
    if not each.has_default:
        return "required"
    value = each.default()
    if value is None:
        return _quoted(NONE)
    if shape_of(each.hint) == Shape.NAMED:
        return "{}"
    return _inline(each.hint, each.setting, value)


def as_text(rows: Iterator[Row]) -> str:
    """The reference for a terminal."""
    told = (f"{r.path} = {r.default}\n    {r.kind}\n    {r.says}\n" for r in rows)
    return "\n".join(told)


def as_markdown(rows: Iterator[Row]) -> str:
    """The reference as a table for the README."""
    head = "| setting | written as | default | what it does |\n|---|---|---|---|\n"
    cells = ((f"`{r.path}`", r.kind, f"`{r.default}`", r.says) for r in rows)
    return head + "".join("| " + " | ".join(_cell(c) for c in row) + " |\n" for row in cells)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
