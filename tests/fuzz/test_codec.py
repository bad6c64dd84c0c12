"""Any bytes are an entry or `EntryCorrupt`, however well they are sealed."""

from __future__ import annotations

import zlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.codec import MAGIC, EntryCorrupt, from_bytes, to_bytes
from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.wire.message import Headers

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats()
leaves = st.none() | st.booleans() | numbers | st.binary(max_size=8) | st.text(max_size=8)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)
ENTRY = Entry(
    key=Key(b"0123456789abcdef", b"http://example.com/"),
    status=200,
    headers=Headers(((b"etag", b'"a"'),)),
    times=Times(1.0, 2.0),
    date=1.0,
    age_field=0,
    terms=Terms(60.0, Source.MAX_AGE),
    variant=((b"foo", None),),
    length=5,
    fetched_at=Seq(0),
    keep_until=100.0,
)
FIELDS = msgspec.msgpack.decode(to_bytes(ENTRY)[len(MAGIC) + 4 :])


def check(data: bytes) -> None:
    try:
        entry = from_bytes(data)
    except EntryCorrupt:
        return
    assert from_bytes(to_bytes(entry)) == entry


@given(st.binary(max_size=200))
def test_any_bytes_are_an_entry_or_corrupt(data: bytes) -> None:
    check(data)
    check(MAGIC + data)


@given(st.binary(max_size=200))
def test_any_sealed_bytes_are_an_entry_or_corrupt(payload: bytes) -> None:
    check(MAGIC + zlib.crc32(payload).to_bytes(4, "big") + payload)


@given(st.sampled_from(sorted(FIELDS)), values)
def test_an_entry_with_any_one_value_is_an_entry_or_corrupt(name: str, value: object) -> None:
    payload = msgspec.msgpack.encode({**FIELDS, name: value})
    check(MAGIC + zlib.crc32(payload).to_bytes(4, "big") + payload)
