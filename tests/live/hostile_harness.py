"""A real node, an origin that says what a test wants, and a client that sends raw bytes.

Everything here blocks and has a deadline, so that a hostile test reads from top to bottom. The
origin runs one thread a connection and remembers every byte that reached it.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edge.command.status import ask

ROOT = Path(__file__).parents[2]
EDGE = (sys.executable, "-m", "edge")
PATIENCE_S = 10.0
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n"
WORKERS = os.environ.get("EDGE_WORKERS", "2")  # of every node that is not told otherwise
SOCKETS = shutil.ignore_patterns("*.sock")  # of a store that is copied while its node runs
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST
QUICK = (  # deadlines short enough to be waited for
    "timeouts.head=1s",
    "timeouts.idle=20s",
    "timeouts.body_grace=1s",
    "timeouts.send=1s",
    "timeouts.linger=500ms",
    "origin.default.timeouts.connect=1s",
    "origin.default.timeouts.first_byte=1s",
    "origin.default.timeouts.between_bytes=1s",
    "origin.default.timeouts.total=4s",
)


class Node:
    """A node process of its own; `arguments` go to its `proxy` behind the usual ones."""

    def __init__(
        self,
        directory: Path,
        origin: str,
        *,
        sets: Sequence[str] = QUICK,
        arguments: Sequence[str] = (),
        port: int | None = None,
        wrapper: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        file: Path | None = None,
        store: Path | None = None,
        program: Sequence[str] = EDGE,
    ) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.store = store or directory / "store"
        self.admin = directory / "admin.sock"
        self.access_log = directory / "access.log"
        self.error_log = directory / "error.log"
        self.ready_s = 0.0
        directory.mkdir(parents=True, exist_ok=True)
        self._environment = os.environ | {"PYTHONUNBUFFERED": "1"} | (environment or {})
        self._wrapper = tuple(wrapper)
        if file is not None:
            self._command: list[str] = [*wrapper, *program, "run", str(file)]
        else:
            self._command = [*wrapper, *program, "proxy", "--listen", f"127.0.0.1:{self.port}"]
            self._command += ["--to", origin, "--store", str(self.store)]
            self._command += ["--admin", str(self.admin), "--access-log", str(self.access_log)]
            self._command += ["--workers", WORKERS]
            self._command += arguments
            for each in (f"node.error_log={self.error_log}", *sets):
                self._command += ["--set", each]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, patience_s: float = 20.0) -> Node:
        """Start the process and wait until it says that it is ready."""
        began = time.monotonic()
        with (self.directory / "stderr").open("ab") as errors:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment,
            )
        assert self._process.stdout is not None
        line = _line_within(self._process.stdout, patience_s)
        self.ready_s = time.monotonic() - began
        if not line.startswith(b"ready "):
            self.kill()
            said = (self.directory / "stderr").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"not ready within {patience_s} s: {line!r} {said}")
        return self

    @property
    def shards(self) -> list[Path]:
        """The directories of the disk tier, once there are any."""
        return sorted(self.store.glob("shard-*"))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait for it."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """TERM, and wait; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
        return process.returncode

    def rss(self) -> int:
        """Resident bytes of all its processes; what they share is counted once (PSS)."""
        return sum(map(_pss, (self.pid, *children_of(self.pid))))

    def cpu_s(self) -> float:
        """Seconds of processor that its processes have used so far."""
        return sum(map(_cpu_s, (self.pid, *children_of(self.pid))))

    def status(self) -> dict[str, Any]:
        return ask(self.admin)

    def complaints(self) -> str:
        """What stands in the error log."""
        return self.error_log.read_text(errors="replace") if self.error_log.exists() else ""

    def get(self, target: str = "/plain", **fields: str) -> Answer:
        """A plain request on a connection of its own."""
        return get(self.port, target, **fields)

    def __enter__(self) -> Node:
        return self if self.is_running() else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that have not been reaped."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _pss(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _cpu_s(pid: int) -> float:
    rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(rest[11]) + int(rest[12])) / os.sysconf("SC_CLK_TCK")


def _line_within(stream: IO[bytes], patience_s: float) -> bytes:
    deadline, line = time.monotonic() + patience_s, bytearray()
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            break
        data = os.read(stream.fileno(), 4096)
        if not data:
            break
        line += data
    return bytes(line)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# The origin.


@dataclass
class Asked:
    """One request as it reached the origin; `whole` once its body has come to its end."""

    head: bytes
    connection: int
    body: bytes = b""
    whole: bool = False

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def fields(self) -> list[tuple[str, str]]:
        return _fields(self.head)

    def field(self, name: str) -> str | None:
        """The values of a field, joined; None where it is missing."""
        values = [value for key, value in self.fields if key == name]
        return ", ".join(values) if values else None


