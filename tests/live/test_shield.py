"""A shield of two workers before an origin: edges are answered, and nobody else is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from edge.wire.message import Headers, RequestHead
from edge.wire.proof import Claims, sign
from tests.live.harness import Answer, Client, Reply, ScriptedOrigin, eventually
from tests.live.hostile_harness import Node, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.live.harness import Asked

pytestmark = pytest.mark.live

SECRET, NEXT = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
SHIELD = (sys.executable, "-m", "origin_shield")
FRESH = ["cache-control: max-age=60", "cache-tag: front"]
HOST = b"example.com"

_ids = count(1)


@contextmanager
def a_shield(directory: Path) -> Iterator[tuple[Node, ScriptedOrigin]]:
    port, file = free_port(), directory / "shield.toml"
    (directory / "next").write_text(NEXT)
    (directory / "next").chmod(0o600)
    with ScriptedOrigin() as origin:
        file.write_text(
            f"""
[node]
name = "shield1"
listen = ["127.0.0.1:{port}"]
workers = 2
admin = "{directory / "admin.sock"}"
access_log = "{directory / "access.log"}"
error_log = "{directory / "error.log"}"
drain = "3s"
[store]
dir = "{directory / "store"}"
memory = "64MiB"
[origin.a]
servers = ["{origin.url}"]
[[site]]
hosts = ["*"]
route = {{ first = ["a"] }}
[edges]
secret = {{ env = "SHIELD_SECRET" }}
secrets = [{{ file = "{directory / "next"}" }}]
networks = ["127.0.0.0/8"]
"""
        )
        environment = {"SHIELD_SECRET": SECRET}
        with Node(
            directory, "", port=port, file=file, program=SHIELD, environment=environment
        ) as node:
            yield node, origin
            assert origin.unexpected == []


def claims(**more: object) -> Claims:
    made = Claims(edge=b"fra1", id=b"e-%d" % next(_ids), hops=(b"203.0.113.9",), scheme=b"https")
    return replace(made, **more)  # type: ignore[arg-type]


def proof(
    method: str,
    target: str,
    *fields: str,
    said: Claims | None = None,
    secret: str = SECRET,
    off_s: float = 0.0,
) -> list[str]:
    """The fields of a request, and the one that proves it."""
    pairs = [tuple(part.encode() for part in each.split(": ")) for each in fields]
    head = RequestHead(method.encode(), b"http", HOST, target.encode(), Headers(pairs))  # type: ignore[arg-type]
    value = sign(secret.encode(), head, said or claims(), time.time() + off_s)
    return [*fields, f"edge-proof: {value.decode()}"]


def ask(node: Node, method: str, target: str, fields: list[str], body: bytes = b"") -> Answer:
    with Client(node.port) as client:
        return client.ask(method, target, fields, body)


def signed(node: Node, target: str, *fields: str, **how: object) -> Answer:
    return ask(node, "GET", target, proof("GET", target, *fields, **how))  # type: ignore[arg-type]


def test_an_edge_is_answered_and_what_it_is_told_is_stored(tmp_path: Path) -> None:
    with a_shield(tmp_path) as (node, origin):
        origin.script("news", Reply.of(200, FRESH, b"old"))
        said = claims(key=b"")
        first = signed(node, "/news/", "x-geo-country: DE", "x-forwarded-for: 6.6.6.6", said=said)
        assert (first.status, first.body, first.field("age")) == (200, b"old", None)
        for _ in range(8):  # by both workers, so by the hop, too
            again = signed(node, "/news/")
            assert (again.status, again.body) == (200, b"old")
            assert again.field("cache-status") == f"shield1; hit; ttl={_ttl(again)}"
        (asked,) = origin.requests("news")
        _assert_told(asked)
        assert eventually(lambda: len(_logged(node)) == 9)
        assert said.id.decode() in {record["id"] for record in _logged(node)}
        assert all(record["id"].startswith("e-") for record in _logged(node))
        assert {record["client"] for record in _logged(node)} == {"203.0.113.9"}


def _ttl(answer: Answer) -> str:
    return (answer.field("cache-status") or "").rpartition("=")[2]


def _logged(node: Node) -> list[dict[str, Any]]:
    return [json.loads(line) for line in node.access_log.read_text().splitlines()]


def _assert_told(asked: Asked) -> None:
    """The origin knows of the client what the edge has proven, and of the proof nothing."""
    assert asked.field("x-geo-country") == "DE"
    assert asked.field("x-forwarded-for") == "203.0.113.9, 127.0.0.1"
    assert asked.field("x-forwarded-proto") == "https"
    assert asked.field("edge-proof") is None


def test_what_an_edge_keys_by_and_asks_for_is_followed(tmp_path: Path) -> None:
    with a_shield(tmp_path) as (node, origin):
        origin.script("arm", Reply.of(200, FRESH, b"of the arm"))
        origin.script("page", Reply.of(200, FRESH, b"of all"))
        arm = {"key": b"arm", "target": b"/arm/page"}
        for _ in range(4):
            assert signed(node, "/page/", said=claims(**arm)).body == b"of the arm"
            assert signed(node, "/page/").body == b"of all"


def test_everyone_else_is_refused_whatever_they_ask(tmp_path: Path) -> None:
    with a_shield(tmp_path) as (node, origin):
        good = proof("GET", "/secret/")
        tries = {
            "no-proof": ("GET", "/secret/", []),
            "bad-proof": ("GET", "/other/", good),
            "proof-expired": ("GET", "/secret/", proof("GET", "/secret/", off_s=-61)),
        }
        for why, (method, target, fields) in tries.items():
            told = ask(node, method, target, fields)
            assert (told.status, told.field("connection")) == (403, "close")
            assert told.field("cache-status") == f"shield1; detail={why}"
        forged = [*good[:-1], good[-1].replace("203.0.113.9", "203.0.113.8")]
        assert ask(node, "GET", "/secret/", forged).status == 403
        stranger = proof("GET", "/secret/", secret="another secret, of somebody")
        assert ask(node, "GET", "/secret/", stranger).status == 403
        assert ask(node, "PURGE", "/secret/", []).status == 403
        assert ask(node, "OPTIONS", "*", ["max-forwards: 0"]).status == 403
        assert node.complaints() == ""
        origin.script("secret", Reply.of(200, FRESH, b"x"))
        assert ask(node, "GET", "/secret/", good).status == 200
        assert signed(node, "/secret/", secret=NEXT).status == 200  # the other one counts, too


def test_an_unsafe_request_is_not_done_twice(tmp_path: Path) -> None:
    with a_shield(tmp_path) as (node, origin):
        origin.script("order", *[Reply.of(200, [], b"done")] * 2)
        once = proof("POST", "/order/")
        assert ask(node, "POST", "/order/", once, b"one").status == 200
        for _ in range(6):  # whichever worker it comes to
            told = ask(node, "POST", "/order/", once, b"one")
            assert told.status == 403
            assert told.field("cache-status") == "shield1; detail=proof-used"
        again = proof("POST", "/order/")
        assert ask(node, "POST", "/order/", again, b"one").status == 200
        assert len(origin.requests("order")) == 2
        proofs = node.status()["proofs"]
        assert (proofs["noted"], proofs["refused"]) == (2, 6)


def test_an_edge_asks_how_a_shield_is(tmp_path: Path) -> None:
    with a_shield(tmp_path) as (node, _):
        ping = proof("OPTIONS", "*", "max-forwards: 0")
        with Client(node.port) as client:
            for _ in range(3):
                assert client.ask("OPTIONS", "*", ping).status == 200


def test_what_is_purged_is_fetched_anew(tmp_path: Path) -> None:
    with a_shield(tmp_path) as (node, origin):
        bodies = [b"%d" % number for number in range(5)]
        origin.script("page", *[Reply.of(200, FRESH, body) for body in bodies])
        assert signed(node, "/page/").body == b"0"
        told = _command(node, "purge", "tag", "front", "--json")
        assert told.returncode == 0
        assert signed(node, "/page/").body == b"1"
        assert _command(node, "purge", "url", "https://example.com/page/").returncode == 0
        assert signed(node, "/page/").body == b"2"
        by_edge = proof("PURGE", "/page/", "cache-tag: front", said=claims(order=True))
        answer = ask(node, "PURGE", "/page/", by_edge)
        assert (answer.status, b'"status":"ok"' in answer.body) == (200, True)
        assert ask(node, "PURGE", "/page/", by_edge).status == 403
        assert signed(node, "/page/").body == b"3"
        order = proof("PURGE", "/", "content-type: application/json", said=claims(order=True))
        answer = ask(node, "PURGE", "/", order, b'{"host": ["example.com"]}')
        assert json.loads(answer.body)["id"] == "4"
        assert signed(node, "/page/").body == b"4"
        assert json.loads(_command(node, "purges", "--json").stdout)["latest"] == 4


def _command(node: Node, *args: str) -> subprocess.CompletedProcess[str]:
    command = [*SHIELD, *args, "--socket", str(node.admin)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_a_worker_that_is_killed_costs_nothing_but_itself(tmp_path: Path) -> None:
    with a_shield(tmp_path) as (node, origin):
        origin.script("page", Reply.of(200, FRESH, b"kept"))
        origin.script("order", Reply.of(200, [], b"done"))
        once = proof("POST", "/order/")
        assert ask(node, "POST", "/order/", once, b"one").status == 200
        assert signed(node, "/page/").body == b"kept"
        assert _command(node, "purges").returncode == 0  # all that is stored is on disk
        for slot in (0, 1):
            pid = node.status()["workers"][slot]["pid"]
            os.kill(pid, signal.SIGKILL)
            assert eventually(lambda slot=slot, pid=pid: _is_replaced(node, slot, pid))  # type: ignore[misc]
        assert ask(node, "POST", "/order/", once, b"one").status == 403
        assert signed(node, "/page/").status == 200


def _is_replaced(node: Node, slot: int, pid: int) -> bool:
    workers = {worker["slot"]: worker for worker in node.status()["workers"]}
    return slot in workers and workers[slot]["pid"] != pid and workers[slot]["answers"]
