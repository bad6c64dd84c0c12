"""Lent bodies: sent and read by the owner's rules, whatever it does, and never left open."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edge.cache.bytesdisk import new_filename
from edge.cache.descriptors import OpenBody
from edge.cache.diskbody import LENT_CHECKS_BYTES, Blocks, DiskBody, open_verified
from edge.cache.integrity import BLOCK_BYTES, CHECK_BYTES, blocks_in, checks_of
from edge.cache.loans import Loans
from edge.cache.packing import StoredRow, row_key
from edge.cache.pages import Pages
from edge.cache.threads import Inline
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.wire.frames import Lent
    from tests.unit.cache.conftest import MakeEntry

LENGTH = BLOCK_BYTES * 3 + 1000
BODY = os.urandom(LENGTH)


class Owned:
    """A verified body in a file, as its owner has it."""

    def __init__(self, directory: Path, make_entry: MakeEntry) -> None:
        entry = make_entry(length=LENGTH)
        name = new_filename(row_key(entry))
        self.path = directory / name
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(BODY)
        os.utime(self.path, ns=(1, 1))
        self.row = StoredRow(row_key(entry), entry, checks_of(BODY), None, name)
        descriptor, stamp, blocks = open_verified(str(directory), self.row, blocks_in(LENGTH))
        while not stamp.is_settled:  # its last change is of this very tick
            os.close(descriptor)
            descriptor, stamp, blocks = open_verified(str(directory), self.row, blocks_in(LENGTH))
        self.opened = OpenBody(descriptor, self.row, stamp, Pages(), lambda: 0.0)
        for index in range(len(blocks)):
            self.opened.mark(index, stamp)
        self.body = DiskBody(
            self.opened, self.row, Blocks(), Inline(), lambda _: os.close(descriptor), print
        )

    def lent(self, start: int = 0, stop: int = LENGTH) -> Lent:
        lent = self.body.loan(start, stop)
        assert lent is not None
        return lent

    def flip(self, at: int) -> None:
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([BODY[at] ^ 1]))


@pytest.fixture
def owned(tmp_path: Path, make_entry: MakeEntry) -> Owned:
    made = Owned(tmp_path, make_entry)
    if made.opened.is_refused:
        pytest.skip("nothing can be sent from files of this file system")
    return made


@pytest.fixture
def loans() -> Loans:
    return Loans(2)


def taken(loans: Loans, owned: Owned, lost: Callable[[str], None] = lambda why: None) -> DiskBody:
    body = loans.take(owned.lent(), os.dup(owned.body.descriptor), lost)
    assert body is not None
    body._opened._verified_at = body._opened._clock()  # the owner's clock is another's here
    return body


async def read_whole(body: DiskBody) -> bytes:
    got = bytearray()
    while data := await body.read(len(got), 100_000):
        got += data
    return bytes(got)


async def test_what_is_lent_is_sent_without_being_read(loans: Loans, owned: Owned) -> None:
    body = taken(loans, owned)
    assert (body.length, body.sendable(0, LENGTH)) == (LENGTH, LENGTH)
    assert os.pread(body.descriptor, LENGTH, 0) == BODY
    body.close()
    assert (len(loans), loans.taken) == (0, 1)


async def test_it_is_the_borrowers_own_and_closed_with_its_reader(
    loans: Loans, owned: Owned
) -> None:
    body = taken(loans, owned)
    descriptor = body.descriptor
    owned.body.close()
    assert await read_whole(body) == BODY
    body.close()
    body.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


async def test_only_so_many_are_taken_at_a_time(loans: Loans, owned: Owned) -> None:
    rooms = [loans.has_room]
    first, second = taken(loans, owned), taken(loans, owned)
    rooms.append(loans.has_room)
    one_more = os.dup(owned.body.descriptor)
    assert loans.take(owned.lent(), one_more, print) is None
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(one_more)
    first.close()
    rooms.append(loans.has_room)
    second.close()
    assert rooms == [True, False, True]
    assert Loans().has_room


@pytest.mark.parametrize("deed", ["removed", "replaced", "touched"])
async def test_whatever_becomes_of_the_file_the_old_bytes_are_read_and_verified(
    loans: Loans, owned: Owned, deed: str
) -> None:
    body = taken(loans, owned)
    if deed == "removed":
        owned.path.unlink()
    elif deed == "replaced":
        other = owned.path.with_suffix(".new")
        other.write_bytes(bytes(LENGTH))
        other.rename(owned.path)
    else:
        os.utime(owned.path)
    assert body.sendable(0, LENGTH) == 0
    assert await read_whole(body) == BODY
    body.close()


async def test_a_byte_that_is_changed_is_neither_sent_nor_read(loans: Loans, owned: Owned) -> None:
    lost: list[str] = []
    body = taken(loans, owned, lost.append)
    owned.flip(BLOCK_BYTES + 7)
    assert body.sendable(BLOCK_BYTES, 10) == 0
    assert await body.read(0, 10) == BODY[:10]
    with pytest.raises(ExchangeError) as caught:
        await body.read(BLOCK_BYTES, 10)
    assert caught.value.failure is Failure.BODY_LOST
    assert lost == ["block 1 has rotted"]
    body.close()


async def test_what_the_page_cache_drops_is_verified_anew(loans: Loans, owned: Owned) -> None:
    body = taken(loans, owned)
    os.fsync(os.open(owned.path, os.O_RDONLY))
    body._opened.dropped(1)  # as found by asking for its pages
    assert body.sendable(0, LENGTH) == BLOCK_BYTES
    assert await read_whole(body) == BODY
    assert body.sendable(0, LENGTH) == LENGTH
    body.close()


async def test_it_is_verified_anew_no_later_than_by_its_owner(loans: Loans, owned: Owned) -> None:
    lent = owned.lent()
    assert lent.verified_at == 0.0  # long ago, by the clock that this process has
    body = loans.take(lent, os.dup(owned.body.descriptor), print)
    assert body is not None
    body._opened._clock = lambda: 601.0
    assert body.sendable(0, LENGTH) == 0
    assert await read_whole(body) == BODY
    assert body.sendable(0, LENGTH) == LENGTH
    body.close()


# --- what is lent


async def test_nothing_is_lent_but_what_is_verified_to_the_last_block(owned: Owned) -> None:
    assert owned.lent(5, 10).stop == 10
    assert owned.body.loan(5, 5) is None
    owned.opened.dropped(3)
    assert owned.body.loan(5, 10) is None


async def test_nothing_is_lent_of_a_file_that_was_changed(owned: Owned) -> None:
    os.utime(owned.path)
    assert owned.body.loan(0, LENGTH) is None


async def test_a_body_of_more_checks_than_a_frame_should_have_is_not_lent(
    owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.cache.diskbody.LENT_CHECKS_BYTES", 3 * CHECK_BYTES)
    assert LENT_CHECKS_BYTES >= 4 * CHECK_BYTES
    assert owned.body.loan(0, LENGTH) is None


async def test_nothing_is_taken_where_no_descriptor_came(loans: Loans, owned: Owned) -> None:
    assert loans.take(owned.lent(), None, print) is None
    assert (len(loans), loans.taken) == (0, 0)
