"""TOML text to one frozen value of a schema, or every fault in it at once.

Theory of operation. Binding walks the schema and the parsed text side by side. A fault never ends
the walk: it is noted with its path, and a blank value stands in, so that one run tells all there
is to mend; nothing of a text with a fault is ever used. A key that the schema does not know is a
fault, with the nearest key that it does know, or with what the table's class attribute `unbuilt`
says of it. What stands in place of a table that is `hidden` is not shown. When a table is whole
its own `check()` may name faults between settings (a reference to nothing, a name used twice); it
must accept blanks.

Names in paths: a member of a list of tables goes by the list (`sites[2].cache.ttl` for the third
`[[site]]`), counted from 0; everything else goes by the key in the file.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from edge.settings import lines as places
from edge.settings.kinds import UnfitError
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

FAULTS_SHOWN = 100  # a file with more is the wrong file
_SHOWN = 60
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGITS = re.compile(r"[0-9_]{4300}")
_AT_LINE = re.compile(r" \(at (?:line ([0-9]{1,9}), column [0-9]{1,9}|end of document)\)")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to mend. `value` is as written, shortened; None where something is missing."""

    line: int | None
    path: str
    value: str | None
    message: str

    def __str__(self) -> str:
        said = self.message if self.value is None else f"{self.value} {self.message}"
        return f"{self.path}: {said}" if self.path else said

    def at(self, file: str) -> str:
        """The fault with its place: `edge.toml:12: sites[2].cache.ttl: …`."""
        return f"{file}:{self.line}: {self}" if self.line else f"{file}: {self}"


