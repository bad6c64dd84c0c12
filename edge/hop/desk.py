"""The hop's fast way: plain requests that the owner of their key can answer at once.

The plain path is `relay`, from one exchange to another. Where the request is plain, and the owner
has the answer at hand, neither is needed: the client's bytes go to the owner as they came, its
`Quick` answers them as if they had come there, and the bytes of the answer go to the client as
they come back. So what is read, decided and written is the same as for a client of the owner's
own. Where the answer has to wait for anything, the owner says so, and the plain path begins.

Nothing is connected for it: it takes a connection that carries nothing, or none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from edge.cache.entry import Key
from edge.cache.lending import BODY_BYTES, HEAD_BYTES
from edge.cache.reasons import Reason
from edge.coding.renditions import is_final
from edge.errors import ExchangeError, Failure, Side
from edge.hop.relay import facts_of, form_to_lend, note
from edge.listen.hop import Lender
from edge.listen.lane import After
from edge.observe.record import Outcome, Record, text
from edge.serving import clearing
from edge.serving.finding import select
from edge.serving.quick import Quick
from edge.upstream.transport import FileSpan, divided
from edge.wire.frames import Copy, Glance, Invalidate, Later, Lent, Whole
from edge.wire.message import Chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.hop.relay import Relays
    from edge.listen.link import Link
    from edge.serving.admission import Admitted
    from edge.serving.exchange import Exchange
    from edge.serving.known import Known
    from edge.serving.visit import Tools
    from edge.upstream.transport import Data, Part
    from edge.wire.grammar import Limits

WHOLE_BYTES: Final = BODY_BYTES + HEAD_BYTES  # of an answer that goes in one frame
AT_ONCE_S: Final = 1.0  # a worker that is so slow is asked by the plain path, which has patience


class _Reading(Quick):
    """`Quick`, where keys have owners."""

    def __init__(
        self,
        exchange: Exchange,
        tools: Tools,
        limits: Limits,
        log: Callable[[list[Record]], None],
        relays: Relays,
        *,
        lends: bool = True,
    ) -> None:
        super().__init__(exchange, tools, limits, log, lends=lends)
        self._relays = relays

    def _admitted(self, data: bytes, peer: bytes) -> tuple[Known, Admitted] | None:
        """What is known of a plain request that may be answered from the store."""
        head = self._reader.read(data)
        if head is None:
            return None
        if self._client(peer):
            known = self._young.get(id(head)) or self._known(head, len(data), peer)
            if known.branches is not None:
                known = known.branches.take(peer)
        else:
            known = self._made(head, peer)
        if known.admitted is None or known.admitted.redirect is not None:
            return None
        return known, known.admitted


class HopDesk(_Reading):
    """The lane's desk in a worker of several: what is another's is asked for there."""

    def hop(self, data: bytes, peer: bytes) -> Glancing | None:
        """A way to have the request `data` answered at once by the owner of its key."""
        try:
            return self._hop(data, peer)
        except Exception as error:  # around a stream: no request takes its worker down
            self._tools.complain(Failure.INTERNAL.slug, repr(error), None)
            return None

    def _hop(self, data: bytes, peer: bytes) -> Glancing | None:
        found = self._admitted(data, peer)
        if found is None:
            return None
        known, admitted = found
        relays, digest = self._relays, admitted.key.digest
        if relays.owns(digest) or known.after is not After.PARK or known.cookies:
            return None  # the owner would draw other arms for a new visitor
        slot = relays.owners.owner_of(digest)
        link = relays.unused(slot)
        if link is None:
            return None
        client = self._client(peer) or text(admitted.client)
        record = Record(
            self._tools.now(), admitted.id, client, known.method, known.host, known.target, "1.1",
            arms=known.arms,
        )  # fmt: skip
        glance = Glance(peer, data, relays.loans.has_room)
        return Glancing(relays, slot, link, glance, record, self._tools, admitted.key)


class SoleDesk:
    """The same for who has no others: only one that was here before it asks, once it has released
    the slot, and by the plain path."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def take_up(self, limits: Limits) -> None:
        """It reads no requests."""

    def answer_glance(self, _: Glance) -> tuple[Whole, Sequence[Part]] | None:
        """None: the plain path is to be taken."""
        return None

    async def invalidate(self, told: Invalidate) -> None:
        """Make all unusable that is stored under a key, also for who comes after this worker."""
        clearing.overtake(self._tools, Key(told.digest, told.url))
        await self._tools.store.settle(synced=False)


