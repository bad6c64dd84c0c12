from __future__ import annotations

import json
from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edge.cache.reasons import Reason
from edge.errors import Failure, Side
from edge.observe import record as module
from edge.observe.exposition import exposition
from edge.observe.metrics import status_class
from edge.observe.record import FROM_STORE, Measurements, Outcome, Record, text, told_arm
from edge.observe.tally import Tallies
from tests.unit.scraped import scraped

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
    assert measured(*outcomes, Outcome.BYPASS, Outcome.FAILED).snapshot()["hit_ratio"] == 0.75
    assert measured(Outcome.REFUSED).snapshot()["hit_ratio"] is None


def test_a_snapshot_is_of_all_workers() -> None:
    tallies = Tallies(2)
    one, two = Measurements(tallies, 0), Measurements(tallies, 1)
    one.record(RECORD)
    two.record(RECORD)
    assert one.snapshot() == two.snapshot()
    assert one.snapshot()["statuses"] == {"200": 2}


def test_a_hit_that_had_to_wait_for_an_origin_is_not_as_fast_as_one() -> None:
    tallies = Tallies(1)
    measurements = Measurements(tallies)
    for outcome in FROM_STORE:
        measurements.record(replace(RECORD, cache=outcome))
        measurements.record(replace(RECORD, cache=outcome, upstream="eu"))
    reading = tallies.reading()
    assert (reading.hits.duration.count, reading.rest.duration.count) == (3, 3)


def test_an_origins_failure_is_counted_against_it_also_behind_a_stale_answer() -> None:
    tallies = Tallies(1)
    measurements = Measurements(tallies)
    stale = replace(RECORD, cache=Outcome.STALE, reason="stale-if-error", upstream="eu")
    measurements.record(replace(stale, error="connect-refused"))
    measurements.record(replace(stale, error="client-left"))
    measurements.record(replace(RECORD, error="bad-response"))
    origins = tallies.reading().origins
    assert {name: told.errors for name, told in origins.items()} == {"eu": 1, "other": 1}


def test_what_is_of_the_moment_is_published() -> None:
    tallies = Tallies(1)
    Measurements(tallies).publish({"flights": 4})
    text = exposition({None: tallies.reading()}, version="1")
    assert scraped(text).one("edge_flights") == 4


def test_labels_without_end_are_counted_together() -> None:
    measurements = Measurements()
    for number in range(3_000):
        measurements.record(replace(RECORD, reason=str(number)))
    told = measurements.snapshot()
    assert sum(told["reasons"].values()) == told["statuses"]["200"] + told["statuses"]["2xx"]
    assert sum(told["reasons"].values()) == 3_000
    assert len(told["reasons"]) < 1_000
    assert len(measurements._kinds) <= module.MOST_KINDS


def test_a_row_asked_for_ahead_is_the_one_of_its_record() -> None:
    tallies = Tallies(1)
    measurements = Measurements(tallies)
    measurements.record(replace(RECORD, cache=Outcome.HIT, first_byte_s=RECORD.total_s))
    row = measurements.row(Outcome.HIT, "hit", 200)
    measurements.tally.add(row, RECORD.bytes, RECORD.total_s, RECORD.total_s, hit=True)
    assert tallies.reading().requests == {("hit", "hit", "200", ""): 2}
    assert tallies.reading().hits.first_byte.counts[2] == 2


slugs = st.sampled_from([each.slug for each in Reason])
reasons = st.builds("/".join, st.lists(slugs, min_size=0, max_size=2))
seconds = st.floats(0, 100).map(lambda value: round(value, 6))
records = st.builds(
    Record,
    time=st.just(0.0),
    id=st.just("a"),
    client=st.just("::1"),
    status=st.integers(100, 599),
    bytes=st.integers(0, 2**50),
    cache=st.sampled_from(Outcome),
    reason=reasons,
    upstream=st.sampled_from([None, "eu", 'u"s\\\n']),
    total_s=seconds,
    first_byte_s=st.none() | seconds,
    upstream_s=st.none() | seconds,
    error=st.none() | st.sampled_from([each.slug for each in Failure]),
)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 2), records), max_size=40))
def test_the_text_says_of_records_what_they_say_together(
    done: list[tuple[int, Record]],
) -> None:
    tallies = Tallies(3)
    workers = [Measurements(tallies, number) for number in range(3)]
    for number, record in done[::2]:
        workers[number].record(record)
    for number in range(3):
        workers[number].record_all([record for at, record in done[1::2] if at == number])
    read = scraped(exposition({None: tallies.reading()}, version="1"))
    rows = [record for _, record in done]
    kinds = Counter((r.cache.value, r.reason, status_class(str(r.status))) for r in rows)
    for (cache, reason, status), count in kinds.items():
        labels = {"cache": cache, "reason": reason, "status": status}
        assert read.one("edge_requests_total", **labels) == count
    assert read.all("edge_requests_total") == len(rows)
    for error, count in Counter(r.error for r in rows if r.error).items():
        assert read.one("edge_request_errors_total", error=error) == count
    assert read.all("edge_sent_bytes_total") == sum(r.bytes for r in rows)
    assert read.all("edge_request_duration_seconds_count") == len(rows)
    firsts = [r.first_byte_s for r in rows if r.first_byte_s is not None]
    assert read.all("edge_request_first_byte_seconds_count") == len(firsts)
    assert abs(read.all("edge_request_first_byte_seconds_sum") - sum(firsts)) < 1e-3
    waits = Counter(r.upstream or "other" for r in rows if r.upstream_s is not None)
    for name, count in waits.items():
        assert read.one("edge_origin_wait_seconds_count", origin=name) == count
    blamed = {f.slug for f in Failure if f.side is Side.UPSTREAM}
    failed = sum(r.error in blamed for r in rows)
    assert read.all("edge_origin_errors_total") == failed
    assert json.dumps(workers[0].snapshot())


