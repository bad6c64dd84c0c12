"""One worker: builds the parts, owns every task, and ends them in the right order.

Nurseries stand inside one another as their tasks depend on each other: plumbing (logs, pools, what
the keeper asks) outlives background fetches, which outlive clients' connections, which outlive the
listeners. Told to drain, the worker cancels the innermost and lets the rest finish within the
drain deadline.

Settings come from the parent, which has found them good. What follows from them is built whole,
then one reference is swapped; exchanges under way finish with what they began with. Settings that
only a new process can take up come with one: the old worker *releases* its slot then. It takes in
nobody any more, lets go of its disk, owns no key from there on, and drains; what its clients still
ask for, its successor answers.
"""

from __future__ import annotations

import random
import secrets
import signal
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from edge.admin.desk import Desk
from edge.admin.socket import AdminSocket
from edge.admin.worker import Control
from edge.cache.flight import Flights
from edge.cache.held import Held
from edge.cache.journal import follower_of
from edge.cache.lending import LendingStore
from edge.cache.reaper import Reaper
from edge.cache.shards import Shards
from edge.cache.store import Store
from edge.cache.threads import Threads
from edge.coding.coders import Coders
from edge.coding.library import Library
from edge.config import policies
from edge.config.share import share_of
from edge.errors import Side
from edge.hop.desk import HopDesk, OwnersDesk, SoleDesk
from edge.hop.owner import Owners
from edge.hop.relay import Relays, hops_told
from edge.listen import lane
from edge.listen.connection import Connection
from edge.listen.hop import HopConnection
from edge.listen.local import connect_local
from edge.listen.tcp import OUT_OF_DESCRIPTORS, SHED_PAUSE_S, Connections, accept, in_a_task
from edge.observe.accesslog import AccessLog
from edge.observe.errorlog import ErrorLog
from edge.observe.record import Measurements, Outcome, Record, text
from edge.observe.scrape import publishing
from edge.process.garbage import collect_in_pieces
from edge.process.leash import Collar, Dismiss, Drain, Ready, Release, Released, Settings, Taken
from edge.purging.execution import Purging
from edge.purging.recorder import RemoteRecorder
from edge.serving.answer import refusal
from edge.serving.delivery import own_status
from edge.serving.errand import Errands
from edge.serving.exchange import Exchange
from edge.serving.quick import Quick
from edge.serving.visit import Tools
from edge.surroundings.behind import Surroundings
from edge.surroundings.heeding import Heeding

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.admin.call import Caller, Handler
    from edge.config import Config
    from edge.errors import ExchangeError
    from edge.process.place import Place
    from edge.purging.late import Late
    from edge.serving.visit import Parts
    from edge.surroundings.standing import Standing
    from edge.upstream.transport import SocketTransport
    from edge.wire.message import ResponseHead

LAST_CALLS_S: Final = 2.0  # for who asks about this worker just when it is replaced
CLEANUP_S: Final = 5.0  # for the store to be written out at the end
MOST_HOPS: Final = 1_000_000  # each carries a request of one client, and those are bounded
DIALS: Final = 8  # newcomers want the descriptors that are given up, too
CODING_THREADS: Final = 2  # what they wait for is a core
DESK_CALLERS: Final = 4_096  # the keeper's, on behalf of its own callers


def serve(place: Place) -> None:
    """Be the worker of a place, to its end; raises OSError, ValueError."""
    collect_in_pieces()
    trio.run(Worker(place).run)