class OwnersDesk(_Reading):
    """What a worker answers at once to the others; it logs nothing of it.

    A part of a file is an answer here where it can be lent: what would have to be read to go
    through a hop goes by the plain path.
    """

    def __init__(
        self,
        exchange: Exchange,
        tools: Tools,
        limits: Limits,
        log: Callable[[list[Record]], None],
        relays: Relays,
    ) -> None:
        tools = replace(tools, new_id=_no_id)
        super().__init__(exchange, tools, limits, log, relays, lends=False)

    def answer_glance(self, glance: Glance) -> tuple[Whole, Sequence[Part]] | None:
        """The answer to a plain request that came to another worker, if it is at hand; a part of
        a file behind it is to be lent, and closed."""
        try:
            return self._glanced(glance)
        except Exception as error:  # around a stream: no request takes its worker down
            self._tools.complain(Failure.INTERNAL.slug, repr(error), None)
            return None

    def _glanced(self, glance: Glance) -> tuple[Whole, Sequence[Part]] | None:
        self.begin()
        found = self._admitted(glance.data, glance.peer)
        if found is None or found[0].after is not After.PARK:
            return None
        known, admitted = found
        if not self._relays.owns(admitted.key.digest):
            return None
        self._scribe.lends = glance.takes_files
        lease = self._relays.store.lend(admitted.key)  # before the store is read
        answered = self.answer(glance.data, glance.peer)
        if answered is None:
            return None
        parts, span = divided(answered[0])
        record, after = answered[1:]
        if span is not None:
            return _to_be_lent(bytes(parts[0]), span, record)
        if after is not After.PARK or record.error is not None:
            return None  # a refusal tells the request's id, which is the other worker's
        facts, size = facts_of(record), sum(map(len, parts))
        if size > WHOLE_BYTES:
            return Whole(facts, bytes(parts[0]), record.bytes, size - len(parts[0])), parts[1:]
        copy = self._copy(known, admitted, record, lease)
        return Whole(facts, b"".join(parts), record.bytes, 0, copy), ()

    async def invalidate(self, told: Invalidate) -> None:
        """Make all unusable that is stored under a key, also for who comes after this worker."""
        clearing.overtake(self._tools, Key(told.digest, told.url))
        await self._tools.store.settle(synced=False)

    def _copy(self, known: Known, admitted: Admitted, record: Record, lease: int) -> Copy | None:
        """What it takes to keep a copy of what was answered just now, where that was a hit."""
        if record.reason != Reason.HIT.slug or record.method != "GET":
            return None
        resource = self._relays.store.glance(admitted.key)
        if resource is None:
            return None
        purges = self._tools.purges.current()
        found = select(resource, admitted.request, admitted.policy, purges)
        held = found.held
        if held is None or held.entry.status != record.status:
            return None
        shown = self._shown(known, admitted, held, is_copy=False)
        body = shown.held.body if shown is not None and shown.held is not None else None
        if shown is None or body is None or len(body) != record.bytes:
            return None
        if not is_final(shown, admitted.terms.compress):
            return None
        form = form_to_lend(shown, found.variants)
        return None if form is None else Copy(form, lease)


