"""The commands that look and do, as a user has them, against a stand-in for a node."""

from __future__ import annotations

import io
import json
import shlex
import socket
import subprocess
import sys
from itertools import groupby
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from edge.__main__ import main
from edge.admin.socket import Refused, Reply, Streamed
from edge.command.menu import COMMANDS
from edge.explain.question import QuestionRefused, asked
from edge.purging.orders import OrderRefused, order_from_json
from edge.routing.site import HostTable
from tests.unit.command.test_purge import on_terminal
from tests.unit.standin import read_some, refusing, replying, saying, standing_in, streaming

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import click

    from edge.admin.socket import Call

STORED = {
    "url": "http://a.example/x", "variant": [["accept-encoding", "gzip"]], "status": 200,
    "bytes": 12, "age_s": 5, "ttl_s": 55, "hits": 3, "state": "fresh", "where": "both", "tags": [],
}  # fmt: skip
LINE = json.dumps(STORED).encode() + b"\n"
ROW = "      12 B     5s    55s       3 fresh       http://a.example/x [accept-encoding: gzip]\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
ASKING = {
    "explain": ["explain", "http://a.example/"],
    "ls": ["ls"],
    "get": ["get", "http://a.example/"],
    "purges": ["purges"],
    "origin": ["origin", "list"],
    "ab": ["ab", "list"],
    "reload": ["reload"],
    "drain": ["drain"],
    "status": ["status"],
    "purge": ["purge", "tag", "a"],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


def edge(*args: str, path: Path) -> Result:
    return CliRunner().invoke(main, [*args, "--socket", str(path)])


def process(*args: str, path: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "edge", *args, "--socket", str(path)]
    return subprocess.run(command, capture_output=True, timeout=30)


def test_every_command_that_asks_is_tried_here() -> None:
    assert {command.name for command in COMMANDS} == ASKING.keys()


@pytest.mark.parametrize("command", ASKING)
def test_every_command_tells_how_it_is_used_by_example(command: str) -> None:
    told = CliRunner().invoke(main, [command, "--help"])
    assert told.exit_code == 0
    assert "Example" in told.output
    assert f"edge {command}" in told.output


@pytest.mark.parametrize("command", ASKING)
def test_a_command_without_a_node_ends_with_3(path: Path, command: str) -> None:
    told = edge(*ASKING[command], path=path)
    assert (told.exit_code, told.stdout) == (3, "")
    assert told.stderr.startswith(f"edge: {path}: no socket is there; is the node running")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    told = edge(*ASKING[command], path=path)
    assert (told.exit_code, "no node listens here" in told.stderr) == (3, True)


@pytest.mark.parametrize("command", ASKING)
def test_a_command_that_is_refused_ends_with_1(path: Path, command: str) -> None:
    with standing_in(path, {"GET /v1/other": replying({})}):
        told = edge(*ASKING[command], path=path)
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr == "edge: nothing is here; there is GET /v1/other\n"


@pytest.mark.parametrize("command", ASKING)
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\n\n\r\n"]
)
def test_a_node_that_dies_half_way_ends_every_command_with_3(
    path: Path, command: str, answer: bytes
) -> None:
    with saying(path, answer, read=read_some):
        told = edge(*ASKING[command], path=path)
    assert (told.exit_code, "ended before its answer was whole" in told.stderr) == (3, True)


@pytest.mark.parametrize(
    "args",
    [
        ["explain"],
        ["explain", "http://a/", "-H", "no colon"],
        ["explain", "http://a/", "-H", "a: b\r\nc: d"],
        ["explain", "http://a/", "--from", "10.0.0.1:80"],
        ["explain", "http://a/", "--method", "G T"],
        ["explain", "shop.example"],
        ["get", "http://a/b c"],
        ["get", "http://a/", "-H", ": none"],
        ["ls", "--limit", "0"],
        ["ls", "--limit", "1000000000"],
        ["ls", "a", "b"],
        ["status", "--jsn"],
    ],
)
def test_a_command_asked_for_wrongly_ends_with_2(path: Path, args: list[str]) -> None:
    assert edge(*args, path=path).exit_code == 2


