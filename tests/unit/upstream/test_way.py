"""The way of a request over groups and servers, told with servers in memory."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ExchangeError, Failure
from edge.routing.balance import Balance, EjectPolicy, GroupPolicy, Told
from edge.routing.health import State
from edge.upstream.group import Group, GroupSettings
from edge.upstream.way import Persistence, Stop, Way
from edge.wire.message import Chunk, End, Headers, RequestHead, ResponseHead
from tests.unit.upstream.servers import OK, Network, Server, a_network, answer, origin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.abc import Clock

    from edge.upstream.fetch import Response
    from edge.upstream.origin import Origin

NO_SLOW: Final = EjectPolicy(slower=0)
ROUND: Final = GroupPolicy(eject=NO_SLOW)
KEEN: Final = GroupPolicy(eject=EjectPolicy(after=1, for_s=10, slower=0))
FEW: Final = Persistence(tries=3, budget_s=10)


def request(method: bytes = b"GET", target: bytes = b"/") -> RequestHead:
    return RequestHead(method, b"http", b"site.example", target)


def as_it_is(head: RequestHead, server: Origin) -> RequestHead:
    return head


class Body:
    """A request's body, whole at once."""

    def __init__(self, *pieces: bytes) -> None:
        self.length = sum(map(len, pieces))
        self.left = list(pieces)

    async def receive(self) -> Chunk | End:
        await trio.lowlevel.checkpoint()
        return Chunk(self.left.pop(0)) if self.left else End()


def a_group(
    network: Network,
    name: str,
    *hosts: str,
    policy: GroupPolicy = ROUND,
    bounds: dict[str, float] | None = None,
    **told: Any,
) -> Group:
    servers = tuple(origin(host, **(bounds or {})) for host in hosts)
    settings = GroupSettings(name, servers, policy=policy, **told)
    group = Group(settings, connect=network.connect, now=lambda: trio.current_time() + 1e9)
    for upstream in group.upstreams:
        network.nursery.start_soon(upstream.run)
    return group


def a_way(*groups: Group, persistence: Persistence = FEW, **told: bytes) -> Way:
    return Way([Stop(group, as_it_is) for group in groups], persistence, **told)


async def read(response: Response) -> bytes:
    whole = b""
    while isinstance(message := await response.receive(), Chunk):
        whole += message.data
    return whole


async def get(
    way: Way, head: RequestHead | None = None, body: Body | None = None
) -> tuple[int, bytes]:
    async with way.fetch(head or request(), body) as response:
        return response.head.status, await read(response)


def asked(network: Network, *hosts: str) -> list[int]:
    return [len(network[host].asked) for host in hosts]


def assert_all_is_given_back(*groups: Group) -> None:
    for group in groups:
        told = group.statistics()
        assert (told.breaker.at_work, told.breaker.waiting) == (0, 0)
        assert [server.health.at_work for server in told.servers] == [0] * len(told.servers)


@pytest.fixture
async def network(autojump_clock: Clock) -> AsyncIterator[Network]:
    async with a_network() as made:
        yield made


# --- no trouble


async def test_an_answer_comes_through_from_the_one_server(
    autojump_clock: Clock, network: Network
) -> None:
    group = a_group(network, "eu", "a")
    way = a_way(group)
    assert way.told == ""
    assert await get(way) == (200, b"hi")
    assert way.told == "eu http://a:80"
    assert_all_is_given_back(group)
    assert group.statistics().servers[0].pool.idle == 1


async def test_servers_take_turns(autojump_clock: Clock, network: Network) -> None:
    group = a_group(network, "eu", "a", "b", weights=(2.0, 1.0))
    for _ in range(6):
        await get(a_way(group))
    assert asked(network, "a", "b") == [4, 2]


async def test_a_key_finds_its_server_each_time(autojump_clock: Clock, network: Network) -> None:
    group = a_group(network, "eu", "a", "b", "c", policy=GroupPolicy(Balance.KEY_HASH))
    for _ in range(6):
        await get(a_way(group, key=b"/page"))
    assert sorted(asked(network, "a", "b", "c")) == [0, 0, 6]


