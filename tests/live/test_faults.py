"""The fault table, each row in its quick form, as `tools/faults` shows it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

TOOL = Path(__file__).parents[2] / "tools" / "faults"
SHORT = ["worker", "full", "rot", "planted", "crowd", "hostile"]
LONG = [
    "kill",
    "power",
    "index",
    "origin",
    "clock",
    "descriptors",
    "readers",
    "writers",
    "reload",
    "nearest",
    "shield",
]


def played(row: str) -> dict[str, object]:
    command = [sys.executable, str(TOOL), "--quick", "--json", "--row", row]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.stdout, done.stderr[-3000:]
    told: dict[str, object] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize(
    "row", [*SHORT, *(pytest.param(row, marks=pytest.mark.slow) for row in LONG)]
)
def test_a_fault_makes_nothing_wrong_and_its_demands_are_met(row: str) -> None:
    told = played(row)
    if told["skipped"]:
        pytest.skip(str(told["skipped"]))
    assert told["wrong"] == 0
    demands = told["demands"]
    assert isinstance(demands, list)
    assert [each["demand"] for each in demands if not each["met"]] == []


def test_every_row_is_played_here() -> None:
    listed = subprocess.run(
        [sys.executable, str(TOOL), "--list"], capture_output=True, text=True, check=True
    )
    assert sorted(listed.stdout.split()) == sorted([*SHORT, *LONG])
