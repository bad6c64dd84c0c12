"""What the parent of a node and its processes say to each other.

A process has one end of a pair of sockets, the parent the other. Messages keep their bounds
(SOCK_SEQPACKET) and are few. Settings travel as a descriptor of the text that the parent has read
and found good, so that all processes take up the same bytes, whatever became of the file since.

The parent never waits for a process: one that leaves its messages unread is no use any more, and
`Leash.say` tells so. A process whose parent is gone ends: the kernel kills it
(PR_SET_PDEATHSIG), and the end of its leash says the same.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import trio

from edge.settings import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MESSAGE_BYTES: Final = 131_072
FAULTS_TOLD: Final = 100

_FAULT_CHARACTERS: Final = 500


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The process does its work from now on."""


class Released(msgspec.Struct, tag=True, frozen=True):
    """Of a worker told to release: it has let go of what only one of its slot may have. Of one
    told to drain: no client of its own is left."""


class Taken(msgspec.Struct, tag=True, frozen=True):
    """The settings of this turn are in force in this process."""

    turn: int


class Reload(msgspec.Struct, tag=True, frozen=True):
    """The keeper was asked to have the settings read again; `ask` is its number for that."""

    ask: int


class Drain(msgspec.Struct, tag=True, frozen=True):
    """To a process: end, in an orderly way, or `at_once`. From the keeper: end all."""

    at_once: bool = False


class Release(msgspec.Struct, tag=True, frozen=True):
    """Let another process have the slot: stop taking in, let go of the disk, then drain."""


class Dismiss(msgspec.Struct, tag=True, frozen=True):
    """To a worker that has released: no other worker needs it any more."""


class Settings(msgspec.Struct, tag=True, frozen=True):
    """Take up the settings whose text comes along."""

    turn: int


class Crew(msgspec.Struct, tag=True, frozen=True):
    """To the keeper: the workers, by slot."""

    workers: tuple[Worker, ...]


class Worker(msgspec.Struct, frozen=True):
    """A slot's process: since when (Unix seconds), how many there were before it."""

    slot: int
    pid: int
    since: float
    died: int


class Reloaded(msgspec.Struct, tag=True, frozen=True):
    """To the keeper: what came of the reload `ask`, in two words.

    First that the settings are good (`done` is False) or have `faults`, then that every process
    goes by them. `later` names settings that wait for the next start; `replaced` says that the
    processes were, for the settings in `because`.
    """

    ask: int
    done: bool
    faults: tuple[Fault, ...] = ()
    later: tuple[str, ...] = ()
    replaced: bool = False
    because: tuple[str, ...] = ()


Up: TypeAlias = Ready | Released | Taken | Reload | Drain
Down: TypeAlias = Drain | Release | Dismiss | Settings | Crew | Reloaded

_ENCODER: Final = msgspec.msgpack.Encoder()
_UP: Final = msgspec.msgpack.Decoder(Up)
_DOWN: Final = msgspec.msgpack.Decoder(Down)


def pair() -> tuple[Leash, socket.socket]:
    """The parent's end, and the other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return Leash(ours), theirs


def told(faults: list[Fault]) -> tuple[Fault, ...]:
    """As many of `faults`, and as much of each, as fits a message."""
    room = MESSAGE_BYTES // 2
    kept: list[Fault] = []
    for each in faults[:FAULTS_TOLD]:
        short = Fault(each.line, _cut(each.path) or "", _cut(each.value), _cut(each.message) or "")
        room -= len(_ENCODER.encode(short))
        if room < 0:
            break
        kept.append(short)
    return tuple(kept)


def _cut(text: str | None) -> str | None:
    return (
        text if text is None or len(text) <= _FAULT_CHARACTERS else text[:_FAULT_CHARACTERS] + "…"
    )


class Leash:
    """The parent's end. It blocks nowhere."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours

    def fileno(self) -> int:
        """To be polled."""
        return self._socket.fileno()

    def say(self, message: Down, text: bytes | None = None) -> bool:
        """Send `message`, with a text where it has one; False where it cannot be delivered."""
        try:
            if text is None:
                self._socket.send(_ENCODER.encode(message))
            else:
                self._say_with(message, text)
        except OSError:
            return False
        return True

    def _say_with(self, message: Down, text: bytes) -> None:
        file = os.memfd_create("settings", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(file), "wb") as opened:
                opened.write(text)
            socket.send_fds(self._socket, [_ENCODER.encode(message)], [file])
        finally:
            os.close(file)

    def heard(self) -> list[Up]:
        """What the process has said since; raises EOFError where it will say no more."""
        messages: list[Up] = []
        while True:
            try:
                data = self._socket.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return messages
            except OSError as error:
                raise EOFError(str(error)) from error
            if not data:
                if messages:
                    return messages
                raise EOFError
            messages.append(_UP.decode(data))

    def close(self) -> None:
        """Let the process go."""
        self._socket.close()


class Collar:
    """A process's end, in its own event loop."""

    def __init__(self, theirs: socket.socket) -> None:
        self._socket = trio.socket.from_stdlib_socket(theirs)

    async def say(self, message: Up) -> None:
        """Tell the parent; without a parent there is nobody to tell."""
        try:
            await self._socket.send(_ENCODER.encode(message))
        except OSError:
            return

    async def heard(self) -> AsyncIterator[tuple[Down, bytes]]:
        """What the parent says, with the text that came along; ends with the parent."""
        room = socket.CMSG_SPACE(4)
        while True:
            try:
                data, ancillary, _, _ = await self._socket.recvmsg(MESSAGE_BYTES, room)
            except OSError:
                return
            if not data:
                return
            yield _DOWN.decode(data), _text_in(ancillary)

    def close(self) -> None:
        """Say no more."""
        self._socket.close()


def _text_in(ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """The text in the descriptors of a message; each is closed."""
    text = b""
    for level, kind, data in ancillary:
        if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            continue
        for at in range(0, len(data) - 3, 4):
            file = int.from_bytes(data[at : at + 4], "little", signed=True)
            with os.fdopen(file, "rb") as opened:
                text = os.pread(opened.fileno(), os.fstat(opened.fileno()).st_size, 0)
    return text
