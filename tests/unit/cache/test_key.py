"""The key is made of the bytes that are forwarded, and no two lists of parts look alike."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.cache.key import (
    DIGEST_BYTES,
    KeyPolicy,
    forwarded_target,
    key_of,
    key_parts,
)
from edge.errors import ProtocolError
from edge.wire.message import Headers, RequestHead


def get(*pairs: tuple[bytes, bytes], method: bytes = b"GET") -> RequestHead:
    return RequestHead(method, b"http", b"example.com", b"/", Headers(pairs))


def digest(policy: KeyPolicy, *pairs: tuple[bytes, bytes]) -> bytes:
    return key_of(b"http", b"example.com", b"/", get(*pairs), policy).digest


def cookie(value: bytes) -> tuple[bytes, bytes]:
    return b"cookie", value


parts = st.tuples(st.binary(max_size=8), st.binary(max_size=8), st.binary(max_size=8))


@given(parts, parts)
@example((b"http", b"a", b"/b"), (b"http", b"a/", b"b"))
@example((b"1:", b"", b""), (b"", b"1:", b""))
def test_two_requests_share_a_key_only_if_scheme_host_and_target_are_equal(
    one: tuple[bytes, bytes, bytes], other: tuple[bytes, bytes, bytes]
) -> None:
    same = key_of(*one, get()).digest == key_of(*other, get()).digest
    assert same == (one == other)


@given(
    st.lists(st.binary(max_size=6), max_size=3),
    st.lists(st.binary(max_size=6), max_size=3),
    st.lists(st.binary(max_size=6), max_size=3),
    st.lists(st.binary(max_size=6), max_size=3),
)
@example([b"a"], [], [], [b"a"])
@example([b""], [], [], [])
@example([b"a", b"b"], [], [b"a, b"], [])
@example([b"1:a"], [], [b"a"], [])
def test_fields_in_the_key_are_told_apart_by_name_number_and_value(
    foo: list[bytes], bar: list[bytes], other_foo: list[bytes], other_bar: list[bytes]
) -> None:
    policy = KeyPolicy(headers=(b"foo", b"bar"))

    def of(foos: list[bytes], bars: list[bytes]) -> bytes:
        return digest(policy, *((b"foo", v) for v in foos), *((b"bar", v) for v in bars))

    assert (of(foo, bar) == of(other_foo, other_bar)) == ((foo, bar) == (other_foo, other_bar))


def test_a_digest_is_sixteen_bytes_and_the_url_is_in_words() -> None:
    key = key_of(b"https", b"example.com:8443", b"/a?b", get())
    assert len(key.digest) == DIGEST_BYTES
    assert key.url == b"https://example.com:8443/a?b"


def test_digests_stay_what_disks_hold_already() -> None:
    key = key_of(b"http", b"example.com", b"/", get())
    assert key.digest.hex() == "94eae492cca64e494107ae599dbd93a1"


def test_the_method_and_unnamed_fields_are_no_part_of_the_key() -> None:
    plain = key_of(b"http", b"example.com", b"/", get())
    assert plain == key_of(b"http", b"example.com", b"/", get((b"x", b"1"), method=b"HEAD"))


def test_a_site_with_one_host_can_leave_it_out() -> None:
    policy = KeyPolicy(host=False)
    one = key_of(b"http", b"a.example", b"/", get(), policy)
    assert one == key_of(b"http", b"b.example", b"/", get(), policy)
    assert one != key_of(b"http", b"*", b"/x", get(), policy)
    assert one.url == b"http://*/"


def test_the_parts_are_told_in_order_and_by_name() -> None:
    policy = KeyPolicy(headers=(b"foo",), cookies=(b"lang",))
    request = get((b"foo", b"1"), cookie(b"lang=de; b=2"))
    assert key_parts(b"http", b"example.com", b"/a", request, policy) == (
        ("scheme", b"http"),
        ("host", b"example.com"),
        ("target", b"/a"),
        ("header foo", b"1:1"),
        ("cookie lang", b"2:de"),
    )
    assert key_parts(b"http", b"a", b"/", get(), KeyPolicy(host=False))[1] == ("host", b"*")


def test_a_cookie_in_the_key_keeps_requests_apart_and_others_do_not() -> None:
    policy = KeyPolicy(cookies=(b"lang",))
    german = digest(policy, cookie(b"lang=de; s=1"))
    assert german == digest(policy, cookie(b"s=2; lang=de"))
    assert german != digest(policy, cookie(b"lang=en; s=1"))
    assert german != digest(policy, cookie(b"LANG=de"))
    assert german != digest(policy)


def test_a_cookie_sent_twice_is_not_a_cookie_sent_once() -> None:
    policy = KeyPolicy(cookies=(b"lang",))
    seen = {
        digest(policy, cookie(b"lang=de")),
        digest(policy, cookie(b"lang=de; lang=en")),
        digest(policy, cookie(b"lang=en; lang=de")),
        digest(policy, cookie(b"lang=")),
        digest(policy, cookie(b"s=1")),
    }
    assert len(seen) == 5


def test_cookies_that_break_the_grammar_are_keyed_whole() -> None:
    policy = KeyPolicy(cookies=(b"lang",))
    lines = [b'x="; lang=de; "', b'y="; lang=de; "', b"lang=de, lang=en", b"lang"]
    seen = {digest(policy, cookie(line)) for line in lines}
    assert len(seen) == len(lines)
    assert digest(policy, cookie(b"lang=de")) not in seen


@pytest.mark.parametrize(
    ("policy", "target", "forwarded"),
    [
        (KeyPolicy(), b"/a/../b/%7euser?q=%7e", b"/b/~user?q=%7e"),
        (KeyPolicy(), b"/a?", b"/a?"),
        (KeyPolicy(), b"/a??b", b"/a??b"),
        (KeyPolicy(query_drop=(b"utm_*",)), b"/a?utm_x=1&b=2&utm_y", b"/a?b=2"),
        (KeyPolicy(query_drop=(b"utm_*",)), b"/a?utm_x=1", b"/a"),
        (KeyPolicy(query_keep=(b"b",)), b"/a?c=1&b=2", b"/a?b=2"),
        (KeyPolicy(query_keep=()), b"/a?c=1&b=2", b"/a"),
        (KeyPolicy(query_sort=True), b"/a?c=1&b=2", b"/a?b=2&c=1"),
    ],
)
def test_the_forwarded_target_follows_the_sites_rules(
    policy: KeyPolicy, target: bytes, forwarded: bytes
) -> None:
    assert forwarded_target(target, policy) == forwarded


policies = st.builds(
    KeyPolicy,
    query_keep=st.none() | st.just((b"a*", b"b")),
    query_drop=st.sampled_from([(), (b"ab",)]),
    query_sort=st.booleans(),
)


@given(st.text("/.%2eEab=&?;c", max_size=20), policies)
def test_forwarding_twice_is_forwarding_once(rest: str, policy: KeyPolicy) -> None:
    try:
        once = forwarded_target(b"/" + rest.encode(), policy)
    except ProtocolError:
        return
    assert forwarded_target(once, policy) == once
