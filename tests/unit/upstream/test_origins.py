"""All origins of a node, from one reading of settings to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from edge.routing.balance import Told
from edge.routing.health import State
from edge.upstream.group import Group, GroupSettings
from edge.upstream.origins import Origins
from edge.wire.h1 import RESPONSE_LIMITS
from edge.wire.message import Chunk, RequestHead
from tests.unit.upstream.servers import Network, a_network, origin

if TYPE_CHECKING:
    from trio.abc import Clock

EU = GroupSettings("eu", (origin("a"), origin("b")))
US = GroupSettings("us", (origin("c"),))


async def use(group: Group, index: int) -> None:
    head = RequestHead(b"GET", b"http", b"site.example", b"/")
    async with group.upstreams[index].fetch(head) as response:
        while isinstance(await response.receive(), Chunk):
            pass


def taken_up(network: Network, *settings: GroupSettings) -> Origins:
    origins = Origins(now=lambda: 1e9, connect=network.connect)
    origins.take_up(origins.made(settings), network.nursery)
    return origins


async def test_what_is_the_same_stays_the_same(autojump_clock: Clock) -> None:
    async with a_network() as network:
        origins = taken_up(network, EU, US)
        before = dict(origins.groups)
        after = origins.made([EU, replace(US, at_work=9)])
        assert after["eu"] is before["eu"]
        assert after["us"] is not before["us"]
        assert after["us"].upstreams == before["us"].upstreams
        again = origins.made([EU], replace(RESPONSE_LIMITS, head_bytes=9_999))
        assert again["eu"] is not before["eu"]


async def test_settings_that_fail_change_nothing(autojump_clock: Clock) -> None:
    async with a_network() as network:
        origins = taken_up(network, EU)
        before = origins.groups
        with pytest.raises(ValueError, match="use 0 to 1000"):
            origins.made([US, replace(EU, weights=(1.0, -1.0))])
        assert origins.groups is before


async def test_a_reload_keeps_warm_what_stays_and_closes_what_goes(autojump_clock: Clock) -> None:
    async with a_network() as network:
        origins = taken_up(network, EU, US)
        eu, us = origins.groups["eu"], origins.groups["us"]
        for group, index in ((eu, 0), (eu, 1), (us, 0)):
            await use(group, index)
        made = origins.made([replace(EU, servers=(origin("b"), origin("d")))])
        origins.take_up(made, network.nursery)
        await trio.testing.wait_all_tasks_blocked()
        assert [upstream.statistics().idle for upstream in eu.upstreams] == [0, 1]
        assert us.upstreams[0].statistics().open == 0
        await use(made["eu"], 0)
        await use(made["eu"], 1)
        assert len(network["b"].connections) == 1
        await trio.sleep(120)  # and the new ones are tended
        assert [upstream.statistics().open for upstream in made["eu"].upstreams] == [0, 0]


async def test_what_was_left_out_may_come_back(autojump_clock: Clock) -> None:
    async with a_network() as network:
        origins = taken_up(network, EU)
        for settings in ([US], [EU], [US, EU]):
            origins.take_up(origins.made(settings), network.nursery)
            await trio.testing.wait_all_tasks_blocked()
        await use(origins.groups["eu"], 0)
        await trio.sleep(120)
        assert origins.statistics()["eu"].servers[0].pool.open == 0


async def test_the_board_is_heeded_by_all(autojump_clock: Clock) -> None:
    async with a_network() as network:
        origins = taken_up(network, EU, US)
        origins.heed({"eu http://b:80": Told(up=False), "us http://c:80": Told(drained=True)})
        told = {
            name: [server.health.state for server in group.servers]
            for name, group in origins.statistics().items()
        }
        assert told == {"eu": [State.UP, State.DOWN], "us": [State.DRAINED]}
