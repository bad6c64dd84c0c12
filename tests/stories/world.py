"""A whole node in memory, with an origin and clients that do what the story says.

Everything between the first byte from a client and the last to an origin is the real thing, built
as `node` builds it; only the connections are lines in memory, and the time of day is the story's.
Deadlines run by Trio's clock, which jumps when everyone waits.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.cache.estate import Estate
from edge.cache.flight import Flights
from edge.cache.held import Held
from edge.cache.journal import Journal
from edge.cache.leases import Leases
from edge.cache.lending import LendingStore
from edge.cache.shards import Shards
from edge.cache.store import Store
from edge.cache.threads import Inline
from edge.coding.coders import Coders
from edge.config import behind, for_proxy, policies
from edge.hop.desk import OwnersDesk
from edge.hop.owner import Owners
from edge.hop.relay import Relays
from edge.listen.connection import Connection
from edge.listen.hop import HopConnection
from edge.listen.tcp import Connections
from edge.purging.execution import Purging
from edge.purging.orders import order_from_json
from edge.serving.answer import refusal
from edge.serving.delivery import own_status
from edge.serving.errand import Errands
from edge.serving.exchange import Exchange
from edge.serving.visit import Parts, Tools
from edge.upstream.origins import Origins
from tests.stories.line import Line
from tests.stories.wire import Fields, Reply, TruncatedError, Wire, written
from tests.unit.edgeparts import parts_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from edge.cache.purge import Purge
    from edge.cache.threads import MakeWorkers
    from edge.errors import ExchangeError
    from edge.observe.record import Record
    from edge.upstream.origin import Origin
    from edge.upstream.pool import PoolStatistics
    from edge.wire.message import ResponseHead

MIDNIGHT = 1_800_000_000.0


OWNER: Final = Owners(slot=0, workers=2, shards=1)
OTHER: Final = Owners(slot=1, workers=2, shards=1)  # which owns nothing


class Edge:
    """The node. `now` is its time of day.

    With `by_hop` it has a second worker, who owns nothing, and all clients come to that one, its
    `entrance`; or every other one does, where it `takes_turns`. What is told of the node here is
    then told of the owner; but both log to `records`.
    """

    def __init__(
        self,
        sets: Sequence[str],
        disk: Shards | None,
        journal: Journal,
        origin: ScriptedOrigin,
        *,
        by_hop: bool = False,
    ) -> None:
        self.now = MIDNIGHT
        self.journal = journal
        self.records: list[Record] = []
        self.complaints: list[tuple[str, str]] = []
        self.config = for_proxy(
            ["127.0.0.1:0"], "http://origin.example", hostname="h", sets=["node.name=edge1", *sets]
        )
        self.by_hop = by_hop
        self.takes_turns = False
        self._deaths = 0
        self._hop_lines: list[Line] = []
        self._leases = Leases()
        self.store = (
            LendingStore(self.config.store.memory, disk, leases=self._leases, owns=OWNER.owns)
            if by_hop
            else Store(self.config.store.memory, disk)
        )
        self.flights = Flights[Held]()
        self.purges = journal.follower()
        self.purging = Purging(
            journal, self.store.settle, lambda: self.now, lambda _: None, lambda _: None
        )
        self.connections = Connections(self.config.limits.connections)
        self._policy = policies.connection_policy(self.config)
        self.origins = Origins(now=lambda: self.now, connect=origin.connect)
        self.groups = self.origins.made(
            behind.groups(self.config), policies.response_limits(self.config)
        )
        self._ids = count(1)
        self._clients: trio.Nursery
        self.exchange: Exchange

    def pool(self) -> PoolStatistics:
        """The connections to the origin."""
        return self.groups["default"].upstreams[0].statistics()

    def advance(self, seconds: float) -> None:
        """Let time of day pass."""
        self.now += seconds

    def open(self, background: trio.Nursery, clients: trio.Nursery) -> None:
        self._clients = clients
        errands = Errands(
            self.store, self.flights, self.purges, lambda: self.now, self._complain, self._owns
        )
        self.tools = Tools(
            store=self.store,
            flights=self.flights,
            purges=self.purges,
            purging=self.purging,
            errands=errands,
            background=background,
            now=lambda: self.now,
            new_id=lambda: f"id-{next(self._ids)}",
            log=self.records.append,
            complain=self._complain,
            coders=Coders(Inline(1, "coding"), Inline(1, "recoding")),
        )
        parts = parts_of(config=self.config, groups=self.groups, now=lambda: self.now)
        self.exchange = self.entrance = self._next_entrance = Exchange(self.tools, parts)
        if self.by_hop:
            self._open_entrance(background, parts)

    def _owns(self, digest: bytes) -> bool:
        return self.tools.relays is None or self.tools.relays.owns(digest)

    def _open_entrance(self, background: trio.Nursery, parts: Parts) -> None:
        """The worker who owns nothing."""
        assert isinstance(self.store, LendingStore)
        store = LendingStore(self.config.store.memory, leases=self._leases, owns=OTHER.owns)
        flights = Flights[Held]()
        errands = Errands(
            store, flights, self.purges, lambda: self.now, self._complain, OTHER.owns
        )
        relays = Relays(OTHER, store, self._dial)
        background.start_soon(relays.run)
        self.hops = Connections(1_000)
        self.tools.relays = Relays(OWNER, self.store, self._dial)
        self.owners_desk = OwnersDesk(
            self.exchange, self.tools, self._policy.limits, self.records.extend, self.tools.relays
        )
        tools = replace(self.tools, store=store, flights=flights, errands=errands, relays=relays)
        self.entrance = Exchange(tools, parts)

    async def _dial(self, slot: int) -> Line:
        """A connection to the owner; or to who comes after it, where it is dead."""
        await trio.lowlevel.checkpoint()
        here, there = Line.pair()
        if self._deaths:
            self._deaths -= 1
            there.abort()
            return here
        self._hop_lines.append(there)
        connection = HopConnection(there, self.exchange.serve_relayed, self.owners_desk)
        self._clients.start_soon(self.hops.run, connection)
        return here

    def kill_owner(self, *, times: int) -> None:
        """Cut what is under way between the workers, and the next `times` connections."""
        self._deaths = times
        while self._hop_lines:
            self._hop_lines.pop().abort()

    def owns_nothing(self) -> None:
        """Take all keys from the owner, as fewer or more workers would."""
        assert self.tools.relays is not None
        self.tools.relays.disown()

    @property
    def hits(self) -> int:
        """How often the owner has answered with what it stores."""
        resources = [resource for _, resource in self.store._ram.items()]
        return sum(held.hits for resource in resources for held in resource.variants)

    async def purge(self, **order: object) -> Purge:
        """Purge as the admin socket does: `purge(tag=["a"], soft=True)`."""
        made = order_from_json(msgspec.json.encode(order), self.exchange.parts.sites)
        return await self.purging.carry_out(made, "the story")

    def accept(self, line: Line) -> None:
        """Serve a connection."""
        connection = Connection(line, line.peer, self._policy, self.entrance.serve, self._refuse)
        if self.takes_turns:
            self.entrance, self._next_entrance = self._next_entrance, self.entrance
        self._clients.start_soon(self.connections.run, connection)

    def _refuse(self, peer: bytes, error: ExchangeError) -> tuple[ResponseHead, bytes]:
        head, body = refusal(error, f"id-{next(self._ids)}", self.now)
        status = own_status(b"edge1", error)
        return replace(head, headers=head.headers.plus((b"cache-status", status))), body

    def _complain(self, kind: str, message: str, request_id: str | None) -> None:
        self.complaints.append((kind, message))

    def stop(self) -> None:
        """Break off all that clients are being served, as at the end of draining."""
        self._clients.cancel_scope.cancel()

    async def settle(self) -> None:
        """Wait until everyone waits."""
        await wait_all_tasks_blocked()


class Asked:
    """A request that has reached the origin, to be answered as the story wants it."""

    def __init__(self, wire: Wire, words: list[bytes], headers: Fields) -> None:
        self.method, self.target = words[0].decode(), words[1].decode()
        self.headers = headers
        self.wire = wire
        self.done = trio.Event()  # the connection goes on to its next request
        self._chunked = False

    async def body(self) -> bytes:
        """The request's body, whole."""
        return await self.wire.body(self.headers, to_the_end=False)

    async def interim(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        await self.wire.send(written(f"HTTP/1.1 {status} Interim", headers or {}))

    async def reply(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        """Answer whole."""
        fields = dict(headers or {})
        if status not in (204, 304):
            fields.setdefault("Content-Length", str(len(body)))
        data = b"" if self.method == "HEAD" else body
        await self.wire.send(written(f"HTTP/1.1 {status} Fine", fields, data))
        self.done.set()

    async def start_reply(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Send a head; the body is in chunks unless `headers` tell its length."""
        fields = dict(headers or {})
        self._chunked = not {"content-length", "connection"} & {name.lower() for name in fields}
        if self._chunked:
            fields["Transfer-Encoding"] = "chunked"
        await self.wire.send(written(f"HTTP/1.1 {status} Fine", fields))

    async def send_chunk(self, data: bytes) -> None:
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        await self.wire.send(framed)

    async def end(self) -> None:
        """End the body that `start_reply` has begun."""
        if self._chunked:
            await self.wire.send(b"0\r\n\r\n")
        self.done.set()

    def break_off(self) -> None:
        """Reset the connection."""
        self.wire.line.abort()
        self.done.set()

    def close(self) -> None:
        """End the connection, politely."""
        self.wire.close()
        self.done.set()

    async def wait_left(self) -> None:
        """Return when the edge has given this connection up."""
        with suppress(TruncatedError):
            await self.wire.rest()
        self.done.set()


class ScriptedOrigin:
    """The origin. `trouble`, where it is set, is what connecting to it ends in."""

    def __init__(self) -> None:
        self.trouble: ExchangeError | None = None
        self.silent = False  # connecting to it takes for ever
        self.connections: list[Line] = []
        self._send, self._asked = trio.open_memory_channel[Asked](1_000)
        self.nursery: trio.Nursery

    async def connect(self, origin: Origin) -> Line:
        await trio.lowlevel.checkpoint()
        if self.silent:
            await trio.sleep_forever()
        if self.trouble is not None:
            raise self.trouble
        edges, own = Line.pair(b"192.0.2.9", b"192.0.2.7")
        self.connections.append(own)
        self.nursery.start_soon(self._listen, Wire(own))
        return edges

    async def _listen(self, wire: Wire) -> None:
        try:
            while (head := await _whenever(wire)) is not None:
                asked = Asked(wire, *head)
                await self._send.send(asked)
                await asked.done.wait()
        except TruncatedError:
            pass

    async def next_request(self) -> Asked:
        """The next request that comes, on whatever connection."""
        with trio.fail_after(600):
            return await self._asked.receive()

    @property
    def unasked(self) -> bool:
        """Whether no request waits to be looked at."""
        return self._asked.statistics().current_buffer_used == 0


async def _whenever(wire: Wire) -> tuple[list[bytes], Fields] | None:
    """The next head, however long it takes."""
    while True:
        try:
            return await wire.head()
        except trio.TooSlowError:
            continue


class Pending:
    """A request under way on a connection of its own."""

    def __init__(self, wire: Wire, method: str) -> None:
        self.wire = wire
        self._method = method

    async def response(self) -> Reply:
        """The whole response; raises `TruncatedError` where it is broken off."""
        return await self.wire.reply(self._method)

    def leave(self) -> None:
        """Break the connection off."""
        self.wire.line.abort()


class Client:
    """Makes connections to the edge, and requests on them."""

    def __init__(self, edge: Edge, nursery: trio.Nursery) -> None:
        self._edge = edge
        self._nursery = nursery

    def connect(self, *, capacity: int = 1 << 16, address: bytes = b"198.51.100.1") -> Wire:
        """A connection of one's own, to say whatever on it."""
        here, there = Line.pair(address, b"192.0.2.1", capacity)
        self._edge.accept(there)
        return Wire(here)

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        capacity: int = 1 << 16,
    ) -> Pending:
        """Ask, on a new connection."""
        fields = {"Host": "site.example", **(headers or {})}
        if body:
            fields.setdefault("Content-Length", str(len(body)))
        wire = self.connect(capacity=capacity)
        data = written(f"{method} {target} HTTP/1.1", fields, body)
        rest = data[wire.line.send_nowait(data) :]
        if rest:
            self._nursery.start_soon(wire.send, rest)
        return Pending(wire, method)

    async def get(self, target: str, headers: Mapping[str, str] | None = None) -> Reply:
        """The response to a GET that needs no one's help."""
        return await self.send("GET", target, headers).response()


def settings(*sets: str) -> pytest.MarkDecorator:
    """Gives a story's node these settings, as `edge proxy --set` takes them."""
    return pytest.mark.parametrize("sets", [sets], ids=["set"])


async def told(
    origin: ScriptedOrigin,
    pending: Pending,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Reply:
    """The response to `pending`, which the origin is asked for and answers so."""
    await (await origin.next_request()).reply(status, headers, body)
    return await pending.response()


async def _a_nursery(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """One that can be cancelled without the story."""
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


@asynccontextmanager
async def a_world(
    sets: Sequence[str] = (),
    directory: Path | None = None,
    *,
    io: MakeWorkers = Inline,
    by_hop: bool = False,
) -> AsyncIterator[tuple[Edge, ScriptedOrigin, Client]]:
    """A node with its origin and its clients; with `directory`, it has a disk tier there."""
    origin = ScriptedOrigin()
    with TemporaryDirectory() as home:
        journal = Journal(directory or Path(home), log=lambda _: None, io=io)
        estate = Estate(directory) if directory is not None else None
        if estate is not None:
            estate.enter(1)
        await _open_journal(journal, estate)
        disk = await _opened_disk(estate, io) if estate is not None else None
        edge = Edge(sets, disk, journal, origin, by_hop=by_hop)
        async with trio.open_nursery() as nursery:
            origin.nursery = nursery
            edge.origins.take_up(edge.groups, nursery)
            edge.open(nursery, await nursery.start(_a_nursery))
            yield edge, origin, Client(edge, nursery)
            nursery.cancel_scope.cancel()
        if disk is not None:
            await disk.close()
        await journal.close()
        if estate is not None:
            estate.leave()
    statistics = edge.pool()
    assert (statistics.open, statistics.waiting, len(edge.flights)) == (0, 0, 0)
    assert edge.store.statistics().filling == 0
    assert edge.store.statistics().fill_memory_bytes == 0


async def _opened_disk(estate: Estate, io: MakeWorkers) -> Shards:
    disk = Shards(estate, 0, 1, quota_bytes=64 << 20, io=io, log=lambda _: None)
    await disk.open()
    return disk


async def _open_journal(journal: Journal, estate: Estate | None) -> None:
    """As the node does at its start."""
    if not await journal.open(estate.birth if estate is not None else ""):
        await journal.begin(estate.renew_birth() if estate is not None else "0" * 32)
