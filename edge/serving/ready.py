"""Answers made ready: the heads of a stored response, written but for their two changing numbers.

Of the head of a hit only Age and the ttl in Cache-Status change from one answer to the next. So it
is composed and written once, and kept beside the stored response with two places left open. Where
those are is not known here: the head is written twice with other numbers, and what differs is the
places. A third writing, with numbers of other lengths, has to come out the same by both ways, or
nothing is made ready.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from edge.cache.decision import ROUNDING_S, plainly_fresh_until
from edge.cache.freshness import arrival_age, grown_age
from edge.cache.ranges import Span
from edge.cache.window import part_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.entry import Entry
    from edge.observe.record import Outcome

    Write = Callable[[int, int], bytes | None]
    """(age, ttl) in whole seconds → a head as it is sent; None where it is not plain."""

AGES: Final = (111_111_111, 222_222_222)
TTLS: Final = (333_333_333, 444_444_444)
_PROBE: Final = (7, -86_401)


class Template:
    """A head with places for its age and its ttl."""

    __slots__ = ("_age_first", "_form", "_slots")

    def __init__(self, form: bytes, slots: tuple[int, ...]) -> None:
        self._form = form
        self._slots = slots  # 0 for the age, 1 for the ttl, in their order
        self._age_first = slots == (0, 1)

    @staticmethod
    def of(write: Write) -> Template | None:
        """The template of what `write` writes; None where it has none, or writes nothing."""
        pattern, other = write(AGES[0], TTLS[0]), write(AGES[1], TTLS[1])
        if pattern is None or other is None:
            return None
        marks = {b"%d" % AGES[0]: 0, b"%d" % TTLS[0]: 1}
        found = sorted((at, mark) for mark in marks if (at := pattern.find(mark)) >= 0)
        form, end = b"", 0
        for at, mark in found:
            form += pattern[end:at].replace(b"%", b"%%") + b"%d"
            end = at + len(mark)
        form += pattern[end:].replace(b"%", b"%%")
        made = Template(form, tuple(marks[mark] for _, mark in found))
        is_right = made.filled(AGES[1], TTLS[1]) == other
        return made if is_right and made.filled(*_PROBE) == write(*_PROBE) else None

    def filled(self, age: int, ttl: int) -> bytes:
        """The head at this age and with this ttl, in whole seconds."""
        if self._age_first:
            return self._form % (age, ttl)
        if len(self._slots) == 2:
            return self._form % (ttl, age)
        return self._form % tuple((age, ttl)[slot] for slot in self._slots)


class Made:
    """One kind of answer: its head, what is behind it, and as what it is counted.

    `head` is None where it has to be written anew each time. The content is the whole body where
    it `has_body`, else `pieces`. From `since` until `until` its head is `filled`, with `ttl`.
    """

    __slots__ = (
        "filled", "has_body", "head", "outcome", "pieces", "since", "slug", "ttl", "until",
    )  # fmt: skip

    def __init__(
        self,
        head: Template | None,
        has_body: bool,
        pieces: tuple[bytes | Span, ...],
        outcome: Outcome,
        slug: str,
    ) -> None:
        self.head = head
        self.has_body = has_body
        self.pieces = pieces
        self.outcome = outcome
        self.slug = slug
        self.since = inf
        self.until = -inf
        self.filled = b""
        self.ttl = 0

    def content(self, body: bytes | None) -> list[bytes | memoryview]:
        """The content, in order, spans of it not copied; none where `body` is not at hand."""
        if body is None or not self.pieces:
            return []
        if self.has_body:
            return [body]
        return [
            part_of(body, piece.start, piece.size) if isinstance(piece, Span) else piece
            for piece in self.pieces
        ]


class Ready:
    """The answers that one stored response makes, by form (a number that whoever answers gives to
    each kind of request) and the slug of why.

    `mark` is an object that stands for one site by the settings in force, and keeps neither;
    `token` stands for this. `entry` is the head of the answers; it is made of `source`, what is
    stored and ruled on, and good as long as that is. The times are the response's: how old it came
    and when, and until when it is plainly fresh and kept.
    """

    __slots__ = (
        "arrived_at", "arrived_old", "entry", "fresh_until", "hits", "made", "mark", "source",
        "token",
    )  # fmt: skip

    def __init__(self, mark: object, entry: Entry, source: Entry | None = None) -> None:
        self.mark = mark
        self.token = object()
        self.entry = entry
        self.source = entry if source is None else source
        self.arrived_old = arrival_age(entry.date, entry.age_field, entry.times)
        self.arrived_at = entry.times.response_time
        self.fresh_until = min(plainly_fresh_until(entry), entry.keep_until)
        self.made: dict[tuple[int, str], Made] = {}
        self.hits: dict[int, Made] = {}  # those among them that have a head

    def fill(self, made: Made, template: Template, now: float) -> None:
        """Have the head of `made` filled for `now`, and for as long as its numbers stay."""
        age = grown_age(self.arrived_old, self.arrived_at, now)
        left_s = self.entry.terms.lifetime_s - age
        made.ttl = int(left_s // 1)
        made.filled = template.filled(int(age), made.ttl)
        made.since = now
        made.until = now + min(1.0 - age % 1.0, left_s - made.ttl) - ROUNDING_S
