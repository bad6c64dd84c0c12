"""Answers made ready: the heads of a stored response, written but for their two changing numbers.

Of the head of a hit only Age and the ttl in Cache-Status change from one answer to the next. So it
is composed and written once, and kept beside the stored response with two places left open. Where
those are is not known here: the head is written twice with other numbers, and what differs is the
places. A third writing, with numbers of other lengths, has to come out the same by both ways, or
nothing is made ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from edge.cache.decision import plainly_fresh_until
from edge.cache.freshness import arrival_age, grown_age

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.entry import Entry
    from edge.cache.ranges import Span
    from edge.observe import Outcome

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


class Made(NamedTuple):
    """One kind of answer: its head, what is behind it, and as what it is counted.

    `head` is None where it has to be written anew each time. The content is the whole body where
    it `has_body`, else `pieces`.
    """

    head: Template | None
    has_body: bool
    pieces: tuple[bytes | Span, ...]
    outcome: Outcome
    slug: str


class Ready:
    """The answers that one stored response makes, by method and status, and by the slug of why.

    `mark` is an object that stands for one site by the settings in force, and keeps neither;
    `token` stands for this. The times are the response's: how old it came and when, and until when
    it is plainly fresh.
    """

    __slots__ = (
        "arrived_at", "arrived_old", "entry", "fresh_until", "hits", "made", "mark", "token",
    )  # fmt: skip

    def __init__(self, mark: object, entry: Entry) -> None:
        self.mark = mark
        self.token = object()
        self.entry = entry
        self.arrived_old = arrival_age(entry.date, entry.age_field, entry.times)
        self.arrived_at = entry.times.response_time
        self.fresh_until = plainly_fresh_until(entry)
        self.made: dict[tuple[str, int, str], Made] = {}
        self.hits: dict[tuple[str, int], Made] = {}  # those among them that have a head

    def age(self, now: float) -> float:
        """As `current_age` of the entry, in seconds."""
        return grown_age(self.arrived_old, self.arrived_at, now)
