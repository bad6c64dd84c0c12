"""The clock of stored things goes on evenly, whatever becomes of the system's."""

from __future__ import annotations

from edge.clock import Clock


class Hands:
    def __init__(self, wall: float, monotonic: float) -> None:
        self.wall = wall
        self.monotonic = monotonic


def test_it_starts_at_the_time_of_day_and_goes_on_by_the_monotonic_clock() -> None:
    hands = Hands(1_000_000.0, 50.0)
    clock = Clock(lambda: hands.wall, lambda: hands.monotonic)
    assert clock.now() == 1_000_000.0
    hands.monotonic += 7.5
    assert clock.now() == 1_000_007.5


def test_a_step_of_the_systems_clock_does_not_move_it() -> None:
    hands = Hands(1_000_000.0, 50.0)
    clock = Clock(lambda: hands.wall, lambda: hands.monotonic)
    hands.wall -= 3 * 86_400.0
    hands.monotonic += 1.0
    assert clock.now() == 1_000_001.0
