"""compress: bytes saved and CPU, on real text of three sizes, beside nginx's gzip -6 and brotli.

**Bytes**: what a first client of each coding is sent, and what later ones are, once the object has
been hit often enough to be coded again; each decoded and compared with the origin's.

**Hits**: CPU for each coded hit beside an uncoded one of the same node (which sends more bytes)
and beside nginx, which keeps what it stores uncoded and codes for every client anew.

**Misses**: from a request for what nobody has asked for yet to its first byte of body, and the
node's CPU until the last, uncoded and coded by turns.
"""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPResponse
from statistics import median
from typing import TYPE_CHECKING, Final

from edge.coding.decoders import Decoder
from edge.coding.negotiate import Coding
from edge.errors import ExchangeError
from tools.benchmark import comparison
from tools.benchmark.loads import CPU, Goal, Kind
from tools.benchmark.nginx import BROTLI_MODULE, start_nginx_cache
from tools.benchmark.peers import start_origin
from tools.benchmark.proof import PATIENCE_S
from tools.benchmark.report import Report, milliseconds, progress
from tools.benchmark.servers import NotReady, Server, program, running, start_node
from tools.benchmark.texts import TEXTS
from tools.benchmark.wrk import Run, run_wrk

if TYPE_CHECKING:
    from tools.benchmark.report import Wishes

ROUNDS: Final = 5
SECONDS: Final = 2.0
WARM_S: Final = 1.0
MISSES: Final = 60  # of each text, half of them coded
CONNECTIONS: Final = 32
CODINGS: Final = (Coding.GZIP, Coding.BR, Coding.ZSTD)
ON: Final = ("--set", "site.compress={}")
BROWSER: Final = "gzip, deflate, br, zstd"
HEAT: Final = 10  # hits, before an object is taken to be hot
HEAT_S: Final = 30.0
LOOK_S: Final = 0.5
MOST_OF_GZIP: Final = 0.9
MOST_LATER_MS: Final = 5.0
GOAL: Final = Goal(CPU, 1.1, ("uncoded",))


@dataclass(frozen=True, slots=True)
class Sent:
    """One answer: its coding, its body as sent, and seconds from the request to its first byte."""

    coding: Coding
    body: bytes
    first_byte_s: float


def measure(wishes: Wishes) -> Report:
    """The scenario."""
    report, place = Report(), wishes.directory
    nginx, wrk = program("nginx"), program("wrk")
    with ExitStack() as stack:
        origin = stack.enter_context(running(start_origin(place / "origin")))
        node = stack.enter_context(running(start_node(place / "node", origin.url, extra=ON)))
        peer = None
        if nginx is not None:
            started = start_nginx_cache(nginx, place / "nginx", origin.url, codes=True)
            peer = stack.enter_context(running(started))
        _tell_bytes(report, node, peer)
        if wrk is None:
            report.fault("hits are not measured: wrk is missing")
        else:
            _tell_hits(report, wrk, node, peer, wishes)
        _tell_misses(report, node)
    return report


# --- bytes


def _tell_bytes(report: Report, node: Server, peer: Server | None) -> None:
    report.say("  bytes of a body, as sent first and when hot; share of the uncoded")
    report.say(f"  {'':12}{'uncoded':>10}" + "".join(f"{name:>34}" for name in CODINGS))
    told: dict[str, dict[str, dict[str, int]]] = {}
    for text in TEXTS:
        progress(f"bytes of the text {text!r}")
        target = f"/text/{text}/bytes"
        ask(node, target, "identity", text)
        ours = {coding: _first_and_hot(node, target, coding, text) for coding in CODINGS}
        told[text] = {"this node": {f"{c} {w}": n for c, pair in ours.items() for w, n in
                                    zip(("first", "hot"), pair, strict=True)}}  # fmt: skip
        size = len(TEXTS[text])
        _bytes_row(report, text, size, {c: list(pair) for c, pair in ours.items()})
        if peer is not None:
            theirs = _peer_bytes(peer, target, text)
            told[text]["nginx"] = {str(coding): each for coding, each in theirs.items()}
            _bytes_row(report, "nginx", size, {c: [each] for c, each in theirs.items()})
            hot = ask(node, target, BROWSER, text)
            share = len(hot.body) / theirs[Coding.GZIP]
            name = f"hot, to a browser ({hot.coding}), by nginx's gzip -6"
            report.goal(name, share, MOST_OF_GZIP, "of its bytes")
    report.figures["bytes"] = told


def _first_and_hot(node: Server, target: str, coding: Coding, text: str) -> tuple[int, int]:
    """Bytes that the first client is sent, and later ones, once there is less or long enough."""
    first = len(ask(node, target, coding, text).body)
    for _ in range(HEAT):
        least = len(ask(node, target, coding, text).body)
    until = time.monotonic() + HEAT_S
    while least >= first and time.monotonic() < until:
        time.sleep(LOOK_S)
        least = min(least, len(ask(node, target, coding, text).body))
    return first, least


def _peer_bytes(peer: Server, target: str, text: str) -> dict[Coding, int]:
    codings = [Coding.GZIP, *([Coding.BR] if BROTLI_MODULE.exists() else [])]
    return {coding: len(ask(peer, target, coding, text).body) for coding in codings}


def _bytes_row(report: Report, name: str, size: int, sent: dict[Coding, list[int]]) -> None:
    cells = [
        " ".join(f"{each:,} ({each / size:.1%})" for each in sent.get(coding, ())) or "-"
        for coding in CODINGS
    ]
    report.say(f"  {name:12}{size:>10,}" + "".join(f"{cell:>34}" for cell in cells))


