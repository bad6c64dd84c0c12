"""The process that keeps the journal of purges, answers operators, and tells Prometheus.

It alone decides how servers and experiments stand (`surroundings.overseer`): by orders, and by
checks that are made once for a node, however many workers it has.

It reads no client's bytes, and no client waits for it: where it dies, workers go on serving by the
purges that they know of, purges are refused for as long as it takes to start another one, and
that one finds in the journal all that was acknowledged.
"""

from __future__ import annotations

import itertools
import random
import secrets
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from edge import __version__
from edge.admin.desk import Desk
from edge.admin.node import NodeControl
from edge.admin.socket import AdminSocket
from edge.admin.standing import StandingControl
from edge.admin.switchboard import Switchboard, node_state
from edge.build import kind
from edge.cache.journal import Journal
from edge.cache.shards import owner_of
from edge.config import behind, policies
from edge.observe.errorlog import ErrorLog
from edge.observe.record import counted
from edge.observe.scrape import Scrapes, publishing
from edge.process.leash import Collar, Crew, Drain, Ready, Reload, Reloaded, Settings, Taken
from edge.purging.backlog import Backlog
from edge.purging.envoy import Envoy
from edge.purging.execution import Purging
from edge.purging.recorder import settle_all
from edge.serving.shielding import Voice
from edge.surroundings.behind import Surroundings
from edge.surroundings.orderbook import OrderBook
from edge.surroundings.overseer import Overseer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edge.admin.call import Caller, Handler
    from edge.config import Config
    from edge.listen.connection import ConnectionPolicy
    from edge.process.leash import Worker
    from edge.process.place import Place
    from edge.serving.visit import Parts

CLEANUP_S: Final = 5.0
LAST_WORDS_S: Final = 0.2
INNER_CALLERS: Final = 4_096  # workers', and each has only so many calls at once


def serve(place: Place) -> None:
    """Be the keeper, to its end; raises OSError."""
    trio.run(Keeper(place).run)


