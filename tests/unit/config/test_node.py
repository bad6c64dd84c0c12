from __future__ import annotations

from edge.config import Address, LimitsSettings, NodeSettings, for_proxy


def test_an_address_may_be_listened_on_once() -> None:
    twice = (Address("::1", 80), Address("::1", 80))
    (said,) = NodeSettings(name="n", listen=twice).check()
    assert said.keys == ("listen", 1)


def test_any_free_port_may_be_asked_for_twice() -> None:
    assert not list(NodeSettings(name="n", listen=(Address("::1", 0),) * 2).check())


def test_metrics_are_never_told_where_clients_connect() -> None:
    public, own = Address("::1", 80), Address("::1", 9_100)
    (said,) = NodeSettings(name="n", listen=(public,), metrics=public).check()
    assert said.keys == ("metrics",)
    assert not list(NodeSettings(name="n", listen=(public,), metrics=own).check())
    free = Address("::1", 0)
    assert not list(NodeSettings(name="n", listen=(free,), metrics=free).check())


def test_metrics_are_told_nowhere_unless_an_address_is_given() -> None:
    assert NodeSettings(name="n", listen=()).metrics is None
    asked = for_proxy(["[::1]:0"], "http://a", hostname="h", sets=["node.metrics=[::1]:9100"])
    assert asked.node.metrics == Address("::1", 9_100)


def test_a_target_must_fit_into_its_head() -> None:
    assert list(LimitsSettings(head=2_048, target=2_048).check())
    assert not list(LimitsSettings().check())
