"""All dictionaries that a worker can use: what it has at hand, and what is on the node's shelf.

What a worker is named it looks for at hand, then among the marks of the shelf, and only for what
has a mark does a thread read a file; from then on that is at hand. Whoever asks for the same one
meanwhile waits for the same reading, for `READ_WITHIN_S` at the most: then its answer goes without
it. What cannot be read is forgotten, and told. Who has one at hand goes by the offer that it came
with, also where the same bytes were offered anew to another worker.

Without a shelf there is what this worker has learned itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from edge.cache.threads import Inline
from edge.coding.dictionary import Dictionaries, Dictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.threads import MakeWorkers
    from edge.coding.dictionary import Offer, Realm
    from edge.coding.shelf import Shelf

READ_WITHIN_S: Final = 1.0
MOST_READ: Final = 32  # files that are waited for at once


@dataclass(frozen=True, slots=True)
class LibraryStatistics:
    """What one worker has at hand, and what became of what it was named."""

    held: int
    held_bytes: int
    learned: int
    """From answers of its own."""
    read: int
    """From the shelf."""
    used: int
    """Answers that were sent coded with one."""
    unknown: int
    """Times that a client named one that no worker knows."""


class Library:
    """The dictionaries of one worker; `tell` is told what goes wrong with the shelf."""

    def __init__(
        self,
        shelf: Shelf | None = None,
        make_workers: MakeWorkers = Inline,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._shelf = shelf
        self._workers = make_workers(1, "edge-dictionaries")
        self._tell = tell
        self._at_hand = Dictionaries()
        self._coming: dict[tuple[Realm, bytes], trio.Event] = {}
        self._learned = self._read = self._used = self._unknown = 0

    def fits(self, size: int) -> bool:
        """Whether a body of `size` bytes may become a dictionary at all."""
        return self._at_hand.fits(size)

    async def find(self, realm: Realm, digest: bytes) -> Dictionary | None:
        """The dictionary of this realm that a client names; no checkpoint where none is read."""
        found = self._at_hand.find(realm, digest)
        shelf = self._shelf
        if found is None and shelf is not None and shelf.has(realm, digest):
            await self._fetch(shelf, realm, digest)
            found = self._at_hand.find(realm, digest)
        if found is None:
            self._unknown += 1
        return found

    async def look(self, realm: Realm, digest: bytes) -> Dictionary | None:
        """The same, where nothing may change by it."""
        found = self._at_hand.look(realm, digest)
        shelf = self._shelf
        if found is not None or shelf is None or not shelf.has(realm, digest):
            return found
        try:
            return await self._workers.run(partial(shelf.read, realm, digest))
        except OSError:
            return None

    async def has_elsewhere(self, digest: bytes) -> bool:
        """Whether any realm has a dictionary of this digest: for who explains."""
        if self._at_hand.has_elsewhere(digest):
            return True
        if self._shelf is None:
            return False
        try:
            return await self._workers.run(partial(self._shelf.has_elsewhere, digest))
        except OSError:
            return False

    async def learn(self, realm: Realm, content: bytes, offer: Offer) -> None:
        """Have a whole, decoded body as a dictionary, here and on the shelf, if it fits."""
        if not self.fits(len(content)):
            return
        made = await self._workers.run(partial(Dictionary, content, offer))
        self._at_hand.add(realm, made)
        self._learned += 1
        if self._shelf is not None:
            try:
                await self._workers.run(partial(self._shelf.put, realm, made))
            except OSError as error:
                self._tell(f"a dictionary is known to one worker alone: {error}")

    def count_use(self) -> None:
        """An answer goes out coded with one."""
        self._used += 1

    def statistics(self) -> LibraryStatistics:
        """A snapshot."""
        return LibraryStatistics(
            held=len(self._at_hand),
            held_bytes=self._at_hand.held_bytes,
            learned=self._learned,
            read=self._read,
            used=self._used,
            unknown=self._unknown,
        )

    async def close(self) -> None:
        """Do what is queued, then end the thread."""
        await self._workers.close()

    async def _fetch(self, shelf: Shelf, realm: Realm, digest: bytes) -> None:
        """Have one at hand that is on the shelf, if it can be read in time."""
        key = realm, digest
        coming = self._coming.get(key)
        if coming is None:
            if len(self._coming) >= MOST_READ:
                return
            coming = self._coming[key] = trio.Event()
            self._workers.post(partial(self._take_down, shelf, realm, digest))
        with trio.move_on_after(READ_WITHIN_S):
            await coming.wait()

    def _take_down(self, shelf: Shelf, realm: Realm, digest: bytes) -> None:
        """In the thread: read one, and hand it over."""
        found, trouble = None, ""
        try:
            found = shelf.read(realm, digest)
        except OSError as error:
            trouble = f"a dictionary cannot be read: {error}"
        finally:  # or those who wait would go on waiting for it
            self._workers.call_loop(partial(self._came, shelf, realm, digest, found, trouble))

    def _came(
        self, shelf: Shelf, realm: Realm, digest: bytes, found: Dictionary | None, trouble: str
    ) -> None:
        if found is None:
            shelf.forget(realm, digest)
        elif self._at_hand.look(realm, digest) is None:  # what was learned meanwhile is newer
            self._at_hand.add(realm, found)
            self._read += 1
        if trouble:
            self._tell(trouble)
        self._coming.pop((realm, digest)).set()
