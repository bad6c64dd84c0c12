"""Glances at an owner: at once or not at all; a story tells that the answers are right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.cache.loans import Loans
from edge.errors import ExchangeError, Failure
from edge.hop.desk import Glancing, HopDesk, OwnersDesk
from edge.listen.link import Link
from edge.observe.record import Outcome, Record
from edge.upstream.transport import divided
from edge.wire.frames import Copy, Facts, Glance, Later, Whole
from edge.wire.grammar import Limits
from edge.wire.message import Chunk, End
from tests.stories.line import Line
from tests.stories.world import OTHER, OWNER, a_world
from tests.unit.cache.conftest import entry_of
from tests.unit.lent import LENGTH, LentFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from edge.upstream.transport import Part
    from edge.wire.frames import Frame

FACTS = Facts("hit", "hit", 7, None, None, None, 200)
KEY = entry_of().key
GLANCE = Glance(b"192.0.2.7", b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n")


class Desk:
    """A glance under way, and the owner's end of its connection."""

    def __init__(self) -> None:
        here, there = Line.pair()
        self.line = there
        self.owner = Link(there)
        self.released: list[Link] = []
        self.kept: list[tuple[bytes, bytes, int]] = []
        self.records: list[Record] = []
        self.complaints: list[str] = []
        relays = SimpleNamespace(
            release=lambda slot, link: self.released.append(link),
            store=SimpleNamespace(keep_copy=lambda *told: self.kept.append(told)),
            loans=(loans := Loans()),
            invalidate="invalidate",
            glanced=0,
        )
        self.loans = loans
        self.begun: list[tuple[object, ...]] = []
        tools = SimpleNamespace(
            new_id=lambda: "id-1",
            log=self.records.append,
            complain=lambda *words: self.complaints.append(words[0]),
            background=SimpleNamespace(start_soon=lambda *told: self.begun.append(told)),
        )
        self.link = Link(here)
        record = Record(0.0, "", "192.0.2.7", "GET")
        self.hop = Glancing(
            cast("Any", relays), 0, self.link, GLANCE, record, cast("Any", tools), KEY
        )

    async def answered(self, *frames: Frame) -> bytes | None:
        """What is passed on where the owner answers so."""
        for frame in frames:
            self.owner.put(frame)
        await self.owner.flush()
        parts = await self.hop.ask()
        if parts is None:
            return None
        got = await read(parts)
        while (piece := await self.hop.more()) is not None:
            got += piece
        return got

    @property
    def is_broken_off(self) -> bool:
        return self.line._in.reset


async def read(parts: Sequence[Part]) -> bytes:
    """All bytes of `parts`, in order."""
    data, file = divided(parts)
    got = b"".join(data)
    while file is not None and len(file):
        piece = await file.source.read(file.offset, len(file))
        file.offset += len(piece)
        got += piece
    return got


async def test_an_answer_that_came_whole_is_told_of_and_its_copy_kept() -> None:
    desk = Desk()
    whole = Whole(FACTS, b"head\r\n\r\nbody", 4, 0, Copy(b"form", 5))
    assert await desk.answered(whole) == whole.data
    desk.hop.close(0.5, None)
    assert desk.kept == [(b"form", b"body", 5)]
    assert desk.released == [desk.link]
    (record,) = desk.records
    assert (record.id, record.cache, record.bytes, record.total_s) == (
        "id-1", Outcome.HIT, 4, 0.5,
    )  # fmt: skip


async def test_an_empty_answer_has_an_empty_copy() -> None:
    desk = Desk()
    await desk.answered(Whole(FACTS, b"head\r\n\r\n", 0, 0, Copy(b"form", 5)))
    desk.hop.close(0.5, None)
    assert desk.kept == [(b"form", b"", 5)]


