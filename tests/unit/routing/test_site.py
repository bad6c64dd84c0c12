from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.routing.site import Glob, HostTable, Match, Rule, TypeMatch, host_of, rules_for
from edge.wire.message import Headers

TABLE = HostTable(
    [
        (b"shop.example", "shop"),
        (b"*.shop.example", "any shop"),
        (b"*.eu.shop.example", "eu shop"),
        (b"[::1]", "loopback"),
    ]
)


@pytest.mark.parametrize(
    ("authority", "site"),
    [
        (b"shop.example", "shop"),
        (b"SHOP.example:8080", "shop"),
        (b"shop.example.", "shop"),
        (b"a.shop.example", "any shop"),
        (b"a.b.shop.example", "any shop"),
        (b"x.eu.shop.example:443", "eu shop"),
        (b"eu.shop.example", "any shop"),
        (b"[::1]:80", "loopback"),
        (b"myshop.example", None),
        (b".shop.example", None),
        (b"shop.example.evil", None),
        (b"", None),
        (b"a." * 500 + b"shop.example", None),
    ],
)
def test_the_exact_host_wins_then_the_longest_suffix(authority: bytes, site: str | None) -> None:
    assert TABLE.find(authority) == site


hosts = st.lists(st.sampled_from(["a", "b", "c", "*", ""]), min_size=1, max_size=4).map(".".join)


@given(patterns=st.lists(hosts.map(str.encode), max_size=6, unique=True), host=hosts)
def test_the_pattern_that_is_told_is_the_one_that_decides(
    patterns: list[bytes], host: str
) -> None:
    patterns = [each for each in patterns if b"*" not in each[1:]]
    table = HostTable((each, each) for each in patterns)
    assert table.matched(host.encode()) == table.find(host.encode())
    assert sorted(table.patterns) == sorted(patterns)


def test_a_pattern_is_told_as_it_is_written_and_never_for_a_host_beyond_all_length() -> None:
    long = b"a." * 500 + b"shop.example"
    assert TABLE.matched(long) is None
    assert TABLE.matched(b"x.eu.shop.example:443") == b"*.eu.shop.example"
    assert HostTable([(b"*.shop.example", 1), (b"*", 2)]).matched(long) == b"*"


def test_a_star_takes_what_no_one_else_does() -> None:
    table = HostTable([(b"*", "rest"), (b"a.example", "a"), (b"*.b.example", "b")])
    assert [table.find(h) for h in (b"a.example", b"x.b.example", b"c.example", b"")] == [
        "a", "b", "rest", "rest",
    ]  # fmt: skip


def test_a_host_is_its_authority_less_port_and_case() -> None:
    assert host_of(b"[FE80::1]:80") == b"[fe80::1]"
    assert host_of(b"A.Example:1") == b"a.example"


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        (b"/static/*", b"/static/a/b.css", True),
        (b"/static/*", b"/static", False),
        (b"*.css", b"/a.css", True),
        (b"/a*b*c", b"/axbxbxc", True),
        (b"/a*b*b*c", b"/axbxc", False),
        (b"/a*c", b"/axb", False),
        (b"/ab*ba", b"/aba", False),
        (b"/a?", b"/ab", False),
        (b"/a", b"/a", True),
        (b"*", b"", True),
    ],
)
def test_a_star_is_any_text(pattern: bytes, text: bytes, *, fits: bool) -> None:
    assert Glob.parse(pattern).matches(text) is fits


@given(st.text("ab*/", max_size=8), st.text("ab/", max_size=12))
def test_globs_agree_with_a_regular_expression(pattern: str, text: str) -> None:
    oracle = re.fullmatch(fnmatch.translate(pattern), text) is not None
    assert Glob.parse(pattern.encode()).matches(text.encode()) is oracle


