"""The hop: asking the worker who owns a key, and giving its answer to the client as it is.

Theory of operation
-------------------
One worker of a node owns a key: it alone stores answers under it and fetches them. Another one
that is asked for it answers from a copy, if it holds one (see `cache.lending`), or relays the
request to the owner, whose ordinary exchange answers it as if the client had come there. What
comes back is the client's answer, made ready to its last field; here it is only passed on, at the
client's pace, and written to the log.

- *Never a chain.* A request that was relayed is answered where it arrived, also by a worker who
  does not own the key (any more); then nothing of it is stored.
- *The client is seen through.* When it ends its side, so does this side of the hop; when it is
  gone, the hop is broken off. The owner does what it would do for a client of its own. To look for
  that costs a task, so it begins when the owner has said nothing for `WATCH_AFTER_S`.
- *An owner may die.* Its listening socket is held by the node's parent and outlives it, so to
  connect does not fail: the connection waits until there is another worker. Until the owner's
  welcome nothing is sent. What is cut before a word of an answer came is asked again, if that is
  safe: a few times, each with `PATIENCE_S` for a welcome. What is cut later breaks the client's
  connection off. While the owner lives, its answer has all the time that it takes.
- *What a write makes unusable* is invalidated at its owner before the writer's client hears of
  it. Where the owner cannot be reached, the URL is purged instead (see `serving.clearing`): that
  is in force in all workers, those to come too, and covers copies and what is on disk. So it is
  after `PATIENCE_S`, whatever the owner is at.
- *A large body on disk is lent* as an open file (see `loans`) and sent from there, where the
  owner could itself do that, and there is room for it; else its bytes come over the hop.
- *Bounded.* A connection carries one request of one client at a time; of those that carry none
  `MOST_IDLE` are kept for each owner, for `IDLE_S`.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import trio

from edge.cache import codec
from edge.cache.lending import HEAD_BYTES, may_be_lent
from edge.cache.loans import Loans
from edge.cache.ranges import Span
from edge.coding import renditions
from edge.errors import ExchangeError, Failure
from edge.listen.link import Link
from edge.observe.record import Outcome
from edge.upstream.transport import FileSpan
from edge.wire.frames import (
    FORM,
    Answered,
    Broken,
    Copy,
    Facts,
    Invalidate,
    Lent,
    Wanted,
    Welcome,
    ask,
)
from edge.wire.message import Chunk, End, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from edge.cache.entry import Key
    from edge.cache.held import Held
    from edge.cache.lending import LendingStore
    from edge.coding.renditions import Shown
    from edge.hop.owner import Owners
    from edge.listen.connection import ClientStream, RequestBody
    from edge.observe.record import Record
    from edge.serving.answer import Answer
    from edge.serving.visit import Visit
    from edge.upstream.transport import Transport
    from edge.wire.frames import Frame

TRIES: Final = 4
PATIENCE_S: Final = 5.0  # for a welcome; a worker that died is replaced in well under a second
WATCH_AFTER_S: Final = 1.0
MOST_IDLE: Final = 64
IDLE_S: Final = 30.0
SWEEP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class HopStatistics:
    """Requests for what other workers own, since the start: answered from `copies` here, `glanced`
    at and answered by the owner at once, and `relayed` to it; and of the latter two, how many
    bodies, or parts of one, were `lent` as files."""

    copies: int = 0
    glanced: int = 0
    relayed: int = 0
    lent: int = 0


class Relays:
    """What one worker needs to ask the others. `dial` connects to the worker in a slot.

    `dial` raises OSError or `trio.BrokenResourceError`. `run` must be running for connections to
    be closed in time.
    """

    def __init__(
        self,
        owners: Owners,
        store: LendingStore,
        dial: Callable[[int], Awaitable[Transport]],
    ) -> None:
        self.owners = owners
        self.store = store
        self._dial = dial
        self.loans = Loans()
        self.glanced = 0
        self._relayed = 0
        self._idle: dict[int, deque[Link]] = {}

    def owns(self, digest: bytes) -> bool:
        """Whether this worker owns a key, by its digest."""
        return self.owners.owns(digest)

    def statistics(self) -> HopStatistics:
        """Requests for what other workers own."""
        copies = self.store.served_copies
        return HopStatistics(copies, self.glanced, self._relayed, self.loans.taken)

    def disown(self) -> None:
        """Own nothing from now on, as one who drains while its successor has begun: what comes
        here yet is relayed, to the successor too."""
        self.owners = replace(self.owners, slot=-1)
        self.store.disown()

    async def run(self) -> None:
        """Close connections that have carried nothing for a while; cancelled, all of them."""
        try:
            while True:
                await trio.sleep(SWEEP_S)
                self._close_unused(since=trio.current_time() - IDLE_S)
        finally:
            self._close_unused(since=trio.current_time())

    async def relay(self, visit: Visit) -> None:
        """Have a request answered by its key's owner.

        Raises OWNER_GONE, or what the client did. The client's answer is left unfinished where the
        owner's was.
        """
        slot = self.owners.owner_of(visit.key.digest)
        body = visit.stream.request_body()
        if body is None:
            link, frame = await self._heard(slot, visit)
        else:
            link, frame = await self._connected(slot), None
        with _broken_off(link):
            await _Relayed(visit, link, self).see_through(frame, body)
        self._relayed += 1
        self.release(slot, link)

    async def invalidate(self, key: Key) -> bool:
        """Have all made unusable that is stored under a key of another worker's; False where that
        one cannot be reached."""
        slot = self.owners.owner_of(key.digest)
        try:
            with trio.fail_after(PATIENCE_S):
                link, _ = await self._told(slot, Invalidate(key.digest, key.url), Link.receive)
        except (ExchangeError, trio.TooSlowError):
            return False
        self.release(slot, link)
        return True

    async def _heard(self, slot: int, visit: Visit) -> tuple[Link, Frame]:
        """Who answers a request without a body, and the first word of the answer."""
        question = _question(visit, None, takes_files=self.loans.has_room)

        async def hear(link: Link) -> Frame | None:
            return await _first_word(link, visit.stream)

        return await self._told(slot, question, hear)

    async def _told(
        self, slot: int, question: Frame, hear: Callable[[Link], Awaitable[Frame | None]]
    ) -> tuple[Link, Frame]:
        """Ask until there is an answer: what is asked may be asked twice."""
        for _ in range(TRIES):
            link = self.unused(slot) or await self._connected(slot)
            with _broken_off(link):
                frame = await _asked(link, question, hear)
            if frame is not None:
                return link, frame
            link.abort()
        raise ExchangeError(Failure.OWNER_GONE, f"worker {slot}, {TRIES} times")

    # Connections.

    def unused(self, slot: int) -> Link | None:
        """A connection that carries nothing at the moment; to be released, or broken off."""
        idle = self._idle.get(slot)
        while idle:
            link = idle.pop()
            if link.is_reusable:
                return link
            link.close()
        return None

    async def _connected(self, slot: int) -> Link:
        """A new connection on which the owner has said that it lives."""
        for _ in range(TRIES):
            if (link := await self._welcomed(slot)) is not None:
                return link
        raise ExchangeError(Failure.OWNER_GONE, f"worker {slot} has no welcome")

    async def _welcomed(self, slot: int) -> Link | None:
        """The same; None where it ends before that, as one does whose worker dies."""
        try:
            with trio.fail_after(PATIENCE_S):
                link = Link(await self._dial(slot))
                with _broken_off(link):
                    welcome = await link.receive()
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
            raise ExchangeError(Failure.OWNER_GONE, f"worker {slot}: {error}") from error
        if welcome == Welcome(FORM):
            return link
        link.abort()
        if welcome is None:
            return None
        raise ExchangeError(Failure.OWNER_GONE, f"worker {slot} is not of this program")

    def release(self, slot: int, link: Link) -> None:
        """Give a connection back that can carry another request, or is of no more use."""
        idle = self._idle.setdefault(slot, deque())
        if len(idle) >= MOST_IDLE or not link.is_reusable:
            link.close()
        else:
            link.idle_since = trio.current_time()
            idle.append(link)

    def _close_unused(self, since: float) -> None:
        for idle in self._idle.values():
            while idle and idle[0].idle_since <= since:
                idle.popleft().close()


class _Relayed:
    """One request under way, and its answer on its way back."""

    def __init__(self, visit: Visit, link: Link, relays: Relays) -> None:
        self._visit = visit
        self._link = link
        self._relays = relays
        self._copy: Copy | None = None
        self._pieces: list[bytes | memoryview] = []
        self._left = -1  # of the body, where the head has told its length
        self._needs_owner = True  # until all of the body is here, or lent
        self._trouble: ExchangeError | None = None  # the client's, while its body is relayed

    async def see_through(self, frame: Frame | None, body: RequestBody | None) -> None:
        """Relay what is left of the request, and the answer, of which `frame` has come."""
        if body is None:
            await self._pass_on(frame)
            return
        raised: ExchangeError | None = None
        async with trio.open_nursery() as nursery:
            try:
                await self._link.send(_question(self._visit, body))
                frame = await self._link.receive()
                if isinstance(frame, Wanted):
                    nursery.start_soon(self._send_body, body, nursery.cancel_scope)
                    frame = await self._link.receive()
                await self._pass_on(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raised = ExchangeError(Failure.OWNER_GONE, str(error))
            except ExchangeError as error:  # kept apart, or the nursery would wrap it in a group
                raised = error
            nursery.cancel_scope.cancel()
        if self._trouble is not None or raised is not None:
            raise self._trouble or raised  # type: ignore[misc]

    async def _pass_on(self, frame: Frame | None) -> None:
        """Give the client the answer, piece by piece."""
        stream = self._visit.stream
        while not isinstance(frame, End | Broken):
            match frame:
                case ResponseHead():
                    await stream.send(frame, more=True)
                case Answered():
                    self._take_up(frame)
                    await stream.send(frame.head, more=True)
                case Chunk():
                    if self._copy is not None:
                        self._pieces.append(frame.data)
                    self._left -= len(frame.data)
                    await stream.send(frame, more=True)
                case Lent():
                    await self._send_lent(frame)
                case _:
                    raise ExchangeError(Failure.OWNER_GONE, "in the middle of an answer")
            frame = self._link.at_hand()
            if frame is None:
                await stream.flush()
                frame = await self._link.receive()
                if frame is None and not self._needs_owner:
                    frame = End()
        if isinstance(frame, Broken):
            note(self._visit.record, frame.facts)
            await stream.flush()  # what came before is the client's all the same
            return
        await stream.send(frame)
        if self._copy is not None:
            self._relays.store.keep_copy(self._copy.form, b"".join(self._pieces), self._copy.lease)

    async def _send_lent(self, lent: Lent) -> None:
        """Send a part of the body from its file; where there is no room for it, it comes yet."""
        descriptor = self._link.take_descriptor()
        if self._link.has_ended:  # there is no way to say so
            if descriptor is not None:
                os.close(descriptor)
            return
        body = self._relays.loans.take(lent, descriptor, self._lost)
        if body is None:
            await self._link.send(Wanted())
            return
        self._left -= lent.stop - lent.start
        self._needs_owner = self._left != 0
        try:
            with suppress(trio.BrokenResourceError):  # the owner is gone, and is not needed
                await self._link.send(End())
            await self._visit.stream.send_file(FileSpan(body, lent.start, lent.stop))
        finally:
            body.close()

    def _lost(self, _: str) -> None:
        """The body is not what was stored: its owner must not answer with it any more."""
        self._visit.tools.background.start_soon(self._relays.invalidate, self._visit.key)

    def _take_up(self, answered: Answered) -> None:
        visit = self._visit
        note(visit.record, answered.facts)
        visit.head_sent(answered.head.status)
        self._copy = answered.copy
        length = answered.head.headers.get(b"content-length")
        self._left = -1 if length is None else int(length)  # digits: its owner has seen to it

    async def _send_body(self, body: RequestBody, everyone: trio.CancelScope) -> None:
        """Send the request's body, then watch the client, who may leave."""
        try:
            while not isinstance(message := await body.receive(), End):
                await self._link.send(message)
            await self._link.send(message)
            await self._visit.stream.wait_left()
            await self._link.end()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whoever receives will see it
        except ExchangeError as error:
            self._trouble = error
            everyone.cancel()


