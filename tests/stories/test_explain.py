"""The law of `edge explain`: what it says, the next real request gets; and nothing moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from edge.config import policies
from edge.explain.question import Question
from edge.explain.verdict import explain
from tests.stories.world import a_world

if TYPE_CHECKING:
    from tests.stories.wire import Reply
    from tests.stories.world import Asked, Client, Edge, ScriptedOrigin

Pair: TypeAlias = tuple[bytes, bytes]

BODY: Final = b"0123456789"
DATED: Final = "Thu, 14 Jan 2027 00:00:00 GMT"
MOST_BODY: Final = 1024

SETS: Final = (
    "site.cache.ttl=20s",
    "site.cache.bypass=true",
    "site.cache.honour_request_directives=true",
    "site.cache.stale_while_revalidate=30s",
    "site.cache.stale_if_error=0s",
    "site.cache.max_stale=1m",
    'site.query.drop=["utm"]',
    'site.query.keep=["x"]',
    'site.key.cookies=["a"]',
    'site.rule=[{match={path="/live/*"},cache={bypass=true}}]',
    'site.rule=[{match={path="*.css",methods=["GET"]},cache={ttl="1m"}}]',
    'site.hosts=["site.example"]',
    'site.purge_from=["198.51.100.0/24"]',
    'node.trusted_proxies=["198.51.100.0/24"]',
)

PAGE: Final = (b"/a",) * 6  # what most ask for, or nothing would ever be found
TARGETS: Final = (*PAGE, b"/a?x=1", b"/a?utm=1&x=1", b"/b/../a", b"/live/x", b"/%7ea.css")
STRANGE: Final = (b"/a%00", b"/a\\b", b"/" + b"x" * 9000, b"/a*", b"/dir/.*")
METHODS: Final = (b"GET", b"GET", b"HEAD", b"POST", b"PURGE", b"PURGE", b"OPTIONS", b"TRACE")
PEERS: Final = (b"198.51.100.1", b"203.0.113.7")

ORDINARY: Final[tuple[Pair, ...]] = (
    (b"Accept-Encoding", b"gzip"),
    (b"Accept-Encoding", b"br, gzip"),
    (b"Cookie", b"a=1"),
    (b"Cookie", b"b=2"),
)
SELECTIVE: Final[tuple[Pair, ...]] = (
    (b"Authorization", b"Basic eDp5"),
    (b"Cache-Control", b"no-cache"),
    (b"Cache-Control", b"no-store"),
    (b"Cache-Control", b"max-age=5"),
    (b"Cache-Control", b"max-stale=100"),
    (b"Cache-Control", b"only-if-cached"),
    (b"Pragma", b"no-cache"),
    (b"If-None-Match", b'"1"'),
    (b"If-None-Match", b"*"),
    (b"If-Match", b'"9"'),
    (b"If-Modified-Since", DATED.encode()),
    (b"If-Range", b'"1"'),
    (b"Range", b"bytes=0-1"),
    (b"Range", b"bytes=5-"),
    (b"Range", b"bytes=99-"),
    (b"Range", b"bytes=0-0,5-6"),
)
ODD: Final[tuple[Pair, ...]] = (
    (b"X-Forwarded-For", b"203.0.113.9"),
    (b"X-Forwarded-For", b"junk"),
    (b"X-Forwarded-Proto", b"https"),
    (b"Connection", b"close"),
    (b"Connection", b"upgrade, X-Kind"),
    (b"Upgrade", b"websocket"),
    (b"Content-Length", b"3"),
    (b"Content-Length", b"0"),
    (b"Content-Length", b"99999"),
    (b"Content-Length", b"+3"),
    (b"Transfer-Encoding", b"chunked"),
    (b"Expect", b"100-continue"),
    (b"Expect", b"nothing"),
    (b"Max-Forwards", b"0"),
    (b"Max-Forwards", b"0"),
    (b"CDN-Loop", b"edge1"),
    (b"Host", b"site.example"),
    (b"Host", b"other.example"),
    (b"Host", b"[::1"),
    (b"Bad Name", b"x"),
    (b"X-Nul", b"a\0b"),
    (b"X-Long", b"y" * 40_000),
    (b"xkey", b"front"),
    (b"xkey", b"a,b c"),
    (b"Fastly-Soft-Purge", b"1"),
    (b"X-Purge-Method", b"regex"),
)

FRESHNESS: Final = (
    "max-age=60",
    "max-age=60",
    "max-age=10",
    "max-age=10, stale-while-revalidate=20",
    "max-age=10, stale-if-error=100",
    "max-age=5, must-revalidate",
    "s-maxage=30",
    "public, max-age=60",
    "no-cache",
    "private",
    "no-store",
)
VARY: Final = ("Accept-Encoding", "Accept-Encoding", "Cookie", "*", "Accept-Encoding, Cookie")
ORDERS: Final[tuple[dict[str, Any], ...]] = (
    {"url": ["http://site.example/a"]},
    {"prefix": ["http://site.example/"]},
    {"host": ["site.example"]},
    {"tag": ["front"]},
    {"tag": ["none"]},
    {"all": True},
)


@dataclass
class Play:
    """What the origin says, and what it keeps back until `release`."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    agrees: bool = True  # answers a condition by 304
    slow_s: float = 0.0
    holds: str = ""  # "head": says nothing yet; "body": begins a body of `length`
    held: list[Asked] = field(default_factory=list)

    async def perform(self, origin: ScriptedOrigin) -> None:
        while True:
            asked = await origin.next_request()
            await asked.body()
            if not self.holds or self.held or asked.method != "GET":
                await self._answer(asked)
            elif self.holds == "head":
                self.held.append(asked)
            else:
                await asked.start_reply(200, self.headers)
                await asked.send_chunk(BODY[:6])
                self.held.append(asked)

    async def _answer(self, asked: Asked) -> None:
        if self.slow_s:
            await trio.sleep(self.slow_s)
        if self.agrees and "if-none-match" in asked.headers and "ETag" in self.headers:
            await asked.reply(304, self.headers)
        else:
            await asked.reply(self.status, self.headers, BODY)

    async def release(self) -> None:
        kind, self.holds = self.holds, ""
        for asked in self.held:
            with suppress(trio.BrokenResourceError):  # another has come first, and nobody needs it
                if kind == "body":
                    await asked.send_chunk(BODY[6:])
                    await asked.end()
                else:
                    await asked.reply(200, {"Cache-Control": "max-age=60"}, BODY)
        self.held.clear()


