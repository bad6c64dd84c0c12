from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from edge.command.launch import SETTINGS_BYTES, by_path, check_file, checked_sets, loaded
from edge.config import load_config
from edge.node import EDGE

if TYPE_CHECKING:
    from pathlib import Path

    from edge.config import Config

GOOD = """
[node]
listen = ["127.0.0.1:0"]
[origin.a]
servers = ["http://127.0.0.1:1"]
[[site]]
hosts = ["*"]
route = { first = ["a"] }
"""


def load(text: str) -> Config:
    return load_config(text, hostname="h")


def faults_in(path: Path) -> str:
    @click.command()
    def command() -> None:
        loaded(path, load)

    told = CliRunner().invoke(command, [])
    assert told.exit_code == 1
    return told.stderr


def test_a_file_is_read_with_its_text(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(GOOD)
    text, config = loaded(path, load)
    assert text == GOOD.encode()
    assert list(config.origins) == ["a"]


def test_every_fault_of_a_file_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    assert faults_in(path) == f"{path}: No such file or directory\n"
    path.write_bytes(b"# fine\n\xff")
    assert faults_in(path) == f"{path}:2: is not UTF-8 text\n"
    with path.open("wb") as file:
        file.truncate(SETTINGS_BYTES + 1)
    assert "is too large for settings" in faults_in(path)


def test_options_stand_for_settings() -> None:
    names = ("store", "memory", "disk", "admin", "workers", "access_log")
    nothing: dict[str, str | None] = dict.fromkeys(names)
    assert by_path(nothing | {"store": "/s"})["store.dir"] == "/s"
    assert by_path(nothing | {"workers": "3"})["node.workers"] == 3
    assert by_path(nothing | {"workers": "many"})["node.workers"] == "many"  # told as a fault


def test_what_is_set_is_a_key_and_a_value() -> None:
    checked_sets(("cache.ttl=5s",))
    with pytest.raises(click.BadParameter, match="is not KEY=VALUE"):
        checked_sets(("cache.ttl",))


def checked(path: Path) -> Result:
    @click.command()
    def command() -> None:
        check_file(path, load, lambda: EDGE)

    return CliRunner().invoke(command, [])


def test_what_settings_point_at_is_checked_with_them(tmp_path: Path) -> None:
    path, secret = tmp_path / "node.toml", tmp_path / "secret"
    path.write_text(GOOD)
    good = checked(path)
    assert (good.exit_code, good.stdout) == (0, f"{path}: good; sites: 1, origins: 1\n")
    shield = f'[shield]\nnodes = ["http://a"]\nsecret = {{ file = "{secret}" }}\n'
    for lines, told in (
        (shield, f"shield.secret.file: {secret}: No such file or directory"),
        (f'[node]\ngeo = "{tmp_path}/none.mmdb"\n', f"{tmp_path}/none.mmdb is not there; "),
        (f'[origin.b]\nservers = ["https://b"]\nca = "{tmp_path}/none.pem"\n', "none.pem"),
    ):
        text = GOOD.replace("[node]\n", lines) if lines.startswith("[node]") else GOOD + lines
        path.write_text(text)
        bad = checked(path)
        assert (bad.exit_code, bad.stdout) == (1, "")
        assert bad.stderr.startswith(f"{path}: ")
        assert told in bad.stderr
    path.write_text(GOOD + shield)
    secret.write_text("0123456789abcdef")
    secret.chmod(0o600)
    assert checked(path).exit_code == 0


def test_to_check_settings_touches_nothing(tmp_path: Path) -> None:
    """Whoever checks what a node runs by must not take its addresses, or write to its logs."""
    path = tmp_path / "node.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        lines = f'metrics = "{address}"\nadmin = "{tmp_path}/a.sock"\nerror_log = "{tmp_path}/e"'
        path.write_text(GOOD.replace('["127.0.0.1:0"]', f'["127.0.0.1:0"]\n{lines}'))
        told = checked(path)
        assert (told.exit_code, told.stderr) == (0, "")
    assert [each.name for each in tmp_path.iterdir()] == ["node.toml"]
