"""Plays about purging: clients, an origin and an operator move, and a critic watches.

The stage is a node in memory (see `world`), the critic a `History`. Everyone has a turn after each
move, so a play is the same each time. At the end the origin answers whatever it is still asked,
and every page is asked for twice, so that nothing in the store escapes the critic.
"""

from __future__ import annotations

import re
import shutil
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, assert_never

import trio
from trio.testing import MockClock

from tests.stories import purge_moves as moves
from tests.stories.purge_model import PAGES, Asking, History, Look, Place, Purged, Scope, ttl_of
from tests.stories.wire import TruncatedError
from tests.stories.world import MIDNIGHT, a_world

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.stories.purge_model import Page
    from tests.stories.wire import Reply
    from tests.stories.world import Asked, Client, Edge, Pending, ScriptedOrigin

T = TypeVar("T")

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, TruncatedError)
_ROUNDS = 20  # of answers, each to all that was asked: more than any request can wait for


@dataclass
class _Content:
    version: int = 0
    tags: frozenset[str] = frozenset("x")
    groups: frozenset[str] = frozenset()


@dataclass(eq=False)
class _Arrived:
    """A request that has come to the origin."""

    asked: Asked
    page: Page
    kind: str
    asked_after: int
    look: Look | None = None


def play(
    plan: Iterable[moves.Move], directory: Path | None = None, *, by_hop: bool = False
) -> list[str]:
    """What went wrong, in words. With `directory` the node has a disk, and can be restarted; with
    `by_hop` it has two workers, and clients come to the one and the other in turns."""
    player = Player(directory, by_hop)
    trio.run(player.play, plan, clock=MockClock(autojump_threshold=0))
    return player.faults


