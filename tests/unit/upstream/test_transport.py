"""Every kind of transport keeps the same promises; then what each has for itself."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing
import trustme
from hypothesis import given
from hypothesis import strategies as st

from edge.upstream import transport as subject
from edge.upstream.tls import TlsTransport
from edge.upstream.transport import (
    FILE_BYTES,
    PARTS_AT_ONCE,
    FileSpan,
    Part,
    SocketTransport,
    Transport,
)
from tests.unit.upstream.memory import StreamTransport

if TYPE_CHECKING:
    from pathlib import Path

Pair: TypeAlias = tuple[Transport, Transport]
Make: TypeAlias = Callable[[], Awaitable[Pair]]

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("origin.example")


def sockets() -> tuple[SocketTransport, SocketTransport]:
    one, two = socket.socketpair()
    return SocketTransport(one), SocketTransport(two)


async def plain() -> Pair:
    return sockets()


async def memory() -> Pair:
    one, two = trio.testing.memory_stream_pair()
    return StreamTransport(one), StreamTransport(two)


async def tls() -> Pair:
    one, two = socket.socketpair()
    here, there = contexts()
    client = TlsTransport(
        here.wrap_socket(
            one,
            server_hostname="origin.example",
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
    )
    server = TlsTransport(
        there.wrap_socket(
            two, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handshake)
        nursery.start_soon(server.handshake)
    return client, server


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CERTIFICATE.configure_cert(server)
    return client, server


KINDS = pytest.mark.parametrize("make", [plain, tls, memory])
REAL = pytest.mark.parametrize("make", [plain, tls])


async def read_all(transport: Transport) -> bytes:
    data = bytearray()
    while piece := await transport.receive_some():
        data += piece
    return bytes(data)


def close(*transports: Transport) -> None:
    for transport in transports:
        transport.close()


@KINDS
async def test_what_one_side_sends_the_other_receives(make: Make) -> None:
    here, there = await make()
    big = bytes(range(256)) * 4096

    async def send() -> None:
        await here.send_all(b"head")
        await here.send_parts([b"", b"one", bytearray(b"two"), memoryview(big), b"end"])
        await here.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert await read_all(there) == b"headonetwo" + big + b"end"
    close(here, there)


@KINDS
async def test_a_receive_takes_no_more_than_asked(make: Make) -> None:
    here, there = await make()
    await here.send_all(b"abcdef")
    assert await there.receive_some(2) == b"ab"
    assert await there.receive_some(3) == b"cde"
    close(here, there)


@KINDS
async def test_a_transport_closed_under_a_receive_wakes_it(make: Make) -> None:
    here, there = await make()
    woken = trio.Event()

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await here.receive_some()
        woken.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        here.close()
        await woken.wait()
    close(there)


@KINDS
async def test_closed_is_closed_for_everything_and_may_be_closed_again(make: Make) -> None:
    here, there = await make()
    here.close()
    here.abort()
    await here.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await here.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await here.send_all(b"x")
    close(there)


@KINDS
async def test_sending_to_one_who_is_gone_is_a_broken_resource(make: Make) -> None:
    here, there = await make()
    there.close()
    with pytest.raises(trio.BrokenResourceError):
        for _ in range(3):
            await here.send_all(b"x" * 100_000)
    close(here)


@KINDS
async def test_a_half_closed_connection_still_receives(make: Make) -> None:
    here, there = await make()
    await here.send_eof()
    assert await there.receive_some() == b""
    await there.send_all(b"still here")
    assert await here.receive_some() == b"still here"
    close(here, there)


@REAL
@pytest.mark.parametrize("parts", [False, True])
async def test_a_reader_who_takes_nothing_is_told_from_a_slow_one(
    make: Make, parts: bool, autojump_clock: trio.testing.MockClock
) -> None:
    here, there = await make()
    data = b"x" * 3_000_000
    with pytest.raises(trio.TooSlowError):
        await (here.send_parts([data], stall_s=10) if parts else here.send_all(data, stall_s=10))
    assert trio.current_time() == pytest.approx(10, abs=0.1)
    close(here, there)


async def test_a_slow_reader_may_take_longer_than_a_standstill(
    autojump_clock: trio.testing.MockClock,
) -> None:
    here, there = sockets()

    async def read_slowly() -> None:
        for _ in range(40):
            await trio.sleep(8)
            await there.receive_some(100_000)
        await read_all(there)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly)
        await here.send_all(b"x" * 3_000_000, stall_s=60)
        assert trio.current_time() > 60
        here.close()
        nursery.cancel_scope.cancel()
    close(there)


async def test_a_stalled_stream_in_memory_is_too_slow(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one, two = trio.testing.lockstep_stream_pair()
    here = StreamTransport(one)
    with pytest.raises(trio.TooSlowError):
        await here.send_all(b"x", stall_s=5)
    close(here, StreamTransport(two))


@REAL
async def test_what_would_wait_says_so(make: Make) -> None:
    here, there = await make()
    assert here.receive_nowait(10) is None
    while there.send_nowait(b"x" * 65536):
        pass
    assert there.send_nowait(b"x" * 65536) == 0
    assert here.receive_nowait(10) == b"x" * 10
    close(here, there)


@REAL
async def test_an_idle_connection_is_readable_once_it_is_of_no_use(make: Make) -> None:
    here, there = await make()
    assert not here.readable_now()
    await there.send_all(b"surplus")
    assert here.readable_now()
    assert here.readable_now()
    received = await here.receive_some()
    assert b"surplus".startswith(received)

    others = await make()
    others[1].close()
    assert others[0].readable_now()
    close(here, there, *others)


async def test_more_parts_than_one_call_takes_arrive_in_order() -> None:
    here, there = sockets()
    parts = [b"%d," % number for number in range(3 * PARTS_AT_ONCE)]
    await here.send_parts(parts)
    here.close()
    assert await read_all(there) == b"".join(parts)
    close(there)


@given(
    st.lists(st.binary(max_size=6), max_size=12),
    st.lists(st.integers(min_value=1, max_value=9), max_size=60),
)
def test_dropping_what_was_sent_leaves_exactly_the_rest(
    parts: list[bytes], cuts: list[int]
) -> None:
    rest = deque[subject.Data](part for part in parts if part)
    whole = b"".join(parts)
    for cut in cuts:
        cut = min(cut, len(whole))
        subject._drop(rest, cut)
        whole = whole[cut:]
        assert b"".join(rest) == whole
        assert all(rest)


async def test_a_busy_transport_lets_others_run() -> None:
    here, there = sockets()
    await there.send_all(b"x" * 1000)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(200):
            await here.receive_some(1)
        nursery.cancel_scope.cancel()
    assert turns >= 200 // subject.IMMEDIATE - 1
    close(here, there)


async def test_a_stream_that_closes_only_by_waiting_is_refused() -> None:
    one, two = trio.testing.memory_stream_pair()

    class Slow(trio.abc.Stream):
        async def send_all(self, data: object) -> None: ...
        async def wait_send_all_might_not_block(self) -> None: ...
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return b""

        async def aclose(self) -> None: ...

    with pytest.raises(TypeError, match="Slow"):
        StreamTransport(Slow())
    close(StreamTransport(one), StreamTransport(two))


async def test_a_unix_socket_has_no_address() -> None:
    here, there = sockets()
    assert here.peer == b""
    told = SocketTransport(socket.socket(), peer=b"192.0.2.1")
    assert told.peer == b"192.0.2.1"
    close(here, there, told)


async def test_trio_agrees_that_it_is_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "IMMEDIATE", 1)  # Trio asks for a checkpoint in every call

    async def make() -> tuple[SocketTransport, SocketTransport]:
        return sockets()

    await trio.testing.check_half_closeable_stream(make, None)


class Given:
    """A source whose file has `body`; `says` is how much of what is asked for may be sent."""

    def __init__(self, path: Path, body: bytes, says: int = 1 << 30) -> None:
        path.write_bytes(body)
        self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.body = body
        self.says = says
        self.asked = self.read_bytes = 0
        self.refused = False

    def sendable(self, offset: int, most: int) -> int:
        self.asked += 1
        return 0 if self.refused else min(most, self.says)

    def refuse(self) -> None:
        self.refused = True

    async def read(self, offset: int, most: int) -> bytes:
        await trio.lowlevel.checkpoint()
        data = self.body[offset : offset + most]
        self.read_bytes += len(data)
        return data

    def close(self) -> None:
        os.close(self.descriptor)


FILE = os.urandom(3 * FILE_BYTES + 12_345)


@KINDS
@pytest.mark.parametrize("says", [1 << 30, 100_000, 0])
async def test_a_part_of_a_file_arrives_behind_what_is_sent_before_it(
    make: Make, says: int, tmp_path: Path
) -> None:
    here, there = await make()
    source = Given(tmp_path / "file", FILE, says)
    span = FileSpan(source, 1000, len(FILE) - 10)

    async def send() -> None:
        await here.send_parts([b"head", b"", b"more", span])
        await here.send_parts([FileSpan(source, 5, 5)])
        await here.send_all(b"tail")
        await here.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert await read_all(there) == b"headmore" + FILE[1000:-10] + b"tail"
    is_sent = make is plain and says > 0
    assert source.read_bytes == (0 if is_sent else len(FILE) - 1010)
    assert len(span) == 0
    source.close()
    close(here, there)


async def test_what_leaves_at_once_of_a_file_is_told_and_taken_off(tmp_path: Path) -> None:
    here, there = sockets()
    source = Given(tmp_path / "file", FILE)
    span = FileSpan(source, 0, len(FILE))
    assert span.look() == FILE_BYTES
    sent = here.send_parts_nowait([b"head", span])
    assert 4 < sent == 4 + span.offset < FILE_BYTES  # the kernel does not take so much
    assert (span.ready, source.asked) == (0, 1)
    assert here.send_parts_nowait([b"head", span]) == 0
    there.close()
    with pytest.raises(trio.BrokenResourceError):
        here.send_parts_nowait([span])
    source.close()
    close(here)


async def test_a_client_that_does_not_take_the_file_is_given_up(
    tmp_path: Path, autojump_clock: object
) -> None:
    here, there = sockets()
    source = Given(tmp_path / "file", FILE)
    both: list[list[Part]] = [
        [b"x" * 4_000_000, FileSpan(source, 0, 9)],
        [FileSpan(source, 0, len(FILE))],
    ]
    for parts in both:
        with pytest.raises(trio.TooSlowError):
            await here.send_parts(parts, stall_s=10)
    source.close()
    close(here, there)


async def test_what_may_be_sent_is_asked_again_after_a_wait(tmp_path: Path) -> None:
    here, there = sockets()
    source = Given(tmp_path / "file", FILE)
    async with trio.open_nursery() as nursery:
        parts: list[Part] = [b"x" * 2_000_000, FileSpan(source, 0, len(FILE))]
        nursery.start_soon(here.send_parts, parts)
        await trio.testing.wait_all_tasks_blocked()
        source.says = 0  # it was changed
        got = bytearray()
        while len(got) < 2_000_000 + len(FILE):
            got += await there.receive_some()
    assert bytes(got[2_000_000:]) == FILE
    assert source.read_bytes == len(FILE)
    source.close()
    close(here, there)


async def test_a_file_cut_short_below_a_send_is_read_and_so_found(tmp_path: Path) -> None:
    here, there = sockets()
    source = Given(tmp_path / "file", FILE[:1000])
    os.ftruncate(source.descriptor, 400)
    span = FileSpan(source, 0, 1000)
    here.send_parts_nowait([span])
    assert span.offset == 400
    assert here.send_parts_nowait([span]) == 0
    assert source.refused
    await here.send_parts([span])
    got = b""
    while len(got) < 1000:
        got += await there.receive_some()
    assert source.read_bytes == 600
    source.close()
    close(here, there)


async def test_a_file_that_cannot_be_sent_from_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = sockets()
    source = Given(tmp_path / "file", FILE[:1000])

    def fails(*_: object) -> int:
        raise OSError(errno.EIO, "the medium")

    monkeypatch.setattr(os, "sendfile", fails)
    await here.send_parts([FileSpan(source, 0, 1000)])
    assert await there.receive_some() == FILE[:1000]
    assert source.refused
    source.close()
    close(here, there)


@REAL
async def test_a_transport_closed_below_a_file_says_so(make: Make, tmp_path: Path) -> None:
    here, there = await make()
    source = Given(tmp_path / "file", FILE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(there.receive_some)
        nursery.start_soon(_sends_until_closed, here, FileSpan(source, 0, len(FILE)))
        await trio.testing.wait_all_tasks_blocked()
        here.close()
    source.close()
    close(there)


async def _sends_until_closed(here: Transport, span: FileSpan) -> None:
    for _ in range(2):
        with pytest.raises(trio.ClosedResourceError):
            await here.send_parts([span])
