"""The store's directory: ours alone, and its birth is made anew only as a whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edge.cache.home import BIRTH, Home, NotAStore, StoreBusy, move_away

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "store")


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


@pytest.mark.parametrize("rot", [b"", b"short", b"\xff" * 32, b"-" * 32])
def test_a_birth_is_kept_and_one_that_is_none_is_made_anew(
    home: Home, tmp_path: Path, rot: bytes
) -> None:
    home.enter()
    first = home.birth()
    assert len(first) == 32
    assert home.birth() == first
    (tmp_path / "store" / BIRTH).write_bytes(rot)
    assert home.birth() not in ("", first)
    home.leave()


def test_a_birth_that_cannot_be_kept_is_none(tmp_path: Path) -> None:
    assert Home(tmp_path / "nowhere").birth() == ""


def test_a_birth_is_renewed_as_a_whole_or_not_at_all(home: Home, tmp_path: Path) -> None:
    home.enter()
    first = home.birth()
    second = home.renew_birth()
    assert (second != first, home.birth()) == (True, second)
    (tmp_path / "store" / f"{BIRTH}.new").mkdir()
    with pytest.raises(IsADirectoryError):
        home.renew_birth()
    assert home.birth() == second
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


def test_a_birth_is_on_the_disk_under_its_name(home: Home, synced: list[str]) -> None:
    home.enter()
    home.renew_birth()
    home.leave()
    assert synced[0] == "birth.new"
    assert synced[1] == "store"
    assert "  birth" in synced
    assert "  birth.new" not in synced


def test_what_is_moved_away_is_gone_on_the_disk_too(
    home: Home, tmp_path: Path, synced: list[str]
) -> None:
    home.enter()
    (tmp_path / "store" / "cache.db").touch()
    move_away(tmp_path / "store", ("cache.db", "none"), "gone")
    home.leave()
    assert synced[0] == "store"
    assert "  cache.db" not in synced