async def read_order(call: Call) -> Reply | Streamed:
    """A purge, read as a node reads it."""
    try:
        order = order_from_json(call.body, HostTable([]))
    except OrderRefused as error:
        raise Refused(422, "not purged", str(error)) from error
    if order.dry_run:
        return await streaming(b'{"matches": 0, "done": true}\n')(call)
    return Reply(200, {"number": 1, "scopes": len(order.names)})


async def read_question(call: Call) -> Reply:
    """A request to be explained or got, read as a node reads it."""
    try:
        asked(call.query)
    except QuestionRefused as error:
        raise Refused(400, "", str(error)) from error
    return Reply(200, {})


NODE = {
    "POST /v1/purge": read_order, "GET /v1/explain": read_question, "GET /v1/get": read_question,
    "GET /v1/ls": streaming(LINE), "GET /v1/purges": replying({}),
    "GET /v1/status": replying({}), "POST /v1/reload": replying({}),
    "POST /v1/drain": replying({}, 202),
    "GET /v1/origins": replying({"servers": [{"origin": "eu"}]}),
    "POST /v1/origins/drain": replying({}), "POST /v1/origins/up": replying({}),
    "POST /v1/origins/weight": replying({}), "GET /v1/experiments": replying({}),
    "POST /v1/experiments/ramp": replying({}), "POST /v1/experiments/stop": replying({}),
    "POST /v1/experiments/resume": replying({}),
}  # fmt: skip


def examples(command: click.Command = main, *names: str) -> Iterator[list[str]]:
    """Every call of `edge` in the help of a command and of those below it."""
    text = (command.help or "").replace("\\\n", " ")
    for line in text.partition("xample")[2].splitlines()[1:]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&>")
        lexer.whitespace_split = True
        between_pipes = groupby(lexer, key=lambda word: word in ("|", "&&", ">"))
        for is_pipe, words in between_pipes:
            called, *rest = words
            if not is_pipe and called == "edge":
                yield rest
    for name, below in getattr(command, "commands", {}).items():
        yield from examples(below, *names, name)


@pytest.mark.parametrize("example", [*examples()], ids=" ".join)
def test_every_example_can_be_typed_as_it_stands(path: Path, example: list[str]) -> None:
    given = io.BytesIO(b"http://a.example/\n")
    for at, word in enumerate(example):
        if word == "--file" and example[at + 1] != "-":
            (path.parent / "names.txt").write_text("front\n")
            example = [*example[: at + 1], str(path.parent / "names.txt"), *example[at + 2 :]]
    if example[0] not in ASKING:
        command = main.commands[example[0]]
        assert command.make_context(example[0], example[1:]).params
        return
    with standing_in(path, NODE):
        told = CliRunner().invoke(main, [*example, "--socket", str(path)], input=given)
    asks_first = example[:2] == ["purge", "all"] and "--yes" not in example
    assert told.exit_code == (2 if asks_first else 0), told.stderr


def test_there_are_examples_of_every_command() -> None:
    assert {example[0] for example in examples()} == main.commands.keys()


# Looking.


def test_a_request_is_explained_with_its_verdict_first(path: Path) -> None:
    document = {"site": "shop", "verdict": "hit", "age": ["5 s since it came", "+ 1 s before"]}
    args = ["explain", "http://a.example/?b", "-H", "Accept: x", "-H", "Cookie:", "--from", "::1"]
    with standing_in(path, {"GET /v1/explain": replying(document)}) as calls:
        told = edge(*args, "--method", "HEAD", path=path)
        assert json.loads(edge(*args, "--json", path=path).stdout) == document
    assert told.stdout == "verdict  hit\nsite     shop\nage\n  5 s since it came\n  + 1 s before\n"
    assert calls[0].query == {
        "url": ["http://a.example/?b"],
        "field": ["Accept: x", "Cookie:"],
        "from": ["::1"],
        "method": ["HEAD"],
    }


