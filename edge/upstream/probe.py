"""Active checks: each server is asked for one page, again and again, and told up or down by that.

One process of a node does this for all of them. A check is a connection of its own, closed after
it: an idle one may live on where nobody listens any more, and what a client would find is meant.
It is good where the status is one of those expected and the text, if one is, stands in the first
64 KiB of the body. So many bad ones in a row say that a server is down, and so many good ones
that it is up again; of a server that nothing is known of, one good one is enough. What we lack
ourselves (descriptors, memory) says nothing of a server and counts as neither.

The first check of each server comes at a random time within its interval, and each interval is up
to a tenth longer or shorter, so that servers are not all asked at once, nor by all nodes at once.
At most so many checks are under way at a time; further ones wait, and their `timeout_s` begins
when they do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import trio

from edge.errors import ExchangeError, Failure, Side
from edge.upstream.conversation import Conversation
from edge.upstream.dial import Dialer
from edge.upstream.pool import Connection
from edge.wire.grammar import RESPONSE_LIMITS
from edge.wire.message import Chunk, Headers, RequestHead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from edge.upstream.origin import Origin
    from edge.upstream.transport import Transport

JITTER: Final = 0.1
AT_ONCE: Final = 32
BODY_BYTES: Final = 65_536
WHY_CHARS: Final = 120


def _says(sentence: str, unit: str = "") -> dict[str, Any]:
    return {"says": sentence, "unit": unit}


@dataclass(frozen=True, slots=True)
class CheckPolicy:
    """How one server is checked; times in seconds."""

    path: bytes = field(default=b"/", metadata=_says("target that is asked for with GET"))
    host: bytes | None = field(
        default=None, metadata=_says("what is sent as Host in place of the server's own name")
    )
    every_s: float = field(
        default=5.0, metadata=_says("time from one check to the next, ±10 %", "seconds")
    )
    timeout_s: float = field(
        default=1.0,
        metadata=_says("longest that one check may take, connecting included", "seconds"),
    )
    down_after: int = field(
        default=3, metadata=_says("bad checks in a row after which a server is down")
    )
    up_after: int = field(
        default=2, metadata=_says("good checks in a row after which it is up again")
    )
    statuses: frozenset[int] = field(
        default=frozenset({200}), metadata=_says("statuses of a good answer")
    )
    body: bytes = field(
        default=b"", metadata=_says("text that a good answer has in its first 64 KiB")
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What checks say of a server now: up, or down and why, after how many in a row."""

    is_up: bool
    why: str
    checks: int


class Health:
    """The checks of one server, in a row; pure. `is_up` is None where nothing is known."""

    __slots__ = ("_bad", "_good", "_policy", "is_up")

    def __init__(self, policy: CheckPolicy, is_up: bool | None = None) -> None:
        self._policy = policy
        self._good = self._bad = 0
        self.is_up = is_up

    def good(self) -> Verdict | None:
        """A good check; the verdict where it is another one than before."""
        self._good, self._bad = self._good + 1, 0
        enough = 1 if self.is_up is None else self._policy.up_after
        if self.is_up or self._good < enough:
            return None
        self.is_up = True
        return Verdict(True, "", self._good)

    def bad(self, why: str) -> Verdict | None:
        """A bad check; the verdict where it is another one than before."""
        self._good, self._bad = 0, self._bad + 1
        if self.is_up is False or self._bad < self._policy.down_after:
            return None
        self.is_up = False
        return Verdict(False, why, self._bad)


@dataclass(frozen=True, slots=True)
class Checkable:
    """A server that is to be checked; `id` is its name wherever one is meant."""

    id: str
    origin: Origin
    policy: CheckPolicy


