from __future__ import annotations

import pytest

from edge.config import Config, OriginSettings, ShieldSettings, for_proxy
from edge.config.notation import SecretSettings
from edge.config.origin import place_faults
from edge.routing.balance import Balance, EjectPolicy, GroupPolicy
from edge.settings import SettingsError
from edge.settings.schema import declared


def keys(told: OriginSettings) -> list[tuple[str | int, ...]]:
    return [each.keys for each in told.check()]


def config(*sets: str) -> Config:
    return for_proxy(["127.0.0.1:0"], "http://a.example", hostname="h", sets=sets)


def test_an_origin_is_its_servers_and_all_else_has_a_default() -> None:
    told = OriginSettings(servers=("http://a", "http://b"))
    assert keys(told) == []
    assert [each.name for each in declared(OriginSettings) if not each.has_default] == ["servers"]


def test_the_defaults_are_those_of_the_policies() -> None:
    told, policy, eject = OriginSettings(servers=("http://a",)), GroupPolicy(), EjectPolicy()
    assert (Balance(told.balance), told.slow_start) == (policy.balance, policy.slow_start_s)
    own = told.eject
    assert (own.after, own.for_, own.most) == (eject.after, eject.for_s, eject.most)
    assert own.slower == 0.0  # to be slow is no fault unless it is said


def test_every_balance_there_is_can_be_asked_for_by_its_name() -> None:
    for balance in Balance:
        assert config(f"origin.default.balance={balance}").origins["default"].balance == balance


def test_a_server_stands_once() -> None:
    assert keys(OriginSettings(servers=("http://a", "http://b", "http://a"))) == [("servers", 2)]


@pytest.mark.parametrize(
    ("weights", "fault"),
    [((), False), ((1.0,), True), ((1.0, 0.0), False), ((0.0, 0.0), True), ((1, 2, 3), True)],
)
def test_weights_are_one_for_each_server_and_one_of_them_counts(
    weights: tuple[float, ...], *, fault: bool
) -> None:
    told = OriginSettings(servers=("http://a", "http://b"), weights=weights)
    assert keys(told) == [("weights",)] * fault


@pytest.mark.parametrize(
    ("at", "fault"),
    [
        (None, False), ((50.1, 8.7), False), ((-90, -180), False), ((90, 180), False),
        ((90.1, 0), True), ((-91, 0), True), ((50.1,), True), ((1, 2, 3), True), ((), True),
    ],
)  # fmt: skip
def test_a_place_is_a_latitude_and_a_longitude(
    at: tuple[float, ...] | None, *, fault: bool
) -> None:
    assert [each.keys for each in place_faults(at)] == [("at",)] * fault


def test_a_shield_is_asked_with_a_secret_and_no_origin_has_its_name() -> None:
    told = ShieldSettings(nodes=("http://s",), secret=SecretSettings(env="A"))
    assert told.without == "origin"
    shield = 'shield={nodes=["http://s"],secret={env="A"}}'
    assert config(shield).shield is not None
    with pytest.raises(SettingsError) as caught:
        config(shield, 'origin.shield={servers=["http://a"]}')
    assert [str(fault) for fault in caught.value.faults] == [
        "origin.shield: is what the shields are called here; give the origin another name"
    ]
    assert config('origin.shield={servers=["http://a"]}').origins["shield"]


@pytest.mark.parametrize("again", ["http://s", "http://s:80", "http://S"])
def test_a_server_and_a_shield_stand_once_in_whatever_spelling(again: str) -> None:
    assert config(f'origin.b.servers=["http://t","{again}"]').origins["b"]
    for sets, path in (
        (f'origin.b.servers=["http://s","{again}"]', "origin.b.servers[1]"),
        (f'shield={{nodes=["http://s","{again}"],secret={{env="A"}}}}', "shield.nodes[1]"),
    ):
        with pytest.raises(SettingsError) as caught:
            config(sets)
        (fault,) = caught.value.faults
        assert (fault.path, fault.message) == (path, "stands here twice; take one out")


@pytest.mark.parametrize(
    ("slower", "fault"), [(0, False), (0.5, True), (1, True), (1.4, True), (1.5, False), (5, False)]
)
def test_who_is_as_fast_as_most_is_no_outlier(slower: float, *, fault: bool) -> None:
    """Of any group, half are slower than half the median."""
    sets = f"origin.default.eject={{slower={slower}}}"
    if not fault:
        assert config(sets).origins["default"].eject.slower == slower
        return
    with pytest.raises(SettingsError, match=r"eject\.slower: .*write 0, or 1\.5 and more"):
        config(sets)