def test_what_is_stored_is_listed_a_line_each(path: Path) -> None:
    with standing_in(path, {"GET /v1/ls": streaming(LINE, LINE)}):
        assert process("ls", "a.example/", "--limit", "2", path=path).stdout.decode() == ROW * 2
        lines = process("ls", "--json", path=path).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [STORED, STORED]


def test_a_listing_of_nothing_says_so_on_standard_error(path: Path) -> None:
    with standing_in(path, {"GET /v1/ls": streaming()}):
        told = edge("ls", "Shop.example/x", path=path)
        every = edge("ls", "--json", path=path)
    assert (told.exit_code, told.stdout) == (0, "")
    assert told.stderr == "nothing stored begins with Shop.example/x\n"
    assert (every.stdout, every.stderr) == ("", "nothing is stored\n")


def test_a_field_that_a_stored_request_did_not_have_is_a_dash(path: Path) -> None:
    line = json.dumps({**STORED, "variant": [["accept-encoding", None]]}).encode() + b"\n"
    with standing_in(path, {"GET /v1/ls": streaming(line)}):
        assert edge("ls", path=path).stdout.endswith("[accept-encoding: -]\n")


def test_what_a_listing_asks_for_is_sent(path: Path) -> None:
    with standing_in(path, {"GET /v1/ls": streaming(LINE)}) as calls:
        edge("ls", "a.example/", "--limit", "2", path=path)
        edge("ls", path=path)
    assert calls[0].query == {"prefix": ["a.example/"], "limit": ["2"]}
    assert calls[1].query == {}


def test_a_listing_has_a_head_on_a_terminal(path: Path) -> None:
    with standing_in(path, {"GET /v1/ls": streaming(LINE)}):
        code, shown = on_terminal("ls", "--socket", str(path))
    assert code == 0
    assert shown.split()[:2] == [b"size", b"age"]
    assert len(shown.splitlines()) == 2


def test_control_characters_that_were_stored_are_not_printed(path: Path) -> None:
    odd = {**STORED, "url": "http://a/\x1b[2J\x9b\u202e\n", "state": "\x07"}
    line = json.dumps(odd, ensure_ascii=False).encode() + b"\n"
    with standing_in(path, {"GET /v1/ls": streaming(line)}):
        told = process("ls", path=path)
        safe = process("ls", "--json", path=path)
    assert b"http://a/?[2J???" in told.stdout
    assert safe.stdout.isascii()
    assert b"\x1b" not in told.stdout + safe.stdout


@pytest.mark.parametrize("args", [["ls"], ["ls", "--json"], ["get", "http://a/"]])
def test_a_listing_stops_quietly_where_its_reader_does(path: Path, args: list[str]) -> None:
    script = '{ "$0" -m edge "$@"; echo "code $?" >&2; } | head -n 1'
    command = ["/bin/sh", "-c", script, sys.executable, *args, "--socket", str(path)]
    endless = streaming(LINE * 1000, times=10**9)
    with standing_in(path, {"GET /v1/ls": endless, "GET /v1/get": endless}):
        told = subprocess.run(command, capture_output=True, timeout=30)
    assert told.stderr == b"code 0\n"
    assert len(told.stdout.splitlines()) == 1