class Keeper:
    """The keeper of a node. Making one binds its addresses; raises OSError."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._collar = Collar(place.leash)
        config = place.config
        self._error_log = ErrorLog(config.node.error_log)
        self._journal = Journal(
            place.root,
            log=partial(self._error_log.tell, "journal"),
            shared=place.purge_number,
        )
        self._tally = place.tallies.keep()
        self._started = place.clock.now()
        self._desks = [Desk(place.paths.desk(slot)) for slot in range(place.workers)]
        self._switchboard = Switchboard(self._desks)
        self._crew: tuple[Worker, ...] = ()
        self._asks = itertools.count(1)
        self._reloads: dict[int, _Awaited] = {}
        self._has_told = False
        self._stopping = trio.Event()
        self._overseer = Overseer(
            place.board,
            OrderBook(place.root, partial(self._error_log.tell, "orders")),
            now=place.clock.now,
            random=random.random,
            tell=self._error_log.tell,
        )
        self._surroundings = Surroundings(
            now=place.clock.now, chance=random.random, tell=self._error_log.tell, asks=False
        )
        self._envoy = self._made_envoy()
        self._nursery: trio.Nursery | None = None
        self._take_up(config)
        self._control = NodeControl(
            self,
            self._journal,
            Purging(
                self._journal,
                self._settle,
                place.clock.now,
                partial(self._error_log.note, "purge"),
                partial(self._error_log.tell, "purge-request"),
                self._envoy.send,
            ),
            self._switchboard,
            self._settle,
            place.source.name,
        )
        self._standing = StandingControl(
            self._overseer, self._switchboard, place.tallies, place.clock.now
        )
        self._scrapes = self._made_scrapes()
        self._admin = self._made_admin(config.node.admin)
        self._inner = AdminSocket(
            place.root / "keeper.sock",
            self._control.inner_routes(),
            self._told,
            listener=place.desk,
            callers=INNER_CALLERS,
        )

    def _made_envoy(self) -> Envoy:
        """Who sends purges to shields, which are set aside while they are owed one."""
        tell = partial(self._error_log.tell, "shields")
        numbers = itertools.count(1)
        prefix = f"purge-{secrets.token_hex(5)}"
        return Envoy(
            Backlog(self._place.root, tell),
            aside=lambda url, why: self._overseer.set_aside(f"{behind.SHIELD} {url}", why),
            back=lambda url: self._overseer.take_back(f"{behind.SHIELD} {url}"),
            now=time.time,  # by which shields go
            new_id=lambda: f"{prefix}-{next(numbers):x}",
            tell=tell,
        )

    def _made_scrapes(self) -> Scrapes | None:
        address = self._place.config.node.metrics
        tell = partial(self._error_log.tell, "metrics")
        return Scrapes(address, self._place.tallies, tell) if address is not None else None

    def _made_admin(self, path: Path | None) -> AdminSocket | None:
        routes: dict[bytes, dict[bytes, Handler]] = {
            **self._control.routes(),
            **self._standing.routes(),
        }
        return AdminSocket(path, routes, self._told) if path is not None else None

    def _told(self, caller: Caller, words: str, done: bool) -> None:
        say = self._error_log.note if done else self._error_log.tell
        say("admin", f"{words}; by {caller}")

    async def run(self) -> None:
        """Keep the journal until told to end."""
        try:
            await self._open_journal()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publishing, lambda: self._tally.publish(self._own_state()))
                for sockets in (self._scrapes, self._admin, self._inner):
                    if sockets is not None:
                        nursery.start_soon(sockets.run)
                nursery.start_soon(self._overseer.run)
                nursery.start_soon(self._envoy.run)
                self._nursery = nursery
                self._surroundings.take_up(self._config, self._behind, nursery)
                nursery.start_soon(self._heed)
                await self._collar.say(Ready())
                await self._stopping.wait()
                # Who waited for the settings that replace this keeper is being told just now.
                nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS_S * self._has_told
        finally:
            if self._admin is not None:
                self._admin.close()
            with trio.move_on_after(CLEANUP_S, shield=True):
                await self._journal.close()
            self._error_log.close()
            self._collar.close()

    async def _open_journal(self) -> None:
        """Know what has been purged. Where that cannot be known, what was stored is of another
        birth from now on, and its shards are emptied when they are opened."""
        estate = self._place.estate
        if not await self._journal.open(estate.birth):
            await self._journal.begin(estate.renew_birth())

    async def _settle(self) -> None:
        await settle_all(self._desks)

    # What the parent says.

    async def _heed(self) -> None:
        async for message, text in self._collar.heard():
            match message:
                case Drain():
                    self._stopping.set()  # and hear on, until the end
                case Crew():
                    self._crew = message.workers
                case Settings():
                    self._reopen_logs()
                    self._take_up(self._place.source.parse(text), anew=True)
                    await self._collar.say(Taken(message.turn))
                case Reloaded():
                    self._hear_of(message)
                case _:
                    pass
        self._stopping.set()

    def _reopen_logs(self) -> None:
        self._error_log.reopen()

    def _take_up(self, config: Config, *, anew: bool = False) -> None:
        """Go by these settings, as far as the keeper does."""
        self._config = config
        self._behind = self._surroundings.made(config, anew=anew)
        self._parts = self._place.trade.parts(config, self._behind, b"")
        if self._nursery is not None:
            self._surroundings.take_up(config, self._behind, self._nursery)
        self._policy = policies.connection_policy(config)
        self._take_up_shields(config)
        aside = {f"{behind.SHIELD} {url}": why for url, why in self._envoy.behind().items()}
        self._overseer.take_up(behind.roll(config), behind.checkable(config), aside)

    def _take_up_shields(self, config: Config) -> None:
        """Send purges to the shields of these settings; raises ValueError."""
        told = config.shield
        if told is None:
            self._envoy.take_up((), None)
        else:
            secret = self._behind.secret_of(told.secret, "shield.secret")
            self._envoy.take_up(behind.shields(told), Voice(config.node.name.encode(), secret))

    def _hear_of(self, told: Reloaded) -> None:
        awaited = self._reloads.get(told.ask)
        if awaited is not None and (told.done or told.faults or not awaited.to_the_end):
            awaited.told = told
            awaited.news.set()
            self._has_told = True

    # What the control asks for.

    def parts(self) -> Parts:
        """What follows from the settings in force, without upstreams."""
        return self._parts

    def policy(self) -> ConnectionPolicy:
        """The policy of connections by the settings in force."""
        return self._policy

    def owner(self, digest: bytes) -> int:
        """The slot of the worker that owns a key."""
        return owner_of(digest, self._place.estate.shards, self._place.workers)

    async def reload(self, *, wait: bool) -> Reloaded:
        """Have the settings read again by the parent."""
        ask = next(self._asks)
        awaited = self._reloads[ask] = _Awaited(to_the_end=wait)
        try:
            await self._collar.say(Reload(ask))
            await awaited.news.wait()
        finally:
            del self._reloads[ask]
        assert awaited.told is not None
        return awaited.told

    async def drain(self) -> None:
        """Have the parent end the node."""
        await self._collar.say(Drain())

    async def status(self) -> Mapping[str, Any]:
        """What `edge status` tells."""
        states = await self._switchboard.states()
        told = node_state(states)
        swept = told.pop("purges", {})
        told.pop("servers", None)  # each worker's own view of them, which `edge origin list` tells
        return {
            "version": __version__,
            "build": kind(),
            "name": self._config.node.name,
            "uptime_s": round(self._place.clock.now() - self._started, 3),
            "workers": [self._worker(each, states[each.slot]) for each in self._crew],
            **counted(self._place.tallies),
            **told,
            "purges": {**self._own_state()["purges"], **swept},
        }

    def _worker(self, worker: Worker, state: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "slot": worker.slot,
            "pid": worker.pid,
            "uptime_s": round(self._place.clock.now() - worker.since, 3),
            "died": worker.died,
            "answers": state is not None,
            "connections": state["connections"]["open"] if state is not None else None,
        }

    def _own_state(self) -> dict[str, Any]:
        purges = self._journal.follower().current()
        return {
            "purges": {
                "latest": purges.latest,
                "floor": purges.floor,
                "scopes": len(purges),
                "journal": asdict(self._journal.statistics()),
            }
        }


class _Awaited:
    """A reload that somebody waits for."""

    __slots__ = ("news", "to_the_end", "told")

    def __init__(self, *, to_the_end: bool) -> None:
        self.news = trio.Event()
        self.to_the_end = to_the_end
        self.told: Reloaded | None = None
