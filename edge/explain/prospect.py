"""Where a request would go, as the section `route` of an explanation: arms, place, origins.

Values for JSON, as in `particulars`. Chance is left aside: what would be drawn for a new visitor
is told as what it is, by chance, with the first arm that there is a chance for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge.explain.question import plain
from edge.serving.ways import shield_key

if TYPE_CHECKING:
    from edge.routing.experiment import Assignment
    from edge.routing.geo import Place
    from edge.serving.admission import Admitted
    from edge.serving.ways import Ways
    from edge.upstream.group import Group


def arms_of(admitted: Admitted) -> list[dict[str, Any]]:
    """The arms that a request is in, and by what."""
    return [
        {
            "experiment": plain(each.experiment.name),
            "arm": plain(each.arm.name),
            "by": _by(each),
            "keyed": each.arm.changes,
        }
        for each in admitted.arms
    ]


def _by(each: Assignment) -> str:
    if each.experiment.stopped_on is not None:
        return "stopped"
    if each.is_held_out:
        return "held out"
    if each.by_chance:
        return "chance"
    return "visitor id" if each.is_new else "cookie"


def place_of(admitted: Admitted, ways: Ways) -> dict[str, Any] | None:
    """Where the client is, as far as the database of places knows."""
    place: Place = ways.place_of(admitted.client)
    at = place.at
    if not (place.country or place.continent or at):
        return None
    return {
        "country": place.country or None,
        "continent": place.continent or None,
        "subdivision": place.subdivision or None,
        "at": None if at is None else [at.latitude, at.longitude],
    }


def origins_of(admitted: Admitted, ways: Ways) -> list[dict[str, Any]]:
    """The origins in the order in which they would be asked, each with its servers."""
    return [_group(ways.groups[name]) for name in ways.origins_of(admitted) if name in ways.groups]


def via(admitted: Admitted, ways: Ways) -> dict[str, Any] | None:
    """The shields that stand before them, with the one that the key falls to first."""
    shielding = ways.shielding
    if not admitted.terms.route.by_shield or shielding is None:
        return None
    group = shielding.group
    now, key = group.now(), shield_key(admitted)
    first = group.members.choose(now, key=key)
    return {
        **_group(group),
        "first": None if first is None else group.ids[first].partition(" ")[2],
        "without": "origin" if shielding.without else "fail",
    }


def _group(group: Group) -> dict[str, Any]:
    states = group.members.states(group.now())
    return {
        "name": group.name,
        "alive": group.is_alive(),
        "servers": [
            {"server": each.name.partition(" ")[2], "state": str(each.state)} for each in states
        ],
    }