def _to_be_lent(
    head: bytes, span: FileSpan, record: Record
) -> tuple[Whole, Sequence[Part]] | None:
    """An answer whose content is in a file that another worker is to be lent."""
    source = span.source
    file = source.loan(span.offset, span.stop) if isinstance(source, Lender) else None
    if file is None:
        source.close()
        return None
    return Whole(facts_of(record), head, len(span), len(span), None, file), (span,)


def _no_id() -> str:
    """The other worker has one for the request."""
    return ""


class Glancing:
    """A plain request on its way to the owner of its key; implements `lane.Hop`."""

    def __init__(
        self,
        relays: Relays,
        slot: int,
        link: Link,
        glance: Glance,
        record: Record,
        tools: Tools,
        key: Key,
    ) -> None:
        self._relays = relays
        self._slot = slot
        self._link = link
        self._glance = glance
        self._record = record
        self._tools = tools
        self._key = key
        self._whole: Whole | None = None
        self._file: FileSpan | None = None  # what is left to be sent of one that is lent
        self._left = 0
        self._in_step = False  # the connection can carry another request

    async def ask(self) -> Sequence[Part] | None:
        """The answer, or its beginning; None where there is none at once."""
        frame = None
        with trio.move_on_after(AT_ONCE_S):
            try:
                await self._link.send(self._glance)
                frame = await self._link.receive()
            except (trio.BrokenResourceError, trio.ClosedResourceError, ExchangeError):
                pass  # the plain path will see
        self._in_step = isinstance(frame, Later | Whole)
        if not isinstance(frame, Whole):
            return None
        if frame.file is not None and not self._borrow(frame.file):
            return None  # the plain path has it copied
        self._whole = frame
        self._relays.glanced += 1
        self._record.id = self._record.id or self._tools.new_id()
        note(self._record, frame.facts)
        if self._file is not None:
            return frame.data, self._file
        self._left = frame.rest
        return (frame.data,)

    def _borrow(self, file: Lent) -> bool:
        """Take what is lent; False where there is no room for it."""
        source = self._relays.loans.take(file, self._link.take_descriptor(), self._lost)
        if source is None:
            return False
        self._file = FileSpan(source, file.start, file.stop)
        self._relays.release(self._slot, self._link)  # however long the client takes
        return True

    def _lost(self, _: str) -> None:
        """The body is not what was stored: its owner must not answer with it any more."""
        self._tools.background.start_soon(self._relays.invalidate, self._key)

    async def more(self) -> Data | None:
        """What follows; None at the end. Raises OWNER_GONE."""
        if not self._left:
            return None
        frame = self._link.at_hand() or await self._link.receive()
        if not isinstance(frame, Chunk):
            raise ExchangeError(Failure.OWNER_GONE, "in the middle of an answer")
        self._left -= len(frame.data)
        return frame.data

    def close(self, took_s: float, error: ExchangeError | None) -> None:
        """The answer has been sent, or has not for this reason, or there was none."""
        whole, record = self._whole, self._record
        if self._file is not None:
            self._left = len(self._file)
            self._file.source.close()
        elif self._in_step and not self._left:
            self._relays.release(self._slot, self._link)
        else:
            self._link.abort()
        if error is None and whole is None:
            return  # the plain path answers, and tells of it
        if error is not None:
            self._failed(error)
        elif whole is not None:
            record.bytes = whole.sent
            if whole.copy is not None:
                body = whole.data[len(whole.data) - whole.sent :]
                self._relays.store.keep_copy(whole.copy.form, body, whole.copy.lease)
        record.total_s = record.first_byte_s = round(took_s, 6)
        self._tools.log(record)

    def _failed(self, error: ExchangeError) -> None:
        whole, record = self._whole, self._record
        record.error = error.failure.slug
        if whole is None:
            record.id = record.id or self._tools.new_id()
            record.status, record.cache = error.status, Outcome.FAILED
        else:
            record.bytes = max(0, whole.sent - self._left)
        if error.side is not Side.CLIENT:
            self._tools.complain(error.failure.slug, error.detail, record.id)
