"""The decision table that tools/diagram prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge.cache.reasons import Reason

DIAGRAM = Path(__file__).parents[3] / "tools" / "diagram"


@pytest.fixture(scope="module")
def printed() -> str:
    command = [sys.executable, "-bb", "-W", "error", str(DIAGRAM)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_it_prints_four_tables_with_even_rows(printed: str) -> None:
    tables = printed.split("### ")[1:]
    assert len(tables) == 4
    for text in tables:
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) == 1
        assert len(rows) > 3


def test_it_says_what_the_law_says(printed: str) -> None:
    assert "| max-age=60 | 0 s | Serve: hit |" in printed
    assert "Refuse 504: only-if-cached" in printed
    assert "Revalidate (behind): stale-while-revalidate" in printed
    assert "| max-age=60, Set-Cookie | 200 | Forward: set-cookie |" in printed
    assert "Fail: stale-forbidden" in printed


def test_every_reason_has_a_row(printed: str) -> None:
    reasons = printed.partition("### Reasons")[2]
    assert all(f"| {reason.slug} |" in reasons for reason in Reason)
