"""Orders on file: kept whole, and never what a node cannot start for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edge.surroundings.orderbook import BROKEN, FILE, MOST_BYTES, OrderBook
from edge.surroundings.standing import (
    NamedExperiment,
    NamedServer,
    Standing,
    drained,
    found,
    ramped,
    weighted,
)

if TYPE_CHECKING:
    from pathlib import Path

EU = NamedServer("eu", "http://eu-1.example", 3.0)
CHECKOUT = NamedExperiment("shop.example/checkout", (("new", 10.0), ("control", 90.0)))
ORDERS = ramped(weighted(drained(Standing(), [EU]), [EU], 5.0), CHECKOUT, "new", 20.0)


def test_what_was_ordered_is_there_again_and_what_was_found_is_not(tmp_path: Path) -> None:
    lines: list[str] = []
    book = OrderBook(tmp_path, lines.append)
    assert book.read() == Standing()
    book.write(found(ORDERS, EU.id, is_up=False, why="refused", now=1.0))
    assert OrderBook(tmp_path, lines.append).read() == ORDERS
    book.write(Standing())
    assert book.read() == Standing()
    assert lines == []
    assert [each.name for each in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_the_file_is_for_people_too(tmp_path: Path) -> None:
    OrderBook(tmp_path, print).write(ORDERS)
    document = json.loads((tmp_path / FILE).read_text())
    assert document["version"] == 1
    assert document["orders"]["servers"][EU.id] == {
        "drained": True,
        "weight": {"value": 5.0, "over": 3.0},
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "Input data was truncated"),
        (b'{"version": 1, "orders": {"servers"', "truncated"),
        (b"[" * 100_000, ""),
        (b"\xff\xfe", ""),
        (b"{}", "its version is None, and 1 is known"),
        (b'{"version": 2, "orders": {}}', "its version is 2, and 1 is known"),
        (b'{"version": 1}', "orders"),
        (
            b'{"version": 1, "orders": {"servers": {"a": {"weight": 5}}}}',
            "Expected `object | null`",
        ),
        (
            b'{"version": 1, "orders": {"servers": {"a": {"weight": {"value": -1, "over": 1}}}}}',
            "a: -1 is no weight of a server",
        ),
        (
            b'{"version": 1, "orders": {"experiments": {"s/x": {"weights": '
            b'{"new": {"value": 1e300, "over": 1}}}}}}',
            "s/x, new: 1e+300 is no weight of an arm",
        ),
        (b" " * (MOST_BYTES + 1), f"more than {MOST_BYTES} bytes"),
    ],
)
def test_a_broken_file_is_told_of_and_set_aside(tmp_path: Path, text: bytes, why: str) -> None:
    (tmp_path / FILE).write_bytes(text)
    lines: list[str] = []
    book = OrderBook(tmp_path, lines.append)
    assert book.read() == Standing()
    (line,) = lines
    assert line.startswith(f"{tmp_path / FILE} holds no orders (")
    assert why in line
    assert line.endswith(f"it is set aside as {BROKEN}; no order holds")
    assert (tmp_path / BROKEN).read_bytes() == text
    book.write(ORDERS)
    assert book.read() == ORDERS
    assert len(lines) == 1


def test_a_file_that_is_none_is_told_of_and_stays(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    lines: list[str] = []
    book = OrderBook(tmp_path, lines.append)
    assert book.read() == Standing()
    assert lines == [f"{tmp_path / FILE} cannot be read: Is a directory; no order holds"]
    with pytest.raises(OSError):
        book.write(ORDERS)


def test_a_file_that_cannot_be_set_aside_is_told_of_all_the_same(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"?")
    (tmp_path / BROKEN).mkdir()
    lines: list[str] = []
    assert OrderBook(tmp_path, lines.append).read() == Standing()
    assert "it cannot be set aside: Is a directory" in lines[0]


def test_what_a_killed_writer_left_is_no_order(tmp_path: Path) -> None:
    book = OrderBook(tmp_path, print)
    book.write(ORDERS)
    (tmp_path / f"{FILE}.new").write_bytes(b'{"version": 1, "ord')
    assert book.read() == ORDERS
    book.write(Standing())
    assert book.read() == Standing()
