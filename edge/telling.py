"""What a node answers to one command, as that command prints it.

Pure, and total: whatever stands in a document, there is a line for it, and none of it moves a
cursor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from edge.status import as_text, clean, size, told

STORED_HEAD: Final = f"{'size':>10} {'age':>6} {'ttl':>6} {'hits':>7} {'state':<11} url [variant]"

WHO: Final = 40  # columns, on a terminal

_PLURALS: Final = {"url": "urls", "prefix": "prefixes", "host": "hosts", "tag": "tags"}
_INDEXED: Final = re.compile(r"[a-z]+\[([0-9]{1,9})\]\Z")


def purged(document: Mapping[str, Any], kind: str, ms: float) -> str:
    """A purge that was done: `purge 17: 3 tags, soft, 2.3 ms`."""
    return f"purge {_at(document, 'number')}: {_what(document, kind)}, {ms:.1f} ms"


def late(document: Mapping[str, Any]) -> list[str]:
    """The shields that have not acknowledged a purge, each with why, under a line that says so."""
    found = document.get("late")
    shields = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    if not shields:
        return []
    count = "a shield has" if len(shields) == 1 else f"{len(shields)} shields have"
    lines = [f"purged here, but {count} not acknowledged it:"]
    for each in shields:
        after = "it will be sent again until it is acknowledged"
        if each.get("owed") is not True:
            after = "it will not be sent again"
        lines.append(clean(f"{each.get('url')}: {each.get('why')}; {after}"))
    return lines


def _what(document: Mapping[str, Any], kind: str) -> str:
    soft = ", soft" if document.get("soft") is True else ""
    if kind == "all":
        return f"everything{soft}"
    scopes = document.get("scopes")
    return f"{told('', scopes)} {kind if scopes == 1 else _PLURALS.get(kind, kind)}{soft}"


def matched(document: Mapping[str, Any]) -> str:
    """What a purge would have covered."""
    return (
        f"{_at(document, 'matches')} of {_at(document, 'of')} stored objects match, "
        f"{_at(document, 'bytes', '_bytes')}; nothing was purged"
    )


def looked(document: Mapping[str, Any]) -> str:
    """How far a search has come."""
    return (
        f"looked at {_at(document, 'looked_at')} of {_at(document, 'of')}: "
        f"{_at(document, 'matches')} match"
    )


def reloaded(document: Mapping[str, Any]) -> str:
    """What came of reading the settings again: `settings in force, by new workers (store.memory
    changed)`."""
    words = "settings in force" if document.get("done") is True else "settings taken"
    because = document.get("because")
    if document.get("replaced") is not True or not isinstance(because, list):
        return words
    return clean(f"{words}, by new workers ({', '.join(map(str, because))} changed)")


def stored(document: Mapping[str, Any]) -> str:
    """One stored object on one line, under `STORED_HEAD`."""
    variant = document.get("variant")
    pairs = variant if isinstance(variant, list) else []
    fields = "; ".join(": ".join(map(_or_dash, pair)) for pair in pairs if isinstance(pair, list))
    return clean(
        f"{_at(document, 'bytes', '_bytes'):>10} {span(document.get('age_s')):>6} "
        f"{span(document.get('ttl_s')):>6} {_at(document, 'hits'):>7} "
        f"{_at(document, 'state'):<11} {_at(document, 'url')}{f' [{fields}]' if fields else ''}"
    )


def span(seconds: object) -> str:
    """A time in its largest unit that still tells it well: `90s`, `-3m`, `25h`, `12d`."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return told("", seconds)
    for unit, length, most in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if abs(seconds) < most:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"


def purges(document: Mapping[str, Any], width: int | None = None) -> Iterator[str]:
    """The recent purges, one a line, under their names; cut where a terminal is so wide."""
    listed = document.get("purges")
    rows = [row for row in listed if isinstance(row, Mapping)] if isinstance(listed, list) else []
    if not rows:
        yield "nothing has been purged"
        return
    longest = max(len(_at(row, "who")) for row in rows)
    wide = max(3, longest if width is None else min(longest, WHO))
    yield f"{'number':>8} {'when':<20} {'manner':<7} {'who':<{wide}} what"
    for row in rows:
        line = (
            f"{_at(row, 'number'):>8} {_when(row.get('when')):<20} {_at(row, 'manner'):<7} "
            f"{_cut(_at(row, 'who'), wide):<{wide}} {_scopes(row)}"
        )
        yield clean(line if width is None else _cut(line, width))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: max(0, most - 1)]}…"


