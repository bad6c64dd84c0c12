from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from edge.cache.key import key_of
from edge.config import policies
from edge.errors import ExchangeError, Failure
from edge.guard.address import Networks
from edge.routing.route import Order
from edge.serving.admission import PURGES
from edge.serving.visit import Parts
from edge.serving.ways import Ways
from edge.surroundings.behind import nowhere
from edge.wire.hop import to_origin
from edge.wire.message import Headers, RequestHead
from edge.wire.proof import FIELD, Claims, mark, sign
from origin_shield.config import load_shield
from origin_shield.edges import Admission, BySecret, Entry
from origin_shield.used import PLACES, Used
from tests.unit.edgeparts import groups_of
from tests.unit.origin_shield.test_config import GOOD

if TYPE_CHECKING:
    from edge.serving.admission import Admitted

NOW = 1_764_500_000.0
PEER = b"10.0.0.7"
SECRET, OLD = b"0123456789abcdef", b"fedcba9876543210"
CLAIMS = Claims(edge=b"fra1", id=b"ab-1", hops=(b"203.0.113.9", b"192.0.2.1"), scheme=b"https")
TOLD = GOOD.replace(
    "[[site]]", '[origin.b]\nservers = ["http://127.0.0.1:2"]\nhost = "b.example"\n[[site]]'
)


class Desk:
    """A shield's admission, by settings that say "b" is an origin, too."""

    def __init__(
        self, networks: tuple[str, ...] = (), hosts: str = "*", route: str = 'first = ["a"]'
    ) -> None:
        text = TOLD.replace('hosts = ["*"]', f'hosts = ["{hosts}"]')
        text = text.replace('route = { first = ["a"] }', f"route = {{ {route} }}")
        config = load_shield(text, hostname="h")
        sites = tuple(replace(s, purge_from=("0.0.0.0/0",)) for s in config.sites)
        self.used = Used()
        self.entry = Entry(
            networks=Networks.parse(networks),
            identity=BySecret((SECRET, OLD), 60.0),
            remember_s=120.0,
        )
        self.now = NOW
        self.admission = Admission(self.entry, self.used, lambda: self.now)
        self.parts = Parts(
            name=b"shield1",
            sites=policies.sites(replace(config, sites=sites)),
            ways=Ways(groups_of(config), nowhere, lambda: self.now, lambda: 0.0),
            trusted=Networks(),
            salt=b"",
            admit=self.admission.admit,
            remembers=False,
        )

    def ask(self, head: RequestHead, *, relayed: bool = False) -> Admitted:
        return self.parts.admit(self.parts, head, PEER, relayed=relayed)

    def refused(self, head: RequestHead) -> Failure:
        with pytest.raises(ExchangeError) as caught:
            self.ask(head)
        return caught.value.failure


def proven(
    method: bytes = b"GET",
    target: bytes = b"/a",
    *fields: tuple[bytes, bytes],
    claims: Claims = CLAIMS,
    now: float = NOW,
    secret: bytes = SECRET,
    authority: bytes = b"shop.example",
) -> RequestHead:
    head = RequestHead(method, b"http", authority, target, Headers(fields))
    return replace(head, headers=head.headers.plus((FIELD, sign(secret, head, claims, now))))


def test_a_proven_edge_is_believed() -> None:
    geo = (b"x-geo-country", b"DE")
    admitted = Desk().ask(proven(b"GET", b"/a", geo, (b"x-forwarded-for", b"6.6.6.6")))
    assert (admitted.client, admitted.id) == (b"203.0.113.9", "ab-1")
    assert admitted.request.scheme == b"https"
    assert admitted.key.url == b"https://shop.example/a"
    assert FIELD not in admitted.request.headers
    seen = to_origin(admitted.request, admitted.forwarding).headers
    assert seen.get(b"x-forwarded-for") == b"203.0.113.9, 192.0.2.1, 10.0.0.7"
    assert seen.get(b"x-forwarded-proto") == b"https"
    assert geo in seen.pairs
    assert FIELD not in seen


def test_any_secret_that_counts_will_do() -> None:
    assert Desk().ask(proven(secret=OLD)).id == "ab-1"
    assert Desk().refused(proven(secret=b"x" * 16)) is Failure.BAD_PROOF


