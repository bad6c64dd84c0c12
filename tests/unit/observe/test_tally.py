from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from edge.cache.reasons import Reason
from edge.errors import Failure
from edge.observe import tally
from edge.observe.metrics import OTHER, POINTS, TIMES_S, Kind
from edge.observe.reading import Served
from edge.observe.record import Outcome
from edge.observe.tally import SLOT_BYTES, Tallies

if TYPE_CHECKING:
    from collections.abc import Callable

HIT = ("hit", "hit", 200, None)


def document(count: int, **origins: dict[str, int]) -> dict[str, Any]:
    return {
        "connections": {"open": count, "idle": 1, "accepted": count, "shed": 0},
        "store": {"memory": {"entries": count, "evicted": count}, "disk": None},
        "purges": {"latest": count, "scopes": 2},
        "origins": origins,
    }


def point(tallies: Tallies, source: str) -> int:
    places = [index for index, each in enumerate(POINTS) if each.sources == (source,)]
    return tallies.reading().points[places[0]]


def forked(work: Callable[[], object]) -> int:
    """The pid of a child that does its work and then waits to be killed."""
    done, telling = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(telling, b".")
            signal.pause()
        finally:
            os._exit(1)
    os.close(telling)
    assert os.read(done, 1) == b"."
    os.close(done)
    return child


