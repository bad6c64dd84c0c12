"""The five messages that every HTTP version and both sides of the proxy speak.

A stream of messages is: any number of interim `ResponseHead`s (status 1xx, responses only), one
head, any number of `Chunk`s, then `End`; or `Reset` at any point in place of what was to come.
Values are bytes as they stood on the wire; field names are lower case.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from edge.errors import ExchangeError

Pair: TypeAlias = tuple[bytes, bytes]


class Headers:
    """Field lines in the order they came: `(name, value)` pairs, names lower case. Immutable."""

    __slots__ = ("pairs",)

    pairs: tuple[Pair, ...]

    def __init__(self, pairs: Iterable[Pair] = ()) -> None:
        self.pairs = tuple(pairs)

    def get(self, name: bytes) -> bytes | None:
        """The first line's value, or None."""
        for key, value in self.pairs:
            if key == name:
                return value
        return None

    def all(self, name: bytes) -> list[bytes]:
        """Every line's value, in order."""
        return [value for key, value in self.pairs if key == name]

    def joined(self, name: bytes) -> bytes | None:
        """All lines' values joined by ", " (RFC 9110 §5.3), or None where there is no line."""
        values = self.all(name)
        return b", ".join(values) if values else None

    def without(self, names: Container[bytes]) -> Headers:
        """These fields less every line whose name is in `names`."""
        return Headers([pair for pair in self.pairs if pair[0] not in names])

    def replaced(self, name: bytes, value: bytes) -> Headers:
        """These fields with exactly one `name`: at the place of the first, else at the end."""
        out: list[Pair] = []
        placed = False
        for pair in self.pairs:
            if pair[0] != name:
                out.append(pair)
            elif not placed:
                out.append((name, value))
                placed = True
        if not placed:
            out.append((name, value))
        return Headers(out)

    def plus(self, *pairs: Pair) -> Headers:
        """These fields with more lines behind them."""
        return Headers(self.pairs + pairs)

    def __contains__(self, name: object) -> bool:
        for key, _ in self.pairs:  # noqa: SIM110 - asked so often that a generator costs
            if key == name:
                return True
        return False

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.pairs == other.pairs

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __repr__(self) -> str:
        return f"Headers({self.pairs!r})"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request up to its body.

    `authority` is Host, or the authority of an absolute-form target; Host is not among `headers`.
    `target` is in origin form as received (`/path?query`), or `*` for OPTIONS. `version` is what
    the sender spoke: b"1.0" or b"1.1".
    """

    method: bytes
    scheme: bytes
    authority: bytes
    target: bytes
    headers: Headers = field(default_factory=Headers)
    version: bytes = b"1.1"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response up to its body; interim where `status` is 1xx."""

    status: int
    headers: Headers = field(default_factory=Headers)
    reason: bytes = b""
    version: bytes = b"1.1"


@dataclass(frozen=True, slots=True)
class Times:
    """When a request was sent and its response's head came; Unix seconds (RFC 9111 §4.2.3)."""

    request_time: float
    response_time: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of body; never empty. How a body is cut into chunks means nothing."""

    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class End:
    """The message is whole. Trailers are dropped (RFC 9110 §6.5.1 allows it)."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The stream was broken off; what came before it is not a whole message."""

    error: ExchangeError


Message: TypeAlias = RequestHead | ResponseHead | Chunk | End | Reset
