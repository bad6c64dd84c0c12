"""What a client is sent: preconditions before ranges before the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.cache.ranges import Span
from edge.coding.renditions import Shown
from edge.errors import ExchangeError, Failure
from edge.routing.rewrite import FieldEdits
from edge.serving.answer import (
    TO_THE_END,
    FieldRules,
    finished,
    for_its_client,
    from_entry,
    redirection,
    refusal,
)
from edge.wire.message import Headers, RequestHead, ResponseHead

BODY = 10


def entry(status: int = 200, *pairs: tuple[bytes, bytes]) -> Entry:
    return Entry(
        key=Key(b"k" * 16, b"http://site.example/a"),
        status=status,
        headers=Headers([(b"etag", b'"1"'), (b"content-type", b"text/plain"), *pairs]),
        times=Times(1000.0, 1000.0),
        date=1000.0,
        age_field=0,
        terms=Terms(60.0, Source.MAX_AGE),
        variant=(),
        length=BODY,
        fetched_at=Seq(0),
        keep_until=9000.0,
    )


def asking(method: bytes = b"GET", **fields: bytes) -> RequestHead:
    pairs = [(name.replace("_", "-").encode(), value) for name, value in fields.items()]
    return RequestHead(method, b"http", b"site.example", b"/a", Headers(pairs))


@pytest.mark.parametrize(
    ("request_head", "status", "pieces"),
    [
        (asking(), 200, (Span(0, BODY),)),
        (asking(b"HEAD"), 200, ()),
        (asking(if_none_match=b'"1"'), 304, ()),
        (asking(if_match=b'"2"'), 412, ()),
        (asking(if_none_match=b'"1"', range=b"bytes=0-1"), 304, ()),  # RFC 9110 §13.2.2
        (asking(range=b"bytes=2-3"), 206, (Span(2, 4),)),
        (asking(range=b"bytes=2-3", if_range=b'"2"'), 200, (Span(0, BODY),)),
        (asking(range=b"bytes=10-"), 416, ()),
        (asking(range=b"lines=1-2"), 200, (Span(0, BODY),)),
    ],
)
def test_conditions_come_before_ranges_and_ranges_before_the_whole(
    request_head: RequestHead, status: int, pieces: tuple[bytes | Span, ...]
) -> None:
    answer = from_entry(request_head, entry(), BODY, b"salt")
    assert (answer.head.status, answer.pieces) == (status, pieces)


def test_many_ranges_are_literal_heads_and_spans_of_the_announced_length() -> None:
    answer = from_entry(asking(range=b"bytes=0-0,9-9"), entry(), BODY, b"salt")
    assert answer.head.status == 206
    sizes = [len(p) if isinstance(p, bytes) else p.stop - p.start for p in answer.pieces]
    assert answer.head.headers.get(b"content-length") == b"%d" % sum(sizes)


def test_a_body_of_unknown_length_is_never_cut_and_read_to_its_end() -> None:
    answer = from_entry(asking(range=b"bytes=2-3"), entry(), None, b"salt")
    assert answer.head.status == 200
    assert answer.pieces == (Span(0, TO_THE_END),)
    assert b"content-length" not in answer.head.headers


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_content_has_no_pieces_and_no_length(status: int) -> None:
    answer = from_entry(asking(), entry(status), 0, b"salt")
    assert answer.pieces == ()
    assert b"content-length" not in answer.head.headers


def test_the_whole_has_the_length_that_is_stored_whatever_the_head_said() -> None:
    answer = from_entry(asking(), entry(200, (b"content-length", b"99")), BODY, b"salt")
    assert answer.head.headers.all(b"content-length") == [b"10"]


def test_what_was_withheld_from_the_store_is_given_to_whoever_fetched_it() -> None:
    stored = from_entry(asking(), entry(), BODY, b"salt")
    fetched = ResponseHead(
        200, Headers([(b"x-own", b"1"), (b"etag", b'"2"'), (b"connection", b"x-hop")])
    )
    shown = Shown(None, entry(), entry())
    own = for_its_client(stored, shown, fetched)
    assert own.head.headers.get(b"x-own") == b"1"
    assert own.head.headers.all(b"etag") == [b'"1"']
    assert b"connection" not in own.head.headers
    assert for_its_client(stored, shown, ResponseHead(200)) is stored


def test_nothing_withheld_tells_of_octets_that_its_client_does_not_get() -> None:
    source, octets = replace(entry(), headers=Headers()), Headers([(b"etag", b'"2"')])
    coded = Shown(None, replace(source, made_of=b"a"), source)
    answer = from_entry(asking(), coded.entry, BODY, b"salt")
    own = for_its_client(answer, coded, ResponseHead(200, octets.plus((b"x-own", b"1"))))
    assert own.head.headers.get(b"x-own") == b"1"
    assert b"etag" not in own.head.headers


def test_a_finished_head_has_its_age_its_place_in_the_chain_and_the_sites_rules() -> None:
    head = ResponseHead(
        200, Headers([(b"server", b"x"), (b"age", b"3"), (b"cache-status", b"shield; hit")])
    )
    rules = FieldRules(put=((b"x-a", b"1"),))
    told = finished(head, name=b"edge1", rules=rules, cache_status=b"edge1; hit", age=7.9)
    assert told.headers.get(b"age") == b"7"
    assert told.headers.all(b"cache-status") == [b"shield; hit, edge1; hit"]
    assert told.headers.get(b"x-a") == b"1"
    assert b"server" not in told.headers
    assert told.headers.get(b"via") == b"1.1 edge1"
    same = finished(head, name=b"edge1", rules=rules, cache_status=b"edge1; fwd=miss")
    assert same.headers.get(b"age") == b"3"


def test_a_sites_rules_come_after_all_else_and_its_own_fields_last() -> None:
    head = ResponseHead(200, Headers([(b"x-a", b"1"), (b"x-a", b"2"), (b"age", b"3")]))
    rules = FieldRules(
        frozenset({b"age", b"cache-status", b"x-a"}), put=((b"x-a", b"4"), (b"via", b"none"))
    )
    told = finished(head, name=b"edge1", rules=rules, cache_status=b"edge1; hit", age=7.9)
    assert sorted(told.headers) == [(b"via", b"none"), (b"x-a", b"4")]


def test_a_rule_has_its_say_after_its_site() -> None:
    rules = FieldRules(put=((b"x-a", b"1"), (b"x-b", b"1"))).then(
        FieldEdits(frozenset({b"x-a"}), put=((b"x-b", b"2"), (b"server", b"ours")))
    )
    head = ResponseHead(200, Headers([(b"server", b"theirs"), (b"x-powered-by", b"x")]))
    told = finished(head, name=b"edge1", rules=rules, cache_status=b"edge1; hit")
    own = [pair for pair in told.headers if pair[0] not in (b"via", b"cache-status")]
    assert own == [(b"x-b", b"2"), (b"server", b"ours")]


@pytest.mark.parametrize("failure", list(Failure))
def test_a_refusal_is_neutral_and_of_its_own_length(failure: Failure) -> None:
    head, body = refusal(ExchangeError(failure, "10.0.0.1 /var/secret"), "id-1", 0.0)
    assert head.status == failure.status
    assert b"id-1" in body
    assert b"secret" not in body
    assert head.headers.get(b"content-length") == b"%d" % len(body)
    assert head.headers.get(b"cache-control") == b"no-store"
    assert (b"allow" in head.headers) == (failure.status == 405)
    assert (b"retry-after" in head.headers) == (failure.status == 503)


def test_cookies_are_for_this_client_beside_those_of_the_answer_whatever_the_site_removes() -> (
    None
):
    head = ResponseHead(200, Headers([(b"set-cookie", b"own=1"), (b"etag", b'"1"')]))
    rules = FieldRules(frozenset({b"server"}), put=((b"x-a", b"1"),))
    told = finished(
        head, name=b"edge1", rules=rules, cache_status=b"edge1; hit", cookies=(b"ab=a", b"cd=b")
    )
    assert told.headers.all(b"set-cookie") == [b"own=1", b"ab=a", b"cd=b"]
    assert told.headers.pairs[-3:] == (
        (b"set-cookie", b"ab=a"),
        (b"set-cookie", b"cd=b"),
        (b"cache-control", b"private"),
    )
    strict = FieldRules(frozenset({b"set-cookie"}))
    kept = finished(
        head, name=b"edge1", rules=strict, cache_status=b"edge1; hit", cookies=(b"ab=a",)
    )
    assert kept.headers.all(b"set-cookie") == [b"ab=a"]  # or visitors would be drawn for ever
    assert head.headers.all(b"set-cookie") == [b"own=1"]  # what is stored never has them


def test_without_cookies_a_head_is_finished_as_if_there_were_no_such_thing() -> None:
    head = ResponseHead(200, Headers([(b"etag", b'"1"')]))
    told = finished(head, name=b"edge1", rules=FieldRules(), cache_status=b"edge1; hit")
    assert b"set-cookie" not in told.headers
    assert b"cache-control" not in told.headers


def test_what_gives_a_visitor_an_arm_is_for_no_shared_cache_whatever_the_answer_says() -> None:
    """Another cache before this one may store Set-Cookie (RFC 9111 §7.3), for all behind it."""
    head = ResponseHead(200, Headers([(b"cache-control", b"public, max-age=60")]))
    rules = FieldRules(frozenset({b"cache-control"}))
    told = finished(
        head, name=b"edge1", rules=FieldRules(), cache_status=b"edge1; hit", cookies=(b"ab=a",)
    )
    assert told.headers.all(b"cache-control") == [b"public, max-age=60", b"private"]
    kept = finished(
        head, name=b"edge1", rules=rules, cache_status=b"edge1; hit", cookies=(b"ab=a",)
    )
    assert kept.headers.all(b"cache-control") == [b"private"]
    plain = finished(head, name=b"edge1", rules=FieldRules(), cache_status=b"edge1; hit")
    assert plain.headers.all(b"cache-control") == [b"public, max-age=60"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_a_whole_answer_without_content(status: int) -> None:
    head = redirection(status, b"https://b.example/x")
    assert head.status == status
    assert head.headers.pairs == (
        (b"location", b"https://b.example/x"),
        (b"content-length", b"0"),
    )