class Wire:
    """The origin's end of a connection, in a handler's hands."""

    def __init__(self, sock: socket.socket, received: bytearray) -> None:
        self.sock = sock
        self.open = True
        self._received = received

    def send(self, *parts: bytes) -> None:
        self.sock.sendall(b"".join(parts))

    def receive(self) -> bytes:
        """What comes next on the connection; b"" at its end."""
        data = self.sock.recv(65_536)
        self._received += data
        return data

    def close(self) -> None:
        """End the connection in good order."""
        self.open = False

    def reset(self) -> None:
        """End the connection by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.open = False

    def wait_gone(self, patience_s: float = PATIENCE_S) -> bool:
        """Whether the other side went within the time."""
        self.sock.settimeout(patience_s)
        try:
            while self.sock.recv(65_536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


Handler = Callable[[Asked, Wire], None]


def plain(body: bytes = b"plain", *fields: str) -> bytes:
    """A good, fresh response."""
    lines = fields or ("Cache-Control: max-age=60",)
    head = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


def answer_plainly(asked: Asked, wire: Wire) -> None:
    """The handler of an origin that has nothing special to say."""
    wire.send(plain(b"" if asked.method == "HEAD" else b"plain", "Cache-Control: no-store"))


class Origin:
    """An origin on a free port. `handle` answers each request; it may be replaced at any time."""

    def __init__(
        self, handle: Handler = answer_plainly, *, port: int = 0, reads_body: bool = True
    ) -> None:
        self.handle = handle
        self.reads_body = reads_body
        self.asked: list[Asked] = []
        self.received: list[bytearray] = []  # by connection
        self.trouble: list[str] = []
        self._live: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def connections(self) -> int:
        return len(self.received)

    def clear(self) -> None:
        with self._lock:
            self.asked.clear()
            for each in self.received:
                each.clear()

    def asked_for(self, target: str) -> list[Asked]:
        with self._lock:
            return [each for each in self.asked if each.target == target]

    def has_seen(self, what: bytes) -> bool:
        with self._lock:
            return any(what in each for each in self.received)

    def drop_all(self) -> None:
        """Break every connection off."""
        with self._lock:
            live = list(self._live)
        for sock in live:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_all()
        self._thread.join(5)

    def __enter__(self) -> Origin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                number = len(self.received)
                self.received.append(bytearray())
                self._live.add(sock)
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire, waiting = Wire(sock, self.received[number]), bytearray()
        try:
            while wire.open and (asked := self._read_head(sock, number, waiting)):
                if self.reads_body:
                    self._read_body(sock, number, waiting, asked)
                self.handle(asked, wire)
        except (OSError, EOFError):
            pass
        except Exception as error:  # a fault of a test's handler must not pass unseen
            self.trouble.append(repr(error))
        finally:
            with self._lock:
                self._live.discard(sock)
            sock.close()

    def _more(self, sock: socket.socket, number: int, waiting: bytearray) -> None:
        data = sock.recv(65_536)
        if not data:
            raise EOFError
        waiting += data
        if len(self.received[number]) < 1 << 20:
            self.received[number] += data

    def _read_head(self, sock: socket.socket, number: int, waiting: bytearray) -> Asked | None:
        while (end := waiting.find(b"\r\n\r\n")) < 0:
            self._more(sock, number, waiting)
        asked = Asked(bytes(waiting[: end + 2]), number)
        del waiting[: end + 4]
        with self._lock:
            self.asked.append(asked)
        return asked

    def _read_body(
        self, sock: socket.socket, number: int, waiting: bytearray, asked: Asked
    ) -> None:
        if (asked.field("transfer-encoding") or "").lower() == "chunked":
            body = bytearray()
            while True:
                while (end := waiting.find(b"\r\n")) < 0:
                    self._more(sock, number, waiting)
                size = int(waiting[:end].split(b";")[0], 16)
                while len(waiting) < end + 2 + size + 2:
                    self._more(sock, number, waiting)
                body += waiting[end + 2 : end + 2 + size]
                del waiting[: end + 2 + size + 2]
                if not size:
                    break
            asked.body = bytes(body)
        else:
            length = int(asked.field("content-length") or 0)
            while len(waiting) < length:
                self._more(sock, number, waiting)
            asked.body = bytes(waiting[:length])
            del waiting[:length]
        asked.whole = True


# The client.


@dataclass(frozen=True)
class Answer:
    """A response as a strict client reads it. `whole`: its end was there for certain."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    whole: bool
    interims: list[int] = field(default_factory=list)

    def field(self, name: str) -> str | None:
        values = [value for key, value in self.fields if key == name]
        return ", ".join(values) if values else None

    @property
    def is_hit(self) -> bool:
        return "; hit" in (self.field("cache-status") or "")


@dataclass(frozen=True)
class Dialogue:
    """All that came back on a connection, and how it stood at the end: eof, reset or open."""

    data: bytes
    end: str

    def answers(self, *methods: str) -> list[Answer]:
        """The responses in it; `methods` of the requests as far as they are not GET."""
        return parse_answers(self.data, self.end, methods)

    @property
    def closed(self) -> bool:
        return self.end != "open"


class BadAnswerError(Exception):
    """The node sent something that is not HTTP."""


