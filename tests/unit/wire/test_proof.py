from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.errors import Failure, Side
from edge.wire.hop import to_origin
from edge.wire.message import Headers, RequestHead, ResponseHead
from edge.wire.proof import (
    FIELD,
    MOST_BYTES,
    Claims,
    ProofError,
    mark,
    refusal,
    sign,
    verify,
)

NOW = 1_764_500_000.25
SECRET, OTHER = b"0123456789abcdef", b"fedcba9876543210"
HEAD = RequestHead(b"GET", b"http", b"shop.example", b"/a?b=1", Headers([(b"accept", b"*/*")]))
CLAIMS = Claims(
    edge=b"fra1",
    id=b"ab12-3",
    hops=(b"203.0.113.9", b"2001:db8::1"),
    scheme=b"https",
    host=b"shop.example:80",
    origins=(b"us", b"eu"),
    key=b"\0arm",
    target=b"/b/a?b=1",
    order=True,
)
PLAIN = Claims(edge=b"fra1", id=b"1", hops=(b"unix",), scheme=b"http")

names = st.text("abcXYZ019_-", min_size=1, max_size=64).map(str.encode)
targets = st.text([chr(n) for n in range(0x21, 0x7F)], max_size=60).map(
    lambda t: b"/" + t.encode()
)
claims = st.builds(
    Claims,
    edge=st.text("abc019.-_~", min_size=1, max_size=40).map(str.encode),
    id=names,
    hops=st.lists(
        st.sampled_from([b"203.0.113.9", b"2001:db8::7", b"fe80::1%eth0", b"unix"]),
        min_size=1,
        max_size=33,
    ).map(tuple),
    scheme=st.sampled_from([b"http", b"https"]),
    host=st.none() | st.sampled_from([b"a.example:80", b"[::1]:443"]),
    origins=st.lists(names, max_size=32).map(tuple),
    key=st.binary(max_size=1024),
    target=st.none() | targets,
    order=st.booleans(),
)
heads = st.builds(
    RequestHead,
    st.sampled_from([b"GET", b"POST", b"PURGE"]),
    st.just(b"http"),
    st.sampled_from([b"", b"a.example", b"a.example:8080", b"[::1]"]),
    targets,
    st.lists(
        st.tuples(st.sampled_from([b"x-geo-country", b"cookie"]), st.binary(max_size=9)),
        max_size=3,
    ).map(Headers),
)


def proven(head: RequestHead, value: bytes) -> RequestHead:
    return replace(head, headers=head.headers.plus((FIELD, value)))


def refused(head: RequestHead, *secrets: bytes, now: float = NOW, skew_s: float = 60) -> Failure:
    with pytest.raises(ProofError) as caught:
        verify(secrets or (SECRET,), head, now, skew_s)
    assert caught.value.side is Side.CLIENT
    assert caught.value.status == 403
    return caught.value.failure


@given(heads, claims, st.floats(0, 4e9))
@example(HEAD, CLAIMS, NOW)
@example(HEAD, PLAIN, NOW)
def test_what_is_signed_is_what_is_verified(head: RequestHead, said: Claims, now: float) -> None:
    signed = proven(head, sign(SECRET, head, said, now))
    assert verify([SECRET], signed, now, 1.0) == said


def test_a_proof_is_spelt_in_one_way() -> None:
    value = sign(SECRET, HEAD, CLAIMS, NOW)
    assert value[:-52] == (
        b'v=1, edge=fra1, t=1764500000.250000, id="ab12-3", for="203.0.113.9 2001:db8::1", '
        b'scheme=https, host="shop.example:80", origins="us eu", key=:AGFybQ==:, '
        b"target=:L2IvYT9iPTE=:, order=1"
    )
    assert value[-52:-45] == b", mac=:"
    assert mark(proven(HEAD, value)) == value[-45:-1]
    assert CLAIMS.client == b"203.0.113.9"