def test_everyone_else_is_refused() -> None:
    desk, head = Desk(), proven()
    assert desk.refused(replace(head, headers=Headers())) is Failure.NO_PROOF
    assert desk.refused(replace(head, target=b"/b")) is Failure.BAD_PROOF
    assert desk.refused(proven(now=NOW - 61)) is Failure.PROOF_EXPIRED
    far = Desk(networks=("192.0.2.0/24",))
    assert far.refused(head) is Failure.NOT_FROM_HERE
    assert Desk(networks=("10.0.0.0/8",)).ask(head).id == "ab-1"


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE"])
def test_a_safe_method_may_come_again(method: bytes) -> None:
    desk, head = Desk(), proven(method)
    assert desk.ask(head) == desk.ask(head)


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PURGE", b"X"])
def test_an_unsafe_one_counts_once(method: bytes) -> None:
    desk, head = Desk(), proven(method)
    assert desk.ask(head).id == "ab-1"
    assert desk.ask(head, relayed=True).id == "ab-1"  # another worker has taken it
    assert desk.refused(head) is Failure.PROOF_USED
    desk.now += 59
    assert desk.refused(head) is Failure.PROOF_USED
    assert desk.ask(proven(method, now=NOW + 1)).id == "ab-1"


def test_a_proof_of_a_clock_that_is_ahead_is_remembered_while_it_counts() -> None:
    desk, head = Desk(), proven(b"POST", now=NOW + 60)
    desk.ask(head)
    desk.now += 119
    assert desk.refused(head) is Failure.PROOF_USED
    desk.now += 2
    assert desk.refused(head) is Failure.PROOF_EXPIRED


def test_what_cannot_be_remembered_is_not_done() -> None:
    desk, head = Desk(), proven(b"POST")
    first = b64decode(mark(head))[:2]
    for number in range(PLACES):
        desk.used.take(first + number.to_bytes(14, "big"), NOW, NOW + 60)
    with pytest.raises(ExchangeError) as caught:
        desk.ask(head)
    assert (caught.value.failure, caught.value.status) == (Failure.OVERLOADED, 503)


ORDERS: Final = replace(CLAIMS, order=True)
WHOLE: Final = (b"content-type", b"application/json")


def test_an_edge_that_orders_it_purges_for_the_whole_node() -> None:
    admitted = Desk().ask(proven(b"PURGE", claims=ORDERS))
    assert (admitted.purges, admitted.orders) == (True, True)
    assert not Desk().ask(proven(claims=ORDERS)).purges


@pytest.mark.parametrize("fields", [(), (WHOLE,)])
@pytest.mark.parametrize("method", sorted(PURGES))
def test_what_an_edge_only_passes_on_is_no_order_whatever_its_method(
    method: bytes, fields: tuple[tuple[bytes, bytes], ...]
) -> None:
    """An edge passes on what strangers send: to who may not purge there is no such method."""
    closed = Desk()
    sites = closed.parts.sites
    site = sites.find(b"shop.example")
    assert site is not None
    guarded = type(sites)([(b"*", replace(site, purge_from=Networks()))])
    for parts in (closed.parts, replace(closed.parts, sites=guarded)):
        try:
            claims = replace(CLAIMS, id=b"%d" % id(parts))
            admitted = parts.admit(parts, proven(method, b"/a", *fields, claims=claims), PEER)
        except ExchangeError as refused:
            assert refused.failure is Failure.METHOD_REFUSED  # noqa: PT017 - or it is passed on
            continue
        assert (admitted.purges, admitted.orders) == (False, False)
        assert admitted.site.name == "*"


def test_the_edges_choice_of_origins_counts_as_far_as_they_are_known() -> None:
    desk = Desk()
    chosen = desk.ask(proven(claims=replace(CLAIMS, origins=(b"nowhere", b"b", b"a")))).terms
    assert (chosen.route.names, chosen.route.order) == (("b", "a"), Order.FIRST)
    again = desk.ask(proven(claims=replace(CLAIMS, origins=(b"b", b"elsewhere", b"a")))).terms
    assert again is chosen
    own = desk.ask(proven()).terms
    assert own.route.names == ("a",)
    assert replace(chosen, route=own.route) == own  # all else is as this shield has been told
    assert desk.ask(proven(claims=replace(CLAIMS, origins=(b"nowhere",)))).terms is own
    assert desk.ask(proven(claims=replace(CLAIMS, origins=(b"a",)))).terms is own


def test_of_the_origins_that_the_edge_names_the_first_is_asked_as_it_wants_to_be() -> None:
    desk = Desk()
    admitted = desk.ask(proven(claims=replace(CLAIMS, origins=(b"b", b"a"), target=b"/arm/a")))
    stops = desk.parts.ways.way_of(admitted)._stops
    assert [stop.group.name for stop in stops] == ["b", "a"]
    seen = [s.dress(admitted.request, s.group.settings.servers[0]) for s in stops]
    assert [(head.authority, head.target) for head in seen] == [
        (b"b.example", b"/arm/a"),
        (b"shop.example", b"/arm/a"),
    ]


