"""The pure part of tools/bench: what is read from wrk and /proc, and when a ratio may be said."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from tools.benchmark.figures import (  # noqa: E402
    Ratio,
    Unreadable,
    descendants,
    percentile,
    ratio,
    read_stat,
    read_wrk,
    seconds,
)
from tools.benchmark.plain import Broken, content, parse_head  # noqa: E402
from tools.benchmark.restart import size_of  # noqa: E402
from tools.benchmark.waiting import Waiter  # noqa: E402

PRINTED = """\
Running 2s test @ http://127.0.0.1:8080/1k
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    21.20ms   17.45ms 201.34ms   91.95%
    Req/Sec     3.25k   285.68     3.61k    80.00%
  Latency Distribution
     50%   18.94ms
     75%   20.34ms
     90%   24.90us
     99%    1.12s 
  6462 requests in 2.00s, 7.93MB read
Requests/sec:   3230.05
Transfer/sec:      3.96MB
"""  # noqa: W291 - as it is printed
SOCKETS = "  Socket errors: connect 1, read 20, write 300, timeout 4000\n"
STATUSES = "  Non-2xx or 3xx responses: 17\n"

finite = st.floats(min_value=1e-3, max_value=1e6)


def test_a_run_without_errors_is_read() -> None:
    load = read_wrk(PRINTED)
    assert (load.requests, load.per_s, load.failed) == (6462, 3230.05, 0)
    assert [load.p50_s, load.p99_s] == pytest.approx([0.01894, 1.12])


def test_broken_connections_and_other_statuses_are_failures() -> None:
    at = PRINTED.index("Requests/sec")
    load = read_wrk(PRINTED[:at] + SOCKETS + STATUSES + PRINTED[at:])
    assert load.failed == 1 + 20 + 300 + 4000 + 17


@pytest.mark.parametrize("text", ["", "unable to connect", PRINTED.replace("99%", "98%")])
def test_anything_else_is_no_measurement(text: str) -> None:
    with pytest.raises(Unreadable):
        read_wrk(text)


def test_times_are_read_in_every_unit_of_wrk() -> None:
    read = [seconds(text) for text in ("690.00us", "1.23ms", "2s", "1.50m", "1.00h")]
    assert read == pytest.approx([0.00069, 0.00123, 2, 90, 3600])
    for text in ("12", "ms", "1.2 ms", "1ms\n", "-1ms"):
        with pytest.raises(Unreadable):
            seconds(text)


def test_a_command_with_blanks_and_parentheses_does_not_shift_the_numbers() -> None:
    line = read_stat("42 (a) b) (c) S 7 42 42 0 -1 4194560 9 0 0 0 150 25 3 4 20 0 1 0 99 0 0")
    assert (line.parent, line.ticks) == (7, 175)


def test_a_family_is_all_generations_and_no_one_else() -> None:
    assert descendants(1, {1: 0, 2: 1, 3: 2, 4: 9, 9: 0}) == {1, 2, 3}
    assert descendants(5, {}) == {5}


def test_no_ratio_is_said_where_the_rounds_differ_more_than_the_servers() -> None:
    said = ratio([100, 130, 90], [100, 100, 100])
    assert said is not None
    assert not said.is_telling
    assert str(said).startswith("no ratio")


def test_a_ratio_is_said_where_the_rounds_agree() -> None:
    said = ratio([50, 52, 49], [100, 100, 100])
    assert said == Ratio(0.5, 0.49, 0.52)
    assert said.is_telling
    assert str(said) == "0.5 (0.49 to 0.52)"


def test_rounds_are_compared_each_with_its_own() -> None:
    said = ratio([10, 1000], [20, 2000])
    assert said is not None
    assert (said.least, said.most) == (0.5, 0.5)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [2.0]), ([], []), ([0.0, 1.0], [1.0, 1.0])])
def test_one_round_tells_of_no_spread(ours: list[float], theirs: list[float]) -> None:
    assert ratio(ours, theirs) is None


def test_rounds_must_pair_up() -> None:
    with pytest.raises(ValueError):
        ratio([1.0, 2.0], [1.0])


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=9))
def test_whether_a_ratio_tells_does_not_depend_on_who_is_named_first(
    rounds: list[tuple[float, float]],
) -> None:
    there = ratio([one for one, _ in rounds], [other for _, other in rounds])
    back = ratio([other for _, other in rounds], [one for one, _ in rounds])
    assert there is not None
    assert back is not None
    assert there.least <= there.middle <= there.most
    spread = math.log(there.most / there.least)
    margin = abs(spread - abs(math.log(there.middle)))
    if len(rounds) % 2 and margin > 1e-6:  # of an even number the median is a mean, and leans
        assert there.is_telling == back.is_telling


@given(st.lists(finite, min_size=1, max_size=50), st.floats(min_value=0, max_value=1))
def test_a_percentile_is_one_of_the_values_and_leaves_that_share_below(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_of_nothing_there_is_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


def test_a_head_is_parsed_and_anything_else_is_broken() -> None:
    assert parse_head(b"HTTP/1.1 200 OK\r\nAge:  3\r\nX: a:b") == (
        200,
        {b"age": b"3", b"x": b"a:b"},
    )
    for bad in (b"", b"HTTP/1.1", b"HTTP/1.1 20 OK", b"SSH-2.0-x 200 y"):
        with pytest.raises(Broken):
            parse_head(bad)


def test_contents_differ_by_name_and_have_their_length() -> None:
    assert content("a", 100) != content("b", 100)
    assert [len(content("a", size)) for size in (0, 1, 64, 65, 4096)] == [0, 1, 64, 65, 4096]


def test_objects_of_the_restart_are_small_but_for_one_in_fifty() -> None:
    sizes = [size_of(number) for number in range(1000)]
    assert sizes == [size_of(number) for number in range(1000)]
    assert sum(size == 100 * 1024 for size in sizes) == 20
    assert all(1024 <= size < 8 * 1024 or size == 100 * 1024 for size in sizes)


def test_a_waiter_counts_only_whole_answers() -> None:

    head, body = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n~\r\n" * 3
    for sent, drips in ((head + body + b"0\r\n\r\n", 3), (head + body, 0), (head, 0)):
        here, there = socket.socketpair()
        with here, there:
            there.sendall(sent)
            waiter = Waiter(here)
            waiter.take()
        assert waiter.drips == drips
        assert waiter.done == (drips > 0)
        assert bool(waiter.body_at) == (len(sent) > len(head))


def test_help_has_examples_and_needs_nothing_installed() -> None:
    command = [sys.executable, "-I", str(ROOT / "tools" / "bench"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "tools/bench hit-1k" in done.stdout
