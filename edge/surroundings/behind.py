"""What is behind a node and around it, as a process of the node has it while it runs.

Settings are read again and again; connections to origins, what is known of their health, and the
database of places outlive them. `Surroundings` keeps those from one reading to the next. From what
it has made `parts` are made (see `process.trade`), and only when that is whole is it taken up:
settings that cannot be used change nothing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from edge.config import behind, policies
from edge.observe.merge import merged
from edge.routing.geo import NOWHERE
from edge.routing.health import State, Told
from edge.secret import read_secret, secret_anew, secret_at_hand
from edge.surroundings.places import Places
from edge.surroundings.standing import Checked, Standing
from edge.upstream.origins import Origins

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from edge.config import Config
    from edge.config.notation import SecretSettings
    from edge.routing.geo import Place
    from edge.surroundings.standing import Roll
    from edge.upstream.group import Group, GroupStatistics, ServerStatistics
    from edge.upstream.origin import Origin
    from edge.upstream.transport import Transport


WATCH_S: Final = 1.0
OPEN_AGAIN_S: Final = 5.0  # for a database that was not there


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
    secret that was there, rather than not at all. When there are places again, `renew` is called:
    parts have to be made anew.
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
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        self._now = now
        self._chance = chance
        self._tell = tell
        self._asks = asks
        self._insists = insists
        self._renew = renew
        self.origins = Origins(now=now, connect=connect)
        self._places: Places | None = None
        self._path: Path | None = None
        self._watch = trio.CancelScope()
        self._standing = Standing()

    def made(self, config: Config, *, anew: bool = False) -> Behind:
        """What there is behind a node with these settings; raises OSError, ValueError.

        With `anew` they have just been read, and what they point at is read as well.
        """
        secret_of = secret_anew if anew else secret_at_hand
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
            read_secret if self._insists else secret_of,
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
        if made.places is self._places and config.node.geo == self._path:
            return
        self._watch.cancel()
        self._places, self._path = made.places, config.node.geo
        self._watch = trio.CancelScope()
        if made.places is not None:
            nursery.start_soon(self._follow, made.places, self._watch)
        elif self._path is not None:
            nursery.start_soon(self._open_later, self._path, self._watch)

    async def _follow(self, places: Places, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await places.run()
        finally:
            places.close()

    async def _open_later(self, path: Path, scope: trio.CancelScope) -> None:
        """Have places once there are some again."""
        places: Places | None = None
        try:
            with scope:
                while places is None:
                    await trio.sleep(OPEN_AGAIN_S)
                    await trio.lowlevel.checkpoint_if_cancelled()  # by what came as it ended
                    with suppress(OSError, ValueError):  # which has been told
                        places = Places(path, now=self._now, tell=self._tell)
                self._places = places
                self._renew()
                await places.run()
        finally:
            if places is not None:  # `self._places` may be others by now
                places.close()

    def heed(self, standing: Standing, config: Config) -> bool:
        """Go by what is told of servers; whether experiments stand otherwise than before, so that
        parts have to be made anew."""
        changed = standing.experiments != self._standing.experiments
        self._standing = standing
        self.origins.heed(told(standing, behind.roll(config)))
        return changed

    async def watch(self) -> None:
        """Tell of servers that are left out by how they answer, and of those that are back."""
        out: set[str] = set()
        while True:
            await trio.sleep(WATCH_S)
            before, out = out, self._left_out()
            for name in sorted(out - before):
                self._tell("origins", f"{name} is left out for a while: it fails, or is too slow")
            for name in sorted(before - out):
                self._tell("origins", f"{name} is asked again")

    def _left_out(self) -> set[str]:
        now, groups = self._now(), self.origins.groups.values()
        states = (each for group in groups for each in group.members.states(now))
        return {each.name for each in states if each.state is State.EJECTED}

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
