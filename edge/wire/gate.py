"""The strict gate before h11: it follows each message's framing and lets only good bytes through.

Theory of operation
-------------------
h11 keeps the state of a connection and reads heads and bodies, but it is kinder than a gateway
may be (bare LF, folds, Content-Length beside Transfer-Encoding, heads of any length if they come
whole). So every received byte passes here first. The gate holds back a head until it is whole and
has been checked, counts a body, and stops at the end of the message: h11 never sees a byte of a
bad head, nor a byte of the next message before this exchange is over. What is behind waits here.

What goes through is canonical. Chunks are joined, hundreds to one, without extensions; trailers
are checked and dropped; everything else goes through as it came. h11 therefore meets only the
plain core of its grammar, and a flood of one-byte chunks costs it few events, not one a byte.

- *Any cut is the same.* A fault is told at the first byte that makes it certain, found in byte
  order, so it does not depend on how the input was cut; what was good before it goes on first.
- *Linear.* The search for a line's end goes on where it stopped. Bytes not passed on are joined
  only while a line is incomplete; body bytes are handed on as views of what was read.
- *Bounded.* A head, a chunk-size line and a trailer section have limits, counted with their line
  ends; a message that passes one is refused there, complete or not.

A fault is final: it is raised by each later `take`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, TypeAlias, assert_never

from edge.errors import Failure, ProtocolError
from edge.wire.grammar import (
    METHOD_ROOM,
    Body,
    Framing,
    Limits,
    bad_byte,
    canonical_response,
    check_request_line,
    check_status_line,
    check_trailers,
    read_chunk_line,
    request_framing,
    response_framing,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Piece: TypeAlias = bytes | memoryview

CHUNKS_AT_ONCE: Final = 256  # about half a millisecond of work: others are to have their turn
_LAST_CHUNK: Final = (b"0\r\n\r\n",)
_CLOSE: Final = (b"",)  # what h11 takes for the end of input


class _At(Enum):
    """What the next byte belongs to."""

    HEAD = auto()
    LENGTH = auto()
    CHUNKS = auto()
    TRAILERS = auto()
    UNTIL_CLOSE = auto()
    BEHIND = auto()  # the next message, or no message at all


class _Failures(NamedTuple):
    """What each kind of fault is called."""

    bad: Failure
    head_too_long: Failure
    line_too_long: Failure
    ended_before: Failure | None  # None: no message is owed
    ended_in_head: Failure
    ended_in_body: Failure


class Gate(ABC):
    """Received bytes on one connection, passed on message by message.

    `RequestGate` and `ResponseGate` add what differs between the two directions.
    """

    _failures: ClassVar[_Failures]
    _line_bytes: int  # the most that a start line may have
    _empty_lines: ClassVar[int]  # tolerated before a start line

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._input: bytes | bytearray = b""
        self._start = 0  # of what was not passed on, in _input
        self._sought = 0  # bytes from _start on, known to hold no end of the line or block
        self._ended = False
        self._deferred: ProtocolError | None = None
        self._next_message()

    @abstractmethod
    def _check_line(self, line: bytes) -> None:
        """Raise what is wrong with a start line (without its CRLF)."""

    @abstractmethod
    def _read_head(self, head: bytes) -> tuple[bytes, Framing]:
        """`head` in canonical form and what follows it; raises what is wrong with it."""

    def _next_message(self) -> None:
        self._at = _At.HEAD
        self._skippable = self._empty_lines
        self._sought = 0
        self._line_checked = False
        self._left = 0  # of the body, or of the chunk under way
        self._chunk_ending = False  # the CRLF behind a chunk's data is still to come
        self._extension_bytes = 0

    @property
    def buffered(self) -> int:
        """Bytes received and not passed on."""
        return len(self._input) - self._start

    @property
    def whole(self) -> bool:
        """The current message was passed on to its end."""
        return self._at is _At.BEHIND

    @property
    def is_chunked(self) -> bool:
        """What is passed on next belongs to a body in chunks."""
        return self._at is _At.CHUNKS

    @property
    def is_until_close(self) -> bool:
        """What is passed on next belongs to a body that lasts until the connection closes."""
        return self._at is _At.UNTIL_CLOSE

    @property
    def ended(self) -> bool:
        """The peer will send no more."""
        return self._ended

    def receive(self, data: bytes) -> None:
        """Take what was read; `b""` means the end of input."""
        if not data:
            self._ended = True
        elif self._start == len(self._input):
            self._input, self._start = data, 0
        else:
            if isinstance(self._input, bytes):
                self._input = bytearray(memoryview(self._input)[self._start :])
            else:
                del self._input[: self._start]
            self._start = 0
            self._input += data

    def take(self) -> Sequence[Piece]:
        """More of the current message, canonical, or nothing until more is received.

        A sole empty piece is the end of a body that lasts until the connection closes. Raises
        `ProtocolError` for what is bad, or ended early.
        """
        if self._deferred is not None:
            raise self._deferred.anew()
        try:
            return self._step() or self._at_end_of_input()
        except ProtocolError as fault:
            self._deferred = fault.anew()
            raise

    def leftover(self) -> bytes:
        """Take all that was received and not passed on."""
        rest = bytes(memoryview(self._input)[self._start :])
        self._input, self._start = b"", 0
        return rest

    def _step(self) -> Sequence[Piece]:
        match self._at:
            case _At.HEAD:
                return self._pass_head()
            case _At.LENGTH:
                return self._pass_length()
            case _At.CHUNKS:
                return self._pass_chunks()
            case _At.TRAILERS:
                return self._pass_trailers()
            case _At.UNTIL_CLOSE:
                rest = self._cut(self.buffered)
                return (rest,) if rest else ()
            case _At.BEHIND:
                return ()
            case _:
                assert_never(self._at)

    def _at_end_of_input(self) -> Sequence[Piece]:
        """What the end of input means where nothing more can be passed on."""
        if not self._ended or self._at is _At.BEHIND:
            return ()
        if self._at is _At.UNTIL_CLOSE:
            self._at = _At.BEHIND
            return _CLOSE
        failure: Failure | None = self._failures.ended_in_body
        if self._at is _At.HEAD:
            failure = (
                self._failures.ended_in_head if self.buffered else self._failures.ended_before
            )
        if failure is None:
            return ()
        raise ProtocolError(failure, "the input ended inside a message")

    # Heads.

    def _pass_head(self) -> Sequence[Piece]:
        if self._skippable and self._peek(2) == b"\r\n":  # RFC 9112 §2.2
            self._start += 2
            self._skippable = self._sought = 0
        size = self._find_end(b"\r\n\r\n", self._limits.head_bytes, self._failures.head_too_long)
        if not size:
            return ()
        try:
            head, framing = self._read_head(self._peek(size))
        except ProtocolError:
            self._inspect(self._start, self._start + size)  # a fault in an earlier byte goes first
            raise
        self._start += size
        self._follow(framing)
        return (head,)

    def _find_end(self, mark: bytes, most: int, too_long: Failure) -> int:
        """Size of the block that ends with `mark`, or 0; raises what is bad, or over `most`."""
        known = self._start + self._sought
        stop = min(len(self._input), self._start + most)
        found = self._input.find(mark, max(self._start, known - len(mark) + 1), stop)
        if found >= 0:
            self._sought = 0
            return found + len(mark) - self._start
        self._inspect(known, stop)
        self._sought = stop - self._start
        if self._sought == most:
            raise ProtocolError(too_long, f"more than {most} bytes")
        return 0

    def _inspect(self, known: int, stop: int) -> None:
        """Raise the first fault of an incomplete block; bytes before `known` were inspected."""
        around = max(self._start, known - 1)  # a CR there waits for its LF
        bad = bad_byte(self._input, around, stop)
        if self._at is _At.HEAD and not self._line_checked:
            line_stop = min(stop, self._start + self._line_bytes + 2)
            line_end = self._input.find(b"\r\n", around, line_stop)
            if line_end >= 0 and line_end < bad:
                self._check_line(bytes(self._input[self._start : line_end]))
                self._line_checked = True
            elif bad >= line_stop:
                if line_stop - self._start == self._line_bytes + 2:
                    raise ProtocolError(self._failures.line_too_long, "start line without end")
                return
        if bad < stop:
            raise ProtocolError(self._failures.bad, f"byte {self._input[bad]:#04x} in a head")

    def _follow(self, framing: Framing) -> None:
        match framing.body:
            case Body.NONE:
                self._at = _At.BEHIND
            case Body.LENGTH:
                self._left = framing.length
                self._at = _At.LENGTH if framing.length else _At.BEHIND
            case Body.CHUNKED:
                self._at = _At.CHUNKS
            case Body.UNTIL_CLOSE:
                self._at = _At.UNTIL_CLOSE
            case Body.INTERIM:
                self._next_message()
            case _:
                assert_never(framing.body)

    # Bodies.

    def _pass_length(self) -> Sequence[Piece]:
        data = self._cut(self._left)
        self._left -= len(data)
        if not self._left:
            self._at = _At.BEHIND
        return (data,) if data else ()

    def _pass_chunks(self) -> Sequence[Piece]:
        """Many of the chunks in hand as one; the last one comes when its trailers have."""
        data: list[Piece] = []
        try:
            while len(data) < CHUNKS_AT_ONCE and (self._left or self._next_chunk()):
                piece = self._cut(self._left)
                if not piece:
                    break
                self._left -= len(piece)
                data.append(piece)
        except ProtocolError as fault:
            if not data:
                raise
            self._deferred = fault.anew()  # what was good before it goes first
        if data:
            return (b"%x\r\n" % sum(map(len, data)), *data, b"\r\n")
        return self._pass_trailers() if self._at is _At.TRAILERS else ()

    def _next_chunk(self) -> bool:
        """Step to the next chunk's data; False where more is needed, or at the last chunk."""
        if self._chunk_ending:
            line_end = self._peek(2)
            if line_end != b"\r\n":
                if b"\r\n".startswith(line_end):
                    return False
                raise ProtocolError(self._failures.bad, "no line end behind a chunk")
            self._start += 2
            self._chunk_ending = False
        stop = min(len(self._input), self._start + self._limits.chunk_line_bytes)
        line = read_chunk_line(self._input, self._start, stop, self._failures.bad)
        if line is None:
            if stop - self._start == self._limits.chunk_line_bytes:
                raise ProtocolError(self._failures.bad, "a chunk-size line without end")
            return False
        self._left, extension_bytes, self._start = line
        self._extension_bytes += extension_bytes
        if self._extension_bytes > self._limits.extension_bytes:
            raise ProtocolError(self._failures.bad, "too much in chunk extensions")
        if self._left:
            self._chunk_ending = True
            return True
        self._at = _At.TRAILERS
        return False

    def _pass_trailers(self) -> Sequence[Piece]:
        size = 2
        if self._peek(2) != b"\r\n":
            size = self._find_end(b"\r\n\r\n", self._limits.trailer_bytes, self._failures.bad)
            if not size:
                return ()
        check_trailers(self._peek(size), self._limits, self._failures.bad)
        self._start += size
        self._at = _At.BEHIND
        return _LAST_CHUNK

    # The input.

    def _peek(self, size: int) -> bytes:
        return bytes(self._input[self._start : self._start + size])

    def _cut(self, most: int) -> memoryview:
        """The next bytes, at most so many, taken as a view of what was read."""
        if isinstance(self._input, bytearray):  # a view would forbid it to grow
            self._input, self._start = self.leftover(), 0
        start = self._start
        self._start = min(start + most, len(self._input))
        return memoryview(self._input)[start : self._start]