async def test_an_address_finds_its_server_each_time(
    autojump_clock: Clock, network: Network
) -> None:
    group = a_group(network, "eu", "a", "b", "c", policy=GroupPolicy(Balance.ADDRESS_HASH))
    for _ in range(6):
        await get(a_way(group, address=b"192.0.2.1"))
    assert sorted(asked(network, "a", "b", "c")) == [0, 0, 6]


async def test_a_stop_dresses_the_request_for_the_server_it_goes_to(
    autojump_clock: Clock, network: Network
) -> None:
    def dress(head: RequestHead, server: Origin) -> RequestHead:
        return replace(head, authority=server.host.encode(), target=b"/arm" + head.target)

    network["a"].refuses = True
    group = a_group(network, "eu", "a", "b")
    await get(Way([Stop(group, dress)], FEW), request(target=b"/x"))
    assert b"GET /arm/x HTTP/1.1\r\nHost: b" in network["b"].asked[0].replace(b"host", b"Host")


async def test_a_way_without_a_stop_is_refused() -> None:
    with pytest.raises(ValueError, match="give it a group"):
        Way([], FEW)


async def test_interim_responses_are_passed_on(autojump_clock: Clock, network: Network) -> None:
    network["a"].says = b"HTTP/1.1 103 Early\r\n\r\n" + OK
    heads: list[ResponseHead] = []

    async def interim(head: ResponseHead) -> None:
        heads.append(head)

    async with a_way(a_group(network, "eu", "a")).fetch(request(), interim=interim) as response:
        await read(response)
    assert [head.status for head in heads] == [103]


# --- errors


async def test_a_server_that_refuses_is_left_for_the_next(
    autojump_clock: Clock, network: Network
) -> None:
    network["a"].refuses = True
    group = a_group(network, "eu", "a", "b")
    way = a_way(group)
    assert await get(way) == (200, b"hi")
    assert way.told == "eu http://b:80"
    assert [one.health.failures for one in group.statistics().servers] == [1, 0]
    assert_all_is_given_back(group)


async def test_a_request_with_a_body_goes_to_the_next_while_nothing_of_it_is_gone(
    autojump_clock: Clock,
    network: Network,
) -> None:
    network["a"].refuses = True
    group = a_group(network, "eu", "a", "b")
    assert await get(a_way(group), request(b"POST"), Body(b"one", b"two")) == (200, b"hi")
    assert_all_is_given_back(group)


async def test_what_is_idempotent_is_asked_again_elsewhere(
    autojump_clock: Clock, network: Network
) -> None:
    network["a"].hangs_up = True
    group = a_group(network, "eu", "a", "b")
    assert await get(a_way(group), request(b"DELETE")) == (200, b"hi")
    assert asked(network, "a", "b") == [1, 1]


@pytest.mark.parametrize(("method", "body"), [(b"POST", None), (b"PUT", Body(b"one"))])
async def test_what_may_have_had_an_effect_is_asked_once(
    autojump_clock: Clock, network: Network, method: bytes, body: Body | None
) -> None:
    network["a"].hangs_up = network["b"].hangs_up = True
    group = a_group(network, "eu", "a", "b")
    with pytest.raises(ExchangeError) as raised:
        await get(a_way(group), request(method), body)
    assert raised.value.failure is Failure.CLOSED_EARLY
    assert sum(asked(network, "a", "b")) == 1
    assert_all_is_given_back(group)


async def test_where_all_fail_the_last_error_is_raised_and_each_was_tried_once(
    autojump_clock: Clock,
    network: Network,
) -> None:
    network["a"].hangs_up = True
    network["b"].refuses = True
    groups = a_group(network, "eu", "a"), a_group(network, "us", "b")
    way = a_way(*groups, persistence=Persistence(9, 10))
    with pytest.raises(ExchangeError) as raised:
        await get(way)
    assert raised.value.failure is Failure.CONNECT_REFUSED
    assert way.told == "us http://b:80"
    assert asked(network, "a") == [1]
    assert_all_is_given_back(*groups)


async def test_no_more_is_tried_than_the_policy_has_tries(
    autojump_clock: Clock, network: Network
) -> None:
    for host in "abcd":
        network[host].hangs_up = True
    group = a_group(network, "eu", *"abcd")
    with pytest.raises(ExchangeError):
        await get(a_way(group, persistence=Persistence(2, 10)))
    assert sum(asked(network, *"abcd")) == 2


