"""Asking the owner of a key: who is asked, how often, and what a dead owner costs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edge.cache import codec
from edge.cache.held import Held
from edge.cache.leases import Leases
from edge.cache.lending import HEAD_BYTES, LendingStore
from edge.cache.loans import Loans
from edge.cache.ranges import Span
from edge.coding.renditions import Shown
from edge.errors import ExchangeError, Failure
from edge.hop.owner import Owners
from edge.hop.relay import IDLE_S, MOST_IDLE, SWEEP_S, TRIES, Relays, copy_of, facts_of, note
from edge.listen.link import Link
from edge.observe.record import Outcome, Record
from edge.serving.answer import Answer
from edge.serving.terms import Terms
from edge.wire.frames import (
    Answered,
    Ask,
    Broken,
    Copy,
    Facts,
    Invalidate,
    Wanted,
    Welcome,
)
from edge.wire.message import Chunk, End, Headers, Message, RequestHead, ResponseHead
from tests.stories.line import Line
from tests.unit.cache.conftest import entry_of
from tests.unit.lent import LENGTH, LentFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    from edge.serving.visit import Visit
    from edge.upstream.transport import FileSpan
    from edge.wire.frames import Frame

KEY = entry_of().key
DRAWN = ((b"checkout", b"new"),)  # the arms that chance has given the visitor
OK = ResponseHead(200, Headers([(b"content-length", b"5")]))
FACTS = Facts("hit", "hit", 7, None, None, None, 200)
ANSWER: list[Frame] = [Answered(OK, FACTS), Chunk(b"12345"), End()]
SENT = [OK, Chunk(b"12345"), End()]


class Client:
    """A client who reads all it is sent; `body` is what it still has to say."""

    peer = b"192.0.2.7"

    def __init__(self, *body: Chunk | End | ExchangeError) -> None:
        self.sent: list[Message] = []
        self._kept: list[Message] = []  # back, until there is more
        self.left = trio.Event()
        self._body = list(body)
        self.length = 3

    def request_body(self) -> Client | None:
        return self if self._body else None

    async def receive(self) -> Chunk | End:
        await trio.lowlevel.checkpoint()
        message = self._body.pop(0)
        if isinstance(message, ExchangeError):
            raise message
        return message

    async def send(self, message: Message, *, more: bool = False) -> None:
        self._kept.append(message)
        if not more:
            await self.flush()

    async def send_file(self, span: FileSpan) -> None:
        await self.flush()
        while len(span):
            data = await span.source.read(span.offset, len(span))
            self.sent.append(Chunk(data))
            span.offset += len(data)

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += self._kept
        self._kept.clear()

    async def wait_left(self) -> None:
        await self.left.wait()


class Other:
    """The other worker: `scripts` are what it does on its connections, one after the other."""

    def __init__(self, *scripts: Callable[[Link], Awaitable[None]]) -> None:
        self.scripts = list(scripts)
        self.lines: list[Line] = []
        self.nursery: trio.Nursery
        self.leases = Leases()
        store = LendingStore(1 << 20, leases=self.leases, owns=lambda digest: False)
        self.store = store
        self.relays = Relays(Owners(1, 2, 1), store, self.dial)

    async def dial(self, slot: int) -> Line:
        assert slot == 0
        await trio.lowlevel.checkpoint()
        if not self.scripts:
            raise ConnectionRefusedError("nobody")
        here, there = Line.pair()
        self.lines.append(there)
        self.nursery.start_soon(self.scripts.pop(0), Link(there))
        return here


def visit_of(client: Client, method: bytes = b"GET") -> Visit:
    visit = SimpleNamespace(
        stream=client,
        head=RequestHead(method, b"http", b"example.com", b"/a"),
        id="id-9",
        key=KEY,
        drawn=DRAWN,
        record=Record(0.0, "id-9", "c"),
    )
    visit.head_sent = lambda status: setattr(visit.record, "status", status)
    return cast("Visit", visit)


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


def answering(*frames: Frame, times: int = 1) -> Callable[[Link], Awaitable[None]]:
    async def script(link: Link) -> None:
        await link.send(Welcome())
        for _ in range(times):
            assert isinstance(await link.receive(), Ask)
            for frame in frames:
                link.put(frame)
            await link.flush()

    return script


async def dying(link: Link) -> None:
    """Dies before it says a word."""
    await link.send(Welcome())
    await link.receive()
    link.abort()


async def stillborn(link: Link) -> None:
    """Dies before it can say that it lives."""
    await trio.lowlevel.checkpoint()
    link.abort()


async def silent(link: Link) -> None:
    """Is not there yet."""
    await trio.sleep_forever()


async def test_what_the_owner_answers_is_the_clients(nursery: trio.Nursery) -> None:
    interim = ResponseHead(103)
    owner = Other(answering(interim, *ANSWER))
    owner.nursery = nursery
    visit = visit_of(client := Client())
    await owner.relays.relay(visit)
    assert client.sent == [interim, *SENT]
    record = visit.record
    assert (record.cache, record.reason, record.ttl, record.status) == (
        Outcome.HIT, "hit", 7, 200,
    )  # fmt: skip


async def test_a_connection_is_used_again(nursery: trio.Nursery) -> None:
    owner = Other(answering(*ANSWER, times=2))
    owner.nursery = nursery
    for _ in range(2):
        await owner.relays.relay(visit_of(client := Client()))
        assert client.sent == SENT


async def test_a_connection_that_the_owner_closed_is_not(nursery: trio.Nursery) -> None:
    owner = Other(answering(*ANSWER), answering(*ANSWER))
    owner.nursery = nursery
    await owner.relays.relay(visit_of(Client()))
    owner.lines[0].close()
    await owner.relays.relay(visit_of(client := Client()))
    assert client.sent == SENT


async def test_an_owner_that_dies_before_a_word_is_asked_again(nursery: trio.Nursery) -> None:
    owner = Other(*[dying] * (TRIES - 1), answering(*ANSWER))
    owner.nursery = nursery
    await owner.relays.relay(visit_of(client := Client()))
    assert client.sent == SENT


@pytest.mark.parametrize("born", [True, False])
async def test_owners_that_die_are_not_welcomed_for_ever(
    nursery: trio.Nursery, born: bool
) -> None:
    owner = Other(*[stillborn] * (TRIES - 1), answering(*ANSWER) if born else stillborn)
    owner.nursery = nursery
    client = Client()
    if born:
        await owner.relays.relay(visit_of(client))
    else:
        with pytest.raises(ExchangeError):
            await owner.relays.relay(visit_of(client))
    assert (client.sent, owner.scripts) == (SENT if born else [], [])


async def test_owners_that_die_are_not_asked_for_ever(nursery: trio.Nursery) -> None:
    owner = Other(*[dying] * TRIES)
    owner.nursery = nursery
    with pytest.raises(ExchangeError) as caught:
        await owner.relays.relay(visit_of(client := Client()))
    assert (caught.value.failure, client.sent) == (Failure.OWNER_GONE, [])


async def test_an_owner_that_is_not_there_is_waited_for_in_bounds(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    owner = Other(silent)
    owner.nursery = nursery
    began = trio.current_time()
    with pytest.raises(ExchangeError) as caught:
        await owner.relays.relay(visit_of(Client()))
    assert caught.value.failure is Failure.OWNER_GONE
    assert trio.current_time() - began == pytest.approx(5.0)


async def test_nobody_to_connect_to_and_another_program_are_told_alike(
    nursery: trio.Nursery,
) -> None:
    async def other(link: Link) -> None:
        await link.send(Welcome(b"edge 0"))

    owner = Other(other)
    owner.nursery = nursery
    for _ in range(2):
        with pytest.raises(ExchangeError) as caught:
            await owner.relays.relay(visit_of(Client()))
        assert caught.value.failure is Failure.OWNER_GONE


async def test_an_answer_cut_in_its_middle_is_not_made_whole(nursery: trio.Nursery) -> None:
    async def cut(link: Link) -> None:
        await answering(*ANSWER[:2])(link)
        link.close()

    owner = Other(cut)
    owner.nursery = nursery
    with pytest.raises(ExchangeError) as caught:
        await owner.relays.relay(visit_of(client := Client()))
    assert (caught.value.failure, client.sent) == (Failure.OWNER_GONE, SENT[:2])


async def test_an_answer_that_its_owner_broke_off_says_why(nursery: trio.Nursery) -> None:
    broken = Broken(replace_facts(error="body-truncated"))
    owner = Other(answering(*ANSWER[:2], broken))
    owner.nursery = nursery
    visit = visit_of(client := Client())
    await owner.relays.relay(visit)
    assert client.sent == SENT[:2]  # and so its connection is broken off
    assert visit.record.error == "body-truncated"


def replace_facts(**changes: Any) -> Facts:
    told = {name: getattr(FACTS, name) for name in FACTS.__struct_fields__}
    return Facts(**{**told, **changes})


async def test_a_client_that_ends_its_side_is_seen_through(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ended = trio.Event()

    async def waiting(link: Link) -> None:
        await link.send(Welcome())
        await link.receive()
        await link.wait_ended()
        ended.set()
        for frame in ANSWER:
            await link.send(frame)

    owner = Other(waiting)
    owner.nursery = nursery
    client = Client()
    nursery.start_soon(owner.relays.relay, visit_of(client))
    await trio.sleep(2)
    assert not ended.is_set()
    client.left.set()
    await ended.wait()
    await wait_all_tasks_blocked()
    assert client.sent == SENT
    assert owner.relays.unused(0) is None  # it has been ended


async def test_a_relayed_request_that_is_cancelled_breaks_the_hop_off(
    nursery: trio.Nursery,
) -> None:
    owner = Other(answering())
    owner.nursery = nursery
    scope = trio.CancelScope()

    async def relay() -> None:
        with scope:
            await owner.relays.relay(visit_of(Client()))

    nursery.start_soon(relay)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BrokenResourceError):
        await owner.lines[0].receive_some()


async def test_what_is_no_frame_is_the_owners_fault_early_and_late(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    for wait_s in (0.0, 2.0):

        async def babbling(link: Link, wait_s: float = wait_s) -> None:
            await link.send(Welcome())
            await link.receive()
            await trio.sleep(wait_s)
            await link._transport.send_all(b"HTTP/1.1 200 OK\r\n")

        owner = Other(babbling)
        owner.nursery = nursery
        with pytest.raises(ExchangeError) as caught:
            await owner.relays.relay(visit_of(Client()))
        assert caught.value.failure is Failure.OWNER_GONE


# --- requests with a body


async def test_a_body_is_sent_when_it_is_wanted(nursery: trio.Nursery) -> None:
    got: list[Frame | None] = []

    async def taking(link: Link) -> None:
        await link.send(Welcome())
        got.append(await link.receive())
        await link.send(Wanted())
        got.extend([await link.receive() for _ in range(2)])
        for frame in ANSWER:
            await link.send(frame)

    owner = Other(taking)
    owner.nursery = nursery
    client = Client(Chunk(b"abc"), End())
    await owner.relays.relay(visit_of(client, b"POST"))
    question, *body = got
    assert isinstance(question, Ask)
    assert (question.has_body, question.length, body) == (True, 3, [Chunk(b"abc"), End()])
    assert question.drawn == DRAWN  # or the owner would draw anew
    assert client.sent == SENT


async def test_a_client_with_a_body_is_seen_to_leave_after_it(nursery: trio.Nursery) -> None:
    async def taking(link: Link) -> None:
        await link.send(Welcome())
        await link.receive()
        await link.send(Wanted())
        assert await link.receive() == End()
        await link.wait_ended()
        await link.send(Broken(FACTS))

    owner = Other(taking)
    owner.nursery = nursery
    client = Client(End())
    client.left.set()
    await owner.relays.relay(visit_of(client, b"POST"))
    assert client.sent == []


async def test_a_body_that_nobody_wants_stays_with_the_client(nursery: trio.Nursery) -> None:
    owner = Other(answering(*ANSWER))
    owner.nursery = nursery
    client = Client(Chunk(b"abc"), End())
    await owner.relays.relay(visit_of(client, b"POST"))
    assert client.sent == SENT
    assert len(client._body) == 2


async def test_what_a_client_does_wrong_in_its_body_is_the_clients(
    nursery: trio.Nursery,
) -> None:
    async def taking(link: Link) -> None:
        await link.send(Welcome())
        await link.receive()
        await link.send(Wanted())
        assert await link.receive() is None

    owner = Other(taking)
    owner.nursery = nursery
    client = Client(ExchangeError(Failure.BODY_TIMEOUT))
    with pytest.raises(ExchangeError) as caught:
        await owner.relays.relay(visit_of(client, b"POST"))
    assert caught.value.failure is Failure.BODY_TIMEOUT


async def test_an_owner_that_dies_is_not_sent_a_body_twice(nursery: trio.Nursery) -> None:
    async def taking(link: Link) -> None:
        await link.send(Welcome())
        await link.receive()
        await link.send(Wanted())
        link.abort()

    owner = Other(taking, answering(*ANSWER))
    owner.nursery = nursery
    client = Client(*[Chunk(b"abc")] * 9, End())
    with pytest.raises(ExchangeError) as caught:
        await owner.relays.relay(visit_of(client, b"POST"))
    assert (caught.value.failure, len(owner.scripts)) == (Failure.OWNER_GONE, 1)


async def test_an_owner_that_is_gone_before_the_question_is_told(nursery: trio.Nursery) -> None:
    async def leaving(link: Link) -> None:
        await link.send(Welcome())
        link.abort()

    owner = Other(leaving)
    owner.nursery = nursery
    with pytest.raises(ExchangeError) as caught:
        await owner.relays.relay(visit_of(Client(End()), b"POST"))
    assert caught.value.failure is Failure.OWNER_GONE


# --- what is invalidated


async def test_what_is_invalidated_is_waited_for(nursery: trio.Nursery) -> None:
    told: list[Frame | None] = []

    async def script(link: Link) -> None:
        await link.send(Welcome())
        told.append(await link.receive())
        await link.send(End())

    owner = Other(dying, script)
    owner.nursery = nursery
    assert await owner.relays.invalidate(KEY)
    assert told == [Invalidate(KEY.digest, KEY.url)]


async def test_an_owner_that_does_not_say_so_has_invalidated_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def stuck(link: Link) -> None:
        await link.send(Welcome())
        await trio.sleep_forever()

    owner = Other(stuck)
    owner.nursery = nursery
    assert not await owner.relays.invalidate(KEY)
    assert trio.current_time() == pytest.approx(5.0)


async def test_who_cannot_be_reached_has_invalidated_nothing(nursery: trio.Nursery) -> None:
    owner = Other()
    owner.nursery = nursery
    assert not await owner.relays.invalidate(KEY)


def test_who_has_a_successor_owns_nothing() -> None:
    relays = Other().relays
    relays.owners = Owners(0, 2, 1)
    assert relays.owns(KEY.digest)
    relays.disown()
    assert not relays.owns(KEY.digest)
    assert relays.owners.owner_of(KEY.digest) == 0


# --- unused connections


async def test_unused_connections_are_few_and_closed_in_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    owner = Other()
    pairs = [Line.pair() for _ in range(MOST_IDLE + 1)]
    for here, _ in pairs:
        owner.relays.release(0, Link(here))
    assert sum(there.readable_now() for _, there in pairs) == 1
    nursery.start_soon(owner.relays.run)
    await trio.sleep(IDLE_S - 1)
    assert sum(there.readable_now() for _, there in pairs) == 1
    await trio.sleep(SWEEP_S + 2)
    assert all(there.readable_now() for _, there in pairs)


async def test_unused_connections_are_closed_at_the_end() -> None:
    owner = Other()
    here, there = Line.pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.relays.run)
        await wait_all_tasks_blocked()
        owner.relays.release(0, Link(here))
        nursery.cancel_scope.cancel()
    assert there.readable_now()


# --- what goes with an answer


async def test_a_copy_is_kept_when_all_of_it_has_passed(nursery: trio.Nursery) -> None:
    entry = entry_of()
    owner = Other()
    copy = Copy(codec.to_bytes(entry), owner.leases.lend(KEY.digest))
    owner.scripts = [answering(Answered(OK, FACTS, copy), Chunk(b"123"), Chunk(b"45"), End())]
    owner.nursery = nursery
    await owner.relays.relay(visit_of(Client()))
    found = owner.store.find_nowait(KEY)
    assert found is not None
    assert [(held.entry, held.body) for held in found.variants] == [(entry, b"12345")]


def test_what_is_told_of_an_answer_is_what_is_written_down() -> None:
    told = Record(0.0, "id-1", "c", status=200, cache=Outcome.STALE, reason="stale/freshened")
    told.ttl, told.upstream, told.upstream_s, told.error = -5, "main", 0.25, "closed-early"
    noted = Record(0.0, "id-1", "c")
    note(noted, facts_of(told))
    assert noted == told


WHOLE = Answer(ResponseHead(200), (Span(0, 5),))


def lending(held: Held, composed: Answer, method: bytes = b"GET", lease: int | None = 3) -> Any:
    head = RequestHead(method, b"http", b"a", b"/")
    visit = SimpleNamespace(head=head, lease=lease, variants=(held,), terms=Terms())
    return copy_of(cast("Visit", visit), Shown(held, held.entry, held.entry), composed)


def test_a_copy_goes_with_a_whole_answer_to_a_get() -> None:
    held = Held(entry_of(), body=b"12345")
    assert lending(held, WHOLE) == Copy(codec.to_bytes(held.entry), 3)
    empty = Held(entry_of(length=0), body=b"")
    assert lending(empty, Answer(ResponseHead(200))) is not None
    for composed in (
        Answer(ResponseHead(304)),
        Answer(ResponseHead(206), (Span(0, 5),)),
        Answer(ResponseHead(200), (Span(0, 4),)),
    ):
        assert lending(held, composed) is None
    assert lending(held, WHOLE, b"HEAD") is None
    assert lending(held, WHOLE, lease=None) is None
    assert lending(Held(entry_of()), WHOLE) is None


def test_no_copy_goes_with_what_may_not_be_lent_or_has_a_large_head() -> None:
    held = Held(entry_of(), body=b"12345")
    held.fill = cast("Any", object())
    assert lending(held, WHOLE) is None
    large = replace(entry_of(), headers=Headers([(b"x", bytes(HEAD_BYTES))]))
    assert lending(Held(large, body=b"12345"), WHOLE) is None


# --- a body that is lent


OK_FILE = ResponseHead(200, Headers([(b"content-length", b"%d" % LENGTH)]))


def with_file(file: LentFile, *, passing: bool = True, heard: list[Frame | None]) -> Any:
    """Answers with a file, and with its bytes where that is not taken."""

    async def script(link: Link) -> None:
        await link.send(Welcome())
        asked = await link.receive()
        assert isinstance(asked, Ask)
        if not asked.takes_files:
            heard.append(None)
        await link.send(Answered(OK_FILE, FACTS))
        if passing:
            assert await link.lend(file.lent, file.descriptor)
        else:
            await link.send(file.lent)
        heard.append(await link.receive())
        if file.is_rotten:
            return
        if isinstance(heard[-1], Wanted | None):
            await link.send(Chunk(file.content))
        await link.send(End())

    return script


def joined(sent: list[Message]) -> bytes:
    return b"".join(message.data for message in sent if isinstance(message, Chunk))


@pytest.mark.parametrize("passing", [True, False], ids=["taken", "no-room"])
async def test_a_lent_body_is_sent_from_its_file_or_copied(
    nursery: trio.Nursery, tmp_path: Path, passing: bool
) -> None:
    file, heard = LentFile(tmp_path / "body"), list[Any]()
    owner = Other(with_file(file, passing=passing, heard=heard))
    owner.nursery = nursery
    await owner.relays.relay(visit_of(client := Client()))
    assert joined(client.sent) == file.content
    assert (client.sent[0], client.sent[-1]) == (OK_FILE, End())
    assert heard == [End() if passing else Wanted()]
    assert (owner.relays.loans.taken, len(owner.relays.loans)) == (int(passing), 0)
    assert owner.relays.unused(0) is not None
    file.close()


async def test_a_client_that_has_ended_its_side_gets_a_copy(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    file, heard = LentFile(tmp_path / "body"), list[Any]()
    script = with_file(file, heard=heard)

    async def waiting(link: Link) -> None:
        receive = link.receive

        async def late() -> Frame | None:
            asked = await receive()
            await trio.sleep(2)
            return asked

        link.receive = late  # type: ignore[method-assign]
        await script(link)

    owner = Other(waiting)
    owner.nursery = nursery
    client = Client()
    client.left.set()
    await owner.relays.relay(visit_of(client))
    assert (joined(client.sent), heard) == (file.content, [None])
    assert owner.relays.loans.taken == 0
    file.close()


async def test_no_file_is_asked_for_where_there_is_no_room(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    file, heard = LentFile(tmp_path / "body"), list[Any]()
    owner = Other(with_file(file, heard=heard), answering(*ANSWER))
    owner.nursery = nursery
    owner.relays.loans = Loans(0)
    await owner.relays.relay(visit_of(Client()))
    assert heard == [None, Wanted()]
    file.close()


async def test_no_file_is_asked_for_with_a_request_that_has_a_body(
    nursery: trio.Nursery,
) -> None:
    asked: list[Frame | None] = []

    async def script(link: Link) -> None:
        await link.send(Welcome())
        asked.append(await link.receive())
        for frame in ANSWER:
            await link.send(frame)

    owner = Other(script)
    owner.nursery = nursery
    await owner.relays.relay(visit_of(Client(Chunk(b"x"), End()), b"POST"))
    (question,) = asked
    assert isinstance(question, Ask)
    assert not question.takes_files


@pytest.mark.parametrize("hears", [True, False])
async def test_an_owner_that_dies_once_it_has_lent_a_file_harms_nobody(
    nursery: trio.Nursery, tmp_path: Path, hears: bool
) -> None:
    file = LentFile(tmp_path / "body")

    async def script(link: Link) -> None:
        await link.send(Welcome())
        await link.receive()
        await link.send(Answered(OK_FILE, FACTS))
        await link.lend(file.lent, file.descriptor)
        file.close()
        if hears:
            await link.receive()
        link.close()

    owner = Other(script)
    owner.nursery = nursery
    client = Client()
    await owner.relays.relay(visit_of(client))
    assert (joined(client.sent), client.sent[-1]) == (file.content, End())


async def test_a_lent_body_that_is_not_what_was_stored_is_invalidated(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    file, heard = LentFile(tmp_path / "body", rotten=True), list[Any]()
    told: list[Frame | None] = []

    async def listening(link: Link) -> None:
        await link.send(Welcome())
        told.append(await link.receive())
        await link.send(End())

    owner = Other(with_file(file, heard=heard), listening)
    owner.nursery = nursery
    visit = visit_of(client := Client())
    visit.tools = cast("Any", SimpleNamespace(background=nursery))
    with pytest.raises(ExchangeError) as caught:
        await owner.relays.relay(visit)
    assert caught.value.failure is Failure.BODY_LOST
    assert client.sent == [OK_FILE]
    await wait_all_tasks_blocked()
    assert told == [Invalidate(KEY.digest, KEY.url)]
    file.close()
