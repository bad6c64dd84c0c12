"""The sockets that a node listens on: its parent holds them, its workers accept.

Each worker has a socket of its own for every address, so that the kernel spreads newcomers and no
worker wakes for another's. The parent made them and holds them open: a connection that waits in
the backlog of a worker that has died is accepted by its successor.

Two nodes on one address would both be given newcomers, and none of them would know. So an address
is tried alone before it is shared.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.listen.local import bind_local
from edge.listen.tcp import address_of, bind
from edge.process.place import Paths

if TYPE_CHECKING:
    import socket
    from collections.abc import Container, Iterable

    from edge.config import Address

TRIES: Final = 10  # a node that was killed a moment ago may not be quite gone
PAUSE_S: Final = 0.03


class Doors:
    """A node's listening sockets, for so many workers."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._sockets: dict[Address, tuple[socket.socket, ...]] = {}

    def open(self, addresses: Iterable[Address]) -> None:
        """Listen on these addresses too; raises OSError, and then on none more than before."""
        with ExitStack() as undo:
            made: dict[Address, tuple[socket.socket, ...]] = {}
            for address in addresses:
                if address in self._sockets:
                    continue
                made[address] = _shared(address, self._workers)
                for each in made[address]:
                    undo.callback(each.close)
            undo.pop_all()
        self._sockets.update(made)

    def keep_only(self, addresses: Iterable[Address]) -> None:
        """Listen on no others any more."""
        for address in self._sockets.keys() - set(addresses):
            for each in self._sockets.pop(address):
                each.close()

    def forget_all_but(self, slot: int, addresses: Container[Address]) -> None:
        """In a process that was forked: have none but this worker's own at these addresses."""
        for address, sockets in self._sockets.items():
            for number, each in enumerate(sockets):
                if number != slot or address not in addresses:
                    each.close()

    def of(self, slot: int, addresses: Container[Address]) -> tuple[socket.socket, ...]:
        """A worker's own at these addresses."""
        return tuple(
            sockets[slot] for address, sockets in self._sockets.items() if address in addresses
        )

    def told(self) -> str:
        """Where the node listens, as URLs."""
        return " ".join(f"http://{address_of(sockets[0])}" for sockets in self._sockets.values())


def _shared(address: Address, count: int) -> tuple[socket.socket, ...]:
    first = _alone(address)
    port = first.getsockname()[1]
    first.close()
    with ExitStack() as undo:
        made: list[socket.socket] = []
        for _ in range(count):
            made.append(bind(address.host, port, shares=True))
            undo.callback(made[-1].close)
        undo.pop_all()
    return tuple(made)


def _alone(address: Address) -> socket.socket:
    """A socket that has an address to itself; raises OSError."""
    for left in reversed(range(TRIES)):
        try:
            return bind(address.host, address.port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not left:
                raise
            time.sleep(PAUSE_S)
    raise AssertionError("tried at least once")


class InnerDoors:
    """The sockets by which the processes of a node reach each other, in the store's directory."""

    def __init__(self, directory: Path, workers: int) -> None:
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.paths = Paths(self._directory)
        self._made: list[str] = []
        self.keeper = self._listen(self.paths.keeper)
        self.desks = [self._listen(self.paths.desk(slot)) for slot in range(workers)]
        self.hops = [self._listen(self.paths.hop(slot)) for slot in range(workers)]

    def _listen(self, path: str) -> socket.socket:
        listener = bind_local(Path(path))  # in place of a killed node's: the directory is ours
        self._made.append(path)
        return listener

    def close(self) -> None:
        """Remove them."""
        for each in (self.keeper, *self.desks, *self.hops):
            each.close()
        for path in self._made:
            with suppress(OSError):
                os.unlink(path)
        os.close(self._directory)
