"""The pure part of tools/bench: what is read from wrk and /proc, when a ratio may be said, what a
purge covers."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from edge.config import for_proxy, policies  # noqa: E402
from edge.purging.execution import matches  # noqa: E402
from edge.purging.orders import order_from_json  # noqa: E402
from tools.benchmark import comparison, proof  # noqa: E402
from tools.benchmark.bans import Load, ban_of  # noqa: E402
from tools.benchmark.catalogue import (  # noqa: E402
    KINDS,
    Purged,
    Shape,
    number_in,
    sorted_out,
)
from tools.benchmark.figures import Load as Figures  # noqa: E402
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
from tools.benchmark.limit import start_limit  # noqa: E402
from tools.benchmark.loads import KINDS as LOADS  # noqa: E402
from tools.benchmark.loads import Goal  # noqa: E402
from tools.benchmark.lookups import doubt_of  # noqa: E402
from tools.benchmark.mixture import BOUNDS, SCATTER, Mixture, size_of, stored_count  # noqa: E402
from tools.benchmark.objects import FILES, SIZES, SMALL, body_at, etag, requests_told  # noqa: E402
from tools.benchmark.origin import answer_to  # noqa: E402
from tools.benchmark.plain import Broken, content, parse_head  # noqa: E402
from tools.benchmark.report import Report  # noqa: E402
from tools.benchmark.restart import size_of as restart_size_of  # noqa: E402
from tools.benchmark.servers import PORTS, NotReady, free_port, running  # noqa: E402
from tools.benchmark.stores import SLACK_BYTES, Maker, Told, check_room, form_of  # noqa: E402
from tools.benchmark.waiting import Waiter  # noqa: E402
from tools.benchmark.wrk import Run  # noqa: E402

if TYPE_CHECKING:
    from tools.benchmark.loads import Kind

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
    assert load.read_bytes == 7.93 * 1024 * 1024
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
    assert (line.parent, line.ticks) == (7, 150 + 25 + 3 + 4)


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
    sizes = [restart_size_of(number) for number in range(1000)]
    assert sizes == [restart_size_of(number) for number in range(1000)]
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
    assert "tools/bench purge" in done.stdout


def test_a_count_that_is_none_is_refused_with_the_least() -> None:
    command = [sys.executable, str(ROOT / "tools" / "bench"), "purge", "--objects", "12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "12 is not a number from 1000 on" in done.stderr


SHAPE = Shape(5000, 700)
MAKER = Maker(1_700_000_000.0)
SITES = policies.sites(for_proxy(["127.0.0.1:1"], "http://127.0.0.1:2", hostname="bench"))
numbers = st.integers(min_value=0, max_value=10**7)


@given(numbers)
def test_an_object_is_known_by_its_target_alone(number: int) -> None:
    item = SHAPE.item(number)
    assert number_in(item.target) == number
    assert item.url.endswith(item.host + item.target)
    assert item.target.startswith(item.directories)
    assert len(item.stored) == len(item.fetched) == 200
    assert item.stored != item.fetched


def test_objects_share_tags_and_hosts_but_no_target() -> None:
    items = [SHAPE.item(number) for number in range(SHAPE.objects)]
    assert len({item.target for item in items}) == SHAPE.objects
    assert len({tag for item in items for tag in item.tags}) == SHAPE.tags
    assert {len(item.tags) for item in items} >= {3, 4, 5}
    assert max(len(item.tags) for item in items) == 5


@given(st.sampled_from(KINDS), numbers, numbers)
def test_what_the_scenario_takes_for_purged_is_what_the_node_does(
    kind: str, one: int, other: int
) -> None:
    purged, named = Purged(), SHAPE.item(one)
    purged.add(kind, [named.scope(kind)])
    document = b'{"%b": ["%b"]}' % (kind.encode(), named.scope(kind).encode())
    order = order_from_json(document, SITES)
    assert purged.covers(named)
    # Far apart in number they mostly share nothing; next to each other, sometimes a part.
    for item in (named, SHAPE.item(other), SHAPE.item(one + 1000), SHAPE.item(one + 10_000)):
        assert purged.covers(item) == matches(order, MAKER.entry(item))


def test_all_covers_everything() -> None:
    purged = Purged()
    assert not purged.covers(SHAPE.item(1))
    purged.add("all", ())
    assert purged.covers(SHAPE.item(1))


def test_what_was_purged_before_is_neither_purged_now_nor_untouched() -> None:
    now, before = Purged(), Purged()
    items = [SHAPE.item(number) for number in range(10)]
    now.add("url", [items[0].url, items[1].url])
    before.add("url", [items[1].url, items[2].url])
    assert sorted_out(iter(items), now, before, 3) == (items[:2], items[3:6])
    assert sorted_out(iter(items), now, before, 1) == (items[:1], items[3:4])


def test_an_entry_is_made_as_the_node_makes_it() -> None:
    entry = MAKER.entry(SHAPE.item(7))
    assert entry.key.url == b"http://h7.bench.example/s0/s0/s0/7.html"
    assert entry.terms.lifetime_s == 31_536_000
    assert entry.headers.get(b"surrogate-key") == " ".join(SHAPE.item(7).tags).encode()
    assert len(entry.scopes) // 8 == 1 + 1 + 5 + 2 * len(SHAPE.item(7).tags)


def test_a_store_serves_again_while_it_is_of_the_shape_the_form_and_not_too_old() -> None:
    now, day_s = 1e9, 86_400
    told = Told(SHAPE.objects, SHAPE.tags, form_of(SHAPE), now, 1.0)
    assert told.serves(SHAPE, now + 80 * day_s)
    assert not told.serves(SHAPE, now + 100 * day_s)
    assert not told.serves(Shape(SHAPE.objects, SHAPE.tags + 1), now)
    assert not Told(SHAPE.objects, SHAPE.tags, "another", now, 1.0).serves(SHAPE, now)
    assert form_of(SHAPE) == form_of(SHAPE) != form_of(Shape(SHAPE.objects, SHAPE.tags + 1))


def test_a_full_disk_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    if free > 2 * SLACK_BYTES:
        check_room(tmp_path, 1)
    with pytest.raises(NotReady, match="fewer --objects"):
        check_room(tmp_path, 2 * free)


def test_the_doubt_of_a_median_grows_with_the_spread_and_falls_with_the_rounds() -> None:
    assert doubt_of([5.0, 5.0, 5.0]) == 0
    assert doubt_of([1.0, 2.0, 3.0]) < doubt_of([0.0, 2.0, 4.0])
    assert doubt_of([1.0, 2.0, 3.0] * 4) < doubt_of([1.0, 2.0, 3.0])
    assert doubt_of([1.0, 2.0, 3.0, 1e9]) < 10  # one gross round does not count


def test_the_origin_tags_what_it_is_asked_to_tag() -> None:
    load = Load("wrk", Path(), 10)
    head, _, body = answer_to(f"GET {load.target(3)} HTTP/1.1\r\n\r\n".encode()).partition(
        b"\r\n\r\n"
    )
    status, fields = parse_head(head)
    assert (status, fields[b"surrogate-key"]) == (200, b"t3 t1 t9")
    assert int(fields[b"content-length"]) == len(body) == 200
    assert b"surrogate-key" not in answer_to(b"GET /1k HTTP/1.1\r\n\r\n")


def test_a_ban_names_a_whole_tag() -> None:
    assert ban_of("t1") == r"ban obj.http.surrogate-key ~ (^|\\s)t1(\\s|$)"


# --- load, and what must come back --------------------------------------------


@pytest.mark.parametrize("kind", LOADS.values(), ids=LOADS)
def test_what_is_asked_for_is_one_whole_head(kind: Kind) -> None:
    head, end, rest = kind.request().partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert (first, end, rest) == (b"GET %b HTTP/1.1" % kind.target.encode(), b"\r\n\r\n", b"")
    assert all(re.fullmatch(rb"[A-Za-z-]+: [ -~]+", line) for line in lines)


def test_a_browser_sends_twelve_fields_and_no_cookie() -> None:
    head = LOADS["hit-browser-heads"].request().lower()
    assert head.count(b"\r\n") == 1 + 12 + 1
    assert b"accept-encoding: gzip" in head
    assert b"cookie" not in head


def test_a_script_sends_the_bytes_of_the_request() -> None:
    kind = LOADS["hit-browser-heads"]
    assert json.dumps(kind.request().decode()) in kind.script("")


def test_only_what_is_new_in_each_run_has_the_mark_of_the_run() -> None:
    assert {name for name, kind in LOADS.items() if "mark-7" in kind.script("mark-7")} == {
        "miss-1k",
        "mixed",
    }


@given(st.integers(min_value=1, max_value=100_000))
def test_the_script_of_the_mixture_can_do_the_sum_in_doubles(rank: int) -> None:
    place = math.floor(float(rank * SCATTER) % 2.0**32 * BOUNDS[-1] / 2.0**32)
    assert tuple(SIZES)[sum(bound <= place for bound in BOUNDS)] == size_of(rank)


def test_the_sizes_of_the_mixture_are_as_frequent_as_told() -> None:
    found = Counter(size_of(rank) for rank in range(1, 100_001))
    assert sum(SIZES.values()) == BOUNDS[-1] == 1000
    for size, share in SIZES.items():
        assert found[size] / 100_000 == pytest.approx(share / 1000, abs=0.005)


@pytest.mark.parametrize("urls", [1000, 100_000])
def test_what_the_mixture_stores_has_95_of_100_requests(urls: int) -> None:
    count = stored_count(urls)
    stored = sum(1 / rank for rank in range(1, count + 1))
    assert stored / sum(1 / rank for rank in range(1, urls + 1)) == pytest.approx(0.95, abs=1e-3)


def test_what_the_mixture_does_not_store_is_new_to_each_run() -> None:
    mixture = Mixture(1000)
    last = mixture.stored
    assert mixture.target(last, "a") == mixture.target(last, "b")
    assert mixture.target(last + 1, "a") != mixture.target(last + 1, "b")
    assert body_at(mixture.target(last + 1, "a")) == FILES[str(size_of(last + 1))]


def test_the_origins_have_files_and_count_requests() -> None:
    for target, body in (
        ("/files/1k", FILES["1k"]),
        ("/mixed/400/9/x", FILES["400"]),
        ("/", SMALL),
    ):
        head, _, sent = answer_to(f"GET {target} HTTP/1.1\r\n\r\n".encode()).partition(b"\r\n\r\n")
        assert sent == body
        assert parse_head(head)[1][b"etag"] == etag(len(body))
    told = answer_to(b"GET /requests HTTP/1.1\r\n\r\n", 17).partition(b"\r\n\r\n")[2]
    assert requests_told(told.decode()) == 17
    nginx = "Active connections: 1 \nserver accepts handled requests\n 2 3 44 \nReading: 0 \n"
    assert requests_told(nginx) == 44


@pytest.mark.parametrize(
    ("name", "value", "hit"),
    [
        ("Cache-Status", "edge-1; hit; ttl=59", True),
        ("Cache-Status", "edge-1; fwd=uri-miss; fwd-status=200; stored; ttl=60", False),
        ("Cache-Status", "HIT", True),
        ("Cache-Status", "MISS", False),
        ("X-Varnish", "32770 3", True),
        ("X-Varnish", "32770", False),
        ("X-Cache", "hit", False),
    ],
)
def test_each_server_tells_a_hit_in_its_own_way(name: str, value: str, *, hit: bool) -> None:
    assert proof.is_hit({name: value}) is hit


def test_an_answer_is_right_only_with_its_status_its_bytes_and_where_it_came_from() -> None:
    told = proof.Told(200, {"Cache-Status": "HIT"}, b"body")
    assert proof.fault_of(told, 200, b"body", hit=True) is None
    assert proof.fault_of(told, 200, b"body", hit=None) is None
    assert proof.fault_of(told, 206, b"body", hit=True) == "status 200 and not 206"
    assert proof.fault_of(told, 200, b"bodies", hit=True) == "4 bytes that are not the right 6"
    assert proof.fault_of(told, 200, b"body", hit=False) == "a hit: 'HIT'"


def test_a_goal_is_met_by_all_rounds_or_it_is_not_told() -> None:
    most, least = Goal("CPU/request", 0.6), Goal("requests/s", 1.0, is_least=True)
    assert comparison.verdict(most, Ratio(0.5, 0.4, 0.6)) == "at most 0.6: goal met"
    assert comparison.verdict(most, Ratio(0.8, 0.7, 0.9)) == "at most 0.6: GOAL MISSED"
    assert "both sides" in comparison.verdict(most, Ratio(0.6, 0.5, 0.7))
    assert comparison.verdict(least, Ratio(1.2, 1.0, 1.3)) == "at least 1: goal met"
    assert comparison.verdict(least, Ratio(0.8, 0.7, 0.9)) == "at least 1: GOAL MISSED"
    assert "one round" in comparison.verdict(least, None)


def test_a_table_gives_ratios_to_each_peer_but_not_within_the_noise() -> None:
    def run(cpu_us: float, p99_s: float) -> Run:
        return Run(Figures(1000, 100.0, 0.01, p99_s, 0), cpu_us, 1 << 20)

    report = Report()
    runs = {
        "this node": [run(10.0, 0.1), run(11.0, 0.1)],
        "nginx": [run(20.0, 0.05), run(22.0, 0.2)],
    }
    comparison.tell(report, runs, [Goal("CPU/request", 0.6)])
    said = "\n".join(report.lines)
    assert "0.5 (0.5–0.5)" in said
    assert "noise (0.5–2)" in said
    assert "CPU/request by nginx's: at most 0.6: goal met" in said
    assert report.figures["ratios"]["nginx"]["p99"] is None
    assert report.faults == []


def test_broken_answers_are_faults_of_a_table() -> None:
    report = Report()
    comparison.tell(report, {"this node": [Run(Figures(10, 1.0, 0.1, 0.1, 3), 1.0, 1)]})
    assert report.faults == ["this node: 3 requests failed"]


def test_a_port_is_none_that_the_system_gives_to_clients() -> None:
    assert free_port() in PORTS
    assert PORTS.stop <= 32_768


@pytest.mark.live
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_limit_answers_each_head_with_a_kibibyte(tmp_path: Path) -> None:
    request = LOADS["hit-1k"].request()
    with running(start_limit("cc", tmp_path)) as server:
        told = proof.ask(server.port, request * 2)
        assert proof.fault_of(told, 200, SMALL, hit=None) is None
        assert server.cpu_s() >= 0
        assert server.resident_bytes() > 0
