"""Purges on their way to shields, which are scripted; on a clock that jumps."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from edge.errors import ExchangeError, Failure
from edge.purging.backlog import EVERYTHING, Backlog
from edge.purging.envoy import BEHIND, PATIENCE_S, SHORT_S, Envoy
from edge.purging.late import Late
from edge.serving.shielding import Voice
from edge.upstream.origin import parse_origin
from edge.wire.message import Headers, RequestHead
from edge.wire.proof import verify
from tests.stories.world import ScriptedOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

    from edge.upstream.origin import Origin
    from tests.stories.line import Line
    from tests.stories.world import Asked

NOW = 1_800_000_000.0
VOICE = Voice(b"fra1", b"0123456789abcdef")
ONE, TWO = "http://one.example:80", "http://two.example:80"
ORDER = b'{"tag":["front"]}'
REFUSED = ExchangeError(Failure.CONNECT_REFUSED, "refused", retry=True)


class Tier:
    """Two shields, the envoy to them, and what it has others do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lines: list[str] = []
        self.aside: dict[str, str] = {}
        self.taken_back = trio.Event()
        self.shields = {"one.example": ScriptedOrigin(), "two.example": ScriptedOrigin()}
        self.one, self.two = self.shields.values()
        self.envoy = self.made()

    def made(self) -> Envoy:
        self.backlog = Backlog(self.root, self.lines.append)
        return Envoy(
            self.backlog,
            aside=self._set_aside,
            back=self._take_back,
            now=lambda: NOW,
            new_id=lambda: "purge-1",
            tell=self.lines.append,
            connect=self._connect,
        )

    async def _set_aside(self, url: str, why: str) -> None:
        self.aside[url] = why
        await trio.lowlevel.checkpoint()

    def _take_back(self, url: str) -> None:
        del self.aside[url]
        self.taken_back.set()

    async def _connect(self, origin: Origin) -> Line:
        return await self.shields[origin.host].connect(origin)

    async def until_paid(self) -> None:
        """Return when a shield is owed nothing any more, and that is on the disk."""
        await self.taken_back.wait()
        await self.backlog.keep()

    @asynccontextmanager
    async def running(self, *urls: str) -> AsyncIterator[Envoy]:
        self.envoy.take_up(map(parse_origin, urls or (ONE, TWO)), VOICE)
        async with trio.open_nursery() as nursery:
            for each in self.shields.values():
                each.nursery = nursery
            nursery.start_soon(self.envoy.run)
            yield self.envoy
            nursery.cancel_scope.cancel()


@pytest.fixture
def tier(tmp_path: Path, autojump_clock: MockClock) -> Tier:
    autojump_clock.autojump_threshold = 0.05  # for the thread that writes to the disk
    return Tier(tmp_path)


async def acknowledge(shield: ScriptedOrigin, times: int = 1) -> list[bytes]:
    """Acknowledge purges; their orders."""
    orders = []
    for _ in range(times):
        asked = await shield.next_request()
        orders.append(await asked.body())
        await asked.reply(200, {}, b'{"status":"ok","id":"17"}\n')
    return orders


def claimed(asked: Asked, authority: bytes) -> Any:
    pairs = [(name.encode(), value.encode()) for name, value in asked.headers.pairs]
    head = RequestHead(asked.method.encode(), b"http", authority, b"/", Headers(pairs))
    return verify([VOICE.secret], head, NOW, 1.0)


async def test_all_shields_are_asked_at_once_and_each_with_a_proof(
    tier: Tier, autojump_clock: MockClock
) -> None:
    got: list[tuple[Late, ...]] = []
    async with tier.running() as envoy, trio.open_nursery() as nursery:

        async def send() -> None:
            got.append(await envoy.send(ORDER))

        nursery.start_soon(send)
        first, second = await tier.one.next_request(), await tier.two.next_request()
        assert (first.method, first.headers["content-type"]) == ("PURGE", "application/json")
        assert (claimed(first, b"one.example").edge, await first.body()) == (b"fra1", ORDER)
        assert claimed(second, b"two.example").client == b"unix"
        await first.reply(200, {}, b"{}")
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        await second.reply(200, {}, b"{}")
    assert got == [()]
    assert (tier.aside, tier.lines) == ({}, [])


async def test_without_shields_nothing_is_done(tier: Tier, autojump_clock: MockClock) -> None:
    assert await tier.envoy.send(ORDER) == ()


async def test_one_that_does_not_answer_is_named_set_aside_and_asked_again(
    tier: Tier, autojump_clock: MockClock
) -> None:
    tier.two.silent = True
    async with tier.running() as envoy, trio.open_nursery() as nursery:
        nursery.start_soon(acknowledge, tier.one)
        began = trio.current_time()
        (late,) = await envoy.send(ORDER)
        assert PATIENCE_S <= trio.current_time() - began < PATIENCE_S + 1
        assert late == Late(TWO, f"no answer within {PATIENCE_S:g} s")
        assert tier.aside == {TWO: BEHIND} == envoy.behind()
        assert Backlog(tier.root, print).count(TWO) == 1  # on the disk already
        tier.two.silent = False
        assert await acknowledge(tier.two) == [ORDER]
        await tier.until_paid()
        assert (tier.aside, envoy.behind()) == ({}, {})
        assert Backlog(tier.root, print).count(TWO) == 0
    assert tier.two.unasked
    assert [line.partition(" has ")[0] for line in tier.lines] == [f"shield {TWO}"] * 2


