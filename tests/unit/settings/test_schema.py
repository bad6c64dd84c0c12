from __future__ import annotations

# The schema's hints are read at run time.
from collections.abc import Mapping  # noqa: TC003
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003
from typing import Literal

from edge.settings.kinds import DURATION, PATH, SWITCH
from edge.settings.schema import Shape, declared, kind_of, member_of, setting, shape_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    on: bool = field(default=True, metadata=setting("On."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    where: Path | None = field(default=None, metadata=setting("Where."))
    how: Literal["a", "b"] = field(default="a", metadata=setting("How."))
    often: float = field(default=1.0, metadata=setting("Often.", DURATION))
    many: tuple[Inner, ...] = field(default=(), metadata=setting("Many.", key="one"))
    named: Mapping[str, Inner] = field(default_factory=dict, metadata=setting("Named."))
    inner: Inner = field(metadata=setting("Inner."))


def test_a_declaration_is_read_from_hint_and_metadata() -> None:
    where, how, often, many, named, inner = declared(Outer)
    assert where.optional
    assert kind_of(where.hint, where.setting) is PATH
    assert kind_of(how.hint, how.setting).name == '"a" or "b"'
    assert kind_of(often.hint, often.setting) is DURATION
    assert (many.name, many.key) == ("many", "one")
    assert member_of(many.hint) is member_of(named.hint) is Inner
    assert [shape_of(each.hint) for each in (where, how, many, named, inner)] == [
        Shape.SCALAR, Shape.SCALAR, Shape.LIST, Shape.NAMED, Shape.TABLE,
    ]  # fmt: skip


def test_a_default_is_a_value_or_made_anew() -> None:
    where, *_, named, inner = declared(Outer)
    assert where.default() is None
    assert named.default() == {}
    assert not inner.has_default
    (on,) = declared(Inner)
    assert kind_of(on.hint, on.setting) is SWITCH
