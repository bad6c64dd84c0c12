"""An entry comes back from its bytes as it went, and nothing else comes back at all."""

from __future__ import annotations

import zlib
from dataclasses import replace
from math import inf, nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.codec import LARGEST_BYTES, MAGIC, EntryCorrupt, from_bytes, to_bytes
from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.wire.message import Headers

ENTRY = Entry(
    key=Key(b"0123456789abcdef", b"http://example.com/a?b"),
    status=200,
    headers=Headers(((b"etag", b'"\xff"'), (b"set-cookie", b"a=1"), (b"set-cookie", b""))),
    times=Times(1000.25, 1000.5),
    date=1000.0,
    age_field=3,
    terms=Terms(60.0, Source.S_MAXAGE, 5.0, 7.5, always_validate=True),
    variant=((b"accept-encoding", b"br,gzip"), (b"foo", None)),
    length=None,
    fetched_at=Seq(7),
    keep_until=2000.0,
    vary_any=True,
    scopes=bytes(range(16)),
    reason=b"OK",
)

FIELDS = msgspec.msgpack.decode(to_bytes(ENTRY)[len(MAGIC) + 4 :])

octets = st.binary(max_size=20)
seconds = st.floats(min_value=0, max_value=2**33)
entries = st.builds(
    Entry,
    key=st.builds(Key, digest=octets, url=octets),
    status=st.integers(200, 999),
    headers=st.builds(Headers, st.lists(st.tuples(octets, octets), max_size=5)),
    times=st.builds(Times, seconds, seconds),
    date=seconds,
    age_field=st.integers(0, 2**31),
    terms=st.builds(Terms, seconds, st.sampled_from(Source), seconds, seconds, st.booleans()),
    variant=st.lists(st.tuples(octets, st.none() | octets), max_size=3).map(tuple),
    length=st.none() | st.integers(0, 2**62),
    fetched_at=st.integers(0, 2**62).map(Seq),
    keep_until=seconds,
    vary_any=st.booleans(),
    scopes=st.lists(st.binary(min_size=8, max_size=8), max_size=3).map(b"".join),
    reason=octets,
)


def sealed(payload: bytes) -> bytes:
    return MAGIC + zlib.crc32(payload).to_bytes(4, "big") + payload


@given(entries)
def test_an_entry_comes_back_as_it_went(entry: Entry) -> None:
    assert from_bytes(to_bytes(entry)) == entry


def test_headers_come_back_as_headers() -> None:
    found = from_bytes(to_bytes(ENTRY))
    assert found.headers.all(b"set-cookie") == [b"a=1", b""]
    assert isinstance(found.headers.pairs[0], tuple)


def test_the_form_is_the_one_that_stores_hold_already() -> None:
    assert to_bytes(ENTRY).startswith(b"EDGE\x02")
    assert len(to_bytes(ENTRY)) < 500


@given(st.integers(0, len(to_bytes(ENTRY)) - 1), st.integers(0, 7))
def test_one_flipped_bit_is_found(place: int, bit: int) -> None:
    data = bytearray(to_bytes(ENTRY))
    data[place] ^= 1 << bit
    with pytest.raises(EntryCorrupt):
        from_bytes(bytes(data))


@given(st.integers(0, len(to_bytes(ENTRY)) - 1))
def test_a_truncated_entry_is_found(size: int) -> None:
    with pytest.raises(EntryCorrupt):
        from_bytes(to_bytes(ENTRY)[:size])


def test_surplus_bytes_are_found() -> None:
    with pytest.raises(EntryCorrupt):
        from_bytes(to_bytes(ENTRY) + b"\x00")


def test_another_version_is_forgotten() -> None:
    with pytest.raises(EntryCorrupt, match="version"):
        from_bytes(b"EDGE\x01" + to_bytes(ENTRY)[5:])


def test_what_is_too_large_to_be_an_entry_is_not_looked_at() -> None:
    with pytest.raises(EntryCorrupt, match="more than"):
        from_bytes(bytes(LARGEST_BYTES + 1))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({}),
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode({"key": b"not a key"}),
        b"\x91" * 5000,
        msgspec.msgpack.encode({**FIELDS, "headers": [[b"name without a value"]]}),
        msgspec.msgpack.encode({**FIELDS, "headers": [["text", b"value"]]}),
    ],
    ids=["empty", "reserved", "no fields", "a list", "wrong type", "deep", "no pair", "no bytes"],
)
def test_well_sealed_nonsense_is_found(payload: bytes) -> None:
    with pytest.raises(EntryCorrupt):
        from_bytes(sealed(payload))


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, date=nan),
        replace(ENTRY, keep_until=nan),
        replace(ENTRY, times=Times(0.0, inf)),
        replace(ENTRY, terms=Terms(nan, Source.RULE)),
        replace(ENTRY, status=100),
        replace(ENTRY, age_field=-1),
        replace(ENTRY, length=-1),
        replace(ENTRY, fetched_at=Seq(-1)),
        replace(ENTRY, scopes=b"seven b"),
    ],
)
def test_values_that_no_entry_has_are_refused(entry: Entry) -> None:
    with pytest.raises(EntryCorrupt):
        from_bytes(to_bytes(entry))


def test_only_what_an_entry_is_made_of_is_written() -> None:
    with pytest.raises(NotImplementedError):
        to_bytes(replace(ENTRY, reason=object()))  # type: ignore[arg-type]
