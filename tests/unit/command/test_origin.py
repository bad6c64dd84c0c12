"""`edge origin` as a user has it, against a stand-in for a node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from edge.__main__ import main
from edge.admin.call import Refused
from tests.unit.command.test_standing import SERVER
from tests.unit.standin import refusing, replying, standing_in

if TYPE_CHECKING:
    from pathlib import Path

US = {**SERVER, "origin": "us", "id": "us http://us.example", "server": "http://us.example"}
LIST = {"servers": [SERVER, US]}
DONE = {"version": 3, "behind": [], "servers": [{**SERVER, "drained": True}]}
BOTH = ["eu", "http://a"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


def edge(*args: str, path: Path) -> Result:
    return CliRunner().invoke(main, ["origin", *args, "--socket", str(path)])


def test_servers_are_listed_all_or_of_one_origin(path: Path) -> None:
    with standing_in(path, {"GET /v1/origins": replying(LIST)}):
        told = edge("list", path=path)
        assert [line.split()[0] for line in told.stdout.splitlines()] == ["origin", "eu", "us"]
        told = edge("list", "us", path=path)
        assert [line.split()[0] for line in told.stdout.splitlines()] == ["origin", "us"]
        assert json.loads(edge("list", "us", "--json", path=path).stdout) == {"servers": [US]}
        assert json.loads(edge("list", "--json", path=path).stdout) == LIST
        told = edge("list", "eh\x1b", path=path)
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr == 'edge: "eh?" is no origin; there is eu, us\n'


@pytest.mark.parametrize("answer", [{}, {"servers": None}, {"servers": [1]}])
def test_a_list_that_is_none_is_no_crash(path: Path, answer: dict[str, Any]) -> None:
    with standing_in(path, {"GET /v1/origins": replying(answer)}):
        assert edge("list", path=path).exit_code == 0
        assert edge("list", "eu", path=path).exit_code == 1


@pytest.mark.parametrize(
    ("args", "route", "asked"),
    [
        (["drain", "eu"], "drain", {"servers": ["eu"]}),
        (["drain", "eu", "http://a"], "drain", {"servers": ["eu", "http://a"]}),
        (["up", "http://a"], "up", {"servers": ["http://a"]}),
        (["weight", "eu", "3"], "weight", {"servers": ["eu"], "weight": 3.0}),
        (["weight", "eu", "http://a", "0.5"], "weight", {"servers": BOTH, "weight": 0.5}),
        (["weight", "eu", "--reset"], "weight", {"servers": ["eu"], "weight": None}),
        (["weight", "--reset", *BOTH], "weight", {"servers": BOTH, "weight": None}),
    ],
)
def test_an_order_is_given_as_it_was_typed_and_its_outcome_told(
    path: Path, args: list[str], route: str, asked: dict[str, Any]
) -> None:
    with standing_in(path, {f"POST /v1/origins/{route}": replying(DONE)}) as calls:
        told = edge(*args, path=path)
        as_json = edge(*args, "--json", path=path)
    assert [json.loads(call.body) for call in calls] == [asked, asked]
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout == "eu http://eu-1.example: drained\n"
    assert json.loads(as_json.stdout) == DONE


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["drain"], "Missing argument"),
        (["drain", "eu", "http://a", "http://b"], "name an origin, a server by its URL, or both"),
        (["weight", "3"], "name an origin, a server by its URL, or both"),
        (["weight", "eu", "many"], '"many" is no weight; write a number at the end, or --reset'),
        (["weight", "eu", "nan"], '"nan" is no weight'),
        (["weight", "eu", "1e999"], '"1e999" is no weight'),
        (["up", "\udcff"], "is not UTF-8 text"),
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
    with standing_in(path, {"POST /v1/origins/drain": replying(late)}):
        told = edge("drain", "eu", path=path)
        as_json = edge("drain", "eu", "--json", path=path)
    assert (told.exit_code, told.stdout) == (1, "eu http://eu-1.example: drained\n")
    assert told.stderr.startswith("edge: the order is recorded, and worker 1 (pid 42) does not")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (1, late)


def test_a_refusal_is_told_in_the_nodes_words(path: Path) -> None:
    words = '"ue" is no origin; did you mean "eu"?'
    refused = Refused(422, "not ordered", words)
    with standing_in(path, {"POST /v1/origins/drain": refusing(refused)}):
        told = edge("drain", "ue", path=path)
    assert (told.exit_code, told.stdout, told.stderr) == (1, "", f"edge: {words}\n")


@pytest.mark.parametrize("command", ["list", "drain", "up", "weight"])
def test_every_command_has_examples(command: str) -> None:
    told = CliRunner().invoke(main, ["origin", command, "--help"])
    assert (told.exit_code, f"edge origin {command}" in told.output) == (0, True)