@pytest.mark.parametrize(
    ("pattern", "text", "taken"),
    [
        (b"/old/*", b"/old/a/b", (b"a/b",)),
        (b"/old/*", b"/old/", (b"",)),
        (b"/old/*", b"/old", None),
        (b"/a", b"/a", ()),
        (b"/a", b"/b", None),
        (b"*", b"", (b"",)),
        (b"*/*", b"a/b/c", (b"a", b"b/c")),
        (b"/*/v1/*.json", b"/shop/v1/a.json", (b"shop", b"a")),
        (b"**", b"ab", (b"", b"ab")),
        (b"/ab*ba", b"/aba", None),
    ],
)
def test_a_star_gives_what_it_stands_for(
    pattern: bytes, text: bytes, taken: tuple[bytes, ...] | None
) -> None:
    assert Glob.parse(pattern).captures(text) == taken


@given(st.text("ab*/", max_size=8), st.text("ab/", max_size=12))
def test_parts_and_what_the_stars_took_are_the_text_again(pattern: str, text: str) -> None:
    glob = Glob.parse(pattern.encode())
    taken = glob.captures(text.encode())
    assert (taken is not None) is glob.matches(text.encode())
    if taken is not None:
        assert len(taken) == pattern.count("*")
        pairs = zip(glob.parts, (*taken, b""), strict=True)
        assert b"".join(chain.from_iterable(pairs)) == text.encode()


@given(st.text("ab*/", max_size=8), st.text("ab/", max_size=12))
def test_an_earlier_star_takes_as_little_as_it_can(pattern: str, text: str) -> None:
    lazy = re.fullmatch(re.escape(pattern).replace(r"\*", "(.*?)"), text)
    taken = Glob.parse(pattern.encode()).captures(text.encode())
    assert taken == (None if lazy is None else tuple(each.encode() for each in lazy.groups()))


def rule(path: bytes | None, terms: str) -> Rule[str]:
    return Rule(Match(Glob.parse(path) if path else None), terms)


def test_the_first_rule_that_fits_holds() -> None:
    rules = [rule(b"/a/*", "a"), rule(b"/a/b", "never"), rule(None, "rest")]
    found = [rules_for(rules, b"GET", b"x", path) for path in (b"/a/b", b"/c")]
    assert found == [(rules[0],), (rules[2],)]
    assert rules_for(rules[:1], b"GET", b"x", b"/c") == ()


def test_rules_that_wait_for_the_type_of_an_answer_stand_before_the_first_that_does_not() -> None:
    images = replace(rule(b"/a/*", "images"), types=TypeMatch.parse([b"image/*"]))
    rest, never = rule(None, "rest"), replace(rule(None, "never"), types=images.types)
    rules = [images, rest, never]
    assert rules_for(rules, b"GET", b"x", b"/a/b") == (images, rest)
    assert rules_for(rules, b"GET", b"x", b"/c") == (rest,)


def test_a_rule_may_ask_for_a_method_and_a_host() -> None:
    match = Match(methods=frozenset({b"POST"}), hosts=HostTable([(b"*.example", True)]))
    assert match.takes(b"POST", b"a.example", b"/")
    assert not match.takes(b"GET", b"a.example", b"/")
    assert not match.takes(b"POST", b"a.other", b"/")


@pytest.mark.parametrize(
    ("pattern", "extension"),
    [
        (b"*.css", b"css"),
        (b"/a/*.PNG", b"png"),
        (b"*.min.js", b"js"),
        (b"/static/*", None),
        (b"/a.css", None),
        (b"*.", None),
        (b"*/x.css", None),
        (b"*x.css", None),
    ],
)
def test_a_pattern_tells_the_extension_it_asks_for(
    pattern: bytes, extension: bytes | None
) -> None:
    assert Glob.parse(pattern).extension == extension


@dataclass
class Somewhere:
    country: str = "DE"
    continent: str = "EU"


def takes(match: Match, *pairs: tuple[bytes, bytes], place: Somewhere | None = None) -> bool:
    return match.takes(b"GET", b"a.example", b"/", Headers(pairs), place)


