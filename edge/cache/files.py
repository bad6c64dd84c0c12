"""What the writer does to files beside the database: write one whole, sync one, remove one."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def unlink(path: Path | str | None) -> None:
    """Remove a file if there is one; the next sweep finds what stays."""
    if path is not None:
        with contextlib.suppress(OSError):
            os.unlink(path)


def sync_file(path: Path) -> None:
    """Return when the contents of a file are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: str, data: bytes) -> None:
    """Make a file that holds `data`; there must be none of that name."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
