"""HTTP/1.1 as the two parties of a story speak it: plainly, and on purpose not with our engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.stories.line import Line

PATIENCE_S = 10_000.0
"""Of the story's clock, which jumps: a party that waits in vain says so at once."""


class TruncatedError(Exception):
    """The other side ended, or broke off, in the middle of a message."""


class Fields:
    """Field lines; names in lower case, values as text."""

    def __init__(self, lines: list[bytes]) -> None:
        pairs = (line.decode("latin-1").partition(":") for line in lines)
        self.pairs = [(name.lower(), value.strip(" \t")) for name, _, value in pairs]

    def __getitem__(self, name: str) -> str:
        """All lines' values, joined; KeyError where there is none."""
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str) -> str | None:
        values = [value for key, value in self.pairs if key == name]
        return ", ".join(values) if values else None

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self.pairs)

    def __repr__(self) -> str:
        return f"Fields({self.pairs!r})"


@dataclass
class Reply:
    """A response as a client got it."""

    status: int
    headers: Fields
    body: bytes = b""
    interims: list[Reply] = field(default_factory=list)

    @property
    def cache(self) -> str:
        """Our member of Cache-Status, without the node's name."""
        return self.headers["cache-status"].rpartition("edge1")[2].removeprefix("; ")


class Wire:
    """Reads and writes messages on one end of a line."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._unread = b""

    async def send(self, data: bytes) -> None:
        with trio.fail_after(PATIENCE_S):
            await self.line.send_all(data)

    async def more(self) -> bytes:
        """What comes next; b"" at the end. Raises `TruncatedError` for a reset."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        try:
            with trio.fail_after(PATIENCE_S):
                return await self.line.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise TruncatedError("reset") from error

    async def until(self, mark: bytes) -> bytes:
        """What comes before `mark`, which is taken too; b"" where the other side has ended."""
        data = b""
        while mark not in data:
            piece = await self.more()
            if not piece:
                if data:
                    raise TruncatedError(f"ended after {data!r}")
                return b""
            data += piece
        data, _, self._unread = data.partition(mark)
        return data

    async def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = await self.more()
            if not piece:
                raise TruncatedError(f"ended after {len(data)} of {size} bytes")
            data += piece
        self._unread = data[size:] + self._unread
        return data[:size]

    async def head(self) -> tuple[list[bytes], Fields] | None:
        """The words of the start line, and the fields; None at the end."""
        head = await self.until(b"\r\n\r\n")
        if not head:
            return None
        start, *lines = head.split(b"\r\n")
        return start.split(b" ", 2), Fields(lines)

    async def body(self, headers: Fields, *, to_the_end: bool) -> bytes:
        """A whole body, framed as `headers` say."""
        if "chunked" in (headers.get("transfer-encoding") or ""):
            return await self._chunks()
        if "content-length" in headers:
            return await self.exactly(int(headers["content-length"]))
        return await self.rest() if to_the_end else b""

    async def chunk(self) -> bytes:
        """One chunk's data; b"" for the last."""
        size = await self.until(b"\r\n")
        if not size:
            raise TruncatedError("ended before a chunk")
        data = await self.exactly(int(size, 16))
        await self.exactly(2)
        return data

    async def _chunks(self) -> bytes:
        data = b""
        while piece := await self.chunk():
            data += piece
        return data

    async def rest(self) -> bytes:
        """What comes until the other side ends."""
        data = b""
        while piece := await self.more():
            data += piece
        return data

    async def reply_head(self) -> Reply:
        """A response's head, interim ones aside."""
        interims: list[Reply] = []
        while True:
            head = await self.head()
            if head is None:
                raise TruncatedError("no answer")
            words, fields = head
            assert words[0] == b"HTTP/1.1"
            reply = Reply(int(words[1]), fields, interims=interims)
            if reply.status >= 200 or reply.status == 101:
                return reply
            interims.append(reply)

    async def reply(self, method: str = "GET") -> Reply:
        """A whole response to `method`."""
        reply = await self.reply_head()
        if method != "HEAD" and reply.status not in (101, 204, 304):
            reply.body = await self.body(reply.headers, to_the_end=True)
        return reply

    def close(self) -> None:
        self.line.close()


def written(start: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A message: start line, fields, body."""
    lines = [start, *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
