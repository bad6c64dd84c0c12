"""A group: what it is made of, and what stays when settings change."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from edge.errors import ExchangeError
from edge.routing.balance import Balance, GroupPolicy, Outcome, Told
from edge.routing.geo import Coordinates
from edge.routing.health import State
from edge.upstream.group import Group, GroupSettings
from edge.upstream.origin import Origin, parse_origin
from edge.wire.h1 import RESPONSE_LIMITS
from tests.unit.upstream.servers import origin

TWO = GroupSettings("eu", (origin("a"), origin("b")))


def group(settings: GroupSettings = TWO, before: Group | None = None, **told: Any) -> Group:
    return Group(settings, before=before, now=lambda: 1e9, **told)


def states(made: Group) -> list[State]:
    return [server.health.state for server in made.statistics().servers]


def test_a_group_is_as_its_settings_say() -> None:
    at = Coordinates(50.1, 8.7)
    made = group(replace(TWO, at=at, host=b"app.example", at_work=7, waiting=3))
    assert (made.name, made.at, made.host) == ("eu", at, b"app.example")
    assert made.ids == ("eu http://a:80", "eu http://b:80")
    assert made.breaker.bounds == (7, 3, 5.0)
    assert made.uploads.bounds == (1, 3, 5.0)
    assert made.is_alive()
    assert states(made) == [State.UP, State.UP]


@pytest.mark.parametrize(
    "url", ["http://a.example:80", "https://a.example:8443", "http://[2001:db8::1]:81"]
)
def test_a_server_is_named_by_its_url(url: str) -> None:
    assert parse_origin(url).url == url


def test_a_group_heeds_what_it_is_told_of_its_own_servers() -> None:
    made = group()
    made.heed({"eu http://a:80": Told(up=False), "us http://b:80": Told(up=False)})
    assert states(made) == [State.DOWN, State.UP]
    made.heed({"eu http://b:80": Told(drained=True, weight=3)})
    assert states(made) == [State.WARMING, State.DRAINED]
    assert made.statistics().servers[1].health.weight == 3
    assert made.is_alive()
    made.heed({name: Told(up=False) for name in made.ids})
    assert not made.is_alive()


def test_settings_that_cannot_be_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="share a name"):
        group(replace(TWO, servers=(origin("a"), origin("a"))))
    with pytest.raises(ValueError, match="2 servers and 1 weights"):
        group(replace(TWO, weights=(1.0,)))
    with pytest.raises(ValueError, match="eu http://b:80: -1"):
        group(replace(TWO, weights=(1.0, -1.0)))


def test_servers_that_stay_keep_their_connections_and_their_health() -> None:
    before = group()
    before.heed({"eu http://b:80": Told(up=False)})
    after = group(replace(TWO, servers=(origin("b"), origin("c"))), before)
    assert after.upstreams[0] is before.upstreams[1]
    assert after.upstreams[1] not in before.upstreams
    assert states(after) == [State.DOWN, State.UP]


def test_a_server_told_otherwise_gets_new_connections_and_keeps_its_health() -> None:
    before = group()
    before.heed({"eu http://a:80": Told(up=False)})
    changed = replace(TWO, servers=(origin("a", first_byte_s=1.0), origin("b")))
    after = group(changed, before)
    assert after.upstreams[0] is not before.upstreams[0]
    assert after.upstreams[1] is before.upstreams[1]
    assert states(after) == [State.DOWN, State.UP]


def test_other_limits_on_responses_take_new_connections() -> None:
    before = group()
    after = group(before=before, limits=replace(RESPONSE_LIMITS, head_bytes=9_999))
    assert not set(after.upstreams) & set(before.upstreams)


async def test_the_breaker_stays_where_its_bounds_do() -> None:
    before = group()
    place, upload = before.breaker.acquire_nowait(), before.uploads.acquire_nowait()
    after = group(replace(TWO, policy=GroupPolicy(Balance.LEAST_CONNECTIONS)), before)
    assert after.statistics().breaker.at_work == 1
    assert after.uploads is before.uploads
    assert place is not None
    assert upload is not None
    place.release()
    assert after.statistics().breaker.at_work == 0
    tight = group(replace(TWO, at_work=4, waiting=0), after)
    assert tight.breaker is not after.breaker
    assert tight.uploads is not after.uploads
    with await tight.uploads.acquire(), pytest.raises(ExchangeError):
        await tight.uploads.acquire()


def test_what_the_old_group_has_in_hand_ends_there() -> None:
    before = group()
    era = before.members.began(0, 1e9)
    after = group(replace(TWO, weights=(2.0, 1.0)), before)
    before.members.ended(0, era, 1e9, Outcome.BAD)
    told = after.statistics().servers[0].health
    assert (told.at_work, told.failures, told.weight) == (0, 0, 2.0)


def test_every_setting_says_what_it_is() -> None:
    for told in fields(GroupSettings):
        assert told.metadata["says"]
        assert "unit" in told.metadata


def test_uploads_have_a_quarter_of_what_there_is() -> None:
    few: tuple[Origin, ...] = (origin("a", max_connections=20), origin("b", max_connections=20))
    assert group(replace(TWO, servers=few)).uploads.at_work == 10
    assert group().uploads.at_work == 64
