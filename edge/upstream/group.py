"""An origin: servers that all have the same to say, and what is known of each.

A group joins what stands for itself elsewhere: an `Upstream` for each server (its connections),
`Members` (which of them next), and one `Breaker` for all of them. What the settings say of it is a
`GroupSettings`; groups made of other settings take over from `before` what still holds: upstreams
with their warm connections where a server's own settings are the same, all that is known of the
health of servers that stay, and the breaker, with those at work in it, where its bounds are the
same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.routing.balance import GroupPolicy, Members, MemberState
from edge.routing.health import NOTHING_TOLD
from edge.upstream.breaker import Breaker, BreakerStatistics
from edge.upstream.fetch import UPLOAD_SHARE, Upstream
from edge.wire.h1 import RESPONSE_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from edge.routing.geo import Coordinates
    from edge.routing.health import Told
    from edge.upstream.origin import Origin
    from edge.upstream.pool import PoolStatistics
    from edge.upstream.transport import Transport


def _says(sentence: str, unit: str = "") -> dict[str, Any]:
    return {"says": sentence, "unit": unit}


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """All that the settings say of one origin. `servers` has one at least."""

    name: str = field(metadata=_says("what routes call it"))
    servers: tuple[Origin, ...] = field(metadata=_says("the servers, each with its bounds"))
    weights: tuple[float, ...] = field(
        default=(), metadata=_says("one for each server; all 1 if left out")
    )
    policy: GroupPolicy = field(
        default=GroupPolicy(), metadata=_says("how requests are spread over the servers")
    )
    at_work: int = field(default=256, metadata=_says("requests under way at once", "requests"))
    waiting: int = field(
        default=256, metadata=_says("that wait for others to end, beyond those", "requests")
    )
    at: Coordinates | None = field(default=None, metadata=_says("where it stands", "degrees"))
    host: bytes | None = field(
        default=None, metadata=_says("Host that it is asked by; the client's if left out")
    )


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """One server of a group: its health, and its connections."""

    health: MemberState
    pool: PoolStatistics


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """A group at a moment."""

    servers: tuple[ServerStatistics, ...]
    breaker: BreakerStatistics


class Group:
    """See the module. `now` is Unix seconds; `connect` makes transports in place of the network.

    `ids` are the servers' names on the board and in logs: `eu http://a:80`. Raises ValueError
    with a sentence for the operator, and then nothing of `before` has changed.
    """

    def __init__(
        self,
        settings: GroupSettings,
        *,
        before: Group | None = None,
        now: Callable[[], float] = time.time,
        connect: Callable[[Origin], Awaitable[Transport]] | None = None,
        limits: Limits = RESPONSE_LIMITS,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.at = settings.at
        self.host = settings.host
        self.now = now
        self.limits = limits
        self.ids = tuple(f"{settings.name} {one.url}" for one in settings.servers)
        weights = settings.weights or (1.0,) * len(settings.servers)
        self.members = Members(self.ids, settings.policy, weights)
        if before is not None:
            self.members.inherit(before.members)
        old = {} if before is None or before.limits != limits else before._by_origin()
        self.upstreams = tuple(
            old.get(origin) or Upstream(origin, connect=connect, now=now, limits=limits)
            for origin in settings.servers
        )
        self.breaker = _breaker(settings, before)
        self.uploads = _uploads(settings, before)

    def is_alive(self) -> bool:
        """Whether a server may be asked without regret."""
        return self.members.is_alive(self.now())

    def gives_way(self) -> bool:
        """Whether another group had better take the next request, while this one starts slowly."""
        return self.members.gives_way(self.now())

    def heed(self, standing: Mapping[str, Told]) -> None:
        """Believe what checks and the operator say of servers, by their ids; of one of which
        they say nothing, nothing holds any more. Raises ValueError for a weight that is none."""
        now = self.now()
        for index, name in enumerate(self.ids):
            self.members.told(index, standing.get(name, NOTHING_TOLD), now)

    def statistics(self) -> GroupStatistics:
        """What each server is and has in hand."""
        states = self.members.states(self.now())
        return GroupStatistics(
            servers=tuple(
                ServerStatistics(state, upstream.statistics())
                for state, upstream in zip(states, self.upstreams, strict=True)
            ),
            breaker=self.breaker.statistics(),
        )

    def _by_origin(self) -> dict[Origin, Upstream]:
        return {upstream.origin: upstream for upstream in self.upstreams}


def _breaker(settings: GroupSettings, before: Group | None) -> Breaker:
    patience_s = min(origin.connect_s for origin in settings.servers)
    bounds = settings.at_work, settings.waiting, patience_s
    if before is not None and before.breaker.bounds == bounds:
        return before.breaker
    return Breaker(*bounds)


def _uploads(settings: GroupSettings, before: Group | None) -> Breaker:
    """Places for requests whose bodies are still to come: fewer than there are connections, or
    may be at work, so that slow clients cannot have all."""
    connections = sum(origin.max_connections for origin in settings.servers)
    patience_s = min(origin.connect_s for origin in settings.servers)
    places = max(1, min(connections, settings.at_work) // UPLOAD_SHARE)
    bounds = places, settings.waiting, patience_s
    if before is not None and before.uploads.bounds == bounds:
        return before.uploads
    return Breaker(*bounds)
