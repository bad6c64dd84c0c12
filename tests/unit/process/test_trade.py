from __future__ import annotations

import pytest

from edge.config import for_proxy
from edge.node import EDGE
from edge.process.trade import Trade
from edge.surroundings.behind import Behind


def test_a_trade_tells_nothing_of_itself_unless_it_says_so() -> None:
    config = for_proxy(["127.0.0.1:0"], "http://127.0.0.1:1", hostname="h")
    parts = EDGE.parts(config, Behind(lambda: 0.0, lambda: 0.0), b"")
    assert Trade(program="x", parts=EDGE.parts).state(parts) == {}


def test_a_trade_is_the_same_for_all_processes() -> None:
    with pytest.raises(AttributeError):
        EDGE.program = "another"  # type: ignore[misc]
