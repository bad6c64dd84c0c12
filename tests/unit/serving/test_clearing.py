"""What a request clears: told by stories of a whole node, and here where the disk fails."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
import trio

from edge.cache.entry import Key
from edge.cache.flight import Flights
from edge.cache.journal import JournalError
from edge.cache.key import KeyPolicy, key_of
from edge.cache.scope import tag_name
from edge.errors import ExchangeError, Failure
from edge.purging.late import Late
from edge.routing.route import Route
from edge.routing.site import HostTable
from edge.serving import clearing
from edge.serving.terms import Site, Terms
from edge.serving.visit import Visit
from edge.wire.message import Chunk, End, Headers, Message, RequestHead, ResponseHead
from tests.unit.unpurged import nothing_purged

JSON = (b"content-type", b"application/json; charset=utf-8")
SITES: HostTable[Any] = HostTable([(b"*", SimpleNamespace(key=KeyPolicy()))])
FULL = "purges: No space left on device; free some"


class Purging:
    """Cannot write anything down."""

    def __init__(self) -> None:
        self.hosts: list[bytes | None] = []
        self.orders: list[Any] = []
        self.urls: list[tuple[bytes, bytes, str]] = []
        self.ahead: list[bytes] = []
        self.late: tuple[Late, ...] = ()
        self.is_full = True

    async def send_ahead(self, order: bytes, *, later: bool = False) -> tuple[Late, ...]:
        await trio.lowlevel.checkpoint()
        assert self.orders == []  # shields are first
        self.ahead.append(order)
        if later:
            raise JournalError(FULL)
        return self.late

    async def carry_out(self, order: object, who: str, *, host: bytes | None = None) -> Any:
        self.hosts.append(host)
        self.orders.append(order)
        await trio.lowlevel.checkpoint()
        if not self.is_full:
            return SimpleNamespace(number=17)
        raise JournalError(FULL)

    async def invalidate_url(self, authority: bytes, target: bytes, who: str) -> None:
        await trio.lowlevel.checkpoint()
        self.urls.append((authority, target, who))
        raise JournalError(FULL)

    async def invalidate_groups(self, *told: object) -> None:
        await trio.lowlevel.checkpoint()
        raise JournalError(FULL)


class Relays:
    """The other workers, of whom one owns `/a` and may be dead, and this one all else."""

    def __init__(self, *, reachable: bool) -> None:
        self.told: list[bytes] = []
        self._a = key_of(
            b"http", b"Site.example:81", b"/a", RequestHead(b"", b"", b"", b""), KeyPolicy()
        )
        self._reachable = reachable

    def owns(self, digest: bytes) -> bool:
        return digest != self._a.digest

    async def invalidate(self, key: Key) -> bool:
        await trio.lowlevel.checkpoint()
        self.told.append(key.url)
        return self._reachable


class Stream:
    """A client who reads all it is sent."""

    peer = b"198.51.100.1"
    head_sent = False
    sent_bytes = 0

    def __init__(self, body: bytes) -> None:
        self.sent: list[Message] = []
        self._body: list[Message] = [Chunk(body[:5]), Chunk(body[5:]), End()] if body else []

    def request_body(self) -> Stream | None:
        return self if self._body else None

    async def receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        return self._body.pop(0)

    async def send(self, message: Message, *, more: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)


class Desk:
    """One visit to a node whose journal is on a full disk."""

    def __init__(
        self,
        method: bytes,
        *pairs: tuple[bytes, bytes],
        reach: Literal["host", "node"] = "host",
        relays: Relays | None = None,
        body: bytes = b"",
    ) -> None:
        self.complaints: list[str] = []
        self.invalidated: list[bytes] = []
        self.purging = Purging()
        self.stream = Stream(body)
        tools: Any = SimpleNamespace(
            purges=nothing_purged(),
            purging=self.purging,
            flights=Flights[Any](),
            store=SimpleNamespace(
                invalidate=lambda key: self.invalidated.append(key.url),
                settle=self._settle,
            ),
            now=lambda: 1_800_000_000.0,
            new_id=lambda: "id-1",
            log=lambda record: None,
            complain=lambda *words: self.complaints.append(words[1]),
            relays=relays,
        )
        head = RequestHead(method, b"http", b"Site.example:81", b"/a", Headers(pairs))
        parts: Any = SimpleNamespace(name=b"edge1", sites=SITES)
        self.visit = Visit(tools, parts, cast("Any", self.stream), head)
        self.visit.request = head
        self.visit.key = key_of(b"http", b"Site.example:81", b"/a", head)
        self.visit.terms, self.visit.arms = Terms(), ()
        self.visit.site = Site("site", KeyPolicy(), self.visit.terms, purge_reach=reach)

    async def _settle(self, *, synced: bool) -> None:
        assert not synced
        await trio.lowlevel.checkpoint()

    def answer(self) -> tuple[int, dict[str, Any]]:
        head, body = self.stream.sent[:2]
        assert isinstance(head, ResponseHead)
        assert isinstance(body, Chunk)
        return head.status, json.loads(bytes(body.data))


async def test_a_purge_that_cannot_be_recorded_is_a_503_that_tells_nothing_of_ours() -> None:
    desk = Desk(b"PURGE")
    await clearing.purge(desk.visit)
    status, document = desk.answer()
    assert (status, document["status"]) == (503, "failed")
    assert "space" not in str(document)
    assert desk.complaints == [FULL]


@pytest.mark.parametrize(("reach", "host"), [("host", b"site.example"), ("node", None)])
async def test_a_purge_is_confined_to_its_host_unless_its_reach_is_the_node(
    reach: Literal["host", "node"], host: bytes | None
) -> None:
    desk = Desk(b"PURGE", (b"xkey", b"front"), reach=reach)
    await clearing.purge(desk.visit)
    assert desk.purging.hosts == [host]


async def test_a_purge_that_cannot_be_read_says_what_to_send_instead() -> None:
    desk = Desk(b"PURGE", (b"x-magento-tags-pattern", b".*"))
    await clearing.purge(desk.visit)
    status, document = desk.answer()
    assert (status, document["status"]) == (400, "refused")
    assert document["detail"]


async def test_shields_are_told_what_the_purge_is_and_for_which_host() -> None:
    desk = Desk(b"PURGE", (b"fastly-soft-purge", b"1"))
    desk.purging.is_full = False
    await clearing.purge(desk.visit)
    (order,) = map(json.loads, desk.purging.ahead)
    url = "http://site.example:81/a"
    assert order == {"soft": True, "on": "site.example", "url": [url]}
    assert desk.answer() == (200, {"status": "ok", "id": "17", "soft": True})


@pytest.mark.parametrize(
    ("late", "said"),
    [
        ([True], "a shield has not acknowledged it; it will be sent there again"),
        ([True, True], "2 shields have not acknowledged it; it will be sent there again"),
        ([True, False], "2 shields have not taken it; the log of this node says why"),
    ],
)
async def test_a_purge_that_a_shield_has_not_made_is_no_success(
    late: list[bool], said: str
) -> None:
    desk = Desk(b"PURGE")
    desk.purging.is_full = False
    desk.purging.late = tuple(Late("http://inner.example", "why", each) for each in late)
    await clearing.purge(desk.visit)
    status, document = desk.answer()
    assert (status, document["status"], document["id"]) == (503, "incomplete", "17")
    assert document["detail"] == f"purged here, but {said}"
    assert desk.complaints == ["http://inner.example has not purged: why"] * len(late)
    assert len(desk.purging.orders) == 1


async def test_an_order_of_a_node_that_is_known_may_be_for_one_host() -> None:
    desk = Desk(b"PURGE", JSON, body=b'{"on": "site.example", "tag": ["front"]}')
    desk.visit.orders = True
    await clearing.purge(desk.visit)
    assert desk.purging.hosts == [b"site.example"]
    assert desk.purging.orders[0].names == (tag_name(b"front", b"site.example"),)


@pytest.mark.parametrize(
    ("method", "told"), [(b"POST", [f"groups not invalidated: {FULL}"]), (b"GET", [])]
)
async def test_groups_that_cannot_be_recorded_cost_no_one_the_answer(
    method: bytes, told: list[str]
) -> None:
    desk = Desk(method)
    named = Headers([(b"cache-group-invalidation", b'"a"')])
    await clearing.invalidate(desk.visit, ResponseHead(200, named), None)
    assert desk.complaints == told


async def test_a_write_without_groups_invalidates_its_own_target() -> None:
    desk = Desk(b"POST")
    await clearing.invalidate(desk.visit, ResponseHead(204), None)
    assert desk.complaints == []


async def test_what_another_worker_owns_is_invalidated_there() -> None:
    desk = Desk(b"POST", relays=(relays := Relays(reachable=True)))
    await clearing.invalidate(desk.visit, ResponseHead(201, Headers([(b"location", b"/b")])), None)
    assert relays.told == [b"http://Site.example:81/a"]
    assert desk.invalidated == [b"http://Site.example:81/b"]
    assert desk.purging.urls == []


async def test_the_url_is_purged_where_its_owner_cannot_be_reached() -> None:
    desk = Desk(b"POST", relays=Relays(reachable=False))
    await clearing.invalidate(desk.visit, ResponseHead(204), None)
    assert desk.purging.urls == [(b"Site.example:81", b"/a", "a write, by 198.51.100.1")]
    assert desk.complaints == [f"a URL not invalidated: {FULL}"]


async def test_what_is_keyed_by_more_than_the_site_tells_is_purged_by_its_url() -> None:
    desk = Desk(b"POST")
    desk.visit.key = Key(bytes(16), desk.visit.key.url)  # as of an arm of an experiment
    await clearing.invalidate(desk.visit, ResponseHead(204), None)
    assert [target for _, target, _ in desk.purging.urls] == [b"/a"]
    assert desk.invalidated == []


async def test_a_node_that_is_known_purges_as_an_operator_does() -> None:
    desk = Desk(b"PURGE", JSON, body=b'{"all": true, "soft": true}')
    desk.visit.orders = True
    await clearing.purge(desk.visit)
    (order,) = desk.purging.orders
    assert (order.everything, order.soft, desk.purging.hosts) == (True, True, [None])


async def test_what_a_stranger_sends_with_a_purge_is_no_order() -> None:
    desk = Desk(b"PURGE", JSON, body=b'{"all": true}')
    await clearing.purge(desk.visit)
    assert [order.everything for order in desk.purging.orders] == [False]
    assert desk.purging.hosts == [b"site.example"]


@pytest.mark.parametrize("body", [b"", b"{", b'{"all": true, "dry_run": true}'])
async def test_an_order_that_cannot_be_carried_out_is_refused(body: bytes) -> None:
    desk = Desk(b"PURGE", JSON, body=body)
    desk.visit.orders = True
    await clearing.purge(desk.visit)
    assert (desk.answer()[0], desk.purging.orders) == (400, [])


async def test_an_order_has_a_bound() -> None:
    desk = Desk(b"PURGE", JSON, body=b"x" * (clearing.ORDER_BYTES + 1))
    desk.visit.orders = True
    with pytest.raises(ExchangeError) as caught:
        await clearing.purge(desk.visit)
    assert caught.value.failure is Failure.BODY_TOO_LARGE


@pytest.mark.parametrize(
    ("upstream", "is_told"),
    [("shield http://s:80", False), ("eu http://a:80", True), (None, True)],
)
async def test_a_write_that_passed_no_shield_is_told_to_them(
    upstream: str | None, is_told: bool
) -> None:
    desk = Desk(b"POST")
    desk.visit.terms = Terms(route=Route(("eu",), by_shield=True))
    ways = SimpleNamespace(shielding=SimpleNamespace(group=SimpleNamespace(name="shield")))
    desk.visit.parts = cast("Any", SimpleNamespace(ways=ways))
    desk.visit.record.upstream = upstream
    created = ResponseHead(201, Headers([(b"location", b"/b")]))
    await clearing.invalidate(desk.visit, created, None)
    urls = [f"http://site.example:81{path}" for path in ("/a", "/b")]
    told = [{"on": "site.example", "url": urls}] if is_told else []
    assert [json.loads(each) for each in desk.purging.ahead] == told
    assert desk.complaints == [f"URLs not purged at shields: {FULL}"] * is_told
