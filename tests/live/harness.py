"""A node process, an origin that answers by script, and a client that speaks raw bytes.

For tests that read like a dialogue: tell the origin what to answer, ask the node, look at what the
client got and at what the origin was asked. Everything blocks and has a deadline. The origin knows
its answers by the first segment of a request's path, the *token*, so that many dialogues can share
one node and none hears another's lines:

    with ScriptedOrigin() as origin, Node(origin.url, tmp) as node, Client(node.port) as client:
        origin.script("news", Reply.of(200, ["cache-control: max-age=60"], b"old"))
        assert client.ask("GET", "/news/").body == b"old"
        assert client.ask("GET", "/news/").field("age") is not None    # nothing left to say: a hit
        assert len(origin.requests("news")) == 1

An answer that is not scripted is a 500 that must not be stored, and is remembered in `unexpected`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.live.hostile_harness import WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Fields = list[tuple[str, str]]
End = Literal["keep", "close", "reset"]
ENDS: dict[str, End] = {"keep": "keep", "close": "close", "reset": "reset"}


# --- messages, as text in Latin-1, which is one character an octet


def fields_of(lines: Iterable[str]) -> Fields:
    """`name: value` lines as pairs; names in lower case."""
    pairs = (line.partition(":") for line in lines)
    return [(name.strip().lower(), value.strip()) for name, _, value in pairs]


def joined(fields: Fields, name: str) -> str | None:
    """All values of a field in one line; None where there is no such field."""
    values = [value for key, value in fields if key == name]
    return ", ".join(values) if values else None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it reached the origin."""

    method: str
    target: str
    fields: Fields
    body: bytes
    connection: int  # counted from 0, in the order they were opened

    def field(self, name: str) -> str | None:
        """The values of a field, joined; None where it is missing."""
        return joined(self.fields, name)


@dataclass(frozen=True, slots=True)
class Answer:
    """A final response as it reached the client, and the interim ones before it."""

    status: int
    fields: Fields
    body: bytes
    interims: tuple[tuple[int, Fields], ...] = ()
    whole: bool = True  # False: the connection ended before the body did

    def field(self, name: str) -> str | None:
        """The values of a field, joined; None where it is missing."""
        return joined(self.fields, name)


class Line:
    """A socket read by lines and counts; every read has the same deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._held = bytearray()

    def head(self) -> list[str]:
        """The lines of a head, without the empty one; [] where the other side has gone."""
        while (end := self._held.find(b"\r\n\r\n")) < 0:
            if not self._more():
                return []
        return self._take(end + 4)[:-4].decode("latin-1").split("\r\n")

    def exactly(self, size: int) -> bytes:
        """`size` bytes; fewer only where the other side has gone."""
        while len(self._held) < size and self._more():
            pass
        return self._take(size)

    def rest(self) -> bytes:
        """Everything until the other side goes."""
        while self._more():
            pass
        return self._take(len(self._held))

    def chunked(self) -> tuple[bytes, bool]:
        """A chunked body without its trailers, and whether it came to its end."""
        body = b""
        while True:
            while b"\r\n" not in self._held:
                if not self._more():
                    return body, False
            size = int(self._take(self._held.find(b"\r\n") + 2).split(b";")[0], 16)
            if size == 0:
                while not self._held.startswith(b"\r\n"):
                    while b"\r\n" not in self._held:
                        if not self._more():
                            return body, False
                    self._take(self._held.find(b"\r\n") + 2)
                self._take(2)
                return body, True
            piece = self.exactly(size + 2)
            body += piece[:size]
            if len(piece) < size + 2:
                return body, False

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65_536)
        except ConnectionError:
            return False
        self._held += data
        return bool(data)


# --- the origin


@dataclass(frozen=True, slots=True)
class Reply:
    """What the origin does with one request: sends `parts`, then keeps the connection or not.

    `gate` holds the last part back until it is set. `pause_s` stands between parts (a drip).
    """

    parts: tuple[bytes, ...] = ()
    then: End = "keep"
    gate: threading.Event | None = None
    pause_s: float = 0.0

    @classmethod
    def of(
        cls,
        status: int = 200,
        fields: Sequence[str] = (),
        body: bytes = b"",
        *,
        then: End = "keep",
        gate: threading.Event | None = None,
    ) -> Reply:
        """An ordinary response. It is framed by Content-Length, unless `fields` frame it."""
        lines = [f"HTTP/1.1 {status} Said", *fields]
        framed = {"content-length", "transfer-encoding"} & {n for n, _ in fields_of(fields)}
        if not framed and status >= 200 and status not in (204, 304) and then == "keep":
            lines.append(f"content-length: {len(body)}")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return cls((head + body,), then, gate)


_UNSCRIPTED = Reply.of(500, ["cache-control: no-store"], b"not in the script")


class ScriptedOrigin:
    """An origin on a free port, a thread a connection, that answers by script and remembers."""

    def __init__(self) -> None:
        self.unexpected: list[Asked] = []
        self._asked: list[Asked] = []
        self._replies: defaultdict[str, deque[Reply]] = defaultdict(deque)
        self._rest: dict[str, Reply] = {}
        self._open: dict[int, socket.socket] = {}
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def script(self, token: str, *replies: Reply) -> None:
        """Add the next replies to requests whose path begins with `/token`."""
        with self._changed:
            self._replies[token].extend(replies)

    def always(self, token: str, reply: Reply) -> None:
        """What requests for `token` get once their script is over."""
        with self._changed:
            self._rest[token] = reply

    def requests(self, token: str) -> list[Asked]:
        """The requests for `token` so far."""
        with self._changed:
            return [asked for asked in self._asked if token_of(asked.target) == token]

    def wait_requests(self, token: str, count: int) -> list[Asked]:
        """The requests for `token`, once there are `count`; fewer if they do not come in time."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._of(token)) >= count, PATIENCE_S)
            return self._of(token)

    def wait_closed(self, connection: int, within_s: float = PATIENCE_S) -> bool:
        """Whether the other side ended this connection within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: connection not in self._open, within_s)

    def _of(self, token: str) -> list[Asked]:
        return [asked for asked in self._asked if token_of(asked.target) == token]

    def __enter__(self) -> ScriptedOrigin:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            for sock in self._open.values():
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self._open[number] = sock
            threading.Thread(target=self._converse, args=(sock, number), daemon=True).start()
            number += 1

    def _converse(self, sock: socket.socket, number: int) -> None:
        line = Line(sock)
        with contextlib.suppress(OSError, ValueError):
            while (asked := _request(line, number)) is not None:
                reply = self._reply_to(asked)
                self._send(sock, reply)
                if reply.then != "keep":
                    if reply.then == "reset":
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    break
        sock.close()
        with self._changed:
            del self._open[number]
            self._changed.notify_all()

    def _reply_to(self, asked: Asked) -> Reply:
        with self._changed:
            self._asked.append(asked)
            token = token_of(asked.target)
            replies = self._replies[token]
            if not replies and token not in self._rest:
                self.unexpected.append(asked)
            self._changed.notify_all()
            return replies.popleft() if replies else self._rest.get(token, _UNSCRIPTED)

    @staticmethod
    def _send(sock: socket.socket, reply: Reply) -> None:
        for index, part in enumerate(reply.parts):
            if index and reply.pause_s:
                select.select([], [], [], reply.pause_s)
            if reply.gate is not None and index == len(reply.parts) - 1:
                reply.gate.wait(PATIENCE_S)
            sock.sendall(part)


def token_of(target: str) -> str:
    """The first segment of a target's path."""
    return target.lstrip("/").partition("?")[0].partition("/")[0]


