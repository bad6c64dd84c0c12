"""A running node, asked over its admin socket: the client half, for commands and for tests.

Blocking, over the standard library's HTTP client, so that a command starts without Trio. Whatever
goes wrong becomes one of two exceptions: `Unreachable`, no node answered or not to the end, with
the way out in its words; `NodeRefused`, a node answered that it will not.
"""

from __future__ import annotations

import errno
import http.client
import json
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from pathlib import Path

ASK_S: Final = 30.0  # to be told something
CHANGE_S: Final = 300.0  # to have something done: a purge waits for a disk, however busy
STREAM_S: Final = 300.0  # between two pieces: a search may find nothing for long
QUIET_S: Final = 3.0  # of silence, before a person begins to wonder
REPLY_BYTES: Final = 64 * 1024 * 1024
LINE_BYTES: Final = 1024 * 1024
PIECE_BYTES: Final = 65_536
PATH_BYTES: Final = 107  # sun_path on Linux
UNSURE: Final = "; whether it was done is not known, so ask again"

Query: TypeAlias = Sequence[tuple[str, str]]


class Unreachable(OSError):  # noqa: N818 - what it is
    """No node answered, or not to the end."""


class NodeRefused(Exception):  # noqa: N818 - what it is
    """A node's refusal: its status and its problem document (RFC 9457)."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(str(document.get("detail") or f"the node answered {status}"))
        self.status = status
        self.document = document


class Node:
    """The node behind the admin socket `path`. Each call is a connection of its own.

    `on_silence` is called, in a thread of its own and once for each call, where the node has been
    silent for `QUIET_S`.
    """

    def __init__(
        self,
        path: Path,
        patience_s: float | None = None,
        on_silence: Callable[[], None] | None = None,
    ) -> None:
        self._path = path
        self._patience_s = patience_s
        self._on_silence = on_silence

    def get(self, path: str, query: Query = ()) -> dict[str, Any]:
        """The document at `path`. Raises `Unreachable`, `NodeRefused`."""
        with self._answer("GET", path, query, None, ASK_S) as reply:
            return self._document(reply)

    def post(self, path: str, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What came of `document`, sent to `path`. Raises `Unreachable`, `NodeRefused`."""
        with self._answer("POST", path, (), document or {}, CHANGE_S, UNSURE) as reply:
            return self._document(reply, UNSURE)

    def stream(
        self, path: str, query: Query = (), document: Mapping[str, Any] | None = None
    ) -> Iterator[bytes]:
        """The pieces of a long answer as they come; one with `document` is a POST.

        Raises `Unreachable`, also at a piece after others, and `NodeRefused`.
        """
        method = "GET" if document is None else "POST"
        with self._answer(method, path, query, document, STREAM_S) as reply:
            yield from self._pieces(reply)

    def lines(
        self, path: str, query: Query = (), document: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The documents of a long answer, one a line (NDJSON); else like `stream`."""
        rest = b""
        for piece in self.stream(path, query, document):
            whole, newline, behind = piece.rpartition(b"\n")
            if newline:
                yield from map(self._read, filter(None, (rest + whole).split(b"\n")))
                rest = behind
            else:
                rest += piece
            if len(rest) > LINE_BYTES:
                raise self._strange(f"a line of more than {LINE_BYTES} bytes")
        if rest:
            yield self._read(rest)

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        query: Query,
        document: Mapping[str, Any] | None,
        patience_s: float,
        unsure: str = "",
    ) -> Iterator[_Answer]:
        """A good answer's head has come. Raises `Unreachable`, `NodeRefused`."""
        connection = _Connection(self._path, self._patience_s or patience_s)
        try:
            with _watching(self._on_silence) as watch:
                with watch.waiting():
                    self._connect(connection)
                    with self._translated(unsure):
                        reply = _asked(connection, method, path + _as_text(query), document)
                with closing(reply):  # it outlives its connection otherwise
                    answer = _Answer(reply, watch)
                    if reply.status not in (200, 202):
                        raise NodeRefused(reply.status, self._problem(answer))
                    yield answer
        finally:
            connection.close()

    def _connect(self, connection: _Connection) -> None:
        try:
            connection.connect()
        except OSError as error:
            raise Unreachable(f"{self._path}: {_way_out(self._path, error)}") from error

    def _problem(self, reply: _Answer) -> dict[str, Any]:
        """What a refusal says; nothing, where it says it in no words of ours."""
        try:
            return self._document(reply)
        except Unreachable:
            return {}

    def _document(self, reply: _Answer, unsure: str = "") -> dict[str, Any]:
        data = bytearray()
        for piece in self._pieces(reply, unsure):
            data += piece
            if len(data) > REPLY_BYTES:
                raise self._strange(f"more than {REPLY_BYTES} bytes")
        return self._read(data)

    def _pieces(self, reply: _Answer, unsure: str = "") -> Iterator[bytes]:
        while True:
            with self._translated(unsure):
                piece = reply.read()
            if not piece:
                return
            yield piece

    def _read(self, data: bytes | bytearray) -> dict[str, Any]:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._strange("something other than JSON") from error
        if not isinstance(document, dict):
            raise self._strange("something other than a document")
        return document

    def _strange(self, what: str) -> Unreachable:
        return Unreachable(f"{self._path}: the answer was {what}; is this a node's admin socket?")

    @contextmanager
    def _translated(self, unsure: str = "") -> Iterator[None]:
        """What the HTTP client raises, as `Unreachable` in words."""
        try:
            yield
        except TimeoutError as error:
            raise Unreachable(f"{self._path}: the node does not answer{unsure}") from error
        except (ConnectionError, http.client.IncompleteRead) as error:
            words = "the node ended before its answer was whole"
            raise Unreachable(f"{self._path}: {words}{unsure}") from error
        except (http.client.HTTPException, ValueError) as error:
            raise self._strange("not HTTP") from error
        except OSError as error:
            raise Unreachable(f"{self._path}: {error.strerror or error}{unsure}") from error


class _Watch:
    """Whether a node is being waited for, and since when (`clock`)."""

    def __init__(self) -> None:
        self.since: float | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While the node is to say something; who reads on slowly makes no one wait."""
        self.since = monotonic()
        try:
            yield
        finally:
            self.since = None

    def run(self, say: Callable[[], None], over: threading.Event) -> None:
        """Call `say` at the first long silence, and end; or end when it is `over`."""
        while not over.wait(QUIET_S / 8):
            since = self.since
            if since is not None and monotonic() - since >= QUIET_S:
                say()
                return


@contextmanager
def _watching(say: Callable[[], None] | None) -> Iterator[_Watch]:
    watch, over = _Watch(), threading.Event()
    if say is None:
        yield watch
        return
    thread = threading.Thread(target=watch.run, args=(say, over), daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer whose head has come."""

    reply: http.client.HTTPResponse
    watch: _Watch

    def read(self) -> bytes:
        """Some more of its body; b"" at the end. Raises what the HTTP client raises."""
        with self.watch.waiting():
            piece = self.reply.read1(PIECE_BYTES)
        if not piece and self.reply.length:
            raise http.client.IncompleteRead(b"", self.reply.length)
        return piece


class _Connection(http.client.HTTPConnection):
    """The standard library's client over a UNIX socket."""

    def __init__(self, path: Path, patience_s: float) -> None:
        super().__init__("localhost", timeout=patience_s)
        self._path = path
        self._patience_s = patience_s

    def connect(self) -> None:
        """Connect to the socket in place of a host; waits where others wait before us."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A full backlog makes a non-blocking connect fail at once, which is not what is meant.
        wait = struct.pack("ll", *divmod(int(self._patience_s * 1e6), 1_000_000))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        self.sock.connect(str(self._path))
        self.sock.settimeout(self._patience_s)


def _asked(
    connection: _Connection, method: str, target: str, document: Mapping[str, Any] | None
) -> http.client.HTTPResponse:
    headers = {"connection": "close"}
    body = None
    if document is not None:
        body = json.dumps(document, separators=(",", ":")).encode("ascii")
        headers["content-type"] = "application/json"
    # Refused before all of it was sent: then the answer is there, and says why.
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request(method, target, body, headers)
    return connection.getresponse()


def _as_text(query: Query) -> str:
    text = urlencode(query, errors="surrogateescape", quote_via=quote)
    return f"?{text}" if text else ""


def _way_out(path: Path, error: OSError) -> str:
    """Why there is no connection, and what to do."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return (
            "no socket is there; is the node running, with `node.admin` set to this path? "
            "--socket names another"
        )
    if isinstance(error, PermissionError):
        return "permission denied; ask as the node's user, or as one of its group"
    if isinstance(error, BlockingIOError):
        return "the node takes no more callers; is it hung?"
    if isinstance(error, ConnectionRefusedError) and not _is_socket(path):
        return "this is no socket; --socket names the node's"
    if isinstance(error, ConnectionRefusedError):
        return "no node listens here; it ended without removing the file: start it"
    if error.errno in (None, errno.ENAMETOOLONG):
        return f"a socket's path has at most {PATH_BYTES} bytes"
    return error.strerror or str(error)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return True  # gone since, or not to be seen
