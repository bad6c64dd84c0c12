"""Carriers of bytes: what a connection driver needs of TCP, of TLS, and of a stream in memory.

`SocketTransport` is a non-blocking socket that is tried first and waited for only when the kernel
has nothing: on a busy connection most calls never reach the scheduler. Trio's rule that an await
lets others run is kept in bulk: after `IMMEDIATE` calls in a row that did not wait, one checkpoint
is taken, so that no busy connection makes others wait for more than one request of its own (16 in
a row raised the 99th percentile of small hits on 64 connections from 56 ms to 190 ms).

`TlsTransport` is the same over a non-blocking `ssl.SSLSocket`. `trio.SSLStream` was turned down:
it costs twice the time for a small round trip, and the bytes it has taken from the socket but not
yet decrypted cannot be seen from outside, so that a surplus behind a response would pass for the
next one's beginning. Here OpenSSL reads one record at a time, and asking it is exact.

`StreamTransport` adapts a `trio.abc.Stream`, for tests in memory.

Two ways to end: `close` lets what was sent arrive; `abort` resets (RST), so that the other side
cannot take a message broken off for one that is whole. Neither waits.
"""

from __future__ import annotations

import math
import socket
import ssl
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Data: TypeAlias = bytes | bytearray | memoryview

READ_BYTES: Final = 64 * 1024
IMMEDIATE: Final = 2  # calls in a row that did not wait: one request and its answer, or 128 KiB
PARTS_AT_ONCE: Final = 512  # Linux refuses more than 1024 (IOV_MAX) in one sendmsg
PIECE_BYTES: Final = 16 * 1024  # one TLS record; the unit of progress where a stream hides its own
# What the kernel holds for a peer beyond what is on the wire. Left to itself it takes megabytes
# for one that does not read, and fills them at once: 1,000 such cost 3 GB and 7 s of work.
UNSENT_BYTES: Final = 64 * 1024
TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux, macOS
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds


class Transport(Protocol):
    """One connection's bytes, both ways.

    Every method raises `trio.ClosedResourceError` after `close` or `abort` (also where it was
    waiting), and `trio.BrokenResourceError` where the other side has reset, or is gone.
    """

    @property
    def peer(self) -> bytes:
        """The other side's address without its port, as text; empty where it has none."""

    def receive_nowait(self, most: int) -> bytes | None:
        """At least one byte, b"" at the end of input, None where it would have to wait."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, or b"" at the end of input."""

    def send_nowait(self, data: Data) -> int:
        """How many bytes of `data` were taken: 0 where it would have to wait."""

    async def send_all(self, data: Data, *, stall_s: float = math.inf) -> None:
        """Send all of `data`; `trio.TooSlowError` when nothing is taken for `stall_s` seconds."""

    async def send_parts(self, parts: Sequence[Data], *, stall_s: float = math.inf) -> None:
        """The same for many buffers, in one system call where it can be."""

    async def send_eof(self) -> None:
        """End this direction; the other stays open."""

    def readable_now(self) -> bool:
        """Whether a receive would not wait: for an idle connection, that it is of no more use."""

    async def wait_ended(self) -> None:
        """Return when the other side has ended or reset; not while bytes of it wait to be read."""

    def close(self) -> None:
        """Close; what was sent still arrives. Twice is no error."""

    def abort(self) -> None:
        """Break off, so that the other side gets an error and not an end."""

    async def aclose(self) -> None:
        """Close with the goodbye that the protocol has, without waiting for an answer."""


