"""The README says what is so: its tables are made from the schema and from the tests' own data."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


def test_the_tables_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/readme", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_file_that_it_names_is_there() -> None:
    named = re.findall(r"`((?:tools|tests|edge|\.github)/[\w./-]+)", README)
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing


def test_the_settings_file_that_it_shows_is_good() -> None:
    from edge.config import load_config

    (shown,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    assert tomllib.loads(shown)
    assert load_config(shown, hostname="host").node.name == "fra1"
