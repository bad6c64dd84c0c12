"""What is done between two steps of tasks, however many of them are ready.

All that is ready in a turn of the loop is done before anything else has its turn. Where a thousand
requests come at once that need a task each, the hits that came behind them would wait for a
thousand steps, and again for each next one. So a `Between` looks at the clock after each step, and
does what it is for when that has not been done for `every_s`: it waits for one step at most. To
all tasks this is as if another task had had its turn.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


class Between(trio.abc.Instrument):
    """Does `act`, which waits for nothing, between steps, once `every_s` have passed."""

    def __init__(self, act: Callable[[], None], every_s: float) -> None:
        self._act = act
        self._every_s = every_s
        self._acted = perf_counter()
        self._error: Exception | None = None
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Do it until cancelled; raises what `act` has raised."""
        trio.lowlevel.add_instrument(self)
        try:
            with self._scope:
                await trio.sleep_forever()
        finally:
            trio.lowlevel.remove_instrument(self)
            if self._error is not None:  # also where it is cancelled in the same turn
                raise self._error

    def act(self) -> None:
        """Do it now."""
        self._act()
        self._acted = perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio's word that a task has come to where it waits, or to its end."""
        if perf_counter() - self._acted < self._every_s or self._error is not None:
            return
        try:
            self.act()
        except Exception as error:  # Trio would only log it
            self._error = error
            self._scope.cancel()
