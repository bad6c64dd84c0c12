"""The build's hook: with EDGE_COMPILE=1, the hot modules are compiled by mypyc.

    pip wheel .                     any platform, pure Python
    EDGE_COMPILE=1 pip wheel .      this platform and Python, and `edge --version` says "compiled"

The sources are in both wheels, and are the same. Only modules are listed that a measurement says
it of: with these, a hit of 1 KiB with a browser's head takes a tenth less of the processor, all
told. Turned down, since they were no quicker or slower: `observe/tally` and `observe/record`
(shared memory is a Python object there too), `clock`, `cache/store`, `listen/tcp`. `hop/desk` is
among them as no interpreted class can inherit from a compiled one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULES = (
    "edge/cache/held.py",
    "edge/cache/ram.py",
    "edge/hop/desk.py",
    "edge/listen/lane.py",
    "edge/serving/quick.py",
    "edge/serving/ready.py",
    "edge/serving/scribe.py",
    "edge/wire/plain.py",
)
SHARED = "edge_compiled"  # one library has them all, so that they call each other directly
NEEDS = ("mypy[mypyc]>=1.15", "setuptools>=65.5")  # the package called mypyc is a stub
COMPILE = f"""\
from mypyc.build import mypycify
from setuptools import setup
modules = mypycify({["--config-file=pyproject.toml", *MODULES]!r}, group_name={SHARED!r})
setup(name={SHARED!r}, packages=[], ext_modules=modules)
"""


class CompilingHook(BuildHookInterface[Any]):
    """Adds what was compiled to a wheel, where that is asked for."""

    def dependencies(self) -> list[str]:
        """What has to be there to compile: mypy looks into what the modules import, too."""
        if not _is_asked_for():
            return []
        return [*NEEDS, *self.metadata.core.dependencies]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless it is for an editable install, which runs what is being edited."""
        if self.target_name != "wheel" or version == "editable" or not _is_asked_for():
            return
        self._made = Path(tempfile.mkdtemp(prefix="edge-compiled-"))
        for path in compiled(Path(self.root), self._made):
            build_data["force_include"][str(path)] = str(path.relative_to(self._made))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made on the way."""
        if not build_data["pure_python"]:
            shutil.rmtree(self._made)


def compiled(root: Path, place: Path) -> list[Path]:
    """The libraries that are made of `MODULES`, below `place`; raises CalledProcessError."""
    work = place / "work"
    command = [
        sys.executable, "-c", COMPILE,
        "build_ext", "--build-lib", str(place), "--build-temp", str(work),
    ]  # fmt: skip
    environment = os.environ | {"CFLAGS": os.environ.get("CFLAGS", "-g0")}
    with tempfile.TemporaryDirectory(prefix="edge-sources-") as copy:
        for name in ("edge", "tools/stubs"):  # mypyc writes its C beside what it reads
            shutil.copytree(root / name, Path(copy) / name)
        shutil.copy(root / "pyproject.toml", copy)
        subprocess.run(command, cwd=copy, env=environment, check=True)
    return [path for path in place.rglob("*.so") if work not in path.parents]


def _is_asked_for() -> bool:
    return os.environ.get("EDGE_COMPILE") == "1"
