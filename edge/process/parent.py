"""The parent of a node: it binds, starts processes and starts them again.

It reads no client's bytes and runs no event loop but this one, so that forking is safe at any
time: one thread, no locks held, nothing of Trio's. Under it are the keeper (the journal, what
operators ask, Prometheus) and the workers, one for each slot. A slot's sockets are the parent's; a
process that dies is replaced, and who waited in its backlog waits for the next one. One that dies
at its start is started ever more slowly.

*Settings.* HUP, or the keeper on an operator's behalf, has them read. What is at fault changes
nothing. What running processes can take up is sent to them. For the rest (`trial.BECAUSE`) the
workers are replaced: all release their slots, which takes as long as it takes to write what is
queued for the disk; then new ones are started. Nobody is refused meanwhile, since the sockets
stay. The old ones drain. Some settings wait for the next start (`trial.LATER`): the keys' owners,
and the numbers in the store, hang on them.

*The end.* TERM and INT drain the workers, then the keeper; a second one waits for no request.
Whoever is late is killed. Where the parent itself is killed, the kernel kills the others.
"""

from __future__ import annotations

import gc
import math
import os
import secrets
import select
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from edge.cache.estate import Estate
from edge.cache.home import read_birth
from edge.cache.journal import shared_number
from edge.cache.leases import Leases
from edge.clock import Clock
from edge.coding.shelf import FOLDER, Shelf
from edge.observe.errorlog import ErrorLog
from edge.observe.tally import Tallies
from edge.process import keeper, worker
from edge.process.child import KEEPER, Child, Signals, how, in_words, start
from edge.process.doors import Doors, InnerDoors
from edge.process.leash import (
    Crew,
    Dismiss,
    Drain,
    Ready,
    Release,
    Released,
    Reload,
    Reloaded,
    Settings,
    Taken,
    told,
)
from edge.process.place import Place
from edge.process.roster import Roster
from edge.process.trial import (
    BECAUSE,
    KEEPERS,
    LATER,
    Change,
    changed,
    faults_of,
    store_directory,
    try_out,
)
from edge.settings import Fault
from edge.surroundings.board import Board

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from edge.config import Config
    from edge.process.leash import Up
    from edge.process.place import Source
    from edge.process.trade import Trade

GENERATIONS: Final = 4  # of workers that may be draining at once, each with a place to count
RELEASE_S: Final = 15.0
GRACE_S: Final = 10.0  # beyond `node.drain`
LAST_WORDS_S: Final = 2.0  # for one that says nothing more to its parent
STEADY_S: Final = 1.0  # who has lived so long is started again at once
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 5.0


def serve(trade: Trade, config: Config, text: bytes, source: Source) -> int:
    """Run a node with these settings, which stand in `text`, to its end; the exit code."""
    try:
        parent = Parent(trade, config, text, source)
    except (OSError, ValueError) as error:
        print(f"{trade.program}: {in_words(error)}", file=sys.stderr)
        return 1
    with parent:
        return parent.run()


