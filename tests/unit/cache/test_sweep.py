"""The sweep removes what no row names, in steps, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.cache.sweep import STEP_FILES, sweep

if TYPE_CHECKING:
    from pathlib import Path


def test_files_without_a_row_are_removed_and_the_others_stay(tmp_path: Path) -> None:
    for name in ("spool/mine-1", "spool/old-1", "bodies/ab/kept", "bodies/ab/orphan"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    removed = sum(
        sweep(tmp_path, lambda name: name.startswith("mine"), lambda name: name.endswith("kept"))
    )
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert (removed, left) == (2, {"spool/mine-1", "bodies/ab/kept"})


def test_each_step_is_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "bodies" / "ab"
    folder.mkdir(parents=True)
    for number in range(STEP_FILES * 2 + 1):
        (folder / f"{number}").touch()
    steps = list(sweep(tmp_path, lambda name: True, lambda name: False))
    assert steps == [STEP_FILES, STEP_FILES, 1]


def test_a_directory_that_is_not_there_is_swept(tmp_path: Path) -> None:
    assert list(sweep(tmp_path / "none", lambda name: True, lambda name: True)) == []
