"""Whether a server answers as it should, asked before and after it is measured.

The request has the bytes that wrk will send. Of a hit it is asked how each server tells one: this
node and nginx in Cache-Status, Varnish by naming in X-Varnish the request that fetched, too.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Final, TypeAlias

from tools.benchmark.limit import NAME as LIMIT
from tools.benchmark.objects import body_at
from tools.benchmark.servers import NotReady

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPMessage

    from tools.benchmark.loads import Kind
    from tools.benchmark.servers import Server

    Fields: TypeAlias = Mapping[str, str] | HTTPMessage

PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Told:
    """One answer; names of `fields` in whatever case."""

    status: int
    fields: Fields
    body: bytes


def ask(port: int, request: bytes) -> Told:
    """The answer to one request on a connection of its own; raises `NotReady`."""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as sock:
            sock.sendall(request)
            answer = HTTPResponse(sock, method="GET")
            answer.begin()
            return Told(answer.status, answer.headers, answer.read())
    except (OSError, HTTPException) as error:
        raise NotReady(f"no whole answer to {request[:80]!r}: {error!r}") from error


def is_hit(fields: Fields) -> bool:
    """Whether an answer says that it came from a store."""
    status = fields.get("Cache-Status")
    if status is None:
        return len(fields.get("X-Varnish", "").split()) == 2
    members = [word.strip() for word in status.split(";")]
    return "hit" in members or members == ["HIT"]


def fault_of(told: Told, status: int, body: bytes, *, hit: bool | None) -> str | None:
    """What is wrong with an answer, if anything; `hit` is None where nothing is ever stored."""
    if told.status != status:
        return f"status {told.status} and not {status}"
    if told.body != body:
        return f"{len(told.body)} bytes that are not the right {len(body)}"
    if hit is not None and hit is not is_hit(told.fields):
        said = told.fields.get("Cache-Status") or told.fields.get("X-Varnish")
        return f"{'not ' if hit else ''}a hit: {said!r}"
    return None


def check(server: Server, kind: Kind, mark: str) -> None:
    """Raise `NotReady` unless `server`, which is warm, answers rightly; once for each `mark`."""
    for target, body, hit in _samples(kind, mark):
        told = ask(server.port, kind.request(target))
        stored = None if server.name == LIMIT else hit
        fault = fault_of(told, kind.status, body, hit=stored)
        if fault:
            raise NotReady(f"{server.name}: {target}: {fault}")


def _samples(kind: Kind, mark: str) -> list[tuple[str, bytes, bool]]:
    """Targets, what is there, and whether it must be stored."""
    if kind.mixture is not None:
        last = kind.mixture.stored
        ranks = (1, 2, 3, last // 2, last, last + 1, kind.mixture.urls)
        targets = [(rank <= last, kind.mixture.target(rank, f"proof-{mark}")) for rank in ranks]
        return [(target, body_at(target), hit) for hit, target in targets]
    if kind.is_unique:
        return [(f"{kind.target}/proof/{mark}", kind.body, False)]
    return [(kind.target, kind.body, True)]
