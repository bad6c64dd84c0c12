"""`edge ab` as a user has it, against a stand-in for a node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from edge.__main__ import main
from edge.admin.call import Refused
from tests.unit.command.test_standing import EXPERIMENT
from tests.unit.standin import refusing, replying, standing_in

if TYPE_CHECKING:
    from pathlib import Path

DONE = {"version": 3, "behind": [], "experiment": EXPERIMENT}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


def edge(*args: str, path: Path) -> Result:
    return CliRunner().invoke(main, ["ab", *args, "--socket", str(path)])


def test_experiments_are_listed(path: Path) -> None:
    document = {"experiments": [EXPERIMENT]}
    with standing_in(path, {"GET /v1/experiments": replying(document)}):
        told = edge("list", path=path)
        assert told.stdout.startswith("a.example/checkout  running\narm ")
        assert json.loads(edge("list", "--json", path=path).stdout) == document


@pytest.mark.parametrize(
    ("args", "route", "asked"),
    [
        (["ramp", "x", "new", "25"], "ramp", {"experiment": "x", "arm": "new", "weight": 25.0}),
        (["ramp", "x", "new", "20%"], "ramp", {"experiment": "x", "arm": "new", "share": 0.2}),
        (["ramp", "x", "new", "0"], "ramp", {"experiment": "x", "arm": "new", "weight": 0.0}),
        (["ramp", "x", "new", "--reset"], "ramp", {"experiment": "x", "arm": "new"}),
        (["stop", "x"], "stop", {"experiment": "x", "arm": None}),
        (["stop", "a/x", "--on", "new"], "stop", {"experiment": "a/x", "arm": "new"}),
        (["resume", "x"], "resume", {"experiment": "x"}),
    ],
)
def test_an_order_is_given_as_it_was_typed_and_its_shares_told(
    path: Path, args: list[str], route: str, asked: dict[str, Any]
) -> None:
    with standing_in(path, {f"POST /v1/experiments/{route}": replying(DONE)}) as calls:
        told = edge(*args, path=path)
        as_json = edge(*args, "--json", path=path)
    assert [json.loads(call.body) for call in calls] == [asked, asked]
    assert (told.exit_code, told.stderr) == (0, "")
    assert "  new: 20.0% of visitors, weight 22.5 (settings 10)\n" in told.stdout
    assert json.loads(as_json.stdout) == DONE


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["ramp", "x", "new"], "give a weight like 25 or 20%, or --reset"),
        (["ramp", "x", "new", "25", "--reset"], "give a weight like 25 or 20%, or --reset"),
        (["ramp", "x", "new", "half"], '"half" is no weight; write 25, or a share like 20%'),
        (["ramp", "x", "new", "%"], "is no weight"),
        (["ramp", "x", "new", "nan%"], "is no weight"),
        (["ramp", "x", "new", "inf"], "is no weight"),
        (["stop", "\udcff"], "is not UTF-8 text"),
        (["stop", "x", "--on", "\udcff"], "is not UTF-8 text"),
    ],
)
def test_what_is_asked_for_wrongly_is_a_usage_error_and_asks_nobody(
    path: Path, args: list[str], said: str
) -> None:
    with standing_in(path, {}) as calls:
        told = edge(*args, path=path)
    assert (told.exit_code, calls) == (2, [])
    assert said in told.stderr


def test_a_worker_that_is_behind_is_told_and_the_command_fails(path: Path) -> None:
    late = {**DONE, "behind": [{"worker": 1, "pid": 42}]}
    with standing_in(path, {"POST /v1/experiments/stop": replying(late)}):
        told = edge("stop", "x", path=path)
    assert told.exit_code == 1
    assert "worker 1 (pid 42) does not go by it yet" in told.stderr


def test_a_refusal_is_told_in_the_nodes_words(path: Path) -> None:
    refused = Refused(422, "not ordered", '"xx" is no arm; there is new, control')
    with standing_in(path, {"POST /v1/experiments/ramp": refusing(refused)}):
        told = edge("ramp", "x", "xx", "20%", path=path)
    assert (told.exit_code, told.stderr) == (1, 'edge: "xx" is no arm; there is new, control\n')


@pytest.mark.parametrize("command", ["list", "ramp", "stop", "resume"])
def test_every_command_has_examples(command: str) -> None:
    told = CliRunner().invoke(main, ["ab", command, "--help"])
    assert (told.exit_code, f"edge ab {command}" in told.output) == (0, True)
