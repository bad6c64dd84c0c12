"""How many requests are begun in one turn of the loop.

All that is ready in a turn is done before anything else has its turn. Had a thousand requests come
at once that need a task each, the hits that came behind them would wait for a thousand beginnings.
So no more than `MOST` are begun in a turn, in the order in which they came; between two turns the
lane answers what it has. Where there are fewer, none waits. (A thousand at once for two hundred
cold pages, `tools/bench hit-beside-coding`: the 99th percentile of hits beside them went from
0.6 s to 0.15 s, and twice as many were answered.)
"""

from __future__ import annotations

from typing import Final

import trio

MOST: Final = 4  # about 0.3 ms each: the search, what is told of it, and the request to the origin


class Starts:
    """The beginnings of one worker's requests; turns are counted by a task among the `clients`."""

    def __init__(self, clients: trio.Nursery, most: int = MOST) -> None:
        self._clients = clients
        self._most = most
        self._begun = 0  # in this turn
        self._waiting = trio.lowlevel.ParkingLot()

    async def turn(self) -> None:
        """Wait until one more may begin."""
        if self._begun >= self._most:
            await self._waiting.park()
            return
        self._begun += 1
        if self._begun == 1:
            self._clients.start_soon(self._count)

    async def _count(self) -> None:
        """Begin a turn after the other, as long as any has begun in the last."""
        while self._begun:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._begun = len(self._waiting.unpark(count=self._most))