async def test_no_try_is_begun_once_the_budget_is_spent(
    autojump_clock: Clock, network: Network
) -> None:
    for host in "abcd":
        network[host].after_s = math.inf
    group = a_group(network, "eu", *"abcd", bounds={"first_byte_s": 4.0})
    with pytest.raises(ExchangeError) as raised:
        await get(a_way(group, persistence=Persistence(9, 10)))
    assert raised.value.failure is Failure.FIRST_BYTE_TIMEOUT
    assert sum(asked(network, *"abcd")) == 3  # at 0, 4 and 8 seconds
    assert trio.current_time() == 12


async def test_one_that_hangs_is_given_up_for_another_when_the_budget_is_over(
    autojump_clock: Clock, network: Network
) -> None:
    network["a"].after_s = math.inf
    groups = a_group(network, "eu", "a"), a_group(network, "us", "b")
    assert await get(a_way(*groups)) == (200, b"hi")
    assert trio.current_time() == 10
    assert asked(network, "a", "b") == [1, 1]
    assert_all_is_given_back(*groups)


async def test_the_budget_breaks_off_no_try_that_has_begun(
    autojump_clock: Clock, network: Network
) -> None:
    network["a"].after_s = 20
    assert await get(a_way(a_group(network, "eu", "a"))) == (200, b"hi")


# --- answers that are none


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_a_gateways_trouble_is_asked_about_elsewhere(
    autojump_clock: Clock, network: Network, status: int, method: bytes
) -> None:
    network["a"].says = answer(status)
    group = a_group(network, "eu", "a", "b")
    if method == b"HEAD":
        network["b"].says = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert (await get(a_way(group), request(method)))[0] == 200
    assert [one.health.failures for one in group.statistics().servers] == [1, 0]
    assert_all_is_given_back(group)


@pytest.mark.parametrize(
    ("says", "method"),
    [
        (answer(500), b"GET"),
        (answer(404), b"GET"),
        (answer(503, b"Retry-After: 5"), b"GET"),
        (answer(503), b"POST"),
        (answer(503), b"DELETE"),
    ],
)
async def test_other_answers_are_given_as_they_are(
    autojump_clock: Clock, network: Network, says: bytes, method: bytes
) -> None:
    network["a"].says = says
    group = a_group(network, "eu", "a", "b")
    assert (await get(a_way(group), request(method)))[0] != 200
    assert asked(network, "a", "b") == [1, 0]


async def test_the_last_answer_is_given_where_all_are_in_trouble(
    autojump_clock: Clock, network: Network
) -> None:
    network["a"].says = answer(502)
    network["b"].says = answer(503, body=b"sorry")
    groups = a_group(network, "eu", "a"), a_group(network, "us", "b")
    assert await get(a_way(*groups)) == (503, b"sorry")
    assert_all_is_given_back(*groups)


async def test_an_answer_in_hand_is_not_given_up_for_a_dead_server(
    autojump_clock: Clock, network: Network
) -> None:
    network["a"].says = answer(503, body=b"sorry")
    group = a_group(network, "eu", "a", "b")
    group.heed({"eu http://b:80": Told(up=False)})
    assert await get(a_way(group)) == (503, b"sorry")
    assert asked(network, "b") == [0]


async def test_another_try_in_the_group_goes_on_in_the_same_place(
    autojump_clock: Clock, network: Network
) -> None:
    network["a"].says = answer(503)
    group = a_group(network, "eu", "a", "b", at_work=1, waiting=0)
    assert await get(a_way(group)) == (200, b"hi")
    assert_all_is_given_back(group)


async def test_an_answer_in_hand_is_not_given_up_for_a_wait(
    autojump_clock: Clock, network: Network
) -> None:
    network["a"].says = answer(503, body=b"sorry")
    eu, us = a_group(network, "eu", "a"), a_group(network, "us", "b", at_work=1)
    with await us.breaker.acquire():
        assert await get(a_way(eu, us)) == (503, b"sorry")
    assert_all_is_given_back(eu, us)


# --- tiers


REFUSED: Final = b"Cache-Status: shield1; detail=%b"


