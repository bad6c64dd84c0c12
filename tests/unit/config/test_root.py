from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge.config import Address, Config, for_proxy, load_config
from edge.config.root import node_name
from edge.settings import SettingsError, assign, bind, parse, reference, render

if TYPE_CHECKING:
    from edge.settings.text import Row

GOOD = """
[node]
name = "fra1"
listen = ["0.0.0.0:80", "[::]:80"]
trusted_proxies = ["10.0.0.0/8", "unix"]
[store]
dir = "/var/cache/edge"
disk = "200GiB"
[cache]
max_stale = "2h"
[origin.eu]
servers = ["https://eu.example:8443"]
timeouts = { connect = "250ms" }
[[site]]
hosts = ["shop.example", "*.shop.example"]
route = { first = ["eu"] }
query = { drop = ["utm_*", "gclid"] }
headers = { set = { "Strict-Transport-Security" = "max-age=1" }, remove = ["X-A"] }
cache = { ttl = "10m" }
tags = ["Surrogate-Key", "Cache-Tag", "xkey"]
strip_tags = true
purge_from = ["10.0.0.0/8"]
purge_reach = "node"
[[site.rule]]
match = { path = "/static/*" }
cache = { ttl = "1d", stale_while_revalidate = "1m" }
[[site.rule]]
match = { path = "/live/*" }
cache = { ttl = "none", bypass = true }
[[site]]
hosts = ["docs.example"]
route = { first = ["eu"] }
"""
CASES = tomllib.loads(
    (Path(__file__).parents[2] / "vectors" / "settings_faults.toml").read_text("utf-8")
)["case"]


def faults_of(table: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        bind(Config, table, {})
    return [str(fault) for fault in caught.value.faults]


def good(**rest: str) -> Config:
    return load_config(GOOD, hostname="host")


def test_a_good_file_gives_every_value_in_its_unit() -> None:
    config = good()
    assert config.node.listen == (Address("0.0.0.0", 80), Address("::", 80))
    assert config.store.disk == 200 * 2**30
    assert config.origins["eu"].timeouts.connect == 0.25
    assert config.sites[0].query.drop == ("utm_*", "gclid")
    assert config.sites[0].tags == ("surrogate-key", "cache-tag", "xkey")
    assert config.sites[0].purge_from == ("10.0.0.0/8",)


def test_a_rule_inherits_from_its_site_and_the_site_from_the_node() -> None:
    shop, docs = good().sites
    static, live = shop.rules
    assert (static.cache.ttl, static.cache.max_stale) == (86_400.0, 7_200.0)
    assert (live.cache.ttl, live.cache.bypass) == (None, True)
    assert (shop.cache.ttl, docs.cache.ttl) == (600.0, None)


def test_what_is_rendered_reads_back_the_same() -> None:
    assert load_config(render(good()), hostname="other") == good()


def test_a_node_without_a_name_has_one_of_its_own_that_a_restart_does_not_change() -> None:
    assert node_name("host", ["127.0.0.1:80"]) == node_name("host", ["127.0.0.1:80"])
    assert node_name("host", ["127.0.0.1:80"]) != node_name("host", ["127.0.0.1:81"])
    assert node_name("host", ["127.0.0.1:80"]) != node_name("other", ["127.0.0.1:80"])
    assert "host" not in node_name("host", None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["set"]))
def test_a_fault_is_told_with_path_value_and_way_out(case: dict[str, str]) -> None:
    table = parse(GOOD)
    table["site"] = table["site"][:1]
    key, _, value = case["set"].partition("=")
    assign(table, key, value)
    assert any(case["tells"] in fault for fault in faults_of(table))


def test_every_fault_is_told_at_once_each_with_its_line() -> None:
    text = GOOD.replace('"2h"', '"2 hours"').replace('["docs.example"]', '["shop.example"]')
    text = text.replace('match = { path = "/live/*" }', "")
    with pytest.raises(SettingsError) as caught:
        load_config(text, hostname="host")
    told = [(fault.line, fault.path) for fault in caught.value.faults]
    assert told == [
        (10, "cache.max_stale"),
        (27, "sites[0].rules[1].match"),
        (31, "sites[1].hosts[0]"),
    ]
    assert caught.value.faults[0].at("edge.toml") == (
        'edge.toml:10: cache.max_stale: "2 hours" is not a duration; try "2h"'
    )


