"""What an exchange says of a request before the store is asked; tests/stories has the rest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from edge.errors import ExchangeError, Failure
from edge.serving.admission import admit
from edge.serving.exchange import Exchange
from edge.serving.visit import Tools, Visit
from edge.wire.message import Chunk, Headers, Message, RequestHead, ResponseHead
from tests.unit.edgeparts import parts_of
from tests.unit.unpurged import nothing_purged

if TYPE_CHECKING:
    from edge.listen.connection import ClientStream
    from edge.observe.record import Record


class Desk:
    """An exchange by the settings of a proxy, for requests that never reach the store."""

    def __init__(self, *sets: str) -> None:
        self.parts = parts_of(*sets)
        self.records: list[Record] = []
        self.complaints: list[str] = []
        tools = SimpleNamespace(
            purges=nothing_purged(),
            now=lambda: 1000.0,
            new_id=lambda: "id-1",
            log=self.records.append,
            complain=lambda *words: self.complaints.append(words[1]),
        )
        self.tools = cast("Tools", tools)
        self.exchange = Exchange(self.tools, self.parts)

    def admitted(self, peer: bytes = b"198.51.100.1", **head: Any) -> Visit:
        stream: Any = SimpleNamespace(peer=peer, sent_bytes=0)
        visit = Visit(self.tools, self.parts, stream, asking(**head))
        visit.admit(admit(self.parts, visit.head, peer))
        return visit


def asking(
    target: bytes = b"/a",
    *pairs: tuple[bytes, bytes],
    authority: bytes = b"site.example",
    fields: tuple[tuple[bytes, bytes], ...] = (),
) -> RequestHead:
    return RequestHead(b"GET", b"http", authority, target, Headers((*pairs, *fields)))


async def test_two_spellings_of_a_target_have_one_key_and_are_forwarded_as_one() -> None:
    desk = Desk()
    one = desk.admitted(target=b"/x/../%7ea?q")
    two = desk.admitted(target=b"/~a?q")
    assert one.key == two.key
    assert one.request.target == two.request.target == b"/~a?q"
    assert desk.admitted(target=b"/~a?r").key != one.key
    assert desk.admitted(target=b"/~a?q", authority=b"other.example").key != one.key


async def test_what_connection_names_is_seen_by_no_rule_behind_us() -> None:
    visit = Desk().admitted(fields=((b"connection", b"x-kind"), (b"x-kind", b"1")))
    assert b"x-kind" not in visit.request.headers
    assert b"x-kind" in visit.head.headers


@pytest.mark.parametrize(("trusted", "scheme"), [(False, b"http"), (True, b"https")])
async def test_only_a_trusted_sender_is_believed(*, trusted: bool, scheme: bytes) -> None:
    desk = Desk('node.trusted_proxies=["198.51.100.0/24"]') if trusted else Desk()
    told = ((b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"203.0.113.5"))
    visit = desk.admitted(fields=told)
    assert visit.request.scheme == visit.forwarding.scheme == scheme
    assert visit.record.client == ("203.0.113.5" if trusted else "198.51.100.1")


async def test_a_circle_and_a_host_of_no_site_are_refused() -> None:
    with pytest.raises(ExchangeError) as caught:
        Desk().admitted(fields=((b"cdn-loop", b"edge1"),))
    assert caught.value.failure is Failure.LOOP
    with pytest.raises(ExchangeError) as caught:
        Desk('site.hosts=["only.example"]').admitted(authority=b"other.example")
    assert caught.value.failure is Failure.MISDIRECTED


async def test_a_rule_of_the_site_gives_its_policy() -> None:
    desk = Desk('site.rule=[{match={path="/live/*"},cache={bypass=true}}]')
    assert desk.admitted(target=b"/live/x").policy.bypass
    assert not desk.admitted(target=b"/a").policy.bypass


class Stream:
    """A client who reads all it is sent."""

    def __init__(self) -> None:
        self.peer = b"198.51.100.1"
        self.head_sent = False
        self.sent_bytes = 0
        self.sent: list[Message] = []

    def request_body(self) -> None:
        return None

    async def send(self, message: Message, *, more: bool = False) -> None:
        self.head_sent = self.head_sent or isinstance(message, ResponseHead)
        self.sent.append(message)

    async def flush(self) -> None:
        pass

    async def tunnel(self, upstream: object, leftover: bytes) -> None:
        raise AssertionError("no tunnel here")


async def test_a_refused_request_is_answered_and_logged_once() -> None:
    desk, stream = Desk(), Stream()
    head = asking(b"/a", (b"cdn-loop", b"edge1"))
    await desk.exchange.serve(cast("ClientStream", stream), head)
    assert isinstance(stream.sent[0], ResponseHead)
    assert stream.sent[0].status == 508
    (record,) = desk.records
    assert (record.status, record.error) == (508, "loop")


async def test_a_fault_of_ours_is_a_500_that_tells_nothing() -> None:
    desk, stream = Desk(), Stream()
    await desk.exchange.serve(cast("ClientStream", stream), asking())  # there is no store at all
    head, body = stream.sent[:2]
    assert isinstance(head, ResponseHead)
    assert isinstance(body, Chunk)
    assert (head.status, bytes(body.data)) == (500, b"500 Internal error\nrequest id-1\n")
    assert "AttributeError" in desk.complaints[0]
    assert desk.records[0].error == "internal"
