"""What two workers of a node say to each other, as frames on a stream of bytes.

Theory of operation
-------------------
A worker that is asked for what another one owns relays the request there, and the answer back. The
two speak no HTTP: heads are frames of their own, read already and checked, and what is between the
workers alone (who asked, under which id, what the log is to say, a copy to keep) is beside the
heads and not in them. So there is no field for a client or an origin to forge, nothing to strip,
and nothing of a client's connection that could end this one.

A frame is a size (4 bytes, big-endian), a kind (1 byte), and its content. A `Chunk`'s is a piece
of body; all others are MessagePack. The worker who accepted a connection begins, with `Welcome`:
until that has come nobody knows that anyone lives at the other side. Then, one after another:

- `Ask`, answered by any number of interim heads, `Answered`, the body's chunks, and `End`; or
  `Broken` at any point, where no more will come. Where the request has a body, that is sent as
  chunks and an `End` once the other side says `Wanted`. In place of chunks there may be a `Lent`,
  which is answered by `End` where it was taken, and by `Wanted` where the chunks are to come.
- `Glance`, a plain request as its client wrote it, answered by `Later` where the answer has to
  wait for anything, and is to be asked for; else by `Whole`, which is an answer as the client
  reads it, or the beginning of one, whose rest follows as chunks, or is a part of a file.
- `Invalidate`, answered by `End`.

Pieces of a chunk are told as they come, so nobody holds more of a body than it has read. All other
frames are bounded. Both sides are one program; bytes that are no frame raise `ProtocolError`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from edge.errors import Failure, ProtocolError
from edge.wire.message import Chunk, End, Headers, RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Callable

FORM: Final = b"edge 2"  # another program's frames may be others
MOST_BYTES: Final = 4 << 20  # of a frame that is no chunk: a head and an entry, 1 MiB each at most

_PREFIX: Final = struct.Struct(">IB")


class Welcome(msgspec.Struct, array_like=True, frozen=True):
    """The connection has been accepted."""

    form: bytes = FORM


class Facts(msgspec.Struct, array_like=True, frozen=True):
    """What the log is to say of an answer, as far as its owner knows it."""

    cache: str = ""
    reason: str = ""
    ttl: int | None = None
    upstream: str | None = None
    upstream_s: float | None = None
    error: str | None = None
    status: int = 0


class Ask(msgspec.Struct, array_like=True, frozen=True):
    """A request, from `peer`. `length` is that of its body, where it has one and says so.

    Who `takes_files` may be lent some for the answer. `drawn` are the arms of experiments that the
    visitor was given by chance.
    """

    id: str
    peer: bytes
    method: bytes
    scheme: bytes
    authority: bytes
    target: bytes
    version: bytes
    pairs: tuple[tuple[bytes, bytes], ...]
    has_body: bool = False
    length: int | None = None
    takes_files: bool = False
    drawn: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def head(self) -> RequestHead:
        """The request's head, as it was received."""
        headers = Headers(self.pairs)
        return RequestHead(
            self.method, self.scheme, self.authority, self.target, headers, self.version
        )


class _Head(msgspec.Struct, array_like=True, frozen=True):
    status: int
    reason: bytes
    version: bytes
    pairs: tuple[tuple[bytes, bytes], ...]

    @property
    def head(self) -> ResponseHead:
        return ResponseHead(self.status, Headers(self.pairs), self.reason, self.version)


class Copy(msgspec.Struct, array_like=True, frozen=True):
    """What it takes to keep a copy of an answer: its entry's byte form, and the lease."""

    form: bytes
    lease: int


class _Answered(msgspec.Struct, array_like=True, frozen=True):
    facts: Facts
    head: _Head
    copy: Copy | None


class Answered(msgspec.Struct, frozen=True):
    """The final head of an answer, and what goes with it."""

    head: ResponseHead
    facts: Facts
    copy: Copy | None = None


class Glance(msgspec.Struct, array_like=True, frozen=True):
    """A plain request from `peer`, to be answered at once or not; see `Ask`."""

    peer: bytes
    data: bytes
    takes_files: bool = False


class Lent(msgspec.Struct, array_like=True, frozen=True):
    """What comes next of a body is the bytes from `start` to `stop` of a file, whose descriptor
    comes with this frame.

    The rest is what it takes to send from the file as its owner would: the name and length of the
    body in it, the checks of its blocks, and as what the file was known (inode, size, links, and
    the times of its last change, in nanoseconds) when all of them had been found right. That was
    at `verified_at`, by the machine's monotonic clock, or after.
    """

    start: int
    stop: int
    name: str
    length: int
    checks: bytes
    stamp: tuple[int, int, int, int, int]
    verified_at: float


class Whole(msgspec.Struct, array_like=True, frozen=True):
    """An answer as it is written to the client, but for the last `rest` bytes; `sent` of it are
    content. The rest is in `file`, or follows."""

    facts: Facts
    data: bytes
    sent: int
    rest: int = 0
    copy: Copy | None = None
    file: Lent | None = None


class Later(msgspec.Struct, array_like=True, frozen=True):
    """There is no answer at once."""


class Broken(msgspec.Struct, array_like=True, frozen=True):
    """The answer is not whole, and nothing more of it will come."""

    facts: Facts


class Wanted(msgspec.Struct, array_like=True, frozen=True):
    """The request's body is to be sent."""