class Player:
    """Makes the moves on one node, or on one after the other where it is restarted."""

    def __init__(self, directory: Path | None, by_hop: bool = False) -> None:
        self._by_hop = by_hop
        self.faults: list[str] = []
        self._history = History()
        self._now = MIDNIGHT
        self._directory = directory
        self._gates = moves.Gates()
        self._contents = {page: _Content() for page in PAGES}
        self._places: dict[tuple[Page, str], Place] = {}
        self._calm_at = 0  # when no request was between the store and the origin
        self._hurry = 0
        self._lives = 0
        self._edge: Edge
        self._origin: ScriptedOrigin
        self._client: Client
        self._listeners: trio.Nursery
        self._clear()

    def _clear(self) -> None:
        """Forget what does not outlive the node."""
        self._open: list[tuple[Asking, Pending]] = []
        self._writes: list[Asking] = []
        self._arrived: list[_Arrived] = []  # to be looked at
        self._seen: list[_Arrived] = []  # to be answered
        self._begun: list[_Arrived] = []  # to be answered to the end
        self._failing: list[Page] = []  # and the node does not know it yet
        self._again: dict[Page, int] = {}  # what may be asked for again, on an old request

    # Lives.

    async def play(self, plan: Iterable[moves.Move]) -> None:
        """Make all moves; `faults` tells then what went wrong."""
        rest = deque(plan)
        while not self.faults:
            async with a_world((), self._home, io=self._gates, by_hop=self._by_hop) as world:
                world[0].takes_turns = True
                self._edge, self._origin, self._client = world
                self._edge.now = self._now
                restart = await self._live(rest)
            if restart is None:
                return
            self._end_life(restart)

    @property
    def _home(self) -> Path | None:
        return None if self._directory is None else self._directory / f"{self._lives}"

    async def _live(self, rest: deque[moves.Move]) -> moves.Restart | None:
        """One life of the node; how it ends, None where the play is over."""
        async with trio.open_nursery() as self._listeners:
            try:
                restart = await self._move_on(rest)
                if restart is None:
                    await self._wind_up()
                elif restart.killed:
                    self._kill()
            finally:
                self._gates.open()
                await self._settle()
                self._listeners.cancel_scope.cancel()
        return restart

    def _kill(self) -> None:
        """Whatever is done from now on is done in vain: the next life has what was on disk."""
        before, self._lives = self._home, self._lives + 1
        if before is not None and self._home is not None:
            shutil.copytree(before, self._home)

    def _end_life(self, restart: moves.Restart) -> None:
        if restart.killed or self._directory is None:
            self._places.clear()
        if restart.killed:
            for look in self._history.looks:
                if look is not look.vouches_for and look.lost_at is None:
                    look.lost_at = self._history.tick
            for purged in self._history.purges:
                if purged.by_write:
                    purged.done_at = None
        self._clear()

    async def _move_on(self, rest: deque[moves.Move]) -> moves.Restart | None:
        while rest and not self.faults:
            move = rest.popleft()
            self._history.tick += 1
            if isinstance(move, moves.Restart):
                return move
            await self._make(move)
            self._hurry -= 1
            if self._hurry <= 0:
                await self._settle()
        return None

    async def _wind_up(self) -> None:
        self._gates.open()
        await self._settle()
        await self._answer_all()
        for _ in range(2):
            for page in PAGES:
                for kind in page.kinds:
                    self._history.tick += 1
                    self._ask(page, kind, "GET")
                    await self._answer_all()

    async def _answer_all(self) -> None:
        """Let the origin answer all that it is asked, until no client waits."""
        for _ in range(_ROUNDS):
            await self._settle()
            if self.faults or not (self._open or self._seen or self._begun or self._arrived):
                return
            self._history.tick += 1
            for _ in list(self._begun):
                await self._end(0, broken=False)
            for _ in list(self._seen):
                await self._tell(_taken(self._seen, 0), "whole")
            for _ in list(self._arrived):
                await self._tell(self._see(0), "whole")
        self.faults += [f"C: {asking} hangs" for asking, _ in self._open]

    async def _settle(self) -> None:
        """Give everyone a turn, until all wait for the play to go on."""
        history = self._history
        history.failures += [(history.tick, page) for page in self._failing]
        self._failing.clear()
        await self._edge.settle()
        while not self._origin.unasked:
            self._take_in(await self._origin.next_request())
        self._again.clear()
        for look in history.looks:
            if look.replied_at is not None and look.landed_at is None:
                look.landed_at = history.tick
        if self._gates.is_open:
            self._calm_at = history.tick

    # Moves.

    async def _make(self, move: moves.Move) -> None:
        match move:
            case moves.Ask():
                self._ask(move.page, move.kind, move.method)
            case moves.Write():
                self._write(move.page, move.groups)
            case moves.Leave():
                self._leave(move.nth)
            case moves.Answer():
                await self._tell(self._see(move.nth), "whole")
            case moves.See():
                seen = self._see(move.nth)
                self._seen += [] if seen is None else [seen]
            case moves.Tell():
                await self._tell(_taken(self._seen, move.nth), move.how)
            case moves.End():
                await self._end(move.nth, broken=move.broken)
            case moves.Change():
                self._contents[move.page] = self._content(move, new=1)
            case moves.Retag():
                self._contents[move.page] = self._content(move, new=0)
            case moves.Purge():
                self._listeners.start_soon(self._purge, move)
            case _:
                await self._make_time(move)

    async def _make_time(
        self,
        move: moves.Pass | moves.Hang | moves.Shut | moves.Open | moves.Restart | moves.Hurry,
    ) -> None:
        match move:
            case moves.Pass():
                self._now += move.seconds
                self._edge.advance(move.seconds)
                for place in self._places.values():
                    place.is_certain &= self._now < place.until
            case moves.Hang():
                await trio.sleep(1)
            case moves.Shut():
                self._gates.shut(move.name)
            case moves.Open():
                self._gates.open()
            case moves.Hurry():
                self._hurry = 3
            case moves.Restart():
                raise AssertionError("not on this stage")
            case _:
                assert_never(move)

    def _content(self, move: moves.Change | moves.Retag, *, new: int) -> _Content:
        version = self._contents[move.page].version + new
        return _Content(version, frozenset(move.tags), frozenset(move.groups))

    # Clients.

    def _ask(self, page: Page, kind: str, method: str) -> None:
        kind = kind if kind in page.kinds else page.kinds[0]
        asking = Asking(page, kind, method, self._history.tick, self._now)
        if method == "GET" and self._gates.is_open and self._hurry <= 0:
            asking.place = self._places.get((page, kind))
        self._send(asking, {"X-Kind": kind})

    def _write(self, page: Page, groups: Sequence[str]) -> None:
        asking = Asking(page, "one", "POST", self._history.tick, self._now)
        self._writes.append(asking)
        mark = {"X-Write": str(len(self._writes) - 1), "X-Groups": " ".join(groups)}
        self._send(asking, mark)

    def _send(self, asking: Asking, headers: dict[str, str]) -> None:
        fields = {"Host": asking.page.host, **headers}
        body = b"new" if asking.method == "POST" else b""
        pending = self._client.send(asking.method, asking.page.path, fields, body)
        self._open.append((asking, pending))
        self._listeners.start_soon(self._listen, asking, pending)

    def _leave(self, nth: int) -> None:
        left = _taken(self._open, nth)
        if left is not None:
            left[1].leave()

    async def _listen(self, asking: Asking, pending: Pending) -> None:
        try:
            reply = await pending.response()
        except TruncatedError:
            reply = None
        if (asking, pending) not in self._open:
            return  # it has left
        self._open.remove((asking, pending))
        fault = self._history.judge(asking, reply)
        if fault is not None:
            self.faults.append(f"at {self._history.tick}, begun at {asking.began_at}: {fault}")
        elif reply is not None and reply.status < 300:
            self._take_note(asking, reply)

    def _take_note(self, asking: Asking, reply: Reply) -> None:
        """Remember what an answer tells of the store."""
        for purged in asking.writes:
            purged.done_at, purged.when = self._history.tick, self._now
        # Of variants that only the disk has, memory knows not which was asked for last.
        is_known = self._directory is None or len(asking.page.kinds) == 1
        is_kept = re.match("hit|fwd=[^;]+(; fwd-status=[0-9]+)?; stored", reply.cache)
        is_fresh = asking.method == "GET" and is_kept and ttl_of(reply) > 0
        if is_fresh and is_known and self._gates.is_open:
            last = self._history.looks[int(reply.headers["x-look"])]
            place = Place(last, asking.now + ttl_of(reply))
            if self._now < place.until and not self._history.may_be_overtaken(last):
                self._places[asking.page, asking.kind] = place

    # The operator.

    async def _purge(self, move: moves.Purge) -> None:
        scope, edge, lives = move.scope, self._edge, self._lives
        purged = Purged((scope,), move.soft, self._history.tick)
        self._begin_purge(purged)
        named: object = True if scope.kind == "all" else [scope.what]
        await edge.purge(**{scope.kind: named, "soft": move.soft})
        if lives == self._lives:
            purged.done_at, purged.when = self._history.tick, self._now

    def _begin_purge(self, purged: Purged) -> None:
        self._history.purges.append(purged)
        for (page, _), place in self._places.items():
            looks = [place.last, *self._history.vouching(place.last.vouches_for)]
            place.is_certain &= not purged.may_cover(page, looks)

    # The origin.

    def _take_in(self, asked: Asked) -> None:
        url = f"http://{asked.headers['host']}{asked.target}"
        (page,) = (page for page in PAGES if page.url == url)
        kind = asked.headers.get("x-kind") or "one"
        asked_after = min(self._calm_at, self._again.get(page, self._calm_at))
        self._arrived.append(_Arrived(asked, page, kind, asked_after))

    def _see(self, nth: int) -> _Arrived | None:
        """The nth request, now that the origin has looked at what it is for."""
        arrived = _taken(self._arrived, nth)
        if arrived is None or arrived.asked.method == "POST":
            return arrived
        history, content = self._history, self._contents[arrived.page]
        arrived.look = look = Look(
            number=len(history.looks),
            page=arrived.page,
            kind=arrived.kind,
            version=content.version,
            tags=content.tags,
            groups=content.groups,
            looked_at=history.tick,
            asked_after=arrived.asked_after,
        )
        self._validate(look, arrived.asked)
        history.looks.append(look)
        return arrived

    def _validate(self, look: Look, asked: Asked) -> None:
        """Let a look vouch for an earlier one of the same version."""
        numbers = [int(n) for n in re.findall(r"\d+", asked.headers.get("if-none-match") or "")]
        if asked.method == "HEAD":  # as the origin does not know what we have: its last one
            numbers, look.is_doubtful = list(range(len(self._history.looks))), True
        for earlier in map(self._history.looks.__getitem__, reversed(numbers)):
            is_same = (earlier.page, earlier.kind, earlier.version) == (
                look.page, look.kind, look.version,
            )  # fmt: skip
            if is_same and earlier is earlier.vouches_for and earlier.method == "GET":
                look.vouches_for = earlier
                break
        look.method = asked.method
        look.status = 304 if numbers and look.method == "GET" and _is_old(look) else 200

    async def _tell(self, seen: _Arrived | None, how: str) -> None:
        """Answer what has been looked at."""
        if seen is None:
            return
        self._again[seen.page] = min(seen.asked_after, self._again.get(seen.page, self._calm_at))
        try:
            if seen.asked.method == "POST":
                await seen.asked.body()
            if how == "reset":
                self._fail(seen.page)
                seen.asked.break_off()
            elif how == "error":
                self._fail(seen.page)
                await seen.asked.reply(500, {}, b"trouble")
            elif seen.look is None:
                await self._tell_write(seen.asked, seen.page)
            else:
                await self._tell_look(seen, seen.look, how)
        except _GONE:
            pass  # the node does not want it any more

    def _fail(self, page: Page) -> None:
        self._failing.append(page)

    async def _tell_write(self, asked: Asked, page: Page) -> None:
        tick, groups = self._history.tick, asked.headers["x-groups"].split()
        done = [Purged((Scope("url", page.url),), False, tick, by_write=True)]
        named = [Scope("group", f"{page.host} {group}") for group in groups]
        done += [Purged((scope,), False, tick) for scope in named]
        for purged in done:
            self._begin_purge(purged)
        self._writes[int(asked.headers["x-write"])].writes += done
        listed = {"Cache-Group-Invalidation": ", ".join(f'"{group}"' for group in groups)}
        await asked.reply(204, listed if groups else {})

    async def _tell_look(self, seen: _Arrived, look: Look, how: str) -> None:
        look.replied_at, look.told = self._history.tick, self._now
        self._doubt_place(look, how)
        headers = _fields(look)
        if look.status == 304 or look.method == "HEAD" or how == "whole":
            body = look.body if look.status == 200 else b""
            await seen.asked.reply(look.status, headers, body)
            return
        await seen.asked.start_reply(200, {**headers, "Content-Length": str(len(look.body))})
        self._begun.append(seen)
        await seen.asked.send_chunk(look.body[:20])

    async def _end(self, nth: int, *, broken: bool) -> None:
        begun = _taken(self._begun, nth)
        if begun is None:
            return
        assert begun.look is not None
        try:
            if broken:
                self._fail(begun.page)
                begun.asked.break_off()
            else:
                await begun.asked.send_chunk(begun.look.body[20:])
                await begun.asked.end()
        except _GONE:
            pass

    def _doubt_place(self, look: Look, how: str) -> None:
        """An answer may take the place of what is stored, and be less than that."""
        place = self._places.get((look.page, look.kind))
        if place is None:
            return
        overtaken = self._history.may_be_overtaken(look)
        is_older = any(
            purged.done_at is None or place.last.asked_after < purged.done_at
            for purged in overtaken
        )
        is_less = how != "whole" or look.method == "HEAD" or (overtaken and look.status == 304)
        place.is_certain &= not (is_less or is_older)


def _taken(items: list[T], nth: int) -> T | None:
    """The nth of some things, in a circle, taken out; None where there are none."""
    return items.pop(nth % len(items)) if items else None


def _is_old(look: Look) -> bool:
    return look.vouches_for is not look


def _fields(look: Look) -> dict[str, str]:
    fields = {
        "Cache-Control": look.page.directives,
        "ETag": f'"{look.vouches_for.number}"',
        "X-Look": str(look.number),
        "Cache-Tag": ",".join(sorted(look.tags)),
        "Cache-Groups": ", ".join(f'"{group}"' for group in sorted(look.groups)),
    }
    if len(look.page.kinds) > 1:
        fields["Vary"] = "X-Kind"
    return fields
