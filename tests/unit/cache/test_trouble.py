"""Troubles: all counted, few told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.cache.trouble import QUIET_S, Troubles

if TYPE_CHECKING:
    from tests.unit.cache.conftest import Clock


def test_a_kind_is_told_once_in_a_while_and_counted_always(clock: Clock, log: list[str]) -> None:
    troubles = Troubles(log.append, clock)
    for _ in range(5):
        troubles.tell("error", "disk on fire")
    troubles.tell("body lost", "b")
    assert log == ["store: error: disk on fire", "store: body lost: b"]
    clock.now += QUIET_S
    troubles.tell("error", "still")
    assert log[-1] == "store: error: still (4 more since the last such line)"
    assert (troubles.count("error"), troubles.count("never"), troubles.total()) == (6, 0, 7)
