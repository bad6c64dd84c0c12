"""Descriptors beside bytes, on real socket pairs: in order, owned by one, and never left open."""

from __future__ import annotations

import errno
import os
import resource
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.listen.passing import Passing, PassingTransport
from edge.upstream.transport import PARTS_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def a_pair() -> Iterator[tuple[PassingTransport, PassingTransport]]:
    here, there = map(PassingTransport, socket.socketpair())
    try:
        yield here, there
    finally:
        here.close()
        there.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(b"content")
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def how_many_open() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_descriptor_comes_with_its_bytes_and_is_the_takers(file: int) -> None:
    with a_pair() as (here, there):
        assert isinstance(here, Passing)
        await here.send_all(b"before,")
        assert await here.send_passing([b"with", b" it,"], file)
        await here.send_all(b"behind")
        got = b""
        while b"with" not in got:
            got += await there.receive_some(4)
        taken = there.take_descriptor()
        assert taken is not None
        assert taken != file
        assert os.path.samestat(os.fstat(taken), os.fstat(file))
        assert not os.get_inheritable(taken)
        assert there.take_descriptor() is None
        while not got.endswith(b"behind"):
            got += await there.receive_some()
        assert got == b"before,with it,behind"
        there.close()
        assert is_open(taken)
        os.close(taken)
    assert is_open(file)


async def test_the_other_process_may_end_before_it_is_taken(file: int) -> None:
    with a_pair() as (here, there):
        await here.send_passing([b"x"], file)
        here.close()
        assert await there.receive_some() == b"x"
        assert await there.receive_some() == b""
        taken = there.take_descriptor()
        assert taken is not None
        assert os.pread(taken, 9, 0) == b"content"
        os.close(taken)


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_what_nobody_took_is_closed(file: int, end: str) -> None:
    before = how_many_open()
    with a_pair() as (here, there):
        for _ in range(3):  # more than there should be: only the last could be asked for
            await here.send_passing([b"x"], file)
            assert await there.receive_some() == b"x"
        assert how_many_open() == before + 3
        getattr(there, end)()
        assert there.take_descriptor() is None
    assert how_many_open() == before


async def test_more_than_the_socket_takes_at_once_arrives_whole_and_with_one_descriptor(
    file: int,
) -> None:
    large = os.urandom(2 << 20)
    with a_pair() as (here, there):
        pieces = [large[at : at + 2048] for at in range(0, len(large), 2048)]
        assert len(pieces) > PARTS_AT_ONCE
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.send_passing, pieces, file)
            got = bytearray()
            while len(got) < len(large):
                got += await there.receive_some()
        assert got == large
        taken = there.take_descriptor()
        assert taken is not None
        os.close(taken)


async def test_it_waits_for_room(file: int) -> None:
    with a_pair() as (here, there):
        while here.send_nowait(bytes(65_536)):
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.send_passing, [b"x"], file)
            await wait_all_tasks_blocked()
            while there.receive_nowait(65_536):
                pass
        assert await there.receive_some() == b"x"
        taken = there.take_descriptor()
        assert taken is not None
        os.close(taken)


async def test_without_room_in_the_process_only_the_bytes_come(file: int) -> None:
    with a_pair() as (here, there):
        await here.send_passing([b"x"], file)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            assert there.receive_nowait(9) == b"x"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert there.take_descriptor() is None


class Full:
    """A socket of whose kind the kernel has too many descriptors on their way.

    The superuser, as whom tests may run, is allowed any number.
    """

    def sendmsg(self, *_: object) -> int:
        raise OSError(errno.ETOOMANYREFS, "too many references")


async def test_where_the_kernel_has_too_many_on_their_way_nothing_is_sent(file: int) -> None:
    with a_pair() as (here, there):
        real, here._socket = here._socket, cast("Any", Full())
        assert not await here.send_passing([b"x"], file)
        here._socket = real
        assert there.receive_nowait(1) is None


async def test_who_is_gone_is_an_error(file: int) -> None:
    with a_pair() as (here, there):
        there.close()
        with pytest.raises(trio.BrokenResourceError):
            await here.send_passing([b"x"], file)
        with pytest.raises(trio.ClosedResourceError):
            there.receive_nowait(1)
