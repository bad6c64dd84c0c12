"""What a site says where it says nothing."""

from __future__ import annotations

from edge.cache.entry import Key, Seq, Source, Terms, Times
from edge.cache.ruling import CachePolicy, Keep
from edge.cache.scope import group_name, names_of, packed, tag_name, url_name
from edge.wire.message import Headers


def test_the_defaults_are_those_of_the_documents() -> None:
    policy = CachePolicy()
    assert policy.freshness.max_stale_s == 3600
    assert policy.set_cookie == "safe"
    assert not policy.honour_request_directives
    assert not policy.must_revalidate_allows_authorization
    assert policy.tags == (b"surrogate-key", b"cache-tag", b"xkey")


def test_an_entry_has_the_scopes_of_its_key_its_tags_and_its_groups() -> None:
    key = Key(b"k" * 16, b"http://example.com/a?b")
    terms = Terms(60.0, Source.MAX_AGE)
    keep = Keep(terms, Headers(), 100.0, 1.0, 0, (), tags=(b"front",), groups=(b"news",))
    entry = keep.entry(key, 200, Times(1.0, 1.0), Seq(4), length=9)
    assert (entry.fetched_at, entry.length) == (4, 9)
    assert entry.scopes == keep.scopes(key)
    assert entry.scopes == packed(names_of(key.url, (b"front",), (b"news",)))
    for name in (
        url_name(b"example.com", b"/a?b"),
        tag_name(b"front"),
        group_name(b"http", b"example.com", b"news"),
    ):
        assert packed([name]) in entry.scopes


class Ending:
    """Media types that end so."""

    def __init__(self, end: bytes) -> None:
        self.end = end

    def takes(self, content_type: bytes) -> bool:
        return content_type.endswith(self.end)


def of_type(content_type: bytes) -> Headers:
    return Headers([(b"content-type", content_type)])


def test_the_first_policy_whose_types_fit_is_that_of_an_answer() -> None:
    png, any_image = CachePolicy(bypass=True), CachePolicy(store_post=True)
    policy = CachePolicy(by_type=((Ending(b"/png"), png), (Ending(b"g"), any_image)))
    assert policy.of_answer(of_type(b"image/png")) is png
    assert policy.of_answer(of_type(b"image/jpeg")) is any_image
    assert policy.of_answer(of_type(b"text/css")) is policy
    assert policy.of_answer(Headers()) is policy
    plain = CachePolicy()
    assert plain.of_answer(of_type(b"image/png")) is plain