@given(st.data(), claims)
def test_a_byte_that_is_another_is_refused(data: st.DataObject, said: Claims) -> None:
    value = sign(SECRET, HEAD, said, NOW)
    part = data.draw(st.sampled_from(["method", "authority", "target", "field"]))
    octets = bytearray(value if part == "field" else getattr(HEAD, part))
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] ^= data.draw(st.integers(1, 255))
    changed = bytes(octets)
    if part == "field":
        assert refused(proven(HEAD, changed)) is Failure.BAD_PROOF
    else:
        other: dict[str, Any] = {part: changed}
        assert refused(proven(replace(HEAD, **other), value)) is Failure.BAD_PROOF


@given(st.binary(max_size=300), st.binary(max_size=40))
@example(b"v=1, ", b", mac=:" + b"A" * 44 + b":")
def test_junk_is_refused_and_nothing_else(junk: bytes, tail: bytes) -> None:
    refused(proven(HEAD, junk + tail))
    refused(proven(HEAD, b"v=1, " + junk + b", mac=:" + b"A" * 44 + b":"))


@given(st.binary(max_size=120))
def test_whatever_an_edge_signs_is_read_or_refused(said: bytes) -> None:
    """One that has the secret and another program may say anything."""
    from edge.wire.proof import _mac, _proven

    value = b"v=1, " + said
    value += b", mac=:" + _mac(SECRET, _proven(HEAD, value)) + b":"
    assert refused(proven(HEAD, value)) is Failure.BAD_PROOF


@pytest.mark.parametrize(
    "member",
    [b"target=:YWJj:", b"target=:L2E:", b"key=:QR==:", b"target=:L2EgYg==:", b"key=:=:"],
    ids=["no path", "unpadded", "another spelling", "a space", "nothing"],
)
def test_claims_that_no_edge_makes_are_refused(member: bytes) -> None:
    from edge.wire.proof import _mac, _proven, _written

    value = _written(PLAIN, NOW) + b", " + member
    value += b", mac=:" + _mac(SECRET, _proven(HEAD, value)) + b":"
    assert refused(proven(HEAD, value)) is Failure.BAD_PROOF


def test_who_has_no_proof_is_told_so() -> None:
    value = sign(SECRET, HEAD, CLAIMS, NOW)
    assert refused(HEAD) is Failure.NO_PROOF
    assert refused(proven(proven(HEAD, value), value)) is Failure.BAD_PROOF
    assert refused(proven(HEAD, b"v=2" + value[3:])) is Failure.BAD_PROOF
    assert refused(proven(HEAD, value[:-1])) is Failure.BAD_PROOF
    assert refused(proven(HEAD, b"v=1, " + b"x" * MOST_BYTES)) is Failure.BAD_PROOF


def test_any_of_the_secrets_will_do_and_no_other() -> None:
    signed = proven(HEAD, sign(OTHER, HEAD, CLAIMS, NOW))
    assert verify([SECRET, OTHER], signed, NOW, 60) == CLAIMS
    assert refused(signed, SECRET) is Failure.BAD_PROOF


def test_a_proof_counts_for_a_while() -> None:
    signed = proven(HEAD, sign(SECRET, HEAD, CLAIMS, NOW))
    assert verify([SECRET], signed, NOW + 60, 60) == verify([SECRET], signed, NOW - 60, 60)
    for late in (NOW + 60.001, NOW - 60.001):
        assert refused(signed, now=late) is Failure.PROOF_EXPIRED


def test_a_request_that_is_sent_again_has_another_proof() -> None:
    first, again = (sign(SECRET, HEAD, CLAIMS, now) for now in (NOW, NOW + 0.000_01))
    assert mark(proven(HEAD, first)) != mark(proven(HEAD, again))


def test_what_passes_on_is_proven_and_what_proxies_add_is_not() -> None:
    value = sign(SECRET, HEAD, CLAIMS, NOW)
    forged = replace(HEAD, headers=HEAD.headers.plus((b"x-geo-country", b"XX")))
    assert refused(proven(forged, value)) is Failure.BAD_PROOF
    added = HEAD.headers.plus((b"x-forwarded-for", b"10.0.0.1"), (b"x-forwarded-port", b"80"))
    assert verify([SECRET], proven(replace(HEAD, headers=added), value), NOW, 60) == CLAIMS