class Prober:
    """Checks servers. `told` is given each new verdict with the server's id, `tell` a line for
    the error log; `random` gives numbers from 0 to 1."""

    def __init__(
        self,
        told: Callable[[str, Verdict], None],
        tell: Callable[[str], None],
        random: Callable[[], float],
        *,
        connect: Callable[[Origin], Awaitable[Transport]] | None = None,
        at_once: int = AT_ONCE,
    ) -> None:
        self._told = told
        self._tell = tell
        self._random = random
        self._connect = connect
        self._places = trio.CapacityLimiter(at_once)
        self._watched: dict[Checkable, _Watched] = {}
        self._nursery: trio.Nursery | None = None

    def take_up(
        self, servers: Iterable[Checkable], known: Mapping[str, bool] | None = None
    ) -> None:
        """Check these servers from now on, and no others; those that were checked in the same way
        go on as they are. `known` says, by id, which are known to be up or down.

        Raises `ValueError` where one cannot be asked, since its `ca` cannot be used; then nothing
        has changed.
        """
        known = known or {}
        wanted = dict.fromkeys(servers)
        new = {
            each: _Watched(
                Dialer(replace(each.origin, connect_s=each.policy.timeout_s), self._connect),
                Health(each.policy, known.get(each.id)),
            )
            for each in wanted
            if each not in self._watched
        }
        for each in [each for each in self._watched if each not in wanted]:
            self._watched.pop(each).scope.cancel()
        self._watched |= new
        if self._nursery is not None:
            for each in new:
                self._nursery.start_soon(self._watch, each, new[each])

    async def run(self) -> None:
        """Check until cancelled."""
        async with trio.open_nursery() as self._nursery:
            for each, watched in self._watched.items():
                self._nursery.start_soon(self._watch, each, watched)
            await trio.sleep_forever()

    async def _watch(self, server: Checkable, watched: _Watched) -> None:
        every_s = server.policy.every_s
        due = trio.current_time() + every_s * self._random()
        with watched.scope:
            while True:
                await trio.sleep_until(due)
                async with self._places:
                    began = trio.current_time()
                    verdict = await self._checked(server, watched)
                if verdict is not None:
                    self._say(server, verdict)
                due = began + every_s * (1 + JITTER * (2 * self._random() - 1))

    async def _checked(self, server: Checkable, watched: _Watched) -> Verdict | None:
        try:
            why = await check(watched.dialer, server.policy)
        except ExchangeError as error:
            self._tell(f"{_worded(server.id)} cannot be checked: {error}")
            return None
        return watched.health.good() if why is None else watched.health.bad(why)

    def _say(self, server: Checkable, verdict: Verdict) -> None:
        name, count = _worded(server.id), verdict.checks
        checks = f"{count} check{'s' * (count != 1)}"
        if verdict.is_up:
            self._tell(f"{name} is up; {checks} passed")
        else:
            self._tell(f"{name} is down: {verdict.why}; {checks} failed")
        self._told(server.id, verdict)


class _Watched:
    """One server that is checked."""

    __slots__ = ("dialer", "health", "scope")

    def __init__(self, dialer: Dialer, health: Health) -> None:
        self.dialer = dialer
        self.health = health
        self.scope = trio.CancelScope()


def _worded(server_id: str) -> str:
    origin, _, url = server_id.partition(" ")
    return f"origin {origin}: {url}" if url else f"origin {origin}"


async def check(dialer: Dialer, policy: CheckPolicy) -> str | None:
    """Ask once: None where all is well, else why not, in a few words.

    Raises `ExchangeError` where it is our own lack or fault that nothing could be asked.
    """
    with trio.move_on_after(policy.timeout_s):
        try:
            return await _asked(dialer, policy)
        except ExchangeError as error:
            if error.failure is Failure.OVERLOADED or error.side is Side.US:
                raise
            return _why(error)
    return f"no answer within {policy.timeout_s:g} s"


async def _asked(dialer: Dialer, policy: CheckPolicy) -> str | None:
    origin = dialer.origin
    transport = await dialer.open_once()
    try:
        conversation = Conversation(
            Connection(transport, trio.current_time()),
            replace(origin, first_byte_s=policy.timeout_s, between_bytes_s=policy.timeout_s),
            RESPONSE_LIMITS,
            deadline=trio.current_time() + policy.timeout_s,
            repeatable=False,
        )
        await conversation.ask(_request(origin, policy), None)
        status = (await conversation.head(None)).status
        if status not in policy.statuses:
            return f"status {status}, not {_either(policy.statuses)}"
        if not policy.body or await _has_text(conversation, policy.body):
            return None
        text = policy.body.decode("utf-8", "backslashreplace")
        return f'no "{text[:40]}" in the first {BODY_BYTES // 1024} KiB of the body'
    finally:
        transport.close()


def _request(origin: Origin, policy: CheckPolicy) -> RequestHead:
    fields = (
        (b"accept", b"*/*"),
        (b"cache-control", b"no-cache"),  # a cache before the server would answer for it
        (b"connection", b"close"),
        (b"user-agent", b"edge-check"),
    )
    host = policy.host or origin.authority
    return RequestHead(b"GET", origin.scheme.encode("ascii"), host, policy.path, Headers(fields))


async def _has_text(conversation: Conversation, text: bytes) -> bool:
    body = bytearray()
    while len(body) < BODY_BYTES:
        message = await conversation.receive()
        if not isinstance(message, Chunk):
            break
        begin = max(0, len(body) - len(text) + 1)  # it may have begun in the piece before
        body += message.data
        if body.find(text, begin, BODY_BYTES) >= 0:
            return True
    return False


def _either(statuses: frozenset[int]) -> str:
    return " or ".join(map(str, sorted(statuses)[:4]))


def _why(error: ExchangeError) -> str:
    words = {Failure.CONNECT_REFUSED: "refused", Failure.CLOSED_EARLY: "closed without an answer"}
    return words.get(error.failure, str(error))[:WHY_CHARS]
