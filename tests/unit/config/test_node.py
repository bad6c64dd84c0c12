from __future__ import annotations

from edge.config import Address, LimitsSettings, NodeSettings


def test_an_address_may_be_listened_on_once() -> None:
    twice = (Address("::1", 80), Address("::1", 80))
    (said,) = NodeSettings(name="n", listen=twice).check()
    assert said.keys == ("listen", 1)


def test_any_free_port_may_be_asked_for_twice() -> None:
    assert not list(NodeSettings(name="n", listen=(Address("::1", 0),) * 2).check())


def test_a_target_must_fit_into_its_head() -> None:
    assert list(LimitsSettings(head=2_048, target=2_048).check())
    assert not list(LimitsSettings().check())
