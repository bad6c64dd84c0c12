"""`edge purge` as a user has it: processes of its own, against a stand-in for a node."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from edge.__main__ import main
from edge.admin.socket import BODY_BYTES, Refused
from tests.unit.standin import read_some, refusing, replying, saying, standing_in, streaming

if TYPE_CHECKING:
    from pathlib import Path

    from edge.admin.socket import Call

DONE = {"number": 17, "soft": False, "scopes": 1, "ms": 1.9, "notes": []}
COUNTING = (
    b'{"looked_at": 1, "of": 2, "matches": 0, "bytes": 0}\n',
    b'{"looked_at": 2, "of": 2, "matches": 1, "bytes": 2048, "done": true}\n',
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


def edge(*args: str, path: Path, given: str | bytes = "") -> Result:
    return CliRunner().invoke(main, args, input=given, env={"EDGE_SOCKET": str(path)})


def process(*args: str, path: Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "edge", *args, "--socket", str(path)]
    return subprocess.run(command, input=given, capture_output=True, timeout=30)


def asked(calls: list[Call]) -> dict[str, Any]:
    [call] = calls
    document: dict[str, Any] = json.loads(call.body)
    return {name: value for name, value in document.items() if value}


@pytest.mark.parametrize("kind", ["url", "prefix", "host", "tag"])
def test_names_are_purged_in_one_order(path: Path, kind: str) -> None:
    with standing_in(path, {"POST /v1/purge": replying({**DONE, "scopes": 2})}) as calls:
        told = edge("purge", kind, "a", "#b", path=path)
    assert asked(calls) == {kind: ["a", "#b"]}
    assert told.exit_code == 0
    assert told.stdout.startswith(f"purge 17: 2 {kind}")
    assert told.stdout.endswith(" ms\n")


def test_a_purge_is_a_process_that_tells_its_number_and_the_notes(path: Path) -> None:
    document = {**DONE, "notes": ["no site serves shop.exmaple\x1b[2J"]}
    with standing_in(path, {"POST /v1/purge": replying(document)}):
        told = process("purge", "url", "http://shop.exmaple/", path=path)
    assert told.returncode == 0
    assert told.stdout.startswith(b"purge 17: 1 url, ")
    assert told.stderr == b"note: no site serves shop.exmaple?[2J\n"


@pytest.mark.parametrize(
    "args",
    [
        ["--soft", "--json", "tag", "a"],
        ["tag", "--soft", "--json", "a"],
        ["--soft", "tag", "a", "--json"],
        ["--soft", "--json", "tag", "--soft", "a"],
    ],
)
def test_options_may_stand_before_the_kind_and_behind_it(path: Path, args: list[str]) -> None:
    with standing_in(path, {"POST /v1/purge": replying(DONE)}) as calls:
        told = edge("purge", *args, path=path)
    assert asked(calls) == {"tag": ["a"], "soft": True}
    assert json.loads(told.stdout) == DONE


def test_the_socket_behind_the_kind_counts(path: Path) -> None:
    with standing_in(path, {"POST /v1/purge": replying(DONE)}):
        none = path.with_name("none")
        before = ["--socket", str(none), "tag", "a", "--socket", str(path)]
        assert edge("purge", *before, path=none).exit_code == 0
        assert edge("purge", "--socket", str(path), "tag", "a", path=none).exit_code == 0
        assert edge("purge", "tag", "a", path=path).exit_code == 0
        told = edge("purge", "tag", "a", path=none)
    assert told.exit_code == 3
    assert told.stderr.startswith(f"edge: {none}: no socket is there")


def test_a_shield_that_has_not_purged_is_named_and_it_is_no_success(path: Path) -> None:
    late = [
        {"url": "http://a:80", "why": "no answer within 5 s", "owed": True},
        {"url": "http://b:80", "why": "it answered 400", "owed": False},
    ]
    with standing_in(path, {"POST /v1/purge": replying({**DONE, "late": late})}):
        told = edge("purge", "tag", "a", path=path)
        safe = edge("purge", "tag", "a", "--json", path=path)
    assert (told.exit_code, safe.exit_code) == (1, 1)
    assert told.stdout.startswith("purge 17: 1 tag, ")
    assert json.loads(safe.stdout)["late"] == late
    assert told.stderr == safe.stderr
    assert told.stderr.splitlines() == [
        "edge: purged here, but 2 shields have not acknowledged it:",
        "  http://a:80: no answer within 5 s; it will be sent again until it is acknowledged",
        "  http://b:80: it answered 400; it will not be sent again",
    ]


def test_a_purge_may_be_for_this_node_alone(path: Path) -> None:
    with standing_in(path, {"POST /v1/purge": replying(DONE)}) as calls:
        assert edge("purge", "tag", "a", "--local", path=path).exit_code == 0
    assert asked(calls) == {"tag": ["a"], "local": True}


# Files.


def test_a_line_of_a_file_is_a_name_as_it_stands(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "tags.txt"
    file.write_bytes("\ufeff#sale\r\n\r\n  front \nü\n\tlast".encode())
    with standing_in(path, {"POST /v1/purge": replying(DONE)}) as calls:
        assert edge("purge", "tag", "first", "--file", str(file), path=path).exit_code == 0
        assert edge("purge", "--file", str(file), "tag", path=path).exit_code == 0
    assert json.loads(calls[0].body)["tag"] == ["first", "#sale", "front", "ü", "last"]
    assert json.loads(calls[1].body)["tag"] == ["#sale", "front", "ü", "last"]


def test_a_hundred_thousand_lines_are_one_order(path: Path) -> None:
    lines = b"".join(b"product-%d\n" % number for number in range(100_000))
    with standing_in(path, {"POST /v1/purge": replying({**DONE, "scopes": 100_000})}) as calls:
        told = process("purge", "tag", "--file", "-", path=path, given=lines)
    assert told.stdout.startswith(b"purge 17: 100000 tags, ")
    tags = asked(calls)["tag"]
    assert (len(tags), tags[0], tags[-1]) == (100_000, "product-0", "product-99999")


def test_a_fault_is_told_at_the_line_that_it_stands_on(path: Path) -> None:
    faults = [
        {"path": "tag[0]", "value": "a b", "message": "has a space"},
        {"path": "tag[2]", "value": "c\x07", "message": "has a control character"},
    ]
    members = {"faults": faults, "more": 10}
    refused = Refused(422, "not purged", "tag[0]: has a space; tag[2]: …", members)
    args = ["purge", "tag", "a b", "--file", "-"]
    with standing_in(path, {"POST /v1/purge": refusing(refused)}):
        told = edge(*args, path=path, given="\nb\nc\x07\n")
        safe = edge(*args, "--json", path=path, given="\nb\nc\x07\n")
    assert (safe.exit_code, json.loads(safe.stdout)["faults"]) == (1, faults)
    assert safe.stderr == told.stderr
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.splitlines() == [
        "edge: nothing was purged: 12 faults",
        '  tag[0]: "a b" has a space',
        '  -:3: "c?" has a control character',
        "  … and 10 more",
    ]


@pytest.mark.parametrize(
    ("given", "tells"),
    [
        (b"", "no tag was given; - has none; nothing was purged"),
        (b" \r\n\n", "no tag was given"),
        (b"a\nb\n\xff\n", "-:3: is not UTF-8 text"),
        (b"\xef\xbb\xbfa\n\xff\n", "-:2: is not UTF-8 text"),
        (b"x" * (BODY_BYTES + 1), "purge it in parts"),
    ],
)
def test_a_file_that_is_no_list_of_names_purges_nothing(
    path: Path, given: bytes, tells: str
) -> None:
    told = edge("purge", "tag", "--file", "-", path=path, given=given)
    assert told.exit_code == 2
    assert tells in " ".join(told.stderr.split())


def test_what_was_asked_for_wrongly_is_2_and_says_how(path: Path, tmp_path: Path) -> None:
    for args in (["tag"], ["all", "--file", "-"], ["everything"], [], ["all", "x"]):
        assert edge("purge", *args, path=path).exit_code == 2
    told = edge("purge", "tag", "--file", str(tmp_path / "none"), path=path)
    assert (told.exit_code, "No such file" in told.stderr) == (2, True)
    odd = subprocess.run(
        [sys.executable, "-m", "edge", "purge", "tag", b"\xff"], capture_output=True, timeout=30
    )
    assert (odd.returncode, b"is not UTF-8 text" in odd.stderr) == (2, True)


def test_a_purge_that_cannot_be_printed_is_done_all_the_same(path: Path) -> None:
    command = [sys.executable, "-m", "edge", "purge", "tag", "x", "--socket", str(path)]
    with standing_in(path, {"POST /v1/purge": replying(DONE)}), open("/dev/full", "wb") as full:
        told = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=30)
    assert told.returncode == 4
    assert told.stderr == (b"edge: purge 17 is done; standard output: No space left on device\n")


@pytest.mark.parametrize("answer", [{}, {"number": True}, {"number": "17"}, {"ok": 1}])
def test_an_answer_without_a_number_is_no_purge(path: Path, answer: dict[str, Any]) -> None:
    with standing_in(path, {"POST /v1/purge": replying(answer)}):
        told = edge("purge", "tag", "x", "--json", path=path)
    assert (told.exit_code, told.stdout) == (3, "")
    assert told.stderr == (
        f"edge: {path}: the answer tells no purge, so this is hardly a node's admin socket; "
        "whether it was done is not known, so ask again\n"
    )


# Everything.


def test_everything_is_not_purged_where_no_one_can_be_asked(path: Path) -> None:
    with standing_in(path, {"POST /v1/purge": replying(DONE)}) as calls:
        told = process("purge", "all", path=path, given=b"y\n")
        assert (told.returncode, b"say --yes" in told.stderr, calls) == (2, True, [])
        told = process("purge", "all", "--yes", path=path)
        assert (told.returncode, told.stdout[:22]) == (0, b"purge 17: everything, ")
    assert asked(calls) == {"all": True}


@pytest.mark.parametrize(("answer", "code", "purged"), [(b"y\n", 0, 1), (b"\n", 1, 0)])
def test_a_terminal_is_asked_before_everything_is_purged(
    path: Path, answer: bytes, code: int, purged: int
) -> None:
    with standing_in(path, {"POST /v1/purge": replying(DONE)}) as calls:
        ended, shown = on_terminal("purge", "all", "--socket", str(path), answer=answer)
    assert (ended, len(calls)) == (code, purged)
    assert b"Purge everything that this node has stored? [y/N]" in shown


def on_terminal(*args: str, answer: bytes = b"") -> tuple[int, bytes]:
    """A process on a terminal of its own: its exit code and what was shown."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edge", *args]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, answer)
    shown = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            shown += os.read(ours, 65_536)
        except OSError:  # the other side is closed
            break
    os.close(ours)
    return process.wait(30), shown