async def test_further_orders_wait_their_turn_and_not_for_long(
    tier: Tier, autojump_clock: MockClock
) -> None:
    tier.two.trouble = REFUSED
    async with tier.running(TWO) as envoy:
        assert await envoy.send(b"0") != ()
        began = trio.current_time()
        (late,) = await envoy.send(b"1")
        assert SHORT_S <= trio.current_time() - began < PATIENCE_S
        assert late.why == "it has not acknowledged 2 purges"
        tier.two.trouble = None
        async with trio.open_nursery() as nursery:
            got: list[tuple[Late, ...]] = []

            async def send() -> None:
                got.append(await envoy.send(b"2"))

            nursery.start_soon(send)
            assert await acknowledge(tier.two, 3) == [b"0", b"1", b"2"]
        assert got == [()]  # it was waited for, and has come in time
        assert tier.aside == {}


async def test_what_is_sent_later_is_not_waited_for(tier: Tier, autojump_clock: MockClock) -> None:
    async with tier.running(ONE) as envoy:
        for _ in range(2):
            assert await envoy.send(ORDER, later=True) == ()
        assert tier.aside == {ONE: BEHIND}
        assert Backlog(tier.root, print).count(ONE) == 2
        assert await acknowledge(tier.one, 2) == [ORDER] * 2
        await tier.until_paid()


async def test_a_connection_that_died_while_it_was_kept_is_no_failure(
    tier: Tier, autojump_clock: MockClock
) -> None:
    async with tier.running(ONE) as envoy, trio.open_nursery() as nursery:
        nursery.start_soon(acknowledge, tier.one)
        assert await envoy.send(ORDER) == ()
        tier.one.connections[-1].abort()
        nursery.start_soon(acknowledge, tier.one)
        assert await envoy.send(ORDER) == ()
    assert len(tier.one.connections) == 2


@pytest.mark.parametrize(
    ("status", "owed", "why"),
    [
        (400, False, "it answered 400: no"),
        (403, True, "it answered 403"),
        (503, True, "it answered 503: full"),
    ],
)
async def test_what_a_shield_says_instead_is_told(
    tier: Tier, autojump_clock: MockClock, status: int, owed: bool, why: str
) -> None:
    bodies = {400: b'{"detail":"no"}', 403: b"<html>", 503: b'{"detail":"full"}'}

    async def answer() -> None:
        await (await tier.one.next_request()).reply(status, {}, bodies[status])

    async with tier.running(ONE) as envoy, trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await envoy.send(ORDER) == (Late(ONE, why, owed),)
        assert bool(envoy.behind()) is bool(tier.aside) is owed


async def test_an_owed_order_that_is_refused_does_not_hold_up_the_rest(
    tier: Tier, autojump_clock: MockClock
) -> None:
    tier.one.trouble = REFUSED
    async with tier.running(ONE) as envoy:
        await envoy.send(b"0")
        await envoy.send(b"1")
        tier.one.trouble = None
        await (await tier.one.next_request()).reply(400, {}, b'{"detail":"no"}')
        assert await acknowledge(tier.one) == [b"1"]
        await trio.testing.wait_all_tasks_blocked()
        assert tier.aside == {}
    assert f"shield {ONE} refuses a purge that it was owed: it answered 400: no" in tier.lines


async def test_what_is_owed_is_sent_by_the_next_process(
    tier: Tier, autojump_clock: MockClock
) -> None:
    tier.one.trouble = REFUSED
    async with tier.running(ONE) as envoy:
        await envoy.send(ORDER)
    tier.one.trouble, tier.envoy = None, tier.made()
    async with tier.running(ONE) as envoy:
        assert envoy.behind() == {ONE: BEHIND}
        assert await acknowledge(tier.one) == [ORDER]


async def test_other_settings_have_other_shields(tier: Tier, autojump_clock: MockClock) -> None:
    tier.one.trouble = REFUSED
    async with tier.running(ONE) as envoy:
        await envoy.send(ORDER)
        envoy.take_up([parse_origin(TWO)], VOICE)
        assert envoy.behind() == {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(acknowledge, tier.two)
            assert await envoy.send(ORDER) == ()
        envoy.take_up((), None)
        assert await envoy.send(ORDER) == ()


async def test_a_shield_that_cannot_be_asked_at_all_is_named(
    tier: Tier, autojump_clock: MockClock
) -> None:
    tier.envoy._connect = None  # the network, which is not come to
    secure = replace(parse_origin("https://one.example"), ca="/none.pem")
    async with tier.running() as envoy:
        envoy.take_up([secure], VOICE)
        (late,) = await envoy.send(ORDER)
        assert (late.url, late.owed) == ("https://one.example:443", True)
        assert "/none.pem" in late.why


async def test_a_disk_that_fails_is_told_and_the_order_kept_in_mind(
    tier: Tier, autojump_clock: MockClock, tmp_path: Path
) -> None:
    tier.root = tmp_path / "none"
    tier.envoy = tier.made()
    tier.one.trouble = REFUSED
    async with tier.running(ONE) as envoy:
        assert len(await envoy.send(EVERYTHING)) == 1
        assert any("is not on disk" in line for line in tier.lines)
        tier.one.trouble = None
        assert await acknowledge(tier.one) == [EVERYTHING]
