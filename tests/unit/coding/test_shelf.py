"""What is put on the shelf is read the same by all, what is broken is none, and it is bounded."""

from __future__ import annotations

import os
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.coding.dictionary import LEAST_BYTES, Dictionary, Offer, Realm, UrlMatch, url_match
from edge.coding.shelf import BUCKETS, WAYS, Shelf, packed, unpacked
from edge.routing.site import Glob

if TYPE_CHECKING:
    from pathlib import Path

REALM: Final = Realm("www", b"https://example.com")
OTHERS: Final = (
    Realm("other", REALM.origin),
    Realm("www", b"http://example.com"),
    Realm("www", b"https://example.com:8443"),
)
MATCH: Final = UrlMatch(Glob.parse(b"/app.*.js"), None)
OFFER: Final = Offer(MATCH, b"v1", frozenset((b"script", b"worker")))

patterns = st.from_regex(rb"/[a-z*]{0,8}(\?[a-z*?]{0,5})?", fullmatch=True)
offers = st.builds(
    lambda pattern, name, dests: Offer(url_match(pattern, b"/") or MATCH, name, dests),
    patterns, st.binary(max_size=9), st.frozensets(st.binary(max_size=5), max_size=3),
)  # fmt: skip
contents = st.binary(min_size=LEAST_BYTES, max_size=40)


def made(content: bytes = b"a body that is long enough", offer: Offer = OFFER) -> Dictionary:
    return Dictionary(content, offer)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf")


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "shelf").glob("*"))


# --- the byte form


@given(offers, contents)
def test_what_is_written_is_read_the_same(offer: Offer, content: bytes) -> None:
    before = made(content, offer)
    read = unpacked(packed(REALM, before), REALM, before.digest)
    assert read is not None
    assert (read.content, read.offer, read.digest) == (content, offer, before.digest)


@given(offers, contents, st.data())
def test_what_was_changed_cut_short_or_drawn_out_is_refused(
    offer: Offer, content: bytes, data: st.DataObject
) -> None:
    before = made(content, offer)
    form = packed(REALM, before)
    at = data.draw(st.integers(0, len(form) - 1))
    flipped = bytearray(form)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(flipped), form[:at], form + b"x", form[at + 1 :]):
        assert unpacked(broken, REALM, before.digest) is None


@given(st.binary(max_size=80))
def test_junk_is_refused(junk: bytes) -> None:
    assert unpacked(junk, REALM, sha256(junk).digest()) is None


def test_a_form_is_of_one_realm_and_digest() -> None:
    form, digest = packed(REALM, made()), made().digest
    assert unpacked(form, REALM, digest) is not None
    assert unpacked(form, REALM, bytes(32)) is None
    for other in OTHERS:
        assert unpacked(form, other, digest) is None


# --- the shelf


def test_what_was_put_is_found_in_its_realm_alone(shelf: Shelf, tmp_path: Path) -> None:
    one = made()
    assert not shelf.has(REALM, one.digest)
    shelf.put(REALM, one)
    assert shelf.has(REALM, one.digest)
    read = shelf.read(REALM, one.digest)
    assert read is not None
    assert (read.content, read.offer) == (one.content, one.offer)
    for other in OTHERS:
        assert not shelf.has(other, one.digest)
        assert shelf.read(other, one.digest) is None
    assert shelf.has_elsewhere(one.digest)
    assert not shelf.has_elsewhere(bytes(32))
    (name,) = files(tmp_path)
    assert (tmp_path / "shelf" / name).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "shelf").stat().st_mode & 0o777 == 0o700


def test_all_processes_find_what_one_has_put(shelf: Shelf) -> None:
    child = os.fork()
    if not child:
        shelf.put(REALM, made())
        os._exit(0)
    os.waitpid(child, 0)
    assert shelf.has(REALM, made().digest)
    assert shelf.read(REALM, made().digest) is not None