def test_bytes_that_are_not_utf_8_are_told_by_their_numbers() -> None:
    assert text("ü".encode() + b"\xff/\n") == "ü\\xff/\n"


def test_records_counted_together_are_counted_as_one_by_one() -> None:
    hit = replace(RECORD, cache=Outcome.HIT, first_byte_s=RECORD.total_s)
    told = [
        hit, hit, replace(hit, total_s=0.3, first_byte_s=0.3), replace(hit, total_s=0.3),
        replace(hit, error="client-left"), replace(hit, upstream="eu"), RECORD,
        replace(hit, cache=Outcome.MISS), replace(hit, status=304, bytes=0), hit,
    ]  # fmt: skip
    one, other = Tallies(1), Tallies(1)
    by_one, together = Measurements(one), Measurements(other)
    for record in told * 2:
        by_one.record(record)
    together.record_all(told)
    together.record_all(told)
    assert together.snapshot() == by_one.snapshot()
    assert other.reading().hits == one.reading().hits


CONTROL = told_arm("a.example/checkout", "control", is_new=False)
NEWCOMER = told_arm("a.example/checkout", "control", is_new=True)
SEARCH = told_arm("a.example/search", "b", is_new=False)


def test_requests_with_arms_are_counted_together_as_one_by_one() -> None:
    hit = replace(RECORD, cache=Outcome.HIT, first_byte_s=RECORD.total_s)
    kinds = [
        hit, replace(hit, arms=(CONTROL,)), replace(hit, arms=(CONTROL, SEARCH)),
        replace(hit, arms=(NEWCOMER,), total_s=0.3, first_byte_s=0.3),
        replace(hit, arms=(CONTROL,), cache=Outcome.MISS, upstream="eu", upstream_s=0.1),
        replace(RECORD, arms=(SEARCH,), status=404, cache=Outcome.BYPASS, first_byte_s=None),
        replace(hit, arms=(NEWCOMER,), status=304), replace(hit, arms=()),
    ]  # fmt: skip
    one, other = Tallies(1), Tallies(1)
    by_one, together = Measurements(one), Measurements(other)
    for record in kinds * 3:
        by_one.record(record)
    together.record_all(kinds * 3)
    assert other.reading().arms == one.reading().arms
    assert other.reading().hits == one.reading().hits
    arms = one.reading().arms
    control = arms["a.example/checkout", "control"]
    assert (control.requests, control.looked_up, control.hits) == (15, 15, 12)
    assert control.visitors == 6
    search = arms["a.example/search", "b"]
    assert (search.requests, search.looked_up, search.statuses[3]) == (6, 3, 3)


def test_arms_are_in_the_log_only_where_there_are_some() -> None:
    assert "arms" not in json.loads(msgspec.json.encode(RECORD))
    told = json.loads(msgspec.json.encode(replace(RECORD, arms=(CONTROL, NEWCOMER))))
    assert told["arms"] == ["a.example/checkout=control", "a.example/checkout=control;new"]


def test_texts_of_arms_without_end_are_forgotten_and_found_again() -> None:
    tallies = Tallies(1)
    measurements = Measurements(tallies)
    for number in range(module.MOST_KINDS + 10):
        name = told_arm("s/x", f"a{number % 2}{'' if number < 9 else number}", is_new=False)
        measurements.record(replace(RECORD, arms=(name,)))
    assert len(measurements._arms) <= module.MOST_KINDS
    arms = tallies.reading().arms
    assert sum(told.requests for told in arms.values()) == module.MOST_KINDS + 10
    assert arms["s/x", "a0"].requests == 5
