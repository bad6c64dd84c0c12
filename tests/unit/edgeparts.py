"""The parts of an edge, made as the edge makes them, for tests that need no processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge import node
from edge.config import for_proxy
from edge.surroundings.behind import Behind, Surroundings
from edge.surroundings.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from edge.config import Config
    from edge.serving.visit import Parts
    from edge.surroundings.places import Places
    from edge.upstream.group import Group
    from edge.upstream.origin import Origin
    from edge.upstream.transport import Transport

NAMED = "node.name=edge1"


def config_of(*sets: str, to: str = "http://origin.example") -> Config:
    """The settings of a proxy called edge1."""
    return for_proxy(["127.0.0.1:0"], to, hostname="h", sets=(NAMED, *sets))


def parts_of(
    *sets: str,
    config: Config | None = None,
    groups: Mapping[str, Group] | None = None,
    places: Places | None = None,
    now: Callable[[], float] = lambda: 0.0,
    chance: Callable[[], float] = lambda: 0.0,
    standing: Standing = Standing(),  # noqa: B008 - it is frozen
) -> Parts:
    """What follows from settings; with no groups given, those that they name."""
    config = config or config_of(*sets)
    made = groups if groups is not None else groups_of(config, now=now)
    behind = Behind(now, chance, made, places, standing)
    return node.parts(config, behind, b"salt")


def groups_of(
    config: Config,
    *,
    now: Callable[[], float] = lambda: 0.0,
    connect: Callable[[Origin], Awaitable[Transport]] | None = None,
) -> Mapping[str, Group]:
    """The origins that settings name; `connect` stands in for the network."""
    surroundings = Surroundings(now=now, chance=lambda: 0.0, tell=lambda *_: None, connect=connect)
    return surroundings.made(config).groups
