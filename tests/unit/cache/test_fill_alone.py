"""Fills without a spool: reading along, ends, leaving, and windows. See also test_fill.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from edge.cache.body import Spool, SpoolFull
from edge.cache.fill import Fill, FillMemory
from edge.errors import ExchangeError, Failure
from tests.unit.cache.filling import GONE, MOST, body_of, pair_of, rest_of

if TYPE_CHECKING:
    from collections.abc import Callable


def no_room() -> Spool:
    """What a fill gets below the disk's free-space floor."""
    raise SpoolFull


# Reading while it is written.


async def test_a_reader_gets_what_was_written_before_and_after_it_came() -> None:
    fill = Fill(None, shared=True)
    await fill.write(b"hello ")
    reader = fill.reader()
    assert reader.read_nowait(0, MOST) == b"hello "
    assert reader.read_nowait(6, MOST) is None
    await fill.write(b"world")
    fill.finish()
    assert await rest_of(reader) == b"hello world"
    assert reader.read_nowait(11, MOST) == b""


async def test_a_read_gives_no_more_than_was_asked_for() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    await fill.write(b"0123456789")
    assert await reader.read(2, 3) == b"234"


async def test_a_reader_that_keeps_up_gets_the_very_object_that_was_written() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    piece = body_of(16_384)
    await fill.write(piece)
    assert await reader.read(0, MOST) is piece


async def test_a_view_is_copied_so_that_its_buffer_may_be_used_again() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    buffer = bytearray(b"first")
    await fill.write(memoryview(buffer))
    buffer[:] = b"again"
    assert await reader.read(0, MOST) == b"first"


async def test_an_empty_write_shows_nothing_and_ends_nothing() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    await fill.write(b"")
    assert reader.read_nowait(0, MOST) is None
    fill.finish()
    assert await reader.read(0, MOST) == b""