class Parent:
    """The parent's own. Making one binds the node's addresses; raises OSError, ValueError."""

    def __init__(self, trade: Trade, config: Config, text: bytes, source: Source) -> None:
        self._trade = trade
        self._config, self._text = config, text
        self._source = source
        try_out(trade, config, ())
        self._workers = config.node.workers or len(os.sched_getaffinity(0))
        self._root = store_directory(config)
        self._log = ErrorLog(config.node.error_log)
        self._estate = Estate(self._root)
        self._estate.enter(self._workers)
        self._doors = Doors(self._workers)
        self._doors.open(config.node.listen)
        self._inner = InnerDoors(self._root, self._workers)
        self._clock = Clock()
        self._tallies = Tallies(self._workers * GENERATIONS)
        self._purge_number, self._leases = shared_number(), Leases()
        self._shelf = Shelf(self._root / FOLDER)
        self._board = Board(self._workers * GENERATIONS)
        self._salt = secrets.token_bytes(16)
        self._roster = Roster(self._workers, GENERATIONS)
        self._died = [0] * self._workers
        self._due: dict[int, float] = {}  # when a slot is to be filled again
        self._pauses: dict[int, float] = {}
        self._reload: Change | None = None
        self._asked: list[int] = []  # reloads that wait for the one under way; 0 for a HUP
        self._is_reborn = False  # the workers are of another birth than the journal
        self._was_ready = self._is_ending = False
        self._turn = self._code = 0

    def __enter__(self) -> Parent:
        self._signals = Signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        gc.collect()
        gc.freeze()  # what is here is here to stay, and its pages are shared by all
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._roster:
            child.kill()
        for child in self._roster:
            os.waitpid(child.pid, 0)
        self._inner.close()
        self._doors.keep_only(())
        self._estate.leave()
        self._log.close()
        self._signals.close()

    def run(self) -> int:
        """Run the node to its end; the exit code."""
        self._due[KEEPER] = 0.0
        while self._roster or self._due:
            self._wait()
            self._start_due()
            self._kill_late()
            while self._go_on():
                pass
        return self._code

    # What happens.

    def _wait(self) -> None:
        """Wait until something happens, and take note of it."""
        hearing = (child for child in self._roster if not child.is_deaf)
        by_number = {child.leash.fileno(): child for child in hearing}
        poll = select.poll()
        for number in (self._signals.fileno(), *by_number):
            poll.register(number, select.POLLIN)
        for number, _ in poll.poll(self._patience_ms()):
            if number == self._signals.fileno():
                self._heed_signals()
            else:
                self._hear(by_number[number])
        self._bury()

    def _patience_ms(self) -> float | None:
        times = [*self._due.values()]
        times += [child.kill_at for child in self._roster if child.kill_at is not None]
        if not times:
            return None
        return max(0.0, min(times) - time.monotonic()) * 1000 + 1

    def _heed_signals(self) -> None:
        numbers = self._signals.come()
        if signal.SIGHUP in numbers:
            self._asked.append(0)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._end()

    def _hear(self, child: Child) -> None:
        try:
            messages = child.leash.heard()
        except EOFError:
            child.is_deaf = True  # it is ending, and may have a word to say of why
            child.kill_at = min(child.kill_at or math.inf, time.monotonic() + LAST_WORDS_S)
            return
        for message in messages:
            self._take(child, message)

    def _take(self, child: Child, message: Up) -> None:
        match message:
            case Ready():
                child.is_ready = True
                before, self._estate.birth = self._estate.birth, read_birth(self._root)
                if self._was_ready and self._estate.birth != before:
                    self._is_reborn = True  # a keeper that found no journal has renewed it
                self._tell_crew()
            case Released():
                child.has_released = True
                if not child.is_leaving:  # somebody else has told it to drain
                    self._let_go(child)
            case Taken():
                child.taken = message.turn
                if message.turn == self._turn and not child.is_leaving:
                    child.kill_at = None
            case Reload():
                self._asked.append(message.ask)
            case Drain():
                self._end()

    def _bury(self) -> None:
        """Take note of those that have ended."""
        for child, status in self._roster.ended():
            if child.slot != KEEPER:
                self._tallies.vacate(child.tally)
                self._board.vacate(child.tally)
            if not child.is_leaving:
                self._mourn(child, status)
            elif child.slot == KEEPER and not self._is_ending:
                self._due[KEEPER] = 0.0  # its sockets are free now

    def _mourn(self, child: Child, status: int) -> None:
        """One has ended that was not told to."""
        if self._is_ending:
            return
        if not self._was_ready:  # it has said why
            self._code = 1
            self._end()
            return
        self._log.note("workers", f"{child.name} {how(status)}; it is started again")
        if child.slot != KEEPER:
            self._died[child.slot] += 1
        if not child.is_ready and self._reload is not None and self._reload.old is not None:
            self._go_back(self._reload, f"{child.name} {how(status)} on starting with them")
            return
        lived_s = time.monotonic() - child.began
        before = 0.0 if lived_s >= STEADY_S else self._pauses.get(child.slot, 0.0)
        self._pauses[child.slot] = min(LONGEST_PAUSE_S, 2 * before) or FIRST_PAUSE_S
        self._due[child.slot] = time.monotonic() + before

    # Starting.

    def _start_due(self) -> None:
        now = time.monotonic()
        for slot in [slot for slot, when in self._due.items() if when <= now]:
            if slot != KEEPER and self._roster.free_tally() is None:
                continue  # who was killed to make room has not quite ended
            del self._due[slot]
            try:
                self._start(slot)
            except OSError as error:  # no descriptors, or no memory, at the moment
                self._log.tell("workers", f"a process cannot be started: {in_words(error)}")
                self._due[slot] = time.monotonic() + LONGEST_PAUSE_S

    def _start(self, slot: int) -> None:
        """Have a process in this place, where one can count; raises OSError."""
        tally = 0 if slot == KEEPER else self._roster.free_tally() or 0
        work, leave = partial(self._work, slot, tally), partial(self._leave_to_parent, slot)
        child = start(slot, tally, work, leave, self._trade.program)
        child.taken = self._turn  # it was born with them
        self._roster.add(child)

    def _work(self, slot: int, tally: int, leash: socket.socket) -> None:
        serve = keeper.serve if slot == KEEPER else worker.serve
        serve(self._place(slot, tally, leash))

    def _place(self, slot: int, tally: int, leash: socket.socket) -> Place:
        is_worker = slot != KEEPER
        return Place(
            trade=self._trade,
            config=self._config,
            source=self._source,
            slot=slot,
            tally=tally,
            workers=self._workers,
            root=self._root,
            estate=self._estate,
            clock=self._clock,
            tallies=self._tallies,
            purge_number=self._purge_number,
            leases=self._leases,
            shelf=self._shelf,
            board=self._board,
            salt=self._salt,
            paths=self._inner.paths,
            desk=self._inner.desks[slot] if is_worker else self._inner.keeper,
            leash=leash,
            hop=self._inner.hops[slot] if is_worker else None,
            listeners=self._doors.of(slot, self._config.node.listen) if is_worker else (),
        )

    def _leave_to_parent(self, slot: int) -> None:
        """In the process for `slot`: let go of what is the parent's, and of others' doors, which
        are closed when the last process has closed them."""
        self._doors.forget_all_but(slot, self._config.node.listen)
        for child in self._roster:
            child.leash.close()
        self._signals.close()

    # What follows.

    def _go_on(self) -> bool:
        """Do what has become possible; whether more may have become so by that."""
        if self._is_ending:
            self._go_on_ending()
        elif not self._was_ready:
            return self._go_on_starting()
        elif self._reload is not None:
            return self._go_on_reloading(self._reload)
        elif self._is_reborn:
            self._begin_anew()
        elif self._asked:  # also where a process cannot be started: by new settings it may
            self._begin_reloading()
            return True
        return False

    def _go_on_starting(self) -> bool:
        kept = self._roster.of(KEEPER)
        if kept is None or not kept.is_ready:
            return False
        for slot in range(self._workers):
            if self._roster.of(slot) is None:
                self._due.setdefault(slot, 0.0)
        if self._roster.is_whole():
            self._was_ready = True
            print(f"ready {self._doors.told()}", flush=True)
        return self._was_ready

    def _tell_crew(self) -> None:
        kept = self._roster.of(KEEPER)
        if kept is not None:
            kept.say(Crew(self._roster.crew(self._died)))

    # Settings.

    def _begin_reloading(self) -> None:
        asked, self._asked = tuple(self._asked), []
        self._log.reopen()
        try:
            text = self._source.read()
            new = self._source.parse(text)
            later = changed(self._config, new, LATER)
            because = changed(self._config, new, BECAUSE)
            try_out(self._trade, new, because)
            self._doors.open(new.node.listen)
        except Exception as error:  # whatever it is, the old settings are good
            self._refuse(asked, faults_of(error))
            return
        for name in later:
            self._log.note("settings", f"{name} changed: it counts from the next start on")
        self._log.note("settings", f"read again from {self._source.name}")
        self._turn += 1
        self._reload = Change(asked, later, because, (self._config, self._text))
        self._config, self._text = new, text
        if "node.error_log" in because:
            self._log.close()
            self._log = ErrorLog(new.node.error_log)
        self._answer(self._reload, done=False)
        if because:
            self._release_all()
        self._send_settings()

    def _begin_anew(self) -> None:
        """Have workers of the journal's birth: those of another cannot read it."""
        self._is_reborn = False
        self._turn += 1
        self._reload = Change((), [], ["store.birth"], (self._config, self._text))
        self._release_all()
        self._send_settings()

    def _send_settings(self) -> None:
        for child in self._roster.staying():
            child.say(Settings(self._turn), self._text)
            if child.is_ready:
                child.kill_at = time.monotonic() + RELEASE_S

    def _refuse(self, asked: Iterable[int], faults: Iterable[Fault]) -> None:
        faults = list(faults)
        for fault in faults:
            self._log.note("settings", f"not taken: {fault.at(self._source.name)}")
        self._say_reloaded(asked, done=True, faults=told(faults))

    def _go_back(self, this: Change, why: str) -> None:
        """Workers cannot be started with these settings: start them with those from before."""
        assert this.old is not None
        (self._config, self._text), this.old = this.old, None
        this.faults = (Fault(None, "", None, f"{why}; the settings from before are in force"),)
        this.started = False
        self._log = ErrorLog(self._config.node.error_log)
        self._turn += 1
        self._release_all()
        self._send_settings()

    def _release_all(self) -> None:
        """Have the workers let others have their slots."""
        for slot in range(self._workers):
            self._due.pop(slot, None)  # all begin together
            child = self._roster.of(slot)
            if child is not None:
                child.is_leaving = True
                child.kill_at = time.monotonic() + RELEASE_S
                child.say(Release())

    def _go_on_reloading(self, this: Change) -> bool:
        if this.because and not this.started:
            leaving = self._roster.workers()
            if not all(child.has_released for child in leaving):
                return False
            this.started = True
            self._see_off(leaving)
            for slot in range(self._workers):
                self._due[slot] = 0.0
            return False
        behind = [child for child in self._roster.staying() if child.taken < self._turn]
        if behind or not self._roster.is_whole():
            return False
        self._reload = None
        self._doors.keep_only(self._config.node.listen)
        if this.faults:
            self._refuse(this.asked, this.faults)
            return True
        self._answer(this, done=True)
        if KEEPERS & set(this.because):
            self._end_keeper()  # for one that listens where the settings now say
        return True

    def _see_off(self, leaving: list[Child]) -> None:
        """Have those who drain end in time, and the oldest at once where too many count."""
        deadline = time.monotonic() + self._config.node.drain + GRACE_S
        for child in leaving:
            child.kill_at = child.end_by = min(deadline, child.end_by)
        over = len(leaving) - self._workers * (GENERATIONS - 1)
        for child in sorted(leaving, key=lambda each: each.began)[: max(0, over)]:
            child.kill()

    def _end_keeper(self) -> None:
        """Have the keeper end; another one follows, but at the end of all."""
        kept = self._roster.of(KEEPER)
        if kept is not None:
            kept.is_leaving = True
            kept.kill_at = time.monotonic() + GRACE_S
            kept.say(Drain())

    def _answer(self, this: Change, *, done: bool) -> None:
        later, because = tuple(this.later), tuple(this.because)
        replaced = bool(because)
        self._say_reloaded(this.asked, done=done, later=later, replaced=replaced, because=because)

    def _say_reloaded(self, asked: Iterable[int], **what: Any) -> None:
        kept = self._roster.of(KEEPER)
        for ask in filter(None, asked):
            if kept is not None:
                kept.say(Reloaded(ask, **what))

    # The end.

    def _end(self) -> None:
        """Drain; asked again, at once."""
        word = Drain(at_once=self._is_ending)
        self._is_ending = True
        self._due.clear()
        deadline = time.monotonic() + self._config.node.drain + GRACE_S
        for child in self._roster.workers():
            due = child.kill_at if child.is_leaving else None
            child.kill_at = min(deadline, due or deadline)
            child.is_leaving = True
            child.say(word)

    def _let_go(self, child: Child) -> None:
        """Have another process in the place of one that is ending."""
        child.is_leaving = True
        child.kill_at = time.monotonic() + self._config.node.drain + GRACE_S
        child.say(Dismiss())
        self._due[child.slot] = 0.0

    def _go_on_ending(self) -> None:
        workers = self._roster.workers()
        if workers and all(child.has_released for child in workers):
            for child in workers:
                child.say(Dismiss())  # told again and again, until it has ended
        if not workers:
            self._end_keeper()

    def _kill_late(self) -> None:
        for child in self._roster.late(time.monotonic()):
            child.kill_at = None
            self._log.note("workers", f"{child.name} did not end in time; it is killed")
            child.kill()
