"""What a node answers to one command, as that command prints it.

Pure, and total: whatever stands in a document, there is a line for it, and none of it moves a
cursor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from edge.command.status import clean, told

STORED_HEAD: Final = (
    f"{'size':>10} {'age':>6} {'ttl':>6} {'hits':>7} {'state':<11} url [variant] (coding)"
)

WHO: Final = 40  # columns, on a terminal

_PLURALS: Final = {"url": "urls", "prefix": "prefixes", "host": "hosts", "tag": "tags"}
_INDEXED: Final = re.compile(r"[a-z]+\[([0-9]{1,9})\]\Z")


def purged(document: Mapping[str, Any], kind: str, ms: float) -> str:
    """A purge that was done: `purge 17: 3 tags, soft, 2.3 ms`."""
    return f"purge {at(document, 'number')}: {_what(document, kind)}, {ms:.1f} ms"


def _what(document: Mapping[str, Any], kind: str) -> str:
    soft = ", soft" if document.get("soft") is True else ""
    if kind == "all":
        return f"everything{soft}"
    scopes = document.get("scopes")
    return f"{told('', scopes)} {kind if scopes == 1 else _PLURALS.get(kind, kind)}{soft}"


def unacknowledged(document: Mapping[str, Any]) -> list[str]:
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


def matched(document: Mapping[str, Any]) -> str:
    """What a purge would have covered."""
    return (
        f"{at(document, 'matches')} of {at(document, 'of')} stored objects match, "
        f"{at(document, 'bytes', '_bytes')}; nothing was purged"
    )


def looked(document: Mapping[str, Any]) -> str:
    """How far a search has come."""
    return (
        f"looked at {at(document, 'looked_at')} of {at(document, 'of')}: "
        f"{at(document, 'matches')} match"
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
    fields = "; ".join(": ".join(map(or_dash, pair)) for pair in pairs if isinstance(pair, list))
    coding = document.get("coding")  # of what was made of another stored object
    made_in = "" if coding is None else f" ({coding})"
    return clean(
        f"{at(document, 'bytes', '_bytes'):>10} {span(document.get('age_s')):>6} "
        f"{span(document.get('ttl_s')):>6} {at(document, 'hits'):>7} "
        f"{at(document, 'state'):<11} {at(document, 'url')}{f' [{fields}]' if fields else ''}"
        f"{made_in}"
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
    longest = max(len(at(row, "who")) for row in rows)
    wide = max(3, longest if width is None else min(longest, WHO))
    yield f"{'number':>8} {'when':<20} {'manner':<7} {'who':<{wide}} what"
    for row in rows:
        line = (
            f"{at(row, 'number'):>8} {when(row.get('when')):<20} {at(row, 'manner'):<7} "
            f"{_cut(at(row, 'who'), wide):<{wide}} {_scopes(row)}"
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


def when(seconds: object) -> str:
    """A moment in Unix seconds, as people read it."""
    try:
        moment = datetime.fromtimestamp(float(str(seconds)), UTC)
    except (ValueError, OverflowError, OSError):
        return told("", seconds)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def at(document: Mapping[str, Any], name: str, unit: str = "") -> str:
    """A value of a document in words, by its name or another's unit."""
    return told(unit or name, document.get(name))


def or_dash(value: object) -> str:
    """A value as text; what is not there is a dash."""
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