async def test_what_follows_is_passed_on_as_it_comes() -> None:
    desk = Desk()
    got = await desk.answered(Whole(FACTS, b"head", 5, 5), Chunk(b"ab"), Chunk(b"cde"))
    assert got == b"headabcde"
    desk.hop.close(0.5, None)
    assert (desk.kept, desk.records[0].bytes) == ([], 5)


async def test_an_owner_that_has_nothing_at_once_leaves_nothing_behind() -> None:
    desk = Desk()
    assert await desk.answered(Later()) is None
    desk.hop.close(0.5, None)
    assert (desk.records, desk.released) == ([], [desk.link])


async def test_an_owner_that_is_gone_or_slow_is_the_plain_paths(
    autojump_clock: MockClock,
) -> None:
    gone = Desk()
    gone.line.abort()
    assert await gone.hop.ask() is None
    slow = Desk()
    assert await slow.hop.ask() is None
    assert trio.current_time() == pytest.approx(1.0)
    for desk in (gone, slow):
        desk.hop.close(0.5, None)
        assert (desk.records, desk.released) == ([], [])
    assert slow.is_broken_off  # its answer may come yet


async def test_an_answer_that_its_owner_cuts_is_cut() -> None:
    desk = Desk()
    with pytest.raises(ExchangeError) as caught:
        await desk.answered(Whole(FACTS, b"head", 5, 5), Chunk(b"ab"), End())
    desk.hop.close(0.5, caught.value)
    (record,) = desk.records
    assert (record.error, record.bytes, desk.complaints) == ("owner-gone", 2, ["owner-gone"])
    assert desk.released == []


async def test_a_client_that_leaves_breaks_off_what_is_under_way_only() -> None:
    for rest, released in ((0, 1), (5, 0)):
        desk = Desk()
        desk.owner.put(Whole(FACTS, b"head", 5, rest))
        await desk.owner.flush()
        await desk.hop.ask()
        desk.hop.close(0.5, ExchangeError(Failure.CLIENT_LEFT))
        assert (desk.records[0].error, desk.complaints) == ("client-left", [])
        assert len(desk.released) == released


async def test_what_is_cancelled_before_a_word_is_told_as_our_failure() -> None:
    desk = Desk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.hop.ask)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    desk.hop.close(0.5, ExchangeError(Failure.DRAINING))
    (record,) = desk.records
    assert (record.status, record.cache, record.error) == (503, Outcome.FAILED, "draining")


def lent(file: LentFile) -> Whole:
    return Whole(FACTS, b"head", LENGTH, LENGTH, None, file.lent)


async def test_a_file_that_is_lent_is_sent_and_closed(tmp_path: Path) -> None:
    desk, file = Desk(), LentFile(tmp_path / "body")
    await desk.owner.lend(lent(file), file.descriptor)
    file.close()
    parts = await desk.hop.ask()
    desk.owner.abort()  # the owner's death does no harm to what it has lent
    assert parts is not None
    assert await read(parts) == b"head" + file.content
    assert await desk.hop.more() is None
    desk.hop.close(0.5, None)
    (record,) = desk.records
    assert (record.bytes, record.cache, record.error) == (LENGTH, Outcome.HIT, None)
    assert (desk.loans.taken, len(desk.loans), desk.kept) == (1, 0, [])


async def test_a_client_that_leaves_in_the_middle_of_a_lent_file_leaves_the_hop_in_step(
    tmp_path: Path,
) -> None:
    desk, file = Desk(), LentFile(tmp_path / "body")
    await desk.owner.lend(lent(file), file.descriptor)
    parts = await desk.hop.ask()
    assert parts is not None
    span = divided(parts)[1]
    assert span is not None
    span.offset += 1000  # and then it left
    desk.hop.close(0.5, ExchangeError(Failure.CLIENT_LEFT))
    assert (desk.records[0].bytes, desk.records[0].error) == (1000, "client-left")
    assert (desk.released, len(desk.loans)) == ([desk.link], 0)
    file.close()


