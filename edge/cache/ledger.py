"""The byte form of the purge journal: a header, an opening, then one record for each purge.

The *header* has a fixed size: magic, version and byte order, the birth id of the store that the
numbers belong to, the number that the opening reaches to, and a CRC-32. A *record* is the length
of its payload (4 bytes), the payload's CRC-32 (4 bytes), both big-endian, and the payload, which
is MessagePack. The first record is the opening: the tables as they were when the file was begun,
and the recent purges; it stands for all that came before. Each later one is a purge.

*The end* is where nothing but zeros follow, and there are at least `END_BYTES` of them: they are
written together with each record, and the next one takes their place. So a file that was cut, even
between two records, does not look whole. Neither does one with anything behind its end, or with a
number that does not rise. What is damaged is never skipped: nobody can tell which purges it held.

*An unfinished record* is one whose process was killed while it wrote. Its first eight bytes say
`UNFINISHED` until all the others are in the file, so no purge behind them was ever in force, and
the file ends there as if nothing followed.

Another version or byte order is not migrated: it reads as the journal of another store, and a
cache may always forget.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections import deque
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edge.cache.entry import Seq
from edge.cache.purge import Manner, Purge, Tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edge.cache.purge import Purges

MAGIC: Final = b"EDGEPURGES\x02" + sys.byteorder[:1].encode()
END_BYTES: Final = 8
UNFINISHED: Final = b"\xffpending"  # no length: one begins with at most 0x08
RECENT: Final = 1000  # purges that people are told of
LARGEST_BYTES: Final = 128 << 20  # a payload; full tables take 28 MiB, a transaction under 1

_HEADER: Final = struct.Struct(">12s32sQI")
_FRAME: Final = struct.Struct(">II")
HEADER_BYTES: Final = _HEADER.size


class LedgerDamaged(ValueError):  # noqa: N818 - it says what the bytes are
    """Bytes that are not what this version wrote, or not all of it."""


@dataclass(frozen=True, slots=True)
class Header:
    """Whose numbers these are, and the number that the opening reaches to."""

    birth: str
    reach: int


@dataclass(frozen=True, slots=True)
class Opening:
    """What a file begins with. `recent` are without their digests, oldest first."""

    tables: Tables
    recent: tuple[Purge, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """One record: its payload, checked, and where the next one begins."""

    payload: memoryview
    end: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What was found in a file: the recent purges without their digests, oldest first; where the
    opening ends, and the last record that is finished; what is damaged, if anything is; whether an
    unfinished record follows."""

    header: Header
    recent: tuple[Purge, ...]
    opened: int
    end: int
    damage: str | None
    is_unfinished: bool = False


# --- writing


def header_bytes(header: Header) -> bytes:
    """The byte form of a header; its birth id has 32 characters of ASCII at the most."""
    fields = MAGIC, header.birth.encode("ascii"), header.reach
    unchecked = _HEADER.pack(*fields, 0)
    return _HEADER.pack(*fields, zlib.crc32(unchecked))


def opening_bytes(opening: Opening) -> bytes:
    """The record of an opening."""
    recent = [_fields_of(purge) for purge in opening.recent]
    return _framed(_ENCODER.encode((opening.tables, recent)))


def purge_bytes(purge: Purge) -> bytes:
    """The record of a purge."""
    return _framed(_ENCODER.encode(_fields_of(purge)))


