"""What shields are owed: in order, bounded, and still there after a restart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from edge.purging import backlog as module
from edge.purging.backlog import BROKEN, EVERYTHING, FILE, MOST_BYTES, MOST_ORDERS, Backlog

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = "http://one.example:80", "http://two.example:80"


def owed(backlog: Backlog, url: str) -> list[bytes]:
    found = []
    while (debt := backlog.next(url)) is not None:
        found.append(debt.order)
        backlog.pay(url, debt)
    return found


async def test_it_is_paid_in_order_and_outlives_the_node(tmp_path: Path) -> None:
    lines: list[str] = []
    backlog = Backlog(tmp_path, lines.append)
    for number in range(3):
        backlog.owe(ONE, b'{"tag":["%d"]}' % number)
    backlog.owe(TWO, EVERYTHING)
    await backlog.keep()
    first = backlog.next(ONE)
    assert first is not None
    backlog.pay(ONE, first)
    assert first.paid.is_set()
    await backlog.keep()
    again = Backlog(tmp_path, lines.append)
    again.take_up([ONE, TWO])
    assert again.count(ONE) == 2
    assert owed(again, ONE) == [b'{"tag":["1"]}', b'{"tag":["2"]}']
    assert owed(again, TWO) == [EVERYTHING]
    await again.keep()
    assert json.loads((tmp_path / FILE).read_text()) == {"version": 1, "owed": {}}
    assert lines == []


@pytest.mark.parametrize(
    ("order", "count"), [(b"{}", MOST_ORDERS + 1), (b"x" * (MOST_BYTES // 2 + 1), 2)]
)
async def test_too_much_is_everything(tmp_path: Path, order: bytes, count: int) -> None:
    lines: list[str] = []
    backlog = Backlog(tmp_path, lines.append)
    first = backlog.owe(ONE, order)
    for number in range(count - 2):
        backlog.owe(ONE, b"%d" % number)
    assert backlog.next(ONE) is first
    last = backlog.owe(ONE, order)
    assert (backlog.next(ONE), last.order) == (last, EVERYTHING)
    backlog.pay(ONE, first)  # which was on its way: it pays nothing that came after it
    assert owed(backlog, ONE) == [EVERYTHING]
    assert "it will purge everything" in lines[0]


async def test_the_same_order_is_owed_once_unless_it_may_be_on_its_way(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path, print)
    first, second = backlog.owe(ONE, b"a"), backlog.owe(ONE, b"a")
    assert first is not second
    assert backlog.owe(ONE, b"a") is second
    assert owed(backlog, ONE) == [b"a", b"a"]


async def test_who_is_no_shield_any_more_is_owed_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    backlog = Backlog(tmp_path, lines.append)
    backlog.owe(ONE, EVERYTHING)
    backlog.take_up([TWO])
    assert backlog.next(ONE) is None
    assert lines == [f"{ONE} is no shield any more; 1 purges were owed to it"]


@pytest.mark.parametrize("text", ["{", '{"version": 2, "owed": {}}', '{"version": 1, "owed": []}'])
async def test_a_file_that_cannot_be_read_means_that_all_is_to_be_purged(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / FILE).write_text(text)
    lines: list[str] = []
    backlog = Backlog(tmp_path, lines.append)
    assert (tmp_path / BROKEN).read_text() == text
    backlog.take_up([ONE, TWO])
    backlog.take_up([ONE, TWO])
    assert [owed(backlog, each) for each in (ONE, TWO)] == [[EVERYTHING]] * 2
    assert "every shield will purge everything" in lines[0]


async def test_who_waits_for_the_file_shares_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(module, "write_whole", lambda _, text: written.append(text))
    backlog = Backlog(tmp_path, print)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            backlog.owe(ONE, b"%d" % number)
            nursery.start_soon(backlog.keep)
    assert len(written) == 1
    await backlog.keep()
    assert len(written) == 1


async def test_a_disk_that_fails_is_told_to_who_waits(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "none", print)
    backlog.owe(ONE, EVERYTHING)
    with pytest.raises(OSError):
        await backlog.keep()
    (tmp_path / "none").mkdir()
    await backlog.keep()
    assert (tmp_path / "none" / FILE).exists()
