"""The bytes of what is sent together, those in files too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edge.upstream.transport import FileSpan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.upstream.transport import Part


def joined(parts: Sequence[Part]) -> bytes:
    """All bytes of `parts`, in order."""
    return b"".join(map(_bytes_of, parts))


def _bytes_of(part: Part) -> bytes:
    if isinstance(part, FileSpan):
        return os.pread(part.source.descriptor, len(part), part.offset)
    return bytes(part)
