"""What the admin socket of a node can be asked: one handler for each route.

How it travels is `socket`'s, what is said is here. A purge that is acknowledged is on disk and in
force in every worker; one that is refused has done nothing. Shields purge first; one that has not
is told by its name (`purging.late`), and the purge is in force here all the same. What changes
something is told in the error log, with who asked for it; what is only looked at is not. What only
workers know is asked of them (`switchboard`): about a request, the one that owns its key.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import trio

from edge.admin.call import Refused, Reply, Streamed
from edge.admin.demand import listed, ordered, questioned
from edge.cache.journal import JournalError
from edge.errors import ExchangeError
from edge.purging.recorder import recording_of
from edge.serving.admission import admit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from edge.admin.call import Call, Handler
    from edge.admin.switchboard import Switchboard
    from edge.cache.journal import Follower, Journal
    from edge.cache.purge import Purge
    from edge.explain.question import Question
    from edge.listen.connection import ConnectionPolicy
    from edge.process.leash import Reloaded
    from edge.purging.execution import Purging
    from edge.serving.visit import Parts


class House(Protocol):
    """Who can have the whole node do something, and tell of it."""

    def parts(self) -> Parts:
        """What follows from the settings in force, without upstreams."""

    def policy(self) -> ConnectionPolicy:
        """The policy of connections by the settings in force."""

    def owner(self, digest: bytes) -> int:
        """The slot of the worker that owns a key."""

    async def status(self) -> Mapping[str, Any]:
        """The status document."""

    async def reload(self, *, wait: bool) -> Reloaded:
        """Have the settings read again; with `wait`, return when all go by them."""

    async def drain(self) -> None:
        """Begin the end."""


class NodeControl:
    """The handlers of a node; `settle` returns when what workers had stored is on disk."""

    def __init__(
        self,
        house: House,
        journal: Journal,
        purging: Purging,
        switchboard: Switchboard,
        settle: Callable[[], Awaitable[None]],
        source: str,
    ) -> None:
        self._house = house
        self._journal = journal
        self._purges: Follower = journal.follower()
        self._purging = purging
        self._switchboard = switchboard
        self._settle_all = settle
        self._source = source

    def routes(self) -> dict[bytes, dict[bytes, Handler]]:
        """The handlers by path and method, for operators."""
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

    def inner_routes(self) -> dict[bytes, dict[bytes, Handler]]:
        """The same, for workers."""
        return {
            b"/v1/record": {b"POST": self._record},
            b"/v1/settle": {b"POST": self._settle},
            b"/v1/ahead": {b"POST": self._send_ahead},
        }

    async def _tell_status(self, _call: Call) -> Reply:
        return Reply(200, await self._house.status())

    # Purging.

    async def _purge(self, call: Call) -> Reply | Streamed:
        began = trio.current_time()
        order = await ordered(call, self._house.parts().sites)
        if order.dry_run:
            return self._switchboard.trial(call.body)
        late = () if order.local else await self._purging.send_ahead(call.body)
        try:
            done = await self._purging.carry_out(order, str(call.caller), host=order.on)
        except JournalError as error:
            raise Refused(503, "purge not recorded", str(error)) from error
        ms = round(1_000 * (trio.current_time() - began), 3)
        document = {"number": done.number, "soft": order.soft, "scopes": done.count, "ms": ms}
        told = {"late": msgspec.to_builtins(late), "notes": order.notes}
        return Reply(200, {**document, **told}, words=None)

    async def _send_ahead(self, call: Call) -> Reply:
        later = call.query.get("when") == ["later"]
        late = await self._purging.send_ahead(call.body, later=later)
        return Reply(200, {"late": msgspec.to_builtins(late)}, words=None)

    async def _list_purges(self, _call: Call) -> Reply:
        told = [_told(purge) for purge in self._purges.recent()]
        return Reply(200, {"latest": self._purges.current().latest, "purges": told})

    async def _record(self, call: Call) -> Reply:
        recording = recording_of(call.body)
        try:
            purge = await self._journal.purge(**msgspec.structs.asdict(recording))
        except JournalError as error:
            raise Refused(503, "", str(error)) from error
        return Reply(200, {"number": purge.number}, words=None)

    async def _settle(self, _call: Call) -> Reply:
        try:
            await self._settle_all()
        except JournalError as error:
            raise Refused(503, "", str(error)) from error
        return Reply(200, {}, words=None)

    # What workers are asked.

    async def _explain(self, call: Call) -> Reply:
        return await self._switchboard.ask(self._owner(questioned(call)), call)

    async def _get(self, call: Call) -> Streamed:
        return self._switchboard.message(self._owner(questioned(call)), call)

    async def _ls(self, call: Call) -> Streamed:
        _, limit = listed(call)
        return self._switchboard.listing(call, limit)

    def _owner(self, question: Question) -> int:
        """The worker that owns the key of what is asked about; any, where there is none."""
        parts = self._house.parts().settled()
        try:
            head = question.head(self._house.policy().limits, parts.trusted)
            admitted = admit(parts, head, question.from_address)
        except ExchangeError:
            return 0
        return self._house.owner(admitted.key.digest)

    # The whole node.

    async def _reload(self, call: Call) -> Reply:
        told = await self._house.reload(wait=_waits(call))
        if told.faults:
            faults = [{"file": self._source, **asdict(fault)} for fault in told.faults]
            words = "; ".join(map(str, told.faults))
            raise Refused(422, "settings not taken", words, {"faults": faults})
        document = {
            "taken": True,
            "done": told.done,
            "later": told.later,
            "replaced": told.replaced,
            "because": told.because,
        }
        return Reply(200, document)

    async def _drain(self, _call: Call) -> Reply:
        await self._house.drain()
        return Reply(202, {"draining": True})


def _waits(call: Call) -> bool:
    """Whether whoever asks for a reload wants to wait for its end: `{"wait": true}`."""
    if not call.body:
        return False
    try:
        asked = msgspec.json.decode(call.body, type=dict[str, bool])
    except msgspec.MsgspecError as error:
        raise Refused(400, "", f'{error}; write {{"wait": true}}, or nothing') from error
    for name in asked.keys() - {"wait"}:
        raise Refused(400, "", f'"{name[:60]!a}" is unknown; there is wait')
    return asked.get("wait", False)


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
