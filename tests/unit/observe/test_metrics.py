from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest

from edge.cache.journal import JournalStatistics
from edge.cache.ram import RamStatistics
from edge.cache.reaper import ReaperStatistics
from edge.cache.tier import DiskStatistics
from edge.coding.coders import CoderStatistics
from edge.coding.library import LibraryStatistics
from edge.hop.relay import HopStatistics
from edge.listen.tcp import ConnectionStatistics
from edge.observe import metrics
from edge.observe.accesslog import AccessLogStatistics
from edge.observe.errorlog import ErrorLogStatistics
from edge.observe.exposition import FAMILIES
from edge.observe.metrics import ORIGIN_POINTS, POINTS, Family, Kind, Point, status_class
from edge.upstream.pool import PoolStatistics


def numbered(statistics: type) -> dict[str, int]:
    """The document of a class of statistics; all its values are 1."""
    return dict.fromkeys((each.name for each in fields(statistics)), 1)


STATUS: dict[str, Any] = {
    "connections": numbered(ConnectionStatistics),
    "store": {"memory": numbered(RamStatistics), "disk": numbered(DiskStatistics)},
    "purges": {
        "latest": 1,
        "scopes": 1,
        "journal": numbered(JournalStatistics),
        "dead_on_disk": numbered(ReaperStatistics),
    },
    "hops": numbered(HopStatistics),
    "codings": numbered(CoderStatistics),
    "dictionaries": numbered(LibraryStatistics),
    "flights": 1,
    "access_log": numbered(AccessLogStatistics),
    "error_log": numbered(ErrorLogStatistics),
}


@pytest.mark.parametrize("point", POINTS, ids=lambda point: "+".join(point.sources))
def test_a_point_is_found_in_the_status_of_a_node(point: Point) -> None:
    assert point.value_in(STATUS) == len(point.sources)


@pytest.mark.parametrize("point", ORIGIN_POINTS, ids=lambda point: "+".join(point.sources))
def test_a_point_of_an_origin_is_found_in_the_status_of_its_pool(point: Point) -> None:
    assert point.value_in(numbered(PoolStatistics)) == len(point.sources)


def test_what_a_status_does_not_have_is_not_told_as_nothing() -> None:
    point = Point(Family("edge_x", Kind.GAUGE, ""), ("store.disk.rows",))
    assert point.value_in({"store": {"disk": None}}) is None
    assert point.value_in({"store": 1}) is None
    assert point.value_in({"store": {"disk": {"rows": True}}}) == 1


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_name_keeps_to_the_conventions_of_prometheus(family: Family) -> None:
    assert re.fullmatch(r"edge(_[a-z]+)+", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert not re.search(r"_(ms|us|kb|mib|s|count|sum|bucket)$", family.name)
    if family.kind is Kind.HISTOGRAM:
        assert family.name.endswith("_seconds")
    assert family.says.endswith(".")
    assert all(re.fullmatch(r"[a-z]+", label) for label in family.labels)
    assert not {"le", "worker", "job", "instance"} & set(family.labels)


def test_every_family_is_told_once() -> None:
    names = [family.name for family in FAMILIES]
    assert len(names) == len(set(names))
    declared = {value for value in vars(metrics).values() if isinstance(value, Family)}
    assert declared <= set(FAMILIES)


def test_every_point_has_a_value_for_each_label() -> None:
    for point in POINTS:
        assert len(point.values) == len(point.family.labels)


@pytest.mark.parametrize(
    ("status", "told"),
    [("204", "2xx"), ("100", "1xx"), ("5xx", "5xx"), ("0", "other"), ("999", "other")],
)
def test_a_status_is_told_by_its_class(status: str, told: str) -> None:
    assert status_class(status) == told