def _request(line: Line, connection: int) -> Asked | None:
    head = line.head()
    if not head:
        return None
    method, target, _ = head[0].split(" ")
    fields = fields_of(head[1:])
    if joined(fields, "transfer-encoding") is not None:
        body, _ = line.chunked()
    else:
        body = line.exactly(int(joined(fields, "content-length") or 0))
    return Asked(method, target, fields, body, connection)


# --- the client


class Client:
    """One connection to a node. `send` takes any bytes, `ask` makes good requests."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._line = Line(self.sock)

    def ask(
        self, method: str, target: str, fields: Sequence[str] = (), body: bytes = b""
    ) -> Answer:
        """One request and its answer. Host is example.com unless `fields` have one."""
        names = {name for name, _ in fields_of(fields)}
        lines = [f"{method} {target} HTTP/1.1", *fields]
        if "host" not in names:
            lines.append("host: example.com")
        if body and "content-length" not in names:
            lines.append(f"content-length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return self.receive(method)

    def send(self, data: bytes) -> None:
        """These bytes."""
        self.sock.sendall(data)

    def receive(self, method: str = "GET") -> Answer:
        """The next final response; `method` is that of the request, for the framing."""
        interims: list[tuple[int, Fields]] = []
        while True:
            status, fields = self.receive_head()
            if status >= 200 or status == 101:
                break
            interims.append((status, fields))
        body, whole = self.receive_body(method, status, fields)
        return Answer(status, fields, body, tuple(interims), whole)

    def receive_head(self) -> tuple[int, Fields]:
        """The next head, interim or final; raises ConnectionError where there is none."""
        head = self._line.head()
        if not head:
            raise ConnectionError("the node ended the connection without an answer")
        return int(head[0].split(" ")[1]), fields_of(head[1:])

    def receive_body(self, method: str, status: int, fields: Fields) -> tuple[bytes, bool]:
        """The body behind a head, and whether it came to its end."""
        if method == "HEAD" or status in (101, 204, 304):
            return b"", True
        if joined(fields, "transfer-encoding") is not None:
            return self._line.chunked()
        length = joined(fields, "content-length")
        if length is None:
            return self._line.rest(), True
        body = self._line.exactly(int(length))
        return body, len(body) == int(length)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


# --- the node


@dataclass(slots=True)
class Node:
    """An `edge proxy` process on a port of the system's choosing; ready when entered."""

    to: str
    directory: Path
    sets: Sequence[str] = ()
    port: int = 0
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> Node:
        """Start it and wait for its word; raises RuntimeError with what it said instead."""
        command = [sys.executable, "-m", "edge", "proxy", "--listen", "127.0.0.1:0"]
        command += ["--to", self.to, "--store", str(self.directory / "store")]
        command += ["--workers", WORKERS]
        for each in self.sets:
            command += ["--set", each]
        with (self.directory / "stderr").open("w") as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._process = process
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 2 * PATIENCE_S)
        line = process.stdout.readline() if ready else ""
        if not line.startswith("ready http://127.0.0.1:"):
            self.kill()
            raise RuntimeError(f"the node said {line!r} and {self.errors()!r}")
        self.port = int(line.rpartition(":")[2])
        return self

    def errors(self) -> str:
        """What it wrote to standard error."""
        return (self.directory / "stderr").read_text(errors="replace")

    def stop(self) -> int:
        """Ask it to end, and wait; the exit code."""
        return self._end(lambda process: process.terminate())

    def kill(self) -> int:
        """End it at once."""
        return self._end(lambda process: process.kill())

    def _end(self, how: Callable[[subprocess.Popen[str]], None]) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        how(process)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
        return process.returncode

    def __enter__(self) -> Node:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def eventually(holds: Callable[[], bool], within_s: float = PATIENCE_S) -> bool:
    """Whether `holds` comes true in time. For what happens behind an answer, and only for that."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.01)
    return True
