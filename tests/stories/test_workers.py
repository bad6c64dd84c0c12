"""Two workers of one node: `owner`, who owns all keys, and `other`, who owns none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from trio.testing import wait_all_tasks_blocked

from edge.cache.leases import Leases
from edge.hop.relay import hops_told
from edge.observe.record import Outcome
from tests.stories.wire import TruncatedError, written
from tests.stories.world import settings, told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.stories.wire import Reply
    from tests.stories.world import Client, Edge, Pending, ScriptedOrigin

FRESH = {"Cache-Control": "max-age=60", "ETag": '"1"', "Cache-Tag": "front"}


@pytest.fixture
def by_hop() -> bool:
    return True


@dataclass
class Workers:
    """Sends requests to the one or the other."""

    edge: Edge
    origin: ScriptedOrigin
    client: Client

    def __post_init__(self) -> None:
        self._other = self.edge.entrance

    def at_owner(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Pending:
        self.edge.entrance = self.edge.exchange
        return self.client.send(method, target, headers, body)

    def at_other(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Pending:
        self.edge.entrance = self._other
        return self.client.send(method, target, headers, body)

    async def copied(self, target: str = "/a", **fields: str) -> None:
        """Have an answer stored, and a copy of it at the other worker."""
        pending = self.at_other("GET", target)
        await told(self.origin, pending, 200, {**FRESH, **fields}, b"old")
        assert (await self.at_other("GET", target).response()).body == b"old"
        assert await self.answers_alone(target)

    async def answers_alone(self, target: str = "/a") -> bool:
        """Whether the other worker answers without the owner."""
        before = self.edge.hits
        reply = await self.at_other("GET", target).response()
        assert reply.status == 200
        return self.edge.hits == before


@pytest.fixture
def workers(edge: Edge, origin: ScriptedOrigin, client: Client) -> Workers:
    return Workers(edge, origin, client)


def ages(reply: Reply) -> tuple[int, bytes, list[tuple[str, str]]]:
    """A reply, less what tells of time."""
    pairs = [pair for pair in reply.headers.pairs if pair[0] not in ("age", "date")]
    return reply.status, reply.body, pairs


async def test_followers_at_both_workers_share_one_fetch(workers: Workers) -> None:
    pending = [workers.at_other("GET", "/a"), workers.at_owner("GET", "/a")]
    pending += [workers.at_other("GET", "/a")]
    await (await workers.origin.next_request()).reply(200, FRESH, b"body")
    assert [(await each.response()).body for each in pending] == [b"body"] * 3
    assert workers.origin.unasked
    assert [record.cache for record in workers.edge.records] == [Outcome.MISS] * 3


async def test_a_hit_by_the_hop_brings_a_copy_that_answers_alike(workers: Workers) -> None:
    await told(workers.origin, workers.at_owner("GET", "/a"), 200, FRESH, b"body")
    at_home = await workers.at_owner("GET", "/a").response()
    by_hop = await workers.at_other("GET", "/a").response()
    assert await workers.answers_alone()
    by_copy = await workers.at_other("GET", "/a").response()
    assert ages(by_copy) == ages(by_hop) == ages(at_home)
    assert [record.reason for record in workers.edge.records] == ["uri-miss"] + ["hit"] * 4
    relays = workers.edge.entrance._tools.relays
    assert relays is not None
    assert hops_told(relays) == {"copies": 2, "glanced": 0, "relayed": 1, "lent": 0}
    assert hops_told(None) == dict.fromkeys(hops_told(relays), 0)


@pytest.mark.parametrize(
    "order",
    [{"all": True}, {"tag": ["front"]}, {"url": ["http://site.example/a"]},
     {"host": ["site.example"]}, {"prefix": ["http://site.example/"]},
     {"tag": ["front"], "soft": True}],
)  # fmt: skip
async def test_purges_of_every_kind_end_copies_at_once(
    workers: Workers, order: dict[str, object]
) -> None:
    await workers.copied()
    await workers.edge.purge(**order)
    reply = await told(workers.origin, workers.at_other("GET", "/a"), 200, FRESH, b"new")
    assert reply.body == b"new"


@pytest.mark.parametrize("at", ["at_owner", "at_other"])
async def test_a_write_at_either_worker_ends_copies_before_its_client_hears_of_it(
    workers: Workers, at: str
) -> None:
    await workers.copied()
    await workers.copied("/b")
    pending = getattr(workers, at)("POST", "/a", None, b"form")
    asked = await workers.origin.next_request()
    await asked.body()
    await asked.reply(201, {"Location": "/b"})
    assert (await pending.response()).status == 201
    for target in ("/a", "/b"):
        reply = await told(workers.origin, workers.at_other("GET", target), 200, FRESH, b"new")
        assert reply.body == b"new"


async def test_a_write_overtakes_the_owners_fetch(workers: Workers) -> None:
    pending = workers.at_owner("GET", "/a")
    asked = await workers.origin.next_request()
    write = workers.at_other("DELETE", "/a")
    assert (await told(workers.origin, write, 204)).status == 204
    await asked.reply(200, FRESH, b"old")
    assert (await pending.response()).body == b"old"
    reply = await told(workers.origin, workers.at_other("GET", "/a"), 200, FRESH, b"new")
    assert reply.body == b"new"


async def test_a_write_whose_owner_is_dead_purges_the_url(workers: Workers) -> None:
    await workers.copied()
    workers.edge.kill_owner(times=100)
    assert (await told(workers.origin, workers.at_other("PUT", "/a"), 204)).status == 204
    workers.edge.kill_owner(times=0)
    reply = await told(workers.origin, workers.at_other("GET", "/a"), 200, FRESH, b"new")
    assert reply.body == b"new"


@settings("cache.store_post=true")
async def test_a_post_that_stands_for_gets_is_stored_by_its_owner(workers: Workers) -> None:
    pending = workers.at_other("POST", "/a", {"Expect": "100-continue"}, b"form")
    asked = await workers.origin.next_request()
    assert await asked.body() == b"form"
    await asked.reply(200, {**FRESH, "Content-Location": "/a"}, b"made")
    assert (await pending.response()).body == b"made"
    for each in (workers.at_owner("GET", "/a"), workers.at_other("GET", "/a")):
        reply = await each.response()
        assert (reply.body, reply.cache.partition(";")[0]) == (b"made", "hit")
    await wait_all_tasks_blocked()
    reasons = {record.id: record.reason for record in workers.edge.records}
    assert reasons["id-1"] == "method"


async def test_a_replaced_answer_ends_its_copies(workers: Workers) -> None:
    await workers.copied(**{"Cache-Control": "max-age=5"})
    workers.edge.advance(6)
    reply = await told(workers.origin, workers.at_other("GET", "/a"), 200, FRESH, b"new")
    assert reply.body == b"new"
    reply = await workers.at_other("GET", "/a").response()
    assert (reply.body, reply.cache) == (b"new", "hit; ttl=60")


async def test_variants_have_copies_of_their_own(workers: Workers) -> None:
    vary = {**FRESH, "Vary": "Accept-Language"}
    for language in ("de", "en"):
        pending = workers.at_other("GET", "/a", {"Accept-Language": language})
        await told(workers.origin, pending, 200, vary, language.encode())
    for _ in range(2):
        for language in ("de", "en"):
            asked = {"Accept-Language": language}
            reply = await workers.at_other("GET", "/a", asked).response()
            assert reply.body == language.encode()
    reasons = [record.reason for record in workers.edge.records]
    assert reasons == ["uri-miss", "vary-miss", *["hit"] * 4]


@pytest.mark.parametrize(
    "fields", [{"Cache-Control": "private"}, {"Set-Cookie": "a=1"}, {"Cache-Control": "no-store"}]
)
async def test_what_is_one_clients_stays_so(workers: Workers, fields: dict[str, str]) -> None:
    for body in (b"1", b"2"):
        reply = await told(workers.origin, workers.at_other("GET", "/a"), 200, fields, body)
        assert reply.body == body


async def test_no_field_of_a_client_or_an_origin_reaches_between_the_workers(
    workers: Workers,
) -> None:
    forged = {"Edge-Hop": "x", "X-Edge-Lease": "1"}
    reply = await told(
        workers.origin, workers.at_other("GET", "/a", forged), 200, {**FRESH, **forged}, b"x"
    )
    assert reply.headers["edge-hop"] == "x"  # a field like any other
    assert workers.edge.records[0].client == "198.51.100.1"


async def test_a_large_answer_is_passed_on_and_not_copied(workers: Workers) -> None:
    body = bytes(300_000)
    pending = workers.at_other("GET", "/a")
    await told(workers.origin, pending, 200, FRESH, body)
    for _ in range(2):
        assert (await workers.at_other("GET", "/a").response()).body == body
    assert not await workers.answers_alone()


async def test_a_body_that_the_origin_breaks_off_is_broken_off(workers: Workers) -> None:
    pending = workers.at_other("GET", "/a")
    asked = await workers.origin.next_request()
    await asked.start_reply(200, {"Content-Length": "10"})
    await asked.send_chunk(b"abc")
    await wait_all_tasks_blocked()
    asked.break_off()
    with pytest.raises(TruncatedError):
        await pending.response()
    await wait_all_tasks_blocked()
    assert [record.error for record in workers.edge.records] == ["body-truncated"]


async def test_an_owner_that_dies_before_its_answer_is_asked_again(workers: Workers) -> None:
    await told(workers.origin, workers.at_owner("GET", "/a"), 200, FRESH, b"body")
    workers.edge.kill_owner(times=2)
    assert (await workers.at_other("GET", "/a").response()).body == b"body"


async def test_an_owner_that_stays_dead_is_a_503(workers: Workers) -> None:
    workers.edge.kill_owner(times=100)
    reply = await workers.at_other("GET", "/a").response()
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    (record,) = workers.edge.records
    assert (record.error, record.cache, record.status) == ("owner-gone", Outcome.FAILED, 503)
    assert [kind for kind, _ in workers.edge.complaints] == ["owner-gone"]


async def test_an_owner_that_dies_in_its_answer_breaks_the_client_off(workers: Workers) -> None:
    pending = workers.at_other("GET", "/a")
    asked = await workers.origin.next_request()
    await asked.start_reply(200, {"Content-Length": "10"})
    await asked.send_chunk(b"abc")
    await wait_all_tasks_blocked()
    workers.edge.kill_owner(times=0)
    with pytest.raises(TruncatedError):
        await pending.response()
    asked.close()
    await wait_all_tasks_blocked()
    assert workers.edge.records[-1].error == "owner-gone"


async def test_a_client_that_leaves_is_seen_by_the_owner(workers: Workers) -> None:
    pending = workers.at_other("HEAD", "/a")
    asked = await workers.origin.next_request()
    pending.leave()
    await asked.wait_left()
    await wait_all_tasks_blocked()
    assert [record.error for record in workers.edge.records] == ["client-left"]


async def test_a_client_of_http_1_0_is_answered_as_ever(workers: Workers) -> None:
    wire = workers.client.connect()
    await wire.send(written("GET /a HTTP/1.0", {"Host": "site.example"}))
    asked = await workers.origin.next_request()
    await asked.interim(103, {"Link": "</a>"})
    await asked.start_reply(200, FRESH)
    await asked.send_chunk(b"body")
    await asked.end()
    reply = await wire.reply()
    assert (reply.body, reply.interims) == (b"body", [])
    assert "transfer-encoding" not in reply.headers
    assert workers.edge.records[0].version == "1.0"


async def test_a_worker_that_does_not_own_the_key_any_more_stores_nothing(
    workers: Workers,
) -> None:
    workers.edge.owns_nothing()
    for body in (b"1", b"2"):
        reply = await told(workers.origin, workers.at_other("GET", "/a"), 200, FRESH, body)
        assert reply.body == body
    assert workers.edge.store.statistics().memory.entries == 0


@settings("cache.store_post=true")
async def test_nor_does_it_store_what_a_post_makes(workers: Workers) -> None:
    workers.edge.owns_nothing()
    pending = workers.at_other("POST", "/a", None, b"form")
    asked = await workers.origin.next_request()
    await asked.body()
    await asked.reply(200, {**FRESH, "Content-Location": "/a"}, b"made")
    assert (await pending.response()).body == b"made"
    assert workers.edge.store.statistics().memory.entries == 0


async def test_copies_that_are_never_ended_are_found_out(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Leases, "end", lambda self, digest: None)
    await workers.copied()
    assert (await told(workers.origin, workers.at_owner("DELETE", "/a"), 204)).status == 204
    assert (await workers.at_other("GET", "/a").response()).body == b"old"
