"""Where an address is, and which of several places is nearest to it.

A place is what a record of a MaxMind-format City or Country database tells: a country, its
continent, a subdivision, coordinates. Any of it may be missing. Where a record has a country and
no coordinates, as in every Country database, the middle of the country stands for it: good enough
to choose between continents, which is what it is for.

- *Never a guess beyond the record.* `registered_country` says who owns a network, not where it is
  used; it stands in only where a record has no `country` at all (satellites, anycast), and then
  for the country alone: no subdivision is taken from it. `represented_country` (an embassy, a
  base abroad) is never read, since the visitor sits where `country` says.
- *Records are somebody else's data.* Any value may be of any type; what is not what it should be
  is as good as missing. Codes are matched in rules, put into keys and sent to origins, so only
  letters and digits of a code's length get through.
- *An order, not a map.* Distances go along the great circle on a sphere, which is wrong by half a
  percent at most; packets do not travel along it either. What has no coordinates is last, and
  where there is nothing to compare the settings' own order stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import asin, cos, radians, sin, sqrt
from typing import TYPE_CHECKING, Final, TypeGuard, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Name = TypeVar("Name")

EARTH_RADIUS_KM: Final = 6371.0088  # the mean radius R1 of the IUGG
_LATITUDE: Final = 90.0
_LONGITUDE: Final = 180.0
_TWO_LETTERS: Final = re.compile(r"[A-Za-z]{2}")  # ISO 3166-1 alpha-2, and continents
_SUBDIVISION: Final = re.compile(r"[A-Za-z0-9]{1,3}")  # ISO 3166-2, behind the country's


@dataclass(frozen=True, slots=True)
class Coordinates:
    """A point on the Earth, in degrees: north and east are positive.

    Raises `ValueError` for what is outside -90 to 90 and -180 to 180, or no number.
    """

    latitude: float
    longitude: float

    def __post_init__(self) -> None:
        _check("latitude", self.latitude, _LATITUDE)
        _check("longitude", self.longitude, _LONGITUDE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client is, as far as it is known; "" and None are unknown.

    Codes are in capitals: a country by ISO 3166-1 ("DE"), a continent by two letters ("EU"), a
    subdivision by ISO 3166-2 with its country ("DE-BE"). `area` is the three of them in one text,
    which is quick to look things up by.
    """

    country: str = ""
    continent: str = ""
    subdivision: str = ""
    at: Coordinates | None = None
    area: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        area = f"{self.country} {self.continent} {self.subdivision}"
        object.__setattr__(self, "area", area)


NOWHERE: Final = Place()


def distance_km(a: Coordinates, b: Coordinates) -> float:
    """Kilometres along the great circle between two points (the haversine formula)."""
    north = radians(b.latitude - a.latitude) / 2
    east = radians(b.longitude - a.longitude) / 2
    parallels = cos(radians(a.latitude)) * cos(radians(b.latitude))
    h = sin(north) ** 2 + parallels * sin(east) ** 2
    return 2 * EARTH_RADIUS_KM * asin(min(1.0, sqrt(h)))  # rounding must not take it over


def nearest(
    place_at: Coordinates | None, named: Sequence[tuple[Name, Coordinates | None]]
) -> tuple[Name, ...]:
    """Names by their distance from a place, the nearest first.

    What is equally far keeps the order given; so do those without coordinates, behind the others,
    and all of them where the place is unknown.
    """
    if place_at is None:
        return tuple(name for name, _ in named)
    known = [(distance_km(place_at, at), name) for name, at in named if at is not None]
    known.sort(key=lambda pair: pair[0])
    rest = (name for name, at in named if at is None)
    return (*(name for _, name in known), *rest)


def place_of(record: object, centroids: Mapping[str, Coordinates]) -> Place:
    """The place that a database's record tells; `centroids` are the middles of countries by code.

    A record is made of dicts and lists, as `maxminddb` decodes it. Never raises, whatever it is.
    """
    if not isinstance(record, dict):
        return NOWHERE
    country = _code(record.get("country"), "iso_code", _TWO_LETTERS)
    subdivision = _subdivision(record.get("subdivisions"), country) if country else ""
    if "country" not in record:
        country = _code(record.get("registered_country"), "iso_code", _TWO_LETTERS)
    at = _location(record.get("location")) or centroids.get(country)
    return Place(country, _code(record.get("continent"), "code", _TWO_LETTERS), subdivision, at)


def _check(name: str, degrees: float, most: float) -> None:
    if not -most <= degrees <= most:  # NaN is in no range
        raise ValueError(f"{name} {degrees} is not between -{most:g} and {most:g} degrees")


def _code(part: object, key: str, form: re.Pattern[str]) -> str:
    """The code in a part of a record, in capitals; "" where there is none of this form."""
    text = part.get(key) if isinstance(part, dict) else None
    return text.upper() if isinstance(text, str) and form.fullmatch(text) else ""


def _subdivision(parts: object, country: str) -> str:
    """The largest subdivision: the list goes from England to the county of Kent."""
    if not isinstance(parts, list | tuple) or not parts:
        return ""
    code = _code(parts[0], "iso_code", _SUBDIVISION)
    return f"{country}-{code}" if code else ""


def _location(part: object) -> Coordinates | None:
    if not isinstance(part, dict):
        return None
    latitude, longitude = part.get("latitude"), part.get("longitude")
    if not _is_number(latitude) or not _is_number(longitude):
        return None
    try:
        return Coordinates(float(latitude), float(longitude))
    except (ValueError, OverflowError):  # an integer may be larger than any float
        return None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
