"""Varnish beside this node: what a ban takes, and what it costs the requests that come later.

Both stand before the same origin. Varnish is filled until its memory is full or it has as many
objects as the scenario; a ban names one tag in a header, as an expression. Then bans that match
nothing are added, and a set of objects is asked for, each of them once: so each has to be held
against every ban that is new to it, as whatever is asked for less often than things are banned.
This node is asked the same way behind as many purges.

The lurker, which does that in the background and drops bans that all objects have been held
against, is measured on and off. It is told to begin after a second instead of a minute, and given
time for all objects; its pace is Varnish's default. What it used is told beside. This node has all
objects in memory, as Varnish, and none on disk, so there is nothing to sweep; what sweeping takes
is told by the scenario's first part.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count as numbers_from
from statistics import median
from typing import TYPE_CHECKING, Final

import trio

from tools.benchmark.admin import purge_tags, timed_purge
from tools.benchmark.figures import percentile
from tools.benchmark.report import MIB, Report, progress
from tools.benchmark.servers import (
    NotReady,
    Server,
    program,
    running,
    start_node,
    start_plain_origin,
)
from tools.benchmark.varnish import start_varnish
from tools.benchmark.wrk import run_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tools.benchmark.catalogue import Shape
    from tools.benchmark.report import Wishes

MEMORY: Final = "512M"
TAGS_SHARE: Final = 10  # so many times fewer tags than objects
FILLED_AT_ONCE: Final = 20_000
ASKED: Final = 20_000  # objects, each once in a run
QUICK_ASKED: Final = 2000
CONNECTIONS: Final = 32
ROUNDS: Final = 3
BANS: Final = 100
COMMANDS: Final = 20
LEVELS: Final = (0, 1, 100, 1000)
MANY: Final = 100_000  # purges that this node is given beyond those
LURKER_AGE_S: Final = 1.0  # the least that Varnish takes but for zero
LURKED_PER_S: Final = 100_000  # objects: its default pace, where it has the processor for it
MEMORY_ALONE: Final = ("--set", "store.free_floor=1024TiB")  # more than is free: no rows


def measure(wishes: Wishes, shape: Shape, report: Report) -> None:
    """Varnish and this node in turn, where Varnish is installed."""
    path, wrk = program("varnishd"), program("wrk")
    if path is None or wrk is None:
        report.say("  not measured beside Varnish: it, or wrk, is missing")
        return
    place = wishes.directory / "bans"
    with ExitStack() as stack:
        origin = stack.enter_context(running(start_plain_origin(place / "origin")))
        server, port = start_varnish(path, place / "varnish", origin.url, MEMORY)
        stack.enter_context(running(server))
        admin = place / "node" / "admin"
        options = ("--admin", str(admin), *MEMORY_ALONE)
        node = start_node(place / "node", origin.url, extra=options)
        stack.enter_context(running(node))
        load = Load(wrk, place, max(1000, shape.objects // TAGS_SHARE))
        varnish = Varnish(server, port, place / "varnish")
        _measure(wishes, shape, load, varnish, Purger(node, admin), report)


def _measure(
    wishes: Wishes, shape: Shape, load: Load, varnish: Varnish, node: Purger, report: Report
) -> None:
    held = _fill(load, varnish, shape.objects)
    asked = min(QUICK_ASKED if shape.is_quick else ASKED, held)
    progress(f"filling this node with {asked:,} objects")
    load.once(node.server, 0, asked)
    resident = varnish.server.resident_bytes() / MIB
    report.say(f"  Varnish holds {held:,} objects in malloc,{MEMORY}; resident {resident:.0f} MiB")
    _time_bans(load, varnish, node, held, report)
    load.once(varnish.server, 0, asked)  # what was banned, or gave way to others, is there again
    rounds, missed = wishes.rounds or ROUNDS, varnish.counter("cache_miss")
    report.say(
        f"  CPU µs a hit behind so many bans or purges that match nothing; medians of {rounds} "
        f"rounds of {asked:,} objects, each asked for once"
    )
    report.say(f"  {'':28}{''.join(f'{level:>9,}' for level in LEVELS)}")
    lurker_s = LURKER_AGE_S + held / LURKED_PER_S
    for name, pause, settle_s in (("lurker on", 0.01, lurker_s), ("lurker off", 0.0, 0.0)):
        varnish.set_lurker(pause)
        server, forget = varnish.server, varnish.ban_nothing
        costs = _costs(load, server, forget, asked, rounds, settle_s=settle_s)
        _tell_costs(f"Varnish, {name}", costs, report, has_lurker=pause > 0)
    missed = varnish.counter("cache_miss") - missed
    if missed > asked // 100:
        report.fault(f"Varnish missed {missed} objects that it should have held")
    server, forget = node.server, node.purge_nothing
    costs = _costs(load, server, forget, asked, rounds)
    _tell_costs("this node", costs, report)
    many = min(MANY, shape.objects // TAGS_SHARE)
    progress(f"{many:,} purges for this node")
    forget(many)
    costs = _costs(load, server, forget, asked, rounds, levels=(0, 1))
    _tell_costs(f"this node, {many:,} more", costs, report)


# --- load ---------------------------------------------------------------------


@dataclass(slots=True)
class Load:
    """Asks for tagged objects by their numbers. `tags` is how many tags there are."""

    wrk: str
    place: Path
    tags: int

    def target(self, number: int) -> str:
        """The target of one object; the script makes the same."""
        first, second, third = self.tags_of(number)
        return f"/tagged/{first}/{second}/{third}/{number}"

    def tags_of(self, number: int) -> tuple[str, str, str]:
        """The tags of one object, the first of which says the most."""
        tags = self.tags
        return f"t{number % tags}", f"t{number * 7 % tags}", f"t{number * 13 % tags}"

    def once(self, server: Server, first: int, count: int) -> float:
        """Ask for `count` objects, each once, and wait: CPU µs for each."""
        script = self.place / "once.lua"
        script.write_text(ONCE % {"first": first, "count": count, "tags": self.tags})
        before = server.cpu_s()
        load = run_until(self.wrk, server, script, ONCE_DONE, connections=CONNECTIONS)
        used = server.cpu_s() - before
        if load.requests < count:
            raise NotReady(f"{load.requests} of {count} requests were answered")
        return 1e6 * used / load.requests


ONCE_DONE: Final = "all answered"
ONCE: Final = """\
local first, count, tags, asked, seen = %(first)d, %(count)d, %(tags)d, 0, 0
function request()
  local n = first + asked %% count
  asked = asked + 1
  return wrk.format("GET", string.format("/tagged/t%%d/t%%d/t%%d/%%d",
    n %% tags, n * 7 %% tags, n * 13 %% tags, n))
