"""Twin of edge/cache/window.py; the model is the bytes themselves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.cache.window import FillMemory, Window, part_of, pieces_of

pieces = st.lists(st.binary(min_size=1, max_size=20), max_size=12)


def window_of(parts: list[bytes], join_bytes: int = 8) -> tuple[Window, FillMemory]:
    """A window that was given `parts`, and the memory it counts in."""
    memory = FillMemory()
    window = Window(memory, join_bytes)
    for part in parts:
        window.append(part)
    return window, memory


@given(pieces, st.integers(0, 30), st.data())
def test_a_window_is_the_end_of_what_was_put_in(
    parts: list[bytes], join_bytes: int, draw: st.DataObject
) -> None:
    window, memory = window_of(parts, join_bytes)
    whole = b"".join(parts)
    asked = draw.draw(st.integers(0, len(whole) + 5))
    window.drop_to(asked)
    assert window.start <= min(asked, len(whole))
    assert window.stop == len(whole)
    assert window.held == memory.used_bytes == len(whole) - window.start
    assert window.joined() == whole[window.start :]
    for offset in range(window.start, len(whole)):
        most = draw.draw(st.integers(1, 25))
        got = window.read(offset, most)
        assert 1 <= len(got) <= most
        assert whole.startswith(bytes(got), offset)
        assert offset < window.stop_of(offset) <= len(whole)


@given(pieces)
def test_dropping_to_where_a_piece_stops_drops_the_piece(parts: list[bytes]) -> None:
    window, _ = window_of(parts)
    while window.held:
        stop = window.stop_of(window.start)
        window.drop_to(stop - 1)
        assert window.start < stop
        window.drop_to(stop)
        assert window.start == stop


@given(pieces.filter(bool), st.integers(1, 60), st.booleans())
def test_the_oldest_pieces_are_one_or_as_many_as_are_within_the_bound(
    parts: list[bytes], most: int, leave_last: bool
) -> None:
    window, _ = window_of(parts, join_bytes=0)
    oldest = window.oldest(most, leave_last=leave_last)
    assert b"".join(parts).startswith(oldest)
    assert oldest == parts[0] or len(oldest) <= most
    if leave_last and len(parts) > 1:
        assert len(oldest) < window.held
    if not leave_last and window.held <= most:
        assert len(oldest) == window.held


def test_small_neighbours_are_joined_and_a_view_of_the_old_one_stays_as_it_was() -> None:
    window, _ = window_of([b"abc"])
    view = window.read(1, 2)
    window.append(b"def")
    assert view == b"bc"
    assert window.read(0, 10) == b"abcdef"


def test_a_large_piece_is_handed_out_as_it_is() -> None:
    piece = bytes(100)
    window, _ = window_of([b"small", piece])
    assert window.read(5, 100) is piece
    assert isinstance(window.read(6, 10), memoryview)


def test_windows_that_share_a_memory_learn_when_it_is_used_up() -> None:
    memory = FillMemory(limit_bytes=10)
    one, other = Window(memory, 0), Window(memory, 0)
    one.append(bytes(9))
    told = [memory.is_tight]
    other.append(b"!")
    told.append(memory.is_tight)
    one.drop_to(9)
    assert [*told, memory.is_tight] == [False, True, False]
    assert memory.used_bytes == 1


@given(st.binary(max_size=100), st.integers(1, 30))
def test_pieces_joined_are_the_data_and_none_is_empty_or_too_long(data: bytes, most: int) -> None:
    parts = list(pieces_of(memoryview(data), most))
    assert b"".join(parts) == data
    assert all(0 < len(part) <= most for part in parts)


def test_data_within_the_bound_are_one_piece_and_no_data_are_none() -> None:
    assert list(pieces_of(b"abc", 3)) == [b"abc"]
    assert list(pieces_of(b"abcde", 2)) == [b"ab", b"cd", b"e"]
    assert list(pieces_of(b"", 3)) == []


@given(st.binary(max_size=30), st.integers(0, 40), st.integers(1, 40))
def test_a_part_is_the_slice(data: bytes, start: int, most: int) -> None:
    assert part_of(data, start, most) == data[start : start + most]
