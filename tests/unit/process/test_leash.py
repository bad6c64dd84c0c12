"""A parent and a process: what one says is what the other hears, and nobody waits for anybody."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from edge.process.leash import (
    Collar,
    Crew,
    Dismiss,
    Down,
    Drain,
    Leash,
    Ready,
    Release,
    Released,
    Reload,
    Reloaded,
    Settings,
    Taken,
    Up,
    Worker,
    pair,
    told,
)
from edge.settings import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = st.integers(0, 2**63 - 1)
TEXT = st.text(max_size=20)
FAULTS = st.builds(Fault, st.none() | NUMBERS, TEXT, st.none() | TEXT, TEXT)
WORKERS = st.builds(Worker, NUMBERS, NUMBERS, st.floats(0, 1e10), NUMBERS)


def several(each: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(each, max_size=4).map(tuple)


UPS = st.one_of(
    st.builds(Ready),
    st.builds(Released),
    st.builds(Taken, NUMBERS),
    st.builds(Reload, NUMBERS),
    st.builds(Drain),
)
DOWNS = st.one_of(
    st.builds(Drain),
    st.builds(Release),
    st.builds(Dismiss),
    st.builds(Settings, NUMBERS),
    st.builds(Crew, several(WORKERS)),
    st.builds(
        Reloaded, NUMBERS, st.booleans(), several(FAULTS), several(TEXT), st.booleans(),
        several(TEXT),
    ),
)  # fmt: skip


def said_by(message: Up) -> bytes:
    """What a process sends of a message."""
    return msgspec.msgpack.encode(message)


@contextmanager
def tied() -> Iterator[tuple[Leash, Collar]]:
    leash, theirs = pair()
    collar = Collar(theirs)
    try:
        yield leash, collar
    finally:
        leash.close()
        collar.close()


def test_every_message_that_there_is_is_tried_here() -> None:
    assert set(get_args(Up)) == {Ready, Released, Taken, Reload, Drain}
    assert set(get_args(Down)) == {Drain, Release, Dismiss, Settings, Crew, Reloaded}


@given(st.lists(UPS, min_size=1, max_size=5))
async def test_what_a_process_says_is_what_its_parent_hears(messages: list[Up]) -> None:
    with tied() as (leash, collar):
        for message in messages:
            await collar.say(message)
        assert leash.heard() == messages
        assert leash.heard() == []


@given(st.lists(st.tuples(DOWNS, st.none() | st.binary(max_size=100)), max_size=5))
async def test_what_a_parent_says_is_what_its_process_hears(
    messages: list[tuple[Down, bytes | None]],
) -> None:
    with tied() as (leash, collar):
        for message, text in messages:
            assert leash.say(message, text)
        leash.close()
        heard = [each async for each in collar.heard()]
    assert heard == [(message, text or b"") for message, text in messages]


async def test_settings_of_any_size_come_along_and_leave_no_descriptor() -> None:
    text = bytes(range(256)) * 40_000
    with tied() as (leash, collar):
        before = os.listdir("/proc/self/fd")
        assert leash.say(Settings(1), text)
        heard = collar.heard()
        assert await anext(heard) == (Settings(1), text)
        await heard.aclose()  # type: ignore[attr-defined]
        assert os.listdir("/proc/self/fd") == before


async def test_one_that_leaves_its_messages_unread_is_told_of() -> None:
    with tied() as (leash, _):
        sent = 0
        while sent < 100_000 and leash.say(Drain()):
            sent += 1
        assert 0 < sent < 100_000
        assert not leash.say(Settings(1), b"text")


async def test_nothing_can_be_said_to_one_that_is_gone() -> None:
    with tied() as (leash, collar):
        collar.close()
        assert not leash.say(Drain())


def test_what_was_said_last_is_heard_before_the_end() -> None:
    leash, theirs = pair()
    theirs.send(said_by(Taken(3)))
    theirs.close()
    assert leash.heard() == [Taken(3)]
    with pytest.raises(EOFError):
        leash.heard()
    leash.close()


def test_a_process_that_left_words_unread_is_gone_all_the_same() -> None:
    leash, theirs = pair()
    leash.say(Drain())
    theirs.close()
    with pytest.raises(EOFError):
        leash.heard()
    leash.close()


async def test_without_a_parent_there_is_nothing_to_hear_and_nobody_to_tell() -> None:
    with tied() as (leash, collar):
        leash.close()
        assert [each async for each in collar.heard()] == []
        await collar.say(Ready())


async def test_a_process_that_closes_its_end_hears_no_more() -> None:
    with tied() as (_, collar):
        collar.close()
        assert [each async for each in collar.heard()] == []


def test_few_and_short_faults_are_told_as_they_are() -> None:
    fault = Fault(3, "cache.ttl", '"x"', "is not a duration")
    assert told([fault, Fault(None, "", None, "words")]) == (fault, Fault(None, "", None, "words"))


@pytest.mark.parametrize("letter", ["x", "é", "\N{GRINNING FACE}"])
@pytest.mark.parametrize("long", ["path", "value", "message"])
async def test_faults_without_end_fit_a_message(letter: str, long: str) -> None:
    words = {"path": "p", "value": "v", "message": "m", long: letter * 100_000}
    faults = [Fault(1, words["path"], words["value"], words["message"])] * 1_000
    message = Reloaded(1, done=True, faults=told(faults))
    assert message.faults
    with tied() as (leash, collar):
        assert leash.say(message)
        with trio.fail_after(10):
            leash.close()
            assert [each async for each, _ in collar.heard()] == [message]
