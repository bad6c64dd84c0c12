from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.guard.address import (
    HOPS,
    Networks,
    believed_chain,
    certain_client,
    client_address,
    parse_ip,
)
from edge.wire.message import Headers

TRUSTED = Networks.parse(["10.0.0.0/8", "fd00::/8"])
XFF = b"x-forwarded-for"


def client(peer: bytes, *lines: tuple[bytes, bytes], trusted: Networks = TRUSTED) -> bytes:
    return client_address(peer, believed_chain(peer, Headers(lines), trusted))


def test_a_stranger_is_believed_nothing() -> None:
    assert client(b"192.0.2.1", (XFF, b"198.51.100.7")) == b"192.0.2.1"


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert client(b"10.0.0.1", (XFF, b"198.51.100.7"), trusted=Networks()) == b"10.0.0.1"


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        (b"198.51.100.7", b"198.51.100.7"),
        (b"1.1.1.1, 198.51.100.7", b"198.51.100.7"),
        (b"198.51.100.7,10.0.0.2 ,\t10.0.0.3", b"198.51.100.7"),
        (b"10.0.0.9, 10.0.0.8", b"10.0.0.9"),
        (b"198.51.100.7:4711", b"198.51.100.7"),
        (b"[2001:DB8::1]:4711", b"2001:db8::1"),
        (b"2001:db8:0::1", b"2001:db8::1"),
        (b"::ffff:198.51.100.7", b"198.51.100.7"),
        (b"198.51.100.7, unknown", b"10.0.0.1"),
        (b"198.51.100.7, junk, 10.0.0.2", b"10.0.0.2"),
        (b"198.51.100.7, 10.0.0.2, ", b"10.0.0.1"),
        (b'1.1.1.1", 198.51.100.7', b"198.51.100.7"),
        (b"010.0.0.1", b"10.0.0.1"),
        (b"1.2.3.4.5", b"10.0.0.1"),
        (b"fe80::1%eth0", b"10.0.0.1"),
        (b"", b"10.0.0.1"),
    ],
)
def test_the_chain_is_walked_from_the_right(told: bytes, believed: bytes) -> None:
    assert client(b"10.0.0.1", (XFF, told)) == believed


def test_several_lines_are_one_chain() -> None:
    lines = (XFF, b"1.1.1.1, 198.51.100.7"), (XFF, b"10.0.0.2")
    assert client(b"10.0.0.1", *lines) == b"198.51.100.7"


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        (b"for=198.51.100.7", b"198.51.100.7"),
        (b'proto=https; For="[2001:db8::1]:47011";by=10.0.0.5', b"2001:db8::1"),
        (b'for=1.1.1.1, for="198.51.100.7:80", for=10.0.0.2', b"198.51.100.7"),
        (b"for=_hidden", b"10.0.0.1"),
        (b"for=198.51.100.7, proto=https", b"10.0.0.1"),
        (b"for=1.1.1.1;for=2.2.2.2", b"10.0.0.1"),
        (b'for="198.51.100.7, for=10.0.0.2', b"10.0.0.1"),
        (b'for="1\\.1.1.1"', b"10.0.0.1"),
        (b'for=198.51.100.7;host="x;for=6.6.6.6"', b"198.51.100.7"),
        (b'for=198.51.100.7;host="x;for=6.6.6.6;y"', b"198.51.100.7"),
        (b'host="x;for=6.6.6.6;y"', b"10.0.0.1"),
        (b'host="x\\";for=6.6.6.6;y"', b"10.0.0.1"),
        (b'host="a, for=6.6.6.6"', b"10.0.0.1"),
        (b"for=198.51.100.7;", b"198.51.100.7"),
    ],
)
def test_forwarded_is_read_as_rfc_7239_writes_it(told: bytes, believed: bytes) -> None:
    assert client(b"10.0.0.1", (b"forwarded", told)) == believed


