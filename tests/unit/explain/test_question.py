"""Questions: read strictly, written as a client would, read as a connection would be."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import Failure, ProtocolError
from edge.explain.question import Question, QuestionRefused, asked, plain, worded
from edge.guard.address import Networks
from edge.wire.grammar import Limits

NO_ONE = Networks()
LIMITS = Limits()


def test_a_url_alone_is_a_get_from_this_machine() -> None:
    question = asked({"url": ["http://Shop.example/a?b#c"]})
    assert question.written(NO_ONE) == b"GET /a?b HTTP/1.1\r\nHost: Shop.example\r\n\r\n"
    assert question.from_address == b"127.0.0.1"
    head = question.head(LIMITS, NO_ONE)
    assert (head.method, head.authority, head.target) == (b"GET", b"shop.example", b"/a?b")


def test_all_parts_are_taken_as_they_are_given() -> None:
    question = asked(
        {
            "url": ["http://shop.example:8080?x"],
            "method": ["HEAD"],
            "field": ["Accept: a", "X-Raw:  \udcff\t"],
            "from": ["2001:DB8::7"],
        }
    )
    lines = question.written(NO_ONE).split(b"\r\n")
    assert lines[:2] == [b"HEAD /?x HTTP/1.1", b"Host: shop.example:8080"]
    assert lines[2:] == [b"Accept: a", b"X-Raw: \xff", b"", b""]
    assert question.from_address == b"2001:db8::7"


@pytest.mark.parametrize(
    ("query", "tells"),
    [
        ({}, "url: is missing"),
        ({"url": ["http://a/", "http://b/"]}, "url: is there 2 times"),
        ({"url": ["shop.example/a"]}, "write it like http://"),
        ({"url": ["ftp://shop.example/a"]}, "write it like http://"),
        ({"url": ["http:///a"]}, "write it like http://"),
        ({"url": ["http://u:p@a/"]}, "user info"),
        ({"url": ["http://a/ b"]}, "a space is %20"),
        ({"url": ["http://a/\r\nX: y"]}, "\\r\\n"),
        ({"url": ["http://ä/"]}, "percent-encode"),
        ({"url": ["http://a/"], "method": ["G T"]}, 'method: "G T"'),
        ({"url": ["http://a/"], "method": [""]}, "method:"),
        ({"url": ["http://a/"], "field": ["Accept"]}, "has no colon"),
        ({"url": ["http://a/"], "field": [": x"]}, "has no name"),
        ({"url": ["http://a/"], "field": ["A: b\nC: d"]}, "line break"),
        ({"url": ["http://a/"], "field": ["A\r: b"]}, "line break"),
        ({"url": ["http://a/"], "from": ["somewhere"]}, 'from: "somewhere"'),
        ({"url": ["http://a/"], "from": ["1.2.3.4:5"]}, "without port or zone"),
        ({"url": ["http://a/"], "from": ["fe80::1%eth0"]}, "without port or zone"),
        ({"url": ["http://a/"], "from": ["\udcff"]}, "is no address"),
        ({"url": ["http://a/"], "form": ["1.2.3.4"]}, "there is url, method, field, from"),
    ],
)
def test_what_is_asked_wrongly_is_told_with_the_way_out(
    query: dict[str, list[str]], tells: str
) -> None:
    with pytest.raises(QuestionRefused) as caught:
        asked(query)
    assert tells in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_name_with_a_colon_in_it_is_no_field() -> None:
    with pytest.raises(QuestionRefused):
        Question(b"http://a/", fields=((b"a:b", b"c"),))


@pytest.mark.parametrize(
    ("given_as", "taken"),
    [(b"::ffff:192.0.2.1", b"192.0.2.1"), (b"unix", b"unix"), (b"192.0.2.1", b"192.0.2.1")],
)
def test_an_address_is_as_a_listener_would_tell_it(given_as: bytes, taken: bytes) -> None:
    assert Question(b"http://a/", from_address=given_as).from_address == taken


@pytest.mark.parametrize("url", [b"https://a:443/x", b"https://a/x", b"http://a:80/x"])
def test_the_port_of_the_scheme_is_left_out_of_host(url: bytes) -> None:
    assert b"Host: a\r\n" in Question(url).written(NO_ONE)


def test_a_host_of_ones_own_takes_the_place_of_the_urls() -> None:
    question = Question(b"http://a/x", fields=((b"HOST", b"b"),))
    assert question.written(NO_ONE) == b"GET /x HTTP/1.1\r\nHOST: b\r\n\r\n"


def test_https_is_what_a_trusted_proxy_says_of_it() -> None:
    trusted = Networks.parse(["192.0.2.0/24"])
    question = Question(b"https://a/x", from_address=b"192.0.2.7")
    assert b"x-forwarded-proto: https\r\n" in question.written(trusted)
    assert question.notes(trusted) == []
    told = Question(b"https://a/x", b"GET", ((b"X-Forwarded-Proto", b"http"),), b"192.0.2.7")
    assert b"https" not in told.written(trusted)


def test_https_of_anyone_else_is_taken_as_http_and_said_so() -> None:
    question = Question(b"https://a/x", from_address=b"192.0.2.7")
    assert b"forwarded" not in question.written(NO_ONE)
    (note,) = question.notes(NO_ONE)
    assert "192.0.2.7" in note
    assert "node.trusted_proxies" in note
    assert Question(b"http://a/x").notes(NO_ONE) == []


@pytest.mark.parametrize(
    ("question", "failure"),
    [
        (Question(b"http://a/x", b"TRACE"), Failure.METHOD_REFUSED),
        (Question(b"http://[::1/x"), Failure.BAD_HOST),
        (Question(b"http://a/" + b"x" * 9000), Failure.TARGET_TOO_LONG),
        (Question(b"http://a/", fields=((b"Bad ", b"x"),)), Failure.BAD_MESSAGE),
        (Question(b"http://a/", fields=((b"A", b"\0"),)), Failure.BAD_MESSAGE),
        (Question(b"http://a/", fields=((b"A", b"x" * 40_000),)), Failure.HEAD_TOO_LARGE),
        (Question(b"http://a/", fields=((b"Host", b"a"), (b"Host", b"b"))), Failure.BAD_HOST),
        (Question(b"http://a/", fields=((b"Expect", b"b"),)), Failure.BAD_EXPECTATION),
    ],
)
def test_what_a_client_is_refused_for_is_refused_in_the_same_words(
    question: Question, failure: Failure
) -> None:
    with pytest.raises(ProtocolError) as caught:
        question.head(LIMITS, NO_ONE)
    assert caught.value.failure is failure


pieces = st.text(max_size=30)


@given(url=pieces, method=pieces, fields=st.lists(pieces, max_size=3))
def test_any_question_is_one_request_or_refused(url: str, method: str, fields: list[str]) -> None:
    told = {"url": ["http://a/" + url], "field": fields, "method": [method or "GET"]}
    query = {
        name: [each.encode("utf-8", "replace").decode() for each in values]
        for name, values in told.items()
    }
    with suppress(QuestionRefused, ProtocolError):
        question = asked(query)
        names = {name.lower() for name, _ in question.fields}
        written = question.written(NO_ONE)
        assert written.count(b"\r\n\r\n") == 1
        assert written.count(b"\n") == len(question.fields) + 2 + (b"host" not in names)
        question.head(LIMITS, NO_ONE)


@given(st.binary(max_size=50))
def test_what_is_shown_is_short_and_moves_no_cursor(value: bytes) -> None:
    assert plain(value, 20).isprintable()
    assert len(plain(value, 5)) <= 5 * 10 + 1


def test_what_is_long_is_cut() -> None:
    assert plain(b"abcdef", 3) == "abc…"
    assert plain(b"abc\x1b\xff", 9) == "abc\\x1b\\xff"


def test_details_are_told_without_the_quotes_of_bytes() -> None:
    assert worded("Expect b'more' and b\"it's\"") == 'Expect "more" and "it\'s"'
    assert worded("malformed authority") == "malformed authority"
    assert worded("a\x1b\udcff") == "a\\x1b\\xff"
