"""One worker: builds the parts, owns every task, and ends them in the right order.

Nurseries stand inside one another as their tasks depend on each other: plumbing (logs, pools, the
admin socket) outlives background fetches, which outlive clients' connections, which outlive the
listeners. TERM cancels the innermost and lets the rest finish within the drain deadline.

HUP reads the settings again. What follows from them is built whole, then one reference is swapped;
exchanges under way finish with what they began with. A setting that only a new process can take up
(where to listen, the store, the logs, the admin socket) is named in the log and waits for that.
"""

from __future__ import annotations

import gc
import secrets
import signal
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import trio

from edge import __version__
from edge.accesslog import AccessLog
from edge.admin import AdminSocket
from edge.answer import refusal
from edge.cache.estate import Estate
from edge.cache.flight import Flights
from edge.cache.held import Held
from edge.cache.journal import Journal
from edge.cache.reaper import Reaper
from edge.cache.shards import Shards
from edge.cache.store import Store
from edge.clock import Clock
from edge.config import policies
from edge.control import Control
from edge.delivery import own_status
from edge.errand import Errands
from edge.errorlog import ErrorLog
from edge.errors import Side
from edge.exchange import Exchange
from edge.listen import lane
from edge.listen.connection import Connection
from edge.listen.tcp import Connections, accept, address_of, bind, in_a_task
from edge.observe import Measurements, Outcome, Record, text
from edge.purging import Purging
from edge.quick import Quick
from edge.scrape import Scrapes, publishing
from edge.settings import Fault, SettingsError
from edge.tally import Tallies
from edge.upstream.fetch import Upstream
from edge.visit import Parts, Tools

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from edge.call import Caller, Handler
    from edge.config import Config
    from edge.errors import ExchangeError
    from edge.upstream.transport import SocketTransport
    from edge.wire.message import ResponseHead

CLEANUP_S: Final = 5.0  # for the store to be written out at the end
# Before a collection; with Python's 700 the 99th percentile of misses was 106 ms instead of 88.
YOUNG_OBJECTS: Final = 10_000


def serve(config: Config, *, source: Path | None, reload: Callable[[], Config]) -> int:
    """Run a node until it is told to stop; the exit code. `source` is named in the log."""
    try:
        node = Node(config, reload, str(source or "the command line"))
    except (OSError, ValueError) as error:
        return _fail(error)
    gc.freeze()  # modules and settings are here to stay: not to be looked through again and again
    gc.set_threshold(YOUNG_OBJECTS)
    try:
        trio.run(node.run)
    except OSError as error:
        return _fail(error)
    return 0


def _fail(error: OSError | ValueError) -> int:
    """Say why there is no node, in words; the exit code."""
    words = isinstance(error, OSError) and error.filename is None and error.strerror
    print(f"edge: {words or error}", file=sys.stderr)
    return 1


