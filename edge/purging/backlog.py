"""What shields are still to purge, on file: one order after the other, for each shield.

An order that a shield has not acknowledged is owed to it until it has, through restarts of the
edge as well, so it is on the disk before anybody is told. What is owed is bounded: in place of
more than `MOST_ORDERS`, or more than `MOST_BYTES` of them, a shield is owed one that purges
everything, which is too much and never too little.

The file stands in the store's directory and is replaced whole; those who wait for it to be written
share one write. One that cannot be read is set aside under another name, and every shield is owed
a purge of everything, since nobody knows what it had to forget.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from edge.cache.home import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

FILE: Final = "shields.json"
BROKEN: Final = "shields.broken.json"
VERSION: Final = 1
MOST_ORDERS: Final = 1_000  # owed to one shield
MOST_BYTES: Final = 4 << 20  # of these
FILE_BYTES: Final = 1 << 30
EVERYTHING: Final = b'{"all":true}'


class _Page(msgspec.Struct, frozen=True):
    version: int
    owed: dict[str, list[str]]


@dataclass(frozen=True, slots=True, eq=False)
class Debt:
    """One order that a shield is owed, a JSON document; `paid` is set when it has acknowledged."""

    order: bytes
    paid: trio.Event = field(default_factory=trio.Event)


class Backlog:
    """The orders owed to shields, by their URLs, as JSON documents, the oldest first.

    `tell` is given a line for the error log. Reads its file when it is made, and blocks for that.
    """

    def __init__(self, root: Path, tell: Callable[[str], None]) -> None:
        self._path = root / FILE
        self._tell = tell
        self._writing = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)  # of its own: a name may be looked up for long
        self._changes = self._written = 0
        self._is_lost = False
        self._owed = self._read()

    def take_up(self, shields: Collection[str]) -> None:
        """Owe to no others than these, by their URLs."""
        for url in [url for url in self._owed if url not in shields]:
            self._tell(f"{url} is no shield any more; {self.count(url)} purges were owed to it")
            del self._owed[url]
            self._changes += 1
        if self._is_lost:
            self._is_lost = False
            for url in shields:
                self.owe(url, EVERYTHING)

    def count(self, url: str) -> int:
        """How many orders are owed to a shield."""
        return len(self._owed.get(url, ()))

    def next(self, url: str) -> Debt | None:
        """The oldest order that is owed to a shield."""
        debts = self._owed.get(url)
        return debts[0] if debts else None

    def owe(self, url: str, order: bytes) -> Debt:
        """One more for a shield, behind those that it is owed; the same again is no more."""
        debts = self._owed.setdefault(url, [])
        for debt in debts[1:]:  # the first may be on its way, and arrive before this one
            if debt.order == order:
                return debt
        self._changes += 1
        debts.append(debt := Debt(order))
        if len(debts) > MOST_ORDERS or sum(len(each.order) for each in debts) > MOST_BYTES:
            self._tell(f"{url} is owed too many purges; it will purge everything in their place")
            debts[:] = [debt := Debt(EVERYTHING)]
        return debt

    def pay(self, url: str, debt: Debt) -> None:
        """A debt has been acknowledged, or is given up; it may have been replaced."""
        debt.paid.set()
        debts = self._owed.get(url, [])
        if debt in debts:
            self._changes += 1
            debts.remove(debt)
        if not debts:
            self._owed.pop(url, None)

    async def keep(self) -> None:
        """Return when all is on the disk as it is now; raises OSError, and then it may not be."""
        wanted = self._changes
        async with self._writing:
            if self._written >= wanted:
                return
            changes, page = self._changes, self._page()
            await trio.to_thread.run_sync(write_whole, self._path, page, limiter=self._limiter)
            self._written = changes

    def _page(self) -> str:
        owed = {url: [each.order.decode() for each in debts] for url, debts in self._owed.items()}
        return msgspec.json.encode(_Page(VERSION, owed)).decode()

    def _read(self) -> dict[str, list[Debt]]:
        try:
            with self._path.open("rb") as opened:
                data = opened.read(FILE_BYTES + 1)
            page = msgspec.json.decode(data, type=_Page)
            if page.version != VERSION:
                raise ValueError(f"version {page.version}")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self._set_aside(str(error))
            return {}
        return {
            url: [Debt(order.encode()) for order in orders]
            for url, orders in page.owed.items()
            if orders
        }

    def _set_aside(self, why: str) -> None:
        self._is_lost = True
        try:
            self._path.replace(self._path.with_name(BROKEN))
        except OSError as error:
            why += f"; it cannot be set aside: {error.strerror or error}"
        self._tell(f"{self._path} cannot be read: {why}; every shield will purge everything")
