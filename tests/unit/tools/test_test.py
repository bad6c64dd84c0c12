"""`tools/test`: asked to end, it ends with all that it has begun, and does not wait for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "test"
# Says its process id, then runs until it is told to end; with 2 then, as pytest does.
STANDS_IN = """#!{python}
import os, signal, sys
path = "other" if "not live" in sys.argv else "live"
with open(path, "w") as told:
    print(os.getpid(), file=told, flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        sys.exit(2)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose tests never end by themselves, with pipes to know when they have begun."""
    (tmp_path / "tools").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(TOOL, tmp_path / "tools" / "test")
    (tmp_path / "tools" / "environment").write_text("prepare_environment() { :; }\n")
    stands_in = {"python": STANDS_IN.format(python=sys.executable), "ruff": "#!/bin/sh\n"}
    for name, text in {**stands_in, "mypy": "#!/bin/sh\n"}.items():
        path = tmp_path / ".venv" / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    for name in ("live", "other"):
        os.mkfifo(tmp_path / name)
    return tmp_path


def test_an_interrupt_ends_both_halves_at_once(project: Path) -> None:
    tool = subprocess.Popen(
        ["tools/test"],
        cwd=project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    halves = [(project / name).open() for name in ("live", "other")]
    began = [int(half.readline()) for half in halves]
    try:
        os.killpg(tool.pid, signal.SIGINT)  # as a terminal does: not to what is in the background
        said, _ = tool.communicate(timeout=10)
        assert tool.returncode == 130
        assert "passed" not in said
        for half in halves:
            assert half.read() == ""  # the other end has been closed: it has ended
    finally:
        for half, process in zip(halves, began, strict=True):
            half.close()
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