class Node:
    """A node's parts and tasks. Making one binds its addresses; raises OSError, ValueError."""

    def __init__(self, config: Config, reload: Callable[[], Config], source: str) -> None:
        self.config = config
        self._reload = reload
        self._source = source
        self._clock = Clock()
        self._tallies = Tallies(config.node.workers)
        self.measurements = Measurements(self._tallies, 0, now=self._clock.now())
        self._stopping = trio.Event()
        self._error_log = ErrorLog(config.node.error_log)
        self._access_log = AccessLog(
            config.node.access_log, trouble=partial(self._error_log.tell, "access-log")
        )
        self._connections = Connections(config.limits.connections)
        self._policy = policies.connection_policy(config)
        self._ids = _request_ids()
        self._drain_s = config.node.drain
        self._response_limits = policies.response_limits(config)
        self._upstreams: dict[str, Upstream] = {}
        self._upstreams = self._made_upstreams(config)
        self._tended: dict[Upstream, trio.CancelScope] = {}
        self._started = self._clock.now()
        directory, tell = _store_directory(config), self._error_log.tell
        self._estate = Estate(directory)
        self._disk: Shards | None = None  # once it is known which purges it is to be judged by
        self._journal = Journal(directory, log=partial(tell, "journal"))
        self._routes: dict[bytes, dict[bytes, Handler]] = {}  # filled when there is what to ask
        self._admin: AdminSocket | None = None
        self._listeners = _bound(config)
        self._scrapes = self._made_scrapes()
        self._lane: lane.Lane[Record] | None = None
        self._now = trio.CancelScope()  # cancelled when there is no patience left for draining

    def _made_scrapes(self) -> Scrapes | None:
        address = self.config.node.metrics
        tell = partial(self._error_log.tell, "metrics")
        return Scrapes(address, self._tallies, tell) if address is not None else None

    def _made_disk(self) -> Shards:
        told = self.config.store
        return Shards(
            self._estate,
            0,
            1,
            quota_bytes=told.disk,
            free_floor_bytes=told.free_floor,
            log=partial(self._error_log.tell, "store"),
            variants=told.variants,
        )

    async def run(self) -> None:
        """Serve until TERM or INT, then drain."""
        self._admin = self._made_admin()
        try:
            await trio.to_thread.run_sync(self._estate.enter, 1)
            await self._open_journal()
            self._disk = self._made_disk()
            await self._disk.open()
            with self._now:
                await self._run()
        finally:
            self._close_listeners()
            if self._admin is not None:
                self._admin.close()
            if self._scrapes is not None:
                self._scrapes.close()
            with trio.move_on_after(CLEANUP_S, shield=True):
                await self._journal.close()  # before the store's lock is another process's to take
                if self._disk is not None:
                    await self._disk.close()
            self._estate.leave()
            self._error_log.close()

    async def _open_journal(self) -> None:
        """Know what has been purged; what was stored without that being known is forgotten."""
        if not await self._journal.open(self._estate.birth):
            birth = await trio.to_thread.run_sync(self._estate.renew_birth)
            await self._journal.begin(birth)

    async def _run(self) -> None:
        async with trio.open_nursery() as plumbing:  # logs, pools, admin: the last to go
            plumbing.start_soon(self._access_log.run)
            async with trio.open_nursery() as background:  # fetches outlive clients
                self._build(plumbing, background)
                plumbing.start_soon(self._reaper.run)
                plumbing.start_soon(publishing, lambda: self.measurements.publish(self._state()))
                if self._scrapes is not None:
                    plumbing.start_soon(self._scrapes.run)
                if self._admin is not None:
                    plumbing.start_soon(self._admin.run)
                await plumbing.start(self._heed_signals)  # before anyone is told that we are ready
                async with trio.open_nursery() as clients:  # one task a connection
                    async with trio.open_nursery() as accepting:
                        take_in = self._taking_in(clients)
                        for listener in self._listeners:
                            accepting.start_soon(
                                accept,
                                listener,
                                self._connections,
                                take_in,
                                partial(self._error_log.tell, "accept"),
                            )
                        self._say_ready()
                        await self._stopping.wait()
                        accepting.cancel_scope.cancel()
                    self._close_listeners()
                    self._connections.drain()
                    if self._lane is not None:
                        self._lane.stop()
                    deadline = trio.current_time() + self._drain_s
                    clients.cancel_scope.deadline = deadline
                background.cancel_scope.deadline = deadline
            plumbing.cancel_scope.cancel()

    def _build(self, plumbing: trio.Nursery, background: trio.Nursery) -> None:
        """The parts that live as long as the node."""
        assert self._disk is not None, "run opens it"
        self._plumbing = plumbing
        told, purges = self.config.store, self._journal.follower()
        self._store = Store(
            told.memory, self._disk, object_bytes=told.object_memory, variants=told.variants
        )
        self._reaper = Reaper(self._disk, purges.current)
        self._flights = Flights[Held]()
        now = self._clock.now
        self._tools = Tools(
            store=self._store,
            flights=self._flights,
            purges=purges,
            purging=Purging(
                self._journal,
                self._store.settle,
                now,
                partial(self._error_log.note, "purge"),
                partial(self._error_log.tell, "purge-request"),
            ),
            errands=Errands(self._store, self._flights, purges, now, self._complain),
            background=background,
            now=now,
            new_id=self._ids,
            log=self._log,
            complain=self._complain,
        )
        self._exchange = Exchange(self._tools, self._parts(self.config))
        self._quick = Quick(self._exchange, self._tools, self._policy.limits)
        control = Control(
            self._tools,
            lambda: self._exchange.parts,
            lambda: self._policy,
            self._journal,
            status=self.status,
            reload=self._read_settings_again,
            drain=self._stopping.set,
            source=self._source,
        )
        self._routes.update(control.routes())

    def _made_admin(self) -> AdminSocket | None:
        path = self.config.node.admin
        return AdminSocket(path, self._routes, self._told) if path is not None else None

    def _told(self, caller: Caller, words: str, done: bool) -> None:
        say = self._error_log.note if done else self._error_log.tell
        say("admin", f"{words}; by {caller}")

    def _parts(self, config: Config) -> Parts:
        """All that follows from `config`; raises ValueError, and then nothing has changed."""
        parts = Parts(
            name=config.node.name.encode(),
            sites=policies.sites(config),
            upstreams=self._made_upstreams(config),
            trusted=policies.trusted(config),
            salt=secrets.token_bytes(16),
        )
        self._response_limits = policies.response_limits(config)
        self._tend_only(dict(parts.upstreams))
        return parts

    def _made_upstreams(self, config: Config) -> dict[str, Upstream]:
        """One for each origin: the same as before, where all that it was told is."""
        limits = policies.response_limits(config)
        before = self._upstreams if limits == self._response_limits else {}
        made: dict[str, Upstream] = {}
        for name, origin in policies.origins(config).items():
            old = before.get(name)
            if old is not None and old.origin == origin:
                made[name] = old
            else:
                made[name] = Upstream(origin, now=self._clock.now, limits=limits)
        return made

    def _tend_only(self, upstreams: dict[str, Upstream]) -> None:
        """Begin with the new ones and end with those that are left out."""
        self._upstreams = upstreams
        wanted = set(upstreams.values())
        for upstream, scope in self._tended.items():
            if upstream not in wanted:
                scope.cancel()
        for upstream in wanted - self._tended.keys():
            self._tended[upstream] = trio.CancelScope()
            self._plumbing.start_soon(self._tend, upstream)

    async def _tend(self, upstream: Upstream) -> None:
        """Close an upstream's idle connections in time, and all once settings left it out."""
        with self._tended[upstream]:
            await upstream.run()
        del self._tended[upstream]

    def _taking_in(self, clients: trio.Nursery) -> Callable[[SocketTransport], None]:
        """Takes in connections: without a task where there can be a lane, else each with one."""
        if not lane.IS_POSSIBLE:
            return in_a_task(self._connections, self._connection, clients)
        self._lane = lane.Lane(
            self._connections, self._quick, self._parkable, lambda: self._policy, clients
        )
        clients.start_soon(self._lane.run)
        return self._lane.take_in

    def _connection(self, transport: SocketTransport) -> Connection:
        return Connection(
            transport, transport.peer, self._policy, self._exchange.serve, self._refuse
        )

    def _parkable(self, transport: SocketTransport, first: bytes) -> Connection:
        return Connection(
            transport,
            transport.peer,
            self._policy,
            self._exchange.serve,
            self._refuse,
            first=first,
            may_park=True,
        )

    def _refuse(self, peer: bytes, error: ExchangeError) -> tuple[ResponseHead, bytes]:
        """The answer to what never became a request, with its line in the log."""
        record = Record(time=self._clock.now(), id=self._ids(), client=text(peer))
        record.status, record.error = error.status, error.failure.slug
        record.cache, record.reason = Outcome.REFUSED, error.failure.slug
        self._log(record)
        if error.side is Side.US:
            self._complain(error.failure.slug, error.detail, record.id)
        status = own_status(self._exchange.parts.name, error)
        head, body = refusal(error, record.id, self._clock.now())
        return replace(head, headers=head.headers.plus((b"cache-status", status))), body

    def _log(self, record: Record) -> None:
        self.measurements.record(record)
        self._access_log.add(record)

    def _complain(self, kind: str, message: str, request_id: str | None) -> None:
        self._error_log.tell(kind, message, request_id=request_id)

    def _say_ready(self) -> None:
        where = " ".join(f"http://{address_of(listener)}" for listener in self._listeners)
        print(f"ready {where}", flush=True)

    def _close_listeners(self) -> None:
        while self._listeners:
            listener = self._listeners.pop()
            trio.lowlevel.notify_closing(listener)
            listener.close()

    # Signals.

    async def _heed_signals(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    with suppress(SettingsError):  # told in the log
                        self._read_settings_again()
                elif self._stopping.is_set():
                    self._now.cancel()  # asked twice
                else:
                    self._stopping.set()

    def _read_settings_again(self) -> list[str]:
        """Take up new settings: the names of those that only a new process can take up.

        Raises `SettingsError`, and then all is as before.
        """
        self._access_log.reopen()
        self._error_log.reopen()
        try:
            config = self._reload()
            parts = self._parts(config)
        except (SettingsError, ValueError) as error:
            raise self._not_taken(error) from error
        later = _only_for_new_processes(self.config, config)
        for name in later:
            self._error_log.note("settings", f"{name} changed: it counts from the next start on")
        self._policy = policies.connection_policy(config)
        self._connections.most = config.limits.connections
        self._drain_s = config.node.drain
        self._exchange.parts = parts
        self._quick.take_up(self._policy.limits)
        self._error_log.note("settings", f"read again from {self._source}")
        return later

    def _not_taken(self, error: SettingsError | ValueError) -> SettingsError:
        """`error` as faults of settings, told in the log."""
        if not isinstance(error, SettingsError):
            error = SettingsError([Fault(None, "", None, str(error))])
        for fault in error.faults:
            self._error_log.note("settings", f"not taken: {fault.at(self._source)}")
        return error

    # Telling.

    def status(self) -> dict[str, Any]:
        """What `edge status` tells."""
        return {
            "version": __version__,
            "name": self.config.node.name,
            "uptime_s": round(self._clock.now() - self._started, 3),
            **self.measurements.snapshot(),
            **self._state(),
        }

    def _state(self) -> dict[str, Any]:
        """What this worker holds and does, and what it did beside answering."""
        return {
            "connections": asdict(self._connections.statistics()),
            "store": asdict(self._store.statistics()),
            "purges": self._purge_status(),
            "flights": len(self._flights),
            "origins": {
                name: {
                    "servers": upstream.origin.authority.decode(),
                    **asdict(upstream.statistics()),
                }
                for name, upstream in self._upstreams.items()
            },
            "access_log": asdict(self._access_log.statistics()),
            "error_log": asdict(self._error_log.statistics()),
        }

    def _purge_status(self) -> dict[str, Any]:
        purges = self._tools.purges.current()
        return {
            "latest": purges.latest,
            "floor": purges.floor,
            "scopes": len(purges),
            "journal": asdict(self._journal.statistics()),
            "dead_on_disk": asdict(self._reaper.statistics()),
        }


def _store_directory(config: Config) -> Path:
    if config.store.dir is None:
        raise ValueError("store.dir: is not given; a node keeps its answers and purges there")
    return config.store.dir


def _bound(config: Config) -> list[socket.socket]:
    """Listeners for all addresses, or for none; raises OSError."""
    with ExitStack() as undo:
        listeners: list[socket.socket] = []
        for each in config.node.listen:
            listeners.append(bind(each.host, each.port))
            undo.callback(listeners[-1].close)
        undo.pop_all()
    return listeners


def _request_ids() -> Callable[[], str]:
    """Makes ids that no other node or run makes: a random beginning and a number."""
    prefix, numbers = secrets.token_hex(5), count(1)
    return lambda: f"{prefix}-{next(numbers):x}"


def _only_for_new_processes(old: Config, new: Config) -> list[str]:
    """The settings that differ and that a running process cannot take up."""
    names = [
        f"node.{field}"
        for field in ("listen", "workers", "admin", "metrics", "access_log", "error_log", "name")
        if getattr(old.node, field) != getattr(new.node, field)
    ]
    return names + (["store"] if old.store != new.store else [])
