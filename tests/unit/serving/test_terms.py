"""Which terms a request is under: the first rule that takes it, and types before it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config import policies
from edge.routing.geo import Place
from edge.routing.site import Match, Rule
from edge.serving.admission import admit
from edge.serving.terms import MOST_MIXED, Site, Terms
from edge.wire.message import Headers, RequestHead
from tests.unit.edgeparts import config_of, parts_of

if TYPE_CHECKING:
    from edge.wire.message import Pair

TYPED: Final = (
    "site.cache.ttl=1s",
    'site.rule=[{match={content_type=["image/*"]},cache={ttl="2s"}},'
    '{match={path="/a/*",content_type=["text/css"]},cache={ttl="3s"}},'
    '{match={path="/a/*"},cache={ttl="4s"}},'
    '{match={content_type=["text/*"]},cache={ttl="5s"}}]',
)
TWO: Final = 'origin={default={servers=["http://a.example"]},beta={servers=["http://b.example"]}}'


def site_of(*sets: str) -> Site:
    site = policies.sites(config_of(*sets)).find(b"site.example")
    assert site is not None
    return site


def asking(
    target: bytes = b"/a", *fields: Pair, authority: bytes = b"site.example"
) -> RequestHead:
    return RequestHead(b"GET", b"http", authority, target, Headers(fields))


def ttl(site: Site, target: bytes, content_type: bytes | None) -> float | None:
    """The lifetime that an answer of this type has by the site's word."""
    told = Headers([(b"content-type", content_type)] if content_type else [])
    return site.terms_for(asking(target)).cache.of_answer(told).freshness.ttl_s


@pytest.mark.parametrize(
    ("target", "content_type", "ttl_s"),
    [
        (b"/a/x", b"image/png", 2.0),  # the first that fits, by type or not
        (b"/a/x", b"text/css; charset=utf-8", 3.0),
        (b"/a/x", b"text/html", 4.0),  # a rule without types ends the search
        (b"/a/x", None, 4.0),
        (b"/b", b"image/png", 2.0),
        (b"/b", b"text/css", 5.0),
        (b"/b", b"application/json", 1.0),
        (b"/b", None, 1.0),
    ],
)
def test_rules_by_type_hold_in_their_order_with_those_behind(
    target: bytes, content_type: bytes | None, ttl_s: float
) -> None:
    assert ttl(site_of(*TYPED), target, content_type) == ttl_s


def test_a_rule_by_type_changes_nothing_but_caching() -> None:
    site = site_of(*TYPED)
    mixed, own = site.terms_for(asking(b"/b")), site.terms
    assert (mixed.route, mixed.fields, mixed.by) == (own.route, own.fields, own.by)
    assert mixed.cache.freshness == own.cache.freshness  # where no type is known


def test_terms_are_the_same_object_for_requests_of_the_same_rules() -> None:
    site = site_of(*TYPED)
    assert site.terms_for(asking(b"/a/x")) is site.terms_for(asking(b"/a/y"))
    assert site.terms_for(asking(b"/b")) is site.terms_for(asking(b"/c"))
    assert site.terms_for(asking(b"/b")) is not site.terms_for(asking(b"/a/y"))


def test_one_rule_alone_has_the_terms_that_were_made_for_it() -> None:
    site = site_of('site.rule=[{match={path="/a/*"}}]')
    assert site.terms_for(asking(b"/a/x")) is site.rules[0].terms
    assert site.terms_for(asking(b"/b")) is site.terms
    assert site.rules_for(asking(b"/a/x")) == site.rules
    assert site.rules_for(asking(b"/b")) == ()


def test_what_is_mixed_is_bounded() -> None:
    rules = ",".join(
        f'{{match={{header={{x{n}="1"}},content_type=["image/*"]}},cache={{ttl="{n + 1}s"}}}}'
        for n in range(9)
    )
    site = site_of(f"site.rule=[{rules}]")
    for number in range(2 * MOST_MIXED):
        fields = [(b"x%d" % n, b"1") for n in range(9) if number >> n & 1]
        terms = site.terms_for(asking(b"/", *fields))
        first = next((n for n in range(9) if number >> n & 1), None)
        png = terms.cache.of_answer(Headers([(b"content-type", b"image/png")]))
        assert png.freshness.ttl_s == (None if first is None else first + 1)
        assert len(site._mixed) <= MOST_MIXED


@pytest.mark.parametrize(
    ("sets", "needed"),
    [
        ((), False),
        (('site.rule=[{match={path="/a"}}]',), False),
        (('site.rule=[{match={country=["DE"]}}]',), True),
        (('site.rule=[{match={continent=["EU"]}}]',), True),
        (('site.place=["country"]',), True),
        (('site.key.place=["continent"]',), True),
        (('site.route={nearest=["default"]}',), False),  # asked where the origin is chosen
    ],
)
def test_a_place_is_looked_up_only_where_it_matters(
    sets: tuple[str, ...], *, needed: bool
) -> None:
    assert site_of("node.geo=x.mmdb", *sets).needs_place is needed


def test_an_experiment_may_be_for_a_place() -> None:
    armed = site_of(
        'site.experiment=[{name="e",cookie={name="c"},arms={x={weight=1},y={weight=1}}}]'
    )
    assert not armed.needs_place
    (experiment,) = armed.experiments
    abroad = replace(experiment, takes=Match(countries=frozenset({"FR"})))
    assert replace(armed, experiments=(abroad,)).needs_place


