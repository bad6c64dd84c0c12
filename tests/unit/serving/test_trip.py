"""What is asked of an origin, and which requests may share the answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from edge.cache.entry import Key, Seq
from edge.cache.ruling import CachePolicy
from edge.serving.admission import Admitted, admit
from edge.serving.finding import NOTHING, Found
from edge.serving.trip import Trip, crowd_of, flight_key, trip_for, trip_of
from edge.wire.message import Headers, RequestHead
from tests.unit.edgeparts import parts_of

if TYPE_CHECKING:
    from edge.serving.visit import Parts
    from edge.wire.message import Pair

DIGEST = b"d" * 16
PEER = b"192.0.2.1"
ARMED = (
    'site.experiment=[{name="e",cookie={name="ab"},arms='
    '{old={weight=0},new={weight=1,header={X-Arm="new"}}}}]'
)


def asked(*fields: Pair, sets: tuple[str, ...] = ()) -> tuple[Parts, Admitted]:
    parts = parts_of(*sets)
    head = RequestHead(b"GET", b"http", b"site.example", b"/a", Headers(fields))
    return parts, admit(parts, head, PEER)


def trip(*fields: Pair, sets: tuple[str, ...] = ()) -> Trip:
    parts, admitted = asked(*fields, sets=sets)
    return trip_of(admitted, parts.ways, Seq(3), NOTHING)


def test_a_trip_has_its_way_its_terms_and_the_purge_before_it() -> None:
    parts, admitted = asked()
    made = trip_of(admitted, parts.ways, Seq(3), NOTHING)
    assert [stop.group for stop in made.upstream._stops] == [parts.ways.groups["default"]]
    assert (made.as_of, made.in_background, made.terms) == (3, False, admitted.terms)
    assert made.policy is admitted.policy
    assert made.key == admitted.key


def test_what_goes_out_tells_of_the_hop_before() -> None:
    made = trip((b"x-real-ip", b"1.1.1.1"))
    headers = made.outgoing(made.request, b"websocket").headers
    assert b"x-real-ip" not in headers
    assert headers.get(b"x-forwarded-for") == PEER
    assert headers.get(b"upgrade") == b"websocket"


def test_the_site_changes_fields_of_what_goes_out_and_not_of_what_is_judged() -> None:
    sets = ('site.request={set={X-A="1"},remove=["x-b"]}',)
    made = trip((b"x-a", b"0"), (b"x-b", b"0"), sets=sets)
    seen = made.outgoing(made.request).headers
    assert seen.all(b"x-a") == [b"1"]
    assert b"x-b" not in seen
    # What it removes is judged as the client said it; what it sets is no client's to say.
    assert made.request.headers.pairs == ((b"x-b", b"0"),)


def test_an_arms_fields_win_over_the_sites_and_the_clients() -> None:
    made = trip((b"x-arm", b"mine"), sets=(ARMED, 'site.request={set={X-Arm="site"}}'))
    assert made.outgoing(made.request).headers.all(b"x-arm") == [b"new"]


def test_what_has_nothing_to_change_goes_out_as_any_request() -> None:
    made = trip((b"accept", b"a"))
    assert made.outgoing(made.request).headers.pairs[0] == (b"accept", b"a")


def test_a_visit_knows_all_that_a_trip_needs() -> None:
    parts, admitted = asked()
    visit: Any = SimpleNamespace(
        parts=parts, as_of=Seq(7), id="id-1",
        **{name: getattr(admitted, name) for name in (
            "terms", "request", "key", "forwarding", "client", "arms", "asked",
        )},
    )  # fmt: skip
    held = varying(b"accept-encoding")
    found = Found(variants=(held,))
    made = trip_for(visit, found)
    assert (made.as_of, made.variants, made.in_background) == (7, (held,), False)


def asking(*fields: Pair) -> Any:
    return SimpleNamespace(
        request=RequestHead(b"GET", b"http", b"site.example", b"/a", Headers(fields)),
        policy=CachePolicy(),
        key=Key(DIGEST, b"http://site.example/a"),
    )


def varying(*names: bytes) -> Any:
    return SimpleNamespace(entry=SimpleNamespace(variant=tuple((name, None) for name in names)))


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
