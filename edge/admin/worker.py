"""What one worker can be asked by the keeper of its node, and what for.

A worker tells what it holds and what it would do; it is not asked to do anything but to have on
disk what it has stored. How it travels is `socket`'s, what is said is here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edge.admin.call import Refused, Reply, Streamed
from edge.admin.demand import listed, ordered, questioned
from edge.admin.listing import get_stored, list_stored
from edge.explain.verdict import explain
from edge.purging.execution import dry_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from edge.admin.call import Call, Handler, Send
    from edge.listen.connection import ConnectionPolicy
    from edge.purging.draft import Order
    from edge.serving.visit import Parts, Tools

NDJSON: Final = b"application/x-ndjson"
MESSAGE: Final = b"application/http"  # RFC 9112 §10.2


class Control:
    """The handlers of a worker. `parts` and `policy` are those of the settings in force."""

    def __init__(
        self,
        tools: Tools,
        parts: Callable[[], Parts],
        policy: Callable[[], ConnectionPolicy],
        status: Callable[[], Mapping[str, Any]],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._tools = tools
        self._parts = parts
        self._policy = policy
        self._status = status
        self._settle_store = settle

    def routes(self) -> dict[bytes, dict[bytes, Handler]]:
        """The handlers by path and method."""
        return {
            b"/v1/status": {b"GET": self._tell_status},
            b"/v1/explain": {b"GET": self._explain},
            b"/v1/ls": {b"GET": self._ls},
            b"/v1/get": {b"GET": self._get},
            b"/v1/purge": {b"POST": self._try_out},
            b"/v1/settle": {b"POST": self._settle},
        }

    async def _tell_status(self, _call: Call) -> Reply:
        return Reply(200, self._status())

    async def _settle(self, _call: Call) -> Reply:
        await self._settle_store()
        return Reply(200, {}, words=None)

    async def _try_out(self, call: Call) -> Streamed:
        order = await ordered(call, self._parts().sites)
        if not order.dry_run:
            raise Refused(403, "", "a worker purges nothing: the keeper of its node does")
        return Streamed(NDJSON, partial(self._tried, order))

    async def _tried(self, order: Order, send: Send) -> None:
        async def emit(seen: Mapping[str, int | bool]) -> None:
            line = {**seen, "notes": order.notes} if seen.get("done") else seen
            await send(msgspec.json.encode(line) + b"\n")

        store = self._tools.store
        held = store.statistics()
        of = held.disk.rows if held.disk is not None else held.memory.entries
        await dry_run(order, store.scan(), self._tools.purges.current(), emit, of=of)

    async def _explain(self, call: Call) -> Reply:
        question = questioned(call)
        tools = self._tools
        document = await explain(
            question, tools, self._parts(), self._policy(), tools.purges.recall
        )
        return Reply(200, document)

    async def _ls(self, call: Call) -> Streamed:
        prefix, limit = listed(call)
        tools = self._tools
        return Streamed(
            NDJSON,
            lambda send: list_stored(
                tools.store,
                tools.purges.current(),
                self._parts().sites,
                tools.now(),
                prefix,
                limit,
                send,
            ),
        )

    async def _get(self, call: Call) -> Streamed:
        question = questioned(call)
        return Streamed(
            MESSAGE,
            lambda send: get_stored(question, self._tools, self._parts(), send, self._policy()),
        )
