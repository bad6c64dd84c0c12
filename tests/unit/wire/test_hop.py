"""What crosses a hop and what does not, seen from a hostile client and a careless origin."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.wire.hop import (
    CLAIMS,
    HOP_BY_HOP,
    PER_PATH,
    PROTECTED,
    Forwarding,
    claimed_scheme,
    end_to_end,
    hops_left,
    loops,
    to_client,
    to_origin,
    upgrade_offered,
    vouched_for,
)
from edge.wire.message import Headers, RequestHead, ResponseHead

HERE = Forwarding(b"edge-1", b"203.0.113.9", b"http", b"example.com")

field_names = st.sampled_from(
    sorted(HOP_BY_HOP | PROTECTED | CLAIMS | {b"x-a", b"x_b", b"x_forwarded_for", b"x-geo-city"})
)
field_lines = st.lists(st.tuples(field_names, st.sampled_from([b"", b"a", b"1, b", b"x-a, via"])))


def request(*pairs: tuple[bytes, bytes], method: bytes = b"GET") -> RequestHead:
    return RequestHead(method, b"http", b"example.com", b"/", Headers(pairs))


def at_origin(*pairs: tuple[bytes, bytes], forwarding: Forwarding = HERE) -> Headers:
    return to_origin(request(*pairs), forwarding).headers


# --- connection-level fields --------------------------------------------------


@given(field_lines)
def test_no_connection_level_field_survives_a_hop(lines: list[tuple[bytes, bytes]]) -> None:
    headers = end_to_end(Headers(lines))
    nominated = b",".join(Headers(lines).all(b"connection")).replace(b" ", b"").split(b",")
    assert not {name for name, _ in headers} & (HOP_BY_HOP | (set(nominated) - PROTECTED))
    assert end_to_end(headers) == headers


def test_what_is_not_for_one_connection_stays_in_order() -> None:
    lines = [(b"b", b"1"), (b"a", b""), (b"set-cookie", b"x"), (b"b", b"2"), (b"x_y", b"3")]
    assert end_to_end(Headers([*lines, (b"te", b"trailers")])) == Headers(lines)


def test_every_line_of_connection_nominates_in_any_case() -> None:
    headers = Headers(
        [
            (b"connection", b'close ,X-One,, "x-three'),
            (b"x-one", b"1"),
            (b"connection", b"\tX-TWO"),
            (b"x-two", b"2"),
            (b"x-three", b"3"),
        ]
    )
    assert end_to_end(headers) == Headers([(b"x-three", b"3")])


@pytest.mark.parametrize("name", sorted(PROTECTED))
def test_a_protected_field_survives_its_nomination(name: bytes) -> None:
    headers = Headers([(b"connection", name), (name, b"1")])
    assert end_to_end(headers) == Headers([(name, b"1")])


def test_a_nomination_does_not_take_away_what_this_hop_says() -> None:
    nominated = b"host, via, cdn-loop, forwarded, x-forwarded-for, authorization, content-length"
    headers = at_origin(
        (b"connection", nominated), (b"authorization", b"Basic eA=="), (b"content-length", b"3")
    )
    assert headers.get(b"authorization") == b"Basic eA=="
    assert headers.get(b"content-length") == b"3"
    assert headers.get(b"x-forwarded-for") == HERE.peer
    assert headers.get(b"via") == b"1.1 edge-1"


# --- claims -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", sorted(CLAIMS | {b"x-forwarded-port", b"x-forwarded-user", b"x-geo-country"})
)
def test_a_clients_claims_never_reach_the_origin(name: bytes) -> None:
    spellings = {name, name.replace(b"-", b"_"), name.replace(b"-", b"_", 1)}
    assert at_origin(*((spelling, b"evil") for spelling in spellings)) == at_origin()


@pytest.mark.parametrize("name", [b"if_none_match", b"content_length", b"transfer_encoding"])
def test_an_underscore_does_not_disguise_a_field(name: bytes) -> None:
    assert at_origin((name, b"1")) == at_origin()


def test_other_fields_travel_unchanged() -> None:
    lines = [(b"api_key", b"1"), (b"x-custom", b" "), (b"x-custom", b"2"), (b"cookie", b"a=b")]
    assert at_origin(*lines).pairs[: len(lines)] == tuple(lines)


def test_the_origin_is_told_who_asked_for_what() -> None:
    assert at_origin() == Headers(
        [
            (b"via", b"1.1 edge-1"),
            (b"cdn-loop", b"edge-1"),
            (b"forwarded", b"for=203.0.113.9;proto=http;host=example.com"),
            (b"x-forwarded-for", b"203.0.113.9"),
            (b"x-forwarded-proto", b"http"),
            (b"x-forwarded-host", b"example.com"),
        ]
    )


def test_a_believed_chain_goes_before_the_peer() -> None:
    forwarding = Forwarding(
        b"edge-1", b"fe80::1%eth0", b"https", b"[::1]:8443", (b"192.0.2.1", b"2001:db8::1")
    )
    headers = at_origin((b"x-forwarded-for", b"forged"), forwarding=forwarding)
    assert headers.all(b"x-forwarded-for") == [b"192.0.2.1, 2001:db8::1, fe80::1"]
    assert headers.all(b"forwarded") == [
        b'for=192.0.2.1, for="[2001:db8::1]", for="[fe80::1]";proto=https;host="[::1]:8443"'
    ]
    assert headers.all(b"x-forwarded-host") == [b"[::1]:8443"]


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    headers = at_origin(forwarding=Forwarding(b"edge-1", b"", b"http", b""))
    assert headers.get(b"forwarded") == b"for=unknown;proto=http"
    assert headers.get(b"x-forwarded-for") == b"unknown"
    assert b"x-forwarded-host" not in headers


# --- traces -------------------------------------------------------------------


def test_via_and_cdn_loop_gain_a_member_and_lose_none() -> None:
    head = replace(
        request((b"via", b"1.1 a"), (b"cdn-loop", b"c; k=v"), (b"via", b""), (b"via", b"1.0 b")),
        version=b"1.0",
    )
    headers = to_origin(head, HERE).headers
    assert headers.all(b"via") == [b"1.1 a, 1.0 b, 1.0 edge-1"]
    assert headers.all(b"cdn-loop") == [b"c; k=v, edge-1"]


@given(field_lines)
def test_a_second_hop_only_lengthens_the_traces(lines: list[tuple[bytes, bytes]]) -> None:
    once = to_origin(request(*lines), HERE)
    twice = to_origin(once, HERE)
    traces = {b"via": b", 1.1 edge-1", b"cdn-loop": b", edge-1"}
    assert {name: (once.headers.joined(name) or b"") + more for name, more in traces.items()} == {
        name: twice.headers.joined(name) for name in traces
    }
    assert twice.headers.without(traces) == once.headers.without(traces)


@given(field_lines)
def test_an_answer_sent_on_twice_only_gains_a_via_member(lines: list[tuple[bytes, bytes]]) -> None:
    once = to_client(ResponseHead(200, Headers(lines)), b"edge-1", frozenset({b"age"}))
    twice = to_client(once, b"edge-1", frozenset({b"age"}))
    assert twice.headers.get(b"via") == (once.headers.get(b"via") or b"") + b", 1.1 edge-1"
    assert twice.headers.without({b"via"}) == once.headers.without({b"via"})


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([], 0),
        ([(b"cdn-loop", b"other")], 0),
        ([(b"cdn-loop", b"edge-10, my-edge-1")], 0),
        ([(b"cdn-loop", b"EDGE-1")], 1),
        ([(b"cdn-loop", b"edge-1 ; v=1, x"), (b"cdn-loop", b'y; z="edge-1, a", Edge-1')], 2),
        ([(b"via", b"1.1 edge-1 (note), 1.0 other, http/1.1 edge-1")], 2),
        ([(b"via", b"edge-1, 1.1")], 0),
        ([(b"via", b"1.1 edge-1"), (b"cdn-loop", b"edge-1")], 1),
    ],
)
def test_our_own_name_is_counted_on_the_path(lines: list[tuple[bytes, bytes]], count: int) -> None:
    assert loops(Headers(lines), b"edge-1") == count


def test_each_pass_through_a_node_is_one_loop_more() -> None:
    head = request()
    for passes in range(1, 4):
        head = to_origin(head, HERE)
        assert loops(head.headers, HERE.name) == passes


def test_only_per_path_fields_differ_between_two_clients_of_one_key() -> None:
    one = at_origin((b"accept", b"*/*"))
    other = to_origin(
        replace(
            request((b"accept", b"*/*"), (b"via", b"1.1 a"), (b"cdn-loop", b"b")), version=b"1.0"
        ),
        Forwarding(b"edge-1", b"::1", HERE.scheme, HERE.host, (b"192.0.2.1",)),
    ).headers
    written = PER_PATH - {b"edge-proof"}  # which is added behind
    assert {name for name, _ in set(one) ^ set(other)} == written


# --- Expect, Max-Forwards, Upgrade --------------------------------------------


def test_expect_is_answered_here_and_goes_no_further() -> None:
    assert at_origin((b"expect", b"100-continue")) == at_origin()


@pytest.mark.parametrize(
    ("method", "value", "left", "sent"),
    [
        (b"OPTIONS", b"5", 5, b"4"),
        (b"OPTIONS", b"1", 1, b"0"),
        (b"OPTIONS", b"0", 0, b"0"),
        (b"OPTIONS", b"-1", None, b"-1"),
        (b"GET", b"5", None, b"5"),
    ],
)
def test_max_forwards_counts_down_where_it_counts(
    method: bytes, value: bytes, left: int | None, sent: bytes
) -> None:
    head = request((b"max-forwards", value), method=method)
    assert hops_left(head) == left
    assert to_origin(head, HERE).headers.all(b"max-forwards") == [sent]


def test_without_max_forwards_nothing_counts() -> None:
    assert hops_left(request(method=b"OPTIONS")) is None


@pytest.mark.parametrize(
    ("connection", "upgrade", "offered"),
    [
        (b"Upgrade", b"websocket", b"websocket"),
        (b"keep-alive, upgrade", b"WebSocket, foo/2", b"WebSocket, foo/2"),
        (b"upgrade, http2-settings", b"h2c", None),
        (b"upgrade", b"H2C, websocket, HTTP/2.0, TLS/1.2", b"websocket"),
        (b"close", b"websocket", None),
        (b"upgrade", b"", None),
    ],
)
def test_an_upgrade_is_offered_on_unless_it_is_to_http(
    connection: bytes, upgrade: bytes, offered: bytes | None
) -> None:
    head = request((b"connection", connection), (b"upgrade", upgrade), (b"http2-settings", b"A"))
    assert upgrade_offered(head) == offered
    headers = to_origin(head, HERE, upgrade=offered).headers
    assert headers.all(b"upgrade") == ([offered] if offered else [])
    assert headers.all(b"connection") == ([b"upgrade"] if offered else [])
    assert b"http2-settings" not in headers


def test_no_upgrade_is_offered_where_none_was_asked_or_http_1_0_asked() -> None:
    assert upgrade_offered(request()) is None
    assert upgrade_offered(request((b"connection", b"upgrade"))) is None
    head = request((b"connection", b"upgrade"), (b"upgrade", b"websocket"))
    assert upgrade_offered(replace(head, version=b"1.0")) is None


def test_a_switch_of_protocols_keeps_its_upgrade_and_nothing_else_does() -> None:
    lines = Headers([(b"connection", b"Upgrade, x"), (b"upgrade", b"websocket"), (b"x", b"1")])
    assert to_client(ResponseHead(101, lines), b"edge-1").headers == Headers(
        [(b"via", b"1.1 edge-1"), (b"connection", b"upgrade"), (b"upgrade", b"websocket")]
    )
    for plain in (ResponseHead(426, lines), ResponseHead(101)):
        assert to_client(plain, b"edge-1").headers == Headers([(b"via", b"1.1 edge-1")])


# --- towards the client -------------------------------------------------------


def test_a_client_sees_neither_connection_fields_nor_what_the_site_hides() -> None:
    answer = ResponseHead(
        200,
        Headers(
            [
                (b"server", b"origin/1"),
                (b"keep-alive", b"timeout=5"),
                (b"connection", b"x-hop, cache-control, set-cookie"),
                (b"x-hop", b"1"),
                (b"cache-control", b"private"),
                (b"set-cookie", b"a=b"),
                (b"via", b"1.1 shield"),
            ]
        ),
        version=b"1.0",
    )
    sent = to_client(answer, b"edge-1", frozenset({b"server"}))
    assert sent.headers == Headers(
        [
            (b"cache-control", b"private"),
            (b"set-cookie", b"a=b"),
            (b"via", b"1.1 shield, 1.0 edge-1"),
        ]
    )


def test_what_is_put_on_stands_in_place_of_all_that_has_its_name() -> None:
    answer = ResponseHead(200, Headers([(b"age", b"1"), (b"age", b"2"), (b"via", b"1.1 shield")]))
    sent = to_client(answer, b"edge-1", frozenset({b"x"}), {b"age": b"9", b"x": b"1"})
    assert sorted(sent.headers) == [
        (b"age", b"9"),
        (b"via", b"1.1 shield, 1.1 edge-1"),
        (b"x", b"1"),
    ]


# --- what a trusted sender says -----------------------------------------------


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ([], None),
        ([b"https"], b"https"),
        ([b"HTTP"], b"http"),
        ([b"https, http"], None),
        ([b"https", b"https"], None),
        ([b"gopher"], None),
    ],
)
def test_a_claimed_scheme_is_one_of_two_and_said_once(
    values: list[bytes], scheme: bytes | None
) -> None:
    lines = [(b"x-forwarded-proto", value) for value in values]
    assert claimed_scheme(Headers(lines)) == scheme


def test_what_an_edge_vouches_for_passes_on_and_nothing_else_that_is_claimed() -> None:
    known = ((b"x-geo-country", b"DE"), (b"true-client-ip", b"203.0.113.9"))
    claimed = ((b"x-forwarded-port", b"1"), (b"proxy", b"a"), (b"edge-proof", b"v=1"))
    asked = request(*known, (b"accept", b"*/*"), *claimed)
    vouched = vouched_for(asked.headers)
    assert vouched == known
    seen = to_origin(asked, replace(HERE, vouched=vouched)).headers
    assert [pair for pair in seen if pair in known] == list(known)
    assert not {name for name, _ in claimed} & {name for name, _ in seen}
