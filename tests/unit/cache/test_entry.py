"""Entries are values: equal by what they say, and never changed."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.wire.message import Headers


def entry() -> Entry:
    return Entry(
        key=Key(b"0123456789abcdef", b"http://example.com/"),
        status=200,
        headers=Headers(((b"etag", b'"a"'),)),
        times=Times(1.0, 2.0),
        date=1.0,
        age_field=0,
        terms=Terms(60.0, Source.MAX_AGE),
        variant=(),
        length=5,
        fetched_at=Seq(0),
        keep_until=100.0,
    )


def test_entries_that_say_the_same_are_equal_and_hash_alike() -> None:
    assert entry() == entry()
    assert hash(entry()) == hash(entry())
    assert entry() != replace(entry(), status=404)


def test_an_entry_is_never_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        entry().status = 404  # type: ignore[misc]


def test_terms_grant_nothing_stale_unless_told() -> None:
    terms = Terms(60.0, Source.MAX_AGE)
    assert (terms.while_revalidate_s, terms.if_error_s, terms.always_validate) == (0, 0, False)


def test_an_entry_is_selected_by_anyone_and_in_no_scope_unless_told() -> None:
    assert not entry().vary_any
    assert entry().scopes == b""
