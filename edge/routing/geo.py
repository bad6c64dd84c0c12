"""Where a server stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Coordinates:
    """A place on the earth, in degrees: north and east are positive."""

    latitude: float
    longitude: float