class RequestGate(Gate):
    """The gate of a connection's server side."""

    _failures = _Failures(
        bad=Failure.BAD_MESSAGE,
        head_too_long=Failure.HEAD_TOO_LARGE,
        line_too_long=Failure.TARGET_TOO_LONG,
        ended_before=None,
        ended_in_head=Failure.BAD_MESSAGE,
        ended_in_body=Failure.BAD_MESSAGE,
    )
    _empty_lines = 1

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._line_bytes = limits.target_bytes + METHOD_ROOM

    def next_request(self) -> None:
        """Begin with the bytes behind the current request, which is whole."""
        self._next_message()

    def _check_line(self, line: bytes) -> None:
        check_request_line(line, self._limits)

    def _read_head(self, head: bytes) -> tuple[bytes, Framing]:
        return head, request_framing(head, self._limits)


class ResponseGate(Gate):
    """The gate of a connection's client side."""

    _failures = _Failures(
        bad=Failure.BAD_RESPONSE,
        head_too_long=Failure.BAD_RESPONSE,
        line_too_long=Failure.BAD_RESPONSE,
        ended_before=Failure.CLOSED_EARLY,
        ended_in_head=Failure.CLOSED_EARLY,
        ended_in_body=Failure.BODY_TRUNCATED,
    )
    _empty_lines = 0

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._line_bytes = limits.head_bytes
        self._method = b""
        self._interim_heads = 0

    def expect(self, method: bytes) -> None:
        """Begin with the response to a request of `method`."""
        self._method = method
        self._interim_heads = 0
        self._next_message()

    def _check_line(self, line: bytes) -> None:
        check_status_line(line)

    def _read_head(self, head: bytes) -> tuple[bytes, Framing]:
        head = canonical_response(head)
        framing = response_framing(head, self._limits, self._method)
        if framing.body is Body.INTERIM:
            self._interim_heads += 1
            if self._interim_heads > self._limits.interim_heads:
                raise ProtocolError(Failure.BAD_RESPONSE, "no end of interim responses")
        return head, framing
