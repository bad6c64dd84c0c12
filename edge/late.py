"""A shield that has not acknowledged a purge: what whoever purges is told of it, also in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edge.status import clean

if TYPE_CHECKING:
    from collections.abc import Mapping


class Late(msgspec.Struct, frozen=True):
    """A shield by its URL, and why it has not; whether it is `owed` the purge, and will be asked
    again until it has acknowledged it."""

    url: str
    why: str
    owed: bool = True


def late_lines(document: Mapping[str, Any]) -> list[str]:
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
