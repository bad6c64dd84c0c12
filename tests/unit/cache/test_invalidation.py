"""References and the targets of our own they name; decisions.toml has the cases of writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.invalidation import invalidates, same_origin_target
from edge.wire.message import Headers, RequestHead, ResponseHead

REQUEST = RequestHead(b"POST", b"http", b"example.com", b"/b/c/d;p?q")


@pytest.mark.parametrize(
    ("reference", "target"),
    [  # RFC 3986 §5.4, those that have an answer here
        (b"g", b"/b/c/g"),
        (b"./g", b"/b/c/g"),
        (b"g/", b"/b/c/g/"),
        (b"/g", b"/g"),
        (b"//example.com/g", b"/g"),
        (b"?y", b"/b/c/d;p?y"),
        (b"g?y", b"/b/c/g?y"),
        (b"#s", b"/b/c/d;p?q"),
        (b"", b"/b/c/d;p?q"),
        (b".", b"/b/c/"),
        (b"..", b"/b/"),
        (b"../g", b"/b/g"),
        (b"../../../g", b"/g"),
        (b"g;x=1/../y", b"/b/c/y"),
        (b"http://example.com", b"/"),
        (b"http://example.com?x", b"/?x"),
        (b"http://example.com:80/g", b"/g"),
        (b"g:h", None),
        (b"//g", None),
        (b"https://example.com/g", None),
        (b"http://user@example.com/g", None),
        (b"http:///g", None),
        (b"http://[::1/g", None),
        (b"/\xff", None),
        (b"/a b", None),
    ],
)
def test_references_resolve_as_rfc_3986_says(reference: bytes, target: bytes | None) -> None:
    assert same_origin_target(REQUEST, reference) == target


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_bytes_name_a_target_or_nothing(location: bytes, content_location: bytes) -> None:
    headers = Headers(((b"location", location), (b"content-location", content_location)))
    targets = invalidates(REQUEST, ResponseHead(201, headers))
    assert targets[0] == REQUEST.target
    assert len(targets) <= 3
    assert all(target.startswith(b"/") for target in targets)