def test_an_edge_that_names_origins_leaves_nothing_to_chance() -> None:
    desk = Desk(route='pool = ["a"], canary = { to = ["b"], weight = 100 }')
    claims = replace(CLAIMS, origins=(b"a",))
    admitted = desk.ask(proven(claims=claims))
    assert [stop.group.name for stop in desk.parts.ways.way_of(admitted)._stops] == ["a"]
    own = desk.ask(proven())
    assert [stop.group.name for stop in desk.parts.ways.way_of(own)._stops] == ["b", "a"]


def test_so_many_choices_are_kept_and_who_has_made_another_is_asked_by_it_all_the_same() -> None:
    """An arm's answer would else come of another origin, and be stored as the arm's."""
    desk = Desk()
    few = Admission(desk.entry, desk.used, lambda: NOW, most_routed=2)
    choices = [(b"b",), (b"b", b"a"), (b"a", b"b"), (b"b",), (b"a", b"b")]
    for origins in choices:
        head = proven(claims=replace(CLAIMS, origins=origins))
        names = few.admit(desk.parts, head, PEER).terms.route.names
        assert names == tuple(name.decode() for name in origins)
        assert len(few._routed) <= 2


def test_what_the_edge_keys_by_is_part_of_the_key() -> None:
    desk = Desk()
    keys = [desk.ask(proven(claims=replace(CLAIMS, key=part))).key for part in (b"", b"x", b"y")]
    assert len({key.digest for key in keys}) == 3
    assert {key.url for key in keys} == {b"https://shop.example/a"}
    plain = desk.ask(proven()).request
    assert keys[0] == key_of(b"https", b"shop.example", b"/a", plain)


def test_the_origin_is_asked_for_the_target_that_the_edge_says() -> None:
    admitted = Desk().ask(proven(claims=replace(CLAIMS, target=b"/arm/a")))
    assert admitted.asked == b"/arm/a"
    assert admitted.request.target == b"/a"
    assert admitted.key.url == b"https://shop.example/a"


def test_the_clients_authority_counts_where_the_scheme_hides_it() -> None:
    claims = replace(CLAIMS, host=b"shop.example:80")
    assert Desk().ask(proven(claims=claims)).key.url == b"https://shop.example:80/a"


def test_a_shield_says_how_it_is_to_edges_alone() -> None:
    desk = Desk(hosts="only.example")
    ping = proven(b"OPTIONS", b"*", (b"max-forwards", b"0"), authority=b"shield")
    assert desk.ask(ping).site.name == "*"
    assert desk.refused(replace(ping, headers=Headers())) is Failure.NO_PROOF
    assert desk.refused(proven(b"OPTIONS", b"*", authority=b"shield")) is Failure.MISDIRECTED


def test_an_order_to_purge_is_of_no_site() -> None:
    desk = Desk(hosts="only.example")
    field = WHOLE
    admitted = desk.ask(proven(b"PURGE", b"/", field, claims=ORDERS, authority=b"shield"))
    assert (admitted.site.name, admitted.purges, admitted.orders) == ("*", True, True)
    other = replace(ORDERS, id=b"ab-2")
    plain = proven(b"PURGE", b"/", claims=other, authority=b"shield")
    assert desk.refused(plain) is Failure.METHOD_REFUSED
    passed_on = proven(b"PURGE", b"/", field, authority=b"shield")
    assert desk.refused(passed_on) is Failure.METHOD_REFUSED
    posted = proven(b"POST", b"/", field, claims=ORDERS, authority=b"shield")
    assert desk.refused(posted) is Failure.MISDIRECTED


def test_a_circle_and_a_host_of_no_site_are_refused_as_at_an_edge() -> None:
    desk = Desk(hosts="only.example")
    assert desk.refused(proven()) is Failure.MISDIRECTED
    assert Desk().refused(proven(b"GET", b"/", (b"cdn-loop", b"shield1"))) is Failure.LOOP


def test_a_client_that_came_by_a_socket_has_no_address() -> None:
    admitted = Desk().ask(proven(claims=replace(CLAIMS, hops=(b"unix",))))
    seen = to_origin(admitted.request, admitted.forwarding).headers
    assert seen.get(b"x-forwarded-for") == b"unknown, 10.0.0.7"


def test_a_secret_stands_in_no_traceback() -> None:
    assert SECRET.decode() not in repr(Desk().entry)
