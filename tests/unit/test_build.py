"""The build says truly what it is; `tools/compiled` tells these tests which it should be."""

from __future__ import annotations

import os

from click.testing import CliRunner

from edge import __version__
from edge.__main__ import main
from edge.build import COMPILED, PURE, kind
from edge.serving import quick


def test_it_is_what_was_asked_for() -> None:
    assert kind() == os.environ.get("EDGE_BUILD", PURE)
    assert (kind() == PURE) == quick.__file__.endswith(".py")
    assert {kind(), COMPILED, PURE} == {COMPILED, PURE}


def test_the_version_says_which_it_is() -> None:
    said = CliRunner().invoke(main, ["--version"]).output
    assert said == f"edge {__version__} ({kind()})\n"
