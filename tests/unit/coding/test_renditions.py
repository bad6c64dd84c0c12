"""What a coded variant is: its key, its head, which body it fits, whose conditions it meets."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.cache.held import Held, Resource
from edge.cache.shards import owner_of
from edge.coding import renditions
from edge.coding.negotiate import Coding, acceptance
from edge.coding.policy import CompressPolicy, Stays
from edge.wire.message import Headers, RequestHead, ResponseHead

POLICY: Final = CompressPolicy(codings=(Coding.BR, Coding.ZSTD, Coding.GZIP))
CODED: Final = (Coding.BR, Coding.ZSTD, Coding.GZIP)
HTML: Final = ((b"content-type", b"text/html"), (b"etag", b'"1"'))
GZIPPED: Final = ((b"content-encoding", b"gzip"),)
VALUES: Final = st.sampled_from(
    [None, b"", b"br", b"gzip, br", b"*", b"identity;q=0", b"br;q=0, gzip", b"zstd;q=0.5", b"x"]
)


def entry(*fields: tuple[bytes, bytes], **changes: object) -> Entry:
    made = Entry(
        key=Key(bytes(range(16)), b"http://site.example/a"),
        status=200,
        headers=Headers(fields or HTML),
        times=Times(1.0, 2.0),
        date=1.0,
        age_field=0,
        terms=Terms(60.0, Source.MAX_AGE),
        variant=(),
        length=10_000,
        fetched_at=Seq(0),
        keep_until=100.0,
        scopes=b"12345678",
        body=b"a body's",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def request(accepts: bytes | None = None, *fields: tuple[bytes, bytes]) -> RequestHead:
    told = () if accepts is None else ((b"accept-encoding", accepts),)
    return RequestHead(b"GET", b"http", b"site.example", b"/a", Headers((*told, *fields)))


@given(st.binary(min_size=16, max_size=16))
def test_a_derived_key_has_the_same_owner_and_is_no_others(digest: bytes) -> None:
    keys = {
        renditions.key_of(Key(digest, b"u"), coding).digest for coding in (*CODED, Coding.IDENTITY)
    }
    assert len(keys | {digest}) == 5
    for each in keys:
        assert len(each) == 16
        assert owner_of(each, 64, 7) == owner_of(digest, 64, 7)


@given(VALUES)
def test_what_is_chosen_is_accepted(accepts: bytes | None) -> None:
    wished = renditions.wish(request(accepts), POLICY)
    chosen = renditions.coding_for(entry(), wished, POLICY)
    told = acceptance(accepts)
    if chosen is not None:
        assert told.accepts(chosen)
    gzipped = entry(*HTML, *GZIPPED)
    recoded = renditions.coding_for(gzipped, wished, POLICY)
    assert recoded is not Coding.GZIP
    accepted = [coding for coding in (*CODED, Coding.IDENTITY) if told.accepts(coding)]
    if Coding.GZIP in accepted and told.gzip >= told.identity:
        assert recoded is None  # it costs nothing
    elif accepted:
        assert recoded is not None
        assert told.weight(recoded) == max(map(told.weight, accepted))


def test_a_hundred_values_come_to_four_codings() -> None:
    told = [
        b"%b;q=0.%d" % pair for pair in product((b"br", b"gzip", b"zstd", b"exi"), range(1, 26))
    ]
    assert len(told) == 100
    wished = {renditions.wish(request(value), POLICY).coding for value in told}
    assert wished == {Coding.BR, Coding.GZIP, Coding.ZSTD, None}


def test_nothing_is_chosen_where_it_does_not_pay() -> None:
    wished = renditions.wish(request(b"br"), POLICY)
    assert renditions.coding_for(entry(), wished, POLICY) is Coding.BR
    short = entry(*HTML, (b"content-length", b"100"))
    assert renditions.coding_for(short, wished, POLICY) is None
    assert renditions.coding_for(entry(length=100), wished, POLICY) is Coding.BR  # nobody told
    assert renditions.coding_for(entry((b"content-type", b"image/png")), wished, POLICY) is None
    held = entry(*HTML, (b"cache-control", b"no-transform"))
    assert renditions.coding_for(held, wished, POLICY) is None
    untouched = renditions.wish(request(b"br", (b"cache-control", b"no-transform")), POLICY)
    assert renditions.coding_for(entry(), untouched, POLICY) is None
    part = ResponseHead(206, Headers((*HTML, (b"content-encoding", b"gzip"))))
    assert renditions.coding_of(part, wished, POLICY) is None


@pytest.mark.parametrize(
    ("came", "accepts", "status", "found"),
    [
        (None, b"br", 200, Coding.BR),
        (None, b"x", 200, Stays.UNASKED),
        (None, b"br", 206, Stays.STATUS),
        (b"gzip", b"gzip", 200, Stays.ACCEPTED),
        (b"gzip", b"gzip;q=0.1, br", 200, Stays.ACCEPTED),
        (b"gzip", b"*", 200, Stays.ACCEPTED),
        (b"gzip", b"br", 200, Coding.BR),
        (b"gzip", b"gzip;q=0, *", 200, Coding.BR),
        (b"gzip", b"zstd;q=0.5, gzip;q=0", 200, Coding.ZSTD),
        (b"gzip", b"zstd, identity;q=0", 200, Coding.ZSTD),
        (b"br", b"gzip", 200, Coding.GZIP),
        (b"gzip", b"identity", 200, Coding.IDENTITY),
        (b"gzip", b"identity, br;q=0.5", 200, Coding.IDENTITY),
        (b"gzip", b"br", 500, Coding.IDENTITY),
        (b"gzip", b"br, identity;q=0", 500, Stays.REFUSED),
        (b"gzip", b"identity;q=0", 200, Stays.REFUSED),
        (b"gzip", b"br", 206, Stays.STATUS),
        (b"dcz", b"br", 200, Stays.CODED),
        (b"gzip, br", b"br", 200, Stays.CODED),
    ],
)
def test_what_goes_as_it_came_has_a_reason(
    came: bytes | None, accepts: bytes, status: int, found: Coding | Stays
) -> None:
    fields = HTML if came is None else (*HTML, (b"content-encoding", came))
    head, wished = ResponseHead(status, Headers(fields)), renditions.wish(request(accepts), POLICY)
    assert renditions.judgement(head, wished, POLICY) is found
    coding = found if isinstance(found, Coding) else None
    assert renditions.coding_of(head, wished, POLICY) is coding


def test_what_does_not_pay_is_decoded_and_no_more() -> None:
    wished = renditions.wish(request(b"br"), POLICY)
    for fields in (
        (*HTML, *GZIPPED, (b"content-length", b"100000000")),
        (*GZIPPED, (b"content-type", b"image/png")),
    ):
        assert renditions.coding_for(entry(*fields), wished, POLICY) is Coding.IDENTITY


def test_a_client_or_an_origin_may_forbid_it() -> None:
    untouched = renditions.wish(request(b"br", (b"cache-control", b"no-transform")), POLICY)
    plain, coded_ = (ResponseHead(200, Headers((*HTML, *more))) for more in ((), GZIPPED))
    assert renditions.judgement(plain, untouched, POLICY) is Stays.FORBIDDEN
    assert renditions.judgement(coded_, untouched, POLICY) is Stays.FORBIDDEN
    signed = ResponseHead(200, Headers((*HTML, *GZIPPED, (b"signature", b"x"))))
    wished = renditions.wish(request(b"br"), POLICY)
    assert renditions.judgement(signed, wished, POLICY) is Stays.HELD


@pytest.mark.parametrize("coding", [*CODED, Coding.IDENTITY])
def test_a_variant_is_its_source_under_other_fields(coding: Coding) -> None:
    source = (
        entry() if coding is not Coding.IDENTITY else entry(*HTML, (b"content-encoding", b"br"))
    )
    made = renditions.entry_of(source, coding, b"12345678", 99)
    assert (made.times, made.terms, made.scopes) == (source.times, source.terms, source.scopes)
    assert (made.length, made.body, made.made_of) == (99, b"12345678", source.body)
    said = made.headers.get(b"content-encoding")
    assert said == (None if coding is Coding.IDENTITY else coding.token)
    assert made.headers.get(b"etag") != source.headers.get(b"etag")
    assert b"accept-encoding" in (made.headers.get(b"vary") or b"").lower()
    renewed = replace(source, terms=Terms(5.0, Source.MAX_AGE))
    now = renditions.as_now(renewed, made, coding)
    assert now == replace(made, terms=renewed.terms)
    assert renditions.judged(now, request()).headers.get(b"etag") in (b'"1"', b'W/"1"')
    part = request(b"br", (b"range", b"bytes=0-9"), (b"if-match", TAG))
    assert renditions.judged(now, part) is now


def test_two_variants_of_one_body_have_tags_of_their_own() -> None:
    one, other = (renditions.entry_of(entry(), Coding.BR, body) for body in (b"1", b"2"))
    assert one.headers.get(b"etag") != other.headers.get(b"etag")


def test_a_variant_fits_one_body_and_one_variant_alone() -> None:
    source = entry()
    variant = Held(renditions.entry_of(source, Coding.BR, b"1", 5))
    resource = Resource(
        (Held(renditions.entry_of(entry(body=b"old"), Coding.BR, b"2", 5)), variant)
    )
    assert renditions.fitting(resource, source) is variant
    assert (
        renditions.fitting(resource, replace(source, terms=Terms(1.0, Source.EXPIRES))) is variant
    )
    assert renditions.fitting(resource, replace(source, body=b"another")) is None
    assert renditions.fitting(resource, replace(source, variant=((b"cookie", b"a=1"),))) is None
    assert renditions.fitting(resource, replace(source, body=b"")) is None
    unmarked = Held(renditions.entry_of(entry(body=b""), Coding.BR, b"1", 5))
    assert renditions.fitting(Resource((unmarked,)), entry(body=b"")) is unmarked


def test_only_what_is_chosen_among_is_told_to_vary() -> None:
    assert b"vary" in renditions.plain(entry(), POLICY).headers
    assert (
        b"vary" in renditions.plain(entry(*HTML, (b"content-encoding", b"gzip")), POLICY).headers
    )
    image = entry((b"content-type", b"image/png"))
    assert renditions.plain(image, POLICY) is image
    held = entry(*HTML, *GZIPPED, (b"cache-control", b"no-transform"))
    assert renditions.plain(held, POLICY) is held
    part = Headers((*HTML, *GZIPPED, (b"content-range", b"bytes 0-9/10")))
    assert renditions.is_chosen(ResponseHead(206, part), POLICY)  # as of what it is a part


@given(VALUES)
def test_all_ask_the_origin_for_the_same(accepts: bytes | None) -> None:
    asked = renditions.asked(request(accepts).headers, POLICY)
    assert asked.all(b"accept-encoding") == [b"identity"]
    assert renditions.asked(asked, POLICY) == asked
    stored_coded = renditions.asked(request(accepts).headers, replace(POLICY, ask="coded"))
    assert stored_coded.all(b"accept-encoding") == [renditions.ASKED_CODED]


TAG: Final = b'"1-br.0123abcd"'


@pytest.mark.parametrize(
    ("accepts", "told", "asked"),
    [
        (b"br", TAG, b'%b, "1"' % TAG),
        (b"br", b'"0", %b, "1"' % TAG, b'"0", %b, "1"' % TAG),
        (b"br", b"W/" + TAG, b'W/%b, W/"1"' % TAG),
        (b"gzip", TAG, TAG),  # it stands for nothing that this client could use
        (b"gzip", b'"0", %b' % TAG, b'"0", %b' % TAG),
        (b"br", b"*", b"*"),
        (b"br", b'"1-br"', b'"1-br"'),
        (b"br", b'"0" , "1"', b'"0" , "1"'),
    ],
)
def test_conditions_name_the_origins_own_tags(accepts: bytes, told: bytes, asked: bytes) -> None:
    for name in (b"if-none-match", b"if-match"):
        headers = renditions.asked(request(accepts, (name, told)).headers, POLICY)
        assert headers.get(name) == asked
    writing = request(accepts, (b"if-match", told)).headers
    written = renditions.asked(writing, POLICY, writes=True).get(b"if-match") or b""
    assert (b'"1"' in written) is (told not in (b"*", b'"1-br"'))
    kept = renditions.asked(request(accepts, (b"if-range", told)).headers, POLICY)
    assert kept.get(b"if-range") == told


def test_a_304_names_the_tag_that_the_client_has() -> None:
    told = (b"if-none-match", b'"0", %b, "1"' % TAG)
    head = ResponseHead(304, Headers([(b"etag", b'"1"')]))
    assert renditions.held_by(request(b"br", told), head).headers.get(b"etag") == TAG
    assert renditions.held_by(request(b"gzip", told), head).headers.get(b"etag") == b'"1"'
    assert renditions.held_by(request(b"br"), head) is head
    assert renditions.held_by(request(b"br", (b"if-none-match", b"*")), head) is head


def test_copies_are_looked_for_under_both_keys() -> None:
    key = entry().key
    derived = renditions.key_of(key, Coding.BR)
    wished = renditions.wish(request(b"br"), POLICY)
    assert renditions.keys_of_copies(key, wished) == (derived, key)
    assert renditions.keys_of_copies(key, renditions.wish(request(), POLICY)) == (key,)
    assert renditions.keys_of_copies(key, None) == (key,)
    made, asking = renditions.entry_of(entry(), Coding.BR, b"1", 5), request(b"br")
    assert renditions.may_stand_alone(made, asking, wished, POLICY)
    assert not renditions.may_stand_alone(entry(), asking, wished, POLICY)
    short = entry(*HTML, (b"content-length", b"5"))
    assert renditions.may_stand_alone(short, asking, wished, POLICY)
    assert renditions.may_stand_alone(entry(), asking, None, None)
    parted = request(b"br", (b"range", b"bytes=0-1"))
    assert not renditions.may_stand_alone(made, parted, wished, POLICY)


def test_no_copy_is_made_of_what_only_those_get_who_do_not_accept_what_came() -> None:
    for came, coding, is_final in (
        (HTML, Coding.BR, True),
        ((*HTML, *GZIPPED), Coding.BR, False),
        ((*HTML, *GZIPPED), Coding.IDENTITY, False),
        ((*HTML, *GZIPPED), None, True),
    ):
        source = entry(*came)
        made = source if coding is None else renditions.entry_of(source, coding, b"1", 500)
        policy = replace(POLICY, recompress_after=0)
        assert renditions.is_final(renditions.Shown(Held(made), made, source), policy) is is_final


@pytest.mark.parametrize(
    ("fields", "length", "may"),
    [
        (HTML, 10_000, True),
        (HTML, 100, False),
        (HTML, None, False),
        (HTML, 5 << 20, False),
        ((*HTML, *GZIPPED), 10_000, False),
    ],
)
def test_what_came_in_no_coding_may_earn_better(
    fields: tuple[tuple[bytes, bytes], ...], length: int | None, may: bool
) -> None:
    source = entry(*fields, length=length)
    assert renditions.may_improve(source, POLICY) is may
    made = renditions.entry_of(source, Coding.BR, b"1", 50)
    is_final = renditions.is_final(renditions.Shown(Held(made), made, source), POLICY)
    assert is_final is (not may and fields == HTML)


def test_a_variant_tells_in_what_it_was_made() -> None:
    gzipped = entry(*HTML, *GZIPPED)
    assert renditions.made_in(entry()) is renditions.made_in(gzipped) is None
    assert renditions.made_in(renditions.entry_of(entry(), Coding.BR, b"1")) is Coding.BR
    assert (
        renditions.made_in(renditions.entry_of(gzipped, Coding.IDENTITY, b"1")) is Coding.IDENTITY
    )
    source = entry()
    unshrunk = Held(source)
    unshrunk.uncodable = True
    lent = renditions.lent(renditions.Shown(unshrunk, source, source))
    assert lent.made_of
    assert renditions.made_in(lent) is None