def _framed(payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _fields_of(purge: Purge) -> tuple[Any, ...]:
    return (
        purge.number, purge.when, purge.who, purge.manner, purge.everything,
        purge.digests, purge.count, purge.words, purge.area,
    )  # fmt: skip


# --- reading


def replay(data: bytes, purges: Purges) -> Replay:
    """Record in `purges`, which are empty, what a whole file holds.

    Raises `LedgerDamaged` where not even the header can be read. Damage further on is told, and
    the floor is raised to the last number that is known: there were purges above it.
    """
    header = read_header(data)
    recent: deque[Purge] = deque(maxlen=RECENT)
    records = frames(memoryview(data), HEADER_BYTES)
    opened = end = HEADER_BYTES
    try:
        opened = end = _replay_opening(records, purges, recent)
        for frame in records:
            purge = read_purge(frame.payload)
            purges.record(purge)
            recent.append(purge)
            end = frame.end
    except ValueError as fault:  # `LedgerDamaged`, or a number that does not rise
        purges.raise_floor(Seq(max(purges.latest, header.reach)))
        return Replay(header, without_digests(recent), opened, end, str(fault))
    return Replay(header, without_digests(recent), opened, end, None, _is_unfinished(data, end))


def _replay_opening(records: Iterator[Frame], purges: Purges, recent: deque[Purge]) -> int:
    """Where the opening ends."""
    frame = next(records, None)
    if frame is None:
        raise LedgerDamaged("no opening")
    opening = read_opening(frame.payload)
    purges.adopt(opening.tables)
    recent.extend(opening.recent)
    return frame.end


def without_digests(purges: Iterable[Purge]) -> tuple[Purge, ...]:
    """What people want to know of `purges`; the digests may be a megabyte each."""
    return tuple(replace(purge, digests=b"") if purge.digests else purge for purge in purges)


def read_header(data: bytes) -> Header:
    """The header that `data` begins with; raises `LedgerDamaged`."""
    if len(data) < HEADER_BYTES:
        raise LedgerDamaged("too short for a journal of purges")
    magic, birth, reach, checksum = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise LedgerDamaged("not a journal of purges, or one of another version")
    if checksum != zlib.crc32(_HEADER.pack(magic, birth, reach, 0)):
        raise LedgerDamaged("the header's checksum differs")
    return Header(birth.rstrip(b"\0").decode("ascii", "replace"), reach)


def wanted(data: bytes | memoryview, at: int = 0) -> int:
    """How many bytes the record at `at` takes; 0 where none begins, or an unfinished one."""
    if len(data) - at < _FRAME.size or _is_unfinished(data, at):
        return 0
    length, _ = _FRAME.unpack_from(data, at)
    return _FRAME.size + length if length else 0


def _is_unfinished(data: bytes | memoryview, at: int) -> bool:
    return data[at : at + len(UNFINISHED)] == UNFINISHED


def frame_at(data: memoryview, at: int) -> Frame | None:
    """The record at `at`, if one begins there and `data` has all of it; raises `LedgerDamaged`."""
    size = wanted(data, at)
    if size > LARGEST_BYTES:
        raise LedgerDamaged(f"a record of {size} bytes at byte {at}")
    if not size or at + size > len(data):
        return None
    payload = data[at + _FRAME.size : at + size]
    if zlib.crc32(payload) != _FRAME.unpack_from(data, at)[1]:
        raise LedgerDamaged(f"the checksum of the record at byte {at} differs")
    return Frame(payload, at + size)


def frames(data: memoryview, at: int) -> Iterator[Frame]:
    """The records of a whole file from `at` on; raises `LedgerDamaged`, also where it ends."""
    while (frame := frame_at(data, at)) is not None:
        yield frame
        at = frame.end
    if _is_unfinished(data, at):
        return
    if len(data) - at < END_BYTES or bytes(data[at:]).strip(b"\0"):
        raise LedgerDamaged(f"neither a record nor the end at byte {at}")


def read_opening(payload: memoryview) -> Opening:
    """The opening in a record; raises `LedgerDamaged`."""
    try:
        tables, recent = _OPENINGS.decode(payload)
        return Opening(_checked(tables), tuple(Purge(*fields) for fields in recent))
    except (msgspec.MsgspecError, ValueError) as fault:
        raise LedgerDamaged(f"an opening that is none: {fault}") from fault


def read_purge(payload: memoryview) -> Purge:
    """The purge in a record; raises `LedgerDamaged`."""
    try:
        return Purge(*_PURGES.decode(payload))
    except (msgspec.MsgspecError, ValueError) as fault:
        raise LedgerDamaged(f"a purge that is none: {fault}") from fault


def _checked(tables: Tables) -> Tables:
    areas = ((area.hard, area.soft, area.before) for area in tables.areas)
    pairs = chain(
        (tables.hard, tables.soft, tables.soft_before, tables.soft_times, tables.area_floors),
        *areas,
    )
    for one, other in pairs:
        if len(one) != len(other) or len(one) % 8:
            raise ValueError("columns that do not match")
    return tables


_Fields = tuple[Seq, float, str, Manner, bool, bytes, int, tuple[str, ...], bytes]

_ENCODER: Final = msgspec.msgpack.Encoder()
_PURGES: Final = msgspec.msgpack.Decoder(_Fields)
_OPENINGS: Final = msgspec.msgpack.Decoder(tuple[Tables, tuple[_Fields, ...]])
