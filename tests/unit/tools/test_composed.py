"""Compose files as plain processes: only addresses and directories change."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tools.composed import ComposeError, main, parts, services, taken

if TYPE_CHECKING:
    from pathlib import Path

COMPOSE = """\
services:
  edge:
    command: [edge, run, /etc/edge/edge.toml]
    volumes: [./edge.toml:/etc/edge/edge.toml:ro, "store:/var/cache/edge", "geo:/geo:ro"]
    secrets: [{source: shield, uid: "1"}]
    depends_on:
      geo: {condition: service_completed_successfully}
      up: {condition: service_started}
  up:
    command: [tools/origin, --listen, "0.0.0.0:9000"]
  geo:
    command: [tools/geodata, sample, --out, /geo/city.mmdb]
    volumes: ["geo:/geo"]
"""
SETTINGS = """\
listen = ["0.0.0.0:8080"]
admin = "/run/edge/admin.sock"
dir = "/var/cache/edge"
other = "/var/cache/edge-not"
geo = "/geo/city.mmdb"
secret = { file = "/run/secrets/shield" }
servers = ["http://up:9000", "http://up:90001", "http://pup:9000"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "edge.toml").write_text(SETTINGS)
    written = tmp_path / "some.yaml"
    written.write_text(COMPOSE)
    return written


def test_what_others_need_starts_first(file: Path) -> None:
    assert list(services(file)) == ["geo", "up", "edge"]


def test_only_addresses_and_directories_change(file: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    geo, up, edge = parts(file, into, {"edge": 18_080, "up": 19_000})
    assert (geo.is_once, up.is_once, edge.is_once) == (True, False, False)
    assert geo.command[-1] == f"{into}/volumes/geo/city.mmdb"
    assert up.command == (sys.executable, "tools/origin", "--listen", "127.0.0.1:19000")
    assert (geo.address, up.address) == (None, "http://127.0.0.1:19000")
    assert edge.command[-2:] == ("run", f"{into}/edge/edge.toml")
    assert (into / "edge/edge.toml").read_text().splitlines() == [
        'listen = ["127.0.0.1:18080"]',
        f'admin = "{into}/edge/admin.sock"',
        f'dir = "{into}/volumes/store"',
        'other = "/var/cache/edge-not"',
        f'geo = "{into}/volumes/geo/city.mmdb"',
        f'secret = {{ file = "{into}/secrets/shield" }}',
        'servers = ["http://127.0.0.1:19000", "http://up:90001", "http://pup:9000"]',
    ]


def test_a_secret_is_made_once_and_for_its_user_alone(file: Path, tmp_path: Path) -> None:
    parts(file, tmp_path / "into", {})
    secret = tmp_path / "into/secrets/shield"
    before = secret.read_text()
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(before.strip()) == 64
    parts(file, tmp_path / "into", {})
    assert secret.read_text() == before


def test_ports_are_chosen_where_none_is_given(file: Path, tmp_path: Path) -> None:
    _, up, edge = parts(file, tmp_path / "into", {})
    assert up.address != edge.address
    assert f'"{up.address}"' in (tmp_path / "into/edge/edge.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[edge, run,", "[nginx, run,", "edge: nginx is not one of"),
        ("./edge.toml", "./none.toml", "none.toml, which is not there"),
        ("      up: {cond", "      down: {cond", "edge needs down, which is no service"),
        ("  up:\n    comm", "  up:\n    depends_on: {edge: {condition: x}}\n    comm", "needs"),
    ],
)
def test_what_cannot_be_done_is_told(
    file: Path, tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert old in COMPOSE
    file.write_text(COMPOSE.replace(old, new))
    with pytest.raises(ComposeError, match=words):
        parts(file, tmp_path / "into", {})


def test_a_port_in_use_is_told_with_who_wants_it(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert taken({"edge": port}) == [
            f"edge cannot listen on 127.0.0.1:{port}: Address already in use"
        ]
        with pytest.raises(SystemExit, match="Address already in use"):
            main([str(file), "--into", str(tmp_path / "into"), "--port", f"edge={port}"])
    assert taken({"a": 99_999}) == ["a cannot listen on port 99999: they are from 1 to 65535"]
    assert taken({"a": port, "b": port})[-1] == f"b and a cannot both have port {port}"
    assert capsys.readouterr().out == ""


def test_a_line_for_each_process_is_printed(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(file), "--into", str(tmp_path / "into")])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [["once", "geo"], ["run", "up"], ["run", "edge"]]
    assert lines[0][2] == "-"
    with pytest.raises(SystemExit, match="has no service shop; it has geo, up, edge"):
        main([str(file), "--into", str(tmp_path / "into"), "--port", "shop=1"])