def killed(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def worker(tallies: Tallies, number: int, times: int, *, error: str | None = None) -> None:
    own = tallies.take(number, 1.0 + number)
    row = own.row("hit", "hit", 200, error)
    for _ in range(times):
        own.add(row, 10, 0.002, 0.002, hit=True)
        own.waited("eu", 0.1)
    own.publish(document(times, eu={"made": times, "reused": 0, "open": 2}))


def test_workers_in_processes_of_their_own_add_up() -> None:
    tallies = Tallies(3)
    children = [forked(lambda n=n: worker(tallies, n, 100 + n)) for n in range(3)]  # type: ignore[misc]
    reading = tallies.reading()
    assert reading.requests == {("hit", "hit", "200", ""): 303}
    assert reading.hits.sent_bytes == 3_030
    assert reading.origins["eu"].wait.count == 303
    assert reading.origins["eu"].points[:3] == [303, 303, 6]
    assert (point(tallies, "connections.open"), point(tallies, "purges.latest")) == (303, 102)
    assert (reading.starts, reading.started_s) == (3, 3)
    assert {name: each.hits.duration.count for name, each in tallies.by_worker().items()} == {
        "0": 100,
        "1": 101,
        "2": 102,
    }
    for child in children:
        killed(child)


def test_who_takes_a_dead_workers_place_goes_on_with_its_numbers() -> None:
    tallies = Tallies(2)
    killed(forked(lambda: worker(tallies, 1, 7, error="loop")))
    tallies.vacate(1)
    assert point(tallies, "connections.open") == 0
    assert tallies.reading().origins["eu"].points[:3] == [7, 7, 0]
    killed(forked(lambda: worker(tallies, 1, 5)))
    reading = tallies.reading()
    assert reading.requests == {("hit", "hit", "200", "loop"): 7, ("hit", "hit", "200", ""): 5}
    assert (point(tallies, "connections.accepted"), point(tallies, "connections.open")) == (12, 5)
    assert reading.origins["eu"].wait.count == 12
    assert (reading.starts, list(tallies.by_worker())) == (2, ["1"])


def test_a_reader_that_looks_on_never_sees_a_number_fall() -> None:
    tallies = Tallies(1)

    def work_on() -> None:
        own = tallies.take(0, 0.0)
        os.write(telling, b".")
        for number in range(1_000_000):
            own.add(own.row("hit", f"r{number % 300}", 200, None), 1, 0.01, 0.005, hit=False)

    looking, telling = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work_on()
        finally:
            os._exit(0)
    os.read(looking, 1)
    seen, requests = Served(), dict[tuple[str, str, str, str], int]()
    for _ in range(100):
        reading = tallies.reading()
        assert requests.items() <= {**reading.requests, **requests}.items()
        assert all(reading.requests[words] >= count for words, count in requests.items())
        assert reading.rest.duration.count >= seen.duration.count
        assert reading.rest.duration.sum_us >= seen.duration.sum_us
        assert reading.rest.sent_bytes >= seen.sent_bytes
        seen, requests = reading.rest, reading.requests
    killed(child)
    os.close(looking)
    os.close(telling)


def test_a_worker_that_dies_while_it_writes_a_name_leaves_nothing_of_it() -> None:
    tallies = Tallies(1)
    own = tallies.take(0, 0.0)
    own.add(own.row(*HIT), 0, 0.0, None, hit=True)
    free = own._rows._start + len(own._rows._known) * (tally._NAME_CELLS + 1)
    own._cells[free + 1] = 0x6161616161616161  # its text, and not yet its length
    after = tallies.take(0, 0.0)
    assert tallies.reading().requests == {("hit", "hit", "200", ""): 1}
    after.add(after.row("miss", "b", 200, None), 0, 0.0, None, hit=False)
    assert tallies.reading().requests[("miss", "b", "200", "")] == 1


def test_a_number_of_the_moment_follows_and_a_sum_goes_on_where_its_source_begins_anew() -> None:
    tallies = Tallies(1)
    own = tallies.take(0, 0.0)
    for count, accepted in ((5, 5), (9, 9), (3, 12), (0, 12)):
        own.publish(document(count))
        assert point(tallies, "connections.open") == count
        assert point(tallies, "connections.accepted") == accepted


def test_what_settings_left_out_has_nothing_open_and_keeps_its_sums() -> None:
    tallies = Tallies(1)
    own = tallies.take(0, 0.0)
    own.publish(document(1, eu={"made": 3, "reused": 1, "open": 2, "idle": 1}))
    own.publish(document(1, us={"made": 1, "reused": 0, "open": 1}))
    origins = tallies.reading().origins
    assert origins["eu"].points == [4, 3, 0, 0, 0, 0]
    assert origins["us"].points == [1, 1, 1, 0, 0, 0]


def test_the_longest_words_that_there_are_have_room() -> None:
    own = Tallies(1).take(0, 0.0)
    slugs = [each.slug for each in (*Reason, *Failure)]
    longest = sorted(slugs, key=len)[-1]
    reason = "/".join(sorted((reason.slug for reason in Reason), key=len)[-2:])
    outcome = sorted((each.value for each in Outcome), key=len)[-1]
    row = own.row(outcome, max(reason, f"{longest}/{longest}", key=len), 200, longest)
    assert row != own.row(outcome, "x" * 100, 200, longest)


def test_past_its_room_a_request_is_counted_by_outcome_class_and_failure() -> None:
    tallies = Tallies(1)
    own = tallies.take(0, 0.0)
    for number in range(2_000):
        error = "loop" if number % 2 else None
        outcome = list(Outcome)[number % 7].value
        own.add(own.row(outcome, str(number), 100 + number % 900, error), 1, 0.0, None, hit=False)
    reading = tallies.reading()
    assert sum(reading.requests.values()) == 2_000
    assert len(reading.requests) <= tally.ROWS
    by_cache = reading.by(lambda words: words[0])
    assert by_cache == {
        each.value: len(range(index, 2_000, 7)) for index, each in enumerate(Outcome)
    }
    assert sum(reading.by(lambda words: words[3] or None).values()) == 1_000
    assert reading.requests[("hit", OTHER, "2xx", "")] > 0


def test_words_that_no_code_of_ours_says_do_no_harm() -> None:
    tallies = Tallies(1)
    own = tallies.take(0, 0.0)
    for number in range(1_000):
        own.add(own.row(f"\0{number}", "\ud800", 200, None), 1, 0.0, None, hit=False)
    assert sum(tallies.reading().requests.values()) == 1_000
    assert tallies.reading().by(lambda words: words[0]) == {OTHER: 1_000}


def test_origins_without_end_are_counted_together() -> None:
    tallies = Tallies(1)
    own = tallies.take(0, 0.0)
    names = [f"origin-{number}" for number in range(300)]
    for name in names:
        own.waited(name, 0.1)
        own.failed(name)
    own.publish(document(1, **{name: {"made": 1, "reused": 0, "open": 1} for name in names}))
    origins = tallies.reading().origins
    assert len(origins) == tally.ORIGINS
    assert (origins[OTHER].errors, origins[OTHER].wait.count) == (44, 44)
    assert origins[OTHER].points == [0] * 6  # what each of them set would undo the others'
    assert origins["origin-0"].points[:3] == [1, 1, 1]


times = st.sampled_from(TIMES_S) | st.floats(0, 100)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**40), times, st.none() | times)))
def test_times_and_bytes_are_found_again_whatever_their_order(
    served: list[tuple[bool, int, float, float | None]],
) -> None:
    tallies = Tallies(1)
    own = tallies.take(0, 0.0)
    row = own.row(*HIT)
    for hit, sent, one, other in served:
        total, first = (one, None) if other is None else (max(one, other), min(one, other))
        own.add(row, sent, total, first, hit=hit)
    reading = tallies.reading().served
    totals = [one if other is None else max(one, other) for _, _, one, other in served]
    firsts = [min(one, other) for _, _, one, other in served if other is not None]
    assert reading.sent_bytes == sum(sent for _, sent, _, _ in served)
    for histogram, values in ((reading.duration, totals), (reading.first_byte, firsts)):
        for at, bound in enumerate(TIMES_S):
            assert sum(histogram.counts[: at + 1]) == sum(value <= bound for value in values)
        assert histogram.count == len(values)
        assert abs(histogram.sum_us - sum(values) * 1e6) <= 1 + len(values)


