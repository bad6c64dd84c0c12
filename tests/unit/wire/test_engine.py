"""The engine contract: both HTTP/1.1 engines fulfil it, as types and as objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge.errors import ExchangeError
from edge.wire.h1 import STREAM, ClientEngine, ServerEngine
from edge.wire.message import Chunk

if TYPE_CHECKING:
    from edge.wire.engine import Engine


@pytest.mark.parametrize("make", [ServerEngine, ClientEngine])
def test_an_untouched_engine_wants_input_and_has_nothing_to_say(make: type) -> None:
    engine: Engine = make()
    assert engine.readable()
    assert not engine.finished
    assert engine.outgoing() == []
    assert engine.window(STREAM) > 0
    assert list(engine.messages()) == []


@pytest.mark.parametrize("make", [ServerEngine, ClientEngine])
def test_a_message_out_of_turn_is_our_own_fault_and_ends_the_engine(make: type) -> None:
    engine: Engine = make()
    with pytest.raises(ExchangeError):
        engine.send(STREAM, Chunk(b"a body without a head"))
    assert engine.finished
    assert engine.outgoing() == []


def test_the_engines_are_engines_by_type() -> None:
    engines: list[Engine] = [ServerEngine(), ClientEngine()]
    assert len(engines) == 2
