"""The limit: a loop in C that sends a constant, compiled on the spot from `limit.c`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from tools.benchmark.servers import NotReady, Server, await_port, free_port, pinned

NAME: Final = "C loop"
SOURCE: Final = Path(__file__).with_name("limit.c")


def start_limit(compiler: str, directory: Path, *, core: int = 0) -> Server:
    """The C loop, ready."""
    directory.mkdir(parents=True, exist_ok=True)
    program, port = directory / "limit", free_port()
    command = [compiler, "-O2", "-Wall", "-o", str(program), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReady(f"{SOURCE.name} does not compile: {done.stderr}")
    process = subprocess.Popen([*pinned(core), str(program), str(port)], text=True)
    server = Server(NAME, port, process, directory / "error.log")
    await_port(server)
    return server
