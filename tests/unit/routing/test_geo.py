"""A place is its coordinates."""

from __future__ import annotations

from edge.routing.geo import Coordinates


def test_coordinates_are_values() -> None:
    assert Coordinates(50.1, 8.7) == Coordinates(50.1, 8.7) != Coordinates(8.7, 50.1)