class Invalidate(msgspec.Struct, array_like=True, frozen=True):
    """What is stored under a key has been overtaken by a write (RFC 9111 §4.4)."""

    digest: bytes
    url: bytes


Frame: TypeAlias = (
    Welcome
    | Ask
    | Glance
    | Lent
    | ResponseHead
    | Answered
    | Whole
    | Later
    | Chunk
    | End
    | Broken
    | Wanted
    | Invalidate
)

_INTERIM, _ANSWERED, _CHUNK, _END = range(1, 5)

_ENCODER: Final = msgspec.msgpack.Encoder()
_END_FRAME: Final = _PREFIX.pack(0, _END)


def ask(
    head: RequestHead,
    peer: bytes,
    request_id: str,
    *,
    has_body: bool,
    length: int | None,
    takes_files: bool = False,
    drawn: tuple[tuple[bytes, bytes], ...] = (),
) -> Ask:
    """The question that relays `head`."""
    return Ask(
        request_id,
        peer,
        head.method,
        head.scheme,
        head.authority,
        head.target,
        head.version,
        head.headers.pairs,
        has_body,
        length,
        takes_files,
        drawn,
    )


def written(frame: Frame) -> list[bytes | memoryview]:
    """The bytes of a frame, a chunk's data uncopied."""
    match frame:
        case Chunk():
            return [_PREFIX.pack(len(frame.data), _CHUNK), frame.data]
        case End():
            return [_END_FRAME]
        case ResponseHead():
            return _packed(_INTERIM, _form_of(frame))
        case Answered():
            return _packed(_ANSWERED, _Answered(frame.facts, _form_of(frame.head), frame.copy))
        case _:
            return _packed(_KINDS[type(frame)], frame)


def _packed(kind: int, content: msgspec.Struct) -> list[bytes | memoryview]:
    data = _ENCODER.encode(content)
    return [_PREFIX.pack(len(data), kind) + data]


def _form_of(head: ResponseHead) -> _Head:
    return _Head(head.status, head.reason, head.version, head.headers.pairs)


def _read_answered(content: bytes | memoryview) -> Answered:
    told: _Answered = _ANSWERED_DECODER.decode(content)
    return Answered(told.head.head, told.facts, told.copy)


def _read_interim(content: bytes | memoryview) -> ResponseHead:
    told: _Head = _HEAD_DECODER.decode(content)
    return told.head


_HEAD_DECODER: Final = msgspec.msgpack.Decoder(_Head)
_ANSWERED_DECODER: Final = msgspec.msgpack.Decoder(_Answered)
_KINDS: Final[dict[type, int]] = {
    Welcome: 5,
    Ask: 6,
    Glance: 7,
    Whole: 8,
    Later: 9,
    Broken: 10,
    Wanted: 11,
    Invalidate: 12,
    Lent: 13,
}
_READERS: Final[dict[int, Callable[[bytes | memoryview], Frame]]] = {
    _INTERIM: _read_interim,
    _ANSWERED: _read_answered,
    **{kind: msgspec.msgpack.Decoder(made).decode for made, kind in _KINDS.items()},
}


class FrameReader:
    """Makes frames of received bytes, however they are cut."""

    __slots__ = ("_at", "_data", "_left")

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""
        self._at = 0  # of what was not read
        self._left = 0  # of the chunk under way

    @property
    def is_between(self) -> bool:
        """Whether all that was received has been read, to a frame's end."""
        return not self._left and self._at == len(self._data)

    def receive(self, data: bytes) -> None:
        """Take what was read from the other side."""
        if self._at == len(self._data):
            self._data, self._at = data, 0
            return
        if isinstance(self._data, bytes):
            self._data = bytearray(memoryview(self._data)[self._at :])
        else:
            del self._data[: self._at]
        self._at = 0
        self._data += data

    def next(self) -> Frame | None:
        """The next frame, or a piece of a chunk; None until more is received."""
        if self._left:
            return self._piece()
        start = self._at + _PREFIX.size
        if len(self._data) < start:
            return None
        size, kind = _PREFIX.unpack_from(self._data, self._at)
        if kind == _CHUNK and size:
            self._at, self._left = start, size
            return self._piece()
        if size > MOST_BYTES:
            raise ProtocolError(Failure.OWNER_GONE, f"a frame of {size} bytes")
        if len(self._data) < start + size:
            return None
        self._at = start + size
        if kind == _END and not size:
            return End()
        return _read(kind, bytes(memoryview(self._data)[start : self._at]))

    def _piece(self) -> Chunk | None:
        """What is here of the chunk under way."""
        start, stop = self._at, min(len(self._data), self._at + self._left)
        if start == stop:
            return None
        self._at = stop
        self._left -= stop - start
        data = self._data
        if isinstance(data, bytes):
            return Chunk(data if stop - start == len(data) else memoryview(data)[start:stop])
        return Chunk(bytes(memoryview(data)[start:stop]))


def _read(kind: int, content: bytes) -> Frame:
    reader = _READERS.get(kind)
    if reader is None:
        raise ProtocolError(Failure.OWNER_GONE, f"a frame of kind {kind}")
    try:
        return reader(content)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ProtocolError(Failure.OWNER_GONE, f"a frame of kind {kind}: {error}") from error
