"""The plain request: a whole head without a body and nothing behind it, read without h11.

Theory of operation
-------------------
Nearly all requests are one `recv` of exactly one head: GET or HEAD (or a PURGE, which most may
not ask for), a target in origin form, HTTP/1.1, one Host, no body, nothing that touches the
connection but that it may be the last. What such bytes mean needs no protocol state, so they are
read here, by two regular expressions and a split. Anything else, good or bad, is not plain:
`ServerEngine` reads it from the first byte on, and owns every refusal.

- *One reading.* What is plain here, the gate, h11 and `ServerEngine` accept, read as the same
  head, and keep the connection alive after it unless it `is_last`. This grammar is narrower than
  theirs wherever a wider one would need a second look: an empty line before the head, the absolute
  form, HTTP/1.0, two that differ of Connection, and every field in `MORE_THAN_PLAIN` are theirs.
- *Remembered, never guessed.* What follows the request line seldom changes from one request of a
  client to the next, so it is remembered as one block under its bytes, and with it the last heads
  that were made of it. Where a block is new, most of its lines are not: browsers differ by their
  cookies and pages by their Referer. So single lines are remembered too. What is found under
  equal bytes is what reading them again would give; nothing else enters into it.
- *Bounded.* Both memories are two generations of a fixed room. What is asked for moves to the
  younger; when that is full, the older one goes. A hit in the younger moves nothing: two lookups,
  of a block and of a request line. A stream of heads that never come back can only turn the
  generations, and each pays for that itself: what goes is taken apart in step with what comes,
  so no request waits until thousands of blocks are freed.
- *Linear.* The repetitions are possessive, and each byte is looked at a fixed number of times.

Turned down: a memory of whole heads. It answers the same head 0.2 µs sooner, but keeps a client's
fields once per target, and where the target is new it hashes them twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from edge.errors import ProtocolError
from edge.wire.fields import OWS
from edge.wire.hop import HOP_BY_HOP
from edge.wire.message import Headers, RequestHead
from edge.wire.target import parse_request_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.wire.grammar import Limits
    from edge.wire.message import Pair

V = TypeVar("V")

MORE_THAN_PLAIN: Final = (HOP_BY_HOP - {b"connection"}) | {
    b"content-length",
    b"expect",
    b"max-forwards",
}
"""Fields that make a request more than plain, as does a Connection with other than `OPTIONS`."""

OPTIONS: Final = (b"keep-alive", b"close")

ROOM_BYTES: Final = 4 * 1024 * 1024  # a thousand browsers' blocks, in each of two generations
HEADS_PER_BLOCK: Final = 16  # a browser asks for other targets; a monitor asks for few, again

# What it costs to hold something, beside its bytes, which are there twice: as key and as value.
_LEAST_BYTES: Final = 400
_FIELD_BYTES: Final = 160

_LINE: Final = re.compile(rb"(GET|HEAD|PURGE) (/[\x21\x22\x24-\x7e]*+) HTTP/1\.1\r\n")
_FIELD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+")


@dataclass(frozen=True, slots=True)
class PlainStatistics:
    """How much a reader remembers; `dying` is forgotten, and not yet freed."""

    blocks: int
    lines: int
    dying: int


class _Generations(Generic[V]):
    """Values by the bytes that they were read from; what nobody asks for is forgotten.

    `fresh` makes the table of a new generation.
    """

    __slots__ = ("_fresh", "_left", "_old", "_room", "dying", "young")

    def __init__(self, room_bytes: int, fresh: Callable[[], dict[bytes, V]]) -> None:
        self._room = self._left = room_bytes
        self._fresh = fresh
        self.young = fresh()
        self._old = fresh()
        self.dying = fresh()

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def forgotten(self, key: bytes) -> V | None:
        """Take the value that the older generation has for `key`, to be put again."""
        return self._old.pop(key, None)

    def put(self, key: bytes, value: V, cost: int) -> None:
        """Remember `value`, which takes at most `cost` bytes with its key."""
        self.young[key] = value
        self.charge(cost)

    def charge(self, cost: int) -> None:
        """Count `cost` bytes more (or fewer) as held by the younger generation."""
        if self.dying:
            self._bury(1 + cost // _LEAST_BYTES)
        self._left -= cost
        if self._left < 0:
            self.dying, self._old, self.young = self._old, self.young, self._fresh()
            self._left = self._room

    def _bury(self, most: int) -> None:
        """Free some of what was forgotten: nothing costs less than the least, so that a room full
        of charges frees a room full of values."""
        for _ in range(min(most, len(self.dying))):
            self.dying.popitem()


class _Lines(dict[bytes, "Pair"]):
    """Pairs by the lines that they stand in; `learn` reads one that is not there."""

    __slots__ = ("_learn",)

    def __init__(self, learn: Callable[[bytes], Pair]) -> None:
        self._learn = learn

    def __missing__(self, line: bytes) -> Pair:
        return self._learn(line)


class _Block:
    """What the bytes behind a request line mean, and the last heads made of them, by line."""

    __slots__ = ("authority", "cost", "headers", "heads", "heads_cost")

    def __init__(self, authority: bytes, headers: Headers, cost: int) -> None:
        self.authority = authority
        self.headers = headers
        self.cost = cost  # bytes
        self.heads: dict[bytes, RequestHead] = {}
        self.heads_cost = 0


class PlainReader:
    """Plain heads from connections of one `scheme`, and what is remembered of them.

    `room_bytes` bounds each of four generations; what is forgotten takes as much for a while.
    """

    __slots__ = ("_blocks", "_limits", "_lines", "_most_bytes", "_scheme")

    def __init__(
        self, limits: Limits, scheme: bytes = b"http", *, room_bytes: int = ROOM_BYTES
    ) -> None:
        self._limits = limits
        self._most_bytes = limits.head_bytes
        self._scheme = scheme
        self._blocks: _Generations[_Block] = _Generations(room_bytes, dict)
        self._lines: _Generations[Pair] = _Generations(room_bytes, lambda: _Lines(self._learn))

    def read(self, data: bytes) -> RequestHead | None:
        """The request that `data` are, whole and plain, or None; raises nothing."""
        if len(data) > self._most_bytes:
            return None
        start = data.find(b"\r\n") + 2
        fields = data[start:]
        block = self._blocks.young.get(fields)
        if block is None:
            return self._read_rarer(data[:start], fields)
        line = data[:start]
        return block.heads.get(line) or self._next_head(line, block)

    def statistics(self) -> PlainStatistics:
        """What is remembered now."""
        dying = len(self._blocks.dying) + len(self._lines.dying)
        return PlainStatistics(len(self._blocks), len(self._lines), dying)

    def _read_rarer(self, line: bytes, fields: bytes) -> RequestHead | None:
        """As `read`, where the block is not of the younger generation."""
        block = self._blocks.forgotten(fields) or self._new_block(fields)
        if block is None:
            return None
        block.heads, block.heads_cost = {}, 0  # the older generation was charged for them
        self._blocks.put(fields, block, block.cost)
        return self._head(line, block)  # to be remembered when the block comes again

    # Request lines.

    def _next_head(self, line: bytes, block: _Block) -> RequestHead | None:
        """The head that `line` makes of a block of the younger generation, remembered with it."""
        head = self._head(line, block)
        if head is None:
            return None
        if len(block.heads) == HEADS_PER_BLOCK:
            block.heads.clear()
            self._blocks.charge(-block.heads_cost)
            block.heads_cost = 0
        block.heads[line] = head
        cost = _LEAST_BYTES + 2 * len(line)
        block.heads_cost += cost
        self._blocks.charge(cost)
        return head

    def _head(self, line: bytes, block: _Block) -> RequestHead | None:
        parts = _LINE.fullmatch(line)
        if parts is None:
            return None
        method, target = parts.groups()
        if len(target) > self._limits.target_bytes:
            return None
        return RequestHead(method, self._scheme, block.authority, target, block.headers)

    # Fields.

    def _new_block(self, fields: bytes) -> _Block | None:
        """What `fields`, with the empty line that ends them, mean; None: more than plain."""
        lines = fields.split(b"\r\n", self._limits.fields + 1)
        if lines[-2:] != [b"", b""]:
            return None
        del lines[-2:]
        known = self._lines.young
        try:
            pairs = [known[line] for line in lines]
        except (KeyError, ProtocolError):
            return None
        names = [name for name, _ in pairs]
        if names.count(b"host") != 1:
            return None
        said = {value.lower() for name, value in pairs if name == b"connection"}
        if len(said) > 1:
            return None
        _, authority = pairs.pop(names.index(b"host"))
        cost = _LEAST_BYTES + _FIELD_BYTES * len(lines) + 2 * len(fields)
        return _Block(authority, Headers(pairs), cost)

    def _learn(self, line: bytes) -> Pair:
        """The pair of a line that the younger generation does not know, and now does.

        Raises KeyError where it is more than plain, ProtocolError where it is a bad Host.
        """
        pair = self._lines.forgotten(line) or self._pair(line)
        self._lines.put(line, pair, _LEAST_BYTES + 2 * len(line))
        return pair

    def _pair(self, line: bytes) -> Pair:
        """Name and value of a line; that of Host is the canonical authority. Raises as above."""
        if _FIELD.fullmatch(line) is None:
            raise KeyError(line)
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(OWS)
        if name in MORE_THAN_PLAIN or (name == b"connection" and value.lower() not in OPTIONS):
            raise KeyError(line)
        if name == b"host":
            value = parse_request_target(b"GET", b"/", [value], self._scheme)[1]
        return name, value


def is_last(head: RequestHead) -> bool:
    """Whether a plain head is the last of its connection (RFC 9112 §9.6)."""
    return (head.headers.get(b"connection") or b"").lower() == b"close"
