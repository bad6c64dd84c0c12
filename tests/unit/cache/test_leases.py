"""Leases: no copy outlives what it is a copy of."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule

from edge.cache import leases
from edge.cache.leases import CELLS, Leases

A, B = b"\x00\x01" + bytes(14), b"\x00\x01" + bytes(13) + b"x"  # of one cell
C = b"\xff\xff" + bytes(14)  # of the last
KEYS = st.sampled_from((A, B, C))


def seen_anew(table: Leases) -> Leases:
    """The same table as a worker sees it that begins, and knows of nothing handed out."""
    view = Leases()
    view._cells = table._cells
    return view


def test_a_lease_is_current_until_it_is_ended() -> None:
    table = Leases()
    lease = table.lend(A)
    assert table.current(A) == lease
    table.end(A)
    assert table.current(A) != lease


def test_what_was_not_lent_is_not_ended() -> None:
    table = Leases()
    table.end(A)  # of another worker's time, perhaps
    number = table.current(A)
    table.end(A)
    table.end(B)
    assert table.current(A) == number


def test_a_worker_that_begins_takes_all_for_lent() -> None:
    table = Leases()
    lease = table.lend(C)
    table.end(C)
    lease = table.lend(C)
    successor = seen_anew(table)
    successor.end(C)
    assert table.current(C) != lease


def test_all_processes_see_one_table() -> None:
    table = Leases()
    lease = table.lend(A)
    child = os.fork()
    if not child:
        table.end(A)
        os._exit(0)
    os.waitpid(child, 0)
    assert table.current(A) != lease


def test_numbers_go_round_at_their_end() -> None:
    table = Leases()
    table._cells[0] = leases._LAST
    table.end(bytes(16))
    assert table.current(bytes(16)) == 0


@given(digests=st.lists(st.binary(min_size=16, max_size=16)))
@settings(max_examples=30)
def test_only_the_cell_of_a_key_is_changed(digests: list[bytes]) -> None:
    table = Leases()
    for digest in digests:
        table.end(digest)
    changed = {int.from_bytes(digest[:2], "big") for digest in digests}
    assert {cell for cell in range(CELLS) if table._cells[cell]} == changed


@dataclass(frozen=True)
class Copy:
    """On its way, or put down."""

    key: bytes
    version: int
    lease: int


class Copies(RuleBasedStateMachine):
    """An owner that changes what it stores, workers that ask it, and copies that travel slowly.

    The owner's two steps, reading the cell and reading its store, may have changes between them;
    so may a copy's way, and the time for which it lies where it was put down.
    """

    looks = Bundle("looks")
    travelling = Bundle("travelling")

    def __init__(self) -> None:
        super().__init__()
        self.table = Leases()
        self.stored = dict.fromkeys((A, B, C), 0)
        self.put_down: dict[bytes, Copy] = {}

    @rule(key=KEYS, target=looks)
    def begin_to_look(self, key: bytes) -> tuple[bytes, int]:
        return key, self.table.lend(key)

    @rule(look=consumes(looks), target=travelling)
    def find(self, look: tuple[bytes, int]) -> Copy:
        key, lease = look
        return Copy(key, self.stored[key], lease)

    @rule(copy=consumes(travelling))
    def put(self, copy: Copy) -> None:
        self.put_down[copy.key] = copy

    @rule(key=KEYS)
    def change(self, key: bytes) -> None:
        self.table.end(key)
        self.stored[key] += 1

    @rule()
    def be_replaced(self) -> None:
        self.table = seen_anew(self.table)

    @rule(key=KEYS)
    def answer(self, key: bytes) -> None:
        copy = self.put_down.get(key)
        if copy is not None and copy.lease == self.table.current(key):
            assert copy.version == self.stored[key]


TestCopies = Copies.TestCase
TestCopies.settings = settings(max_examples=200, stateful_step_count=30)
