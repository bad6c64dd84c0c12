"""Fetches over real sockets and real TLS, on loopback."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from edge.errors import ExchangeError, Failure
from edge.upstream.dial import connect_tcp
from edge.upstream.fetch import Upstream
from edge.upstream.origin import Origin
from edge.wire.message import Chunk, Headers, RequestHead

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.live

AUTHORITY = trustme.CA()
REQUEST = RequestHead(b"GET", b"http", b"site.example", b"/", Headers())
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

Handler = Callable[[trio.SocketStream | trio.SSLStream[trio.SocketStream]], Awaitable[None]]


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return str(path)


@asynccontextmanager
async def serving(handle: Handler, names: tuple[str, ...] = ()) -> AsyncIterator[Origin]:
    """An origin on a free port; with `names`, over TLS with a certificate for them."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                if not names:
                    return await handle(stream)
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                AUTHORITY.issue_cert(*names).configure_cert(context)
                context.set_alpn_protocols(["h2", "http/1.1"])
                return await handle(trio.SSLStream(stream, context, server_side=True))
            except (trio.BrokenResourceError, ssl.SSLError):
                return None

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        yield Origin("https" if names else "http", "127.0.0.1", port, connect_s=3)
        nursery.cancel_scope.cancel()


async def answer(stream: trio.abc.Stream) -> None:
    while await stream.receive_some():
        await stream.send_all(OK)


async def body_of(upstream: Upstream) -> bytes:
    body = bytearray()
    async with upstream.fetch(REQUEST) as response:
        while isinstance(message := await response.receive(), Chunk):
            body += message.data
    return bytes(body)


async def failure_of(origin: Origin) -> Failure:
    with pytest.raises(ExchangeError) as caught:
        await body_of(Upstream(origin))
    return caught.value.failure


@asynccontextmanager
async def tended(origin: Origin) -> AsyncIterator[Upstream]:
    upstream = Upstream(origin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upstream.run)
        yield upstream
        nursery.cancel_scope.cancel()


async def test_a_plain_origin_is_fetched_from_and_its_connection_kept() -> None:
    async with serving(answer) as origin, tended(origin) as upstream:
        for _ in range(3):
            assert await body_of(upstream) == b"hi"
        assert upstream.statistics().made == 1
        async with upstream.fetch(REQUEST) as response:
            assert response.peer == b"127.0.0.1"


async def test_an_origin_that_closes_idle_connections_costs_no_failure() -> None:
    async def once(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(OK)

    async with serving(once) as origin, tended(origin) as upstream:
        for _ in range(20):
            assert await body_of(upstream) == b"hi"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_private_authority_is_trusted_where_it_is_set(ca_file: str, host: str) -> None:
    async with (
        serving(answer, ("127.0.0.1", "localhost")) as origin,
        tended(replace(origin, host=host, ca=ca_file)) as upstream,
    ):
        for _ in range(3):
            assert await body_of(upstream) == b"hi"
        assert upstream.statistics().made == 1


async def test_the_servers_name_is_asked_for_and_http_1_1_is_chosen(ca_file: str) -> None:
    seen: list[Any] = []

    async def look(stream: Any) -> None:
        await stream.do_handshake()
        seen.append(stream.selected_alpn_protocol())
        await answer(stream)

    async with (
        serving(look, ("localhost",)) as origin,
        tended(replace(origin, host="localhost", ca=ca_file)) as upstream,
    ):
        assert await body_of(upstream) == b"hi"
    assert seen == ["http/1.1"]


async def test_a_certificate_for_another_name_is_refused(ca_file: str) -> None:
    async with serving(answer, ("other.example",)) as origin:
        for host in ("localhost", "127.0.0.1"):
            assert await failure_of(replace(origin, host=host, ca=ca_file)) is Failure.TLS_FAILED


async def test_an_unknown_authority_is_refused() -> None:
    async with serving(answer, ("localhost",)) as origin:
        assert await failure_of(replace(origin, host="localhost")) is Failure.TLS_FAILED


async def test_an_origin_that_speaks_no_tls_is_told_from_one_that_is_down(ca_file: str) -> None:
    async with serving(answer) as origin:
        assert await failure_of(replace(origin, scheme="https", ca=ca_file)) is Failure.TLS_FAILED


async def test_a_tls_handshake_that_hangs_is_given_up(ca_file: str) -> None:
    async def mute(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with serving(mute) as origin:
        hung = replace(origin, scheme="https", ca=ca_file, connect_s=0.3)
        assert await failure_of(hung) is Failure.CONNECT_TIMEOUT


async def test_a_body_over_tls_cut_without_a_closure_alert_is_not_whole(ca_file: str) -> None:
    async def cut(stream: Any) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the close")
        await trio.aclose_forcefully(stream.transport_stream)

    async def end(stream: Any) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the close")
        await stream.aclose()

    async with serving(cut, ("127.0.0.1",)) as origin:
        assert await failure_of(replace(origin, ca=ca_file)) is Failure.BODY_TRUNCATED
    async with (
        serving(end, ("127.0.0.1",)) as origin,
        tended(replace(origin, ca=ca_file)) as upstream,
    ):
        assert await body_of(upstream) == b"until the close"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_refused_connection_is_refused_at_once() -> None:
    began = trio.current_time()
    origin = Origin("http", "127.0.0.1", free_port())
    assert await failure_of(origin) is Failure.CONNECT_REFUSED
    assert trio.current_time() - began < 1


async def test_a_name_that_can_be_no_name_is_unknown() -> None:
    impossible = "x" * 64 + ".example"  # RFC 1035 §2.3.4: 63 at most; refused before any look-up
    assert await failure_of(Origin("http", impossible, 80)) is Failure.NAME_UNKNOWN


@contextmanager
def black_hole() -> Iterator[tuple[str, int]]:
    """A place where connecting neither succeeds nor fails: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield listener.getsockname()


async def test_a_connection_that_neither_comes_nor_fails_is_given_up() -> None:
    with black_hole() as (host, port):
        began = trio.current_time()
        origin = Origin("http", host, port, connect_s=0.3)
        assert await failure_of(origin) is Failure.CONNECT_TIMEOUT
        assert 0.25 < trio.current_time() - began < 2


async def test_an_address_that_hangs_does_not_hide_one_that_answers() -> None:
    async with serving(answer) as origin:
        with black_hole() as place:
            began = trio.current_time()
            connected = await connect_tcp(
                [
                    (socket.AF_INET, place),
                    (socket.AF_INET, ("127.0.0.1", free_port())),
                    (socket.AF_INET, ("127.0.0.1", origin.port)),
                ]
            )
            with connected:
                assert connected.getpeername()[1] == origin.port
            assert trio.current_time() - began < 1


async def test_a_reset_in_the_body_is_not_its_end() -> None:
    async def reset(stream: Any) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the close")
        await trio.sleep(0.05)
        linger = struct.pack("ii", 1, 0)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with serving(reset) as origin:
        assert await failure_of(origin) is Failure.BODY_TRUNCATED


async def test_a_fetch_left_early_is_a_reset_for_the_origin() -> None:
    ended: list[bool] = []
    over = trio.Event()

    async def endless(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx")
        try:
            ended.append(await stream.receive_some() == b"")
        except trio.BrokenResourceError:
            ended.append(False)
        over.set()

    async with serving(endless) as origin:
        async with Upstream(origin).fetch(REQUEST) as response:
            await response.receive()
        await over.wait()
    assert ended == [False]
