"""Active checks as dialogues with scripted servers over socket pairs, on a clock that jumps."""

from __future__ import annotations

import errno
import socket
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ExchangeError, Failure
from edge.upstream.dial import Dialer
from edge.upstream.origin import Origin, parse_origin
from edge.upstream.probe import (
    AT_ONCE,
    BODY_BYTES,
    JITTER,
    WHY_CHARS,
    Checkable,
    CheckPolicy,
    Health,
    Prober,
    Verdict,
    check,
)
from edge.upstream.transport import SocketTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from edge.upstream.transport import Transport

ORIGIN = Origin("http", "eu-1.example", 80)
POLICY = CheckPolicy(path=b"/healthz", every_s=10.0, timeout_s=1.0, down_after=3, up_after=2)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


class Servers:
    """All servers there are: each answers with `answer`, after `delay_s`, or cannot be reached."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.delay_s = 0.0
        self.error: Exception | None = None
        self.asked: list[bytes] = []
        self.when: list[tuple[str, float]] = []
        self.at_once = self.most_at_once = 0
        self.nursery: trio.Nursery | None = None
        self.transports: list[SocketTransport] = []

    async def connect(self, origin: Origin) -> Transport:
        self.when.append((origin.host, trio.current_time()))
        if self.error is not None:
            raise self.error
        await trio.lowlevel.checkpoint()
        ours, theirs = socket.socketpair()
        assert self.nursery is not None
        self.transports.append(SocketTransport(theirs))
        self.nursery.start_soon(self._serve, self.transports[-1])
        return SocketTransport(ours)

    async def _serve(self, transport: SocketTransport) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            asked = b""
            while b"\r\n\r\n" not in asked:
                data = await transport.receive_some()
                if not data:
                    return
                asked += data
            self.asked.append(asked)
            await trio.sleep(self.delay_s)
            await transport.send_all(self.answer)
            if not self.answer.endswith(b"..."):  # what goes on is not closed by us
                await transport.send_eof()
            assert await transport.receive_some() == b""  # the checker closes
        except trio.BrokenResourceError:
            pass
        finally:
            self.at_once -= 1
            transport.close()


@asynccontextmanager
async def serving(servers: Servers) -> AsyncIterator[Servers]:
    try:
        async with trio.open_nursery() as servers.nursery:
            yield servers
            servers.nursery.cancel_scope.cancel()
    finally:
        for each in servers.transports:  # also of those that were not served yet
            each.close()


class Told:
    """What a prober told, and when."""

    def __init__(self) -> None:
        self.verdicts: list[tuple[str, Verdict]] = []
        self.when: list[float] = []
        self.lines: list[str] = []
        self._news = trio.Event()

    def __call__(self, server_id: str, verdict: Verdict) -> None:
        self.verdicts.append((server_id, verdict))
        self.when.append(trio.current_time())
        self._news.set()

    async def of(self, count: int) -> Verdict:
        """The verdict with this number."""
        with trio.fail_after(1_000):
            while len(self.verdicts) < count:
                self._news = trio.Event()
                await self._news.wait()
        return self.verdicts[count - 1][1]


@asynccontextmanager
async def probing(
    servers: Servers,
    *checked: Checkable,
    random: Callable[[], float] = lambda: 0.5,
    known: dict[str, bool] | None = None,
    at_once: int = AT_ONCE,
) -> AsyncIterator[tuple[Prober, Told]]:
    told = Told()
    async with serving(servers), trio.open_nursery() as nursery:
        prober = Prober(told, told.lines.append, random, connect=servers.connect, at_once=at_once)
        prober.take_up(checked, known)
        nursery.start_soon(prober.run)
        yield prober, told
        nursery.cancel_scope.cancel()


def server(name: str = "eu-1", policy: CheckPolicy = POLICY, **changes: Any) -> Checkable:
    origin = replace(ORIGIN, host=f"{name}.example")
    return Checkable(f"eu http://{name}.example", origin, replace(policy, **changes))


# --- one check


async def checked(servers: Servers, origin: Origin = ORIGIN, **changes: Any) -> str | None:
    async with serving(servers):
        try:
            return await check(Dialer(origin, servers.connect), replace(POLICY, **changes))
        except ExchangeError as error:  # not within the group that a nursery makes
            failed = error
    raise failed


async def test_a_check_asks_for_the_page_by_the_servers_own_name(autojump_clock: Any) -> None:
    servers = Servers()
    assert await checked(servers) is None
    (asked,) = servers.asked
    head, *lines = asked.lower().split(b"\r\n")
    assert head == b"get /healthz http/1.1"
    assert {b"host: eu-1.example", b"connection: close", b"cache-control: no-cache"} <= {*lines}


async def test_a_check_may_ask_by_another_name(autojump_clock: Any) -> None:
    servers = Servers()
    assert await checked(servers, host=b"shop.example") is None
    assert b"\r\nhost: shop.example\r\n" in servers.asked[0].lower()


@pytest.mark.parametrize(
    ("answer", "changes", "why"),
    [
        (OK, {}, None),
        (BUSY, {}, "status 503, not 200"),
        (BUSY, {"statuses": frozenset({503, 200})}, None),
        (OK, {"statuses": frozenset({204, 301})}, "status 200, not 204 or 301"),
        (OK, {"body": b"ok"}, None),
        (OK, {"body": b"fine"}, 'no "fine" in the first 64 KiB of the body'),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 70_000 + b"ok", {"body": b"ok"}, 'no "ok" in'),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 65_534 + b"ok", {"body": b"ok"}, None),
        (b"HTTP/1.1 103 Early\r\n\r\n" + OK, {"body": b"ok"}, None),
        (b"", {}, "closed without an answer"),
        (b"SSH-2.0\r\n\r\n", {}, "bad-response: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", {"body": b"fine"}, "body-truncated"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n...",
            {"body": b"ok"},
            "no answer within 1 s",
        ),
    ],
)
async def test_a_check_is_good_where_status_and_text_are_as_expected(
    autojump_clock: Any, answer: bytes, changes: dict[str, Any], why: str | None
) -> None:
    found = await checked(Servers(answer), **changes)
    if why is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(why)


async def test_text_is_found_across_pieces_and_not_beyond_its_bound(autojump_clock: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = b"".join(b"1\r\n%c\r\n" % each for each in b"all is well")
    assert await checked(Servers(head + pieces + b"0\r\n\r\n"), body=b"is we") is None
    long = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (BODY_BYTES - 1) + b"ok"
    assert await checked(Servers(long), body=b"ok") is not None


async def test_a_check_takes_no_longer_than_it_may(autojump_clock: Any) -> None:
    servers = Servers()
    servers.delay_s = 5.0
    began = trio.current_time()
    why = await checked(servers)
    assert why is not None
    assert "1 s" in why
    assert trio.current_time() - began == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "refused"),
        (socket.gaierror(socket.EAI_NONAME, "x" * 500), "name-unknown: "),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "refused"),
    ],
)
async def test_a_server_that_cannot_be_reached_is_told_why(
    autojump_clock: Any, error: Exception, why: str
) -> None:
    servers = Servers()
    servers.error = error
    found = await checked(servers)
    assert found is not None
    assert found.startswith(why)
    assert len(found) <= WHY_CHARS


async def test_what_we_lack_says_nothing_of_a_server(autojump_clock: Any) -> None:
    servers = Servers()
    servers.error = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(ExchangeError) as caught:
        await checked(servers)
    assert caught.value.failure is Failure.OVERLOADED


async def test_a_request_that_cannot_be_made_says_nothing_of_a_server(
    autojump_clock: Any,
) -> None:
    with pytest.raises(ExchangeError) as caught:
        await checked(Servers(), path=b"/a b")
    assert caught.value.failure is Failure.INTERNAL


# --- rows of checks


@given(
    st.lists(st.booleans(), max_size=60),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([None, True, False]),
)
def test_a_verdict_changes_where_a_row_is_as_long_as_it_has_to_be(
    checks: list[bool], down_after: int, up_after: int, known: bool | None
) -> None:
    health = Health(CheckPolicy(down_after=down_after, up_after=up_after), known)
    for number, is_good in enumerate(checks, 1):
        before = health.is_up
        verdict = health.good() if is_good else health.bad("why")
        assert (verdict is not None) == (health.is_up is not before)
        if verdict is None:
            continue
        needed = (1 if before is None else up_after) if is_good else down_after
        assert verdict == Verdict(is_good, "" if is_good else "why", verdict.checks)
        assert verdict.checks >= needed
        assert checks[number - needed : number] == [is_good] * needed


def test_every_field_of_the_policy_is_described() -> None:
    assert all(each.metadata["says"] for each in fields(CheckPolicy))
    assert all("unit" in each.metadata for each in fields(CheckPolicy))


# --- a prober


async def test_a_server_goes_down_after_so_many_bad_checks_and_up_after_good_ones(
    autojump_clock: Any,
) -> None:
    servers = Servers()
    async with probing(servers, server()) as (_, told):
        assert await told.of(1) == Verdict(True, "", 1)
        servers.answer = BUSY
        assert await told.of(2) == Verdict(False, "status 503, not 200", 3)
        servers.error = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        await trio.sleep(100)  # no news
        servers.answer, servers.error = OK, None
        assert await told.of(3) == Verdict(True, "", 2)
    assert {name for name, _ in told.verdicts} == {"eu http://eu-1.example"}
    assert told.lines == [
        "origin eu: http://eu-1.example is up; 1 check passed",
        "origin eu: http://eu-1.example is down: status 503, not 200; 3 checks failed",
        "origin eu: http://eu-1.example is up; 2 checks passed",
    ]
    assert told.when[1] - told.when[0] == pytest.approx(30, abs=0.1)
    assert servers.at_once == 0


async def test_a_server_known_to_be_down_has_to_come_up_and_is_not_told_again(
    autojump_clock: Any,
) -> None:
    servers = Servers(BUSY)
    async with probing(servers, server(), known={"eu http://eu-1.example": False}) as (_, told):
        await trio.sleep(100)
        assert told.verdicts == []
        servers.answer = OK
        assert await told.of(1) == Verdict(True, "", 2)


async def test_a_row_of_bad_checks_with_a_good_one_in_it_is_no_row(autojump_clock: Any) -> None:
    servers = Servers()
    async with probing(servers, server()) as (_, told):
        await told.of(1)
        await trio.sleep(5)  # from here on never just when there is a check
        for answer in (BUSY, BUSY, OK, BUSY, BUSY, OK):
            servers.answer = answer
            await trio.sleep(10)
        assert len(told.verdicts) == 1


async def test_our_own_lack_is_told_and_neither_ends_a_row_nor_lengthens_it(
    autojump_clock: Any,
) -> None:
    servers = Servers(BUSY)
    lack = OSError(errno.EMFILE, "Too many open files")
    async with probing(servers, server()) as (_, told):
        for error in (None, lack, None, lack, lack, lack):
            servers.error = error
            await trio.sleep(10)
        assert told.verdicts == []
        servers.error = None
        assert (await told.of(1)).checks == 3
    assert told.lines[0].startswith(
        "origin eu: http://eu-1.example cannot be checked: overloaded: "
    )


async def test_checks_begin_spread_out_and_their_intervals_vary(autojump_clock: Any) -> None:
    servers, rolls = Servers(), iter([0.1, 0.9, *[0.0, 1.0] * 50])
    names = [server("eu-1"), server("eu-2")]
    async with probing(servers, *names, random=lambda: next(rolls)) as _:
        began = trio.current_time()
        await trio.sleep(95)
    times: dict[str, list[float]] = {}
    for name, when in servers.when:
        times.setdefault(name, []).append(when - began)
    firsts = sorted(each[0] for each in times.values())
    assert firsts == pytest.approx([1.0, 9.0])
    for each in times.values():
        apart = [two - one for one, two in pairwise(each)]
        assert all(10 * (1 - JITTER) - 0.01 <= gap <= 10 * (1 + JITTER) + 0.01 for gap in apart)
    gaps = {round(b - a) for each in times.values() for a, b in pairwise(each)}
    assert gaps == {9, 11}


async def test_only_so_many_are_checked_at_a_time_and_who_waits_is_not_late(
    autojump_clock: Any,
) -> None:
    servers = Servers()
    servers.delay_s = 0.9
    names = [server(f"eu-{number}") for number in range(20)]
    async with probing(servers, *names, at_once=4, random=lambda: 0.0) as (_, told):
        await told.of(20)
        assert trio.current_time() >= 0.9 * 4
    assert servers.most_at_once == 4
    assert all(verdict.is_up for _, verdict in told.verdicts)


async def test_new_settings_begin_new_checks_and_end_old_ones(autojump_clock: Any) -> None:
    servers = Servers(BUSY)
    one, two = server("eu-1"), server("eu-2")
    async with probing(servers, one) as (prober, told):
        await trio.sleep(16)  # two bad ones so far
        prober.take_up([one, two])
        assert (await told.of(1)).checks == 3  # it went on as it was
        await told.of(2)
        await trio.sleep(3)  # from here on never just when there is a check
        prober.take_up([two])
        servers.when.clear()
        await trio.sleep(100)
        assert {name for name, _ in servers.when} == {"eu-2.example"}
        prober.take_up([server("eu-2", every_s=20.0)])
        servers.when.clear()
        await trio.sleep(100)
        assert len(servers.when) == 5
        prober.take_up([])
        servers.when.clear()
        await trio.sleep(100)
        assert servers.when == []


async def test_a_server_that_cannot_be_asked_changes_nothing(autojump_clock: Any) -> None:
    told = Told()
    prober = Prober(told, told.lines.append, lambda: 0.0)
    bad = Checkable(
        "us https://us.example", Origin("https", "us.example", 443, ca="/none"), POLICY
    )
    with pytest.raises(ValueError, match='ca: "/none" cannot be used'):
        prober.take_up([server(), bad])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prober.run)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert told.verdicts == []


@pytest.mark.live
async def test_a_real_server_that_comes_and_goes_is_told_up_and_down() -> None:
    told = Told()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    origin = parse_origin(f"http://127.0.0.1:{port}")
    policy = CheckPolicy(every_s=0.05, timeout_s=2.0, down_after=2, up_after=2, body=b"ok")

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65_536)
            await stream.send_all(OK)

    async with trio.open_nursery() as nursery:
        prober = Prober(told, told.lines.append, lambda: 0.5)
        prober.take_up([Checkable(f"eu http://127.0.0.1:{port}", origin, policy)])
        nursery.start_soon(prober.run)
        for flap in range(3):
            listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
            async with trio.open_nursery() as up:
                up.start_soon(trio.serve_listeners, serve, listeners)
                assert (await told.of(2 * flap + 1)).is_up
                up.cancel_scope.cancel()
            assert not (await told.of(2 * flap + 2)).is_up
            listener = socket.create_server(("127.0.0.1", port))
        listener.close()
        nursery.cancel_scope.cancel()
    assert any(
        f"http://127.0.0.1:{port} is down: refused; 2 checks failed" in line for line in told.lines
    )