def test_the_same_body_has_its_newest_offer(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(REALM, made())
    newer = Offer(MATCH, b"v2")
    shelf.put(REALM, made(offer=newer))
    read = shelf.read(REALM, made().digest)
    assert read is not None
    assert read.offer == newer
    assert len(files(tmp_path)) == 1


def test_a_node_that_starts_finds_nothing(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(REALM, made())
    later = Shelf(tmp_path / "shelf")
    assert not later.has(REALM, made().digest)
    assert later.read(REALM, made().digest) is None
    assert not list(tmp_path.iterdir())


def test_what_nobody_has_put_costs_no_files_and_no_memory(shelf: Shelf, tmp_path: Path) -> None:
    random = Random(1)
    shelf.put(REALM, made())
    assert not any(shelf.has(REALM, random.randbytes(32)) for _ in range(10_000))
    assert len(files(tmp_path)) == 1
    assert sum(map(bool, shelf._marks.tolist())) == 1


def test_a_mark_without_a_file_can_be_taken_away(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(REALM, made())
    (tmp_path / "shelf" / files(tmp_path)[0]).unlink()
    assert shelf.has(REALM, made().digest)
    assert shelf.read(REALM, made().digest) is None
    for _ in range(2):
        shelf.forget(REALM, made().digest)
        assert not shelf.has(REALM, made().digest)


def test_a_full_bucket_takes_one_more_mark_for_another(shelf: Shelf) -> None:
    marks = [1 + BUCKETS * number for number in range(WAYS + 1)]
    for mark in (*marks, *marks[1:]):
        shelf._set(mark)
    assert [shelf._place_of(mark) is None for mark in marks] == [True] + [False] * WAYS
    shelf._unset(marks[3])
    shelf._set(marks[0])
    assert shelf._place_of(marks[0]) == WAYS + 3


def test_what_cannot_be_written_leaves_nothing(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "shelf").touch()
    with pytest.raises(OSError, match="shelf"):
        shelf.put(REALM, made())
    assert not shelf.has(REALM, made().digest)
    with pytest.raises(OSError, match="shelf"):
        shelf.read(REALM, made().digest)


def test_what_cannot_be_renamed_leaves_nothing(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(REALM, made())
    shelf.forget(REALM, made().digest)
    (name,) = files(tmp_path)
    (tmp_path / "shelf" / name).unlink()
    (tmp_path / "shelf" / name).mkdir()
    with pytest.raises(OSError, match="directory"):
        shelf.put(REALM, made())
    assert files(tmp_path) == [name]
    assert not shelf.has(REALM, made().digest)


@pytest.mark.parametrize("start", [0, 4_000_000_000], ids=["past", "future"])
def test_the_oldest_of_a_realm_goes_and_no_others(tmp_path: Path, start: int) -> None:
    shelf = Shelf(tmp_path / "shelf", most_realm=3)
    shelf.put(OTHERS[0], made())
    several = [made(b"body number %d" % number) for number in range(6)]
    for at, one in enumerate(several):
        shelf.put(REALM, one)
        age(tmp_path, one, start + at)
    assert [shelf.has(REALM, one.digest) for one in several] == [False] * 3 + [True] * 3
    assert shelf.has(OTHERS[0], made().digest)
    assert len(files(tmp_path)) == 4


def test_what_a_killed_writer_has_left_goes_as_well(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", most=2)
    shelf.put(REALM, made())
    (left,) = files(tmp_path)
    os.rename(tmp_path / "shelf" / left, tmp_path / "shelf" / f"{left}.0123")
    for number in range(2):
        shelf.put(REALM, made(b"body number %d" % number))
        age(tmp_path, made(b"body number %d" % number), 4_000_000_000)
    assert f"{left}.0123" not in files(tmp_path)
    assert len(files(tmp_path)) == 2


def age(tmp_path: Path, one: Dictionary, at: int) -> None:
    """Have the file of a dictionary written at this second of a time that was, or is to come."""
    (path,) = (tmp_path / "shelf").glob(f"*-{one.digest.hex()}")
    os.utime(path, (at, at))


@settings(deadline=None, max_examples=20)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.integers(8, 60), st.integers(0, 9)), max_size=20
    )
)
def test_bounds_hold_whatever_comes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]
) -> None:
    directory = tmp_path_factory.mktemp("bounds")
    shelf = Shelf(directory / "shelf", most=6, most_bytes=800, most_realm=4)
    for at, (realm, size, filler) in enumerate(steps):
        one = made(b"%d" % filler * size)
        shelf.put(OTHERS[realm], one)
        assert shelf.read(OTHERS[realm], one.digest) is not None
        found = list((directory / "shelf").iterdir())
        assert len(found) <= 6
        assert sum(path.stat().st_size for path in found) <= 800
        assert sum(map(bool, shelf._marks.tolist())) == len(found)
        for path in (directory / "shelf").glob(f"*-{one.digest.hex()}"):
            os.utime(path, (1e9 + at, 1e9 + at))
