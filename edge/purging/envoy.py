"""Purges go to the shields first, and are carried out here when these have acknowledged.

Were it the other way round, what this edge fetches anew could be what a shield still holds. So
`send` asks all shields at once, each with a signed PURGE whose body is the order, and returns when
each has it on disk and in force, or its time is over: one round trip where all are well.

Theory of operation
-------------------
- *A shield that does not acknowledge* within `PATIENCE_S` is told by its name, so that nobody
  takes the purge for done. It is *owed* the order from then on (`backlog`): on the disk before
  anyone hears of it, and sent again and again, the oldest first, until it is acknowledged. To
  purge twice does no harm, so it is never asked whether a shield had it.
- *While it is owed one it is not asked.* It is told as down to all workers, and `send` does not
  return before they go by that. So what it holds is not taken for fresh here: other shields are
  asked, or the origin. It is asked all the same where it is the last that is left to be asked,
  as with `without = "fail"`, where all shields are behind; what it holds may be stored again then.
- *It is waited for no longer than need be.* Further purges go behind those that are owed, and wait
  `SHORT_S` for their turn, so that one dead shield does not hold up an operator.
- *A shield that refuses an order* as none (400) is told, too. It would refuse it again, so it is
  owed nothing.
- *Who asks.* One process of a node does, the keeper; workers ask it. A purge that fails here after
  shields have acknowledged has cost them some hits, and nothing else.

What a client's write invalidates is not sent, as a rule. The write has passed the shield that its
URL belongs to, and that has invalidated what it held before its answer came here. Where it passed
no shield, since none was well, all are owed a purge of what it changed (`later`). What is not
sent: other pages that the answer names (Location) and groups, of which another shield than the
one that was passed may hold something; that lives there to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from edge.errors import ExchangeError
from edge.guard.address import UNIX
from edge.purging.late import Late
from edge.serving.shielding import dress
from edge.upstream.fetch import Upstream
from edge.wire.message import Chunk, End, Headers, RequestHead
from edge.wire.proof import Claims

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from edge.purging.backlog import Backlog, Debt
    from edge.serving.shielding import Voice
    from edge.upstream.origin import Origin
    from edge.upstream.transport import Transport

PATIENCE_S: Final = 5.0  # for a shield's acknowledgement, with its disk's
SHORT_S: Final = 1.0  # for one that is owed others
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 15.0
TRIES: Final = 2  # at once: a connection that was kept may have died
AT_ONCE: Final = 8  # connections to one shield
ANSWER_BYTES: Final = 65_536
BEHIND: Final = "it has not acknowledged every purge"


@dataclass(slots=True, eq=False)
class _Shield:
    """A shield, and what is done for it; where it cannot be asked at all, `fault` says why."""

    origin: Origin
    upstream: Upstream | None
    fault: str = ""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    woken: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return self.origin.url

    async def next_order(self) -> None:
        """Wait until it is owed one more."""
        await self.woken.wait()
        self.woken = trio.Event()


class Envoy:
    """See the module. `aside` is given the URL of a shield that is not to be asked and why, and
    returns when nobody asks it; `back` is given that of one that may be asked again. `now` is in
    Unix seconds; `new_id` names requests, each otherwise, or a proof could be that of another;
    `tell` takes a line for the error log; `connect` stands in for the network."""

    def __init__(
        self,
        backlog: Backlog,
        *,
        aside: Callable[[str, str], Awaitable[None]],
        back: Callable[[str], None],
        now: Callable[[], float],
        new_id: Callable[[], str],
        tell: Callable[[str], None],
        connect: Callable[[Origin], Awaitable[Transport]] | None = None,
    ) -> None:
        self._backlog = backlog
        self._aside = aside
        self._back = back
        self._now = now
        self._new_id = new_id
        self._tell = tell
        self._connect = connect
        self._voice: Voice | None = None
        self._shields: dict[str, _Shield] = {}
        self._nursery: trio.Nursery | None = None

    def take_up(self, shields: Iterable[Origin], voice: Voice | None) -> None:
        """Go by these settings; where there are shields, there is a voice."""
        wanted = [_bounded(each) for each in shields]
        made = {each.url: self._made(each) for each in wanted}
        for shield in self._shields.values():
            if shield is not made.get(shield.url):
                shield.scope.cancel()
        new = [each for each in made.values() if each not in self._shields.values()]
        self._shields, self._voice = made, voice
        self._backlog.take_up(made)
        if self._nursery is not None:
            for each in new:
                self._nursery.start_soon(self._tend, each)

    def _made(self, origin: Origin) -> _Shield:
        before = self._shields.get(origin.url)
        if before is not None and before.origin == origin and before.upstream is not None:
            return before
        try:
            upstream = Upstream(origin, connect=self._connect, now=self._now)
        except ValueError as error:  # its file of authorities has gone: it owes what we cannot ask
            return _Shield(origin, None, str(error))
        return _Shield(origin, upstream)

    def behind(self) -> dict[str, str]:
        """The URLs of shields that are owed purges, and that in words."""
        return {url: BEHIND for url in self._shields if self._backlog.next(url)}

    def _debt(self, url: str) -> str:
        count = self._backlog.count(url)
        return f"it has not acknowledged {count} purge{'s' * (count != 1)}"

    async def run(self) -> None:
        """Send what is owed, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            for each in self._shields.values():
                self._nursery.start_soon(self._tend, each)
            await trio.sleep_forever()

    # One order.

    async def send(self, order: bytes, *, later: bool = False) -> tuple[Late, ...]:
        """Have all shields carry out an order (a JSON document): those that have not, when the
        others have and nobody here asks these any more. With `later` it is owed to all of them
        from the start, and that is not waited for."""
        if later:
            await self._owe_all(order)
            return ()
        late: list[Late] = []
        async with trio.open_nursery() as nursery:
            for shield in self._shields.values():
                nursery.start_soon(self._deliver, shield, order, late)
        if any(each.owed for each in late):
            await self._keep()
        return tuple(sorted(late, key=lambda each: each.url))

    async def _deliver(self, shield: _Shield, order: bytes, late: list[Late]) -> None:
        url = shield.url
        if self._backlog.next(url) is not None:
            debt, why = self._owe(shield, order), ""
            with trio.move_on_after(SHORT_S):
                await debt.paid.wait()
        else:
            reply = await self._tried(shield, order)
            if reply.is_done:
                return
            if reply.is_refused:
                late.append(Late(url, reply.why, owed=False))
                return
            debt, why = self._owe(shield, order), reply.why
            self._tell(f"shield {url} has not acknowledged a purge: {why}; it is owed it")
            await self._aside(url, BEHIND)
        if not debt.paid.is_set():
            late.append(Late(url, why or self._debt(url)))

    async def _owe_all(self, order: bytes) -> None:
        news = [url for url in self._shields if self._backlog.next(url) is None]
        for shield in self._shields.values():
            self._owe(shield, order)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            for url in news:
                nursery.start_soon(self._aside, url, BEHIND)

    def _owe(self, shield: _Shield, order: bytes) -> Debt:
        debt = self._backlog.owe(shield.url, order)
        shield.woken.set()
        return debt

    # What is owed.

    async def _tend(self, shield: _Shield) -> None:
        with shield.scope:
            async with trio.open_nursery() as nursery:
                if shield.upstream is not None:
                    nursery.start_soon(shield.upstream.run)
                nursery.start_soon(self._pay, shield)

    async def _pay(self, shield: _Shield) -> None:
        """Send a shield what it is owed, the oldest first."""
        pause_s = FIRST_PAUSE_S
        while True:
            if (debt := self._backlog.next(shield.url)) is None:
                pause_s = FIRST_PAUSE_S
                await shield.next_order()
                continue
            reply = await self._tried(shield, debt.order)
            if reply.is_done or reply.is_refused:
                await self._settle(shield, debt, reply)
                continue
            with trio.move_on_after(pause_s):
                await shield.next_order()
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _settle(self, shield: _Shield, debt: Debt, reply: _Reply) -> None:
        if reply.is_refused:
            self._tell(f"shield {shield.url} refuses a purge that it was owed: {reply.why}")
        self._backlog.pay(shield.url, debt)
        if self._backlog.next(shield.url) is None:
            self._tell(f"shield {shield.url} has acknowledged every purge that it was owed")
            self._back(shield.url)
            await self._keep()

    async def _keep(self) -> None:
        try:
            await self._backlog.keep()
        except OSError as error:
            self._tell(f"what shields are owed is not on disk: {error.strerror or error}")

    # The wire.

    async def _tried(self, shield: _Shield, order: bytes) -> _Reply:
        """What a shield says to an order, or why it says nothing."""
        reply = _Reply(0, f"no answer within {PATIENCE_S:g} s")
        with trio.move_on_after(PATIENCE_S):
            for _ in range(TRIES):
                try:
                    return await self._asked(shield, order)
                except ExchangeError as error:
                    reply = _Reply(0, str(error))
        return reply

    async def _asked(self, shield: _Shield, order: bytes) -> _Reply:
        assert self._voice is not None  # or there would be no shields
        if shield.upstream is None:
            return _Reply(0, shield.fault)
        pairs = [(b"content-type", b"application/json")]
        origin = shield.origin
        head = RequestHead(
            b"PURGE", origin.scheme.encode(), origin.authority, b"/", Headers(pairs)
        )
        claims = Claims(
            edge=self._voice.name,
            id=self._new_id().encode(),
            hops=(UNIX,),
            scheme=b"http",
            order=True,
        )
        signed = dress(head, claims, self._voice, self._now())
        async with shield.upstream.fetch(signed, _Body(order)) as response:
            body = bytearray()
            while isinstance(piece := await response.receive(), Chunk):
                body += piece.data
                if len(body) > ANSWER_BYTES:
                    break
        return _Reply(response.head.status, _why(response.head.status, bytes(body)))


@dataclass(frozen=True, slots=True)
class _Reply:
    """A shield's; `status` is 0 where it gave none."""

    status: int
    why: str

    @property
    def is_done(self) -> bool:
        return self.status == 200

    @property
    def is_refused(self) -> bool:
        return self.status == 400


class _Body:
    """An order on its way."""

    def __init__(self, order: bytes) -> None:
        self.length = len(order)
        self._left: list[Chunk | End] = [Chunk(order), End()] if order else [End()]

    async def receive(self) -> Chunk | End:
        return self._left.pop(0)


def _bounded(origin: Origin) -> Origin:
    """A shield as it is asked to purge."""
    return replace(
        origin,
        connect_s=PATIENCE_S,
        first_byte_s=PATIENCE_S,
        between_bytes_s=PATIENCE_S,
        total_s=PATIENCE_S,
        max_connections=AT_ONCE,
        max_idle=AT_ONCE,
    )


def _why(status: int, body: bytes) -> str:
    """What an answer says, in few words."""
    try:
        told = msgspec.json.decode(body, type=dict[str, object]).get("detail")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = None
    return f"it answered {status}" + (f": {str(told)[:200]}" if told else "")
