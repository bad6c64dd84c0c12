"""Twin of edge/cache/ram.py; the model is a plain dict and a bound."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge.cache.ram import CHANCES, LARGEST_FRACTION, MOST_USES, OVERHEAD_BYTES, RamStore

if TYPE_CHECKING:
    from types import ModuleType

ROOM = 20  # how many values without a size fit
CAPACITY = ROOM * OVERHEAD_BYTES
LARGEST = CAPACITY // LARGEST_FRACTION - OVERHEAD_BYTES

keys = st.sampled_from([b"%d" % index for index in range(40)])
sizes = st.integers(0, LARGEST + 200)


class RamModel(RuleBasedStateMachine):
    """Nothing is lost but by eviction, replacement or removal, and the bound always holds."""

    def __init__(self) -> None:
        super().__init__()
        self.store: RamStore[object] = RamStore(CAPACITY)
        self.model: dict[bytes, tuple[object, int]] = {}
        self.evicted = self.refused = self.hits = self.misses = 0

    def gone(self, evicted: list[tuple[bytes, object]]) -> None:
        """Take what the store says it evicted out of the model."""
        for key, value in evicted:
            assert self.model.pop(key)[0] is value
        self.evicted += len(evicted)

    @rule(key=keys, size=sizes)
    def put(self, key: bytes, size: int) -> None:
        value = object()
        evicted = self.store.put(key, value, size)
        assert key not in dict(evicted)
        self.model.pop(key, None)
        self.gone(evicted)
        if self.store.admits(size):
            self.model[key] = (value, size)
        else:
            self.refused += 1

    @rule(key=keys, times=st.integers(1, 5))
    def get(self, key: bytes, times: int) -> None:
        held = self.model.get(key)
        for _ in range(times):
            assert self.store.get(key) is (held[0] if held else None)
        self.hits += times if held else 0
        self.misses += 0 if held else times

    @rule(key=keys)
    def remove(self, key: bytes) -> None:
        held = self.model.pop(key, None)
        assert self.store.remove(key) is (held[0] if held else None)
        assert key not in self.store

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.model.clear()

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        assert dict(self.store.items()) == {key: held[0] for key, held in self.model.items()}
        assert sorted(self.store.keys()) == sorted(self.model)
        assert len(self.store) == len(self.model)
        for key, held in self.model.items():
            assert key in self.store
            assert self.store.peek(key) is held[0]

    @invariant()
    def it_counts_and_keeps_its_bounds(self) -> None:
        told = self.store.statistics()
        assert told.held_bytes == sum(size + OVERHEAD_BYTES for _, size in self.model.values())
        assert told.held_bytes <= told.capacity_bytes == CAPACITY
        assert told.entries == len(self.model)
        assert told.ghosts <= ROOM
        assert (told.hits, told.misses) == (self.hits, self.misses)
        assert (told.evicted, told.refused) == (self.evicted, self.refused)


RamModel.TestCase.settings = settings(max_examples=60, stateful_step_count=60)
TestRamModel = RamModel.TestCase


def filled(count: int, prefix: bytes = b"") -> RamStore[bytes]:
    """A store with `count` values without a size, put in order."""
    store: RamStore[bytes] = RamStore(CAPACITY)
    for index in range(count):
        store.put(prefix + b"%d" % index, b"", 0)
    return store


def test_nothing_leaves_while_there_is_room() -> None:
    store = filled(ROOM)
    assert len(store) == ROOM
    assert [key for key, _ in store.put(b"one more", b"", 0)] == [b"0"]


def test_a_value_used_again_outlives_a_scan() -> None:
    store = filled(ROOM // 2)
    store.get(b"3")
    for index in range(50 * ROOM):
        store.put(b"scan%d" % index, b"", 0)
    assert b"3" in store
    assert b"4" not in store


def test_a_value_that_is_not_used_any_more_leaves_the_main_queue() -> None:
    store = filled(ROOM // 2)
    for _ in range(10):
        store.get(b"3")
    for round_ in range(10):
        for index in range(ROOM):
            store.put(b"%d-%d" % (round_, index), b"", 0)
            store.get(b"%d-%d" % (round_, index))
    assert b"3" not in store


def test_a_value_that_comes_back_soon_goes_to_the_main_queue() -> None:
    store = filled(ROOM + 1)  # b"0" is a ghost now
    store.put(b"0", b"again", 0)
    for index in range(50 * ROOM):
        store.put(b"scan%d" % index, b"", 0)
    assert store.get(b"0") == b"again"


def test_a_removed_value_is_no_ghost() -> None:
    store = filled(ROOM + 1)
    store.remove(b"0")
    assert store.statistics().ghosts == 0


def test_replacing_keeps_the_uses() -> None:
    store = filled(ROOM // 2)
    store.get(b"3")
    store.put(b"3", b"new head", 100)
    for index in range(50 * ROOM):
        store.put(b"scan%d" % index, b"", 0)
    assert store.get(b"3") == b"new head"


def test_a_value_above_an_eighth_of_the_memory_is_refused_and_its_old_one_is_gone() -> None:
    store = filled(3)
    assert store.admits(LARGEST)
    assert not store.admits(LARGEST + 1)
    assert store.put(b"1", b"too large", LARGEST + 1) == []
    assert store.get(b"1") is None
    assert store.statistics().refused == 1


def test_what_grows_beyond_an_eighth_of_the_memory_is_not_held() -> None:
    store = filled(3)
    assert store.put(b"1", b"larger", LARGEST + 1) == []
    assert b"1" not in store


def test_values_without_a_size_are_bounded_too() -> None:
    assert len(filled(10_000)) == ROOM


def test_looking_at_a_value_or_at_all_of_them_is_no_use_of_it() -> None:
    store = filled(ROOM)
    store.peek(b"0")
    list(store.items())
    assert [key for key, _ in store.put(b"one more", b"", 0)] == [b"0"]


def test_the_store_may_change_while_its_items_are_read() -> None:
    store = filled(5)
    for key, value in store.items():
        assert store.remove(key) == value
    assert len(store) == 0


def test_a_memory_full_of_popular_values_makes_room_in_bounded_steps() -> None:
    many = 1000
    store: RamStore[bytes] = RamStore(many * OVERHEAD_BYTES)
    for index in range(many):
        store.put(b"%d" % index, b"", 0)
        for _ in range(MOST_USES):
            store.get(b"%d" % index)
    evicted = store.put(b"one more", b"", 0)
    assert [key for key, _ in evicted] == [b"%d" % CHANCES]


@pytest.mark.parametrize("capacity", [0, 1, OVERHEAD_BYTES, CAPACITY])
def test_any_capacity_will_do(capacity: int) -> None:
    store: RamStore[bytes] = RamStore(capacity)
    for index in range(100):
        store.put(b"%d" % index, b"", index)
        assert store.statistics().held_bytes <= capacity


def load_simulate() -> ModuleType:
    """`tools/simulate` as a module; it has no suffix, being a command."""
    path = Path(__file__).parents[3] / "tools" / "simulate"
    loader = SourceFileLoader("simulate", str(path))
    spec = importlib.util.spec_from_loader("simulate", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulate"] = module  # its dataclasses look themselves up
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


@pytest.mark.parametrize(
    ("alpha", "wonders_and_scan", "margin"),
    [(0.8, False, 0.06), (1.0, False, 0.04), (0.8, True, 0.10), (1.0, True, 0.10)],
)
def test_its_hit_ratio_is_above_that_of_lru(
    alpha: float, wonders_and_scan: bool, margin: float
) -> None:
    simulate: Any = load_simulate()
    traffic = simulate.Traffic(alpha, wonders_and_scan, wonders_and_scan)
    ratios = simulate.compare(traffic, 0.1, 20_000, objects=3_000)
    assert ratios["ours"] >= ratios["LRU"] + margin
    assert ratios["ours"] >= ratios["FIFO"] + margin
