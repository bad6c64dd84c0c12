"""Names of servers, resolved again while they are in use, so that a move is followed.

A new connection looks its name up anyway. What would stay behind are connections that are kept:
so each name is looked up every `EVERY_S` while any of its connections exist, and those to
addresses that are gone are retired. The system's resolver tells no TTL, and caches as it will.

An address is gone when neither of the last two answers had it: servers of names with many
addresses tell a few of them at a time, and each answer would otherwise close the last one's
connections. An error, or no answer in `PATIENCE_S`, leaves everything as it was: a resolver that
is down is no reason to take an origin down with it.
"""

from __future__ import annotations

import ipaddress
import random
import socket
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edge.upstream.fetch import Upstream

EVERY_S: Final = 30.0
JITTER: Final = 0.2  # of it, either way, so that workers and names do not ask all at once
PATIENCE_S: Final = 10.0
MOST_ADDRESSES: Final = 1_000  # a message of DNS over TCP has room for four thousand


async def addresses_of(host: str, port: int) -> frozenset[bytes]:
    """All addresses of `host`, as text; raises OSError or UnicodeError."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return frozenset(str(place[0]).encode() for *_, place in found[:MOST_ADDRESSES])


def is_name(host: str) -> bool:
    """Whether `host` is to be looked up, and no address itself."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


async def follow(
    upstream: Upstream,
    *,
    look_up: Callable[[str, int], Awaitable[frozenset[bytes]]] = addresses_of,
    roll: Callable[[], float] = random.random,
) -> None:
    """Keep an upstream's connections where its name points; `roll` is at random in [0, 1).

    Returns at once where the origin is named by its address, else only when cancelled.
    """
    origin = upstream.origin
    if not is_name(origin.host):
        return
    before: frozenset[bytes] = frozenset()
    while True:
        await trio.sleep(EVERY_S * (1.0 + JITTER * (2.0 * roll() - 1.0)))
        if not upstream.statistics().open:
            before = frozenset()  # what comes next asks for itself
            continue
        now: frozenset[bytes] = frozenset()
        try:
            with trio.move_on_after(PATIENCE_S):
                now = await look_up(origin.host, origin.port)
        except (OSError, UnicodeError):
            continue
        if now and before:
            upstream.keep_only(now | before)
        before = now or before
