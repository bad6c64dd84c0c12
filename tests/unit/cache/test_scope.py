"""A purge covers an entry if and only if it should: names, and the laws that hold for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache import scope
from edge.cache.scope import DEPTH, ScopeRefused

SEGMENTS = st.text("ab.%-", max_size=3).map(str.encode)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=DEPTH + 3).map(lambda s: b"/" + b"/".join(s))
SHALLOW = st.lists(SEGMENTS, min_size=1, max_size=DEPTH).map(lambda s: b"/" + b"/".join(s))
QUERIES = st.sampled_from([b"", b"?", b"?a=/b/c", b"?a?b"])
HOSTS = st.sampled_from([b"a.example", b"b.a.example", b"1.2.3.4", b"[::1]", b"*", b"x"])
PORTS = st.sampled_from([b"", b":81", b":8080"])
TAGS = st.lists(st.binary(min_size=1, max_size=6), max_size=4, unique=True)


def names(
    url: bytes, tags: list[bytes] | None = None, groups: list[bytes] | None = None
) -> set[bytes]:
    return set(scope.names_of(url, tags or [], groups or []))


def misspelt(host: bytes) -> bytes:
    """The same host as another client may write it."""
    if host.startswith(b"["):
        return b"[0:0::0001]"
    return host.upper() + b"."


# --- laws


@given(HOSTS, PORTS, PATHS, QUERIES, TAGS, TAGS)
def test_an_entry_is_covered_by_each_of_its_own_names(
    host: bytes, port: bytes, path: bytes, query: bytes, tags: list[bytes], groups: list[bytes]
) -> None:
    authority = host + port
    found = names(b"https://" + authority + path + query, tags, groups)
    assert scope.url_name(authority, path + query) in found
    assert {scope.host_name(host), scope.host_name(authority)} <= found
    assert {scope.tag_name(tag) for tag in tags} <= found
    assert {scope.tag_name(tag, authority) for tag in tags} <= found
    assert {scope.group_name(b"https", authority, group) for group in groups} <= found


@given(HOSTS, PATHS, QUERIES, PATHS | SHALLOW)
def test_a_prefix_covers_its_own_path_and_those_below_segment_by_segment(
    host: bytes, path: bytes, query: bytes, prefix: bytes
) -> None:
    found = names(b"http://" + host + path + query)
    levels = (prefix if prefix.endswith(b"/") else prefix + b"/").split(b"/")[1:-1]
    steps = path.split(b"/")[1:]
    is_within = len(steps) > len(levels) or steps[-1] != b""
    try:
        name = scope.prefix_name(host, prefix)
    except ScopeRefused:
        assert len(levels) > DEPTH
    else:
        assert (name in found) == (steps[: len(levels)] == levels and is_within)


@given(SHALLOW, QUERIES)
def test_every_directory_around_an_entry_covers_it(path: bytes, query: bytes) -> None:
    found = names(b"http://a.example" + path + query)
    for at in (at for at, octet in enumerate(path) if octet == ord("/")):
        assert scope.prefix_name(b"a.example", path[: at + 1]) in found
    assert scope.prefix_name(b"a.example", path) in found


@given(HOSTS, PORTS, PATHS, TAGS)
def test_how_a_host_is_spelt_makes_no_difference(
    host: bytes, port: bytes, path: bytes, tags: list[bytes]
) -> None:
    plain, odd = host + port, misspelt(host) + port
    assert names(b"http://" + odd + path, tags, tags) == names(
        b"http://" + plain + path, tags, tags
    )
    assert scope.url_name(odd, path) == scope.url_name(plain, path)
    assert scope.host_name(odd) == scope.host_name(plain)
    assert scope.prefix_name(odd, b"/a") == scope.prefix_name(plain, b"/a")
    assert scope.tag_name(b"t", odd) == scope.tag_name(b"t", plain)
    assert scope.group_name(b"http", odd, b"g") == scope.group_name(b"http", plain, b"g")


@given(HOSTS, PORTS, PATHS, TAGS)
def test_the_scheme_makes_no_difference_but_to_groups(
    host: bytes, port: bytes, path: bytes, tags: list[bytes]
) -> None:
    rest = host + port + path
    assert names(b"http://" + rest, tags) == names(b"https://" + rest, tags)
    shared = names(b"http://" + rest, [], tags) & names(b"https://" + rest, [], tags)
    assert not any(name.startswith(b"g") for name in shared)


@given(HOSTS, PORTS, PORTS, PATHS)
def test_a_port_tells_urls_and_prefixes_apart_and_a_bare_host_has_them_all(
    host: bytes, port: bytes, other: bytes, path: bytes
) -> None:
    found = names(b"http://" + host + port + path)
    assert scope.host_name(host) in found
    is_same = port == other
    assert (scope.url_name(host + other, path) in found) == is_same
    assert (scope.prefix_name(host + other, b"/") in found) == is_same
    assert (scope.host_name(host + other) in found) == (is_same or not other)


@given(HOSTS, HOSTS, TAGS, TAGS)
def test_a_tag_of_one_host_is_no_other_hosts(
    host: bytes, other: bytes, tags: list[bytes], asked: list[bytes]
) -> None:
    found = names(b"http://" + host + b"/", tags)
    for tag in asked:
        assert (scope.tag_name(tag) in found) == (tag in tags)
        assert (scope.tag_name(tag, other) in found) == (tag in tags and host == other)


@given(HOSTS, PORTS, st.binary(max_size=8))
def test_names_of_different_kinds_never_coincide(host: bytes, port: bytes, rest: bytes) -> None:
    authority = host + port
    made = [
        scope.url_name(authority, b"/" + rest),
        scope.prefix_name(authority, b"/"),
        scope.host_name(authority),
        scope.tag_name(rest),
        scope.tag_name(rest, authority),
        scope.group_name(b"http", authority, rest),
    ]
    assert len(set(made)) == len(made)


@given(st.lists(st.binary(max_size=8), max_size=5))
def test_what_was_packed_is_the_digests_one_behind_the_other(made: list[bytes]) -> None:
    packed = scope.packed(made)
    assert packed == b"".join(scope.digest(name) for name in made)
    assert len(packed) == scope.DIGEST_BYTES * len(made)
    assert scope.digests(packed) == {scope.digest(name) for name in made}


@given(st.sampled_from(b"uphtTg"), st.binary(max_size=30))
def test_what_is_told_of_a_name_is_safe_to_print(kind: int, rest: bytes) -> None:
    told = scope.told(bytes([kind]) + rest)
    assert all(part.isprintable() for part in told)
    assert told[0] in {"url", "prefix", "host", "tag", "group"}


# --- examples


def test_an_entry_has_these_names_and_no_other() -> None:
    found = scope.names_of(b"https://Shop.Example.:8443/a/b?c=/d", [b"front"], [b"g1"])
    assert found == [
        b"ushop.example:8443/a/b?c=/d",
        b"hshop.example",
        b"hshop.example:8443",
        b"pshop.example:8443/",
        b"pshop.example:8443/a/",
        b"pshop.example:8443/a/b/",
        b"tfront",
        b"Tshop.example\0front",
        b"ghttps://shop.example:8443\0g1",
    ]


@pytest.mark.parametrize(
    ("path", "covered"),
    [
        (b"/blog", True),
        (b"/blog/", True),
        (b"/blog/x", True),
        (b"/blog?x", True),
        (b"/blogging", False),
        (b"/", False),
    ],
)
def test_a_prefix_ends_at_a_segment(path: bytes, covered: bool) -> None:
    found = names(b"http://a.example" + path)
    assert (scope.prefix_name(b"a.example", b"/blog") in found) == covered
    assert (scope.prefix_name(b"a.example", b"/blog/") in found) == covered


def test_the_names_of_an_entry_are_bounded_however_deep_it_lies() -> None:
    found = scope.names_of(b"http://a.example" + b"/a" * 4000, [], [])
    assert len(found) == 2 + DEPTH + 1


def test_a_prefix_as_deep_as_the_bound_is_taken() -> None:
    path = b"/a" * DEPTH
    assert scope.prefix_name(b"a", path) in names(b"http://a" + path + b"/b")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            b"/a" * (DEPTH + 1),
            "at most 16 levels, this one 17; name a shorter prefix, a tag or the",
        ),
        (b"a/b", 'a prefix is a path; begin it with "/"'),
        (b"", "a prefix is a path"),
    ],
)
def test_a_prefix_that_could_cover_nothing_is_refused_with_a_way_out(
    path: bytes, message: str
) -> None:
    with pytest.raises(ScopeRefused, match=message):
        scope.prefix_name(b"h", path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (scope.tag_name(b"front"), ("tag", "front")),
        (scope.tag_name(b"front", b"shop.example:80"), ("tag", "front on shop.example")),
        (scope.prefix_name(b"shop.example", b"/a"), ("prefix", "shop.example/a/")),
        (scope.url_name(b"shop.example", b"/a?b"), ("url", "shop.example/a?b")),
        (scope.host_name(b"shop.example:81"), ("host", "shop.example:81")),
        (scope.group_name(b"http", b"a", b"g 1"), ("group", "g 1 of http://a")),
        (scope.tag_name("größe".encode()), ("tag", "größe")),
        (scope.tag_name(b"\xff\x1b[2J\xe2\x80\xae"), ("tag", "\\xff\\x1b[2J\\u202e")),
    ],
)
def test_names_are_told_in_words(name: bytes, told: tuple[str, str]) -> None:
    assert scope.told(name) == told


def test_a_key_that_is_no_url_has_names_all_the_same() -> None:
    assert scope.names_of(b"", [], []) == [b"u", b"h", b"p/"]
    assert scope.names_of(b"http://[zz]/", [], [])[1] == b"h[zz]"
