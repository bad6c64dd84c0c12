"""Places and distances: laws of the sphere, and records that may hold anything."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.routing.geo import (
    EARTH_RADIUS_KM,
    NOWHERE,
    Coordinates,
    Place,
    distance_km,
    nearest,
    place_of,
)

HALF_ROUND_KM = math.pi * EARTH_RADIUS_KM
FRANKFURT = Coordinates(50.11, 8.68)
ASHBURN = Coordinates(39.04, -77.49)
SINGAPORE = Coordinates(1.35, 103.82)
BERLIN = Coordinates(52.52, 13.41)

POINTS = st.builds(Coordinates, st.floats(-90, 90), st.floats(-180, 180))
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "country",
        "registered_country",
        "continent",
        "subdivisions",
        "location",
        "iso_code",
        "code",
        "latitude",
        "longitude",
    ]
)
NEARLY = st.recursive(  # the right names, with anything in them
    JUNK,
    lambda inner: st.dictionaries(KEYS, inner, max_size=5) | st.lists(inner, max_size=2),
    max_leaves=12,
)


# -- coordinates


@pytest.mark.parametrize(
    ("latitude", "longitude"), [(90, 180), (-90, -180), (0, 0), (-0.0, 179.999)]
)
def test_the_ends_of_the_world_are_on_it(latitude: float, longitude: float) -> None:
    assert Coordinates(latitude, longitude).latitude == latitude


@pytest.mark.parametrize(
    ("latitude", "longitude", "words"),
    [
        (90.01, 0, "latitude 90.01 is not between -90 and 90 degrees"),
        (-91, 0, "latitude -91 is not between -90 and 90 degrees"),
        (0, 180.5, "longitude 180.5 is not between -180 and 180 degrees"),
        (0, -1000, "longitude -1000 is not between -180 and 180 degrees"),
        (math.nan, 0, "latitude nan"),
        (0, math.inf, "longitude inf"),
    ],
)
def test_what_is_not_on_the_earth_is_named(latitude: float, longitude: float, words: str) -> None:
    with pytest.raises(ValueError) as told:
        Coordinates(latitude, longitude)
    assert words in str(told.value)


# -- distance


@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        (FRANKFURT, BERLIN, 424),
        (FRANKFURT, ASHBURN, 6_530),
        (FRANKFURT, SINGAPORE, 10_270),
        (ASHBURN, SINGAPORE, 15_550),
        (Coordinates(36.12, -86.67), Coordinates(33.94, -118.40), 2_887),
    ],
)
def test_it_is_what_an_atlas_says(a: Coordinates, b: Coordinates, km: float) -> None:
    assert distance_km(a, b) == pytest.approx(km, rel=0.005)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Coordinates(90, 0), Coordinates(-90, 0)),
        (Coordinates(0, 0), Coordinates(0, 180)),
        (Coordinates(0, -90), Coordinates(0, 90)),
        (Coordinates(50.11, 8.68), Coordinates(-50.11, -171.32)),
        (Coordinates(1e-9, 1e-9), Coordinates(-1e-9, -180 + 1e-9)),
    ],
)
def test_antipodes_are_half_way_round(a: Coordinates, b: Coordinates) -> None:
    assert distance_km(a, b) == pytest.approx(HALF_ROUND_KM, abs=0.01)


@given(POINTS)
def test_every_point_has_its_antipode(point: Coordinates) -> None:
    opposite = point.longitude - 180 if point.longitude > 0 else point.longitude + 180
    found = distance_km(point, Coordinates(-point.latitude, opposite))
    assert found == pytest.approx(HALF_ROUND_KM, abs=0.01)


@given(st.floats(-180, 180), st.floats(-180, 180))
def test_a_pole_is_one_point_at_all_longitudes(one: float, other: float) -> None:
    assert distance_km(Coordinates(90, one), Coordinates(90, other)) < 1e-6
    quarter = distance_km(Coordinates(-90, one), Coordinates(0, other))
    assert quarter == pytest.approx(HALF_ROUND_KM / 2)


@given(st.floats(-90, 90))
def test_the_date_line_is_no_border(latitude: float) -> None:
    east, west = Coordinates(latitude, 180), Coordinates(latitude, -180)
    assert distance_km(east, west) < 1e-6
    assert distance_km(Coordinates(latitude, 179), Coordinates(latitude, -179)) < 223


def test_small_distances_keep_their_digits() -> None:
    here, there = Coordinates(50.0, 8.0), Coordinates(50.00001, 8.0)
    assert distance_km(here, there) * 1e6 == pytest.approx(1_112, abs=1)  # mm


@given(POINTS, POINTS)
def test_there_is_as_far_as_back(a: Coordinates, b: Coordinates) -> None:
    assert distance_km(a, b) == distance_km(b, a)
    assert 0 <= distance_km(a, b) <= HALF_ROUND_KM * (1 + 1e-12)
    assert distance_km(a, a) == 0


@given(POINTS, POINTS, POINTS)
def test_a_detour_is_never_shorter(a: Coordinates, b: Coordinates, c: Coordinates) -> None:
    assert distance_km(a, c) <= distance_km(a, b) + distance_km(b, c) + 1e-3


# -- nearest

NAMED = st.lists(st.tuples(st.text(max_size=3), st.none() | POINTS), max_size=8)


def test_origins_come_by_their_distance() -> None:
    named = [("ap", SINGAPORE), ("us", ASHBURN), ("eu", FRANKFURT)]
    assert nearest(BERLIN, named) == ("eu", "us", "ap")
    assert nearest(Coordinates(35.69, 139.69), named) == ("ap", "eu", "us")


def test_a_client_without_a_place_gets_the_order_given() -> None:
    assert nearest(None, [("b", SINGAPORE), ("a", None), ("c", BERLIN)]) == ("b", "a", "c")


def test_what_has_no_coordinates_is_last_in_the_order_given() -> None:
    named = [("z", None), ("far", SINGAPORE), ("a", None), ("near", BERLIN)]
    assert nearest(FRANKFURT, named) == ("near", "far", "z", "a")


def test_what_is_equally_far_keeps_the_order_given() -> None:
    same = [("b", ASHBURN), ("a", ASHBURN), ("c", ASHBURN)]
    assert nearest(BERLIN, same) == ("b", "a", "c")
    either_side = [("west", Coordinates(0, -10)), ("east", Coordinates(0, 10))]
    assert nearest(Coordinates(0, 0), either_side) == ("west", "east")


def test_of_nothing_nothing_is_nearest() -> None:
    assert nearest(BERLIN, []) == ()


@given(st.none() | POINTS, NAMED)
def test_every_name_stays_and_none_is_added(
    at: Coordinates | None, named: list[tuple[str, Coordinates | None]]
) -> None:
    assert sorted(nearest(at, named)) == sorted(name for name, _ in named)


@given(POINTS, st.lists(st.none() | POINTS, max_size=8))
def test_they_are_sorted_by_distance_and_stably(
    at: Coordinates, points: list[Coordinates | None]
) -> None:
    def rank(number: int) -> tuple[float, int]:
        point = points[number]
        return (math.inf if point is None else distance_km(at, point)), number

    order = nearest(at, list(enumerate(points)))
    assert list(order) == sorted(range(len(points)), key=rank)


@given(POINTS, st.lists(POINTS, max_size=6, unique=True))
def test_the_nearest_does_not_depend_on_the_order_given(
    at: Coordinates, points: list[Coordinates]
) -> None:
    named = list(enumerate(points))
    turned = named[::-1]
    far = [distance_km(at, points[name]) for name in nearest(at, named)]
    assert far == [distance_km(at, points[name]) for name in nearest(at, turned)]


# -- place_of

CENTROIDS = {"DE": Coordinates(51, 10), "US": Coordinates(39, -98)}
CITY = {
    "continent": {"code": "EU", "geoname_id": 6255148},
    "country": {"iso_code": "DE", "names": {"de": "Deutschland"}},
    "location": {"latitude": 52.52, "longitude": 13.41, "accuracy_radius": 20},
    "registered_country": {"iso_code": "US"},
    "subdivisions": [{"iso_code": "BE"}],
}


def test_a_city_record_tells_all() -> None:
    assert place_of(CITY, CENTROIDS) == Place("DE", "EU", "DE-BE", Coordinates(52.52, 13.41))


def test_a_country_record_is_in_the_middle_of_its_country() -> None:
    record = {"continent": {"code": "EU"}, "country": {"iso_code": "DE"}}
    assert place_of(record, CENTROIDS) == Place("DE", "EU", "", Coordinates(51, 10))


def test_a_country_without_a_known_middle_has_no_coordinates() -> None:
    assert place_of({"country": {"iso_code": "FR"}}, CENTROIDS) == Place("FR")


def test_no_record_is_nowhere() -> None:
    assert place_of(None, CENTROIDS) == place_of({}, CENTROIDS) == NOWHERE == Place()


def test_the_largest_subdivision_counts() -> None:
    record = {
        "country": {"iso_code": "GB"},
        "subdivisions": [{"iso_code": "ENG"}, {"iso_code": "KEN"}],
    }
    assert place_of(record, {}).subdivision == "GB-ENG"


def test_the_registered_country_stands_in_only_where_there_is_no_country() -> None:
    owner = {"registered_country": {"iso_code": "US"}}
    assert place_of(owner, CENTROIDS) == Place("US", at=CENTROIDS["US"])
    assert place_of(owner | {"country": {}}, CENTROIDS) == NOWHERE
    assert place_of(owner | {"country": {"iso_code": "DE"}}, CENTROIDS).country == "DE"


def test_an_owner_has_no_subdivision() -> None:
    record = {"registered_country": {"iso_code": "US"}, "subdivisions": [{"iso_code": "CA"}]}
    assert place_of(record, CENTROIDS).subdivision == ""


def test_an_embassy_is_where_it_stands() -> None:
    record = {"country": {"iso_code": "DE"}, "represented_country": {"iso_code": "US"}}
    assert place_of(record, CENTROIDS).country == "DE"


def test_codes_are_told_in_capitals() -> None:
    record = {
        "country": {"iso_code": "de"},
        "continent": {"code": "eu"},
        "subdivisions": [{"iso_code": "be"}],
    }
    assert place_of(record, CENTROIDS) == Place("DE", "EU", "DE-BE", CENTROIDS["DE"])


@pytest.mark.parametrize("code", ["D", "DEU", "D1", "D\n", "DE\n", "ÄÖ", "ß", "D;", "", 49, None])
def test_what_is_no_country_code_is_no_country(code: object) -> None:
    assert place_of({"country": {"iso_code": code}, "continent": {"code": code}}, {}) == NOWHERE


@pytest.mark.parametrize("code", ["", "ABCD", "B-", "B\r\n", "Ü", 7, None, ["BE"]])
def test_what_is_no_subdivision_code_is_none(code: object) -> None:
    record = {"country": {"iso_code": "DE"}, "subdivisions": [{"iso_code": code}]}
    assert place_of(record, {}) == Place("DE")


@pytest.mark.parametrize(
    "location",
    [
        {"latitude": 52.5},
        {"longitude": 13.4},
        {"latitude": "52.5", "longitude": "13.4"},
        {"latitude": True, "longitude": False},
        {"latitude": 91, "longitude": 0},
        {"latitude": 0, "longitude": math.nan},
        {"latitude": 10**400, "longitude": 0},
        [52.5, 13.4],
        None,
    ],
)
def test_coordinates_that_are_none_give_way_to_the_middle(location: object) -> None:
    record = {"country": {"iso_code": "DE"}, "location": location}
    assert place_of(record, CENTROIDS).at == CENTROIDS["DE"]


def test_coordinates_may_be_whole_numbers() -> None:
    at = place_of({"location": {"latitude": 52, "longitude": 13}}, {}).at
    assert at == Coordinates(52.0, 13.0)
    assert at is not None
    assert isinstance(at.latitude, float)


@given(JUNK | NEARLY | st.dictionaries(KEYS, NEARLY))
def test_no_record_raises_and_all_codes_are_codes(record: object) -> None:
    place = place_of(record, CENTROIDS)
    assert place.country == "" or (len(place.country) == 2 and place.country.isalpha())
    assert place.continent == "" or (len(place.continent) == 2 and place.continent.isalpha())
    assert place.subdivision == "" or place.subdivision.startswith(f"{place.country}-")
    told = place.country + place.continent + place.subdivision.replace("-", "", 1)
    assert told == "" or (told.isascii() and told.isalnum() and told == told.upper())
