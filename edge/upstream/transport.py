"""Carriers of bytes: what a connection driver needs of TCP, of TLS, and of a stream in memory.

`SocketTransport` is a non-blocking socket that is tried first and waited for only when the kernel
has nothing: on a busy connection most calls never reach the scheduler. Trio's rule that an await
lets others run is kept in bulk: after `IMMEDIATE` calls in a row that did not wait, one checkpoint
is taken, so that no busy connection makes others wait for more than one request of its own (16 in
a row raised the 99th percentile of small hits on 64 connections from 56 ms to 190 ms).

`tls.TlsTransport` is the same over TLS.

Bytes that are in a file leave by `sendfile`, which copies nothing to this process, as far as their
`Source` says that they may; it is asked before each call. What has to be read goes the other way,
and so does everything over TLS.

Two ways to end: `close` lets what was sent arrive; `abort` resets (RST), so that the other side
cannot take a message broken off for one that is whole. Neither waits.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

Data: TypeAlias = bytes | bytearray | memoryview

READ_BYTES: Final = 64 * 1024
IMMEDIATE: Final = 2  # calls in a row that did not wait: one request and its answer, or 128 KiB
PARTS_AT_ONCE: Final = 512  # Linux refuses more than 1024 (IOV_MAX) in one sendmsg
PIECE_BYTES: Final = 16 * 1024  # one TLS record; the unit of progress where a stream hides its own
# What the kernel holds for a peer beyond what is on the wire. Left to itself it takes megabytes
# for one that does not read, and fills them at once: 1,000 such cost 3 GB and 7 s of work.
UNSENT_BYTES: Final = 64 * 1024
TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux, macOS
# Bytes of a file cost no memory while they wait, and only keep their pages where they are; with
# 512 KiB a hit of 10 MiB took 11 wake-ups, and half as much time again.
UNSENT_FILE_BYTES: Final = 2 << 20
FILE_BYTES: Final = 2 << 20  # of a file in one call: 0.4 ms from the page cache
COPY_BYTES: Final = 16 * 1024  # of a file, where it has to be read; a slow reader holds so much
_TCP_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_MORE: Final = getattr(socket, "MSG_MORE", 0)
# What sendfile says of the file and not of the socket: there is another way to have its bytes.
_FILE_ERRORS: Final = {errno.EIO, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW}
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds


class Source(Protocol):
    """Where a part of a file may be had from."""

    @property
    def descriptor(self) -> int:
        """What to send from; valid until the source is closed."""

    def sendable(self, offset: int, most: int) -> int:
        """How many bytes from `offset`, at most `most`, may be sent now; 0: `read` them."""

    def refuse(self) -> None:
        """Its file system, or the medium, does not let it be sent from."""

    async def read(self, offset: int, most: int) -> bytes:
        """Up to `most` bytes from `offset`; may raise an `ExchangeError`."""

    def close(self) -> None:
        """It is of no more use here."""


class FileSpan:
    """What is left to be sent of `source`, from `offset` to `stop`; `ready` may leave at once."""

    __slots__ = ("offset", "ready", "source", "stop")

    def __init__(self, source: Source, offset: int, stop: int, ready: int = 0) -> None:
        self.source = source
        self.offset = offset
        self.stop = stop
        self.ready = ready

    def __len__(self) -> int:
        return self.stop - self.offset

    def look(self) -> int:
        """How many bytes may be sent from the descriptor in one call now; kept in `ready`."""
        if not self.ready and len(self):
            self.ready = self.source.sendable(self.offset, min(FILE_BYTES, len(self)))
        return self.ready

    def must_be_read(self) -> bool:
        """Whether nothing of it may be sent from the descriptor now."""
        self.ready = 0  # it may have been long ago
        ready, self.ready = self.look(), 0
        return not ready


Part: TypeAlias = Data | FileSpan  # which comes last, and knows by itself what was sent of it


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

    async def send_parts(self, parts: Sequence[Part], *, stall_s: float = math.inf) -> None:
        """The same for many buffers, in one system call where it can be, and a file behind them.

        What reading the file raises is passed on.
        """

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

    __slots__ = (
        "_awaited", "_closed", "_holds_file", "_immediate", "_peer", "_sent_eof", "_socket",
    )  # fmt: skip

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
        self._holds_file = False  # the kernel may hold UNSENT_FILE_BYTES

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
        if self._holds_file:
            self._let_hold(UNSENT_BYTES)
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._translated(error) from error

    def send_parts_nowait(self, parts: Sequence[Part]) -> int:
        """Like `send_nowait`, for at most PARTS_AT_ONCE buffers and FILE_BYTES of a file."""
        data, span = divided(parts)
        if span is None:
            return self._send_together(data)
        sent = self._send_together(data, more=span.look() > 0) if data else 0
        if sent == sum(map(len, data)):
            return sent + self._send_from(span)
        span.ready = 0
        return sent

    def _let_hold(self, unsent_bytes: int) -> None:
        """Let the kernel hold so much that it has not sent; of a file that is not in memory."""
        self._holds_file = unsent_bytes != UNSENT_BYTES
        if TCP_NOTSENT_LOWAT is not None and self._socket.family in _TCP_FAMILIES:
            with contextlib.suppress(OSError):  # closed, which whoever sends is told
                self._socket.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, unsent_bytes)

    def _send_together(self, data: Sequence[Data], *, more: bool = False) -> int:
        if self._holds_file and not more:
            self._let_hold(UNSENT_BYTES)
        try:
            return self._socket.sendmsg(data, (), _MORE if more else 0)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._translated(error) from error

    def _send_from(self, span: FileSpan) -> int:
        """Send what leaves of a file without waiting; see `FileSpan.look` before and behind."""
        ready, span.ready = span.look(), 0
        if not ready:
            return 0
        if not self._holds_file:
            self._let_hold(UNSENT_FILE_BYTES)
        try:
            sent = os.sendfile(self._socket.fileno(), span.source.descriptor, span.offset, ready)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in _FILE_ERRORS:
                raise self._translated(error) from error
            sent = 0
        if not sent:  # or it has become shorter
            span.source.refuse()
        span.offset += sent
        return sent

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

    async def send_parts(self, parts: Sequence[Part], *, stall_s: float = math.inf) -> None:
        await self._fair()
        data, span = divided(parts)
        rest = deque(part for part in data if part)
        more = span is not None and span.look() > 0  # and it will not be waited for
        while rest:
            if count := self._send_together(_first(rest, PARTS_AT_ONCE), more=more):
                _drop(rest, count)
                continue
            await self._progress(stall_s)
            if span is not None:
                span.ready = 0  # that was then
        if span is not None:
            await self._send_file(span, stall_s)

    async def _send_file(self, span: FileSpan, stall_s: float) -> None:
        while span.offset < span.stop:
            if self._closed:
                raise self._translated()
            ready = span.look()
            if not ready:
                await copy_some(self, span, stall_s)
            elif self._send_from(span) == ready:
                await self._fair()
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


def tune(made: socket.socket) -> None:
    """Set the options of a connection; a listener of Linux hands them on to what it accepts."""
    if made.family in _TCP_FAMILIES:
        # Heads and small bodies leave in one write: Nagle could only delay the last one.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if TCP_NOTSENT_LOWAT is not None:
            made.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def divided(parts: Sequence[Part]) -> tuple[Sequence[Data], FileSpan | None]:
    """What is in memory of what is sent together, and what is in a file behind it."""
    if parts and isinstance(parts[-1], FileSpan):
        return cast("Sequence[Data]", parts[:-1]), parts[-1]
    return cast("Sequence[Data]", parts), None


async def copy_some(transport: Transport, span: FileSpan, stall_s: float) -> None:
    """Send the next bytes of a part of a file by reading them."""
    data = await span.source.read(span.offset, min(COPY_BYTES, len(span)))
    await transport.send_all(data, stall_s=stall_s)
    span.offset += len(data)


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
