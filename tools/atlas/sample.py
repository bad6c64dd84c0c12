"""The sample database: made-up regions for the demonstration, tests and measurements."""

from __future__ import annotations

import time
from contextlib import ExitStack
from importlib import resources
from typing import TYPE_CHECKING

from tools.atlas.sources import read
from tools.atlas.tree import build

if TYPE_CHECKING:
    from pathlib import Path

NOTICE = "Made-up regions for demonstrations and tests; no address is where this says it is"


def make(out: Path, *, built: float | None = None) -> None:
    """Write the database of `geo_data/sample.csv` to `out`, in some milliseconds.

    `built` is Unix seconds, now if left out.
    """
    with ExitStack() as stack:
        source = resources.as_file(resources.files("geo_data") / "sample.csv")
        table = read([stack.enter_context(source)])
    build(table, out, built=time.time() if built is None else built, notice=NOTICE)