def parse_answers(data: bytes, end: str, methods: Sequence[str] = ()) -> list[Answer]:
    found: list[Answer] = []
    interims: list[int] = []
    while data:
        head, mark, rest = data.partition(b"\r\n\r\n")
        line = re.match(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [^\r\n]*\Z", head.split(b"\r\n")[0])
        if not mark and end == "reset":
            break
        if not mark or line is None:
            raise BadAnswerError(f"not a response: {data[:200]!r}")
        status, fields = int(line[1]), _fields(head + b"\r\n")
        if 100 <= status < 200 and status != 101:
            interims.append(status)
            data = rest
            continue
        method = methods[len(found)] if len(found) < len(methods) else "GET"
        body, whole, data = _body(status, fields, method, rest, end)
        found.append(Answer(status, fields, body, whole, interims))
        interims = []
        if not whole:
            break
    return found


def _body(
    status: int, fields: list[tuple[str, str]], method: str, rest: bytes, end: str
) -> tuple[bytes, bool, bytes]:
    told = dict(fields)
    if method == "HEAD" or status in (204, 304):
        return b"", True, rest
    if status == 101:
        return rest, True, b""
    if told.get("transfer-encoding") == "chunked":
        return _chunked(rest)
    if "content-length" in told:
        length = int(told["content-length"])
        return rest[:length], len(rest) >= length, rest[length:]
    return rest, end == "eof", b""


def _chunked(rest: bytes) -> tuple[bytes, bool, bytes]:
    body = bytearray()
    while True:
        line, mark, behind = rest.partition(b"\r\n")
        if not mark or not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", line):
            return bytes(body), False, b""
        size = int(line, 16)
        if len(behind) < size + 2:
            return bytes(body + behind[:size]), False, b""
        if behind[size : size + 2] != b"\r\n":
            raise BadAnswerError(f"bad chunk: {rest[:100]!r}")
        body += behind[:size]
        rest = behind[size + 2 :]
        if not size:
            return bytes(body), True, rest


def _fields(head: bytes) -> list[tuple[str, str]]:
    pairs = [line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line]
    return [(n.decode("latin-1").lower(), v.decode("latin-1").strip(" \t")) for n, v in pairs]


def connect(port: int, timeout_s: float = PATIENCE_S) -> socket.socket:
    """A connection to a port of this machine."""
    sock = socket.create_connection(("127.0.0.1", port), timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_all(sock: socket.socket, patience_s: float = PATIENCE_S) -> Dialogue:
    """Everything until the connection ends, or until nothing more came for so long."""
    sock.settimeout(patience_s)
    data = bytearray()
    while True:
        try:
            piece = sock.recv(262_144)
        except TimeoutError:
            return Dialogue(bytes(data), "open")
        except OSError:
            return Dialogue(bytes(data), "reset")
        if not piece:
            return Dialogue(bytes(data), "eof")
        data += piece


def say(port: int, raw: bytes, *, ends: bool = False, patience_s: float = PATIENCE_S) -> Dialogue:
    """Send bytes on a connection of their own and read until it ends (see `read_all`)."""
    with connect(port) as sock:
        # What is written in one piece while the other side may be closing can be lost to a reset:
        # whoever sends on regardless reads meanwhile.
        sender = threading.Thread(target=_send, args=(sock, raw, ends), daemon=True)
        if len(raw) <= 65_536:
            _send(sock, raw, ends)
            return read_all(sock, patience_s)
        sender.start()
        dialogue = read_all(sock, patience_s)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sender.join(5)
        return dialogue


def _send(sock: socket.socket, raw: bytes, ends: bool) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(raw)
        if ends:
            sock.shutdown(socket.SHUT_WR)


def request(target: str, method: str = "GET", body: bytes = b"", /, **fields: str) -> bytes:
    """A good request; a field's underscores become hyphens."""
    told = {"host": "example.com"} | {k.replace("_", "-"): v for k, v in fields.items()}
    if body:
        told.setdefault("content-length", str(len(body)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


def ask_for(
    port: int, target: str, method: str = "GET", body: bytes = b"", /, **fields: str
) -> Answer | None:
    """The answer to a request on a connection of its own; None where none came."""
    fields.setdefault("connection", "close")
    dialogue = say(port, request(target, method, body, **fields))
    answers = dialogue.answers(method)
    return answers[0] if answers else None


def get(port: int, target: str = "/plain", **fields: str) -> Answer:
    """The answer to a GET on a connection of its own; there must be one."""
    answer = ask_for(port, target, **fields)
    assert answer is not None, f"no answer to {target}"
    return answer


def is_plainly_served(port: int) -> bool:
    """Whether a plain request on a fresh connection is answered 200."""
    answer = ask_for(port, "/plain")
    return answer is not None and answer.status == 200 and answer.whole


@contextmanager
def many(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many connections at once."""
    opened: list[socket.socket] = []
    try:
        opened.extend(connect(port) for _ in range(count))
        yield opened
    finally:
        for sock in opened:
            sock.close()


def wait_until(is_so: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Whether it became so within the time; asked every few milliseconds."""
    deadline = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
