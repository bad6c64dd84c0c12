"""What is remembered of requests, and for how long; a story tells that the answers are right."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec import UNSET

from edge.cache.entry import Entry, Seq, Source, Terms, Times
from edge.cache.flight import Flights
from edge.cache.held import Held
from edge.cache.key import key_of
from edge.cache.store import Store
from edge.errors import ExchangeError, Failure
from edge.listen.lane import After
from edge.routing.geo import NOWHERE, Place
from edge.serving.admission import admit
from edge.serving.answer import ONE_VISITORS
from edge.serving.exchange import MOST_ALIKE, MOST_DRAWN, Exchange
from edge.serving.quick import KNOWN_BYTES, PEERS, Quick
from edge.wire.grammar import Limits
from edge.wire.message import Headers, RequestHead, ResponseHead
from edge.wire.serial import plain_head
from tests.unit.edgeparts import parts_of
from tests.unit.sent import joined
from tests.unit.unpurged import nothing_purged

if TYPE_CHECKING:
    from pathlib import Path

    from edge.observe.record import Record
    from edge.serving.admission import Admitted, Drawn
    from edge.serving.quick import Answered
    from edge.serving.visit import Parts, Tools

T = 1_800_000_000.0
PEER = b"198.51.100.1"


class Desk:
    """A quick desk before a store without a disk. Room for ten requests in each generation."""

    def __init__(self, *sets: str) -> None:
        self.parts = parts_of(*sets, chance=lambda: self.roll)
        self.roll = 0.0
        self.store = Store(16 << 20)
        self.records: list[Record] = []
        self.complaints: list[str] = []
        self.now = T
        tools: Any = SimpleNamespace(
            store=self.store,
            flights=Flights[Held](),
            purges=nothing_purged(),
            now=lambda: self.now,
            new_id=lambda: "id-1",
            log=self.records.append,
            complain=lambda *words: self.complaints.append(words[1]),
        )
        self.tools = tools
        self.exchange = Exchange(cast("Tools", tools), self.parts)
        self.quick = Quick(
            self.exchange, tools, Limits(), self.records.extend, room_bytes=10 * KNOWN_BYTES
        )

    def keep(self, target: bytes = b"/a", body: bytes = b"body", **changes: Any) -> Held:
        """Have an answer for `target` stored."""
        request = RequestHead(b"GET", b"http", b"site.example", target)
        told: dict[str, Any] = {
            "key": key_of(b"http", b"site.example", target, request),
            "status": 200,
            "headers": Headers([(b"etag", b'"1"')]),
            "times": Times(T, T),
            "date": T,
            "age_field": 0,
            "terms": Terms(60.0, Source.MAX_AGE),
            "variant": (),
            "length": len(body),
            "fetched_at": Seq(0),
            "keep_until": T + 60,
        }
        held = Held(Entry(**{**told, **changes}), body=body)
        self.store._add(held)
        return held

    def ask(
        self, target: bytes = b"/a", *lines: bytes, peer: bytes = PEER, method: bytes = b"GET"
    ) -> Answered | None:
        self.quick.begin()
        head = [b"%b %b HTTP/1.1" % (method, target), b"Host: site.example", *lines]
        return self.quick.answer(b"\r\n".join([*head, b"", b""]), peer)


def text_of(answered: Answered | None) -> bytes:
    assert answered is not None
    return joined(answered[0])


def test_a_hit_is_answered_with_what_is_stored() -> None:
    desk = Desk()
    held = desk.keep()
    desk.now += 7
    answered = desk.ask()
    assert text_of(answered) == (
        b'HTTP/1.1 200 OK\r\ncontent-length: 4\r\netag: "1"\r\nvia: 1.1 edge1\r\n'
        b"cache-status: edge1; hit; ttl=53\r\nage: 7\r\n\r\nbody"
    )
    assert held.hits == 1
    assert not desk.records  # before it has been sent, or not
    assert answered is not None
    desk.quick.close(answered[1], 0.0012345678)
    assert not desk.records
    desk.quick.settle()
    (record,) = desk.records
    assert (record.total_s, record.first_byte_s, record.error) == (0.001235, 0.001235, None)
    assert (record.status, record.bytes, record.ttl, record.reason) == (200, 4, 53, "hit")


def test_a_client_that_left_is_written_down() -> None:
    desk = Desk()
    desk.keep()
    answered = desk.ask()
    assert answered is not None
    desk.quick.close(answered[1], 1.0, ExchangeError(Failure.CLIENT_LEFT))
    desk.quick.settle()
    assert desk.records[0].error == "client-left"


def test_what_is_not_stored_not_plain_or_not_ours_is_left_alone() -> None:
    desk = Desk("site.hosts=['site.example']")
    desk.keep()
    assert desk.ask(b"/b") is None
    assert desk.ask(b"/a", b"Connection: upgrade") is None
    assert desk.ask(b"/a", method=b"POST") is None
    assert Desk("site.cache.bypass=true").ask() is None
    assert desk.store.statistics().memory.misses == 0  # whoever answers will count it


def test_a_client_that_asks_amiss_is_told() -> None:
    desk = Desk("site.hosts=['site.example']")
    for _ in range(2):
        refused = desk.ask(b"/a", b"CDN-Loop: edge1")
        assert text_of(refused).startswith(b"HTTP/1.1 508 Loop Detected\r\n")
        assert refused is not None
        assert refused[2] is After.PARK
        refused = desk.ask(b"/a", method=b"PURGE")
        assert b"\r\nconnection: close\r\n" in text_of(refused)
        assert refused is not None
        assert refused[2] is After.LINGER
        refused = desk.ask(b"/a", b"Connection: close", method=b"PURGE")
        assert refused is not None
        assert refused[2] is After.CLOSE
        other = desk.quick.answer(b"HEAD /a HTTP/1.1\r\nHost: other\r\n\r\n", PEER)
        assert text_of(other).startswith(b"HTTP/1.1 421 ")
        assert text_of(other).endswith(b"\r\n\r\n")
        assert other is not None
        record = other[1]
        assert (record.error, record.reason, record.bytes) == ("no-such-site", "no-such-site", 0)
    assert desk.records == []


def test_a_last_request_is_told_so() -> None:
    desk = Desk()
    desk.keep()
    for _ in range(2):
        answered = desk.ask(b"/a", b"Connection: close")
        assert b"\r\nConnection: close\r\n" in text_of(answered)
        assert answered is not None
        assert answered[2] is After.CLOSE
        assert b"onnection" not in text_of(desk.ask())


def test_a_large_body_is_not_copied() -> None:
    desk, body = Desk(), b"x" * 100_000
    desk.keep(body=body)
    answered = desk.ask()
    assert answered is not None
    assert answered[0][1] is body


def test_a_body_that_is_not_at_hand_is_left_alone() -> None:
    desk = Desk()
    held = desk.keep()
    held.body = None
    assert desk.ask() is None
    assert held.hits == 0
    assert text_of(desk.ask(b"/a", b'If-None-Match: "1"')).startswith(b"HTTP/1.1 304 ")
    assert text_of(desk.ask(method=b"HEAD")).startswith(b"HTTP/1.1 200 ")
    held.body = b"bo"
    assert desk.ask() is None


def test_an_answer_that_is_not_plain_is_left_alone() -> None:
    desk = Desk()
    desk.keep(headers=Headers([(b"host", b"x")]))
    assert desk.ask() is None
    desk.keep(b"/b", headers=Headers([(b"Bad", b"x")]))
    assert desk.ask(b"/b") is None
    desk.keep(b"/c", length=None)
    assert desk.ask(b"/c") is None


def test_new_settings_begin_with_nothing_remembered() -> None:
    desk = Desk()
    held = desk.keep()
    desk.ask()
    before = held.ready
    assert b"via: 1.1 edge1\r\n" in text_of(desk.ask())
    assert held.ready is before
    desk.exchange.parts = replace(desk.parts, name=b"other")
    assert b"via: 1.1 other\r\n" in text_of(desk.ask())
    assert held.ready is not before


def test_what_is_known_of_requests_is_bounded() -> None:
    desk = Desk()
    for number in range(500):
        target = b"/%d" % number
        desk.keep(target)
        assert desk.ask(target) is not None
        assert desk.ask(b"/0") is not None  # which is never forgotten, as it is asked for
        quick = desk.quick
        assert max(map(len, (quick._young, quick._old, quick._dying))) <= 11
    assert desk.ask(b"/1") is not None


def test_what_is_known_of_peers_is_bounded() -> None:
    desk = Desk()
    desk.keep()
    for number in range(PEERS + 10):
        peer = b"10.%d.%d.%d" % (number >> 16, number >> 8 & 255, number & 255)
        assert desk.ask(peer=peer) is not None
    assert len(desk.quick._clients) == 10


def test_a_fault_of_ours_takes_nobody_down() -> None:
    desk = Desk()
    desk.keep()
    cast("Any", desk.store).glance = lambda key, now: 1 // 0
    assert desk.ask() is None
    assert "ZeroDivisionError" in desk.complaints[0]


class Lender:
    """Lends the file at `path`, as much of it as is asked for."""

    def __init__(self, path: Path, body: bytes) -> None:
        path.write_bytes(body)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.lent: list[tuple[int, int]] = []

    def lend(self, held: Held, offset: int, most: int) -> Lender:
        self.lent.append((offset, most))
        return self

    def close(self) -> None:
        os.close(self.descriptor)


def test_a_large_body_that_is_in_an_open_file_is_sent_from_there(tmp_path: Path) -> None:
    desk, body = Desk(), os.urandom(1_000_000)
    held = desk.keep(body=body)
    lender = Lender(tmp_path / "file", body)
    cast("Any", desk.store).lend_nowait = lender.lend
    whole = text_of(desk.ask())
    held.body = None
    assert text_of(desk.ask()) == whole
    assert whole.endswith(b"\r\n\r\n" + body)
    part = text_of(desk.ask(b"/a", b"Range: bytes=500-1499"))
    assert part.startswith(b"HTTP/1.1 206 ")
    assert part.endswith(b"\r\n\r\n" + body[500:1500])
    assert desk.ask(b"/a", b"Range: bytes=0-9,20-29") is None
    assert text_of(desk.ask(method=b"HEAD")).endswith(b"\r\n\r\n")
    assert text_of(desk.ask(b"/a", b'If-None-Match: "1"')).startswith(b"HTTP/1.1 304 ")
    assert lender.lent == [(0, len(body))] * 2 + [(500, 1000)]
    assert held.hits == 5
    answered = desk.ask()
    assert answered is not None
    assert answered[1].bytes == len(body)
    held.body = body
    desk.quick = Quick(desk.exchange, desk.tools, Limits(), desk.records.extend, lends=False)
    for _ in range(2):
        assert text_of(desk.ask()) == whole
    held.body = None
    assert desk.ask() is None
    assert len(lender.lent) == 4
    lender.close()


def test_where_nothing_is_remembered_each_request_is_admitted_anew() -> None:
    desk = Desk()
    desk.keep()
    asked: list[bytes] = []

    def once(
        parts: Parts, head: RequestHead, peer: bytes, *, relayed: bool = False, drawn: Drawn = ()
    ) -> Admitted:
        asked.append(head.method)
        if len(asked) > 2:
            raise ExchangeError(Failure.METHOD_REFUSED)
        return admit(parts, head, peer, relayed=relayed, drawn=drawn)

    desk.exchange.parts = replace(desk.parts, admit=once, remembers=False)
    assert text_of(desk.ask()).startswith(b"HTTP/1.1 200 ")
    assert text_of(desk.ask()).startswith(b"HTTP/1.1 200 ")
    assert text_of(desk.ask()).startswith(b"HTTP/1.1 405 ")
    assert desk.ask(method=b"PURGE") is None  # it may count, and the exchange will admit it
    assert asked == [b"GET", b"GET", b"GET"]


# --- what more than a request's bytes has to be known for

EXPERIMENT = 'site.experiment=[{name="e",cookie={name="ab"},arms={%s}}]'
SAME_FOR_ALL = EXPERIMENT % "x={weight=1},y={weight=1}"
PREFIXED = EXPERIMENT % 'x={weight=1},y={weight=1,prefix="/y"}'


def key_by(desk: Desk, target: bytes, *fields: tuple[bytes, bytes]) -> Any:
    """The key that a request has whose cookie tells its arm."""
    head = RequestHead(b"GET", b"http", b"site.example", target, Headers(fields))
    return desk.parts.admit(desk.parts, head, PEER).key


def test_a_new_visitor_is_told_its_arm_with_the_answer_that_all_get() -> None:
    desk, plain = Desk(SAME_FOR_ALL), Desk()
    held = desk.keep()
    plain.keep()
    for roll, arm in ((0.1, b"x"), (0.9, b"y"), (0.1, b"x"), (0.9, b"y")):
        desk.roll = roll
        answered = desk.ask()
        cookie = b"set-cookie: ab=%b; Max-Age=2592000; Path=/; HttpOnly; SameSite=Lax\r\n" % arm
        head, _, body = text_of(plain.ask()).partition(b"\r\n\r\n")
        cookie += b"cache-control: private\r\n"
        assert text_of(answered) == head + b"\r\n" + cookie + b"\r\n" + body
        assert answered is not None
        assert answered[1].arms == (f"*/e={arm.decode()};new",)
        kept = desk.ask(b"/a", b"Cookie: ab=" + arm)
        assert kept is not None
        assert text_of(kept) == text_of(plain.ask())
        assert kept[1].arms == (f"*/e={arm.decode()}",)
    assert held.hits == 8


@pytest.mark.parametrize("last", [(), (b"Connection: close",)])
@pytest.mark.parametrize("condition", [(), (b'If-None-Match: "1"',), (b"Range: bytes=1-2",)])
def test_what_is_told_stands_where_the_exchange_puts_it(
    last: tuple[bytes, ...], condition: tuple[bytes, ...]
) -> None:
    desk, plain = Desk(SAME_FOR_ALL), Desk()
    desk.keep()
    plain.keep()
    for _ in range(2):
        told = text_of(desk.ask(b"/a", *last, *condition)).partition(b"\r\n\r\n")[0]
        lines = text_of(plain.ask(b"/a", *last, *condition)).partition(b"\r\n\r\n")[0]
        status, *pairs = lines.split(b"\r\n")
        head = ResponseHead(
            int(status.split()[1]),
            Headers([(n, v) for n, _, v in (line.partition(b": ") for line in pairs)]).without(
                (b"Connection",)
            ),
        )
        cookie, _, after = told.rpartition(b"set-cookie: ")[2].partition(b"\r\n")
        given = ((b"set-cookie", cookie), ONE_VISITORS)
        again = replace(head, headers=head.headers.plus(*given))
        assert after == b"cache-control: private"
        assert plain_head(again, is_last=bool(last)) == told + b"\r\n\r\n"


def test_each_arm_has_what_is_stored_for_it() -> None:
    desk = Desk(PREFIXED)
    desk.keep(body=b"for all")
    desk.keep(body=b"for y", key=key_by(desk, b"/a", (b"cookie", b"ab=y")))
    for roll, body in ((0.1, b"for all"), (0.9, b"for y"), (0.1, b"for all")):
        desk.roll = roll
        assert text_of(desk.ask()).endswith(b"\r\n\r\n" + body)
    assert text_of(desk.ask(b"/a", b"Cookie: ab=y")).endswith(b"\r\n\r\nfor y")


def test_what_is_stale_is_validated_for_the_arm_that_was_drawn() -> None:
    desk = Desk(PREFIXED)
    stale = Terms(60.0, Source.MAX_AGE, while_revalidate_s=600.0)
    desk.keep(key=key_by(desk, b"/a", (b"cookie", b"ab=y")), terms=stale, keep_until=T + 900)
    asked: list[Any] = []

    def refresh(parts: Parts, asking: Any, *rest: Any) -> None:
        asked.append(asking)

    cast("Any", desk.exchange).refresh = refresh
    desk.now += 100
    rolls = iter([0.1, 0.9, *[0.1] * 9])  # to root what is known, to draw, and for what is left
    desk.exchange.parts = replace(
        desk.parts, ways=replace(desk.parts.ways, chance=lambda: next(rolls))
    )
    assert text_of(desk.ask()).startswith(b"HTTP/1.1 200 ")
    ((arm,),) = (each.arms for each in asked)
    assert arm.arm.name == b"y"
    assert asked[0].asked == b"/y/a"


def test_a_client_is_sent_somewhere_else_from_here() -> None:
    moved = 'site.rule=[{match={path="/old/*"},redirect={to="/new/*"}}]'
    desk = Desk(moved, SAME_FOR_ALL)
    for _ in range(2):
        answered = desk.ask(b"/old/a?b")
        head = text_of(answered)
        assert head.startswith(b"HTTP/1.1 308 Permanent Redirect\r\ncontent-length: 0\r\n")
        assert b"\r\nlocation: http://site.example/new/a?b\r\n" in head
        assert b"\r\nset-cookie: ab=x; " in head
        assert head.endswith(b"\r\n\r\n")
        assert answered is not None
        record = answered[1]
        assert (record.status, record.reason, record.bytes) == (308, "redirect", 0)
        assert (record.arms, answered[2]) == (("*/e=x;new",), After.PARK)
    last = desk.ask(b"/old/a", b"Connection: close", method=b"HEAD")
    assert b"\r\nConnection: close\r\n" in text_of(last)
    assert last is not None
    assert last[2] is After.CLOSE


PLACES = {b"192.0.2.1": Place("DE", "EU"), b"192.0.2.2": Place("FR", "EU")}


def placed(*sets: str) -> Desk:
    """A desk that knows where some clients are."""
    desk = Desk("node.geo=x.mmdb", *sets)
    ways = replace(desk.parts.ways, place_of=lambda client: PLACES.get(client, NOWHERE))
    desk.parts = desk.exchange.parts = replace(desk.parts, ways=ways)
    return desk


def test_each_country_has_what_is_stored_for_it() -> None:
    desk = placed('site.key.place=["country"]')
    for peer, place in PLACES.items():
        head = RequestHead(b"GET", b"http", b"site.example", b"/a")
        desk.keep(body=place.country.encode(), key=desk.parts.admit(desk.parts, head, peer).key)
    for _ in range(2):
        for peer, place in PLACES.items():
            assert text_of(desk.ask(peer=peer)).endswith(b"\r\n\r\n" + place.country.encode())
        assert desk.ask(peer=b"192.0.2.3") is None


BY_COUNTRY = (
    'site.rule=[{match={country=["DE"]},rewrite={add="/r"}},'
    '{match={country=["FR"]},cache={bypass=true}}]'
)


@pytest.mark.parametrize("first", PLACES)
def test_what_one_country_is_refused_or_has_fetched_is_not_so_for_others(first: bytes) -> None:
    desk = placed(BY_COUNTRY)
    desk.keep(b"/a/..%2Fb")  # a path that leaves where it is rewritten to
    for _ in range(2):  # the reader gives the same object from the second time on
        assert desk.ask(b"/a/..%2Fb", peer=first) is None
    answered = desk.ask(b"/a/..%2Fb", peer=PEER)
    assert answered is None or text_of(answered).startswith(b"HTTP/1.1 200 ")


def test_that_one_countrys_requests_pass_by_the_store_slows_no_others() -> None:
    desk = placed(BY_COUNTRY)
    desk.keep()
    _, france = PLACES
    for _ in range(2):
        assert desk.ask(peer=france) is None
    assert text_of(desk.ask(peer=PEER)).startswith(b"HTTP/1.1 200 ")
    assert desk.ask(peer=france) is None


def test_branches_are_charged_to_what_is_known_of_requests() -> None:
    desk = placed('site.key.place=["subdivision"]')
    numbers = iter(range(10_000))
    ways = replace(
        desk.parts.ways, place_of=lambda _: Place("DE", "EU", f"DE-{next(numbers) % 100}")
    )
    desk.exchange.parts = replace(desk.parts, ways=ways)
    quick = desk.quick
    for number in range(300):
        desk.ask(b"/%d" % (number % 3))
        generations = (quick._young, quick._old)
        known = [known for each in generations for known in each.values()]
        kept = sum(1 + len(each.branches) for each in known if each.branches is not None)
        assert kept <= 2 * 11


def test_a_first_visitor_whom_the_store_is_not_for_decides_no_arm_for_others() -> None:
    desk = placed(BY_COUNTRY, SAME_FOR_ALL)
    desk.keep()
    _, france = PLACES
    for _ in range(2):
        assert desk.ask(peer=france) is None
    for roll, arm in ((0.1, "x"), (0.9, "y"), (0.1, "x")):
        desk.roll = roll
        answered = desk.ask(peer=PEER)
        assert answered is not None
        assert answered[1].arms == (f"*/e={arm};new",)


class Stream:
    """A client that takes what it is sent."""

    peer = PEER
    head_sent = False
    sent_bytes = 0

    async def send(self, message: object, *, more: bool = False) -> None:
        self.head_sent = True


ONLY_STORED = (b"cache-control", b"only-if-cached")


async def arm_of(desk: Desk, target: bytes, *, by_lane: bool = True) -> str:
    """The arm of a new visitor who asks for what is not stored, as the exchange logs it."""
    if by_lane:
        assert desk.ask(target, b"Cache-Control: only-if-cached") is None
    head = RequestHead(b"GET", b"http", b"site.example", target, Headers((ONLY_STORED,)))
    desk.tools.relays = None
    await desk.exchange.serve(cast("Any", Stream()), head)
    record = desk.records.pop()
    assert (record.status, record.arms) != (0, UNSET)
    (arm,) = cast("tuple[str, ...]", record.arms)
    return arm


def rolling(desk: Desk, *rolls: float) -> None:
    left = iter(rolls)
    ways = replace(desk.parts.ways, chance=lambda: next(left))
    desk.exchange.parts = desk.parts = replace(desk.parts, ways=ways)


async def test_who_draws_and_finds_nothing_does_not_draw_again() -> None:
    desk = Desk(SAME_FOR_ALL)
    for drawn in (0.1, 0.9, 0.1, 0.9):
        rolling(desk, 0.5, drawn, 1.0 - drawn, 1.0 - drawn)  # to root; to draw; once more
        arm = "x" if drawn < 0.5 else "y"
        assert await arm_of(desk, b"/none") == f"*/e={arm};new"
    rolling(desk, 0.9)
    assert await arm_of(desk, b"/none", by_lane=False) == "*/e=y;new"


async def test_what_was_drawn_is_for_the_request_that_it_was_drawn_for() -> None:
    desk = Desk(SAME_FOR_ALL)
    rolling(desk, 0.5, 0.9, 0.5, 0.1)  # the last for the other request
    assert desk.ask(b"/other") is None
    assert await arm_of(desk, b"/none", by_lane=False) == "*/e=x;new"


def test_what_was_drawn_in_vain_is_bounded() -> None:
    desk = Desk(SAME_FOR_ALL)
    for number in range(3 * MOST_DRAWN):
        desk.exchange.expect(
            RequestHead(b"GET", b"http", b"a", b"/%d" % number), PEER, ((b"e", b"x"),)
        )
        desk.exchange.expect(RequestHead(b"GET", b"http", b"a", b"/"), PEER, ((b"e", b"x"),))
    waiting = desk.exchange._drawn
    assert len(waiting) <= MOST_DRAWN
    assert max(map(len, waiting.values())) <= MOST_ALIKE


def test_a_request_goes_by_the_name_that_it_came_with() -> None:
    moved = 'site.rule=[{match={path="/old/*"},redirect={to="/new/*"}}]'
    desk = Desk(moved)
    desk.keep()

    def named(parts: Parts, head: RequestHead, peer: bytes, **options: Any) -> Admitted:
        return replace(admit(parts, head, peer, **options), id="ab-7")

    desk.exchange.parts = replace(desk.parts, admit=named, remembers=False)
    only_stored = b"Cache-Control: only-if-cached"
    desk.keep(b"/old", terms=Terms(0.0, Source.MAX_AGE))
    for answered in (desk.ask(), desk.ask(b"/old/a"), desk.ask(b"/old", only_stored)):
        assert answered is not None
        assert answered[1].id == "ab-7"
    assert b"request ab-7" in text_of(desk.ask(b"/old", only_stored))
