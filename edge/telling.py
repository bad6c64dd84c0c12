"""What a node answers to one command, as that command prints it.

Pure, and total: whatever stands in a document, there is a line for it, and none of it moves a
cursor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from edge.status import as_text, clean, told

STORED_HEAD: Final = f"{'size':>10} {'age':>6} {'ttl':>6} {'hits':>7} {'state':<11} url [variant]"

_PLURALS: Final = {"url": "urls", "prefix": "prefixes", "host": "hosts", "tag": "tags"}
_INDEXED: Final = re.compile(r"[a-z]+\[([0-9]{1,9})\]\Z")


def purged(document: Mapping[str, Any], kind: str, ms: float) -> str:
    """A purge that was done: `purge 17: 3 tags, soft, 2.3 ms`."""
    return f"purge {_at(document, 'number')}: {_what(document, kind)}, {ms:.1f} ms"


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


def stored(document: Mapping[str, Any]) -> str:
    """One stored object on one line, under `STORED_HEAD`."""
    variant = document.get("variant")
    pairs = variant if isinstance(variant, list) else []
    fields = "; ".join(": ".join(map(str, pair)) for pair in pairs if isinstance(pair, list))
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


def purges(document: Mapping[str, Any]) -> Iterator[str]:
    """The recent purges, one a line, under their names."""
    rows = document.get("purges")
    if not isinstance(rows, list) or not rows:
        yield "nothing has been purged"
        return
    yield f"{'number':>8} {'when':<20} {'manner':<7} {'who':<24} what"
    for row in rows:
        if isinstance(row, Mapping):
            yield clean(
                f"{_at(row, 'number'):>8} {_when(row.get('when')):<20} "
                f"{_at(row, 'manner'):<7} {_at(row, 'who'):<24} {_scopes(row)}"
            )


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


def explained(document: Mapping[str, Any]) -> str:
    """What a node would do with a request, its verdict first."""
    first = {"verdict": document["verdict"]} if "verdict" in document else {}
    return as_text({**first, **document})


def faults(document: Mapping[str, Any], places: Sequence[str] = ()) -> Iterator[str]:
    """Why a node refused: in one line, then every fault on one of its own.

    A fault at `tag[3]` is told at `places[3]`, where that name came from.
    """
    yield clean(str(document.get("detail") or document.get("title") or "the node refused"))
    listed = document.get("faults")
    for fault in listed if isinstance(listed, list) else []:
        yield clean(_fault(fault, places) if isinstance(fault, Mapping) else str(fault))


def _fault(fault: Mapping[str, Any], places: Sequence[str]) -> str:
    path, message = str(fault.get("path") or ""), str(fault.get("message") or "is wrong")
    indexed = _INDEXED.match(path)
    if indexed is not None and int(indexed[1]) < len(places):
        path = places[int(indexed[1])] or path
    value = fault.get("value")
    quoted = "" if value is None or str(value) in message else f'"{value}" '
    return f"{path}: {quoted}{message}" if path else f"{quoted}{message}"


def _at(document: Mapping[str, Any], name: str, unit: str = "") -> str:
    return told(unit or name, document.get(name))