class SocketTransport(trio.abc.HalfCloseableStream):
    """A `Transport` over a connected stream socket, which it owns from now on.

    `peer` is asked of the socket unless given: `accept` knows it for nothing. One that is `tuned`
    has its options from its listener.
    """

    __slots__ = ("_awaited", "_closed", "_immediate", "_peer", "_sent_eof", "_socket")

    def __init__(
        self, connected: socket.socket, *, peer: bytes | None = None, tuned: bool = False
    ) -> None:
        connected.setblocking(False)
        if not tuned:
            tune(connected)
        self._socket = connected
        self._peer = peer
        self._immediate = 0
        self._awaited = False  # by Trio; what never was need not be told that it closes (3 µs)
        self._closed = False
        self._sent_eof = False

    @property
    def peer(self) -> bytes:
        if self._peer is None:
            self._peer = _peer_of(self._socket)
        return self._peer

    def fileno(self) -> int:
        """The socket's descriptor, to be waited for; -1 once it is closed."""
        return self._socket.fileno()

    def receive_nowait(self, most: int) -> bytes | None:
        try:
            return self._socket.recv(most)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._translated(error) from error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        most = READ_BYTES if max_bytes is None else max_bytes
        if most < 1:
            raise ValueError("max_bytes must be at least 1: b'' would pass for the end")
        await self._fair()  # before the read: cancelled after it, the bytes would be lost
        while (data := self.receive_nowait(most)) is None:
            self._immediate = 0
            await self._wait_to_receive()
        return data

    def send_nowait(self, data: Data) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._translated(error) from error

    def send_parts_nowait(self, parts: Iterable[Data]) -> int:
        """Like `send_nowait`, for at most PARTS_AT_ONCE buffers together."""
        try:
            return self._socket.sendmsg(parts)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._translated(error) from error

    async def send_all(self, data: Data, *, stall_s: float = math.inf) -> None:
        await self._fair()
        if self._closed:
            raise self._translated()
        sent = self.send_nowait(data) if data else 0
        if sent == len(data):
            return
        with memoryview(data) as rest:
            while sent < len(data):
                if count := self.send_nowait(rest[sent:]):
                    sent += count
                else:
                    await self._progress(stall_s)

    async def send_parts(self, parts: Sequence[Data], *, stall_s: float = math.inf) -> None:
        await self._fair()
        rest = deque(part for part in parts if part)
        while rest:
            if count := self.send_parts_nowait(_first(rest, PARTS_AT_ONCE)):
                _drop(rest, count)
            else:
                await self._progress(stall_s)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise self._translated()
        await self._wait_to_send()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._sent_eof = True
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._translated(error) from error

    def readable_now(self) -> bool:
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a reset waits to be read
        return True

    async def wait_ended(self) -> None:
        await self._readable()
        try:
            waiting = self._socket.recv(1, socket.MSG_PEEK)
        except OSError:
            return
        if waiting:
            await trio.sleep_forever()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._awaited:
                trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def abort(self) -> None:
        if not self._closed:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    async def _readable(self) -> None:
        self._awaited = True
        await trio.lowlevel.wait_readable(self._socket)

    async def _writable(self) -> None:
        self._awaited = True
        await trio.lowlevel.wait_writable(self._socket)

    async def _wait_to_receive(self) -> None:
        await self._readable()

    async def _wait_to_send(self) -> None:
        await self._writable()

    async def _progress(self, stall_s: float) -> None:
        self._immediate = 0
        if stall_s == math.inf:
            await self._wait_to_send()
        else:
            with trio.fail_after(stall_s):
                await self._wait_to_send()

    async def _fair(self) -> None:
        self._immediate += 1
        if self._immediate >= IMMEDIATE:
            self._immediate = 0
            await trio.lowlevel.checkpoint()

    def _translated(
        self, error: OSError | None = None
    ) -> trio.ClosedResourceError | trio.BrokenResourceError:
        if self._closed:
            return trio.ClosedResourceError("this transport was closed")
        if self._sent_eof and isinstance(error, BrokenPipeError):
            return trio.ClosedResourceError("this direction was ended")
        return trio.BrokenResourceError("the other side is gone")


