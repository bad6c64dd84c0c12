from __future__ import annotations

import time

import pytest

from edge.config import for_proxy
from edge.node import EDGE, parts
from edge.serving.admission import admit
from edge.serving.shielding import Voice
from edge.surroundings.behind import Behind
from tests.unit.edgeparts import groups_of

NOTHING = Behind(now=lambda: 0.0, chance=lambda: 0.0)
SECRET = "0123456789abcdef0123456789abcdef"
SHIELDED = (
    'shield={nodes=["http://s1", "http://s2"], secret={env="TEST_SHIELD_SECRET"}, without="fail"}',
    "node.at=[50.1, 8.7]",
)


def test_an_edge_is_made_of_its_settings() -> None:
    told = ["node.name=fra1", 'node.trusted_proxies=["10.0.0.0/8"]']
    config = for_proxy(["127.0.0.1:0"], "http://a.example", hostname="h", sets=told)
    made = parts(config, NOTHING, b"salt")
    assert (made.name, made.salt) == (b"fra1", b"salt")
    assert made.trusted.trusts(b"10.1.2.3")
    site = made.sites.find(b"any.example")
    assert site is not None
    assert site.terms.route.names == ("default",)


def test_an_edge_admits_whoever_asks_and_remembers_what_they_asked() -> None:
    config = for_proxy(["127.0.0.1:0"], "http://a.example", hostname="h")
    made = parts(config, NOTHING, b"")
    assert made.admit is admit
    assert made.remembers
    assert EDGE.program == "edge"


def test_an_edge_reaches_its_shields_by_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SHIELD_SECRET", SECRET)
    config = for_proxy(["127.0.0.1:0"], "http://a.example", hostname="h", sets=SHIELDED)
    groups = groups_of(config)
    made = parts(config, Behind(lambda: 0.0, lambda: 0.0, groups), b"").ways
    assert made.shielding is not None
    assert made.shielding.group is groups["shield"]
    assert made.shielding.voice == Voice(config.node.name.encode(), SECRET.encode())
    assert made.shielding.without is False
    assert list(made.groups) == ["default"]
    assert made.at is not None
    assert made.at.latitude == 50.1


def test_an_edge_without_its_secret_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_SHIELD_SECRET", raising=False)
    config = for_proxy(["127.0.0.1:0"], "http://a.example", hostname="h", sets=SHIELDED)
    with pytest.raises(
        ValueError, match=r"shield\.secret\.env: there is no variable TEST_SHIELD_SECRET"
    ):
        parts(config, NOTHING, b"")


def test_an_edge_signs_by_the_time_of_day_by_which_shields_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node's own clock takes no step: it may be off by one until the node is started again."""
    monkeypatch.setenv("TEST_SHIELD_SECRET", SECRET)
    config = for_proxy(["127.0.0.1:0"], "http://a.example", hostname="h", sets=SHIELDED)
    an_hour_late = Behind(lambda: time.time() - 3600.0, lambda: 0.0, groups_of(config))
    ways = parts(config, an_hour_late, b"").ways
    assert abs(ways.now() - time.time()) < 60.0
