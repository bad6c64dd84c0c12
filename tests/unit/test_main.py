from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from edge.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
[node]
listen = ["127.0.0.1:0"]
[origin.a]
servers = ["http://127.0.0.1:1"]
[[site]]
hosts = ["*"]
route = { first = ["a"] }
"""


def edge(*args: str) -> Result:
    return CliRunner().invoke(main, args)


@pytest.mark.parametrize(
    "command", ["run", "check", "proxy", "status", "settings", "purge", "purges", "ls"]
)
def test_every_command_tells_how_it_is_used(command: str) -> None:
    told = edge(command, "--help")
    assert told.exit_code == 0
    assert f"edge {command}" in told.output


def test_a_good_file_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(GOOD)
    assert edge("check", str(tmp_path / "edge.toml")).exit_code == 0


def test_every_fault_of_a_bad_file_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(GOOD.replace("first", "frist") + 'cache = { ttl = "5 mins" }\n')
    told = edge("check", str(path))
    assert told.exit_code == 1
    assert f'{path}:8: sites[0].route.frist: unknown setting; did you mean "first"?' in told.stderr
    assert f'{path}:9: sites[0].cache.ttl: "5 mins" is not a duration; try "5m"' in told.stderr


@pytest.mark.parametrize("data", [b"a = 1\nb = '\xff'", b"x" * (1 << 25), b"\x00", b"a = "])
def test_a_file_that_is_no_settings_is_told_so(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "edge.toml").write_bytes(data)
    told = edge("check", str(tmp_path / "edge.toml"))
    assert (told.exit_code, told.stdout) == (1, "")
    assert str(tmp_path) in told.stderr
    assert edge("run", str(tmp_path / "none.toml")).exit_code == 1


@pytest.mark.parametrize(
    ("args", "tells"),
    [
        (["--workers", "0"], 'node.workers: 0 is no number of workers; write "auto", or 1 to 256'),
        (["--set", "cache.max_stale"], "is not KEY=VALUE"),
        (["--set", "cache.max_stail=1h"], 'did you mean "max_stale"?'),
        (["--memory", "1GB"], 'store.memory: "1GB" is not a size; try "1GiB"'),
    ],
)
def test_a_proxy_asked_for_wrongly_says_what_to_write(args: list[str], tells: str) -> None:
    told = edge("proxy", "--listen", "127.0.0.1:0", "--to", "http://127.0.0.1:1", *args)
    assert told.exit_code in (1, 2)
    assert tells in told.stderr


def test_the_settings_are_told_for_people_and_for_documents() -> None:
    assert "cache.max_stale" in edge("settings").output
    assert "| `cache.max_stale` |" in edge("settings", "--markdown").output


def test_a_node_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    told = edge("status", "--socket", str(tmp_path / "none.sock"))
    assert told.exit_code == 3
    assert "is the node running" in told.stderr


def test_the_command_starts_without_what_it_does_not_need() -> None:
    unneeded = "{'trio', 'h11', 'http.client'}"
    code = f"import sys, edge.__main__, edge.config; print({unneeded} & {{*sys.modules}})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