class SettingsError(Exception):
    """Settings that cannot be used, with every fault in the order of the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: fault.line or 0))[:FAULTS_SHOWN]
        super().__init__("; ".join(str(fault) for fault in self.faults))


@dataclass(frozen=True, slots=True)
class Complaint:
    """A fault between settings, as a schema's `check()` tells it.

    `keys` is the path below the checked table, by the keys in the file; `value` what is wrong.
    """

    keys: tuple[str | int, ...]
    value: object
    message: str


def parse(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises `SettingsError` with the line where it is not TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SettingsError([Fault(None, "", None, "brackets are nested too deeply")]) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([_not_toml(str(error), text)]) from error
    except ValueError:  # what int() raises past 4,300 digits
        found = _DIGITS.search(text)
        line = text.count("\n", 0, found.start()) + 1 if found else None
        raise SettingsError([Fault(line, "", None, "a number has too many digits")]) from None


def _not_toml(said: str, text: str) -> Fault:
    found = _AT_LINE.search(said)
    line = None
    if found:  # pragma: no branch  (every Python so far says where; none has promised to)
        line = int(found[1]) if found[1] else text.count("\n", 0, len(text.rstrip("\n"))) + 1
    message = _AT_LINE.sub("", said)[:200]
    return Fault(line, "", None, f"this is not TOML: {message[:1].lower()}{message[1:]}")


def load(schema: type[T], text: str) -> T:
    """The settings that a TOML text holds. Raises `SettingsError` and nothing else."""
    return bind(schema, parse(text), places.lines_of(text))


def bind(schema: type[T], table: Mapping[str, Any], lines: dict[places.Path, int]) -> T:
    """The settings that parsed tables hold. Raises `SettingsError` and nothing else."""
    binder = _Binder(lines)
    made: T = binder.table(schema, table, _Place((), ""), {}, None)
    if binder.faults:
        raise SettingsError(binder.faults)
    return made


@dataclass(frozen=True, slots=True)
class _Place:
    """A path twice: by keys, to find its line, and in words, to tell it."""

    keys: places.Path
    words: str

    def key(self, key: str, words: str | None = None) -> _Place:
        said = words or (key if _NAME.fullmatch(key) else _shown(key))
        return _Place((*self.keys, key), f"{self.words}.{said}" if self.words else said)

    def item(self, index: int) -> _Place:
        return _Place((*self.keys, index), f"{self.words}[{index}]")


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):  # a number of thousands of digits, endless brackets
        return "…"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


class _Binder:
    """One binding: the faults so far, and what every step needs."""

    def __init__(self, lines: dict[places.Path, int]) -> None:
        self.faults: list[Fault] = []
        self._lines = lines

    def _fault(self, place: _Place, value: str | None, message: str) -> None:
        line = places.line_of(place.keys, self._lines)
        self.faults.append(Fault(line, place.words, value, message))

    def table(
        self, schema: type, raw: object, place: _Place, scope: dict[str, Any], base: Any
    ) -> Any:
        """One table. `scope` holds what inner tables inherit, `base` what this one does."""
        if not isinstance(raw, Mapping):
            told = None if getattr(schema, "hidden", False) else _shown(raw)
            self._fault(place, told, f"is not a table; {_as_table(place)}")
            raw = {}
        known = {each.key: each for each in declared(schema)}
        for key in raw:
            if key not in known:
                self._unknown(str(key), known, place, getattr(schema, "unbuilt", {}))
        scope = dict(scope)
        values: dict[str, Any] = {}
        for key, each in known.items():
            value = self._field(each, key, raw, place, scope, base)
            values[each.name] = value
            if each.setting.inherits:
                scope[each.name] = value
        made = schema(**values)
        for complaint in getattr(made, "check", tuple)():
            self._complain(complaint, place, schema)
        return made

    def _complain(self, said: Complaint, place: _Place, schema: type) -> None:
        hint: Any = schema
        for key in said.keys:
            each = _declared_at(hint, key)
            words = _list_words(each)
            place = place.item(key) if isinstance(key, int) else place.key(key, words)
            has_members = shape_of(hint) in (Shape.LIST, Shape.NAMED)
            hint = member_of(hint) if has_members else each and each.hint
        self._fault(place, None if said.value is None else _shown(said.value), said.message)

    def _unknown(
        self, key: str, known: Iterable[str], place: _Place, unbuilt: Mapping[str, str]
    ) -> None:
        why = unbuilt.get(key)
        if why is None:
            near = difflib.get_close_matches(key[:64], list(known), n=1)
            listed = ", ".join(sorted(known))
            why = f'did you mean "{near[0]}"?' if near else f"known here: {listed}"
        self._fault(place.key(key), None, f"unknown setting; {why}")

    def _field(
        self,
        each: Declared,
        key: str,
        raw: Mapping[str, object],
        place: _Place,
        scope: dict[str, Any],
        base: Any,
    ) -> Any:
        if base is not None:
            inherited = getattr(base, each.name)
        else:
            inherited = scope.get(each.name) if each.setting.inherits else None
        if key in raw:
            inner = place.key(key, _list_words(each))
            if each.optional and raw[key] == NONE:
                return None
            return self._value(each.hint, each.setting, raw[key], inner, scope, inherited)
        if base is not None or inherited is not None:
            return inherited
        if each.has_default:
            return each.default()
        inner = place.key(key, _list_words(each))
        self._fault(inner, None, f"missing; {_lower(each.setting.says)}")
        return _blank(each.hint)

    def _value(
        self,
        hint: Any,
        extra: Setting,
        raw: object,
        place: _Place,
        scope: dict[str, Any],
        base: Any,
    ) -> Any:
        shape = shape_of(hint)
        if shape == Shape.TABLE:
            return self.table(hint, raw, place, scope, base)
        if shape == Shape.LIST:
            return self._list(hint, extra, raw, place, scope)
        if shape == Shape.NAMED:
            return self._named(hint, extra, raw, place, scope)
        return self._scalar(hint, extra, raw, place)

    def _list(
        self, hint: Any, extra: Setting, raw: object, place: _Place, scope: dict[str, Any]
    ) -> tuple[Any, ...]:
        member = member_of(hint)
        if not isinstance(raw, list):
            told = None if getattr(member, "hidden", False) else _shown(raw)
            self._fault(place, told, f"is not a list; {_as_list(member, raw, place)}")
            return ()
        self._count(len(raw), extra, place)
        items = enumerate(raw[: extra.most_members])
        return tuple(self._value(member, extra, r, place.item(i), scope, None) for i, r in items)

    def _named(
        self, hint: Any, extra: Setting, raw: object, place: _Place, scope: dict[str, Any]
    ) -> dict[str, Any]:
        if not isinstance(raw, Mapping):
            self._fault(place, _shown(raw), f"is not a table; {_as_table(place)}")
            return {}
        self._count(len(raw), extra, place)
        made: dict[str, Any] = {}
        for name, value in list(raw.items())[: extra.most_members]:
            inner = place.key(name)
            if extra.names is None and not _NAME.fullmatch(name):
                self._fault(inner, None, "is not a name; use letters, digits, - and _")
            elif extra.names is not None:
                self._scalar(str, Setting("", extra.names), name, inner)
            made[name] = self._value(member_of(hint), extra, value, inner, scope, None)
        return made

    def _count(self, count: int, extra: Setting, place: _Place) -> None:
        if count < extra.fewest:
            self._fault(place, None, f"too few; give at least {extra.fewest}")
        if count > extra.most_members:
            self._fault(place, None, f"{count} are too many; at most {extra.most_members}")

    def _scalar(self, hint: Any, extra: Setting, raw: object, place: _Place) -> Any:
        kind = kind_of(hint, extra)
        try:
            value = kind.read(raw)
        except UnfitError as error:
            self._fault(place, _shown(raw), str(error))
            return None
        if extra.least is not None and value < extra.least:
            self._fault(
                place, _shown(raw), f"is too little; at least {_shown(kind.write(extra.least))}"
            )
        if extra.most is not None and value > extra.most:
            self._fault(
                place, _shown(raw), f"is too much; at most {_shown(kind.write(extra.most))}"
            )
        return value


def _as_table(place: _Place) -> str:
    last = place.keys[-1] if place.keys else ""
    return f"write {last} = {{ … }}" if isinstance(last, str) else "write { … }"


def _as_list(member: Any, raw: object, place: _Place) -> str:
    if shape_of(member) == Shape.TABLE:
        return f"write [[{place.keys[-1]}]]"
    return f"try [{_shown(raw)}]" if isinstance(raw, str) else "put it between [ and ]"


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _declared_at(hint: Any, key: str | int) -> Declared | None:
    """The setting under this key, where the key is a setting's."""
    if shape_of(hint) != Shape.TABLE:
        return None
    return next((each for each in declared(hint) if each.key == key), None)