def behind_a_tier(tier: Group, *others: Group) -> Way:
    stops = [Stop(tier, as_it_is, is_tier=True), *(Stop(one, as_it_is) for one in others)]
    return Way(stops, FEW)


async def test_what_a_tier_answers_is_given_as_it_is(
    autojump_clock: Clock, network: Network
) -> None:
    tier, eu = a_group(network, "shield", "s"), a_group(network, "eu", "a")
    for says in (
        answer(503, b"Retry-After: 5"),
        answer(502),
        answer(403, b"Cache-Status: o; detail=bad-proof, shield1; fwd=uri-miss; detail=no-store"),
        answer(404, REFUSED % b"bad-proof"),
    ):
        network["s"].says = says
        way = behind_a_tier(tier, eu)
        assert (await get(way))[0] == int(says[9:12])
        assert way.refused == ""
    assert asked(network, "a") == [0]
    assert tier.statistics().servers[0].health.failures == 0


@pytest.mark.parametrize("why", ["no-proof", "bad-proof", "proof-expired", "not-from-here"])
async def test_a_tier_that_takes_us_for_a_stranger_is_passed_over_and_that_is_told(
    autojump_clock: Clock, network: Network, why: str
) -> None:
    tier, eu = a_group(network, "shield", "s", policy=KEEN), a_group(network, "eu", "a")
    network["s"].says = answer(403, REFUSED % why.encode(), body=b"403 Error")
    way = behind_a_tier(tier, eu)
    assert await get(way) == (200, b"hi")
    assert way.refused == f"shield http://s:80: {why}"
    assert await get(behind_a_tier(tier, eu)) == (200, b"hi")
    assert asked(network, "s", "a") == [1, 2]  # it has been ejected
    assert_all_is_given_back(tier, eu)


async def test_a_tiers_refusal_is_an_error_where_nobody_else_may_be_asked(
    autojump_clock: Clock, network: Network
) -> None:
    tier, eu = a_group(network, "shield", "s"), a_group(network, "eu", "a")
    network["s"].says = answer(403, REFUSED % b"bad-proof")
    with pytest.raises(ExchangeError, match="shield http://s:80: bad-proof") as raised:
        await get(behind_a_tier(tier))
    assert (raised.value.failure, raised.value.status) == (Failure.SHIELD_REFUSED, 502)
    with pytest.raises(ExchangeError) as raised:  # of which a part may be gone
        await get(behind_a_tier(tier, eu), request(b"POST"), Body(b"one"))
    assert not raised.value.retry
    assert tier.statistics().servers[0].health.failures == 2
    network["s"].says = answer(403, REFUSED % b"proof-used")
    with pytest.raises(ExchangeError):
        await get(behind_a_tier(tier))
    assert tier.statistics().servers[0].health.failures == 2  # it is of that request alone
    assert_all_is_given_back(tier, eu)


# --- groups


async def test_a_group_without_a_live_server_is_passed_over(
    autojump_clock: Clock, network: Network
) -> None:
    eu, us = a_group(network, "eu", "a"), a_group(network, "us", "b")
    eu.heed({"eu http://a:80": Told(up=False)})
    await get(a_way(eu, us))
    eu.heed({"eu http://a:80": Told(up=True, drained=True)})
    await get(a_way(eu, us))
    assert asked(network, "a", "b") == [0, 2]


async def test_a_group_that_starts_slowly_gives_way_to_the_next_live_one(
    autojump_clock: Clock, network: Network
) -> None:
    eu, us, ap = (a_group(network, *each) for each in (("eu", "a"), ("us", "b"), ("ap", "c")))
    for up in (False, True):
        eu.heed({"eu http://a:80": Told(up=up)})
    us.heed({"us http://b:80": Told(up=False)})
    for _ in range(25):
        await get(a_way(eu, us, ap))
    assert asked(network, "a", "b", "c") == [2, 0, 23]  # a tenth at first
    ap.heed({"ap http://c:80": Told(up=False)})
    for _ in range(20):
        await get(a_way(eu, us, ap))
    assert asked(network, "a", "b", "c") == [22, 0, 23]  # nobody else is left


