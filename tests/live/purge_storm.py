"""A storm: clients, changes and purges at once around one node, every answer held to the law."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from tests.live.hostile_harness import EDGE, ROOT
from tests.live.purge_load import (
    DIRECTORIES,
    GONE,
    Answer,
    Caller,
    Fetch,
    Ledger,
    Name,
    Page,
    SlowOrigin,
    calling,
    stormy_pages,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.live.hostile_harness import Node

READERS: Final = 16
WRITERS: Final = 5
PAUSE_S: Final = 0.02
PATIENCE_S: Final = 10.0
BY_COMMAND: Final = 0.003  # a command takes a tenth of a second
FOLLOWED_TROUBLE: Final = (502, ["detail=bad-response"])  # the leader was given the 503
KINDS: Final = (
    *["url"] * 8, *["urls"] * 3, *["tag"] * 6, *["tags"] * 2, *["mix"] * 2, *["prefix"] * 4,
    "host", *["PURGE url"] * 5, *["PURGE tags"] * 3, *["PURGE folder"] * 2, *["group"] * 2,
)  # fmt: skip


@dataclass(frozen=True)
class Order:
    """What a writer has purged, and by which names the law knows it."""

    kind: str
    names: frozenset[Name]
    soft: bool


@dataclass
class Tally:
    """What was seen. `amid` counts purges by what of theirs was under way when they were
    acknowledged."""

    answers: Counter[str] = field(default_factory=Counter)
    purges: Counter[str] = field(default_factory=Counter)
    amid: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.purges.total()} purges ({_listed(self.purges)}); "
            f"acknowledged amid {_listed(self.amid)}; "
            f"answers: {_listed(self.answers)}; "
            f"wrong {len(self.wrong)}, failed {len(self.failed)}"
        )


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))


@dataclass(eq=False)
class _Waiting:
    """A reader that waits for an answer."""

    page: Page


class Storm:
    """The origin, what was purged and what was seen; `further` are pages that no storm touches."""

    def __init__(
        self, seed: int, further: Sequence[Page] = (), *, everything: bool = True
    ) -> None:
        self.seed = seed
        self.stormy = stormy_pages()
        self.ledger = Ledger()
        self.tally = Tally()
        self.is_over = False  # the node is about to be killed: failures mean nothing
        self._kinds = KINDS + (("all",) if everything else ())
        self._waiting: set[_Waiting] = set()
        self._rounds = 0
        self._news = trio.Event()  # of a purge
        pages = {(page.host, page.target): page for page in (*self.stormy, *further)}
        self.origin = SlowOrigin(pages, random.Random(f"origin {seed}"))
        self.pages = {page.number: page for page in pages.values()}
        assert len(self.pages) == len(pages)

    @asynccontextmanager
    async def blowing(self, node: Node) -> AsyncIterator[None]:
        """Readers and writers at work; at the end they finish what they are at."""
        self._rounds += 1
        self.is_over = False
        with trio.CancelScope() as patience:
            async with trio.open_nursery() as nursery:
                for number in range(READERS):
                    nursery.start_soon(self._read, node, self._rng("reader", number))
                for number in range(WRITERS):
                    nursery.start_soon(self._write, node, self._rng("writer", number))
                try:
                    yield
                finally:
                    self.is_over = True
                    patience.deadline = trio.current_time() + PATIENCE_S
        if patience.cancelled_caught:
            self.tally.failed.append("an answer did not come at all")

    def _rng(self, role: str, number: int) -> random.Random:
        return random.Random(f"{self.seed} {self._rounds} {role} {number}")

    async def wait_purges(self, count: int) -> None:
        """Until so many purges were acknowledged, or something is wrong."""
        while self.tally.purges.total() < count and not self.tally.wrong:
            await self._news.wait()

    # Reading.

    async def _read(self, node: Node, rng: random.Random) -> None:
        async with calling(node.port) as caller:
            while not self.is_over:
                await trio.sleep(PAUSE_S * rng.random())
                page = self.stormy[int(len(self.stormy) * rng.random() ** 2)]
                await self._look(caller, page, "HEAD" if rng.random() < 0.02 else "GET")

    async def _look(self, caller: Caller, page: Page, method: str = "GET") -> None:
        """Ask for a page, and judge the answer."""
        try:
            await self.look(caller, page, method)
        except GONE as error:
            if not self.is_over:
                self.tally.failed.append(f"{page.url}: {error!r}")

    async def look(self, caller: Caller, page: Page, method: str = "GET") -> Answer:
        """The answer to a request for a page, judged; raises one of `GONE`."""
        moment, waiting = self.ledger.moment, _Waiting(page)
        self._waiting.add(waiting)
        try:
            answer = await caller.ask(method, page.target, page.host)
        finally:
            self._waiting.discard(waiting)
        fault = self._fault(page, moment, answer, method)
        if fault:
            self.tally.wrong.append(f"{method} {page.url}: {fault}; {answer.fields}")
        return answer

    def _fault(self, page: Page, moment: int, answer: Answer, method: str) -> str:
        """What the law has against an answer to who asked at `moment`; "" for nothing."""
        self._count(answer)
        seen = answer.fields.get("x-look")
        if answer.status == 503 or (answer.status, answer.cache) == FOLLOWED_TROUBLE:
            return ""
        if seen is None or answer.status != 200:
            self.tally.failed.append(f"{page.url}: {answer}")
            return ""
        if method == "HEAD":
            etag = answer.fields["etag"]
            version, look = int(etag.rpartition("-")[2].rstrip('"')), int(seen)
        else:
            number, version, look = map(int, answer.body.split(b"\n")[0].split(b" "))
            if number != page.number or answer.body != page.body(version, look):
                return f"a body that is not this page's: {answer.body[:60]!r}"
        names = page.names(version)
        purged = self.ledger.bound(names, moment, soft=False)
        if look <= purged:
            return f"read by look {look}, and all up to look {purged} was purged"
        return self._softly(page, answer, int(seen), self.ledger.bound(names, moment, soft=True))

    def _softly(self, page: Page, answer: Answer, seen: int, purged: int) -> str:
        if seen > purged:
            return ""
        ttl, cache = answer.ttl, answer.cache
        if "detail=stale-if-error" in cache:
            return "stale, and that is not allowed" if page.terms == "no-cache" else ""
        if ttl is None or ttl >= 0 or "hit" not in cache:
            return f"vouched for by look {seen}, and all up to {purged} was soft-purged"
        return "" if "stale-while-revalidate" in page.terms else "stale, and that is not allowed"

    def _count(self, answer: Answer) -> None:
        cache, told = answer.cache, self.tally.answers
        told["total"] += 1
        ttl = answer.ttl
        told["hit"] += "hit" in cache and (ttl is None or ttl >= 0)
        told["stale"] += ttl is not None and ttl < 0
        told["collapsed"] += "collapsed" in cache
        told["validated"] += "fwd-status=304" in cache
        told["overtaken"] += "detail=overtaken" in cache
        told["503"] += answer.status == 503

    # Purging.

    async def _write(self, node: Node, rng: random.Random) -> None:
        async with calling(node.port) as caller, calling(node.admin) as operator:
            while not self.is_over:
                await trio.sleep(PAUSE_S * rng.random())
                order = self._order(rng)
                try:
                    await self._carry_out(order, node, caller, operator, rng)
                except GONE as error:
                    if not self.is_over:
                        self.tally.failed.append(f"purge of {order.kind}: {error!r}")
                    continue
                if rng.random() < 0.5:
                    covered = [page for page in self.stormy if self._covers(order, page)]
                    await self._look(caller, rng.choice(covered or self.stormy))

    def _order(self, rng: random.Random) -> Order:
        kind, page = rng.choice(self._kinds), self._aim(rng)
        host, directory = page.host, rng.choice(DIRECTORIES[1:])
        tags = list(page.tags(self.origin.versions[page.number]))[: rng.randint(1, 2)]
        rng.shuffle(tags)
        url: Name = ("url", page.host, page.target)
        urls: list[Name] = [("url", p.host, p.target) for p in rng.sample(self.stormy, 12)]
        found: dict[str, list[Name]] = {
            "url": [url],
            "PURGE url": [url],
            "urls": urls,
            "tag": [("tag", tags[0])],
            "tags": [("tag", tag) for tag in tags],
            "mix": [*urls[:2], ("tag", tags[0]), ("prefix", host, directory)],
            "prefix": [("prefix", host, directory)],
            "PURGE folder": [("prefix", host, directory)],
            "PURGE tags": [("host-tag", host, tag) for tag in tags],
            "host": [("host", host)],
            "group": [("group", host, page.group)],
            "all": [("all",)],
        }
        soft = kind not in ("group", "PURGE folder") and rng.random() < 0.35
        return Order(kind, frozenset(found[kind]), soft)

    def _aim(self, rng: random.Random) -> Page:
        """A page to purge: mostly one that the origin has just begun to fetch."""
        fetched = sorted(self.origin.fetches, key=lambda fetch: fetch.look)
        if fetched and rng.random() < 0.85:
            return rng.choice(fetched[-4:]).page
        return rng.choice(self.stormy)

    def _covers(self, order: Order, page: Page, version: int | None = None) -> bool:
        known = self.origin.versions[page.number] if version is None else version
        return not order.names.isdisjoint(page.names(known))

    async def _carry_out(
        self, order: Order, node: Node, caller: Caller, operator: Caller, rng: random.Random
    ) -> None:
        for page in self.stormy:
            if self._covers(order, page) and rng.random() < 0.7:
                self.origin.versions[page.number] += 1
        look = self.origin.looks
        if order.kind == "group":
            look = await self._by_write(order, caller)
        elif order.kind.startswith("PURGE"):
            await self._by_request(order, caller)
        elif rng.random() < BY_COMMAND:
            await by_command(order, node)
        else:
            await by_operator(order, operator)
        self.acknowledged(order, look)

    def acknowledged(self, order: Order, look: int) -> None:
        """From now on the law knows of it."""
        self.ledger.record(order.names, look, soft=order.soft)
        self.tally.purges["soft " * order.soft + order.kind] += 1
        self._news.set()
        self._news = trio.Event()
        under_way = [fetch for fetch in self.origin.fetches if fetch.look <= look]
        crossed = [fetch for fetch in under_way if self._covers(order, fetch.page, fetch.version)]
        amid = self.tally.amid
        amid["something"] += bool(crossed)
        amid["a fetch"] += any(not fetch.validates for fetch in crossed)
        amid["a validation"] += any(fetch.validates for fetch in crossed)
        amid["a body"] += any(fetch.has_told for fetch in crossed)
        amid["followers"] += any(map(self._has_followers, crossed))

    def _has_followers(self, fetch: Fetch) -> bool:
        waiting = sum(each.page is fetch.page for each in self._waiting)
        return waiting > 1 and not fetch.has_told

    async def _by_write(self, order: Order, caller: Caller) -> int:
        ((_, host, group),) = order.names
        answer = await caller.ask("POST", "/write", host, [f"x-groups: {group}"], b"written")
        assert answer.status == 200, answer
        return int(answer.fields["x-look"])

    async def _by_request(self, order: Order, caller: Caller) -> None:
        names = sorted(order.names)
        _, host, what = names[0]
        fields = ["fastly-soft-purge: 1"] * order.soft
        target = what
        if order.kind == "PURGE folder":
            target, fields = f"{what}.*", [*fields, "x-purge-method: regex"]
        elif order.kind == "PURGE tags":
            target, fields = "/", [*fields, f"xkey: {' '.join(tag for _, _, tag in names)}"]
        answer = await caller.ask("PURGE", target, host, fields)
        assert answer.status == 200, answer


def document_of(order: Order) -> dict[str, Any]:
    """An order as `POST /v1/purge` has it."""
    told: dict[str, Any] = {"soft": order.soft}
    for kind, *rest in sorted(order.names):
        if kind == "all":
            told["all"] = True
        else:
            word = "".join(rest)
            told.setdefault(kind, []).append(f"http://{word}" if len(rest) > 1 else word)
    return told


async def by_operator(order: Order, operator: Caller) -> None:
    """By the admin socket; raises one of `GONE`."""
    body = json.dumps(document_of(order)).encode()
    answer = await operator.ask("POST", "/v1/purge", "edge", body=body)
    assert answer.status == 200, answer


async def by_command(order: Order, node: Node) -> None:
    """By `edge purge`, for what one command can say; the others by the socket."""
    told = document_of(order)
    kinds = told.keys() - {"soft"}
    if len(kinds) > 1:
        async with calling(node.admin) as operator:
            await by_operator(order, operator)
        return
    (kind,) = kinds
    arguments = [*EDGE, "purge", kind, "--socket", str(node.admin)]
    arguments += ["--soft"] * order.soft
    arguments += ["--yes"] if kind == "all" else ["--file", "-"]
    names = "" if kind == "all" else "\n".join(told[kind])
    run = partial(trio.run_process, cwd=ROOT, capture_stdout=True, capture_stderr=True)
    done = await run(arguments, stdin=names.encode(), check=False)
    if done.returncode == 3:
        raise EOFError(done.stderr.decode())
    assert done.returncode == 0, done.stderr
    print(done.stdout.decode().strip(), file=sys.stderr)
