from __future__ import annotations

from edge.cache.key import forwarded_target
from edge.config import Config, for_proxy, policies
from edge.guard.address import parse_ip
from edge.listen.connection import ConnectionPolicy
from edge.wire.grammar import RESPONSE_LIMITS, Limits
from edge.wire.message import RequestHead


def config(*sets: str) -> Config:
    return for_proxy(["127.0.0.1:0"], "http://[::1]:3000", hostname="h", sets=sets)


def test_the_defaults_are_those_of_the_policies() -> None:
    assert policies.connection_policy(config()) == ConnectionPolicy()
    assert policies.request_limits(config()) == Limits()
    assert policies.response_limits(config()) == RESPONSE_LIMITS


def test_a_site_has_its_key_its_rules_and_its_fields() -> None:
    site = policies.sites(
        config(
            'site.query={drop=["utm_*"],sort=true}',
            'site.key={cookies=["a"]}',
            'site.headers={keep=["server"],remove=["x-b"],set={X-A="1"}}',
            'site.rule=[{match={path="/s/*.css"},cache={ttl="1d"}},{match={path="/x"}}]',
        )
    ).find(b"any.example")
    assert site is not None
    assert (site.key.query_drop, site.key.query_sort) == ((b"utm_*",), True)
    assert site.key.cookies == (b"a",)
    assert site.terms.fields.remove == {b"x-powered-by", b"x-b"}
    assert site.terms.fields.put == ((b"x-a", b"1"),)
    styles, exact = (rule.terms.cache for rule in site.rules)
    assert (styles.by_path, styles.by_extension) == (True, b"css")
    assert (exact.by_path, exact.by_extension) == (False, None)
    assert styles.freshness.ttl_s == 86_400.0


def test_a_site_and_its_rules_take_tags_from_the_fields_that_the_site_names() -> None:
    site = policies.sites(
        config('site.tags=["X-Cache-Tags", "xkey"]', 'site.rule=[{match={path="/x"}}]')
    ).find(b"any.example")
    assert site is not None
    assert site.terms.cache.tags == site.rules[0].terms.cache.tags == (b"x-cache-tags", b"xkey")
    assert site.terms.fields.remove == {b"server", b"x-powered-by"}


def test_a_site_without_a_word_takes_the_usual_tags_and_lets_nobody_purge() -> None:
    site = policies.sites(config()).find(b"any.example")
    assert site is not None
    assert site.terms.cache.tags == (b"surrogate-key", b"cache-tag", b"xkey")
    assert not site.purge_from
    assert site.purge_reach == "host"


def test_a_site_may_take_no_tags_at_all() -> None:
    site = policies.sites(config("site.tags=[]")).find(b"any.example")
    assert site is not None
    assert site.terms.cache.tags == ()


def test_tags_are_stripped_by_name_along_with_what_else_is_removed() -> None:
    site = policies.sites(
        config('site.tags=["Cache-Tag"]', "site.strip_tags=true", 'site.headers={remove=["x-b"]}')
    ).find(b"any.example")
    assert site is not None
    assert site.terms.fields.remove == {b"server", b"x-powered-by", b"x-b", b"cache-tag"}


def test_who_may_purge_is_a_set_of_networks() -> None:
    site = policies.sites(
        config('site.purge_from=["10.0.0.0/8", "unix"]', "site.purge_reach=node")
    ).find(b"any.example")
    assert site is not None
    assert parse_ip(b"10.1.1.1") in site.purge_from
    assert site.purge_from.trusts(b"unix")
    assert site.purge_reach == "node"


def test_the_first_rule_that_takes_a_request_has_the_say_else_the_site() -> None:
    site = policies.sites(
        config(
            "site.cache.ttl=1s",
            'site.rule=[{match={path="/s/*"},cache={ttl="2s"}},'
            '{match={methods=["GET"],path="/s/*"},cache={ttl="3s"}},'
            '{match={hosts=["*.b.example"]},cache={ttl="4s"}}]',
        )
    ).find(b"a.example")
    assert site is not None
    told = {
        (host, target): site.terms_for(
            RequestHead(b"GET", b"http", host, target)
        ).cache.freshness.ttl_s
        for host in (b"a.example", b"x.b.example")
        for target in (b"/", b"/s/a?b")
    }
    assert list(told.values()) == [1.0, 2.0, 4.0, 2.0]


def test_a_site_without_rules_has_its_own_terms() -> None:
    site = policies.sites(config("site.cache.ttl=1s")).find(b"a.example")
    assert site is not None
    assert site.terms_for(RequestHead(b"GET", b"http", b"a", b"/")) is site.terms


def test_a_site_without_query_rules_keeps_the_whole_query() -> None:
    site = policies.sites(config()).find(b"any.example")
    assert site is not None
    assert forwarded_target(b"/a?b=1&c=2", site.key) == b"/a?b=1&c=2"


def test_a_site_may_keep_named_parameters_only() -> None:
    site = policies.sites(config('site.query={keep=["b"]}')).find(b"any.example")
    assert site is not None
    assert forwarded_target(b"/a?b=1&c=2", site.key) == b"/a?b=1"


def test_trusted_proxies_are_a_set_of_networks() -> None:
    networks = policies.trusted(config('node.trusted_proxies=["10.0.0.0/8"]'))
    assert parse_ip(b"10.1.1.1") in networks