# --- hits


def _tell_hits(
    report: Report, wrk: str, node: Server, peer: Server | None, wishes: Wishes
) -> None:
    report.figures["hits"] = {}
    for text in TEXTS:
        loads = {"coded": (node, BROWSER), "uncoded": (node, "identity")}
        if peer is not None:
            loads["nginx gzip"] = (peer, "gzip")
            if BROTLI_MODULE.exists():
                loads["nginx brotli"] = (peer, "br")
        part = Report()
        comparison.tell(part, _rounds(wrk, loads, text, wishes), (GOAL,))
        report.say(f"  hits of {text}, {len(TEXTS[text]):,} bytes uncoded")
        report.lines += part.lines
        report.faults += part.faults
        report.figures["hits"][text] = part.figures


def _rounds(
    wrk: str, loads: dict[str, tuple[Server, str]], text: str, wishes: Wishes
) -> dict[str, list[Run]]:
    place, runs = wishes.directory, dict[str, list[Run]]()
    kinds = {name: _kind(text, accepts) for name, (_, accepts) in loads.items()}
    for name, (server, accepts) in loads.items():
        progress(f"hits of the text {text!r}, {name}")
        run_wrk(wrk, kinds[name], server, WARM_S, place, "warm")
        ask(server, kinds[name].target, accepts, text)
        runs[name] = []
    for number in range(wishes.rounds or ROUNDS):
        turns = list(loads.items())
        for name, (server, accepts) in turns if number % 2 == 0 else reversed(turns):
            seconds = wishes.seconds or SECONDS
            runs[name].append(run_wrk(wrk, kinds[name], server, seconds, place, str(number)))
            ask(server, kinds[name].target, accepts, text)
    return runs


def _kind(text: str, accepts: str) -> Kind:
    fields = (f"Accept-Encoding: {accepts}",)
    return Kind(f"/text/{text}/hits", CONNECTIONS, body=TEXTS[text], fields=fields)


# --- misses


def _tell_misses(report: Report, node: Server) -> None:
    report.say("  misses: to the first byte of a body (median, most), and CPU of the node")
    report.figures["misses"] = {}
    for text in TEXTS:
        progress(f"misses of the text {text!r}")
        plain, coded = _misses(node, text)
        for name, each in (("uncoded", plain), ("coded", coded)):
            line = f"{milliseconds(each.p50_s)}, {milliseconds(each.most_s)}, {each.cpu_us:.0f} µs"
            report.say(f"  {text:8}{name:10}{line:>36}")
        later = 1000 * (coded.p50_s - plain.p50_s)
        report.goal("first byte of a coded miss, later by", later, MOST_LATER_MS, "ms")
        report.figures["misses"][text] = {
            name: {"p50_s": each.p50_s, "most_s": each.most_s, "cpu_us": each.cpu_us}
            for name, each in (("uncoded", plain), ("coded", coded))
        }


@dataclass(frozen=True, slots=True)
class Missed:
    """What misses took: seconds to the first byte, CPU for each."""

    p50_s: float
    most_s: float
    cpu_us: float


def _misses(node: Server, text: str) -> tuple[Missed, Missed]:
    """Uncoded and coded ones, by turns."""
    times: dict[str, list[float]] = {"identity": [], BROWSER: []}
    cpu_s = dict.fromkeys(times, 0.0)
    for number in range(MISSES):
        for accepts in times:
            before = node.cpu_s()
            sent = ask(node, f"/text/{text}/{number}/{len(accepts)}", accepts, text)
            cpu_s[accepts] += node.cpu_s() - before
            times[accepts].append(sent.first_byte_s)
    plain, coded = (
        Missed(median(each), max(each), 1e6 * cpu_s[accepts] / MISSES)
        for accepts, each in times.items()
    )
    return plain, coded


# --- asking


def ask(server: Server, target: str, accepts: str, text: str) -> Sent:
    """The answer to one request on a connection of its own; raises `NotReady` for a wrong one."""
    request = (
        f"GET {target} HTTP/1.1\r\nHost: www.bench.example\r\n"
        f"Accept-Encoding: {accepts}\r\nConnection: close\r\n\r\n"
    )
    try:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as sock:
            started = time.perf_counter()
            sock.sendall(request.encode())
            answer = HTTPResponse(sock, method="GET")
            answer.begin()
            first = answer.read(1)
            first_byte_s = time.perf_counter() - started
            body = first + answer.read()
    except OSError as error:
        raise NotReady(f"{server.name}: no whole answer to {target}: {error!r}") from error
    coding = Coding(answer.headers.get("Content-Encoding", "identity"))
    if answer.status != 200 or decoded(coding, body) != TEXTS[text]:
        raise NotReady(f"{server.name}: {target} in {coding}: {answer.status}, a wrong body")
    if coding.value not in accepts.split(", ") or (accepts != "identity") is (
        coding == "identity"
    ):
        raise NotReady(f"{server.name}: {target}: {coding} for Accept-Encoding: {accepts}")
    return Sent(coding, body, first_byte_s)


def decoded(coding: Coding, body: bytes) -> bytes | None:
    """What a body says; None for one that is broken."""
    if coding is Coding.IDENTITY:
        return body
    decoder = Decoder(coding)
    try:
        plain = b"".join(decoder.pieces(body))
        decoder.finish()
    except ExchangeError:
        return None
    return plain
