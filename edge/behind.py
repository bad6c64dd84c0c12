"""What is behind a node and around it, as a process of the node has it while it runs.

Settings are read again and again; connections to origins, what is known of their health, and the
database of places outlive them. `Surroundings` keeps those from one reading to the next. From what
it has made `parts` are made (see `trade`), and only when that is whole is it taken up: settings
that cannot be used change nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from edge.config import behind, policies
from edge.merge import merged
from edge.places import Places
from edge.routing.geo import NOWHERE
from edge.routing.health import Told
from edge.secret import read_secret, secret_at_hand
from edge.standing import Checked, Standing
from edge.upstream.origins import Origins

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from edge.config import Config
    from edge.config.notation import SecretSettings
    from edge.routing.geo import Place
    from edge.standing import Roll
    from edge.upstream.group import Group, GroupStatistics, ServerStatistics
    from edge.upstream.origin import Origin
    from edge.upstream.transport import Transport


def nowhere(_: bytes) -> Place:
    """Where everyone is without a database of places."""
    return NOWHERE


@dataclass(frozen=True, slots=True)
class Behind:
    """What parts are made of beside the settings: `now` is in Unix seconds, `chance` in [0, 1);
    `standing` is what is ordered over the settings."""

    now: Callable[[], float]
    chance: Callable[[], float]
    groups: Mapping[str, Group] = field(default_factory=dict)
    places: Places | None = None
    standing: Standing = field(default_factory=Standing)
    secret_of: Callable[[SecretSettings, str], bytes] = read_secret

    @property
    def place_of(self) -> Callable[[bytes], Place]:
        """Where an address is."""
        return nowhere if self.places is None else self.places.find


class Surroundings:
    """See the module. `tell` is given a kind and a line for the error log; `connect` stands in for
    the network; `asks` says whether origins are asked from here at all.

    Where it `insists`, what cannot be read is raised. A process of a node that runs does not: what
    it needs was there when the settings were tried, and it begins without places, or with the
    secret that was there, rather than not at all.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        chance: Callable[[], float],
        tell: Callable[[str, str], None],
        connect: Callable[[Origin], Awaitable[Transport]] | None = None,
        asks: bool = True,
        insists: bool = False,
    ) -> None:
        self._now = now
        self._chance = chance
        self._tell = tell
        self._asks = asks
        self._insists = insists
        self.origins = Origins(now=now, connect=connect)
        self._places: Places | None = None
        self._path: Path | None = None
        self._watch = trio.CancelScope()
        self._standing = Standing()

    def made(self, config: Config) -> Behind:
        """What there is behind a node with these settings; raises OSError, ValueError."""
        limits = policies.response_limits(config)
        told = behind.groups(config) if self._asks else ()
        path = config.node.geo
        is_open = path == self._path and self._places is not None
        places = self._places if is_open else self._opened(path)
        return Behind(
            self._now,
            self._chance,
            self.origins.made(told, limits),
            places,
            self._standing,
            read_secret if self._insists else secret_at_hand,
        )

    def _opened(self, path: Path | None) -> Places | None:
        if path is None:
            return None
        try:
            return Places(path, now=self._now, tell=self._tell)
        except (OSError, ValueError) as error:
            if self._insists:
                raise
            self._tell("geo", f"clients' places are unknown: {error}")
            return None

    def take_up(self, config: Config, made: Behind, nursery: trio.Nursery) -> None:
        """Go by what was made of these settings; what tends it runs in `nursery`."""
        self.origins.take_up(made.groups, nursery)
        self.origins.heed(told(self._standing, behind.roll(config)))
        if made.places is self._places:
            return
        self._watch.cancel()
        self._places, self._path = made.places, config.node.geo
        if made.places is not None:
            self._watch = trio.CancelScope()
            nursery.start_soon(self._follow, made.places, self._watch)

    async def _follow(self, places: Places, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await places.run()
        finally:
            places.close()

    def heed(self, standing: Standing, config: Config) -> bool:
        """Go by what is told of servers; whether experiments stand otherwise than before, so that
        parts have to be made anew."""
        changed = standing.experiments != self._standing.experiments
        self._standing = standing
        self.origins.heed(told(standing, behind.roll(config)))
        return changed

    def statistics(self) -> dict[str, Any]:
        """Each origin's sums, each server as it is seen from here, and the database of places."""
        told = self.origins.statistics()
        return {
            "origins": {name: _summed(each) for name, each in told.items()},
            "servers": [
                _server(name, server) for name, each in told.items() for server in each.servers
            ],
            "places": None if self._places is None else asdict(self._places.statistics()),
        }


def _summed(told: GroupStatistics) -> dict[str, Any]:
    """A group's connections, of all its servers, and its breaker."""
    pools = [asdict(server.pool) for server in told.servers]
    return {
        **merged(pools),
        **asdict(told.breaker),
        "queued": told.breaker.waiting,
        "waiting": sum(server.pool.waiting for server in told.servers),
    }


def _server(name: str, told: ServerStatistics) -> dict[str, Any]:
    health = told.health
    return {
        "name": name,
        "id": health.name,
        "state": str(health.state),
        "at_work": health.at_work,
        "weight": health.weight,
        "latency_s": health.latency_s,
        "failures": health.failures,
    }


def told(standing: Standing, roll: Roll) -> dict[str, Told]:
    """What groups are to believe of servers, by their ids."""
    found = {Checked.UP: True, Checked.DOWN: False, Checked.UNKNOWN: None}
    return {
        each.id: Told(
            up=found[standing.server(each.id).checked],
            drained=standing.server(each.id).drained,
            weight=standing.ordered_weight(each),
        )
        for each in roll.servers
    }
