"""How servers and experiments are printed; whatever a document holds."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge.command.standing import (
    behind,
    experiment_ordered,
    experiments,
    servers,
    servers_ordered,
)

SERVER: dict[str, Any] = {
    "id": "eu http://eu-1.example", "origin": "eu", "server": "http://eu-1.example",
    "drained": False, "weight": 7.0, "settings_weight": 3.0, "at_work": 7, "latency_s": 0.0032,
    "check": {"state": "down", "for_s": 200.0, "why": "refused"},
    "workers": [{"state": "up"}, {"state": "ejected"}, {"state": "up"}],
}  # fmt: skip
ARM: dict[str, Any] = {
    "name": "new", "weight": 22.5, "settings_weight": 10.0, "share": 0.2, "requests": 4,
    "visitors": 2, "statuses": {"2xx": 3, "4xx": 1}, "hit_ratio": 0.75, "mean_s": 0.003,
    "p50_s": 0.005, "p99_s": None,
}  # fmt: skip
CONTROL = {**ARM, "name": "control", "weight": 90.0, "settings_weight": 90.0, "share": 0.8}
EXPERIMENT = {"id": "a.example/checkout", "stopped_on": None, "arms": [ARM, CONTROL]}


def test_servers_are_a_table() -> None:
    other = {
        **SERVER, "server": "http://eu-2.example:8080", "drained": True, "check": None,
        "weight": 1.0, "settings_weight": 1.0, "latency_s": None, "at_work": 0,
    }  # fmt: skip
    none = {**other, "drained": False, "workers": []}
    same = {**none, "workers": [{"state": "warming"}] * 2}
    assert list(servers({"servers": [SERVER, other, none, same]})) == [
        "origin  server                    state            checks                at work          weight  latency",  # noqa: E501
        "eu      http://eu-1.example       up 2, ejected 1  down for 3m: refused        7  7 (settings 3)   3.2 ms",  # noqa: E501
        "eu      http://eu-2.example:8080  drained          -                           0               1        -",  # noqa: E501
        "eu      http://eu-2.example:8080  -                -                           0               1        -",  # noqa: E501
        "eu      http://eu-2.example:8080  warming          -                           0               1        -",  # noqa: E501
    ]


def test_a_check_that_found_nothing_yet_is_told_so() -> None:
    unknown = {**SERVER, "check": {"state": "unknown", "for_s": None, "why": ""}}
    assert "  unknown  " in list(servers({"servers": [unknown]}))[1]


def test_what_an_order_about_servers_came_to_is_one_line_each() -> None:
    assert list(servers_ordered({"servers": [SERVER, {**SERVER, "drained": True}]})) == [
        "eu http://eu-1.example: in use, weight 7 (settings 3)",
        "eu http://eu-1.example: drained",
    ]


def test_experiments_are_tables_of_their_arms() -> None:
    stopped = {**EXPERIMENT, "id": "b.example/x", "stopped_on": "control", "arms": [CONTROL]}
    lines = list(experiments({"experiments": [EXPERIMENT, stopped]}))
    assert lines[:3] == [
        "a.example/checkout  running",
        "arm                  weight  share  visitors  requests  2xx  3xx  4xx  5xx   hits  mean  p99",  # noqa: E501
        "new      22.5 (settings 10)  20.0%         2         4    3    0    1    0  75.0%  3 ms    -",  # noqa: E501
    ]
    assert lines[4:6] == ["", "b.example/x  stopped: everyone has control"]
    assert list(experiments({"experiments": []})) == ["no site has an experiment"]


def test_what_an_order_about_an_experiment_came_to_is_told_in_shares() -> None:
    assert list(experiment_ordered({"experiment": EXPERIMENT})) == [
        "a.example/checkout  running",
        "  new: 20.0% of visitors, weight 22.5 (settings 10)",
        "  control: 80.0% of visitors, weight 90",
    ]


def test_who_is_behind_is_named() -> None:
    assert behind({"behind": []}) == ""
    late = [{"worker": 1, "pid": 42}, {"worker": 3, "pid": 43}]
    assert behind({"behind": late}) == (
        "the order is recorded, and worker 1 (pid 42), worker 3 (pid 43) does not go by it yet; "
        "look again with `list`, or end that process"
    )


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*SERVER, *ARM, "for_s", "state", "why", "pid", "worker", "2xx"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(anything, st.sampled_from(["servers", "experiments", "experiment", "behind"]))
def test_there_is_a_line_for_anything_and_none_moves_a_cursor(value: Any, name: str) -> None:
    for document in ({name: value}, {name: [value]}, {name: {"arms": [value]}}):
        lines = [
            *servers(document), *servers_ordered(document), *experiments(document),
            *experiment_ordered(document), behind(document),
        ]  # fmt: skip
        assert all(line.isprintable() for line in lines)
