"""Names looked up again, and connections to where they pointed before."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio

from edge.upstream.fetch import Upstream
from edge.upstream.names import EVERY_S, JITTER, PATIENCE_S, addresses_of, follow, is_name
from edge.wire.message import Chunk, RequestHead
from tests.unit.upstream.servers import Network, a_network, origin

if TYPE_CHECKING:
    from trio.abc import Clock

GET = RequestHead(b"GET", b"http", b"site.example", b"/")


class Resolver:
    """Answers with what it is told, and counts how often it is asked."""

    def __init__(self, *addresses: bytes) -> None:
        self.addresses = frozenset(addresses)
        self.fails: Exception | None = None
        self.after_s = 0.0
        self.asked_at: list[float] = []

    async def look_up(self, host: str, port: int) -> frozenset[bytes]:
        assert (host, port) == ("a.example", 80)
        self.asked_at.append(trio.current_time())
        await trio.sleep(self.after_s)
        if self.fails is not None:
            raise self.fails
        return self.addresses


def an_upstream(network: Network, resolver: Resolver, roll: float = 0.5) -> Upstream:
    """One at a name, tended and followed; its connections are kept for long."""

    async def run() -> None:
        await follow(upstream, look_up=resolver.look_up, roll=lambda: roll)

    told = origin("a.example", idle_s=1e6, life_s=1e6, between_bytes_s=1e6)
    upstream = Upstream(told, connect=network.connect)
    network.nursery.start_soon(upstream.run)
    network.nursery.start_soon(run)
    return upstream


async def use(upstream: Upstream) -> None:
    async with upstream.fetch(GET) as response:
        while isinstance(await response.receive(), Chunk):
            pass


async def test_connections_to_an_address_that_is_gone_are_closed(autojump_clock: Clock) -> None:
    resolver = Resolver(b"a.example", b"192.0.2.9")  # whose peers are named by their host here
    async with a_network() as network:
        upstream = an_upstream(network, resolver)
        await use(upstream)
        await trio.sleep(EVERY_S * 3 + 1)
        assert upstream.statistics().idle == 1
        resolver.addresses = frozenset({b"192.0.2.9"})
        await trio.sleep(EVERY_S)
        assert upstream.statistics().idle == 1  # once may be chance
        await trio.sleep(EVERY_S)
        assert upstream.statistics().open == 0


async def test_one_that_is_busy_carries_its_request_to_the_end_and_no_other(
    autojump_clock: Clock,
) -> None:
    resolver = Resolver(b"192.0.2.9")
    async with a_network() as network:
        network["a.example"].then_s = EVERY_S * 2 + 5
        upstream = an_upstream(network, resolver)
        async with upstream.fetch(GET) as response:
            while isinstance(await response.receive(), Chunk):
                assert upstream.statistics().open == 1
        assert upstream.statistics().open == 0


async def test_a_connection_made_since_is_kept(autojump_clock: Clock) -> None:
    resolver = Resolver(b"192.0.2.9")
    async with a_network() as network:
        upstream = an_upstream(network, resolver)
        await use(upstream)
        await trio.sleep(EVERY_S * 2 + 1)
        assert upstream.statistics().open == 0
        await use(upstream)  # it was looked up just now, and may be where the name points next
        assert upstream.statistics().idle == 1


async def test_a_name_that_is_not_in_use_is_not_looked_up(autojump_clock: Clock) -> None:
    resolver = Resolver(b"a.example")
    async with a_network() as network:
        upstream = an_upstream(network, resolver)
        await trio.sleep(EVERY_S * 4.5)
        assert resolver.asked_at == []
        await use(upstream)
        await trio.sleep(EVERY_S * 2)
        assert len(resolver.asked_at) == 2


@pytest.mark.parametrize("roll", [0.0, 0.5, 0.999])
async def test_look_ups_are_spread_around_their_interval(
    autojump_clock: Clock, roll: float
) -> None:
    resolver = Resolver(b"a.example")
    async with a_network() as network:
        await use(an_upstream(network, resolver, roll))
        await trio.sleep(EVERY_S * 1.3)
    assert resolver.asked_at == [pytest.approx(EVERY_S * (1 + JITTER * (2 * roll - 1)))]


@pytest.mark.parametrize(
    "trouble", [socket.gaierror(socket.EAI_AGAIN, "later"), UnicodeError("label"), None]
)
async def test_a_resolver_in_trouble_closes_nothing(
    autojump_clock: Clock, trouble: Exception | None
) -> None:
    resolver = Resolver()
    resolver.fails = trouble  # or it answers that there is nothing
    async with a_network() as network:
        upstream = an_upstream(network, resolver)
        await use(upstream)
        await trio.sleep(EVERY_S * 4.5)
        assert len(resolver.asked_at) == 4
        assert upstream.statistics().idle == 1


async def test_a_resolver_that_never_answers_is_asked_again(autojump_clock: Clock) -> None:
    resolver = Resolver(b"192.0.2.9")
    resolver.after_s = 1e9
    async with a_network() as network:
        upstream = an_upstream(network, resolver)
        await use(upstream)
        await trio.sleep((EVERY_S + PATIENCE_S) * 3.5)
        assert len(resolver.asked_at) == 3
        assert upstream.statistics().idle == 1


async def test_an_address_is_no_name_and_needs_no_following() -> None:
    for host in ("192.0.2.1", "2001:db8::1"):
        assert not is_name(host)
        await follow(Upstream(origin(host)))  # returns
    assert is_name("a.example")
    assert is_name("1.2.3.example")


async def test_all_addresses_of_a_name_are_text() -> None:
    # an address is looked up without asking anyone
    assert await addresses_of("127.0.0.1", 80) == {b"127.0.0.1"}
