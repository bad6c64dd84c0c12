"""What is asked of an origin, and which requests may share the answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from edge.cache.entry import Key, Seq
from edge.cache.ruling import CachePolicy
from edge.finding import NOTHING, Found
from edge.trip import crowd_of, flight_key, trip_for, trip_of
from edge.upstream.origin import parse_origin
from edge.wire.hop import Forwarding
from edge.wire.message import Headers, RequestHead

if TYPE_CHECKING:
    from edge.upstream.fetch import Upstream

DIGEST = b"d" * 16
UPSTREAM = cast("Upstream", SimpleNamespace(origin=parse_origin("http://origin.example:8080")))
UPSTREAMS = {"main": UPSTREAM}


def asking(
    *pairs: tuple[bytes, bytes], authority: bytes = b"site.example", host: bytes | None = None
) -> Any:
    return SimpleNamespace(
        site=SimpleNamespace(origin="main", host=host),
        request=RequestHead(b"GET", b"http", authority, b"/a", Headers(pairs)),
        policy=CachePolicy(),
        key=Key(DIGEST, b"http://site.example/a"),
        forwarding=Forwarding(b"edge1", b"192.0.2.1", b"http", authority),
    )


def varying(*names: bytes) -> Any:
    return SimpleNamespace(entry=SimpleNamespace(variant=tuple((name, None) for name in names)))


def test_the_origin_is_sent_the_clients_host() -> None:
    trip = trip_of(asking(), UPSTREAMS, Seq(3), NOTHING)
    assert (trip.upstream, trip.as_of, trip.in_background) == (UPSTREAM, 3, False)
    assert trip.outgoing(trip.request).authority == b"site.example"


def test_a_site_may_have_another_host_sent() -> None:
    trip = trip_of(asking(host=b"inner.example"), UPSTREAMS, Seq(0), NOTHING)
    assert trip.outgoing(trip.request).authority == b"inner.example"


def test_who_names_no_host_has_the_origins_own_sent() -> None:
    trip = trip_of(asking(authority=b""), UPSTREAMS, Seq(0), NOTHING)
    assert trip.outgoing(trip.request).authority == b"origin.example:8080"


def test_what_goes_out_tells_of_the_hop_before() -> None:
    trip = trip_of(asking((b"x-real-ip", b"1.1.1.1")), UPSTREAMS, Seq(0), NOTHING)
    headers = trip.outgoing(trip.request, b"websocket").headers
    assert b"x-real-ip" not in headers
    assert headers.get(b"x-forwarded-for") == b"192.0.2.1"
    assert headers.get(b"upgrade") == b"websocket"


def test_a_visit_knows_all_that_a_trip_needs() -> None:
    visit = asking()
    visit.parts, visit.as_of = SimpleNamespace(upstreams=UPSTREAMS), Seq(7)
    held = varying(b"accept-encoding")
    found = Found(variants=(held,))
    trip = trip_for(visit, found)
    assert (trip.as_of, trip.variants, trip.in_background) == (7, (held,), False)


def test_requests_that_select_alike_share_a_flight() -> None:
    found = Found(variants=(varying(b"cookie"), varying(b"accept-encoding")))
    gzip = flight_key(asking((b"accept-encoding", b"gzip")), found)
    assert gzip == (DIGEST, ((b"accept-encoding", b"gzip"), (b"cookie", None)))
    same = flight_key(asking((b"accept-encoding", b"GZIP"), (b"x", b"y")), found)
    assert same == gzip
    assert flight_key(asking(), found) != gzip
    assert flight_key(asking(), NOTHING) == (DIGEST, ())


def test_what_credentials_get_tells_nothing_of_others() -> None:
    crowds = {
        crowd_of(asking(*fields).request)
        for fields in ((), ((b"cookie", b"a"),), ((b"authorization", b"a"),))
    }
    assert len(crowds) == 3
    assert crowd_of(asking((b"cookie", b"b")).request) in crowds