def test_a_rule_may_ask_for_the_place() -> None:
    site = site_of("node.geo=x.mmdb", 'site.rule=[{match={country=["DE"]},cache={ttl="2s"}}]')
    assert site.terms_for(asking(), Place("DE", "EU")).cache.freshness.ttl_s == 2.0
    assert site.terms_for(asking(), Place("FR", "EU")) is site.terms
    assert site.terms_for(asking()) is site.terms


# What of the rules is in the key.

MATCHES: Final = st.sampled_from(
    [
        "{}",
        '{path="/a/*"}',
        '{header={x-v="1"}}',
        '{path="/a/*",cookie={v="1"}}',
        '{methods=["GET"]}',
    ]
)
CHANGES: Final = st.sampled_from(
    ["", 'route={first=["beta"]}', 'route={first=["default"]}', 'rewrite={add="/r"}',
     'rewrite={add="/s"}', 'request={set={X-R="1"}}', 'cache={ttl="1s"}', 'route={pool=["beta"]}'],
)  # fmt: skip
RULES: Final = st.lists(st.tuples(MATCHES, CHANGES), max_size=4)
SENDERS: Final = (
    (), ((b"x-v", b"1"),), ((b"cookie", b"v=1"),), ((b"x-v", b"1"), (b"cookie", b"v=1")),
)  # fmt: skip


PLAIN: Final = parts_of(TWO)


@given(RULES, st.sampled_from([b"/a/x", b"/b"]))
def test_requests_for_one_url_share_a_key_only_where_the_origin_is_asked_the_same(
    rules: list[tuple[str, str]], target: bytes
) -> None:
    written = ",".join(f"{{match={match}{',' + what if what else ''}}}" for match, what in rules)
    parts = parts_of(TWO, f"site.rule=[{written}]")
    of_key: dict[bytes, set[object]] = {}
    for fields in SENDERS:
        made = admit(parts, asking(target, *fields), b"192.0.2.1")
        terms = made.terms
        what = terms.route.names, terms.route.order, made.asked, terms.edits
        of_key.setdefault(made.key.digest, set()).add(what)
    assert all(len(each) == 1 for each in of_key.values())


@given(RULES, st.sampled_from([b"/a/x", b"/b"]))
def test_who_is_asked_as_without_rules_is_keyed_as_without_rules(
    rules: list[tuple[str, str]], target: bytes
) -> None:
    written = ",".join(f"{{match={match}{',' + what if what else ''}}}" for match, what in rules)
    parts, plain = parts_of(TWO, f"site.rule=[{written}]"), PLAIN
    for fields in SENDERS:
        made = admit(parts, asking(target, *fields), b"192.0.2.1")
        site = made.site.terms
        own = (site.route, site.edits, site.rewrite)
        if (made.terms.route, made.terms.edits, made.terms.rewrite) == own:
            assert made.key == admit(plain, asking(target, *fields), b"192.0.2.1").key


def test_a_rule_that_changes_nothing_does_not_hide_one_that_does() -> None:
    parts = parts_of(
        TWO,
        'site.rule=[{match={cookie={vip="1"}},cache={ttl="1s"}},'
        '{match={path="/a/*"},route={first=["beta"]}}]',
    )
    vip = admit(parts, asking(b"/a/x", (b"cookie", b"vip=1")), b"192.0.2.1")
    rest = admit(parts, asking(b"/a/x"), b"192.0.2.1")
    assert (vip.terms.route.names, rest.terms.route.names) == (("default",), ("beta",))
    assert vip.key.url == rest.key.url
    assert vip.key != rest.key


def test_rules_that_the_url_tells_apart_are_not_in_the_key() -> None:
    parts = parts_of(TWO, 'site.rule=[{match={path="/a/*"},route={first=["beta"]}}]')
    assert admit(parts, asking(b"/a/x"), b"192.0.2.1").by == b""


def test_a_site_of_no_settings_asks_nobody() -> None:
    site = Site(name="x", key=site_of().key, terms=Terms(), rules=(Rule(Match(), Terms()),))
    assert site.terms_for(asking()).route.names == ()


@pytest.mark.parametrize(
    ("sets", "splits"),
    [
        ((), False),
        (("site.query={sort=true}",), False),
        (('site.key.cookies=["lang"]',), True),
        (('site.key.headers=["x-d"]',), True),
        (('site.rule=[{match={path="/a/*"},rewrite={add="/r"}}]',), False),
        (('site.rule=[{match={methods=["POST"]},rewrite={add="/r"}}]',), True),
        (('site.rule=[{match={cookie={v="1"}},rewrite={add="/r"}}]',), True),
    ],
)
def test_a_write_has_to_look_for_other_keys_where_a_url_may_have_several(
    sets: tuple[str, ...], splits: bool
) -> None:
    site = parts_of(*sets).sites.find(b"a")
    assert site is not None
    assert site.splits_keys is splits


@pytest.mark.parametrize("what", ['rewrite={add="/api"}', 'request={set={X-R="1"}}'])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_rule_by_method_keeps_what_it_asks_for_from_other_methods(
    method: bytes, what: str
) -> None:
    """A stored answer to POST, or what a HEAD hears, is else taken for that of another page."""
    rule = f'site.rule=[{{match={{methods=["{method.decode()}"]}},{what}}}]'
    parts = parts_of("cache.store_post=true", rule)
    keys = {
        each: admit(parts, replace(asking(b"/a"), method=each), b"192.0.2.1").key
        for each in (b"GET", b"POST", b"HEAD")
    }
    others = {key for each, key in keys.items() if each != method}
    assert keys[method] not in others
    assert len({key.url for key in keys.values()}) == 1
