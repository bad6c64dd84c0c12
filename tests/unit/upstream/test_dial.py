"""Connecting: what each failure is called, how long it may take, and how it backs off."""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from edge.errors import ExchangeError, Failure
from edge.upstream.backoff import INTERVAL_S, PATIENCE_S, TOLERATED
from edge.upstream.dial import ADDRESSES, Dialer, resolve, tls_context
from edge.upstream.origin import Origin
from tests.unit.upstream.memory import StreamTransport

if TYPE_CHECKING:
    from pathlib import Path

    from edge.upstream.transport import Transport

ORIGIN = Origin("http", "origin.example", 80)


class Server:
    """An origin that is reached, or not, as the test says."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.takes_s = 0.0
        self.attempts: list[float] = []

    async def connect(self, origin: Origin) -> Transport:
        self.attempts.append(trio.current_time())
        await trio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return StreamTransport(trio.testing.memory_stream_pair()[0])


async def failure_of(dialer: Dialer) -> ExchangeError:
    with pytest.raises(ExchangeError) as caught:
        await dialer.open()
    return caught.value


async def in_trouble(server: Server, **changes: Any) -> Dialer:
    dialer = Dialer(replace(ORIGIN, **changes), server.connect)
    server.error = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    for _ in range(TOLERATED + 1):
        await failure_of(dialer)
    server.attempts.clear()
    return dialer


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Failure.CONNECT_REFUSED),
        (OSError(errno.EHOSTUNREACH, "unreachable"), Failure.CONNECT_REFUSED),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), Failure.CONNECT_TIMEOUT),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), Failure.NAME_UNKNOWN),
        (UnicodeError("label too long"), Failure.NAME_UNKNOWN),
        (ssl.SSLCertVerificationError("wrong name"), Failure.TLS_FAILED),
        (ssl.SSLEOFError("cut"), Failure.TLS_FAILED),
        (trio.BrokenResourceError("reset"), Failure.CONNECT_REFUSED),
        (OSError(errno.EMFILE, "too many open files"), Failure.OVERLOADED),
    ],
)
async def test_every_way_to_fail_has_its_name_and_may_be_tried_again(
    error: Exception, failure: Failure, autojump_clock: Any
) -> None:
    server = Server()
    server.error = error
    caught = await failure_of(Dialer(ORIGIN, server.connect))
    assert caught.failure is failure
    assert caught.retry
    assert caught.__cause__ is error


async def test_a_connection_that_takes_too_long_is_given_up(autojump_clock: Any) -> None:
    server = Server()
    server.takes_s = 3600
    caught = await failure_of(Dialer(ORIGIN, server.connect))
    assert caught.failure is Failure.CONNECT_TIMEOUT
    assert caught.retry
    assert trio.current_time() == pytest.approx(ORIGIN.connect_s)


async def test_an_origin_that_is_down_is_tried_at_intervals_however_many_ask(
    autojump_clock: Any,
) -> None:
    server = Server()
    dialer = await in_trouble(server)
    began = trio.current_time()
    waits: list[float] = []

    async def ask() -> None:
        asked = trio.current_time()
        assert (await failure_of(dialer)).failure is Failure.CONNECT_REFUSED
        waits.append(trio.current_time() - asked)

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(ask)
            await trio.sleep(0.01)
    elapsed = trio.current_time() - began
    assert elapsed / INTERVAL_S - 2 <= len(server.attempts) <= elapsed / INTERVAL_S + 1
    assert max(waits) <= PATIENCE_S + 0.001


async def test_an_origin_that_is_back_serves_everyone_within_an_interval(
    autojump_clock: Any,
) -> None:
    server = Server()
    dialer = await in_trouble(server)
    server.error = None
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(dialer.open)
    assert trio.current_time() - began <= INTERVAL_S + 0.001
    assert not dialer.backoff.troubled
    await dialer.open()
    assert trio.current_time() - began <= INTERVAL_S + 0.001


async def test_no_one_waits_long_for_an_attempt_that_hangs(autojump_clock: Any) -> None:
    server = Server()
    dialer = await in_trouble(server)
    server.takes_s = 3600
    async with trio.open_nursery() as nursery:
        nursery.start_soon(failure_of, dialer)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        assert "backing off" in (await failure_of(dialer)).detail
        assert trio.current_time() - began == pytest.approx(PATIENCE_S)
    assert len(server.attempts) == 1


async def test_when_the_one_who_tries_leaves_another_takes_over(autojump_clock: Any) -> None:
    server = Server()
    dialer = await in_trouble(server)
    server.error = None
    with trio.CancelScope() as leaving:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialer.open)
            await trio.testing.wait_all_tasks_blocked()
            leaving.cancel()
    await dialer.open()

    dialer = await in_trouble(server)
    server.error = None
    scope = trio.CancelScope()

    async def lead() -> None:
        with scope:
            await dialer.open()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lead)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(dialer.open)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    assert len(server.attempts) == 1


async def test_our_own_lack_of_descriptors_is_not_held_against_the_origin(
    autojump_clock: Any,
) -> None:
    server = Server()
    server.error = OSError(errno.EMFILE, "too many open files")
    dialer = Dialer(ORIGIN, server.connect)
    for _ in range(10):
        await failure_of(dialer)
    assert not dialer.backoff.troubled


class Names(trio.abc.HostnameResolver):
    """A resolver that knows one name."""

    def __init__(self, v6: int, v4: int) -> None:
        self._found: list[Any] = [
            (family, socket.SOCK_STREAM, 6, "", (f"{prefix}{number}", 80))
            for family, prefix, count in (
                (socket.AF_INET6, "2001:db8::", v6),
                (socket.AF_INET, "192.0.2.", v4),
            )
            for number in range(1, count + 1)
        ]

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        return self._found * 2

    async def getnameinfo(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


async def test_both_families_are_tried_in_turn_each_address_once() -> None:
    trio.socket.set_custom_hostname_resolver(Names(v6=2, v4=3))
    places = [place[0] for _, place in await resolve("origin.example", 80)]
    assert places == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]


async def test_a_name_with_many_addresses_costs_few_attempts() -> None:
    trio.socket.set_custom_hostname_resolver(Names(v6=50, v4=50))
    assert len(await resolve("origin.example", 80)) == ADDRESSES


def test_https_is_verified_and_http_is_not_tls(tmp_path: Path) -> None:
    assert tls_context(ORIGIN) is None
    context = tls_context(replace(ORIGIN, scheme="https"))
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_private_authority_that_cannot_be_read_is_told_when_it_is_set(tmp_path: Path) -> None:
    nonsense = tmp_path / "ca.pem"
    nonsense.write_text("no certificate")
    for path in (str(nonsense), str(tmp_path / "missing.pem")):
        with pytest.raises(ValueError, match="cannot be used"):
            tls_context(replace(ORIGIN, scheme="https", ca=path))


async def test_who_only_looks_is_not_held_back_and_holds_nobody_back(autojump_clock: Any) -> None:
    server = Server()
    dialer = await in_trouble(server)
    for _ in range(5):
        with pytest.raises(ExchangeError):
            await dialer.open_once()
    assert [each - server.attempts[0] for each in server.attempts] == [0.0] * 5
    assert dialer.backoff.failures == TOLERATED + 1
    server.error = None
    await dialer.open_once()
    assert dialer.backoff.troubled