def _scopes(row: Mapping[str, Any]) -> str:
    if row.get("everything") is True:
        return "everything"
    scopes = row.get("scopes")
    named = scopes if isinstance(scopes, list) else []
    count = row.get("count")
    more = count - len(named) if isinstance(count, int) else 0
    return ", ".join(map(str, named)) + (f", and {more} more" if more > 0 else "")


def _when(when: object) -> str:
    try:
        moment = datetime.fromtimestamp(float(str(when)), UTC)
    except (ValueError, OverflowError, OSError):
        return told("", when)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _at(document: Mapping[str, Any], name: str, unit: str = "") -> str:
    return told(unit or name, document.get(name))


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


# --- refusals


def faults(document: Mapping[str, Any], places: Sequence[str] = ()) -> Iterator[str]:
    """Why a node refused: in one line, then every fault on one of its own.

    A fault at `tag[3]` is told at `places[3]`, where that name came from.
    """
    listed = document.get("faults")
    told_of = listed if isinstance(listed, list) else []
    left = document.get("more")
    more = left if isinstance(left, int) and left > 0 else 0
    yield clean(_headline(document, len(told_of) + more))
    for fault in told_of:
        yield clean(_fault(fault, places) if isinstance(fault, Mapping) else str(fault))
    if more:
        yield f"… and {more} more"


_REFUSED: Final = {
    "not purged": "nothing was purged",
    "settings not taken": "settings not taken; the old ones stay",
}


def _headline(document: Mapping[str, Any], count: int) -> str:
    """What became of it. A problem's own words may hold all its faults: not twice."""
    title = str(document.get("title") or "the node refused")
    if not count:
        return str(document.get("detail") or title)
    words = _REFUSED.get(title, title)
    return words if ";" in words else f"{words}: {count} fault{'s' * (count > 1)}"


def _fault(fault: Mapping[str, Any], places: Sequence[str]) -> str:
    path, message = str(fault.get("path") or ""), str(fault.get("message") or "is wrong")
    indexed = _INDEXED.match(path)
    if indexed is not None and int(indexed[1]) < len(places):
        path = places[int(indexed[1])] or path
    value = fault.get("value")
    # Of settings the value is told as it is written there, and has its own quotes.
    shown = str(value) if "line" in fault else f'"{value}"'
    is_told = value is None or (value == "" and not path) or shown in message
    said = message if is_told else f"{shown} {message}"
    return ": ".join(part for part in (_place(fault), path, said) if part)


def _place(fault: Mapping[str, Any]) -> str:
    """`edge.toml:12`, as far as it is known."""
    file, line = fault.get("file"), fault.get("line")
    if not file:
        return f"line {line}" if line else ""
    return f"{file}:{line}" if line else str(file)


# --- explanations

_Section = Mapping[str, Any]
_FIRST: Final = ("verdict", "decision")


def explained(document: Mapping[str, Any]) -> str:
    """What a node would do with a request: the verdict, how it came to it, and the rest.

    What there is nothing to tell of is left out. The document has plain numbers, for programs;
    here they have units, and moments are told by how long ago they were.
    """
    request = document.get("request")
    now = _number(request, "at") if isinstance(request, Mapping) else None
    sections: dict[str, Any] = {}
    for name in dict.fromkeys((*_FIRST, *document)):
        value = document.get(name)
        teller = _SECTIONS.get(name)
        if isinstance(value, Mapping):
            value = value if teller is None else teller(value, now)
        sections[name] = _kept(value) if isinstance(value, Mapping) else value
    return as_text(_kept(sections))


def _kept(table: _Section) -> dict[str, Any]:
    """`table` without names that have nothing behind them."""
    return {name: value for name, value in table.items() if value not in (None, "", [], {})}


def _rest(table: _Section, *names: str) -> dict[str, Any]:
    """What is left of `table` besides `names`: what is not known here is told as it is."""
    return {name: value for name, value in table.items() if name not in names}


def _number(table: _Section, name: str) -> float | None:
    value = table.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 1e15 else None


