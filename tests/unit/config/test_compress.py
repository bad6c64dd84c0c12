"""What is told of content codings, and what becomes of it."""

from __future__ import annotations

import pytest

from edge.coding.negotiate import Coding
from edge.coding.policy import CompressPolicy
from edge.config import for_proxy, policies
from edge.settings import SettingsError


def policy_of(told: str) -> object:
    config = for_proxy(["127.0.0.1:0"], "http://o.example", hostname="h", sets=[told])
    site = policies.sites(config).find(b"site.example")
    assert site is not None
    return site.terms.compress


def test_without_the_table_nothing_is_compressed() -> None:
    assert policy_of("site.tags=[]") is None


def test_an_empty_table_is_enough() -> None:
    policy = CompressPolicy(dictionaries=False)
    assert policy_of("site.compress={}") == policy


def test_what_is_told_is_gone_by() -> None:
    told = 'site.compress={codings=["br"], min="1KiB", max="2KiB", types=["text/*"], ask="coded"}'
    policy = policy_of(told)
    assert isinstance(policy, CompressPolicy)
    assert policy.codings == (Coding.BR,)
    assert (policy.min_bytes, policy.most_bytes, policy.ask) == (1024, 2048, "coded")
    assert policy.types.takes(b"text/css")
    assert not policy.types.takes(b"application/json")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ('codings=["br", "br"]', "names one twice"),
        ('codings=["deflate"]', "codings"),
        ("codings=[]", "too few"),
        ('min="2KiB", max="1KiB"', "is more than max"),
        ('types=["text"]', "is not a media type"),
        ('ask="gzip"', "ask"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_words(told: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        policy_of(f"site.compress={{{told}}}")
    assert says in str(caught.value)


def test_rules_compress_as_their_site_does() -> None:
    config = for_proxy(
        ["127.0.0.1:0"],
        "http://o.example",
        hostname="h",
        sets=["site.compress={}", 'site.rule=[{match={path="/x"}, cache={ttl="1s"}}]'],
    )
    site = policies.sites(config).find(b"site.example")
    assert site is not None
    assert site.rules[0].terms.compress is site.terms.compress is not None