def test_a_clock_that_went_back_takes_nothing_away() -> None:
    tallies = Tallies(1)
    own = tallies.take(0, 0.0)
    own.add(own.row(*HIT), 0, -1.0, -1.0, hit=True)
    own.add(own.row(*HIT), 0, -1.0, 1.0, hit=True)
    own.waited("eu", -1.0)
    reading = tallies.reading()
    assert reading.hits.duration.sum_us == 1_000_000
    assert reading.wait.sum_us == 0


def test_a_slot_is_of_whole_pages_and_of_bounded_size() -> None:
    assert SLOT_BYTES % tally.PAGE_BYTES == 0
    assert SLOT_BYTES <= 256 * 1024
    assert sum(each.family.kind is Kind.GAUGE for each in POINTS)


def test_arms_of_experiments_are_counted_by_what_their_requests_were() -> None:
    tallies = Tallies(1)
    own = tallies.take(0, 0.0)
    new = own.arm("shop.example/checkout", "new")
    assert own.arm("shop.example/checkout", "new") == new
    for status in (100, 200, 204, 302, 404, 503, 0, 999):
        own.add_arm(new, status, tally.NO_LOOK_UP, 3, 1_000)
    own.add_arm(new, 200, tally.LOOKED_UP, 0, 0, 5)
    own.add_arm(new, 200, tally.FOUND, 0, -1, 7)
    own.add_visitors(new, 2)
    told = tallies.reading().arms["shop.example/checkout", "new"]
    assert told.statuses == [1, 14, 1, 1, 1, 2]
    assert (told.requests, told.looked_up, told.hits, told.visitors) == (20, 12, 7, 2)
    assert (told.duration.counts[0], told.duration.counts[3]) == (12, 8)
    assert told.duration.sum_us == 8_000


def test_arms_outlive_a_worker_and_add_up_over_all() -> None:
    tallies = Tallies(2)

    def work(number: int, times: int) -> None:
        own = tallies.take(number, 1.0)
        for arm in ("control", "new"):
            own.add_arm(own.arm("s/x", arm), 200, tally.FOUND, 1, 500, times)

    killed(forked(lambda: work(0, 3)))
    tallies.vacate(0)
    killed(forked(lambda: work(0, 4)))
    killed(forked(lambda: work(1, 5)))
    arms = tallies.reading().arms
    assert {names: told.requests for names, told in arms.items()} == {
        ("s/x", "control"): 12,
        ("s/x", "new"): 12,
    }


def test_arms_beyond_the_room_for_them_and_names_that_do_not_fit_are_counted_together() -> None:
    tallies = Tallies(1)
    own = tallies.take(0, 0.0)
    for number in range(70):
        own.add_arm(own.arm("s/x", f"arm{number}"), 200, tally.FOUND, 0, 1)
    for name in ("x" * tally.ARM_NAME_BYTES, "a\0b"):
        own.add_arm(own.arm("s/x", name), 200, tally.FOUND, 0, 1)
    arms = tallies.reading().arms
    assert len(arms) == tally.ARMS == 65
    assert arms[OTHER, OTHER].requests == 8
    longest = f"{'h' * 253}/{'e' * 64}"
    assert Tallies(1).take(0, 0.0).arm(longest, "a" * 64) != own._arms.other


def test_hits_counted_together_are_counted_as_one_by_one() -> None:
    one, other = Tallies(1), Tallies(1)
    by_one, at_once = one.take(0, 0.0), other.take(0, 0.0)
    row = by_one.row("hit", "hit", 200, None)
    assert at_once.row("hit", "hit", 200, None) == row
    for time_s in (0.0001, 0.0002, 0.003, 0.0):
        by_one.add(row, 10, time_s, time_s, hit=True)
    at_once.add_hits({(row, 0): 3, (row, 3): 1}, 40, 3300)
    at_once.add_hits({}, 0, 0)
    assert other.reading().requests == one.reading().requests
    assert other.reading().hits == one.reading().hits
