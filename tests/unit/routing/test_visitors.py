"""Who is a crawler, who is held out, and by what a visitor is known."""

from __future__ import annotations

import pytest

from edge.routing.visitors import AGENT_BYTES, VisitorId, is_crawler, is_held_out
from edge.wire.message import Headers

CHROME = (
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/120.0.0.0 Safari/537.36"
)
CRAWLERS = [
    b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    b"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    b"Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)",
    b"Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/us/ysearch/slurp)",
    b"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)",
    b"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    b"Mediapartners-Google",
    b"Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120.0.0.0 Safari/537.36",
    b"CCBot/2.0",
    b"curl/8.5.0",
    b"python-requests/2.31",
    b"",
]
PEOPLE = [
    CHROME,
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    b"Gecko) Version/17.0 Mobile/15E148 Safari/604.1",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
    b"Mozilla/5.0 (Linux; Android 12; CUBOT NOTE 20) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/120.0 Mobile Safari/537.36",
    b"Opera/9.80 (Windows NT 6.1) Presto/2.12.388 Version/12.18",
]


@pytest.mark.parametrize("agent", CRAWLERS)
def test_a_crawler_is_known_by_its_name_in_any_case(agent: bytes) -> None:
    assert is_crawler(agent)
    assert is_crawler(agent.upper())


@pytest.mark.parametrize("agent", PEOPLE)
def test_people_are_no_crawlers(agent: bytes) -> None:
    assert not is_crawler(agent)


def test_one_without_a_user_agent_is_no_browser() -> None:
    assert is_crawler(None)


def test_a_user_agent_is_looked_at_so_far_and_no_further() -> None:
    assert not is_crawler(b"x" * AGENT_BYTES + b"Googlebot")
    assert is_crawler(b"x" * (AGENT_BYTES - 9) + b"Googlebot")
    assert not is_crawler(b"cubot" * 1_000_000)


@pytest.mark.parametrize(
    ("hold_out", "agent", "cookie", "held"),
    [
        ((), b"Googlebot", None, False),
        (("bots",), b"Googlebot", b"a=b", True),
        (("bots",), CHROME, None, False),
        (("cookieless",), b"Googlebot", b"a=b", False),
        (("cookieless",), CHROME, None, True),
        (("cookieless",), CHROME, b"", False),
        (("bots", "cookieless"), CHROME, b"a=b", False),
    ],
)
def test_those_are_held_out_that_the_site_names(
    hold_out: tuple[str, ...], agent: bytes, cookie: bytes | None, *, held: bool
) -> None:
    pairs = [(b"user-agent", agent)] + ([(b"cookie", cookie)] if cookie is not None else [])
    assert is_held_out(Headers(pairs), frozenset(hold_out)) is held


HEADERS = Headers(
    [
        (b"x-visitor", b"v1"),
        (b"x-visitor", b"v2"),
        (b"x-empty", b""),
        (b"cookie", b"id=c1; id=c2; e="),
    ]
)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (VisitorId("header", b"x-visitor"), b"v1"),
        (VisitorId("header", b"x-empty"), None),
        (VisitorId("header", b"id"), None),
        (VisitorId("cookie", b"id"), b"c1"),
        (VisitorId("cookie", b"e"), None),
        (VisitorId("cookie", b"x-visitor"), None),
    ],
)
def test_an_id_is_the_first_of_its_name_and_never_empty(
    where: VisitorId, found: bytes | None
) -> None:
    assert where.of(HEADERS) == found


def test_the_place_of_an_id_is_checked_with_words() -> None:
    assert not list(VisitorId("cookie", b"Id").check())
    assert not list(VisitorId("header", b"x-visitor").check())
    for bad in (VisitorId("cookie", b"a b"), VisitorId("header", b"X-Id")):
        [words] = bad.check()
        assert f"no name of a {bad.kind}" in words
