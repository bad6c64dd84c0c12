"""Sockets between the workers of a node: their backlog outlives a worker."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.listen import local
from edge.listen.local import bind_local, connect_local
from edge.listen.tcp import Connections, accept
from edge.upstream.transport import SocketTransport

if TYPE_CHECKING:
    from pathlib import Path


async def test_who_connects_before_anyone_accepts_waits_in_the_backlog(tmp_path: Path) -> None:
    path = tmp_path / "0"
    listener = bind_local(path)
    try:
        here = await connect_local(path)
        await here.send_all(b"hello")
        sock, _ = listener.accept()
        there = SocketTransport(sock, peer=b"")
        assert await there.receive_some() == b"hello"
        here.close()
        there.close()
    finally:
        listener.close()


async def test_a_path_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "0"
    bind_local(path).close()
    with bind_local(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (await connect_local(path)).close()


async def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await connect_local(tmp_path / "0")
    bind_local(tmp_path / "1").close()
    with pytest.raises(ConnectionRefusedError):
        await connect_local(tmp_path / "1")


def test_what_cannot_be_bound_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bind_local(tmp_path / "missing" / "0")


async def test_a_full_backlog_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "BACKLOG", 0)
    path = tmp_path / "0"
    with bind_local(path) as listener:
        first = await connect_local(path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_connect_and_close, path)
            await wait_all_tasks_blocked()
            listener.accept()[0].close()
        first.close()


async def _connect_and_close(path: Path) -> None:
    (await connect_local(path)).close()


async def test_workers_are_accepted_as_clients_are(tmp_path: Path) -> None:
    path = tmp_path / "0"
    taken: list[SocketTransport] = []
    with bind_local(path) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, listener, Connections(9), taken.append, print)
            here = await connect_local(path)
            await here.send_all(b"x")
            with trio.fail_after(5):
                while not taken:
                    await trio.lowlevel.checkpoint()
            assert (taken[0].peer, await taken[0].receive_some()) == (b"", b"x")
            nursery.cancel_scope.cancel()
    here.close()
    taken[0].close()
    assert listener.family is socket.AF_UNIX
