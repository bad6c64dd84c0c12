"""The hand passes over what was used, once, and never for ever."""

from __future__ import annotations

from edge.cache.hand import CHANCES, USED_KEYS, Hand
from edge.cache.packing import PRIMARY_BYTES, Victim


def victims(count: int) -> list[Victim]:
    return [Victim(number, number.to_bytes(32, "big"), 100, None) for number in range(1, count)]


def test_what_was_used_is_passed_over_once() -> None:
    hand, rows = Hand(lambda digest: False), victims(4)
    hand.note_use(rows[0].key)
    assert hand.choose(rows, 100) == [rows[1]]
    assert hand.at == 2
    assert hand.choose(rows, 100) == [rows[0]]


def test_as_many_are_chosen_as_are_wanted() -> None:
    rows = victims(10)
    assert Hand(lambda digest: False).choose(rows, 250) == rows[:3]
    assert Hand(lambda digest: False).choose(rows, 10_000) == rows


def test_what_is_in_memory_is_passed_over_but_not_for_ever() -> None:
    asked: list[bytes] = []

    def hot(digest: bytes) -> bool:
        asked.append(digest)
        return True

    rows = victims(CHANCES + 3)
    assert Hand(hot).choose(rows, 100) == [rows[CHANCES]]
    assert {len(digest) for digest in asked} == {PRIMARY_BYTES}


def test_a_key_that_is_not_ours_goes_first() -> None:
    foreign = Victim(1, b"", 100, None)
    assert Hand(lambda digest: True).choose([foreign], 100) == [foreign]


def test_the_memory_for_what_was_used_is_bounded() -> None:
    hand = Hand(lambda digest: False)
    for number in range(USED_KEYS * 2):
        hand.note_use(number.to_bytes(32, "big"))
    assert hand.marks <= USED_KEYS + 1
    (last,) = [Victim(1, (USED_KEYS * 2 - 1).to_bytes(32, "big"), 100, None)]
    assert hand.choose([last], 100) == []
