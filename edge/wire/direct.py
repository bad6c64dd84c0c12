"""The plain exchange with an origin, written and read without h11.

Theory of operation
-------------------
Nearly every request that leaves the node is a GET without a body and without a field that touches
the connection, and nearly every answer is one head of HTTP/1.1 with a length, or in chunks, after
which the connection lives on. To write the one and read the other takes four states, and the gate
keeps the framing anyway. h11, told of each event, took as long as a third of a miss.

- *One reading.* The gate passes every byte, so what is refused is refused by it, and in its words.
  What is plain here h11 would read as the same messages, and be ready for another request after
  them; a test compares the two over good answers, near misses and mutated ones.
- *Handed over, never guessed.* A request that is more than plain is h11's from the start. So is an
  answer, from its first byte on: an interim one, HTTP/1.0, a body until the close, any Connection
  but `keep-alive`. h11 is then told of the request, and given the head as the gate passed it.
- *An exchange at a time.* `begin`, `end`, `read` until `End`; then it is at rest, and the next
  request may be either's.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from edge.wire.fields import OWS
from edge.wire.hop import HOP_BY_HOP
from edge.wire.message import Chunk, End, Headers, ResponseHead

if TYPE_CHECKING:
    from edge.wire.gate import ResponseGate
    from edge.wire.message import Pair, RequestHead

MORE_THAN_PLAIN: Final = HOP_BY_HOP - {b"connection", b"keep-alive", b"transfer-encoding"}

_BODILESS: Final = frozenset({b"GET", b"HEAD"})
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]++")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: ([^\r]*+))?+")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}+")
_END: Final = End()


def plain_request(head: RequestHead, lines: bytes) -> bytes | None:
    """`head` as it is sent, `lines` being its fields without Host; None where it is not plain.

    None of its fields may be one that h11 would judge by.
    """
    if head.method not in _BODILESS or _VISIBLE.fullmatch(head.target) is None:
        return None
    if _VISIBLE.fullmatch(head.authority) is None:
        return None
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (
        head.method, head.target, head.authority, lines,
    )  # fmt: skip


def plain_response(head: bytes) -> ResponseHead | None:
    """What a head means that the gate has passed; None where it is more than plain."""
    lines = head.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(lines[0])
    if status is None:
        return None
    pairs: list[Pair] = []
    names: set[bytes] = set()
    for line in lines[1:-2]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(OWS)
        if name in _LOOKED_AT and not _is_plain(name, value, names):
            return None
        names.add(name)
        pairs.append((name, value))
    return ResponseHead(int(status[1]), Headers(pairs), status[2] or b"")


_LOOKED_AT: Final = MORE_THAN_PLAIN | {b"connection", b"content-length", b"transfer-encoding"}


def _is_plain(name: bytes, value: bytes, before: set[bytes]) -> bool:
    """Whether a field on which a connection or a body may rest says only what is usual."""
    match name:
        case b"connection":
            return value.lower() == b"keep-alive"
        case b"content-length":
            return name not in before and _LENGTH.fullmatch(value) is not None
        case b"transfer-encoding":
            return value == b"chunked"
        case _:
            return False


class _At(Enum):
    REST = auto()
    ASKED = auto()
    BODY = auto()
    LEFT = auto()  # to h11


class PlainExchange:
    """The plain exchanges of one connection, whose `gate` is shared with h11.

    `handed_over` is the head of an answer that was found to be more than plain.
    """

    __slots__ = ("_at", "_chunked", "_gate", "ended", "handed_over", "request")

    def __init__(self, gate: ResponseGate) -> None:
        self._gate = gate
        self._at = _At.REST
        self._chunked = False
        self.request: RequestHead | None = None
        self.ended = True  # the request has been sent to its end
        self.handed_over = b""

    @property
    def is_mine(self) -> bool:
        """h11 knows nothing of the current exchange, or there was none yet."""
        return self._at is not _At.LEFT

    @property
    def is_at_rest(self) -> bool:
        """Both messages were whole, or there was none yet."""
        return self._at is _At.REST and self.ended

    def end(self, message: Chunk | End) -> bool:
        """Whether `message` ends the request, which has no body; an empty piece of one is none."""
        if isinstance(message, Chunk):
            return not message.data
        is_first, self.ended = not self.ended, True
        return is_first

    def begin(self, head: RequestHead, lines: bytes) -> bytes | None:
        """The bytes of a plain request, which is then under way; see `plain_request`."""
        written = plain_request(head, lines)
        if written is not None:
            self._at, self.request, self.ended = _At.ASKED, head, False
            self.handed_over = b""
        return written

    def leave(self) -> None:
        """The next exchange is h11's."""
        self._at = _At.LEFT

    def read(self) -> ResponseHead | Chunk | End | None:
        """The next message, or None where more has to be received; raises `ProtocolError`.

        None, too, where the answer is `handed_over`; from then on all is h11's.
        """
        if self._at is _At.ASKED:
            return self._read_head()
        pieces = self._gate.take()
        if not pieces:
            return self._end() if self._gate.whole else None
        if not self._chunked:
            return Chunk(bytes(pieces[0]))
        data = pieces[1:-1]
        return Chunk(b"".join(data)) if data else self._end()

    def _read_head(self) -> ResponseHead | None:
        pieces = self._gate.take()
        if not pieces:
            return None
        written = bytes(pieces[0])
        head = None if self._gate.is_until_close else plain_response(written)
        if head is None:
            self._at, self.handed_over = _At.LEFT, written
            return None
        self._at, self._chunked = _At.BODY, self._gate.is_chunked
        return head

    def _end(self) -> End:
        self._at = _At.REST
        return _END
