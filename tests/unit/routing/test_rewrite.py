"""A rewrite ends in normal form where the rule says, a redirect on the rule's host, and fields
that carry framing, selection or the node's own word are nobody's to edit."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from edge.errors import ProtocolError
from edge.routing.rewrite import (
    ANY_PATH,
    NOT_TO_CLIENT,
    NOT_TO_ORIGIN,
    FieldEdits,
    PathRewrite,
    PrefixRewrite,
    Redirect,
    check_prefix,
    check_to_origin,
    with_prefix,
)
from edge.routing.site import Glob
from edge.wire.hop import HOP_BY_HOP
from edge.wire.message import Headers, Pair, RequestHead
from edge.wire.target import normalise, parse_request_target, split_target

# --- fields -------------------------------------------------------------------


def test_fields_are_taken_out_and_others_put_in_their_place() -> None:
    edits = FieldEdits(frozenset({b"cookie"}), ((b"x-a", b"1"), (b"x-b", b"2")))
    headers = Headers([(b"cookie", b"a"), (b"x-a", b"0"), (b"accept", b"*/*"), (b"x-a", b"9")])
    assert edits.applied(headers).pairs == ((b"accept", b"*/*"), (b"x-a", b"1"), (b"x-b", b"2"))
    assert FieldEdits().applied(headers) is headers


field_names = st.sampled_from([b"a", b"b", b"c"])
edits_of = st.builds(
    FieldEdits,
    st.frozensets(field_names),
    st.lists(st.tuples(field_names, st.sampled_from([b"1", b"2"])), max_size=3).map(tuple),
)
fields = st.lists(st.tuples(field_names, st.just(b"0")), max_size=4).map(Headers)


@given(edits_of, edits_of, fields)
def test_two_edits_in_one_are_the_two_in_turn(
    first: FieldEdits, second: FieldEdits, headers: Headers
) -> None:
    in_turn = second.applied(first.applied(headers))
    assert sorted(first.then(second).applied(headers)) == sorted(in_turn)


@given(edits_of, fields)
def test_an_edit_made_twice_is_made_once(edits: FieldEdits, headers: Headers) -> None:
    once = edits.applied(headers)
    assert edits.applied(once) == once
    assert {name for name, _ in once} & edits.remove <= dict(edits.put).keys()


@pytest.mark.parametrize(
    "name",
    [
        *(b"host", b"connection", b"transfer-encoding", b"content-length", b"te", b"upgrade"),
        *(b"accept-encoding", b"range", b"if-none-match", b"via", b"cdn-loop", b"forwarded"),
        *(b"x-forwarded-for", b"x_forwarded_for", b"x-geo-country", b"edge-proof", b"expect"),
    ],
)
def test_no_site_edits_what_frames_selects_or_is_the_nodes_word_to_an_origin(name: bytes) -> None:
    for edits in (FieldEdits(frozenset({name})), FieldEdits(put=((name, b"1"),))):
        [words] = check_to_origin(edits)
        assert repr(name) in words
        assert "leave it out" in words


def test_a_site_may_drop_cookies_and_speak_for_itself_to_its_origin() -> None:
    edits = FieldEdits(frozenset({b"cookie", b"referer"}), ((b"authorization", b"Basic eA=="),))
    assert list(check_to_origin(edits)) == []


def test_what_is_for_one_hop_is_edited_neither_way() -> None:
    assert HOP_BY_HOP <= NOT_TO_CLIENT & NOT_TO_ORIGIN


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ((b"X-A", b"1"), "use lower-case letters"),
        ((b"x a", b"1"), "no field name"),
        ((b"", b"1"), "no field name"),
        ((b"x-a", b""), "no field value"),
        ((b"x-a", b" 1"), "no field value"),
        ((b"x-a", b"1\r\nx-b: 2"), "no line ends"),
        ((b"x-a", b"\xff"), "bytes of ASCII"),
        ((b"x-a", b"1" * 5_000), "up to 4096 bytes"),
    ],
)
def test_names_and_values_are_checked_with_words(pair: Pair, words: str) -> None:
    [said] = check_to_origin(FieldEdits(put=(pair,)))
    assert words in said


# --- paths --------------------------------------------------------------------

# What readers disagree about: dots, escapes of dots and delimiters, parameters, empty segments.
pieces = st.sampled_from(b"/ / // old a . .. %2e %252e %2F %2f %5C %3B ; ;x % 2 F 25 41".split())
raw_paths = st.lists(pieces, max_size=8).map(lambda some: b"/" + b"".join(some))


def normal(path: bytes) -> bytes:
    try:
        return normalise(path)
    except ProtocolError:
        assume(False)
        raise


paths = raw_paths.map(normal)
old_paths = raw_paths.map(lambda path: normal(b"/old" + path))
queries = st.sampled_from([b"", b"?", b"?a=b&..", b"?//evil.example"])


def as_a_careless_origin(path: bytes) -> bytes:
    """The path that an origin sees which decodes first, then drops parameters, then climbs."""
    decoded = unquote_to_bytes(path).replace(b"\\", b"/")
    kept: list[bytes] = []
    for segment in decoded.split(b"/")[1:]:
        name = segment.partition(b";")[0]
        if name == b"..":
            del kept[-1:]
        elif name != b".":
            kept.append(name)
    return b"/" + b"/".join(kept)


def is_target(target: bytes) -> bool:
    return parse_request_target(b"GET", target, [b"a.example"], b"http")[2] == target


REWRITES = [
    PathRewrite.parse(b"/old/*", b"/new/in/*"),
    PathRewrite.parse(b"/old*", b"/new/in/*"),
    PathRewrite.parse(b"/old/*a*", b"/new/in/*b*"),
    PathRewrite.parse(b"/old/*", b"/new/in/x*.html"),
    PathRewrite.parse(b"*", b"/new/in*"),
    PathRewrite.parse(b"/old/*2*", b"/new/in/*41*"),
]


@given(st.sampled_from(REWRITES), old_paths | paths, queries)
@example(REWRITES[1], b"/old..", b"")
@example(REWRITES[1], b"/old../secret", b"")
@example(REWRITES[0], b"/old/..%2F..%2Fsecret", b"")
@example(REWRITES[0], b"/old/..;/..;/secret", b"")
@example(REWRITES[0], b"/old/a%5C..%5C..%5Csecret", b"")
@example(REWRITES[5], b"/old/%2F", b"")
def test_a_rewritten_path_is_normal_and_no_reader_sees_it_leave(
    rewrite: PathRewrite, path: bytes, query: bytes
) -> None:
    try:
        asked = rewrite.applied(path + query)
    except ProtocolError:
        return  # refused, never half done
    if not rewrite.source.matches(path):
        assert asked == path + query
        return
    made = split_target(asked).path
    assert is_target(asked)
    assert asked == made + query
    assert normalise(made) == made
    assert made.startswith(rewrite.to.parts[0])
    assert as_a_careless_origin(made).startswith(b"/new/in")


@given(st.text("/ab.-", max_size=12).filter(lambda text: "/." not in "/" + text))
def test_plain_paths_are_never_refused(text: str) -> None:
    path = b"/" + text.encode()
    assert PathRewrite.parse(b"/*", b"/new/*").applied(path) == b"/new" + path


@pytest.mark.parametrize(
    ("source", "to", "target", "asked"),
    [
        (b"/old/*", b"/new/*", b"/old/a/b?c=d", b"/new/a/b?c=d"),
        (b"/old/*", b"/new/*", b"/old/", b"/new/"),
        (b"/old/*", b"/new/*", b"/old", b"/old"),
        (b"/old/*", b"/new", b"/old/a?", b"/new?"),
        (b"/*/v1/*.json", b"/api/*/*", b"/shop/v1/a.json", b"/api/shop/a"),
        (b"/a", b"/b", b"/a?x", b"/b?x"),
        (b"*", b"/new*", b"/a", b"/new/a"),
        (b"/old/*", b"/new/*", b"*", b"*"),
    ],
)
def test_stars_carry_over_in_their_order(
    source: bytes, to: bytes, target: bytes, asked: bytes
) -> None:
    assert PathRewrite.parse(source, to).applied(target) == asked


def test_a_query_is_dropped_where_the_rule_says_so() -> None:
    assert PathRewrite.parse(b"/a", b"/b", keep_query=False).applied(b"/a?x") == b"/b"
    assert PrefixRewrite.parse(b"/a", b"/b", keep_query=False).applied(b"/a/?x") == b"/b/"


@pytest.mark.parametrize(
    ("source", "to", "words"),
    [
        (b"/a", b"/b*", "has 1 stars for 0; take some out"),
        (b"/a*", b"b*", "is no path to rewrite to"),
        (b"/a*", b"*", "is no path to rewrite to"),
        (b"/a*", b"/b?c=*", "is no path to rewrite to"),
        (b"/a*", b"/../*", "is no path to rewrite to"),
        (b"/a*", b"/%2e%2e/*", "is no path to rewrite to"),
        (b"/a*", b"/b c*", "is no path to rewrite to"),
        (b"/a%2*", b"/b*", "ends within an escape"),
        (b"/a*", b"/b%*", "ends within an escape"),
    ],
)
def test_a_rule_that_no_request_could_follow_is_refused(
    source: bytes, to: bytes, words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        PathRewrite.parse(source, to)


@pytest.mark.parametrize(
    ("strip", "add", "target", "asked"),
    [
        (b"/app", b"", b"/app/a?b", b"/a?b"),
        (b"/app", b"", b"/app", b"/"),
        (b"/app", b"/v2", b"/app", b"/v2"),
        (b"/app", b"/v2", b"/app/", b"/v2/"),
        (b"/app", b"/v2", b"/apple", b"/apple"),
        (b"/app", b"/v2", b"/other/app/", b"/other/app/"),
        (b"", b"/v2", b"/a?b", b"/v2/a?b"),
        (b"", b"", b"/a?b", b"/a?b"),
        (b"", b"/v2", b"*", b"*"),
    ],
)
def test_a_prefix_ends_where_a_segment_does(
    strip: bytes, add: bytes, target: bytes, asked: bytes
) -> None:
    assert PrefixRewrite.parse(strip, add).applied(target) == asked


@given(old_paths, queries)
@example(b"/old/..%2Fsecret", b"")
def test_nothing_is_stripped_or_added_around_a_path_that_leaves(path: bytes, query: bytes) -> None:
    for rewrite in (
        PrefixRewrite.parse(b"/old", b"/new/in"),
        PrefixRewrite.parse(b"", b"/new/in"),
    ):
        try:
            asked = rewrite.applied(path + query)
        except ProtocolError:
            continue
        if asked != path + query:
            made = split_target(asked).path
            assert is_target(asked)
            assert normalise(made) == made
            assert as_a_careless_origin(made).startswith(b"/new/in")


@given(paths, queries)
def test_a_prefix_put_and_taken_off_is_the_path_again(path: bytes, query: bytes) -> None:
    try:
        put = with_prefix(b"/new", path + query)
    except ProtocolError:
        return
    assert PrefixRewrite.parse(b"/new", b"").applied(put) == path + query
    assert put == PrefixRewrite.parse(b"", b"/new").applied(path + query)


def test_no_prefix_and_no_path_change_nothing() -> None:
    assert with_prefix(b"", b"/..%2F") == b"/..%2F"
    assert with_prefix(b"/new", b"*") == b"*"


@pytest.mark.parametrize("bad", [b"new", b"/new/", b"/", b"/a/../b", b"/a?b", b"/a b", b"/..%2Fa"])
def test_a_prefix_is_checked_with_words(bad: bytes) -> None:
    [words] = check_prefix(bad)
    assert 'write it like "/new"' in words
    with pytest.raises(ValueError, match="is no prefix"):
        PrefixRewrite.parse(b"/a", bad)
    assert list(check_prefix(b"/new/v2")) == []


def test_a_long_path_costs_no_more_than_its_length() -> None:
    long = b"/" + b"a/" * 100_000
    rewrite = PathRewrite.parse(b"*a*a*a*b", b"/x")
    assert rewrite.applied(long) == long
    assert len(PathRewrite.parse(b"/*/*", b"/*-*").applied(long)) == len(long)


# --- redirects ----------------------------------------------------------------


def get(
    target: bytes, authority: bytes = b"shop.example", scheme: bytes = b"https"
) -> RequestHead:
    return RequestHead(b"GET", scheme, authority, target)


@pytest.mark.parametrize(
    ("to", "source", "target", "location"),
    [
        (b"/new/*", b"/old/*", b"/old/a?b=c", b"https://shop.example/new/a?b=c"),
        (b"/new", b"/old/*", b"/old/a", b"https://shop.example/new"),
        (b"https://www.example/*", b"/*", b"/a/b?c", b"https://www.example/a/b?c"),
        (b"http://WWW.example:80/x*", b"/*", b"/a", b"http://www.example/xa"),
        (b"https://www.example:8443/", b"/*", b"/a", b"https://www.example:8443/"),
        (b"/new?from=old", b"/old", b"/old?a=b", b"https://shop.example/new?from=old&a=b"),
        (b"/new?from=old", b"/old", b"/old", b"https://shop.example/new?from=old"),
        (b"/*", b"/old/*", b"/old//evil.example", b"https://shop.example//evil.example"),
        (b"/new/*", b"/old/*", b"/other", None),
        (b"/new/*", b"/old/*", b"*", None),
    ],
)
def test_a_client_is_sent_to_the_path_on_its_own_host_or_to_the_url(
    to: bytes, source: bytes, target: bytes, location: bytes | None
) -> None:
    assert Redirect.parse(to, source=Glob.parse(source)).location(get(target)) == location


def test_the_query_stays_behind_where_the_rule_says_so() -> None:
    redirect = Redirect.parse(b"/new?a=b", keep_query=False, status=308)
    assert redirect.location(get(b"/old?c=d")) == b"https://shop.example/new?a=b"
    assert redirect.status == 308


def test_nobody_is_sent_to_where_they_are() -> None:
    canonical = Redirect.parse(b"https://www.example/*")
    assert canonical.location(get(b"/a?b", b"www.example")) is None
    assert canonical.location(get(b"/a?b", b"www.example", b"http")) is not None
    assert canonical.location(get(b"/a?b", b"example")) == b"https://www.example/a?b"


def test_where_no_host_was_named_none_can_be_smuggled_in() -> None:
    redirect = Redirect.parse(b"/*", source=Glob.parse(b"/old/*"))
    assert redirect.location(get(b"/old//evil.example/", b"")) == b"/evil.example/"
    assert redirect.location(get(b"/old/%2Fevil.example/", b"")) == b"/%2Fevil.example/"


REDIRECTS = [
    Redirect.parse(to, source=Glob.parse(source))
    for to in (b"/*", b"/new/*", b"https://new.example/*", b"https://new.example/a*?b")
    for source in (b"/*", b"/old*", b"/old/*")
]
evil = st.sampled_from(
    [b"/old//evil.example", b"/old/@evil.example", b"/old.evil.example", b"//evil"]
)
junk = st.binary(max_size=12).map(lambda some: b"/old" + some)
junk_queries = st.binary(max_size=8).map(lambda some: b"?" + some)


@given(st.sampled_from(REDIRECTS), old_paths | paths | evil | junk, queries | junk_queries)
@example(REDIRECTS[0], b"//evil.example", b"")
@example(REDIRECTS[3], b"/a", b"?\r\nSet-Cookie: a=b")
@example(REDIRECTS[6], b"/.evil.example", b"")
def test_no_request_chooses_the_host_or_ends_the_field(
    redirect: Redirect, path: bytes, query: bytes
) -> None:
    for authority in (b"shop.example", b""):
        try:
            location = redirect.location(get(path + query, authority))
        except ProtocolError:
            continue
        if location is None:
            continue
        assert re.fullmatch(rb"[\x21\x22\x24-\x7e]+", location)
        host = b"new.example" if redirect.base else authority
        parts = urlsplit(location.decode())
        assert parts.netloc == host.decode()
        assert parts.scheme == ("https" if host else "")
        assert parts.path.startswith("/")


@pytest.mark.parametrize(
    "to",
    [
        *(b"", b"new", b"//evil.example/", b"https://", b"https:///a", b"https://a.example"),
        *(b"https://*/a", b"https://a.example*", b"https://a.example/b?c=*", b"/a#b", b"/a b"),
        *(b"ftp://a.example/", b"javascript:alert(1)", b"/a\r\nb", b"/../a", b"/a*b*"),
        *(b"https://user@a.example/", b"https://a..example/", b"https://a.example:99999/"),
    ],
)
def test_a_redirect_to_nowhere_is_refused(to: bytes) -> None:
    with pytest.raises(ValueError, match=r"write|take some out|no host to send to"):
        Redirect.parse(to)


@pytest.mark.parametrize("status", [200, 300, 304, 305, 306, 400])
def test_a_status_that_redirects_nobody_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match="use 301, 302, 303, 307 or 308"):
        Redirect.parse(b"/a", status=status)


def test_a_redirect_is_for_any_path_unless_it_is_told() -> None:
    assert Redirect.parse(b"/a").source == ANY_PATH
    assert ANY_PATH.matches(b"/")
