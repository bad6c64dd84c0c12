"""An order to purge, whoever gives it, and what is wrong with it while it is being read.

All faults are told at once: the first `FAULTS_TOLD` in words and how many more there are, so that
neither the answer nor the work on it grows with what a careless or hostile hand has written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

FAULTS_TOLD: Final = 20
NOTES_TOLD: Final = 20
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one place of an order; `value` is short and printable."""

    path: str
    value: str
    message: str


class OrderRefused(ValueError):  # noqa: N818 – it is an answer, like `ScopeRefused`
    """An order that is not carried out; `more` faults were found beyond those told."""

    def __init__(self, faults: list[Fault], more: int = 0) -> None:
        told = [
            f"{fault.path}: {fault.message}" if fault.path else fault.message for fault in faults
        ]
        super().__init__("; ".join(told) + (f"; and {more} more" if more else ""))
        self.faults = faults
        self.more = more


@dataclass(frozen=True, slots=True)
class Order:
    """What to purge. `names` are of scopes, each once, in the order given; `notes` are remarks
    for whoever gave it. `dry_run` asks what would be purged. `local` says that shields are not to
    be told; `on` is the one host that all of it belongs to, where it is confined to one."""

    names: tuple[bytes, ...] = ()
    everything: bool = False
    soft: bool = False
    notes: tuple[str, ...] = ()
    dry_run: bool = False
    local: bool = False
    on: bytes | None = None


class Unfit(Exception):  # noqa: N818 – whoever reads an order turns it into a fault
    """A value that names no scope; the text says what to write instead."""


class Draft:
    """An order while it is being read."""

    __slots__ = ("_faults", "_more", "_notes", "names")

    def __init__(self) -> None:
        self.names: dict[bytes, None] = {}
        self._notes: dict[str, None] = {}
        self._faults: list[Fault] = []
        self._more = 0

    def refuse(self, path: str, value: object, why: object) -> None:
        """Take note of a fault; `why` is put in words only if it will be told."""
        if len(self._faults) < FAULTS_TOLD:
            self._faults.append(Fault(path, shown(value), str(why)))
        else:
            self._more += 1

    def add(self, name: bytes) -> None:
        """One more scope."""
        self.names[name] = None

    def note(self, text: str, value: bytes = b"") -> None:
        """Say something to whoever gave the order, once, and not too much."""
        if len(self._notes) < NOTES_TOLD:
            self._notes[f"{text} {shown(value)}" if value else text] = None

    def check(self) -> None:
        """Raises `OrderRefused` if there was a fault."""
        if self._faults:
            raise OrderRefused(self._faults, self._more)

    def order(
        self,
        *,
        everything: bool = False,
        soft: bool = False,
        dry_run: bool = False,
        local: bool = False,
        on: bytes | None = None,
    ) -> Order:
        """The order that this has become; raises `OrderRefused`."""
        self.check()
        notes = tuple(self._notes)
        return Order(tuple(self.names), everything, soft, notes, dry_run, local, on)


def shown(value: object) -> str:
    """`value` for a message: on one line, printable, at most about 60 characters."""
    if isinstance(value, bytes):
        value = value[: _SHOWN + 1].decode("ascii", "backslashreplace")
    if isinstance(value, str):
        text = "".join(map(_printable, value[:_SHOWN]))
        return text + "…" if len(value) > _SHOWN else text
    if isinstance(value, list | dict):
        return "[…]" if isinstance(value, list) else "{…}"
    return msgspec.json.encode(value).decode()[:_SHOWN]


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
