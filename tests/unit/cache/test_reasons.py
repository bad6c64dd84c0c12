"""Reasons and their RFC 9211 form."""

from __future__ import annotations

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.reasons import Reason, cache_status

FWD = {b"bypass", b"method", b"uri-miss", b"vary-miss", b"miss", b"request", b"stale", b"partial"}


def test_a_hit() -> None:
    assert cache_status(b"fra1", Reason.HIT, ttl=376.9) == b"fra1; hit; ttl=376"


def test_a_stale_hit_has_a_negative_ttl() -> None:
    line = cache_status(b"fra1", Reason.STALE_WHILE_REVALIDATE, ttl=-1.5)
    assert line == b"fra1; hit; ttl=-2; detail=stale-while-revalidate"


def test_a_stored_miss() -> None:
    line = cache_status(
        b"fra1", Reason.URI_MISS, fwd_status=200, stored=True, ttl=60, because=Reason.STORED
    )
    assert line == b"fra1; fwd=uri-miss; fwd-status=200; stored; ttl=60"


def test_a_collapsed_miss_that_was_not_stored() -> None:
    line = cache_status(
        b"fra1", Reason.URI_MISS, fwd_status=200, collapsed=True, because=Reason.PRIVATE
    )
    assert line == b"fra1; fwd=uri-miss; fwd-status=200; collapsed; detail=private"


def test_a_request_that_did_not_go_forward_has_no_forward_status() -> None:
    line = cache_status(b"fra1", Reason.ONLY_IF_CACHED, fwd_status=504, collapsed=True)
    assert line == b"fra1; detail=only-if-cached"


def test_names_and_keys_are_escaped() -> None:
    line = cache_status(b'a "b"', Reason.HIT, key=b'http://x/\\"\xff')
    assert line == b'"a \\"b\\""; hit; key="http://x/\\\\\\"%ff"'


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_a_hit_or_says_where_it_went_or_why_not(reason: Reason) -> None:
    assert reason.fwd is None or reason.fwd in FWD
    assert not (reason.is_hit and reason.fwd)
    assert reason.is_hit or reason.fwd or reason.detail


def test_slugs_are_distinct() -> None:
    assert len({reason.slug for reason in Reason}) == len(Reason)


@given(
    st.binary(max_size=20),
    st.sampled_from(list(Reason)),
    st.none() | st.floats(-1e9, 1e9),
    st.booleans(),
    st.none() | st.binary(max_size=40),
    st.none() | st.sampled_from(list(Reason)),
)
def test_a_member_is_always_a_structured_field(
    name: bytes,
    reason: Reason,
    ttl: float | None,
    flag: bool,
    key: bytes | None,
    because: Reason | None,
) -> None:
    line = cache_status(
        name,
        reason,
        ttl=ttl,
        stored=flag,
        collapsed=flag,
        fwd_status=200,
        key=key,
        because=because,
    )
    parsed = http_sf.parse(line, tltype="list")
    assert isinstance(parsed, list)
    assert len(parsed) == 1
