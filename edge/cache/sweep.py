"""Removing files that no row names: what a killed process was writing, or a lost database had.

Each step looks at a few hundred files at most, so that the thread that writes can do it between
batches; it must be that thread, since only it cannot meet a file whose row is about to be
committed. A body's name holds its row's key, so each file costs one look in the index and no list
of names is ever in memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STEP_FILES: Final = 256  # about 5 ms


def sweep(
    directory: Path, is_ours: Callable[[str], bool], has_row: Callable[[str], bool]
) -> Iterator[int]:
    """Remove orphans a step at a time; yields how many each step removed.

    `is_ours(name)` tells spool files of this run; `has_row(filename)` whether a row names a body.
    Raises what `has_row` raises; errors of the file system leave the file for the next sweep.
    """
    yield from _sweep_folder(directory / "spool", "", is_ours)
    for shard in _names(directory / "bodies"):
        yield from _sweep_folder(directory / "bodies" / shard, f"bodies/{shard}/", has_row)


def _sweep_folder(folder: Path, prefix: str, keep: Callable[[str], bool]) -> Iterator[int]:
    names = _names(folder)
    for start in range(0, len(names), STEP_FILES):
        step = names[start : start + STEP_FILES]
        yield sum(_remove(folder / name) for name in step if not keep(prefix + name))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _remove(path: Path) -> int:
    try:
        path.unlink()
    except OSError:
        return 0
    return 1