def _list_words(each: Declared | None) -> str | None:
    """A list of tables goes by its own name, `sites`, and not by the key of one, `site`."""
    listed = each is not None and shape_of(each.hint) == Shape.LIST
    return each.name if each is not None and listed else None


def _blank(hint: Any) -> Any:
    """What stands in for a missing value so that the walk can go on."""
    match shape_of(hint):
        case Shape.LIST:
            return ()
        case Shape.NAMED:
            return {}
        case Shape.TABLE:
            return hint(**{e.name: _blank(e.hint) for e in declared(hint)})
        case _:
            return "" if hint is str else None


def assign(table: dict[str, Any], key: str, text: str) -> None:
    """Put one `KEY=VALUE` of a command line into parsed tables, making the tables on its way.

    The value is TOML where it reads as TOML, else text. In a list of tables a number chooses one,
    from 0; without a number the only one is meant. Raises `SettingsError`.
    """
    node: Any = table
    *way, last = key.split(".")
    for part in way[:8]:
        node = _step(node, part, key)
    node = _only(node, key)
    if not isinstance(node, dict) or not last or len(way) > 8:
        raise SettingsError([Fault(None, key, None, "names no setting")])
    node[last] = _bare_or_toml(text)


def _step(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list) and re.fullmatch(r"[0-9]{1,4}", part) and int(part) < len(node):
        return node[int(part)]
    node = _only(node, key)
    if not isinstance(node, dict):
        raise SettingsError([Fault(None, key, None, "names no setting")])
    return node.setdefault(part, {})


def _only(node: Any, key: str) -> Any:
    if isinstance(node, list):
        if len(node) != 1:
            raise SettingsError([Fault(None, key, None, f"say which of {len(node)}")])
        return node[0]
    return node


def _bare_or_toml(text: str) -> Any:
    try:
        return text if "\n" in text else tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