Step: TypeAlias = Callable[["Stage"], Any]


@dataclass
class Stage:
    """A node and its people."""

    edge: Edge
    client: Client
    play: Play


@st.composite
def responses(draw: st.DrawFn) -> dict[str, str]:
    headers = {"Cache-Control": draw(st.sampled_from(FRESHNESS))}
    for name, values in (
        ("Vary", VARY),
        ("Age", ("0", "8", "30")),
        ("ETag", ('"1"', 'W/"1"')),
        ("Last-Modified", (DATED,)),
        ("xkey", ("front", "side, front")),
        ("Set-Cookie", ("s=1",)),
    ):
        if draw(st.integers(0, 8 if name == "Set-Cookie" else 2)) == 1:
            headers[name] = draw(st.sampled_from(values))
    return headers


def fetching(
    headers: dict[str, str],
    status: int = 200,
    *,
    target: str = "/a",
    asked: dict[str, str] | None = None,
    slow_s: float = 0.0,
) -> Step:
    async def fetch(stage: Stage) -> None:
        stage.play.status, stage.play.headers, stage.play.slow_s = status, headers, slow_s
        await stage.client.send("GET", target, asked).response()

    return fetch


def pausing(seconds: float) -> Step:
    async def pause(stage: Stage) -> None:
        stage.edge.advance(seconds)

    return pause


def purging(**order: Any) -> Step:
    async def purge(stage: Stage) -> None:
        await stage.edge.purge(**order)

    return purge


@st.composite
def fetches(draw: st.DrawFn) -> Step:
    fields = draw(st.lists(st.sampled_from(ORDINARY), max_size=1))
    return fetching(
        draw(responses()),
        draw(st.sampled_from((200,) * 6 + (404, 301, 503))),
        target=draw(st.sampled_from(TARGETS)).decode(),
        asked={name.decode(): value.decode() for name, value in fields},
        slow_s=draw(st.sampled_from((0.0, 0.0, 2.0))),
    )


PAUSES: Final = st.builds(pausing, st.sampled_from((1.0, 6.0, 15.0, 50.0, 200.0)))
PURGES: Final = st.builds(
    lambda order, soft: purging(**order, soft=soft),
    st.sampled_from(ORDERS),
    st.sampled_from((True, True, False)),
)


@st.composite
def pending(draw: st.DrawFn) -> Step:
    target = draw(st.sampled_from(TARGETS)).decode()
    headers = {"Cache-Control": "max-age=60"}
    if kind_is_body := draw(st.booleans()):
        headers |= {"ETag": '"1"'} if draw(st.booleans()) else {}
        headers |= {"Content-Length": str(len(BODY))} if draw(st.booleans()) else {}

    async def begin(stage: Stage) -> None:
        stage.play.holds, stage.play.headers = "body" if kind_is_body else "head", headers
        stage.client.send("GET", target)
        await stage.edge.settle()

    return begin


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """What a store is there for."""
    target, method = (
        draw(st.sampled_from(TARGETS)),
        draw(st.sampled_from((b"GET",) * 4 + (b"HEAD",))),
    )
    fields = draw(st.lists(st.sampled_from((*ORDINARY, *SELECTIVE)), max_size=2))
    return Question(b"http://site.example" + target, method, tuple(fields))