# Trying out.


def test_a_dry_run_counts_and_purges_nothing(path: Path) -> None:
    with standing_in(path, {"POST /v1/purge": streaming(*COUNTING)}) as calls:
        told = process("purge", "tag", "a", "--dry-run", path=path)
        assert json.loads(process("purge", "all", "--dry-run", "--json", path=path).stdout) == {
            "looked_at": 2, "of": 2, "matches": 1, "bytes": 2048, "done": True
        }  # fmt: skip
    assert (told.returncode, told.stderr) == (0, b"")
    assert told.stdout == b"1 of 2 stored objects match, 2.0 KiB; nothing was purged\n"
    assert json.loads(calls[0].body)["dry_run"] is True


def test_a_dry_run_tells_what_the_node_remarks(path: Path) -> None:
    last = (
        b'{"looked_at": 2, "of": 2, "matches": 0, "bytes": 0, "done": true, "notes": ["no site"]}'
    )
    with standing_in(path, {"POST /v1/purge": streaming(last)}):
        told = edge("purge", "tag", "a", "--dry-run", path=path)
    assert (told.exit_code, told.stderr) == (0, "note: no site\n")


def test_a_dry_run_shows_on_a_terminal_how_far_it_has_come(path: Path) -> None:
    with standing_in(path, {"POST /v1/purge": streaming(*COUNTING)}):
        code, shown = on_terminal("purge", "tag", "a", "--dry-run", "--socket", str(path))
    assert code == 0
    assert b"\rlooked at 1 of 2: 0 match\x1b[K\rlooked at 2 of 2: 1 match" in shown


def test_a_count_that_did_not_come_to_its_end_is_not_told_as_one(path: Path) -> None:
    with standing_in(path, {"POST /v1/purge": streaming(COUNTING[0])}):
        told = edge("purge", "tag", "a", "--dry-run", path=path)
    assert (told.exit_code, told.stdout) == (3, "")
    with standing_in(path, {"POST /v1/purge": streaming(*COUNTING, then=ValueError())}):
        told = edge("purge", "tag", "a", "--dry-run", path=path)
    assert (told.exit_code, told.stdout) == (3, "")


# A node that dies.


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"])
def test_a_node_that_dies_half_way_leaves_no_doubt_about_the_doubt(
    path: Path, answer: bytes
) -> None:
    with saying(path, answer, read=read_some):
        told = process("purge", "tag", "a", path=path)
    assert (told.returncode, told.stdout) == (3, b"")
    assert (
        told.stderr
        == (
            f"edge: {path}: the node ended before its answer was whole; "
            "whether it was done is not known, so ask again\n"
        ).encode()
    )