class TlsTransport(SocketTransport):
    """A `Transport` over `ssl.SSLSocket`, wrapped with `do_handshake_on_connect=False` and
    `suppress_ragged_eofs=False`.

    The end of input is only what TLS says it is: a connection that just stops, without a closure
    alert, raises `BrokenResourceError`. RFC 9112 §9.8: a body that runs until the close is whole
    only where the closure alert came.
    """

    __slots__ = ("_ended", "_held", "_tls", "_wants_read", "_wants_write")

    def __init__(self, wrapped: ssl.SSLSocket, *, peer: bytes | None = None) -> None:
        super().__init__(wrapped, peer=peer)
        self._tls = wrapped
        self._held = b""  # what `readable_now` had to read in order to know
        self._ended = False
        self._wants_read = False  # what to wait for before sending
        self._wants_write = False  # what to wait for before receiving

    async def handshake(self) -> None:
        """Shake hands; raises `ssl.SSLError` (a bad certificate among them) or `OSError`."""
        while True:
            try:
                return self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._readable()
            except ssl.SSLWantWriteError:
                await self._writable()

    def receive_nowait(self, most: int) -> bytes | None:
        if self._held:
            held, self._held = self._held, b""
            return held
        if self._ended:
            return b""
        try:
            self._wants_write = False
            return self._tls.recv(most)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLWantWriteError:
            self._wants_write = True
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except OSError as error:
            raise self._translated(error) from error

    def send_nowait(self, data: Data) -> int:
        if self._ended:
            raise trio.BrokenResourceError("this direction has ended")
        try:
            self._wants_read = False
            return self._tls.send(data)
        except ssl.SSLWantWriteError:
            return 0
        except ssl.SSLWantReadError:
            self._wants_read = True
            return 0
        except OSError as error:
            raise self._translated(error) from error

    def send_parts_nowait(self, parts: Iterable[Data]) -> int:
        joined = bytearray()
        for part in parts:
            if joined and len(joined) + len(part) > PIECE_BYTES:
                break
            if len(part) >= PIECE_BYTES:
                return self.send_nowait(part)
            joined += part
        return self.send_nowait(bytes(joined))

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._say_goodbye()

    def readable_now(self) -> bool:
        # A session ticket is no reason to call a connection dead, so the socket's own readiness
        # says nothing here: OpenSSL has to be asked.
        try:
            data = self.receive_nowait(1)
        except trio.BrokenResourceError:
            return True
        self._held = data or b""
        return data is not None

    async def wait_ended(self) -> None:
        await trio.sleep_forever()  # an end that only TLS can tell is found by reading

    async def aclose(self) -> None:
        if not self._closed and not self._ended:
            self._say_goodbye()
        await super().aclose()

    def _say_goodbye(self) -> None:
        """Send the closure alert without waiting for the other side's."""
        try:
            self._tls.unwrap()
            self._ended = True  # both alerts are through: nothing more can come
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # the other side's has not come; it may go on sending
        except (OSError, ValueError):
            self._ended = True

    async def _wait_to_receive(self) -> None:
        await (self._writable() if self._wants_write else self._readable())

    async def _wait_to_send(self) -> None:
        await (self._readable() if self._wants_read else self._writable())


@runtime_checkable
class _Closable(Protocol):
    def close(self) -> None: ...


class StreamTransport:
    """A `Transport` over a Trio stream that closes without waiting: what tests in memory use.

    `readable` answers for `readable_now`, since streams have no such question. `abort` is a plain
    close: memory has no reset.
    """

    __slots__ = ("_halves", "_readable", "_stream", "peer")

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        peer: bytes = b"",
        readable: Callable[[], bool] = lambda: False,
    ) -> None:
        halves = _halves(stream)
        if not halves:
            raise TypeError(f"{type(stream).__name__} cannot be closed without waiting")
        self._stream = stream
        self._halves = halves
        self._readable = readable
        self.peer = peer

    async def wait_ended(self) -> None:
        await trio.sleep_forever()  # streams cannot say without being read

    def receive_nowait(self, most: int) -> bytes | None:
        return None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes or READ_BYTES))

    def send_nowait(self, data: Data) -> int:
        return 0

    async def send_all(self, data: Data, *, stall_s: float = math.inf) -> None:
        with memoryview(data) as whole:
            for start in range(0, len(whole), PIECE_BYTES):
                with trio.fail_after(stall_s):
                    await self._stream.send_all(whole[start : start + PIECE_BYTES])

    async def send_parts(self, parts: Sequence[Data], *, stall_s: float = math.inf) -> None:
        await self.send_all(b"".join(parts), stall_s=stall_s)

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        else:
            await trio.lowlevel.checkpoint()

    def readable_now(self) -> bool:
        return self._readable()

    def close(self) -> None:
        for half in self._halves:
            half.close()

    def abort(self) -> None:
        self.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


def tune(made: socket.socket) -> None:
    """Set the options of a connection; a listener of Linux hands them on to what it accepts."""
    if made.family in (socket.AF_INET, socket.AF_INET6):
        # Heads and small bodies leave in one write: Nagle could only delay the last one.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if TCP_NOTSENT_LOWAT is not None:
            made.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _halves(stream: trio.abc.Stream) -> list[_Closable]:
    ends = (
        (stream.send_stream, stream.receive_stream)
        if isinstance(stream, trio.StapledStream)
        else (stream,)
    )
    return [end for end in ends if isinstance(end, _Closable)]


def _first(parts: deque[Data], count: int) -> Sequence[Data] | deque[Data]:
    if len(parts) <= count:
        return parts
    return [parts[index] for index in range(count)]


def _drop(parts: deque[Data], count: int) -> None:
    """Take the first `count` bytes away, without copying what stays."""
    while parts and count >= len(parts[0]):
        count -= len(parts.popleft())
    if count:
        parts[0] = memoryview(parts[0])[count:]


def _peer_of(connected: socket.socket) -> bytes:
    try:
        address = connected.getpeername()
    except OSError:
        return b""  # gone before it was asked
    return str(address[0]).encode("ascii", "replace") if isinstance(address, tuple) else b""
