"""Where the workers of a node reach each other: one UNIX socket for each slot.

The listening socket is made before the workers are, and held by their parent. So whoever connects
while there is no worker in the slot waits in the backlog for the next one.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import trio

from edge.listen.passing import PassingTransport
from edge.listen.tcp import BACKLOG

if TYPE_CHECKING:
    from pathlib import Path

FULL_PAUSE_S: Final = 0.005  # where the backlog is full: UNIX sockets do not wait for it


def bind_local(path: Path) -> socket.socket:
    """A listening, non-blocking socket at `path`, in place of what a process left there.

    It is for processes of the same user only. Raises OSError.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with ExitStack() as undo:
        undo.callback(listener.close)
        path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        undo.pop_all()
    return listener


async def connect_local(path: Path) -> PassingTransport:
    """A connection to whoever listens at `path`, or will; raises OSError.

    It may wait for as long as the backlog is full.
    """
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with ExitStack() as undo:
        undo.callback(connecting.close)
        await trio.lowlevel.checkpoint()
        while code := connecting.connect_ex(os.fspath(path)):
            if code != errno.EAGAIN:
                raise OSError(code, os.strerror(code))
            await trio.sleep(FULL_PAUSE_S)
        undo.pop_all()
    return PassingTransport(connecting)