@st.composite
def strange_questions(draw: st.DrawFn) -> Question:
    """What else clients may come up with."""
    target = draw(st.sampled_from((*PAGE, *TARGETS, *STRANGE)))
    fields = draw(st.lists(st.sampled_from((*ODD, *ODD, *ORDINARY, *SELECTIVE)), max_size=4))
    method, peer = draw(st.sampled_from(METHODS)), draw(st.sampled_from(PEERS))
    return Question(b"http://site.example" + target, method, tuple(fields), peer)


STEPS: Final = st.builds(
    lambda first, rest: [first, *rest],
    fetches(),
    st.lists(st.one_of(fetches(), PAUSES, PURGES), max_size=5),
)
TRUSTING: Final = SETS[-3:]
NODES: Final = st.lists(
    st.sampled_from(SETS), max_size=2, unique_by=lambda each: each.split("=")[0]
)


async def asked_for_real(stage: Stage, question: Question) -> Reply:
    """The response to the very request that the question is about, written by hand."""
    names = [name.lower() for name, _ in question.fields]
    lines = [b"%b %b HTTP/1.1" % (question.method, question.target)]
    lines += [b"Host: site.example"] if b"host" not in names else []
    lines += [b"%b: %b" % pair for pair in question.fields]
    data = b"\r\n".join([*lines, b"", b""])
    if (b"Content-Length", b"3") in question.fields:
        data += b"xyz"
    elif b"transfer-encoding" in names:
        data += b"0\r\n\r\n"
    wire = stage.client.connect(address=question.from_address, capacity=1 << 17)
    await wire.send(data)
    await stage.edge.settle()
    await stage.play.release()
    return await wire.reply(question.method.decode())


def state(edge: Edge) -> Any:
    """All that explaining must not change."""
    held = [
        (key, id(each), each.hits, each.used, each.opened_at, each.passed, each.entry)
        for key, resource in edge.store._ram.items()
        for each in resource.variants
    ]
    return (
        edge.store.statistics(),
        held,
        len(edge.flights),
        edge.pool(),
        edge.purges.current().latest,
        len(edge.records),
        len(edge.complaints),
    )


async def explained(edge: Edge, question: Question) -> dict[str, Any]:
    return await explain(
        question, edge.tools, edge.exchange.parts, policies.connection_policy(edge.config)
    )


COUNTED: Final = {
    "hit": {"hit"},
    "stale": {"stale"},
    "revalidate": {"revalidated", "miss"},
    "fetch": {"miss"},
    "bypass": {"bypass"},
    "refuse": {"refused"},
    "purge": {"bypass"},
}


def number(request_id: str) -> int:
    return int(request_id.removeprefix("id-"))


async def check(stage: Stage, question: Question) -> dict[str, Any]:
    """What is said of the question comes true."""
    edge = stage.edge
    await edge.settle()  # or a fetch behind an earlier answer may end between the two
    before = state(edge)
    document = await explained(edge, question)
    assert state(edge) == before
    known, last = document["verdict"], number(edge.tools.new_id())
    stage.play.status, stage.play.slow_s = 200, 0.0
    reply = await asked_for_real(stage, question)
    await edge.settle()
    own = [record for record in edge.records if number(record.id) > last]
    if document["key"] is None and not own:  # refused before it was a request
        assert (known["outcome"], known["status"]) == ("refuse", reply.status)
        return document
    (record,) = own
    assert known["reason"] == record.reason.partition("/")[0], (known, record)
    assert record.cache.value in COUNTED[known["outcome"]], (known, record)
    assert known["status"] in (None, reply.status), (known, record)
    assert (known["status"] is None) == (record.upstream is not None), (known, record)
    return document


def play(
    sets: list[str], steps: list[Step], question: Question, *, restart: bool = False
) -> dict[str, Any]:
    """Play the steps, then ask; with `restart`, in a node that has begun anew on the same disk."""
    clock = MockClock(autojump_threshold=0)
    return trio.run(partial(act, sets, steps, question, restart=restart), clock=clock)


async def act(
    sets: list[str], steps: list[Step], question: Question, *, restart: bool
) -> dict[str, Any]:
    sets = ["limits.request_body=1KiB", *sets]
    with TemporaryDirectory() as home:
        directory = Path(home) / "store" if restart else None
        if restart:
            async with a_stage(sets, directory) as stage:
                for step in steps:
                    await step(stage)
                await stage.edge.settle()
                passed = stage.edge.now
            steps = []
        async with a_stage(sets, directory) as stage:
            if restart:
                stage.edge.now = passed
            for step in steps:
                await step(stage)
            return await check(stage, question)


