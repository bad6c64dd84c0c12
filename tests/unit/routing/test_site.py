from __future__ import annotations

import fnmatch
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.routing.site import Glob, HostTable, Match, Rule, TypeMatch, host_of, rules_for

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
