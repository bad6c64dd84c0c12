"""A shard's directory: ours alone, and what is of another birth goes before that is taken."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
import trio

from edge.cache.home import BIRTH, Home, NotAStore, StoreBusy, move_away, read_birth

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND = "1" * 32, "2" * 32


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "store")


@pytest.mark.usefixtures("impatient")
def test_a_directory_is_made_held_and_let_go(home: Home, tmp_path: Path) -> None:
    home.enter()
    with pytest.raises(StoreBusy):
        Home(tmp_path / "store").enter()
    home.leave()
    again = Home(tmp_path / "store")
    again.enter()
    again.leave()


def test_a_directory_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(NotAStore):
        Home(tmp_path).enter()


def test_an_orderly_end_is_told_once(home: Home) -> None:
    home.enter()
    assert not home.take_clean()
    home.mark_clean()
    assert home.take_clean()
    assert not home.take_clean()
    home.leave()


async def test_a_directory_is_waited_for_while_its_user_is_dying(
    home: Home, tmp_path: Path
) -> None:
    home.enter()
    again = Home(tmp_path / "store")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, again.enter)
        await trio.to_thread.run_sync(wait_opened, tmp_path / "store" / "lock", 2)
        home.leave()
    again.leave()


def wait_opened(path: Path, times: int) -> None:
    """Until this process has a file open so many times."""
    give_up_at = time.monotonic() + 10
    while time.monotonic() < give_up_at:
        open_now = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        if open_now.count(str(path)) >= times:
            return
    raise AssertionError(f"{path} is not open {times} times")


def test_a_new_directory_takes_the_birth_it_is_given(home: Home, tmp_path: Path) -> None:
    home.enter()
    assert read_birth(tmp_path / "store") == ""
    home.adopt(FIRST)
    assert read_birth(tmp_path / "store") == FIRST
    home.leave()


def test_what_is_of_the_same_birth_stays(home: Home, tmp_path: Path) -> None:
    home.enter()
    home.adopt(FIRST)
    (tmp_path / "store" / "cache.db").touch()
    home.adopt(FIRST)
    assert (tmp_path / "store" / "cache.db").exists()
    home.leave()


@pytest.mark.parametrize("rot", [b"", b"short", b"\xff" * 32, b"-" * 32, b"0" * 32, None])
def test_what_is_of_another_birth_or_of_none_goes(
    home: Home, tmp_path: Path, rot: bytes | None
) -> None:
    store = tmp_path / "store"
    home.enter()
    home.adopt(FIRST)
    for name in ("cache.db", "cache.db-wal"):
        (store / name).touch()
    if rot is None:
        (store / BIRTH).unlink()
    else:
        (store / BIRTH).write_bytes(rot)
    home.adopt(FIRST)
    assert read_birth(store) == FIRST
    assert not list(store.glob("cache.db*"))
    assert len(os.listdir(store / "spool")) == 2
    home.leave()


def test_a_birth_is_taken_as_a_whole_or_not_at_all(home: Home, tmp_path: Path) -> None:
    home.enter()
    home.adopt(FIRST)
    (tmp_path / "store" / "cache.db").touch()
    (tmp_path / "store" / f"{BIRTH}.new").mkdir()
    with pytest.raises(OSError, match=r"cannot be emptied .*directory.*; make room on its disk"):
        home.adopt(SECOND)
    assert read_birth(tmp_path / "store") == FIRST
    assert not (tmp_path / "store" / "cache.db").exists()
    home.leave()


def test_what_cannot_be_moved_away_keeps_its_birth(home: Home, tmp_path: Path) -> None:
    home.enter()
    home.adopt(FIRST)
    (tmp_path / "store" / "cache.db").touch()
    (tmp_path / "store" / "spool").rmdir()
    (tmp_path / "store" / "spool").touch()
    with pytest.raises(OSError, match="cannot be emptied"):
        home.adopt(SECOND)
    assert (tmp_path / "store" / "cache.db").exists()
    assert read_birth(tmp_path / "store") == FIRST
    home.leave()


def test_what_is_moved_away_is_an_orphan(home: Home, tmp_path: Path) -> None:
    home.enter()
    store = tmp_path / "store"
    (store / "a").write_bytes(b"a")
    move_away(store, ("a", "not-there"), "gone")
    assert not (store / "a").exists()
    assert os.listdir(store / "spool") == ["gone-a"]
    home.leave()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was synced, and of what the directory held by then."""
    told: list[str] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        told.append(path.rpartition("/")[2])
        if os.path.isdir(path):
            told.extend(f"  {name}" for name in os.listdir(path))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return told


def test_a_birth_is_on_the_disk_under_its_name_behind_what_it_made_go(
    home: Home, tmp_path: Path, synced: list[str]
) -> None:
    home.enter()
    (tmp_path / "store" / "cache.db").touch()
    home.adopt(FIRST)
    home.leave()
    first = synced.index("birth.new")
    assert synced[0] == "store"
    assert "  cache.db" not in synced
    assert "  birth" not in synced[:first]
    assert synced[first + 1] == "store"
    assert "  birth" in synced[first:]
    assert "  birth.new" not in synced[first:]


def test_what_is_moved_away_is_gone_on_the_disk_too(
    home: Home, tmp_path: Path, synced: list[str]
) -> None:
    home.enter()
    (tmp_path / "store" / "cache.db").touch()
    move_away(tmp_path / "store", ("cache.db", "none"), "gone")
    home.leave()
    assert synced[0] == "store"
    assert "  cache.db" not in synced
