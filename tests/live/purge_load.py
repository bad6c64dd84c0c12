"""What a storm of purges is made of: pages, an origin that is slow, and the law they are held to.

Every time the origin looks at a page, one count goes up: the *look*. An answer tells by which look
its body was read (in the body, which no 304 can touch) and by which look it was last vouched for
(in a field, which a 304 replaces). Who purges notes how far the count had come before the order
left; once the purge is acknowledged, whoever asks from then on may get no body of a look up to
that one. After a soft purge, none that was not vouched for since, unless it is said to be stale.

All of it runs in one Trio loop, the clients too: what came before what is never in doubt.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

SLOW_S: Final = 0.03
TROUBLE: Final = 0.02  # how often the origin answers 503 in a storm
SIZES: Final = (60, 60, 60, 2_000, 2_000, 30_000)
TERMS: Final = (
    "max-age=600",
    "max-age=600, stale-while-revalidate=600",
    "max-age=600, stale-if-error=600",
    "max-age=1, stale-while-revalidate=600, stale-if-error=600",
    "no-cache",
)
HOSTS: Final = ("a.example", "b.example")
DIRECTORIES: Final = ("/", "/x/", "/x/y/", "/z/")
PAGES_EACH: Final = 6

Name = tuple[str, ...]
GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, EOFError, OSError)


# --- pages


@dataclass(frozen=True)
class Page:
    """A page of the origin; what stands on it changes with its version."""

    number: int
    host: str
    target: str
    terms: str = TERMS[0]
    own_tags: tuple[str, ...] | None = None  # None: those of the storm

    @property
    def url(self) -> str:
        return f"http://{self.host}{self.target}"

    def tags(self, version: int) -> tuple[str, ...]:
        """Its tags; in the storm, one of them changes with the version."""
        if self.own_tags is not None:
            return self.own_tags
        return f"m{self.number % 5}", f"r{(self.number + version) % 4}"

    @property
    def group(self) -> str:
        return f"g{self.number % 4}"

    def names(self, version: int) -> tuple[Name, ...]:
        """All that covers the page."""
        return _names(self, version % 4)

    def body(self, version: int, look: int) -> bytes:
        """What stands on it, as that look has seen it."""
        mark = b"%d %d %010d\n" % (self.number, version, look)
        size = SIZES[(self.number + version) % len(SIZES)]
        return (mark * (size // len(mark) + 1))[: max(size, len(mark))]

    def etag(self, version: int) -> str:
        return f'W/"{self.number}-{version}"'


@lru_cache(maxsize=4096)
def _names(page: Page, version: int) -> tuple[Name, ...]:
    path = page.target.partition("?")[0] + "/"
    parts = path.split("/")
    prefixes = ("/".join(parts[:depth]) + "/" for depth in range(1, len(parts)))
    tags = page.tags(version)
    return (
        ("all",),
        ("url", page.host, page.target),
        ("host", page.host),
        *(("prefix", page.host, prefix) for prefix in prefixes),
        *(("tag", tag) for tag in tags),
        *(("host-tag", page.host, tag) for tag in tags),
        ("group", page.host, page.group),
    )


def stormy_pages() -> list[Page]:
    """Pages on two hosts, with each of the terms."""
    pages: list[Page] = []
    for host in HOSTS:
        for directory in DIRECTORIES:
            for nth in range(PAGES_EACH):
                number = len(pages)
                query = "?q=1" if nth == 0 else ""
                target = f"{directory}{nth}{query}"
                pages.append(Page(number, host, target, TERMS[number % len(TERMS)]))
    return pages


# --- the law


class Ledger:
    """The purges that were acknowledged, and the look that each came after."""

    def __init__(self) -> None:
        self.moment = 0  # how many were acknowledged
        self._marks: dict[bool, defaultdict[Name, list[tuple[int, int]]]] = {
            False: defaultdict(list),
            True: defaultdict(list),
        }

    def record(self, names: Iterable[Name], look: int, *, soft: bool) -> None:
        """Acknowledged: what `names` cover and was read up to `look` is gone."""
        self.moment += 1
        for name in names:
            marks = self._marks[soft][name]
            marks.append((self.moment, max(look, marks[-1][1] if marks else 0)))

    def bound(self, names: Iterable[Name], moment: int, *, soft: bool) -> int:
        """The look up to which nothing of these names may be given to who asked at `moment`."""
        marks = self._marks[soft]
        return max(
            next((look for when, look in reversed(marks[name]) if when <= moment), 0)
            for name in names
        )


# --- wires


@dataclass(frozen=True)
class Answer:
    """A response; field names are in lower case."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def cache(self) -> list[str]:
        """The parameters of Cache-Status."""
        return self.fields.get("cache-status", "").split("; ")[1:]

    @property
    def ttl(self) -> int | None:
        found = [each for each in self.cache if each.startswith("ttl=")]
        return int(found[0][4:]) if found else None


