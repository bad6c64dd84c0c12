"""Varnish, as a caching proxy beside this node.

Objects are in memory (malloc), and there is one pool of threads, as there is one core. It writes
its log to shared memory itself; no varnishncsa reads it, so no access log reaches a disk.
"""

from __future__ import annotations

import secrets
import subprocess
from typing import TYPE_CHECKING, Final

from tools.benchmark.servers import Server, await_port, free_port, pinned

if TYPE_CHECKING:
    from pathlib import Path

PARAMETERS: Final = ("thread_pools=1", "timeout_idle=600", "listen_depth=4096")


def start_varnish(
    path: str, directory: Path, origin: str, memory: str, *, core: int = 0
) -> tuple[Server, int]:
    """Varnish before `origin` with `memory` for objects, ready; and its CLI's port."""
    directory.mkdir(parents=True, exist_ok=True)
    host, _, number = origin.removeprefix("http://").partition(":")
    backend = f'backend default {{ .host = "{host}"; .port = "{number}"; }}\n'
    (directory / "vcl").write_text(f"vcl 4.1;\n{backend}")
    (directory / "secret").write_text(secrets.token_hex(16))
    port, cli = free_port(), free_port()
    log = directory / "error.log"
    command = [
        *pinned(core), path, "-F", "-n", str(directory / "work"), "-j", "none",
        "-a", f"127.0.0.1:{port}", "-T", f"127.0.0.1:{cli}", "-S", str(directory / "secret"),
        "-f", str(directory / "vcl"), "-s", f"malloc,{memory}", "-t", "86400",
    ]  # fmt: skip
    for parameter in PARAMETERS:
        command += ["-p", parameter]
    with log.open("a") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, text=True)
    server = Server("Varnish", port, process, log)
    await_port(server)
    return server, cli
