"""One process asks another: the whole answer, or `Unanswered`; never a part as the whole."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from edge.admin import desk as desk_module
from edge.admin.call import Call, Reply
from edge.admin.desk import Desk, Unanswered
from edge.admin.socket import AdminSocket
from tests.unit.desks import at_desk, breaking_off
from tests.unit.observe.test_tally import killed
from tests.unit.standin import refusing, replying, streaming

if TYPE_CHECKING:
    from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


async def echo(call: Call) -> Reply:
    return Reply(200, {"path": call.path.decode(), "query": call.query, "size": len(call.body)})


async def test_a_call_is_answered_with_a_document(path: Path) -> None:
    async with at_desk(path, {b"/v1/echo": {b"POST": echo}}) as desk:
        told = await desk.document(b"POST", b"/v1/echo?a=1", bytes(1 << 20))
    assert told == (200, {"path": "/v1/echo", "query": {"a": ["1"]}, "size": 1 << 20})


async def test_a_refusal_comes_with_its_document(path: Path) -> None:
    async with at_desk(path, {}) as desk:
        status, document = await desk.document(b"GET", b"/v1/none")
    assert (status, document["type"]) == (404, "about:blank")


async def test_a_stream_is_handed_on_piece_by_piece_with_its_kind(path: Path) -> None:
    routes = {b"/": {b"GET": streaming(b"one", b"two")}}
    async with at_desk(path, routes) as desk, desk.asked(b"GET", b"/") as answer:
        assert (answer.status, answer.content_type) == (200, b"application/x-ndjson")
        assert [piece async for piece in answer.pieces] == [b"one", b"two"]


async def test_who_leaves_in_the_middle_of_a_stream_leaves_nothing_behind(path: Path) -> None:
    async with at_desk(path, {b"/": {b"GET": streaming(b"x" * 9_999, times=9_999)}}) as desk:
        async with desk.asked(b"GET", b"/") as answer:
            assert (await anext(answer.pieces)).startswith(b"x")
        assert (await desk.document(b"GET", b"/none"))[0] == 404


async def test_text_that_is_no_utf_8_is_told_as_it_was(path: Path) -> None:
    async with at_desk(path, {b"/": {b"GET": replying({"name": "\udcff"})}}) as desk:
        assert await desk.document(b"GET", b"/") == (200, {"name": "\udcff"})


async def test_nobody_there_is_unanswered(path: Path) -> None:
    with pytest.raises(Unanswered, match="No such file"):
        await Desk(str(path)).document(b"GET", b"/")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        HEAD,
        HEAD + b"Content-Length: 10\r\n\r\n{}",
        CHUNKED + b"2\r\n{}\r\n",
        CHUNKED + b"2\r\n{}\r\n0\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        HEAD + b"Content-Length: 5\r\n\r\nwords",
        HEAD + b"Content-Length: 2\r\n\r\n[]",
    ],
)
async def test_what_is_not_a_whole_document_is_unanswered(path: Path, said: bytes) -> None:
    async with breaking_off(path, said) as desk:
        with pytest.raises(Unanswered):
            await desk.document(b"POST", b"/", b"{}")


async def test_a_stream_that_fails_is_unanswered_after_its_pieces(path: Path) -> None:
    routes = {b"/": {b"GET": streaming(b"one", then=ValueError("bad"))}}
    seen = []
    async with at_desk(path, routes) as desk:
        with pytest.raises(Unanswered):
            async with desk.asked(b"GET", b"/") as answer:
                async for piece in answer.pieces:
                    seen.append(piece)  # noqa: PERF401 - what came before it failed
    assert seen == [b"one"]


async def test_a_fault_in_the_other_process_is_a_status_and_not_silence(path: Path) -> None:
    async with at_desk(path, {b"/": {b"GET": refusing(ValueError("bad"))}}) as desk:
        assert (await desk.document(b"GET", b"/"))[0] == 500


async def test_an_answer_without_end_is_not_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "ANSWER_BYTES", 100)
    async with at_desk(path, {b"/": {b"GET": streaming(b"x" * 60, times=1_000)}}) as desk:
        with pytest.raises(Unanswered, match="does not end"):
            await desk.document(b"GET", b"/")


async def test_a_process_that_is_killed_amid_an_answer_has_not_answered(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        child = os.fork()
        if child == 0:
            try:
                accepted, _ = listener.accept()
                accepted.recv(65_536)
                accepted.sendall(CHUNKED + b"3\r\none\r\n")
                signal.pause()
            finally:
                os._exit(1)
        with pytest.raises(Unanswered):
            async with Desk(str(path)).asked(b"GET", b"/") as answer:
                async for piece in answer.pieces:
                    assert piece == b"one"
                    killed(child)


async def test_who_asks_one_that_has_died_waits_for_the_next(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    listener.setblocking(False)
    told: list[int] = []

    async def ask() -> None:
        told.append((await Desk(str(path)).document(b"POST", b"/", b"{}"))[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert not told
        routes = {b"/": {b"POST": echo}}
        successor = AdminSocket(path, routes, lambda *_: None, listener=listener)
        async with trio.open_nursery() as its:
            its.start_soon(successor.run)
            while not told:
                await trio.testing.wait_all_tasks_blocked()
            its.cancel_scope.cancel()
    assert told == [200]
    assert path.name in os.listdir(path.parent)  # it is somebody else's