def test_a_listing_is_not_gathered_before_it_is_printed(path: Path) -> None:
    with standing_in(path, {"GET /v1/ls": streaming(LINE * 1000, times=10**9)}):
        command = [sys.executable, "-m", "edge", "ls", "--socket", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as listing:
            assert listing.stdout is not None
            for _ in range(20_000):
                assert listing.stdout.readline().decode() == ROW
            with open(f"/proc/{listing.pid}/statm") as memory:
                assert int(memory.read().split()[1]) * 4096 < 64 * 1024 * 1024
            listing.stdout.close()
            assert listing.wait(30) == 0


def test_a_stored_response_is_printed_as_it_stands_on_the_wire(path: Path) -> None:
    body = bytes(range(256)) * 1000
    handler = streaming(RESPONSE[:30], RESPONSE[30:] + body[:10], body[10:])
    with standing_in(path, {"GET /v1/get": handler}) as calls:
        told = process("get", "http://a.example/", "-H", "Accept: x", path=path)
        head = process("get", "http://a.example/", "--head", path=path)
    assert told.stdout == RESPONSE + body
    assert head.stdout == RESPONSE
    assert calls[0].query == {"url": ["http://a.example/"], "field": ["Accept: x"]}


def test_a_head_without_an_end_is_not_gathered_for_ever(path: Path) -> None:
    with standing_in(path, {"GET /v1/get": streaming(b"x" * 60_000, times=10**9)}):
        assert len(process("get", "http://a/", "--head", path=path).stdout) < 2 * 1024 * 1024


def test_a_stored_body_cannot_move_the_cursor_of_a_terminal(path: Path) -> None:
    with standing_in(path, {"GET /v1/get": streaming(RESPONSE, b"a\tb\x1b[2J\xff\r\n\x9b\n")}):
        code, shown = on_terminal("get", "http://a/", "--socket", str(path))
    assert code == 0
    assert b"\x1b" not in shown
    assert "a\tb?[2J\ufffd\r\n\ufffd\r\n".encode() in shown


def test_the_recent_purges_are_listed(path: Path) -> None:
    row = {
        "number": 17, "when": 0, "who": "uid 0, pid 1", "manner": "hard", "everything": False,
        "scopes": ["tag front"], "count": 1,
    }  # fmt: skip
    document = {"latest": 17, "purges": [row]}
    with standing_in(path, {"GET /v1/purges": replying(document)}):
        lines = edge("purges", path=path).stdout.splitlines()
        assert json.loads(edge("purges", "--json", path=path).stdout) == document
    assert len(lines) == 2
    assert lines[1].split() == ["17", "1970-01-01T00:00:00Z", "hard", "uid", "0,", "pid", "1", "tag", "front"]  # fmt: skip # noqa: E501


def test_a_status_is_told_to_people_and_to_programs(path: Path) -> None:
    with standing_in(path, {"GET /v1/status": replying({"version": "1", "uptime_s": 2})}):
        assert edge("status", path=path).stdout == "version  1\nuptime   2 s\n"
        assert json.loads(edge("status", "--json", path=path).stdout)["uptime_s"] == 2


# Doing.


def test_settings_are_taken_and_what_must_wait_is_named(path: Path) -> None:
    document = {"taken": True, "later": ["node.listen"]}
    with standing_in(path, {"POST /v1/reload": replying(document)}):
        told = edge("reload", path=path)
        safe = edge("reload", "--json", path=path)
    assert (told.exit_code, told.stdout) == (0, "settings taken\n")
    assert told.stderr == "note: node.listen changed; it counts from the next start on\n"
    assert (json.loads(safe.stdout), safe.stderr) == (document, "")


def test_settings_with_faults_are_refused_with_every_fault(path: Path) -> None:
    fault = {
        "file": "/etc/edge.toml", "line": 9, "path": "sites[0].cache.ttl", "value": '"5 mins"',
        "message": "is not a duration",
    }  # fmt: skip
    refused = Refused(422, "settings not taken", "sites[0]: …", {"faults": [fault]})
    with standing_in(path, {"POST /v1/reload": refusing(refused)}):
        told = edge("reload", path=path)
        safe = edge("reload", "--json", path=path)
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr == (
        "edge: settings not taken; the old ones stay\n"
        '  /etc/edge.toml:9: sites[0].cache.ttl: "5 mins" is not a duration\n'
    )
    assert (safe.exit_code, json.loads(safe.stdout)["faults"]) == (1, [fault])


def test_a_node_is_told_to_end(path: Path) -> None:
    with standing_in(path, {"POST /v1/drain": replying({"draining": True}, 202)}):
        told = edge("drain", path=path)
        assert json.loads(edge("drain", "--json", path=path).stdout) == {"draining": True}
    assert told.exit_code == 0
    assert told.stdout.startswith("draining")
