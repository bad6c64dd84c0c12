"""How a setting is declared: one dataclass field, with its kind, bounds and a sentence.

A schema is a tree of frozen dataclasses. The type hint of a field says its shape (a scalar, `X |
None`, `tuple[X, ...]` for a list, `Mapping[str, X]` for tables by name, a dataclass for a table);
`setting()` adds what a type cannot say. Parsing, `edge check`, `edge settings` and the README's
reference are all made from these declarations.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from edge.settings.kinds import COUNT, NUMBER, PATH, SWITCH, TEXT, Kind, choice

NONE = "none"  # how the absence of an optional value is written

_BY_TYPE = {bool: SWITCH, int: COUNT, float: NUMBER, str: TEXT, Path: PATH}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a declaration adds to a field's type.

    `least` and `most` bound a value, or each member of a list; `fewest` and `most_members` the
    number of members. `key` is the name in the file where it is not the field's. `names` is the
    kind of the names of tables by name. A table that `inherits` takes what it does not set from
    the table of the same name in the nearest table around it.
    """

    says: str
    kind: Kind | None = None
    least: float | None = None
    most: float | None = None
    fewest: int = 0
    most_members: int = 1_024
    key: str | None = None
    names: Kind | None = None
    inherits: bool = False
    default_says: str | None = None


def setting(says: str, kind: Kind | None = None, **rest: Any) -> dict[str, Setting]:
    """The metadata of a field that is a setting: `field(default=…, metadata=setting("…"))`."""
    return {"setting": Setting(says, kind, **rest)}


class Shape:
    """The shapes a field's type may have."""

    SCALAR = "scalar"
    LIST = "list"
    NAMED = "tables by name"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Declared:
    """One field of a schema, read from its declaration."""

    name: str
    key: str
    hint: Any
    optional: bool
    setting: Setting
    field: dataclasses.Field[Any]

    @property
    def has_default(self) -> bool:
        """Whether the setting may be left out."""
        missing = dataclasses.MISSING
        return self.field.default is not missing or self.field.default_factory is not missing

    def default(self) -> Any:
        """The value where the file says nothing; only where `has_default`."""
        if self.field.default_factory is not dataclasses.MISSING:
            return self.field.default_factory()
        return self.field.default


def declared(schema: type) -> Iterator[Declared]:
    """The settings of a schema, in order."""
    hints = get_type_hints(schema)
    for each in dataclasses.fields(schema):
        hint, optional = _without_none(hints[each.name])
        extra = each.metadata["setting"]
        yield Declared(each.name, extra.key or each.name, hint, optional, extra, each)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        rest = [arg for arg in get_args(hint) if arg is not type(None)]
        return rest[0], True
    return hint, False


def shape_of(hint: Any) -> str:
    """Which of the shapes a type is."""
    origin = get_origin(hint)
    if origin is tuple:
        return Shape.LIST
    if origin is not None and origin is not Literal and issubclass(origin, Mapping):
        return Shape.NAMED
    if dataclasses.is_dataclass(hint) and hint not in _BY_TYPE:
        return Shape.TABLE
    return Shape.SCALAR


def member_of(hint: Any) -> Any:
    """The type of a list's members, or of the tables by name."""
    args = get_args(hint)
    return args[0] if get_origin(hint) is tuple else args[1]


def kind_of(hint: Any, extra: Setting) -> Kind:
    """The kind of a scalar: as declared, else by its type."""
    if extra.kind is not None:
        return extra.kind
    if get_origin(hint) is Literal:
        return choice(get_args(hint))
    return _BY_TYPE[hint]
