"""The programs that are measured, each with a directory of its own: what a running one uses, this
node, and the origin in Python. The peers are in `nginx`, `varnish` and `limit`.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.benchmark.figures import ProcessLine, descendants, read_stat

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
START_S: Final = 30.0
LAST_WORDS: Final = 2000
PORTS: Final = range(10_000, 32_768)  # below those that the system gives to clients
MISSING: Final = {
    "nginx": "no nginx to compare with; on Debian: apt-get install nginx-light",
    "wrk": "no wrk to load servers with; on Debian: apt-get install wrk",
    "varnishd": "no Varnish to compare with; on Debian: apt-get install varnish",
    "cc": "no C compiler to build the limit with; on Debian: apt-get install gcc libc6-dev",
}


class NotReady(Exception):  # noqa: N818 - it says what the server is
    """A server did not start, or died."""


def program(name: str) -> str | None:
    """The path of an installed program; None where there is none, and that is said."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        print(MISSING[name], file=sys.stderr)
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, nor the system gives to a client meanwhile."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise NotReady(f"none of the ports {PORTS.start} to {PORTS.stop - 1} is free")


def pinned(core: int | None) -> list[str]:
    """What goes before a command to have it on one core; nothing where there is but one."""
    cores = os.cpu_count() or 1
    is_there = core is not None and core < cores
    return ["taskset", "-c", str(core)] if is_there and shutil.which("taskset") else []


def allow_descriptors(count: int) -> None:
    """Let this process, and those it starts, open so many files; raises `NotReady`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
    except (ValueError, OSError) as error:
        raise NotReady(f"{count} descriptors are needed, {hard} allowed: ulimit -n") from error


class Server:
    """A running server and the processes it has started."""

    def __init__(
        self, name: str, port: int, process: subprocess.Popen[str], error_log: Path
    ) -> None:
        self.name = name
        self._error_log = error_log
        self.port = port
        self.process = process

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """Processor time that its processes have used so far, user and system."""
        return sum(line.ticks for line in self._lines().values()) / TICKS_PER_S

    def _lines(self) -> dict[int, ProcessLine]:
        """All its processes: itself, what it has started, what these have."""
        lines = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                lines[int(path.parent.name)] = read_stat(path.read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
        family = descendants(self.process.pid, {pid: line.parent for pid, line in lines.items()})
        return {pid: lines[pid] for pid in family if pid in lines}

    def resident_bytes(self) -> int:
        """Memory that its processes hold; what they share is counted once."""
        return sum(_proportional_bytes(pid, "Pss", "VmRSS") for pid in self._lines())

    def anonymous_bytes(self) -> int:
        """That part of it which is of no file, and so does not change with who else maps one."""
        return sum(_proportional_bytes(pid, "Pss_Anon", "RssAnon") for pid in self._lines())

    def peak_bytes(self) -> int:
        """The most that its processes have ever had resident; what they share counts for each."""
        return sum(_status_bytes(pid, "VmHWM") for pid in self._lines())

    def last_words(self) -> str:
        """Whether it lives, and the end of its error log."""
        code = self.process.poll()
        state = "runs" if code is None else f"has ended with {code}"
        words = self._error_log.read_text()[-LAST_WORDS:] if self._error_log.exists() else ""
        return f"{self.name} {state}; its error log ends: {words!r}"

    def kill(self) -> None:
        """kill -9, and wait until it is gone; what it has started goes with it."""
        children = self._lines().keys() - {self.process.pid}
        self.process.kill()  # first: it would start them again
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """TERM, then KILL."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


def _proportional_bytes(pid: int, name: str, otherwise: str) -> int:
    """By `name` what is shared is counted once; `otherwise` is for who may not read that."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        return _status_bytes(pid, otherwise)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _status_bytes(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in lines:
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def start_node(
    directory: Path,
    origin: str,
    *,
    core: int | None = 0,
    port: int | None = None,
    workers: int = 1,
    extra: tuple[str, ...] = (),
) -> Server:
    """This node as a caching proxy of `origin`, its store and logs in `directory`; ready."""
    port = port or free_port()
    command = [
        "proxy", "--listen", f"127.0.0.1:{port}", "--to", origin, "--workers", str(workers),
        "--store", str(directory / "store"),
        "--access-log", str(directory / "access.log"), *extra,
    ]  # fmt: skip
    return _start("this node", command, directory, port, core)


def start_node_by_file(name: str, settings: Path, port: int, *, core: int | None = 0) -> Server:
    """This node by a settings file, which says that it listens on `port`, in the directory of
    that file; ready."""
    return _start(name, ["run", str(settings)], settings.parent, port, core)


def _start(name: str, words: list[str], directory: Path, port: int, core: int | None) -> Server:
    command = [*pinned(core), sys.executable, "-m", "edge", *words]
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "error.log").open("a") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
        )
    server = Server(name, port, process, directory / "error.log")
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("ready "):
        server.kill()
        said = line + (directory / "error.log").read_text()
        raise NotReady(f"the node did not start: {said.strip()}")
    return server


def await_port(server: Server) -> None:
    """Wait until someone listens; raises `NotReady`."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    server.kill()
    raise NotReady(f"no one listens: {server.last_words()}")


def start_plain_origin(directory: Path, *, core: int = 1) -> Server:
    """An origin that has what that of `nginx` has, and is slower; ready."""
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    command = [*pinned(core), sys.executable, "-m", "tools.benchmark.origin", str(port)]
    process = subprocess.Popen(command, text=True, cwd=ROOT)
    server = Server("plain origin", port, process, directory / "error.log")
    await_port(server)
    return server


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """`server`, stopped at the end."""
    try:
        yield server
    finally:
        server.stop()