async def test_who_gives_way_is_asked_where_the_next_one_fails(
    autojump_clock: Clock, network: Network
) -> None:
    eu, us = a_group(network, "eu", "a"), a_group(network, "us", "b")
    for up in (False, True):
        eu.heed({"eu http://a:80": Told(up=up)})
    network["b"].refuses = True
    assert await get(a_way(eu, us)) == (200, b"hi")
    assert asked(network, "a", "b") == [1, 0]


async def test_where_no_group_lives_the_first_is_asked_all_the_same(
    autojump_clock: Clock, network: Network
) -> None:
    eu, us = a_group(network, "eu", "a"), a_group(network, "us", "b")
    eu.heed({"eu http://a:80": Told(up=False)})
    us.heed({"us http://b:80": Told(up=False)})
    assert await get(a_way(eu, us)) == (200, b"hi")
    assert asked(network, "a", "b") == [1, 0]


async def test_a_server_that_fails_is_soon_not_asked_first_any_more(
    autojump_clock: Clock, network: Network
) -> None:
    network["a"].hangs_up = True
    eu, us = a_group(network, "eu", "a", policy=KEEN), a_group(network, "us", "b")
    for _ in range(5):
        assert await get(a_way(eu, us)) == (200, b"hi")
    assert asked(network, "a", "b") == [1, 5]


# --- the breaker


async def test_a_group_that_is_full_is_passed_over(
    autojump_clock: Clock, network: Network
) -> None:
    eu = a_group(network, "eu", "a", at_work=1, waiting=0)
    us = a_group(network, "us", "b")
    with await eu.breaker.acquire():
        await get(a_way(eu, us))
    assert asked(network, "a", "b") == [0, 1]
    assert_all_is_given_back(eu, us)


async def test_where_all_are_full_it_is_overloaded(
    autojump_clock: Clock, network: Network
) -> None:
    eu = a_group(network, "eu", "a", at_work=1, waiting=0)
    us = a_group(network, "us", "b", at_work=1, waiting=1, bounds={"connect_s": 3.0})
    with (
        await eu.breaker.acquire(),
        await us.breaker.acquire(),
        pytest.raises(ExchangeError) as raised,
    ):
        await get(a_way(eu, us))
    assert raised.value.failure is Failure.OVERLOADED
    assert trio.current_time() == 3
    assert asked(network, "a", "b") == [0, 0]
    assert_all_is_given_back(eu, us)


async def test_no_place_is_waited_for_once_the_budget_is_spent(
    autojump_clock: Clock, network: Network
) -> None:
    groups = [
        a_group(network, name, name, at_work=1, bounds={"connect_s": 6.0}) for name in "abcd"
    ]
    places = [await group.breaker.acquire() for group in groups]
    with pytest.raises(ExchangeError, match="overloaded"):
        await get(a_way(*groups))
    assert trio.current_time() == 12
    for place in places:
        place.release()
    assert_all_is_given_back(*groups)


async def test_no_place_is_waited_for_where_no_server_lives(
    autojump_clock: Clock, network: Network
) -> None:
    eu, us = a_group(network, "eu", "a", at_work=1), a_group(network, "us", "b")
    eu.heed({"eu http://a:80": Told(up=False)})
    with await eu.breaker.acquire():
        await get(a_way(eu, us))
    assert trio.current_time() == 0
    assert asked(network, "b") == [1]


async def test_a_place_is_given_back_when_the_server_died_while_it_was_waited_for(
    autojump_clock: Clock,
    network: Network,
) -> None:
    eu = a_group(network, "eu", "a", at_work=1)
    us = a_group(network, "us", "b")
    place = await eu.breaker.acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, a_way(eu, us))
        await trio.testing.wait_all_tasks_blocked()
        eu.heed({"eu http://a:80": Told(up=False)})
        place.release()
    assert asked(network, "a", "b") == [0, 1]
    assert_all_is_given_back(eu, us)


async def test_a_place_is_held_until_the_response_has_ended(
    autojump_clock: Clock, network: Network
) -> None:
    group = a_group(network, "eu", "a")
    async with a_way(group).fetch(request()) as response:
        assert group.statistics().breaker.at_work == 1
        assert group.statistics().servers[0].health.at_work == 1
        await read(response)
        assert_all_is_given_back(group)  # the rest of the block may take as long as it will


