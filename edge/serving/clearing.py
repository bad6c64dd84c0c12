"""What a client's request clears from the store: a write that went through, and PURGE.

A write makes its target unusable, and what its answer points at (RFC 9111 §4.4), and the groups
that the answer names (RFC 9875 §3), before its client hears of it: whoever reads after that must
not be given what was before.

PURGE is for the networks that the site names. To everyone else it is a method that this server
does not have. It is confined to the host that it is sent to, unless the site's reach is the node.
From a node that is known as one (`Admitted.orders`) it may be a whole order, as an operator gives
it: a JSON document, for its body.

Where there are shields, they purge first (`purging.envoy`). A PURGE that not all of them have
acknowledged is carried out here, and answered 503 with how many have not. What a write invalidates
is not sent to them: it has passed the one that its URL belongs to. One that passed none is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from edge.cache.invalidation import invalidates, is_write
from edge.cache.journal import JournalError
from edge.cache.key import forwarded_target, key_of
from edge.cache.reasons import Reason
from edge.cache.scope import url_name
from edge.cache.tags import INVALIDATION, groups_of
from edge.errors import ExchangeError, Failure
from edge.purging.dispatch import document
from edge.purging.draft import Fault, Order, OrderRefused
from edge.purging.orders import order_from_json, order_from_purge
from edge.routing.site import host_of
from edge.serving.answer import Answer
from edge.serving.delivery import deliver
from edge.wire.fields import format_date, parse_media_type
from edge.wire.message import Chunk, Headers, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge.cache.entry import Key
    from edge.purging.late import Late
    from edge.serving.visit import Tools, Visit

ORDER_BYTES: Final = 16 * 1024 * 1024  # as the admin socket takes
JSON: Final = b"application/json"


async def purge(visit: Visit) -> None:
    """Carry out a PURGE and say that it is done, or why not."""
    tools = visit.tools
    try:
        order, host = await _order(visit)
        late = await tools.purging.send_ahead(document(order, host))
        done = await tools.purging.carry_out(order, visit.record.client, host=host)
    except OrderRefused as error:
        await _tell(visit, 400, {"status": "refused", "detail": str(error)})
    except JournalError as error:
        tools.complain("purge", str(error), visit.id)
        await _tell(visit, 503, {"status": "failed", "detail": "the purge could not be recorded"})
    else:
        told: dict[str, str | bool] = {"id": str(done.number), "soft": order.soft}
        for each in late:
            tools.complain("shields", f"{each.url} has not purged: {each.why}", visit.id)
        if late:
            await _tell(visit, 503, {"status": "incomplete", **told, "detail": _lacking(late)})
        else:
            await _tell(visit, 200, {"status": "ok", **told})


def _lacking(late: Sequence[Late]) -> str:
    """How many shields have not purged; which, only the log says."""
    count = "a shield has" if len(late) == 1 else f"{len(late)} shields have"
    if all(each.owed for each in late):
        return f"purged here, but {count} not acknowledged it; it will be sent there again"
    return f"purged here, but {count} not taken it; the log of this node says why"


async def _order(visit: Visit) -> tuple[Order, bytes | None]:
    """What is to be purged, and the host that it is confined to; raises `OrderRefused`."""
    request = visit.request
    kind = parse_media_type(request.headers.get(b"content-type") or b"")
    if visit.orders and kind == JSON:
        order = order_from_json(await _whole_body(visit), visit.parts.sites)
        if order.dry_run:
            raise OrderRefused([Fault("dry_run", "true", "ask that of the node's admin socket")])
        return order, order.on
    order = order_from_purge(request, visit.site)
    return order, host_of(request.authority) if visit.site.purge_reach == "host" else None


async def _whole_body(visit: Visit) -> bytes:
    """The request's body; raises BODY_TOO_LARGE past `ORDER_BYTES`."""
    body, pieces = visit.stream.request_body(), bytearray()
    while body is not None and isinstance(piece := await body.receive(), Chunk):
        pieces += piece.data
        if len(pieces) > ORDER_BYTES:
            raise ExchangeError(Failure.BODY_TOO_LARGE)
    return bytes(pieces)


async def _tell(visit: Visit, status: int, told: dict[str, str | bool]) -> None:
    body = msgspec.json.encode(told) + b"\n"
    headers = Headers(
        [
            (b"date", format_date(visit.tools.now())),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
    )
    await deliver(visit, Answer(ResponseHead(status, headers), (body,)), None, Reason.PURGE)


async def invalidate(visit: Visit, fetched: ResponseHead, spared: Key | None) -> None:
    """Make unusable what the visit's request has changed, all but `spared`."""
    request, site, relays = visit.request, visit.site, visit.tools.relays
    targets = invalidates(request, fetched)
    if targets and _passed_by_shields(visit):  # first, so that none of them is asked after this
        await _tell_shields(visit, targets)
    # A URL may have keys that nobody can name from here: by arm, by place, by rule.
    has_more = bool(targets) and (
        site.splits_keys
        or visit.key
        != key_of(request.scheme, request.authority, request.target, request, site.key)
    )
    for target in targets:
        forwarded = forwarded_target(target, site.key)
        key = key_of(request.scheme, request.authority, forwarded, request, site.key)
        if has_more:
            await _purge_url(visit, forwarded)
        elif relays is None or relays.owns(key.digest):
            overtake(visit.tools, key, spared)
            await visit.tools.store.settle(synced=False)
        elif not await relays.invalidate(key):
            await _purge_url(visit, forwarded)
    if is_write(request, fetched):
        await _invalidate_groups(visit, fetched)


def _passed_by_shields(visit: Visit) -> bool:
    """Whether an origin has answered what was to go by a shield."""
    if not visit.terms.route.by_shield:
        return False
    shielding, upstream = visit.parts.ways.shielding, visit.record.upstream or ""
    return shielding is not None and upstream.partition(" ")[0] != shielding.group.name


async def _tell_shields(visit: Visit, targets: Iterable[bytes]) -> None:
    """Have shields purge what a write has changed that they know nothing of."""
    authority, key = visit.request.authority, visit.site.key
    names = tuple(url_name(authority, forwarded_target(target, key)) for target in targets)
    order = document(Order(names), host_of(authority))
    try:
        await visit.tools.purging.send_ahead(order, later=True)
    except JournalError as error:
        visit.tools.complain("shields", f"URLs not purged at shields: {error}", visit.id)


def overtake(tools: Tools, key: Key, spared: Key | None = None) -> None:
    """Make unusable what is stored under a key of this worker's, or on its way there."""
    tools.flights.overtake(key.digest)
    if key != spared:
        tools.store.invalidate(key)


async def _purge_url(visit: Visit, target: bytes) -> None:
    """Purge a URL whose owner cannot be told that it was written to, or which has many keys.

    The owner may be another process before long, that has its store and no word of this. A purge
    it will know of, as all workers do, and it covers their copies, and fetches under way.
    """
    request, who = visit.request, f"a write, by {visit.record.client}"
    try:
        await visit.tools.purging.invalidate_url(request.authority, target, who)
    except JournalError as error:
        visit.tools.complain("purge", f"a URL not invalidated: {error}", visit.id)


async def _invalidate_groups(visit: Visit, fetched: ResponseHead) -> None:
    groups = groups_of(fetched.headers, INVALIDATION)
    if not groups:
        return
    request, who = visit.request, f"the origin, to {visit.record.client}"
    try:
        await visit.tools.purging.invalidate_groups(request.scheme, request.authority, groups, who)
    except JournalError as error:
        visit.tools.complain("purge", f"groups not invalidated: {error}", visit.id)