def _table(table: _Section, name: str) -> _Section:
    value = table.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(table: _Section, name: str) -> list[Any]:
    value = table.get(name)
    return value if isinstance(value, list) else []


def _rows(pairs: _Section) -> list[str]:
    """Names as they are, one a line, with their values: `cookie lang  de`."""
    width = max((len(str(name)) for name in pairs), default=0)
    return [f"{name:<{width}}  {told('', value)}" for name, value in pairs.items()]


def _moment(table: _Section, name: str, now: float | None) -> str:
    """`2026-11-21T07:59:01Z (1 s ago)`; empty where there is none."""
    moment = _number(table, name)
    if moment is None:
        return ""
    if now is None:
        return _when(moment)
    away = span(abs(now - moment))
    words = f"{away[:-1]} {away[-1]}"
    return f"{_when(moment)} ({f'{words} ago' if moment <= now else f'in {words}'})"


def _verdict(table: _Section, _now: float | None) -> Any:
    outcome, reason, status = (_at(table, name) for name in ("outcome", "reason", "status"))
    says = str(table.get("says") or "")
    head = says if says.startswith(outcome) else f"{outcome}: {says}"
    behind = [reason] if reason not in ("-", outcome) else []
    behind += [f"status {status}"] if status != "-" else []
    line = f"{head} [{', '.join(behind)}]" if behind else head
    rest = _rest(table, "outcome", "reason", "status", "says")
    return {"says": line, **rest} if rest else line


def _request(table: _Section, _now: float | None) -> dict[str, Any]:
    address, client = _at(table, "from"), table.get("client")
    trusted = ", a trusted proxy" if table.get("trusted") is True else ""
    return {
        "for": f"{_at(table, 'method')} {_at(table, 'url')}",
        "from": f"{address}{trusted}",
        "client": client if client != address else None,
        **_rest(table, "at", "method", "url", "from", "trusted", "client"),
    }


def _site(table: _Section, _now: float | None) -> dict[str, Any]:
    rule, rules = table.get("rule"), _number(table, "rules")
    count = "" if rules is None else f" of {rules:.0f}"
    words = f"none{count} takes it; the site's own terms hold" if rules else None
    if isinstance(rule, Mapping):
        index = _number(rule, "index")
        place = "-" if index is None else f"{index + 1:.0f}"
        words = f"{place}{count}: {_at(rule, 'match')} (the first match wins)"
    cache = [f"{name} = {_setting(name, value)}" for name, value in _table(table, "cache").items()]
    return {"name": table.get("name"), "host": table.get("host"), "rule": words, "cache": cache,
            **_rest(table, "name", "host", "rule", "rules", "cache")}  # fmt: skip