async def test_a_tunnel_holds_no_place(autojump_clock: Clock, network: Network) -> None:
    network[
        "a"
    ].says = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    group = a_group(network, "eu", "a")
    head = replace(request(), headers=Headers([(b"connection", b"upgrade"), (b"upgrade", b"x")]))
    async with a_way(group).fetch(head) as response:
        assert response.head.status == 101
        assert response.tunnel is not None
        assert_all_is_given_back(group)
    assert group.statistics().servers[0].health.state is State.UP


async def test_uploads_leave_places_to_others(autojump_clock: Clock, network: Network) -> None:
    group = a_group(network, "eu", "a", at_work=8, waiting=0)
    way = a_way(group)
    async with way.upload_place(), way.upload_place():
        with pytest.raises(ExchangeError) as raised:
            async with way.upload_place():
                raise AssertionError("a third of two")
    assert raised.value.failure is Failure.OVERLOADED
    async with way.upload_place():
        pass


async def test_an_upload_takes_its_place_where_it_is_going(
    autojump_clock: Clock, network: Network
) -> None:
    eu, us = a_group(network, "eu", "a"), a_group(network, "us", "b")
    eu.heed({"eu http://a:80": Told(up=False)})
    async with a_way(eu, us).upload_place():
        assert us.uploads.statistics().at_work == 1
    eu.heed({})
    us.heed({})
    async with a_way(eu, us).upload_place():
        assert eu.uploads.statistics().at_work == 1


# --- what is told of servers


@pytest.mark.parametrize(
    ("says", "method", "failures"),
    [
        (OK, b"GET", 0),
        (answer(304), b"GET", 0),
        (answer(500), b"GET", 0),
        (answer(503, b"Retry-After: 9"), b"GET", 0),
        (answer(503), b"GET", 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"HEAD", 0),
        (b"nonsense\r\n\r\n", b"GET", 1),
    ],
)
async def test_a_server_is_told_of_by_what_it_answers(
    autojump_clock: Clock, network: Network, says: bytes, method: bytes, failures: int
) -> None:
    network["a"].says = says
    group = a_group(network, "eu", "a")
    with suppress(ExchangeError):
        await get(a_way(group), request(method))
    assert group.statistics().servers[0].health.failures == failures
    assert_all_is_given_back(group)


@pytest.mark.parametrize(("says", "method"), [(answer(204), b"GET"), (OK[:-2], b"HEAD")])
async def test_an_answer_without_a_body_counts_whether_its_end_is_waited_for_or_not(
    autojump_clock: Clock, network: Network, says: bytes, method: bytes
) -> None:
    policy = GroupPolicy(eject=EjectPolicy(after=2, slower=0))
    group = a_group(network, "eu", "a", policy=policy)
    for good in (False, True, False):
        network["a"].says = says if good else answer(502)
        async with a_way(group).fetch(request(method)):
            pass
    assert group.statistics().servers[0].health.state is State.UP


async def test_a_body_that_breaks_off_is_a_failure_even_if_the_block_hides_it(
    autojump_clock: Clock,
    network: Network,
) -> None:
    network["a"].says = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"
    group = a_group(network, "eu", "a", bounds={"between_bytes_s": 1.0})
    async with a_way(group).fetch(request()) as response:
        with pytest.raises(ExchangeError):
            await read(response)
        assert_all_is_given_back(group)
    assert group.statistics().servers[0].health.failures == 1


async def test_a_client_that_leaves_says_nothing_of_the_server(
    autojump_clock: Clock, network: Network
) -> None:
    network["a"].after_s = 5
    group = a_group(network, "eu", "a", policy=KEEN)
    with trio.move_on_after(1):
        await get(a_way(group))
    network["a"].after_s = 0
    network["a"].says = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"
    async with a_way(group).fetch(request()):
        pass  # left before the end
    assert group.statistics().servers[0].health.failures == 0
    assert group.statistics().servers[0].health.state is State.UP
    assert_all_is_given_back(group)


async def test_a_clients_broken_body_says_nothing_of_the_server(
    autojump_clock: Clock, network: Network
) -> None:
    class Broken(Body):
        async def receive(self) -> Chunk | End:
            raise ExchangeError(Failure.BODY_TIMEOUT)

    group = a_group(network, "eu", "a", policy=KEEN)
    with pytest.raises(ExchangeError, match="body-timeout"):
        await get(a_way(group), request(b"POST"), Broken(b"x"))
    assert group.statistics().servers[0].health.failures == 0
    assert_all_is_given_back(group)


