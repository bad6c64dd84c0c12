from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from edge.config import load_config
from edge.launch import SETTINGS_BYTES, by_path, checked_sets, loaded

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
