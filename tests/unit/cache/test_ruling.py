"""What a site says where it says nothing."""

from __future__ import annotations

from edge.cache.ruling import CachePolicy


def test_the_defaults_are_those_of_the_documents() -> None:
    policy = CachePolicy()
    assert policy.freshness.max_stale_s == 3600
    assert policy.set_cookie == "safe"
    assert not policy.honour_request_directives
    assert not policy.must_revalidate_allows_authorization
