"""Experiments: which arm a visitor is in, how it is told, and what of that is in the key.

**Who gets which arm.** Whoever brings the experiment's cookie with the name of an arm stays in it,
whatever has become of its weight. Of several such cookies the first that names an arm counts: the
browser sends the nearest path's first, it goes on doing so whatever we set, and taking none would
draw anew at every request. No reading can be wrong for the store: the arm that is told to the
origin is the arm in the key, and a client may choose its arm anyway. All others draw (`lots`): by
the site's own id of the visitor, the same on every node with the same key, else by the roll of
the moment. Then a Set-Cookie is due.

**Who is held out** gets the first arm, the control, and no cookie, and is not counted. It is an
assignment all the same, since the control may be asked for in its own way. So it is with
newcomers where every weight is 0. An experiment that is stopped puts everyone in one arm, tells no
one and holds out no one.

**What is keyed** is the set of arms that change what the origin is asked, and nothing else. Where
an arm changes nothing the request is that of a site without the experiment, so it shares that
one's answers, the ones stored before the experiment began too; an experiment none of whose arms
changes anything costs no hit. Two requests share a key only if the same changes are made to both.
An arm's definition is not keyed: who gives an arm another route or prefix purges what it had.

Experiments are independent (the name is hashed with the visitor); several at once are their
product. Arms are applied in the order in which experiments stand.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from edge.routing.lots import Lots, check_weights
from edge.routing.rewrite import FieldEdits, check_prefix, check_to_origin, with_prefix
from edge.routing.visitors import HOLD_OUTS, VisitorId, is_held_out
from edge.wire.cookies import CookieTerms, is_cookie_value, values_of
from edge.wire.target import split_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edge.routing.site import Match, Whereabouts
    from edge.wire.message import Headers, Pair, RequestHead

ARMS_MOST: Final = 32  # each costs a newcomer a hash
NAME_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the ways to serve: origins by name, a prefix of the path, fields for the origin.

    `weight` is its share of newcomers, against the other arms' weights; 0 takes in nobody new.
    """

    name: bytes
    weight: float
    route: tuple[str, ...] = ()
    prefix: bytes = b""
    fields: tuple[Pair, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether the response may differ from that without the experiment."""
        return bool(self.route or self.prefix or self.fields)


@dataclass(frozen=True, slots=True)
class Experiment:
    """Arms of which the first is the control, and who is in which.

    `takes` are the requests that it is for (None: all). `key` is the secret that drawings by
    visitor id are keyed with; `id` is what it is called among all of a node's. `stopped_on` names
    the arm that everyone has since it ended.
    """

    name: bytes
    cookie: CookieTerms
    arms: tuple[Arm, ...]
    id: str = ""
    takes: Match | None = None
    visitor: VisitorId | None = None
    hold_out: frozenset[str] = frozenset()
    key: bytes = b""
    stopped_on: bytes | None = None
    _kept: dict[bytes, Assignment] = field(init=False, repr=False, compare=False)
    _given: tuple[Assignment, ...] = field(init=False, repr=False, compare=False)
    _rolled: tuple[Assignment, ...] = field(init=False, repr=False, compare=False)
    _held_out: Assignment = field(init=False, repr=False, compare=False)
    _lots: Lots = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.arms:
            raise ValueError("an experiment needs arms; name two or more")
        # Every assignment there can be is made once: a request only picks one.
        kept = {arm.name: Assignment(self, arm, is_new=False) for arm in self.arms}
        given = tuple(Assignment(self, arm, is_new=True) for arm in self.arms)
        rolled = tuple(replace(each, by_chance=True) for each in given)
        held_out = Assignment(self, self.arms[0], is_new=False, is_held_out=True)
        names = tuple(arm.name for arm in self.arms)
        weights = tuple(arm.weight for arm in self.arms)
        object.__setattr__(self, "_kept", kept)
        object.__setattr__(self, "_given", given)
        object.__setattr__(self, "_rolled", rolled)
        object.__setattr__(self, "_held_out", held_out)
        object.__setattr__(self, "_lots", Lots(names, weights, self.name, self.key))

    def assign(
        self, request: RequestHead, roll: float, place: Whereabouts | None = None
    ) -> Assignment | None:
        """The arm of `request`, whose target is as it is keyed; None where it is not taken.

        `roll` in [0, 1) decides for a newcomer without an id.
        """
        if self.takes is not None and not self._takes(self.takes, request, place):
            return None
        if self.stopped_on is not None:
            return self._kept[self.stopped_on]
        if self.hold_out and is_held_out(request.headers, self.hold_out):
            return self._held_out
        for value in values_of(request.headers, self.cookie.name):
            if (kept := self._kept.get(value)) is not None:
                return kept
        return self._draw(request, roll)

    def _takes(self, match: Match, request: RequestHead, place: Whereabouts | None) -> bool:
        path = split_target(request.target).path
        return match.takes(request.method, request.authority, path, request.headers, place)

    def _draw(self, request: RequestHead, roll: float) -> Assignment:
        visitor = self.visitor.of(request.headers) if self.visitor is not None else None
        lots = self._lots
        index = lots.of_roll(roll) if visitor is None else lots.of_visitor(visitor)
        if index is None:
            return self._held_out
        return self._rolled[index] if visitor is None else self._given[index]

    def rolled(self, roll: float) -> Assignment:
        """What a newcomer without an id gets by this roll, whose request is known to be taken."""
        index = self._lots.of_roll(roll)
        return self._held_out if index is None else self._rolled[index]

    def drawn(self, arm: bytes) -> Assignment | None:
        """What a newcomer gets who has drawn this arm elsewhere; None if it is none."""
        return next((each for each in self._rolled if each.arm.name == arm), None)

    def altered(self, weights: Mapping[bytes, float], stopped_on: bytes | None) -> Experiment:
        """This experiment as it has been ramped or stopped since; names of no arm are left out."""
        arms = tuple(replace(arm, weight=weights.get(arm.name, arm.weight)) for arm in self.arms)
        known = stopped_on if stopped_on in self._kept else self.stopped_on
        return replace(self, arms=arms, stopped_on=known)

    def check(self) -> Iterator[tuple[str, str]]:
        """What cannot work: where in the experiment's settings, and words for the operator."""
        if not 1 <= len(self.name) <= NAME_BYTES:
            yield "name", f"{self.name!r} is no name; use 1 to {NAME_BYTES} bytes"
        if not 2 <= len(self.arms) <= ARMS_MOST:
            yield "arms", f"{len(self.arms)} arms are no experiment; use 2 to {ARMS_MOST}"
        for where, words in self.cookie.check():
            yield f"cookie.{where}", words
        yield from self._check_arms()
        for words in self.visitor.check() if self.visitor else ():
            yield "visitor", words
        for unknown in sorted(self.hold_out - HOLD_OUTS):
            yield "hold_out", f'"{unknown}" is unknown; use "bots" or "cookieless"'
        if self.stopped_on is not None and self.stopped_on not in self._kept:
            yield "stopped_on", f"{self.stopped_on!r} is no arm; name one of the arms"

    def _check_arms(self) -> Iterator[tuple[str, str]]:
        for words in check_weights(arm.weight for arm in self.arms):
            yield "arms", words
        for name, times in Counter(arm.name for arm in self.arms).items():
            where = f"arms.{name.decode('latin-1')}"
            if times > 1:
                yield where, "there are two arms of this name; rename one"
            if not 1 <= len(name) <= NAME_BYTES or not is_cookie_value(name):
                yield where, f"{name!r} cannot stand in a cookie; use letters, digits, - and _"
        for arm in self.arms:
            where = f"arms.{arm.name.decode('latin-1')}"
            for words in check_prefix(arm.prefix) if arm.prefix else ():
                yield f"{where}.prefix", words
            for words in check_to_origin(FieldEdits(put=arm.fields)):
                yield f"{where}.header", words


@dataclass(frozen=True, slots=True)
class Assignment:
    """The arm of one request; `is_new` asks for a Set-Cookie, `is_held_out` for no counting.

    `by_chance`: nothing of the request told it, and the same request gets another one.
    """

    experiment: Experiment
    arm: Arm
    is_new: bool
    is_held_out: bool = False
    by_chance: bool = False

    def drawn_as(self, told: Mapping[bytes, bytes]) -> Assignment:
        """The same where chance has been asked elsewhere, by experiment: what it said there."""
        arm = told.get(self.experiment.name) if self.by_chance else None
        return self if arm is None else self.experiment.drawn(arm) or self

    @property
    def key_part(self) -> bytes:
        """The experiment and its arm, with the lengths of their names; see `key_part`."""
        name, arm = self.experiment.name, self.arm.name
        return b"%d:%b%d:%b" % (len(name), name, len(arm), arm)

    def cookie(self, scheme: bytes) -> bytes:
        """The Set-Cookie value that tells the visitor; `scheme` is that of the request."""
        return self.experiment.cookie.given(self.arm.name, scheme)


def assign_all(
    experiments: Sequence[Experiment],
    request: RequestHead,
    rolls: Sequence[float],
    place: Whereabouts | None = None,
) -> tuple[Assignment, ...]:
    """The arms of `request` in all experiments that take it, in their order.

    One roll for each experiment, taken or not.
    """
    return tuple(
        [
            found
            for each, roll in zip(experiments, rolls, strict=True)
            if (found := each.assign(request, roll, place)) is not None
        ]
    )


def drawn(assignments: Iterable[Assignment]) -> tuple[tuple[bytes, bytes], ...]:
    """What chance has said: each experiment in which it did, and its arm, by name."""
    return tuple([(a.experiment.name, a.arm.name) for a in assignments if a.by_chance])


def key_part(assignments: Iterable[Assignment]) -> bytes:
    """What the arms add to the key: b"" where none changes anything.

    Names with their lengths, in one order whatever the experiments' is: no two sets of arms that
    change something look alike.
    """
    parts = [each.key_part for each in assignments if each.arm.changes]
    return b"".join(sorted(parts))


def route_of(assignments: Iterable[Assignment]) -> tuple[str, ...]:
    """The origins that the arms ask for, by name: of the first arm that does; () if none."""
    return next((each.arm.route for each in assignments if each.arm.route), ())


def asked(assignments: Iterable[Assignment], target: bytes) -> bytes:
    """`target` as the arms have it at the origin: of two arms the later one's prefix is outside.

    Raises ProtocolError as `with_prefix` does.
    """
    for each in assignments:
        target = with_prefix(each.arm.prefix, target)
    return target


def told(assignments: Iterable[Assignment], headers: Headers) -> Headers:
    """`headers` with the fields that the arms have for the origin; the later one's win."""
    put = tuple(chain.from_iterable(each.arm.fields for each in assignments))
    return FieldEdits(put=put).applied(headers) if put else headers