async def test_a_reader_may_wait_for_an_offset_that_is_far_ahead() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    got: list[bytes] = []

    async def wait_ahead() -> None:
        got.append(bytes(await reader.read(5, MOST)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_ahead)
        await wait_all_tasks_blocked()
        await fill.write(b"0123")
        await wait_all_tasks_blocked()
        assert got == []
        await fill.write(b"456")
    assert got == [b"56"]


async def test_the_length_is_the_announced_one_until_the_end_tells() -> None:
    assert Fill(None, shared=True, expected=3).reader().length == 3
    fill, reader = pair_of(Fill(None, shared=True))
    assert reader.length is None
    await fill.write(b"abcd")
    fill.finish()
    assert reader.length == fill.length == 4


async def test_a_writer_that_never_waits_still_lets_others_run() -> None:
    fill = Fill(None, shared=True, memory_bytes=1 << 22)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(32):
            await fill.write(bytes(64 * 1024))
        nursery.cancel_scope.cancel()
    assert turns >= 30


# Ends.


async def test_readers_of_a_failed_fill_get_what_came_and_then_the_error() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    await fill.write(b"half")
    fill.fail(GONE)
    assert await reader.read(0, MOST) == b"half"
    with pytest.raises(ExchangeError) as caught:
        await reader.read(4, MOST)
    assert caught.value.failure is Failure.CLOSED_EARLY
    assert caught.value.__cause__ is GONE
    with pytest.raises(ExchangeError):
        reader.read_nowait(4, MOST)
    assert fill.failed
    assert not fill.storable
    assert not fill.joinable


async def test_a_failure_wakes_the_readers_that_wait() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    async with trio.open_nursery() as nursery:

        async def wait_for_error() -> None:
            with pytest.raises(ExchangeError):
                await reader.read(0, MOST)

        nursery.start_soon(wait_for_error)
        await wait_all_tasks_blocked()
        fill.fail(GONE)


async def test_no_one_writes_to_or_joins_a_failed_fill() -> None:
    fill = Fill(None, shared=True)
    fill.fail(GONE)
    with pytest.raises(ExchangeError):
        await fill.write(b"more")
    with pytest.raises(ExchangeError):
        fill.reader()


async def test_the_first_end_counts() -> None:
    whole = Fill(None, shared=True)
    whole.finish()
    whole.fail(GONE)
    assert whole.finished
    assert not whole.failed
    broken = Fill(None, shared=True)
    broken.fail(GONE)
    broken.finish()
    broken.fail(ExchangeError(Failure.INTERNAL))
    assert not broken.finished
    assert broken.error is GONE


async def test_writing_after_the_end_is_a_mistake() -> None:
    fill = Fill(None, shared=True)
    fill.finish()
    with pytest.raises(trio.ClosedResourceError):
        await fill.write(b"x")


async def test_a_body_shorter_than_announced_is_never_whole() -> None:
    fill, reader = pair_of(Fill(None, shared=True, expected=5))
    await fill.write(b"four")
    fill.finish()
    assert not fill.finished
    assert fill.whole() is None
    with pytest.raises(ExchangeError) as caught:
        await rest_of(reader)
    assert caught.value.failure is Failure.BODY_TRUNCATED


async def test_a_body_longer_than_announced_shows_none_of_the_surplus() -> None:
    fill, reader = pair_of(Fill(None, shared=True, expected=4))
    await fill.write(b"four")
    with pytest.raises(ExchangeError) as caught:
        await fill.write(b"!")
    assert caught.value.failure is Failure.BAD_RESPONSE
    assert await reader.read(0, MOST) == b"four"
    assert fill.size == 4


async def test_a_fill_that_is_given_up_is_not_whole() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    await fill.write(b"half")
    fill.close()
    assert not fill.joinable
    with pytest.raises(ExchangeError):
        await rest_of(reader)


async def test_a_late_reader_joins_a_finished_fill_until_its_owner_closes_it() -> None:
    fill = Fill(None, shared=True)
    await fill.write(b"whole")
    fill.finish()
    late = fill.reader()
    fill.close()
    assert not fill.joinable
    with pytest.raises(ExchangeError):
        fill.reader()
    assert await rest_of(late) == b"whole"


async def test_a_closed_reader_cannot_read() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    reader.close()
    reader.close()
    assert fill.readers == 0
    with pytest.raises(trio.ClosedResourceError):
        await reader.read(0, MOST)


# Leaving.


async def test_a_fill_is_deserted_when_its_last_reader_has_left_and_not_before() -> None:
    fill = Fill(None, shared=True)
    assert (fill.readers, fill.was_read) == (0, False)
    first, second = fill.reader(), fill.reader()
    first.close()
    assert (fill.readers, fill.was_read) == (1, True)
    third = fill.reader()  # joins in the last moment
    second.close()
    second.close()
    assert fill.readers == 1
    third.close()
    assert (fill.readers, fill.was_read) == (0, True)


async def test_a_cancelled_reader_counts_until_it_closes() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    with trio.move_on_after(0):
        await reader.read(0, MOST)
    assert fill.readers == 1
    reader.close()
    assert fill.readers == 0
    await fill.write(b"no one waits")


# Shared fills and their spool.


async def test_what_cannot_be_stored_has_no_checks() -> None:
    fill = Fill(None, shared=False)
    await fill.write(b"private")
    assert fill.block_checks() == b""


# Windows: there is no spool, or it is full.


@pytest.mark.parametrize("make_spool", [None, no_room])
async def test_without_a_spool_the_writer_waits_for_the_slowest_reader(
    make_spool: Callable[[], Spool] | None,
) -> None:
    fill = Fill(make_spool, shared=True, memory_bytes=4)
    quick, slow = fill.reader(), fill.reader()
    await fill.write(b"0123")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill.write, b"4567")
        await wait_all_tasks_blocked()
        assert await quick.read(0, 8) == b"0123"
        assert await quick.read(4, 8) == b"4567"
        assert await slow.read(0, 3) == b"012"
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        assert await slow.read(3, 1) == b"3"
    assert await slow.read(4, 8) == b"4567"
    assert not fill.storable


async def test_the_writer_goes_on_when_the_slowest_reader_leaves() -> None:
    fill = Fill(None, shared=True, memory_bytes=4)
    quick, slow = fill.reader(), fill.reader()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill.write, b"01234567")
        await wait_all_tasks_blocked()
        await quick.read(0, 4)
        await wait_all_tasks_blocked()
        slow.close()
    assert await quick.read(4, 4) == b"4567"


async def test_a_reader_that_joins_while_the_writer_waits_is_waited_for_too() -> None:
    fill = Fill(None, shared=True, memory_bytes=4)
    first = fill.reader()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill.write, b"01234567")
        await wait_all_tasks_blocked()
        second = fill.reader()
        await first.read(0, 4)
        await wait_all_tasks_blocked()
        assert await second.read(0, 4) == b"0123"
    assert not fill.joinable
    with pytest.raises(ExchangeError) as caught:
        fill.reader()
    assert caught.value.failure is Failure.BODY_LOST


