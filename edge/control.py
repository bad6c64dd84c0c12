"""What the admin socket can be asked: one handler for each route.

How it travels is `admin`'s, what is said is here. A purge that is acknowledged is on disk and in
force; one that is refused has done nothing. What changes something is told in the error log, with
who asked for it; what is only looked at is not.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from edge.cache.journal import JournalError
from edge.call import Refused, Reply, Streamed
from edge.explain import explain
from edge.listing import get_stored, list_stored
from edge.orders import OrderRefused, order_from_json
from edge.purging import dry_run
from edge.question import QuestionRefused, asked
from edge.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge.cache.journal import Journal
    from edge.cache.purge import Purge
    from edge.call import Call, Handler, Send
    from edge.draft import Order
    from edge.listen.connection import ConnectionPolicy
    from edge.question import Question
    from edge.visit import Parts, Tools

NDJSON: Final = b"application/x-ndjson"
AT_ONCE_BYTES: Final = 32_768
MESSAGE: Final = b"application/http"  # RFC 9112 §10.2


class Control:
    """The handlers of a node. `parts` and `policy` are those of the settings in force; `reload`
    takes up new ones from `source` and names those that wait for a restart, or raises
    `SettingsError`; `drain` begins the end."""

    def __init__(
        self,
        tools: Tools,
        parts: Callable[[], Parts],
        policy: Callable[[], ConnectionPolicy],
        journal: Journal,
        status: Callable[[], Mapping[str, Any]],
        reload: Callable[[], list[str]],
        drain: Callable[[], None],
        source: str = "",
    ) -> None:
        self._tools = tools
        self._parts = parts
        self._policy = policy
        self._journal = journal
        self._status = status
        self._reload_settings = reload
        self._begin_draining = drain
        self._source = source

    def routes(self) -> dict[bytes, dict[bytes, Handler]]:
        """The handlers by path and method."""
        return {
            b"/v1/status": {b"GET": self._tell_status},
            b"/v1/purge": {b"POST": self._purge},
            b"/v1/purges": {b"GET": self._list_purges},
            b"/v1/explain": {b"GET": self._explain},
            b"/v1/ls": {b"GET": self._ls},
            b"/v1/get": {b"GET": self._get},
            b"/v1/reload": {b"POST": self._reload},
            b"/v1/drain": {b"POST": self._drain},
        }

    async def _tell_status(self, _call: Call) -> Reply:
        return Reply(200, self._status())

    async def _purge(self, call: Call) -> Reply | Streamed:
        began = trio.current_time()
        order = await _ordered(call, self._parts())
        if order.dry_run:
            return Streamed(NDJSON, partial(self._try_out, order))
        try:
            done = await self._tools.purging.carry_out(order, str(call.caller))
        except JournalError as error:
            raise Refused(503, "purge not recorded", str(error)) from error
        ms = round(1_000 * (trio.current_time() - began), 3)
        document = {"number": done.number, "soft": order.soft, "scopes": done.count, "ms": ms}
        return Reply(200, {**document, "notes": order.notes}, words=None)

    async def _try_out(self, order: Order, send: Send) -> None:
        async def emit(seen: Mapping[str, int | bool]) -> None:
            line = {**seen, "notes": order.notes} if seen.get("done") else seen
            await send(msgspec.json.encode(line) + b"\n")

        store = self._tools.store
        held = store.statistics()
        of = max(held.memory.entries, held.disk.rows if held.disk is not None else 0)
        await dry_run(order, store.scan(), self._tools.purges.current(), emit, of=of)

    async def _list_purges(self, _call: Call) -> Reply:
        told = [_told(purge) for purge in self._journal.recent()]
        return Reply(200, {"latest": self._tools.purges.current().latest, "purges": told})

    async def _explain(self, call: Call) -> Reply:
        question = _question(call)
        document = await explain(
            question, self._tools, self._parts(), self._policy(), self._recall
        )
        return Reply(200, document)

    def _recall(self, number: int) -> Purge | None:
        return next((each for each in self._journal.recent() if each.number == number), None)

    async def _ls(self, call: Call) -> Streamed:
        prefix, limit = _listed(call)
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
        question = _question(call)
        return Streamed(
            MESSAGE,
            lambda send: get_stored(question, self._tools, self._parts(), send, self._policy()),
        )

    async def _reload(self, _call: Call) -> Reply:
        try:
            later = self._reload_settings()
        except SettingsError as error:
            faults = [{"file": self._source, **asdict(fault)} for fault in error.faults]
            raise Refused(422, "settings not taken", str(error), {"faults": faults}) from error
        return Reply(200, {"taken": True, "later": later})

    async def _drain(self, _call: Call) -> Reply:
        self._begin_draining()
        return Reply(202, {"draining": True})


async def _ordered(call: Call, parts: Parts) -> Order:
    read = partial(order_from_json, call.body, parts.sites)
    try:
        if len(call.body) < AT_ONCE_BYTES:
            return read()
        return await trio.to_thread.run_sync(read)  # a hundred thousand URLs take half a second
    except OrderRefused as error:
        faults = [asdict(fault) for fault in error.faults]
        members = {"faults": faults, "more": error.more}
        raise Refused(422, "not purged", str(error), members) from error


def _question(call: Call) -> Question:
    try:
        return asked(call.query)
    except QuestionRefused as error:
        raise Refused(400, "", str(error)) from error


def _listed(call: Call) -> tuple[str, int | None]:
    """The prefix and the limit of a listing."""
    for name in call.query.keys() - {"prefix", "limit"}:
        raise Refused(400, "", f'"{name[:60]!a}" is unknown; there is prefix, limit')
    prefix = call.query.get("prefix", [""])[0]
    limit = call.query.get("limit", [""])[0]
    if not limit:
        return prefix, None
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10):
        raise Refused(400, "", f"limit: {limit[:60]!a} is no count; write limit=100")
    return prefix, int(limit)


def _told(purge: Purge) -> dict[str, Any]:
    return {
        "number": purge.number,
        "when": purge.when,
        "who": purge.who,
        "manner": purge.manner.value,
        "everything": purge.everything,
        "confined": bool(purge.area),
        "scopes": purge.words,
        "count": purge.count,
    }
