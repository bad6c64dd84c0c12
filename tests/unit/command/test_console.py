from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from edge.command.asking import NodeRefused, Unreachable
from edge.command.console import (
    answering,
    json_option,
    node_at,
    print_notes,
    print_result,
    renamed,
    socket_option,
)
from tests.unit.standin import saying

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def ending(error: Exception | None, *, printing: str = "done", as_json: bool = False) -> Result:
    @click.command()
    def command() -> None:
        with answering(["names.txt:3"], as_json=as_json):
            if printing:
                print_result(printing)
            if error is not None:
                raise error

    return CliRunner().invoke(command, [])


def test_the_exit_code_tells_how_it_went() -> None:
    assert (ending(None).exit_code, ending(None).stdout) == (0, "done\n")
    assert ending(NodeRefused(422, {})).exit_code == 1
    assert ending(Unreachable("a.sock: none")).exit_code == 3
    assert ending(OSError(28, "No space left on device")).exit_code == 4


def test_what_went_wrong_is_told_in_words_that_are_safe_to_print() -> None:
    assert ending(Unreachable("\x1b: none")).stderr == "edge: ?: none\n"
    assert "standard output: No space left" in ending(OSError(28, "No space left")).stderr
    fault = {"path": "tag[0]", "value": "a\nb", "message": "is bad"}
    refused = ending(NodeRefused(422, {"detail": "1 bad tag", "faults": [fault]}))
    assert refused.stderr == 'edge: the node refused: 1 fault\n  names.txt:3: "a?b" is bad\n'
    assert ending(NodeRefused(503, {})).stderr == "edge: the node answered 503\n"


def test_a_refusal_is_a_document_for_programs() -> None:
    refused = {"status": 503, "detail": "Busy"}
    told = ending(NodeRefused(503, refused), printing="", as_json=True)
    assert (json.loads(told.stdout), told.stderr) == (refused, "edge: Busy\n")


def test_what_was_done_is_told_though_it_cannot_be_printed() -> None:
    code = (
        "import edge.command.console as c\nwith c.answering() as deed:\n"
        " deed.done = 'purge 7 is done'\n print('purge 7')"
    )
    with open("/dev/full", "wb") as full:
        told = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert told.returncode == 4
    assert told.stderr == ("edge: purge 7 is done; standard output: No space left on device\n")


def test_a_refusal_that_cannot_be_printed_is_still_told() -> None:
    code = (
        "import edge.command.console as c\nfrom edge.command.asking import NodeRefused\n"
        "with c.answering(as_json=True): raise NodeRefused(503, {'detail': 'Busy'})"
    )
    with open("/dev/full", "wb") as full:
        told = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert told.returncode == 1
    assert told.stderr.splitlines()[0] == "edge: Busy"


def test_a_node_that_is_silent_for_long_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edge.command.asking.QUIET_S", 0.02)
    path = tmp_path / "a.sock"
    release = threading.Event()
    with saying(path, ANSWER, read=lambda _: release.wait(10)):
        node = node_at(path)
        say = node._on_silence
        assert say is not None

        def say_and_release() -> None:
            say()
            release.set()

        monkeypatch.setattr(node, "_on_silence", say_and_release)
        assert node.get("/v1/status") == {}
    assert capsys.readouterr().err == f"edge: still waiting for the node at {path}\n"


def test_notes_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    print_notes({"notes": ["a\x1b", "b"]})
    print_notes({"notes": 7})
    assert capsys.readouterr() == ("", "note: a?\nnote: b\n")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_a_name_that_a_terminal_cannot_show_is_no_fault(encoding: str) -> None:
    code = "import edge.command.console as c\nwith c.answering(): c.print_result('a\\u20acb')"
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={"PYTHONIOENCODING": encoding},
        check=True,
    )
    assert told.stdout == "a€b\n".encode(encoding, "replace")


def test_a_reader_that_closes_the_pipe_has_had_what_it_wanted() -> None:
    code = (
        "import edge.command.console as c\n"
        "with c.answering(): print('x' * 9_000_000)\nprint('not here')"
    )
    script = '{ "$0" -c "$1"; echo $? >&2; } | head -c 1'
    told = subprocess.run(["/bin/sh", "-c", script, sys.executable, code], capture_output=True)
    assert (told.stdout, told.stderr) == (b"x", b"0\n")


def test_a_standard_output_that_was_closed_is_no_fault() -> None:
    code = "import edge.command.console as c\nwith c.answering(): c.print_result('done')"
    told = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" >&-', sys.executable, code], capture_output=True
    )
    assert (told.returncode, told.stderr) == (0, b"")


def test_the_socket_is_told_by_option_then_environment_then_default(tmp_path: Path) -> None:
    @click.command()
    @json_option
    @socket_option
    def command(path: Path, *, as_json: bool) -> None:
        click.echo(f"{path} {as_json}")

    told = CliRunner().invoke(command, [], env={"EDGE_SOCKET": None})
    assert told.output == "/run/edge/admin.sock False\n"
    environment = {"EDGE_SOCKET": "/from/environment"}
    assert CliRunner().invoke(command, ["--json"], env=environment).output == (
        "/from/environment True\n"
    )
    told = CliRunner().invoke(command, ["--socket", "/given"], env=environment)
    assert told.output == "/given False\n"


@click.command(help="Look.\n\n\b\n    edge look /edge here\n    ls /var/edge | edge look")
@socket_option
def look(path: Path) -> None:
    with answering():
        print_result(str(path))
        raise Unreachable("none")


def test_a_command_can_be_another_programs() -> None:
    told = renamed(click.Group("edge", commands=[click.Group("deep", commands=[look])]), "other")
    other = click.Group("other", commands=[told])
    asked = ["edge", "deep", "look"]
    shown = CliRunner().invoke(other, [*asked, "--help"]).output
    assert "other look /edge here" in shown
    assert "ls /var/edge | other look" in shown
    assert "/run/other/admin.sock" in shown
    by_name = CliRunner(env={"OTHER_SOCKET": "/there"}).invoke(other, asked)
    assert (by_name.stdout, by_name.stderr) == ("/there\n", "other: none\n")


def test_what_is_another_programs_is_still_the_edges() -> None:
    renamed(look, "other")
    shown = CliRunner(env={"OTHER_SOCKET": "/there"}).invoke(click.Group("edge", [look]), ["look"])
    assert (shown.stdout, shown.stderr) == ("/run/edge/admin.sock\n", "edge: none\n")
