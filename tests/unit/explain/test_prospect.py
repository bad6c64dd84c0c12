"""Where a request would go, as it is explained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from edge.config import policies
from edge.explain import prospect
from edge.routing.geo import Coordinates, Place
from edge.routing.health import Told
from edge.serving.admission import Admitted, admit
from edge.surroundings.standing import NamedExperiment, Standing, stopped
from edge.wire.message import Headers, RequestHead
from tests.unit.edgeparts import config_of, groups_of, parts_of

if TYPE_CHECKING:
    from edge.serving.visit import Parts
    from edge.wire.message import Pair

PEER: Final = b"192.0.2.1"
SECRET: Final = "0123456789abcdef0123456789abcdef"
ORIGINS: Final = (
    'origin={eu={servers=["http://eu-1","http://eu-2:81"]},us={servers=["https://us"]}}',
    'site.route={first=["us","eu"]}',
)
ARMS: Final = 'arms={a={weight=1},b={weight=1,prefix="/b"}}'
ARMED: Final = f'site.experiment=[{{name="e",cookie={{name="ab"}},{ARMS}}}]'


def asked(parts: Parts, *fields: Pair) -> Admitted:
    return admit(parts, RequestHead(b"GET", b"http", b"x.example", b"/a", Headers(fields)), PEER)


def arms(*fields: Pair, sets: str = ARMED, standing: Standing = Standing()) -> list[str]:  # noqa: B008
    parts = parts_of(sets, standing=standing)
    told = prospect.arms_of(asked(parts, *fields))
    assert all(each["experiment"] == "e" for each in told)
    return [f"{each['arm']} {each['by']} {each['keyed']}" for each in told]


def test_arms_are_told_with_what_they_are_by() -> None:
    assert arms() == ["a chance False"]
    assert arms((b"cookie", b"ab=b")) == ["b cookie True"]
    assert arms((b"cookie", b"ab=gone")) == ["a chance False"]
    by_id = ARMED.replace('cookie={name="ab"}', 'cookie={name="ab"},visitor="uid"')
    (told,) = arms((b"cookie", b"uid=7"), sets=by_id)
    assert " visitor id " in told
    held_out = ARMED.replace('cookie={name="ab"}', 'cookie={name="ab"},hold_out=["bots"]')
    assert arms((b"user-agent", b"Googlebot/2.1"), sets=held_out) == ["a held out False"]
    assert arms(sets="site.key={}") == []


def test_an_experiment_that_was_stopped_is_told_so() -> None:
    (told,) = config_of(ARMED).sites[0].experiments
    named: NamedExperiment = policies.named_experiment(config_of(ARMED).sites[0], told)
    standing = stopped(Standing(), named, "b")
    assert arms(standing=standing) == ["b stopped True"]
    assert arms((b"cookie", b"ab=a"), standing=standing) == ["b stopped True"]


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (Place(), None),
        (
            Place("DE", "EU", "DE-BE", Coordinates(52.5, 13.4)),
            {"country": "DE", "continent": "EU", "subdivision": "DE-BE", "at": [52.5, 13.4]},
        ),
        (
            Place(continent="EU"),
            {"country": None, "continent": "EU", "subdivision": None, "at": None},
        ),
        (
            Place(at=Coordinates(0.0, 0.0)),
            {"country": None, "continent": None, "subdivision": None, "at": [0.0, 0.0]},
        ),
    ],
)
def test_a_place_is_told_as_far_as_it_is_known(place: Place, told: object) -> None:
    parts = parts_of()
    ways = replace(parts.ways, place_of=lambda _: place)
    assert prospect.place_of(asked(parts), ways) == told


def test_origins_are_told_in_order_with_how_their_servers_are() -> None:
    config = config_of(*ORIGINS)
    groups = groups_of(config)
    parts = parts_of(config=config, groups=groups)
    groups["us"].heed({"us https://us:443": Told(up=False)})
    groups["eu"].heed({"eu http://eu-2:81": Told(drained=True)})
    assert prospect.origins_of(asked(parts), parts.ways) == [
        {
            "name": "us",
            "alive": False,
            "servers": [{"server": "https://us:443", "state": "down"}],
        },
        {
            "name": "eu",
            "alive": True,
            "servers": [
                {"server": "http://eu-1:80", "state": "up"},
                {"server": "http://eu-2:81", "state": "drained"},
            ],
        },
    ]


def test_a_node_without_groups_explains_what_it_can() -> None:
    parts = parts_of(config=config_of(*ORIGINS), groups={})
    assert prospect.origins_of(asked(parts), parts.ways) == []


def test_shields_are_told_with_the_one_that_the_key_falls_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_SHIELD_SECRET", SECRET)
    shield = 'shield={nodes=["http://s1","http://s2"],secret={env="TEST_SHIELD_SECRET"}}'
    config = config_of(shield, "site.route.via=shield")
    groups = groups_of(config)
    parts = parts_of(config=config, groups=groups)
    admitted = asked(parts)
    told = prospect.via(admitted, parts.ways)
    assert told is not None
    assert (told["name"], told["alive"], told["without"]) == ("shield", True, "origin")
    first, names = told["first"], [each["server"] for each in told["servers"]]
    assert names == ["http://s1:80", "http://s2:80"]
    assert first in names
    assert prospect.via(admitted, parts.ways) == told  # to tell of it moves nothing on
    groups["shield"].heed({f"shield {first}": Told(up=False)})
    other = prospect.via(admitted, parts.ways)
    assert other is not None
    assert {first, other["first"]} == set(names)
    groups["shield"].heed({f"shield {name}": Told(up=False) for name in names})
    none = prospect.via(admitted, parts.ways)
    assert none is not None
    assert (none["first"], none["alive"]) == (None, False)


def test_where_no_shield_stands_before_the_origins_none_is_told() -> None:
    parts = parts_of()
    assert prospect.via(asked(parts), parts.ways) is None


def test_the_shield_that_is_told_is_the_one_that_is_asked_whatever_the_arm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_SHIELD_SECRET", SECRET)
    nodes = ",".join(f'"http://s{number}"' for number in range(5))
    shield = f'shield={{nodes=[{nodes}],secret={{env="TEST_SHIELD_SECRET"}}}}'
    parts = parts_of(shield, "site.route.via=shield", ARMED)
    assert parts.ways.shielding is not None
    group = parts.ways.shielding.group
    for number in range(20):
        for cookie in (b"ab=a", b"ab=b"):
            fields = Headers([(b"cookie", cookie)])
            head = RequestHead(b"GET", b"http", b"x.example", b"/%d" % number, fields)
            admitted = admit(parts, head, PEER)
            told = prospect.via(admitted, parts.ways)
            chosen = parts.ways.way_of(admitted)._choose(group, group.now(), ())
            assert told is not None
            assert chosen is not None
            assert group.ids[chosen] == f"shield {told['first']}"
