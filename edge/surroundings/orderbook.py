"""What operators have ordered, on file: orders outlive the node's restart.

The file stands in the store's directory, is replaced whole and is on the disk before an order is
acknowledged. One that cannot be read is set aside under another name and told of: the node starts
without its orders then, since it is better to serve by the settings than not at all, and who gave
them can look into the file. What checks found is not kept: it was true when it was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from edge.cache.home import write_whole
from edge.surroundings.standing import Standing, check_orders

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE: Final = "orders.json"
BROKEN: Final = "orders.broken.json"
VERSION: Final = 1
MOST_BYTES: Final = 4 << 20  # the board takes a quarter of that


class _Page(msgspec.Struct, frozen=True):
    version: int
    orders: Standing


class OrderBook:
    """The file of orders in `root`. `tell` is given a line for the error log."""

    def __init__(self, root: Path, tell: Callable[[str], None]) -> None:
        self._path = root / FILE
        self._tell = tell

    def read(self) -> Standing:
        """What was ordered; nothing, where there is no file that can be read. Blocks."""
        try:
            with self._path.open("rb") as opened:
                data = opened.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return Standing()
        except OSError as error:
            self._tell(f"{self._path} cannot be read: {error.strerror or error}; no order holds")
            return Standing()
        try:
            return _read(data)
        except ValueError as error:
            self._set_aside(str(error))
            return Standing()

    def write(self, standing: Standing) -> None:
        """Keep what of it was ordered; raises OSError, and then all is as before. Blocks."""
        page = msgspec.json.encode(_Page(VERSION, standing.orders()))
        write_whole(self._path, msgspec.json.format(page, indent=2).decode())

    def _set_aside(self, why: str) -> None:
        aside = self._path.with_name(BROKEN)
        try:
            self._path.replace(aside)
        except OSError as error:
            where = f"it cannot be set aside: {error.strerror or error}"
        else:
            where = f"it is set aside as {aside.name}"
        self._tell(f"{self._path} holds no orders ({why}); {where}; no order holds")


def _read(data: bytes) -> Standing:
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    try:
        told = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        version = msgspec.json.decode(told["version"]) if "version" in told else None
        if version != VERSION:
            raise ValueError(f"its version is {version}, and {VERSION} is known")
        orders = msgspec.json.decode(data, type=_Page).orders
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    check_orders(orders)
    return orders