async def test_a_window_waits_for_its_first_reader() -> None:
    fill = Fill(None, shared=True, memory_bytes=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill.write, b"01234567")
        await wait_all_tasks_blocked()
        reader = fill.reader()
        assert await reader.read(0, 4) == b"0123"
    assert await reader.read(4, 4) == b"4567"


async def test_a_window_that_everyone_left_takes_anything_and_keeps_nothing() -> None:
    memory = FillMemory()
    fill, reader = pair_of(Fill(None, shared=True, memory_bytes=4, memory=memory))
    reader.close()
    await fill.write(body_of(1000))
    assert memory.used_bytes <= 4
    assert not fill.joinable


async def test_reading_what_a_window_has_dropped_is_an_error_and_not_other_bytes() -> None:
    fill, reader = pair_of(Fill(None, shared=True, memory_bytes=4))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill.write, b"01234567")
        await wait_all_tasks_blocked()
        await reader.read(0, 4)
    with pytest.raises(ExchangeError) as caught:
        await reader.read(0, 4)
    assert caught.value.failure is Failure.BODY_LOST


async def test_going_back_within_a_window_holds_the_writer_again() -> None:
    fill = Fill(None, shared=True, memory_bytes=8)
    reader, other = fill.reader(), fill.reader()
    await fill.write(b"01234567")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill.write, b"89")
        await wait_all_tasks_blocked()
        await reader.read(0, 8)
        assert await reader.read(0, 2) == b"01"
        await other.read(0, 8)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        await reader.read(2, 8)


async def test_a_failure_wakes_the_writer_that_waits_for_readers() -> None:
    fill = Fill(None, shared=True, memory_bytes=4)
    fill.reader()
    async with trio.open_nursery() as nursery:

        async def write_on() -> None:
            with pytest.raises(ExchangeError) as caught:
                await fill.write(b"01234567")
            assert caught.value.failure is Failure.CLOSED_EARLY

        nursery.start_soon(write_on)
        await wait_all_tasks_blocked()
        fill.fail(GONE)


# Private fills.


async def test_a_private_fill_has_one_reader() -> None:
    fill, _ = pair_of(Fill(None, shared=False))
    assert not fill.joinable
    with pytest.raises(ExchangeError):
        fill.reader()


async def test_a_deserted_private_fill_keeps_nothing() -> None:
    memory = FillMemory()
    fill, reader = pair_of(Fill(None, shared=False, memory_bytes=1000, memory=memory))
    await fill.write(bytes(900))
    reader.close()
    assert memory.used_bytes == 0
    await fill.write(bytes(5000))
    assert memory.used_bytes <= 1000


# The memory of all fills.


async def test_a_dripping_origin_costs_no_more_memory_than_its_bytes() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    for _ in range(10_000):
        await fill.write(b"x")
    fill.finish()
    assert len(fill._window._pieces) <= 10_000 // 4096 + 1
    assert await rest_of(reader) == b"x" * 10_000


# Cancellation.


async def test_a_writer_cancelled_before_it_showed_anything_leaves_the_fill_intact() -> None:
    fill, reader = pair_of(Fill(None, shared=True))
    await fill.write(bytes(64 * 1024))
    with trio.CancelScope() as scope:
        scope.cancel()
        await fill.write(b"never shown")
    assert fill.size == 64 * 1024
    await fill.write(b"and on")
    fill.finish()
    assert (await rest_of(reader)).endswith(b"\0and on")


async def test_a_writer_cancelled_while_it_waits_for_readers_fails_the_fill() -> None:
    fill, reader = pair_of(Fill(None, shared=True, memory_bytes=4))
    with trio.move_on_after(0):
        await fill.write(b"01234567")
    assert fill.failed
    with pytest.raises(ExchangeError):
        await rest_of(reader)


async def test_a_body_that_nothing_keeps_and_no_one_reads_is_given_up(
    autojump_clock: MockClock,
) -> None:
    fill = Fill(None, shared=True, memory_bytes=MOST)
    with pytest.raises(ExchangeError) as raised:
        for _ in range(10):
            await fill.write(body_of(MOST))
    assert raised.value.failure is Failure.BODY_LOST
    assert fill.failed
