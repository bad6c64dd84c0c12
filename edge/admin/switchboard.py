"""Calls that a node's workers answer, passed on to the one whose it is, or to all in turn.

Streams are passed on piece by piece, at the pace of who reads them. A worker that dies meanwhile
breaks them off: a part is never taken for the whole.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec
import trio

from edge.admin.call import Refused, Reply, Streamed
from edge.admin.desk import Unanswered
from edge.admin.worker import MESSAGE, NDJSON
from edge.observe.merge import merged

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from edge.admin.call import Call, Send
    from edge.admin.desk import Desk

STATUS_S: Final = 2.0  # for one worker to tell of itself; the others are told without it


class Switchboard:
    """Asks the workers behind `desks`, which are in the order of their slots."""

    def __init__(self, desks: Sequence[Desk]) -> None:
        self._desks = desks

    async def states(self) -> list[dict[str, Any] | None]:
        """What each worker tells of itself; None for one that does not."""
        told: list[dict[str, Any] | None] = [None] * len(self._desks)

        async def ask(slot: int) -> None:
            with trio.move_on_after(STATUS_S):
                try:
                    status, document = await self._desks[slot].document(b"GET", b"/v1/status")
                except Unanswered:
                    return
                told[slot] = document if status == 200 else None

        async with trio.open_nursery() as nursery:
            for slot in range(len(self._desks)):
                nursery.start_soon(ask, slot)
        return told

    async def ask(self, slot: int, call: Call) -> Reply:
        """What one worker answers with a document."""
        try:
            status, document = await self._desks[slot].document(b"GET", _target(call))
        except Unanswered as error:
            raise _unanswered(slot, error) from error
        _check(status, document)
        return Reply(status, document)

    def message(self, slot: int, call: Call) -> Streamed:
        """What one worker streams."""

        async def produce(send: Send) -> None:
            async with aclosing(self._pieces(slot, b"GET", _target(call))) as pieces:
                async for piece in pieces:
                    await send(piece)

        return Streamed(MESSAGE, produce)

    def listing(self, call: Call, limit: int | None) -> Streamed:
        """The lines that all workers stream, one worker after the other, at most `limit`."""

        async def produce(send: Send) -> None:
            left = limit
            for slot in range(len(self._desks)):
                if left == 0:
                    return
                target = _target(call, {} if left is None else {"limit": [str(left)]})
                async with aclosing(self._pieces(slot, b"GET", target)) as pieces:
                    async for piece in pieces:
                        left = None if left is None else left - piece.count(b"\n")
                        await send(piece)

        return Streamed(NDJSON, produce)

    def trial(self, body: bytes) -> Streamed:
        """What an order would purge of what all workers hold."""

        async def produce(send: Send) -> None:
            done: list[Mapping[str, Any]] = []
            stored = sum(_stored(state) for state in await self.states() if state)
            for slot in range(len(self._desks)):
                last: dict[str, Any] = {}
                async with aclosing(self._lines(slot, body)) as lines:
                    async for last in lines:
                        if not last.get("done"):
                            await send(_line(_sum([*done, last], stored)))
                done.append(last)
            total = {**done[-1], **_sum(done, stored), "done": True}
            await send(_line(total))

        return Streamed(NDJSON, produce)

    async def _lines(self, slot: int, body: bytes) -> AsyncGenerator[dict[str, Any], None]:
        rest = b""
        async with aclosing(self._pieces(slot, b"POST", b"/v1/purge", body)) as pieces:
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield msgspec.json.decode(line)

    async def _pieces(
        self, slot: int, method: bytes, target: bytes, body: bytes = b""
    ) -> AsyncGenerator[bytes, None]:
        try:
            async with self._desks[slot].asked(method, target, body) as answer:
                if answer.status != 200:
                    _check(answer.status, msgspec.json.decode(await answer.whole()))
                async for piece in answer.pieces:
                    yield piece
        except Unanswered as error:
            raise _unanswered(slot, error) from error


def node_state(states: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The states of those workers that told theirs, as the node's."""
    return merged([state for state in states if state is not None])


def _target(call: Call, more: Mapping[str, list[str]] | None = None) -> bytes:
    query = urlencode({**call.query, **(more or {})}, doseq=True, errors="surrogateescape")
    return call.path + (f"?{query}".encode("ascii") if query else b"")


def _check(status: int, document: Mapping[str, Any]) -> None:
    """Raise a worker's refusal as it stands."""
    if status < 400:
        return
    title = str(document["title"]) if document.get("type") != "about:blank" else ""
    own = ("type", "title", "status", "detail")
    members = {name: value for name, value in document.items() if name not in own}
    raise Refused(status, title, str(document.get("detail")), members)


def _unanswered(slot: int, error: Unanswered) -> Refused:
    return Refused(503, "", f"worker {slot} does not answer ({error}); ask again in a moment")


def _stored(state: Mapping[str, Any]) -> int:
    store = state["store"]
    disk, memory = store["disk"], store["memory"]  # which may hold copies, too
    return int(disk["rows"] if disk is not None else memory["entries"])


def _sum(parts: Sequence[Mapping[str, Any]], stored: int) -> dict[str, int]:
    total = {
        name: sum(part.get(name, 0) for part in parts)
        for name in ("looked_at", "matches", "bytes")
    }
    return {**total, "of": max(stored, total["looked_at"])}


def _line(document: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(document) + b"\n"
