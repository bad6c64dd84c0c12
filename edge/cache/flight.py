"""One fetch per key, and how it ended.

Theory of operation. The first request that finds nothing usable *leads*: it starts a flight, and
everyone who comes for the same thing while the answer's head is still unknown *follows*. A flight
runs in the node's background nursery, not in its leader's task, so the leader's departure hurts no
one. It lands exactly once, when the head is known, in one of four ways:

- `Stored`: the answer may be shared. Its body is being written, or is whole; all read the writer.
- `Private`: the answer is the leader's alone. Followers go on their own, and the key is
  remembered for a while as one whose requests do not queue.
- `Spurned`: the origin is in trouble (500, 502, 503, 504) while something stale was held. Each
  decides for itself whether the stale answer may serve; the leader may read what came.
- `Failed`: nothing came. Each decides likewise, and no one tries again at once.

A landed flight leaves the table: what it stored is found in the store from then on, so there is
never a moment in which a request could find neither. Followers are told of interim responses as
they come. A flight has no deadline of its own, because the fetch inside it has one in each of its
phases; a follower that gave up earlier would only turn a slow origin into a stampede.

Trouble that took its time (an origin that hangs) is remembered for as long again: until then, who
may be served stale is, at once, while one fetch in the background finds out whether it is over.
Trouble that shows at once is asked about anew each time.

The flight carries its leader's purge number (see `purge`): who joins compares it with the purges
of that moment, and again when the head is known, since only the head brings the tags.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import trio

if TYPE_CHECKING:
    from edge.cache.entry import Seq, Variant
    from edge.cache.fill import Body
    from edge.cache.reasons import Reason
    from edge.errors import ExchangeError
    from edge.wire.message import ResponseHead

KEYS_REMEMBERED = 8_192  # about 1 MiB; the oldest is forgotten, and costs its next crowd one wait
LONELY_S = 10.0  # Varnish's hit-for-miss is 120 s; a page that turns cacheable should not wait
CROWDS = (b"\0\0", b"\0\1", b"\1\0", b"\1\1")  # with Authorization, with Cookie
SLOW_S = 0.5  # a failure that took longer than this is not waited for again by those with a choice
TROUBLED_S = 30.0

FlightKey: TypeAlias = tuple[bytes, "Variant"]
StoredT = TypeVar("StoredT")


@dataclass(frozen=True, slots=True)
class Stored(Generic[StoredT]):
    """The answer may be shared: `stored` is it, `fetched` its head as it came (for the leader)."""

    stored: StoredT
    fetched: ResponseHead
    because: Reason


@dataclass(frozen=True, slots=True)
class Private:
    """The answer is the leader's alone, to read and to close.

    `because` is what kept it out of the store; None where that was settled before it came.
    """

    fetched: ResponseHead
    body: Body
    because: Reason | None


@dataclass(frozen=True, slots=True)
class Spurned:
    """The origin answered with trouble; `body` is for the leader, if no stale answer may serve."""

    fetched: ResponseHead
    body: Body
    because: Reason | None


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing came."""

    error: ExchangeError


Outcome: TypeAlias = Stored[StoredT] | Private | Spurned | Failed


class Flight(Generic[StoredT]):
    """One fetch under way, until its head is known."""

    __slots__ = (
        "_interims", "_news", "abandoned", "as_of", "began", "key", "outcome", "overtaken",
        "upstream",
    )  # fmt: skip

    def __init__(self, key: FlightKey, as_of: Seq) -> None:
        self.key = key
        self.as_of = as_of
        self.began = trio.current_time()
        self.abandoned = False  # its leader has gone, so that no one can read a private answer
        self.overtaken = False  # a write has succeeded since it was asked: not to be stored
        self.upstream: str | None = None  # who was asked, once it has landed
        self.outcome: Outcome[StoredT] | None = None
        self._interims: list[ResponseHead] = []  # bounded by the engine's limit on 1xx
        self._news = trio.lowlevel.ParkingLot()

    def tell(self, interim: ResponseHead) -> None:
        """Pass an interim response on to all who wait."""
        self._interims.append(interim)
        self._news.unpark_all()

    def land(self, outcome: Outcome[StoredT]) -> None:
        """Say how it ended; only the first word counts."""
        if self.outcome is None:
            self.outcome = outcome
            self._news.unpark_all()

    def leave(self) -> None:
        """The leader is done with it, or gone; a private answer has no reader any more."""
        self.abandoned = True
        if isinstance(self.outcome, (Private, Spurned)):
            self.outcome.body.close()

    async def wait_interims(self, told: int) -> list[ResponseHead]:
        """The interim responses after the first `told`; empty once the flight has landed."""
        while len(self._interims) <= told and self.outcome is None:
            await self._news.park()
        return self._interims[told:]


