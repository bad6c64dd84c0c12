"""An origin in a process of its own that says its name, so that it can be killed as one dies.

    python -m tests.live.named_origin eu --port 9001

`/u/…` must not be stored, everything else is fresh for a day. Each body is its target, filled up;
`X-Origin` has the name, whatever is asked.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from tests.live.hostile_harness import PATIENCE_S, ROOT, Origin, free_port

if TYPE_CHECKING:
    from tests.live.hostile_harness import Asked, Wire

BODY_BYTES = 700


def body_of(target: str) -> bytes:
    """What every origin answers to `target`."""
    return target.encode().ljust(BODY_BYTES, b".")


class NamedOrigin:
    """The process; `start` it again after `kill`: it has the port it had."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> NamedOrigin:
        """Start it and wait until it listens."""
        command = [sys.executable, "-m", "tests.live.named_origin", self.name]
        command += ["--port", str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        assert ready, f"origin {self.name} is not ready"
        assert self._process.stdout.readline() == b"ready\n"
        return self

    def signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """kill -9, and wait for it."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def __enter__(self) -> NamedOrigin:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()

    def respond(asked: Asked, wire: Wire) -> None:
        body = body_of(asked.target)
        terms = "no-store" if asked.target.startswith("/u/") else "max-age=86400"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nCache-Control: {terms}\r\n"
        head += f"X-Origin: {options.name}\r\n\r\n"
        wire.send(head.encode(), b"" if asked.method == "HEAD" else body)

    with Origin(respond, port=options.port):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