@pytest.mark.parametrize("port", [b":80", b":443"])
def test_a_port_that_may_be_a_default_one_counts_for_nothing(port: bytes) -> None:
    sent = replace(HEAD, authority=HEAD.authority + port)
    value = sign(SECRET, sent, CLAIMS, NOW)
    assert verify([SECRET], proven(HEAD, value), NOW, 60) == CLAIMS


@pytest.mark.parametrize(
    "said",
    [
        replace(CLAIMS, edge=b"a b"),
        replace(CLAIMS, id=b'"'),
        replace(CLAIMS, hops=()),
        replace(CLAIMS, hops=(b"a",) * 34),
        replace(CLAIMS, scheme=b"ws"),
        replace(CLAIMS, host=b'a"'),
        replace(CLAIMS, hops=(b"a b",)),
        replace(CLAIMS, origins=(b"",)),
        replace(CLAIMS, origins=(b"us eu",)),
        replace(CLAIMS, origins=(b"a",) * 33),
        replace(CLAIMS, key=b"k" * 1025),
        replace(CLAIMS, target=b"/\r\n"),
        replace(CLAIMS, target=b"/" + b"a" * 8192),
    ],
)
def test_what_cannot_be_claimed_is_not_signed(said: Claims) -> None:
    with pytest.raises(ValueError, match="cannot claim"):
        sign(SECRET, HEAD, said, NOW)


def test_claims_that_are_too_long_together_are_not_signed() -> None:
    names = tuple(b"%064d" % number for number in range(32))
    long = replace(CLAIMS, key=b"k" * 1024, target=b"/" + b"a" * 8191, origins=names)
    with pytest.raises(ValueError, match="at most"):
        sign(SECRET, HEAD, replace(long, hops=(b"a" * 128,) * 33), NOW)


def test_no_origin_sees_a_proof() -> None:
    from edge.wire.hop import Forwarding

    for name in (FIELD, b"edge_proof"):
        head = replace(HEAD, headers=HEAD.headers.plus((name, b"v=1")))
        seen = to_origin(head, Forwarding(b"x", b"192.0.2.1", b"http", b"a"))
        assert name not in seen.headers


@pytest.mark.parametrize("junk", [b"a", b",", b'"', b" ", b"=", b":", b'for="a '])
def test_length_costs_no_more_than_it_is(junk: bytes) -> None:
    from edge.wire.proof import _COVERED

    def took_s(size: int) -> float:
        text = b"v=1, edge=a, t=1.000000, id=" + (junk * size)[:size]
        tries = []
        for _ in range(5):
            began = perf_counter()
            assert _COVERED.fullmatch(text) is None
            tries.append(perf_counter() - began)
        return min(tries)

    assert took_s(16_000) < 100 * took_s(1_600) + 0.001


@pytest.mark.parametrize(
    ("status", "fields", "why"),
    [
        (403, ["shield1; detail=bad-proof"], Failure.BAD_PROOF),
        (403, ["shield1; detail=no-proof"], Failure.NO_PROOF),
        (403, ["outer; detail=x", "shield1; detail=not-from-here"], Failure.NOT_FROM_HERE),
        (403, ["forged; detail=bad-proof, shield1; fwd=uri-miss; detail=no-store"], None),
        (403, ["shield1; fwd=uri-miss; fwd-status=403; detail=no-store"], None),
        (403, ["shield1; detail=no-such-site"], None),
        (403, [], None),
        (200, ["shield1; detail=bad-proof"], None),
    ],
)
def test_a_shields_refusal_is_told_from_an_origins(
    status: int, fields: list[str], why: Failure | None
) -> None:
    pairs = [(b"cache-status", value.encode()) for value in fields]
    assert refusal(ResponseHead(status, Headers(pairs))) is why
