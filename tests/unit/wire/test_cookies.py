"""A Cookie is read one way or not at all, and a Set-Cookie is one that browsers keep."""

from __future__ import annotations

import re
from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.wire.cookies import (
    CookieTerms,
    is_cookie_value,
    parse_cookies,
    values_of,
    without_cookies,
)
from edge.wire.fields import is_token
from edge.wire.message import Headers


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], []),
        ([b"a=b"], [(b"a", b"b")]),
        ([b"a=b; c=d", b"e="], [(b"a", b"b"), (b"c", b"d"), (b"e", b"")]),
        ([b"a=b;c=d"], [(b"a", b"b"), (b"c", b"d")]),
        ([b'a="b"'], [(b"a", b'"b"')]),
        ([b"a=b=c"], [(b"a", b"b=c")]),
        (
            [b"SID=31d4d96e407aad42; lang=en-US"],
            [(b"SID", b"31d4d96e407aad42"), (b"lang", b"en-US")],
        ),
        ([b""], None),
        ([b"a"], None),
        ([b"=b"], None),
        ([b"a =b"], None),
        ([b"a= b"], None),
        ([b"a=b;"], None),
        ([b"a=b,c"], None),
        ([b'a="b'], None),
        ([b'a="'], None),
        ([b"a=b\\c"], None),
        ([b"a=\xe9"], None),
    ],
)
def test_cookies_are_read_strictly(
    lines: list[bytes], found: list[tuple[bytes, bytes]] | None
) -> None:
    assert parse_cookies(lines) == found


COOKIE_OCTETS = bytes(b for b in range(0x21, 0x7F) if b not in b'",;\\')


def read_plainly(line: bytes) -> list[tuple[bytes, bytes]] | None:
    """RFC 6265 §4.2.1 said step by step, white space around pairs let pass."""
    found = []
    for pair in line.split(b";"):
        name, equals, value = pair.strip(b" \t").partition(b"=")
        bare = value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value
        if not equals or not is_token(name) or bare.translate(None, COOKIE_OCTETS):
            return None
        found.append((name, value))
    return found


lines = st.text('ab=; \t",\\\x00é', max_size=16).map(lambda text: text.encode("latin-1"))
orderly = st.lists(
    st.tuples(st.sampled_from([b"a", b"ab", b"b"]), st.text('ab="', max_size=3)), max_size=4
).map(lambda pairs: b"; ".join(b"%b=%b" % (name, value.encode()) for name, value in pairs))


@given(lines | orderly)
def test_reading_a_line_is_what_the_grammar_says_step_by_step(line: bytes) -> None:
    assert parse_cookies([line]) == read_plainly(line)


@given(st.lists(lines | orderly, max_size=3), st.sampled_from([b"a", b"ab", b"b"]))
def test_the_values_of_one_cookie_are_those_of_its_pairs(
    cookies: list[bytes], name: bytes
) -> None:
    headers = Headers([(b"x", b"a=1"), *((b"cookie", line) for line in cookies)])
    pairs = [pair.strip(b" \t") for line in cookies for pair in line.split(b";")]
    start = name + b"="
    assert values_of(headers, name) == [p[len(start) :] for p in pairs if p.startswith(start)]
    if (read := parse_cookies(cookies)) is not None:  # where the strict reading has one, the same
        assert values_of(headers, name) == [value for known, value in read if known == name]


@pytest.mark.parametrize(
    ("sent", "values"),
    [
        ([], []),
        ([b"sid=1"], []),
        ([b"ab=new"], [b"new"]),
        ([b"xab=old; ab=new;ab=old \t;  ab2=no"], [b"new", b"old"]),
        ([b"ab=new", b"ab=old"], [b"new", b"old"]),
        ([b"x=ab=new"], []),
        ([b"ab=ab=new"], [b"ab=new"]),
        ([b"x=1", b"y=ab"], []),
        ([b'g_state={"i_l":0, "x":1}; ab=new; broken'], [b"new"]),
        ([b"ab=new", b"broken"], [b"new"]),
        ([b"ab =new"], []),
        ([b"a b=1; x ab=new"], []),
        ([b'ab="new"'], [b'"new"']),
        ([b"AB=new"], []),
    ],
)
def test_a_cookie_is_found_by_its_whole_name_whatever_stands_beside_it(
    sent: list[bytes], values: list[bytes]
) -> None:
    assert values_of(Headers((b"cookie", line) for line in sent), b"ab") == values


def test_a_hostile_line_costs_no_more_than_its_length() -> None:
    long = b"a=" * 50_000
    assert parse_cookies([long]) == [(b"a", b"=".join([b"", *[b"a"] * 49_999, b""])[1:])]
    assert parse_cookies([b"a=b; " * 20_000]) is None
    assert parse_cookies([b" " * 100_000]) is None
    assert values_of(Headers([(b"cookie", b"a=b; " * 20_000 + b"a=c")]), b"a")[-1] == b"c"
    assert values_of(Headers([(b"cookie", b"a " * 50_000 + b";" + b" " * 99_999)]), b"a") == []


TERMS = CookieTerms(b"ab")