class Line:
    """A stream read by heads and counts; raises EOFError where it ends early."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._held = bytearray()

    async def head(self) -> list[str]:
        """The lines of a head; [] where the stream ended before it."""
        while (end := self._held.find(b"\r\n\r\n")) < 0:
            try:
                await self._more()
            except EOFError:
                if self._held:
                    raise
                return []
        return self._take(end + 4)[:-4].decode("latin-1").split("\r\n")

    async def exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            await self._more()
        return self._take(size)

    async def chunked(self) -> bytes:
        body = b""
        while True:
            while (end := self._held.find(b"\r\n")) < 0:
                await self._more()
            size = int(self._take(end + 2), 16)
            body += (await self.exactly(size + 2))[:size]
            if not size:
                return body

    async def answer(self, *, has_body: bool = True) -> Answer:
        """The next response, which has no trailers."""
        head = await self.head()
        if not head:
            raise EOFError("no answer")
        fields = fields_of(head)
        body = b""
        if has_body and "transfer-encoding" in fields:
            body = await self.chunked()
        elif has_body:
            body = await self.exactly(int(fields.get("content-length", 0)))
        return Answer(int(head[0].split(" ")[1]), fields, body)

    async def _more(self) -> None:
        data = await self.stream.receive_some(65_536)
        if not data:
            raise EOFError("it ended early")
        self._held += data

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


def fields_of(head: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in head[1:])
    return {name.lower(): value.strip() for name, _, value in pairs}


class Caller:
    """One kept-alive connection to a port or a socket's file, made anew when it broke."""

    def __init__(self, to: int | Path) -> None:
        self._to = to
        self._line: Line | None = None

    async def ask(
        self, method: str, target: str, host: str, fields: Iterable[str] = (), body: bytes = b""
    ) -> Answer:
        """The answer; raises one of `GONE`. A GET on a connection that was closed goes again."""
        lines = [f"{method} {target} HTTP/1.1", f"host: {host}", *fields]
        if body:
            lines.append(f"content-length: {len(body)}")
        data = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        was_used = self._line is not None
        try:
            return await self._ask(data, method)
        except GONE:
            await self.close()
            if not was_used or method not in ("GET", "HEAD"):
                raise
        return await self._ask(data, method)

    async def _ask(self, data: bytes, method: str) -> Answer:
        if self._line is None:
            self._line = Line(await self._connected())
        await self._line.stream.send_all(data)
        answer = await self._line.answer(has_body=method != "HEAD")
        if answer.fields.get("connection") == "close":
            await self.close()
        return answer

    async def _connected(self) -> trio.abc.Stream:
        if isinstance(self._to, int):
            return await trio.open_tcp_stream("127.0.0.1", self._to)
        return await trio.open_unix_socket(self._to)

    async def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await trio.aclose_forcefully(line.stream)


@asynccontextmanager
async def calling(to: int | Path) -> AsyncIterator[Caller]:
    """A caller that is closed at the end."""
    caller = Caller(to)
    try:
        yield caller
    finally:
        with trio.CancelScope(shield=True):
            await caller.close()


