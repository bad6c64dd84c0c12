"""What is stored: all of it as lines, or one response as it is.

Both are for the operator's eyes, so they count as no use, bring nothing to memory, and show what
a client would not be given: what is stale, and (in the list) what has been purged and is not yet
swept. A purged body is not given out, not even here: whoever purged it meant it.

Both are sent at the reader's pace. A list holds one batch at a time, a body one piece; what comes
or goes while the list is being written may be in it or not.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from edge.admin.call import Refused
from edge.cache.freshness import current_age, softened, time_to_live
from edge.cache.purge import Verdict
from edge.cache.ruling import CachePolicy
from edge.cache.tags import all_tags
from edge.coding.renditions import made_in
from edge.errors import ExchangeError
from edge.explain.question import plain, worded
from edge.listen.connection import ConnectionPolicy
from edge.serving import finding
from edge.serving.admission import admit
from edge.serving.answer import BODILESS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge.admin.call import Send
    from edge.cache.body import Body
    from edge.cache.entry import Entry
    from edge.cache.held import Held, Resource
    from edge.cache.inventory import Item
    from edge.cache.purge import Purges
    from edge.cache.store import Store
    from edge.explain.question import Question
    from edge.routing.site import HostTable
    from edge.serving.finding import Found
    from edge.serving.terms import Site
    from edge.serving.visit import Parts, Tools

PIECE_BYTES: Final = 65_536
LONG: Final = 8192  # of a URL or a value, as much as is told of it
_POLICY: Final = ConnectionPolicy()
_DEFAULT: Final = CachePolicy()


# --- all


async def list_stored(
    store: Store,
    purges: Purges,
    sites: HostTable[Site],
    now: float,
    prefix: str,
    limit: int | None,
    send: Send,
) -> None:
    """Send a line of JSON for each stored response whose URL begins with `prefix`.

    What was made of another one by coding or decoding it has its own line, with its `coding`.
    The prefix is compared as text, with the URL as it is keyed, or with what follows its scheme;
    its host may be written in upper case.
    At most `limit` lines; None for all. Raises `scan.Unreadable`.
    """
    wanted = _wanted(prefix.encode("utf-8", "surrogateescape"))
    scan, left = store.scan(), math.inf if limit is None else limit
    while left > 0 and (batch := await scan.next()) is not None:
        lines = bytearray()
        for item in batch:
            if left > 0 and _begins_with(item.entry.key.url, wanted):
                lines += msgspec.json.encode(_line(item, purges, sites, now)) + b"\n"
                left -= 1
            if len(lines) >= PIECE_BYTES:
                await send(bytes(lines))
                lines = bytearray()
        if lines:
            await send(bytes(lines))
        await trio.lowlevel.checkpoint()  # a batch without a match is work, too


def _wanted(prefix: bytes) -> bytes:
    """A prefix as URLs are keyed: what stands before the path in lower case."""
    scheme, mark, rest = prefix.partition(b"://")
    if not mark:
        scheme, rest = b"", prefix
    host, slash, path = rest.partition(b"/")
    return scheme.lower() + mark + host.lower() + slash + path


def _begins_with(url: bytes, prefix: bytes) -> bool:
    return url.startswith(prefix) or url.partition(b"://")[2].startswith(prefix)


def _line(item: Item, purges: Purges, sites: HostTable[Site], now: float) -> dict[str, Any]:
    entry = item.entry
    verdict = purges.verdict(item.passed, entry.scopes)
    ruled = entry
    if verdict is Verdict.STALE:
        ruled = softened(entry, purges.stale_since(item.passed, entry.scopes))
    ttl = time_to_live(ruled, now)
    return {
        "url": plain(entry.key.url, LONG),
        "variant": list(_variant(entry)),
        "coding": made_in(entry),
        "status": entry.status,
        "bytes": entry.length,
        "age_s": round(current_age(entry, now), 3),
        "ttl_s": round(ttl, 3),
        "hits": item.hits,
        "state": _state(verdict, ttl),
        "where": _where(item),
        "tags": [plain(tag, LONG) for tag in _tags(entry, sites)],
    }


def _variant(entry: Entry) -> Iterator[tuple[str, str | None]]:
    for name, value in entry.variant:
        yield plain(name, LONG), None if value is None else plain(value, LONG)


def _state(verdict: Verdict, ttl: float) -> str:
    if verdict is Verdict.DEAD:
        return "purged"
    if verdict is Verdict.STALE:
        return "soft-purged"
    return "fresh" if ttl > 0 else "stale"


def _where(item: Item) -> str:
    if item.in_memory:
        return "both" if item.on_disk else "memory"
    return "disk"


def _tags(entry: Entry, sites: HostTable[Site]) -> tuple[bytes, ...]:
    authority = entry.key.url.partition(b"://")[2].partition(b"/")[0]
    site = sites.find(authority)
    return all_tags(entry.headers, (site.terms.cache if site is not None else _DEFAULT).tags)


# --- one


async def get_stored(
    question: Question,
    tools: Tools,
    parts: Parts,
    send: Send,
    policy: ConnectionPolicy = _POLICY,
) -> None:
    """Send the stored response that a GET like `question` selects: head, empty line, body.

    Ranges and conditions mean nothing here: it is the whole. One that is still being filled is
    sent as it comes. Raises `Refused` where there is none, or where it has been purged; and
    `ExchangeError` (BODY_LOST) in the middle of a body that is not what was stored.
    """
    held = await _selected(question, tools, parts, policy)
    try:
        body = await tools.store.peek_body(held)
    except ExchangeError as error:
        words = f"its body cannot be had ({error.detail}); the next request fetches it anew"
        raise Refused(404, "", f"{_named(held)}: {words}") from error
    try:
        await send(_head(held.entry, body.length))
        await _pour(body, send)
    finally:
        body.close()


async def _selected(
    question: Question, tools: Tools, parts: Parts, policy: ConnectionPolicy
) -> Held:
    """The variant that is selected; raises `Refused`."""
    try:
        head = question.head(policy.limits, parts.trusted)
        admitted = admit(parts.settled(), head, question.from_address)
    except ExchangeError as error:
        raise Refused(400, "", f"no such request is answered here: {_told(error)}") from error
    resource = await tools.store.look(admitted.key, tools.now())
    purges = tools.purges.current()
    request, cache = admitted.request, admitted.policy
    found = finding.select(resource, request, cache, purges, judge=finding.look_at)
    if found.held is None:
        raise Refused(404, "", _missing(admitted.key.url, question.url, resource, found))
    return found.held


def _told(error: ExchangeError) -> str:
    detail = f", {worded(error.detail)}" if error.detail else ""
    return f"{error.status} {error.failure.slug}{detail}"


def _missing(key_url: bytes, asked_url: bytes, resource: Resource, found: Found) -> str:
    """What to do next; the commands can be pasted into a shell, so their URLs are not cut."""
    url, count = plain(key_url), len(resource.variants)
    if found.dead:
        return f"{url}: what is stored has been purged, and is not given out"
    if count:
        stored = "1 variant is" if count == 1 else f"{count} variants are"
        return (
            f"{url}: {stored} stored, and these fields select none; "
            f"`edge ls {quote(plain(key_url, LONG))}` tells what they vary on"
        )
    command = f"edge explain {quote(plain(asked_url, LONG))}"
    return f"{url}: nothing is stored; `{command}` tells what a request would do"


def _named(held: Held) -> str:
    return plain(held.entry.key.url)


def _head(entry: Entry, length: int | None) -> bytes:
    headers = entry.headers
    if length is not None and entry.status not in BODILESS:
        headers = headers.replaced(b"content-length", b"%d" % length)
    lines = [b"HTTP/1.1 %d %b" % (entry.status, entry.reason or _phrase(entry.status))]
    lines += [b"%b: %b" % pair for pair in headers]
    return b"\r\n".join([*lines, b"", b""])


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


async def _pour(body: Body, send: Send) -> None:
    offset = 0
    while data := await body.read(offset, PIECE_BYTES):
        await send(data)
        offset += len(data)
