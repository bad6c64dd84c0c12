"""What a visit writes down of its request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from edge.cache.reasons import Reason
from edge.errors import ExchangeError, Failure
from edge.observe.record import Outcome, Record
from edge.serving.visit import Visit
from edge.wire.message import RequestHead
from tests.unit.unpurged import nothing_purged

if TYPE_CHECKING:
    from trio.testing import MockClock


class Desk:
    """Takes the records and complaints of one visit."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.complaints: list[tuple[str, str, str | None]] = []
        tools: Any = SimpleNamespace(
            purges=nothing_purged(),
            now=lambda: 1000.0,
            new_id=lambda: "id-1",
            log=self.records.append,
            complain=lambda *words: self.complaints.append(words),
        )
        stream: Any = SimpleNamespace(peer=b"198.51.100.1", sent_bytes=5)
        head = RequestHead(b"GET", b"http", b"site.example", b"/\xff")
        self.visit = Visit(tools, cast("Any", None), stream, head)
        self.visit.site = cast("Any", SimpleNamespace(origin="main"))


async def test_a_record_tells_who_asked_what_and_how_long_it_took(
    autojump_clock: MockClock,
) -> None:
    desk = Desk()
    visit = desk.visit
    await trio.sleep(1)
    visit.forward()
    await trio.sleep(2)
    visit.landed("main http://a:80")
    visit.answered(Reason.URI_MISS, Reason.STORED, 59.5, 200)
    await trio.sleep(3)
    visit.close()
    (record,) = desk.records
    assert (record.id, record.client, record.target) == ("id-1", "198.51.100.1", "/\\xff")
    assert (record.upstream, record.upstream_s) == ("main http://a:80", 2.0)
    assert (record.first_byte_s, record.total_s) == (3.0, 6.0)
    assert (record.status, record.ttl, record.bytes) == (200, 59, 5)


@pytest.mark.parametrize(
    ("because", "fate", "outcome", "reason"),
    [
        (Reason.HIT, None, Outcome.HIT, "hit"),
        (Reason.STALE_IF_ERROR, None, Outcome.STALE, "stale-if-error"),
        (Reason.STALE, Reason.FRESHENED, Outcome.REVALIDATED, "stale/freshened"),
        (Reason.URI_MISS, Reason.STORED, Outcome.MISS, "uri-miss"),
        (Reason.URI_MISS, Reason.PRIVATE, Outcome.MISS, "uri-miss/private"),
        (Reason.METHOD, None, Outcome.BYPASS, "method"),
    ],
)
async def test_an_answer_is_counted_by_what_the_cache_had_to_do_with_it(
    because: Reason, fate: Reason | None, outcome: Outcome, reason: str
) -> None:
    visit = Desk().visit
    visit.answered(because, fate, None, 200)
    assert (visit.record.cache, visit.record.reason) == (outcome, reason)


@pytest.mark.parametrize(
    ("failure", "outcome", "complains"),
    [
        (Failure.BAD_HOST, Outcome.REFUSED, False),
        (Failure.CONNECT_REFUSED, Outcome.FAILED, True),
        (Failure.INTERNAL, Outcome.FAILED, True),
    ],
)
async def test_only_what_is_not_the_clients_fault_is_complained_of(
    failure: Failure, outcome: Outcome, *, complains: bool
) -> None:
    desk = Desk()
    desk.visit.because = Reason.NOTHING_STORED
    desk.visit.refused(ExchangeError(failure, "why"))
    record = desk.visit.record
    assert (record.cache, record.status, record.error) == (outcome, failure.status, failure.slug)
    assert record.reason == f"nothing-stored/{failure.slug}"
    assert desk.complaints == ([(failure.slug, "why", "id-1")] if complains else [])


async def test_a_failure_behind_the_head_does_not_change_what_was_answered() -> None:
    visit = Desk().visit
    visit.answered(Reason.URI_MISS, Reason.STORED, None, 200)
    visit.failed(ExchangeError(Failure.BODY_TRUNCATED))
    assert (visit.record.status, visit.record.cache) == (200, Outcome.MISS)
    assert visit.record.error == "body-truncated"
