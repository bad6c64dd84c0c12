"""Load whose right answers are known: an origin, and clients that check every byte.

A target tells its own body, so no one has to remember anything: whatever the node does, an answer
is right, wrong (complete, and other bytes), failed (an error, or no connection) or lost (broken
off). Each of the few client threads asks over one connection, at its share of the rate.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from tests.live.hostile_harness import Answer, Asked, Wire, connect, parse_answers

if TYPE_CHECKING:
    import socket

RATE_PER_S: Final = 200
THREADS: Final = 8
POPULAR: Final = 200
SIZES: Final = (300, 2_000, 2_000, 6_000, 18_000, 40_000, 120_000)
BIG_BYTES: Final = 20 << 20
BAD_CODES: Final = frozenset({500, 502, 503, 504})


@lru_cache(maxsize=2048)
def body_of(target: str) -> bytes:
    """What the origin answers to `target`, for ever."""
    if target.startswith("/big"):
        return hashlib.shake_128(target.encode()).digest(1 << 16) * (BIG_BYTES >> 16)
    pick = hashlib.blake2b(target.encode()).digest()[0]
    return hashlib.shake_128(target.encode()).digest(SIZES[pick % len(SIZES)])


def respond(asked: Asked, wire: Wire) -> None:
    """The handler of an origin of known bodies: `/u/` must not be stored, `/s/` goes stale."""
    body = body_of(asked.target)
    if asked.target.startswith("/u/"):
        terms = "no-store"
    elif asked.target.startswith("/s/"):
        terms = "max-age=1, stale-if-error=600"
    else:
        terms = "max-age=86400"
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nCache-Control: {terms}\r\n"
    head += f'ETag: "{hashlib.blake2b(body).hexdigest()[:16]}"\r\n\r\n'
    wire.send(head.encode(), b"" if asked.method == "HEAD" else body)


def popular(count: int = POPULAR) -> list[str]:
    """The targets that load asks for again and again."""
    return [f"/o/{number}" for number in range(count)]


@dataclass
class Tally:
    """What came of the requests."""

    right: int = 0
    wrong: int = 0
    failed: int = 0
    lost: int = 0
    hits: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    hit_s: list[float] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return self.right + self.wrong + self.failed + self.lost

    def count(self, target: str, answer: Answer | None, took_s: float = 0.0) -> None:
        """Judge one answer."""
        if answer is None:
            self.failed += 1
            return
        self.statuses[answer.status] += 1
        if answer.status != 200:
            self.failed += 1
        elif not answer.whole:
            self.lost += 1
        elif answer.body != body_of(target):
            self.wrong += 1
            self.wrongs.append(target)
        else:
            self.right += 1
            if answer.is_hit:
                self.hits += 1
                self.hit_s.append(took_s)

    def add(self, other: Tally) -> None:
        for name in ("right", "wrong", "failed", "lost", "hits"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.statuses.update(other.statuses)
        self.hit_s += other.hit_s
        self.wrongs += other.wrongs

    def quantile_s(self, share: float) -> float:
        """A quantile of the times of hits, in seconds."""
        times = sorted(self.hit_s)
        return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0


class Client:
    """One kept-alive connection that is made anew when it breaks."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._sock: socket.socket | None = None

    def ask(self, target: str, *lines: str) -> Answer | None:
        """The answer, None where there was none at all; not `whole` where it broke off."""
        lines = (f"GET {target} HTTP/1.1", "Host: load.example", *lines, "", "")
        request = "\r\n".join(lines).encode()
        for attempt in (0, 1):
            fresh = self._sock is None
            try:
                if self._sock is None:
                    self._sock = connect(self._port, self._timeout_s)
                self._sock.sendall(request)
                data, end = self._read(self._sock)
            except OSError:
                data, end = b"", "reset"
            if not data and not fresh and not attempt and end != "open":
                self.close()  # an idle connection that the node had closed meanwhile
                continue
            break
        answers = parse_answers(data, end)
        answer = answers[0] if answers else None
        if answer is None and data:
            answer = Answer(200, [], b"", whole=False)
        if answer is None or not answer.whole or answer.field("connection") == "close":
            self.close()
        return answer

    def _read(self, sock: socket.socket) -> tuple[bytes, str]:
        data, need = bytearray(), -1
        while need < 0 or len(data) < need:
            try:
                piece = sock.recv(262_144)
            except TimeoutError:
                return bytes(data), "open"
            except OSError:
                return bytes(data), "reset"
            if not piece:
                return bytes(data), "eof"
            data += piece
            if need < 0 and (end := data.find(b"\r\n\r\n")) >= 0:
                at = data.lower().find(b"content-length:", 0, end)
                need = end + 4 + (int(data[at + 15 : end].split(b"\r")[0]) if at > 0 else 1 << 40)
        return bytes(data), "open"

    def close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()


class Load:
    """Requests at a rate while a `with` block lasts; `tally` is whole behind it."""

    _runs = 0

    def __init__(
        self,
        port: int,
        *,
        rate_per_s: int = RATE_PER_S,
        miss: float = 0.2,
        uncacheable: float = 0.1,
        stale: float = 0.0,
        objects: int = POPULAR,
    ) -> None:
        Load._runs += 1
        self.tally = Tally()
        self._run = Load._runs
        self._port = port
        self._pause_s = THREADS / rate_per_s
        self._shares = (miss, miss + uncacheable, miss + uncacheable + stale)
        self._objects = objects
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(THREADS)
        ]

    def __enter__(self) -> Load:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def taken(self) -> Tally:
        """What was counted so far; counting begins anew."""
        with self._lock:
            tally, self.tally = self.tally, Tally()
        return tally

    def _work(self, number: int) -> None:
        rng = random.Random(self._run * 100 + number)
        client, due, asked = Client(self._port), time.monotonic(), 0
        due += rng.random() * self._pause_s
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._pause_s, time.monotonic() - 1.0)
            asked += 1
            target = self._target(rng, f"{self._run}-{number}-{asked}")
            began = time.monotonic()
            answer = client.ask(target)
            took_s = time.monotonic() - began
            with self._lock:
                self.tally.count(target, answer, took_s)
        client.close()

    def _target(self, rng: random.Random, unique: str) -> str:
        pick = rng.random()
        if pick < self._shares[0]:
            return f"/m/{unique}"
        if pick < self._shares[1]:
            return f"/u/{unique}"
        kind = "s" if pick < self._shares[2] else "o"
        return f"/{kind}/{int(self._objects * rng.random() ** 2)}"


def check_all(port: int, targets: list[str]) -> Tally:
    """Ask for each target once."""
    tally, client = Tally(), Client(port)
    for target in targets:
        began = time.monotonic()
        answer = client.ask(target)
        tally.count(target, answer, time.monotonic() - began)
    client.close()
    return tally
