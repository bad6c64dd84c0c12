"""A file as an owner lends it, its body all verified."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edge.cache.descriptors import stamp_of
from edge.cache.integrity import checks_of
from edge.wire.frames import Lent

if TYPE_CHECKING:
    from pathlib import Path

LENGTH = 600_000


class LentFile:
    """The file at `path`, and what goes with its `descriptor`."""

    def __init__(self, path: Path, *, rotten: bool = False) -> None:
        self.is_rotten = rotten
        self.content = os.urandom(LENGTH)
        path.write_bytes(bytes(LENGTH) if rotten else self.content)
        self.descriptor = os.open(path, os.O_RDONLY)
        stamp = stamp_of(self.descriptor)[:5]
        self.lent = Lent(0, LENGTH, path.name, LENGTH, checks_of(self.content), stamp, 0.0)

    def close(self) -> None:
        """The owner needs it no more."""
        os.close(self.descriptor)
