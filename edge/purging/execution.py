"""Carrying out orders: one transaction, one number, one line in the log; and trying one out.

A purge is in force when `carry_out` returns, and not at all when it raises. Its cost does not
depend on what is stored. A dry run's does: it looks at all that is stored, a batch at a time, and
holds each entry against the order and against the purges that already were.

What does not come from an operator is *confined* to the host that it is for: PURGE requests, but
where the site lets them reach the whole node, and groups (RFC 9875), which answers to clients'
writes invalidate. However much of it there is, it costs no other host anything (see
`cache.areas`). More scopes at once than are worth remembering one by one are the whole host.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

import trio

from edge.cache.journal import WORDS
from edge.cache.purge import Manner, Verdict
from edge.cache.scope import digest, group_name, host_name, packed, told, url_name
from edge.routing.site import host_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from edge.cache.entry import Entry
    from edge.cache.purge import Purge, Purges
    from edge.purging.draft import Order
    from edge.purging.late import Late

MOST_GROUPS_AT_ONCE: Final = 128  # four times what RFC 9875 §2 asks of an implementation
MOST_TAGS_AT_ONCE: Final = 128  # of a purge that is confined; plugins send a page's, some dozens
# What only a head tells. Were the newest head lost with the process, an older one might come back
# from disk that does not tell it, and would escape the purge.
_FROM_HEADS: Final = (b"t", b"T", b"g")
_AT_ONCE: Final = 1024  # names between two looks at other tasks: about a millisecond


class Recorder(Protocol):
    """What writes purges down: the journal."""

    async def purge(
        self,
        *,
        digests: bytes,
        everything: bool,
        manner: Manner,
        who: str,
        when: float,
        words: tuple[str, ...],
        count: int,
        area: bytes,
    ) -> Purge:
        """The purge, once it is on disk and in force; raises `JournalError` where it is not."""
        ...


class Ahead(Protocol):
    """Sends an order (a JSON document) to the shields, and tells which have not carried it out;
    `later` does not wait for them."""

    async def __call__(self, order: bytes, /, *, later: bool = False) -> tuple[Late, ...]:
        """See `envoy.Envoy.send`; raises `JournalError` where it is not known."""
        ...


async def nobody(order: bytes, /, *, later: bool = False) -> tuple[Late, ...]:
    """Sends an order ahead where there are no shields."""
    return ()


class Purging:
    """Gives the journal what is to be purged. `now` is in Unix seconds; `settle` returns when all
    that was stored before is on disk. `note` takes a line on what an operator purged, `tell` on
    what someone purged who may purge one host only. `ahead` reaches the shields."""

    def __init__(
        self,
        journal: Recorder,
        settle: Callable[[], Awaitable[None]],
        now: Callable[[], float],
        note: Callable[[str], None],
        tell: Callable[[str], None],
        ahead: Ahead = nobody,
    ) -> None:
        self.send_ahead = ahead
        self._journal = journal
        self._settle = settle
        self._now = now
        self._note = note
        self._tell = tell

    async def carry_out(self, order: Order, who: str, *, host: bytes | None = None) -> Purge:
        """The purge, now in force; raises `JournalError`, and then nothing has been purged.

        It is confined to `host`, if that is given: everything that the order names must belong to
        that host, on whatever port. Then too many scopes stand for the host.
        """
        manner = Manner.SOFT if order.soft else Manner.HARD
        if host is not None and len(order.names) > MOST_TAGS_AT_ONCE:
            return await self._purge_host(host, manner, who, f"{len(order.names)} tags")
        return await self._purge(order.names, manner, who, everything=order.everything, host=host)

    async def invalidate_groups(
        self, scheme: bytes, authority: bytes, groups: Sequence[bytes], who: str
    ) -> Purge | None:
        """What an answer to a write has invalidated (RFC 9875 §3), None if that is nothing;
        raises `JournalError`. Too many groups stand for the host."""
        if not groups:
            return None
        if len(groups) > MOST_GROUPS_AT_ONCE:
            return await self._purge_host(authority, Manner.HARD, who, f"{len(groups)} groups")
        names = tuple(group_name(scheme, authority, group) for group in groups)
        return await self._purge(names, Manner.HARD, who, host=authority)

    async def invalidate_url(self, authority: bytes, target: bytes, who: str) -> Purge:
        """Purge one URL, by the target that it is keyed with; raises `JournalError`."""
        name = url_name(authority, target)
        return await self._purge((name,), Manner.HARD, who, host=authority)

    async def _purge_host(
        self, authority: bytes, manner: Manner, who: str, instead_of: str
    ) -> Purge:
        """All of a host; in words, with what it is in place of."""
        name = host_name(authority)
        words = (f"{' '.join(told(name))} in place of {instead_of}",)
        return await self._purge((name,), manner, who, words=words, host=authority)

    async def _purge(
        self,
        names: Sequence[bytes],
        manner: Manner,
        who: str,
        *,
        everything: bool = False,
        words: tuple[str, ...] = (),
        host: bytes | None = None,
    ) -> Purge:
        purge = await self._journal.purge(
            digests=await _digests(names),
            everything=everything,
            manner=manner,
            who=who,
            when=self._now(),
            words=words or tuple(" ".join(told(name)) for name in islice(names, WORDS)),
            count=len(names),
            area=b"" if host is None else _area(host),
        )
        if any(name[:1] in _FROM_HEADS for name in names):
            await self._settle()
        (self._note if host is None else self._tell)(_line(purge))
        return purge


def _area(authority: bytes) -> bytes:
    """A digest that all of a host's entries have among their scopes, whatever their port."""
    return digest(host_name(host_of(authority)))