async def test_a_file_whose_descriptor_did_not_come_is_the_plain_paths(tmp_path: Path) -> None:
    desk, file = Desk(), LentFile(tmp_path / "body")
    assert await desk.answered(lent(file)) is None
    desk.hop.close(0.5, None)
    assert (desk.records, desk.released, desk.loans.taken) == ([], [desk.link], 0)
    file.close()


async def test_a_lent_body_that_is_not_what_was_stored_is_invalidated(tmp_path: Path) -> None:
    desk, file = Desk(), LentFile(tmp_path / "body", rotten=True)
    await desk.owner.lend(lent(file), file.descriptor)
    with pytest.raises(ExchangeError) as caught:
        await desk.answered()
    desk.hop.close(0.5, caught.value)
    assert desk.begun == [("invalidate", KEY)]
    assert (desk.records[0].error, desk.records[0].bytes) == ("body-lost", 0)
    file.close()


# --- at the owner's desk


async def test_an_owner_answers_no_glance_at_what_is_not_plain_or_stored_or_its_own() -> None:
    async with a_world(by_hop=True) as (edge, origin, client):
        desk = edge.owners_desk
        assert desk.answer_glance(GLANCE) is None  # nothing is stored
        pending = client.send("GET", "/")
        asked = await origin.next_request()
        await asked.reply(200, {"Cache-Control": "max-age=60"}, b"body")
        await pending.response()
        assert desk.answer_glance(GLANCE) is not None
        for data in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"):
            assert desk.answer_glance(Glance(b"192.0.2.7", data)) is None
        edge.owns_nothing()
        assert edge.owners_desk.answer_glance(GLANCE) is None


async def test_a_large_answer_goes_in_pieces_and_without_a_copy() -> None:
    async with a_world(by_hop=True) as (edge, origin, client):
        pending = client.send("GET", "/")
        asked = await origin.next_request()
        await asked.reply(200, {"Cache-Control": "max-age=60"}, bytes(100_000))
        await pending.response()
        answered = edge.owners_desk.answer_glance(GLANCE)
        assert answered is not None
        whole, rest = answered
        assert (whole.rest, sum(map(len, rest)), whole.copy) == (100_000, 100_000, None)


# --- at the desk of who asks


async def test_what_is_plain_and_of_another_is_asked_for_where_a_connection_is_unused() -> None:
    async with a_world(by_hop=True) as (edge, origin, client):
        relays = edge.entrance._tools.relays
        assert relays is not None
        desk = HopDesk(edge.entrance, edge.entrance._tools, Limits(), edge.records.extend, relays)
        desk.begin()
        assert desk.hop(GLANCE.data, GLANCE.peer) is None  # no connection yet
        pending = client.send("GET", "/")
        asked = await origin.next_request()
        await asked.reply(200, {"Cache-Control": "max-age=60"}, b"body")
        await pending.response()
        await edge.settle()
        assert desk.hop(b"GET / HTTP/1.0\r\n\r\n", GLANCE.peer) is None
        relays.owners = OWNER
        assert desk.hop(GLANCE.data, GLANCE.peer) is None
        relays.owners = OTHER
        hop = desk.hop(GLANCE.data, GLANCE.peer)
        assert hop is not None
        assert await hop.ask() is not None
        hop.close(0.1, None)
        assert edge.records[-1].client == "192.0.2.7"


async def test_a_fault_of_ours_at_either_desk_takes_nobody_down() -> None:
    async with a_world(by_hop=True) as (edge, _, _):
        tools = edge.entrance._tools
        desk = HopDesk(edge.entrance, tools, Limits(), edge.records.extend, cast("Any", None))
        owners = OwnersDesk(edge.entrance, tools, Limits(), edge.records.extend, cast("Any", None))
        assert desk.hop(GLANCE.data, GLANCE.peer) is None
        assert owners.answer_glance(GLANCE) is None
        assert [kind for kind, _ in edge.complaints] == ["internal", "internal"]
