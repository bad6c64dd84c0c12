"""A stored variant as a blob, and back: head, checks of the body, and the body where it is small.

A row's key is the resource's digest (16 bytes) and the variant's digest (16 bytes). A blob begins
with the lengths of head and checks and a CRC-32 over the three, so that either can be read alone:
`unpack` verifies all of it, `unpack_head` all but the body, which it need not have. A larger body
is a file whose name holds the row's key; any other name is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Final
from zlib import crc32

from edge.cache.codec import from_bytes, to_bytes
from edge.cache.integrity import CHECK_BYTES, blocks_in, verify

if TYPE_CHECKING:
    from edge.cache.entry import Entry

KEY_BYTES: Final = 32
PRIMARY_BYTES: Final = 16
PAGE_BYTES: Final = 4096

_BODY_NAME: Final = re.compile(r"bodies/([0-9a-f]{2})/(\1[0-9a-f]{62})-[0-9a-f]{16}")
_LAYOUT: Final = Struct("!4sIII")  # magic, bytes of head, bytes of checks, CRC-32 of the three
_MAGIC: Final = b"ROW\x01"

MARK_BYTES: Final = _LAYOUT.size


class RowRefused(ValueError):  # noqa: N818 - it says what was done
    """A row that this module did not write, or that has rotted."""


class TooShort(ValueError):  # noqa: N818 - it says what the bytes are
    """Too few bytes of a blob to tell its head."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A stored variant as its row tells it: the body is `inline`, or in the file `filename`."""

    key: bytes
    entry: Entry
    checks: bytes
    inline: bytes | None
    filename: str | None

    @property
    def length(self) -> int:
        """Bytes of the whole body; rows are only made of entries that know it."""
        assert self.entry.length is not None
        return self.entry.length


@dataclass(frozen=True, slots=True)
class Packed:
    """What `BytesDisk` stores: a blob, and the finished file to put in place beside it."""

    blob: bytes
    filename: str | None = None
    ready: str | None = None
    body_bytes: int = 0

    @property
    def charge(self) -> int:
        """What this takes of the quota, in bytes."""
        return row_charge(len(self.blob)) + file_charge(self.body_bytes)


@dataclass(frozen=True, slots=True)
class Scanned:
    """A stored variant as a scan sees it, its body unread.

    `charge` is what it takes of the quota, in bytes. `mark` is how its blob begins: lengths and
    CRC-32, which tell this head from any other that may since have taken its place.
    """

    rowid: int
    key: bytes
    entry: Entry
    charge: int
    mark: bytes


@dataclass(frozen=True, slots=True)
class Victim:
    """A row as eviction sees it."""

    rowid: int
    key: bytes
    charge: int
    filename: str | None


def row_key(entry: Entry) -> bytes:
    """The key of `entry`'s row: 16 bytes for the resource, 16 for the variant (zero if none)."""
    return entry.key.digest + _variant_digest(entry)


def _variant_digest(entry: Entry) -> bytes:
    if not entry.variant:
        return bytes(16)
    parts = []
    for name, value in entry.variant:
        parts += [b"%d:" % len(name), name]
        parts += [b"-"] if value is None else [b"%d:" % len(value), value]
    return blake2b(b"".join(parts), digest_size=16).digest()


def row_charge(blob_bytes: int) -> int:
    """About what a row takes in the database file: its share of pages, index and slack."""
    rows_in_page = (PAGE_BYTES - 36) // (blob_bytes + 80)
    if rows_in_page:
        return PAGE_BYTES // rows_in_page + 128
    return file_charge(blob_bytes + 64) + 256


def file_charge(size: int) -> int:
    """What a file of `size` bytes takes on most file systems."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def key_of_filename(filename: str) -> bytes | None:
    """The row key that a body's name holds; None for any other name."""
    match = _BODY_NAME.fullmatch(filename)
    return bytes.fromhex(match[2]) if match else None


def pack(entry: Entry, checks: bytes, inline: bytes | memoryview = b"") -> bytes:
    """A row's blob."""
    head = to_bytes(entry)
    crc = crc32(checks, crc32(head))
    return b"".join((_LAYOUT.pack(_MAGIC, len(head), len(checks), crc), head, checks, inline))


def mark_of(start: bytes) -> bytes:
    """What tells the blob that begins with `start` from others; see `Scanned`."""
    return start[:MARK_BYTES]


def unpack(key: bytes, blob: bytes, filename: str | None) -> StoredRow:
    """The row that `blob` holds, its body verified where it is inline; raises `RowRefused`."""
    entry, checks, body_at = unpack_head(key, blob, len(blob), filename)
    inline = blob[body_at:] if filename is None else None
    if inline and not verify(0, inline, checks):
        raise RowRefused("a rotten body")
    return StoredRow(key, entry, checks, inline, filename)


def unpack_head(
    key: bytes, start: bytes, blob_bytes: int, filename: str | None
) -> tuple[Entry, bytes, int]:
    """Entry, checks and the body's offset of a blob of which `start` may be the beginning only.

    All but the body is verified, its length too; raises `RowRefused`, and where `start` does not
    reach to the body `TooShort`.
    """
    if len(start) < MARK_BYTES:
        raise RowRefused("too short")
    magic, head_bytes, checks_bytes, crc = _LAYOUT.unpack_from(start)
    checks_at = MARK_BYTES + head_bytes
    body_at = checks_at + checks_bytes
    if magic != _MAGIC or body_at > blob_bytes:
        raise RowRefused("not a row of this version")
    if body_at > len(start):
        raise TooShort(f"{len(start)} bytes of {body_at}")
    if crc32(memoryview(start)[MARK_BYTES:body_at]) != crc:
        raise RowRefused("checksum differs")
    try:
        entry = from_bytes(start[MARK_BYTES:checks_at])
    except ValueError as fault:
        raise RowRefused(str(fault)) from fault
    checks = start[checks_at:body_at]
    _check(key, entry, checks, blob_bytes - body_at, filename)
    return entry, checks, body_at


def _check(
    key: bytes, entry: Entry, checks: bytes, inline_bytes: int, filename: str | None
) -> None:
    if row_key(entry) != key:
        raise RowRefused("a head under another's key")
    if entry.length is None or blocks_in(entry.length) * CHECK_BYTES != len(checks):
        raise RowRefused("a length that its checks do not fit")
    if inline_bytes != (entry.length if filename is None else 0):
        raise RowRefused("a body of another length")
    if filename is not None and key_of_filename(filename) != key:
        raise RowRefused("a body under another's name")


def is_body_name(filename: object) -> bool:
    """Whether this is a name that `new_filename` makes."""
    return type(filename) is str and _BODY_NAME.fullmatch(filename) is not None