@asynccontextmanager
async def a_stage(
    sets: list[str], directory: Path | None = None, *, by_hop: bool = False
) -> AsyncIterator[Stage]:
    """A world whose origin plays."""
    async with a_world(sets, directory, by_hop=by_hop) as (edge, origin, client):
        play = Play()
        origin.nursery.start_soon(play.perform, origin)
        yield Stage(edge, client, play)


LAW: Final = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])


@LAW
@given(sets=NODES, steps=STEPS, question=questions())
def test_what_is_explained_is_what_the_next_request_gets(
    sets: list[str], steps: list[Step], question: Question
) -> None:
    document = play(sets, steps, question)
    event("{outcome} {reason} {status}".format(**document["verdict"]))
    msgspec.json.encode(document)


@LAW
@given(
    sets=st.lists(st.sampled_from(TRUSTING), unique=True),
    steps=st.lists(fetches(), max_size=2),
    question=strange_questions(),
)
def test_it_holds_for_strange_requests(
    sets: list[str], steps: list[Step], question: Question
) -> None:
    document = play(sets, steps, question)
    event("{outcome} {reason} {status}".format(**document["verdict"]))


@LAW
@given(steps=STEPS, step=pending(), question=questions())
def test_it_holds_while_a_fetch_is_under_way(
    steps: list[Step], step: Step, question: Question
) -> None:
    play([], [*steps, step], question)


@settings(LAW, max_examples=40)
@given(sets=NODES, steps=STEPS, question=questions())
def test_it_holds_for_what_is_on_disk_only(
    sets: list[str], steps: list[Step], question: Question
) -> None:
    play(sets, steps, question, restart=True)


TAGGED: Final = {"Cache-Control": "max-age=10, stale-if-error=100", "ETag": '"1"', "xkey": "front"}
ZERO: Final = ((b"Max-Forwards", b"0"),)
PURGED: Final = ((b"xkey", b"front"),)
SOCKET: Final = ((b"Connection", b"upgrade"), (b"Upgrade", b"websocket"))
OLD: Final = ((b"Cache-Control", b"max-stale=100"),)
BELIEVED: Final = ((b"X-Forwarded-Proto", b"https"),)


@pytest.mark.parametrize(
    ("steps", "method", "fields", "verdict"),
    [
        ([], b"OPTIONS", ZERO, ("bypass", "method", 200)),
        ([], b"PURGE", ZERO, ("purge", "purge", 200)),
        ([], b"PURGE", PURGED, ("purge", "purge", 200)),
        ([], b"PURGE", ((b"xkey", b""),), ("purge", "purge", 400)),
        ([], b"POST", ((b"Content-Length", b"3"),), ("bypass", "method", None)),
        ([], b"POST", ((b"Content-Length", b"99999"),), ("refuse", "body-too-large", 413)),
        ([], b"GET", SOCKET, ("bypass", "upgrade", None)),
        ([fetching(TAGGED)], b"GET", (), ("hit", "hit", 200)),
        ([fetching(TAGGED)], b"GET", BELIEVED, ("fetch", "uri-miss", None)),
        ([fetching(TAGGED), pausing(20)], b"GET", (), ("revalidate", "stale", None)),
        ([fetching(TAGGED), pausing(20)], b"GET", OLD, ("stale", "stale-accepted", 200)),
        ([fetching(TAGGED), pausing(20)], b"HEAD", (), ("fetch", "stale", None)),
        ([fetching(TAGGED), purging(tag=["front"])], b"GET", (), ("fetch", "uri-miss", None)),
        (
            [fetching(TAGGED), purging(tag=["front"], soft=True)],
            b"GET",
            (),
            ("revalidate", "soft-purged", None),
        ),
        (
            [fetching(TAGGED), pausing(20), fetching({}, 503, slow_s=2.0)],
            b"GET",
            (),
            ("stale", "stale-if-error", 200),
        ),
        (
            [fetching({"Cache-Control": "private"})],
            b"GET",
            ((b"If-None-Match", b'"1"'),),
            ("fetch", "uri-miss", None),
        ),
    ],
)
def test_corners_that_chance_seldom_finds(
    steps: list[Step], method: bytes, fields: tuple[Pair, ...], verdict: tuple[Any, ...]
) -> None:
    trusting = 'node.trusted_proxies=["198.51.100.0/24"]'
    purging_too = 'site.purge_from=["198.51.100.0/24"]'
    honouring = "site.cache.honour_request_directives=true"
    question = Question(b"http://site.example/a", method, fields, PEERS[0])
    document = play([trusting, purging_too, honouring], steps, question)
    assert tuple(document["verdict"][name] for name in ("outcome", "reason", "status")) == verdict
