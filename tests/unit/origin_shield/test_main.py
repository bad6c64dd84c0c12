from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from origin_shield.__main__ import main
from tests.unit.origin_shield.test_config import GOOD

if TYPE_CHECKING:
    from pathlib import Path

PROXY = ("proxy", "--listen", "127.0.0.1:0", "--to", "http://127.0.0.1:1")


def shield(*args: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, args)


@pytest.mark.parametrize(
    "command",
    ["run", "check", "proxy", "status", "settings", "purge", "purges", "ls", "drain", "reload"],
)
def test_every_command_tells_how_it_is_used(command: str) -> None:
    told = shield(command, "--help")
    assert told.exit_code == 0
    assert f"origin-shield {command}" in told.output
    assert "/run/edge/" not in told.output
    assert " EDGE_SOCKET" not in told.output


def test_a_good_file_is_told_so_and_a_bad_one_with_its_faults(tmp_path: Path) -> None:
    file = tmp_path / "shield.toml"
    file.write_text(GOOD)
    good = shield("check", str(file), SECRET="0123456789abcdef")
    assert good.output == f"{file}: good; sites: 1, origins: 1\n"
    secretless = shield("check", str(file))
    assert secretless.exit_code == 1
    assert secretless.stderr == (
        f"{file}: edges.secret.env: there is no variable SECRET in the environment\n"
    )
    file.write_text(GOOD.replace("secret = { env", "secret = { nv"))
    told = shield("check", str(file))
    assert told.exit_code == 1
    assert f"{file}:10: edges.secret.nv: unknown setting" in told.stderr


def test_experiments_are_an_edges() -> None:
    told = shield("ab", "list")
    assert told.exit_code == 2
    assert "No such command" in told.stderr
    assert "\n  origin " in shield("--help").output  # what it has are origins


def test_a_shield_without_a_secret_is_wrong_usage() -> None:
    assert shield(*PROXY).exit_code == 2
    assert "--secret-env NAME or --secret-file" in shield(*PROXY).stderr
    both = ("--secret-env", "A", "--secret-file", "/b")
    assert shield(*PROXY, *both).exit_code == 2


def test_a_secret_that_is_nowhere_ends_the_start(tmp_path: Path) -> None:
    told = ("--secret-env", "NOT_THERE", "--store", str(tmp_path))
    args = [sys.executable, "-m", "origin_shield", *PROXY, *told]
    ended = subprocess.run(args, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("origin-shield: edges.secret.env: there is no variable NOT_")


def test_the_settings_are_a_shields() -> None:
    told = shield("settings").output
    assert 'cache.max_stale = "3d"' in told
    assert "edges.secret.env" in told
    assert "trusted_proxies" not in told


def test_a_node_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    told = shield("status", "--socket", str(tmp_path / "none.sock"))
    assert told.exit_code == 3
    assert told.stderr.startswith("origin-shield: ")


def test_the_command_starts_without_what_it_does_not_need() -> None:
    unneeded = "{'trio', 'h11', 'edge.node', 'edge.__main__'}"
    names = "origin_shield.__main__, origin_shield.config"
    code = f"import sys, {names}; print({unneeded} & {{*sys.modules}})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
