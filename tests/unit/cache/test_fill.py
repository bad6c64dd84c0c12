"""Twin of edge/cache/fill.py. The spool is in memory and can be slow, full or lost at will."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import Sequencer, wait_all_tasks_blocked

from edge.cache.fill import TIGHT_BYTES, Fill, FillMemory
from edge.cache.integrity import BLOCK_BYTES, checks_of
from edge.errors import ExchangeError, Failure
from tests.unit.cache.filling import (
    GONE,
    MOST,
    FakeSpool,
    as_spool,
    body_of,
    first_of,
    pair_of,
    rest_of,
)

if TYPE_CHECKING:
    from edge.cache.body import Body, Spool

# Reading while it is written.


async def test_one_write_wakes_every_waiting_reader_in_the_next_turn_of_the_loop() -> None:
    spool = FakeSpool()
    spool.gate = trio.Event()  # the disk never answers
    fill = Fill(as_spool(spool), shared=True, memory_bytes=10)
    got: list[bytes] = []

    async def wait_for_first(reader: Body) -> None:
        got.append(bytes(await reader.read(0, MOST)))

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(wait_for_first, fill.reader())
        await wait_all_tasks_blocked()
        nursery.start_soon(fill.write, b"0123456789ab")
        for _ in range(3):  # the writer's turn, the readers', and ours behind theirs
            await trio.lowlevel.checkpoint()
        assert got == [b"0123456789"] * 1000
        nursery.cancel_scope.cancel()


# Leaving.


async def test_the_spool_goes_with_the_last_reader_after_the_owner() -> None:
    spool = FakeSpool()
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=4))
    await fill.write(b"0123456789")
    fill.finish()
    reader.close()
    assert not spool.closed
    late = fill.reader()
    fill.close()
    assert not spool.closed
    assert await rest_of(late) == b"0123456789"
    late.close()
    assert spool.closed


# Shared fills and their spool.


async def test_a_shared_fill_never_waits_for_a_slow_reader() -> None:
    spool = FakeSpool()
    fill, slow = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=1 << 20))
    body = body_of(3 << 20)
    with trio.fail_after(5):
        for start in range(0, len(body), MOST):
            await fill.write(body[start : start + MOST])
        fill.finish()
    assert set(spool.writes) == {BLOCK_BYTES}
    assert await rest_of(slow) == body


async def test_a_fill_that_fits_memory_makes_no_spool() -> None:
    def never() -> Spool:
        raise AssertionError

    fill = Fill(never, shared=True, memory_bytes=100)
    await fill.write(bytes(100))
    fill.finish()
    assert fill.whole() == bytes(100)
    assert fill.spool is None


async def test_readers_read_on_while_the_disk_is_slow_and_the_writer_waits() -> None:
    spool = FakeSpool()
    spool.gate = trio.Event()
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=4))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill.write, b"01234567")
        await wait_all_tasks_blocked()
        assert await first_of(reader, 8) == b"01234567"
        spool.gate.set()
    assert await fill.reader().read(0, MOST) == b"0123"


async def test_settling_puts_the_whole_body_in_the_spool() -> None:
    spool = FakeSpool()
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=1000))
    body = body_of(2500)
    for start in range(0, 2500, 100):
        await fill.write(body[start : start + 100])
    fill.finish()
    assert fill.whole() is None
    assert await fill.settle() is spool
    assert bytes(spool.data) == body
    assert fill.storable
    assert await rest_of(reader) == body


async def test_settling_on_a_full_disk_says_so_and_harms_no_reader() -> None:
    spool = FakeSpool(full_at=2000)
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=1000))
    body = body_of(2500)
    for start in range(0, 2500, 100):
        await fill.write(body[start : start + 100])
    fill.finish()
    assert await fill.settle() is None
    assert not fill.storable
    assert await rest_of(reader) == body


async def test_the_checks_are_those_of_the_whole_body() -> None:
    body = body_of(2 * BLOCK_BYTES + 17)
    fill = Fill(as_spool(FakeSpool()), shared=True)
    for start in range(0, len(body), 10_007):
        await fill.write(body[start : start + 10_007])
    fill.finish()
    assert fill.block_checks() == checks_of(body)


async def test_a_write_larger_than_memory_is_taken_in_parts() -> None:
    spool = FakeSpool()
    memory = FillMemory()
    body = body_of(1 << 20)
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=100_000, memory=memory))
    await fill.write(body)
    fill.finish()
    assert memory.used_bytes <= 100_000
    assert await rest_of(reader) == body


# Windows: there is no spool, or it is full.


async def test_a_spool_that_fills_up_serves_its_readers_and_goes_when_they_have_passed() -> None:
    spool = FakeSpool(full_at=8)
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=4))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill.write, b"0123456789abcdef")
        await wait_all_tasks_blocked()
        assert not fill.storable
        assert fill.joinable
        assert await first_of(reader, 8) == b"01234567"
        await wait_all_tasks_blocked()
        assert await reader.read(8, 4) == b"89ab"
        await wait_all_tasks_blocked()
        assert spool.closed
    fill.finish()
    assert await reader.read(12, 4) == b"cdef"


async def test_a_spool_that_loses_bytes_is_an_error_and_not_an_end() -> None:
    spool = FakeSpool()
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=4))
    await fill.write(b"01234567")
    del spool.data[:]
    with pytest.raises(ExchangeError) as caught:
        await reader.read(0, 4)
    assert caught.value.failure is Failure.BODY_LOST


# Private fills.


async def test_an_endless_stream_whose_reader_keeps_up_costs_no_disk_and_no_memory() -> None:
    def never() -> Spool:
        raise AssertionError

    memory = FillMemory()
    fill, reader = pair_of(Fill(never, shared=False, memory_bytes=1000, memory=memory))
    for event in range(1000):
        data = event.to_bytes(4, "big") * 10
        await fill.write(data)
        assert await reader.read(event * 40, MOST) == data
        assert memory.used_bytes == 0


async def test_a_private_reader_that_catches_up_empties_the_spool() -> None:
    spool = FakeSpool()
    fill, reader = pair_of(Fill(as_spool(spool), shared=False, memory_bytes=10))
    body = body_of(1000)
    for round_ in range(5):
        await fill.write(body)
        assert len(spool.data) >= 990
        got = await first_of(reader, 1000, round_ * 1000)
        assert got == body
        assert len(spool.data) == 0
    assert spool.resets == 5
    assert spool.most_held <= 1000


async def test_past_its_lone_bytes_a_private_fill_waits_for_its_reader() -> None:
    spool = FakeSpool()
    fill, reader = pair_of(Fill(as_spool(spool), shared=False, memory_bytes=10, lone_bytes=100))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill.write, body_of(500))
        await wait_all_tasks_blocked()
        assert 100 < fill.size <= 110
        assert await first_of(reader, 50) == body_of(50)
        await wait_all_tasks_blocked()
        assert 150 < fill.size <= 160
        reader.close()
    assert fill.size == 500


async def test_a_private_fill_may_finish_before_its_reader_comes() -> None:
    fill = Fill(as_spool(FakeSpool()), shared=False, memory_bytes=10)
    await fill.write(body_of(100))
    fill.finish()
    assert await rest_of(fill.reader()) == body_of(100)


# The memory of all fills.


async def test_a_thousand_fills_stay_within_the_common_bound() -> None:
    memory = FillMemory(limit_bytes=8 << 20)
    fills = [Fill(as_spool(FakeSpool()), shared=True, memory=memory) for _ in range(200)]
    for fill in fills:
        for _ in range(5):
            await fill.write(bytes(32 * 1024))
        assert memory.used_bytes <= (8 << 20) + 200 * TIGHT_BYTES
    for fill in fills:
        fill.fail(GONE)
    assert memory.used_bytes == 0


async def test_when_memory_is_tight_a_fill_spools_what_is_above_64_kib() -> None:
    memory = FillMemory(limit_bytes=1)
    spool = FakeSpool()
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory=memory))
    body = body_of(300 * 1024)
    for start in range(0, len(body), 30_000):
        await fill.write(body[start : start + 30_000])
        assert memory.used_bytes <= TIGHT_BYTES
    assert max(spool.writes) <= 64 * 1024
    fill.finish()
    assert await rest_of(reader) == body


async def test_a_fill_that_holds_much_when_memory_gets_tight_spools_it_piece_by_piece() -> None:
    memory = FillMemory(limit_bytes=1 << 20)
    spool = FakeSpool()
    fill = Fill(as_spool(spool), shared=True, memory=memory)
    for _ in range(12):
        await fill.write(bytes(64 * 1024))
    assert spool.writes == []
    memory.limit_bytes = 1  # as if others had taken the rest
    await fill.write(b"more")
    assert set(spool.writes) == {64 * 1024}
    assert memory.used_bytes <= TIGHT_BYTES


async def test_a_reader_that_overtakes_the_disk_does_not_disturb_it() -> None:
    spool = FakeSpool()
    fill, reader = pair_of(Fill(as_spool(spool), shared=False, memory_bytes=8))
    await fill.write(b"0123456789ab")  # some of it is in the spool now
    spool.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill.write, b"cdefghij")
        await wait_all_tasks_blocked()
        assert await first_of(reader, fill.size) == b"0123456789abcdefghij"[: fill.size]
        spool.gate.set()
    assert spool.resets >= 1
    fill.finish()
    assert reader.read_nowait(20, 1) == b""


# Cancellation.


async def test_a_writer_cancelled_in_the_disk_fails_the_fill() -> None:
    spool = FakeSpool()
    spool.gate = trio.Event()
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=4))
    with trio.move_on_after(0):
        await fill.write(b"01234567")
    assert fill.failed
    assert await first_of(reader, 8) == b"01234567"
    with pytest.raises(ExchangeError):
        await reader.read(8, MOST)
    reader.close()
    assert spool.closed


async def test_a_fill_that_fails_while_the_disk_writes_keeps_the_spool_until_it_is_done() -> None:
    spool = FakeSpool()
    spool.gate = trio.Event()
    fill = Fill(as_spool(spool), shared=True, memory_bytes=4)
    sequence = Sequencer()
    async with trio.open_nursery() as nursery:

        async def write_on() -> None:
            async with sequence(0):
                pass
            with pytest.raises(ExchangeError):
                await fill.write(b"0123456789ab")

        nursery.start_soon(write_on)
        await wait_all_tasks_blocked()
        async with sequence(1):
            fill.fail(GONE)
            assert not spool.closed
            spool.gate.set()
    assert spool.closed


async def test_settling_cancelled_leaves_a_readable_body_that_cannot_be_stored() -> None:
    spool = FakeSpool()
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=100))
    await fill.write(body_of(250))
    fill.finish()
    spool.gate = trio.Event()
    with trio.move_on_after(0):
        await fill.settle()
    spool.gate.set()
    assert not fill.storable
    assert await rest_of(reader) == body_of(250)


async def test_a_reader_cancelled_in_the_spool_can_read_again() -> None:
    spool = FakeSpool(slow=True)
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=4))
    await fill.write(b"01234567")
    spool.gate = trio.Event()
    with trio.move_on_after(0):
        await reader.read(0, 4)
    spool.gate.set()
    assert await reader.read(0, 4) == b"0123"


async def test_a_reader_closed_while_it_waits_for_the_disk_gets_nothing() -> None:
    spool = FakeSpool(slow=True)
    fill, reader = pair_of(Fill(as_spool(spool), shared=True, memory_bytes=4))
    await fill.write(b"01234567")
    spool.gate = trio.Event()
    async with trio.open_nursery() as nursery:

        async def read_on() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await reader.read(0, 4)

        nursery.start_soon(read_on)
        await wait_all_tasks_blocked()
        reader.close()
        spool.gate.set()
