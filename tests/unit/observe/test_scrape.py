from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from edge.config import Address
from edge.observe import scrape
from edge.observe.scrape import CALLERS, FRESH_S, REQUEST_S, SEND_S, Scrapes, publishing
from edge.observe.tally import Tallies
from tests.unit.scraped import scraped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


class Node:
    """Two workers' tallies behind a port; `told` is what the log was told."""

    def __init__(self) -> None:
        self.tallies = Tallies(3)
        self.workers = [self.tallies.take(number, 1.0) for number in (0, 2)]
        self.told: list[str] = []
        self.scrapes = Scrapes(Address("127.0.0.1", 0), self.tallies, self.told.append)
        self.port = int(self.scrapes.address.rpartition(":")[2])

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def say(self, data: bytes) -> tuple[bytes, bytes]:
        """Head and body of what is answered until the node closes."""
        async with await self.connect() as stream:
            await stream.send_all(data)
            return await heard(stream)

    def count(self) -> None:
        for worker in self.workers:
            worker.add(worker.row("hit", "hit", 200, None), 5, 0.0, 0.0, hit=True)


async def heard(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    answer = b""
    async for piece in stream:
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


@asynccontextmanager
async def running() -> AsyncIterator[Node]:
    node = Node()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.scrapes.run)
            yield node
            nursery.cancel_scope.cancel()


async def test_the_total_of_all_workers_is_told() -> None:
    async with running() as node:
        node.count()
        head, body = await node.say(GET)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
    assert b"connection: close" in head
    assert b"content-length: %d\r\n" % len(body) in head
    read = scraped(body)
    assert read.one("edge_requests_total", cache="hit", reason="hit", status="2xx") == 2
    assert read.one("edge_worker_starts_total") == 2


async def test_each_worker_is_told_apart_where_that_is_asked_for() -> None:
    async with running() as node:
        node.count()
        _, body = await node.say(GET.replace(b"/metrics", b"/metrics?by=worker"))
    read = scraped(body)
    for worker in ("0", "2"):
        assert read.one("edge_sent_bytes_total", hit="true", worker=worker) == 5
    assert read.all("edge_sent_bytes_total", worker="1") == 0


async def test_head_tells_the_same_without_the_text() -> None:
    async with running() as node:
        got, _ = await node.say(GET)
        assert await node.say(GET.replace(b"GET", b"HEAD")) == (got, b"")


@pytest.mark.parametrize(
    ("request_bytes", "status", "tells"),
    [
        (GET.replace(b"/metrics", b"/"), 404, b"nothing is here but /metrics"),
        (GET.replace(b"/metrics", b"/metrics/"), 404, b"nothing is here"),
        (GET.replace(b"/metrics", b"/v1/status"), 404, b"nothing is here"),
        (GET.replace(b"/metrics", b"/metrics?by=site"), 400, b"/metrics?by=worker"),
        (GET.replace(b"GET", b"POST"), 405, b"GET or HEAD"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", 405, b"GET"),
        (b"nonsense\r\n\r\n", 400, b""),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 50_000, 431, b""),
    ],
)
async def test_whatever_else_is_asked_is_refused_and_the_next_is_answered(
    request_bytes: bytes, status: int, tells: bytes
) -> None:
    async with running() as node:
        head, body = await node.say(request_bytes)
        assert (await node.say(GET))[0].startswith(b"HTTP/1.1 200 ")
        assert node.told == []
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert tells in body
    assert (b"\r\nallow: GET, HEAD" in head) == (status == 405)


async def test_many_who_ask_at_once_have_the_text_made_once(
    autojump_clock: MockClock,
) -> None:
    async with running() as node:
        before = await node.say(GET)
        node.count()
        assert await node.say(GET) == before
        await trio.sleep(FRESH_S)
        assert await node.say(GET) != before


async def test_who_does_not_ask_is_let_go(mock_clock: MockClock) -> None:
    async with running() as node:
        silent = await node.connect()
        slow = await node.connect()
        await slow.send_all(GET[:20])
        await settled(node, 2)
        mock_clock.jump(REQUEST_S)
        assert await silent.receive_some() == b""
        assert await slow.receive_some() == b""
        await silent.aclose()
        await slow.aclose()


async def test_a_caller_too_many_is_told_so_and_a_place_that_comes_free_is_given(
    mock_clock: MockClock,
) -> None:
    async with running() as node:
        silent = [await node.connect() for _ in range(CALLERS)]
        await settled(node, CALLERS)
        async with await node.connect() as late:
            head, body = await heard(late)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"all 16 places are taken" in body
        await silent.pop().aclose()
        await settled(node, CALLERS - 1)
        assert (await node.say(GET))[0].startswith(b"HTTP/1.1 200 ")
        for each in silent:
            await each.aclose()


async def settled(node: Node, callers: int) -> None:
    """Returns when so many places are taken."""
    while node.scrapes._places.borrowed_tokens != callers:
        await trio.testing.wait_all_tasks_blocked()


async def test_who_does_not_read_harms_no_one_and_is_let_go(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as node:
        # More than the kernel takes for one that does not read.
        monkeypatch.setattr(scrape, "exposition", lambda *_, **__: bytes(32 << 20))
        async with await node.connect() as stuck:
            await stuck.send_all(GET)
            await settled(node, 1)
            await trio.testing.wait_all_tasks_blocked(0.01)
            monkeypatch.undo()
            node.scrapes._texts.clear()
            assert (await node.say(GET))[0].startswith(b"HTTP/1.1 200 ")
            mock_clock.jump(SEND_S)
            await settled(node, 0)


async def test_who_leaves_in_the_middle_is_not_worth_a_word() -> None:
    async with running() as node:
        stream = await node.connect()
        await stream.send_all(GET[:20])
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await node.say(GET))[0].startswith(b"HTTP/1.1 200 ")
        assert node.told == []


async def test_a_fault_of_ours_ends_one_scrape_and_is_told_to_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise ZeroDivisionError("no workers")

    async with running() as node:
        monkeypatch.setattr(scrape, "exposition", fail)
        assert await node.say(GET) == (b"", b"")
        assert node.told == ["a scrape failed: ZeroDivisionError: no workers"]
        monkeypatch.undo()
        assert (await node.say(GET))[0].startswith(b"HTTP/1.1 200 ")


async def test_an_address_in_use_is_refused_when_it_is_made() -> None:
    node = Node()
    with pytest.raises(OSError, match="cannot listen on"):
        Scrapes(Address("127.0.0.1", node.port), node.tallies, node.told.append)
    node.scrapes.close()
    Scrapes(Address("127.0.0.1", node.port), node.tallies, node.told.append).close()


async def test_numbers_are_published_again_and_again_and_at_the_end(
    autojump_clock: MockClock,
) -> None:
    published: list[float] = []
    with trio.move_on_after(2.5):
        await publishing(lambda: published.append(trio.current_time()))
    assert [round(at - published[0], 3) for at in published] == [0.0, 1.0, 2.0, 2.5]