@pytest.mark.parametrize(
    ("terms", "scheme", "line"),
    [
        (TERMS, b"http", b"ab=new; Max-Age=2592000; Path=/; HttpOnly; SameSite=Lax"),
        (TERMS, b"https", b"ab=new; Max-Age=2592000; Path=/; Secure; HttpOnly; SameSite=Lax"),
        (CookieTerms(b"ab", ttl_s=None), b"http", b"ab=new; Path=/; HttpOnly; SameSite=Lax"),
        (
            CookieTerms(b"ab", 1.9, b"/shop", b"shop.example", b"Strict", http_only=False),
            b"http",
            b"ab=new; Max-Age=1; Path=/shop; Domain=shop.example; SameSite=Strict",
        ),
        (
            CookieTerms(b"ab", ttl_s=60, secure=False),
            b"https",
            b"ab=new; Max-Age=60; Path=/; HttpOnly; SameSite=Lax",
        ),
        (
            CookieTerms(b"__Host-ab", ttl_s=60, same_site=b"None", secure=True),
            b"http",
            b"__Host-ab=new; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=None",
        ),
    ],
)
def test_a_set_cookie_has_the_attributes_asked_for(
    terms: CookieTerms, scheme: bytes, line: bytes
) -> None:
    assert list(terms.check()) == []
    assert terms.given(b"new", scheme) == line


@given(
    st.builds(
        CookieTerms,
        name=st.sampled_from([b"ab", b"__Secure-ab"]),
        ttl_s=st.none() | st.integers(1, 400 * 86_400),
        path=st.sampled_from([b"/", b"/a/b"]),
        domain=st.sampled_from([b"", b"a.example"]),
        same_site=st.sampled_from([b"Lax", b"Strict"]),
        secure=st.just(True),
    ),
    st.text("abc-_.", min_size=1, max_size=8).map(str.encode),
)
def test_another_reader_sees_what_was_given(terms: CookieTerms, value: bytes) -> None:
    assert list(terms.check()) == []
    read = SimpleCookie(terms.given(value, b"http").decode())[terms.name.decode()]
    assert read.value == value.decode()
    assert read["max-age"] == ("" if terms.ttl_s is None else str(terms.ttl_s))
    assert (read["path"], read["domain"]) == (terms.path.decode(), terms.domain.decode())
    assert (read["secure"], read["samesite"]) == (True, terms.same_site.decode())


@pytest.mark.parametrize(
    ("terms", "where", "words"),
    [
        (CookieTerms(b""), "name", '"" is no cookie\'s name'),
        (CookieTerms(b"a;b"), "name", '"a;b" is no'),
        (CookieTerms(b"a\r\nSet-Cookie: x"), "name", '"a\\r\\nSet-Cookie: x" is no'),
        (CookieTerms(b"a" * 1_025), "name", "is no cookie's name"),
        (CookieTerms(b"ab", ttl_s=0), "ttl", "0 s is not kept"),
        (CookieTerms(b"ab", ttl_s=401 * 86_400), "ttl", "400 days"),
        (CookieTerms(b"ab", ttl_s=float("nan")), "ttl", "nan s"),
        (CookieTerms(b"ab", path=b"shop"), "path", 'begin it with "/"'),
        (CookieTerms(b"ab", path=b"/a b"), "path", "is no path"),
        (CookieTerms(b"ab", path=b"/; Domain=x"), "path", "is no path"),
        (CookieTerms(b"ab", path=b"/" * 1_025), "path", "is no path"),
        (CookieTerms(b"ab", domain=b"Shop.example"), "domain", "in lower case"),
        (CookieTerms(b"ab", domain=b".shop.example"), "domain", "is no domain"),
        (CookieTerms(b"ab", domain=b"example"), "domain", "is no domain"),
        (CookieTerms(b"ab", domain=b"a." * 200 + b"b"), "domain", "is no domain"),
        (CookieTerms(b"ab", same_site=b"lax"), "same_site", "use Strict, Lax or None"),
        (CookieTerms(b"ab", same_site=b"None"), "secure", "SameSite=None without Secure"),
        (CookieTerms(b"__Secure-ab"), "secure", '"__Secure-ab" demands Secure'),
        (CookieTerms(b"__SECURE-ab", secure=False), "secure", 'set secure = "always"'),
        (CookieTerms(b"__Host-ab"), "secure", "demands Secure"),
        (
            CookieTerms(b"__Host-ab", domain=b"a.example", secure=True),
            "domain",
            "may have no domain",
        ),
        (CookieTerms(b"__host-ab", path=b"/a", secure=True), "path", 'must have the path "/"'),
    ],
)
def test_what_a_browser_would_drop_is_refused_with_the_way_out(
    terms: CookieTerms, where: str, words: str
) -> None:
    [(found, said)] = terms.check()
    assert found == where
    assert re.search(re.escape(words), said)


def test_a_value_that_can_be_given_needs_no_quotes() -> None:
    assert is_cookie_value(b"new-2")
    assert not any(map(is_cookie_value, [b"a b", b"a;b", b'"a"', b"a,b", b"\xe9", b"a\n"]))


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([], []),
        ([b"ab=x"], []),
        ([b"ab=x; cd=y"], []),
        ([b"a=1; ab=x; b=2"], [b"a=1; b=2"]),
        ([b"a=1", b"ab=x; b=2"], [b"a=1; b=2"]),
        ([b"ab=x; a=1; ab=y"], [b"a=1"]),
        ([b"a=1;  b=2"], [b"a=1;  b=2"]),  # as it was
        ([b"abc=x; xab=1; a=ab"], [b"abc=x; xab=1; a=ab"]),
        ([b"ab=x; junk"], [b"ab=x; junk"]),  # who knows what it is
        ([b"ab=x;"], [b"ab=x;"]),
    ],
)
def test_cookies_are_taken_out_by_name_where_a_line_is_read_strictly(
    lines: list[bytes], left: list[bytes]
) -> None:
    headers = Headers([(b"x-a", b"1"), *((b"cookie", line) for line in lines), (b"x-b", b"2")])
    told = without_cookies(headers, frozenset((b"ab", b"cd")))
    assert told.all(b"cookie") == left
    assert [told.get(name) for name in (b"x-a", b"x-b")] == [b"1", b"2"]
    if lines == left:
        assert told is headers
