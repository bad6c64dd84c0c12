from __future__ import annotations

import json
import os
import socket
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edge.admin import socket as module
from edge.admin.socket import (
    BODIES_BYTES,
    BODY_BYTES,
    CALLERS,
    AdminSocket,
    Call,
    Caller,
    Refused,
    Reply,
    Streamed,
    answers,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

    from edge.admin.socket import Handler, Send

GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


class Node:
    """Handlers of every sort behind a socket; `calls` and `told` are what they and the log saw."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Call] = []
        self.told: list[str] = []
        self.gate = trio.Event()
        self.ended = trio.Event()
        routes: dict[bytes, dict[bytes, Handler]] = {
            b"/v1/echo": {b"GET": self.echo, b"POST": self.echo},
            b"/v1/stream": {b"GET": self.stream, b"POST": self.stream},
            b"/v1/refuse": {b"POST": self.refuse},
            b"/v1/fail": {b"GET": self.fail},
            b"/v1/strange": {b"GET": self.strange},
            b"/v1/wait": {b"POST": self.wait},
        }
        self.socket = AdminSocket(path, routes, self.hear)

    def hear(self, caller: Caller, words: str, done: bool) -> None:
        assert caller == Caller(os.getuid(), os.getgid(), os.getpid())
        assert done == (" 200" in words)
        self.told.append(words)

    async def echo(self, call: Call) -> Reply:
        self.calls.append(call)
        document = {"query": call.query, "size": len(call.body), "by": call.caller}
        return Reply(200, document, words="echoed" if call.body else "")

    async def refuse(self, call: Call) -> Reply:
        raise Refused(422, "Bad scopes", "1 scope is bad", {"faults": [{"path": "url[3]"}]})

    async def fail(self, call: Call) -> Reply:
        raise ZeroDivisionError("secret")

    async def strange(self, call: Call) -> Reply:
        return Reply(200, {"name": "\udcff"})

    async def wait(self, call: Call) -> Reply:
        await self.gate.wait()
        self.ended.set()
        return Reply(200, {})

    async def stream(self, call: Call) -> Streamed:
        how = call.query.get("how", ["well"])[0]

        async def produce(send: Send) -> None:
            if how == "refuse":
                raise Refused(404, "", "not stored")
            if how == "fail-at-once":
                raise ZeroDivisionError("secret")
            if how == "silent":
                try:
                    await trio.sleep_forever()
                finally:
                    self.ended.set()
            if how == "endless":
                while True:
                    await send(memoryview(bytes(200_000)))
            if how != "empty":
                await send(b"one\n")
                await send(b"")
            if how == "fail":
                raise ZeroDivisionError("secret")
            await send(memoryview(b"two\n"))

        async def nothing(send: Send) -> None:
            return None

        return Streamed(b"text/x", nothing if how == "empty" else produce)


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Node]:
    node = Node(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.socket.run)
        await trio.testing.wait_all_tasks_blocked()
        yield node
        nursery.cancel_scope.cancel()


async def say(path: Path, data: bytes) -> bytes:
    """What is answered until the node closes, to a caller that asks and ends."""
    async with await trio.open_unix_socket(path) as stream:
        try:
            await stream.send_all(data)
            await stream.send_eof()
        except trio.BrokenResourceError:
            pass  # refused before it had all been sent: the answer is there
        return await everything(stream)


async def everything(stream: trio.SocketStream) -> bytes:
    answer = b""
    try:
        async for piece in stream:
            answer += piece
    except trio.BrokenResourceError:
        pass  # closed with input of ours unread; what was sent has been read
    return answer


def document(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


async def test_a_call_is_handed_on_whole_and_its_reply_told_as_json(path: Path) -> None:
    async with running(path) as node:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        answer = await say(path, POST % (b"/v1/echo?a=1&b=%20x&a=%ff&c=", 4) + b"{}\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert document(answer)["size"] == 4
    [call] = node.calls
    assert (call.method, call.path, call.body) == (b"POST", b"/v1/echo", b"{}\r\n")
    assert call.query == {"a": ["1", "\udcff"], "b": [" x"], "c": [""]}
    assert call.caller.pid == os.getpid()
    assert path.name not in os.listdir(path.parent)


async def test_what_may_change_something_is_told_to_the_log_and_what_reads_is_not(
    path: Path,
) -> None:
    async with running(path) as node:
        for method in (b"GET", b"HEAD", b"OPTIONS"):
            await say(path, (GET % b"/v1/echo").replace(b"GET", method))
        assert node.told == []
        await say(path, POST % (b"/v1/echo", 1) + b"x")
        await say(path, POST % (b"/v1/refuse", 0))
        await say(path, POST % (b"/v1/nothing", 0))
        await say(path, POST % (b"/v1/stream", 0))
    assert node.told[:2] == ["POST /v1/echo 200: echoed", "POST /v1/refuse 422: 1 scope is bad"]
    assert node.told[2].startswith("POST /v1/nothing 404: nothing is here")
    assert node.told[3] == "POST /v1/stream 200"


async def test_a_connection_may_ask_more_than_once(path: Path) -> None:
    async with running(path):
        answer = await say(path, GET % b"/v1/echo" * 2 + POST % (b"/v1/echo", 2) + b"{}")
    assert answer.count(b"HTTP/1.1 200") == 3


async def test_two_calls_at_once_are_served_at_once(path: Path) -> None:
    async with running(path) as node, await trio.open_unix_socket(path) as first:
        await first.send_all(POST % (b"/v1/wait", 0))
        await trio.testing.wait_all_tasks_blocked()
        assert b" 200 OK" in await say(path, GET % b"/v1/echo")
        assert not node.ended.is_set()


@pytest.mark.parametrize(
    ("request_bytes", "status", "tells"),
    [
        (GET % b"/nothing", 404, "POST /v1/echo"),
        (POST % (b"/v1/fail", 2) + b"{}", 405, "use GET here"),
        (GET % b"/v1/refuse", 405, "use POST here"),
        (POST % (b"/v1/refuse", 2) + b"{}", 422, "1 scope is bad"),
        (GET % b"/v1/fail", 500, "error log"),
        (GET % (b"/v1/echo?" + b"a&" * 1001), 400, "1000 fields"),
        (b"nonsense\r\n\r\n", 400, "nothing was done"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000, 431, "nothing was done"),
        (POST % (b"/v1/echo", BODY_BYTES + 1) + b"x" * BODY_BYTES, 413, "at most 16777216 bytes"),
        (POST % (b"/v1/echo", 10**19), 413, "at most"),
        (POST % (b"/v1/echo", 10) + b"half", 400, "nothing was done"),
        (
            b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
            "nothing was done",
        ),
        (
            b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"8000\r\n" + bytes(0x8000) + b"\r\n") * 513,
            413,
            "at most 16777216 bytes",
        ),
        (b"GET /v1/stream HTTP/1.0\r\n\r\n", 505, "HTTP/1.1"),
        (GET % b"/v1/stream?how=refuse", 404, "not stored"),
        (GET % b"/v1/stream?how=fail-at-once", 500, "error log"),
    ],
)
async def test_an_error_is_told_as_a_problem(
    path: Path, request_bytes: bytes, status: int, tells: str
) -> None:
    async with running(path) as node:
        answer = await say(path, request_bytes)
        assert b" 200 OK" in await say(path, GET % b"/v1/echo")
        assert len(node.calls) == 1  # that one alone
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in answer.lower()
    told = document(answer)
    assert (told["status"], "type" in told) == (status, True)
    assert tells in told["detail"]
    assert "secret" not in answer.decode()


async def test_a_method_that_is_not_there_is_answered_with_those_that_are(path: Path) -> None:
    async with running(path):
        answer = await say(path, POST % (b"/v1/fail", 0))
    assert b"\r\nallow: GET, HEAD, OPTIONS\r\n" in answer.lower().replace(
        b"get, head, options", b"GET, HEAD, OPTIONS"
    )


async def test_head_tells_the_length_alone_and_options_the_methods(path: Path) -> None:
    async with running(path):
        got = await say(path, GET % b"/v1/echo")
        head = await say(path, (GET % b"/v1/echo").replace(b"GET", b"HEAD"))
        assert head == got.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        streamed = await say(path, (GET % b"/v1/stream").replace(b"GET", b"HEAD"))
        assert streamed.endswith(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in streamed.lower()
        options = (GET % b"/v1/echo").replace(b"GET", b"OPTIONS")
        assert document(await say(path, options))["methods"] == ["GET", "HEAD", "OPTIONS", "POST"]
        everywhere = options.replace(b"/v1/echo", b"*")
        assert document(await say(path, everywhere))["methods"][-1] == "POST"


async def test_a_fault_in_a_handler_is_told_to_the_log_with_its_place(path: Path) -> None:
    async with running(path) as node:
        await say(path, GET % b"/v1/fail")
    [told] = node.told
    assert told.startswith("GET /v1/fail 500: ZeroDivisionError: secret (test_socket.py:")


async def test_a_name_that_is_not_utf_8_is_told_as_an_escape(path: Path) -> None:
    async with running(path):
        assert document(await say(path, GET % b"/v1/strange")) == {"name": "\udcff"}


async def test_a_body_is_asked_for_where_its_sender_waits(path: Path) -> None:
    head = (POST % (b"/v1/echo", 2)).replace(b"Host", b"Expect: 100-continue\r\nHost")
    async with running(path), await trio.open_unix_socket(path) as stream:
        await stream.send_all(head)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"{}")
        assert b" 200 OK" in await stream.receive_some()


async def test_a_body_of_one_byte_chunks_is_read_in_turns(path: Path) -> None:
    head = b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with running(path):
        answer = await say(path, head + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
    assert document(answer)["size"] == 20_000


async def test_a_caller_that_leaves_half_way_through_a_body_has_changed_nothing(
    path: Path,
) -> None:
    async with running(path) as node:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
            caller.sendall(POST % (b"/v1/echo", 10) + b"half")
            await trio.testing.wait_all_tasks_blocked()
        assert b" 200 OK" in await say(path, GET % b"/v1/echo")
        assert [call.method for call in node.calls] == [b"GET"]


async def test_what_was_begun_is_ended_though_its_caller_left(path: Path) -> None:
    async with running(path) as node:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(POST % (b"/v1/wait", 0))
            await trio.testing.wait_all_tasks_blocked()
        node.gate.set()
        await node.ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert node.told == ["POST /v1/wait 200"]


async def test_bodies_together_are_bounded_and_their_room_is_given_back(path: Path) -> None:
    async with running(path) as node:
        held = []
        for _ in range(BODIES_BYTES // BODY_BYTES):
            held.append(await trio.open_unix_socket(path))
            await held[-1].send_all(POST % (b"/v1/wait", BODY_BYTES) + bytes(BODY_BYTES))
        await trio.testing.wait_all_tasks_blocked(0.05)
        refused = await say(path, POST % (b"/v1/echo", 1) + b"x")
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b" 200 OK" in await say(path, GET % b"/v1/echo")
        node.gate.set()
        for stream in held:
            assert b" 200 OK" in await stream.receive_some()
            await stream.aclose()
        assert b" 200 OK" in await say(path, POST % (b"/v1/echo", 1) + b"x")


# Streams.


async def test_a_stream_comes_in_chunks_and_has_an_end(path: Path) -> None:
    async with running(path):
        answer = await say(path, GET % b"/v1/stream" * 2)
        assert (await say(path, GET % b"/v1/stream?how=empty")).endswith(b"\r\n\r\n0\r\n\r\n")
    assert answer.count(b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n") == 2
    assert b"content-type: text/x" in answer.lower()


async def test_a_stream_that_fails_is_broken_off_and_never_ends_as_if_whole(path: Path) -> None:
    async with running(path) as node:
        answer = await say(path, GET % b"/v1/stream?how=fail")
        assert b" 200 OK" in await say(path, GET % b"/v1/echo")
    assert answer.endswith(b"4\r\none\n\r\n")
    assert node.told[0].startswith("GET /v1/stream broken off: ZeroDivisionError: secret (")


async def test_a_stream_ends_with_its_reader_even_while_it_is_silent(
    path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with running(path) as node:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(GET % b"/v1/stream?how=silent")
            await stream.send_eof()  # which is no farewell
            with trio.move_on_after(5 * module.WATCH_S):
                await stream.receive_some()
            assert not node.ended.is_set()
        with trio.fail_after(5 * module.WATCH_S):
            await node.ended.wait()
        assert node.told == []


async def test_a_stream_whose_reader_leaves_midway_is_no_fault(path: Path) -> None:
    async with running(path) as node:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(GET % b"/v1/stream?how=endless")
            assert await stream.receive_some()
        assert b" 200 OK" in await say(path, GET % b"/v1/echo")
        assert node.told == []


async def test_a_reader_that_stops_reading_is_cut(path: Path, autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with running(path), await trio.open_unix_socket(path) as stream:
        await stream.send_all(GET % b"/v1/stream?how=endless")
        await trio.sleep(module.STALL_S + 1)
        answer = await everything(stream)
    assert answer
    assert not answer.endswith(b"0\r\n\r\n")


# Places and deadlines.


async def test_a_caller_that_says_nothing_is_let_go(path: Path, autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with running(path), await trio.open_unix_socket(path) as idle:
        assert await idle.receive_some() == b""
        assert trio.current_time() >= module.IDLE_S


@pytest.mark.parametrize("begun", [b"GET /v1/ec", POST % (b"/v1/echo", 10) + b"half"])
async def test_a_request_that_stops_half_way_is_told_that_it_did(
    path: Path, autojump_clock: MockClock, begun: bytes
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with running(path) as node, await trio.open_unix_socket(path) as stream:
        await stream.send_all(begun)
        assert (await everything(stream)).startswith(b"HTTP/1.1 408 ")
        assert module.PROGRESS_S <= trio.current_time() < module.PROGRESS_S + 5
        assert node.calls == []


async def test_a_request_that_drips_is_not_waited_for_without_end(
    path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with (
        running(path),
        await trio.open_unix_socket(path) as stream,
        trio.open_nursery() as nursery,
    ):

        async def drip() -> None:
            while True:
                await stream.send_all(b"G")
                await trio.sleep(module.PROGRESS_S / 2)

        nursery.start_soon(drip)
        with trio.fail_after(module.REQUEST_S + 5):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")
        nursery.cancel_scope.cancel()


async def test_callers_past_the_last_place_are_told_so_and_turned_away(path: Path) -> None:
    async with running(path):
        idle = [await trio.open_unix_socket(path) for _ in range(CALLERS)]
        await trio.testing.wait_all_tasks_blocked()
        async with await trio.open_unix_socket(path) as late:
            answer = await everything(late)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert "places are taken" in document(answer)["detail"]
        for stream in idle:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert b" 200 OK" in await say(path, GET % b"/v1/echo")


async def test_a_fault_of_the_transport_ends_one_connection_alone(path: Path) -> None:
    async def strange(call: Call) -> Reply:
        return Reply(200, {}, b"not\r\na field")

    told: list[str] = []
    node = AdminSocket(
        path, {b"/": {b"GET": strange}}, lambda caller, words, done: told.append(words)
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        assert await say(path, GET % b"/") == b""
        assert (await say(path, GET % b"/none")).startswith(b"HTTP/1.1 404 ")
        nursery.cancel_scope.cancel()
    assert told[0].startswith("connection given up: LocalProtocolError: ")


# The file.


async def test_a_file_of_a_dead_node_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert not answers(path)
    async with running(path):
        assert await trio.to_thread.run_sync(answers, path)


async def test_a_live_node_keeps_its_socket(path: Path) -> None:
    async with running(path):
        with pytest.raises(OSError, match="another node"):
            await trio.to_thread.run_sync(AdminSocket, path, {}, print)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(OSError, match="not a socket"):
        AdminSocket(path, {}, print)
    assert path.read_text() == "x"


async def test_at_the_end_a_file_that_is_no_longer_ours_stays(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        async with running(path):
            os.unlink(path)
            other.bind(str(path))
        assert path.name in os.listdir(path.parent)
