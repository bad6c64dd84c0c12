"""Each coding has a tag of its own that leads back to the origin's; no field lies of octets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.coding.negotiate import Coding
from edge.coding.representation import (
    MARK_DIGITS,
    coded_headers,
    coded_tag,
    decoded_headers,
    mark_of,
    plain_tag,
    varied_headers,
)
from edge.wire.fields import EntityTag, parse_entity_tag
from edge.wire.message import Headers, Pair

CODINGS = [coding for coding in Coding if coding is not Coding.IDENTITY]
MARK = mark_of(b"one encoding")

opaques = st.one_of(
    st.text("abc-._0123456789 brzstdgip", max_size=30).map(str.encode),
    st.binary(max_size=20).filter(lambda raw: parse_entity_tag(b'"%b"' % raw) is not None),
)
tags = st.builds(EntityTag, opaques, st.booleans())
codings = st.sampled_from(CODINGS)
marks = st.binary(min_size=1, max_size=8).map(mark_of)


@given(tag=tags, coding=codings, mark=marks)
def test_a_coded_tag_leads_back_to_the_plain_one(
    tag: EntityTag, coding: Coding, mark: bytes
) -> None:
    coded = coded_tag(tag, coding, mark)
    assert plain_tag(coded) == (tag, coding)
    assert coded.weak is tag.weak
    assert not coded.is_weakly(tag)
    assert parse_entity_tag(coded.format()) == coded


@given(tag=tags, first=codings, second=codings, one=marks, other=marks)
def test_two_codings_share_a_tag_only_if_they_are_one(
    tag: EntityTag, first: Coding, second: Coding, one: bytes, other: bytes
) -> None:
    is_one = coded_tag(tag, first, one) == coded_tag(tag, second, other)
    assert is_one is ((first, one) == (second, other))


@given(tag=tags)
def test_what_is_not_ours_is_left_alone(tag: EntityTag) -> None:
    plain, coding = plain_tag(tag)
    if coding is None:
        assert plain is tag
    else:
        assert tag.opaque.startswith(plain.opaque + b"-" + coding.token + b".")


@pytest.mark.parametrize(
    "opaque",
    [b"abc-gzip", b"abc-br", b"abc;br", b"abc-br.", b"abc-br.12", b"abc-br.1234567g", b"",
     b"abc-br.123456789", b"abc-identity.12345678", b"abc-BR.12345678", b"abc-br.1234ABCD"],
)  # fmt: skip
def test_other_servers_suffixes_are_not_ours(opaque: bytes) -> None:
    assert plain_tag(EntityTag(opaque)) == (EntityTag(opaque), None)


def test_marks_are_short_digits_and_differ() -> None:
    found = {mark_of(b"%d" % number) for number in range(1000)}
    assert len(found) == 1000
    assert {len(mark) for mark in found} == {MARK_DIGITS}


def test_a_coded_form_has_fields_of_its_own() -> None:
    plain = Headers(
        [
            (b"content-type", b"text/html"), (b"content-length", b"9"), (b"etag", b'"v7"'),
            (b"last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT"), (b"accept-ranges", b"bytes"),
            (b"content-md5", b"x"), (b"digest", b"x"), (b"content-digest", b"x"),
            (b"repr-digest", b"x"), (b"vary", b"Cookie"), (b"x-own", b"1"),
        ]
    )  # fmt: skip
    assert coded_headers(plain, Coding.BR, MARK) == Headers(
        [
            (b"content-type", b"text/html"),
            (b"last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT"), (b"accept-ranges", b"bytes"),
            (b"vary", b"Cookie, Accept-Encoding"), (b"x-own", b"1"),
            (b"content-encoding", b"br"), (b"etag", b'"v7-br.%b"' % MARK),
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("etag", "coded"),
    [
        (b'W/"v7"', b'W/"v7-zstd.%b"' % MARK),
        (b'""', b'"-zstd.%b"' % MARK),
        (b"v7", None),  # not a tag: nothing could be told apart by it
        (b'w/"v7"', None),
        (None, None),
    ],
)
def test_the_tag_of_a_coded_form(etag: bytes | None, coded: bytes | None) -> None:
    plain = Headers([] if etag is None else [(b"etag", etag)])
    assert coded_headers(plain, Coding.ZSTD, MARK).get(b"etag") == coded


def test_identity_has_no_coded_fields() -> None:
    with pytest.raises(ValueError, match="identity"):
        coded_headers(Headers(), Coding.IDENTITY, MARK)


@pytest.mark.parametrize(
    ("lines", "merged"),
    [
        ((), b"Accept-Encoding"),
        ((b"Cookie",), b"Cookie, Accept-Encoding"),
        ((b"cookie", b"Origin"), b"cookie, Origin, Accept-Encoding"),
        ((b"accept-encoding",), b"accept-encoding"),
        ((b"Cookie,ACCEPT-ENCODING",), b"Cookie,ACCEPT-ENCODING"),
        ((b"*",), b"*"),
        ((b"Cookie, *",), b"Cookie, *"),
        ((b"",), b"Accept-Encoding"),
    ],
)
def test_vary_is_merged(lines: tuple[bytes, ...], merged: bytes) -> None:
    varied = varied_headers(Headers((b"vary", line) for line in lines))
    assert varied.all(b"vary") == [merged]
    assert varied_headers(varied) == varied


def test_a_dictionary_is_varied_on_too() -> None:
    said = Headers([(b"vary", b"Accept-Encoding")])
    both = [b"Accept-Encoding, Available-Dictionary"]
    assert varied_headers(said, by_dictionary=True).all(b"vary") == both
    assert coded_headers(said, Coding.DCZ, MARK).all(b"vary") == both


def test_what_was_decoded_has_a_weak_tag_and_no_coding() -> None:
    coded = Headers(
        [
            (b"etag", b'"v7"'),
            (b"content-encoding", b"gzip"),
            (b"content-length", b"9"),
            (b"a", b"b"),
        ]
    )
    assert decoded_headers(coded) == Headers(
        [(b"a", b"b"), (b"etag", b'W/"v7"'), (b"vary", b"Accept-Encoding")]
    )
    assert b"etag" not in decoded_headers(Headers([(b"etag", b"v7")]))


pairs: st.SearchStrategy[Pair] = st.tuples(
    st.sampled_from([b"etag", b"vary", b"x"]),
    st.binary(max_size=40),
)


@given(lines=st.lists(pairs, max_size=5), coding=codings)
def test_no_fields_raise(lines: list[Pair], coding: Coding) -> None:
    headers = Headers(lines)
    coded_headers(headers, coding, MARK)
    decoded_headers(headers)
