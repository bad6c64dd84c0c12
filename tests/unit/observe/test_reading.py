from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.observe.metrics import BUCKETS, CLASSES, ORIGIN_POINTS, POINTS, TIMES_S, Fold
from edge.observe.reading import ArmTold, Histogram, OriginTold, Reading, Served

numbers = st.integers(0, 2**40)
words = st.sampled_from(["", "a", "b"])
histograms = st.builds(Histogram, st.lists(numbers, min_size=BUCKETS, max_size=BUCKETS), numbers)
served = st.builds(Served, histograms, histograms, numbers)
origins = st.builds(
    OriginTold,
    histograms,
    numbers,
    st.lists(numbers, min_size=len(ORIGIN_POINTS), max_size=len(ORIGIN_POINTS)),
)
arms = st.builds(
    ArmTold,
    st.lists(numbers, min_size=len(CLASSES), max_size=len(CLASSES)),
    numbers,
    numbers,
    numbers,
    histograms,
)
readings = st.builds(
    Reading,
    numbers,
    numbers,
    st.lists(numbers, min_size=len(POINTS), max_size=len(POINTS)),
    served,
    served,
    st.dictionaries(st.tuples(words, words, words, words), numbers, max_size=3),
    st.dictionaries(words, origins, max_size=3),
    st.dictionaries(st.tuples(words, words), arms, max_size=3),
)


@given(readings, readings, readings)
def test_readings_add_up_in_any_order(a: Reading, b: Reading, c: Reading) -> None:
    assert a.plus(b) == b.plus(a)
    assert a.plus(b).plus(c) == a.plus(b.plus(c))
    assert a.plus(Reading()) == a
    assert sum(told.requests for told in a.plus(b).arms.values()) == sum(
        told.requests for each in (a, b) for told in each.arms.values()
    )


@given(readings, readings)
def test_what_every_worker_has_whole_is_not_added_up(a: Reading, b: Reading) -> None:
    both = a.plus(b)
    for index, point in enumerate(POINTS):
        fold = max if point.fold is Fold.MOST else lambda *values: sum(values)
        assert both.points[index] == fold(a.points[index], b.points[index])
    assert both.started_s == max(a.started_s, b.started_s)


@given(readings)
def test_nothing_is_lost_in_a_fold(reading: Reading) -> None:
    by_cache = reading.by(lambda words: words[0])
    assert sum(by_cache.values()) == sum(reading.requests.values())
    assert list(by_cache) == sorted(by_cache)
    assert reading.wait.count == sum(told.wait.count for told in reading.origins.values())
    assert reading.served.sent_bytes == reading.hits.sent_bytes + reading.rest.sent_bytes


def test_names_that_are_none_are_left_out() -> None:
    reading = Reading(requests={("hit", "hit", "200", ""): 2, ("hit", "hit", "200", "gone"): 1})
    assert reading.by(lambda words: words[3] or None) == {"gone": 1}


@given(st.lists(st.integers(0, 5), min_size=BUCKETS, max_size=BUCKETS), st.floats(0.01, 1))
def test_a_quantile_is_the_lowest_bound_that_enough_values_stay_under(
    counts: list[int], share: float
) -> None:
    histogram = Histogram(counts)
    bound = histogram.quantile(share)
    enough = share * histogram.count - 1e-6
    if bound is None:
        assert not histogram.count or sum(counts[:-1]) <= enough + 1e-3
    else:
        at = TIMES_S.index(bound)
        assert sum(counts[: at + 1]) >= enough
        assert sum(counts[:at]) < enough + 1e-3


def test_nothing_observed_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None
