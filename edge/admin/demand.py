"""What calls on the admin socket ask for, read; or refused, with the way out."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from edge.admin.call import Refused
from edge.explain.question import QuestionRefused, asked
from edge.purging.orders import OrderRefused, order_from_json

if TYPE_CHECKING:
    from edge.admin.call import Call
    from edge.explain.question import Question
    from edge.purging.draft import Order
    from edge.routing.site import HostTable
    from edge.serving.terms import Site

AT_ONCE_BYTES: Final = 32_768


async def ordered(call: Call, sites: HostTable[Site]) -> Order:
    """The order to purge that a call is; raises `Refused`."""
    read = partial(order_from_json, call.body, sites)
    try:
        if len(call.body) < AT_ONCE_BYTES:
            return read()
        return await trio.to_thread.run_sync(read)  # a hundred thousand URLs take half a second
    except OrderRefused as error:
        faults = [asdict(fault) for fault in error.faults]
        members = {"faults": faults, "more": error.more}
        raise Refused(422, "not purged", str(error), members) from error


def questioned(call: Call) -> Question:
    """The request that a call asks about; raises `Refused`."""
    try:
        return asked(call.query)
    except QuestionRefused as error:
        raise Refused(400, "", str(error)) from error


def listed(call: Call) -> tuple[str, int | None]:
    """The prefix and the limit of a listing; raises `Refused`."""
    for name in call.query.keys() - {"prefix", "limit"}:
        raise Refused(400, "", f'"{name[:60]!a}" is unknown; there is prefix, limit')
    prefix = call.query.get("prefix", [""])[0]
    limit = call.query.get("limit", [""])[0]
    if not limit:
        return prefix, None
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10):
        raise Refused(400, "", f"limit: {limit[:60]!a} is no count; write limit=100")
    return prefix, int(limit)
