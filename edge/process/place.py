"""What a process of a node is born with: all that its parent has made before it was forked.

The store's directory is reached through the parent's descriptor of it (`/proc/self/fd`), so that a
socket in it has a short name wherever the directory stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from edge.cache.estate import Estate
    from edge.cache.leases import Leases
    from edge.clock import Clock
    from edge.coding.shelf import Shelf
    from edge.config import Config
    from edge.observe.tally import Tallies
    from edge.process.trade import Trade
    from edge.surroundings.board import Board


@dataclass(frozen=True, slots=True)
class Source:
    """Where settings come from: `name` for people; `read` and `parse` raise `SettingsError`."""

    name: str
    read: Callable[[], bytes]
    parse: Callable[[bytes], Config]


@dataclass(frozen=True, slots=True)
class Paths:
    """The names of a node's own sockets; `directory` is a descriptor of the store's directory."""

    directory: int

    @property
    def keeper(self) -> str:
        """Where the keeper of the journal is asked by workers."""
        return f"/proc/self/fd/{self.directory}/keeper.sock"

    def desk(self, slot: int) -> str:
        """Where a worker is asked about what it holds and does."""
        return f"/proc/self/fd/{self.directory}/desk-{slot}.sock"

    def hop(self, slot: int) -> str:
        """Where a worker takes requests from other workers."""
        return f"/proc/self/fd/{self.directory}/hop-{slot}.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place in a node, for one process after the other; `tally` is where it counts, and its seat
    at the board.

    `purge_number`, `leases`, `board` and the marks of `shelf` are memory that all processes share;
    `salt` is secret, and from it follows what must be the same whoever answers. `desk` listens for
    what is asked of this process, `hop` for requests of other workers. `clock` is one for all, or
    an entry would be of another age in each.
    """

    trade: Trade
    config: Config
    source: Source
    slot: int
    tally: int
    workers: int
    root: Path
    estate: Estate
    clock: Clock
    tallies: Tallies
    purge_number: memoryview
    leases: Leases
    shelf: Shelf
    board: Board
    salt: bytes
    paths: Paths
    desk: socket.socket
    leash: socket.socket
    hop: socket.socket | None = None
    listeners: tuple[socket.socket, ...] = ()
