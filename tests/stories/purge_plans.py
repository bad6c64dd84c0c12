"""Draws plays about purging.

A fetch and a purge that miss each other take five or six moves that fit together. So moves are not
drawn one by one: they come in scenes, most of which are about the same page and the request that
came last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hypothesis import strategies as st

from tests.stories.purge_model import PAGES, Scope
from tests.stories.purge_moves import (
    JOURNAL,
    READ,
    WRITE,
    Answer,
    Ask,
    Change,
    End,
    Hang,
    Hurry,
    Leave,
    Move,
    Open,
    Pass,
    Purge,
    Restart,
    Retag,
    See,
    Shut,
    Tell,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.stories.purge_model import Page

T = TypeVar("T")

RARE = "write leave hang hurry shut-journal open"
RARE_ON_DISK = f"{RARE} restart restart shut shut open open"

_OFTEN = "purge purge purge ask ask ask content pass answer see tell end rare"
_NAMES = ("x", "x", "y", "xy")
_HOW = (*["whole"] * 6, "head", "head", "error", "reset")
_PLACES = (
    Scope("prefix", "http://site.example/b"),
    Scope("host", "site.example"),
    Scope("host", "other.example"),
    Scope("all"),
)


@st.composite
def plans(draw: st.DrawFn, rare: str) -> list[Move]:
    """A play; `rare` are the kinds of moves that it has a few of."""
    scenes = _Scenes(draw, rare.split())
    return [move for _ in range(draw(st.integers(3, 9))) for move in scenes.scene()]


class _Scenes:
    def __init__(self, draw: st.DrawFn, rare: Sequence[str]) -> None:
        self._draw = draw
        self._rare = rare
        subject = self._one_of([PAGES[0], *PAGES, PAGES[2]])
        self._pages = [*PAGES, *[subject] * 12]

    def _one_of(self, items: Sequence[T]) -> T:
        return self._draw(st.sampled_from(items))

    def scene(self) -> list[Move]:
        """Some moves that belong together."""
        match self._one_of(["stored", "slow", "slow", "joined", "stale", "any"]):
            case "stored":
                return [*self._some("content", 1), *self._each("ask answer")]
            case "slow":
                return [*self._seen(), *self._some(_OFTEN, 4), *self._each("tell ask")]
            case "joined":
                purged = self._each("purge ask")
                return [*self._seen(), *purged, *self._some(_OFTEN, 2), *self._each("tell ask")]
            case "stale":
                return self._each("pass pass ask")
        return self._some(_OFTEN, 4)

    def _seen(self) -> list[Move]:
        return [*self._each("ask"), *self._some("content", 1), *self._each("see")]

    def _each(self, kinds: str) -> list[Move]:
        return [self._move(kind) for kind in kinds.split()]

    def _some(self, kinds: str, most: int) -> list[Move]:
        count = self._one_of(range(most + 1))
        return [self._move(self._one_of(kinds.split())) for _ in range(count)]

    def _move(self, kind: str) -> Move:
        nth = self._one_of([-1, -1, -1, -1, 0, 0, 1])
        match kind:
            case "ask":
                method = self._one_of(["GET"] * 7 + ["HEAD"])
                return Ask(self._page(), self._one_of(["one", "one", "one", "two"]), method)
            case "content":
                return self._content(self._page(), self._one_of(_NAMES))
            case "purge":
                return Purge(self._scope(), self._one_of([False, True]))
            case "pass":
                return Pass(self._one_of([10, 50, 65]))
            case "answer":
                return Answer(nth)
            case "see":
                return See(nth)
            case "tell":
                return Tell(nth, self._one_of(_HOW))
            case "end":
                return End(nth, self._one_of([False, False, True]))
        return self._rare_move(self._one_of(self._rare), nth)

    def _rare_move(self, kind: str, nth: int) -> Move:
        match kind:
            case "write":
                return Write(self._page(), self._one_of([(), ("g",)]))
            case "leave":
                return Leave(nth)
            case "hang":
                return Hang()
            case "hurry":
                return Hurry()
            case "restart":
                return Restart(self._one_of([False, True]))
            case "shut-journal":
                return Shut(JOURNAL)
            case "shut":
                return Shut(self._one_of([READ, READ, WRITE]))
        return Open()

    def _page(self) -> Page:
        return self._one_of(self._pages)

    def _content(self, page: Page, tags: str) -> Move:
        groups = self._one_of(["", "", "g"])
        changes = self._one_of([True, False])
        return Change(page, tags, groups) if changes else Retag(page, tags, groups)

    def _scope(self) -> Scope:
        match self._one_of(["tag"] * 4 + ["url"] * 2 + ["place"]):
            case "tag":
                return Scope("tag", self._one_of("xy"))
            case "url":
                return Scope("url", self._page().url)
        return self._one_of(_PLACES)
