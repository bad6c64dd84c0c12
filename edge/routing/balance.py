"""Which server of a group a request goes to, so that each has its share and none that is dead any.

A request goes to a *live* server: one that no check calls down, that is not drained, has a weight
and is not ejected; or whose ejection is over and that has no other request on trial (see
`health`). Among those the group's `Balance` decides, with weights as slow starts leave them. Only
where no server is live may `any_at_all` be asked, and it takes the least bad: one that is drained
before one that is ejected before one that is down.

Ejection takes at most the share `most` of the servers, but may always take one where it is not 0
(as Envoy's does): in a small group, or a group of one behind which another group stands, a dead
server would otherwise be asked first each time. What checks say has no such bound.

A group that is back as a whole would have all at once, since there is nobody in it to start slowly
beside. So as long as all its live servers are starting slowly it `gives_way`: to another group, if
one lives, for what is beyond their shares.

The caller's clock may be set back. Members count only the time that has gone forward, so neither
an ejection nor a slow start grows by that; set forward, they end early, which harms nobody.

Nothing here waits or reads a clock; a choice costs a step for each server, of which there are
`MOST_MEMBERS` at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median_low
from typing import TYPE_CHECKING, Any, Final

from edge.routing.health import FLOOR_S, EjectPolicy, Member, Outcome, State, Told
from edge.routing.ring import Ring, most_at_work, place_of

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

MOST_WEIGHT: Final = 1000.0  # nobody's hundredth or thousandth share needs more

__all__ = ["Balance", "EjectPolicy", "GroupPolicy", "MemberState", "Members", "Outcome", "Told"]


class Balance(StrEnum):
    """How the next server is found among the live ones."""

    ROUND_ROBIN = "round-robin"
    """In turn, as often as the weights say, evenly spread (nginx's smooth round robin)."""
    LEAST_CONNECTIONS = "least-connections"
    """Who has the least in hand for its weight; in turn where that is equal."""
    ADDRESS_HASH = "address-hash"
    """Always the same for a client's address, whatever its load."""
    KEY_HASH = "key-hash"
    """Always the same for a key, as long as that server has not far more than its share."""


def _says(sentence: str, unit: str = "") -> dict[str, Any]:
    return {"says": sentence, "unit": unit}


@dataclass(frozen=True, slots=True)
class GroupPolicy:
    """How requests are spread over a group's servers."""

    balance: Balance = field(
        default=Balance.ROUND_ROBIN, metadata=_says("how the next server is found")
    )
    eject: EjectPolicy = field(
        default=EjectPolicy(), metadata=_says("when a server is left out for its failures")
    )
    slow_start_s: float = field(
        default=10.0,
        metadata=_says("in which a server that is back comes to its full weight", "seconds"),
    )
    spills: bool = field(
        default=True,
        metadata=_says("a server by key with far more than its share leaves some to the next"),
    )


@dataclass(frozen=True, slots=True)
class MemberState:
    """One server at a moment; `weight` is what counts now, `latency_s` 0 before any answer."""

    name: str
    state: State
    at_work: int
    weight: float
    failures: int
    ejections: int
    latency_s: float


class Members:
    """A group's servers, by index. `names` and `weights` are in the settings' order.

    `now` is Unix seconds. Raises ValueError where there is no server, one that has its name
    twice, more than `MOST_MEMBERS`, or a weight that is not a number from 0 to `MOST_WEIGHT`.
    """

    __slots__ = ("_clock", "_due", "_last", "_members", "_most_out", "_policy", "_ring")

    def __init__(
        self, names: Sequence[str], policy: GroupPolicy, weights: Sequence[float]
    ) -> None:
        if not names or len(names) != len(weights):
            raise ValueError(f"{len(names)} servers and {len(weights)} weights; one for each")
        for pair in zip(names, weights, strict=True):
            _check_weight(*pair)
        self._policy = policy
        self._members = [Member(*pair) for pair in zip(names, weights, strict=True)]
        self._ring = self._made_ring()
        self._most_out = _most_out(policy.eject.most, len(names))
        self._last = 0.0
        self._clock = 0.0  # seconds that have gone forward since `_last` was first told
        self._due = 0.0  # of a request, to servers that are all starting slowly

    def inherit(self, before: Members) -> None:
        """Know what `before` knows of servers of the same names."""
        known = {member.name: member for member in before._members}
        for member in self._members:
            if member.name in known:
                member.inherit(known[member.name])
        self._last, self._clock = before._last, before._clock
        self._ring = self._made_ring()

    # --- choosing

    def choose(
        self, now: float, *, key: bytes = b"", address: bytes = b"", besides: Container[int] = ()
    ) -> int | None:
        """The live server for a request, none of `besides`; None where there is none."""
        clock = self._time(now)
        live = [
            i for i, one in enumerate(self._members) if i not in besides and one.is_live(clock)
        ]
        return self._pick(live, clock, key, address) if live else None

    def any_at_all(
        self, now: float, *, key: bytes = b"", address: bytes = b"", besides: Container[int] = ()
    ) -> int | None:
        """The least bad server, none of `besides`; None only where all of them are."""
        clock = self._time(now)
        ranks = {
            i: member.rank(clock) for i, member in enumerate(self._members) if i not in besides
        }
        if not ranks:
            return None
        least = min(ranks.values())
        alike = [i for i, rank in ranks.items() if rank == least]
        return self._pick(alike, clock, key, address)

    def is_alive(self, now: float, *, besides: Container[int] = ()) -> bool:
        """Whether `choose` finds one."""
        clock = self._time(now)
        return any(
            i not in besides and member.is_live(clock) for i, member in enumerate(self._members)
        )

    def gives_way(self, now: float) -> bool:
        """Whether another group had better take the next request, if one lives.

        To be asked once for a request: shares are kept evenly, as in turns.
        """
        clock, slow_start_s = self._time(now), self._policy.slow_start_s
        live = [member for member in self._members if member.is_live(clock)]
        if not live or any(member.warm_since is None for member in live):
            return False
        shares = sum(member.weight * member.share(clock, slow_start_s) for member in live)
        self._due += shares / sum(member.weight for member in live)
        if self._due < 1.0:
            return True
        self._due -= 1.0
        return False

    def _pick(self, among: list[int], clock: float, key: bytes, address: bytes) -> int:
        if len(among) == 1:
            return among[0]
        balance = self._policy.balance
        if balance is Balance.KEY_HASH and key:
            return self._by_hash(among, clock, key, bounded=self._policy.spills)
        if balance is Balance.ADDRESS_HASH and address:
            return self._by_hash(among, clock, address, bounded=False)
        weights = self._weights(among, clock)
        if balance is Balance.LEAST_CONNECTIONS:
            return self._least_busy(among, weights)
        return self._in_turn(among, weights)  # and for a hash of what is not known

    def _weights(self, among: list[int], clock: float) -> list[float]:
        """What counts now. Where no one has a weight (`any_at_all`), all have the same."""
        slow_start_s = self._policy.slow_start_s
        members = self._members
        weights = [members[i].weight * members[i].share(clock, slow_start_s) for i in among]
        return weights if any(weights) else [1.0] * len(among)

    def _in_turn(self, among: list[int], weights: list[float]) -> int:
        best = among[0]
        for index, weight in zip(among, weights, strict=True):
            member = self._members[index]
            member.current += weight
            if member.current > self._members[best].current:
                best = index
        self._members[best].current -= sum(weights)
        return best

    def _least_busy(self, among: list[int], weights: list[float]) -> int:
        loads = [
            self._members[index].at_work / weight if weight else math.inf
            for index, weight in zip(among, weights, strict=True)
        ]
        least = min(loads)
        tied = [n for n, load in enumerate(loads) if load == least]
        return self._in_turn([among[n] for n in tied], [weights[n] for n in tied])

    def _by_hash(self, among: list[int], clock: float, key: bytes, *, bounded: bool) -> int:
        """The first on the ring of `among` that takes the key.

        In a slow start a server takes back its keys bit by bit, each once and for good: those
        first whose fraction is small. On trial it takes any, one at a time.
        """
        where, fraction = place_of(key)
        weights = dict(zip(among, self._weights(among, clock), strict=True))
        total = sum(weights.values())
        at_work = sum(self._members[index].at_work for index in among)
        first: int | None = None
        for index in self._ring.order(where):
            if index not in weights:
                continue
            member = self._members[index]
            if first is None:
                first = index
            if bounded and member.at_work >= most_at_work(weights[index], total, at_work):
                continue
            if member.warm_since is None or fraction < weights[index] / member.weight:
                return index
        if bounded:  # all with room are starting slowly, and someone has to take it
            return min(among, key=lambda i: self._load(i, weights[i]))
        return among[0] if first is None else first

    def _load(self, index: int, weight: float) -> float:
        return self._members[index].at_work / weight if weight else math.inf

    # --- what becomes of it

    def began(self, index: int, now: float) -> int:
        """A request goes to `index`; returns its era, for `heard` and `ended`."""
        self._time(now)
        return self._members[index].begin()

    def heard(self, index: int, era: int, now: float, latency_s: float | None) -> None:
        """A good head has come, `latency_s` after the request began.

        None where that says nothing of the server: the client took its time to send a body.
        """
        clock = self._time(now)
        member = self._members[index]
        if era != member.era:
            return
        member.heard_at = clock
        if latency_s is not None:
            member.sample(latency_s)
        if member.out_until is not None:
            member.succeed(clock)
        elif latency_s is not None and self._is_outlier(member) and self._may_eject(member):
            self._eject(member, clock)

    def has_answered(self, index: int, now: float, within_s: float) -> bool:
        """Whether it has answered anyone well within the last so many seconds."""
        heard_at = self._members[index].heard_at
        return heard_at > 0 and self._time(now) - heard_at < within_s

    def ended(self, index: int, era: int, now: float, outcome: Outcome) -> None:
        """A request is over; to be told once for each that began."""
        clock = self._time(now)
        member = self._members[index]
        member.leave(era)
        if era != member.era:
            if outcome is Outcome.BAD:
                member.failures += 1
        elif outcome is Outcome.GOOD:
            member.succeed(clock)
        elif outcome is Outcome.BAD:
            member.fail()
            self._judge(member, clock)

    def told(self, index: int, told: Told, now: float) -> None:
        """Checks or the operator say this of `index`; saying it again changes nothing.

        Raises ValueError for a weight that is none.
        """
        member = self._members[index]
        if told.weight is not None:
            _check_weight(member.name, told.weight)
        weight = member.weight
        member.tell(told, self._time(now))
        if member.weight != weight:
            self._ring = self._made_ring()

    def states(self, now: float) -> tuple[MemberState, ...]:
        """All servers as they are, in the settings' order."""
        clock, slow_start_s = self._time(now), self._policy.slow_start_s
        return tuple(
            MemberState(
                name=member.name,
                state=member.state(clock, slow_start_s),
                at_work=member.at_work,
                weight=member.weight * member.share(clock, slow_start_s),
                failures=member.failures,
                ejections=member.ejections,
                latency_s=member.latency_s,
            )
            for member in self._members
        )

    def _judge(self, member: Member, clock: float) -> None:
        """Eject a server for its failures, or again where it has failed its trial."""
        if member.out_until is not None:
            # A failure of what was sent to it in need, before its time is over, is no news.
            if clock >= member.out_until:
                self._eject(member, clock)
        elif 0 < self._policy.eject.after <= member.in_a_row and self._may_eject(member):
            self._eject(member, clock)

    def _eject(self, member: Member, clock: float) -> None:
        policy = self._policy.eject
        member.eject(clock, policy.for_s, policy.longest_s)

    def _may_eject(self, member: Member) -> bool:
        if member.told.up is False:
            return False
        return sum(one.out_until is not None for one in self._members) < self._most_out

    def _is_outlier(self, member: Member) -> bool:
        """Whether it is far slower than the group: than the quicker half of it, so that of two
        servers one can be told from the other."""
        slower = self._policy.eject.slower
        if not slower or member.latency_s <= FLOOR_S or not member.is_measured():
            return False
        measured = [one.latency_s for one in self._members if one.is_measured()]
        return member.latency_s > slower * median_low(measured)

    def _made_ring(self) -> Ring:
        """A ring where the balance asks for one; heavy weights can take some milliseconds."""
        names = [member.name for member in self._members]
        hashed = self._policy.balance in (Balance.KEY_HASH, Balance.ADDRESS_HASH)
        return Ring(names, [member.weight if hashed else 0.0 for member in self._members])

    def _time(self, now: float) -> float:
        """The group's own clock at `now`: it goes forward as `now` does, and never back."""
        if now > self._last:
            self._clock += now - self._last
        self._last = now
        return self._clock


def _check_weight(name: str, weight: float) -> None:
    if not 0 <= weight <= MOST_WEIGHT:  # nor is NaN
        raise ValueError(f"{name}: {weight} is not a weight; use 0 to {MOST_WEIGHT:g}")


def _most_out(share: float, members: int) -> int:
    return max(1, math.floor(share * members)) if share > 0 else 0
