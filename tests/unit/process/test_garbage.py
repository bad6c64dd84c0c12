"""The collector sees what is young, and what it has seen three times no more."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from edge.process.garbage import THRESHOLDS, collect_in_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator


class Node:
    """Something that can be part of a circle."""

    def __init__(self) -> None:
        self.itself: Node | None = None


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """As this process has it, given back afterwards."""
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    collect_in_pieces()
    yield
    gc.set_threshold(*thresholds)
    gc.callbacks[:] = callbacks
    gc.unfreeze()


def test_what_dies_young_in_a_circle_is_freed() -> None:
    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    others: list[list[object]] = [[] for _ in range(2 * THRESHOLDS[0])]
    assert gone() is None
    assert others


def test_what_has_grown_old_is_not_looked_at_again() -> None:
    kept: list[list[object]] = [[] for _ in range(50_000)]
    gc.collect()
    assert gc.get_freeze_count() >= len(kept)
    assert len(gc.get_objects()) < len(kept)


def test_it_is_kept_without_being_asked() -> None:
    before = gc.get_freeze_count()
    kept: list[list[object]] = [[] for _ in range(50 * THRESHOLDS[0] * THRESHOLDS[1])]
    assert gc.get_freeze_count() - before > len(kept) / 2


def test_what_is_kept_is_freed_by_its_count() -> None:
    node = Node()
    gone = weakref.ref(node)
    gc.collect()
    del node
    assert gone() is None


def test_it_is_told_once() -> None:
    before = list(gc.callbacks)
    collect_in_pieces()
    assert gc.callbacks == before