def test_what_is_not_built_is_refused_and_nothing_else() -> None:
    text = """
[node]
listen = ["0.0.0.0:80"]
geo = "x.mmdb"
[[tls]]
listen = ["0.0.0.0:443"]
[fleet]
bus = { env = "X" }
[shield]
nodes = ["https://s"]
secret = { env = "X" }
[origin.eu]
servers = ["https://a", "https://b"]
check = { path = "/" }
[[site]]
hosts = ["shop.example"]
route = { nearest = ["eu"], via = "shield" }
"""
    with pytest.raises(SettingsError) as caught:
        load_config(text, hostname="h")
    assert [fault.path for fault in caught.value.faults] == ["tls", "fleet"]


def test_an_empty_file_names_what_is_missing() -> None:
    with pytest.raises(SettingsError) as caught:
        load_config("", hostname="h")
    assert [str(fault).partition(":")[0] for fault in caught.value.faults] == [
        "node", "origin", "sites",
    ]  # fmt: skip


def proxy(*sets: str, **options: str) -> Config:
    return for_proxy(
        ["127.0.0.1:0"], "http://127.0.0.1:3000", hostname="h", options=options, sets=sets
    )


def test_a_proxy_needs_no_file() -> None:
    config = for_proxy(
        ["127.0.0.1:8080"],
        "http://127.0.0.1:3000",
        hostname="h",
        options={"store.dir": "/s", "store.memory": None},
        sets=["cache.max_stale=1h", "limits.request_body=10MiB", "site.cache.ttl=5s"],
    )
    assert config.store.dir == Path("/s")
    assert config.limits.request_body == 10 * 2**20
    assert (config.cache.ttl, config.sites[0].cache.ttl) == (None, 5.0)
    assert config.sites[0].cache.max_stale == 3_600.0


def test_a_set_takes_toml_or_bare_text() -> None:
    config = proxy("node.trusted_proxies=['10.0.0.0/8']", "cache.heuristic=false", "node.name=a")
    assert config.node.trusted_proxies == ("10.0.0.0/8",)
    assert (config.cache.heuristic, config.node.name) == (False, "a")


@pytest.mark.parametrize(
    "bad", ["", "=", "site.9.cache.ttl=1s", "node.name.x=1", "a.b.c.d.e.f.g.h.i.j=1", "x=1"]
)
def test_a_set_that_names_nothing_is_refused(bad: str) -> None:
    with pytest.raises(SettingsError):
        proxy(bad)


SHIELDED = 'shield={nodes=["http://s"],secret={env="A"}}'
BY_SHIELD = 'site.route={first=["default"],via="shield"}'


@pytest.mark.parametrize("name", ["Authorization", "cookie"])
@pytest.mark.parametrize(
    ("sets", "path"),
    [
        ('site.request={{set={{{}="x"}}}}', "sites[0].request.set"),
        ('site.rule=[{{match={{path="/a"}},request={{set={{{}="x"}}}}}}]',
         "sites[0].rules[0].request.set"),
        ('site.experiment=[{{name="e",cookie={{name="c"}},'
         'arms={{x={{weight=1}},y={{weight=1,header={{{}="x"}}}}}}}}]',
         "sites[0].experiments[0].arms.y.header"),
    ],
)  # fmt: skip
def test_what_would_keep_a_shield_from_storing_is_the_shields_to_set(
    name: str, sets: str, path: str
) -> None:
    """It would take all that it is asked for one visitor's private affair."""
    told = sets.format(name)
    for_proxy(["127.0.0.1:0"], "http://a", hostname="h", sets=[told, SHIELDED])
    with pytest.raises(SettingsError) as caught:
        for_proxy(["127.0.0.1:0"], "http://a", hostname="h", sets=[told, SHIELDED, BY_SHIELD])
    (fault,) = caught.value.faults
    assert fault.path == path
    assert fault.message == "keeps the shield from storing; set it in the shield's own settings"
    for_proxy(
        ["127.0.0.1:0"], "http://a", hostname="h",
        sets=[sets.format("x-key"), SHIELDED, BY_SHIELD],
    )  # fmt: skip


def test_a_shields_settings_are_sent_to_the_shields_program() -> None:
    with pytest.raises(SettingsError) as caught:
        load_config(GOOD + '[edges]\nsecret = { env = "A" }\n', hostname="host")
    (fault,) = caught.value.faults
    assert fault.path == "edges"
    assert "these are a shield's settings; give them to origin-shield" in str(fault)


JUNK = ["-1", "0", "true", '"x"', '""', "[]", "[-1]", '["x", "x"]', "[[]]", "{}", "{x=1}", "1e99"]


@pytest.mark.parametrize("row", list(reference(Config)), ids=lambda row: row.path)
def test_no_value_of_a_setting_raises_anything_else(row: Row) -> None:
    for value in JUNK:
        with suppress(SettingsError):
            for_proxy(["127.0.0.1:0"], "http://o", hostname="h", sets=[f"{row.path}={value}"])
