"""A node's admin socket, asked as the `edge` command asks it, but without starting a command."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

import trio

from tools.benchmark.plain import Broken, Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLERS: Final = 16  # half of those that a node answers at once


class Admin(Client):
    """One kept connection to the admin socket at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(0)
        self._path = path

    async def _connect(self) -> trio.SocketStream:
        return await trio.open_unix_socket(str(self._path))

    async def status(self) -> dict[str, Any]:
        """What `edge status` tells; raises `Broken`."""
        return await self._told(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")

    async def purge(self, **order: Any) -> dict[str, Any]:
        """What came of a purge: its number, and the node's own milliseconds; raises `Broken`."""
        body = json.dumps(order).encode()
        head = (
            "POST /v1/purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return await self._told(head.encode() + body)

    async def _told(self, request: bytes) -> dict[str, Any]:
        answer = await self.ask(request)
        if answer.status != 200:
            raise Broken(f"the admin socket answers {answer.status}: {answer.body[:500]!r}")
        document: dict[str, Any] = json.loads(answer.body)
        return document


async def timed_purge(path: Path, **order: Any) -> float:
    """Seconds until a purge was acknowledged, from before the connection is made."""
    admin = Admin(path)
    began = time.perf_counter()
    await admin.purge(**order)
    took = time.perf_counter() - began
    await admin.close()
    return took


async def purge_tags(path: Path, tags: Iterator[str]) -> None:
    """Purge each tag by itself, over a few connections; raises `Broken`."""

    async def work() -> None:
        admin = Admin(path)
        for tag in tags:
            await admin.purge(tag=[tag])
        await admin.close()

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(work)
