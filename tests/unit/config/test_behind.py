from __future__ import annotations

from typing import Final

import pytest

from edge.config import Config, behind, for_proxy
from edge.config.share import share_of
from edge.routing.balance import Balance, EjectPolicy
from edge.routing.geo import Coordinates
from edge.surroundings.standing import NamedExperiment, NamedServer
from edge.upstream.group import Group, GroupSettings
from edge.upstream.probe import CheckPolicy

SHIELD: Final = 'shield={nodes=["http://s1","http://s2:7000"],secret={env="A"},waiting=7}'


def config(*sets: str) -> Config:
    return for_proxy(["127.0.0.1:0"], "http://[::1]:3000", hostname="h", sets=sets)


def group(*sets: str) -> GroupSettings:
    (made,) = behind.groups(config(*sets))
    return made


def test_an_origin_has_its_servers_each_with_its_bounds() -> None:
    made = group(
        "origin.default.timeouts.connect=1s",
        "origin.default.timeouts.first_byte=2s",
        "origin.default.timeouts.between_bytes=3s",
        "origin.default.timeouts.total=4s",
        "origin.default.timeouts.idle=5s",
        "origin.default.ca=/ca.pem",
        "origin.default.max_connections=7",
        "origin.default.max_idle=9",
    )
    (server,) = made.servers
    assert (made.name, server.authority, server.ca) == ("default", b"[::1]:3000", "/ca.pem")
    assert (server.connect_s, server.first_byte_s, server.between_bytes_s) == (1.0, 2.0, 3.0)
    assert (server.total_s, server.idle_s) == (4.0, 5.0)
    assert (server.max_connections, server.max_idle) == (7, 7)  # idle ones are connections


def test_an_origin_has_its_place_its_host_and_how_it_is_spread() -> None:
    made = group(
        'origin.default={servers=["http://a","http://b"],weights=[3,1],balance="key-hash",'
        'at=[50.1,8.7],host="o.example:81",at_work=5,waiting=6,slow_start="3s",'
        'eject={after=2,for="4s",most=0.25,slower=3.0}}'
    )
    assert (made.weights, made.at, made.host) == (
        (3.0, 1.0),
        Coordinates(50.1, 8.7),
        b"o.example:81",
    )
    assert (made.at_work, made.waiting) == (5, 6)
    policy = made.policy
    assert (policy.balance, policy.slow_start_s) == (Balance.KEY_HASH, 3.0)
    assert policy.eject == EjectPolicy(after=2, for_s=4.0, most=0.25, slower=3.0)


def test_what_is_not_said_is_nowhere_and_of_the_clients_host() -> None:
    made = group()
    assert (made.at, made.host, made.weights) == (None, None, ())
    assert behind.coordinates(None) is None


@pytest.mark.parametrize(
    ("told", "balance"),
    [("weighted", Balance.ROUND_ROBIN), *((each.value, each) for each in Balance)],
)
def test_a_balance_goes_by_its_name(told: str, balance: Balance) -> None:
    assert group(f"origin.default.balance={told}").policy.balance is balance


def test_shields_are_one_group_more_whose_keys_stay_where_they_are() -> None:
    origin, shields = behind.groups(config(SHIELD))
    assert (origin.name, shields.name, shields.waiting) == ("default", behind.SHIELD, 7)
    assert [each.url for each in shields.servers] == ["http://s1:80", "http://s2:7000"]
    assert shields.policy.balance is Balance.KEY_HASH
    assert not shields.policy.spills
    assert (shields.policy.eject.slower, shields.policy.eject.longest_s) == (0.0, 5.0)


def test_every_group_can_be_made_whatever_share_of_it_a_worker_has() -> None:
    for workers in (1, 3, 256):
        told = behind.groups(share_of(config(SHIELD), workers))
        assert [Group(each).name for each in told] == ["default", "shield"]


def test_the_roll_names_every_server_with_its_weight_and_every_experiment() -> None:
    arms = "arms={old={weight=9},new={weight=1}}"
    roll = behind.roll(
        config(
            SHIELD,
            'origin.default={servers=["http://a","https://b"],weights=[3,1]}',
            f'site.experiment=[{{name="e",cookie={{name="c"}},{arms}}}]',
            'site.hosts=["shop.example","www.shop.example"]',
        )
    )
    assert roll.servers == (
        NamedServer("default", "http://a:80", 3.0),
        NamedServer("default", "https://b:443", 1.0),
        NamedServer("shield", "http://s1:80", 1.0),
        NamedServer("shield", "http://s2:7000", 1.0),
    )
    named = NamedExperiment("shop.example/e", (("old", 9.0), ("new", 1.0)))
    assert roll.experiments == (named,)


def test_servers_are_called_the_same_by_groups_the_roll_and_the_checks() -> None:
    told = config(SHIELD, 'origin.default={servers=["http://a","http://[::1]"],check={path="/"}}')
    in_groups = {name for each in behind.groups(told) for name in Group(each).ids}
    assert {each.id for each in behind.roll(told).servers} == in_groups
    assert {each.id for each in behind.checkable(told)} < in_groups


def test_what_is_checked_is_checked_as_it_is_told() -> None:
    check = (
        'check={path="/healthz",every="7s",timeout="2s",down_after=4,up_after=5,'
        'status=[200,204],body="ok"}'
    )
    told = config(
        SHIELD,
        f'origin={{default={{servers=["http://a"],host="o.example",{check}}},b={{servers=["http://b"]}}}}',
    )
    (one,) = behind.checkable(told)
    assert (one.id, one.origin) == ("default http://a:80", behind.groups(told)[0].servers[0])
    assert one.policy == CheckPolicy(
        path=b"/healthz",
        host=b"o.example",
        every_s=7.0,
        timeout_s=2.0,
        down_after=4,
        up_after=5,
        statuses=frozenset({200, 204}),
        body=b"ok",
    )


def test_a_check_of_nothing_but_a_path_is_as_the_policy_has_it() -> None:
    (one,) = behind.checkable(config('origin.default.check={path="/"}'))
    assert one.policy == CheckPolicy(path=b"/")
