"""The engine contract: both HTTP/1.1 engines fulfil it, as types and as objects."""

from __future__ import annotations

import pytest

from edge.errors import ExchangeError
from edge.wire.client import ClientEngine
from edge.wire.engine import Engine
from edge.wire.h1 import STREAM, ServerEngine
from edge.wire.message import Chunk


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


@pytest.mark.parametrize("make", [ServerEngine, ClientEngine])
def test_an_engine_has_all_that_the_contract_names(make: type) -> None:
    contract = {name for name in vars(Engine) if not name.startswith("_")}
    assert contract >= {"receive", "messages", "send", "outgoing"}
    assert contract <= set(dir(make))


ENGINES: list[Engine] = [ServerEngine(), ClientEngine()]  # by type: for mypy to judge