def test_two_fields_that_disagree_are_both_disbelieved() -> None:
    lines = (XFF, b"198.51.100.7"), (b"forwarded", b"for=1.1.1.1")
    assert client(b"10.0.0.1", *lines) == b"10.0.0.1"


def test_two_fields_that_agree_are_believed() -> None:
    lines = (XFF, b"198.51.100.7"), (b"forwarded", b"for=198.51.100.7")
    assert client(b"10.0.0.1", *lines) == b"198.51.100.7"


def test_a_dual_stack_peer_is_its_ipv4_address() -> None:
    assert client(b"::ffff:10.0.0.1", (XFF, b"198.51.100.7")) == b"198.51.100.7"
    assert client(b"::ffff:192.0.2.1") == b"192.0.2.1"


def test_a_unix_peer_is_trusted_only_by_name() -> None:
    line = (XFF, b"198.51.100.7")
    assert client(b"", line, trusted=Networks.parse(["unix"])) == b"198.51.100.7"
    assert client(b"", line) == b"unix"
    assert client(b"10.0.0.1", line, trusted=Networks.parse(["unix"])) == b"10.0.0.1"


def test_an_endless_chain_is_read_only_so_far() -> None:
    assert client(b"10.0.0.1", (XFF, b"1.1.1.1" + b", 10.0.0.2" * 5_000)) == b"10.0.0.2"


def test_a_network_of_one_address_holds_it_alone() -> None:
    networks = Networks.parse(["2001:db8::1"])
    assert parse_ip(b"2001:db8::1") in networks
    assert parse_ip(b"2001:db8::2") not in networks
    assert b"2001:db8::1" not in networks


def test_the_believed_chain_begins_with_the_client() -> None:
    headers = Headers([(XFF, b"1.1.1.1, 198.51.100.7, 10.0.0.2")])
    assert believed_chain(b"10.0.0.1", headers, TRUSTED) == (b"198.51.100.7", b"10.0.0.2")
    assert believed_chain(b"192.0.2.1", headers, TRUSTED) == ()


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=40))
def test_any_bytes_give_an_address_that_was_told_or_the_peer(
    xff: bytes, forwarded: bytes, peer: bytes
) -> None:
    for who in (b"10.0.0.1", peer):
        given_address = client(who, (XFF, xff), (b"forwarded", forwarded))
        assert parse_ip(given_address) is not None or given_address in (who, b"unix")


@pytest.mark.parametrize(
    ("peer", "lines", "certain"),
    [
        (b"192.0.2.1", [], b"192.0.2.1"),
        (b"192.0.2.1", [(XFF, b"junk")], b"192.0.2.1"),  # a stranger's words count for nothing
        (b"10.0.0.1", [], b"10.0.0.1"),  # it speaks for itself
        (b"10.0.0.1", [(XFF, b"198.51.100.7")], b"198.51.100.7"),
        (b"10.0.0.1", [(XFF, b"junk, 198.51.100.7")], b"198.51.100.7"),
        (b"10.0.0.1", [(XFF, b"10.0.0.9")], b"10.0.0.9"),
        (b"10.0.0.1", [(XFF, b"junk")], None),
        (b"10.0.0.1", [(XFF, b"")], None),
        (b"10.0.0.1", [(XFF, b"unknown, 10.0.0.2")], None),
        (b"10.0.0.1", [(XFF, b", ".join([b"10.0.0.2"] * HOPS))], None),
        (b"10.0.0.1", [(XFF, b"198.51.100.7"), (b"forwarded", b"for=10.0.0.9")], None),
        (b"10.0.0.1", [(XFF, b"10.0.0.9"), (b"forwarded", b"for=10.0.0.9;by=_x")], b"10.0.0.9"),
    ],
)
def test_whom_a_trusted_proxy_speaks_for_is_not_taken_for_the_proxy(
    peer: bytes, lines: list[tuple[bytes, bytes]], certain: bytes | None
) -> None:
    assert certain_client(peer, Headers(lines), TRUSTED) == certain