async def _asked(
    link: Link, question: Frame, hear: Callable[[Link], Awaitable[Frame | None]]
) -> Frame | None:
    """What is answered to `question`; None where the connection ends before that."""
    try:
        await link.send(question)
    except trio.BrokenResourceError:
        return None
    return await hear(link)


async def _first_word(link: Link, client: ClientStream) -> Frame | None:
    """What the owner says first; it is told if the client ends its side meanwhile."""
    with trio.move_on_after(WATCH_AFTER_S):
        return await link.receive()
    frame: Frame | None = None
    raised: ExchangeError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell_when_left, link, client)
        try:
            frame = await link.receive()
        except ExchangeError as error:  # kept apart, or the nursery would wrap it in a group
            raised = error
        nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised
    return frame


async def _tell_when_left(link: Link, client: ClientStream) -> None:
    await client.wait_left()
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await link.end()


def _question(visit: Visit, body: RequestBody | None, *, takes_files: bool = False) -> Frame:
    return ask(
        visit.head,
        visit.stream.peer,
        visit.id,
        has_body=body is not None,
        length=body.length if body is not None else None,
        takes_files=takes_files,
        drawn=visit.drawn,
    )


@contextmanager
def _broken_off(link: Link) -> Iterator[None]:
    """Breaks `link` off where the block is left by an exception."""
    whole = False
    try:
        yield
        whole = True
    finally:
        if not whole:
            link.abort()


