from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge.config import LimitsSettings
from edge.config.notation import SecretSettings
from edge.settings import SettingsError
from edge.wire.proof import MOST_BYTES as PROOF_BYTES
from origin_shield.config import NOT_A_SHIELDS, STALE_S, load_shield, rows, shield_proxy

if TYPE_CHECKING:
    from collections.abc import Iterable

GOOD = """
[node]
listen = ["127.0.0.1:0"]
[origin.a]
servers = ["http://127.0.0.1:1"]
[[site]]
hosts = ["*"]
route = { first = ["a"] }
[edges]
secret = { env = "SECRET" }
"""
PROXY = (["127.0.0.1:0"], "http://127.0.0.1:1", {"file": "/run/secret"})


def faults(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_shield(text, hostname="h")
    return [fault.at("f") for fault in caught.value.faults]


def paths(told: Iterable[str]) -> list[str]:
    return [each.split(": ")[1] for each in told]


def test_a_shield_is_told_what_an_edge_is_told_and_which_edges() -> None:
    config = load_shield(GOOD, hostname="h")
    assert config.node.name.startswith("shield-")
    assert config.edges.all_secrets == (("edges.secret", SecretSettings(env="SECRET")),)
    assert (config.edges.skew, config.edges.networks) == (60.0, ())


def test_while_edges_go_over_to_another_secret_several_count() -> None:
    text = GOOD + 'secrets = [{ file = "/a" }, { env = "B" }]\n'
    told = load_shield(text, hostname="h").edges.all_secrets
    assert [path for path, _ in told] == ["edges.secret", "edges.secrets[0]", "edges.secrets[1]"]


def test_what_is_stale_is_kept_for_long_unless_it_is_said_otherwise() -> None:
    config = load_shield(GOOD, hostname="h")
    assert config.cache.max_stale == config.sites[0].cache.max_stale == STALE_S
    config = load_shield(f"{GOOD}\n[cache]\nttl = '1s'", hostname="h")
    assert (config.cache.max_stale, config.sites[0].cache.ttl) == (STALE_S, 1.0)
    config = load_shield(f"{GOOD}\n[cache]\nmax_stale = '1h'", hostname="h")
    assert config.sites[0].cache.max_stale == 3_600.0


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("", "edges.secret: is missing"),
        ('secret = { env = "A", file = "/b" }', 'edges.secret: write { env = "NAME" } or'),
        ("secret = {}", 'edges.secret: write { env = "NAME" } or'),
        ('secret = { env = "a b" }', 'edges.secret.env: "a b" is not the name of a variable'),
        ('secret = "hunter2"', "edges.secret: is not a table; write secret = { … }"),
        ('secrets = ["hunter2"]', "edges.secrets[0]: is not a table"),
        ('secrets = "hunter2"', "edges.secrets: is not a list"),
        ('secret = { env = "A" }\nskew = "11m"', "edges.skew"),
    ],
)
def test_a_secret_stands_elsewhere(secret: str, message: str) -> None:
    told = "\n".join(faults(GOOD.replace('secret = { env = "SECRET" }', secret)))
    assert message in told
    assert "hunter2" not in told


def test_what_is_not_a_shields_is_refused_with_its_line_and_its_way_out() -> None:
    text = GOOD.replace("[node]", '[node]\ntrusted_proxies = ["10.0.0.0/8"]')
    text = text.replace("[[site]]", '[[site]]\npurge_from = ["unix"]')
    told = faults(f"{text}nothing = 1\n[shield]\nnodes = []")
    assert paths(told) == [
        "node.trusted_proxies",
        "sites[0].purge_from",
        "edges.nothing",
        "shield",
    ]
    assert told[0].startswith("f:3: ")
    assert "list their networks in edges.networks" in told[0]
    assert told[1].startswith("f:8: ")


def test_the_reference_tells_what_a_shield_can_be_told() -> None:
    told = {row.path for row in rows()}
    assert {"edges.secret.env", "edges.networks", "cache.max_stale", "store.dir"} <= told
    assert not told & NOT_A_SHIELDS.keys()


def test_a_shield_can_do_without_a_file() -> None:
    config = shield_proxy(
        *PROXY,
        hostname="h",
        options={"store.memory": "1MiB", "store.dir": None},
        sets=["edges.skew=5s", "site.cache.ttl=7s"],
    )
    assert config.edges.secret is not None
    assert str(config.edges.secret.file) == "/run/secret"
    assert (config.store.memory, config.edges.skew) == (1 << 20, 5.0)
    assert config.sites[0].cache.ttl == 7.0
    with pytest.raises(SettingsError, match="is not a shield's"):
        shield_proxy(*PROXY, hostname="h", sets=["node.trusted_proxies=[]"])


def test_a_file_without_a_table_for_edges_is_refused() -> None:
    assert "edges: missing" in faults(GOOD.split("[edges]")[0])[0]
    assert faults("node = 1\nsite = 2\n[edges]")


def test_what_an_edge_lets_in_fits_a_shield_with_what_the_edge_adds() -> None:
    """It adds its proof, hops, the client's place, an arm's fields, and what a rewrite adds."""
    edge, own = LimitsSettings(), load_shield(GOOD, hostname="h").limits
    assert own.fields >= edge.fields + 32
    assert own.target >= edge.target + 1024
    assert own.head >= edge.head + PROOF_BYTES + own.target
    assert own.response_head == edge.response_head
    told = load_shield(f"{GOOD}\n[limits]\nfields = 50", hostname="h").limits
    assert (told.fields, told.head) == (50, own.head)
