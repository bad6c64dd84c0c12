from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge import observe
from edge.observe import Measurements, Outcome, Record, text

RECORD = Record(time=0.0, id="a", client="::1", status=200, bytes=10, reason="hit", total_s=0.002)


def measured(*outcomes: Outcome) -> Measurements:
    measurements = Measurements()
    for outcome in outcomes:
        measurements.record(replace(RECORD, cache=outcome))
    return measurements


def test_a_record_is_counted_under_each_of_its_words() -> None:
    measurements = Measurements()
    told_of = replace(RECORD, error="loop", upstream="eu", upstream_s=0.1, first_byte_s=0.001)
    measurements.record(told_of)
    told = measurements.snapshot()
    assert told["requests"] == {"refused": 1}
    assert told["reasons"] == {"hit": 1}
    assert told["statuses"] == {"200": 1}
    assert told["errors"] == {"loop": 1}
    assert told["fetches"] == {"eu": 1}
    assert told["sent_bytes"] == 10
    assert told["duration_s"] == {"count": 1, "sum": 0.002, "p50": 0.0025, "p99": 0.0025}
    assert (told["first_byte_s"]["sum"], told["upstream_s"]["sum"]) == (0.001, 0.1)


def test_what_a_record_does_not_know_is_not_counted() -> None:
    told = measured(Outcome.HIT).snapshot()
    assert (told["errors"], told["fetches"]) == ({}, {})
    assert (told["first_byte_s"]["count"], told["upstream_s"]["count"]) == (0, 0)


def test_the_hit_ratio_is_of_what_was_looked_up() -> None:
    outcomes = Outcome.HIT, Outcome.STALE, Outcome.REVALIDATED, Outcome.MISS
    assert measured(*outcomes, Outcome.BYPASS, Outcome.FAILED).hit_ratio() == 0.75
    assert measured(Outcome.REFUSED).hit_ratio() is None


def test_labels_without_end_are_counted_together() -> None:
    measurements = Measurements()
    for number in range(1_000):
        measurements.count(observe.REASONS, str(number))
    assert len(measurements.snapshot()["reasons"]) == observe.LABEL_SETS + 1
    assert measurements.total(observe.REASONS) == 1_000
    assert measurements.total(observe.REASONS, observe.OTHER) == 1_000 - observe.LABEL_SETS


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_is_a_bound_that_enough_values_stay_under(
    values: list[float], share: float
) -> None:
    measurements = Measurements()
    for value in values:
        measurements.observe(observe.DURATION, value)
    bound = measurements.quantile(observe.DURATION, share)
    if bound is not None:
        assert sum(value <= bound for value in values) >= share * len(values) - 1e-6


def test_a_quantile_is_the_lowest_such_bound() -> None:
    measurements = Measurements()
    for value in (0.001, 0.1):
        measurements.observe(observe.DURATION, value)
    median, most = (measurements.quantile(observe.DURATION, share) for share in (0.5, 1))
    assert (median, most) == (0.001, 0.1)


def test_nothing_observed_has_no_quantile() -> None:
    assert Measurements().quantile(observe.DURATION, 0.5) is None


def test_bytes_that_are_not_utf_8_are_told_by_their_numbers() -> None:
    assert text("ü".encode() + b"\xff/\n") == "ü\\xff/\n"
