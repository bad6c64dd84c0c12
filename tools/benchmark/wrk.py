"""wrk, which loads a server, and what that costs the server."""

from __future__ import annotations

import select
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tools.benchmark.figures import Load, read_wrk
from tools.benchmark.servers import NotReady, Server, pinned

if TYPE_CHECKING:
    from pathlib import Path

    from tools.benchmark.loads import Kind

PATIENCE_S: Final = 600.0
TIMEOUT: Final = "60s"


@dataclass(frozen=True, slots=True)
class Run:
    """One server in one round."""

    load: Load
    cpu_us: float  # for each request
    resident_bytes: int


def run_wrk(
    wrk: str,
    kind: Kind,
    server: Server,
    seconds: float,
    place: Path,
    mark: str,
    core: int | None = 1,
) -> Run:
    """One run of wrk; `mark` is in the targets of this run alone, where they are unique."""
    script = place / "load.lua"
    script.write_text(kind.script(mark))
    command = [
        *_command(wrk, kind.connections, script, core),
        "--duration", f"{max(1, round(seconds))}s", server.url,
    ]  # fmt: skip
    before = server.cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used = server.cpu_s() - before
    load = read_wrk(done.stdout)
    return Run(load, 1e6 * used / max(1, load.requests), server.resident_bytes())


def _command(wrk: str, connections: int, script: Path, core: int | None) -> list[str]:
    return [
        *pinned(core), wrk, "--threads", "1", "--connections", str(connections),
        "--timeout", TIMEOUT, "--latency", "--script", str(script),
    ]  # fmt: skip


def run_until(
    wrk: str, server: Server, script: Path, done: str, *, connections: int, core: int | None = 1
) -> Load:
    """Run a script until it prints `done` or has taken too long; raises `NotReady` on failures."""
    command = [
        *_command(wrk, connections, script, core),
        "--duration", f"{PATIENCE_S:.0f}s", server.url,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            text = _until_said(process, done.encode())
        finally:
            process.kill()
    load = read_wrk(text)
    if load.failed:
        raise NotReady(f"{server.name}: {load.failed} of {load.requests} requests failed")
    return load


def _until_said(process: subprocess.Popen[bytes], done: bytes) -> str:
    """What wrk prints, told to end when its script says that all have been answered."""
    assert process.stdout is not None
    said = b""
    until = time.monotonic() + PATIENCE_S
    while done not in said and time.monotonic() < until:
        if select.select([process.stdout], [], [], 1.0)[0]:
            piece = process.stdout.read1(65_536)  # type: ignore[attr-defined]
            if not piece:
                break
            said += piece
    process.send_signal(signal.SIGINT)
    return (said + process.stdout.read()).decode()
