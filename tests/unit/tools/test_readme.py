"""The README says what is so: its tables are made from the schema and from the tests' own data."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


def test_the_tables_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/readme", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_file_that_it_names_is_there() -> None:
    named = re.findall(r"`((?:tools|tests|edge|compose|geo_data|\.github)/[\w./-]+)", README)
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing


SHOWN = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)


def test_the_settings_file_that_it_shows_is_good() -> None:
    from edge.config import load_config

    assert load_config(SHOWN[0], hostname="host").node.name == "fra1"


def test_what_it_shows_of_a_shield_is_good() -> None:
    from origin_shield.config import load_shield

    (shown,) = [text for text in SHOWN if "[edges]" in text]
    assert load_shield(shown, hostname="host").edges.secret is not None


def test_what_it_shows_of_origins_routes_shields_and_experiments_is_good_together() -> None:
    from edge.config import load_config

    config = load_config("".join(t for t in SHOWN[1:] if "[edges]" not in t), hostname="host")
    assert config.shield is not None
    site, compressed = config.sites
    assert len(site.rules) == 5
    assert compressed.compress is not None
    assert [each.name for each in site.experiments] == ["checkout-2026"]