async def test_a_slow_upload_is_no_slow_server(autojump_clock: Clock, network: Network) -> None:
    class Slow(Body):
        async def receive(self) -> Chunk | End:
            await trio.sleep(3)
            return await super().receive()

    group = a_group(network, "eu", "a")
    await get(a_way(group), request(b"POST"), Slow(b"x"))
    assert group.statistics().servers[0].health.latency_s == 0
    await get(a_way(group))
    network["a"].after_s = 2
    await get(a_way(group))
    assert group.statistics().servers[0].health.latency_s == pytest.approx(0.25)  # an eighth


# --- ends that come early


@pytest.mark.parametrize("body", [None, Body(b"x")])
async def test_what_the_block_raises_comes_out_as_it_is(
    autojump_clock: Clock, network: Network, body: Body | None
) -> None:
    group = a_group(network, "eu", "a")
    with pytest.raises(KeyError, match="mine"):
        async with a_way(group).fetch(request(b"POST"), body):
            raise KeyError("mine")
    assert_all_is_given_back(group)
    assert group.statistics().servers[0].pool.open == 0


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_wherever_it_is_cancelled_all_is_given_back(
    autojump_clock: Clock, network: Network, method: bytes
) -> None:
    network["a"].says = answer(503)
    for host in "ab":
        network[host].after_s = network[host].then_s = 1.0
    groups = a_group(network, "eu", "a", "b", at_work=2), a_group(network, "us", "c")
    for tenths in range(60):
        body = Body(b"x", b"y") if method == b"POST" else None
        with trio.move_on_after(tenths / 10):
            await get(a_way(*groups), request(method), body)
        assert_all_is_given_back(*groups)


async def test_cancelled_while_it_waits_for_a_place_nothing_is_kept(
    autojump_clock: Clock, network: Network
) -> None:
    group = a_group(network, "eu", "a", at_work=1)
    with await group.breaker.acquire():
        with trio.move_on_after(1) as scope:
            await get(a_way(group))
        assert scope.cancelled_caught
    assert_all_is_given_back(group)
    assert asked(network, "a") == [0]


def test_every_setting_says_what_it_is() -> None:
    for told in fields(Persistence):
        assert told.metadata["says"]
        assert told.metadata["unit"] == "seconds" or not told.name.endswith("_s")


# --- whatever servers do

GOOD, REFUSES, HANGS_UP, TROUBLE, BUSY = "good", "refuses", "hangs up", "trouble", "busy"
MANNERS: Final = st.sampled_from([GOOD, REFUSES, HANGS_UP, TROUBLE, BUSY])


def behave(server: Server, manner: str) -> None:
    server.refuses = manner == REFUSES
    server.hangs_up = manner == HANGS_UP
    said = {TROUBLE: answer(502), BUSY: answer(503, b"Retry-After: 1")}
    server.says = said.get(manner, OK)


async def _pass(manners: list[list[str]], tries: int) -> None:
    """One GET over groups of servers with these manners, beside what a plain loop expects."""
    hosts = [[f"{n}-{m}" for m in range(len(group))] for n, group in enumerate(manners)]
    expected = ""
    visited: list[str] = []
    for manner, host in zip(chain(*manners), chain(*hosts), strict=True):
        if len(visited) == tries:
            break
        expected = manner
        visited.append(host)
        if manner in (GOOD, BUSY):
            break
    async with a_network() as network:
        for manner, host in zip(chain(*manners), chain(*hosts), strict=True):
            behave(network[host], manner)
        groups = [a_group(network, f"g{n}", *each) for n, each in enumerate(hosts)]
        way = a_way(*groups, persistence=Persistence(tries, 1e6))
        outcome = {GOOD: 200, TROUBLE: 502, BUSY: 503}.get(expected, expected)
        try:
            status, _ = await get(way)
        except ExchangeError as error:
            slug = {"connect-refused": REFUSES, "closed-early": HANGS_UP}[error.failure.slug]
            assert slug == outcome
        else:
            assert status == outcome
        assert way.told.endswith(f"http://{visited[-1]}:80")
        for manner, host in zip(chain(*manners), chain(*hosts), strict=True):
            reached = host in visited and manner != REFUSES
            assert len(network[host].asked) == reached
        assert_all_is_given_back(*groups)


