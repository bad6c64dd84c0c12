"""How all servers and experiments stand, in the one process that decides it: the keeper.

Three things change it: an operator's order, what checks find, and new settings. Each makes the
next `Standing` of the one before, and puts it on the board. An order is on file before it is put
up, and is told as done when every process goes by it, or with those that do not: one that was
stopped or hangs must not make an operator wait for ever.

Orders are carried out one after the other. While one is being written to the file, checks and new
settings go on; what they changed counts beside it.

A server that is *set aside* stands as one that checks have found down: a shield that has not
acknowledged a purge (`purging.envoy`). Nobody who goes by the board asks it before it is taken
back.

A keeper that begins takes orders from the file, and what checks found from the board: the one
before it, in the same node, has put it there. So no server that is down comes back because the
keeper died.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from edge.surroundings.board import MOST_BYTES
from edge.surroundings.standing import (
    Roll,
    Standing,
    Unordered,
    found,
    from_bytes,
    to_bytes,
    unfound,
)
from edge.upstream.probe import Prober, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from edge.surroundings.board import Board, Seated
    from edge.surroundings.orderbook import OrderBook
    from edge.upstream.origin import Origin
    from edge.upstream.probe import Checkable
    from edge.upstream.transport import Transport

OBEYED_S: Final = 5.0  # fifty times what a process that runs takes
LOOK_S: Final = 0.02
AGAIN_S: Final = 5.0  # until a file that could not be written is tried again


@dataclass(frozen=True, slots=True)
class Carried:
    """An order that was carried out: its version, and who does not go by it yet."""

    version: int
    behind: tuple[Seated, ...] = ()


class Overseer:
    """See the module. `now` gives Unix seconds, `random` numbers from 0 to 1; `tell` is given a
    kind and a line for the error log."""

    def __init__(
        self,
        board: Board,
        book: OrderBook,
        *,
        now: Callable[[], float],
        random: Callable[[], float],
        tell: Callable[[str, str], None],
        connect: Callable[[Origin], Awaitable[Transport]] | None = None,
    ) -> None:
        self._board = board
        self._book = book
        self._now = now
        self._tell = tell
        self._prober = Prober(
            self._heed_verdict, lambda line: tell("checks", line), random, connect=connect
        )
        self._ordering = trio.Lock()
        # Of its own: names that are looked up without an answer may hold all threads there are.
        self._writing = trio.CapacityLimiter(1)
        self._to_be_kept = trio.Event()
        self._checked: frozenset[str] = frozenset()
        self._named: frozenset[str] = frozenset()
        self._aside: dict[str, str] = {}
        self.roll = Roll()
        self.standing = book.read().with_checks_of(self._left_on_the_board())

    def _left_on_the_board(self) -> Standing:
        read = self._board.read()
        try:
            return from_bytes(read[1]) if read is not None else Standing()
        except ValueError:
            return Standing()

    @property
    def checked(self) -> frozenset[str]:
        """The ids of the servers that are checked, and of those that are set aside."""
        return self._checked | self._aside.keys()

    def take_up(
        self, roll: Roll, checked: Sequence[Checkable], aside: Mapping[str, str] | None = None
    ) -> None:
        """Go by settings that name these. Where a server cannot be checked, since its file of
        authorities has gone since the settings were tried, all are checked as before. `aside`
        says, by id, which are to be set aside, and why; no others are."""
        self._named = frozenset(each.id for each in roll.servers)
        self._aside = {name: why for name, why in (aside or {}).items() if name in self._named}
        ids = frozenset(each.id for each in checked)
        left = self.standing.under(roll, ids | self._aside.keys())
        try:
            self._prober.take_up(checked, _known(left))
        except ValueError as error:
            self._tell("checks", f"servers are checked as before: {error}")
            left = self.standing.under(roll, self._checked | self._aside.keys())
        else:
            self._checked = ids
        self.roll = roll
        if left.orders() != self.standing.orders():
            self._to_be_kept.set()
        self._put_up(self._without_those_aside(left))

    def _without_those_aside(self, standing: Standing) -> Standing:
        for server_id, why in self._aside.items():
            if standing.server(server_id).is_up is not False:
                with suppress(Unordered):  # more servers than one can tell of
                    standing = found(standing, server_id, is_up=False, why=why, now=self._now())
        return standing

    async def run(self) -> None:
        """Check servers, and keep the file as it has to be, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._prober.run)
            nursery.start_soon(self._keep)

    async def carry_out(self, order: Callable[[Standing, Roll], Standing]) -> Carried:
        """Have an order in force. Raises `Unordered`, in words; OSError where it could not be put
        on file; then nothing has changed."""
        async with self._ordering:
            ordered = order(self.standing, self.roll)
            if len(to_bytes(ordered)) > MOST_BYTES // 2:  # the other half is for what checks find
                raise Unordered("there are more orders than the board takes; take some back")
            await self._write(ordered)
            left = ordered.with_checks_of(self.standing).under(self.roll, self.checked)
            version = self._put_up(left)
        return Carried(version, await self._behind(version))

    async def _behind(self, version: int) -> tuple[Seated, ...]:
        """Who does not go by a version, when all do or the time for it is over."""
        give_up = trio.current_time() + OBEYED_S
        while True:
            behind = tuple(each for each in self._board.seated() if each.version < version)
            if not behind or trio.current_time() >= give_up:
                return behind
            await trio.sleep(LOOK_S)

    async def set_aside(self, server_id: str, why: str) -> None:
        """Have nobody ask a server; returns when all go by that, or the time for it is over."""
        self._aside[server_id] = why
        self._heed_verdict(server_id, Verdict(False, why, 1))
        await self._behind(self._board.version)

    def take_back(self, server_id: str) -> None:
        """Have a server asked again that was set aside."""
        if self._aside.pop(server_id, None) is not None:
            self._put_up(unfound(self.standing, server_id))

    def _heed_verdict(self, server_id: str, verdict: Verdict) -> None:
        if server_id not in self._named:
            return
        try:
            now = self._now()
            standing = found(
                self.standing, server_id, is_up=verdict.is_up, why=verdict.why, now=now
            )
        except Unordered as error:
            self._tell("checks", f"what was found is not told to workers: {error}")
            return
        self._put_up(standing)

    def _put_up(self, standing: Standing) -> int:
        """Have all go by `standing`; the version that it has."""
        if standing == self.standing and self._board.version:
            return self._board.version
        try:
            version = self._board.write(to_bytes(standing))
        except ValueError as error:  # as long as many servers are down for long reasons
            self._tell("checks", f"what was found is not told to workers: {error}")
            return self._board.version
        self.standing = standing
        return version

    async def _write(self, standing: Standing) -> None:
        await trio.to_thread.run_sync(self._book.write, standing, limiter=self._writing)

    async def _keep(self) -> None:
        """Have the file lose the orders that new settings have ended."""
        while True:
            await self._to_be_kept.wait()
            self._to_be_kept = trio.Event()
            try:
                async with self._ordering:
                    await self._write(self.standing)
            except OSError as error:
                self._tell("orders", f"the file of orders cannot be written: {error}")
                self._to_be_kept.set()
                await trio.sleep(AGAIN_S)


def _known(standing: Standing) -> dict[str, bool]:
    return {name: each.is_up for name, each in standing.servers.items() if each.is_up is not None}