async def _digests(names: Sequence[bytes]) -> bytes:
    """The names' digests; a hundred thousand names take a tenth of a second, so in pieces."""
    pieces: list[bytes] = []
    for piece in _pieces(names):
        pieces.append(packed(piece))
        await trio.lowlevel.checkpoint()
    return b"".join(pieces)


def _pieces(names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (names[at : at + _AT_ONCE] for at in range(0, len(names), _AT_ONCE))


def _line(purge: Purge) -> str:
    """A purge for the log: `purge 17 (soft): "tag front", and 3 more; by uid 0`."""
    what = "everything" if purge.everything else f'"{purge.words[0].replace(chr(34), chr(39))}"'
    rest = f", and {purge.count - 1} more" if purge.count > 1 else ""
    return f"purge {purge.number} ({purge.manner.name.lower()}): {what}{rest}; by {purge.who}"


# --- what would be purged -----------------------------------------------------


class Item(Protocol):
    """One stored object, wherever it is."""

    @property
    def entry(self) -> Entry:
        """What is stored."""

    @property
    def bytes(self) -> int:
        """How much room it takes."""


class Scan(Protocol):
    """A walk through all that is stored."""

    async def next(self) -> Sequence[Item] | None:
        """Some more objects, perhaps none; None at the end."""


class Matcher:
    """Tells what an order covers; the order's scopes are made ready once."""

    def __init__(self, order: Order) -> None:
        self._everything = order.everything
        self._digests = frozenset(memoryview(packed(order.names)).cast("Q"))

    def covers(self, entry: Entry) -> bool:
        """Whether the order covers a stored entry."""
        if self._everything:
            return True
        return not self._digests.isdisjoint(memoryview(entry.scopes).cast("Q"))


def matches(order: Order, entry: Entry) -> bool:
    """Whether `order` covers `entry`; for many entries make a `Matcher`."""
    return Matcher(order).covers(entry)


async def dry_run(
    order: Order,
    scan: Scan,
    purges: Purges,
    emit: Callable[[Mapping[str, int | bool]], Awaitable[None]],
    *,
    of: int = 0,
) -> None:
    """Emit how many stored objects `order` would purge: after each batch `{"looked_at", "of",
    "matches", "bytes"}`, at last with `"done": True`. What is dead already is not counted.

    `of` is how many are stored, as far as is known; it is told as what was looked at where that
    is more. Raises what `scan` raises.
    """
    matcher = Matcher(order)
    seen: dict[str, int | bool] = {"looked_at": 0, "of": of, "matches": 0, "bytes": 0}
    while (batch := await scan.next()) is not None:
        sizes = [item.bytes for item in batch if _would_go(item.entry, matcher, purges)]
        seen["looked_at"] += len(batch)
        seen["of"] = max(of, seen["looked_at"])
        seen["matches"] += len(sizes)
        seen["bytes"] += sum(sizes)
        await emit(dict(seen))
    await emit({**seen, "done": True})


def _would_go(entry: Entry, matcher: Matcher, purges: Purges) -> bool:
    """Whether an entry is covered, and not dead already."""
    if not matcher.covers(entry):
        return False
    return purges.verdict(entry.fetched_at, entry.scopes) is not Verdict.DEAD
