"""All origins of a node, and what tends their servers, from one reading of settings to the next.

`made` builds groups from settings, out of what there is as far as it holds; it may fail, and then
nothing has changed. `take_up` makes them the ones that count: it begins to tend servers that are
new, and ends with those left out, whose idle connections are closed then, and the rest as they
are given back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from edge.upstream.group import Group
from edge.upstream.names import follow
from edge.wire.h1 import RESPONSE_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from edge.routing.health import Told
    from edge.upstream.fetch import Upstream
    from edge.upstream.group import GroupSettings, GroupStatistics
    from edge.upstream.origin import Origin
    from edge.upstream.transport import Transport


class Origins:
    """See the module; `now` is Unix seconds, `connect` stands in for the network."""

    def __init__(
        self,
        *,
        now: Callable[[], float],
        connect: Callable[[Origin], Awaitable[Transport]] | None = None,
    ) -> None:
        self.groups: Mapping[str, Group] = {}
        self._now = now
        self._connect = connect
        self._tended: dict[Upstream, trio.CancelScope] = {}

    def made(
        self, settings: Iterable[GroupSettings], limits: Limits = RESPONSE_LIMITS
    ) -> dict[str, Group]:
        """A group for each of `settings`, by name: the same one where nothing is different.

        Raises ValueError with a sentence for the operator.
        """
        return {told.name: self._group(told, limits) for told in settings}

    def _group(self, told: GroupSettings, limits: Limits) -> Group:
        before = self.groups.get(told.name)
        if before is not None and before.settings == told and before.limits == limits:
            return before
        return Group(told, before=before, now=self._now, connect=self._connect, limits=limits)

    def take_up(self, groups: Mapping[str, Group], nursery: trio.Nursery) -> None:
        """Go by `groups` from now on; what tends their servers runs in `nursery`, which has to
        outlive every fetch."""
        self.groups = groups
        wanted = {upstream for group in groups.values() for upstream in group.upstreams}
        for upstream, scope in self._tended.items():
            if upstream not in wanted:
                scope.cancel()
        for upstream in wanted - self._tended.keys():
            self._tended[upstream] = trio.CancelScope()
            nursery.start_soon(self._tend, upstream)

    async def _tend(self, upstream: Upstream) -> None:
        """Close idle connections in time, and all once settings left the server out."""
        with self._tended[upstream]:
            async with trio.open_nursery() as tending:
                tending.start_soon(upstream.run)
                tending.start_soon(follow, upstream)
        del self._tended[upstream]

    def heed(self, standing: Mapping[str, Told]) -> None:
        """Believe what checks and the operator say of servers, by their ids."""
        for group in self.groups.values():
            group.heed(standing)

    def statistics(self) -> dict[str, GroupStatistics]:
        """Every group's, by name."""
        return {name: group.statistics() for name, group in self.groups.items()}
