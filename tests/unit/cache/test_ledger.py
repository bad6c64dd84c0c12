"""The journal's byte form: what was written is read, and what was damaged is never overlooked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cache import ledger
from edge.cache.areas import AreaTables
from edge.cache.entry import Seq
from edge.cache.ledger import (
    END_BYTES,
    HEADER_BYTES,
    UNFINISHED,
    Header,
    LedgerDamaged,
    Opening,
    frame_at,
    frames,
    header_bytes,
    opening_bytes,
    purge_bytes,
    read_header,
    read_opening,
    read_purge,
    replay,
    wanted,
    without_digests,
)
from edge.cache.purge import Manner, Purge, Purges, Verdict

purges = st.builds(
    Purge,
    number=st.integers(1, 2**63).map(Seq),
    when=st.floats(0, 2e9),
    who=st.text(max_size=9),
    manner=st.sampled_from(Manner),
    everything=st.just(False),
    digests=st.binary(max_size=4).map(lambda some: some * 8),
    count=st.integers(0, 100_000),
    words=st.lists(st.text(max_size=9), max_size=3).map(tuple),
    area=st.sampled_from([b"", b"an area."]),
) | st.builds(
    Purge,
    number=st.integers(1, 2**63).map(Seq),
    when=st.floats(0, 2e9),
    who=st.text(max_size=9),
    manner=st.sampled_from(Manner),
    everything=st.just(True),
    digests=st.just(b""),
    count=st.just(0),
    words=st.just(()),
)


def purge_of(number: int, digests: bytes = b"8 bytes.", area: bytes = b"") -> Purge:
    manner = Manner.SOFT if number % 2 else Manner.HARD
    return Purge(Seq(number), 5.0, "uid 0", manner, False, digests, 1, (f"tag {number}",), area)


def file_of(*later: Purge, before: tuple[Purge, ...] = (), birth: str = "b" * 32) -> bytes:
    """A whole file: `before` in its opening, `later` behind it."""
    known = Purges()
    for purge in before:
        known.record(purge)
    opening = Opening(known.snapshot(), without_digests(before))
    pieces = [header_bytes(Header(birth, known.latest)), opening_bytes(opening)]
    return b"".join([*pieces, *map(purge_bytes, later), bytes(END_BYTES)])


def one_frame(record: bytes) -> memoryview:
    (frame,) = frames(memoryview(record + bytes(END_BYTES)), 0)
    assert frame.end == len(record) == wanted(record)
    return frame.payload


@given(purges)
def test_a_purge_that_was_written_is_read(purge: Purge) -> None:
    assert read_purge(one_frame(purge_bytes(purge))) == purge


@given(st.sampled_from(["", "b", "0123456789abcdef" * 2]), st.integers(0, 2**63))
def test_a_header_that_was_written_is_read(birth: str, reach: int) -> None:
    assert read_header(header_bytes(Header(birth, reach)) + b"more") == Header(birth, reach)


def test_an_opening_that_was_written_is_read() -> None:
    known = Purges(area_scopes=1)
    for number in (1, 2, 3, 5):
        known.record(purge_of(number))
    for number in (6, 7, 8, 9):
        known.record(purge_of(number, b"%8d" % number, b"an area."))
    assert known.snapshot().areas
    assert known.snapshot().area_floors != (b"", b"")
    opening = Opening(known.snapshot(), without_digests([purge_of(5)]))
    assert read_opening(one_frame(opening_bytes(opening))) == opening


def test_a_file_is_replayed_with_what_its_opening_stands_for() -> None:
    before, later = (purge_of(1), purge_of(2, b"othertag")), (purge_of(3), purge_of(7))
    found, known, through = file_of(*later, before=before), Purges(), Purges()
    told = replay(found + bytes(4096), known)
    for purge in before + later:
        through.record(purge)
    assert known.snapshot() == through.snapshot()
    assert (told.damage, told.end, told.header) == (
        None,
        len(found) - END_BYTES,
        Header("b" * 32, 2),
    )
    assert told.opened == len(file_of(before=before)) - END_BYTES
    assert [purge.number for purge in told.recent] == [1, 2, 3, 7]
    assert not any(purge.digests for purge in told.recent)


PURGES = tuple(
    purge_of(number, bytes([number]) * 8, b"an area." if number in (2, 4) else b"")
    for number in range(1, 6)
)
NO_COLUMNS = ((b"", b""), (b"", b""))
WHOLE = file_of(*PURGES[2:], before=PURGES[:2]) + bytes(16)


def is_safe(data: bytes) -> bool:
    """Whether what is made of `data` kills all that the purges in `WHOLE` do."""
    known = Purges()
    try:
        told = replay(data, known)
    except LedgerDamaged:
        return True  # then the store is emptied
    if told.header != Header("b" * 32, 2):
        return False
    if told.damage is None:
        return known.latest == 5 and len(known) == 5
    # The caller raises the floor further: what it has must reach at least as far as is known.
    return known.verdict(Seq(1), b"") is Verdict.DEAD and known.floor == known.latest


@pytest.mark.parametrize("size", range(len(WHOLE)))
def test_a_file_that_was_cut_is_whole_or_tells(size: int) -> None:
    assert is_safe(WHOLE[:size])


@settings(max_examples=200)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_byte_that_was_flipped_is_told(place: int, flip: int) -> None:
    data = bytearray(WHOLE)
    data[place] ^= flip
    known = Purges()
    try:
        assert replay(bytes(data), known).damage is not None
    except LedgerDamaged:
        assert place < HEADER_BYTES
    assert is_safe(bytes(data))


@given(st.binary(max_size=200))
def test_a_file_ends_where_an_unfinished_record_begins(rest: bytes) -> None:
    known = Purges()
    told = replay(WHOLE[: -16 - END_BYTES] + UNFINISHED + rest, known)
    assert (told.damage, told.is_unfinished, told.end) == (None, True, len(WHOLE) - 16 - END_BYTES)
    assert (known.latest, known.floor, len(known)) == (5, 0, 5)
    assert not replay(WHOLE, Purges()).is_unfinished


@given(st.binary(max_size=200), st.booleans())
def test_whatever_the_bytes_they_are_read_or_damaged(tail: bytes, has_head: bool) -> None:
    data = (WHOLE[:-24] if has_head else b"") + tail
    try:
        replay(data, Purges())
    except LedgerDamaged:
        assert not has_head
    for read in (read_purge, read_opening):
        with pytest.raises(LedgerDamaged):
            read(memoryview(tail))


@pytest.mark.parametrize("numbers", [(3, 3), (4, 3)])
def test_numbers_that_do_not_rise_are_damage(numbers: tuple[int, int]) -> None:
    known = Purges()
    told = replay(file_of(*map(purge_of, numbers)), known)
    assert told.damage == f"purge {numbers[1]} after purge {numbers[0]}"
    assert known.floor == known.latest == numbers[0]


def test_a_file_without_its_opening_is_damaged_and_reaches_as_far_as_its_header_says() -> None:
    known = Purges()
    told = replay(header_bytes(Header("b", 41)) + bytes(END_BYTES), known)
    assert (told.damage, known.floor) == ("no opening", 41)


def test_a_record_that_says_it_is_huge_is_not_waited_for() -> None:
    with pytest.raises(LedgerDamaged, match="a record of 4294967303 bytes at byte 0"):
        frame_at(memoryview(b"\xff" * 64), 0)


def test_a_record_that_is_not_all_there_is_none() -> None:
    record = purge_bytes(purge_of(1))
    assert all(frame_at(memoryview(record[:size]), 0) is None for size in range(len(record)))
    assert wanted(record[:7]) == 0
    assert wanted(record[:8]) == len(record)


def test_columns_that_do_not_match_are_no_tables() -> None:
    for columns in ((b"8 bytes.", b""), (b"7 bytes", b"7 bytes")):
        for tables in (
            replace(Purges().snapshot(), hard=columns),
            replace(Purges().snapshot(), area_floors=columns),
            replace(Purges().snapshot(), areas=(AreaTables(1, columns, *NO_COLUMNS),)),
        ):
            record = opening_bytes(Opening(tables, ()))
            with pytest.raises(LedgerDamaged, match="columns that do not match"):
                read_opening(one_frame(record))


def test_only_the_last_purges_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RECENT", 2)
    assert [one.number for one in replay(WHOLE, Purges()).recent] == [4, 5]
