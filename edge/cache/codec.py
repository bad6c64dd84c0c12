"""An entry's byte form, as rows of the disk tier hold it.

`EDGE` · version (1 byte) · CRC-32 of what follows (4 bytes, big-endian) · MessagePack of the
entry. The checksum finds torn writes and flipped bits before anything is decoded; it is no
defence against someone who can write to the store's directory, so what is decoded is also checked
against the types of `Entry`, and nothing in the form can name code or a path (unlike a pickle).
Another version is not migrated: it reads as corrupt, and a cache may always forget.
"""

from __future__ import annotations

import zlib
from math import isfinite, isnan
from typing import Any, Final

import msgspec

from edge.cache.entry import Entry
from edge.cache.scope import DIGEST_BYTES
from edge.wire.message import Headers, Pair

MAGIC: Final = b"EDGE\x02"  # the last byte is the version
LARGEST_BYTES: Final = (
    1024 * 1024
)  # an origin's head is at most 64 KiB; tags and variant add a little

_PREFIX_BYTES: Final = len(MAGIC) + 4


class EntryCorrupt(ValueError):  # noqa: N818 - it says what the entry is
    """Bytes that are not an entry this version wrote."""


def to_bytes(entry: Entry) -> bytes:
    """The byte form of `entry`."""
    payload = _ENCODER.encode(entry)
    return MAGIC + zlib.crc32(payload).to_bytes(4, "big") + payload


def from_bytes(data: bytes) -> Entry:
    """The entry that `data` is the byte form of; raises `EntryCorrupt` for anything else."""
    if len(data) > LARGEST_BYTES:
        raise EntryCorrupt(f"{len(data)} bytes is more than an entry can have")
    if not data.startswith(MAGIC):
        raise EntryCorrupt("not an entry, or one of another version")
    payload = data[_PREFIX_BYTES:]
    if zlib.crc32(payload) != int.from_bytes(data[len(MAGIC) : _PREFIX_BYTES], "big"):
        raise EntryCorrupt("checksum differs")
    try:
        entry: Entry = _DECODER.decode(payload)
    except (msgspec.MsgspecError, RecursionError) as fault:
        raise EntryCorrupt(str(fault)) from fault
    _check(entry)
    return entry


def _check(entry: Entry) -> None:
    """Refuse values that the types allow and no entry has: NaN would compare false with all."""
    terms = entry.terms
    moments = (entry.times.request_time, entry.times.response_time, entry.date)
    spans = (terms.lifetime_s, terms.while_revalidate_s, terms.if_error_s, entry.keep_until)
    if not all(map(isfinite, moments)) or any(map(isnan, spans)):
        raise EntryCorrupt("a time that is no number")
    if not 200 <= entry.status <= 999:
        raise EntryCorrupt("a status that cannot be stored")
    if entry.age_field < 0 or entry.fetched_at < 0 or (entry.length or 0) < 0:
        raise EntryCorrupt("a negative count")
    if len(entry.scopes) % DIGEST_BYTES:
        raise EntryCorrupt("a part of a scope")


def _encode_special(value: Any) -> tuple[Pair, ...]:
    if isinstance(value, Headers):
        return value.pairs
    raise NotImplementedError(type(value).__name__)  # msgspec's word for "no form": see enc_hook


def _decode_special(_: type, value: Any) -> Headers:
    return Headers(msgspec.convert(value, tuple[Pair, ...], builtin_types=(bytes,)))


_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_encode_special)
_DECODER: Final = msgspec.msgpack.Decoder(Entry, dec_hook=_decode_special)