class Flights(Generic[StoredT]):
    """The flights of a node whose heads are not known yet, and what the last ones taught."""

    def __init__(self) -> None:
        self._aloft: dict[FlightKey, Flight[StoredT]] = {}  # to be joined
        self._all: set[Flight[StoredT]] = set()  # and those that go alone, or are not joined now
        self._lonely = _Notes()
        self._troubled = _Notes()

    def __len__(self) -> int:
        return len(self._all)

    def find(self, key: FlightKey) -> Flight[StoredT] | None:
        """The flight for `key`, if one is aloft."""
        return self._aloft.get(key)

    def start(self, key: FlightKey, as_of: Seq, *, alone: bool = False) -> Flight[StoredT]:
        """A new flight for `key`, which no one joins if `alone`.

        One that a purge has overtaken is replaced, and flies on.
        """
        flight: Flight[StoredT] = Flight(key, as_of)
        self._all.add(flight)
        if not alone:
            self._aloft[key] = flight
        return flight

    def overtake(self, digest: bytes) -> None:
        """A write has succeeded: what was asked for before may be older than it (RFC 9111 §4.4).

        So no one joins it any more, and it will not be stored. Linear in the flights.
        """
        for flight in self._all:
            if flight.key[0] == digest:
                flight.overtaken = True
                if self._aloft.get(flight.key) is flight:
                    del self._aloft[flight.key]

    def land(self, flight: Flight[StoredT], outcome: Outcome[StoredT]) -> None:
        """Say how `flight` ended, and take it off the table."""
        self._all.discard(flight)
        if self._aloft.get(flight.key) is flight:
            del self._aloft[flight.key]
        if flight.outcome is None:
            self._learn(flight, outcome)
        flight.land(outcome)

    def _learn(self, flight: Flight[StoredT], outcome: Outcome[StoredT]) -> None:
        digest = flight.key[0]
        if isinstance(outcome, Stored):
            for crowd in CROWDS:
                self._lonely.forget(digest + crowd)
            self._troubled.forget(digest)
        elif isinstance(outcome, (Failed, Spurned)):
            clock = trio.current_time()
            took_s = clock - flight.began
            if took_s > SLOW_S:
                self._troubled.note(digest, clock + min(took_s, TROUBLED_S))

    def is_troubled(self, digest: bytes) -> bool:
        """Whether a fetch for the key failed a short while ago, and took its time over it."""
        return self._troubled.holds(digest, trio.current_time())

    def is_lonely(self, digest: bytes, crowd: bytes = CROWDS[0]) -> bool:
        """Whether requests of a key's crowd go alone, since their last answer was not shared."""
        return self._lonely.holds(digest + crowd, trio.current_time())

    def remember_lonely(self, digest: bytes, crowd: bytes = CROWDS[0]) -> None:
        """Let requests of a key's crowd go alone for `LONELY_S` seconds."""
        self._lonely.note(digest + crowd, trio.current_time() + LONELY_S)


class _Notes:
    """Keys about which something holds until a time; bounded, the oldest note is dropped."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def note(self, digest: bytes, until: float) -> None:
        self._until[digest] = until
        self._until.move_to_end(digest)
        if len(self._until) > KEYS_REMEMBERED:
            self._until.popitem(last=False)

    def holds(self, digest: bytes, clock: float) -> bool:
        until = self._until.get(digest)
        if until is not None and until <= clock:
            del self._until[digest]
        return until is not None and until > clock

    def forget(self, digest: bytes) -> None:
        self._until.pop(digest, None)
