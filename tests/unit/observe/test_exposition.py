from __future__ import annotations

from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.observe.exposition import FAMILIES, _header, exposition
from edge.observe.metrics import BUILD, ORIGIN_POINTS, POINTS, STARTED, TIMES_S, Family, Fold, Kind
from edge.observe.reading import ArmTold, Histogram, OriginTold, Reading, Served
from tests.unit.observe.test_reading import readings
from tests.unit.scraped import scraped

READING: Final = Reading(
    starts=3,
    started_s=1_700_000_000,
    hits=Served(Histogram([1] * 16, 2_500_000), sent_bytes=2**60),
    requests={
        ("hit", "hit", "200", ""): 5,
        ("hit", "hit", "206", ""): 2,
        ("miss", "uri-miss/no-store", "2xx", "client-left"): 1,
    },
    origins={"eu": OriginTold(Histogram([2, *[0] * 15], 500), 7)},
    arms={
        ("a.example/checkout", "new"): ArmTold(
            [0, 5, 0, 2, 0, 0], 6, 4, 3, Histogram([7, *[0] * 15], 9_000)
        )
    },
)


def test_a_reading_is_told_by_name_label_and_value() -> None:
    read = scraped(exposition({None: READING}, version="1.2"))
    assert read.one("edge_build_info", version="1.2") == 1
    assert read.one("edge_requests_total", cache="hit", reason="hit", status="2xx") == 7
    missed = {"cache": "miss", "reason": "uri-miss/no-store", "status": "2xx"}
    assert read.one("edge_requests_total", **missed) == 1
    assert read.one("edge_request_errors_total", error="client-left") == 1
    assert read.one("edge_sent_bytes_total", hit="true") == 2**60
    assert read.one("edge_request_duration_seconds_sum", hit="true") == 2.5
    assert read.one("edge_request_duration_seconds_bucket", hit="true", le="0.001") == 2
    assert read.one("edge_request_duration_seconds_bucket", hit="true", le="+Inf") == 16
    assert read.one("edge_origin_errors_total", origin="eu") == 7
    assert read.one("edge_origin_wait_seconds_count", origin="eu") == 2
    assert read.one("edge_origin_requests_total", origin="eu") == 0
    arm = {"experiment": "a.example/checkout", "arm": "new"}
    assert read.one("edge_experiment_requests_total", **arm, status="2xx") == 5
    assert read.one("edge_experiment_requests_total", **arm, status="4xx") == 2
    assert read.one("edge_experiment_visitors_total", **arm) == 3
    assert read.one("edge_experiment_looked_up_total", **arm) == 6
    assert read.one("edge_experiment_hits_total", **arm) == 4
    assert read.one("edge_experiment_request_duration_seconds_count", **arm) == 7
    assert read.one("edge_experiment_request_duration_seconds_sum", **arm) == 0.009
    assert read.one("edge_store_entries", tier="disk") == 0
    assert read.one("edge_worker_starts_total") == 3


def test_every_family_is_told_with_its_kind_and_sentence() -> None:
    read = scraped(exposition({None: Reading()}, version="1"))
    assert read.order == [family.name for family in FAMILIES]
    assert read.kinds == {family.name: family.kind.value for family in FAMILIES}
    assert read.helps == {family.name: family.says for family in FAMILIES}


@settings(max_examples=50)
@given(readings)
def test_a_histogram_only_rises_and_ends_at_its_count(reading: Reading) -> None:
    read = scraped(exposition({None: reading}, version="1"))
    for family in FAMILIES:
        if family.kind is not Kind.HISTOGRAM:
            continue
        counts = {has: v for (name, has), v in read.samples.items() if name == f"{family.name}_count"}  # fmt: skip # noqa: E501
        for labels, count in counts.items():
            bounds = [*map(repr, TIMES_S), "+Inf"]
            rise = [read.one(f"{family.name}_bucket", **dict(labels), le=le) for le in bounds]
            assert rise == sorted(rise)
            assert rise[-1] == count


@settings(max_examples=50)
@given(readings, readings)
def test_workers_apart_add_up_to_the_total(one: Reading, two: Reading) -> None:
    total = scraped(exposition({None: one.plus(two)}, version="1"))
    apart = scraped(exposition({"0": one, "1": two}, version="1"))
    most = {p.family.name for p in ORIGIN_POINTS if p.fold is Fold.MOST}
    most |= {p.family.name for p in POINTS if p.fold is Fold.MOST} | {STARTED.name}
    for (name, labels), value in total.samples.items():
        if name == BUILD.name:
            continue
        parts = [
            apart.samples.get((name, labels | {("worker", worker)}), 0.0) for worker in ("0", "1")
        ]
        folded = max(parts) if name in most else sum(parts)
        assert abs(folded - value) <= 1e-9 * value


@given(st.text())
def test_a_label_says_what_it_said_whatever_stands_in_it(name: str) -> None:
    text = exposition({None: Reading(origins={name: OriginTold(errors=3)})}, version=name)
    if name.encode("utf-8", "replace").decode() == name:
        assert scraped(text).one("edge_origin_errors_total", origin=name) == 3


def test_the_order_does_not_depend_on_what_came_first() -> None:
    back = Reading(
        READING.starts,
        READING.started_s,
        READING.points,
        READING.hits,
        READING.rest,
        dict(reversed(READING.requests.items())),
        READING.origins,
        READING.arms,
    )
    assert exposition({None: back}, version="1") == exposition({None: READING}, version="1")


def test_a_sentence_of_two_lines_stays_in_its_comment() -> None:
    family = Family("edge_x", Kind.GAUGE, "a\\b\nc")
    assert _header(family) == ["# HELP edge_x a\\\\b\\nc", "# TYPE edge_x gauge"]
