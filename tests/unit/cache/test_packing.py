"""Packing: what was packed is unpacked, and nothing that differs by a bit or a byte is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.cache.codec import to_bytes
from edge.cache.integrity import checks_of
from edge.cache.packing import (
    MARK_BYTES,
    Packed,
    RowRefused,
    TooShort,
    file_charge,
    is_body_name,
    key_of_filename,
    mark_of,
    pack,
    row_charge,
    row_key,
    unpack,
    unpack_head,
)

if TYPE_CHECKING:
    from tests.unit.cache.conftest import MakeEntry


def filename_of(key: bytes) -> str:
    name = key.hex()
    return f"bodies/{name[:2]}/{name}-{'0' * 16}"


def test_variant_values_are_not_joined_by_a_separator(make_entry: MakeEntry) -> None:
    one = make_entry(variant=((b"a", b"b1:c"), (b"d", b"")))
    two = make_entry(variant=((b"a", b"b"), (b"1:c", b"d")))
    absent = make_entry(variant=((b"a", None),))
    empty = make_entry(variant=((b"a", b""),))
    assert len({row_key(entry) for entry in (one, two, absent, empty)}) == 4


@given(st.integers(0, 1 << 40))
def test_charges_are_never_below_what_is_stored(size: int) -> None:
    assert row_charge(size) >= size
    assert file_charge(size) >= size


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200), data=st.data())
def test_any_changed_byte_of_a_blob_is_refused(
    make_entry: MakeEntry, body: bytes, data: st.DataObject
) -> None:
    entry = make_entry(length=len(body))
    blob = bytearray(pack(entry, checks_of(body), body))
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RowRefused):
        unpack(row_key(entry), bytes(blob), None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200), data=st.data())
def test_any_cut_of_a_blob_is_refused(
    make_entry: MakeEntry, body: bytes, data: st.DataObject
) -> None:
    entry = make_entry(length=len(body))
    blob = pack(entry, checks_of(body), body)
    cut = data.draw(st.integers(0, len(blob) - 1))
    with pytest.raises(RowRefused):
        unpack(row_key(entry), blob[:cut], None)


@given(st.binary(min_size=32, max_size=32))
def test_a_filename_holds_its_key(key: bytes) -> None:
    assert key_of_filename(filename_of(key)) == key


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200), data=st.data())
def test_a_head_is_read_from_any_start_that_reaches_to_the_body(
    make_entry: MakeEntry, body: bytes, data: st.DataObject
) -> None:
    entry = make_entry(length=len(body))
    checks = checks_of(body)
    blob = pack(entry, checks, body)
    start = blob[: data.draw(st.integers(0, len(blob)))]
    body_at = len(blob) - len(body)
    if len(start) >= body_at:
        found = unpack_head(row_key(entry), start, len(blob), None)
        assert found == (entry, checks, body_at)
    else:
        with pytest.raises(TooShort if len(start) >= MARK_BYTES else RowRefused):
            unpack_head(row_key(entry), start, len(blob), None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_a_start_is_refused(
    make_entry: MakeEntry, data: st.DataObject
) -> None:
    entry, body = make_entry(), b"hello"
    blob = pack(entry, checks_of(body), body)
    start = bytearray(blob[: -len(body)])
    at = data.draw(st.integers(0, len(start) - 1))
    start[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((RowRefused, TooShort)):
        unpack_head(row_key(entry), bytes(start), len(blob), None)


def test_a_row_without_a_body_of_its_own_names_its_file(make_entry: MakeEntry) -> None:
    entry = make_entry(length=3)
    key, other = row_key(entry), row_key(make_entry(b"other"))
    blob = pack(entry, checks_of(b"abc"))
    assert unpack(key, blob, filename_of(key)).filename == filename_of(key)
    assert unpack(key, blob, filename_of(key)).length == 3
    for filename in (None, filename_of(other)):
        with pytest.raises(RowRefused):
            unpack(key, blob, filename)


def test_an_entry_whose_checks_do_not_fit_is_refused(make_entry: MakeEntry) -> None:
    for entry in (make_entry(length=None), make_entry(length=1 << 20)):
        with pytest.raises(RowRefused):
            unpack(row_key(entry), pack(entry, checks_of(b"hello"), b"hello"), None)


def test_a_head_that_is_no_entry_is_refused(make_entry: MakeEntry) -> None:
    entry = make_entry()
    blob = pack(entry, checks_of(b"hello"), b"hello")
    size = len(to_bytes(entry))
    foreign = pack(replace(entry, status=7), checks_of(b"hello"), b"hello")
    assert len(foreign) <= len(blob) + size
    with pytest.raises(RowRefused):
        unpack(row_key(entry), foreign, None)


def test_a_row_under_anothers_key_is_refused(make_entry: MakeEntry) -> None:
    blob = pack(make_entry(), checks_of(b"hello"), b"hello")
    with pytest.raises(RowRefused):
        unpack(row_key(make_entry(b"other")), blob, None)


def test_a_mark_tells_one_head_from_another(make_entry: MakeEntry) -> None:
    one, two = (pack(make_entry(etag=etag), b"", b"") for etag in (b'"1"', b'"2"'))
    assert mark_of(one) != mark_of(two)
    assert mark_of(one) == mark_of(one[:MARK_BYTES])


def test_a_charge_counts_the_file_too() -> None:
    assert Packed(bytes(100), None, None, 5000).charge == row_charge(100) + 8192


def test_only_names_that_hold_a_key_are_names_of_bodies() -> None:
    assert is_body_name(filename_of(bytes(32)))
    for name in ("/etc/hostname", filename_of(bytes(32)) + "\n", b"bodies", None):
        assert not is_body_name(name)
    assert key_of_filename("/etc/hostname") is None