def hops_told(relays: Relays | None) -> dict[str, int]:
    """What a worker that has these tells of its hops."""
    return asdict(HopStatistics() if relays is None else relays.statistics())


# What goes with an answer.


def facts_of(record: Record) -> Facts:
    """What the owner knows of an answer, for the log of who asked."""
    return Facts(
        record.cache.value,
        record.reason,
        record.ttl,
        record.upstream,
        record.upstream_s,
        record.error,
        record.status,
    )


def note(record: Record, facts: Facts) -> None:
    """Write down what the owner knows of an answer."""
    record.cache, record.reason = Outcome(facts.cache), facts.reason
    record.ttl, record.upstream = facts.ttl, facts.upstream
    record.upstream_s, record.error = facts.upstream_s, facts.error
    record.status = facts.status


def copy_of(visit: Visit, shown: Shown, composed: Answer) -> Copy | None:
    """What whoever asked may keep of an answer that is a hit; None where it is not all of it.

    `shown` is what the answer `composed` was made of, for this visit.
    """
    held, entry = shown.held, shown.entry
    if visit.head.method != b"GET" or visit.lease is None or held is None or held.body is None:
        return None
    whole = (Span(0, len(held.body)),) if held.body else ()
    if composed.head.status != entry.status or composed.pieces != whole:
        return None
    form = None
    if renditions.is_final(shown, visit.terms.compress):
        form = form_to_lend(shown, visit.variants)
    return None if form is None else Copy(form, visit.lease)


def form_to_lend(shown: Shown, variants: tuple[Held, ...]) -> bytes | None:
    """The byte form of what is shown of these variants, where a copy of it may be lent.

    What is made of a stored body is lent under its own key, and with its source's head as it is
    now: whoever has the copy has nothing else of it.
    """
    if shown.held is None or not may_be_lent(shown.held, variants):
        return None
    form = codec.to_bytes(renditions.lent(shown))
    return form if len(form) <= HEAD_BYTES else None
