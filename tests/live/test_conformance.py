"""The node as seen from outside: what CACHING decides, told as dialogues.

`vectors/behaviours.toml` is the table, and says how to read it. Here stand its runner, and the few
behaviours that need two hands: things that happen at once, or in time.
"""

from __future__ import annotations

import re
import threading
import time
import tomllib
from dataclasses import dataclass
from email.utils import formatdate
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.live.harness import (
    ENDS,
    Answer,
    Asked,
    Client,
    Node,
    Reply,
    ScriptedOrigin,
    eventually,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.live

TABLE = Path(__file__).parents[1] / "vectors" / "behaviours.toml"

FRESH = Reply.of(200, ["cache-control: max-age=60"], b"fresh")


# --- the table


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A line of the table; `each` is what stands for `{each}` in it."""

    says: str
    each: str
    sets: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]


def behaviours() -> Iterator[Behaviour]:
    for told in tomllib.loads(TABLE.read_text())["behaviour"]:
        for each in told.get("each", [""]):
            yield Behaviour(
                told["says"], str(each), tuple(told.get("sets", ())), tuple(told["steps"])
            )


_PLACE = re.compile(r"\{(?:(base)|([+-]?\d+)(?:\|([^}]*))?)\}")


def filled(text: str, each: str, base: str) -> str:
    """`text` with its places filled: `{each}`, `{base}`, and dates like `{-60}`."""

    def fill(place: re.Match[str]) -> str:
        if place[1]:
            return base
        when = time.time() + int(place[2])
        if place[3]:
            return time.strftime(place[3], time.gmtime(when))
        return formatdate(when, usegmt=True)

    return _PLACE.sub(fill, text.replace("{each}", each))


class Dialogue:
    """One behaviour, played step by step."""

    def __init__(self, case: Behaviour, node: Node, origin: ScriptedOrigin, token: str) -> None:
        self.case = case
        self.port = node.port
        self.origin = origin
        self.token = token
        self.base = f"/{token}"

    def play(self) -> None:
        for number, step in enumerate(self.case.steps, 1):
            try:
                self._play(step)
            except AssertionError as error:
                error.add_note(f"in step {number} of {self.case.says!r}: {step}")
                raise

    def _play(self, step: dict[str, Any]) -> None:
        script = step.get("origin", [])
        replies = [
            self._reply(told) for told in ([script] if isinstance(script, dict) else script)
        ]
        before = len(self.origin.requests(self.token))
        self.origin.script(self.token, *replies)
        if step.get("settles"):
            assert eventually(lambda: self._is_met(step)), f"last seen: {self._ask(step)}"
        else:
            self._check(step, self._ask(step))
        asked = self.origin.wait_requests(self.token, before + len(replies))[before:]
        assert len(asked) == len(replies), f"the origin was asked {len(asked)} times: {asked}"
        if asked:
            self._check_asked(step, asked[-1])

    def _ask(self, step: dict[str, Any]) -> Answer:
        method, _, target = self._text(step.get("ask", "GET")).partition(" ")
        fields = [self._text(line) for line in step.get("send", [])]
        with Client(self.port) as client:
            return client.ask(method, target or self.base, fields, step.get("body", "").encode())

    def _is_met(self, step: dict[str, Any]) -> bool:
        try:
            self._check(step, self._ask(step))
        except AssertionError:
            return False
        return True

    def _check(self, step: dict[str, Any], answer: Answer) -> None:
        if step.get("whatever"):
            return
        assert answer.status == int(self._text(str(step.get("status", 200)))), answer
        assert answer.whole, answer
        if "gets" in step:
            assert re.fullmatch(self._text(step["gets"]), answer.body.decode("latin-1")), answer
        self._check_fields(answer.field, step.get("has", []), step.get("lacks", []))

    def _check_asked(self, step: dict[str, Any], asked: Asked) -> None:
        if "method" in step:
            assert asked.method == step["method"]
        if "target" in step:
            assert asked.target == self._text(step["target"])
        self._check_fields(asked.field, step.get("asked", []), step.get("unasked", []))

    def _check_fields(
        self, field: Callable[[str], str | None], has: list[str], lacks: list[str]
    ) -> None:
        for line in has:
            name, _, expected = self._text(line).partition(": ")
            value = field(name)
            assert value is not None, f"no {name}"
            if expected.startswith("~"):
                assert re.search(expected[1:], value), f"{name}: {value}"
            else:
                assert value == expected, f"{name}: {value}"
        for name in lacks:
            assert field(name) is None, f"{name}: {field(name)}"

    def _reply(self, told: dict[str, Any]) -> Reply:
        then = ENDS[self._text(told.get("then", "keep"))]
        if "raw" in told:
            return Reply((told["raw"].encode("latin-1"),), then)
        fields = [self._text(line) for line in told.get("has", [])]
        status = int(self._text(str(told.get("status", 200))))
        reply = Reply.of(status, fields, told.get("body", "").encode(), then=then)
        if "late_s" in told:
            return Reply((b"", *reply.parts), reply.then, pause_s=told["late_s"])
        return reply

    def _text(self, text: str) -> str:
        return filled(text, self.case.each, self.base)


@pytest.fixture(scope="module")
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as origin:
        yield origin


class Nodes:
    """A node for each set of settings, started when it is first wanted."""

    def __init__(self, origin: ScriptedOrigin, directory: Callable[[], Path]) -> None:
        self._origin = origin
        self._directory = directory
        self._running: dict[tuple[str, ...], Node] = {}

    def having(self, *sets: str) -> Node:
        if sets not in self._running:
            self._running[sets] = Node(self._origin.url, self._directory(), sets).start()
        return self._running[sets]

    def stop(self) -> None:
        for node in self._running.values():
            node.stop()


@pytest.fixture(scope="module")
def nodes(origin: ScriptedOrigin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    nodes = Nodes(origin, lambda: tmp_path_factory.mktemp("node"))
    yield nodes
    nodes.stop()


_numbers = count(1)


@pytest.fixture
def token() -> str:
    """A path of the test's own on the origin."""
    return f"t{next(_numbers)}"


@pytest.mark.parametrize(
    "case",
    list(behaviours()),
    ids=lambda case: re.sub(r"\W+", "-", f"{case.says} {case.each}").strip("-"),
)
def test_the_node_behaves_as_the_table_says(
    case: Behaviour, nodes: Nodes, origin: ScriptedOrigin, token: str
) -> None:
    Dialogue(case, nodes.having(*case.sets), origin, token).play()


def test_the_table_says_each_thing_once() -> None:
    told = [(case.says, case.each) for case in behaviours()]
    assert len(told) == len(set(told))


# --- at once


@pytest.fixture
def node(nodes: Nodes) -> Node:
    return nodes.having()


def test_a_crowd_is_answered_by_one_fetch_and_told_so(
    node: Node, origin: ScriptedOrigin, token: str
) -> None:
    gate = threading.Event()
    origin.script(token, Reply.of(200, ["cache-control: max-age=60"], b"one", gate=gate))
    clients = [Client(node.port) for _ in range(8)]
    for client in clients:
        client.send(b"GET /%b/ HTTP/1.1\r\nhost: example.com\r\n\r\n" % token.encode())
    origin.wait_requests(token, 1)
    gate.set()
    answers = [client.receive() for client in clients]
    assert {answer.body for answer in answers} == {b"one"}
    assert len(origin.requests(token)) == 1
    told = [answer.field("cache-status") or "" for answer in answers]
    assert sum("fwd=uri-miss" in each and "; collapsed" not in each for each in told) == 1
    for client in clients:
        client.sock.close()


def test_a_crowd_whose_answer_is_cut_does_not_ask_again_one_by_one(
    node: Node, origin: ScriptedOrigin, token: str
) -> None:
    gate = threading.Event()
    cut = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 9\r\n\r\nabc"
    origin.script(token, Reply((cut,), "close", gate), *[Reply((cut,), "close")] * 40)
    clients = [Client(node.port) for _ in range(8)]
    for client in clients:
        client.send(b"GET /%b/ HTTP/1.1\r\nhost: example.com\r\n\r\n" % token.encode())
    origin.wait_requests(token, 1)
    gate.set()
    answers = [client.receive() for client in clients]
    assert all(answer.status == 502 or not answer.whole for answer in answers)
    assert len(origin.requests(token)) <= 2  # one may come too late for the crowd
    for client in clients:
        client.sock.close()


def test_stale_while_revalidate_fetches_once_for_many(
    node: Node, origin: ScriptedOrigin, token: str
) -> None:
    stale = ["cache-control: max-age=60, stale-while-revalidate=600", "age: 61"]
    gate = threading.Event()
    origin.script(token, Reply.of(200, stale, b"old"))
    with Client(node.port) as client:
        assert client.ask("GET", f"/{token}/").body == b"old"
        origin.script(token, Reply.of(200, ["cache-control: max-age=60"], b"new", gate=gate))
        assert [client.ask("GET", f"/{token}/").body for _ in range(5)] == [b"old"] * 5
        gate.set()
        assert eventually(lambda: client.ask("GET", f"/{token}/").body == b"new")
    assert len(origin.requests(token)) == 2


def test_an_interim_answer_is_passed_on_before_the_final_one(
    node: Node, origin: ScriptedOrigin, token: str
) -> None:
    gate = threading.Event()
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
    origin.script(token, Reply((hint, *FRESH.parts), gate=gate))
    with Client(node.port) as client:
        client.send(b"GET /%b/ HTTP/1.1\r\nhost: example.com\r\n\r\n" % token.encode())
        status, fields = client.receive_head()
        assert (status, dict(fields)["link"]) == (103, "</a.css>; rel=preload")
        gate.set()
        assert client.receive().body == b"fresh"
        assert client.ask("GET", f"/{token}/").interims == ()  # a hit: never stored


# --- in time


def test_an_idle_connection_is_ended_before_the_origin_would(
    node: Node, origin: ScriptedOrigin, token: str
) -> None:
    origin.script(token, Reply.of(200, ["cache-control: no-store", "keep-alive: timeout=3"]))
    with Client(node.port) as client:
        client.ask("GET", f"/{token}/")
    used = origin.requests(token)[0].connection
    assert origin.wait_closed(used, within_s=3.0)


def test_variants_are_capped_and_the_least_used_goes_first(
    node: Node, origin: ScriptedOrigin, token: str
) -> None:
    varied = Reply.of(200, ["cache-control: max-age=60", "vary: x-kind"])
    origin.script(token, *[varied] * 40)
    with Client(node.port) as client:
        for kind in range(40):
            client.ask("GET", f"/{token}/", [f"x-kind: {kind}"])
        assert client.ask("GET", f"/{token}/", ["x-kind: 39"]).field("age") is not None
        origin.script(token, varied)
        assert client.ask("GET", f"/{token}/", ["x-kind: 0"]).field("age") is None
    assert len(origin.requests(token)) == 41


def test_a_body_that_ends_early_is_broken_off_and_not_stored(
    node: Node, origin: ScriptedOrigin, token: str
) -> None:
    gate = threading.Event()
    head = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 9\r\n\r\nabc"
    origin.script(token, Reply((head, b"def"), "close", gate))
    with Client(node.port) as client:
        client.send(b"GET /%b/ HTTP/1.1\r\nhost: example.com\r\n\r\n" % token.encode())
        status, fields = client.receive_head()
        gate.set()
        assert client.receive_body("GET", status, fields) == (b"abcdef", False)
    origin.script(token, FRESH)
    with Client(node.port) as client:
        assert client.ask("GET", f"/{token}/").body == b"fresh"
