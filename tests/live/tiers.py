"""Edges, a shield and their settings files, for tests of more than one tier; and load for them.

    with ScriptedOrigin() as origin, shield(tmp, {"a": [origin.url]}) as behind:
        with edge(tmp, "edge1", {"a": [origin.url]}, shield=behind) as node:
            node.get("/")

Every node has two workers. `[origin.NAME]` of a name in `more` has those lines, too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.live.fault_load import Client
from tests.live.hostile_harness import EDGE, ROOT, Node, children_of, free_port
from tests.live.named_origin import body_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SHIELD = (sys.executable, "-m", "origin_shield")
SECRET = "0123456789abcdef0123456789abcdef"
EUROPE, AMERICA, ASIA = "192.0.2.10", "198.51.100.10", "203.0.113.10"  # of geo_data/sample.csv
PLACES = {"eu": (50.1, 8.7), "us": (39.0, -77.5), "ap": (1.35, 103.8)}


def geodata(directory: Path) -> Path:
    """The database of the sample's made-up regions."""
    made = directory / "city.mmdb"
    command = [sys.executable, str(ROOT / "tools" / "geodata"), "sample", "--out", str(made)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=environment)
    return made


def order(node: Node, *args: str) -> str:
    """What `edge ARGS` says to a node; it must have gone well."""
    command = [*EDGE, *args, "--socket", str(node.admin)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    return told.stdout


def origin_tables(origins: Mapping[str, Sequence[str]], more: Mapping[str, str]) -> str:
    """`[origin.NAME]` for each."""
    tables = []
    for name, urls in origins.items():
        lines = [f"[origin.{name}]", f"servers = {list(urls)!r}"]
        if name in PLACES:
            lines.append(f"at = {list(PLACES[name])}")
        tables += [*lines, more.get(name, "")]
    return "\n".join(tables)


def _head(directory: Path, name: str, port: int, *lines: str) -> str:
    return f"""
[node]
name = "{name}"
listen = ["127.0.0.1:{port}"]
workers = 2
admin = "{directory / "admin.sock"}"
access_log = "{directory / "access.log"}"
error_log = "{directory / "error.log"}"
trusted_proxies = ["127.0.0.0/8"]
drain = "1s"
{chr(10).join(lines)}
[store]
dir = "{directory / "store"}"
memory = "64MiB"
"""


def _secret(directory: Path, secret: str) -> Path:
    file = directory / "secret"
    file.write_text(secret)
    file.chmod(0o600)
    return file


@contextmanager
def shield(
    directory: Path,
    origins: Mapping[str, Sequence[str]],
    *,
    name: str = "shield1",
    site: str = "",
    more: Mapping[str, str] | None = None,
    secret: str = SECRET,
) -> Iterator[Node]:
    """A running shield that asks `origins` in their order."""
    place, port = directory / name, free_port()
    place.mkdir(parents=True, exist_ok=True)
    file = place / "shield.toml"
    file.write_text(
        _head(place, name, port).replace('trusted_proxies = ["127.0.0.0/8"]\n', "")
        + origin_tables(origins, more or {})
        + f"""
[edges]
secret = {{ file = "{_secret(place, secret)}" }}
[[site]]
hosts = ["*"]
route = {{ first = {list(origins)!r} }}
{site}
"""
    )
    node = Node(place, "", port=port, file=file, program=SHIELD)
    try:
        yield node.start()
    finally:
        thaw(node)
        node.stop()


@contextmanager
def edge(
    directory: Path,
    name: str,
    origins: Mapping[str, Sequence[str]],
    *,
    behind: Node | None = None,
    without: str = "origin",
    patience: str = "",
    route: str = "",
    node: str = "",
    site: str = "",
    more: Mapping[str, str] | None = None,
    secret: str = SECRET,
) -> Iterator[Node]:
    """A running edge, `behind` a shield or not; `patience` is its with that."""
    place, port = directory / name, free_port()
    place.mkdir(parents=True, exist_ok=True)
    file, tier, via = place / "edge.toml", "", ""
    if behind is not None:
        via = ', via = "shield"'
        tier = f"""
[shield]
nodes = ["http://127.0.0.1:{behind.port}"]
secret = {{ file = "{_secret(place, secret)}" }}
without = "{without}"
{patience}
"""
    file.write_text(
        _head(place, name, port, node)
        + tier
        + origin_tables(origins, more or {})
        + f"""
[[site]]
hosts = ["*"]
route = {{ {route or f"first = {list(origins)!r}"}{via} }}
{site}
"""
    )
    with Node(place, "", port=port, file=file) as made:
        yield made


def family(node: Node) -> list[int]:
    """A node's processes: its parent first, then keeper and workers."""
    return [node.pid, *children_of(node.pid)]


def freeze(node: Node) -> None:
    """Stop all processes of a node: nobody answers, and connections stay as they are."""
    for pid in family(node):
        os.kill(pid, signal.SIGSTOP)


def thaw(node: Node) -> None:
    """Let them go on."""
    if node.is_running():
        for pid in family(node):
            os.kill(pid, signal.SIGCONT)


def kill_all(node: Node) -> None:
    """kill -9 of all processes of a node at once."""
    for pid in family(node)[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.kill()


@dataclass(frozen=True)
class Served:
    """One request of a load: when it was sent and answered, and by which origin."""

    sent: float
    ended: float
    origin: str
    fault: str = ""


class Steady:
    """Requests at a rate, at even times, from one client address, each for a target of its own.

    `kind` begins the target: `u` must not be stored, `m` may be. Who reads `seen` while the load
    runs takes a copy.
    """

    THREADS = 16

    def __init__(
        self, port: int, *, kind: str = "u", rate_per_s: int = 200, address: str = EUROPE
    ) -> None:
        self.seen: list[Served] = []
        self._port = port
        self._kind = kind
        self._fields = (f"X-Forwarded-For: {address}",)
        self._pause_s = self.THREADS / rate_per_s
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(self.THREADS)
        ]

    def __enter__(self) -> Steady:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def faults(self) -> list[str]:
        """What went wrong."""
        return [each.fault for each in self.seen if each.fault]

    def since(self, when: float) -> list[Served]:
        """What was sent from that moment on, in the order of the answers."""
        return [each for each in list(self.seen) if each.sent >= when]

    def wait_sent_until(self, when: float, patience_s: float = 60.0) -> None:
        """Until a request that was sent after this moment has been answered."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.seen[-1:] and self.since(when), patience_s)

    def wait_for(self, origin: str, patience_s: float = 30.0) -> float:
        """Until this origin answers; when it did first, of what was sent from now on."""
        now = time.monotonic()
        with self._changed:
            assert self._changed.wait_for(
                lambda: any(each.origin == origin for each in self.since(now)), patience_s
            )
        return min(each.ended for each in self.since(now) if each.origin == origin)

    def _work(self, number: int) -> None:
        client, asked = Client(self._port), 0
        due = self._began + self._pause_s * number / self.THREADS
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._pause_s, time.monotonic() - 1.0)
            asked += 1
            self._ask(client, f"/{self._kind}/{id(self)}-{number}-{asked}")
        client.close()

    def _ask(self, client: Client, target: str) -> None:
        began = time.monotonic()
        answer = client.ask(target, *self._fields)
        fault = ""
        if answer is None:
            fault = f"{target}: no answer"
        elif answer.status != 200 or not answer.whole or answer.body != body_of(target):
            fault = f"{target}: {answer.status} {answer.whole} {answer.field('cache-status')}"
        origin = (answer.field("x-origin") or "") if answer else ""
        with self._changed:
            self.seen.append(Served(began, time.monotonic(), origin, fault))
            self._changed.notify_all()