class Worker:
    """A worker's parts and tasks. Raises OSError, ValueError when made."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._collar = Collar(place.leash)
        self.config = config = share_of(place.config, place.workers, place.slot)
        self._clock = place.clock
        self.measurements = Measurements(place.tallies, place.tally, now=self._clock.now())
        self._stopping = trio.Event()
        self._dismissed = trio.Event()
        self._owners = Owners(place.slot, place.workers, place.estate.shards)
        self._hops = Connections(MOST_HOPS)
        self._hop_scope = trio.CancelScope()
        self._error_log = ErrorLog(config.node.error_log)
        self._access_log = AccessLog(
            config.node.access_log, trouble=partial(self._error_log.tell, "access-log")
        )
        self._connections = Connections(config.limits.connections)
        self._policy = policies.connection_policy(config)
        self._ids = _request_ids()
        self._drain_s = config.node.drain
        self._surroundings = Surroundings(
            now=self._clock.now, chance=random.random, tell=self._error_log.tell, renew=self._renew
        )
        self._disk = self._made_disk()
        self._listeners = list(place.listeners)
        self._routes: dict[bytes, dict[bytes, Handler]] = {}  # filled when there is what to ask
        self._desk_scope = trio.CancelScope()
        self._desk: AdminSocket | None = None
        self._desk_done = trio.Event()
        self._lane: lane.Lane[Record] | None = None
        self._now = trio.CancelScope()  # cancelled when there is no patience left for draining

    def _made_disk(self) -> Shards:
        told, place = self.config.store, self._place
        return Shards(
            place.estate,
            place.slot,
            place.workers,
            quota_bytes=told.disk,
            free_floor_bytes=told.free_floor,
            log=partial(self._error_log.tell, "store"),
            variants=told.variants,
        )

    async def run(self) -> None:
        """Serve until told to drain, then drain."""
        coding, recoding = Threads(CODING_THREADS, "edge-coding"), Threads(1, "edge-recoding")
        self._coders = Coders(coding, recoding)
        tell = partial(self._error_log.tell, "dictionaries")
        self._library = Library(self._place.shelf, Threads, tell)
        try:
            await self._disk.open()
            with self._now:
                await self._run()
        finally:
            self._close_listeners()
            with trio.move_on_after(CLEANUP_S, shield=True):
                await self._disk.close()
                await coding.close()
                await recoding.close(0)  # what it is at may take seconds, and nobody waits for it
                await self._library.close()
            self._error_log.close()
            self._collar.close()

    async def _run(self) -> None:
        async with trio.open_nursery() as plumbing:  # logs, pools: the last to go
            plumbing.start_soon(self._access_log.run)
            async with trio.open_nursery() as background:  # fetches outlive clients
                self._build(plumbing, background)
                plumbing.start_soon(self._reaper.run)
                plumbing.start_soon(self._surroundings.watch)
                plumbing.start_soon(publishing, lambda: self.measurements.publish(self._state()))
                plumbing.start_soon(self._answer_keeper)
                plumbing.start_soon(self._heed)
                plumbing.start_soon(self._heed_signals)
                async with trio.open_nursery() as hops:  # other workers may need this one longer
                    hops.start_soon(self._take_hops, hops)
                    deadline = await self._serve_clients()
                    await self._collar.say(Released())
                    await self._dismissed.wait()
                    self._hops.drain()
                    self._hop_scope.cancel()
                    hops.cancel_scope.deadline = deadline
                self._coders.stop_recompressing()
                background.cancel_scope.deadline = deadline
            plumbing.cancel_scope.cancel()

    async def _serve_clients(self) -> float:
        """Serve clients until told to drain, and then those that there are; the time by which
        all has to end."""
        async with trio.open_nursery() as clients:  # one task a connection
            async with trio.open_nursery() as accepting:
                take_in = self._taking_in(clients)
                tell = partial(self._error_log.tell, "accept")
                for listener in self._listeners:
                    accepting.start_soon(accept, listener, self._connections, take_in, tell)
                await self._collar.say(Ready())
                await self._stopping.wait()
                accepting.cancel_scope.cancel()
            self._close_listeners()
            self._connections.drain()
            if self._lane is not None:
                self._lane.stop()
            deadline = trio.current_time() + self._drain_s
            clients.cancel_scope.deadline = deadline
        return deadline

    async def _take_hops(self, hops: trio.Nursery) -> None:
        """Answer what other workers relay, until the slot is another process's."""
        if self._place.hop is None:
            return
        take_in = in_a_task(self._hops, self._hop_connection, hops)
        with self._hop_scope, self._place.hop:
            tell = partial(self._error_log.tell, "hop")
            clients = self._connections  # any of which is worth less than another worker's
            await accept(self._place.hop, self._hops, take_in, tell, giving_way=clients)

    def _hop_connection(self, transport: SocketTransport) -> HopConnection:
        return HopConnection(transport, self._exchange.serve_relayed, self._owners_desk)

    def _build(self, plumbing: trio.Nursery, background: trio.Nursery) -> None:
        """The parts that live as long as the node."""
        self._plumbing = plumbing
        place, told = self._place, self.config.store
        tell = partial(self._error_log.tell, "board")
        self._heeding = Heeding(place.board, place.tally, place.slot, tell)
        plumbing.start_soon(self._heeding.run)
        trouble = partial(self._error_log.tell, "journal")
        purges = follower_of(place.root, place.estate.birth, place.purge_number, trouble)
        recorder = RemoteRecorder(Desk(place.paths.keeper))
        self._store = (
            self._lending_store(self._disk, self._owners)
            if place.workers > 1
            else Store(
                told.memory, self._disk, object_bytes=told.object_memory, variants=told.variants
            )
        )
        self._reaper = Reaper(self._disk, purges.current)
        self._flights = Flights[Held]()
        now = self._clock.now
        self._tools = Tools(
            store=self._store,
            flights=self._flights,
            purges=purges,
            purging=Purging(
                recorder,
                recorder.settle,
                now,
                partial(self._error_log.note, "purge"),
                partial(self._error_log.tell, "purge-request"),
                partial(self._send_ahead, recorder),
            ),
            errands=Errands(self._store, self._flights, purges, now, self._complain),
            background=background,
            now=now,
            new_id=self._ids,
            log=self._log,
            complain=self._complain,
            coders=self._coders,
            library=self._library,
        )
        if isinstance(self._store, LendingStore):
            self._relay_by(self._owners, self._store)
        self._surroundings.heed(self._heeding.standing, self.config)
        self._exchange = Exchange(self._tools, self._parts(self.config))
        self._heeding.follow(self._heed_standing)
        what = self._exchange, self._tools, self._policy.limits, self._log_all
        relays = self._tools.relays
        self._quick = Quick(*what) if relays is None else HopDesk(*what, relays)
        self._owners_desk = SoleDesk(self._tools) if relays is None else OwnersDesk(*what, relays)
        control = Control(
            self._tools,
            lambda: self._exchange.parts,
            lambda: self._policy,
            self._state,
            self._store.settle,
        )
        self._routes.update(control.routes())

    async def _send_ahead(
        self, recorder: RemoteRecorder, order: bytes, /, *, later: bool = False
    ) -> tuple[Late, ...]:
        """Have the shields purge, if there are any."""
        if self.config.shield is None:
            return ()
        return await recorder.send_ahead(order, later=later)

    def _lending_store(self, disk: Shards | None, owners: Owners) -> LendingStore:
        told = self.config.store
        return LendingStore(
            told.memory,
            disk,
            object_bytes=told.object_memory,
            variants=told.variants,
            leases=self._place.leases,
            owns=owners.owns,
        )

    def _relay_by(self, owners: Owners, store: LendingStore) -> None:
        """Have the store's part answered from here, and the rest by whose it is."""
        paths, tools = self._place.paths, self._tools

        async def dial(slot: int) -> SocketTransport:
            for _ in range(DIALS):
                try:
                    return await connect_local(Path(paths.hop(slot)))
                except OSError as error:
                    if error.errno not in OUT_OF_DESCRIPTORS or not self._connections.shed_one():
                        raise
                await trio.sleep(SHED_PAUSE_S)  # for the one that was shed to end
            return await connect_local(Path(paths.hop(slot)))

        relays = Relays(owners, store, dial)
        tools.store, tools.relays = store, relays
        tools.errands = Errands(
            store, self._flights, tools.purges, tools.now, self._complain, relays.owns
        )
        self._plumbing.start_soon(relays.run)

    async def _answer_keeper(self) -> None:
        """Tell the keeper what it asks, until the slot is another process's."""
        place = self._place
        desk = AdminSocket(
            place.root / "desk",
            self._routes,
            self._told,
            listener=place.desk,
            callers=DESK_CALLERS,
        )
        self._desk = desk
        with self._desk_scope:
            await desk.run()
        self._desk_done.set()

    def _told(self, caller: Caller, words: str, done: bool) -> None:
        if not done:  # the keeper has told what it was for
            self._error_log.tell("desk", f"{words}; by {caller}")

    def _parts(self, config: Config, *, anew: bool = False) -> Parts:
        """All that follows from `config`; raises OSError, ValueError, and then nothing has
        changed."""
        behind = self._surroundings.made(config, anew=anew)
        parts = self._place.trade.parts(config, behind, self._place.salt)
        self._surroundings.take_up(config, behind, self._plumbing)
        return parts

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
            read_plain=self._quick.read,
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

    def _log_all(self, records: list[Record]) -> None:
        self.measurements.record_all(records)
        self._access_log.add_all(records)

    def _complain(self, kind: str, message: str, request_id: str | None) -> None:
        self._error_log.tell(kind, message, request_id=request_id)

    def _close_listeners(self) -> None:
        while self._listeners:
            listener = self._listeners.pop()
            trio.lowlevel.notify_closing(listener)
            listener.close()

    # What the parent says.

    async def _heed(self) -> None:
        async for message, given in self._collar.heard():
            match message:
                case Settings():
                    self._take_up(self._place.source.parse(given))
                    await self._collar.say(Taken(message.turn))
                case Release():
                    await self._release()
                case Drain(at_once=True):
                    self._now.cancel()
                case Drain():
                    self._stopping.set()
                case Dismiss():
                    self._dismissed.set()
                case _:
                    pass
        self._now.cancel()  # there is no node without a parent

    async def _heed_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            await signals.__anext__()  # perhaps to the parent too: one TERM to all is asked once
            if not self._stopping.is_set():
                await self._release()  # and the parent has another one take in newcomers
            await signals.__anext__()
            self._now.cancel()

    async def _release(self) -> None:
        """Let another process have the slot. What is still asked here is asked there from now
        on, and nothing that this one knows of is an answer any more."""
        self._stopping.set()
        if self._desk is not None:
            self._desk.stop()
            with trio.move_on_after(LAST_CALLS_S):
                await self._desk_done.wait()
        self._desk_scope.cancel()
        self._hop_scope.cancel()
        self._hops.drain()
        if self._tools.relays is not None:
            self._tools.relays.disown()
        else:
            nothing = replace(self._owners, slot=-1)
            self._relay_by(nothing, self._lending_store(None, nothing))
        await self._disk.close()
        self._dismissed.set()
        await self._collar.say(Released())

    def _take_up(self, config: Config) -> None:
        """Go by these settings, as far as a process that runs can."""
        self._access_log.reopen()
        self._error_log.reopen()
        self.config = config = share_of(config, self._place.workers, self._place.slot)
        parts = self._parts(config, anew=True)
        self._policy = policies.connection_policy(config)
        self._connections.most = config.limits.connections
        self._drain_s = config.node.drain
        self._exchange.parts = parts
        self._quick.take_up(self._policy.limits)
        self._owners_desk.take_up(self._policy.limits)

    def _heed_standing(self, standing: Standing) -> None:
        """Go by what checks have found and operators ordered."""
        if self._surroundings.heed(standing, self.config):
            self._renew()

    def _renew(self) -> None:
        """Go by what is behind the node now, under the same settings."""
        try:
            self._exchange.parts = self._parts(self.config)
        except (OSError, ValueError) as error:  # a file has gone that was there before
            self._error_log.tell("settings", f"all goes on as it was: {error}")

    # Telling.

    def _state(self) -> dict[str, Any]:
        """What this worker holds and does, and what it did beside answering."""
        return {
            "connections": asdict(self._connections.statistics()),
            "store": asdict(self._store.statistics()),
            "purges": {"dead_on_disk": asdict(self._reaper.statistics())},
            "hops": hops_told(self._tools.relays),
            "codings": asdict(self._coders.statistics()),
            "dictionaries": asdict(self._library.statistics()),
            "flights": len(self._flights),
            **self._surroundings.statistics(),
            "access_log": asdict(self._access_log.statistics()),
            "error_log": asdict(self._error_log.statistics()),
            **self._place.trade.state(self._exchange.parts),
        }


def _request_ids() -> Callable[[], str]:
    """Makes ids that no other node or run makes: a random beginning and a number."""
    prefix, numbers = secrets.token_hex(5), count(1)
    return lambda: f"{prefix}-{next(numbers):x}"
