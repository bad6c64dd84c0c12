"""By which way a request reaches an origin, and how it is dressed for each stop of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ExchangeError, Failure
from edge.routing.geo import Coordinates, Place
from edge.serving.admission import PURGES, Admitted, admit
from edge.wire.message import Headers, RequestHead
from edge.wire.proof import FIELD, MOST_ORIGINS, Claims, verify
from tests.unit.edgeparts import parts_of

if TYPE_CHECKING:
    from edge.serving.visit import Parts
    from edge.upstream.way import Way
    from edge.wire.message import Pair

NOW: Final = 1_764_500_000.0
PEER: Final = b"192.0.2.1"
SECRET: Final = "0123456789abcdef0123456789abcdef"
ORIGINS: Final = (
    'origin={eu={servers=["http://eu-1","http://eu-2:81"],at=[50.1,8.7]},'
    'us={servers=["http://us"],at=[38.0,-78.0],host="inner.example:8080"},'
    'beta={servers=["http://beta"]}}'
)
PARIS, OHIO = Coordinates(48.9, 2.4), Coordinates(40.4, -82.9)
ARMED: Final = (
    'site.experiment=[{name="e",cookie={name="ab"},arms='
    '{control={weight=1},new={weight=0,route=["beta","eu"]},moved={weight=0,prefix="/m"}}}]'
)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SHIELD_SECRET", SECRET)


def edge(
    route: str, *sets: str, at: Coordinates | None = None, roll: float = 0.0, **told: Any
) -> Parts:
    """An edge with this route, to whom all clients are `at` one place."""
    parts = parts_of(
        ORIGINS, f"site.route={route}", *sets, now=lambda: NOW, chance=lambda: roll, **told
    )
    ways = replace(parts.ways, place_of=lambda _: Place(at=at), now=lambda: NOW)
    return replace(parts, ways=ways)


def shielded(route: str, *sets: str, without: str = "origin", **told: Any) -> Parts:
    shield = 'shield={nodes=["http://s1","http://s2"],secret={env="TEST_SHIELD_SECRET"}}'
    return edge(route, shield, f"shield.without={without}", *sets, **told)


def asked(
    parts: Parts, *fields: Pair, target: bytes = b"/a?b", authority: bytes = b"site.example"
) -> Admitted:
    return admit(parts, RequestHead(b"GET", b"http", authority, target, Headers(fields)), PEER)


def names(way: Way) -> list[str]:
    return [stop.group.name for stop in way._stops]


def order(parts: Parts, *fields: Pair) -> list[str]:
    return names(parts.ways.way_of(asked(parts, *fields)))


# --- whom


def test_origins_are_asked_in_the_order_of_the_route() -> None:
    assert order(edge('{first=["us","eu"]}')) == ["us", "eu"]
    assert order(edge('{pool=["us","eu","beta"]}', roll=0.5)) == ["eu", "beta", "us"]


def test_the_nearest_to_the_client_is_asked_first() -> None:
    route = '{nearest=["eu","us","beta"]}'
    near_paris = edge(route, "node.at=[38,-78]", at=PARIS)
    assert order(near_paris) == ["eu", "us", "beta"]
    assert order(edge(route, "node.at=[38,-78]", at=OHIO)) == ["us", "eu", "beta"]


def test_who_is_nowhere_is_where_the_node_is() -> None:
    assert order(edge('{nearest=["eu","us"]}', "node.at=[38,-78]")) == ["us", "eu"]
    assert order(edge('{nearest=["us","eu"]}', "node.at=[50,8]")) == ["eu", "us"]


@pytest.mark.parametrize(
    ("route", "found"),
    [('{first=["eu","us"]}', 0), ('{nearest=["eu"]}', 0), ('{nearest=["eu","us"]}', 1)],
)
def test_a_place_is_looked_up_only_where_it_decides(route: str, found: int) -> None:
    looked: list[bytes] = []
    parts = edge(route, "node.at=[0,0]")

    def place_of(client: bytes) -> Place:
        looked.append(client)
        return Place()

    ways = replace(parts.ways, place_of=place_of)
    ways.way_of(asked(parts))
    assert looked == [PEER] * found


@pytest.mark.parametrize("roll", [0.0, 0.049, 0.05, 0.051, 0.999])
def test_a_canary_has_its_share_of_what_is_fetched(roll: float) -> None:
    parts = edge('{first=["eu"],canary={to=["beta"],weight=5}}', roll=roll)
    assert order(parts) == (["beta", "eu"] if roll < 0.05 else ["eu"])


def test_an_arms_origins_stand_in_place_of_the_routes_and_of_its_canary() -> None:
    parts = edge('{pool=["us"],canary={to=["us"],weight=100},retries=4}', ARMED)
    assert order(parts) == ["us"]
    way = parts.ways.way_of(asked(parts, (b"cookie", b"ab=new")))
    assert names(way) == ["beta", "eu"]
    assert order(parts, (b"cookie", b"ab=moved")) == ["us"]


def test_what_would_be_asked_is_told_without_chance() -> None:
    parts = edge('{first=["eu","us"],canary={to=["beta"],weight=100}}')
    assert order(parts) == ["beta", "eu", "us"]
    assert parts.ways.origins_of(asked(parts)) == ("eu", "us")
    pooled = edge('{pool=["eu","us"]}', roll=0.9)
    assert order(pooled) == ["us", "eu"]
    assert pooled.ways.origins_of(asked(pooled)) == ("eu", "us")


# --- through a shield


def test_a_shield_comes_first_and_the_origins_behind_where_it_may_be_done_without() -> None:
    by = '{first=["us","eu"],via="shield"}'
    assert order(shielded(by)) == ["shield", "us", "eu"]
    assert order(shielded(by, without="fail")) == ["shield"]
    assert order(shielded('{first=["us","eu"]}')) == ["us", "eu"]


def test_only_the_shield_is_a_tier_of_its_own() -> None:
    parts = shielded('{first=["us","eu"],via="shield"}')
    way = parts.ways.way_of(asked(parts))
    assert [stop.is_tier for stop in way._stops] == [True, False, False]


def test_that_shields_are_dead_costs_an_origin_no_try() -> None:
    for retries in (0, 2):
        parts = shielded(f'{{first=["us"],via="shield",retries={retries},budget="7s"}}')
        persistence = parts.ways.way_of(asked(parts))._persistence
        assert (persistence.tries, persistence.budget_s) == (retries + 1 + 2, 7.0)
        plain = edge(f'{{first=["us"],retries={retries}}}')
        assert plain.ways.way_of(asked(plain))._persistence.tries == retries + 1


# --- how it is dressed


def seen(parts: Parts, admitted: Admitted, stop: int = 0, server: int = 0) -> RequestHead:
    """What a server of a stop of the way is sent."""
    at = parts.ways.way_of(admitted, "id-1")._stops[stop]
    return at.dress(admitted.request, at.group.settings.servers[server])


def claims(parts: Parts, *fields: Pair, **told: Any) -> Claims:
    return verify((SECRET.encode(),), seen(parts, asked(parts, *fields, **told)), NOW, 60.0)


def test_an_origin_is_sent_the_clients_host_or_its_own() -> None:
    parts = edge('{first=["eu","us"]}')
    client = asked(parts)
    assert seen(parts, client).authority == b"site.example"
    assert seen(parts, client, stop=1).authority == b"inner.example:8080"


def test_who_names_no_host_has_the_servers_sent() -> None:
    parts = edge('{first=["eu"]}')
    nameless = asked(parts, authority=b"")
    assert [seen(parts, nameless, server=n).authority for n in (0, 1)] == [b"eu-1", b"eu-2:81"]


def test_an_origin_is_asked_for_what_the_rewrite_and_the_arm_make_of_the_path() -> None:
    parts = edge('{first=["eu"]}', 'site.rewrite={add="/r"}', ARMED)
    moved = asked(parts, (b"cookie", b"ab=moved"))
    assert moved.request.target == b"/a?b"
    assert seen(parts, moved).target == b"/m/r/a?b"
    assert seen(parts, asked(parts)).target == b"/r/a?b"


def test_a_shield_is_asked_for_the_clients_url_and_told_the_rest() -> None:
    parts = shielded('{first=["us","eu"],via="shield"}', 'site.rewrite={add="/r"}')
    admitted = asked(parts)
    head = seen(parts, admitted)
    assert (head.authority, head.target) == (b"site.example", b"/a?b")
    told = claims(parts)
    assert (told.origins, told.target) == ((b"us", b"eu"), b"/r/a?b")
    assert (told.edge, told.id, told.client, told.scheme) == (b"edge1", b"id-1", PEER, b"http")
    behind = seen(parts, admitted, stop=2)
    assert (behind.authority, behind.target) == (b"site.example", b"/r/a?b")
    assert FIELD not in behind.headers


def test_a_shield_is_told_no_target_that_is_the_requests_own() -> None:
    assert claims(shielded('{first=["us"],via="shield"}')).target is None


def test_a_shield_is_told_the_origins_of_the_arm_and_of_the_canary() -> None:
    by = '{first=["us"],via="shield",canary={to=["beta"],weight=100}}'
    parts = shielded(by, ARMED)
    assert claims(parts).origins == (b"beta", b"us")
    assert claims(parts, (b"cookie", b"ab=new")).origins == (b"beta", b"eu")


def test_no_more_origins_are_named_than_a_proof_takes() -> None:
    many = ",".join(f'o{n}={{servers=["http://o{n}"]}}' for n in range(MOST_ORIGINS + 3))
    named = ",".join(f'"o{n}"' for n in range(MOST_ORIGINS + 3))
    parts = shielded(
        '{first=["us"]}', f"origin={{{many}}}", f'site.route={{first=[{named}],via="shield"}}'
    )
    assert len(claims(parts).origins) == MOST_ORIGINS


def test_who_names_no_host_has_the_shields_sent() -> None:
    parts = shielded('{first=["us"],via="shield"}')
    assert seen(parts, asked(parts, authority=b""), server=1).authority == b"s2"


def test_a_request_without_an_id_is_dressed_all_the_same() -> None:
    parts = shielded('{first=["us"],via="shield"}')
    admitted = asked(parts)
    stop = parts.ways.way_of(admitted)._stops[0]
    head = stop.dress(admitted.request, stop.group.settings.servers[0])
    assert verify((SECRET.encode(),), head, NOW, 60.0).id == b"-"


KEYED: Final = 'site.key={headers=["x-v"],cookies=["v"]}'
FIELDS: Final = st.lists(
    st.sampled_from([(b"x-v", b"1"), (b"x-v", b"2"), (b"cookie", b"v=1"), (b"cookie", b"ab=new"),
                     (b"cookie", b"ab=moved"), (b"x-other", b"1")]), max_size=3, unique=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def keyed() -> Parts:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SHIELD_SECRET", SECRET)
        return shielded('{first=["us"],via="shield"}', KEYED, ARMED)


@given(FIELDS, FIELDS)
def test_a_shield_keys_apart_what_the_edge_keys_apart(
    keyed: Parts, one: list[Pair], other: list[Pair]
) -> None:
    keys = [asked(keyed, *fields).key for fields in (one, other)]
    told = [claims(keyed, *fields).key for fields in (one, other)]
    assert (keys[0] == keys[1]) == (told[0] == told[1])


def test_where_the_url_is_all_of_the_key_a_shield_is_told_of_none() -> None:
    parts = shielded('{first=["us"],via="shield"}', "site.query={sort=true}", ARMED)
    assert claims(parts, target=b"/a?c&b").key == b""
    assert claims(parts, (b"cookie", b"ab=new")).key != b""
    trusting = shielded('{first=["us"],via="shield"}', 'node.trusted_proxies=["192.0.2.0/24"]')
    assert (
        claims(trusting, (b"x-forwarded-proto", b"https"), authority=b"site.example:443").key
        == b""
    )


@pytest.mark.parametrize(
    ("sets", "fields"),
    [
        ((ARMED,), ((b"cookie", b"ab=new"),)),
        ((ARMED,), ((b"cookie", b"ab=moved"),)),
        ((KEYED,), ((b"x-v", b"2"),)),
        ((KEYED,), ((b"cookie", b"v=1"),)),
        (('site.rule=[{match={header={x-v="2"}},rewrite={add="/r"}}]',), ((b"x-v", b"2"),)),
    ],
)
def test_all_keys_of_a_url_are_at_one_shield_which_hears_of_writes_to_it(
    sets: tuple[str, ...], fields: tuple[Pair, ...]
) -> None:
    many = ",".join(f'"http://s{n}"' for n in range(5))
    parts = shielded('{first=["us"],via="shield"}', *sets, f"shield.nodes=[{many}]")

    def shield_of(admitted: Admitted) -> int | None:
        way = parts.ways.way_of(admitted)
        group = way._stops[0].group
        return way._choose(group, NOW, ())

    chosen = set()
    for number in range(40):
        target = b"/%d?q" % number
        read = asked(parts, *fields, target=target)
        plain = asked(parts, target=target)
        head = replace(plain.request, method=b"POST")
        write = admit(parts, head, PEER)
        assert read.key != plain.key
        assert shield_of(read) == shield_of(plain) == shield_of(write)
        chosen.add(shield_of(plain))
    assert len(chosen) == 5  # and URLs are spread over all of them


def test_origins_are_chosen_by_the_whole_key() -> None:
    parts = edge('{first=["eu"]}', KEYED)
    one, other = asked(parts, (b"x-v", b"1")), asked(parts, (b"x-v", b"2"))
    for each in (one, other):
        assert parts.ways.way_of(each)._key == each.key.digest
    assert one.key != other.key


def test_a_target_that_no_proof_takes_is_the_clients_to_shorten() -> None:
    """A rewrite has made it longer; the origin itself would be asked for it without more ado."""
    parts = shielded('{first=["us"],via="shield"}', 'site.rewrite={add="/rrrr"}')
    admitted = asked(parts, target=b"/" + b"a" * 8188)
    with pytest.raises(ExchangeError) as caught:
        seen(parts, admitted)
    assert (caught.value.failure, caught.value.status) == (Failure.TARGET_TOO_LONG, 414)
    assert not caught.value.retry
    assert seen(parts, admitted, stop=1).target == b"/rrrr/" + b"a" * 8188


@pytest.mark.parametrize("method", sorted(PURGES))
def test_a_visitors_purge_is_no_order_of_this_edges(method: bytes) -> None:
    parts = shielded('{first=["us"],via="shield"}')
    head = asked(parts).request
    told = Headers([(b"content-type", b"application/json")])
    try:
        admitted = admit(parts, replace(head, method=method, headers=told), PEER)
    except ExchangeError as refused:
        assert (method, refused.status) == (b"PURGE", 405)  # noqa: PT017 - others are passed on
        return
    assert not admitted.purges
    assert not verify((SECRET.encode(),), seen(parts, admitted), NOW, 60.0).order
