"""Bodies to code: real text of this repository, and what Hypothesis makes of pieces of it."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Final, NamedTuple

from hypothesis import strategies as st

_ROOT = Path(__file__).parents[3]
TEXT: Final = b"".join(path.read_bytes() for path in sorted((_ROOT / "edge").rglob("*.py")))


class Piece(NamedTuple):
    """What an origin may send at once: text, or (with a `seed`) noise, or the same ever again.

    Told by little, so that a failure can be read.
    """

    start: int
    size: int
    seed: bytes
    is_flushed: bool

    @property
    def data(self) -> bytes:
        """The bytes."""
        if not self.seed:
            return TEXT[self.start : self.start + self.size]
        return (self.seed * (self.size // len(self.seed) + 1))[: self.size]


pieces = st.builds(
    Piece,
    start=st.integers(0, 60_000),
    size=st.integers(0, 20_000) | st.integers(0, 200),
    seed=st.just(b"") | st.binary(min_size=1, max_size=3) | st.binary(min_size=1, max_size=200),
    is_flushed=st.booleans(),
)
cuts = st.lists(pieces, max_size=8)
"""A body in pieces, and behind which of them it is flushed."""


def available_field(digest: bytes) -> bytes:
    """The value of an Available-Dictionary that names `digest` (RFC 9842 §2.2)."""
    return b":%b:" % b64encode(digest)
