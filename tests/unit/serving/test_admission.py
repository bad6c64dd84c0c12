"""What can be said of a request before the store is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ExchangeError, Failure
from edge.routing.geo import NOWHERE, Coordinates, Place
from edge.serving.admission import Admitted, admit
from edge.wire.hop import to_origin
from edge.wire.message import Headers, RequestHead
from tests.unit.edgeparts import parts_of

CLIENT = b"198.51.100.1"
TRUSTING = 'node.trusted_proxies=["198.51.100.0/24"]'
PURGING = 'site.purge_from=["203.0.113.0/24"]'


def admitted(
    *pairs: tuple[bytes, bytes], sets: tuple[str, ...] = (), peer: bytes = CLIENT, **head: Any
) -> Admitted:
    told = {"method": b"GET", "scheme": b"http", "authority": b"site.example", "target": b"/a"}
    return admit(parts_of(*sets), RequestHead(**{**told, **head}, headers=Headers(pairs)), peer)


def refusal(*pairs: tuple[bytes, bytes], **more: Any) -> Failure:
    with pytest.raises(ExchangeError) as caught:
        admitted(*pairs, **more)
    return caught.value.failure


def test_the_target_is_the_one_that_is_keyed_and_forwarded() -> None:
    one = admitted(target=b"/x/../%7ea?b=1&utm=2", sets=('site.query.drop=["utm"]',))
    assert one.request.target == b"/~a?b=1"
    assert one.key.url == b"http://site.example/~a?b=1"


def test_an_asterisk_is_a_target_as_it_is() -> None:
    assert admitted(method=b"OPTIONS", target=b"*").request.target == b"*"


def test_a_path_that_can_be_read_in_two_ways_is_refused() -> None:
    assert refusal(target=b"/a%00") is Failure.BAD_MESSAGE


def test_hop_by_hop_fields_are_seen_by_nothing_behind() -> None:
    one = admitted((b"connection", b"x-kind"), (b"x-kind", b"1"), (b"accept", b"a"))
    assert one.request.headers.pairs == ((b"accept", b"a"),)


def test_a_host_of_no_site_and_a_circle_are_refused() -> None:
    assert refusal(sets=('site.hosts=["other.example"]',)) is Failure.MISDIRECTED
    assert refusal((b"cdn-loop", b"edge1")) is Failure.LOOP
    assert refusal((b"via", b"1.1 edge1")) is Failure.LOOP


@pytest.mark.parametrize("trusted", [True, False])
def test_only_who_is_trusted_is_believed(*, trusted: bool) -> None:
    one = admitted(
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-for", b"203.0.113.5"),
        (b"cache-status-key", b"?1"),
        sets=(TRUSTING,) if trusted else (),
    )
    scheme = b"https" if trusted else b"http"
    assert one.request.scheme == one.forwarding.scheme == scheme
    assert one.key.url.startswith(scheme + b"://")
    assert one.client == (b"203.0.113.5" if trusted else CLIENT)
    assert one.forwarding.chain == ((b"203.0.113.5",) if trusted else ())
    assert one.tells_key is trusted


def test_a_trusted_proxy_that_says_nothing_speaks_by_its_own_scheme() -> None:
    one = admitted(sets=(TRUSTING,))
    assert (one.request.scheme, one.tells_key) == (b"http", False)


def test_the_first_rule_that_fits_gives_the_policy() -> None:
    rules = 'site.rule=[{match={path="/live/*"},cache={bypass=true}}]'
    assert admitted(target=b"/live/x", sets=(rules,)).policy.bypass
    assert not admitted(sets=(rules,)).policy.bypass


def test_purge_is_a_method_only_for_whom_the_site_names() -> None:
    one = admitted(method=b"PURGE", sets=(PURGING,), peer=b"203.0.113.7")
    assert one.site.purge_from
    assert refusal(method=b"PURGE", sets=(PURGING,)) is Failure.METHOD_REFUSED
    assert refusal(method=b"PURGE") is Failure.METHOD_REFUSED


def test_to_purge_at_a_host_of_no_site_tells_nothing_of_sites() -> None:
    sets = (PURGING, 'site.hosts=["other.example"]')
    assert refusal(method=b"PURGE", sets=sets, peer=b"203.0.113.7") is Failure.METHOD_REFUSED


def test_who_purges_through_a_proxy_is_whom_it_names() -> None:
    sets = (PURGING, TRUSTING)
    through = (b"x-forwarded-for", b"203.0.113.7")
    assert admitted(through, method=b"PURGE", sets=sets).client == b"203.0.113.7"
    forged = refusal(through, (b"forwarded", b"for=192.0.2.9"), method=b"PURGE", sets=sets)
    assert forged is Failure.METHOD_REFUSED
    assert refusal(through, method=b"PURGE", sets=(PURGING,)) is Failure.METHOD_REFUSED


def test_a_proxy_that_may_purge_does_not_lend_that_to_its_clients() -> None:
    both = (TRUSTING, 'site.purge_from=["198.51.100.0/24"]')
    assert admitted(method=b"PURGE", sets=both).client == CLIENT
    unknown = refusal((b"x-forwarded-for", b"unknown"), method=b"PURGE", sets=both)
    assert unknown is Failure.METHOD_REFUSED


@pytest.mark.parametrize("method", [b"PURGEKEYS", b"BAN"])
def test_other_methods_of_plugins_purge_where_that_is_allowed_and_else_are_as_any(
    method: bytes,
) -> None:
    assert admitted(method=method, sets=(PURGING,), peer=b"203.0.113.7").purges
    assert not admitted(method=method, sets=(PURGING,)).purges
    assert not admitted(method=method).purges
    assert not admitted(sets=(PURGING,), peer=b"203.0.113.7").purges


# --- places


GEO: Final = ("node.geo=x.mmdb", 'site.place=["country","subdivision"]')
BERLIN: Final = Place("DE", "EU", "DE-BE", Coordinates(52.5, 13.4))


def there(
    place: Place, *pairs: tuple[bytes, bytes], sets: tuple[str, ...] = (), **head: Any
) -> Admitted:
    """What is admitted of a client at a place, of which nothing else is known."""
    parts = parts_of("node.geo=x.mmdb", *sets)
    parts = replace(parts, ways=replace(parts.ways, place_of=lambda _: place))
    told = {"method": b"GET", "scheme": b"http", "authority": b"site.example", "target": b"/a"}
    return admit(parts, RequestHead(**{**told, **head}, headers=Headers(pairs)), CLIENT)


def seen(one: Admitted, name: bytes) -> list[bytes]:
    """What the origin is told under a name."""
    return to_origin(one.request, one.forwarding).headers.all(name)


def test_the_origin_is_told_what_the_site_says_of_the_place_and_answers_may_vary_on_it() -> None:
    one = there(BERLIN, sets=('site.place=["country","subdivision"]',))
    assert one.request.headers.get(b"x-geo-country") == b"DE"
    assert seen(one, b"x-geo-country") == [b"DE"]
    assert seen(one, b"x-geo-subdivision") == [b"DE-BE"]
    assert seen(one, b"x-geo-continent") == []
    assert one.place == BERLIN


@pytest.mark.parametrize("place", [NOWHERE, BERLIN])
def test_what_a_client_says_of_its_place_is_dropped(place: Place) -> None:
    claims = [(b"x-geo-country", b"XX"), (b"x-geo-continent", b"XX"), (b"x_geo_country", b"XX")]
    one = there(place, *claims, sets=('site.place=["country"]',))
    kept = [b"DE"] if place is BERLIN else []
    assert one.request.headers.all(b"x-geo-country") == kept
    assert b"x-geo-continent" not in one.request.headers
    assert seen(one, b"x-geo-country") == kept
    assert seen(one, b"x_geo_country") == []
    plain = there(place, *claims)
    assert seen(plain, b"x-geo-country") == []


def test_a_site_that_keys_by_place_has_a_key_for_each() -> None:
    sets = ('site.key.place=["country","continent"]',)
    places = [NOWHERE, BERLIN, Place("FR", "EU"), Place("", "EU"), Place("EU", "")]
    keys = [there(place, sets=sets).key for place in places]
    assert len({key.digest for key in keys}) == len(places)
    assert {key.url for key in keys} == {b"http://site.example/a"}
    near = replace(BERLIN, at=Coordinates(1.0, 2.0))
    assert there(near, sets=sets).key == there(BERLIN, sets=sets).key
    assert there(BERLIN).key == there(NOWHERE).key == admitted().key


def test_a_place_that_matters_to_nobody_is_not_looked_up() -> None:
    assert there(BERLIN).place is NOWHERE
    assert there(BERLIN).by == b""


def test_the_place_is_that_of_the_client_and_not_of_the_proxy() -> None:
    parts = parts_of(TRUSTING, *GEO)
    asked: list[bytes] = []

    def place_of(address: bytes) -> Place:
        asked.append(address)
        return BERLIN

    parts = replace(parts, ways=replace(parts.ways, place_of=place_of))
    through = Headers([(b"x-forwarded-for", b"203.0.113.5")])
    admit(parts, RequestHead(b"GET", b"http", b"site.example", b"/", through), CLIENT)
    assert asked == [b"203.0.113.5"]


# --- experiments


TWO_ARMS: Final = 'arms={control={weight=1},new={weight=1,prefix="/n"}}'
ARMED: Final = f'site.experiment=[{{name="e",cookie={{name="ab"}},{TWO_ARMS}}}]'


def drawing(roll: float, *pairs: tuple[bytes, bytes], **options: Any) -> Admitted:
    parts = parts_of(ARMED, chance=lambda: roll)
    head = RequestHead(b"GET", b"http", b"site.example", b"/a?b", Headers(pairs))
    return admit(parts, head, CLIENT, **options)


def told(one: Admitted) -> list[tuple[bytes, bool]]:
    return [(each.arm.name, each.is_new) for each in one.arms]


def test_a_newcomer_is_drawn_an_arm_and_who_has_one_keeps_it() -> None:
    assert told(drawing(0.1)) == [(b"control", True)]
    assert told(drawing(0.9)) == [(b"new", True)]
    assert told(drawing(0.1, (b"cookie", b"ab=new"))) == [(b"new", False)]


def test_only_an_arm_that_changes_something_is_in_the_key() -> None:
    control, new = drawing(0.1), drawing(0.9)
    plain = admitted(target=b"/a?b")
    assert (control.by, control.key) == (b"", plain.key)
    assert new.by
    assert new.key != plain.key
    assert new.key.url == plain.key.url


def test_an_arms_prefix_is_the_origins_alone_to_see() -> None:
    one = drawing(0.9)
    assert (one.request.target, one.asked) == (b"/a?b", b"/n/a?b")
    assert drawing(0.1).asked == b"/a?b"


def test_what_another_worker_has_drawn_holds_and_a_cookie_holds_more() -> None:
    drawn = ((b"e", b"new"),)
    assert told(drawing(0.1, drawn=drawn, relayed=True)) == [(b"new", True)]
    kept = drawing(0.1, (b"cookie", b"ab=control"), drawn=drawn, relayed=True)
    assert told(kept) == [(b"control", False)]
    assert told(drawing(0.1, drawn=((b"other", b"new"), (b"e", b"gone")))) == [(b"control", True)]


@given(st.floats(0, 1, exclude_max=True))
def test_who_is_told_what_was_drawn_draws_the_same_whatever_the_chance(roll: float) -> None:
    first = drawing(roll)
    drawn = tuple((each.experiment.name, each.arm.name) for each in first.arms)
    again = drawing(1.0 - roll - 2**-53 if roll < 0.9 else 0.0, drawn=drawn)
    assert (again.key, again.asked, told(again)) == (first.key, first.asked, told(first))


@pytest.mark.parametrize(
    "sets",
    [
        'site.experiment=[{name="e",cookie={name="ab"},'
        'arms={control={weight=1},new={weight=0,header={X-Own="1"}}}}]',
        'site.rule=[{match={cookie={vip="1"}},request={set={X-Own="1"}}}]',
        'site.rule=[{match={header={x-own="1"}},request={set={X-Own="1"}}}]',
        'site.request={set={X-Own="2"}}',
    ],
)
def test_what_the_site_tells_its_origin_itself_no_client_tells_it(sets: str) -> None:
    """It would be given the answer of an arm or of a rule, and that would be stored for all."""
    told = parts_of(sets)
    fields = (b"x-own", b"1"), (b"x-other", b"1")
    head = RequestHead(b"GET", b"http", b"site.example", b"/a", Headers(fields))
    plain = replace(head, headers=Headers(fields[1:]))
    forged = admit(told, head, CLIENT)
    assert forged.request.headers.pairs == fields[1:]
    assert forged == admit(told, plain, CLIENT)


def test_a_purge_is_for_no_arm() -> None:
    one = admitted(method=b"PURGE", sets=(PURGING, ARMED), peer=b"203.0.113.7")
    assert (one.arms, one.by) == ((), b"")


# --- rewriting and redirecting


def test_a_rewrite_changes_what_the_origin_is_asked_for_and_no_key() -> None:
    sets = ('site.rewrite={strip="/x",add="/y"}',)
    one = admitted(target=b"/x/a?b", sets=sets)
    assert (one.asked, one.request.target) == (b"/y/a?b", b"/x/a?b")
    assert one.key == admitted(target=b"/x/a?b").key
    assert admitted(target=b"/z", sets=sets).asked == b"/z"
    assert admitted(method=b"OPTIONS", target=b"*", sets=sets).asked == b"*"


def test_an_arms_prefix_goes_before_what_is_rewritten() -> None:
    sets = ('site.rewrite={strip="/x"}', ARMED)
    assert admitted((b"cookie", b"ab=new"), target=b"/x/a", sets=sets).asked == b"/n/a"


def test_a_path_that_would_leave_where_it_is_put_is_refused() -> None:
    leaving = b"/x/..%2Fsecret"
    assert admitted(target=leaving).asked == leaving
    assert refusal(target=leaving, sets=('site.rewrite={add="/y"}',)) is Failure.BAD_MESSAGE
    assert refusal((b"cookie", b"ab=new"), target=leaving, sets=(ARMED,)) is Failure.BAD_MESSAGE


MOVED: Final = 'site.rule=[{match={path="/old/*"},redirect={to="/new/*",status=301}}]'


def test_a_rule_may_send_clients_somewhere_else() -> None:
    one = admitted(target=b"/old/a?b", sets=(MOVED,))
    assert one.redirect is not None
    assert one.redirect.status == 301
    assert one.redirect.headers.get(b"location") == b"http://site.example/new/a?b"
    assert admitted(target=b"/a", sets=(MOVED,)).redirect is None


def test_nobody_is_sent_to_where_they_are_and_no_purge_is_sent_on() -> None:
    here = 'site.rule=[{match={path="/a/*"},redirect={to="/a/*"}}]'
    assert admitted(target=b"/a/b", sets=(here,)).redirect is None
    purging = admitted(
        method=b"PURGE", target=b"/old/a", sets=(PURGING, MOVED), peer=b"203.0.113.7"
    )
    assert purging.redirect is None
    everything = 'site.rule=[{match={},redirect={to="/x"}}]'
    assert admitted(method=b"OPTIONS", target=b"*", sets=(everything,)).redirect is None