def _setting(name: str, value: object) -> str:
    """A setting's value about as it is written: all its numbers but shares are durations."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float) or name.endswith("fraction"):
        return told("", value)
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if value and math.isfinite(value) and value % length == 0:
            return f"{value // length:.0f}{unit}"
    return f"{_digits(value)}s"


def _key(table: _Section, _now: float | None) -> dict[str, Any]:
    return {
        "url": table.get("url"),
        "parts": _rows(_table(table, "parts")),
        **_rest(table, "url", "parts"),
    }


def _variant(table: _Section, _now: float | None) -> dict[str, Any]:
    asked, each = _table(table, "fields"), _list(table, "variants")
    known = [one for one in each if isinstance(one, Mapping)]
    misses = not any(all(asked.get(name) == one[name] for name in one) for one in known)
    purged = _number(table, "purged")
    return {
        "stored": f"{_at(table, 'stored')}{f', of which purged: {purged:.0f}' if purged else ''}",
        "asked for": _rows(asked),
        "there is": [_fields(one) for one in known] if misses else None,
        **_rest(table, "stored", "purged", "fields", "variants"),
    }


def _fields(fields: _Section) -> str:
    return "; ".join(f"{name}: {_or_dash(value)}" for name, value in fields.items())


def _stored(table: _Section, now: float | None) -> dict[str, Any]:
    length = _number(table, "bytes")
    retold = {
        "bytes": ("size", None if length is None else size(length)),
        "asked_at": ("asked_at", _moment(table, "asked_at", now)),
        "stored_at": ("stored_at", _moment(table, "stored_at", now)),
        "purge": ("looked up at purge", table.get("purge")),
        "other_variants": ("other_variants", table.get("other_variants") or None),
    }
    return dict(retold.get(name, (name, value)) for name, value in table.items())


def _freshness(table: _Section, now: float | None) -> dict[str, Any]:
    """Age and time to live as sums that add up to the tenth of a second."""
    names = (
        "age_s", "by_date_s", "by_age_field_s", "resident_s", "arrived_s", "lifetime_s", "source",
        "ended_early_s", "ttl_s", "always_validate", "keep_until",
    )  # fmt: skip
    return {
        "age": _age(table),
        "ttl": _ttl(table),
        **{name: _window(value) for name, value in _rest(table, *names).items()},
        "always validated": True if table.get("always_validate") is True else None,
        "kept until": _moment(table, "keep_until", now),
    }


def _window(value: object) -> object:
    """How long something stale may be used; None where it may not."""
    if isinstance(value, int | float) and value and math.isfinite(value):
        return _long(value)
    return value or None


def _age(table: _Section) -> str | None:
    age, arrived = _tenths(table, "age_s"), _tenths(table, "arrived_s")
    if age is None or arrived is None:
        return None
    date, field = _tenths(table, "by_date_s") or 0.0, _tenths(table, "by_age_field_s") or 0.0
    larger = f"the larger of Date {_digits(date)}, Age {_digits(field)}"
    here = _digits(round(age - arrived, 1))
    return f"{_long(age)} = {_digits(arrived)} s on arrival ({larger}) + {here} s here"


def _ttl(table: _Section) -> str | None:
    age, whole = _tenths(table, "age_s"), _tenths(table, "lifetime_s")
    if age is None or whole is None:
        return None
    early = _tenths(table, "ended_early_s") or 0.0
    lifetime, source = round(whole - early, 1), _at(table, "source")
    if early:
        source = f"{source} {_digits(whole)} s, ended {_digits(early)} s early by a soft purge"
    left = _long(round(lifetime - age, 1))
    return f"{left} = lifetime {_digits(lifetime)} s ({source}) - age {_digits(age)} s"


def _tenths(table: _Section, name: str) -> float | None:
    value = _number(table, name)
    return None if value is None else round(value, 1)


def _digits(number: float) -> str:
    """A number with at most three decimals, and never as a power of ten."""
    # Adding 0.0 makes plain zero of minus zero.
    return f"{number + 0.0:.3f}".rstrip("0").removesuffix(".")


def _long(seconds: float) -> str:
    """Seconds, and where there are many, in a larger unit too."""
    words = span(seconds)
    return f"{_digits(seconds)} s" if words.endswith("s") else f"{_digits(seconds)} s ({words})"


def _covers(table: _Section, now: float | None) -> dict[str, Any]:
    covering = [
        f"{_covered(each, now)}" if isinstance(each, Mapping) else str(each)
        for each in _list(table, "covering")
    ]
    return {
        "covering": covering,
        **{name: table.get(name) or None for name in ("floor", "unnamed")},
        **_rest(table, "covering", "floor", "unnamed"),
    }


def _covered(each: _Section, now: float | None) -> str:
    """`purge 16 (hard): tag front; 2026-11-21T07:59:01Z (1 s ago), uid 0, pid 7`."""
    about = [_moment(each, "when", now), str(each.get("who") or "")]
    behind = ", ".join(part for part in about if part)
    line = f"purge {_at(each, 'number')} ({_at(each, 'manner')}): {_at(each, 'scope')}"
    return f"{line}; {behind}" if behind else line


def _flight(table: _Section, _now: float | None) -> dict[str, Any]:
    aloft = _number(table, "aloft_s")
    return {
        "under way": None if aloft is None else f"for {aloft:.1f} s",
        **{name: "yes" for name in table if table[name] is True},
        **_rest(table, "aloft_s", *(name for name in table if isinstance(table[name], bool))),
    }


def _route(table: _Section, _now: float | None) -> dict[str, Any]:
    return {**_rest(table, "conditions"), "conditions": _rows(_table(table, "conditions"))}


_SECTIONS: Final[dict[str, Callable[[_Section, float | None], Any]]] = {
    "verdict": _verdict,
    "request": _request,
    "site": _site,
    "key": _key,
    "variant": _variant,
    "stored": _stored,
    "freshness": _freshness,
    "purges": _covers,
    "flight": _flight,
    "route": _route,
}
