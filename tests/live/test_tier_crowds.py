"""A thousand clients at once, for one thing that nobody has: two edges of two workers each, before
a shield of two workers, before an origin that answers when all have asked.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.live import tiers
from tests.live.harness import eventually
from tests.live.hostile_harness import Answer, Origin, many, read_all, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.live.hostile_harness import Asked, Node, Wire

pytestmark = pytest.mark.live

CLIENTS = 500  # of each edge
BODY = bytes(range(256)) * 200  # 50 KiB
AT_WORK, WAITING = 8, 40


class Gate:
    """An origin's handler that answers once it is opened, `takes_s` after it was asked, and knows
    how many were in it at once."""

    def __init__(self, head: str, body: bytes = BODY, takes_s: float = 0.0) -> None:
        self.opened = threading.Event()
        self._takes_s = takes_s
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()
        self._answer = f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def __call__(self, _asked: Asked, wire: Wire) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        self.opened.wait(30)
        if self._takes_s:
            threading.Event().wait(self._takes_s)
        with self._lock:
            self._inside -= 1
        wire.send(self._answer)


@dataclass(frozen=True)
class World:
    origin: Origin
    gate: Gate
    shield: Node
    edges: list[Node]

    def ask_at_once(self, target: str) -> list[Answer]:
        """What a thousand clients get. The origin answers once they have all asked."""
        with ExitStack() as stack:
            crowds = [stack.enter_context(many(each.port, CLIENTS)) for each in self.edges]
            for sock in (one for crowd in crowds for one in crowd):
                sock.sendall(request(target, connection="close"))
            for each in self.edges:
                assert eventually(lambda each=each: busy(each) >= CLIENTS)  # type: ignore[misc]
            self.gate.opened.set()
            told = [read_all(sock, 30) for crowd in crowds for sock in crowd]
        return [answer for each in told for answer in each.answers()]


def busy(node: Node) -> int:
    """Connections on which a request is under way."""
    told = node.status()["connections"]
    return int(told["open"]) - int(told["idle"])


@contextmanager
def a_world(
    tmp_path: Path, gate: Gate, *, bound: str = "", without: str = "origin"
) -> Iterator[World]:
    with Origin(gate) as origin, ExitStack() as stack:
        origins = {"a": [origin.url]}
        shield = stack.enter_context(tiers.shield(tmp_path, origins, more={"a": bound}))
        edges = [
            stack.enter_context(
                tiers.edge(tmp_path, name, origins, behind=shield, without=without)
            )
            for name in ("edge1", "edge2")
        ]
        yield World(origin, gate, shield, edges)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("200 OK\r\nCache-Control: max-age=60", 200),
        ("404 Not Found\r\nCache-Control: max-age=60", 404),
    ],
)
def test_the_origin_is_asked_once_and_everyone_has_the_whole_answer(
    tmp_path: Path, head: str, status: int
) -> None:
    with a_world(tmp_path, Gate(head)) as world:
        answers = world.ask_at_once("/cold")
        assert len(answers) == 2 * CLIENTS
        assert {(each.status, each.whole, each.body == BODY) for each in answers} == {
            (status, True, True)
        }
        assert len(world.origin.asked_for("/cold")) == 1


def test_of_what_nobody_may_keep_the_origin_is_asked_so_many_at_once_and_others_are_told_to_wait(
    tmp_path: Path,
) -> None:
    gate = Gate("200 OK\r\nCache-Control: no-store", takes_s=0.05)
    bound = f'at_work = {AT_WORK}\nwaiting = {WAITING}\ntimeouts = {{ connect = "1s" }}'
    # An edge that may ask the origin itself does so, too, where it has too much for the shield.
    with a_world(tmp_path, gate, bound=bound, without="fail") as world:
        answers = world.ask_at_once("/cold")
        assert len(answers) == 2 * CLIENTS
        counts = Counter(each.status for each in answers)
        assert set(counts) <= {200, 503}
        assert counts[200] >= AT_WORK
        assert counts[503] > 0
        assert all(each.whole and each.body == BODY for each in answers if each.status == 200)
        assert all(each.field("retry-after") for each in answers if each.status == 503)
        assert 1 < gate.most <= AT_WORK
        assert len(world.origin.asked) == counts[200]
        again = world.edges[0].get("/cold")  # nothing of it is left behind
        assert (again.status, again.body) == (200, BODY)
