"""The carrier of bytes over TLS.

`trio.SSLStream` was turned down: it costs twice the time for a small round trip, and the bytes it
has taken from the socket but not yet decrypted cannot be seen from outside, so that a surplus
behind a response would pass for the next one's beginning. Here OpenSSL reads one record at a time,
and asking it is exact.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trio

from edge.upstream.transport import PIECE_BYTES, SocketTransport, copy_some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.upstream.transport import Data, FileSpan


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

    def _send_together(self, data: Sequence[Data], *, more: bool = False) -> int:
        joined = bytearray()
        for part in data:
            if joined and len(joined) + len(part) > PIECE_BYTES:
                break
            if len(part) >= PIECE_BYTES:
                return self.send_nowait(part)
            joined += part
        return self.send_nowait(bytes(joined))

    def _send_from(self, span: FileSpan) -> int:
        return 0  # what leaves must be encrypted here

    async def _send_file(self, span: FileSpan, stall_s: float) -> None:
        while span.offset < span.stop:
            await copy_some(self, span, stall_s)

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