@given(
    st.lists(st.lists(MANNERS, min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(1, 8),
)
def test_a_get_comes_through_whenever_a_server_within_its_tries_is_good(
    manners: list[list[str]], tries: int
) -> None:
    trio.run(_pass, manners, tries, clock=trio.testing.MockClock(autojump_threshold=0))


# --- stories


@asynccontextmanager
async def visitors(way: Any, every_s: float, results: list[str]) -> AsyncIterator[None]:
    """Someone asks every so often; who answered, or what went wrong, is put down."""

    async def visit() -> None:
        mine = way()
        try:
            status, _ = await get(mine)
        except ExchangeError as error:
            results.append(error.failure.slug)
        else:
            results.append(mine.told if status == 200 else str(status))

    async with trio.open_nursery() as visits, trio.open_nursery() as clock:

        async def come() -> None:
            while True:
                visits.start_soon(visit)
                await trio.sleep(every_s)

        clock.start_soon(come)
        yield
        clock.cancel_scope.cancel()


async def test_the_nearest_dies_under_load_and_comes_back_slowly(
    autojump_clock: Clock, network: Network
) -> None:
    policy = GroupPolicy(eject=EjectPolicy(after=5, for_s=10, slower=0), slow_start_s=10)
    eu = a_group(network, "eu", "a1", "a2", policy=policy)
    us = a_group(network, "us", "b", policy=policy)
    for host in ("a1", "a2", "b"):
        network[host].after_s = 0.02
    results: list[str] = []
    async with visitors(lambda: a_way(eu, us), 0.02, results):
        await trio.sleep(5)
        near = {"eu http://a1:80", "eu http://a2:80"}
        assert set(results) == near
        results.clear()

        network["a1"].die()
        await trio.sleep(5)
        assert set(results) <= near  # nobody has noticed
        results.clear()
        await trio.sleep(2)
        assert set(results) == {"eu http://a2:80"}

        network["a2"].die()
        eu.heed({"eu http://a2:80": Told(up=False)})  # checks have seen it
        results.clear()
        await trio.sleep(5)
        assert set(results) == {"us http://b:80"}

        network["a2"].refuses = False
        eu.heed({"eu http://a2:80": Told(up=True)})
        alone = []
        for _ in range(3):
            results.clear()
            await trio.sleep(4)
            alone.append(results.count("eu http://a2:80") / len(results))
        assert 0.1 < alone[0] < alone[1] < alone[2]  # the others' share is left to the next group
        assert results[-1] == "eu http://a2:80"

        network["a1"].refuses = False
        while eu.statistics().servers[0].health.state is not State.WARMING:  # noqa: ASYNC110
            await trio.sleep(0.1)  # until its trial is due
        shares = []
        for _ in range(3):
            results.clear()
            await trio.sleep(4)
            shares.append(results.count("eu http://a1:80") / len(results))
        assert set(results) == near
        assert 0.05 < shares[0] < shares[1] < shares[2]
        assert shares[2] == pytest.approx(0.5, abs=0.05)
    assert_all_is_given_back(eu, us)


async def test_a_thousand_at_once_come_through_a_breaker_of_ten(
    autojump_clock: Clock, network: Network
) -> None:
    network["a"].after_s = 0.1
    group = a_group(
        network, "eu", "a", at_work=10, waiting=500, bounds={"connect_s": 3.05, "total_s": 60.0}
    )
    results: list[str] = []

    async def visit() -> None:
        try:
            results.append((await get(a_way(group)))[1].decode())
        except ExchangeError as error:
            results.append(error.failure.slug)

    async with trio.open_nursery() as nursery:
        for _ in range(1_000):
            nursery.start_soon(visit)
    assert network["a"].most_at_work == 10
    assert len(network["a"].connections) == 10
    # ten at once and then ten each tenth of a second, while patience lasts; nobody else waits
    assert results.count("hi") == pytest.approx(310, abs=10)
    assert results.count("overloaded") == 1_000 - results.count("hi")
    assert group.statistics().breaker.refused == results.count("overloaded")
    assert_all_is_given_back(group)
