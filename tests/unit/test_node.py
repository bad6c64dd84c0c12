from __future__ import annotations

from edge.admission import admit
from edge.config import for_proxy
from edge.node import EDGE, parts


def test_an_edge_is_made_of_its_settings() -> None:
    told = ["node.name=fra1", 'node.trusted_proxies=["10.0.0.0/8"]']
    config = for_proxy(["127.0.0.1:0"], "http://a.example", hostname="h", sets=told)
    made = parts(config, {}, b"salt")
    assert (made.name, made.salt) == (b"fra1", b"salt")
    assert made.trusted.trusts(b"10.1.2.3")
    site = made.sites.find(b"any.example")
    assert site is not None
    assert site.origin == "default"


def test_an_edge_admits_whoever_asks_and_remembers_what_they_asked() -> None:
    config = for_proxy(["127.0.0.1:0"], "http://a.example", hostname="h")
    made = parts(config, {}, b"")
    assert made.admit is admit
    assert made.remembers
    assert EDGE.program == "edge"
