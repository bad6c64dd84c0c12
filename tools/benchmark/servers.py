"""The programs that are measured, each a process of its own in a directory of its own.

nginx gets the settings that someone who knows it would give it (keep-alive to the origin, open
files cached, a buffered access log, no limit on requests of a connection): what is compared is the
servers and not their defaults.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.benchmark.figures import descendants, read_stat

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
START_S: Final = 30.0
LAST_WORDS: Final = 2000
MISSING: Final = {
    "nginx": "no nginx to compare with; on Debian: apt-get install nginx-light",
    "wrk": "no wrk to load servers with; on Debian: apt-get install wrk",
    "varnishd": "no Varnish to compare with; on Debian: apt-get install varnish",
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
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(core: int) -> list[str]:
    """What goes before a command to have it on one core; nothing where there is but one."""
    cores = os.cpu_count() or 1
    return ["taskset", "-c", str(core)] if core < cores and shutil.which("taskset") else []


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
        return sum(line for _, line in self._lines()) / TICKS_PER_S

    def _lines(self) -> list[tuple[int, int]]:
        lines = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                lines[int(path.parent.name)] = read_stat(path.read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
        family = descendants(self.process.pid, {pid: line.parent for pid, line in lines.items()})
        return [(pid, lines[pid].ticks) for pid in family if pid in lines]

    def resident_bytes(self) -> int:
        """Memory that its processes hold; what they share is counted once."""
        return sum(_proportional_bytes(pid) for pid, _ in self._lines())

    def peak_bytes(self) -> int:
        """The most that its first process has ever had resident."""
        return _status_bytes(self.process.pid, "VmHWM")

    def last_words(self) -> str:
        """Whether it lives, and the end of its error log."""
        code = self.process.poll()
        state = "runs" if code is None else f"has ended with {code}"
        words = self._error_log.read_text()[-LAST_WORDS:] if self._error_log.exists() else ""
        return f"{self.name} {state}; its error log ends: {words!r}"

    def kill(self) -> None:
        """kill -9, and wait until it is gone; what it has started goes with it."""
        children = {pid for pid, _ in self._lines()} - {self.process.pid}
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


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def start_node(
    directory: Path,
    origin: str,
    *,
    core: int = 0,
    port: int | None = None,
    extra: tuple[str, ...] = (),
) -> Server:
    """This node as a caching proxy of `origin`, its store and logs in `directory`; ready."""
    port = port or free_port()
    command = [
        *pinned(core), sys.executable, "-m", "edge", "proxy",
        "--listen", f"127.0.0.1:{port}", "--to", origin,
        "--store", str(directory / "store"),
        "--access-log", str(directory / "access.log"), *extra,
    ]  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "error.log").open("a") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("ready "):
        process.kill()
        said = line + (directory / "error.log").read_text()
        raise NotReady(f"the node did not start: {said}")
    return Server("this node", port, process, directory / "error.log")


def _start_nginx(path: str, directory: Path, core: int, port: int, http: str, name: str) -> Server:
    directory.mkdir(parents=True, exist_ok=True)
    user = "user root;\n" if os.geteuid() == 0 else ""
    folders = "".join(
        f"  {kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    settings = (
        f"{user}daemon off;\nworker_processes 1;\npid {directory}/pid;\n"
        "events { worker_connections 8192; }\n"
        f"http {{\n{folders}"
        "  sendfile on; tcp_nopush on; tcp_nodelay on;\n"
        "  keepalive_requests 1000000000; keepalive_timeout 600;\n"
        f"{http}}}\n"
    )
    (directory / "nginx.conf").write_text(settings)
    log = directory / "error.log"
    command = [*pinned(core), path, "-p", str(directory), "-e", str(log), "-c", "nginx.conf"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True)
    server = Server(name, port, process, log)
    _await_port(server)
    return server


def _await_port(server: Server) -> None:
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


def start_nginx_cache(path: str, directory: Path, origin: str, *, core: int = 0) -> Server:
    """nginx as a caching proxy of `origin`; ready."""
    port = free_port()
    http = (
        '  log_format json escape=json \'{"time":"$time_iso8601","id":"$request_id",'
        '"client":"$remote_addr","method":"$request_method","host":"$host",'
        '"target":"$request_uri","status":$status,"bytes":$body_bytes_sent,'
        '"cache":"$upstream_cache_status","upstream":"$upstream_addr",'
        '"total_s":$request_time,"upstream_s":"$upstream_response_time"}\';\n'
        f"  access_log {directory}/access.log json buffer=64k flush=1s;\n"
        "  open_file_cache max=10000 inactive=60s;\n"
        f"  proxy_cache_path {directory}/cache levels=1:2 keys_zone=c:64m max_size=10g\n"
        "    inactive=1h use_temp_path=off;\n"
        f"  upstream origin {{ server {origin.removeprefix('http://')}; keepalive 128;\n"
        "    keepalive_requests 1000000000; }\n"
        f"  server {{ listen 127.0.0.1:{port} backlog=4096;\n"
        "    location / { proxy_pass http://origin; proxy_http_version 1.1;\n"
        '      proxy_set_header Connection ""; proxy_set_header Host $host;\n'
        "      proxy_set_header X-Forwarded-For $remote_addr;\n"
        "      proxy_cache c; proxy_cache_lock on;\n"
        "      add_header Cache-Status $upstream_cache_status; } }\n"
    )
    return _start_nginx(path, directory, core, port, http, "nginx")


def start_nginx_origin(path: str, directory: Path, *, core: int = 1) -> Server:
    """nginx as an origin: 1 KiB at any target, 1 MiB at /1m; good for an hour. Ready."""
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "1m").write_bytes(bytes(range(256)) * 4096)
    http = (
        "  access_log off;\n"
        f"  server {{ listen 127.0.0.1:{port} backlog=4096;\n"
        '    add_header Cache-Control "max-age=3600";\n'
        f"    location = /1m {{ root {directory}; }}\n"
        f'    location / {{ default_type text/plain; return 200 "{"x" * 1024}"; }} }}\n'
    )
    return _start_nginx(path, directory, core, port, http, "nginx as origin")


def start_plain_origin(directory: Path, *, core: int = 1) -> Server:
    """The same origin without nginx, and slower; ready."""
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    command = [*pinned(core), sys.executable, "-m", "tools.benchmark.origin", str(port)]
    process = subprocess.Popen(command, text=True, cwd=ROOT)
    server = Server("plain origin", port, process, directory / "error.log")
    _await_port(server)
    return server


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """`server`, stopped at the end."""
    try:
        yield server
    finally:
        server.stop()


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
    with log.open("a") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, text=True)
    server = Server("Varnish", port, process, log)
    _await_port(server)
    return server, cli