def test_a_rule_may_ask_for_fields() -> None:
    match = Match(headers=((b"x-beta", Glob.parse(b"*")), (b"accept", Glob.parse(b"text/*"))))
    html = (b"accept", b"text/html")
    assert takes(match, (b"x-beta", b""), html)
    assert takes(match, (b"accept", b"image/png"), html, (b"x-beta", b"1"))  # one of several
    assert not takes(match, html)
    assert not takes(match, (b"x-beta", b"1"), (b"accept", b"image/png"))
    assert not match.takes(b"GET", b"a.example", b"/")


def test_a_rule_may_ask_for_cookies() -> None:
    match = Match(cookies=((b"plan", Glob.parse(b"pro*")),))
    assert takes(match, (b"cookie", b"sid=1; plan=pro-2"))
    assert not takes(match, (b"cookie", b"plan=free"))
    assert not takes(match, (b"cookie", b"plan2=pro"))
    assert takes(match, (b"cookie", b'g_state={"i_l":0}; plan=pro'))
    assert not takes(match)


@pytest.mark.parametrize(
    ("match", "place", "taken"),
    [
        (Match(countries=frozenset({"DE", "FR"})), Somewhere(), True),
        (Match(countries=frozenset({"FR"})), Somewhere(), False),
        (Match(countries=frozenset({"FR"})), None, False),
        (Match(continents=frozenset({"EU"})), Somewhere(), True),
        (Match(continents=frozenset({"AS"})), Somewhere(), False),
        (Match(continents=frozenset({"EU"})), None, False),
        (Match(continents=frozenset({"EU"})), Somewhere("", ""), False),
        (Match(countries=frozenset({"DE"}), continents=frozenset({"AS"})), Somewhere(), False),
    ],
)
def test_a_rule_may_ask_for_the_clients_place(
    match: Match, place: Somewhere | None, *, taken: bool
) -> None:
    assert takes(match, place=place) is taken


@pytest.mark.parametrize(
    ("match", "beyond"),
    [
        (Match(), False),
        (Match(Glob.parse(b"/a"), frozenset({b"GET"}), HostTable([(b"*", True)])), False),
        (Match(headers=((b"a", Glob.parse(b"*")),)), True),
        (Match(cookies=((b"a", Glob.parse(b"*")),)), True),
        (Match(countries=frozenset({"DE"})), True),
        (Match(continents=frozenset({"EU"})), True),
    ],
)
def test_a_match_tells_whether_it_reads_what_no_key_holds(match: Match, *, beyond: bool) -> None:
    assert match.reads_beyond_url is beyond


def test_the_first_rule_is_found_by_the_sender_too() -> None:
    rules = [
        Rule(Match(cookies=((b"plan", Glob.parse(b"pro")),)), "pro"),
        Rule(Match(countries=frozenset({"DE"})), "german"),
        Rule(Match(), "rest"),
    ]
    pro = Headers([(b"cookie", b"plan=pro")])
    found = [
        rules_for(rules, b"GET", b"x", b"/", headers, place)
        for headers, place in [(pro, None), (Headers(), Somewhere()), (Headers(), None)]
    ]
    assert found == [(rule,) for rule in rules]


@pytest.mark.parametrize(
    ("content_type", "taken"),
    [
        (b"image/png", True),
        (b"IMAGE/SVG+xml; charset=utf-8", True),
        (b"text/html;charset=utf-8", True),
        (b"text/css", False),
        (b"imagepng", False),
        (b"", False),
        (None, False),
    ],
)
def test_a_rule_may_ask_for_the_type_of_an_answer(
    content_type: bytes | None, *, taken: bool
) -> None:
    assert TypeMatch.parse([b"Image/*", b"text/html"]).takes(content_type) is taken


def test_no_type_fits_even_where_all_are_asked_for() -> None:
    every = TypeMatch.parse([b"*"])
    assert every.takes(b"a/b")
    assert not every.takes(None)
