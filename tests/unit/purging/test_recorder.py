"""Purges of a worker, recorded by another process: in force when told, or a `JournalError`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from edge.admin.call import Call, Refused, Reply
from edge.admin.desk import Desk
from edge.cache.entry import Seq
from edge.cache.journal import Journal, JournalError
from edge.cache.purge import Manner, Verdict
from edge.cache.scope import digest, packed
from edge.purging.late import Late
from edge.purging.recorder import AT_ONCE, Recording, RemoteRecorder, recording_of, settle_all
from tests.unit.desks import at_desk, breaking_off
from tests.unit.standin import refusing, replying

if TYPE_CHECKING:
    from pathlib import Path

    from edge.cache.purge import Purge


async def purge(recorder: RemoteRecorder, name: bytes) -> Purge:
    return await recorder.purge(
        digests=packed([name]),
        everything=False,
        manner=Manner.SOFT,
        who="198.51.100.1",
        when=5.0,
        words=("tag front",),
        count=1,
        area=b"",
    )


@given(
    st.builds(
        Recording,
        digests=st.binary(max_size=64),
        everything=st.booleans(),
        manner=st.sampled_from(Manner),
        who=st.text(),
        when=st.floats(0, 1e10),
        words=st.lists(st.text()).map(tuple),
        count=st.integers(0, 2**40),
        area=st.binary(max_size=16),
    )
)
def test_what_is_to_be_recorded_arrives_as_it_was(recording: Recording) -> None:
    assert recording_of(msgspec.msgpack.encode(recording)) == recording


async def test_a_purge_that_was_recorded_is_in_force(tmp_path: Path) -> None:
    journal = Journal(tmp_path, log=print)
    await journal.open("")
    await journal.begin("b" * 32)

    async def record(call: Call) -> Reply:
        done = await journal.purge(**msgspec.structs.asdict(recording_of(call.body)))
        return Reply(200, {"number": done.number})

    async with at_desk(tmp_path / "k.sock", {b"/v1/record": {b"POST": record}}) as desk:
        done = await purge(RemoteRecorder(desk), b"tfront")
    purges = journal.follower().current()
    assert (done.number, done.words, done.who) == (1, ("tag front",), "198.51.100.1")
    assert purges.verdict(Seq(0), digest(b"tfront")) is Verdict.STALE
    await journal.close()


async def test_a_purge_that_the_keeper_refuses_is_not_in_force(tmp_path: Path) -> None:
    full = refusing(Refused(503, "", "not purged: No space left on device"))
    async with at_desk(tmp_path / "k.sock", {b"/v1/record": {b"POST": full}}) as desk:
        with pytest.raises(JournalError, match="not purged: No space left on device"):
            await purge(RemoteRecorder(desk), b"tfront")


async def test_a_keeper_that_dies_meanwhile_has_not_answered(tmp_path: Path) -> None:
    async with breaking_off(tmp_path / "k.sock", b"") as desk:
        with pytest.raises(JournalError, match="the keeper of the journal did not answer"):
            await purge(RemoteRecorder(desk), b"tfront")
    with pytest.raises(JournalError, match="did not answer"):
        await RemoteRecorder(Desk(str(tmp_path / "none"))).settle()


async def test_only_so_many_are_on_their_way_at_once(tmp_path: Path) -> None:
    gate, asked = trio.Event(), list[bytes]()

    async def record(call: Call) -> Reply:
        asked.append(call.body)
        await gate.wait()
        return Reply(200, {"number": len(asked)})

    async with at_desk(tmp_path / "k.sock", {b"/v1/record": {b"POST": record}}) as desk:
        recorder = RemoteRecorder(desk)
        async with trio.open_nursery() as nursery:
            for number in range(3 * AT_ONCE):
                nursery.start_soon(purge, recorder, b"t%d" % number)
            while len(asked) < AT_ONCE:
                await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(asked) == AT_ONCE
            gate.set()
        assert len(set(asked)) == 3 * AT_ONCE


async def test_all_that_workers_had_stored_is_on_disk_or_it_is_said_whose_is_not(
    tmp_path: Path,
) -> None:
    good = {b"/v1/settle": {b"POST": replying({})}}
    bad = {b"/v1/settle": {b"POST": refusing(Refused(503, "", "its disk is full"))}}
    async with (
        at_desk(tmp_path / "0", good) as one,
        at_desk(tmp_path / "1", bad) as full,
        breaking_off(tmp_path / "2", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n") as dead,
    ):
        await settle_all([one, one])
        with pytest.raises(JournalError) as refused:
            await settle_all([one, full, dead])
    assert "worker 1: its disk is full" in str(refused.value)
    assert "worker 2 ended before all that it had stored was on disk" in str(refused.value)
    assert str(refused.value).endswith(": purge again, by more than tags")


async def test_a_worker_settles_by_asking_the_keeper(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def settle(call: Call) -> Reply:
        asked.append(call.path)
        return Reply(200, {})

    async with at_desk(tmp_path / "k.sock", {b"/v1/settle": {b"POST": settle}}) as desk:
        await RemoteRecorder(desk).settle()
    assert asked == [b"/v1/settle"]


async def test_an_order_for_shields_goes_by_the_keeper(tmp_path: Path) -> None:
    late = {"url": "http://s.example:80", "why": "no answer", "owed": False}
    calls: list[Call] = []

    async def ahead(call: Call) -> Reply:
        await trio.lowlevel.checkpoint()
        calls.append(call)
        return Reply(200, {"late": [late]})

    async with at_desk(tmp_path / "k", {b"/v1/ahead": {b"POST": ahead}}) as desk:
        told = await RemoteRecorder(desk).send_ahead(b'{"all":true}')
        await RemoteRecorder(desk).send_ahead(b"{}", later=True)
    assert told == (Late("http://s.example:80", "no answer", owed=False),)
    assert [(call.body, call.query) for call in calls] == [
        (b'{"all":true}', {}),
        (b"{}", {"when": ["later"]}),
    ]


async def test_without_a_keeper_no_shield_is_known_to_have_purged(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="did not answer"):
        await RemoteRecorder(Desk(str(tmp_path / "none"))).send_ahead(b"{}")