end
function response()
  seen = seen + 1
  if seen == count then
    wrk.thread:stop()
    io.write("all answered\\n")
    io.flush()
  end
end
"""


# --- Varnish ------------------------------------------------------------------


class Cli:
    """Varnish's command line over its management port, as `varnishadm` speaks it."""

    def __init__(self, port: int, secret: bytes) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        status, text = self._read()
        if status == 107:
            challenge = text[:33]  # 32 characters and the end of their line
            known = hashlib.sha256(challenge + secret + challenge).hexdigest()
            self.ask(f"auth {known}")

    def ask(self, command: str) -> str:
        """What Varnish says to a command; raises `NotReady` where it refuses."""
        self._sock.sendall(command.encode() + b"\n")
        status, text = self._read()
        if status != 200:
            raise NotReady(f"varnish: {command}: {status} {text.decode()}")
        return text.decode()

    def _read(self) -> tuple[int, bytes]:
        head = self._exactly(13)
        return int(head[:3]), self._exactly(int(head[4:12]) + 1)[:-1]

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._sock.recv(size - len(data))
            if not piece:
                raise NotReady("varnish: its command line has ended")
            data += piece
        return data

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


@dataclass(slots=True)
class Varnish:
    """A running Varnish, its command line open."""

    server: Server
    port: int
    directory: Path
    cli: Cli = field(init=False)
    _unused: Iterator[int] = field(init=False, default_factory=numbers_from)

    def __post_init__(self) -> None:
        self.cli = Cli(self.port, (self.directory / "secret").read_bytes())

    def ban(self, tag: str) -> float:
        """Seconds until a ban of a tag was acknowledged."""
        began = time.perf_counter()
        self.cli.ask(ban_of(tag))
        return time.perf_counter() - began

    def ban_nothing(self, count: int) -> None:
        """Ban so many tags that nothing has."""
        for _ in range(count):
            self.ban(f"unused-{next(self._unused)}")

    def set_lurker(self, pause_s: float) -> None:
        """How long the lurker sleeps between steps; 0 is off."""
        self.cli.ask(f"param.set ban_lurker_age {LURKER_AGE_S}")
        self.cli.ask(f"param.set ban_lurker_sleep {pause_s}")

    def counter(self, name: str) -> int:
        """One of Varnish's counters."""
        command = ["varnishstat", "-n", str(self.directory / "work"), "-j", "-f", f"MAIN.{name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        told = json.loads(done.stdout)
        return int(told.get("counters", told)[f"MAIN.{name}"]["value"])


def ban_of(tag: str) -> str:
    """The command that bans one tag: the field must hold it as a whole word."""
    return rf"ban obj.http.surrogate-key ~ (^|\\s){tag}(\\s|$)"


def _fill(load: Load, varnish: Varnish, objects: int) -> int:
    """Ask for objects until memory is full or all are there: how many it holds."""
    varnish.set_lurker(0.0)
    for first in range(0, objects, FILLED_AT_ONCE):
        load.once(varnish.server, first, min(FILLED_AT_ONCE, objects - first))
        progress(f"Varnish has been asked for {first + FILLED_AT_ONCE:,} objects")
        if varnish.counter("n_lru_nuked"):
            break
    return varnish.counter("n_object")


# --- this node ----------------------------------------------------------------


@dataclass(slots=True)
class Purger:
    """A running node, purged over its admin socket."""

    server: Server
    admin: Path
    _unused: Iterator[int] = field(init=False, default_factory=numbers_from)

    def purge(self, tag: str) -> float:
        """Seconds until a purge of a tag was acknowledged."""

        async def purge() -> float:
            return await timed_purge(self.admin, tag=[tag])

        return trio.run(purge)

    def purge_nothing(self, count: int) -> None:
        """Purge so many tags that nothing has."""
        tags = iter([f"unused-{next(self._unused)}" for _ in range(count)])
        trio.run(purge_tags, self.admin, tags)


# --- measuring ----------------------------------------------------------------


def _time_bans(load: Load, varnish: Varnish, node: Purger, held: int, report: Report) -> None:
    progress("banning and purging")
    chance = random.Random(2)
    waits: dict[str, list[float]] = {"Varnish, ban": [], "this node, purge": []}
    served = 0
    for _ in range(BANS):
        number = chance.randrange(held)
        tag, target = load.tags_of(number)[0], load.target(number)
        for name, server, forget in (
            ("Varnish, ban", varnish.server, varnish.ban),
            ("this node, purge", node.server, node.purge),
        ):
            _is_hit(server, target)  # it is there now
            if not _is_hit(server, target):
                report.fault(f"{server.name}: {target} is not stored")
            waits[name].append(forget(tag))
            served += _is_hit(server, target)
    waits["Varnish, varnishadm ban"] = _time_commands(varnish)
    for name, each in waits.items():
        told = "".join(f"{1000 * percentile(each, share):>9.2f}" for share in (0.5, 0.99))
        report.say(f"  {name:28}p50, p99 {told} ms (n {len(each)})")
    report.figures["ban"] = {"objects": held, "waits_s": waits}
    if served:
        report.fault(f"{served} objects served after they were banned or purged")


def _time_commands(varnish: Varnish) -> list[float]:
    """The same by `varnishadm`, a process of its own."""
    waits = []
    address = ["-T", f"127.0.0.1:{varnish.port}", "-S", str(varnish.directory / "secret")]
    for number in range(COMMANDS):
        began = time.perf_counter()
        command = ["varnishadm", *address, ban_of(f"gone-{number}")]
        subprocess.run(command, capture_output=True, check=True)
        waits.append(time.perf_counter() - began)
    return waits


def _is_hit(server: Server, target: str) -> bool:
    with urllib.request.urlopen(server.url + target, timeout=30) as answer:
        answer.read()
        status = answer.headers.get("Cache-Status")
        # Varnish names the request, and on a hit the one that fetched the object.
        return "hit" in status if status else len(answer.headers["X-Varnish"].split()) == 2


@dataclass(slots=True)
class Costs:
    """CPU µs a hit behind so many bans or purges, round by round, and what these took before."""

    hits_us: dict[int, list[float]]
    before_s: dict[int, list[float]]


def _costs(
    load: Load,
    server: Server,
    forget: Callable[[int], None],
    asked: int,
    rounds: int,
    *,
    levels: tuple[int, ...] = LEVELS,
    settle_s: float = 0.0,
) -> Costs:
    """What hits cost behind so many bans or purges that are new to each object."""
    costs = Costs({level: [] for level in levels}, {level: [] for level in levels})
    load.once(server, 0, asked)  # what came before is behind them
    for number in range(rounds):
        progress(f"{server.name}: round {number + 1} of {rounds}")
        for level in levels if number % 2 == 0 else levels[::-1]:
            before = server.cpu_s()
            forget(level)
            time.sleep(settle_s if level else 0.0)
            costs.before_s[level].append(server.cpu_s() - before)
            costs.hits_us[level].append(load.once(server, 0, asked))
    return costs


def _tell_costs(name: str, costs: Costs, report: Report, *, has_lurker: bool = False) -> None:
    cells = "".join(f"{median(each):>9.1f}" for each in costs.hits_us.values())
    report.say(f"  {name:28}{cells}")
    if has_lurker:
        spent = "".join(f"{1000 * median(each):>9.0f}" for each in costs.before_s.values())
        report.say(f"  {'  before that, CPU ms':28}{spent}")
    report.figures[name] = {
        "cpu_us": {str(level): each for level, each in costs.hits_us.items()},
        "cpu_s_before": {str(level): each for level, each in costs.before_s.items()},
    }
