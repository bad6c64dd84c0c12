"""A shield that has not acknowledged a purge: what whoever purges is told of it."""

from __future__ import annotations

import msgspec


class Late(msgspec.Struct, frozen=True):
    """A shield by its URL, and why it has not; whether it is `owed` the purge, and will be asked
    again until it has acknowledged it."""

    url: str
    why: str
    owed: bool = True
