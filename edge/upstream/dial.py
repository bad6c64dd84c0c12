"""Making one connection to an origin: name, TCP, TLS; and what each way to fail is called.

All addresses of the name are tried, IPv6 and IPv4 in turn, each a quarter of a second after the
one before it or as soon as that one has failed; the first to connect wins (RFC 8305). All of it
together, the TLS handshake included, has `connect_s`.

What fails here is safe to retry: no byte of a request has been sent.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from contextlib import ExitStack
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from edge.errors import ExchangeError, Failure
from edge.upstream.backoff import PATIENCE_S, Backoff
from edge.upstream.tls import TlsTransport
from edge.upstream.transport import SocketTransport, Transport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from edge.upstream.origin import Origin

Address: TypeAlias = tuple[socket.AddressFamily, Any]

STAGGER_S: Final = 0.25  # RFC 8305 §5 recommends 250 ms
ADDRESSES: Final = 8  # a name with hundreds of addresses must not cost hundreds of sockets
# Our own lack of descriptors, ports or memory says nothing about the origin.
_OURS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)


def tls_context(origin: Origin) -> ssl.SSLContext | None:
    """What `https` origins are verified with; None for `http`.

    Raises `ValueError` with a sentence for the operator where `ca` cannot be used.
    """
    if origin.scheme != "https":
        return None
    try:
        context = ssl.create_default_context(cafile=origin.ca)
    except OSError as error:
        raise ValueError(f'ca: "{origin.ca}" cannot be used: {error}') from error
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Connects to one origin, gently while it cannot be reached (see `backoff`)."""

    def __init__(
        self, origin: Origin, connect: Callable[[Origin], Awaitable[Transport]] | None = None
    ) -> None:
        self.origin = origin
        self.backoff = Backoff()
        self._tls = tls_context(origin) if connect is None else None
        self._connect = connect or self._connect_by_network
        self._probe: trio.Event | None = None

    async def open(self) -> Transport:
        """A new connection; raises `ExchangeError`, always with `retry`."""
        give_up = trio.current_time() + PATIENCE_S
        while self.backoff.troubled:
            if self._probe is None:
                return await self._try_when_due()
            seen = self.backoff.failures
            with trio.move_on_at(give_up) as waiting:
                await self._probe.wait()
            if waiting.cancelled_caught or self.backoff.failures > seen:
                raise self._last_failure()
        return await self._attempt()

    async def open_once(self) -> Transport:
        """A new connection, tried now and whatever came of it before; raises `ExchangeError`."""
        return await self._within_deadline()

    async def _try_when_due(self) -> Transport:
        """Be the one who tries; the others wait for what becomes of it."""
        probe = self._probe = trio.Event()
        try:
            await trio.sleep_until(self.backoff.due)
            return await self._attempt()
        finally:
            self._probe = None
            probe.set()  # cancelled before it knew: one of the others takes over

    async def _attempt(self) -> Transport:
        try:
            transport = await self._within_deadline()
        except ExchangeError as error:
            if error.failure is not Failure.OVERLOADED:
                self.backoff.failed(error, trio.current_time())
            raise
        self.backoff.succeeded()
        return transport

    async def _within_deadline(self) -> Transport:
        try:
            with trio.fail_after(self.origin.connect_s):
                return await self._connect(self.origin)
        except trio.TooSlowError as error:
            detail = f"no connection within {self.origin.connect_s:g} s"
            raise ExchangeError(Failure.CONNECT_TIMEOUT, detail, retry=True) from error
        except (OSError, trio.BrokenResourceError, UnicodeError) as error:
            raise ExchangeError(_failure(error), str(error), retry=True) from error

    def _last_failure(self) -> ExchangeError:
        last = self.backoff.last
        failure = last.failure if last else Failure.CONNECT_TIMEOUT
        detail = last.detail if last else "no connection yet"
        return ExchangeError(failure, f"backing off: {detail}", retry=True)

    async def _connect_by_network(self, origin: Origin) -> Transport:
        connected = await connect_tcp(await resolve(origin.host, origin.port))
        if self._tls is None:
            return SocketTransport(connected)
        return await secure(connected, self._tls, origin.host)


async def resolve(host: str, port: int) -> list[Address]:
    """Where `host` is, IPv6 and IPv4 in turn, at most ADDRESSES; raises `socket.gaierror`."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys((family, place) for family, _, _, _, place in found))
    first = [item for item in addresses if item[0] == addresses[0][0]]
    others = [item for item in addresses if item[0] != addresses[0][0]]
    turns = chain.from_iterable(zip_longest(first, others))
    return [item for item in turns if item is not None][:ADDRESSES]


async def connect_tcp(addresses: Sequence[Address]) -> socket.socket:
    """A socket connected to the first of `addresses` that answers; raises the last `OSError`."""
    race = _Race()
    with ExitStack() as undo:
        undo.callback(race.close)  # cancelled just after it was won
        async with trio.open_nursery() as nursery:
            for address in addresses:
                over = trio.Event()
                nursery.start_soon(race.run, address, over, nursery.cancel_scope)
                with trio.move_on_after(STAGGER_S):
                    await over.wait()
        undo.pop_all()
    return race.result()


class _Race:
    """Attempts to connect, of which the first to succeed ends the others."""

    def __init__(self) -> None:
        self._winner: socket.socket | None = None
        self._error = OSError(errno.EHOSTUNREACH, "the name has no address")

    async def run(self, address: Address, over: trio.Event, everyone: trio.CancelScope) -> None:
        try:
            connected = await _connect(*address)
        except OSError as error:
            self._error = error
        else:
            self.close()  # two in one turn of the loop: either will do
            self._winner = connected
            everyone.cancel()
        over.set()

    def close(self) -> None:
        if self._winner is not None:
            self._winner.close()

    def result(self) -> socket.socket:
        if self._winner is None:
            raise self._error
        return self._winner


async def _connect(family: socket.AddressFamily, place: Any) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with ExitStack() as undo:
        undo.callback(connecting.close)
        code = connecting.connect_ex(place)
        if code == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(connecting)
            code = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        undo.pop_all()
    return connecting


async def secure(connected: socket.socket, context: ssl.SSLContext, host: str) -> TlsTransport:
    """TLS over `connected`, the certificate verified for `host`; owns the socket in any case."""
    with ExitStack() as undo:
        undo.callback(connected.close)
        wrapped = context.wrap_socket(
            connected,
            server_hostname=host,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        undo.callback(wrapped.close)
        transport = TlsTransport(wrapped)
        await transport.handshake()
        undo.pop_all()
    return transport


def _failure(error: Exception) -> Failure:
    match error:
        case socket.gaierror() | UnicodeError():
            return Failure.NAME_UNKNOWN
        case ssl.SSLError():  # a certificate that does not verify among them
            return Failure.TLS_FAILED
        case OSError(errno=errno.ETIMEDOUT):
            return Failure.CONNECT_TIMEOUT
        case OSError(errno=code) if code in _OURS:
            return Failure.OVERLOADED
        case _:
            return Failure.CONNECT_REFUSED
