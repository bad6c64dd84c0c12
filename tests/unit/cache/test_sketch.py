"""The sketch: what was put in is always held; what was not, seldom."""

from __future__ import annotations

import os
from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st

from edge.cache.sketch import LEAST_ROOM, MOST_ROOM, Sketch

DIGESTS = st.binary(min_size=16, max_size=16)


def digest(number: int) -> bytes:
    return blake2b(b"%d" % number, digest_size=16).digest()


@given(st.sets(DIGESTS), st.sets(DIGESTS))
def test_what_was_put_in_is_held_and_so_after_merging(
    some: set[bytes], others: set[bytes]
) -> None:
    first, second = Sketch(0), Sketch(0)
    for each in some:
        first.add(each)
    for each in others:
        second.add(each)
    assert all(each in first for each in some)
    first.merge(second)
    assert all(each in first for each in some | others)
    assert first.added <= len(some) + len(others)


def test_a_full_sketch_takes_few_for_what_it_holds() -> None:
    sketch = Sketch(LEAST_ROOM)
    for number in range(LEAST_ROOM):
        sketch.add(digest(number))
    assert not sketch.is_full
    mistaken = sum(digest(LEAST_ROOM + number) in sketch for number in range(20_000))
    assert mistaken < 20_000 / 80


def test_what_is_put_in_twice_takes_up_no_more_room() -> None:
    sketch = Sketch(LEAST_ROOM)
    for number in range(100):
        sketch.add(digest(number % 10))
    assert sketch.added == 10


def test_a_sketch_is_full_when_more_were_put_in_than_it_has_room_for() -> None:
    sketch = Sketch(0)
    assert sketch.room == LEAST_ROOM
    for _ in range(LEAST_ROOM + 2_000):
        sketch.add(os.urandom(16))
    assert sketch.is_full


def test_room_is_bounded() -> None:
    assert 4 * MOST_ROOM > 2**30
    assert MOST_ROOM * 10 <= 2**32
