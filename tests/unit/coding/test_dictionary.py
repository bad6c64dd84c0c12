"""Dictionaries are for the URLs that they say, within their origin, and are bounded."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.coding.dictionary import (
    LEAST_BYTES,
    MOST_ID,
    Dictionaries,
    Dictionary,
    Offer,
    Realm,
    available,
    offer,
    url_match,
)
from edge.wire.message import Headers
from tests.unit.coding.texts import available_field

REALM = Realm("www", b"https://example.com")
OTHERS = [
    Realm("other", REALM.origin),
    Realm("www", b"http://example.com"),
    Realm("www", b"https://www.example.com"),
    Realm("www", b"https://example.com:8443"),
]


def offer_of(pattern: bytes = b"/*", dest: frozenset[bytes] = frozenset()) -> Offer:
    match = url_match(pattern, b"/")
    assert match is not None
    return Offer(match, match_dest=dest)


def added(held: Dictionaries, realm: Realm, content: bytes, told: Offer) -> Dictionary | None:
    """What was made of a body, where it was taken."""
    if len(content) < LEAST_BYTES:  # zstd makes none of that
        return None
    made = Dictionary(content, told)
    return made if held.add(realm, made) else None


def said(value: bytes, target: bytes = b"/app/main.js") -> Offer | None:
    return offer(Headers([(b"use-as-dictionary", value)]), target)


# --- what an origin offers


@pytest.mark.parametrize(
    ("pattern", "target", "takes"),
    [
        (b"/app/*/main.js", b"/app/2/main.js", True),  # RFC 9842 §2.1.5
        (b"/app/*/main.js", b"/app/2/main.js?v=3", True),
        (b"/app/*/main.js", b"/app/2/other.js", False),
        (b"/product/*", b"/product/", True),
        (b"/product/*", b"/product", False),
        (b"*", b"/app/any", True),  # relative to /app/main.js
        (b"*", b"/any", False),
        (b"main*.js", b"/app/main.2.js", True),
        (b"/a?v=*", b"/a?v=1", True),
        (b"/a?v=*", b"/a", False),
        (b"/a?v=*", b"/a?w=1", False),
        (b"/a?", b"/a", True),
        (b"/a?", b"/a?b", False),
        (b"/a.b", b"/axb", False),
        (b"/A", b"/a", False),
    ],
)
def test_which_urls_a_pattern_takes(pattern: bytes, target: bytes, takes: bool) -> None:
    match = url_match(pattern, b"/app/main.js?x=/y/")
    assert match is not None
    assert match.takes(target) is takes


@given(st.from_regex(rb"/[a-z*]{0,8}(\?[a-z*?]{0,5})?", fullmatch=True), st.binary(max_size=9))
def test_a_pattern_says_what_it_was_made_of(pattern: bytes, base: bytes) -> None:
    match = url_match(pattern, b"/app/main.js")
    assert match is not None
    assert match.pattern == pattern
    assert url_match(match.pattern, base) == match


@pytest.mark.parametrize(
    "pattern",
    [
        b"", b"https://evil.example/*", b"//evil.example/*", b"/a/:name", b"/a/(\\d+)", b"/{a}?",
        b"/a\\*", b"/../b", b"./b", b"/a#b", b"/a b", b"?v=*", b"/a?b?(c)", b"/a+", b"/\x00",
        b"/a*?+",
    ],
)  # fmt: skip
def test_patterns_that_are_not_understood_are_for_nothing(pattern: bytes) -> None:
    assert url_match(pattern, b"/app/main.js") is None


@given(
    pattern=st.text("ab/*.?", min_size=1, max_size=12).map(str.encode),
    target=st.text("ab/.?", max_size=12).map(lambda text: b"/" + text.encode()),
)
def test_patterns_are_those_of_an_independent_reading(pattern: bytes, target: bytes) -> None:
    match = url_match(pattern, b"/ab/c")
    if match is None:
        return
    path, mark, query = (pattern if pattern[:1] == b"/" else b"/ab/" + pattern).partition(b"?")
    read = re.escape(path).replace(rb"\*", b".*")
    read += rb"\?" + re.escape(query).replace(rb"\*", b".*") if mark else rb"(\?.*)?"
    wanted = target if not mark or b"?" in target else target + b"?"
    assert match.takes(target) is (re.fullmatch(read, wanted) is not None)


def test_what_is_offered() -> None:
    told = said(b'match="/app/*", match-dest=("script" "document"), id="v1", type=raw')
    assert told is not None
    assert told.id == b"v1"
    assert told.match_dest == {b"script", b"document"}
    assert told.match.takes(b"/app/x")


@pytest.mark.parametrize(
    "value",
    [
        b"", b"match", b"match=/a", b'match=("/a")', b'match=1', b'id="x"', b'match="/a', b"\xff",
        b'match="/a", type=other', b'match="/a", type="x"', b'match="/a", id=5', b'match="/a", id',
        b'match="/a", match-dest="script"', b'match="/a", match-dest=(1)', b'match="/(a)"',
        b'match="/a", id="%b"' % (b"x" * (MOST_ID + 1)), b'match="/%b"' % (b"a" * 5000),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_no_offer(value: bytes) -> None:
    assert said(value) is None


def test_nothing_said_is_no_offer() -> None:
    assert offer(Headers(), b"/") is None


@given(value=st.binary(max_size=60), target=st.binary(max_size=20))
def test_no_offer_raises(value: bytes, target: bytes) -> None:
    said(value, target)
    said(b'match="%b"' % value, target)


# --- what a client names


@given(digest=st.binary(min_size=32, max_size=32))
def test_a_digest_is_read_as_it_is_written(digest: bytes) -> None:
    field = available_field(digest)
    assert field == b":" + b64encode(digest) + b":"
    assert available(Headers([(b"available-dictionary", field)])) == digest


@pytest.mark.parametrize(
    "lines",
    [
        (), (b"",), (b"::",), (available_field(bytes(31)),), (available_field(bytes(33)),),
        (available_field(bytes(32)),) * 2, (available_field(bytes(32))[1:],),
        (available_field(bytes(32)) + b";a",), (b":%b:" % (b"\xff" * 44),),
    ],
)  # fmt: skip
def test_junk_names_no_dictionary(lines: tuple[bytes, ...]) -> None:
    assert available(Headers((b"available-dictionary", line) for line in lines)) is None


# --- what is held


def test_what_was_added_is_found_by_its_digest() -> None:
    held = Dictionaries()
    made = added(held, REALM, b"a body of some length", offer_of(b"/app/*"))
    assert made is not None
    assert made.digest == sha256(b"a body of some length").digest()
    assert held.find(REALM, made.digest) is held.look(REALM, made.digest) is made
    assert held.find(REALM, bytes(32)) is held.look(REALM, bytes(32)) is None


def test_dictionaries_never_cross_origins_or_sites() -> None:
    held = Dictionaries()
    made = added(held, REALM, b"a secret of one origin", offer_of())
    assert made is not None
    for other in OTHERS:
        assert held.find(other, made.digest) is None
    assert held.has_elsewhere(made.digest)
    assert not held.has_elsewhere(bytes(32))


@pytest.mark.parametrize(
    ("meant", "asked", "is_found"),
    [
        ((), b"script", True), ((), None, True), ((b"script",), b"script", True),
        ((b"script",), b"document", False), ((b"script",), None, True),
    ],
)  # fmt: skip
def test_destinations(meant: tuple[bytes, ...], asked: bytes | None, is_found: bool) -> None:
    assert offer_of(dest=frozenset(meant)).is_meant_for(asked) is is_found


def test_the_same_body_has_its_newest_offer() -> None:
    held = Dictionaries()
    added(held, REALM, b"one and the same", offer_of(b"/old/*"))
    made = added(held, REALM, b"one and the same", offer_of(b"/new/*"))
    assert made is not None
    assert len(held) == 1
    assert held.held_bytes == 16
    found = held.find(REALM, made.digest)
    assert found is made
    assert found.offer == offer_of(b"/new/*")


@pytest.mark.parametrize(
    ("size", "fits"), [(0, False), (7, False), (8, True), (100, True), (101, False)]
)
def test_sizes_have_bounds(size: int, fits: bool) -> None:
    held = Dictionaries(most_each=100)
    assert held.fits(size) is fits
    assert (added(held, REALM, bytes(size), offer_of()) is not None) is fits
    assert held.held_bytes == (size if fits else 0)


def test_what_was_used_longest_ago_goes_first() -> None:
    held = Dictionaries(most=2)
    first, second = (added(held, REALM, b"body %d ...." % n, offer_of()) for n in (1, 2))
    assert first is not None
    assert second is not None
    held.find(REALM, first.digest)
    added(held, REALM, b"body 3 ....", offer_of())
    assert held.find(REALM, first.digest) is first
    assert held.find(REALM, second.digest) is None


def test_looking_is_no_use() -> None:
    held = Dictionaries(most=2)
    first = added(held, REALM, b"body 1 ....", offer_of())
    added(held, REALM, b"body 2 ....", offer_of())
    assert first is not None
    assert held.look(REALM, first.digest) is first
    added(held, REALM, b"body 3 ....", offer_of())
    assert held.look(REALM, first.digest) is None


def test_one_realm_crowds_out_no_other() -> None:
    held = Dictionaries(most=100, most_realm=3)
    kept = added(held, OTHERS[0], b"another site's", offer_of())
    assert kept is not None
    for number in range(50):
        added(held, REALM, b"body number %d" % number, offer_of())
    assert len(held) == 4
    assert held.find(OTHERS[0], kept.digest) is kept


@settings(deadline=None)  # each dictionary is indexed
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 4), st.integers(8, 60), st.integers(0, 9)), max_size=60
    )
)
def test_bounds_hold_whatever_comes(steps: list[tuple[int, int, int]]) -> None:
    held = Dictionaries(most=6, most_bytes=200, most_each=50, most_realm=4)
    realms = [REALM, *OTHERS]
    for realm, size, filler in steps:
        made = added(held, realms[realm], b"%d" % filler * size, offer_of())
        assert (made is not None) is (size <= 50)
        assert len(held) <= 6
        assert held.held_bytes <= 200
        if made is not None:
            assert held.find(realms[realm], made.digest) is made
