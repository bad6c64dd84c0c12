from __future__ import annotations

import json
import os
import socket
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edge.admin import BODY_BYTES, CALLERS, AdminSocket, answers
from edge.status import ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def node(path: Path) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(AdminSocket(path, lambda: {"version": "1", "at": path}).run)
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


async def say(path: Path, data: bytes) -> bytes:
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(data)
        await stream.send_eof()
        answer = b""
        async for piece in stream:
            answer += piece
        return answer


def document(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def test_the_status_is_told_as_json(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with node(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        told = await trio.to_thread.run_sync(ask, path)
    assert told == {"version": "1", "at": str(path)}
    assert not path.exists()


async def test_a_connection_may_ask_more_than_once(tmp_path: Path) -> None:
    get = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
    async with node(tmp_path / "a.sock"):
        assert (await say(tmp_path / "a.sock", get * 3)).count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, 431),
        (
            b"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (BODY_BYTES * 2)
            + b"x" * BODY_BYTES * 2,
            413,
        ),
        (b"POST /v1/status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz", 400),
    ],
)
async def test_an_error_is_told_as_a_problem(
    tmp_path: Path, request_bytes: bytes, status: int
) -> None:
    async with node(tmp_path / "a.sock"):
        answer = await say(tmp_path / "a.sock", request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in answer.lower()
    assert document(answer)["status"] == status


async def test_a_caller_that_says_nothing_is_let_go(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with node(tmp_path / "a.sock"), await trio.open_unix_socket(tmp_path / "a.sock") as idle:
        assert await idle.receive_some() == b""


async def test_callers_past_the_last_place_are_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with node(path):
        idle = [await trio.open_unix_socket(path) for _ in range(CALLERS)]
        await trio.testing.wait_all_tasks_blocked()
        async with await trio.open_unix_socket(path) as late:
            assert await late.receive_some() == b""
        for stream in idle:
            await stream.aclose()


async def test_a_file_of_a_dead_node_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert not answers(path)
    async with node(path):
        assert await trio.to_thread.run_sync(answers, path)


async def test_a_live_node_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with node(path):
        with pytest.raises(OSError, match="another node"):
            await trio.to_thread.run_sync(AdminSocket, path, dict)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(OSError, match="not a socket"):
        AdminSocket(path, dict)
    assert path.read_text() == "x"


async def test_at_the_end_a_file_that_is_no_longer_ours_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as other:
        async with node(path):
            os.unlink(path)
            other.bind(str(path))
        assert path.exists()
