"""Descriptors that go from one worker to another beside their bytes (SCM_RIGHTS, unix(7)).

A descriptor travels with the first byte of what it is sent with, and is taken in when that byte is
read. One at a time: whoever sends a second has waited until the first was taken.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from edge.upstream.transport import PARTS_AT_ONCE, SocketTransport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.upstream.transport import Data

_SIZE: Final = array.array("i").itemsize
_SPACE: Final = socket.CMSG_SPACE(_SIZE)
_CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # Linux, and not macOS
# The kernel has as many on their way as it allows a user, or cannot hold this one.
_REFUSED: Final = {errno.ETOOMANYREFS, errno.ENOMEM, errno.ENOBUFS}


@runtime_checkable
class Passing(Protocol):
    """A transport that passes descriptors, too; see `Transport` for what is raised."""

    async def send_passing(self, parts: Sequence[Data], descriptor: int) -> bool:
        """Send all of `parts`, and the descriptor with them, which stays the sender's; False
        where it cannot be passed, and then nothing was sent."""

    def take_descriptor(self) -> int | None:
        """The descriptor that came, which is the caller's from now on."""


class PassingTransport(SocketTransport):
    """A `Transport` over a UNIX socket, that passes descriptors."""

    __slots__ = ("_came",)

    def __init__(self, connected: socket.socket, *, tuned: bool = True) -> None:
        super().__init__(connected, peer=b"", tuned=tuned)
        self._came: int | None = None

    async def send_passing(self, parts: Sequence[Data], descriptor: int) -> bool:
        """Send all of `parts`, and the descriptor with them, which stays the sender's; False
        where it cannot be passed, and then nothing was sent."""
        await self._fair()
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        while True:
            try:
                sent = self._socket.sendmsg(parts[:PARTS_AT_ONCE], passed)
                break
            except BlockingIOError:
                await self._wait_to_send()
            except OSError as error:
                if error.errno in _REFUSED:
                    return False
                raise self._translated(error) from error
        rest = b"".join(parts)[sent:]
        if rest:
            await self.send_all(rest)
        return True

    def take_descriptor(self) -> int | None:
        """The descriptor that came, which is the caller's from now on."""
        came, self._came = self._came, None
        return came

    def receive_nowait(self, most: int) -> bytes | None:
        try:
            data, beside, _, _ = self._socket.recvmsg(most, _SPACE, _CLOEXEC)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._translated(error) from error
        for level, kind, content in beside:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._take_in(content)
        return data

    def close(self) -> None:
        self._let_go()
        super().close()

    def abort(self) -> None:
        self._let_go()
        super().abort()

    def _take_in(self, content: bytes) -> None:
        self._let_go()
        for number in array.array("i", content[: len(content) - len(content) % _SIZE]):
            self._let_go()
            self._came = number
            if not _CLOEXEC:
                os.set_inheritable(number, False)

    def _let_go(self) -> None:
        """Close what came and nobody took."""
        came, self._came = self._came, None
        if came is not None:
            os.close(came)
