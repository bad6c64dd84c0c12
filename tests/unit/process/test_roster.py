"""The roster: who has which place, who is late, who has ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edge.process.child import KEEPER, Child
from edge.process.leash import Worker, pair
from edge.process.roster import Roster
from tests.live.harness import eventually

if TYPE_CHECKING:
    import socket


def child_of(slot: int, tally: int, pid: int) -> tuple[Child, socket.socket]:
    leash, theirs = pair()
    return Child(slot, tally, pid, leash), theirs


def test_a_place_belongs_to_the_last_who_stays() -> None:
    roster = Roster(2, 2)
    made = [child_of(slot, tally, 100 + tally) for tally, slot in enumerate((0, 1, 0))]
    for child, _ in made:
        child.is_ready = True
        roster.add(child)
    first, second, third = (child for child, _ in made)
    first.is_leaving = True
    assert (roster.of(0), roster.of(1), roster.of(KEEPER)) == (third, second, None)
    assert (roster.workers(), roster.staying()) == ([first, second, third], [second, third])
    assert not roster.is_whole()
    keeper, theirs = child_of(KEEPER, 0, 7)
    keeper.is_ready = True
    roster.add(keeper)
    assert roster.is_whole()
    assert roster.free_tally() == 3
    late, last = child_of(1, 3, 103)
    roster.add(late)
    assert roster.free_tally() is None
    assert roster.crew([5, 6])[0] == Worker(0, third.pid, third.since, 5)
    second.kill_at, third.kill_at = 2.0, 3.0
    assert roster.late(2.5) == [second]
    for child, other in (*made, (keeper, theirs), (late, last)):
        child.leash.close()
        other.close()


def test_who_has_ended_is_told_once_and_struck_off() -> None:
    roster = Roster(1, 1)
    pid = os.fork()
    if not pid:
        os._exit(3)
    child, theirs = child_of(0, 0, pid)
    roster.add(child)
    found: list[tuple[Child, int]] = []

    def has_ended() -> bool:
        found.extend(roster.ended())
        return bool(found)

    assert eventually(has_ended)
    assert [(one, os.waitstatus_to_exitcode(how)) for one, how in found] == [(child, 3)]
    assert (len(roster), roster.ended(), roster.free_tally()) == (0, [], 0)
    theirs.close()
