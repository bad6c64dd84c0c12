"""The moves of a play about purging, and the gates that hold the node's threads back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import trio

from edge.cache.threads import Inline

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.threads import Workers
    from tests.stories.purge_model import Page, Scope

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """A client asks for a page."""

    page: Page
    kind: str = "one"
    method: str = "GET"


@dataclass(frozen=True)
class Write:
    """A client writes to a page; the origin will say that this changes some groups."""

    page: Page
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leave:
    """The nth of the clients that wait leaves."""

    nth: int = 0


@dataclass(frozen=True)
class Answer:
    """The origin looks at what the nth request is for, and answers it whole."""

    nth: int = 0


@dataclass(frozen=True)
class See:
    """The origin looks at what the nth request is for, and takes its time."""

    nth: int = 0


@dataclass(frozen=True)
class Tell:
    """The nth look is told of: `whole`, at first by its `head`, by an `error` or a `reset`."""

    nth: int = 0
    how: str = "whole"


@dataclass(frozen=True)
class End:
    """The body of the nth head is sent to its end, or `broken` off."""

    nth: int = 0
    broken: bool = False


@dataclass(frozen=True)
class Change:
    """A page has a new version, with these tags and groups."""

    page: Page
    tags: str = ""
    groups: str = ""


@dataclass(frozen=True)
class Retag:
    """A page has other tags and groups, and is what it was."""

    page: Page
    tags: str = ""
    groups: str = ""


@dataclass(frozen=True)
class Purge:
    """The operator purges."""

    scope: Scope
    soft: bool = False


@dataclass(frozen=True)
class Pass:
    """Time of day passes."""

    seconds: int


@dataclass(frozen=True)
class Hang:
    """Nothing happens, and fetches under way have taken long."""


@dataclass(frozen=True)
class Shut:
    """The workers of that name do nothing more."""

    name: str


@dataclass(frozen=True)
class Open:
    """All workers do what they have to."""


@dataclass(frozen=True)
class Restart:
    """The node is ended and started again; where it is `killed`, what is not written is lost."""

    killed: bool = False


@dataclass(frozen=True)
class Hurry:
    """The next two moves are made before it is anyone else's turn."""


Move: TypeAlias = (
    Ask
    | Write
    | Leave
    | Answer
    | See
    | Tell
    | End
    | Change
    | Retag
    | Purge
    | Pass
    | Hang
    | Shut
    | Open
    | Restart
    | Hurry
)

READ, WRITE, JOURNAL = "edge-disk-read", "edge-disk-write", "edge-journal"


class Gates:
    """Makes workers that do nothing while the gate of their name is shut."""

    def __init__(self) -> None:
        self._shut: dict[str, trio.Event] = {}
        self._late: dict[str, list[Callable[[], None]]] = {}

    def __call__(
        self, count: int, name: str, at_exit: Callable[[], None] = lambda: None
    ) -> Workers:
        return _Gated(self, name, at_exit)

    @property
    def is_open(self) -> bool:
        """Whether all may work."""
        return not self._shut

    def shut(self, name: str) -> None:
        """Let the workers of that name wait."""
        self._shut.setdefault(name, trio.Event())

    def open(self) -> None:
        """Let all work, at first at what was posted meanwhile."""
        shut, self._shut = self._shut, {}
        for name, opened in shut.items():
            for post in self._late.pop(name, ()):
                post()
            opened.set()

    async def wait_open(self, name: str) -> None:
        """Return when the gate of that name is open."""
        while (opened := self._shut.get(name)) is not None:
            await opened.wait()

    def puts_off(self, name: str, post: Callable[[], None]) -> bool:
        """Whether `post` has to wait until the gate is open, and will be called then."""
        if name not in self._shut:
            return False
        self._late.setdefault(name, []).append(post)
        return True


class _Gated(Inline):
    def __init__(self, gates: Gates, name: str, at_exit: Callable[[], None]) -> None:
        super().__init__(1, name, at_exit)
        self._gates = gates
        self._name = name

    async def run(self, job: Callable[[], T]) -> T:
        await self._gates.wait_open(self._name)
        return await super().run(job)

    def post(self, job: Callable[[], None]) -> None:
        if not self._gates.puts_off(self._name, partial(super().post, job)):
            super().post(job)
