"""A node with a disk: large bodies, restarts, and what memory alone does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.stories.world import a_world, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stories.world import Client, Edge, ScriptedOrigin

FRESH = {"Cache-Control": "max-age=60", "ETag": '"1"'}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


async def test_a_body_too_large_for_memory_is_served_from_disk(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    body = bytes(range(256)) * 12_000
    pending = client.send("GET", "/a", capacity=1 << 16)
    asked = await origin.next_request()
    origin.nursery.start_soon(asked.reply, 200, FRESH, body)
    assert (await pending.response()).body == body
    await edge.settle()
    for _ in range(3):
        hit = await client.get("/a")
        assert (hit.body, hit.cache) == (body, "hit; ttl=60")
    part = await client.get("/a", {"Range": "bytes=1000000-1000009"})
    assert part.body == body[1_000_000:1_000_010]


async def test_a_slow_reader_costs_the_origin_nothing(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    body = bytes(3_000_000)
    pending = client.send("GET", "/a", capacity=1 << 12)
    asked = await origin.next_request()
    await asked.reply(200, FRESH, body)
    await edge.settle()
    assert edge.pool().idle == 1
    assert (await pending.response()).body == body


async def test_what_was_stored_is_there_after_a_restart(directory: Path) -> None:
    async with a_world((), directory) as (edge, origin, client):
        await told(origin, client.send("GET", "/a"), 200, FRESH, b"kept")
        await edge.settle()
    async with a_world((), directory) as (edge, origin, client):
        edge.advance(10)
        hit = await client.get("/a")
        assert (hit.body, hit.headers["age"]) == (b"kept", "10")
        edge.advance(60)
        again = await told(origin, client.send("GET", "/a"), 304, FRESH)
        assert again.body == b"kept"


async def test_an_origin_that_breaks_off_leaves_the_old_body_on_disk(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, FRESH, b"old")
    edge.advance(61)
    pending = client.send("GET", "/a")
    asked = await origin.next_request()
    await asked.start_reply(200, {**FRESH, "Content-Length": "3000000"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.send_chunk, bytes(1_600_000))
        await pending.wire.reply_head()
        await pending.wire.exactly(1_500_000)
    asked.break_off()
    pending.leave()
    await edge.settle()
    got = await told(origin, client.send("GET", "/a"), 304, FRESH)
    assert got.body == b"old"


async def test_an_endless_stream_to_a_reader_who_keeps_up_costs_no_disk(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/events")
    asked = await origin.next_request()
    await asked.start_reply(200, {"Cache-Control": "no-store"})
    await asked.send_chunk(b"0")
    await pending.wire.reply_head()
    assert await pending.wire.chunk() == b"0"
    for _ in range(100):
        await asked.send_chunk(bytes(20_000))
        got = 0
        while got < 20_000:
            got += len(await pending.wire.chunk())
    statistics = edge.store.statistics()
    assert statistics.fill_memory_bytes < 100_000
    pending.leave()
    with pytest.raises(Exception, match=r"gone|ended"):
        for _ in range(20):
            await asked.send_chunk(bytes(20_000))
            await edge.settle()
    asked.done.set()


async def test_a_head_renewed_while_it_was_out_of_memory_is_the_one_that_counts(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    stale = {"Cache-Control": "max-age=10, stale-while-revalidate=9999", "ETag": '"1"'}
    await told(origin, client.send("GET", "/a"), 200, {**stale, "Cache-Tag": "old"}, b"body")
    edge.advance(11)
    assert (await client.get("/a")).body == b"body"  # and is validated behind
    asked = await origin.next_request()
    (digest,) = [key for key, _ in edge.store._ram.items()]
    edge.store._ram.remove(digest)  # as by eviction, and another request brings it back
    assert (await client.get("/a")).body == b"body"
    await asked.reply(304, {**stale, "Cache-Tag": "new"})
    await edge.settle()
    await edge.purge(tag=["new"])
    assert (await told(origin, client.send("GET", "/a"), 200, stale, b"fresh")).body == b"fresh"


# --- bodies that are lent to a worker that does not own them

LARGE = bytes(range(256)) * 12_000


async def fetched(edge: Edge, origin: ScriptedOrigin, client: Client) -> None:
    """Have a large body stored, on disk, and all of it verified there."""
    pending = client.send("GET", "/a", capacity=1 << 16)
    asked = await origin.next_request()
    origin.nursery.start_soon(asked.reply, 200, FRESH, LARGE)
    assert (await pending.response()).body == LARGE
    await edge.settle()
    while (taken := lent(edge)) == 0:
        assert (await client.get("/a")).body == LARGE
        await edge.settle()
        if not edge.by_hop:
            return
    assert taken == 1


def lent(edge: Edge) -> int:
    """How many bodies the worker that owns nothing has been lent."""
    relays = edge.entrance._tools.relays
    if relays is None:
        return 0
    assert len(relays.loans) == 0  # none of them is open any more
    return relays.loans.taken


async def test_a_large_body_is_lent_to_a_worker_that_does_not_own_it(
    edge: Edge, origin: ScriptedOrigin, client: Client, by_hop: bool
) -> None:
    await fetched(edge, origin, client)
    before = lent(edge)
    for _ in range(3):
        hit = await client.get("/a")
        assert (hit.body, hit.cache) == (LARGE, "hit; ttl=60")
    part = await client.get("/a", {"Range": "bytes=1000000-1999999"})
    assert part.body == LARGE[1_000_000:2_000_000]
    several = await client.get("/a", {"Range": "bytes=0-299999, 1000000-1299999"})
    assert LARGE[:300_000] in several.body
    assert LARGE[1_000_000:1_300_000] in several.body
    assert lent(edge) == before + (6 if by_hop else 0)


async def test_a_purge_and_a_new_body_do_not_change_an_answer_that_has_begun(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await fetched(edge, origin, client)
    slow = client.send("GET", "/a", capacity=1 << 12)
    await edge.settle()
    await edge.purge(url=["http://site.example/a"])
    other = LARGE[::-1]
    pending = client.send("GET", "/a", capacity=1 << 16)
    asked = await origin.next_request()
    origin.nursery.start_soon(asked.reply, 200, FRESH, other)
    assert (await pending.response()).body == other
    await edge.settle()
    assert (await slow.response()).body == LARGE
    assert (await client.get("/a")).body == other


async def test_an_owner_that_dies_harms_no_answer_whose_body_it_has_lent(
    edge: Edge, origin: ScriptedOrigin, client: Client, by_hop: bool
) -> None:
    if not by_hop:
        pytest.skip("there is nobody else to die")
    await fetched(edge, origin, client)
    slow = client.send("GET", "/a", capacity=1 << 12)
    await edge.settle()
    edge.kill_owner(times=0)
    await edge.settle()
    assert (await slow.response()).body == LARGE
    assert edge.complaints == []


async def test_a_client_that_leaves_in_the_middle_of_a_lent_body_leaves_nothing_open(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await fetched(edge, origin, client)
    slow = client.send("GET", "/a", capacity=1 << 12)
    await edge.settle()
    slow.leave()
    await edge.settle()
    lent(edge)
    assert edge.records[-1].error == "client-left"
    assert (await client.get("/a")).body == LARGE
