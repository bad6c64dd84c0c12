"""What becomes a dictionary and what does not; stories tell what clients get by it."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
import trio

from edge.cache.entry import Key
from edge.cache.held import Held
from edge.cache.store import Store
from edge.coding.library import Library
from edge.coding.policy import CompressPolicy
from edge.errors import ExchangeError, Failure
from edge.serving.dictionaries import MOST_LEARNING, MOST_TRIED, DictionaryDesk
from tests.unit.coding.test_renditions import entry, request
from tests.unit.coding.texts import available_field

OFFERED: Final = (b"use-as-dictionary", b'match="/a*"')
BODY: Final = b"a body that is long enough"


def visit_of(
    digest: bytes = b"",
    accepts: bytes = b"dcz",
    *,
    on: bool = True,
    target: bytes = b"/a",
    place: bytes = b"",
) -> Any:
    fields = [(b"available-dictionary", available_field(digest))] if digest else []
    fields += [(b"sec-fetch-dest", place)] if place else []
    asked = replace(request(accepts, *fields), target=target)
    return SimpleNamespace(
        head=asked,
        request=asked,
        site=SimpleNamespace(name="site"),
        terms=SimpleNamespace(compress=CompressPolicy(dictionaries=on)),
    )


def desk_of(nursery: trio.Nursery, store: Store | None = None) -> DictionaryDesk:
    tools = SimpleNamespace(store=store or Store(1 << 20), background=nursery, library=Library())
    return DictionaryDesk(cast("Any", tools))


async def learnt(held: Held) -> DictionaryDesk:
    """A desk that has been shown what is held, and has had time."""
    async with trio.open_nursery() as nursery:
        desk = desk_of(nursery)
        for _ in range(2):
            desk.learn(visit_of(), held)
    return desk


async def is_known(desk: DictionaryDesk, body: bytes = BODY) -> bool:
    return await desk.meant_by(visit_of(sha256(body).digest())) is not None


async def test_what_is_stored_and_asks_for_it_becomes_a_dictionary() -> None:
    desk = await learnt(Held(entry(OFFERED, length=len(BODY)), body=BODY))
    digest = sha256(BODY).digest()
    found = await desk.meant_by(visit_of(digest))
    assert found is not None
    assert found.content == BODY
    assert await desk.meant_by(visit_of(digest, target=b"/a2?b")) is found
    for other in (
        visit_of(),
        visit_of(digest, b"br, *"),
        visit_of(digest, on=False),
        visit_of(digest, target=b"/b"),
    ):
        assert await desk.meant_by(other) is None
    assert not await is_known(desk, b"another")
    assert desk._tools.library.statistics().learned == 1


async def test_who_means_another_destination_has_none() -> None:
    offered = (b"use-as-dictionary", b'match="/a*", match-dest=("script")')
    desk = await learnt(Held(entry(offered, length=len(BODY)), body=BODY))
    digest = sha256(BODY).digest()
    assert await desk.meant_by(visit_of(digest, place=b"script")) is not None
    assert await desk.meant_by(visit_of(digest)) is not None
    assert await desk.meant_by(visit_of(digest, place=b"document")) is None


@pytest.mark.parametrize(
    "held",
    [
        Held(entry(length=len(BODY)), body=BODY),
        Held(entry(OFFERED, length=len(BODY), status=404), body=BODY),
        Held(entry(OFFERED, (b"content-encoding", b"gzip"), length=len(BODY)), body=BODY),
        Held(entry((b"use-as-dictionary", b"match"), length=len(BODY)), body=BODY),
        Held(entry((b"use-as-dictionary", b'match="/b"'), length=len(BODY)), body=BODY),
        Held(entry(OFFERED), body=b"short"),
    ],
    ids=["unasked", "error", "coded", "unread", "for-others", "short"],
)
async def test_what_cannot_be_one_is_none(held: Held) -> None:
    assert not await is_known(await learnt(held))


@pytest.mark.parametrize("told", [True, False])
async def test_what_is_too_large_is_none(told: bool) -> None:
    large = bytes(2 << 20)
    length = len(large) if told else None
    desk = await learnt(Held(entry(OFFERED, length=length), body=large))
    assert not await is_known(desk, large)


async def test_what_breaks_off_is_none_and_may_be_another_time() -> None:
    store = Store(1 << 20)
    held = store.begin(entry(OFFERED, length=len(BODY)))
    assert held.fill is not None
    await held.fill.write(BODY[:5])
    async with trio.open_nursery() as nursery:
        desk = desk_of(nursery, store)
        desk.learn(visit_of(), held)
        await trio.testing.wait_all_tasks_blocked()
        store.abort(held, ExchangeError(Failure.BODY_TRUNCATED))
    assert not await is_known(desk, BODY[:5])
    assert not desk._tried


async def test_no_more_are_learned_at_once_than_there_may_be() -> None:
    store = Store(1 << 20)
    keys = [Key(b"%016d" % number, b"http://site.example/a") for number in range(MOST_LEARNING)]
    held = [store.begin(entry(OFFERED, key=key, body=key.digest)) for key in keys]
    late = Held(entry(OFFERED, body=b"late", length=len(BODY)), body=BODY)
    async with trio.open_nursery() as nursery:
        desk = desk_of(nursery, store)
        for each in (*held, late):
            desk.learn(visit_of(), each)
        for each in held:
            store.abort(each, ExchangeError(Failure.BODY_TRUNCATED))
    assert not await is_known(desk)
    async with trio.open_nursery() as nursery:
        desk._tools.background = nursery
        desk.learn(visit_of(), late)
    assert await is_known(desk)


async def test_what_was_tried_is_remembered_within_bounds() -> None:
    async with trio.open_nursery() as nursery:
        desk = desk_of(nursery)
        for number in range(MOST_TRIED + 10):
            body = b"%08d" % number
            key = Key(b"%016d" % number, b"http://site.example/a")
            held = Held(entry(OFFERED, key=key, body=body, length=8), body=body)
            desk.learn(visit_of(), held)
            await trio.testing.wait_all_tasks_blocked()
    assert len(desk._tried) == MOST_TRIED
