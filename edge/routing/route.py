"""Which origins a request goes to, in order: the order of the settings, of the map, or by turns.

A route names origins. What it gives is all of them, so that whoever asks them can go on to the
next: who is well is known where they are asked (`upstream.way`). A canary puts other origins in
front for a share of what is fetched; which fetches that are is chance, since what comes of them is
stored under the same keys and given to everyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from edge.routing.geo import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge.routing.geo import Coordinates


class Order(StrEnum):
    """How a route's origins are put in order."""

    FIRST = "first"  # as they are named
    NEAREST = "nearest"  # to the client
    POOL = "pool"  # in turn: any of them first, then those behind it


@dataclass(frozen=True, slots=True)
class Canary:
    """Origins that a `share` (0 to 1) of the fetches goes to first."""

    names: tuple[str, ...]
    share: float


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests go: names of origins, their order, and how persistently they are asked.

    `tries` are all that one request may take, and none begins after `budget_s` seconds.
    """

    names: tuple[str, ...]
    order: Order = Order.FIRST
    by_shield: bool = False
    tries: int = 2
    budget_s: float = 10.0
    canary: Canary | None = None

    def origins(
        self, at: Coordinates | None, places: Mapping[str, Coordinates | None], roll: float
    ) -> tuple[str, ...]:
        """The origins in the order in which to ask them, each once.

        `at` is where the client is, if that is known, and `places` where origins are; `roll` is
        in [0, 1).
        """
        if self.canary is not None:
            if roll < self.canary.share:
                ahead = dict.fromkeys(self.canary.names)
                return (*ahead, *(n for n in self._ordered(at, places, roll) if n not in ahead))
            rest = 1.0 - self.canary.share  # more than 0, since `roll` is in it
            roll = (roll - self.canary.share) / rest
        return self._ordered(at, places, roll)

    def _ordered(
        self, at: Coordinates | None, places: Mapping[str, Coordinates | None], roll: float
    ) -> tuple[str, ...]:
        match self.order:
            case Order.NEAREST:
                return nearest(at, [(name, places.get(name)) for name in self.names])
            case Order.POOL:
                turn = min(int(roll * len(self.names)), len(self.names) - 1)
                return self.names[turn:] + self.names[:turn]
            case Order.FIRST:
                return self.names
