from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.key import key_of
from edge.serving.shielding import Voice, claims_of, dress
from edge.wire.hop import Forwarding, to_origin
from edge.wire.message import Headers, RequestHead
from edge.wire.proof import FIELD, mark, verify
from edge.wire.target import parse_authority

NOW = 1_764_500_000.0
VOICE = Voice(b"fra1", b"0123456789abcdef")
PATH = Forwarding(b"fra1", b"198.51.100.7", b"https", b"shop.example")
HEAD = RequestHead(b"GET", b"https", b"shop.example", b"/a?b", Headers([(b"accept", b"*/*")]))


def test_a_shield_believes_what_an_edge_says() -> None:
    said = claims_of(VOICE, PATH, b"id-1", origins=[b"eu", b"us"], key=b"k", target=b"/x")
    sent = dress(to_origin(HEAD, PATH), said, VOICE, NOW)
    assert verify([VOICE.secret], sent, NOW, 60) == said
    assert (said.client, said.scheme, said.origins) == (b"198.51.100.7", b"https", (b"eu", b"us"))
    assert (said.key, said.target, said.order) == (b"k", b"/x", False)


def test_the_client_is_who_is_believed_to_be() -> None:
    chained = replace(PATH, chain=(b"203.0.113.9", b"10.0.0.1"))
    assert claims_of(VOICE, chained, b"1").hops == (b"203.0.113.9", b"10.0.0.1", b"198.51.100.7")
    assert claims_of(VOICE, replace(PATH, peer=b""), b"1").client == b"unix"
    assert claims_of(VOICE, replace(PATH, peer=b"fe80::1%eth0"), b"1").client == b"fe80::1"
    long = replace(PATH, chain=(b"203.0.113.9",) * 40)
    assert len(dress(HEAD, claims_of(VOICE, long, b"1"), VOICE, NOW).headers) == 2


@given(
    st.sampled_from([b"http", b"https"]),
    st.sampled_from([b"a.example", b"[::1]"]),
    st.sampled_from([b"", b":80", b":443", b":8080"]),
    st.sampled_from([b"http", b"https"]),
)
def test_both_key_a_request_alike(scheme: bytes, host: bytes, port: bytes, between: bytes) -> None:
    authority = parse_authority(host + port).canonical(scheme)
    path = replace(PATH, scheme=scheme, host=authority)
    head = RequestHead(b"GET", scheme, authority, b"/a", Headers())
    sent = dress(to_origin(head, path), claims_of(VOICE, path, b"1"), VOICE, NOW)
    seen = parse_authority(sent.authority).canonical(between)  # as the shield reads it
    said = verify([VOICE.secret], replace(sent, authority=seen), NOW, 60)
    keyed = key_of(said.scheme, seen if said.host is None else said.host, b"/a", sent)
    assert keyed == key_of(scheme, authority, b"/a", head)


def test_each_try_has_a_proof_of_its_own() -> None:
    said = claims_of(VOICE, PATH, b"1")
    first = dress(HEAD, said, VOICE, NOW)
    again = dress(first, said, VOICE, NOW + 0.001)
    assert len(again.headers.all(FIELD)) == 1
    assert mark(again) != mark(first)


def test_what_cannot_be_claimed_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="cannot claim"):
        dress(HEAD, claims_of(VOICE, PATH, b"an id"), VOICE, NOW)


def test_a_secret_stands_in_no_traceback() -> None:
    assert VOICE.secret.decode() not in repr(VOICE)