# --- the origin


@dataclass(eq=False)
class Fetch:
    """A request that the origin is at work on."""

    page: Page
    version: int
    look: int
    validates: bool
    has_told: bool = False  # its head has been sent


@dataclass
class SlowOrigin:
    """Looks at a page when it is asked, and tells of it some time later, piece by piece."""

    pages: dict[tuple[str, str], Page]
    rng: random.Random
    slow_s: float = SLOW_S
    looks: int = 0
    versions: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    fetches: set[Fetch] = field(default_factory=set)
    not_modified: int = 0
    port: int = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve on a free port until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._converse, [listener])

    async def _converse(self, stream: trio.SocketStream) -> None:
        line = Line(stream)
        with suppress(*GONE):
            async with stream:
                while head := await line.head():
                    await line.exactly(int(fields_of(head).get("content-length", 0)))
                    await self._answer(stream, head)

    async def _answer(self, stream: trio.SocketStream, head: list[str]) -> None:
        method, target, _ = head[0].split(" ")
        fields = fields_of(head)
        if method == "POST":
            await self._change(stream, fields)
            return
        page = self.pages[fields["host"], target]
        self.looks += 1
        version = self.versions[page.number]
        fetch = Fetch(page, version, self.looks, "if-none-match" in fields)
        self.fetches.add(fetch)
        try:
            await trio.sleep(self._delay())
            await self._tell(stream, fetch, method, fields.get("if-none-match", ""))
        finally:
            self.fetches.discard(fetch)

    async def _tell(
        self, stream: trio.SocketStream, fetch: Fetch, method: str, known: str
    ) -> None:
        page, version = fetch.page, fetch.version
        body = page.body(version, fetch.look)
        status, framing = 200, f"Content-Length: {len(body)}"
        if page.own_tags is None and self.rng.random() < TROUBLE:
            status, body, framing = 503, b"", "Content-Length: 0"
        elif page.etag(version) in known and self.rng.random() < 0.8:
            status, body, framing = 304, b"", "X-Not: modified"
            self.not_modified += 1
        elif self.rng.random() < 0.2 and method == "GET":
            framing = "Transfer-Encoding: chunked"
        head = f"HTTP/1.1 {status} Said\r\n{framing}\r\n{self._told(fetch)}\r\n\r\n"
        await stream.send_all(head.encode())
        fetch.has_told = True
        if method == "GET" and status == 200:
            await self._pour(stream, body, chunked="chunked" in framing)

    def _told(self, fetch: Fetch) -> str:
        page = fetch.page
        tags = page.tags(fetch.version)
        first, rest = tags[:1], tags[1:]
        return "\r\n".join(
            (
                f"Cache-Control: {page.terms}",
                f"ETag: {page.etag(fetch.version)}",
                f"Surrogate-Key: {' '.join(first)}",
                f"Cache-Tag: {', '.join(rest)}",
                f'Cache-Groups: "{page.group}"',
                f"X-Look: {fetch.look}",
            )
        )

    async def _pour(self, stream: trio.SocketStream, body: bytes, *, chunked: bool) -> None:
        middle = self.rng.randrange(len(body))
        for piece in filter(None, (body[:middle], body[middle:])):
            if self.rng.random() < 0.5:
                await trio.sleep(self._delay() / 4)
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
            await stream.send_all(framed)
        if chunked:
            await stream.send_all(b"0\r\n\r\n")

    async def _change(self, stream: trio.SocketStream, fields: dict[str, str]) -> None:
        """A write goes through, and says which groups it has changed (RFC 9875)."""
        groups = ", ".join(f'"{group}"' for group in fields["x-groups"].split())
        head = f"HTTP/1.1 200 Done\r\nContent-Length: 0\r\nX-Look: {self.looks}\r\n"
        await stream.send_all(f"{head}Cache-Group-Invalidation: {groups}\r\n\r\n".encode())

    def _delay(self) -> float:
        return max(0.0, self.slow_s * (1.3 * self.rng.random() - 0.3))
