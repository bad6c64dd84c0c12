"""Writing what is answered at once: heads made ready, and the content behind them.

See `quick`, which has found what answers and asks for its bytes here. What an answer is composed
of, and what of it changes from one to the next, is kept beside the stored response (`ready`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.cache.ranges import Span
from edge.cache.reasons import Reason, cache_status
from edge.cache.validation import Outcome, preconditions
from edge.coding import renditions
from edge.listen.lane import After
from edge.serving.answer import finished, from_entry
from edge.serving.ready import Made, Ready, Template
from edge.serving.visit import OUTCOMES
from edge.upstream.transport import FILE_BYTES, FileSpan
from edge.wire.serial import plain_head

if TYPE_CHECKING:
    from edge.cache.entry import Entry
    from edge.cache.held import Held
    from edge.cache.store import Store
    from edge.coding.renditions import Shown
    from edge.serving.admission import Admitted
    from edge.serving.answer import Answer
    from edge.serving.known import Known
    from edge.serving.visit import Parts
    from edge.upstream.transport import Part

LENT_BYTES: Final = 131_072  # a smaller body costs no less by sendfile than from memory
JOINED_BYTES: Final = 16_384  # to copy so much costs less than a second buffer


class Written(NamedTuple):
    """An answer as it is sent: its bytes, its status, how many of the bytes are content, and
    whether the next request of its kind `is_usual` too: it gets the same head."""

    parts: list[Part]
    status: int
    sent: int
    is_usual: bool


class Scribe:
    """Writes answers from the store by these settings. Parts of files are given out only where it
    `lends`."""

    def __init__(self, parts: Parts, store: Store, *, lends: bool) -> None:
        self._parts = parts
        self._store = store
        self.lends = lends

    def written(
        self, known: Known, admitted: Admitted, shown: Shown, because: Reason, age: int, ttl: int
    ) -> Written | None:
        """The answer that is made of what is `shown`; None where it has to wait for some of it, or
        is not plain."""
        held, entry, status = shown.held, shown.entry, shown.entry.status
        if held is None or entry.length is None:
            return None
        if not known.whole:
            outcome = preconditions(admitted.request, renditions.judged(entry, admitted.request))
            status = 304 if outcome is Outcome.NOT_MODIFIED else 0
        is_usual = bool(status) and not admitted.tells_key and self._is_usual(known, entry, status)
        if not is_usual:
            answer = self._composed(known, admitted, entry)
            head = self._write(known, admitted, answer, because, age, ttl)
            status = answer.head.status
            made = Made(None, _is_whole(answer, entry), answer.pieces, OUTCOMES[because], "")
        else:
            made = self._made_ready(known, admitted, shown, because, status)
            if made.head is None:
                answer = self._composed(known, admitted, entry)
                head = self._write(known, admitted, answer, because, age, ttl)
            else:
                head = made.head.filled(age, ttl)
        if head is None:
            return None
        head = known.told(head)
        lent = self.lent(held, made)
        if lent is None and not _is_at_hand(held, made):
            return None
        body = self._store.whole_nowait(held)
        if lent is not None:
            return Written([head, lent], status, len(lent), is_usual)
        content = made.content(body)
        sent = sum(map(len, content))
        if content and sent <= JOINED_BYTES:
            return Written([b"".join([head, *content])], status, sent, is_usual)
        return Written([head, *content], status, sent, is_usual)

    def _is_usual(self, known: Known, entry: Entry, status: int) -> bool:
        """Whether all requests that `entry` answers with this status get the same head: a 304 may
        name the tag of another coding, which is the one that its client has."""
        if status != 304 or known.wish is None:
            return True
        tag = renditions.held_tag(known.head, renditions.judged(entry, known.head).headers)
        return tag is None or tag == entry.headers.get(b"etag")

    def lent(self, held: Held, made: Made) -> FileSpan | None:
        """The content as a part of its file, where it can be sent from there, and best is."""
        length = held.entry.length
        if length is None or length < LENT_BYTES or len(made.pieces) != 1 or not self.lends:
            return None
        piece = made.pieces[0]
        if not isinstance(piece, Span):
            return None
        most = min(piece.size, FILE_BYTES)
        source = self._store.lend_nowait(held, piece.start, most)
        return None if source is None else FileSpan(source, piece.start, piece.stop, most)

    def _made_ready(
        self, known: Known, admitted: Admitted, shown: Shown, because: Reason, status: int
    ) -> Made:
        """The answer of this status, made once for each method and reason."""
        held, entry = shown.held, shown.entry
        assert held is not None  # as it is written from
        ready = held.ready
        if (
            not isinstance(ready, Ready)
            or ready.mark is not known.mark
            or ready.source is not shown.source
        ):
            ready = held.ready = Ready(known.mark, entry, shown.source)
        form = known.form_of(status)
        kind = form, because.slug
        made = ready.made.get(kind)
        if made is None:
            answer = self._composed(known, admitted, entry)
            template = Template.of(partial(self._write, known, admitted, answer, because))
            whole = _is_whole(answer, entry)
            made = Made(template, whole, answer.pieces, OUTCOMES[because], because.slug)
            ready.made[kind] = made
        if because is Reason.HIT and made.head is not None and made.has_body == bool(made.pieces):
            ready.hits[form] = made
        return made

    def _composed(self, known: Known, admitted: Admitted, entry: Entry) -> Answer:
        told = known.head if known.wish is not None else None
        return from_entry(admitted.request, entry, entry.length, self._parts.salt, told)

    def _write(
        self,
        known: Known,
        admitted: Admitted,
        answer: Answer,
        because: Reason,
        age: int,
        ttl: int,
    ) -> bytes | None:
        """The head of `answer` as it is sent; None where it is not plain."""
        name, key = self._parts.name, admitted.key.url if admitted.tells_key else None
        status = cache_status(name, because, ttl=ttl, key=key)
        rules = admitted.terms.fields
        head = finished(answer.head, name=name, rules=rules, cache_status=status, age=age)
        return plain_head(head, is_last=known.after is After.CLOSE)


def _is_whole(answer: Answer, entry: Entry) -> bool:
    return answer.pieces == (Span(0, entry.length or 0),)


def _is_at_hand(held: Held, made: Made) -> bool:
    """Whether nothing has to be waited for: the body is whole and in memory, where any of it is
    needed."""
    newest = held if held.heir is None else held.newest
    if held.fill is not None or newest.fill is not None:
        return False
    if not made.has_body and not made.pieces:
        return True
    return newest.body is not None and len(newest.body) == held.entry.length
